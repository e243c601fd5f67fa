//! The real circuit, driven through its public API.

use std::time::Duration;

use tower_breaker::{Circuit, Config, Outcome, Permit};

use super::{CallEnd, Changes, Policy, Ticket};
use crate::rng::Rng;

/// A [`Circuit`], and the permits it has out.
#[derive(Debug)]
pub struct Ours {
    circuit: Circuit,
    permits: Vec<Option<Permit>>,
    free: Vec<usize>,
}

impl Ours {
    /// The configuration must have the engine's clock.
    pub fn new(config: Config) -> Self {
        Self { circuit: Circuit::new(config), permits: Vec::new(), free: Vec::new() }
    }

    pub(super) fn circuit(&self) -> &Circuit {
        &self.circuit
    }
}

impl Policy for Ours {
    fn admit(&mut self, _: Duration, _: &mut Rng) -> Option<Ticket> {
        let permit = self.circuit.try_acquire().ok()?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.permits.push(None);
            self.permits.len() - 1
        });
        self.permits[place] = Some(permit);
        Some(Ticket(place))
    }

    fn end(&mut self, _: Duration, ticket: Ticket, end: CallEnd) {
        if let Some(permit) = self.permits[ticket.0].take() {
            self.free.push(ticket.0);
            permit.record(if end.failed { Outcome::Failure } else { Outcome::Success });
        }
    }

    fn changes(&self) -> Changes {
        let snapshot = self.circuit.snapshot();
        // Nobody resets it here, so that each generation is a transition.
        Changes { opened: snapshot.totals.opened, transitions: snapshot.generation }
    }
}
