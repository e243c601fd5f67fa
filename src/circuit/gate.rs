//! The gate: one word that says what may be done without asking the machine.
//!
//! It is written only under the lock, after the machine has changed. Admission
//! on a closed circuit is one load of it. A success whose generation matches a
//! *clean* gate (the window is full and holds nothing but good calls) would
//! leave the machine as it is, so it is only counted; one whose generation
//! matches a gate that *tallies* is only added up. A rejection needs the word and
//! the end of the wait, which is written before the word and only grows while
//! the circuit is open.

use super::sync::{AtomicU64, Ordering};
use crate::machine::Gate;

/// A generation above the kind of a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    const KIND_BITS: u32 = 3;
    const KIND: u64 = (1 << Self::KIND_BITS) - 1;
    const ASK: u64 = 0;
    const CLOSED: u64 = 1;
    const CLEAN: u64 = 2;
    const OPEN: u64 = 3;
    const TRACKING: u64 = 4;
    const TALLY: u64 = 5;

    pub(super) const fn new(generation: u64, gate: Gate) -> Self {
        let kind = match gate {
            Gate::Ask => Self::ASK,
            Gate::Closed => Self::CLOSED,
            Gate::Clean => Self::CLEAN,
            Gate::Open { .. } => Self::OPEN,
            Gate::Tracking => Self::TRACKING,
            Gate::Tally { .. } => Self::TALLY,
        };
        Self(generation << Self::KIND_BITS | kind)
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 >> Self::KIND_BITS
    }

    /// Whether it lets everybody in.
    #[inline]
    pub(super) const fn is_closed(self) -> bool {
        matches!(self.0 & Self::KIND, Self::CLOSED | Self::CLEAN | Self::TALLY)
    }

    /// Whether it lets everybody go on as far as the call, where the machine is
    /// asked.
    #[inline]
    pub(super) const fn looks_closed(self) -> bool {
        matches!(self.0 & Self::KIND, Self::CLOSED | Self::CLEAN | Self::TALLY | Self::TRACKING)
    }

    pub(super) const fn is_open(self) -> bool {
        self.0 & Self::KIND == Self::OPEN
    }

    /// Whether only the machine knows.
    #[cfg(feature = "keyed")]
    pub(super) const fn asks(self) -> bool {
        self.0 & Self::KIND == Self::ASK
    }

    /// Whether a good call of that generation changes nothing.
    #[inline]
    pub(super) const fn is_clean_in(self, generation: u64) -> bool {
        self.0 == generation << Self::KIND_BITS | Self::CLEAN
    }

    /// Whether a good call of that generation may be tallied.
    #[inline]
    pub(super) const fn tallies_in(self, generation: u64) -> bool {
        self.0 == generation << Self::KIND_BITS | Self::TALLY
    }

    pub(super) const fn tallies(self) -> bool {
        self.0 & Self::KIND == Self::TALLY
    }
}

/// The word that everybody reads.
pub(super) struct GateWord(AtomicU64);

impl GateWord {
    pub(super) fn new(word: Word) -> Self {
        Self(AtomicU64::new(word.0))
    }

    #[inline]
    pub(super) fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    pub(super) fn store(&self, word: Word) {
        self.0.store(word.0, Ordering::Release);
    }
}
