//! tower-breaker: its circuit, on its own clock for tests.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tower_breaker::{
    Backoff, Circuit, Config, ManualClock, Observer, Outcome, Override, Permit, Probes, Transition,
};

use crate::{
    breaker::{Breaker, Call, Command, End, Refused, Seen, State, Subject, Time, TooLong},
    feature::Feature,
    rules::{Rules, Wait, Window},
};

/// tower-breaker.
#[derive(Clone, Copy, Debug)]
pub struct TowerBreaker;

/// Keeps what the last opening was decided by.
#[derive(Clone, Debug, Default)]
struct Evidence(Arc<Mutex<Option<(u64, u64)>>>);

struct Ours {
    circuit: Circuit,
    evidence: Evidence,
}

impl Subject for TowerBreaker {
    fn name(&self) -> &str {
        "tower-breaker"
    }

    fn claims(&self, _: Feature) -> bool {
        true
    }

    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn Breaker, &mut dyn Time),
    ) -> Result<(), Refused> {
        let (mut clock, evidence) = (ManualClock::new(), Evidence::default());
        let config = config(rules).clock(&clock).observer(evidence.clone()).build();
        let config = config.map_err(|error| Refused(error.to_string()))?;
        play(&Ours { circuit: Circuit::new(config), evidence }, &mut clock);
        Ok(())
    }
}

fn config(rules: &Rules) -> tower_breaker::ConfigBuilder {
    let window = match rules.window {
        Window::Calls(calls) => tower_breaker::Window::count(calls),
        Window::Time(span, None) => tower_breaker::Window::time(span),
        Window::Time(span, Some(buckets)) => tower_breaker::Window::time(span).buckets(buckets),
    };
    let backoff = match rules.open_for {
        Wait::Fixed(wait) => Backoff::fixed(wait),
        Wait::Doubling(first, longest) => Backoff::exponential(first, longest).jitter(0.0),
    };
    let mut probes = Probes::new(rules.probes);
    if let Some(lease) = rules.lease {
        probes = probes.lease(lease);
    }
    let config = Config::builder("conformance")
        .window(window)
        .minimum_calls(rules.minimum())
        .sustained_for(Duration::ZERO)
        .open_for(backoff)
        .probes(probes);
    let config = match rules.failure_rate {
        Some(rate) => config.failure_rate(rate),
        None => config.no_failure_rate(),
    };
    // Without any rule it would be refused, because it could never open.
    let config = config.consecutive_failures(rules.consecutive_failures.unwrap_or(u32::MAX));
    match rules.slow_calls {
        Some(slow) => config.slow_calls(slow.over, slow.rate),
        None => config,
    }
}

impl Time for ManualClock {
    fn advance(&mut self, by: Duration) -> Result<(), TooLong> {
        ManualClock::advance(self, by);
        Ok(())
    }
}

impl Observer for Evidence {
    fn on_transition(&self, transition: &Transition) {
        if transition.to == tower_breaker::State::Open {
            let window = transition.window;
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((window.calls, window.failures));
        }
    }

    fn hears_calls(&self) -> bool {
        false
    }
}

impl Breaker for Ours {
    fn ask(&self) -> Option<Box<dyn Call>> {
        self.circuit.try_acquire().ok().map(|permit| Box::new(permit) as Box<dyn Call>)
    }

    fn state(&self) -> Option<State> {
        Some(match self.circuit.state() {
            tower_breaker::State::Closed => State::Closed,
            tower_breaker::State::Open => State::Open,
            tower_breaker::State::HalfOpen => State::HalfOpen,
        })
    }

    fn seen(&self) -> Seen {
        let snapshot = self.circuit.snapshot();
        let (window, totals) = (snapshot.window, snapshot.totals);
        Seen {
            calls: window.calls,
            failures: window.failures,
            slow: window.slow,
            rate: window.failure_rate,
            refused: totals.rejected,
            good: totals.success,
            bad: totals.failure,
            stale: totals.stale,
            decided_by: *self.evidence.0.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn command(&self, command: Command) {
        match command {
            Command::Trip => self.circuit.trip(),
            Command::Reset => self.circuit.reset(),
            Command::ForceOpen => self.circuit.set_override(Override::force_open().until_cleared()),
            Command::ForceClosed => {
                self.circuit.set_override(Override::force_closed().until_cleared());
            }
            Command::Lift => self.circuit.clear_override(),
        }
    }
}

impl Call for Permit {
    fn end(self: Box<Self>, end: End) {
        match end {
            End::Success => self.record(Outcome::Success),
            End::Failure => self.record(Outcome::Failure),
            End::Neutral => self.record(Outcome::Ignored),
            End::Panic => {
                let panics = move || {
                    let _permit = self;
                    // Not `panic!`, which would be reported.
                    resume_unwind(Box::new("the call fell over"));
                };
                let _ = catch_unwind(AssertUnwindSafe(panics));
            }
        }
    }
}
