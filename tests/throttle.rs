//! Adaptive throttling.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{Config as Runs, TestRunner},
};
use tower_breaker::{
    Circuit, Config, ConfigBuilder, ManualClock, Observer, Outcome, Override, State, Throttle,
};

const SECOND: Duration = Duration::from_secs(1);
const SPAN: Duration = Duration::from_secs(10);

fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("busy")
        .no_failure_rate()
        .throttle(Throttle::new(2.0).window(SPAN).minimum_calls(10))
        .clock(clock)
}

fn circuit(config: ConfigBuilder) -> Circuit {
    Circuit::new(config.build().unwrap())
}

/// Calls one after the other; how many passed.
fn call(circuit: &Circuit, calls: u32, outcome: Outcome) -> u32 {
    let passes = |_: &u32| circuit.try_acquire().map(|permit| permit.record(outcome)).is_ok();
    (0..calls).filter(passes).count() as u32
}

/// Against a list of all calls, added up anew each time.
#[test]
fn the_share_that_passes_is_that_of_the_rule() {
    let step = (0..3_000u64, 0..4u8);
    let histories = prop::collection::vec(step, 1..300);
    let runs = Runs { cases: 500, failure_persistence: None, ..Runs::default() };
    let mut runner = TestRunner::new(runs);
    runner
        .run(&histories, |history| {
            let clock = ManualClock::new();
            let circuit = circuit(config(&clock));
            let (mut now, mut credit) = (0, 0);
            let mut calls: Vec<(u64, bool)> = Vec::new();
            for (pause, kind) in history {
                // Long pauses are rare.
                let pause = if pause < 2_900 { pause / 100 } else { pause };
                clock.advance(Duration::from_millis(pause));
                now += pause;
                calls.retain(|(at, _)| at / 1_000 + 10 > now / 1_000);
                let requests = calls.len() as u64;
                let accepts = calls.iter().filter(|(_, accepted)| *accepted).count() as u64;
                let share = match requests {
                    0..10 => 1_000_000,
                    _ => ((2 * accepts + 1) * 1_000_000 / (requests + 1)).min(1_000_000),
                };
                let passes = credit + share >= 1_000_000;
                credit = (credit + share) % 1_000_000;

                let permit = circuit.try_acquire();
                prop_assert_eq!(
                    permit.is_ok(),
                    passes,
                    "{} of {} at {} ms",
                    accepts,
                    requests,
                    now
                );
                match (permit, kind) {
                    (Ok(permit), 0) => {
                        permit.record(Outcome::Success);
                        calls.push((now, true));
                    }
                    // Proves nothing.
                    (Ok(permit), 1) => permit.record(Outcome::Ignored),
                    (Ok(permit), _) => {
                        permit.record(Outcome::Failure);
                        calls.push((now, false));
                    }
                    (Err(open), _) => {
                        prop_assert_eq!(open.state(), State::Closed);
                        calls.push((now, false));
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_dead_dependency_gets_little_and_a_healed_one_all() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    let mut sent = 0;
    for _ in 0..30 {
        clock.advance(SECOND);
        sent = call(&circuit, 100, Outcome::Failure);
    }
    assert!(sent <= 1, "{sent} of 100 calls");
    let seen = circuit.snapshot();
    assert_eq!(seen.state, State::Closed);
    assert!(seen.admitted_share.unwrap() < 0.01);
    assert_eq!(seen.retry_after, Some(SECOND), "by then a tenth of the window is forgotten");
    let open = (0..2).find_map(|_| circuit.try_acquire().err()).unwrap();
    assert_eq!(open.to_string(), "circuit busy lets 0% of its calls pass, retry after 1.0s");

    let mut seconds = 0;
    while circuit.snapshot().admitted_share.is_some() {
        clock.advance(SECOND);
        call(&circuit, 100, Outcome::Success);
        seconds += 1;
    }
    // It comes back by doubling, one window after another.
    assert!(seconds <= 60, "{seconds} s");
    assert_eq!(call(&circuit, 1_000, Outcome::Success), 1_000);
}

#[test]
fn one_failure_at_low_traffic_refuses_nothing() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    for call in 0..100 {
        clock.advance(SECOND + SECOND / 10);
        let outcome = if call % 10 == 0 { Outcome::Failure } else { Outcome::Success };
        circuit.try_acquire().unwrap().record(outcome);
    }
}

#[test]
fn half_of_the_calls_may_fail() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    for _ in 0..1_000 {
        clock.advance(SECOND / 50);
        assert_eq!(call(&circuit, 1, Outcome::Success) + call(&circuit, 1, Outcome::Failure), 2);
    }
}

#[test]
fn the_rules_that_open_go_on_beside_it() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock).consecutive_failures(15));
    while circuit.state() == State::Closed {
        call(&circuit, 1, Outcome::Failure);
    }
    assert_eq!(circuit.snapshot().totals.failure, 15);
    assert!(circuit.snapshot().totals.rejected > 0);
    assert_eq!(circuit.snapshot().admitted_share, None);
    circuit.reset();
    assert_eq!(circuit.snapshot().admitted_share, None);
    circuit.try_acquire().unwrap().record(Outcome::Success);
}

#[test]
fn under_an_observer_s_eyes_nothing_is_refused() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    circuit.set_override(Override::observe_only().until_cleared());
    assert_eq!(call(&circuit, 100, Outcome::Failure), 100);
    let totals = circuit.snapshot().totals;
    assert!(totals.would_reject > 50 && totals.rejected == 0, "{totals:?}");
}

#[test]
fn what_an_operator_refuses_says_nothing_of_the_dependency() {
    use tower::{Layer, Service, service_fn};
    use tower_breaker::{BoxError, CircuitBreakerLayer, ResultClassifier};

    let clock = ManualClock::new();
    let circuit = circuit(config(&clock));
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
    let mut service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    call(&circuit, 20, Outcome::Success);
    circuit.set_override(Override::force_open());
    for _ in 0..100 {
        assert!(service.poll_ready(&mut context).map_ok(drop).is_ready());
        circuit.try_acquire().unwrap_err();
    }
    circuit.clear_override();
    assert_eq!(circuit.snapshot().admitted_share, None);
    assert_eq!(call(&circuit, 20, Outcome::Success), 20);
}

#[test]
fn the_share_is_told_when_it_changes() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<f64>>>);
    impl Observer for Log {
        fn on_admitted_share(&self, _: &str, share: f64) {
            self.0.lock().unwrap().push(share);
        }
    }
    let (clock, log) = (ManualClock::new(), Log::default());
    let circuit = circuit(config(&clock).observer(log.clone()));
    call(&circuit, 9, Outcome::Success);
    assert!(log.0.lock().unwrap().is_empty());
    call(&circuit, 50, Outcome::Failure);
    let told = log.0.lock().unwrap().clone();
    assert!(told.windows(2).all(|pair| pair[0] > pair[1]), "{told:?}");
    clock.advance(2 * SPAN);
    let permit = circuit.try_acquire().unwrap();
    assert_eq!(*log.0.lock().unwrap().last().unwrap(), 1.0, "time changes it too");
    permit.record(Outcome::Success);

    // And calls that end, though nobody asks.
    let held: Vec<_> = (0..40).map(|_| circuit.try_acquire().unwrap()).collect();
    held.into_iter().for_each(|permit| permit.record(Outcome::Failure));
    // One of 41 succeeded: 3 of 42.
    assert_eq!(*log.0.lock().unwrap().last().unwrap(), 0.07);
    circuit.reset();
    assert_eq!(*log.0.lock().unwrap().last().unwrap(), 1.0, "nothing is known any more");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for k in [1.0, 1_000.0] {
        let least = Throttle::new(k).window(Duration::from_millis(1)).minimum_calls(0);
        Config::builder("busy").throttle(least).build().unwrap();
    }
    for (throttle, field) in [
        (Throttle::new(0.9), "throttle"),
        (Throttle::new(f64::NAN), "throttle"),
        (Throttle::new(1_001.0), "throttle"),
        (Throttle::new(2.0).window(Duration::ZERO), "throttle.window"),
    ] {
        let error = Config::builder("busy").throttle(throttle).build().unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
}

/// The share may change with every call, and an observer take its time.
#[test]
fn of_the_shares_that_nobody_was_told_of_only_the_latest_is_news() {
    struct Slow {
        heard: mpsc::Sender<f64>,
        goes_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Observer for Slow {
        fn on_admitted_share(&self, _: &str, share: f64) {
            self.heard.send(share).unwrap();
            // Until the other end is gone.
            let _ = self.goes_on.lock().unwrap().recv();
        }
    }

    let clock = ManualClock::new();
    let (heard, hears) = mpsc::channel();
    let (lets_go_on, goes_on) = mpsc::channel();
    let circuit = Circuit::new(
        Config::builder("a")
            .no_failure_rate()
            .throttle(Throttle::new(1.0))
            .observer(Slow { heard, goes_on: Mutex::new(goes_on) })
            .clock(&clock)
            .build()
            .unwrap(),
    );
    let fail = || {
        if let Ok(permit) = circuit.try_acquire() {
            permit.record(Outcome::Failure);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| (0..10).for_each(|_| fail()));
        let first = hears.recv().unwrap();
        (0..100).for_each(|_| fail());
        drop(lets_go_on);
        let latest = hears.recv().unwrap();
        assert!(latest < first, "{latest} after {first}");
    });
    drop(circuit);
    assert_eq!(hears.iter().count(), 0);
}
