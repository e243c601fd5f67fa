//! What `Debug` says: what a thing is and how it stands, and nothing of what it
//! carries for others.

use std::{
    convert::Infallible,
    future::{Pending, pending},
    time::Duration,
};

use tower::{Layer, Service, service_fn};
use tower_breaker::{
    AsError, Circuit, CircuitBreakerLayer, Clock, Config, HealthCheck, ManualClock, Outcome,
    Recorder, Recording,
};

/// What a request may hold and no log should: it can't be printed.
struct Secret;

#[test]
fn a_clock_says_which_one_it_is() {
    for (clock, expected) in [
        (Clock::system(), "Clock::system"),
        (Clock::tokio(), "Clock::tokio"),
        (Clock::fast(), "Clock::fast"),
        (ManualClock::default().into(), "ManualClock"),
    ] {
        assert_eq!(format!("{clock:?}"), expected);
    }
}

#[test]
fn a_health_check_says_all_but_what_it_does() {
    let check = HealthCheck::new(pending::<Result<(), &str>>)
        .interval(Duration::from_secs(2))
        .jitter(0.1)
        .timeout(Duration::from_secs(3))
        .successes(4)
        .of(5)
        .instead_of_probes();
    assert_eq!(
        format!("{check:?}"),
        "HealthCheck { interval: 2s, jitter: 0.1, timeout: 3s, successes: 4, of: 5, \
         instead_of_probes: true, .. }"
    );
}

#[test]
fn a_permit_says_whose_it_is() {
    let circuit = Circuit::new(Config::builder("shop").build().unwrap());
    let permit = format!("{:?}", circuit.try_acquire().unwrap());
    assert!(permit.starts_with("Permit { circuit: Circuit { name: \"shop\", "), "{permit}");
}

#[test]
fn a_call_says_how_far_it_is() {
    let circuit = Circuit::new(Config::default());
    let layer = CircuitBreakerLayer::new(&circuit).fallback_with(
        async |_: Secret, _| -> http::Response<Secret> { http::Response::new(Secret) },
    );
    let mut service =
        layer.layer(service_fn(|_: Secret| -> Pending<Result<_, Infallible>> { pending() }));
    let call = format!("{:?}", service.call(Secret));
    assert_eq!(call, "ResponseFuture { state: \"calling\", .. }");
    circuit.trip();
    let call = format!("{:?}", service.call(Secret));
    assert_eq!(call, "ResponseFuture { state: \"answering\", .. }");
}

#[test]
fn closures_are_told_by_their_names() {
    let layer = CircuitBreakerLayer::new(Config::default());
    for text in [
        format!("{:?}", layer.clone().fallback::<_, _, AsError>(|_| Secret)),
        format!(
            "{:?}",
            layer.clone().fallback_with::<_, _, _, AsError>(async |_: Secret, _| Secret)
        ),
        format!("{:?}", layer.classify_fn(|_: Result<&Secret, _>, _| Outcome::Success)),
    ] {
        assert!(text.contains("closures_are_told_by_their_names::{{closure}}>"), "{text}");
    }
}

#[test]
fn a_recording_says_how_much_it_holds_and_a_recorder_nothing() {
    let recorder = Recorder::new(0);
    let config = Config::builder("shop").recorder(&recorder).build().unwrap();
    Circuit::new(config).try_acquire().unwrap().record(Outcome::Success);
    assert_eq!(format!("{recorder:?}"), "Recorder { .. }");
    let recording: Recording = recorder.recording();
    assert_eq!(
        format!("{recording:?}"),
        format!(
            "Recording {{ name: \"shop\", calls: 1, rejections: 0, dropped: 0, bytes: {}, .. }}",
            recording.bytes()
        )
    );
}

#[test]
fn a_shadow_says_how_it_stands() {
    let candidate = Config::builder("stricter").build().unwrap();
    let circuit = Circuit::new(Config::builder("shop").shadow(candidate).build().unwrap());
    let shadow = format!("{:?}", circuit.shadows()[0]);
    assert!(shadow.starts_with("Shadow { circuit: Circuit { name: \"stricter\", "), "{shadow}");
}
