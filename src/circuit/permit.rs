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
    /// What the circuit's shadows have to remember of it.
    #[cfg(feature = "shadow")]
    following: Option<Box<super::following::Following>>,
    /// One of another circuit that ends with it.
    #[cfg(feature = "keyed")]
    pub(super) joined: Option<Box<Permit>>,
}

impl Permit {
    #[inline]
    pub(super) fn new(circuit: Circuit, ticket: Ticket, started: Option<Instant>) -> Self {
        #[cfg(feature = "shadow")]
        let following = started.zip(circuit.followers()).and_then(|(at, all)| all.begin(at));
        Self {
            circuit,
            ticket: Some(ticket),
            started,
            #[cfg(feature = "shadow")]
            following,
            #[cfg(feature = "keyed")]
            joined: None,
        }
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

    #[cfg(feature = "keyed")]
    pub(super) fn is_measured(&self) -> bool {
        self.started.is_some()
    }

    /// Ends the call, unless it has ended.
    pub(crate) fn end(&mut self, outcome: Option<Outcome>) {
        if self.ticket.is_some() {
            let reading = self.read();
            self.settle(outcome, reading);
        }
    }

    /// Reads the clock, if anybody wants to know how long the call took.
    #[inline]
    pub(crate) fn read(&self) -> Reading {
        let Some(started) = self.started else { return Reading::default() };
        let now = self.circuit.instant();
        Reading { latency: Some(now.saturating_duration_since(started)), now: Some(now) }
    }

    /// Ends the call, unless it has ended, with a duration read before.
    #[inline]
    pub(crate) fn settle(&mut self, outcome: Option<Outcome>, reading: Reading) {
        if let Some(ticket) = self.ticket.take() {
            #[cfg(feature = "shadow")]
            if let Some((started, followers)) = self.started.zip(self.circuit.followers()) {
                let now = reading.now.unwrap_or_else(|| self.circuit.instant());
                self.circuit.settle(ticket, outcome, Reading { now: Some(now), ..reading });
                followers.end(self.following.take(), started, now, outcome, reading.latency);
            } else {
                self.circuit.settle(ticket, outcome, reading);
            }
            #[cfg(not(feature = "shadow"))]
            self.circuit.settle(ticket, outcome, reading);
            #[cfg(feature = "keyed")]
            self.end_joined(outcome, reading);
        }
    }

    /// Ends the call because it is dropped. Few are, and each place where a
    /// permit goes out of scope would have a copy of this.
    #[cold]
    fn abandon(&mut self) {
        self.end(thread::panicking().then_some(Outcome::Failure));
    }

    /// Notes that the dependency asked to be left alone for so long.
    pub(crate) fn hint(&mut self, retry_after: Duration) {
        let Some(ticket) = &self.ticket else { return };
        let now = self.circuit.instant();
        self.circuit.hint(ticket, retry_after, now);
        #[cfg(feature = "shadow")]
        if let Some(followers) = self.circuit.followers() {
            followers.hint(&mut self.following, now, retry_after);
        }
    }

    /// Notes that the dependency asked, at `at`, to be left alone for so long.
    #[cfg(feature = "shadow")]
    pub(super) fn hint_at(&self, at: Instant, retry_after: Duration) {
        if let Some(ticket) = &self.ticket {
            self.circuit.hint(ticket, retry_after, at);
        }
    }

    /// The answer came in time: from here on the call may take as long as it
    /// likes.
    #[cfg(feature = "http")]
    pub(crate) fn untrack(&self) {
        let Some(ticket) = &self.ticket else { return };
        self.circuit.untrack(ticket);
        #[cfg(feature = "shadow")]
        if let Some(following) = &self.following {
            following.untrack();
        }
        #[cfg(feature = "keyed")]
        if let Some(joined) = &self.joined {
            joined.untrack();
        }
    }

    /// The same, of a candidate's permit.
    #[cfg(feature = "shadow")]
    pub(super) fn untrack_candidate(&self) {
        if let Some(ticket) = &self.ticket {
            self.circuit.untrack(ticket);
        }
    }

    /// Hands the call over: this permit has ended, the new one has not.
    #[cfg(feature = "http")]
    pub(crate) fn take(&mut self) -> Self {
        Self {
            circuit: self.circuit.clone(),
            ticket: self.ticket.take(),
            started: self.started,
            #[cfg(feature = "shadow")]
            following: self.following.take(),
            #[cfg(feature = "keyed")]
            joined: self.joined.take(),
        }
    }
}

/// A look at the clock when a call ended, as far as anybody wants it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// How long the call took.
    pub(crate) latency: Option<Duration>,
    /// The time, if it is that of now.
    pub(crate) now: Option<Instant>,
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.abandon();
        }
    }
}
