//! No policy at all.

use std::time::Duration;

use super::{CallEnd, Changes, Policy, Ticket};
use crate::rng::Rng;

/// Sends every call.
#[derive(Clone, Copy, Debug)]
pub struct Unprotected;

impl Policy for Unprotected {
    fn admit(&mut self, _: Duration, _: &mut Rng) -> Option<Ticket> {
        Some(Ticket(0))
    }

    fn end(&mut self, _: Duration, _: Ticket, _: CallEnd) {}

    fn changes(&self) -> Changes {
        Changes::default()
    }
}
