//! The gate: one word that says what may be done without asking the machine.
//!
//! It is written only under the lock, after the machine has changed. Admission
//! on a closed circuit is one load of it. A success whose generation matches a
//! *clean* gate (the window is full and holds nothing but good calls) would
//! leave the machine as it is, so it is only counted; one whose generation
//! matches a gate that *tallies* is only added up. A rejection needs the word and
//! the end of the wait, which is written before the word and only grows while
//! the circuit is open. Half-open, with no probe left, it is the same: the wait is
//! for the end of the first lease, and whatever gives a permit back before takes
//! the word away.
//!
//! Where calls in flight are watched, admission asks two words: beside the gate
//! stands until when nobody can be overdue.

use super::sync::{AtomicU64, Ordering};
use crate::{machine::Gate, state::State, time::Time};

/// A generation above the kind of a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    const KIND_BITS: u32 = 4;
    const KIND: u64 = (1 << Self::KIND_BITS) - 1;
    // So numbered that one bit each answers what every call asks.
    const CLOSED: u64 = 0;
    const CLEAN: u64 = 1;
    const TALLY: u64 = 2;
    const ASK: u64 = Self::SHUT;
    const OPEN: u64 = Self::SHUT | 1;
    const FULL: u64 = Self::SHUT | 2;
    const OVERDUE: u64 = Self::WATCHED | 3;
    /// In every kind that does not let everybody go on as far as the call.
    const SHUT: u64 = 4;
    /// Beside a closed kind: those it lets in are watched.
    const WATCHED: u64 = 8;

    /// Where calls in flight are `watched`, a closed gate says so.
    pub(super) const fn new(generation: u64, gate: Gate, watched: bool) -> Self {
        let watched = if watched { Self::WATCHED } else { 0 };
        let kind = match gate {
            Gate::Ask => Self::ASK,
            Gate::Closed => Self::CLOSED | watched,
            Gate::Clean => Self::CLEAN | watched,
            Gate::Open { .. } => Self::OPEN,
            Gate::Full { .. } => Self::FULL,
            Gate::Overdue => Self::OVERDUE,
            Gate::Tally { .. } => Self::TALLY | watched,
        };
        Self(generation << Self::KIND_BITS | kind)
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 >> Self::KIND_BITS
    }

    /// Whether it lets everybody in, and nobody is watched.
    #[inline]
    pub(super) const fn is_closed(self) -> bool {
        self.0 & (Self::SHUT | Self::WATCHED) == 0
    }

    /// Whether it lets everybody in who is watched, as long as nobody can be
    /// overdue.
    #[inline]
    pub(super) const fn is_closed_to_the_watched(self) -> bool {
        let kind = self.0 & Self::KIND;
        kind & (Self::SHUT | Self::WATCHED) == Self::WATCHED && kind != Self::OVERDUE
    }

    /// Whether it lets everybody go on as far as the call, where the machine is
    /// asked.
    #[inline]
    pub(super) const fn looks_closed(self) -> bool {
        self.0 & Self::SHUT == 0
    }

    pub(super) const fn is_open(self) -> bool {
        self.0 & Self::KIND == Self::OPEN
    }

    /// In which state it refuses until its wait is over, if it does.
    #[inline]
    pub(super) const fn refuses_in(self) -> Option<State> {
        match self.0 & Self::KIND {
            Self::OPEN => Some(State::Open),
            Self::FULL => Some(State::HalfOpen),
            _ => None,
        }
    }

    /// Whether only the machine knows what time has done.
    #[cfg(any(feature = "keyed", feature = "registry"))]
    pub(super) const fn asks(self) -> bool {
        matches!(self.0 & Self::KIND, Self::ASK | Self::FULL)
    }

    /// Whether a good call of that generation changes nothing.
    #[inline]
    pub(super) const fn is_clean_in(self, generation: u64) -> bool {
        self.unwatched().0 == generation << Self::KIND_BITS | Self::CLEAN
    }

    const fn unwatched(self) -> Self {
        Self(self.0 & !Self::WATCHED)
    }

    /// Whether a good call of that generation may be tallied.
    #[inline]
    pub(super) const fn tallies_in(self, generation: u64) -> bool {
        self.unwatched().0 == generation << Self::KIND_BITS | Self::TALLY
    }

    pub(super) const fn tallies(self) -> bool {
        self.unwatched().0 & Self::KIND == Self::TALLY
    }
}

/// The word that everybody reads, and the one beside it.
pub(super) struct GateWord {
    word: AtomicU64,
    /// Nanoseconds.
    look_at: AtomicU64,
}

impl GateWord {
    pub(super) fn new(word: Word, look_at: Time) -> Self {
        Self { word: AtomicU64::new(word.0), look_at: AtomicU64::new(look_at.as_nanos()) }
    }

    #[inline]
    pub(super) fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    pub(super) fn store(&self, word: Word) {
        self.word.store(word.0, Ordering::Release);
    }

    /// Until when nobody can be overdue who waits in a lane.
    #[inline]
    pub(super) fn look_at(&self) -> Time {
        Time::from_nanos(self.look_at.load(Ordering::Acquire))
    }

    pub(super) fn store_look_at(&self, time: Time) {
        self.look_at.store(time.as_nanos(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_answers_for_its_kind_alone() {
        let until = Time::ZERO;
        for watched in [false, true] {
            for gate in [
                Gate::Ask,
                Gate::Closed,
                Gate::Clean,
                Gate::Open { until },
                Gate::Full { until },
                Gate::Overdue,
                Gate::Tally { until },
            ] {
                let word = Word::new(7, gate, watched);
                let is_closed = matches!(gate, Gate::Closed | Gate::Clean | Gate::Tally { .. });
                let refuses_in = match gate {
                    Gate::Open { .. } => Some(State::Open),
                    Gate::Full { .. } => Some(State::HalfOpen),
                    _ => None,
                };
                assert_eq!(word.generation(), 7);
                assert_eq!(word.is_closed(), is_closed && !watched, "{gate:?}");
                assert_eq!(word.is_closed_to_the_watched(), is_closed && watched, "{gate:?}");
                assert_eq!(word.looks_closed(), is_closed || gate == Gate::Overdue, "{gate:?}");
                assert_eq!(word.refuses_in(), refuses_in, "{gate:?}");
                assert_eq!(word.is_open(), refuses_in == Some(State::Open), "{gate:?}");
                #[cfg(any(feature = "keyed", feature = "registry"))]
                assert_eq!(word.asks(), matches!(gate, Gate::Ask | Gate::Full { .. }), "{gate:?}");
                assert_eq!(word.is_clean_in(7), gate == Gate::Clean, "{gate:?}");
                assert_eq!(word.tallies_in(7), matches!(gate, Gate::Tally { .. }), "{gate:?}");
                assert_eq!(word.tallies(), word.tallies_in(7), "{gate:?}");
                assert!(!word.is_clean_in(6) && !word.tallies_in(6), "{gate:?}");
            }
        }
    }
}
