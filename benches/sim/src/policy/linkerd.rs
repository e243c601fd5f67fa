//! Linkerd's failure accrual at its defaults: 7 failures in a row, a penalty
//! of 1 s that doubles up to 1 min, with up to half of it added by chance,
//! and one request in probation.

use std::time::Duration;

use super::{CallEnd, Changes, Policy, Ticket};
use crate::rng::Rng;

const MAX_FAILURES: u32 = 7;
const MIN_PENALTY: Duration = Duration::from_secs(1);
const MAX_PENALTY: Duration = Duration::from_secs(60);
const JITTER_RATIO: f64 = 0.5;

/// Linkerd's consecutive-failures accrual.
#[derive(Debug)]
pub struct Linkerd {
    phase: Phase,
    failures: u32,
    penalties: u32,
    rng: Rng,
    changes: Changes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Available,
    Unavailable { until: Duration },
    Probation,
}

impl Linkerd {
    /// An available one.
    pub fn new(rng: Rng) -> Self {
        Self {
            phase: Phase::Available,
            failures: 0,
            penalties: 0,
            rng,
            changes: Changes::default(),
        }
    }

    fn penalise(&mut self, now: Duration) {
        let base = MIN_PENALTY.saturating_mul(1 << self.penalties.min(16)).min(MAX_PENALTY);
        let penalty = base.mul_f64(1.0 + JITTER_RATIO * self.rng.unit()).min(MAX_PENALTY);
        self.penalties += 1;
        self.phase = Phase::Unavailable { until: now + penalty };
        self.changes.count_opening();
    }
}

impl Policy for Linkerd {
    fn admit(&mut self, now: Duration, _: &mut Rng) -> Option<Ticket> {
        match self.phase {
            Phase::Available => Some(Ticket(0)),
            Phase::Unavailable { until } if now >= until => {
                self.phase = Phase::Probation;
                self.changes.count();
                Some(Ticket(0))
            }
            Phase::Unavailable { .. } | Phase::Probation => None,
        }
    }

    fn end(&mut self, now: Duration, _: Ticket, end: CallEnd) {
        match self.phase {
            Phase::Available if end.failed => {
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    self.penalise(now);
                }
            }
            Phase::Available => self.failures = 0,
            Phase::Probation if end.failed => self.penalise(now),
            Phase::Probation => {
                self.phase = Phase::Available;
                self.failures = 0;
                self.penalties = 0;
                self.changes.count();
            }
            Phase::Unavailable { .. } => {}
        }
    }

    fn changes(&self) -> Changes {
        self.changes
    }
}
