//! Ways to come back, simulated around a circuit that closes at once.

use std::time::Duration;

use tower_breaker::{Config, State};

use super::{CallEnd, Changes, Ours, Policy, Ticket};
use crate::rng::Rng;

/// How the admitted share grows from when the probes have succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// From nothing to all of it in a straight line.
    Linear,
    /// 1/16, 1/8, 1/4, 1/2, each for a quarter of the time.
    Doubling,
}

/// A circuit that lets a growing share through once its probes succeeded.
#[derive(Debug)]
pub struct Gradual {
    inner: Ours,
    shape: Shape,
    over: Duration,
    was: State,
    closed_at: Option<Duration>,
    /// The part of a call that is owed: admitted when it is whole, so that the
    /// share is kept without chance.
    owed: f64,
}

impl Gradual {
    /// The configuration must have the engine's clock.
    pub fn new(config: Config, shape: Shape, over: Duration) -> Self {
        Self {
            inner: Ours::new(config),
            shape,
            over,
            was: State::Closed,
            closed_at: None,
            owed: 0.0,
        }
    }

    fn share(&mut self, now: Duration) -> f64 {
        let state = self.inner.circuit().state();
        if state != self.was {
            self.was = state;
            self.closed_at = (state == State::Closed).then_some(now);
            self.owed = 0.0;
        }
        let Some(closed_at) = self.closed_at else { return 1.0 };
        let part = now.saturating_sub(closed_at).as_secs_f64() / self.over.as_secs_f64();
        if part >= 1.0 {
            self.closed_at = None;
            return 1.0;
        }
        match self.shape {
            Shape::Linear => part,
            Shape::Doubling => 2f64.powi((part * 4.0) as i32 - 4),
        }
    }
}

impl Policy for Gradual {
    fn admit(&mut self, now: Duration, rng: &mut Rng) -> Option<Ticket> {
        self.owed += self.share(now);
        if self.owed < 1.0 {
            return None;
        }
        self.owed -= 1.0;
        self.inner.admit(now, rng)
    }

    fn end(&mut self, now: Duration, ticket: Ticket, end: CallEnd) {
        self.inner.end(now, ticket, end);
    }

    fn changes(&self) -> Changes {
        self.inner.changes()
    }
}
