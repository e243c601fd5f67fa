//! The laws of a circuit on the fast clock, whose time no test can move.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_breaker::{Backoff, Call, Circuit, Clock, Config, Observer, Outcome, State};

#[test]
fn its_instants_are_those_of_its_clock() {
    let clock = Clock::fast();
    for _ in 0..100 {
        let before = clock.now();
        let circuit = Circuit::new(Config::builder("fast").clock(Clock::fast()).build().unwrap());
        let born = circuit.snapshot().since;
        let made = clock.now();
        assert!(before <= born && born <= made);
        circuit.trip();
        let (seen, after) = (circuit.snapshot(), clock.now());
        assert!(made <= seen.since && seen.since <= seen.at && seen.at <= after);
    }
}

#[test]
fn a_wait_is_over_no_sooner_than_by_its_clock() {
    const WAIT: Duration = Duration::from_millis(1);
    let clock = Clock::fast();
    let config = Config::builder("fast").open_for(Backoff::fixed(WAIT)).clock(clock.clone());
    let circuit = Circuit::new(config.measure_latency().build().unwrap());
    for _ in 0..10 {
        circuit.reset();
        let before = clock.now();
        circuit.trip();
        let permit = loop {
            match circuit.try_acquire() {
                Ok(permit) => break permit,
                Err(open) => assert!(open.retry_after().unwrap() <= WAIT),
            }
        };
        assert!(clock.now() - before >= WAIT);
        permit.record(Outcome::Failure);
        assert_eq!(circuit.state(), State::Open);
    }
}

#[test]
fn a_call_took_as_long_as_its_clock_says() {
    #[derive(Clone, Default)]
    struct Latest(Arc<Mutex<Option<Duration>>>);
    impl Observer for Latest {
        fn on_call(&self, call: &Call<'_>) {
            *self.0.lock().unwrap() = call.latency;
        }
    }
    const LONG: Duration = Duration::from_micros(100);
    let (clock, latest) = (Clock::fast(), Latest::default());
    let config = Config::builder("fast").clock(clock.clone()).observer(latest.clone());
    let circuit = Circuit::new(config.measure_latency().build().unwrap());
    for _ in 0..10 {
        let before = clock.now();
        let permit = circuit.try_acquire().unwrap();
        let began = clock.now();
        while clock.now() - began < LONG {}
        permit.record(Outcome::Success);
        let longest = clock.now() - before;
        let latency = latest.0.lock().unwrap().unwrap();
        assert!(LONG <= latency && latency <= longest, "{latency:?} of {longest:?}");
    }
}

/// Its instants are not those of tokio's timer.
#[cfg(feature = "tokio")]
#[tokio::test]
async fn who_waits_is_let_in_no_sooner_than_by_its_clock() {
    use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
    use tower_breaker::{CircuitBreakerLayer, Probes, ResultClassifier, WhenOpen};

    const WAIT: Duration = Duration::from_millis(5);
    let clock = Clock::fast();
    let config = Config::builder("fast").open_for(Backoff::fixed(WAIT)).probes(Probes::new(1));
    let layer = CircuitBreakerLayer::with_classifier(
        config.clock(clock.clone()).build().unwrap(),
        ResultClassifier::new(),
    );
    let mut service =
        layer.clone().when_open(WhenOpen::Wait).layer(service_fn(async |()| Ok::<_, BoxError>(())));
    for _ in 0..3 {
        let before = clock.now();
        layer.circuit().trip();
        tokio::select! {
            // A guard, on the system's clock because this one can't be paused: a test that passes does not wait for it.
            // First: whoever is polled for that reason finds the wait over.
            biased;
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("nobody woke it"),
            ready = service.ready() => ready.unwrap().call(()).await.unwrap(),
        }
        assert!(clock.now() - before >= WAIT);
        assert_eq!(layer.circuit().state(), State::Closed);
    }
}
