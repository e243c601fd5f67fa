//! resilience4j's `CircuitBreaker` at its defaults: the last 100 calls, at
//! least 100 of them, opens at 50 % failed or 100 % slower than 60 s, waits
//! 60 s, then judges 10 calls by the same rates.

use std::{collections::VecDeque, time::Duration};

use super::{CallEnd, Changes, Policy, Ticket};
use crate::rng::Rng;

const WINDOW: usize = 100;
const HALF_OPEN_CALLS: usize = 10;
const WAIT: Duration = Duration::from_secs(60);
const SLOW: Duration = Duration::from_secs(60);

/// resilience4j's circuit breaker.
#[derive(Debug)]
pub struct Resilience4j {
    phase: Phase,
    changes: Changes,
}

#[derive(Debug)]
enum Phase {
    Closed(Ring),
    Open { until: Duration },
    HalfOpen { permits: usize, judged: Ring },
}

impl Resilience4j {
    /// A closed one.
    pub fn new() -> Self {
        Self { phase: Phase::Closed(Ring::new(WINDOW)), changes: Changes::default() }
    }

    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open { until: now + WAIT };
        self.changes.count_opening();
    }
}

impl Default for Resilience4j {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Resilience4j {
    fn admit(&mut self, now: Duration, _: &mut Rng) -> Option<Ticket> {
        if matches!(self.phase, Phase::Open { until } if now >= until) {
            let judged = Ring::new(HALF_OPEN_CALLS);
            self.phase = Phase::HalfOpen { permits: HALF_OPEN_CALLS, judged };
            self.changes.count();
        }
        match &mut self.phase {
            Phase::Closed(_) => Some(Ticket(0)),
            Phase::Open { .. } | Phase::HalfOpen { permits: 0, .. } => None,
            Phase::HalfOpen { permits, .. } => {
                *permits -= 1;
                Some(Ticket(0))
            }
        }
    }

    fn end(&mut self, now: Duration, _: Ticket, end: CallEnd) {
        match &mut self.phase {
            Phase::Closed(ring) => {
                ring.record(end);
                if ring.is_bad() == Some(true) {
                    self.open(now);
                }
            }
            Phase::HalfOpen { judged, .. } => {
                judged.record(end);
                match judged.is_bad() {
                    Some(true) => self.open(now),
                    Some(false) => {
                        self.phase = Phase::Closed(Ring::new(WINDOW));
                        self.changes.count();
                    }
                    None => {}
                }
            }
            Phase::Open { .. } => {}
        }
    }

    fn changes(&self) -> Changes {
        self.changes
    }
}

#[derive(Debug)]
struct Ring {
    size: usize,
    calls: VecDeque<(bool, bool)>,
    failed: usize,
    slow: usize,
}

impl Ring {
    fn new(size: usize) -> Self {
        Self { size, calls: VecDeque::with_capacity(size), failed: 0, slow: 0 }
    }

    fn record(&mut self, end: CallEnd) {
        if self.calls.len() == self.size {
            if let Some((failed, slow)) = self.calls.pop_front() {
                self.failed -= usize::from(failed);
                self.slow -= usize::from(slow);
            }
        }
        let slow = end.latency > SLOW;
        self.calls.push_back((end.failed, slow));
        self.failed += usize::from(end.failed);
        self.slow += usize::from(slow);
    }

    /// Whether a rate is at its threshold, once there are enough calls.
    fn is_bad(&self) -> Option<bool> {
        let enough = self.calls.len() == self.size;
        enough.then(|| self.failed * 2 >= self.size || self.slow == self.size)
    }
}
