//! Probes: how many, what they decide, and how long they may take.

use std::{
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tower_breaker::{Backoff, Cause, Outcome, Permit, Probes, State};

use crate::support::{Bench, Log, NANO, SECOND, finish, rules};

/// A half-open circuit with all its probes.
fn half_open(probes: Probes) -> Bench {
    let bench = Bench::new(rules().probes(probes));
    drop(bench.probe());
    bench
}

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s50_a_permit_returned_unused_can_be_taken_again() {
    for probes in 1..=6_u32 {
        for unused in ['C', 'I'] {
            let bench = half_open(Probes::new(probes));
            let mut taken = bench.ask(&("P".repeat(probes as usize) + "XX"));
            for _ in 0..10 {
                finish(taken.pop().unwrap(), unused);
                taken.append(&mut bench.ask("PX"));
            }
            bench.is(State::HalfOpen);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s55_neutral_probes_decide_nothing() {
    let bench = half_open(Probes::new(4));
    bench.run("IIII").run("SSS").is(State::HalfOpen).run("S").is(State::Closed);

    for neutral in ["I", "C", "IC"] {
        for times in [1, 4, 50] {
            let neutral = neutral.repeat(times);
            let bench = half_open(Probes::new(2));
            bench.run(&neutral).is(State::HalfOpen).run("S").is(State::HalfOpen);
            bench.run(&neutral).is(State::HalfOpen).run("S").is(State::Closed);
            let bench = half_open(Probes::new(2));
            bench.run("S").run(&neutral).is(State::HalfOpen).run("F").is(State::Open);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s58_so_many_successes_close_and_no_more_than_the_permits_are_in_flight() {
    let bench = half_open(Probes::new(3));
    bench.run("SS");
    let third = bench.permit();
    // Told apart from a refusal while open.
    assert_eq!(bench.refusal().state(), State::HalfOpen);
    third.record(Outcome::Success);
    bench.is(State::Closed);
    bench.circuit.trip();
    assert_eq!(bench.refusal().state(), State::Open);

    // Closes at m successes of n, opens once m are out of reach.
    for permits in 1..=5_usize {
        for required in 1..=permits {
            let probes = Probes::new(permits as u32).successes(required as u32);
            for failures in 0..=permits - required {
                let bench = half_open(probes);
                bench.run(&"F".repeat(failures)).run(&"S".repeat(required - 1));
                bench.is(State::HalfOpen).run("S").is(State::Closed);
            }
            let bench = half_open(probes);
            bench.run(&"S".repeat(required - 1)).run(&"F".repeat(permits - required));
            bench.is(State::HalfOpen).run("F").is(State::Open);
        }
    }
}

#[test]
fn s62_while_the_only_probe_is_in_flight_every_other_call_is_refused() {
    for (end, state) in [('S', State::Closed), ('F', State::Open)] {
        let bench = half_open(Probes::new(1));
        let probe = bench.permit();
        for _ in 0..20 {
            bench.ask("X");
        }
        bench.clock.advance(SECOND);
        bench.ask("X");
        finish(probe, end);
        bench.is(state);
        assert_eq!(bench.totals().rejected, 21);
    }
    // A failed probe begins a fresh wait.
    let bench = half_open(Probes::new(1));
    bench.take(2 * SECOND, 'F').is(State::Open);
    assert_eq!(bench.refusal().retry_after(), Some(5 * SECOND));
}

#[test]
fn s63_a_probe_that_is_never_reported_fails_when_its_lease_ends() {
    for late in ['S', 'F', 'I', 'C'] {
        let log = Log::default();
        let probes = Probes::new(1).lease(SECOND);
        let bench = Bench::new(rules().probes(probes).observer(log.clone()));
        let probe = bench.probe();
        assert_eq!(bench.refusal().retry_after(), Some(SECOND));
        bench.clock.advance(SECOND - NANO);
        bench.is(State::HalfOpen);
        bench.clock.advance(NANO);
        bench.is(State::Open).ask("X");
        assert_eq!(bench.totals().failure, 1);

        // Its late answer is nothing more.
        let before = bench.totals();
        finish(probe, late);
        bench.is(State::Open);
        assert_eq!(bench.totals(), before);
        let cause = log.last().cause;
        assert!(matches!(cause, Cause::ProbesFailed { failures: 1, timed_out: 1, .. }), "{cause}");
    }
    // Noticed late, the new wait has run from the lease's end all the same.
    let bench = Bench::new(rules().probes(Probes::new(1).lease(SECOND)));
    let probe = bench.probe();
    bench.clock.advance(3 * SECOND);
    assert_eq!(bench.refusal().retry_after(), Some(3 * SECOND));
    probe.record(Outcome::Success);
    bench.wait().run("S").is(State::Closed);

    // It decides nothing in the next episode either.
    let bench = Bench::new(rules().probes(Probes::new(1).lease(SECOND)));
    let (late, _) = (bench.probe(), bench.clock.advance(SECOND));
    let probe = bench.wait().permit();
    finish(late, 'S');
    bench.is(State::HalfOpen).ask("X");
    finish(probe, 'S');
    bench.is(State::Closed);

    // Where successes enough are left, a lease that ends decides nothing, and
    // gives no permit back.
    let bench = half_open(Probes::new(3).successes(2).lease(SECOND));
    let (late, _) = (bench.permit(), bench.clock.advance(SECOND));
    bench.is(State::HalfOpen);
    let probes = bench.ask("PPX");
    finish(late, 'S');
    bench.is(State::HalfOpen).ask("X");
    for probe in probes {
        finish(probe, 'S');
    }
    bench.is(State::Closed);

    // Also where the answer itself is the first to come after it.
    let bench = Bench::new(rules().probes(Probes::new(1).lease(SECOND)));
    bench.circuit.trip();
    bench.wait().take(SECOND, 'S').is(State::Open);
    assert_eq!((bench.totals().success, bench.totals().failure), (0, 1));
}

#[test]
fn s63_a_lease_is_the_longer_of_the_wait_and_ten_seconds() {
    for (wait, lease) in [(SECOND, 10), (10 * SECOND, 10), (25 * SECOND, 25)] {
        let bench = Bench::new(rules().open_for(Backoff::fixed(wait)));
        let probe = bench.probe();
        bench.clock.advance(lease * SECOND - NANO);
        bench.is(State::HalfOpen);
        bench.clock.advance(NANO);
        bench.is(State::Open);
        drop(probe);
    }
}

#[test]
fn s69d_threads_that_race_for_the_probes_get_exactly_as_many_as_there_are() {
    const THREADS: usize = if cfg!(miri) { 4 } else { 64 };
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 48 };
    const PROBES: usize = 10;

    let bench = Bench::new(rules().probes(Probes::new(PROBES as u32)));
    let (inside, after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // What came of each round; judged at the end, or the other threads would
    // wait for the one that failed.
    let rounds = Mutex::new(Vec::new());
    let barrier = Barrier::new(THREADS);
    let hammer = |granted: &AtomicUsize| {
        let tries = (0..20).map(|_| bench.circuit.try_acquire());
        let permits: Vec<Permit> = tries.flatten().collect();
        granted.fetch_add(permits.len(), Ordering::Relaxed);
        permits
    };
    let thread = |leads: bool| {
        for _ in 0..ROUNDS {
            if leads {
                bench.circuit.reset();
                bench.circuit.trip();
                bench.clock.advance(5 * SECOND - NANO);
            }
            barrier.wait();
            let early = hammer(&inside);
            barrier.wait();
            if leads {
                // The others are asking already.
                bench.clock.advance(NANO);
            }
            let probes = hammer(&after);
            barrier.wait();
            if leads {
                let granted = (inside.swap(0, Ordering::Relaxed), after.swap(0, Ordering::Relaxed));
                rounds.lock().unwrap().push((granted, bench.circuit.snapshot().probes));
            }
            barrier.wait();
            drop((early, probes));
        }
    };
    thread::scope(|scope| {
        for n in 0..THREADS {
            scope.spawn(move || thread(n == 0));
        }
    });
    for (granted, probes) in rounds.into_inner().unwrap() {
        assert_eq!(granted, (0, PROBES), "inside the wait, and after it");
        let probes = probes.expect("half-open");
        assert_eq!((probes.in_flight, probes.permits_left), (PROBES as u32, 0));
    }
}
