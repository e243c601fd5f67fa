//! How a circuit does, in numbers over time.

use std::time::Duration;

use crate::State;

/// How a registered circuit does: rates, latencies, and the last quarter of an
/// hour.
///
/// Calls are counted by the circuit anyway; what is here are differences
/// between two looks at its totals, so they are as fine as
/// [`Registry::sample`](crate::Registry::sample) is called often, once a second
/// say. What came between two looks is taken to have come evenly.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Vitals {
    /// Over the last 10 seconds.
    pub rates: Rates,
    /// Over the last minute, which is this step of the series and the three
    /// before; `None` if nothing was measured.
    pub latency: Option<Latency>,
    /// The last 15 minutes.
    pub series: Series,
}

/// Calls a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Rates {
    /// Calls that were let through and ended.
    pub calls: f64,
    /// Those that failed.
    pub failures: f64,
    /// Calls that were refused.
    pub rejected: f64,
    /// Over how long: less than 10 seconds at first, but at least one; more if
    /// nobody looked.
    pub over: Duration,
}

/// How long calls took: those that were measured, each to within 3 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// Half of them took at most this long.
    pub p50: Duration,
    /// Nine of ten took at most this long.
    pub p90: Duration,
    /// 99 of 100 took at most this long.
    pub p99: Duration,
    /// How many were measured.
    pub samples: u64,
}

/// A stretch of time in steps of equal length.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Series {
    /// How long a step is: 15 seconds.
    pub step: Duration,
    /// How much of the last step has passed.
    pub running_for: Duration,
    /// 60 of them, oldest first; `None` where the circuit was not registered
    /// yet. The last one is still running.
    pub steps: Vec<Option<Step>>,
}

/// What happened in one step of a [`Series`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Calls that were let through and ended.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, failed or not.
    pub slow: u64,
    /// Calls that were refused.
    pub rejected: u64,
    /// Half of the calls took at most this long, of those that were measured.
    pub p50: Option<Duration>,
    /// 99 of 100 took at most this long.
    pub p99: Option<Duration>,
    /// The worst state it was in: open is worse than half-open.
    pub worst: State,
    /// Whether an operator held it open or closed at some time.
    pub is_forced: bool,
}
