//! Where a caller's requests begin and end, as the bytes have it.
//!
//! The HTTP/1 parser is lenient where leniency is safe for itself: it takes a
//! bare line feed for a line's end, and drops a `Content-Length` beside a
//! `Transfer-Encoding` without telling. A proxy in front may have read the same
//! bytes differently, and then one caller's body is another one's request. So
//! the bytes are followed here too, and what can be read in two ways is told.

/// Follows one connection's bytes from the caller.
#[derive(Debug)]
pub(super) struct Framing {
    part: Part,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Head,
    /// So many bytes more.
    Body(u64),
    ChunkSize,
    /// So many bytes of the chunk, its line's end included.
    Chunk(u64),
    Trailers,
    /// Not HTTP/1 any more, or nothing that could be followed.
    Unknown,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    has_request_line: bool,
    content_length: Option<u64>,
    is_chunked: bool,
    leaves_http: bool,
}

/// The bytes can be read in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// Longer lines than this are not followed; the parser has its own limit.
const LONGEST_LINE: usize = 1 << 20;

impl Framing {
    pub(super) fn new() -> Framing {
        Framing { part: Part::Head, line: Vec::new(), head: Head::default() }
    }

    /// Looks at what came next.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguous> {
        while !bytes.is_empty() {
            bytes = match self.part {
                Part::Unknown => return Ok(()),
                Part::Body(left) => self.skip(bytes, left, Part::Head, Part::Body),
                Part::Chunk(left) => self.skip(bytes, left, Part::ChunkSize, Part::Chunk),
                Part::Head | Part::ChunkSize | Part::Trailers => match self.read_line(bytes) {
                    Ok(rest) => rest,
                    Err(ambiguous) => {
                        self.part = Part::Unknown;
                        return Err(ambiguous);
                    }
                },
            };
        }
        Ok(())
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        next: Part,
        same: fn(u64) -> Part,
    ) -> &'a [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - here as u64;
        self.part = if left == 0 { next } else { same(left) };
        &bytes[here..]
    }

    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Ambiguous> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            if self.line.len() + bytes.len() > LONGEST_LINE {
                return Err(Ambiguous);
            }
            self.line.extend_from_slice(bytes);
            return Ok(&[]);
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.is_empty() {
            self.take_line(line)?;
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(line);
            self.take_line(&whole)?;
        }
        Ok(rest)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let line = line.strip_suffix(b"\r").ok_or(Ambiguous)?;
        if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            return Err(Ambiguous);
        }
        match self.part {
            Part::Head if line.is_empty() && !self.head.has_request_line => {}
            Part::Head if line.is_empty() => {
                self.part = std::mem::take(&mut self.head).body()?;
            }
            Part::Head => self.head.read_line(line)?,
            Part::ChunkSize => {
                self.part = match chunk_size(line)? {
                    0 => Part::Trailers,
                    size => Part::Chunk(size.checked_add(2).ok_or(Ambiguous)?),
                };
            }
            Part::Trailers if line.is_empty() => self.part = Part::Head,
            _ => {}
        }
        Ok(())
    }
}

impl Head {
    fn read_line(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        if !self.has_request_line {
            self.has_request_line = true;
            self.leaves_http = line.starts_with(b"CONNECT ");
            return Ok(());
        }
        if matches!(line[0], b' ' | b'\t') {
            return Err(Ambiguous);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Ambiguous)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // By length first: this looks at every header of every request.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.content_length.is_some() {
                    return Err(Ambiguous);
                }
                self.content_length = Some(content_length(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Ambiguous);
                }
                self.is_chunked = true;
            }
            // Asks for HTTP/2 on the side: never granted, and HTTP/1 goes on.
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.leaves_http |= !value.eq_ignore_ascii_case(b"h2c");
            }
            _ => {}
        }
        Ok(())
    }

    fn body(self) -> Result<Part, Ambiguous> {
        match (self.content_length, self.is_chunked) {
            (Some(_), true) => Err(Ambiguous),
            _ if self.leaves_http => Ok(Part::Unknown),
            (_, true) => Ok(Part::ChunkSize),
            (None | Some(0), false) => Ok(Part::Head),
            (Some(length), false) => Ok(Part::Body(length)),
        }
    }
}

fn content_length(value: &[u8]) -> Result<u64, Ambiguous> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Ambiguous);
    }
    let digits = std::str::from_utf8(value).map_err(|_| Ambiguous)?;
    digits.parse().map_err(|_| Ambiguous)
}

/// The size that a chunk's first line begins with.
fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let digits = line.iter().position(|byte| *byte == b';').map_or(line, |at| &line[..at]);
    let digits = digits.trim_ascii_end();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Ambiguous);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Ambiguous)?;
    u64::from_str_radix(digits, 16).map_err(|_| Ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict must not depend on how the bytes were cut.
    fn read(bytes: &str) -> Result<Part, Ambiguous> {
        let mut whole = Framing::new();
        let verdict = whole.read(bytes.as_bytes()).map(|()| whole.part);
        for size in 1..bytes.len() {
            let mut cut = Framing::new();
            let again = bytes.as_bytes().chunks(size).try_for_each(|piece| cut.read(piece));
            assert_eq!(again.map(|()| cut.part), verdict, "in pieces of {size}: {bytes:?}");
        }
        verdict
    }

    #[test]
    fn clean_requests_are_followed_to_the_next_head() {
        for bytes in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\0c",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5\r\na\nb\0c\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nx-a: b\r\n\r\n",
            "GET / HTTP/1.1\r\nupgrade: h2c\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(read(bytes), Ok(Part::Head), "{bytes:?}");
        }
        assert_eq!(read("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab"), Ok(Part::Body(3)));
        assert_eq!(read("GET / HTTP/1.1\r\nupgrade: x\r\n\r\n\n\n\n"), Ok(Part::Unknown));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_told() {
        for bytes in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "GET / HTTP/1.1\r\nhost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\n",
        ] {
            assert_eq!(read(bytes), Err(Ambiguous), "{bytes:?}");
        }
    }
}
