//! The circuit against a model of it: slow, obvious, and written from the
//! design alone.
//!
//! The model keeps every call, every state it ever was in and every judged
//! outcome, and works out each answer from all of them each time it is asked.
//! A random configuration and a random history drive both; after every step
//! they must agree on all that a caller, a reader or an observer can see. Of the
//! service around a circuit it drives `poll_ready` where it refuses, and where it
//! looks for calls that hang. Threads, wakers, hints, health checks and how the
//! admitted share is told are tested elsewhere.
//!
//! `fuzz/` drives the same two by bytes.

mod cases;
mod reference;

use std::{cell::RefCell, collections::HashSet, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use tower_breaker::{Outcome, State};

use self::{
    cases::{case, waits},
    reference::{Bench, MOVES, Model, Move, SEEN, Setup, agree, both},
};

#[test]
fn the_circuit_and_the_model_agree_after_every_step() {
    let reached = RefCell::new(HashSet::new());
    for_all(10_000, case(), |case| {
        let model = agree(case)?;
        let mut reached = reached.borrow_mut();
        reached.extend(model.moves.iter().map(|moved| (moved.from, moved.cause.0)));
        let unfinished = |moved: &&Move| moved.cause.1.last().is_some_and(|number| *number > 0);
        let slow = model.moves.iter().filter(|moved| moved.cause.0 == "slow-call-rate");
        reached.extend(slow.filter(unfinished).map(|moved| (moved.from, "hangs")));
        reached.extend(model.seen.iter().copied());
        let counted = model.tally().into_iter().filter(|(_, count)| *count > 0);
        reached.extend(counted.map(|(name, _)| (State::Closed, name)));
        Ok(())
    });
    // Agreeing proves nothing about what never happened.
    let counted = Model::new(Setup::plain()).tally().map(|(name, _)| (State::Closed, name));
    for what in MOVES.into_iter().chain(SEEN).chain(counted) {
        assert!(reached.borrow().contains(&what), "no history reached {what:?}");
    }
}

#[test]
fn a_circuit_that_is_never_read_ends_up_the_same() {
    for_all(1_000, case(), |(setup, others, history)| {
        let mut bench = Bench::new(&setup);
        let mut model = Model { others, ..Model::new(setup) };
        for op in &history {
            let answers = both(&mut bench, &mut model, op);
            prop_assert_eq!(answers.0, answers.1);
        }
        prop_assert_eq!(bench.moves(), model.moves.clone());
        prop_assert_eq!(bench.view(), model.view());
        Ok(())
    });
}

#[test]
fn a_jittered_wait_keeps_within_its_share_and_is_kept_to_the_nanosecond() {
    let ends = prop::collection::vec(0..3u8, 1..16);
    let episodes = (waits(), 1..100u32, any::<u64>(), ends);
    for_all(1_000, episodes, |(waits, percent, seed, ends)| {
        let jitter = f64::from(percent) / 100.0;
        let setup = Setup { waits, probes: 1, successes: 1, ..Setup::plain() };
        let bench = Bench::with(&setup, |config| {
            config.open_for(setup.waits.to_backoff().jitter(jitter).seed(seed))
        });
        bench.circuit.trip();
        let mut step = 0;
        for end in ends {
            let opened = bench.moves().pop().expect("it has just opened");
            prop_assert_eq!(opened.to, State::Open);
            let wait = opened.open_for.expect("an opening says for how long");
            let base = waits.nth(step) as f64;
            prop_assert!(wait as f64 >= (base * (1.0 - jitter)).floor() - 1.0);
            prop_assert!(wait as f64 <= (base * (1.0 + jitter)).ceil() + 1.0);

            bench.clock.advance(Duration::from_nanos(wait - 1));
            let refusal = bench.circuit.try_acquire().expect_err("a nanosecond is left");
            prop_assert_eq!(refusal.retry_after(), Some(Duration::from_nanos(1)));
            bench.clock.advance(Duration::from_nanos(1));
            let probe = bench.circuit.try_acquire().expect("the wait is over");
            step = match end {
                0 => {
                    probe.record(Outcome::Success);
                    bench.circuit.trip();
                    0
                }
                1 => {
                    probe.record(Outcome::Failure);
                    step + 1
                }
                _ => {
                    bench.circuit.trip();
                    step + 1
                }
            };
        }
        Ok(())
    });
}

/// Tries a law on so many cases, or more if the environment asks for more.
fn for_all<S: Strategy>(
    cases: u32,
    strategy: S,
    law: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let default = ProptestConfig::default();
    let cases = cases.max(default.cases);
    let config = ProptestConfig { cases, failure_persistence: None, ..default };
    if let Err(error) = TestRunner::new(config).run(&strategy, law) {
        panic!("{error}");
    }
}
