//! Candidate rules beside live ones.

mod histories;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    task::{Context, Waker},
    time::Duration,
};

use histories::{Log, history, rules, run};
use http_body_util::BodyExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use proptest::prelude::*;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ConfigBuilder, ManualClock,
    Observer, Outcome, Outcomes, Override, Probes, Recorder, ResultClassifier, Shadow,
    ShadowSnapshot, Start, State, Transition, Unknown, WhenOpen,
};

const SECOND: Duration = Duration::from_secs(1);

fn send<T: Send + Sync + Clone>() {}

/// The circuit and its only shadow.
fn pair(live: ConfigBuilder, candidate: ConfigBuilder, clock: &ManualClock) -> (Circuit, Shadow) {
    let config = live.shadow(candidate.build().unwrap()).clock(clock);
    let circuit = Circuit::new(config.build().unwrap());
    let shadow = circuit.shadows()[0].clone();
    (circuit, shadow)
}

/// Opens at the first failure, for a second; one probe.
fn brittle(name: &str) -> ConfigBuilder {
    Config::builder(name)
        .consecutive_failures(1)
        .open_for(Backoff::fixed(SECOND))
        .probes(Probes::new(1))
}

/// Opens at nothing that a test does.
fn stubborn() -> ConfigBuilder {
    Config::builder("live").no_failure_rate().consecutive_failures(u32::MAX)
}

fn call(circuit: &Circuit, outcome: Outcome) {
    circuit.try_acquire().unwrap().record(outcome);
}

proptest! {
    #[test]
    fn a_shadow_with_the_live_rules_never_disagrees(live in rules("same"), history in history()) {
        let clock = ManualClock::new();
        let logs = [Log::default(), Log::default()];
        let candidate = live.clone().observer(logs[1].clone());
        let (circuit, shadow) = pair(live.observer(logs[0].clone()), candidate, &clock);
        let born = clock.now();
        run(&circuit, &clock, &history);

        prop_assert_eq!(logs[1].since(born), logs[0].since(born));
        let seen = shadow.snapshot();
        let mut live = circuit.snapshot();
        prop_assert_eq!(seen.would_reject, Outcomes::default());
        prop_assert_eq!((seen.unknown.passed, seen.unknown.rejected), (0, live.totals.rejected));
        // What the live circuit refused the shadow was only asked about.
        live.totals.rejected = 0;
        prop_assert_eq!(seen.circuit, live);
    }

    #[test]
    fn a_shadow_does_what_its_rules_would_do_under_observation(
        candidate in rules("candidate"), history in history()
    ) {
        let candidate = candidate.open_for(Backoff::exponential(SECOND / 4, SECOND).seed(7));
        let logs = [Log::default(), Log::default()];
        let clock = ManualClock::new();
        let (circuit, shadow) =
            pair(stubborn(), candidate.clone().observer(logs[0].clone()), &clock);
        let born = clock.now();
        run(&circuit, &clock, &history);
        // What time has done by itself is told at a touch.
        drop(circuit.try_acquire());

        let clock = ManualClock::new();
        let config = candidate.observer(logs[1].clone()).clock(&clock).build().unwrap();
        let observed = Circuit::new(config);
        observed.set_override(Override::observe_only().until_cleared());
        let observed_born = clock.now();
        run(&observed, &clock, &history);
        drop(observed.try_acquire());

        prop_assert_eq!(logs[0].since(born), logs[1].since(observed_born));
        let would_reject = shadow.snapshot().would_reject;
        prop_assert_eq!(would_reject.total(), observed.snapshot().totals.would_reject);
    }

    #[test]
    fn every_call_is_counted_once(
        live in rules("live"), candidate in rules("candidate"), history in history()
    ) {
        let clock = ManualClock::new();
        let (circuit, shadow) = pair(live, candidate, &clock);
        run(&circuit, &clock, &history);
        let live = circuit.snapshot().totals;
        let ShadowSnapshot { circuit: own, passed, would_reject, unknown, .. } = shadow.snapshot();
        prop_assert_eq!(unknown.passed + unknown.rejected, live.rejected);
        prop_assert_eq!(own.totals.rejected, would_reject.total());
        let own = own.totals;
        // A probe that lost its lease is a failure more, or at its end nothing.
        prop_assert!(
            own.success + own.failure + own.ignored + own.cancelled + own.stale >= passed.total()
        );
    }
}

#[test]
fn what_would_have_been_refused_is_split_by_how_it_went() {
    let clock = ManualClock::new();
    let (circuit, shadow) = pair(stubborn(), brittle("candidate"), &clock);
    call(&circuit, Outcome::Failure);
    for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Ignored] {
        call(&circuit, outcome);
    }
    drop(circuit.try_acquire().unwrap());
    let seen = shadow.snapshot();
    assert_eq!(seen.circuit.state, State::Open);
    assert_eq!((seen.passed.failure, seen.passed.total()), (1, 1));
    let Outcomes { success, failure, ignored, cancelled, .. } = seen.would_reject;
    assert_eq!((success, failure, ignored, cancelled), (1, 2, 1, 1));
    assert_eq!(seen.circuit.retry_after, Some(SECOND));

    clock.advance(SECOND);
    let probe = circuit.try_acquire().unwrap();
    call(&circuit, Outcome::Success);
    assert_eq!(shadow.snapshot().would_reject.success, 2, "there is one probe only");
    probe.record(Outcome::Success);
    assert_eq!(shadow.snapshot().circuit.state, State::Closed);
    assert_eq!(circuit.state(), State::Closed);
    assert_eq!(circuit.snapshot().totals.opened, 0);
}

#[test]
fn what_the_live_circuit_refuses_is_unknown_and_changes_nothing() {
    let clock = ManualClock::new();
    let (circuit, shadow) = pair(brittle("live"), stubborn(), &clock);
    call(&circuit, Outcome::Failure);
    (0..3).for_each(|_| assert!(circuit.try_acquire().is_err()));
    let seen = shadow.snapshot();
    assert_eq!((seen.unknown.passed, seen.unknown.rejected), (3, 0));
    assert_eq!(seen.circuit.window.calls, 1);

    // Its wait is over, but the call that would have been its probe is refused:
    // it goes on waiting for one that is not.
    let (circuit, shadow) = pair(stubborn(), brittle("candidate"), &clock);
    call(&circuit, Outcome::Failure);
    clock.advance(SECOND);
    circuit.set_override(Override::force_open());
    assert!(circuit.try_acquire().is_err());
    assert_eq!(shadow.snapshot().circuit.state, State::Open);
    assert_eq!(shadow.snapshot().unknown.passed, 1);
    circuit.clear_override();
    call(&circuit, Outcome::Success);
    assert_eq!(shadow.snapshot().circuit.state, State::Closed);
}

#[test]
fn a_lease_of_a_shadow_ends_while_the_call_runs() {
    let clock = ManualClock::new();
    let candidate = brittle("candidate").probes(Probes::new(1).lease(SECOND));
    let (circuit, shadow) = pair(stubborn(), candidate, &clock);
    call(&circuit, Outcome::Failure);
    clock.advance(SECOND);
    let slow = circuit.try_acquire().unwrap();
    assert_eq!(shadow.snapshot().circuit.state, State::HalfOpen);
    clock.advance(SECOND);
    assert_eq!(shadow.snapshot().circuit.state, State::Open);
    slow.record(Outcome::Success);
    assert_eq!(shadow.snapshot().circuit.totals.opened, 2);
}

#[test]
fn a_candidate_has_its_own_slow_threshold_and_the_calls_are_measured_for_it() {
    let clock = ManualClock::new();
    let slow = Config::builder("slow")
        .no_failure_rate()
        .minimum_calls(2)
        .sustained_for(Duration::ZERO)
        .slow_calls(SECOND, 1.0);
    let (circuit, shadow) = pair(Config::builder("live"), slow, &clock);
    for nanos in [0, 1, 1] {
        let permit = circuit.try_acquire().unwrap();
        clock.advance(SECOND + Duration::from_nanos(nanos));
        // The last is dropped: by its age it is slow.
        if shadow.snapshot().passed.total() < 2 {
            permit.record(Outcome::Success);
        }
    }
    let seen = shadow.snapshot().circuit;
    assert_eq!(seen.totals.slow, 2);
    assert_eq!(seen.state, State::Closed, "two of three");
}

#[test]
fn by_hand_moves_the_live_circuit_alone() {
    let clock = ManualClock::new();
    let (circuit, shadow) = pair(brittle("live"), brittle("candidate"), &clock);
    circuit.trip();
    assert_eq!(shadow.snapshot().circuit.state, State::Closed);
    circuit.reset();
    call(&circuit, Outcome::Failure);
    circuit.reset();
    assert_eq!(shadow.snapshot().circuit.state, State::Open);
}

#[test]
fn several_candidates_need_names_of_their_own() {
    let candidate = |name| brittle(name).build().unwrap();
    let live = Config::builder("live").shadow(candidate("a")).shadow(candidate("b"));
    let circuit = Circuit::new(live.clone().build().unwrap());
    let names: Vec<_> = circuit.shadows().iter().map(Shadow::name).collect();
    assert_eq!(names, ["a", "b"]);
    let error = live.shadow(candidate("a")).build().unwrap_err();
    assert_eq!(error.field(), "shadow");
    assert_eq!(error.to_string(), "shadow is a, but must be the name of one shadow only");
    assert!(Circuit::new(Config::default()).shadows().is_empty());
}

#[test]
fn two_circuits_of_one_configuration_have_a_shadow_each() {
    let config = stubborn().shadow(brittle("candidate").build().unwrap()).build().unwrap();
    let circuits = [Circuit::new(config.clone()), Circuit::new(config)];
    call(&circuits[0], Outcome::Failure);
    let states = circuits.map(|circuit| circuit.shadows()[0].snapshot().circuit.state);
    assert_eq!(states, [State::Open, State::Closed]);
}

#[test]
fn handles_go_anywhere() {
    send::<Shadow>();
    send::<Recorder>();
}

#[test]
fn the_observers_of_the_candidate_hear_what_it_would_do() {
    struct Calls(mpsc::Sender<String>);

    impl Observer for Calls {
        fn on_transition(&self, transition: &Transition) {
            self.0.send(transition.to_string()).unwrap();
        }

        fn on_rejection(&self, rejection: &CircuitOpen) {
            self.0.send(format!("would refuse: {}", rejection.name())).unwrap();
        }
    }

    let clock = ManualClock::new();
    let (sender, told) = mpsc::channel();
    let (circuit, _) = pair(stubborn(), brittle("candidate").observer(Calls(sender)), &clock);
    call(&circuit, Outcome::Failure);
    call(&circuit, Outcome::Failure);
    let told: Vec<_> = told.try_iter().collect();
    assert!(told[0].starts_with("candidate: closed -> open, because"), "{told:?}");
    assert_eq!(told[1], "would refuse: candidate");
}

/// A refusal's hint reaches a shadow and a replay as it reaches the circuit.
#[test]
fn a_servers_hint_lengthens_the_wait_of_a_shadow_and_in_a_replay() {
    let clock = ManualClock::new();
    let recorder = Recorder::new(1 << 20);
    let candidate = || brittle("candidate").open_for(Backoff::exponential(SECOND, 60 * SECOND));
    let config = stubborn().recorder(&recorder).shadow(candidate().build().unwrap());
    let layer = CircuitBreakerLayer::new(config.clock(&clock).build().unwrap());
    let service = layer.layer(service_fn(|_: ()| async {
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert("retry-after", "30".try_into().unwrap());
        Ok::<_, BoxError>(response)
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(service.oneshot(())).unwrap();

    let waits = layer.circuit().shadows()[0].snapshot().circuit.retry_after.unwrap();
    assert!(waits >= 30 * SECOND, "{waits:?}");
    let report = recorder.recording().replay(candidate().build().unwrap());
    assert_eq!(report.transitions[0].open_for, Some(waits));
}

/// The call ends where its body does, and is judged by its latency to the head.
#[test]
fn a_call_that_ends_with_its_body_is_followed_until_then() {
    let clock = ManualClock::new();
    let recorder = Recorder::new(1 << 20);
    let candidate = || {
        Config::builder("candidate")
            .no_failure_rate()
            .minimum_calls(1)
            .sustained_for(Duration::ZERO)
            .slow_calls(SECOND, 1.0)
    };
    let config = stubborn().recorder(&recorder).shadow(candidate().build().unwrap());
    let layer = CircuitBreakerLayer::new(config.clock(&clock).build().unwrap()).until_end_of_body();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let shadow = layer.circuit().shadows()[0].clone();
    let call = |to_head: Duration| {
        let slept = clock.clone();
        let service = layer.layer(service_fn(move |_: ()| {
            slept.advance(to_head);
            let body = http_body_util::Full::new("body".as_bytes());
            std::future::ready(Ok::<_, BoxError>(http::Response::new(body)))
        }));
        let response = runtime.block_on(service.oneshot(())).unwrap();
        let before = shadow.snapshot().passed.success;
        clock.advance(5 * SECOND);
        runtime.block_on(response.into_body().collect()).unwrap();
        assert_eq!(shadow.snapshot().passed.success, before + 1);
    };
    call(SECOND);
    assert_eq!(shadow.snapshot().circuit.state, State::Closed);
    call(SECOND + Duration::from_nanos(1));
    assert_eq!(shadow.snapshot().circuit.totals.slow, 1);
    let report = recorder.recording().replay(candidate().slow_calls(SECOND, 0.5).build().unwrap());
    // 12 s and a nanosecond: 1 s and 5 s, twice.
    assert_eq!(report.transitions[0].at, 12 * SECOND + Duration::from_nanos(1));
}

#[test]
fn a_body_that_takes_long_is_not_overdue_to_a_candidate_either() {
    let clock = ManualClock::new();
    let candidate = Config::builder("candidate").slow_calls(SECOND, 1.0).build().unwrap();
    let config = stubborn().shadow(candidate).clock(&clock).build().unwrap();
    let layer = CircuitBreakerLayer::new(config).until_end_of_body();
    let shadow = layer.circuit().shadows()[0].clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let call = |to_head: Duration| {
        let slept = clock.clone();
        let answer = service_fn(move |_: ()| {
            slept.advance(to_head);
            let body = http_body_util::Full::new("body".as_bytes());
            std::future::ready(Ok::<_, BoxError>(http::Response::new(body)))
        });
        runtime.block_on(layer.layer(answer).oneshot(())).unwrap()
    };
    let answered = call(SECOND);
    let answered_late = call(SECOND + Duration::from_nanos(1));
    let unanswered = layer.circuit().try_acquire().unwrap();
    clock.advance(2 * SECOND);
    assert_eq!(shadow.snapshot().circuit.window.overdue, 2);
    drop((answered, answered_late, unanswered));
}

/// Both find calls overdue whose heads came too late, and no others, however
/// their bodies end.
#[test]
fn a_replay_knows_which_heads_came_in_time() {
    #[derive(Clone, Copy, Debug)]
    enum End {
        Read,
        Dropped,
        Panics,
    }

    fn judge(to_head: Duration, end: End, opens: bool) {
        let clock = ManualClock::new();
        let recorder = Recorder::new(1 << 20);
        let rules = || {
            Config::builder("live")
                .no_failure_rate()
                .slow_calls(SECOND, 0.5)
                .minimum_calls(3)
                .sustained_for(Duration::ZERO)
        };
        let config = rules().recorder(&recorder).clock(&clock).build().unwrap();
        let layer = CircuitBreakerLayer::new(config).until_end_of_body();
        let slept = clock.clone();
        let service = layer.layer(service_fn(move |_: ()| {
            slept.advance(to_head);
            let body = http_body_util::Full::new("body".as_bytes());
            let body = body.map_frame(move |frame| match end {
                End::Panics => panic!("planned"),
                End::Read | End::Dropped => frame,
            });
            std::future::ready(Ok::<_, BoxError>(http::Response::new(body)))
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let call = || runtime.block_on(service.clone().oneshot(())).unwrap().into_body();
        let bodies = [call(), call(), call()];
        clock.advance(5 * SECOND);
        assert_eq!(layer.circuit().try_acquire().is_err(), opens, "{end:?} {to_head:?}");
        clock.advance(5 * SECOND);
        for body in bodies {
            match end {
                End::Read => drop(runtime.block_on(body.collect()).unwrap()),
                End::Dropped => drop(body),
                End::Panics => {
                    let read = AssertUnwindSafe(|| runtime.block_on(body.collect()));
                    assert!(catch_unwind(read).is_err());
                }
            }
        }
        assert_eq!(layer.circuit().snapshot().totals.opened, u64::from(opens), "{end:?}");
        let recording = recorder.recording();
        let live: Vec<_> = recording.transitions().iter().map(|change| change.at).collect();
        let report = recording.replay(rules().build().unwrap());
        let replayed: Vec<_> = report.transitions.iter().map(|change| change.at).collect();
        assert_eq!(replayed, live, "{end:?} {to_head:?}");
    }

    for end in [End::Read, End::Dropped, End::Panics] {
        for (to_head, opens) in [(SECOND, false), (SECOND + Duration::from_nanos(1), true)] {
            judge(to_head, end, opens);
        }
    }
}

#[test]
fn under_other_rules_of_the_live_circuit_calls_are_measured_for_a_candidate_still() {
    let clock = ManualClock::new();
    let candidate = Config::builder("candidate").slow_calls(SECOND, 1.0);
    let (circuit, shadow) = pair(stubborn(), candidate, &clock);
    circuit.reconfigure(stubborn().warm_up(SECOND).build().unwrap()).unwrap();
    let permit = circuit.try_acquire().unwrap();
    clock.advance(2 * SECOND);
    permit.record(Outcome::Success);
    assert_eq!(shadow.snapshot().circuit.totals.slow, 1);
}

/// With their share of a ramp they are calls that asked.
#[tokio::test]
async fn callers_that_wait_are_calls_to_a_shadow_as_to_the_live_circuit() {
    let clock = ManualClock::new();
    let rules = |name| brittle(name).ramp(10 * SECOND);
    let (circuit, shadow) = pair(rules("live"), rules("same"), &clock);
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    clock.advance(SECOND);
    call(&circuit, Outcome::Success);
    assert_eq!(circuit.state(), State::HalfOpen, "on the ramp");
    let layer = CircuitBreakerLayer::with_classifier(circuit.clone(), ResultClassifier::new())
        .when_open(WhenOpen::Wait);
    let mut service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    for _ in 0..20 {
        let mut context = Context::from_waker(Waker::noop());
        while service.poll_ready(&mut context).is_pending() {
            clock.advance(SECOND / 100);
        }
        service.call(()).await.unwrap();
        let seen = shadow.snapshot();
        assert_eq!(seen.would_reject.total(), 0);
        assert_eq!(seen.circuit.admitted_share, circuit.snapshot().admitted_share);
    }
    assert_eq!(shadow.snapshot().unknown, Unknown::default());
}

#[test]
fn metrics_show_what_a_candidate_begins_in() {
    let clock = ManualClock::new();
    let (circuit, _) = pair(stubborn(), brittle("candidate").start(Start::Open), &clock);
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || call(&circuit, Outcome::Success));
    let shown = recorder.snapshotter().snapshot().into_vec();
    let up = shown.iter().filter(|(key, .., value)| {
        key.key().name() == "circuit_breaker_shadow_state"
            && *value == DebugValue::Gauge(1.0.into())
    });
    let up: Vec<_> =
        up.flat_map(|(key, ..)| key.key().labels().map(metrics::Label::value)).collect();
    assert!(up.contains(&"open") && !up.contains(&"closed"), "{up:?}");
}

#[test]
fn nobody_takes_the_metrics_of_a_shadow_for_a_live_circuit() {
    let clock = ManualClock::new();
    let (circuit, _) = pair(stubborn(), brittle("candidate"), &clock);
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        call(&circuit, Outcome::Failure);
        call(&circuit, Outcome::Success);
        circuit.set_override(Override::force_open());
        assert!(circuit.try_acquire().is_err());
    });
    let mut series = BTreeMap::new();
    for (key, unit, description, value) in recorder.snapshotter().snapshot().into_vec() {
        let key = key.key();
        let labels: BTreeMap<_, _> = key.labels().map(|l| (l.key(), l.value())).collect();
        assert!(unit.is_some() && description.is_some(), "{} is not described", key.name());
        assert_eq!(labels["circuit"], "live");
        assert_eq!(
            labels.get("shadow").copied(),
            key.name().contains("_shadow_").then_some("candidate")
        );
        let rest: Vec<_> =
            labels.iter().filter(|(k, _)| !matches!(**k, "circuit" | "shadow")).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        if key.name().contains("_shadow_") {
            series.insert(format!("{} {rest:?}", &key.name()[23..]), value);
        }
    }
    let up: Vec<_> = series.iter().filter(|(_, value)| **value != 0.0).map(|(k, _)| &**k).collect();
    assert_eq!(
        up,
        [
            r#"calls_total [("outcome", "failure"), ("verdict", "passed")]"#,
            r#"calls_total [("outcome", "success"), ("verdict", "rejected")]"#,
            r#"calls_total [("outcome", "unknown"), ("verdict", "rejected")]"#,
            r#"state [("state", "open")]"#,
            r#"transitions_total [("cause", "consecutive-failures"), ("from", "closed"), ("to", "open")]"#,
        ]
    );
    assert_eq!(series.len(), 3 + 10 + 18);
}
