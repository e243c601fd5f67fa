//! Retries outside a breaker that know when it is open.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, retry::Policy, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ConfigBuilder, HttpClassifier,
    Override, Probes, RetryPolicy,
    State::{Closed, HalfOpen, Open},
    WhenOpen,
};
use tower_breaker_stacks::upstream::Upstream;

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(5);

/// Retries what failed at most so often, at once, and counts how often it was
/// asked.
#[derive(Clone, Debug)]
struct AtMost {
    retries: u32,
    asked: Arc<AtomicU32>,
}

fn at_most(retries: u32) -> (AtMost, Arc<AtomicU32>) {
    let asked = Arc::default();
    (AtMost { retries, asked: Arc::clone(&asked) }, asked)
}

impl<Q: Clone, B> Policy<Q, Response<B>, BoxError> for AtMost {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Q,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Ready<()>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if result.as_ref().is_ok_and(|answer| !answer.status().is_server_error()) {
            return None;
        }
        self.retries = self.retries.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Q) -> Option<Q> {
        Some(request.clone())
    }
}

/// On the default clock: tokio's, which these tests pause.
fn config() -> ConfigBuilder {
    Config::builder("upstream")
        .no_failure_rate()
        .consecutive_failures(3)
        .open_for(Backoff::fixed(WAIT))
        .probes(Probes::new(1).lease(2 * WAIT))
}

fn breaker() -> CircuitBreakerLayer<HttpClassifier> {
    CircuitBreakerLayer::new(config().build().unwrap()).when_open(WhenOpen::Defer)
}

/// An upstream that answers 503 until this instant, and counts.
fn sick_until(
    recovery: Instant,
) -> (
    impl Service<(), Response = Response<()>, Error = BoxError, Future: Send> + Clone + Send + 'static,
    Arc<AtomicU32>,
) {
    let hits = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&hits);
    let service = service_fn(move |()| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(());
        if now() < recovery {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        ready(Ok(response))
    });
    (service, hits)
}

#[expect(clippy::disallowed_methods, reason = "the test has paused it")]
fn now() -> Instant {
    Instant::now()
}

fn never() -> Instant {
    now() + 1_000_000 * SECOND
}

fn count(counter: &AtomicU32) -> u32 {
    counter.load(Ordering::SeqCst)
}

fn refusal(error: &BoxError) -> &CircuitOpen {
    CircuitOpen::find_in(&**error).expect("another error than the refusal")
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_burnt_on_an_open_circuit() {
    for when_open in [WhenOpen::Defer, WhenOpen::Error] {
        let breaker = breaker().when_open(when_open);
        let circuit = breaker.circuit().clone();
        let (upstream, hits) = sick_until(never());
        let (policy, asked) = at_most(100);
        let service = ServiceBuilder::new()
            .retry(RetryPolicy::stop_when_open(policy))
            .layer(breaker)
            .service(upstream);
        let start = now();

        // The third attempt opens it; the fourth is refused, and that is that.
        let error = service.clone().oneshot(()).await.unwrap_err();
        assert_eq!(refusal(&error).retry_after(), Some(WAIT));
        assert_eq!((count(&hits), count(&asked)), (3, 3), "{when_open:?}");

        for calls in 1..=5 {
            let error = service.clone().oneshot(()).await.unwrap_err();
            assert_eq!(refusal(&error).state(), Open);
            assert_eq!((count(&hits), count(&asked)), (3, 3), "{when_open:?}");
            assert_eq!(circuit.snapshot().totals.rejected, 1 + calls);
        }
        assert_eq!(now(), start, "nor is any time spent");
    }
}

#[tokio::test]
async fn no_request_is_sent_to_a_real_upstream_behind_an_open_circuit() {
    let upstream = Upstream::start().unwrap();
    upstream.sicken();
    let (policy, asked) = at_most(100);
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let service = ServiceBuilder::new()
        .retry(RetryPolicy::stop_when_open(policy))
        .layer(breaker())
        .service(client);
    let request = || Request::get(upstream.url("/")).body(Empty::new()).unwrap();
    for _ in 0..3 {
        let error = service.clone().oneshot(request()).await.unwrap_err();
        assert_eq!(refusal(&error).name(), "upstream");
        assert_eq!((upstream.hits(), count(&asked)), (3, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn everything_else_is_up_to_the_policy() {
    for patience in [Duration::ZERO, 100 * SECOND] {
        let (upstream, hits) = sick_until(never());
        let (policy, asked) = at_most(1);
        let service = ServiceBuilder::new()
            .retry(RetryPolicy::wait_when_open(policy, patience))
            .layer(breaker())
            .service(upstream);
        let answer = service.oneshot(()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((count(&hits), count(&asked)), (2, 2));
    }
}

/// A refusal inside an error of somebody else.
#[derive(Debug)]
struct Wrapped(BoxError);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wrapped: {}", self.0)
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_known_under_its_wrapping() {
    let breaker = breaker();
    breaker.circuit().trip();
    let (upstream, hits) = sick_until(now());
    let (policy, asked) = at_most(100);
    let service = ServiceBuilder::new()
        .retry(RetryPolicy::stop_when_open(policy))
        .map_err(|error: BoxError| BoxError::from(Wrapped(error)))
        .layer(breaker)
        .service(upstream);
    let error = service.oneshot(()).await.unwrap_err();
    assert!(error.is::<Wrapped>());
    assert_eq!((count(&hits), count(&asked)), (0, 0));
}

/// A tripped circuit, before an upstream that is well again so much later, and
/// behind retries that wait.
async fn wait(recovery: Duration, patience: Duration, retries: u32) -> Waited {
    let breaker = breaker();
    breaker.circuit().trip();
    let start = now();
    let circuit = breaker.circuit().clone();
    let (upstream, hits) = sick_until(start + recovery);
    let (policy, asked) = at_most(retries);
    let service = ServiceBuilder::new()
        .retry(RetryPolicy::wait_when_open(policy, patience))
        .layer(breaker)
        .service(upstream);
    let answer = service.oneshot(()).await.map(|answer| answer.status());
    Waited { took: now() - start, answer, hits: count(&hits), asked: count(&asked), circuit }
}

struct Waited {
    took: Duration,
    answer: Result<StatusCode, BoxError>,
    hits: u32,
    asked: u32,
    circuit: Circuit,
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_as_long_as_it_is_told_and_succeeds_after_the_recovery() {
    let waited = wait(Duration::ZERO, 60 * SECOND, 0).await;
    assert_eq!(waited.answer.unwrap(), StatusCode::OK);
    assert_eq!((waited.took, waited.hits), (WAIT, 1));
    assert_eq!(waited.asked, 1, "about the answer, not about the refusal");
    assert_eq!(waited.circuit.state(), Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_again_when_the_probe_has_failed() {
    let waited = wait(2 * WAIT, 60 * SECOND, 1).await;
    assert_eq!(waited.answer.unwrap(), StatusCode::OK);
    assert_eq!((waited.took, waited.hits), (2 * WAIT, 2));
    // Once about the 503, once about the 200.
    assert_eq!(waited.asked, 2);
}

#[tokio::test(start_paused = true)]
async fn patience_is_for_all_waits_together() {
    // Just enough for one wait, and for two.
    let waited = wait(Duration::ZERO, WAIT, 0).await;
    assert_eq!((waited.answer.unwrap(), waited.took), (StatusCode::OK, WAIT));
    let waited = wait(2 * WAIT, 2 * WAIT, 9).await;
    assert_eq!((waited.answer.unwrap(), waited.took), (StatusCode::OK, 2 * WAIT));

    // Not enough for the first, or for the second: no time is spent on it.
    let short = Duration::from_millis(1);
    let waited = wait(Duration::ZERO, WAIT - short, 9).await;
    assert_eq!(refusal(&waited.answer.unwrap_err()).retry_after(), Some(WAIT));
    assert_eq!((waited.took, waited.hits, waited.asked), (Duration::ZERO, 0, 0));
    let waited = wait(2 * WAIT, 2 * WAIT - short, 9).await;
    assert_eq!(refusal(&waited.answer.unwrap_err()).retry_after(), Some(WAIT));
    assert_eq!((waited.took, waited.hits, waited.asked), (WAIT, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn each_request_has_its_own_patience() {
    let breaker = breaker();
    let circuit = breaker.circuit().clone();
    let (upstream, _) = sick_until(now());
    let (policy, _) = at_most(0);
    let mut service = ServiceBuilder::new()
        .retry(RetryPolicy::wait_when_open(policy, WAIT))
        .layer(breaker)
        .service(upstream);
    for _ in 0..3 {
        circuit.trip();
        let answer = service.ready().await.unwrap().call(()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_circuit_that_names_no_time() {
    let breaker = breaker();
    let over = Override::force_open().reason("index rebuild").until_cleared();
    breaker.circuit().set_override(over);
    let start = now();
    let (upstream, hits) = sick_until(now());
    let (policy, asked) = at_most(100);
    let service = ServiceBuilder::new()
        .retry(RetryPolicy::wait_when_open(policy, Duration::MAX))
        .layer(breaker)
        .service(upstream);
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(refusal(&error).retry_after(), None);
    assert_eq!((now(), count(&hits), count(&asked)), (start, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_probe_left_waits_for_the_lease_to_end() {
    let breaker = breaker();
    let circuit = breaker.circuit().clone();
    let (upstream, hits) = sick_until(now());
    let (policy, _) = at_most(0);
    let service = RetryPolicy::wait_when_open(policy, 60 * SECOND);
    let service = ServiceBuilder::new().retry(service).layer(breaker).service(upstream);
    circuit.trip();
    tokio::time::advance(WAIT).await;
    let probe = circuit.try_acquire().unwrap();
    assert_eq!(circuit.state(), HalfOpen);

    let start = now();
    let answer = service.oneshot(()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // The lease, and the next wait.
    assert_eq!(now() - start, 2 * WAIT + WAIT);
    assert_eq!((count(&hits), circuit.state()), (1, Closed));
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_told_by_hand_meets_a_waiting_retry() {
    let breaker = breaker();
    let circuit = breaker.circuit().clone();
    circuit.trip();
    let (upstream, hits) = sick_until(now());
    let (policy, _) = at_most(0);
    let policy = RetryPolicy::wait_when_open(policy, WAIT);
    let service = ServiceBuilder::new().retry(policy).service(breaker.layer(upstream));
    let call = tokio::spawn(service.oneshot(()));
    tokio::time::advance(SECOND).await;
    circuit.reset();
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!((count(&hits), circuit.state()), (1, Closed));
}
