//! Which handles are one circuit, and which are not.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tower_breaker::{Circuit, ManualClock, Outcome, State};

use crate::support::{Bench, rules};

// A registry that makes circuits by key is not part of the crate; this is the
// law such a registry has to keep, as it holds for circuits themselves.

#[test]
fn s130_threads_that_make_a_circuit_together_get_the_same() {
    const THREADS: usize = if cfg!(miri) { 8 } else { 100 };
    let (made, shared) = (AtomicUsize::new(0), OnceLock::new());
    let circuit = || -> &Circuit {
        shared.get_or_init(|| {
            made.fetch_add(1, Ordering::Relaxed);
            let rules = rules().consecutive_failures(THREADS as u32).clock(ManualClock::new());
            Circuit::new(rules.build().unwrap())
        })
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| circuit().clone().try_acquire().unwrap().record(Outcome::Failure));
        }
    });
    assert_eq!(made.load(Ordering::Relaxed), 1);
    // Each saw one failure of a hundred; together they opened it.
    assert_eq!(circuit().state(), State::Open);
}

#[test]
fn s130_one_circuit_open_leaves_the_other_closed() {
    // Even two of one configuration.
    let config = rules().consecutive_failures(1).clock(ManualClock::new()).build().unwrap();
    let (a, b) = (Circuit::new(config.clone()), Circuit::from(config));
    a.try_acquire().unwrap().record(Outcome::Failure);
    assert!(a.try_acquire().is_err());
    b.try_acquire().unwrap().record(Outcome::Success);
    assert_eq!((a.state(), b.state()), (State::Open, State::Closed));
    assert_eq!((a.snapshot().totals.success, b.snapshot().totals.failure), (0, 0));
}

#[test]
fn s130_a_clone_is_the_same_circuit() {
    let bench = Bench::new(rules());
    let (clone, borrowed) = (bench.circuit.clone(), Circuit::from(&bench.circuit));
    clone.trip();
    bench.is(State::Open).ask("X");
    assert_eq!((borrowed.state(), borrowed.snapshot().totals.rejected), (State::Open, 1));
    borrowed.reset();
    assert_eq!(clone.state(), State::Closed);
}
