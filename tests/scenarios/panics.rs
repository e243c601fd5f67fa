//! Calls that panic, and refusals: what is counted, and as what.

use std::{
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
};

use tower::{BoxError, Layer, service_fn};
use tower_breaker::{CircuitBreakerLayer, CircuitOpen, Override, Permit, ResultClassifier, State};

use crate::support::{Bench, Log, call, rules};

#[test]
fn s85_a_panic_in_the_call_is_one_failure_and_goes_on() {
    let with_permit = |bench: &Bench| {
        let _permit = bench.permit();
        panic!("the call fell over");
    };
    let in_call = |bench: &Bench| {
        let inner =
            service_fn(|()| -> Ready<Result<(), BoxError>> { panic!("the call fell over") });
        let _ = call(&mut layer(bench).layer(inner));
    };
    let in_future = |bench: &Bench| {
        let inner = service_fn(async |()| -> Result<(), BoxError> { panic!("the call fell over") });
        let _ = call(&mut layer(bench).layer(inner));
    };
    let ways: [&dyn Fn(&Bench); 3] = [&with_permit, &in_call, &in_future];
    for way in ways {
        let panics = |bench: &Bench| {
            let panic = catch_unwind(AssertUnwindSafe(|| way(bench))).expect_err("it goes on");
            assert_eq!(panic.downcast_ref(), Some(&"the call fell over"));
        };
        // Closed: one failure, and the second of two opens.
        let bench = Bench::new(rules().consecutive_failures(2));
        panics(&bench);
        bench.is(State::Closed).holds(1, 1);
        assert_eq!((bench.totals().failure, bench.totals().cancelled), (1, 0));
        panics(&bench);
        bench.is(State::Open);

        // Half-open: the probe has failed, and the next can be taken.
        panics(bench.wait());
        bench.is(State::Open);
        assert_eq!((bench.totals().failure, bench.totals().opened), (3, 2));
        bench.wait().run("S").is(State::Closed);
    }
}

/// Its owner knows that the call is not what fell over.
#[test]
fn a_permit_that_is_cancelled_while_a_panic_unwinds_is_no_failure() {
    struct Cancels(Option<Permit>);

    impl Drop for Cancels {
        fn drop(&mut self) {
            self.0.take().unwrap().cancel();
        }
    }

    let bench = Bench::new(rules());
    let unwinds = || {
        let _cancels = Cancels(Some(bench.permit()));
        panic!("something else fell over");
    };
    catch_unwind(AssertUnwindSafe(unwinds)).expect_err("it goes on");
    assert_eq!((bench.totals().failure, bench.totals().cancelled), (0, 1));
}

#[test]
fn s90_refusals_are_counted_apart_and_enter_no_rate() {
    // Opened by two failures: what it says of itself is 100 % of 2.
    let log = Log::default();
    let half = rules().minimum_calls(2).failure_rate(0.5);
    let bench = Bench::new(half.observer(log.clone()));
    bench.run("FF").is(State::Open).ask("XXXXXX");
    let window = log.last().window;
    assert_eq!((window.calls, window.failures, window.failure_rate), (2, 2, Some(1.0)));
    let totals = bench.totals();
    assert_eq!((totals.failure, totals.rejected), (2, 6));
    assert_eq!((totals.success, totals.ignored, totals.cancelled, totals.stale), (0, 0, 0, 0));

    // Held open by hand: the window beneath is as it was.
    let bench = Bench::new(rules());
    bench.run("FF").circuit.set_override(Override::force_open());
    bench.ask("XXXXXX");
    bench.circuit.clear_override();
    bench.holds(2, 2);
    assert_eq!((bench.rate(), bench.totals().rejected), (Some(1.0), 6));
}

#[test]
fn s90_refusals_of_a_breaker_further_in_prove_nothing() {
    let (outer, inner) = (Bench::new(rules().consecutive_failures(1)), Bench::new(rules()));
    inner.circuit.trip();
    let dependency = service_fn(|()| ready(Ok::<_, BoxError>(())));
    let deferred = layer(&inner).when_open(tower_breaker::WhenOpen::Defer);
    let mut service = layer(&outer).layer(deferred.layer(dependency));
    for _ in 0..6 {
        assert!(call(&mut service).unwrap_err().is::<CircuitOpen>());
    }
    outer.is(State::Closed).holds(0, 0);
    assert_eq!((outer.totals().ignored, outer.totals().rejected), (6, 0));
    assert_eq!(inner.totals().rejected, 6);
}

fn layer(bench: &Bench) -> CircuitBreakerLayer<ResultClassifier> {
    CircuitBreakerLayer::with_classifier(&bench.circuit, ResultClassifier::new())
}
