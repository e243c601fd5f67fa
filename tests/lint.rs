//! Findings about valid configurations: each at its boundary, and the important
//! ones against the circuit itself, on virtual time.

use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;
use tower_breaker::{
    Backoff, Cancellation, Circuit, Config, ConfigBuilder, Lint, LintCode, ManualClock, Outcome,
    Probes, Start, State, Throttle, Traffic, Window,
};

const NANO: Duration = Duration::from_nanos(1);
const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> ConfigBuilder {
    Config::builder("a")
}

fn lint(config: &ConfigBuilder, traffic: Traffic) -> Vec<Lint> {
    config.clone().build().unwrap().lint(&traffic)
}

fn codes(config: &ConfigBuilder, traffic: Traffic) -> Vec<LintCode> {
    lint(config, traffic).iter().map(Lint::code).collect()
}

fn says(code: LintCode, config: &ConfigBuilder, traffic: Traffic) -> bool {
    codes(config, traffic).contains(&code)
}

/// One call every `interval`, from `phase` after the circuit was made.
struct Steady {
    circuit: Circuit,
    clock: ManualClock,
    interval: Duration,
}

impl Steady {
    fn new(config: &ConfigBuilder, interval: Duration, phase: Duration) -> Self {
        let clock = ManualClock::new();
        let circuit = Circuit::new(config.clone().clock(&clock).build().unwrap());
        clock.advance(phase);
        Self { circuit, clock, interval }
    }

    /// Makes calls that end at once. Returns the number of the one that opened
    /// the circuit.
    fn calls(&self, most: u64, outcome: Outcome) -> Option<u64> {
        (0..most).find(|call| {
            if *call > 0 {
                self.clock.advance(self.interval);
            }
            self.circuit.try_acquire().unwrap().record(outcome);
            self.circuit.state() == State::Open
        })
    }

    /// Makes calls that end when so many others have begun. Whether they opened
    /// the circuit.
    fn hanging_calls(&self, most: u64, others: usize) -> bool {
        let mut running = VecDeque::new();
        (0..most).any(|_| {
            let Ok(permit) = self.circuit.try_acquire() else { return true };
            running.push_back(permit);
            self.clock.advance(self.interval);
            if running.len() > others {
                running.pop_front().unwrap().record(Outcome::Failure);
            }
            self.circuit.state() == State::Open
        })
    }
}

fn every(interval: Duration) -> Traffic {
    Traffic::per_second(1.0 / interval.as_secs_f64())
}

/// Time windows near what the traffic fills.
fn time_windows() -> impl Strategy<Value = (ConfigBuilder, Duration)> {
    (1..60_000u64, 1..8u32, 1..6u64, 0..5u32, 5..200u64).prop_map(
        |(span, buckets, minimum, sustained, percent)| {
            // In even numbers, so that the calls meet the ends of buckets.
            let span = Duration::from_millis(span * u64::from(buckets));
            let interval = span * u32::try_from(percent).unwrap() / 100;
            let config = config()
                .window(Window::time(span).buckets(buckets))
                .minimum_calls(minimum)
                .sustained_for(span * sustained / 2);
            (config, interval)
        },
    )
}

const NEVER: LintCode = LintCode::NeverOpens;
const CHANCE: LintCode = LintCode::OpensByChance;

proptest! {
    /// Said of time windows, it is so, also where calls hang; and where neither
    /// it nor chance is said, a dead dependency does open the circuit.
    #[test]
    fn never_is_never_and_otherwise_it_opens(
        (config, interval) in time_windows(), phase in 0..1_000_000u64, on_the_dot in any::<bool>(),
        slow in proptest::option::of((1..300u32, 0.01..1.0f64)), others in 0..10usize,
    ) {
        let phase = if on_the_dot { Duration::ZERO } else { Duration::from_micros(phase) };
        let config = match slow {
            Some((percent, rate)) => config.slow_calls(interval * percent / 100, rate),
            None => config,
        };
        let said = codes(&config, every(interval));
        let opened = Steady::new(&config, interval, phase).calls(3_000, Outcome::Failure);
        if said.contains(&NEVER) {
            prop_assert_eq!(opened, None);
            prop_assert!(!Steady::new(&config, interval, phase).hanging_calls(300, others));
        } else if !said.contains(&CHANCE) {
            prop_assert!(opened.is_some(), "{:?}", said);
        }
    }

    /// Not sustained, chance is a chance: it does open some time.
    #[test]
    fn chance_is_a_chance((config, interval) in time_windows()) {
        let config = config.sustained_for(Duration::ZERO);
        if says(CHANCE, &config, every(interval)) {
            let steady = Steady::new(&config, interval, Duration::ZERO);
            prop_assert!(steady.calls(3_000, Outcome::Failure).is_some());
        }
    }

    /// A count window or a row opens at any traffic.
    #[test]
    fn a_count_window_always_opens(
        calls in 1..50u32, rate in 0.01..1.0f64, sustained in 0..100u64, interval in 1..100_000u64
    ) {
        let interval = Duration::from_millis(interval);
        let config = config().window(Window::count(calls)).minimum_calls(1).failure_rate(rate)
            .sustained_for(Duration::from_secs(sustained));
        let said = codes(&config, every(interval));
        prop_assert!(!said.contains(&NEVER) && !said.contains(&CHANCE));
        // However short the interval is, it ends.
        let enough = 200 + Duration::from_secs(sustained).as_millis() / interval.as_millis();
        let steady = Steady::new(&config, interval, Duration::ZERO);
        prop_assert!(steady.calls(enough as u64, Outcome::Failure).is_some());
    }

    /// How long a dead dependency takes to open it is what it takes.
    #[test]
    fn the_time_to_open_is_exact(
        calls in 1..50u32, rate in 0.01..1.0f64, sustained in 0..3_000u64, row in 1..40u32,
        by_row in any::<bool>(), millis in 1..2_000u64,
    ) {
        let interval = Duration::from_millis(millis);
        let mut config = config().window(Window::count(calls)).minimum_calls(1).failure_rate(rate)
            .sustained_for(Duration::from_millis(sustained));
        if by_row {
            config = config.consecutive_failures(row);
        }
        let steady = Steady::new(&config, interval, Duration::ZERO);
        assert_eq!(steady.calls(calls.into(), Outcome::Success), None);
        steady.clock.advance(interval);
        let opened = steady.calls(10_000, Outcome::Failure).unwrap();
        let took = interval * u32::try_from(opened).unwrap();

        let slow = |within| {
            says(LintCode::SlowToOpen, &config, every(interval).notice_within(within))
        };
        prop_assert!(!slow(took));
        if !took.is_zero() {
            prop_assert!(slow(took - NANO));
            let blip = |blip| says(LintCode::OpensOnABlip, &config, every(interval).blip(blip));
            prop_assert!(!blip(took));
            prop_assert!(blip(took + NANO));
        }
    }
}

/// Else there would be nothing to say about a circuit that starts open, and it
/// would seem slow for its first minute's sake.
#[test]
fn how_it_starts_does_not_matter_to_the_time_it_takes_to_open() {
    let config = || config().sustained_for(Duration::ZERO);
    let expected = codes(&config(), every(MILLI));
    assert_eq!(expected, [LintCode::OpensOnABlip]);
    for config in [
        config().start(Start::Open),
        config().start(Start::ObserveOnly(SECOND)),
        config().warm_up(60 * SECOND),
        config().throttle(Throttle::new(1.0).minimum_calls(0)),
    ] {
        assert_eq!(codes(&config, every(MILLI)), expected);
    }
}

#[test]
fn a_dead_dependency_opens_nothing_in_a_day_if_the_minimum_is_never_in_the_window() {
    let day = 24 * 60 * 60 * SECOND;
    for (span, interval) in [(30, 5), (60, 7), (10, 9)] {
        let (span, interval) = (span * SECOND, interval * SECOND);
        let config = |minimum| {
            let window = Window::time(span).buckets(5);
            config().window(window).minimum_calls(minimum).sustained_for(Duration::ZERO)
        };
        let most = span.as_nanos().div_ceil(interval.as_nanos()) as u64;
        let calls = (day.as_nanos() / interval.as_nanos()) as u64;
        assert!(!says(NEVER, &config(most), every(interval)));
        assert!(says(NEVER, &config(most + 1), every(interval)));
        let opened = |minimum| {
            // Late in a bucket, the window reaches back furthest.
            let phase = span / 5 - NANO;
            let steady = Steady::new(&config(minimum), interval, phase);
            steady.calls(calls, Outcome::Failure)
        };
        assert_ne!(opened(most), None);
        assert_eq!(opened(most + 1), None);
    }
}

#[test]
fn a_row_opens_where_no_rate_is_ever_known() {
    let config = config().window(Window::time(SECOND)).consecutive_failures(3);
    assert_eq!(codes(&config, Traffic::per_second(1.0)), [LintCode::RuleNeverMet]);
    let steady = Steady::new(&config, SECOND, Duration::ZERO);
    assert_eq!(steady.calls(10, Outcome::Failure), Some(2));
}

#[test]
fn failures_that_leave_the_window_one_by_one_are_never_sustained() {
    let sparse = |sustained| {
        config().window(Window::time(10 * SECOND)).minimum_calls(1).sustained_for(sustained)
    };
    let found = lint(&sparse(NANO), every(10 * SECOND));
    assert_eq!((found[0].code(), found[0].field()), (NEVER, "sustained_for"));
    assert!(!says(NEVER, &sparse(Duration::ZERO), every(10 * SECOND)));
    assert!(!says(NEVER, &sparse(NANO), every(10 * SECOND - MILLI)));
    let steady = Steady::new(&sparse(NANO), 10 * SECOND, Duration::ZERO);
    assert_eq!(steady.calls(10_000, Outcome::Failure), None);
}

/// Those that run and those that have ended are more than ever end in a window.
#[test]
fn a_rate_that_only_calls_that_hang_can_meet_is_not_never_met() {
    let window = Window::time(10 * SECOND);
    let (few, short) = (config().window(window).minimum_calls(3), config().window(window));
    let short = short.minimum_calls(1).sustained_for(5 * SECOND);
    for (config, interval, field) in
        [(few, 6 * SECOND, "minimum_calls"), (short, 10 * SECOND, "sustained_for")]
    {
        let found = lint(&config, every(interval));
        assert_eq!((found[0].code(), found[0].field()), (NEVER, field));
        let watched = config.clone().slow_calls(SECOND, 0.5);
        let found = lint(&watched, every(interval));
        assert_eq!((found[0].code(), found[0].field()), (CHANCE, field));
        let message = found[0].to_string();
        assert!(message.contains("(opens-by-chance): unless calls hang, "), "{message}");
        let steady = |config| Steady::new(config, interval, Duration::ZERO);
        assert!(!steady(&config).hanging_calls(100, 3));
        assert!(steady(&watched).hanging_calls(100, 3));
        assert_eq!(steady(&watched).calls(10_000, Outcome::Failure), None);
        // With a row nothing is up to chance.
        let row = watched.consecutive_failures(2);
        assert!(!codes(&row, every(interval)).contains(&CHANCE));
        assert!(!codes(&row, every(interval)).contains(&LintCode::RuleNeverMet));
    }
}

#[test]
fn no_traffic_opens_nothing() {
    for per_second in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
        let traffic = Traffic::per_second(per_second)
            .clients(9)
            .latency(SECOND)
            .usual_failures(0.1)
            .restart(SECOND);
        let found = codes(&config().consecutive_failures(3), traffic);
        assert_eq!(found, [NEVER]);
    }
}

#[test]
fn any_traffic_can_be_asked_about() {
    let odd = [f64::MIN_POSITIVE, 1e-300, 1e300, f64::INFINITY, f64::NAN, -0.0, 1.0];
    for (per_second, share) in odd.into_iter().zip(odd.into_iter().cycle().skip(3)) {
        for duration in [Duration::ZERO, Duration::MAX, SECOND] {
            let traffic = Traffic::per_second(per_second)
                .clients(u32::MAX)
                .latency(duration)
                .outer_timeout(duration)
                .restart(duration)
                .usual_failures(share)
                .blip(duration)
                .notice_within(duration);
            for config in [
                config(),
                config().window(Window::time(Duration::MAX)).consecutive_failures(u32::MAX),
                config().window(Window::time(NANO).buckets(1)).sustained_for(100 * SECOND),
                config().open_for(Backoff::fixed(Duration::MAX)).slow_calls(NANO, 0.5),
                config().open_for(Backoff::fixed(NANO)).probes(Probes::new(10_000)),
            ] {
                lint(&config, traffic).iter().for_each(|found| drop(found.to_string()));
            }
        }
    }
}

#[test]
fn one_failed_call_opens_what_it_says_it_opens() {
    for (minimum, rate, sustained, expected) in [
        (1, 1.0, Duration::ZERO, true),
        (0, 0.5, Duration::ZERO, true),
        (1, 0.5, NANO, false),
        (2, 0.5, Duration::ZERO, true),
        (2, 0.500_001, Duration::ZERO, false),
        (10, 0.1, Duration::ZERO, true),
        (11, 0.1, Duration::ZERO, false),
    ] {
        let config = config().minimum_calls(minimum).failure_rate(rate).sustained_for(sustained);
        assert_eq!(says(LintCode::OneCallOpens, &config, Traffic::per_second(1.0)), expected);
        let steady = Steady::new(&config, SECOND, Duration::ZERO);
        steady.calls(u64::max(minimum, 1) - 1, Outcome::Success);
        assert_eq!(steady.calls(1, Outcome::Failure).is_some(), expected);
    }
    for (row, expected) in [(1, true), (2, false)] {
        let config = config().consecutive_failures(row);
        let found = lint(&config, Traffic::per_second(1.0));
        let found = found.iter().any(|found| found.field() == "consecutive_failures");
        assert_eq!(found, expected);
    }
}

#[test]
fn one_good_call_closes_what_it_says_it_closes() {
    for (probes, expected) in [
        (Probes::new(1), true),
        (Probes::new(5).successes(1), true),
        (Probes::new(2), false),
        (Probes::new(5).successes(2), false),
    ] {
        let config = config().probes(probes);
        assert_eq!(says(LintCode::OneCallCloses, &config, Traffic::per_second(1.0)), expected);
        // Up a ramp traffic does not come back at once.
        assert!(!says(LintCode::OneCallCloses, &config.ramp(SECOND), Traffic::per_second(1.0)));
    }
}

#[test]
fn healthy_calls_open_a_circuit_to_which_they_are_slow() {
    for (latency, expected) in [(SECOND, false), (SECOND + NANO, true)] {
        let config = config().slow_calls(SECOND, 0.5).sustained_for(Duration::ZERO);
        let traffic = Traffic::per_second(10.0).latency(latency);
        assert_eq!(says(LintCode::OpensWhenHealthy, &config, traffic), expected);
        let steady = Steady::new(&config, SECOND, Duration::ZERO);
        let opens = (0..20).any(|_| {
            let permit = steady.circuit.try_acquire().unwrap();
            steady.clock.advance(latency);
            permit.record(Outcome::Success);
            steady.circuit.state() == State::Open
        });
        assert_eq!(opens, expected);
    }
}

#[test]
fn a_probe_that_takes_as_long_as_its_lease_fails() {
    for (latency, expected) in [(SECOND - NANO, false), (SECOND, true)] {
        let wait = Backoff::fixed(SECOND);
        let config = config().probes(Probes::new(2).lease(SECOND)).open_for(wait);
        let traffic = Traffic::per_second(10.0).latency(latency);
        assert_eq!(says(LintCode::ProbesFailWhenHealthy, &config, traffic), expected);
        let steady = Steady::new(&config, SECOND, Duration::ZERO);
        steady.circuit.trip();
        for _ in 0..1_000 {
            if let Ok(permit) = steady.circuit.try_acquire() {
                steady.clock.advance(latency);
                permit.record(Outcome::Success);
            }
            steady.clock.advance(MILLI * 100);
        }
        assert_eq!(steady.circuit.state() != State::Closed, expected);
    }
    // Unless said it is the longer of the wait and ten seconds.
    let ten = Traffic::per_second(1.0).latency(10 * SECOND);
    assert!(says(LintCode::ProbesFailWhenHealthy, &config(), ten));
    let long = config().open_for(Backoff::fixed(11 * SECOND));
    assert!(!says(LintCode::ProbesFailWhenHealthy, &long, ten));
}

#[test]
fn a_hang_is_seen_or_said_not_to_be() {
    let timeout = 2 * SECOND;
    let slow = |threshold| config().slow_calls(threshold, 0.5);
    let neutral = |config: ConfigBuilder| config.cancellation(Cancellation::Neutral);
    let dull = || slow(SECOND).sustained_for(timeout + NANO);
    for (config, interval, field) in [
        (config(), 100 * MILLI, Some("slow_calls")),
        (slow(timeout), 100 * MILLI, Some("slow_calls")),
        (slow(timeout - NANO), 100 * MILLI, None),
        (slow(timeout - NANO), timeout, None),
        // Seen while they run, where enough of them run at once for long enough.
        (neutral(slow(SECOND)), 100 * MILLI, None),
        (neutral(slow(SECOND)), 200 * MILLI, None),
        (neutral(slow(SECOND)), 250 * MILLI, Some("cancellation")),
        (neutral(dull()), 100 * MILLI, Some("cancellation")),
        (neutral(slow(timeout)), 100 * MILLI, Some("cancellation")),
    ] {
        let traffic = every(interval).outer_timeout(timeout);
        let found = lint(&config, traffic);
        let found = found.iter().find(|found| found.code() == LintCode::HangsUnseen);
        assert_eq!(found.map(Lint::field), field);
        let steady = Steady::new(&config, interval, Duration::ZERO);
        // A few good ones first, so that there is a window.
        assert_eq!(steady.calls(5, Outcome::Success), None);
        let mut hanging = VecDeque::new();
        let opens = (0..1_000).any(|call| {
            steady.clock.advance(interval);
            match steady.circuit.try_acquire() {
                Ok(permit) => hanging.push_back((call, permit)),
                Err(_) => return true,
            }
            while hanging.front().is_some_and(|(began, _)| interval * (call - began) >= timeout) {
                hanging.pop_front();
            }
            steady.circuit.state() == State::Open
        });
        assert_eq!(opens, field.is_none(), "{interval:?}");
    }
}

#[test]
fn usual_failures_are_weighed_against_each_rule() {
    let usual = |share| Traffic::per_second(10.0).usual_failures(share);
    let rate = config().probes(Probes::new(3).successes(1));
    assert!(says(LintCode::OpensWhenHealthy, &rate, usual(0.5)));
    assert!(!says(LintCode::OpensWhenHealthy, &rate, usual(0.499_999)));

    // At one in ten, five in a row come every 111,110 calls: 3 h. Seven: 13 days.
    let row = |row| config().consecutive_failures(row);
    assert!(says(LintCode::OpensWhenHealthy, &row(5), usual(0.1)));
    assert!(!says(LintCode::OpensWhenHealthy, &row(7), usual(0.1)));

    // All of n succeed 0.9^n of the time: 0.53 of six, 0.48 of seven.
    let probes = |probes| config().probes(probes);
    assert!(!says(LintCode::ProbesFailWhenHealthy, &probes(Probes::new(6)), usual(0.1)));
    assert!(says(LintCode::ProbesFailWhenHealthy, &probes(Probes::new(7)), usual(0.1)));
    let lenient = probes(Probes::new(7).successes(6));
    assert!(!says(LintCode::ProbesFailWhenHealthy, &lenient, usual(0.1)));
    let many = probes(Probes::new(10_000).successes(5_000));
    assert!(!says(LintCode::ProbesFailWhenHealthy, &many, usual(0.49)));
    assert!(says(LintCode::ProbesFailWhenHealthy, &many, usual(0.51)));
}

#[test]
fn a_fleet_without_jitter_or_with_one_seed_probes_in_step() {
    let fleet = |clients| Traffic::per_second(10.0).clients(clients);
    for (wait, field) in [
        (Backoff::fixed(SECOND), Some("open_for.jitter")),
        (Backoff::fixed(SECOND).jitter(0.2), None),
        (Backoff::default(), None),
        (Backoff::default().seed(1), Some("open_for.seed")),
    ] {
        let config = config().open_for(wait);
        let found = lint(&config, fleet(2));
        let found = found.iter().find(|found| found.code() == LintCode::ProbesInStep);
        assert_eq!(found.map(Lint::field), field);
        assert!(!says(LintCode::ProbesInStep, &config, fleet(1)));
    }
}

#[test]
fn probes_of_a_fleet_that_are_half_its_load_spare_too_little() {
    let fleet = |per_second| Traffic::per_second(per_second).clients(1_000);
    let found = |probes, per_second| {
        lint(&config().probes(probes), fleet(per_second))
            .into_iter()
            .find(|found| found.code() == LintCode::ProbeLoad)
    };
    // One failed probe of three ends a round: one in 8 s.
    assert_eq!(found(Probes::new(3), 0.25 + 1e-9), None);
    let half = found(Probes::new(3), 0.25).unwrap().to_string();
    assert!(half.contains("up to 125.0 calls a second, 50 % of its usual load"), "{half}");
    // Three of three, where one good one is enough.
    assert!(found(Probes::new(3).successes(1), 0.75).is_some());
    assert_eq!(found(Probes::new(3).successes(1), 0.75 + 1e-9), None);
}

#[test]
fn a_restart_longer_than_the_longest_wait_is_probed_again_and_again() {
    let restart = |restart| Traffic::per_second(10.0).restart(restart);
    assert!(!says(LintCode::ProbesDuringRestart, &config(), restart(8 * SECOND)));
    // Probes at about 1, 3, 7, 15 and 23 s.
    let found = lint(&config(), restart(30 * SECOND));
    assert_eq!(found[0].code(), LintCode::ProbesDuringRestart);
    assert!(found[0].to_string().contains("about 5 rounds"), "{}", found[0]);
}

#[test]
fn the_defaults_suit_what_they_are_said_to_suit() {
    for per_second in [0.5, 1.0, 10.0, 100.0, 5_000.0] {
        let traffic = Traffic::per_second(per_second)
            .clients(1_000)
            .latency(100 * MILLI)
            .usual_failures(0.01);
        assert_eq!(codes(&config(), traffic), [], "{per_second}");
    }
}

#[test]
fn a_code_is_stable_and_a_finding_says_its_field_and_its_numbers() {
    let found = lint(&config().probes(Probes::new(1)), Traffic::per_second(1.0));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code().as_str(), "one-call-closes");
    assert!(found[0].to_string().starts_with("probes.successes (one-call-closes): one good call"));
}

#[test]
fn every_code_is_what_it_was() {
    let codes = [
        (LintCode::NeverOpens, "never-opens"),
        (LintCode::RuleNeverMet, "rule-never-met"),
        (LintCode::OpensByChance, "opens-by-chance"),
        (LintCode::SlowToOpen, "slow-to-open"),
        (LintCode::OpensOnABlip, "opens-on-a-blip"),
        (LintCode::OneCallOpens, "one-call-opens"),
        (LintCode::OneCallCloses, "one-call-closes"),
        (LintCode::OpensWhenHealthy, "opens-when-healthy"),
        (LintCode::ProbesFailWhenHealthy, "probes-fail-when-healthy"),
        (LintCode::HangsUnseen, "hangs-unseen"),
        (LintCode::ProbesInStep, "probes-in-step"),
        (LintCode::ProbeLoad, "probe-load"),
        (LintCode::ProbesDuringRestart, "probes-during-restart"),
    ];
    for (code, text) in codes {
        assert_eq!(code.as_str(), text);
    }
}
