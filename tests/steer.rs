//! Steering by hand, and only what was seen.

use std::{
    error::Error,
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use tower::{BoxError, Layer, Service, service_fn};
use tower_breaker::{
    Backoff, Cause, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ConfigBuilder, IfRevision,
    ManualClock, Outcome, Override, OverrideKind, Probes, ResultClassifier, Snapshot, State,
    SteerError, WhenOpen,
};

const SECOND: Duration = Duration::from_secs(1);

fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("shop")
        .consecutive_failures(1)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1).lease(10 * SECOND))
        .clock(clock)
}

fn circuit(clock: &ManualClock) -> Circuit {
    Circuit::new(config(clock).build().unwrap())
}

#[test]
fn the_revision_grows_by_one_with_each_change_and_with_nothing_else() {
    let clock = ManualClock::new();
    let circuit = circuit(&clock);
    let mut before = circuit.snapshot().revision;
    let mut grows_by = |growth: u64, what: &str| {
        let now = circuit.snapshot().revision;
        assert_eq!(now - before, growth, "{what}");
        assert_eq!(circuit.snapshot().revision, now, "reading is no change");
        before = now;
    };
    circuit.try_acquire().unwrap().record(Outcome::Success);
    grows_by(0, "a call");
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    grows_by(1, "it opened");
    assert!(circuit.try_acquire().is_err());
    circuit.trip();
    grows_by(0, "it was open already");
    clock.advance(5 * SECOND);
    grows_by(0, "the wait is over, and nobody came");
    let probe = circuit.try_acquire().unwrap();
    grows_by(1, "it is half-open");
    clock.advance(10 * SECOND);
    grows_by(1, "the lease ended, and nobody came");
    drop(probe);
    grows_by(0, "a late answer");
    circuit.end_wait().unwrap();
    grows_by(1, "its wait was ended");
    circuit.reset();
    grows_by(1, "it was reset");
    circuit.reset();
    grows_by(1, "it was reset while closed");
    circuit.set_override(Override::force_open().expires_in(SECOND));
    grows_by(1, "an override was set");
    circuit.set_override(Override::observe_only().expires_in(SECOND));
    grows_by(1, "another took its place");
    clock.advance(SECOND);
    grows_by(1, "it ran out");
    circuit.clear_override();
    grows_by(0, "there was none to lift");
    circuit.set_override(Override::force_closed());
    circuit.clear_override();
    grows_by(2, "one was set and lifted");
    circuit.set_override(Override::force_closed().expires_in(Duration::ZERO));
    grows_by(2, "one was set and ran out at once");
    circuit.reconfigure(config(&clock).build().unwrap()).unwrap();
    grows_by(1, "it was reconfigured");
    let other = Config::builder("other").build().unwrap();
    circuit.reconfigure(other).unwrap_err();
    circuit.end_wait().unwrap_err();
    grows_by(0, "what was refused");
}

type Steer = fn(IfRevision<'_>) -> Result<u64, SteerError>;

/// A name, what is done, and whether it shows.
type Steering = (&'static str, Steer, fn(&Snapshot) -> bool);

fn reconfigured() -> Config {
    Config::builder("shop").minimum_calls(3).build().unwrap()
}

/// All there are, with what each changes, from open and under an override.
const STEERINGS: [Steering; 6] = [
    ("trip", |it| it.trip(), |_| true),
    ("reset", |it| it.reset(), |seen| seen.state == State::Closed),
    ("end_wait", |it| it.end_wait(), |seen| seen.state == State::HalfOpen),
    (
        "set_override",
        |it| it.set_override(Override::observe_only()),
        |seen| seen.active_override.as_ref().unwrap().kind == OverrideKind::ObserveOnly,
    ),
    ("clear_override", |it| it.clear_override(), |seen| seen.active_override.is_none()),
    ("reconfigure", |it| it.reconfigure(reconfigured()), |_| true),
];

#[test]
fn a_circuit_that_is_not_as_it_was_seen_is_left_alone() {
    for (name, steer, is_done) in STEERINGS {
        let clock = ManualClock::new();
        let circuit = circuit(&clock);
        circuit.trip();
        let seen = circuit.snapshot().revision;
        circuit.set_override(Override::force_closed().owner("alice"));
        let before = (circuit.snapshot(), circuit.config());

        for expected in [seen, seen + 2, 0, u64::MAX] {
            let error = steer(circuit.if_revision(expected)).unwrap_err();
            let SteerError::Changed { expected: told, revision, .. } = error else {
                panic!("{name}: {error}");
            };
            assert_eq!((told, revision), (expected, seen + 1), "{name}");
            let after = (circuit.snapshot(), circuit.config());
            assert_eq!(format!("{before:?}"), format!("{after:?}"), "{name}");
        }

        let now = steer(circuit.if_revision(seen + 1)).unwrap();
        let after = circuit.snapshot();
        assert_eq!(now, after.revision, "{name}");
        // Open already, there is nothing to trip.
        assert_eq!(now, if name == "trip" { seen + 1 } else { seen + 2 }, "{name}");
        assert!(is_done(&after), "{name}");
        steer(circuit.if_revision(None)).map(|_| ()).or_else(refused_twice).unwrap();
    }
}

/// A wait can be ended once.
fn refused_twice(error: SteerError) -> Result<(), SteerError> {
    match error {
        SteerError::NotOpen { .. } => Ok(()),
        error => Err(error),
    }
}

#[test]
fn an_override_that_ran_out_unseen_is_a_change() {
    let clock = ManualClock::new();
    let circuit = circuit(&clock);
    circuit.set_override(Override::force_open().expires_in(SECOND));
    let seen = circuit.snapshot().revision;
    clock.advance(SECOND);
    let error = circuit.if_revision(seen).clear_override().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the circuit has changed: its revision is {}, not {seen}", seen + 1)
    );
}

#[test]
fn of_many_that_saw_the_same_one_steers() {
    let circuit = circuit(&ManualClock::new());
    for _ in 0..50 {
        let seen = circuit.snapshot().revision;
        let together = Arc::new(Barrier::new(4));
        let operators: Vec<_> = (0..4)
            .map(|operator| {
                let (circuit, together) = (circuit.clone(), Arc::clone(&together));
                thread::spawn(move || {
                    together.wait();
                    let over = Override::force_open().owner(operator.to_string());
                    circuit.if_revision(seen).set_override(over).map(|_| operator.to_string())
                })
            })
            .collect();
        let done: Vec<_> = operators.into_iter().map(|it| it.join().unwrap()).collect();
        let winners: Vec<_> = done.iter().flatten().cloned().collect();
        let snapshot = circuit.snapshot();
        assert_eq!(snapshot.revision, seen + 1);
        assert_eq!(winners, [snapshot.active_override.unwrap().owner.unwrap()]);
    }
}

#[test]
fn the_wait_of_an_open_circuit_is_ended_by_hand_and_no_other() {
    let clock = ManualClock::new();
    let circuit = circuit(&clock);
    let error = circuit.end_wait().unwrap_err();
    assert_eq!(
        error.to_string(),
        "only the wait of an open circuit can be ended, and it is closed"
    );
    assert_eq!(circuit.state(), State::Closed);

    circuit.trip();
    clock.advance(SECOND);
    circuit.end_wait().unwrap();
    assert_eq!(circuit.state(), State::HalfOpen);
    assert!(matches!(circuit.end_wait(), Err(SteerError::NotOpen { .. })));
    let probe = circuit.try_acquire().unwrap();
    assert!(circuit.try_acquire().is_err(), "one probe, and not two");
    probe.record(Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn without_a_probe_left_every_refusal_tells_the_lease_and_not_the_wait_that_was_ended() {
    let clock = ManualClock::new();
    let circuit = circuit(&clock);
    circuit.trip();
    circuit.end_wait().unwrap();
    let probe = circuit.try_acquire().unwrap();

    let refused = |left: Duration| {
        let before = circuit.snapshot().totals.rejected;
        let mut told = vec![circuit.try_acquire().unwrap_err()];
        for when_open in [WhenOpen::Error, WhenOpen::Defer] {
            let mut service =
                CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new())
                    .when_open(when_open)
                    .layer(service_fn(|()| std::future::ready(Ok::<_, BoxError>(()))));
            let mut cx = Context::from_waker(Waker::noop());
            let error = match service.poll_ready(&mut cx) {
                Poll::Ready(Err(error)) => error,
                _ready => match pin!(service.call(())).poll(&mut cx) {
                    Poll::Ready(Err(error)) => error,
                    other => panic!("{other:?}"),
                },
            };
            told.push(CircuitOpen::find_in(&*error).unwrap().clone());
        }
        for open in told {
            assert_eq!((open.state(), open.retry_after()), (State::HalfOpen, Some(left)));
        }
        let seen = circuit.snapshot();
        assert_eq!((seen.retry_after, seen.totals.rejected), (Some(left), before + 3));
    };
    refused(10 * SECOND);
    clock.advance(7 * SECOND);
    refused(3 * SECOND);
    let shorter = config(&clock).probes(Probes::new(1).lease(2 * SECOND)).build().unwrap();
    circuit.reconfigure(shorter).unwrap();
    refused(2 * SECOND);
    circuit.set_override(Override::force_open().expires_in(SECOND));
    assert_eq!(circuit.try_acquire().unwrap_err().state(), State::Open);
    clock.advance(SECOND);
    refused(SECOND);
    drop(probe);
    let again = circuit.try_acquire().unwrap();
    refused(2 * SECOND);
    clock.advance(2 * SECOND);
    let open = circuit.try_acquire().unwrap_err();
    assert_eq!((open.state(), open.retry_after()), (State::Open, Some(5 * SECOND)));
    drop(again);
}

#[test]
fn a_wait_that_was_ended_counts_as_one() {
    let clock = ManualClock::new();
    let waits = Backoff::exponential(5 * SECOND, 40 * SECOND).jitter(0.0);
    let circuit = Circuit::new(config(&clock).open_for(waits).build().unwrap());
    circuit.trip();
    circuit.end_wait().unwrap();
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    let snapshot = circuit.snapshot();
    assert_eq!(snapshot.state, State::Open);
    assert_eq!(snapshot.retry_after, Some(10 * SECOND));
    assert!(matches!(snapshot.cause, Some(Cause::ProbesFailed { .. })));
}

#[test]
fn an_override_says_whose_it_is() {
    let circuit = circuit(&ManualClock::new());
    circuit.set_override(Override::force_open().owner("alice").reason("drill"));
    let over = circuit.snapshot().active_override.unwrap();
    assert_eq!(over.owner.as_deref(), Some("alice"));
    assert_eq!(over.reason.as_deref(), Some("drill"));
}

#[test]
fn what_is_wrong_with_a_configuration_is_told_as_it_is() {
    let circuit = circuit(&ManualClock::new());
    let expected = circuit.reconfigure(Config::default()).unwrap_err();
    let error = circuit.if_revision(None).reconfigure(Config::default()).unwrap_err();
    assert!(matches!(error, SteerError::Config(_)));
    assert_eq!(error.to_string(), expected.to_string());
    // Said once in a chain of errors.
    for error in [error, circuit.if_revision(None).end_wait().unwrap_err()] {
        assert!(error.source().is_none(), "{error}");
    }
}
