//! Second attempts: who gets one, for what, and how many there are in all.

mod stacked;

use std::time::Duration;

use brk::{
    config::{Retry, Service, WhenOpen},
    proxy::{Body, LONGEST_BODY, UpstreamError, stack_with_fallback},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use stacked::*;
use tower::{BoxError, ServiceExt};
use tower_breaker::{ConfigBuilder, Override, State};

fn retrying(circuit: ConfigBuilder, attempts: u32, budget: f64) -> Service {
    Service { retry: Some(Retry { attempts, budget }), ..settings(circuit) }
}

/// A circuit that stays closed, whatever happens.
fn patient() -> ConfigBuilder {
    circuit().no_failure_rate().consecutive_failures(1_000_000)
}

/// How often each of so many calls was tried in all.
async fn attempts(does: fn() -> Does, request: impl Fn() -> Request<Body>) -> usize {
    let mock = Mock::that(does);
    let (stack, _) = protect(retrying(patient(), 3, 1.0), &mock);
    ask(&stack, request()).await;
    mock.calls()
}

fn sends(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/list").header("x-mine", "1").body(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_idempotent_methods_are_tried_again() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "POST", "PATCH", "PURGE"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let tried = attempts(no_connection, || sends(method.clone(), Body::empty())).await;
        assert_eq!(tried, if method.is_idempotent() { 3 } else { 1 }, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_another_attempt_may_mend_is_tried_again() {
    fn asked_to_stay_away() -> Does {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
        Does::Answers(response)
    }
    type Case = (&'static str, fn() -> Does, usize);
    let cases: [Case; 16] = [
        ("200", || status(200), 1),
        ("404", || status(404), 1),
        ("429", || status(429), 1),
        ("500", || status(500), 1),
        ("501", || status(501), 1),
        ("502", || status(502), 3),
        ("503", || status(503), 3),
        ("504", || status(504), 3),
        ("503, stay away", asked_to_stay_away, 1),
        ("connect", no_connection, 3),
        ("dns", || Does::Fails(UpstreamError::Dns("".into())), 3),
        ("reset", || Does::Fails(UpstreamError::Reset("".into())), 3),
        ("tls", || Does::Fails(UpstreamError::Tls("".into())), 1),
        ("no http", || Does::Fails(UpstreamError::BadResponse("".into())), 1),
        ("hangs", || Does::Hangs, 1),
        (
            "slow to connect",
            || Does::Fails(UpstreamError::Timeout { which: brk::proxy::Timeout::Connect }),
            3,
        ),
    ];
    for (what, does, expected) in cases {
        assert_eq!(attempts(does, get).await, expected, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_is_the_answer() {
    let mock = Mock::that(no_connection).then(|| status(503)).then(|| status(200));
    let (stack, circuit) = protect(retrying(patient(), 5, 1.0), &mock);
    let answer = ask(&stack, get()).await;
    assert_eq!((answer.status(), mock.calls()), (StatusCode::OK, 3));
    let totals = circuit.snapshot().totals;
    assert_eq!((totals.failure, totals.success), (2, 1), "the circuit hears of each attempt");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_sent_again_as_it_was() {
    let bytes: Bytes = (0..LONGEST_BODY).map(|index| (index * 31 % 251) as u8).collect();
    let chunks: Vec<Bytes> = bytes.chunks(1_000).map(Bytes::copy_from_slice).collect();
    for at_once in [true, false] {
        let body = if at_once {
            Body::full(bytes.clone())
        } else {
            Body::wrap(Sized { rest: chunks.clone().into(), left: LONGEST_BODY })
        };
        let mock = Mock::that(no_connection).then(|| status(502)).then(|| status(200));
        let (stack, _) = protect(retrying(patient(), 3, 1.0), &mock);
        let answer = ask(&stack, sends(Method::PUT, body)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let seen = mock.seen();
        assert_eq!(seen.len(), 3);
        for request in seen {
            assert_eq!((request.method(), request.uri().path()), (&Method::PUT, "/list"));
            assert_eq!(request.headers()["x-mine"], "1");
            assert!(*request.body() == bytes);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_or_of_no_known_length_is_streamed_and_sent_once() {
    let too_long = || Body::wrap(Sized { rest: [Bytes::from("a")].into(), left: LONGEST_BODY + 1 });
    assert_eq!(attempts(no_connection, || sends(Method::PUT, too_long())).await, 1);
    let unknown = || {
        let frame = Ok(http_body::Frame::data(Bytes::from("a")));
        Body::wrap(StreamBody::new(futures_util::stream::iter([frame])))
    };
    assert_eq!(attempts(no_connection, || sends(Method::PUT, unknown())).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_asked_once() {
    let mock = Mock::that(no_connection);
    let (stack, circuit) = protect(retrying(circuit(), 100, 1_000.0), &mock);
    circuit.trip();
    let began = now();
    assert_eq!(ask(&stack, get()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((mock.calls(), began.elapsed()), (0, Duration::ZERO));
    assert_eq!(circuit.snapshot().totals.rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn retries_end_when_the_circuit_opens() {
    let mock = Mock::that(no_connection);
    let (stack, circuit) = protect(retrying(circuit(), 100, 1_000.0), &mock);
    let answer = ask(&stack, get()).await;
    // The tenth failure opened it, and nobody is tried again by an open circuit.
    assert_eq!((mock.calls(), circuit.state()), (10, State::Open));
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "what there was");
}

/// Of calls in one and the same instant, so that no budget grows meanwhile.
#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_load_grows_by_no_more_than_the_budget() {
    const CALLS: usize = 1_000;
    for (budget, well_before) in [(0.1, 1_000), (0.2, 0), (0.2, 1_000), (0.5, 400)] {
        let mock = Mock::ok();
        let (stack, _) = protect(retrying(patient(), 3, budget), &mock);
        for _ in 0..well_before {
            ask(&stack, get()).await;
        }
        mock.seen();
        mock.now(no_connection);
        let calls: Vec<_> = (0..CALLS)
            .map(|_| {
                tokio::spawn({
                    let stack = stack.clone();
                    async move { stack.oneshot(get()).await.unwrap().status() }
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), StatusCode::BAD_GATEWAY);
        }
        let retries = mock.calls() - CALLS;
        // One a second for ten seconds, beside what the good calls have earned.
        let most = 10 + (well_before as f64 * budget) as usize;
        assert!(retries <= most, "{retries} retries, {most} at most");
        assert!(retries >= most - most / 50, "{retries} retries of {most} that were paid for");
    }
}

#[tokio::test(start_paused = true)]
async fn the_load_stays_within_the_budget_for_as_long_as_half_of_the_calls_fail() {
    let mock = Mock::ok();
    let (stack, _) = protect(retrying(patient(), 3, 0.2), &mock);
    let calls = 4_000;
    for call in 0..calls {
        mock.now(if call % 2 == 0 { || status(200) } else { no_connection });
        ask(&stack, get()).await;
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let load = mock.calls() as f64 / f64::from(calls);
    assert!(load > 1.05, "{load} is hardly any retries");
    // 0.2 of the good half, and one a second of a hundred.
    assert!(load <= 1.2, "{load}");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_when_the_total_time_would_be_over() {
    let mut own = retrying(patient(), 1_000, 1_000.0);
    own.timeouts.total = Some(Duration::from_secs(2));
    let mock = Mock::that(no_connection);
    let (stack, _) = protect(own, &mock);
    let began = now();
    assert_eq!(ask(&stack, get()).await.status(), StatusCode::BAD_GATEWAY);
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(mock.calls() > 4, "{}", mock.calls());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_cut_short_by_the_total_time_is_no_failure() {
    let mut own = retrying(patient(), 2, 1.0);
    own.timeouts.total = Some(HEAD);
    let mock = Mock::that(no_connection).then(|| Does::Hangs);
    let (stack, circuit) = protect(own, &mock);
    let began = now();
    let answer = ask(&stack, get()).await;
    assert_eq!((answer.status(), began.elapsed()), (StatusCode::GATEWAY_TIMEOUT, HEAD));
    assert_eq!(signed(&answer)[3], Some("out-of-time"));
    let totals = circuit.snapshot().totals;
    assert_eq!((mock.calls(), totals.failure, totals.ignored), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_total_time_runs_while_a_body_is_read_to_be_sent_again() {
    let mut own = retrying(patient(), 2, 1.0);
    own.timeouts.total = Some(HEAD);
    let mock = Mock::ok();
    let (stack, _) = protect(own, &mock);
    let stalls = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>());
    let began = now();
    let asking = ask(&stack, sends(Method::PUT, Body::wrap(Limited(stalls))));
    let answer = tokio::time::timeout(10 * HEAD, asking).await.expect("an answer");
    assert_eq!((answer.status(), began.elapsed()), (StatusCode::GATEWAY_TIMEOUT, HEAD));
    assert_eq!(signed(&answer)[3], Some("out-of-time"));
    assert_eq!(mock.calls(), 0, "nobody waits for it any more");
}

/// What is read before it is sent takes of the time that the attempts have.
#[tokio::test(start_paused = true)]
async fn a_body_with_trailers_has_no_more_time_than_others() {
    let mut own = retrying(patient(), 2, 1.0);
    own.timeouts.total = Some(HEAD);
    let (stack, _) = protect(own, &Mock::that(|| Does::Hangs));
    let late = stream::once(async {
        tokio::time::sleep(HEAD / 2).await;
        Ok::<Frame<Bytes>, BoxError>(Frame::trailers(HeaderMap::new()))
    });
    let began = now();
    let body = Body::wrap(Limited(StreamBody::new(Box::pin(late))));
    let answer = ask(&stack, sends(Method::PUT, body)).await;
    assert_eq!((answer.status(), began.elapsed()), (StatusCode::GATEWAY_TIMEOUT, HEAD));
}

#[tokio::test(start_paused = true)]
async fn what_the_fallback_says_is_not_tried_again() {
    let mut own = retrying(circuit(), 3, 1.0);
    own.when_open = WhenOpen::Fallback(upstream());
    let own = service(own);
    let spare = Mock::that(|| status(503));
    let stack = stack_with_fallback(&own, Mock::ok(), spare.clone());
    // Beneath a forced opening the circuit is closed, and its budget would pay.
    own.circuit.set_override(Override::force_open().until_cleared());
    let answer = ask(&stack, get()).await;
    assert_eq!(signed(&answer)[2..], [Some("fallback"), Some("force-open")]);
    assert_eq!(spare.calls(), 1);
}

/// A body that says it is short.
struct Limited<B>(B);

impl<B: http_body::Body + Unpin> http_body::Body for Limited<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<B::Data>, B::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(context)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(10)
    }
}

/// A body of a known length that comes in pieces.
struct Sized {
    rest: std::collections::VecDeque<Bytes>,
    left: u64,
}

impl http_body::Body for Sized {
    type Data = Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, tower::BoxError>>> {
        let next = self.rest.pop_front();
        self.left -= next.as_ref().map_or(0, |bytes| bytes.len() as u64);
        std::task::Poll::Ready(next.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}
