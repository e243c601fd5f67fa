//! Calls in flight that are slower than the slow rule allows count before they
//! end.

use std::{
    future::pending,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use tower::{BoxError, Layer, Service, limit::ConcurrencyLimitLayer, service_fn};
use tower_breaker::{
    Cause, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ConfigBuilder, ManualClock, Outcome,
    Override, Permit, ResultClassifier, State, Window,
};

const SECOND: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(2);
const NANO: Duration = Duration::from_nanos(1);

fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("overdue")
        .window(Window::count(20))
        .minimum_calls(10)
        .slow_calls(SLOW, 0.5)
        .sustained_for(Duration::ZERO)
        .clock(clock)
}

fn circuit(config: ConfigBuilder) -> Circuit {
    Circuit::new(config.build().unwrap())
}

fn take(circuit: &Circuit, calls: usize) -> Vec<Permit> {
    (0..calls).map(|_| circuit.try_acquire().unwrap()).collect()
}

fn succeed(circuit: &Circuit, calls: usize) {
    take(circuit, calls).into_iter().for_each(|permit| permit.record(Outcome::Success));
}

#[test]
fn a_dependency_that_hangs_opens_the_circuit_at_the_threshold_and_one_call() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    let hung = take(&circuit, 10);
    clock.advance(SLOW);
    let in_time = circuit.try_acquire();
    assert!(in_time.is_ok(), "as long as the threshold is not slower");
    clock.advance(NANO);
    assert_eq!(circuit.state(), State::Closed, "reading changes nothing");
    assert_eq!(circuit.snapshot().window.overdue, 10);
    assert_eq!(circuit.snapshot().window.calls, 0);

    circuit.try_acquire().unwrap_err();
    let seen = circuit.snapshot();
    assert_eq!(seen.state, State::Open);
    assert_eq!(
        seen.cause.as_ref().unwrap().to_string(),
        "10 of 10 calls took longer than 2s (10 of them have not ended; 100 %), and 50 % are enough \
         to open"
    );
    assert!(matches!(seen.cause, Some(Cause::SlowCallRate { unfinished: 10, .. })));
    drop(hung);
    assert_eq!(circuit.snapshot().totals.stale, 10);
}

/// The law: an admission opens the circuit if and only if it would be open had
/// the overdue calls ended just before, slow.
#[test]
fn an_overdue_call_weighs_as_much_as_a_slow_one_that_ends_now() {
    for good in 0..=25 {
        for slow in 0..=12 {
            for window in [Window::count(20), Window::time(60 * SECOND)] {
                let clock = ManualClock::new();
                let of = || circuit(config(&clock).window(window));
                let (hangs, ends) = (of(), of());
                let held: Vec<_> = [&hangs, &ends].map(|circuit| take(circuit, slow)).into();
                clock.advance(SLOW + NANO);
                let mut held = held.into_iter();
                let hung = held.next().unwrap();
                // Forced closed, so that nobody asks before they have ended.
                for circuit in [&hangs, &ends] {
                    circuit.set_override(Override::force_closed());
                }
                let good: Vec<_> = [&hangs, &ends].map(|circuit| take(circuit, good)).into();
                for circuit in [&hangs, &ends] {
                    circuit.clear_override();
                }
                good.into_iter().flatten().for_each(|permit| permit.record(Outcome::Success));
                held.flatten().for_each(|permit| permit.record(Outcome::Success));

                let expected = ends.try_acquire().is_err();
                assert_eq!(hangs.try_acquire().is_err(), expected, "{slow} slow in {window:?}");
                assert_eq!(hangs.state(), ends.state());
                drop(hung);
            }
        }
    }
}

#[test]
fn once_it_has_ended_a_call_counts_once() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    let held = take(&circuit, 9);
    clock.advance(SLOW + NANO);
    drop(circuit.try_acquire().unwrap());
    for (ended, permit) in (1..).zip(held) {
        permit.record(Outcome::Failure);
        drop(circuit.try_acquire().unwrap());
        let window = circuit.snapshot().window;
        assert_eq!((window.calls, window.slow, window.failures), (ended, ended, ended));
        assert_eq!(window.overdue, 9 - ended);
    }
}

#[test]
fn a_call_that_never_ends_does_not_count_for_ever() {
    let clock = ManualClock::new();
    for window in [Window::count(20), Window::time(60 * SECOND)] {
        let circuit = circuit(config(&clock).window(window).slow_calls(SLOW, 0.3));
        let mut leaked = Vec::new();
        // One in twenty hangs: the share is never near the threshold.
        for _ in 0..200 {
            leaked.push(circuit.try_acquire().unwrap());
            for _ in 0..19 {
                clock.advance(SECOND / 2);
                succeed(&circuit, 1);
            }
        }
        assert_eq!(circuit.state(), State::Closed);
        let overdue = circuit.snapshot().window.overdue;
        assert!((1..=7).contains(&overdue), "{overdue} with {window:?}");
        leaked.into_iter().for_each(|permit| permit.record(Outcome::Ignored));
        assert_eq!(circuit.snapshot().window.overdue, 0);
    }
}

#[test]
fn what_hung_before_an_idle_night_is_no_news_in_the_morning() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock).window(Window::time(60 * SECOND)));
    let leaked = take(&circuit, 50);
    clock.advance(8 * 3_600 * SECOND);
    drop(circuit.try_acquire().unwrap());
    assert_eq!(circuit.snapshot().window.overdue, 0);
    drop(leaked);
}

#[test]
fn the_trouble_is_as_old_as_the_oldest_overdue_call() {
    // Slow after 2 s and sustained for 5: it takes 5 s from the first.
    let clock = ManualClock::new();
    let patient = circuit(config(&clock).sustained_for(5 * SECOND));
    let hung = take(&patient, 10);
    clock.advance(5 * SECOND - NANO);
    drop(patient.try_acquire().unwrap());
    clock.advance(NANO);
    patient.try_acquire().unwrap_err();
    drop(hung);

    // A stall as short as the threshold is long is a blip.
    let patient = circuit(config(&clock).slow_calls(SECOND / 10, 0.5).sustained_for(SECOND));
    let stalled = take(&patient, 100);
    clock.advance(SECOND / 5);
    drop(patient.try_acquire().unwrap());
    stalled.into_iter().for_each(|permit| permit.record(Outcome::Success));
    assert_eq!(patient.state(), State::Closed);
}

#[test]
fn calls_of_all_threads_are_watched_and_may_end_on_any() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock).window(Window::count(200)).minimum_calls(100));
    let mut held = Vec::new();
    for _ in 0..6 {
        let begin = || take(&circuit, 3);
        held.push(thread::scope(|scope| scope.spawn(begin).join().unwrap()));
        clock.advance(SECOND / 10);
    }
    // Six threads, one after the other: the first have been at it for 0.6 s.
    clock.advance(SLOW - SECOND * 6 / 10 + NANO);
    for overdue in 1..=6 {
        assert_eq!(circuit.snapshot().window.overdue, 3 * overdue);
        drop(circuit.try_acquire().unwrap());
        assert_eq!(circuit.snapshot().window.overdue, 3 * overdue);
        clock.advance(SECOND / 10);
    }
    for (ended, calls) in (1..).zip(held) {
        let end = || calls.into_iter().for_each(|call| call.record(Outcome::Success));
        thread::scope(|scope| scope.spawn(end).join().unwrap());
        let window = circuit.snapshot().window;
        assert_eq!((window.slow, window.overdue), (3 * ended, 18 - 3 * ended));
    }
}

#[test]
fn a_call_that_began_before_the_rules_changed_is_overdue_by_the_new_ones() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    let early = take(&circuit, 2);
    clock.advance(SECOND);
    circuit.reconfigure(config(&clock).slow_calls(SECOND / 2, 0.5).build().unwrap()).unwrap();
    assert_eq!(circuit.snapshot().window.overdue, 2);
    let late = take(&circuit, 3);
    circuit.reconfigure(config(&clock).slow_calls(3 * SECOND, 0.5).build().unwrap()).unwrap();
    assert_eq!(circuit.snapshot().window.overdue, 0);
    clock.advance(2 * SECOND + NANO);
    assert_eq!(circuit.snapshot().window.overdue, 2);
    drop(circuit.try_acquire().unwrap());
    clock.advance(SECOND);
    assert_eq!(circuit.snapshot().window.overdue, 5);
    early.into_iter().chain(late).for_each(|call| call.record(Outcome::Ignored));
    assert_eq!(circuit.snapshot().window.overdue, 0);
}

#[test]
fn without_a_slow_rule_nobody_minds() {
    let clock = ManualClock::new();
    let circuit = Circuit::new(Config::builder("plain").clock(&clock).build().unwrap());
    let hung = take(&circuit, 100);
    clock.advance(3_600 * SECOND);
    drop(circuit.try_acquire().unwrap());
    assert_eq!(circuit.snapshot().window.overdue, 0);
    drop(hung);
}

#[test]
fn it_counts_on_the_ramp_too_and_under_an_observer_s_eyes() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock).ramp(100 * SECOND));
    circuit.trip();
    clock.advance(2 * SECOND);
    succeed(&circuit, 3);
    clock.advance(90 * SECOND);
    let hung: Vec<_> = (0..20).filter_map(|_| circuit.try_acquire().ok()).collect();
    clock.advance(SLOW + NANO);
    circuit.set_override(Override::force_closed().until_cleared());
    drop(circuit.try_acquire().unwrap());
    assert_eq!(circuit.state(), State::HalfOpen, "forced closed, the machine stays as it was");
    circuit.set_override(Override::observe_only().until_cleared());
    drop(circuit.try_acquire().unwrap());
    assert_eq!(circuit.state(), State::Open, "observed, it moves");
    assert_eq!(circuit.snapshot().totals.would_reject, 1);
    drop(hung);
}

/// Nothing ever returns, and nothing is ever called again, because the inner
/// service is full of what hangs.
#[test]
fn callers_stuck_in_the_inner_service_open_the_circuit_too() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
    let hang = service_fn(|()| pending::<Result<(), BoxError>>());
    let mut service = layer.layer(ConcurrencyLimitLayer::new(10).layer(hang));
    let mut context = Context::from_waker(Waker::noop());
    let mut calls = Vec::new();
    while service.poll_ready(&mut context).map_ok(drop).is_ready() {
        calls.push(service.call(()));
    }
    assert_eq!(calls.len(), 10);
    clock.advance(SLOW + NANO);
    // Finds out, and asks to be polled again.
    assert!(service.poll_ready(&mut context).is_pending());
    assert_eq!(circuit.state(), State::Open);
    let Poll::Ready(Err(error)) = service.poll_ready(&mut context) else {
        panic!("the caller is still stuck")
    };
    assert!(error.is::<CircuitOpen>());
}
