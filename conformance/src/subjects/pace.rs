//! Time for those who read the system's clock.
//!
//! A second of a scenario takes 50 ms. What is waited for is an instant
//! counted from the beginning, so that delays do not add up; and a step that
//! was taken later than a fifth of a second after its time proves nothing.
//! Scenarios leave that much on either side of every edge, or need
//! [`Feature::ExactTime`](crate::Feature).

#![expect(clippy::disallowed_methods, reason = "nobody else can move these breakers' clock")]

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::breaker::{Time, TooLong};

/// So much faster than a scenario's.
const FASTER: u32 = 20;
/// By how much a step may be late, in a scenario's time.
const LATE: Duration = Duration::from_millis(200);
/// Nobody waits longer, in a scenario's time.
const PATIENCE: Duration = Duration::from_secs(150);

/// The system's clock, at a pace.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    passed: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), passed: Duration::ZERO }
    }

    /// A duration of a scenario, as the breaker is to be told.
    pub(super) fn real(duration: Duration) -> Duration {
        if duration == Duration::MAX { duration } else { duration / FASTER }
    }
}

impl Time for Pace {
    fn advance(&mut self, by: Duration) -> Result<(), TooLong> {
        let passed = self.passed.saturating_add(by);
        if passed > PATIENCE {
            return Err(TooLong(by));
        }
        self.passed = passed;
        thread::sleep((self.began + Self::real(passed)).saturating_duration_since(Instant::now()));
        Ok(())
    }

    fn is_right(&self) -> bool {
        self.began.elapsed() < Self::real(self.passed + LATE)
    }
}
