//! Where keyed circuits meet the rest: bodies, starts, health checks, overrides,
//! throttles and recorders.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Config, ConfigBuilder, KeyedCircuitBreakerLayer, KeyedCircuits, ManualClock, Outcome,
    Override, Probes, Quorum, ResponseBody, State, Totals,
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
