//! How long a circuit stays open.

use std::time::Duration;

use tower_breaker::{Backoff, Override, Probes, State};

use crate::support::{Bench, NANO, SECOND, rules};

#[test]
fn s40_inside_the_wait_every_call_is_refused_and_counted() {
    let bench = Bench::new(rules().consecutive_failures(1).open_for(Backoff::fixed(5 * SECOND)));
    bench.run("F").ask("X");
    bench.at(3.0).ask("X");
    assert_eq!(bench.totals().rejected, 2);
    let probe = bench.at(6.0).ask("P");
    bench.is(State::HalfOpen);
    // Totals are for life; not even a reset clears them.
    assert_eq!(bench.totals().rejected, 2);
    bench.ask("X");
    drop(probe);
    let totals = bench.totals();
    assert_eq!((totals.failure, totals.cancelled, totals.rejected), (1, 1, 3));
    for _ in 0..2 {
        bench.circuit.reset();
        assert_eq!(bench.totals(), totals);
    }

    // The wait being over changes nothing until somebody asks.
    let bench = Bench::new(rules().consecutive_failures(1));
    bench.run("F").at(1_000.0).is(State::Open);
    assert_eq!(bench.circuit.snapshot().retry_after, Some(Duration::ZERO));
    bench.is(State::Open).ask("P");
}

#[test]
fn s41_the_wait_is_over_at_its_very_end() {
    let ends_after = |bench: &Bench, wait: Duration| {
        bench.is(State::Open);
        assert_eq!(bench.refusal().retry_after(), Some(wait));
        bench.clock.advance(wait - NANO);
        assert_eq!(bench.refusal().retry_after(), Some(NANO));
        bench.clock.advance(NANO);
    };
    for wait in [NANO, Duration::from_millis(1), SECOND, 5 * SECOND, 86_400 * SECOND] {
        let bench = Bench::new(rules().open_for(Backoff::fixed(wait)));
        bench.circuit.trip();
        for _ in 0..3 {
            ends_after(&bench, wait);
            bench.run("F");
        }
    }
    // Each step of a growing one too.
    let growing = Backoff::exponential(SECOND, 60 * SECOND).factor(3.0).jitter(0.0);
    let bench = Bench::new(rules().open_for(growing));
    bench.circuit.trip();
    for seconds in [1, 3, 9, 27, 60, 60] {
        ends_after(&bench, seconds * SECOND);
        bench.run("F");
    }
}

#[test]
fn s44_the_wait_doubles_with_each_failed_probe_up_to_its_cap() {
    let backoff = Backoff::exponential(SECOND, 16 * SECOND).jitter(0.0);
    let bench = Bench::new(rules().open_for(backoff));
    bench.circuit.trip();
    for (at, answer) in [
        (0.5, "X"),
        (1.5, "P"),
        (3.0, "X"),
        (4.0, "P"),
        (7.0, "X"),
        (9.0, "P"),
        (15.0, "X"),
        (18.0, "P"),
        (33.0, "X"),
        (35.0, "P"),
        (50.0, "X"),
    ] {
        for probe in bench.at(at).ask(answer) {
            probe.record(tower_breaker::Outcome::Failure);
        }
    }
    // Once it has closed it starts with the first step again.
    bench.at(51.5).run("S").is(State::Closed);
    bench.circuit.trip();
    assert_eq!(bench.refusal().retry_after(), Some(SECOND));

    // So it does by hand, and a trip in half-open counts as a failed probe.
    bench.wait().run("F").wait().run("F");
    assert_eq!(bench.refusal().retry_after(), Some(4 * SECOND));
    let probe = bench.wait().permit();
    bench.circuit.trip();
    assert_eq!(bench.refusal().retry_after(), Some(8 * SECOND));
    bench.circuit.reset();
    bench.circuit.trip();
    assert_eq!(bench.refusal().retry_after(), Some(SECOND));
    drop(probe);
}

#[test]
fn s48_a_wait_beyond_all_time_lasts_until_the_reset() {
    let forever = |backoff| {
        let bench = Bench::new(rules().open_for(backoff));
        bench.circuit.trip();
        let year = 365 * 24 * 60 * 60 * SECOND;
        for advance in [NANO, SECOND, year, 100 * year, 500 * year, Duration::MAX, Duration::MAX] {
            bench.clock.advance(advance);
            bench.is(State::Open).ask("X");
        }
        bench.circuit.reset();
        bench.is(State::Closed).run("S").holds(1, 0);
    };
    forever(Backoff::fixed(Duration::MAX));
    forever(Backoff::exponential(Duration::MAX, Duration::MAX).jitter(0.0));
}

#[test]
fn s48_no_sum_with_a_duration_overflows() {
    // An opening late in time.
    let bench = Bench::new(rules().open_for(Backoff::fixed(Duration::MAX)));
    bench.clock.advance(Duration::from_secs(1 << 33));
    bench.circuit.trip();
    bench.is(State::Open).ask("X");

    // A lease without an end.
    let bench = Bench::new(rules().probes(Probes::new(1).lease(Duration::MAX)));
    let probe = bench.probe();
    bench.clock.advance(Duration::from_secs(1 << 33));
    bench.is(State::HalfOpen).ask("X");
    probe.record(tower_breaker::Outcome::Success);
    bench.is(State::Closed);

    // An override without an end, a call that takes for ever, and a threshold
    // nothing exceeds.
    let bench = Bench::new(rules().slow_calls(Duration::MAX, 1.0));
    bench.circuit.set_override(Override::force_open().expires_in(Duration::MAX));
    bench.ask("X");
    bench.circuit.clear_override();
    bench.take(Duration::MAX, 'S').is(State::Closed);

    // A wait that grew beyond measure.
    let backoff = Backoff::exponential(SECOND, Duration::MAX).factor(1e18).jitter(0.0);
    let bench = Bench::new(rules().open_for(backoff));
    bench.circuit.trip();
    bench.wait().run("F").is(State::Open);
    bench.clock.advance(Duration::from_secs(1 << 33));
    bench.is(State::Open).ask("X");
}

/// Or circuits that open together would probe together.
#[test]
fn circuits_that_were_given_no_seed_differ() {
    let wait = || {
        let bench = Bench::new(rules().open_for(Backoff::fixed(5 * SECOND).jitter(0.5)));
        bench.circuit.trip();
        bench.refusal().retry_after()
    };
    // By chance they are alike once in many more years than there were.
    let first = wait();
    assert!((0..20).any(|_| wait() != first));
}
