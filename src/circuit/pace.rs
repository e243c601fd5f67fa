//! What the path of a call reads of the rules: how calls are timed.

use super::{
    lane::Counters,
    sync::{AtomicU64, Ordering},
};
use crate::{
    rules::{Cancellation, Rules},
    time::nanos,
};

/// Read by every call, written only when the circuit is reconfigured. A call
/// that ends meanwhile is judged by the old rules or the new.
pub(super) struct Pace {
    /// Nanoseconds. The most there are: no call is slow.
    slow_after: AtomicU64,
    /// [`JUDGES_DROPS`], [`MEASURES`] and [`SAMPLES`].
    flags: AtomicU64,
    samples: bool,
}

const JUDGES_DROPS: u64 = 1;
const MEASURES: u64 = 2;
const SAMPLES: u64 = 4;

/// Whether a call is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    No,
    /// For those alone who take samples.
    Sampled,
    Yes,
}

impl Pace {
    /// `samples`: whether somebody takes samples of latencies.
    pub(super) fn new(rules: &Rules, measure_latency: bool, samples: bool) -> Self {
        let pace = Self { slow_after: AtomicU64::new(0), flags: AtomicU64::new(0), samples };
        pace.set(rules, measure_latency);
        pace
    }

    pub(super) fn set(&self, rules: &Rules, measure_latency: bool) {
        let slow_after = rules.slow_calls.map(|rule| rule.threshold);
        let mut flags = 0;
        if rules.cancellation == Cancellation::ByAge {
            flags |= JUDGES_DROPS;
        }
        if measure_latency || slow_after.is_some() {
            flags |= MEASURES;
        }
        if self.samples {
            flags |= SAMPLES;
        }
        self.slow_after.store(slow_after.map_or(u64::MAX, nanos), Ordering::Relaxed);
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// Whether a call is timed that begins in a lane with those counters;
    /// `measured`, if somebody else wants it to be.
    #[inline(always)]
    pub(super) fn timing(&self, measured: bool, counters: &Counters) -> Timing {
        let flags = self.flags.load(Ordering::Relaxed);
        if measured || flags & MEASURES != 0 {
            Timing::Yes
        } else if flags & SAMPLES != 0 && counters.is_turn() {
            Timing::Sampled
        } else {
            Timing::No
        }
    }

    /// Whether somebody takes samples of latencies.
    #[inline]
    pub(super) fn samples(&self) -> bool {
        self.samples
    }

    /// Whether every call is timed.
    #[cfg(feature = "keyed")]
    pub(super) fn measures_latency(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & MEASURES != 0
    }

    /// Whether a call that is dropped may count as slow.
    #[inline]
    pub(super) fn judges_drops(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & JUDGES_DROPS != 0
    }

    /// Over how many nanoseconds a call is slow; the most there are without a
    /// slow rule.
    #[inline]
    pub(super) fn slow_after(&self) -> u64 {
        self.slow_after.load(Ordering::Relaxed)
    }
}
