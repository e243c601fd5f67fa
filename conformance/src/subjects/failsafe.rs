//! failsafe 1.3: its futures' `CircuitBreaker` around the call's future.
//!
//! Its rate is a moving average over time, and no rate over calls; so failures
//! in a row is what it is asked for. It has a clock for its own tests that is
//! public, if hidden, so its time is exact. The state is the one it told its
//! `Instrument` last.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use failsafe::{
    Config, FailurePolicy, Instrument, StateMachine, backoff,
    clock::{self, MockClock},
    failure_policy::consecutive_failures,
    futures::CircuitBreaker,
};

use super::driven::ask;
use crate::{
    breaker::{Breaker, Call, Command, Refused, Seen, State, Subject, Time, TooLong},
    feature::Feature,
    rules::{Rules, Wait},
};

/// failsafe.
#[derive(Clone, Copy, Debug)]
pub struct Failsafe;

/// What it told.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Words>);

#[derive(Debug, Default)]
struct Words {
    state: AtomicU8,
    refused: AtomicU64,
}

struct Peer<P> {
    circuit: StateMachine<P, Told>,
    told: Told,
}

impl Subject for Failsafe {
    fn name(&self) -> &str {
        "failsafe 1.3"
    }

    fn claims(&self, feature: Feature) -> bool {
        matches!(
            feature,
            Feature::ConsecutiveFailures
                | Feature::GrowingWait
                | Feature::ProbeVerdict
                | Feature::Reset
                | Feature::Refusals
                | Feature::ExactTime
        )
    }

    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn Breaker, &mut dyn Time),
    ) -> Result<(), Refused> {
        let row = rules.consecutive_failures.unwrap_or(u32::MAX);
        clock::freeze(|clock| match rules.open_for {
            Wait::Fixed(wait) => {
                play(&peer(consecutive_failures(row, backoff::constant(wait))), clock);
            }
            Wait::Doubling(first, longest) => {
                play(&peer(consecutive_failures(row, backoff::exponential(first, longest))), clock);
            }
        });
        Ok(())
    }
}

fn peer<P: FailurePolicy>(policy: P) -> Peer<P> {
    let told = Told::default();
    Peer { circuit: Config::new().failure_policy(policy).instrument(told.clone()).build(), told }
}

impl Time for MockClock {
    fn advance(&mut self, by: Duration) -> Result<(), TooLong> {
        // It adds to an `Instant`, which can hold less than a `Duration`.
        if self.now().checked_add(by).is_none() {
            return Err(TooLong(by));
        }
        MockClock::advance(self, by);
        Ok(())
    }
}

impl Instrument for Told {
    fn on_call_rejected(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn on_open(&self) {
        self.0.state.store(1, Ordering::Relaxed);
    }

    fn on_half_open(&self) {
        self.0.state.store(2, Ordering::Relaxed);
    }

    fn on_closed(&self) {
        self.0.state.store(0, Ordering::Relaxed);
    }
}

impl<P: FailurePolicy + Send + Sync + 'static> Breaker for Peer<P> {
    fn ask(&self) -> Option<Box<dyn Call>> {
        ask(|ending| CircuitBreaker::call(&self.circuit, ending))
    }

    fn state(&self) -> Option<State> {
        Some(match self.told.0.state.load(Ordering::Relaxed) {
            0 => State::Closed,
            1 => State::Open,
            _ => State::HalfOpen,
        })
    }

    fn seen(&self) -> Seen {
        Seen { refused: self.told.0.refused.load(Ordering::Relaxed), ..Seen::default() }
    }

    fn command(&self, command: Command) {
        match command {
            Command::Reset => self.circuit.reset(),
            _ => unreachable!("it claims no other"),
        }
    }
}
