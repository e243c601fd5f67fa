//! What opens a circuit, and what refuses to be a rule.

use std::time::Duration;

use tower_breaker::{Backoff, Cause, Config, Probes, State, Window};

use crate::support::{Bench, Log, NANO, SECOND, rules};

#[test]
fn s04_a_success_can_be_the_call_that_reaches_the_minimum() {
    let four = || rules().minimum_calls(4).failure_rate(0.5);
    Bench::new(four()).run("FFF").is(State::Closed).run("S").is(State::Open);

    // Wherever the success stands, the fourth call trips.
    for calls in ["SFF", "FSF", "FFS", "FFF"] {
        Bench::new(four()).run(calls).is(State::Closed).run("F").is(State::Open);
    }
}

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s06_a_rate_trips_at_its_threshold_and_not_below_it() {
    let opens = |successes: usize, failures: usize| {
        let window = Window::count(1_000);
        let bench = Bench::new(rules().window(window).minimum_calls(10).failure_rate(0.4));
        bench.run(&"S".repeat(successes));
        for _ in 0..failures {
            if bench.state() == State::Open {
                return true;
            }
            bench.run("F");
        }
        bench.state() == State::Open
    };
    assert!(!opens(1, 8));
    assert!(opens(1, 9));
    assert!(!opens(60, 39));
    assert!(opens(60, 40));
    assert!(opens(60, 41));

    // A threshold that is a whole number of calls takes exactly that many.
    for calls in 1..=30_u32 {
        for part in 1..=calls {
            let share = f64::from(part) / f64::from(calls);
            let window = Window::count(calls);
            let all = rules().window(window).minimum_calls(calls.into()).failure_rate(share);
            let bench = Bench::new(all);
            bench.run(&"S".repeat((calls - part) as usize)).run(&"F".repeat(part as usize - 1));
            bench.is(State::Closed).run("F").is(State::Open);
        }
    }
}

#[test]
fn s07_a_minimum_of_calls_holds_back_even_the_lowest_threshold() {
    let lowest = |minimum| Bench::new(rules().minimum_calls(minimum).failure_rate(0.01));
    lowest(3).run("FF").is(State::Closed).run("F").is(State::Open);
    lowest(1).run("F").is(State::Open);
    // Zero is as good as one: of nothing there is no rate.
    lowest(0).is(State::Closed).run("F").is(State::Open);
    assert_eq!(lowest(0).rate(), None);
}

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s08_a_minimum_that_the_window_cannot_hold_is_refused() {
    for (calls, minimum) in [(1, 2), (4, 5), (20, 21), (20, u64::MAX)] {
        let config = rules().window(Window::count(calls)).failure_rate(0.5).minimum_calls(minimum);
        assert_eq!(config.build().unwrap_err().field(), "minimum_calls");
    }
    let config = rules().window(Window::count(4)).failure_rate(0.5).minimum_calls(4);
    Bench::new(config).run("FFF").is(State::Closed).run("F").is(State::Open);
    // A stretch of time holds any number.
    let config = rules().window(Window::time(SECOND)).failure_rate(0.5).minimum_calls(1_000);
    Bench::new(config).run(&"F".repeat(999)).is(State::Closed).run("F").is(State::Open);
}

#[test]
fn s24_a_slow_failure_counts_as_slow_and_as_failed() {
    let log = Log::default();
    let slow = rules().minimum_calls(5).slow_calls(4 * SECOND, 0.5);
    let bench = Bench::new(slow.observer(log.clone()));
    let (long, short) = (5 * SECOND, SECOND / 10);
    bench.take(long, 'F').take(long, 'S').take(short, 'F').take(short, 'S').is(State::Closed);
    bench.take(long, 'S').is(State::Open);

    let window = log.last().window;
    assert_eq!((window.calls, window.failures, window.slow), (5, 2, 3));
    assert_eq!(window.slow_rate, Some(0.6));
    let cause = log.last().cause;
    assert!(matches!(cause, Cause::SlowCallRate { slow: 3, calls: 5, .. }), "{cause:?}");
    let totals = bench.totals();
    assert_eq!((totals.success, totals.failure, totals.slow), (3, 2, 3));
}

#[test]
fn s25_as_slow_as_the_threshold_is_not_slow() {
    for threshold in [NANO, Duration::from_millis(1), 4 * SECOND, 86_400 * SECOND] {
        for end in ['S', 'F'] {
            let bench = Bench::new(rules().slow_calls(threshold, 1.0));
            bench.take(threshold, end).is(State::Closed);
            assert_eq!(bench.totals().slow, 0);

            let bench = Bench::new(rules().slow_calls(threshold, 1.0));
            bench.take(threshold + NANO, end).is(State::Open);
            assert_eq!(bench.totals().slow, 1);
        }
    }
}

#[test]
fn s27_a_threshold_of_all_calls_is_reachable() {
    let bench = Bench::new(rules().minimum_calls(3).slow_calls(SECOND, 1.0));
    let long = SECOND + NANO;
    bench.take(long, 'S').take(long, 'S').is(State::Closed).take(long, 'S').is(State::Open);
    bench.ask("X");
    bench.clock.advance(SECOND);
    bench.ask("X");
    bench.clock.advance(4 * SECOND);
    bench.ask("P");

    let bench = Bench::new(rules().minimum_calls(3).failure_rate(1.0));
    bench.run("FF").is(State::Closed).run("F").is(State::Open);
    let bench = Bench::new(rules().minimum_calls(3).failure_rate(1.0));
    bench.run("SFFFF").is(State::Closed);
}

#[test]
fn s30_exactly_so_many_failures_in_a_row_open() {
    for row in 1..=8_usize {
        let bench = Bench::new(rules().consecutive_failures(row as u32));
        let almost = "F".repeat(row - 1);
        bench.run(&almost).is(State::Closed).run("S");
        bench.run(&almost).is(State::Closed).run("F").is(State::Open);
        let cause = bench.circuit.snapshot().cause.unwrap();
        assert_eq!(cause.label(), "consecutive-failures");
    }
}

#[test]
fn s31_a_neutral_call_neither_counts_in_a_row_nor_breaks_it() {
    let three = || rules().consecutive_failures(3);
    Bench::new(three()).run("FFI").is(State::Closed).run("F").is(State::Open);

    for calls in ["IFF", "FIF", "FFI", "FFIIII", "FCF", "FFC", "CIFICIFCI"] {
        Bench::new(three()).run(calls).is(State::Closed).run("F").is(State::Open);
    }
    Bench::new(three()).run(&"IC".repeat(50)).is(State::Closed);
}

#[test]
fn s33_success_and_recovery_begin_a_row_anew() {
    let three = || Bench::new(rules().consecutive_failures(3));
    three().run("FSFF").is(State::Closed).run("F").is(State::Open);
    three().run("F").revive().run("FF").is(State::Closed).run("F").is(State::Open);
    three().run("FF").revive().run("FF").is(State::Closed).run("F").is(State::Open);

    let bench = three();
    bench.run("FF").circuit.reset();
    bench.run("FF").is(State::Closed).run("F").is(State::Open);
}

#[test]
fn s143_a_configuration_that_cannot_work_is_refused_by_its_field() {
    let base = || Config::builder("bench");
    let wait = |backoff| base().open_for(backoff);
    for (config, field) in [
        (base().window(Window::count(0)), "window"),
        (base().window(Window::time(Duration::ZERO)), "window"),
        (base().window(Window::time(SECOND).buckets(0)), "window.buckets"),
        (base().failure_rate(0.0), "failure_rate"),
        (base().failure_rate(100.1), "failure_rate"),
        (base().minimum_calls(21), "minimum_calls"),
        (wait(Backoff::fixed(Duration::ZERO)), "open_for"),
        (wait(Backoff::exponential(SECOND, SECOND - NANO)), "open_for.max"),
        (base().probes(Probes::new(0)), "probes"),
        (base().probes(Probes::new(2).successes(3)), "probes.successes"),
        (base().probes(Probes::new(2).successes(0)), "probes.successes"),
    ] {
        assert_eq!(config.build().unwrap_err().field(), field);
    }
}
