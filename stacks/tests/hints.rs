//! What a server says about when to come back is the least a circuit that
//! opens stays open, up to the longest wait it is configured with.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, Config, HttpClassifier, ManualClock, Outcome, Probes,
    State::{Closed, HalfOpen, Open},
};
use tower_breaker_stacks::upstream::{self, Upstream, text};

const SECOND: Duration = Duration::from_secs(1);
/// The first wait, and the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

const DATE: Header = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

type Header = (&'static str, &'static str);

/// A service that answers as the test says, and its circuit, which opens at
/// the second failure in a row.
struct Bench {
    layer: CircuitBreakerLayer<HttpClassifier>,
    clock: ManualClock,
}

impl Bench {
    fn new() -> Self {
        Self::with(Backoff::exponential(FIRST, LONGEST).jitter(0.0))
    }

    fn with(open_for: Backoff) -> Self {
        let clock = ManualClock::new();
        let config = Config::builder("upstream")
            .no_failure_rate()
            .consecutive_failures(2)
            .open_for(open_for)
            .probes(Probes::new(1).lease(1000 * SECOND))
            .clock(&clock);
        Self { layer: CircuitBreakerLayer::new(config.build().unwrap()), clock }
    }

    fn circuit(&self) -> &Circuit {
        self.layer.circuit()
    }

    /// A call that is answered like this.
    async fn call(&self, status: u16, headers: &[Header]) {
        let service = self.layer.layer(service_fn(|()| {
            let answer = answer(status, headers, ());
            async { Ok::<_, BoxError>(answer) }
        }));
        service.oneshot(()).await.expect("the circuit is open");
    }

    /// How long it is open from now on, told by what it lets through and not
    /// by what it says; what it says has to be the same.
    fn open_for(&self) -> Duration {
        assert_eq!(self.circuit().state(), Open);
        let says = self.circuit().snapshot().retry_after.unwrap();
        self.clock.advance(says - Duration::from_nanos(1));
        assert!(self.circuit().try_acquire().is_err(), "it says {says:?}");
        self.clock.advance(Duration::from_nanos(1));
        self.circuit().try_acquire().expect("its time is over").record(Outcome::Ignored);
        says
    }
}

fn answer<B>(status: u16, headers: &[Header], body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response
}

#[tokio::test]
async fn retry_after_is_a_floor_and_the_longest_wait_a_ceiling() {
    let cases: [(&[Header], Duration); 12] = [
        (&[], FIRST),
        (&[("retry-after", "0")], FIRST),
        (&[("retry-after", "1")], FIRST),
        (&[("retry-after", "3")], 3 * SECOND),
        (&[("retry-after", "60")], LONGEST),
        (&[("retry-after", "61")], LONGEST),
        (&[("retry-after", "99999999999999999999999999")], LONGEST),
        (&[DATE, ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], 30 * SECOND),
        (&[DATE, ("retry-after", "Sun, 06 Nov 1994 09:49:37 GMT")], LONGEST),
        (&[DATE, ("retry-after", "Sun, 06 Nov 1994 08:49:38 GMT")], FIRST),
        // Against this machine's calendar, where the server tells no date.
        (&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], LONGEST),
        (&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], FIRST),
    ];
    for (headers, expected) in cases {
        let bench = Bench::new();
        bench.call(503, &[]).await;
        bench.call(503, headers).await;
        assert_eq!(bench.open_for(), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn nonsense_is_ignored() {
    for value in ["", " ", "-5", "+5", "5.5", "5s", "0x10", "soon", "5, 6", "inf", "1e3", "٣"] {
        for name in ["retry-after", "grpc-retry-pushback-ms"] {
            let bench = Bench::new();
            let service = bench.layer.layer(service_fn(|()| {
                let mut response = answer(503, &[], ());
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                response.headers_mut().insert(name, value);
                async { Ok::<_, BoxError>(response) }
            }));
            for _ in 0..2 {
                service.clone().oneshot(()).await.unwrap();
            }
            assert_eq!(bench.open_for(), FIRST, "{name}: {value:?}");
        }
    }
}

#[tokio::test]
async fn retry_after_means_something_else_with_another_status() {
    for status in [200, 202, 301, 404, 500, 502, 504] {
        let bench = Bench::new();
        bench.call(500, &[]).await;
        bench.call(status, &[("retry-after", "30")]).await;
        if bench.circuit().state() == Closed {
            bench.call(500, &[]).await;
            bench.call(500, &[]).await;
        }
        assert_eq!(bench.open_for(), FIRST, "{status}");
    }
}

#[tokio::test]
async fn what_is_left_of_a_429s_hint_counts_when_the_circuit_opens_later() {
    for (later, left) in [(0_u32, 30_u32), (10, 20), (27, 3), (29, 2), (30, 2), (1000, 2)] {
        let bench = Bench::new();
        bench.call(429, &[("retry-after", "30")]).await;
        assert_eq!(bench.circuit().snapshot().totals.ignored, 1);
        bench.call(500, &[]).await;
        bench.clock.advance(later * SECOND);
        assert_eq!(bench.circuit().state(), Closed);
        bench.call(500, &[]).await;
        assert_eq!(bench.open_for(), left * SECOND, "{later} s later");
    }
}

#[tokio::test]
async fn the_ceiling_is_for_what_is_left() {
    let bench = Bench::new();
    bench.call(429, &[("retry-after", "3600")]).await;
    bench.clock.advance(1000 * SECOND);
    bench.call(500, &[]).await;
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), LONGEST);
}

#[tokio::test]
async fn the_hint_that_reaches_furthest_counts() {
    for order in [["40", "5"], ["5", "40"]] {
        let bench = Bench::new();
        for seconds in order {
            bench.call(503, &[("retry-after", seconds)]).await;
        }
        assert_eq!(bench.open_for(), 40 * SECOND, "{order:?}");
    }
}

#[tokio::test]
async fn a_success_asks_for_nothing() {
    let bench = Bench::new();
    bench.call(200, &[("grpc-retry-pushback-ms", "30000")]).await;
    bench.call(500, &[]).await;
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), FIRST);
}

#[tokio::test]
async fn a_reset_forgets_it() {
    let bench = Bench::new();
    bench.call(429, &[("retry-after", "30")]).await;
    bench.circuit().reset();
    bench.call(500, &[]).await;
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), FIRST);

    let bench = Bench::new();
    bench.call(503, &[("retry-after", "30")]).await;
    bench.call(503, &[("retry-after", "30")]).await;
    bench.circuit().reset();
    bench.call(500, &[]).await;
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), FIRST);
}

#[tokio::test]
async fn closing_forgets_it() {
    let bench = Bench::new();
    bench.circuit().trip();
    bench.clock.advance(FIRST);
    // A 429 gives the probe back, so the next may still close the circuit.
    bench.call(429, &[("retry-after", "30")]).await;
    assert_eq!(bench.circuit().state(), HalfOpen);
    bench.call(200, &[]).await;
    assert_eq!(bench.circuit().state(), Closed);
    bench.call(500, &[]).await;
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), FIRST);
}

#[tokio::test]
async fn an_opening_takes_a_hint_once() {
    let bench = Bench::new();
    bench.call(503, &[("retry-after", "30")]).await;
    bench.call(503, &[]).await;
    assert_eq!(bench.open_for(), 30 * SECOND);
    // The step that follows is the second, and has no hint.
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), 2 * FIRST);
}

#[tokio::test]
async fn a_probe_may_ask_for_more_and_so_may_one_that_is_ignored() {
    let bench = Bench::new();
    bench.circuit().trip();
    assert_eq!(bench.open_for(), FIRST);
    bench.call(503, &[("retry-after", "45")]).await;
    assert_eq!(bench.open_for(), 45 * SECOND);
    bench.call(429, &[("retry-after", "50")]).await;
    assert_eq!(bench.circuit().state(), HalfOpen);
    bench.clock.advance(10 * SECOND);
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), 40 * SECOND);
}

#[tokio::test]
async fn a_late_answer_from_an_earlier_state_asks_for_nothing() {
    let bench = Bench::new();
    let (answers, told) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    let service = bench.layer.layer(service_fn(move |()| {
        let told = told.take().unwrap();
        async { Ok::<_, BoxError>(told.await.unwrap()) }
    }));
    let mut late = pin!(service.oneshot(()));
    assert!(late.as_mut().now_or_never().is_none());
    bench.circuit().reset();
    answers.send(answer(503, &[("retry-after", "30")], ())).unwrap();
    late.await.unwrap();
    assert_eq!(bench.circuit().snapshot().totals.stale, 1);
    bench.call(500, &[]).await;
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), FIRST);
}

#[tokio::test]
async fn jitter_goes_below_no_hint_and_spreads_it_upwards() {
    // Never shorter than the hint, up to the ceiling; and longer by no more
    // than the jitter, as every wait at the ceiling is. Without the spread all
    // whom a server told the same would come back together.
    for (value, seconds) in [("0", 0_u32), ("2", 2), ("3", 3), ("59", 59), ("3600", 3600)] {
        let hint = (seconds * SECOND).min(LONGEST);
        let mut waits = Vec::new();
        for seed in 0..50 {
            let backoff = Backoff::exponential(FIRST, LONGEST).jitter(0.2).seed(seed);
            let bench = Bench::with(backoff);
            bench.call(503, &[]).await;
            bench.call(503, &[("retry-after", value)]).await;
            let open_for = bench.open_for();
            assert!(open_for >= hint, "{hint:?} but {open_for:?}");
            assert!(open_for >= FIRST.mul_f64(0.8));
            assert!(open_for <= hint.max(FIRST).mul_f64(1.2), "{hint:?} but {open_for:?}");
            waits.push(open_for);
        }
        assert!(waits.windows(2).any(|pair| pair[0] != pair[1]), "{value}: all the same");
    }
}

#[tokio::test]
async fn a_closures_verdict_leaves_the_hint_as_it_is() {
    let bench = Bench::new();
    let layer = bench.layer.clone().classify_http(|_| Outcome::Failure);
    for _ in 0..2 {
        let service = layer.layer(service_fn(async |()| {
            Ok::<_, BoxError>(answer(503, &[("retry-after", "30")], ()))
        }));
        service.oneshot(()).await.unwrap();
    }
    assert_eq!(bench.open_for(), 30 * SECOND);
}

const GRPC: Header = ("content-type", "application/grpc");

#[tokio::test]
async fn a_grpc_server_pushes_back_at_the_head() {
    let cases =
        [("0", FIRST), ("2500", Duration::from_millis(2500)), ("60001", LONGEST), ("-1", FIRST)];
    for (pushback, expected) in cases {
        let headers = [GRPC, ("grpc-status", "14"), ("grpc-retry-pushback-ms", pushback)];
        let bench = Bench::new();
        bench.call(200, &headers).await;
        bench.call(200, &headers).await;
        assert_eq!(bench.open_for(), expected, "{pushback}");
    }
    // RESOURCE_EXHAUSTED is ignored like a 429, and its hint is not.
    let bench = Bench::new();
    let busy = [GRPC, ("grpc-status", "8"), ("grpc-retry-pushback-ms", "30000")];
    bench.call(200, &busy).await;
    bench.call(500, &[]).await;
    bench.clock.advance(10 * SECOND);
    bench.call(500, &[]).await;
    assert_eq!(bench.open_for(), 20 * SECOND);
}

type Wire = Client<HttpConnector, Empty<Bytes>>;

fn client() -> Wire {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// A body of one message, and these trailers.
fn grpc_body(trailers: &[Header]) -> upstream::Body {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        map.insert(*name, HeaderValue::from_static(value));
    }
    let frames = [Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(map))];
    BodyExt::boxed_unsync(StreamBody::new(tokio_stream::iter(frames)))
}

#[tokio::test]
async fn a_grpc_server_pushes_back_in_the_trailers() {
    let upstream = Upstream::start().unwrap();
    let request = || Request::post(upstream.url("/")).body(Empty::new()).unwrap();
    let ask = async |bench: &Bench, trailers: &'static [Header]| {
        upstream.answer(move |_| answer(200, &[GRPC], grpc_body(trailers)));
        let service = bench.layer.clone().until_end_of_body().layer(client());
        let response = service.oneshot(request()).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap().len(), trailers.len());
    };
    const DOWN: &[Header] = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "30000")];
    const BUSY: &[Header] = &[("grpc-status", "8"), ("grpc-retry-pushback-ms", "40000")];
    const NEVER: &[Header] = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")];
    const LONG: &[Header] = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "9999999")];
    const FINE: &[Header] = &[("grpc-status", "0"), ("grpc-retry-pushback-ms", "30000")];
    let cases: [(&[&'static [Header]], Duration); 5] = [
        (&[DOWN, DOWN], 30 * SECOND),
        (&[BUSY, DOWN, DOWN], 40 * SECOND),
        (&[NEVER, NEVER], FIRST),
        (&[LONG, LONG], LONGEST),
        (&[FINE, NEVER, NEVER], FIRST),
    ];
    let test = async {
        for (calls, expected) in cases {
            let bench = Bench::new();
            for trailers in calls {
                ask(&bench, trailers).await;
            }
            assert_eq!(bench.open_for(), expected, "{calls:?}");
        }
    };
    tokio::time::timeout(60 * SECOND, test).await.expect("the test hangs");
}

#[tokio::test]
async fn a_real_server_asks_by_a_date() {
    let upstream = Upstream::start().unwrap();
    upstream.answer(|_| {
        let date = ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT");
        answer(503, &[DATE, date], text("sick"))
    });
    let bench = Bench::new();
    let test = async {
        for _ in 0..2 {
            let request = Request::get(upstream.url("/")).body(Empty::new()).unwrap();
            bench.layer.layer(client()).oneshot(request).await.unwrap();
        }
    };
    tokio::time::timeout(60 * SECOND, test).await.expect("the test hangs");
    assert_eq!(bench.open_for(), 30 * SECOND);
}
