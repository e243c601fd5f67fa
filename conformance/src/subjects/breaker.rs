//! breaker 2.0: `CircuitBreaker::call` around the call's future.
//!
//! A rule that is not asked for is out of reach: failures in a row at the
//! highest number there is, the rate at 0, which it documents as off. It limits
//! the probes that are under way at once, and not those in all. Its wait is read
//! from the system's clock.

use std::sync::Arc;

use breaker::{BackoffStrategy, CircuitBreaker, CircuitBreakerConfig};

use super::{
    driven::{Bad, ask},
    pace::Pace,
};
use crate::{
    breaker::{self as kit, Call, Command, Refused, Seen, State, Subject, Time},
    feature::Feature,
    rules::{Rules, Wait, Window},
};

/// breaker.
#[derive(Clone, Copy, Debug)]
pub struct Breaker;

struct Peer(Arc<CircuitBreaker>);

impl Subject for Breaker {
    fn name(&self) -> &str {
        "breaker 2.0"
    }

    fn claims(&self, feature: Feature) -> bool {
        matches!(
            feature,
            Feature::FailureRate
                | Feature::Minimum
                | Feature::ConsecutiveFailures
                | Feature::GrowingWait
                | Feature::ProbeVerdict
                | Feature::Successes
                | Feature::ProbeLimit
                | Feature::Neutral
                | Feature::Trip
                | Feature::Reset
                | Feature::WindowCounts
        )
    }

    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn kit::Breaker, &mut dyn Time),
    ) -> Result<(), Refused> {
        let backoff = match rules.open_for {
            Wait::Fixed(wait) => BackoffStrategy::Fixed(Pace::real(wait)),
            Wait::Doubling(first, longest) => BackoffStrategy::Exponential {
                initial: Pace::real(first),
                max: Pace::real(longest),
                factor: 2.0,
            },
        };
        let Window::Calls(window) = rules.window else { unreachable!("it claims no other") };
        let config = CircuitBreakerConfig::builder()
            .failure_rate_threshold(rules.failure_rate.unwrap_or(0.0) as f32)
            .minimum_calls(u32::try_from(rules.minimum()).unwrap_or(u32::MAX))
            .consecutive_failures(rules.consecutive_failures.unwrap_or(u32::MAX))
            .sliding_window_size(window)
            .half_open_max_calls(rules.probes)
            .success_threshold(rules.probes)
            .failure_predicate(|error: &Bad| *error == Bad::Failure)
            .backoff(backoff);
        play(&Peer(Arc::new(CircuitBreaker::new(config.build()))), &mut Pace::new());
        Ok(())
    }
}

impl kit::Breaker for Peer {
    fn ask(&self) -> Option<Box<dyn Call>> {
        let circuit = Arc::clone(&self.0);
        ask(|ending| async move { circuit.call(|| ending).await })
    }

    fn state(&self) -> Option<State> {
        Some(match self.0.state() {
            breaker::State::Closed => State::Closed,
            breaker::State::Open => State::Open,
            breaker::State::HalfOpen => State::HalfOpen,
        })
    }

    fn seen(&self) -> Seen {
        let calls = self.0.window_filled();
        let rate = f64::from(self.0.window_failure_rate());
        let failures = (rate * f64::from(calls)).round() as u64;
        // It tells a rate of 0 where there is none.
        Seen { calls: calls.into(), failures, rate: Some(rate), ..Seen::default() }
    }

    fn command(&self, command: Command) {
        match command {
            Command::Trip => self.0.trip(),
            Command::Reset => self.0.reset(),
            _ => unreachable!("it claims no other"),
        }
    }
}
