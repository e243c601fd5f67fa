//! Hystrix at its defaults: 10 s in 10 buckets, looked at every 500 ms, at
//! least 20 requests, opens at 50 %, sleeps 5 s, and one success closes it.

use std::time::Duration;

use super::{
    CallEnd, Changes, Policy, Ticket,
    buckets::{Buckets, Tally},
};
use crate::rng::Rng;

const SPAN: Duration = Duration::from_secs(10);
const BUCKETS: usize = 10;
const SNAPSHOT: Duration = Duration::from_millis(500);
const REQUESTS: u64 = 20;
const SLEEP: Duration = Duration::from_secs(5);

/// Hystrix's circuit breaker.
#[derive(Debug)]
pub struct Hystrix {
    phase: Phase,
    window: Buckets,
    next_snapshot: Duration,
    changes: Changes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen,
}

impl Hystrix {
    /// A closed one, whose buckets and snapshots begin at a random instant.
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            phase: Phase::Closed,
            window: Buckets::new(SPAN, BUCKETS, rng.below(SPAN)),
            next_snapshot: rng.below(SNAPSHOT),
            changes: Changes::default(),
        }
    }

    /// Takes the snapshot that was due before this instant.
    fn look(&mut self, now: Duration) {
        if now < self.next_snapshot {
            return;
        }
        while self.next_snapshot <= now {
            self.next_snapshot += SNAPSHOT;
        }
        let Tally { calls, marked: failed } = self.window.sum_at(now);
        if self.phase == Phase::Closed && calls >= REQUESTS && failed * 2 >= calls {
            self.open(now);
        }
    }

    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open { until: now + SLEEP };
        self.changes.count_opening();
    }
}

impl Policy for Hystrix {
    fn admit(&mut self, now: Duration, _: &mut Rng) -> Option<Ticket> {
        self.look(now);
        match self.phase {
            Phase::Closed => Some(Ticket(0)),
            Phase::Open { until } if now >= until => {
                self.phase = Phase::HalfOpen;
                self.changes.count();
                Some(Ticket(0))
            }
            Phase::Open { .. } | Phase::HalfOpen => None,
        }
    }

    fn end(&mut self, now: Duration, _: Ticket, end: CallEnd) {
        self.look(now);
        self.window.add(now, Tally { calls: 1, marked: u64::from(end.failed) });
        if self.phase == Phase::HalfOpen {
            if end.failed {
                self.open(now);
            } else {
                self.phase = Phase::Closed;
                self.window.clear();
                self.changes.count();
            }
        }
    }

    fn changes(&self) -> Changes {
        self.changes
    }
}
