//! What has happened to a circuit's calls since it was made.

/// Counts for life: no transition and no reset clears them.
///
/// A finished call is exactly one of success, failure, ignored, cancelled or
/// stale; slow stands beside those. What a fallback came to stands beside them
/// too: the call it answers for is counted as rejected, or as the failure it
/// was, all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Calls that succeeded.
    pub success: u64,
    /// Calls that failed, probes that lost their lease among them.
    pub failure: u64,
    /// Calls that were slower than the slow rule's threshold.
    pub slow: u64,
    /// Calls that proved nothing.
    pub ignored: u64,
    /// Calls that were dropped before they ended.
    pub cancelled: u64,
    /// Calls that ended after the circuit had moved on from the state that
    /// admitted them. They changed nothing.
    pub stale: u64,
    /// Times a permit was refused or `poll_ready` answered with an error.
    pub rejected: u64,
    /// Calls that passed only because of
    /// [`Override::observe_only`](crate::Override::observe_only), or of a keyed
    /// group that fails open.
    pub would_reject: u64,
    /// Transitions to open.
    pub opened: u64,
    /// Fallbacks that gave a response.
    pub fallback_answered: u64,
    /// Fallbacks that gave an error, or panicked.
    pub fallback_failed: u64,
    /// Fallbacks that were dropped before they ended.
    pub fallback_cancelled: u64,
}

impl Totals {
    /// Calls that have finished: each is counted once, however it ended.
    ///
    /// ```
    /// use tower_breaker::{Circuit, Config, Outcome};
    ///
    /// let circuit = Circuit::new(Config::default());
    /// circuit.try_acquire()?.record(Outcome::Success);
    /// drop(circuit.try_acquire()?);
    /// let _running = circuit.try_acquire()?;
    /// assert_eq!(circuit.snapshot().totals.calls(), 2);
    /// # Ok::<(), tower_breaker::CircuitOpen>(())
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.success + self.failure + self.ignored + self.cancelled + self.stale
    }
}
