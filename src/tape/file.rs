//! A recording as a file.
//!
//! Numbers are unsigned, seven bits a byte, low bits first, the high bit set on
//! all but the last byte; checksums are CRC-32 (IEEE), four bytes, low first.
//!
//! ```text
//! file    = "tbreaker" version=1 header crc { block } 0 crc
//! header  = born seed taken dropped-calls dropped-refusals name-length name
//! block   = length base records crc             length of the records, > 0
//! record  = step×8+outcome duration             a call; latency = duration
//!         | step×8+4 flags duration [latency] [ties] [hint-after hint-for] [head]
//!         | step×8+5                            a refusal
//!         | step×8+6 ago from to length cause   a change of state
//! ```
//!
//! `born` is nanoseconds since 1970, `seed` what the jitter was drawn from,
//! every other time nanoseconds since the circuit was made: `base`, and from
//! there a `step` to each record. Outcomes: 0 success, 1 failure, 2 ignored,
//! 3 dropped; states: 0 closed, 1 open, 2 half-open; flags: the outcome, 4 if a
//! latency follows, 8 if there is none, 16 ties, 32 hint, 64 when the head of
//! the response came, if that is not the latency. A header's checksum is over
//! its bytes, a block's over its base and records, the last over the checksums
//! before it: a length that was damaged into a zero is no end.

use std::{
    error::Error,
    fmt,
    io::{self, Read, Write},
};

use super::{Block, Origin, Recording, Sums, record};

const MAGIC: &[u8; 8] = b"tbreaker";
const VERSION: u8 = 1;
/// What a name of a circuit may have.
const LONGEST_NAME: u64 = 64;
const LARGEST_BLOCK: u64 = 1 << 20;

impl Recording {
    /// Writes it as a file of format 1, which later versions of this crate
    /// read. A block at a time, so the writer needs no buffer.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        let mut out = Vec::from(MAGIC);
        out.push(VERSION);
        let mut header = Vec::new();
        let Origin { name, born, seed } = &self.origin;
        let length = name.len() as u64;
        for number in [*born, *seed, self.taken, self.dropped.calls, self.dropped.refusals, length]
        {
            record::number(&mut header, number);
        }
        header.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&header);
        let mut checksums = Vec::from(checksum(&[&header]).to_le_bytes());
        out.extend_from_slice(&checksums);
        to.write_all(&out)?;
        for block in &self.blocks {
            let mut base = Vec::new();
            record::number(&mut base, block.base);
            out.clear();
            record::number(&mut out, block.bytes.len() as u64);
            out.extend_from_slice(&base);
            out.extend_from_slice(&block.bytes);
            let checksum = checksum(&[&base, &block.bytes]).to_le_bytes();
            checksums.extend(checksum);
            out.extend(checksum);
            to.write_all(&out)?;
        }
        to.write_all(&[0])?;
        to.write_all(&checksum(&[&checksums]).to_le_bytes())?;
        to.flush()
    }

    /// Reads one from a file, and stops behind it.
    ///
    /// Reads a block at a time, so the reader needs no buffer, and takes up
    /// memory only for what has come; `Read::take` bounds that.
    ///
    /// # Errors
    ///
    /// If the reader fails, or what it reads is no recording, or a damaged one,
    /// or of a later format. The error says at which byte.
    pub fn read_from(from: impl Read) -> Result<Self, RecordingError> {
        let mut from = Reader { from, offset: 0, checksums: Vec::new() };
        let mut magic = [0; 9];
        from.fill(&mut magic)?;
        if !magic.starts_with(MAGIC) {
            return Err(RecordingError::wrong(0, "it does not begin as a recording does"));
        }
        if magic[8] != VERSION {
            return Err(RecordingError::wrong(8, "it is of a format this version does not know"));
        }
        let mut recording = from.header()?;
        let mut last = 0;
        while let Some(block) = from.block(&mut last)? {
            recording.blocks.push(block);
        }
        if last > recording.taken {
            return Err(from.wrong("it goes on after it was taken"));
        }
        Ok(recording)
    }
}

/// A recording that could not be read: why, and at which byte.
///
/// ```
/// use tower_breaker::Recording;
///
/// let error = Recording::read_from(&b"GIF89a---"[..]).unwrap_err();
/// assert_eq!(error.to_string(), "at byte 0: it does not begin as a recording does");
/// assert_eq!(error.offset(), 0);
/// ```
#[derive(Debug)]
pub struct RecordingError {
    offset: u64,
    what: &'static str,
    source: Option<io::Error>,
}

impl RecordingError {
    fn wrong(offset: u64, what: &'static str) -> Self {
        Self { offset, what, source: None }
    }

    /// The byte at which it was found, from the start.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.what)
    }
}

impl Error for RecordingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Counts what it reads.
struct Reader<From> {
    from: From,
    offset: u64,
    /// Those it has come by.
    checksums: Vec<u8>,
}

impl<From: Read> Reader<From> {
    fn header(&mut self) -> Result<Recording, RecordingError> {
        let mut read = Vec::new();
        let mut numbers = [0; 6];
        for number in &mut numbers {
            *number = self.number(&mut read)?;
        }
        let [born, seed, taken, calls, refusals, length] = numbers;
        if length > LONGEST_NAME {
            return Err(self.wrong("the name is longer than 64 bytes"));
        }
        // At most 64.
        let name = self.bytes(length as usize)?;
        read.extend_from_slice(&name);
        self.checksum(&[&read])?;
        let name = String::from_utf8(name).map_err(|_| self.wrong("the name is not text"))?;
        let origin = Origin { name, born, seed };
        Ok(Recording::new(origin, taken, Sums { calls, refusals }, Vec::new()))
    }

    /// The next block, whose records come no earlier than `last`.
    fn block(&mut self, last: &mut u64) -> Result<Option<Block>, RecordingError> {
        let length = self.number(&mut Vec::new())?;
        if length == 0 {
            let checksums = std::mem::take(&mut self.checksums);
            self.checksum(&[&checksums])?;
            return Ok(None);
        }
        if length > LARGEST_BLOCK {
            return Err(self.wrong("a block is longer than a mebibyte"));
        }
        let mut read = Vec::new();
        let base = self.number(&mut read)?;
        if base < *last {
            return Err(self.wrong("time runs backwards"));
        }
        let start = self.offset;
        // At most a mebibyte.
        let bytes = self.bytes(length as usize)?;
        self.checksum(&[&read, &bytes])?;
        let mut block = Block { base, bytes, sums: Sums::default() };
        *last = block
            .check()
            .map_err(|(offset, what)| RecordingError::wrong(start + offset as u64, what))?;
        Ok(Some(block))
    }

    /// A number, whose bytes are added to `read`.
    fn number(&mut self, read: &mut Vec<u8>) -> Result<u64, RecordingError> {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let mut byte = [0];
            self.fill(&mut byte)?;
            read.extend(byte);
            let is_last = record::grow_number(&mut number, shift, byte[0]);
            if is_last.map_err(|what| self.wrong(what))? {
                break;
            }
        }
        Ok(number)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, RecordingError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn checksum(&mut self, over: &[&[u8]]) -> Result<(), RecordingError> {
        let mut said = [0; 4];
        self.fill(&mut said)?;
        if u32::from_le_bytes(said) != checksum(over) {
            return Err(self.wrong("the checksum is wrong: it was damaged"));
        }
        self.checksums.extend(said);
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RecordingError> {
        self.from.read_exact(bytes).map_err(|source| {
            let cut = source.kind() == io::ErrorKind::UnexpectedEof;
            let what = if cut { "it is cut off" } else { "it could not be read" };
            RecordingError { offset: self.offset, what, source: Some(source) }
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn wrong(&self, what: &'static str) -> RecordingError {
        RecordingError::wrong(self.offset, what)
    }
}

/// CRC-32 (IEEE) of several slices in a row.
fn checksum(parts: &[&[u8]]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xEDB8_8320 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    let bytes = parts.iter().flat_map(|part| part.iter());
    // The low byte.
    !bytes.fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_one_it_says() {
        assert_eq!(checksum(&[b"1234", b"56789"]), 0xCBF4_3926);
    }

    /// A file whose checksums are right whatever its blocks hold, so that what
    /// stands behind the checksums is tried too.
    fn signed(blocks: &[(u64, Vec<u8>)]) -> Vec<u8> {
        taken_at(u64::MAX, blocks)
    }

    fn taken_at(taken: u64, blocks: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let blocks = blocks.iter().map(|(base, bytes)| Block {
            base: *base,
            bytes: bytes.clone(),
            sums: Sums::default(),
        });
        let origin = Origin { name: "a".into(), born: 0, seed: 0 };
        let recording = Recording::new(origin, taken, Sums::default(), blocks.collect());
        let mut file = Vec::new();
        recording.write_to(&mut file).unwrap();
        file
    }

    proptest! {
        #[test]
        fn what_is_signed_but_wrong_is_refused_or_whole(
            blocks in proptest::collection::vec(
                (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..4)
        ) {
            let file = signed(&blocks);
            match Recording::read_from(&*file) {
                Err(error) => prop_assert!(error.offset() <= file.len() as u64),
                Ok(read) => {
                    let events = read.events().count();
                    let sums = read.sums();
                    prop_assert!(sums.calls + sums.refusals <= events as u64);
                    let last = read.events().last().map_or(0, |(at, _)| at);
                    prop_assert!(last <= read.taken);
                }
            }
        }
    }

    #[test]
    fn what_began_before_its_circuit_is_refused() {
        // A success 0 ns after 5 that took 6 ns.
        let error = Recording::read_from(&*signed(&[(5, vec![0, 6])])).unwrap_err();
        assert!(error.to_string().ends_with("something began before its circuit"), "{error}");
        assert!(Recording::read_from(&*signed(&[(5, vec![0, 5])])).is_ok());
    }

    /// A length is believed up to a mebibyte.
    #[test]
    fn a_block_that_says_it_is_huge_is_refused_before_there_is_room_for_it() {
        let mut file = signed(&[]);
        // Without its end: a zero, and a checksum.
        file.truncate(file.len() - 5);
        for length in [LARGEST_BLOCK + 1, 1 << 40, u64::MAX] {
            let mut file = file.clone();
            record::number(&mut file, length);
            let error = Recording::read_from(&*file).unwrap_err();
            assert!(error.to_string().ends_with("longer than a mebibyte"), "{error}");
            assert_eq!(error.offset(), file.len() as u64);
        }
    }

    #[test]
    fn a_length_that_became_a_zero_is_no_end() {
        let (empty, whole) = (signed(&[]), signed(&[(5, vec![0, 5])]));
        let mut damaged = whole;
        damaged[empty.len() - 5] = 0;
        let error = Recording::read_from(&*damaged).unwrap_err();
        assert!(error.to_string().ends_with("it was damaged"), "{error}");
    }

    #[test]
    fn another_format_is_refused() {
        let mut file = signed(&[]);
        file[8] = 2;
        let error = Recording::read_from(&*file).unwrap_err();
        assert_eq!(error.to_string(), "at byte 8: it is of a format this version does not know");
    }

    #[test]
    fn time_does_not_run_backwards() {
        let error = Recording::read_from(&*signed(&[(5, vec![5 | 8]), (5, vec![5])])).unwrap_err();
        assert!(error.to_string().ends_with("time runs backwards"), "{error}");
    }
    #[test]
    fn nothing_comes_after_it_was_taken() {
        // A success 0 ns after 5.
        let ends_at_5 = [(5, vec![0, 5])];
        let error = Recording::read_from(&*taken_at(4, &ends_at_5)).unwrap_err();
        assert!(error.to_string().ends_with("it goes on after it was taken"), "{error}");
        assert!(Recording::read_from(&*taken_at(5, &ends_at_5)).is_ok());
    }

    #[test]
    fn why_a_reader_failed_is_the_source() {
        struct Unplugged;
        impl Read for Unplugged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("unplugged"))
            }
        }
        let error = Recording::read_from((&signed(&[])[..5]).chain(Unplugged)).unwrap_err();
        assert_eq!(error.to_string(), "at byte 0: it could not be read");
        assert_eq!(error.source().unwrap().to_string(), "unplugged");
        assert!(Recording::read_from(&b"GIF89a---"[..]).unwrap_err().source().is_none());
    }
}
