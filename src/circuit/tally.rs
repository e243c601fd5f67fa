//! Successes that the machine hears of later.
//!
//! While a window of time holds nothing but good calls, one more success changes
//! no more than a sum, so it is counted in its lane and not under the lock.
//! Whoever takes the lock has the machine take the sums in. Before anything can
//! happen that makes a success matter, a failure above all, the tallies are shut
//! first: a success is either in the sums by then, or finds its tally shut and
//! goes to the machine itself. So the call that reaches a threshold finds
//! every call before it counted.

use super::sync::{AtomicU64, Ordering};

/// The successes of one lane, in the low half; in the high half the generation
/// they belong to, or nothing where it is shut.
#[derive(Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    const BITS: u32 = 32;
    const MOST: u64 = (1 << Self::BITS) - 1;

    /// Where it is shut. A generation with this tag, one in four billion, has its
    /// successes go to the machine.
    const SHUT: u64 = 0;

    /// Counts one, unless it is shut, or open to another generation, or full.
    #[inline]
    pub(super) fn count(&self, generation: u64) -> bool {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let is_open = seen >> Self::BITS == Self::tag(generation);
            if !is_open || seen <= Self::MOST || seen & Self::MOST == Self::MOST {
                return false;
            }
            let counted = seen + 1;
            match self.0.compare_exchange_weak(seen, counted, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(found) => seen = found,
            }
        }
    }

    /// Opens it to a generation. Under the lock, and not while it holds anything.
    pub(super) fn open(&self, generation: u64) {
        if self.0.load(Ordering::Relaxed) >> Self::BITS == Self::SHUT {
            self.0.store(Self::tag(generation) << Self::BITS, Ordering::Relaxed);
        }
    }

    /// Takes out what was counted. Under the lock.
    pub(super) fn take(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) & Self::MOST {
            0 => 0,
            _ => self.0.fetch_and(!Self::MOST, Ordering::Relaxed) & Self::MOST,
        }
    }

    /// Takes out what was counted, and lets nobody count any more. Under the
    /// lock.
    pub(super) fn shut(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) >> Self::BITS {
            Self::SHUT => 0,
            _ => self.0.swap(Self::SHUT, Ordering::Relaxed) & Self::MOST,
        }
    }

    const fn tag(generation: u64) -> u64 {
        (generation + 1) & Self::MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most are small; one as late as that shares its tag with one of them.
    const GENERATIONS: [u64; 5] = [0, 1, 2, 20, (7 << Tally::BITS) + 2];

    #[test]
    fn what_was_counted_is_taken_out_once() {
        for generation in GENERATIONS {
            let tally = Tally::default();
            tally.open(generation);
            for calls in [0, 1, 5] {
                (0..calls).for_each(|_| assert!(tally.count(generation)));
                // To open it once more takes nothing out.
                tally.open(generation);
                assert_eq!((tally.take(), tally.take()), (calls, 0));
                (0..calls).for_each(|_| assert!(tally.count(generation)));
                assert_eq!((tally.shut(), tally.shut()), (calls, 0));
                tally.open(generation);
            }
        }
    }

    #[test]
    fn a_success_is_counted_for_its_own_generation_and_no_other() {
        for (generation, other) in [(0, 1), (1, 0), (1, 2), (20, 21), (20, 0)] {
            let tally = Tally::default();
            tally.open(generation);
            assert!(!tally.count(other), "{other} for {generation}");
            assert_eq!(tally.take(), 0);
        }
    }

    #[test]
    fn while_it_is_shut_nothing_is_counted() {
        let tally = Tally::default();
        let is_shut = || GENERATIONS.iter().all(|generation| !tally.count(*generation));
        assert!(is_shut());
        for calls in [0, 1] {
            tally.open(1);
            (0..calls).for_each(|_| assert!(tally.count(1)));
            assert_eq!(tally.shut(), calls);
            assert!(is_shut());
        }
    }

    #[test]
    fn the_generation_that_looks_as_if_it_were_shut_has_nothing_counted() {
        let tally = Tally::default();
        let generation = Tally::MOST;
        tally.open(generation);
        assert!(!tally.count(generation));
        assert_eq!(tally.shut(), 0);
    }

    #[test]
    fn a_full_one_counts_no_more() {
        let tally = Tally(AtomicU64::new(Tally::tag(1) << Tally::BITS | (Tally::MOST - 1)));
        assert!(tally.count(1));
        assert!(!tally.count(1));
        assert_eq!(tally.take(), u64::from(u32::MAX));
        assert!(tally.count(1));
    }
}
