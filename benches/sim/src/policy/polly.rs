//! Polly v8's circuit breaker at its defaults: 30 s, at least 100 calls,
//! opens at 10 %, breaks for 5 s, and one probe decides.

use std::time::Duration;

use super::{
    CallEnd, Changes, Policy, Ticket,
    buckets::{Buckets, Tally},
};
use crate::rng::Rng;

const SAMPLING: Duration = Duration::from_secs(30);
const BUCKETS: usize = 10;
const THROUGHPUT: u64 = 100;
const BREAK: Duration = Duration::from_secs(5);

/// Polly's circuit breaker.
#[derive(Debug)]
pub struct Polly {
    phase: Phase,
    window: Buckets,
    changes: Changes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Closed,
    Open {
        until: Duration,
    },
    /// One probe is out; another may go after a break.
    HalfOpen {
        until: Duration,
    },
}

impl Polly {
    /// A closed one, whose buckets begin at a random instant.
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            phase: Phase::Closed,
            window: Buckets::new(SAMPLING, BUCKETS, rng.below(SAMPLING)),
            changes: Changes::default(),
        }
    }

    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open { until: now + BREAK };
        self.changes.count_opening();
    }
}

impl Policy for Polly {
    fn admit(&mut self, now: Duration, _: &mut Rng) -> Option<Ticket> {
        match self.phase {
            Phase::Closed => Some(Ticket(0)),
            Phase::Open { until } if now >= until => {
                self.phase = Phase::HalfOpen { until: now + BREAK };
                self.changes.count();
                Some(Ticket(0))
            }
            Phase::HalfOpen { until } if now >= until => {
                self.phase = Phase::HalfOpen { until: now + BREAK };
                Some(Ticket(0))
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    fn end(&mut self, now: Duration, _: Ticket, end: CallEnd) {
        match self.phase {
            Phase::Closed => {
                self.window.add(now, Tally { calls: 1, marked: u64::from(end.failed) });
                let Tally { calls, marked: failed } = self.window.sum_at(now);
                if end.failed && calls >= THROUGHPUT && failed * 10 >= calls {
                    self.open(now);
                }
            }
            Phase::HalfOpen { .. } if end.failed => self.open(now),
            Phase::HalfOpen { .. } => {
                self.phase = Phase::Closed;
                self.window.clear();
                self.changes.count();
            }
            Phase::Open { .. } => {}
        }
    }

    fn changes(&self) -> Changes {
        self.changes
    }
}
