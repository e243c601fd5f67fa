//! A tape of what happened to a circuit's calls, in a few bytes each.
//!
//! [`Tape`] is the end that is written, and bounded: it forgets its oldest
//! block when it is full. [`Recording`] is a copy of one, to be kept in a file
//! and read. Neither knows what a candidate would have done: see `replay`.

mod file;
mod record;
mod recording;

use std::collections::VecDeque;

pub use self::{
    file::RecordingError,
    recording::{RecordedChange, Recording},
};
pub(crate) use self::{
    record::{Ended, Event},
    recording::Origin,
};

/// What a recorder writes to. Times are nanoseconds since its circuit was
/// made, and never run backwards.
#[derive(Debug)]
pub(crate) struct Tape {
    blocks: VecDeque<Block>,
    /// What a block may hold, in bytes.
    block_size: usize,
    most_blocks: usize,
    last: u64,
    /// Records written at `last`.
    at_last: u64,
    dropped: Sums,
}

/// A stretch of records that is dropped as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Block {
    /// The time that the first record's step is counted from.
    base: u64,
    bytes: Vec<u8>,
    sums: Sums,
}

/// What some records are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    calls: u64,
    refusals: u64,
}

impl Tape {
    /// The fewest bytes a tape can do with.
    pub(crate) const LEAST: usize = 16 * 1024;

    /// A tape that keeps at most `bytes`, or 16 KiB if that is more.
    pub(crate) fn new(bytes: usize) -> Self {
        const MOST_BLOCKS: usize = 16;
        const LARGEST_BLOCK: usize = 64 * 1024;
        let bytes = bytes.max(Self::LEAST);
        let block_size = (bytes / MOST_BLOCKS).min(LARGEST_BLOCK);
        Self {
            blocks: VecDeque::new(),
            block_size,
            most_blocks: bytes / block_size,
            last: 0,
            at_last: 0,
            dropped: Sums::default(),
        }
    }

    /// Appends what happened at `at`, or at the last record's time if that is
    /// later: two threads may come in the wrong order. Returns the time it was
    /// given.
    pub(crate) fn push(&mut self, at: u64, event: impl FnOnce(u64) -> Event) -> u64 {
        let at = at.clamp(self.last, self.last.saturating_add(record::LONGEST_STEP));
        let event = event(at);
        let step = at - self.last;
        let base = self.last;
        let block = self.block_with_room(base);
        record::encode(&mut block.bytes, step, &event);
        block.sums.count(&event);
        self.at_last = if step == 0 { self.at_last + 1 } else { 1 };
        self.last = at;
        at
    }

    /// How many records were written at this very time.
    pub(crate) fn written_at(&self, at: u64) -> u64 {
        if at == self.last { self.at_last } else { 0 }
    }

    /// A copy of what is still on it.
    pub(crate) fn recording(&self, origin: Origin, taken: u64) -> Recording {
        let blocks = self.blocks.iter().cloned().collect();
        Recording::new(origin, taken.max(self.last), self.dropped, blocks)
    }

    fn block_with_room(&mut self, base: u64) -> &mut Block {
        let has_room =
            |block: &Block| block.bytes.len() + record::LONGEST_RECORD <= self.block_size;
        if !self.blocks.back().is_some_and(has_room) {
            let bytes = self.make_room();
            self.blocks.push_back(Block { base, bytes, sums: Sums::default() });
        }
        let newest = self.blocks.len() - 1;
        &mut self.blocks[newest]
    }

    /// The bytes of a new block: those of the oldest, where there are as many
    /// as there may be.
    fn make_room(&mut self) -> Vec<u8> {
        let oldest =
            if self.blocks.len() < self.most_blocks { None } else { self.blocks.pop_front() };
        let Some(Block { mut bytes, sums, .. }) = oldest else {
            return Vec::with_capacity(self.block_size);
        };
        self.dropped.add(sums);
        bytes.clear();
        bytes
    }
}

impl Sums {
    fn count(&mut self, event: &Event) {
        match event {
            Event::Call(_) => self.calls += 1,
            Event::Refusal => self.refusals += 1,
            Event::Change { .. } => {}
        }
    }

    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.refusals = self.refusals.saturating_add(other.refusals);
    }
}
