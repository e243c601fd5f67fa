//! What the path of a call reads of the rules: how calls are timed.

use super::sync::{AtomicU64, Ordering};
use crate::{
    rules::{Cancellation, Rules},
    time::nanos,
};

/// Read by every call, written only when the circuit is reconfigured. A call
/// that ends meanwhile is judged by the old rules or the new.
pub(super) struct Pace {
    /// Nanoseconds. The most there are: no call is slow.
    slow_after: AtomicU64,
    /// [`JUDGES_DROPS`] and [`MEASURES`].
    flags: AtomicU64,
}

const JUDGES_DROPS: u64 = 1;
const MEASURES: u64 = 2;

impl Pace {
    pub(super) fn new(rules: &Rules, measure_latency: bool) -> Self {
        let pace = Self { slow_after: AtomicU64::new(0), flags: AtomicU64::new(0) };
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
        self.slow_after.store(slow_after.map_or(u64::MAX, nanos), Ordering::Relaxed);
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// Whether every call is timed.
    #[inline]
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
