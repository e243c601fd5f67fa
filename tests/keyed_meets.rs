//! Where keyed circuits meet the rest: bodies, starts, health checks, overrides,
//! throttles and recorders.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use metrics::{Counter, Gauge, Histogram, KeyName, Metadata, SharedString, Unit};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Beyond, Call, Cancellation, Circuit, Config, ConfigBuilder, HealthCheck,
    KeyedCircuitBreakerLayer, KeyedCircuits, ManualClock, Observer, Outcome, Override, Probes,
    Quorum, Recorder, ResponseBody, Start, State, Throttle, Totals,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Opens at the second failure in a row, for five seconds; one probe.
fn named(name: &str, clock: &ManualClock) -> ConfigBuilder {
    Config::builder(name)
        .consecutive_failures(2)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1).lease(60 * MINUTE))
        .clock(clock)
}

/// Whose parent minds slow calls, and is about to probe.
fn under_a_slow_rule(parent: ConfigBuilder, clock: &ManualClock) -> KeyedCircuits {
    let parent = parent.slow_calls(SECOND, 0.5).build().unwrap();
    let circuits = KeyedCircuits::builder(named("keys", clock).build().unwrap())
        .parent(parent, Quorum::count(1))
        .build()
        .unwrap();
    circuits.get_or_create("sick").trip();
    clock.advance(5 * SECOND);
    assert_eq!(circuits.parent().unwrap().state(), State::Open);
    circuits
}

/// A call that ends with its body.
async fn call(circuits: &KeyedCircuits) -> Result<Response<ResponseBody<String>>, BoxError> {
    KeyedCircuitBreakerLayer::per_host(circuits.clone())
        .until_end_of_body()
        .layer(service_fn(async |_: Request<()>| {
            Ok::<_, BoxError>(Response::new("hello".to_owned()))
        }))
        .oneshot(Request::get("http://well/").body(()).unwrap())
        .await
}

#[tokio::test]
async fn a_parent_too_judges_a_call_by_the_time_to_its_head() {
    let clock = ManualClock::new();
    let circuits = under_a_slow_rule(named("parent", &clock), &clock);
    let response = call(&circuits).await.unwrap();
    clock.advance(10 * SECOND);
    response.into_body().collect().await.unwrap();
    assert_eq!(circuits.parent().unwrap().state(), State::Closed);
}

#[tokio::test]
async fn a_body_that_is_dropped_is_neutral_to_a_parent_too() {
    let clock = ManualClock::new();
    let circuits = under_a_slow_rule(named("parent", &clock), &clock);
    let response = call(&circuits).await.unwrap();
    clock.advance(10 * SECOND);
    drop(response);
    let parent = circuits.parent().unwrap().snapshot();
    assert_eq!(parent.state, State::HalfOpen);
    assert_eq!((parent.totals.cancelled, parent.totals.slow), (1, 0));
}

#[tokio::test]
async fn a_body_that_takes_long_is_not_overdue_to_a_parent_either() {
    let clock = ManualClock::new();
    let circuits = under_a_slow_rule(named("parent", &clock).ramp(MINUTE), &clock);
    circuits.try_acquire("well").unwrap().record(Outcome::Success);
    clock.advance(50 * SECOND);
    let parent = circuits.parent().unwrap();
    let response = loop {
        assert!(parent.snapshot().admitted_share.is_some(), "it is on its ramp");
        if let Ok(response) = call(&circuits).await {
            break response;
        }
    };
    clock.advance(5 * SECOND);
    assert_eq!(parent.snapshot().window.overdue, 0);
    drop(response);
}

#[test]
fn a_parent_with_a_slow_rule_learns_the_time_though_its_keys_do_not_need_it() {
    let clock = ManualClock::new();
    let circuits = under_a_slow_rule(named("parent", &clock), &clock);
    let permit = circuits.try_acquire("well").unwrap();
    clock.advance(10 * SECOND);
    permit.record(Outcome::Success);
    let parent = circuits.parent().unwrap().snapshot();
    assert_eq!((parent.state, parent.totals.slow), (State::Open, 1));
}

/// It settles both, so a key's is measured if either needs it, and its parent's
/// if that does.
#[test]
fn a_call_is_measured_for_a_key_or_its_parent_if_they_need_it() {
    #[derive(Clone, Default)]
    struct Latencies(Arc<Mutex<Vec<Option<Duration>>>>);
    impl Observer for Latencies {
        fn on_call(&self, call: &Call<'_>) {
            self.0.lock().unwrap().push(call.latency);
        }
    }
    let clock = ManualClock::new();
    let group = |measures: [bool; 2], cancellation| {
        let latencies = [Latencies::default(), Latencies::default()];
        let config = |index: usize, name: &str| {
            let config = named(name, &clock).cancellation(cancellation);
            let config = if measures[index] { config.measure_latency() } else { config };
            config.observer(latencies[index].clone()).build().unwrap()
        };
        let circuits = KeyedCircuits::builder(config(0, "keys"))
            .parent(config(1, "parent"), Quorum::count(1))
            .build()
            .unwrap();
        (circuits, latencies)
    };
    let took = Some(SECOND);
    for (measures, expected) in [
        ([false, false], [None, None]),
        ([true, false], [took, None]),
        ([false, true], [took, took]),
        ([true, true], [took, took]),
    ] {
        for cancellation in [Cancellation::ByAge, Cancellation::Neutral] {
            let (circuits, latencies) = group(measures, cancellation);
            circuits.get_or_create("sick").trip();
            clock.advance(5 * SECOND);
            let permit = circuits.try_acquire("well").unwrap();
            clock.advance(SECOND);
            permit.record(Outcome::Success);
            assert_eq!(circuits.parent().unwrap().state(), State::Closed);
            let told = latencies.map(|latencies| latencies.0.lock().unwrap().clone());
            assert_eq!(told, expected.map(|latency| vec![latency]), "{measures:?}");
        }
    }
}

#[test]
fn calls_that_hang_open_a_circuit_when_the_next_one_asks_and_not_when_the_keeper_looks() {
    let clock = ManualClock::new();
    let slow = named("keys", &clock)
        .no_failure_rate()
        .minimum_calls(1)
        .slow_calls(SECOND, 0.5)
        .sustained_for(Duration::ZERO);
    for config in [slow.clone(), slow.throttle(Throttle::new(2.0))] {
        let circuits = KeyedCircuits::builder(config.build().unwrap()).build().unwrap();
        circuits.try_acquire("a").unwrap().record(Outcome::Failure);
        let hung = ["a"; 3].map(|key| circuits.try_acquire(key).unwrap());
        clock.advance(2 * SECOND);
        assert_eq!(circuits.evict_idle(), 0);
        assert_eq!((circuits.get("a").unwrap().state(), circuits.open()), (State::Closed, 0));
        circuits.try_acquire("a").unwrap_err();
        assert_eq!((circuits.get("a").unwrap().state(), circuits.open()), (State::Open, 1));
        drop(hung);
    }
}

#[test]
fn a_closed_parent_hears_of_no_call_under_an_override_either() {
    let clock = ManualClock::new();
    for over in [Override::observe_only(), Override::force_closed()] {
        let circuits = KeyedCircuits::builder(named("keys", &clock).build().unwrap())
            .parent(named("parent", &clock).build().unwrap(), Quorum::count(9))
            .build()
            .unwrap();
        let parent = circuits.parent().unwrap();
        parent.set_override(over);
        for key in ["a", "b", "c"] {
            circuits.try_acquire(key).unwrap().record(Outcome::Failure);
        }
        assert_eq!((parent.state(), parent.snapshot().totals), (State::Closed, Totals::default()));

        parent.set_override(Override::force_open());
        assert_eq!(circuits.try_acquire("a").unwrap_err().name(), "parent");
    }
}

#[test]
fn beyond_the_share_a_closed_circuit_that_throttles_refuses_all_too() {
    let clock = ManualClock::new();
    let config = named("keys", &clock).throttle(Throttle::new(2.0)).build().unwrap();
    let circuits = KeyedCircuits::builder(config)
        .minimum_keys(3)
        .max_open_share(0.5, Beyond::FailClosed)
        .build()
        .unwrap();
    circuits.try_acquire("well").unwrap().record(Outcome::Failure);
    for key in ["a", "b"] {
        circuits.get_or_create(key).trip();
    }
    circuits.try_acquire("well").unwrap_err();
    // An operator's decision counts for more.
    circuits.get("well").unwrap().set_override(Override::force_closed());
    assert!(circuits.try_acquire("well").is_ok());
}

#[tokio::test]
async fn a_circuit_that_a_health_check_holds_open_stays_while_it_is_called() {
    let clock = ManualClock::new();
    let config = named("keys", &clock).build().unwrap();
    let circuits = KeyedCircuits::builder(config).idle_for(MINUTE).build().unwrap();
    let circuit = circuits.get_or_create("a");
    circuit.run_health_check(HealthCheck::new(async || Err::<(), _>("sick"))).unwrap();
    circuit.trip();
    drop(circuit);
    for _ in 0..20 {
        circuits.try_acquire("a").unwrap_err();
        clock.advance(6 * SECOND);
        tokio::task::yield_now().await;
        assert_eq!(circuits.evict_idle(), 0);
    }
    circuits.try_acquire("a").unwrap_err();
    assert_eq!(circuits.evict_idle(), 0);
    clock.advance(MINUTE);
    assert_eq!(circuits.evict_idle(), 1, "nobody calls it any more");
}

#[tokio::test]
async fn a_call_that_has_ended_holds_its_circuit_no_longer_though_its_future_is_kept() {
    let clock = ManualClock::new();
    let config = named("keys", &clock).build().unwrap();
    let circuits = KeyedCircuits::builder(config).idle_for(MINUTE).build().unwrap();
    let mut service = KeyedCircuitBreakerLayer::per_host(circuits.clone())
        .layer(service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(()))));
    let mut call = std::pin::pin!(service.call(Request::get("http://a/").body(()).unwrap()));
    assert_eq!((call.as_mut().await.is_ok(), circuits.len()), (true, 1));
    assert_eq!(circuits.evict_idle(), 0, "it was used just now");
    clock.advance(MINUTE);
    assert_eq!(circuits.evict_idle(), 1);
}

#[test]
fn keys_that_start_open_are_counted_as_open() {
    let clock = ManualClock::new();
    let config = named("keys", &clock).start(Start::Open).build().unwrap();
    let circuits = KeyedCircuits::builder(config).build().unwrap();
    let counts = || {
        let seen = circuits.snapshot();
        (seen.closed, seen.open, seen.half_open)
    };
    circuits.try_acquire("a").unwrap_err();
    assert_eq!((counts(), circuits.open()), ((0, 1, 0), 1));
    clock.advance(5 * SECOND);
    let probe = circuits.try_acquire("a").unwrap();
    assert_eq!(counts(), (0, 0, 1));
    probe.record(Outcome::Success);
    assert_eq!(counts(), (1, 0, 0));
}

#[test]
fn a_group_is_observed_once_and_not_each_key_anew() {
    let clock = ManualClock::new();
    let config = named("keys", &clock).start(Start::ObserveOnly(10 * SECOND)).build().unwrap();
    let circuits = KeyedCircuits::builder(config).build().unwrap();
    let fails = |key: &str| {
        (0..2).for_each(|_| circuits.try_acquire(key).unwrap().record(Outcome::Failure));
    };
    clock.advance(9 * SECOND);
    fails("early");
    drop(circuits.try_acquire("early").unwrap());
    clock.advance(SECOND);
    circuits.try_acquire("early").unwrap_err();
    fails("late");
    circuits.try_acquire("late").unwrap_err();
}

/// It would record the shared circuit, and none of the keys'.
#[test]
fn a_template_has_no_recorder() {
    let config = Config::builder("keys").recorder(&Recorder::new(0)).build().unwrap();
    let error = KeyedCircuits::builder(config).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "recorder is of a group's template, but must be that of a single circuit, which is all it \
         records"
    );
}

/// Nobody has to call a key for the others to be believed again.
#[test]
fn ramps_that_are_over_hold_neither_the_guard_nor_make_a_quorum() {
    let clock = ManualClock::new();
    let config = || named("keys", &clock).ramp(10 * SECOND).build().unwrap();
    let ramp_up = |circuits: &KeyedCircuits| {
        circuits.try_acquire("well").unwrap().record(Outcome::Success);
        for key in ["a", "b"] {
            circuits.get_or_create(key).trip();
        }
        clock.advance(5 * SECOND);
        for key in ["a", "b"] {
            circuits.try_acquire(key).unwrap().record(Outcome::Success);
        }
        assert_eq!(circuits.snapshot().half_open, 2);
        clock.advance(10 * SECOND);
    };

    let guarded = KeyedCircuits::builder(config())
        .minimum_keys(3)
        .max_open_share(0.5, Beyond::FailClosed)
        .idle_for(4 * MINUTE)
        .build()
        .unwrap();
    ramp_up(&guarded);
    // Every circuit is looked at four times in that.
    clock.advance(MINUTE);
    drop(guarded.try_acquire("well").unwrap());
    assert_eq!(guarded.open(), 0);

    let parent = named("parent", &clock).build().unwrap();
    let family = KeyedCircuits::builder(config()).parent(parent, Quorum::count(3)).build().unwrap();
    ramp_up(&family);
    family.get_or_create("well").trip();
    assert_eq!((family.parent().unwrap().state(), family.open()), (State::Closed, 1));
}

/// Nor has anybody to call the parent, or to look at it.
#[test]
fn a_parent_whose_ramp_is_over_listens_again() {
    let clock = ManualClock::new();
    let parent = named("parent", &clock).ramp(10 * SECOND).build().unwrap();
    let config = named("keys", &clock).build().unwrap();
    let family = KeyedCircuits::builder(config).parent(parent, Quorum::count(3)).build().unwrap();
    let keys = ["a", "b", "c"].map(|key| family.get_or_create(key));
    family.parent().unwrap().trip();
    clock.advance(5 * SECOND);
    family.try_acquire("a").unwrap().record(Outcome::Success);
    assert_eq!(family.parent().unwrap().state(), State::HalfOpen);
    clock.advance(10 * SECOND);
    keys.iter().for_each(Circuit::trip);
    assert_eq!(family.parent().unwrap().state(), State::Open);
    assert!(family.try_acquire("x").is_err());
}

/// Registers nothing, loudly.
struct Loud;

impl metrics::Recorder for Loud {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &metrics::Key, _: &Metadata<'_>) -> Counter {
        panic!("no counter")
    }

    fn register_gauge(&self, _: &metrics::Key, _: &Metadata<'_>) -> Gauge {
        panic!("no gauge")
    }

    fn register_histogram(&self, _: &metrics::Key, _: &Metadata<'_>) -> Histogram {
        panic!("no histogram")
    }
}

#[test]
fn a_metrics_recorder_that_panics_harms_neither_calls_nor_the_parent() {
    let clock = ManualClock::new();
    let config = named("keys", &clock).shadow(named("shadow", &clock).build().unwrap());
    let circuits = KeyedCircuits::builder(config.build().unwrap())
        .parent(named("parent", &clock).build().unwrap(), Quorum::count(2))
        .capacity(2)
        .build()
        .unwrap();
    metrics::with_local_recorder(&Loud, || {
        for key in ["a", "b", "c"] {
            circuits.try_acquire(key).unwrap().record(Outcome::Success);
        }
        assert_eq!(circuits.snapshot().evicted, 1);
        circuits.circuits().iter().for_each(Circuit::trip);
        assert_eq!(circuits.parent().unwrap().state(), State::Open);
        circuits.try_acquire("a").unwrap_err();
    });
}
