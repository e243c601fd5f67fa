//! What decides at a client whether a call is sent, behind one trait.
//!
//! The peers are modelled from their documentation, at its defaults. None has
//! a generation, so a late result counts in whatever state it meets.

mod buckets;
mod gradual;
mod hystrix;
mod linkerd;
mod none;
mod ours;
mod polly;
mod resilience4j;
mod sre;

use std::{fmt, time::Duration};

pub use self::{
    gradual::{Gradual, Shape},
    hystrix::Hystrix,
    linkerd::Linkerd,
    none::Unprotected,
    ours::Ours,
    polly::Polly,
    resilience4j::Resilience4j,
    sre::SreThrottle,
};
use crate::rng::Rng;

/// Decides at one client whether a call is sent.
pub trait Policy: fmt::Debug {
    /// Admits a call, or refuses it.
    fn admit(&mut self, now: Duration, rng: &mut Rng) -> Option<Ticket>;

    /// Hears how an admitted call ended.
    fn end(&mut self, now: Duration, ticket: Ticket, end: CallEnd);

    /// How often it changed its mind so far.
    fn changes(&self) -> Changes;
}

/// The right to one call. What it means is the policy's own affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(usize);

/// How a call ended, and after how long.
#[derive(Clone, Copy, Debug)]
pub struct CallEnd {
    /// A timeout is a failure.
    pub failed: bool,
    /// From sending to the answer or the timeout.
    pub latency: Duration,
}

/// How often a policy changed its mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Transitions to open.
    pub opened: u64,
    /// Transitions of any kind.
    pub transitions: u64,
}

impl Changes {
    fn count_opening(&mut self) {
        self.opened += 1;
        self.transitions += 1;
    }

    fn count(&mut self) {
        self.transitions += 1;
    }
}
