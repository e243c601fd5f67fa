//! The right to one call.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::Circuit;
use crate::{machine::Ticket, outcome::Outcome};

/// The right to one call, taken with
/// [`Circuit::try_acquire`](Circuit::try_acquire).
///
/// Tell it how the call went with [`record`](Self::record). However it is
/// dropped instead, it is settled: a drop is a *cancelled* call, judged as
/// [`Cancellation`](crate::Cancellation) says, and a drop by a panic is a
/// failure.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # fn call() -> Result<(), ()> { Ok(()) }
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// let permit = circuit.try_acquire()?;
/// match call() {
///     Ok(()) => permit.record(Outcome::Success),
///     Err(()) => permit.record(Outcome::Failure),
/// }
/// assert_eq!(circuit.snapshot().totals.success, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit {
    circuit: Circuit,
    /// Gone once it is settled.
    ticket: Option<Ticket>,
    /// When it was issued, if anybody wants to know how long the call took.
    started: Option<Instant>,
}

impl Permit {
    #[inline]
    pub(super) fn new(circuit: Circuit, ticket: Ticket, started: Option<Instant>) -> Self {
        Self { circuit, ticket: Some(ticket), started }
    }

    /// Ends the call. Its duration, if a rule needs it, is the time since the
    /// permit was taken.
    #[inline]
    pub fn record(mut self, outcome: Outcome) {
        self.end(Some(outcome));
    }

    /// Ends the call as dropped, even while a panic unwinds.
    pub fn cancel(mut self) {
        self.end(None);
    }

    /// The circuit it belongs to.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Ends the call, unless it has ended.
    #[inline]
    pub(crate) fn end(&mut self, outcome: Option<Outcome>) {
        self.end_judged(|_| outcome);
    }

    /// Ends the call with an outcome that depends on how long it took, if that
    /// is measured; unless it has ended. Should `judge` panic, it has failed.
    #[inline]
    pub(crate) fn end_judged(&mut self, judge: impl FnOnce(Option<Duration>) -> Option<Outcome>) {
        if self.ticket.is_none() {
            return;
        }
        let ended = self.started.map(|_| self.circuit.instant());
        let latency = self
            .started
            .zip(ended)
            .map(|(started, ended)| ended.saturating_duration_since(started));
        let outcome = judge(latency);
        if let Some(ticket) = self.ticket.take() {
            self.circuit.settle(ticket, outcome, latency, ended);
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.end(thread::panicking().then_some(Outcome::Failure));
        }
    }
}
