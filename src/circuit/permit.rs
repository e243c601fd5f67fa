//! The right to one call.

use std::{thread, time::Duration};

use super::Circuit;
use crate::{machine::Ticket, outcome::Outcome, time::Time};

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
    started: Option<Time>,
}

impl Permit {
    pub(super) fn new(circuit: Circuit, ticket: Ticket, started: Option<Time>) -> Self {
        Self { circuit, ticket: Some(ticket), started }
    }

    /// Ends the call. Its duration, if a rule needs it, is the time since the
    /// permit was taken.
    pub fn record(mut self, outcome: Outcome) {
        let latency = self.latency();
        self.settle(Some(outcome), latency);
    }

    /// Ends the call as dropped, even while a panic unwinds.
    pub fn cancel(mut self) {
        let latency = self.latency();
        self.settle(None, latency);
    }

    /// Ends the call with what [`latency`](Self::latency) has just said.
    pub(crate) fn record_with(mut self, outcome: Outcome, latency: Option<Duration>) {
        self.settle(Some(outcome), latency);
    }

    /// How long ago it was taken, if that is measured.
    pub(crate) fn latency(&self) -> Option<Duration> {
        self.started.map(|started| self.circuit.now().since(started))
    }

    /// The circuit it belongs to.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    fn settle(&mut self, outcome: Option<Outcome>, latency: Option<Duration>) {
        if let Some(ticket) = self.ticket.take() {
            let ended = self.started.zip(latency).map(|(started, latency)| started.after(latency));
            self.circuit.settle(ticket, outcome, latency, ended);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            let outcome = thread::panicking().then_some(Outcome::Failure);
            let latency = self.latency();
            self.settle(outcome, latency);
        }
    }
}
