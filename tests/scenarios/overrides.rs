//! What an operator lays over the circuit.

use std::{cell::Cell, future::ready};

use tower::{BoxError, Layer, service_fn};
use tower_breaker::{
    CircuitBreakerLayer, CircuitOpen, Override, ResultClassifier, State, WhenOpen,
};

use crate::support::{Bench, Log, NANO, SECOND, call, rules};

#[test]
fn s93_forced_open_it_refuses_all_and_never_probes() {
    for trip in [false, true] {
        let log = Log::default();
        let bench = Bench::new(rules().observer(log.clone()));
        if trip {
            bench.circuit.trip();
        }
        let state = bench.state();
        bench.circuit.set_override(Override::force_open().until_cleared());
        let refusal = bench.refusal();
        assert_eq!((refusal.state(), refusal.retry_after()), (State::Open, None));
        bench.clock.advance(6 * SECOND);
        bench.is(state).ask("X");
        bench.is(state);
        assert_eq!(bench.totals().rejected, 2);
        bench.clock.advance(1_000_000 * SECOND);
        bench.is(state).ask("X");
        assert!(log.path().iter().all(|(_, to)| *to != State::HalfOpen));

        // Lifted, the machine's own state is there again.
        bench.circuit.clear_override();
        bench.is(state).ask("P");
    }
}

#[test]
fn s93_an_override_that_is_forgotten_ends_after_an_hour() {
    for forgotten in [Override::force_open(), Override::force_closed(), Override::observe_only()] {
        let bench = Bench::new(rules());
        bench.circuit.set_override(forgotten);
        bench.clock.advance(3_600 * SECOND - NANO);
        assert!(bench.circuit.snapshot().active_override.is_some());
        bench.clock.advance(NANO);
        assert_eq!(bench.circuit.snapshot().active_override, None);
        bench.is(State::Closed).run("S");
    }
}

#[test]
fn s93_forced_open_the_inner_service_is_never_called() {
    for when_open in [WhenOpen::Error, WhenOpen::Defer] {
        let bench = Bench::new(rules());
        bench.circuit.set_override(Override::force_open());
        let runs = Cell::new(0);
        let inner = service_fn(|()| {
            runs.set(runs.get() + 1);
            ready(Ok::<_, BoxError>(()))
        });
        let classifier = ResultClassifier::new();
        let mut service = CircuitBreakerLayer::with_classifier(&bench.circuit, classifier)
            .when_open(when_open)
            .layer(inner);
        for _ in 0..50 {
            let error = call(&mut service).unwrap_err();
            assert_eq!(CircuitOpen::find_in(&*error).map(CircuitOpen::name), Some("bench"));
            bench.clock.advance(SECOND);
        }
        assert_eq!((runs.get(), bench.totals().rejected), (0, 50));

        bench.circuit.clear_override();
        call(&mut service).unwrap();
        assert_eq!(runs.get(), 1);
    }
}

#[test]
fn s93_forced_open_without_an_end_nobody_is_told_when_to_come_back() {
    let bench = Bench::new(rules());
    bench.circuit.set_override(Override::force_open().expires_in(SECOND));
    assert_eq!(bench.refusal().to_string(), "circuit bench is open, retry after 1.0s");
    bench.circuit.set_override(Override::force_open().until_cleared());
    let refusal = bench.refusal();
    assert_eq!((refusal.retry_after(), &*refusal.to_string()), (None, "circuit bench is open"));
}
