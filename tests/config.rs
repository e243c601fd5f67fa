//! Configurations: what is refused and how it is said, what just passes, and
//! what holds where nothing was said.

use std::time::Duration;

use tower_breaker::{Backoff, Cancellation, Circuit, Clock, Config, ConfigBuilder, Probes, Window};

const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

fn base() -> ConfigBuilder {
    Config::builder("orders")
}

/// The base with another wait.
fn wait(open_for: Backoff) -> ConfigBuilder {
    base().open_for(open_for)
}

fn growing() -> Backoff {
    Backoff::exponential(SECOND, 8 * SECOND)
}

#[test]
fn a_slow_rule_alone_that_nothing_can_meet_is_refused() {
    let never = || Config::builder("a").slow_calls(Duration::MAX, 0.5);
    let error = never().no_failure_rate().build().unwrap_err();
    assert_eq!(error.field(), "slow_calls");
    assert!(error.to_string().contains("at most 100 years"), "{error}");
    assert!(never().build().is_ok(), "beside another rule it does no harm");
}

#[test]
fn what_cannot_work_is_refused_with_its_field_its_value_and_what_would_be_right() {
    let zero = Duration::ZERO;
    let cases: Vec<(ConfigBuilder, &str, &str, &str)> = vec![
        // The window.
        (base().window(Window::count(0)), "window", "0 calls", "at least 1"),
        (base().window(Window::count(u32::MAX)), "window", "4294967295 calls", "at most 10000000"),
        (base().window(Window::time(zero)), "window", "0ns", "longer than zero"),
        (base().window(Window::time(9 * NANO)), "window", "9ns", "each of its 10 buckets"),
        (base().window(Window::time(SECOND).buckets(0)), "window.buckets", "0", "at least 1"),
        (
            base().window(Window::time(SECOND).buckets(10_001)),
            "window.buckets",
            "10001",
            "at most 10000",
        ),
        // The minimum.
        (base().minimum_calls(21), "minimum_calls", "21", "at most the 20 calls of the window"),
        (base().window(Window::count(9)), "minimum_calls", "10", "at most the 9 calls"),
        (
            base().no_failure_rate().slow_calls(SECOND, 0.5).minimum_calls(21),
            "minimum_calls",
            "21",
            "at most the 20 calls",
        ),
        // The rates.
        (base().failure_rate(0.0), "failure_rate", "0", "at least 0.000001"),
        (base().failure_rate(-0.0), "failure_rate", "-0", "at least 0.000001"),
        (base().failure_rate(-0.5), "failure_rate", "-0.5", "at least 0.000001"),
        (base().failure_rate(0.000_000_9), "failure_rate", "0.0000009", "at least 0.000001"),
        (base().failure_rate(1.000_001), "failure_rate", "1.000001", "at most 1"),
        (base().failure_rate(50.0), "failure_rate", "50", "at most 1"),
        (base().failure_rate(f64::NAN), "failure_rate", "NaN", "at most 1"),
        (base().failure_rate(f64::INFINITY), "failure_rate", "inf", "at most 1"),
        (base().failure_rate(f64::NEG_INFINITY), "failure_rate", "-inf", "at least 0.000001"),
        (base().slow_calls(SECOND, 0.0), "slow_calls", "0", "at least 0.000001"),
        (base().slow_calls(SECOND, 1.5), "slow_calls", "1.5", "at most 1"),
        (base().slow_calls(SECOND, f64::NAN), "slow_calls", "NaN", "at most 1"),
        (base().slow_calls(zero, 0.5), "slow_calls", "0ns", "longer than zero"),
        (base().consecutive_failures(0), "consecutive_failures", "0", "at least 1"),
        // What could never open.
        (base().no_failure_rate(), "failure_rate", "off", "some rule must be on"),
        (
            base().sustained_for(Duration::MAX),
            "sustained_for",
            "18446744073709551615.999999999s",
            "100 years",
        ),
        // The wait.
        (wait(Backoff::fixed(zero)), "open_for", "0ns", "longer than zero"),
        (wait(Backoff::exponential(zero, SECOND)), "open_for", "0ns", "longer than zero"),
        (wait(Backoff::exponential(SECOND, zero)), "open_for.max", "0ns", "the first wait, 1s"),
        (
            wait(Backoff::exponential(SECOND, SECOND - NANO)),
            "open_for.max",
            "999.999999ms",
            "at least the first wait, 1s",
        ),
        (wait(growing().factor(0.99)), "open_for.factor", "0.99", "at least 1"),
        (wait(growing().factor(0.0)), "open_for.factor", "0", "at least 1"),
        (wait(growing().factor(f64::NAN)), "open_for.factor", "NaN", "a number"),
        (wait(growing().factor(f64::INFINITY)), "open_for.factor", "inf", "a number"),
        (wait(growing().jitter(-0.1)), "open_for.jitter", "-0.1", "at least 0"),
        (wait(growing().jitter(1.0)), "open_for.jitter", "1", "below 1"),
        (wait(growing().jitter(f64::NAN)), "open_for.jitter", "NaN", "below 1"),
        // The probes.
        (base().probes(Probes::new(0)), "probes", "0", "at least 1"),
        (base().probes(Probes::new(10_001)), "probes", "10001", "at most 10000"),
        (base().probes(Probes::new(3).successes(0)), "probes.successes", "0", "at least 1"),
        (
            base().probes(Probes::new(3).successes(4)),
            "probes.successes",
            "4",
            "at most the number of probes, 3",
        ),
        (base().probes(Probes::new(3).lease(zero)), "probes.lease", "0ns", "longer than zero"),
        // The name.
        (Config::builder(""), "name", "\"\"", "1 to 64 characters of A-Z a-z 0-9 . _ -"),
        (Config::builder("two words"), "name", "\"two words\"", "1 to 64 characters"),
        (Config::builder("a/b"), "name", "\"a/b\"", "1 to 64 characters"),
        (Config::builder("a\nb"), "name", "\"a\\nb\"", "1 to 64 characters"),
        (Config::builder("café"), "name", "\"café\"", "1 to 64 characters"),
        (Config::builder("x".repeat(65)), "name", "xxxx\" …", "1 to 64 characters"),
    ];
    for (config, field, value, right) in cases {
        let error = config.build().expect_err(field);
        let said = error.to_string();
        assert_eq!(error.field(), field, "{said}");
        assert!(error.value().contains(value), "{value:?} is not in {:?}", error.value());
        assert!(said.contains(error.field()), "{said}");
        assert!(said.contains(error.value()), "{said}");
        assert!(said.contains(right), "{right:?} is not in {said:?}");
    }
}

#[test]
fn of_a_name_that_is_not_cut_all_is_shown() {
    for name in ["a/b".to_owned(), "/".repeat(64)] {
        let error = Config::builder(name.clone()).build().unwrap_err();
        assert_eq!(error.value(), format!("{name:?}"));
    }
}

#[test]
fn a_value_at_its_limit_passes() {
    let cases: Vec<(&str, ConfigBuilder)> = vec![
        ("a window of one", base().window(Window::count(1)).minimum_calls(1)),
        ("a minimum as large as the window", base().window(Window::count(9)).minimum_calls(9)),
        ("no minimum", base().minimum_calls(0)),
        ("a minimum above no count window", base().window(Window::time(SECOND)).minimum_calls(99)),
        ("a minimum that no rate asks", row().minimum_calls(21)),
        ("a nanosecond a bucket", base().window(Window::time(10 * NANO))),
        ("one bucket", base().window(Window::time(NANO).buckets(1))),
        ("ten thousand buckets", base().window(Window::time(SECOND).buckets(10_000))),
        ("the highest rate", base().failure_rate(1.0)),
        ("the lowest rate", base().failure_rate(0.000_001)),
        ("the highest share", base().slow_calls(SECOND, 1.0)),
        ("the lowest share", base().slow_calls(NANO, 0.000_001)),
        ("nothing sustained", base().sustained_for(Duration::ZERO)),
        ("one in a row", base().consecutive_failures(1)),
        ("only a row", row()),
        ("only slow calls", base().no_failure_rate().slow_calls(SECOND, 0.5)),
        ("the shortest wait", wait(Backoff::fixed(NANO))),
        ("the longest wait", wait(Backoff::fixed(Duration::MAX))),
        ("a wait that cannot grow", wait(Backoff::exponential(SECOND, SECOND))),
        ("a factor of one", wait(growing().factor(1.0))),
        ("no jitter", wait(growing().jitter(0.0))),
        ("almost all jitter", wait(growing().jitter(0.999_999))),
        ("one probe", base().probes(Probes::new(1))),
        ("all probes", base().probes(Probes::new(3).successes(3))),
        ("one of many probes", base().probes(Probes::new(10_000).successes(1))),
        ("the shortest lease", base().probes(Probes::new(3).lease(NANO))),
        ("the longest lease", base().probes(Probes::new(3).lease(Duration::MAX))),
        ("the shortest name", Config::builder("x")),
        ("the longest name", Config::builder("x".repeat(64))),
        ("every kind of character", Config::builder("Az09._-")),
    ];
    for (name, config) in cases {
        assert!(config.build().is_ok(), "{name}");
    }
}

#[test]
fn what_has_to_pass_some_day_passes_within_a_century() {
    let century = Duration::from_secs(3_153_600_000);
    type Set = fn(Duration) -> ConfigBuilder;
    let cases: [(&str, Set); 4] = [
        ("sustained_for", |longest| base().sustained_for(longest)),
        ("warm_up", |longest| base().warm_up(longest)),
        ("ramp", |longest| base().ramp(longest)),
        ("slow_calls", |longest| base().no_failure_rate().slow_calls(longest, 0.5)),
    ];
    for (field, config) in cases {
        assert!(config(century).build().is_ok(), "{field}");
        let error = config(century + NANO).build().expect_err(field);
        assert_eq!(error.field(), field);
        assert!(error.to_string().contains("at most 100 years"), "{error}");
    }
}

/// Only a row of failures opens.
fn row() -> ConfigBuilder {
    base().no_failure_rate().consecutive_failures(5)
}

#[test]
fn the_default_configuration_is_named_default() {
    assert_eq!(Config::default().name(), "default");
    assert_eq!(Circuit::new(Config::default()).name(), "default");
}

#[test]
fn the_defaults_spelled_out_are_the_defaults() {
    let shown = |config: ConfigBuilder| format!("{:?}", config.build().unwrap());
    let default = format!("{:?}", Config::default());
    let named = || Config::builder("default");
    assert_eq!(shown(named()), default);

    let same_as_default = |config| assert_eq!(shown(config), default);
    same_as_default(named().window(Window::count(20)));
    same_as_default(named().minimum_calls(10));
    same_as_default(named().failure_rate(0.5));
    same_as_default(named().sustained_for(SECOND));
    same_as_default(named().open_for(growing().factor(2.0).jitter(0.2)));
    same_as_default(named().probes(Probes::new(3)));
    same_as_default(named().cancellation(Cancellation::ByAge));

    // Every setting shows in `Debug`, or the lines above would prove nothing.
    let not_default = |config| assert_ne!(shown(config), default);
    not_default(named().window(Window::count(21)));
    not_default(named().minimum_calls(9));
    not_default(named().failure_rate(0.6));
    not_default(named().sustained_for(Duration::ZERO));
    not_default(named().consecutive_failures(5));
    not_default(named().slow_calls(SECOND, 0.5));
    not_default(named().open_for(growing().factor(3.0)));
    not_default(named().open_for(growing().jitter(0.1)));
    not_default(named().probes(Probes::new(3).successes(2)));
    not_default(named().probes(Probes::new(3).lease(SECOND)));
    not_default(named().cancellation(Cancellation::Neutral));

    // Neither a row nor slow calls open unless asked: nothing is left.
    assert_eq!(named().no_failure_rate().build().unwrap_err().field(), "failure_rate");

    let clock = if cfg!(feature = "tokio") { "Clock::tokio" } else { "Clock::system" };
    assert_eq!(format!("{:?}", Clock::default()), clock);
    assert!(default.contains(clock), "{default}");
}

#[test]
fn the_values_have_their_defaults() {
    assert_eq!(Window::time(SECOND), Window::time(SECOND).buckets(10));
    // It has none.
    assert_eq!(Window::count(20).buckets(10), Window::count(20));
    assert_eq!(Backoff::default(), growing().factor(2.0).jitter(0.2));
    assert_eq!(Backoff::exponential(SECOND, SECOND * 8), growing().factor(2.0).jitter(0.2));
    assert_eq!(Backoff::fixed(SECOND), Backoff::fixed(SECOND).jitter(0.0));
    assert_eq!(Probes::default(), Probes::new(3));
}

#[cfg(feature = "test-util")]
mod on_virtual_time {
    use tower_breaker::{ManualClock, Outcome, State};

    use super::*;

    #[test]
    fn the_window_is_the_last_twenty_calls_and_ten_make_a_rate() {
        let (circuit, _) = default_circuit();
        run(&circuit, "FFFFFFFFF");
        assert_eq!(circuit.snapshot().window.failure_rate, None);
        run(&circuit, "F");
        assert_eq!(circuit.snapshot().window.failure_rate, Some(1.0));
        run(&circuit, "SSSSSSSSSSSSSSSSSSS");
        assert_eq!((circuit.snapshot().window.calls, circuit.snapshot().window.failures), (20, 1));
        run(&circuit, "S");
        assert_eq!((circuit.snapshot().window.calls, circuit.snapshot().window.failures), (20, 0));
        assert_eq!(circuit.snapshot().window.slow_rate, None);
    }

    #[test]
    fn a_rate_of_one_half_opens_once_it_has_lasted_a_second() {
        let (circuit, clock) = default_circuit();
        run(&circuit, "SSSSSSSSSSFFFFFFFFFF");
        clock.advance(SECOND - NANO);
        run(&circuit, "F");
        assert_eq!(circuit.state(), State::Closed);
        clock.advance(NANO);
        run(&circuit, "F");
        assert_eq!(circuit.state(), State::Open);

        // 9 of 20 are not enough however long it lasts; 10 are.
        let (circuit, clock) = default_circuit();
        run(&circuit, "SSSSSSSSSSSFFFFFFFFF");
        clock.advance(SECOND);
        run(&circuit, "S");
        assert_eq!(circuit.state(), State::Closed);
        run(&circuit, "F");
        assert_eq!(circuit.state(), State::Open);
    }

    #[test]
    fn the_wait_is_about_1_2_4_and_then_8_seconds_and_returns_to_1() {
        let (circuit, clock) = default_circuit();
        for _ in 0..2 {
            circuit.trip();
            for step in [1, 2, 4, 8, 8] {
                let wait = circuit.snapshot().retry_after.unwrap();
                let exact = step * SECOND;
                assert!((exact.mul_f64(0.8)..=exact.mul_f64(1.2)).contains(&wait), "{wait:?}");
                clock.advance(wait);
                run(&circuit, "F");
                assert_eq!(circuit.state(), State::Open);
            }
            clock.advance(circuit.snapshot().retry_after.unwrap());
            run(&circuit, "SSS");
            assert_eq!(circuit.state(), State::Closed);
        }
    }

    #[test]
    fn three_probes_pass_and_all_must_succeed_within_ten_seconds() {
        let (circuit, clock) = default_circuit();
        circuit.trip();
        clock.advance(circuit.snapshot().retry_after.unwrap());
        let probes = [(); 3].map(|()| circuit.try_acquire().unwrap());
        let refusal = circuit.try_acquire().unwrap_err();
        assert_eq!(refusal.state(), State::HalfOpen);
        assert_eq!(refusal.retry_after(), Some(10 * SECOND));
        let [first, second, third] = probes;
        first.record(Outcome::Success);
        second.record(Outcome::Success);
        assert_eq!(circuit.state(), State::HalfOpen);
        clock.advance(10 * SECOND - NANO);
        assert_eq!(circuit.state(), State::HalfOpen);
        third.record(Outcome::Success);
        assert_eq!(circuit.state(), State::Closed);
    }

    /// Makes a call a letter: `S` succeeds, `F` fails.
    fn run(circuit: &Circuit, calls: &str) {
        for call in calls.chars() {
            let outcome = if call == 'S' { Outcome::Success } else { Outcome::Failure };
            circuit.try_acquire().unwrap().record(outcome);
        }
    }

    fn default_circuit() -> (Circuit, ManualClock) {
        let clock = ManualClock::new();
        (Circuit::new(base().clock(&clock).build().unwrap()), clock)
    }
}
