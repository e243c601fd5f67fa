//! hyper-util's client behind a breaker, against a real upstream.

mod support_client;

use std::{io, sync::Mutex, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, HttpClassifier, ManualClock,
    Outcome,
    State::{Closed, HalfOpen, Open},
};
use tower_breaker_stacks::upstream::{self, Upstream, text};

use self::support_client::{Stage, breaker};

const SECOND: Duration = Duration::from_secs(1);

type Client = legacy::Client<HttpConnector, Empty<Bytes>>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Http1,
    Http2,
}

use Version::{Http1, Http2};

fn client(version: Version) -> Client {
    legacy::Client::builder(TokioExecutor::new()).http2_only(version == Http2).build_http()
}

fn request(method: Method, url: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri(url).body(Empty::new()).unwrap()
}

fn get(upstream: &Upstream) -> Request<Empty<Bytes>> {
    request(Method::GET, &upstream.url("/"))
}

/// A watchdog: nothing here takes long.
async fn watched<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(60 * SECOND, test).await.expect("the test hangs")
}

/// In a word: status, header `x-why`, body.
async fn tell<B>(response: Response<B>) -> Result<String, BoxError>
where
    B: Body<Error: Into<BoxError>>,
{
    let (head, body) = response.into_parts();
    let why = head.headers.get("x-why").map_or("-", |why| why.to_str().unwrap());
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(format!("{} {why} {}", head.status.as_u16(), String::from_utf8_lossy(&body)))
}

const HEALTHY: &str = "200 - hello";
const SICK: &str = "503 migration sick";

async fn outage(version: Version) {
    let upstream = Upstream::start().unwrap();
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut service = layer.layer(client(version));
    let stage = Stage {
        layer,
        clock,
        call: async || tell(service.ready().await?.call(get(&upstream)).await?).await,
        set_sick: |sick| if sick { upstream.sicken() } else { upstream.heal() },
        hits: || upstream.hits(),
        healthy: HEALTHY,
        sick: SICK,
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn an_outage_over_http1() {
    outage(Http1).await;
}

#[tokio::test]
async fn an_outage_over_http2() {
    outage(Http2).await;
}

#[tokio::test]
async fn an_outage_whose_calls_end_with_their_bodies() {
    let upstream = Upstream::start().unwrap();
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut service = layer.clone().until_end_of_body().layer(client(Http1));
    let stage = Stage {
        layer,
        clock,
        call: async || tell(service.ready().await?.call(get(&upstream)).await?).await,
        set_sick: |sick| if sick { upstream.sicken() } else { upstream.heal() },
        hits: || upstream.hits(),
        healthy: HEALTHY,
        sick: SICK,
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn a_refused_connection_is_a_failure_and_stays_hypers_error() {
    let closed = upstream::Closed::new().unwrap();
    let url = format!("http://{}/", closed.address().unwrap());
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let service = layer.layer(client(Http1));
    let call = || service.clone().oneshot(request(Method::GET, &url));
    watched(async {
        for _ in 0..3 {
            assert_eq!(layer.circuit().state(), Closed);
            let error = call().await.unwrap_err();
            assert!(error.downcast_ref::<legacy::Error>().unwrap().is_connect());
        }
        assert_eq!(layer.circuit().state(), Open);
        assert!(call().await.unwrap_err().is::<CircuitOpen>());

        let upstream = closed.listen().unwrap();
        assert!(call().await.unwrap_err().is::<CircuitOpen>());
        assert_eq!(upstream.hits(), 0);
        clock.advance(10 * SECOND);
        for _ in 0..2 {
            assert_eq!(call().await.unwrap().status(), StatusCode::OK);
        }
        assert_eq!(layer.circuit().state(), Closed);
        assert_eq!(upstream.hits(), 2);
    })
    .await;
}

#[tokio::test]
async fn one_default_judges_statuses_and_grpc_alike() {
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    type Case = (u16, &'static [(&'static str, &'static str)], Ends);
    const CASES: [Case; 9] = [
        (200, &[], SUCCESS),
        (404, &[], SUCCESS),
        (429, &[], IGNORED),
        (500, &[], FAILURE),
        (503, &[], FAILURE),
        (200, &[GRPC, ("grpc-status", "0")], SUCCESS),
        (200, &[GRPC, ("grpc-status", "14")], FAILURE),
        (200, &[GRPC, ("grpc-status", "8")], IGNORED),
        (200, &[GRPC, ("grpc-status", "5")], SUCCESS),
    ];
    let upstream = Upstream::start().unwrap();
    watched(async {
        for (status, headers, ends) in CASES {
            upstream.answer(move |_| answer(status, headers, text("")));
            let layer = breaker(&ManualClock::new());
            layer.layer(client(Http1)).oneshot(get(&upstream)).await.unwrap();
            assert_eq!(ends_of(layer.circuit()), ends, "{status} {headers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_closure_needs_no_annotation() {
    let upstream = Upstream::start().unwrap();
    upstream.answer(|_| answer(404, &[], text("")));
    let layer = breaker(&ManualClock::new()).classify_http(|view| match view.status() {
        Some(StatusCode::NOT_FOUND) => Outcome::Failure,
        _ => HttpClassifier::new().outcome(view),
    });
    let service = layer.layer(client(Http1));
    watched(async {
        for _ in 0..3 {
            assert_eq!(layer.circuit().state(), Closed);
            service.clone().oneshot(get(&upstream)).await.unwrap();
        }
    })
    .await;
    assert_eq!(layer.circuit().state(), Open);
}

/// Success, failure, ignored, cancelled.
type Ends = (u64, u64, u64, u64);

const NONE_YET: Ends = (0, 0, 0, 0);
const SUCCESS: Ends = (1, 0, 0, 0);
const FAILURE: Ends = (0, 1, 0, 0);
const IGNORED: Ends = (0, 0, 1, 0);
const NEUTRAL: Ends = (0, 0, 0, 1);

fn ends_of(circuit: &Circuit) -> Ends {
    let totals = circuit.snapshot().totals;
    (totals.success, totals.failure, totals.ignored, totals.cancelled)
}

fn answer(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: upstream::Body,
) -> Response<upstream::Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response
}

/// Writes one body of the upstream, from the test.
type Writer = mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>;

/// From now on each answer's body is written by the test. Dropping the writer
/// ends the body.
fn write_bodies(
    upstream: &Upstream,
    headers: &'static [(&'static str, &'static str)],
) -> mpsc::UnboundedReceiver<Writer> {
    let (writers, bodies) = mpsc::unbounded_channel();
    let writers = Mutex::new(writers);
    upstream.answer(move |_| {
        let (writer, frames) = mpsc::unbounded_channel();
        writers.lock().unwrap().send(writer).unwrap();
        let body = StreamBody::new(UnboundedReceiverStream::new(frames));
        answer(200, headers, BodyExt::boxed_unsync(body))
    });
    bodies
}

fn data(text: &'static str) -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn broken() -> io::Error {
    io::Error::other("it broke")
}

async fn next_data<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Bytes> {
    body.frame().await?.ok()?.into_data().ok()
}

/// A breaker that follows bodies, and one that doesn't; their circuits are
/// two. A slow rule is on, so that durations are known.
fn breakers(clock: &ManualClock) -> [CircuitBreakerLayer<HttpClassifier>; 2] {
    ["to-the-end", "to-the-head"].map(|name| {
        let config = Config::builder(name)
            .no_failure_rate()
            .consecutive_failures(3)
            .slow_calls(SECOND, 1.0)
            .minimum_calls(10)
            .open_for(Backoff::fixed(10 * SECOND))
            .clock(clock);
        CircuitBreakerLayer::new(config.build().unwrap())
    })
}

async fn breaks_off(version: Version, headers: &'static [(&'static str, &'static str)]) {
    let upstream = Upstream::start().unwrap();
    let mut bodies = write_bodies(&upstream, headers);
    let [to_end, to_head] = breakers(&ManualClock::new());
    let mut service = to_end.clone().until_end_of_body().layer(client(version));

    for round in 1..=3 {
        assert_eq!(to_end.circuit().state(), Closed);
        let mut response = service.ready().await.unwrap().call(get(&upstream)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let writer = bodies.recv().await.unwrap();
        writer.send(data("hel")).unwrap();
        assert_eq!(next_data(response.body_mut()).await.unwrap(), "hel");
        assert_eq!(ends_of(to_end.circuit()), (0, round - 1, 0, 0), "no verdict before the end");

        writer.send(Err(broken())).unwrap();
        let _hypers_own: hyper::Error = response.body_mut().frame().await.unwrap().unwrap_err();
        assert_eq!(ends_of(to_end.circuit()), (0, round, 0, 0));
        // Neither asking on nor dropping counts again.
        let _after_the_end = response.body_mut().frame().await;
        drop(response);
        assert_eq!(ends_of(to_end.circuit()), (0, round, 0, 0));
    }
    assert_eq!(to_end.circuit().state(), Open);
    assert!(service.ready().await.unwrap_err().is::<CircuitOpen>());
    assert_eq!(upstream.hits(), 3);

    // Which is what `until_end_of_body` is for: the head was fine.
    let response = to_head.layer(client(version)).oneshot(get(&upstream)).await.unwrap();
    assert_eq!(ends_of(to_head.circuit()), SUCCESS);
    bodies.recv().await.unwrap().send(Err(broken())).unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(ends_of(to_head.circuit()), SUCCESS);
}

#[tokio::test]
async fn a_chunked_body_that_breaks_off_is_one_failure() {
    watched(breaks_off(Http1, &[])).await;
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_one_failure() {
    watched(breaks_off(Http1, &[("content-length", "5")])).await;
}

#[tokio::test]
async fn a_reset_stream_is_one_failure() {
    watched(breaks_off(Http2, &[])).await;
}

#[tokio::test]
async fn a_reset_connection_is_one_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (reset, told) = oneshot::channel();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel").await.unwrap();
        told.await.unwrap();
        stream.set_zero_linger().unwrap();
    });

    let [layer, _] = breakers(&ManualClock::new());
    let service = layer.clone().until_end_of_body().layer(client(Http1));
    watched(async {
        let mut response = service.oneshot(request(Method::GET, &url)).await.unwrap();
        assert_eq!(next_data(response.body_mut()).await.unwrap(), "hel");
        assert_eq!(ends_of(layer.circuit()), NONE_YET);
        reset.send(()).unwrap();
        assert!(response.body_mut().frame().await.unwrap().is_err());
        assert_eq!(ends_of(layer.circuit()), FAILURE);
        drop(response);
        assert_eq!(ends_of(layer.circuit()), FAILURE);
        server.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_failing_body_fails_a_probe() {
    let upstream = Upstream::start().unwrap();
    let mut bodies = write_bodies(&upstream, &[]);
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut service = layer.clone().until_end_of_body().layer(client(Http1));
    watched(async {
        layer.circuit().trip();
        clock.advance(10 * SECOND);
        let response = service.ready().await.unwrap().call(get(&upstream)).await.unwrap();
        assert_eq!(layer.circuit().state(), HalfOpen);
        bodies.recv().await.unwrap().send(Err(broken())).unwrap();
        assert!(response.into_body().collect().await.is_err());
        assert_eq!(layer.circuit().state(), Open);
    })
    .await;
}

#[tokio::test]
async fn a_body_dropped_early_is_neutral_at_any_age() {
    for version in [Http1, Http2] {
        let upstream = Upstream::start().unwrap();
        let mut bodies = write_bodies(&upstream, &[]);
        let clock = ManualClock::new();
        let [layer, _] = breakers(&clock);
        let service = layer.clone().until_end_of_body().layer(client(version));
        watched(async {
            let mut response = service.oneshot(get(&upstream)).await.unwrap();
            let writer = bodies.recv().await.unwrap();
            writer.send(data("tick")).unwrap();
            assert_eq!(next_data(response.body_mut()).await.unwrap(), "tick");
            clock.advance(3600 * SECOND);
            assert_eq!(ends_of(layer.circuit()), NONE_YET);
            drop(response);
            assert_eq!(ends_of(layer.circuit()), NEUTRAL, "{version:?}");
            let snapshot = layer.circuit().snapshot();
            assert_eq!((snapshot.totals.slow, snapshot.window.calls), (0, 0));
        })
        .await;
    }
}

#[tokio::test]
async fn a_chunked_body_is_a_success_at_its_end_and_not_before() {
    for version in [Http1, Http2] {
        let upstream = Upstream::start().unwrap();
        let mut bodies = write_bodies(&upstream, &[]);
        let [layer, _] = breakers(&ManualClock::new());
        let service = layer.clone().until_end_of_body().layer(client(version));
        watched(async {
            let mut response = service.oneshot(get(&upstream)).await.unwrap();
            let writer = bodies.recv().await.unwrap();
            for word in ["hel", "lo"] {
                writer.send(data(word)).unwrap();
                assert_eq!(next_data(response.body_mut()).await.unwrap(), word);
                assert_eq!(ends_of(layer.circuit()), NONE_YET);
            }
            drop(writer);
            // Over HTTP/2 the end may come as one more frame, of no bytes.
            let rest = response.body_mut().collect().await.unwrap().to_bytes();
            assert_eq!((rest.len(), ends_of(layer.circuit())), (0, SUCCESS));
            drop(response);
            assert_eq!(ends_of(layer.circuit()), SUCCESS);
        })
        .await;
    }
}

#[tokio::test]
async fn trailers_come_through_and_end_the_call() {
    let upstream = Upstream::start().unwrap();
    let mut bodies = write_bodies(&upstream, &[]);
    let [layer, _] = breakers(&ManualClock::new());
    let service = layer.clone().until_end_of_body().layer(client(Http2));
    watched(async {
        let mut response = service.oneshot(get(&upstream)).await.unwrap();
        let writer = bodies.recv().await.unwrap();
        writer.send(data("hello")).unwrap();
        assert_eq!(next_data(response.body_mut()).await.unwrap(), "hello");
        assert_eq!(ends_of(layer.circuit()), NONE_YET);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("5d41"));
        writer.send(Ok(Frame::trailers(trailers.clone()))).unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_trailers().unwrap(), trailers);
        assert_eq!(ends_of(layer.circuit()), SUCCESS);
    })
    .await;
}

#[tokio::test]
async fn a_response_without_a_body_has_ended_at_its_head() {
    let upstream = Upstream::start().unwrap();
    let cases = [
        (Method::HEAD, 200, &[("content-length", "5")][..]),
        (Method::HEAD, 200, &[]),
        (Method::GET, 204, &[]),
        (Method::GET, 304, &[("etag", "5d41")]),
        (Method::GET, 200, &[("content-length", "0")]),
    ];
    watched(async {
        for (method, status, headers) in cases {
            let is_empty = headers.contains(&("content-length", "0")) || status != 200;
            let body = if is_empty { "" } else { "hello" };
            upstream.answer(move |_| answer(status, headers, text(body)));
            let [layer, _] = breakers(&ManualClock::new());
            let service = layer.clone().until_end_of_body().layer(client(Http1));
            let response = service.oneshot(request(method.clone(), &upstream.url("/"))).await;
            let response = response.unwrap();
            assert_eq!(ends_of(layer.circuit()), SUCCESS, "{method} {status} {headers:?}");
            assert!(response.body().is_end_stream());
            for (name, value) in headers {
                assert_eq!(response.headers()[*name], value, "{method} {status}");
            }
            // hyper drops such bodies unpolled; that counts nothing either.
            drop(response);
            assert_eq!(ends_of(layer.circuit()), SUCCESS, "{method} {status} {headers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_knows_the_length_need_not_ask_for_the_end() {
    // Over HTTP/2 the end of the stream is a thing of its own, and is not sent.
    for version in [Http1, Http2] {
        let upstream = Upstream::start().unwrap();
        let mut bodies = write_bodies(&upstream, &[("content-length", "5")]);
        let [layer, _] = breakers(&ManualClock::new());
        let service = layer.clone().until_end_of_body().layer(client(version));
        watched(async {
            let mut response = service.oneshot(get(&upstream)).await.unwrap();
            assert_eq!(response.headers()["content-length"], "5");
            let mut left = response.body().size_hint().exact().expect("the length is known");
            assert_eq!(left, 5);
            let writer = bodies.recv().await.unwrap();
            for word in ["hel", "lo"] {
                assert_eq!(ends_of(layer.circuit()), NONE_YET);
                writer.send(data(word)).unwrap();
                left -= next_data(response.body_mut()).await.unwrap().len() as u64;
                assert_eq!(response.body().size_hint().exact(), Some(left));
            }
            drop(response);
            assert_eq!(ends_of(layer.circuit()), SUCCESS, "{version:?}");
        })
        .await;
    }
}

/// What a caller can see of a response.
#[derive(Debug, PartialEq)]
struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    sizes: Vec<(u64, Option<u64>)>,
    ends: Vec<bool>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

async fn see<B>(response: Response<B>) -> Seen
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let size = |hint: SizeHint| (hint.lower(), hint.upper());
    let (mut head, mut body) = response.into_parts();
    head.headers.remove("date");
    let mut seen = Seen {
        status: head.status,
        headers: head.headers,
        sizes: vec![size(body.size_hint())],
        ends: vec![body.is_end_stream()],
        body: Vec::new(),
        trailers: None,
    };
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => seen.body.extend(data),
            Err(frame) => seen.trailers = frame.into_trailers().ok(),
        }
    }
    seen.sizes.push(size(body.size_hint()));
    seen.ends.push(body.is_end_stream());
    seen
}

#[tokio::test]
async fn the_caller_sees_what_it_would_see_without_the_breaker() {
    const LONG: (&str, &str) = ("content-length", "5");
    let upstream = Upstream::start().unwrap();
    let chunked = |trailers: bool| {
        let mut frames = vec![data("hel"), data("lo")];
        if trailers {
            let mut map = HeaderMap::new();
            map.insert("x-sum", HeaderValue::from_static("5d41"));
            frames.push(Ok(Frame::trailers(map)));
        }
        BodyExt::boxed_unsync(StreamBody::new(tokio_stream::iter(frames)))
    };
    watched(async {
        for version in [Http1, Http2] {
            for method in [Method::GET, Method::HEAD] {
                for shape in 0..6 {
                    upstream.answer(move |request| {
                        let mut response = match shape {
                            0 => answer(200, &[LONG], text("hello")),
                            1 => answer(200, &[], chunked(false)),
                            2 => answer(200, &[], chunked(true)),
                            3 => answer(204, &[], text("")),
                            4 => answer(503, &[("retry-after", "7")], text("hello")),
                            _ => answer(404, &[], text("")),
                        };
                        // Over HTTP/2 hyper would send it after a HEAD, too.
                        if request.method() == Method::HEAD {
                            *response.body_mut() = text("");
                        }
                        response
                    });
                    let request = || request(method.clone(), &upstream.url("/"));
                    let bare = client(version).oneshot(request()).await.unwrap();
                    let [layer, _] = breakers(&ManualClock::new());
                    let service = layer.until_end_of_body().layer(client(version));
                    let behind = service.oneshot(request()).await.unwrap();
                    let what = format!("{version:?} {method} {shape}");
                    assert_eq!(see(bare).await, see(behind).await, "{what}");
                }
            }
        }
    })
    .await;
}
