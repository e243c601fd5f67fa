//! A circuit at one instant, for a person or a page.

use std::time::{Duration, Instant};

use crate::{
    cause::Cause, machine::Progress, overrides::Override, state::State, totals::Totals,
    window::Counts,
};

/// A circuit at one instant: what state, since when, why, and what next.
///
/// Taking one changes nothing. It sees what time alone has done: calls that
/// have left the window, leases and overrides that are over.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome, State};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// for _ in 0..10 {
///     circuit.try_acquire()?.record(Outcome::Success);
/// }
/// let snapshot = circuit.snapshot();
/// assert_eq!(snapshot.state, State::Closed);
/// assert_eq!(snapshot.window.failure_rate, Some(0.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The circuit's name.
    pub name: String,
    /// The circuit's key, if it is one of a group.
    pub key: Option<String>,
    /// What the machine decided; see `active_override` for what the operator
    /// did.
    pub state: State,
    /// Grows with every transition and reset.
    pub generation: u64,
    /// Grows by one with every transition and reset, with every override that
    /// is set, lifted or over, and with every reconfiguration: see
    /// [`Circuit::if_revision`](crate::Circuit::if_revision).
    pub revision: u64,
    /// When it was taken, by the circuit's clock.
    pub at: Instant,
    /// When the state began.
    pub since: Instant,
    /// While open, how long until the next probe is due; while half-open with
    /// no permit left, until the next lease ends, and with a share, if
    /// the next call is none that is taken, a hundredth of the lease (a millisecond
    /// at least); on the ramp, until the share has grown by a percent; while
    /// throttled, until a tenth of the throttle's window has passed; under a forced
    /// opening, what is left of that, if longer. Under the other overrides it is
    /// still what the machine would tell. `None` where nothing is refused, or
    /// nobody knows when that ends.
    pub retry_after: Option<Duration>,
    /// Why it opened last; `None` once it is closed.
    pub cause: Option<Cause>,
    /// The calls judged while closed or ramping; empty while open or probing.
    pub window: WindowSnapshot,
    /// How far the probes have come, while half-open and before the ramp.
    pub probes: Option<Progress>,
    /// The share of calls that pass, from 0 to 1, where a share is what decides:
    /// on the ramp, while throttled, and while the probes are chosen by
    /// [`Probes::share`](crate::Probes::share), whether or not one is left.
    pub admitted_share: Option<f64>,
    /// Whether it stays open beyond its wait until the
    /// [health check](crate::Circuit) has passed.
    pub awaits_health_check: bool,
    /// Counts for life.
    pub totals: Totals,
    /// What an operator laid over the circuit, with what is left of it.
    pub active_override: Option<Override>,
    /// When that was laid.
    pub overridden_since: Option<Instant>,
}

/// The calls of a window, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct WindowSnapshot {
    /// Judged calls.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, failed or not.
    pub slow: u64,
    /// Calls in flight for longer than the slow rule's threshold. They are in
    /// none of the other counts, but the next call to ask opens the circuit if
    /// it would be open had they ended.
    pub overdue: u64,
    /// Failures by calls; absent below the minimum of calls.
    pub failure_rate: Option<f64>,
    /// Slow calls by calls; absent below the minimum of calls, and without a
    /// slow rule.
    pub slow_rate: Option<f64>,
}

impl WindowSnapshot {
    pub(super) fn new(counts: Counts, minimum_calls: u64, judges_slow: bool) -> Self {
        let known = counts.calls > 0 && counts.calls >= minimum_calls;
        let rate = |part: u64| part as f64 / counts.calls as f64;
        Self {
            calls: counts.calls,
            failures: counts.failures,
            slow: counts.slow,
            overdue: 0,
            failure_rate: known.then(|| rate(counts.failures)),
            slow_rate: (known && judges_slow).then(|| rate(counts.slow)),
        }
    }
}
