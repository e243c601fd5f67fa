//! Client-side throttling as in Google's SRE book: over two minutes, refuse
//! with probability `(requests - 2 × accepts) / (requests + 1)`.
//!
//! A call that succeeds was accepted. It never opens: it only thins.

use std::time::Duration;

use super::{
    CallEnd, Changes, Policy, Ticket,
    buckets::{Buckets, Tally},
};
use crate::rng::Rng;

const SPAN: Duration = Duration::from_secs(120);
const BUCKETS: usize = 120;
const K: f64 = 2.0;

/// Adaptive throttling.
#[derive(Debug)]
pub struct SreThrottle {
    /// Requests; the marked ones were accepted.
    window: Buckets,
}

impl SreThrottle {
    /// One that has seen nothing.
    pub fn new(rng: &mut Rng) -> Self {
        Self { window: Buckets::new(SPAN, BUCKETS, rng.below(SPAN)) }
    }
}

impl Policy for SreThrottle {
    fn admit(&mut self, now: Duration, rng: &mut Rng) -> Option<Ticket> {
        let Tally { calls: requests, marked: accepts } = self.window.sum_at(now);
        let refusal = (requests as f64 - K * accepts as f64) / (requests as f64 + 1.0);
        self.window.add(now, Tally { calls: 1, marked: 0 });
        (!rng.happens(refusal)).then_some(Ticket(0))
    }

    fn end(&mut self, now: Duration, _: Ticket, end: CallEnd) {
        self.window.add(now, Tally { calls: 0, marked: u64::from(!end.failed) });
    }

    fn changes(&self) -> Changes {
        Changes::default()
    }
}
