//! tower-resilience-circuitbreaker 0.14: the layer whose services share a
//! circuit, around a service of the call's future.
//!
//! Failures in a row are a mode of its own, which leaves the rate alone. What
//! it calls `force_open` opens it for the usual wait, so that is opening by
//! hand. A rule that is not asked for is out of reach: a rate of 1 over more
//! calls than there are. Its times are read from the system's clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tower::{Layer, Service};
use tower_resilience_circuitbreaker::{
    CircuitBreaker, CircuitBreakerHandle, CircuitBreakerLayer, CircuitState, DefaultClassifier,
    SlidingWindowType,
};

use super::{
    driven::{Bad, Ending, ask, at_once},
    pace::Pace,
};
use crate::{
    breaker::{Breaker, Call, Command, Refused, Seen, State, Subject, Time},
    feature::Feature,
    rules::{Rules, Wait, Window},
};

/// tower-resilience-circuitbreaker.
#[derive(Clone, Copy, Debug)]
pub struct TowerResilience;

/// A service whose requests say how they end.
#[derive(Clone, Copy, Debug)]
struct Calls;

struct Peer {
    service: CircuitBreaker<Calls, DefaultClassifier>,
    handle: CircuitBreakerHandle,
    refused: Arc<AtomicU64>,
}

impl Service<Ending> for Calls {
    type Response = ();
    type Error = Bad;
    type Future = Ending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Bad>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Ending) -> Ending {
        request
    }
}

impl Subject for TowerResilience {
    fn name(&self) -> &str {
        "tower-resilience 0.14"
    }

    fn claims(&self, feature: Feature) -> bool {
        matches!(
            feature,
            Feature::FailureRate
                | Feature::Minimum
                | Feature::TimeWindow
                | Feature::ConsecutiveFailures
                | Feature::SlowCalls
                | Feature::ProbeVerdict
                | Feature::Successes
                | Feature::ProbeLimit
                | Feature::ProbeCount
                | Feature::Trip
                | Feature::Reset
                | Feature::WindowCounts
                | Feature::Refusals
        )
    }

    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn Breaker, &mut dyn Time),
    ) -> Result<(), Refused> {
        let refused = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&refused);
        let Wait::Fixed(wait) = rules.open_for else { unreachable!("it claims no other") };
        let count = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let mut builder = CircuitBreakerLayer::builder()
            .wait_duration_in_open(Pace::real(wait))
            .permitted_calls_in_half_open(rules.probes as usize)
            .minimum_number_of_calls(usize::try_from(rules.minimum()).unwrap_or(usize::MAX))
            .on_call_rejected(count);
        builder = match rules.window {
            Window::Calls(calls) => builder.sliding_window_size(calls as usize),
            Window::Time(span, _) => builder
                .sliding_window_type(SlidingWindowType::TimeBased)
                .sliding_window_duration(Pace::real(span)),
        };
        if let Some(row) = rules.consecutive_failures {
            builder = builder.consecutive_failures(row as usize);
        } else if rules.failure_rate.is_none() {
            builder = builder.consecutive_failures(usize::MAX);
        }
        if let Some(rate) = rules.failure_rate {
            builder = builder.failure_rate_threshold(rate);
        }
        if let Some(slow) = rules.slow_calls {
            builder = builder
                .slow_call_duration_threshold(Pace::real(slow.over))
                .slow_call_rate_threshold(slow.rate);
        }
        let built = builder.build_with_handle();
        let (layer, handle) = built.map_err(|error| Refused(error.to_string()))?;
        play(&Peer { service: layer.layer(Calls), handle, refused }, &mut Pace::new());
        Ok(())
    }
}

impl Breaker for Peer {
    fn ask(&self) -> Option<Box<dyn Call>> {
        let mut service = self.service.clone();
        let ready = service.poll_ready(&mut Context::from_waker(std::task::Waker::noop()));
        match ready {
            Poll::Ready(Ok(())) => ask(|ending| service.call(ending)),
            _ => None,
        }
    }

    fn state(&self) -> Option<State> {
        Some(match self.handle.state() {
            CircuitState::Closed => State::Closed,
            CircuitState::Open => State::Open,
            CircuitState::HalfOpen => State::HalfOpen,
        })
    }

    fn seen(&self) -> Seen {
        let metrics = at_once(self.handle.metrics());
        Seen {
            calls: metrics.total_calls as u64,
            failures: metrics.failure_count as u64,
            slow: metrics.slow_call_count as u64,
            // It tells a rate of 0 where there is none.
            rate: Some(metrics.failure_rate),
            refused: self.refused.load(Ordering::Relaxed),
            ..Seen::default()
        }
    }

    fn command(&self, command: Command) {
        match command {
            Command::Trip => at_once(self.handle.force_open()),
            Command::Reset => at_once(self.handle.reset()),
            _ => unreachable!("it claims no other"),
        }
    }
}
