//! What the windows hold.

use std::{collections::VecDeque, time::Duration};

use tower_breaker::{Circuit, Config, ManualClock, Outcome, State, Window};

use crate::support::{Bench, Log, SECOND, in_no_time, rules};

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s01_a_full_window_drops_its_oldest_call() {
    let bench = Bench::new(rules().window(Window::count(4)));
    bench.run("FSSS").holds(4, 1);
    assert_eq!(bench.rate(), Some(0.25));
    bench.run("S").holds(4, 0);
    assert_eq!(bench.rate(), Some(0.0));

    for size in [1, 2, 3, 7, 63, 64, 65, 130] {
        let bench = Bench::new(rules().window(Window::count(size)));
        let mut last = VecDeque::new();
        for i in 0..400_u32 {
            let failed = i * i % 7 < 3;
            bench.run(if failed { "F" } else { "S" });
            last.push_front(failed);
            last.truncate(size as usize);
            let failures = last.iter().filter(|failed| **failed).count();
            bench.holds(last.len() as u64, failures as u64);
        }
    }
}

#[test]
fn each_success_that_is_added_up_is_counted_once_whoever_looks() {
    let bench = Bench::new(rules().window(Window::time(10 * SECOND)));
    for generation in 0..3 {
        for calls in 1..=20 {
            bench.run("S").holds(calls, 0);
            assert_eq!(bench.totals().success, generation * 40 + calls);
        }
        bench.run(&"S".repeat(20)).run("F").holds(41, 1);
        assert_eq!(bench.totals().success, generation * 40 + 40);
        bench.circuit.reset();
        bench.holds(0, 0);
    }
}

/// Also where good calls are added up without a look at the rules.
#[test]
fn a_success_that_reaches_the_minimum_is_the_call_that_opens() {
    for window in [Window::count(10), Window::time(10 * SECOND)] {
        let rules = rules().window(window).minimum_calls(6).failure_rate(0.5);
        let bench = Bench::new(rules);
        bench.run("FFFSS").is(State::Closed);
        bench.run("S").is(State::Open);
    }
}

#[test]
fn s02_a_hundred_successes_clear_a_window_of_a_hundred() {
    let bench = Bench::new(rules().window(Window::count(100)));
    for i in 0..50 {
        bench.run(if i % 3 == 0 { "S" } else { "F" });
    }
    bench.holds(50, 33);
    assert_eq!(bench.rate(), Some(0.66));
    bench.run(&"S".repeat(100)).holds(100, 0);
}

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s03_below_the_minimum_a_rate_is_absent() {
    let log = Log::default();
    let five = rules().window(Window::count(5)).minimum_calls(5).failure_rate(0.5);
    let bench = Bench::new(five.observer(log.clone()));
    bench.run("FFF").is(State::Closed).holds(3, 3);
    assert_eq!(bench.rate(), None);
    bench.run("S").is(State::Closed).holds(4, 3);
    assert_eq!(bench.rate(), None);

    bench.run("S").is(State::Open);
    assert_eq!(log.all().len(), 1);
    let event = log.last();
    assert_eq!(event.cause.label(), "failure-rate");
    assert_eq!((event.window.calls, event.window.failures), (5, 3));
    assert_eq!(event.window.failure_rate, Some(0.6));
    bench.ask("X");
    assert_eq!(bench.totals().rejected, 1);

    for minimum in 1..=20 {
        let bench = Bench::new(rules().window(Window::count(20)).minimum_calls(minimum));
        for calls in 1..=20 {
            bench.run("F");
            assert_eq!(bench.rate().is_some(), calls >= minimum, "{calls} of {minimum}");
        }
    }
}

#[test]
fn s09_the_window_is_empty_after_every_transition() {
    let bench = Bench::new(rules().minimum_calls(3).failure_rate(0.5));
    bench.run("SFF").is(State::Open).holds(0, 0);
    let probe = bench.wait().permit();
    bench.is(State::HalfOpen).holds(0, 0);
    probe.record(Outcome::Success);
    bench.is(State::Closed).holds(0, 0);
    assert_eq!(bench.rate(), None);
    bench.run("S").holds(1, 0);
    assert_eq!(bench.rate(), None);
}

#[test]
fn s10_a_time_window_forgets_a_bucket_at_a_time() {
    let bench = Bench::new(rules().window(Window::time(5 * SECOND).buckets(5)));
    for (at, call, calls, failures) in [
        (0.0, "F", 1, 1),
        (0.1, "S", 2, 1),
        (0.2, "S", 3, 1),
        (1.2, "S", 4, 1),
        (2.2, "S", 5, 1),
        (3.2, "F", 6, 2),
        (4.2, "S", 7, 2),
        (5.2, "S", 5, 1),
        (6.2, "S", 5, 1),
        (11.2, "S", 1, 0),
    ] {
        bench.at(at).run(call).holds(calls, failures);
    }
}

#[test]
fn s12_buckets_that_saw_no_call_are_cleared_too() {
    let bench = Bench::new(rules().window(Window::time(4 * SECOND).buckets(4)));
    for (at, successes, failures, held, failed) in [
        (0.0, 10, 40, 50, 40),
        (1.0, 10, 0, 60, 40),
        (2.5, 0, 20, 80, 60),
        (3.1, 5, 20, 105, 80),
        (5.4, 8, 0, 53, 40),
        (7.3, 0, 5, 13, 5),
    ] {
        bench.at(at).run(&"S".repeat(successes)).run(&"F".repeat(failures)).holds(held, failed);
    }
    // Reading alone forgets.
    bench.at(22.5).holds(0, 0);
    assert_eq!(bench.rate(), None);
}

#[test]
fn s17_a_long_gap_clears_everything_and_costs_no_more_than_a_short_one() {
    let year = 365 * 24 * 60 * 60 * SECOND;
    let window = Window::time(10 * SECOND);
    // A bucket at a time the last two would take for ever.
    for (window, gap) in [
        (window, 1_000 * SECOND),
        (window, 500 * year),
        (Window::time(Duration::from_micros(1)).buckets(1_000), 500 * year),
    ] {
        in_no_time(move || {
            let bench = Bench::new(rules().window(window));
            bench.run("FFFFF").holds(5, 5);
            bench.clock.advance(gap);
            bench.holds(0, 0).run("S").holds(1, 0);
        });
    }
}

#[test]
fn s19_a_rate_over_a_sliding_time_window() {
    let window = Window::time(30 * SECOND).buckets(10);
    let bench = Bench::new(rules().window(window).minimum_calls(3).failure_rate(0.6));
    bench.run(&"SFI".repeat(5)).holds(10, 5);
    for (at, calls) in [(3.0, "S"), (5.0, "SI"), (7.0, "IS"), (9.0, "F")] {
        bench.at(at).run(calls);
    }
    bench.holds(8 + 6, 6);
    for i in 0..6 {
        bench.at(12.0 + 3.0 * i as f64).run("SF").holds(9 + i + 7 + i, 7 + i);
    }
    bench.at(30.0).run("F").holds(9 + 8, 8);
    bench.run("FFFFF").holds(9 + 13, 13).is(State::Closed);
    bench.run("F").is(State::Open);
}

#[test]
fn s21_the_window_slides_and_does_not_tumble() {
    let window = Window::time(10 * SECOND).buckets(10);
    // Wherever the four fall, two seconds apart they are in one window.
    for first in [9.0, 0.0, 1.5, 4.0, 8.5, 9.999, 19.0, 99.0] {
        let bench = Bench::new(rules().window(window).minimum_calls(4).failure_rate(0.5));
        bench.at(first).run("FF").at(first + 2.0).run("F").is(State::Closed);
        bench.run("F").is(State::Open);
    }
}

/// Measured or not: a measured call's end is worked out from its beginning.
#[test]
fn a_call_enters_a_window_of_time_when_it_ends() {
    for is_measured in [false, true] {
        let clock = ManualClock::new();
        let config = Config::builder("shop").clock(&clock);
        let config = config.window(Window::time(10 * SECOND));
        let config = if is_measured { config.measure_latency() } else { config };
        let circuit = Circuit::new(config.build().unwrap());
        for outcome in [Outcome::Success, Outcome::Failure] {
            let permit = circuit.try_acquire().unwrap();
            clock.advance(9 * SECOND);
            permit.record(outcome);
            clock.advance(6 * SECOND);
            assert_eq!(circuit.snapshot().window.calls, 1, "{outcome:?}, measured: {is_measured}");
            clock.advance(10 * SECOND);
        }
    }
}
