//! The laws of `until_end_of_body` over real connections: around axum and
//! hyper servers, hyper clients, and both sides of tonic.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Server},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_breaker::{
    AtEndOfBody, Circuit, CircuitBreakerLayer, CircuitOpen, ConfigBuilder, HttpClassifier,
    ManualClock, Reject, State, WhenOpen, grpc_unavailable, service_unavailable,
};
use tower_breaker_stacks::{
    echo::{Behaviour, Kind, Switchable},
    proto::{EchoReply, EchoRequest, echo_client::EchoClient},
    server::{Caller, config, eventually, serve_axum, serve_hyper, watchdog},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Where the breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stack {
    AxumServer,
    HyperServer1,
    HyperServer2,
    HyperClient1,
    HyperClient2,
}

impl Stack {
    const ALL: [Self; 5] = [
        Self::AxumServer,
        Self::HyperServer1,
        Self::HyperServer2,
        Self::HyperClient1,
        Self::HyperClient2,
    ];

    fn is_client(self) -> bool {
        matches!(self, Self::HyperClient1 | Self::HyperClient2)
    }

    fn caller(self) -> Caller {
        match self {
            Self::AxumServer | Self::HyperServer1 | Self::HyperClient1 => Caller::http1(),
            Self::HyperServer2 | Self::HyperClient2 => Caller::http2(),
        }
    }
}

/// Whether the slow rule judges the head or the whole call.
#[derive(Clone, Copy, Debug)]
enum Latency {
    ToHead,
    ToEnd,
}

type Layer = CircuitBreakerLayer<HttpClassifier, Reject, AtEndOfBody>;

/// A client, a server and a breaker at one of them. The test says what the
/// server answers.
struct World {
    clock: ManualClock,
    circuit: Circuit,
    answers: Answers,
    client: BoxCloneSyncService<Request<Empty<Bytes>>, Response<Body>, BoxError>,
    url: String,
}

/// What the server answers next. Clones are the same queue.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<VecDeque<Answer>>>);

/// An answer, and how long its head takes.
type Answer = (Duration, Response<Body>);

impl Answers {
    /// The next answer; its head takes a while.
    fn next(&self, clock: &ManualClock) -> Result<Response<Body>, Infallible> {
        let (takes, answer) = self.0.lock().unwrap().pop_front().expect("no answer is left");
        clock.advance(takes);
        Ok(answer)
    }
}

impl World {
    async fn new(stack: Stack) -> Self {
        Self::with(stack, Latency::ToHead, |config| config).await
    }

    async fn with(
        stack: Stack,
        latency: Latency,
        configure: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Self {
        let clock = ManualClock::new();
        let circuit = Circuit::new(configure(config(&clock)).build().unwrap());
        let layer = CircuitBreakerLayer::new(circuit.clone()).until_end_of_body();
        let layer: Layer = match latency {
            Latency::ToHead => layer,
            Latency::ToEnd => layer.latency_to_end_of_body(),
        };

        let answers = Answers::default();
        let (queue, time) = (answers.clone(), clock.clone());
        let server = service_fn(move |_: Request<_>| ready(queue.next(&time)));
        let url = match stack {
            Stack::AxumServer => {
                let (queue, time) = (answers.clone(), clock.clone());
                let handler = async move || queue.next(&time).unwrap();
                let layer = layer.clone().fallback(service_unavailable);
                let router = Router::new().route("/", axum::routing::any(handler)).layer(layer);
                serve_axum(router).await.unwrap()
            }
            Stack::HyperServer1 | Stack::HyperServer2 => {
                let layer = layer.clone().fallback(service_unavailable);
                serve_hyper(ServiceBuilder::new().layer(layer).service(server)).await.unwrap()
            }
            Stack::HyperClient1 | Stack::HyperClient2 => serve_hyper(server).await.unwrap(),
        };

        let client = stack.caller().client();
        let client = if stack.is_client() {
            let breaker = ServiceBuilder::new().layer(layer).service(client);
            BoxCloneSyncService::new(breaker.map_response(|response| response.map(Body::new)))
        } else {
            let plain = client.map_response(|response| response.map(Body::new));
            BoxCloneSyncService::new(plain.map_err(BoxError::from))
        };
        Self { clock, circuit, answers, client, url }
    }

    /// The next answer has this head, and a body that the test writes.
    fn will_stream(&self, status: StatusCode) -> Tap {
        let (tap, frames) = mpsc::unbounded_channel();
        let body = StreamBody::new(UnboundedReceiverStream::new(frames));
        self.will_answer(status, Body::new(body));
        Tap(tap)
    }

    fn will_answer(&self, status: StatusCode, body: Body) {
        self.will_answer_after(Duration::ZERO, status, body);
    }

    fn will_answer_after(&self, takes: Duration, status: StatusCode, body: Body) {
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        self.answers.0.lock().unwrap().push_back((takes, answer));
    }

    async fn ask(&self, method: Method) -> Response<Body> {
        let request = Request::builder().method(method).uri(&self.url).body(Empty::new()).unwrap();
        self.client.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self) -> Response<Body> {
        self.ask(Method::GET).await
    }

    /// How calls have ended.
    fn ends(&self) -> Ends {
        ends(&self.circuit)
    }

    /// Waits until as many calls have ended, and says how they did; the
    /// server's end is in a task of its own.
    async fn ended(&self, calls: u64) -> Ends {
        ended(&self.circuit, calls).await
    }
}

/// Successes, failures, ignored, cancelled and stale calls.
type Ends = [u64; 5];

const NONE: Ends = [0; 5];
const SUCCESS: Ends = [1, 0, 0, 0, 0];
const FAILURE: Ends = [0, 1, 0, 0, 0];
const IGNORED: Ends = [0, 0, 1, 0, 0];

fn ends(circuit: &Circuit) -> Ends {
    let totals = circuit.snapshot().totals;
    [totals.success, totals.failure, totals.ignored, totals.cancelled, totals.stale]
}

async fn ended(circuit: &Circuit, calls: u64) -> Ends {
    eventually(|| ends(circuit).iter().sum::<u64>() >= calls).await;
    ends(circuit)
}

/// The server's end of a body.
struct Tap(mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>);

impl Tap {
    fn data(&self, text: &'static str) {
        self.0.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).unwrap();
    }

    fn trailers(&self) {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("checksum"),
            HeaderValue::from_static("1"),
        )]);
        self.0.send(Ok(Frame::trailers(trailers))).unwrap();
    }

    fn fail(&self) {
        self.0.send(Err("broke off".into())).unwrap();
    }
}

/// The next data of a body.
async fn data(body: &mut Body) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

/// Says how long it will be, and not when it is over.
struct Announced(Option<&'static str>);

impl HttpBody for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.map_or(0, |text| text.len() as u64))
    }
}

/// A law for every stack over HTTP.
async fn law(check: impl AsyncFn(World)) {
    for stack in Stack::ALL {
        println!("{stack:?}");
        watchdog(async { check(World::new(stack).await).await }).await;
    }
}

#[tokio::test]
async fn the_verdict_falls_at_the_end() {
    law(async |world| {
        let tap = world.will_stream(StatusCode::OK);
        let mut body = world.get().await.into_body();
        assert_eq!(world.ends(), NONE, "at the head");
        for _ in 0..3 {
            tap.data("part");
            assert_eq!(data(&mut body).await, "part");
            assert_eq!(world.ends(), NONE, "in the middle");
        }
        drop(tap);
        assert!((&mut body).collect().await.unwrap().to_bytes().is_empty());
        assert_eq!(world.ended(1).await, SUCCESS);
        drop(body);
        assert_eq!(world.ends(), SUCCESS, "once");
    })
    .await;
}

#[tokio::test]
async fn the_verdict_falls_at_trailers() {
    for stack in [Stack::HyperServer2, Stack::HyperClient2] {
        watchdog(async {
            let world = World::new(stack).await;
            let tap = world.will_stream(StatusCode::OK);
            let mut body = world.get().await.into_body();
            tap.data("part");
            assert_eq!(data(&mut body).await, "part");
            assert_eq!(world.ends(), NONE);
            tap.trailers();
            let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers["checksum"], "1");
            assert_eq!(world.ended(1).await, SUCCESS, "{stack:?}");
            drop((body, tap));
            assert_eq!(world.ends(), SUCCESS, "once");
        })
        .await;
    }
}

#[tokio::test]
async fn a_failure_in_the_middle_is_one_failure() {
    law(async |world| {
        for failures in 1..=3 {
            let tap = world.will_stream(StatusCode::OK);
            let mut body = world.get().await.into_body();
            tap.data("part");
            assert_eq!(data(&mut body).await, "part");
            tap.fail();
            body.collect().await.unwrap_err();
            assert_eq!(world.ended(failures).await, [0, failures, 0, 0, 0]);
        }
        assert_eq!(world.circuit.state(), State::Open);
    })
    .await;
}

#[tokio::test]
async fn an_early_drop_is_neutral_at_any_age() {
    for stack in Stack::ALL {
        watchdog(async {
            let slow_rule = |config: ConfigBuilder| config.slow_calls(SECOND, 1.0);
            let world = World::with(stack, Latency::ToEnd, slow_rule).await;
            for drops in 1..=5 {
                let tap = world.will_stream(StatusCode::OK);
                let mut body = world.get().await.into_body();
                tap.data("part");
                assert_eq!(data(&mut body).await, "part");
                world.clock.advance(60 * SECOND);
                drop(body);
                assert_eq!(world.ended(drops).await, [0, 0, 0, drops, 0], "{stack:?}");
            }
            let snapshot = world.circuit.snapshot();
            assert_eq!((snapshot.state, snapshot.window.calls), (State::Closed, 0));
            assert_eq!(snapshot.totals.slow, 0);
        })
        .await;
    }
}

/// A probe that is dropped early decides nothing, and gives its place back.
#[tokio::test]
async fn a_probe_dropped_early_decides_nothing() {
    law(async |world| {
        world.circuit.trip();
        world.clock.advance(5 * SECOND);
        for drops in 1..=4 {
            let tap = world.will_stream(StatusCode::OK);
            let mut body = world.get().await.into_body();
            tap.data("part");
            assert_eq!(data(&mut body).await, "part");
            drop(body);
            assert_eq!(world.ended(drops).await, [0, 0, 0, drops, 0]);
            assert_eq!(world.circuit.state(), State::HalfOpen);
        }
        for _ in 0..2 {
            world.will_answer(StatusCode::OK, Body::from("well"));
            assert_eq!(world.get().await.into_body().collect().await.unwrap().to_bytes(), "well");
        }
        world.ended(6).await;
        assert_eq!(world.circuit.state(), State::Closed);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_success_is_settled_at_the_head() {
    let cases = [
        (StatusCode::INTERNAL_SERVER_ERROR, FAILURE),
        (StatusCode::SERVICE_UNAVAILABLE, FAILURE),
        (StatusCode::TOO_MANY_REQUESTS, IGNORED),
    ];
    law(async |world| {
        for (status, verdict) in cases {
            world.circuit.reset();
            let before = world.ends();
            let tap = world.will_stream(status);
            let mut body = world.get().await.into_body();
            let change = || {
                let mut change = world.ends();
                change.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
                change
            };
            assert_eq!(change(), verdict, "{status}");
            tap.data("the long story");
            assert_eq!(data(&mut body).await, "the long story");
            tap.fail();
            body.collect().await.unwrap_err();
            assert_eq!(change(), verdict, "{status}: once");
        }
    })
    .await;
}

/// A client error is a success, but only once all of it was sent.
#[tokio::test]
async fn a_404_is_followed_like_a_200() {
    law(async |world| {
        let tap = world.will_stream(StatusCode::NOT_FOUND);
        let body = world.get().await.into_body();
        assert_eq!(world.ends(), NONE);
        drop(tap);
        body.collect().await.unwrap();
        assert_eq!(world.ended(1).await, SUCCESS);
    })
    .await;
}

#[tokio::test]
async fn a_response_without_a_body_ends_at_its_head() {
    law(async |world| {
        let statuses = [StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::NOT_MODIFIED];
        for (status, calls) in statuses.into_iter().zip(1..) {
            world.will_answer(status, Body::empty());
            let response = world.get().await;
            assert!(response.body().is_end_stream(), "{status}");
            drop(response);
            assert_eq!(world.ended(calls).await, [calls, 0, 0, 0, 0], "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_known_length_survives_and_ends_the_call() {
    let bodies: [fn() -> Body; 3] = [
        || Body::from("hello"),
        || Body::new(Full::new(Bytes::from_static(b"hello"))),
        || Body::new(Announced(Some("hello"))),
    ];
    law(async |world| {
        for (make, calls) in bodies.into_iter().zip(1..) {
            world.will_answer(StatusCode::OK, make());
            let response = world.get().await;
            assert_eq!(response.headers()["content-length"], "5");
            assert!(!response.headers().contains_key("transfer-encoding"));
            assert_eq!(response.body().size_hint().exact(), Some(5));
            assert!(!response.body().is_end_stream());

            // One frame is all there is: nobody asks for the end.
            let mut body = response.into_body();
            assert_eq!(data(&mut body).await, "hello");
            assert_eq!(body.size_hint().exact(), Some(0));
            drop(body);
            assert_eq!(world.ended(calls).await, [calls, 0, 0, 0, 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_length_stays_unknown() {
    law(async |world| {
        let tap = world.will_stream(StatusCode::OK);
        let response = world.get().await;
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(response.body().size_hint().exact(), None);
        drop(tap);
        response.into_body().collect().await.unwrap();
        assert_eq!(world.ended(1).await, SUCCESS);
    })
    .await;
}

/// axum and hyper's HTTP/1 drop the body of a HEAD unpolled, which is neutral;
/// clients know that there is none.
#[tokio::test]
async fn a_head_is_never_a_failure() {
    for stack in [Stack::AxumServer, Stack::HyperServer1, Stack::HyperClient1] {
        watchdog(async {
            let world = World::new(stack).await;
            for calls in 1..=5 {
                world.will_answer(StatusCode::OK, Body::from("hello"));
                let response = world.ask(Method::HEAD).await;
                assert_eq!(response.headers()["content-length"], "5");
                assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
                let expected =
                    if stack.is_client() { [calls, 0, 0, 0, 0] } else { [0, 0, 0, calls, 0] };
                assert_eq!(world.ended(calls).await, expected, "{stack:?}");
            }
            assert_eq!(world.circuit.state(), State::Closed);
        })
        .await;
    }
}

/// hyper's HTTP/2 leaves it to the service to answer a HEAD without a body.
#[tokio::test]
async fn a_head_answered_without_a_body_is_a_success() {
    law(async |world| {
        let mut answer = Response::new(Body::empty());
        answer.headers_mut().insert("content-length", HeaderValue::from_static("5"));
        world.answers.0.lock().unwrap().push_back((Duration::ZERO, answer));
        let response = world.ask(Method::HEAD).await;
        assert_eq!(response.headers()["content-length"], "5");
        drop(response);
        assert_eq!(world.ended(1).await, SUCCESS);
    })
    .await;
}

#[tokio::test]
async fn the_lease_bounds_an_endless_stream() {
    law(async |world| {
        world.circuit.trip();
        world.clock.advance(5 * SECOND);
        let tap = world.will_stream(StatusCode::OK);
        let mut body = world.get().await.into_body();
        tap.data("part");
        assert_eq!(data(&mut body).await, "part");

        world.clock.advance(60 * SECOND - MILLISECOND);
        assert_eq!(world.circuit.state(), State::HalfOpen);
        world.clock.advance(MILLISECOND);
        assert_eq!(world.circuit.state(), State::Open);
        assert_eq!(world.circuit.snapshot().retry_after, Some(5 * SECOND));
        assert_eq!(world.ends(), FAILURE, "the probe has failed");

        // The stream itself goes on, and its end says nothing any more.
        tap.data("more");
        assert_eq!(data(&mut body).await, "more");
        drop(tap);
        assert!((&mut body).collect().await.unwrap().to_bytes().is_empty());
        drop(body);
        world.clock.advance(5 * SECOND);
        for _ in 0..2 {
            world.will_answer(StatusCode::OK, Body::from("well"));
            world.get().await.into_body().collect().await.unwrap();
        }
        eventually(|| world.circuit.state() == State::Closed).await;
        assert_eq!(world.ends(), [2, 1, 0, 0, 0], "the late end counts as nothing more");
    })
    .await;
}

#[tokio::test]
async fn a_probe_has_not_succeeded_before_its_end() {
    law(async |world| {
        world.circuit.trip();
        world.clock.advance(5 * SECOND);
        let taps = [world.will_stream(StatusCode::OK), world.will_stream(StatusCode::OK)];
        let bodies = [world.get().await.into_body(), world.get().await.into_body()];
        for ((tap, body), calls) in taps.into_iter().zip(bodies).zip(1..) {
            assert_eq!(world.circuit.state(), State::HalfOpen);
            drop(tap);
            body.collect().await.unwrap();
            world.ended(calls).await;
        }
        assert_eq!(world.circuit.state(), State::Closed);
    })
    .await;
}

#[tokio::test]
async fn the_latency_is_that_of_the_head_unless_asked_otherwise() {
    for stack in Stack::ALL {
        let cases = [(Latency::ToHead, false), (Latency::ToEnd, true)];
        for (latency, slow_body_is_slow) in cases {
            watchdog(async {
                let slow_rule = |config: ConfigBuilder| config.slow_calls(SECOND, 1.0);
                let world = World::with(stack, latency, slow_rule).await;
                let tap = world.will_stream(StatusCode::OK);
                let body = world.get().await.into_body();
                world.clock.advance(10 * SECOND);
                drop(tap);
                body.collect().await.unwrap();
                assert_eq!(world.ended(1).await, SUCCESS);
                let slow = world.circuit.snapshot().totals.slow;
                assert_eq!(slow, u64::from(slow_body_is_slow), "{stack:?}, {latency:?}");

                world.will_answer_after(2 * SECOND, StatusCode::OK, Body::from("hello"));
                world.get().await.into_body().collect().await.unwrap();
                world.ended(2).await;
                assert_eq!(world.circuit.snapshot().totals.slow, slow + 1, "a slow head is slow");
            })
            .await;
        }
    }
}

/// Which side of a gRPC connection has the breaker.
#[derive(Clone, Copy, Debug)]
enum Side {
    Server,
    Client,
}

type GrpcClient =
    BoxCloneSyncService<Request<tonic::body::Body>, Response<tonic::body::Body>, BoxError>;

/// A gRPC client and server, and a breaker at one of them.
struct Grpc {
    clock: ManualClock,
    circuit: Circuit,
    echo: Switchable,
    client: EchoClient<GrpcClient>,
}

impl Grpc {
    async fn new(side: Side) -> Self {
        let clock = ManualClock::new();
        let (circuit, echo) = (Circuit::new(config(&clock).build().unwrap()), Switchable::new());
        let layer = CircuitBreakerLayer::new(circuit.clone()).until_end_of_body();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let channel = Channel::from_shared(url).unwrap().connect_lazy();

        let client = match side {
            Side::Server => {
                let server = Server::builder()
                    .layer(layer.fallback(grpc_unavailable))
                    .add_service(echo.service());
                tokio::spawn(server.serve_with_incoming(incoming));
                boxed(channel.map_err(BoxError::from))
            }
            Side::Client => {
                let server = Server::builder().add_service(echo.service());
                tokio::spawn(server.serve_with_incoming(incoming));
                let layer = layer.when_open(WhenOpen::Defer);
                boxed(ServiceBuilder::new().layer(layer).service(channel))
            }
        };
        Self { clock, circuit, echo, client: EchoClient::new(client) }
    }

    async fn call(&self, kind: Kind) -> Result<Vec<String>, Status> {
        kind.call(&mut self.client.clone()).await
    }

    async fn server_stream(&self) -> Streaming<EchoReply> {
        let request = EchoRequest { text: "a".to_owned(), count: 3 };
        self.client.clone().server_stream(request).await.unwrap().into_inner()
    }

    fn ends(&self) -> Ends {
        ends(&self.circuit)
    }

    async fn ended(&self, calls: u64) -> Ends {
        ended(&self.circuit, calls).await
    }
}

fn boxed<S, B>(client: S) -> GrpcClient
where
    S: Service<Request<tonic::body::Body>, Response = Response<B>, Error = BoxError>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(client.map_response(|response| response.map(tonic::body::Body::new)))
}

/// A law for both sides of gRPC.
async fn grpc_law(check: impl AsyncFn(Grpc)) {
    for side in [Side::Server, Side::Client] {
        println!("{side:?}");
        watchdog(async { check(Grpc::new(side).await).await }).await;
    }
}

#[tokio::test]
async fn grpc_calls_of_every_kind_are_one_success() {
    grpc_law(async |grpc| {
        for (kind, calls) in Kind::ALL.into_iter().zip(1..) {
            grpc.call(kind).await.unwrap();
            assert_eq!(grpc.ended(calls).await, [calls, 0, 0, 0, 0], "{kind:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_grpc_conversation_ends_at_its_trailers() {
    grpc_law(async |grpc| {
        let (requests, incoming) = mpsc::channel(1);
        let mut client = grpc.client.clone();
        let mut replies = client.bidi(ReceiverStream::new(incoming)).await.unwrap().into_inner();
        assert_eq!(grpc.ends(), NONE, "HTTP 200 is no gRPC success");
        for _ in 0..3 {
            requests.send(EchoRequest::new("a")).await.unwrap();
            assert_eq!(replies.message().await.unwrap().unwrap().text, "a");
            assert_eq!(grpc.ends(), NONE);
        }
        drop(requests);
        assert_eq!(replies.message().await.unwrap(), None);
        assert_eq!(grpc.ended(1).await, SUCCESS);
    })
    .await;
}

#[tokio::test]
async fn a_client_stream_ends_when_it_is_answered() {
    grpc_law(async |grpc| {
        let (requests, incoming) = mpsc::channel(1);
        let mut client = grpc.client.clone();
        let call = client.client_stream(ReceiverStream::new(incoming));
        let send = async {
            for text in ["a", "b", "c"] {
                requests.send(EchoRequest::new(text)).await.unwrap();
            }
            eventually(|| grpc.echo.hits() == 1).await;
            assert_eq!(grpc.ends(), NONE, "while it is being sent");
            drop(requests);
        };
        let (reply, ()) = tokio::join!(call, send);
        assert_eq!(reply.unwrap().into_inner().text, "a b c");
        assert_eq!(grpc.ended(1).await, SUCCESS);
    })
    .await;
}

#[tokio::test]
async fn a_grpc_stream_that_fails_in_the_middle_is_one_failure() {
    grpc_law(async |grpc| {
        grpc.echo.behave(Behaviour::FailMidStream(Code::Unavailable));
        let kinds = [Kind::ServerStream, Kind::Bidi, Kind::ServerStream];
        for (kind, calls) in kinds.into_iter().zip(1..) {
            let status = grpc.call(kind).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::Unavailable, "told to fail"));
            assert_eq!(grpc.ended(calls).await, [0, calls, 0, 0, 0], "{kind:?}");
        }
        assert_eq!(grpc.circuit.state(), State::Open);
    })
    .await;
}

#[tokio::test]
async fn trailers_only_is_judged_at_the_head() {
    grpc_law(async |grpc| {
        grpc.echo.behave(Behaviour::Fail(Code::Unavailable));
        for (kind, calls) in Kind::ALL.into_iter().zip(1..=3) {
            assert_eq!(grpc.call(kind).await.unwrap_err().code(), Code::Unavailable);
            assert_eq!(grpc.ends(), [0, calls, 0, 0, 0], "{kind:?}");
        }
        assert_eq!(grpc.circuit.state(), State::Open);
    })
    .await;
}

#[tokio::test]
async fn the_status_in_the_trailers_decides_by_the_same_table() {
    let cases = [
        (Code::Unknown, FAILURE),
        (Code::DeadlineExceeded, FAILURE),
        (Code::Internal, FAILURE),
        (Code::Unavailable, FAILURE),
        (Code::DataLoss, FAILURE),
        (Code::ResourceExhausted, IGNORED),
        (Code::Cancelled, IGNORED),
        (Code::NotFound, SUCCESS),
        (Code::InvalidArgument, SUCCESS),
        (Code::Aborted, SUCCESS),
    ];
    grpc_law(async |grpc| {
        for (code, verdict) in cases {
            grpc.circuit.reset();
            let before = grpc.ends();
            grpc.echo.behave(Behaviour::FailMidStream(code));
            assert_eq!(grpc.call(Kind::ServerStream).await.unwrap_err().code(), code);
            let mut after = grpc.ended(before.iter().sum::<u64>() + 1).await;
            after.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
            assert_eq!(after, verdict, "{code:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_grpc_stream_dropped_early_is_neutral() {
    grpc_law(async |grpc| {
        grpc.echo.behave(Behaviour::Hang);
        for drops in 1..=4 {
            let mut replies = grpc.server_stream().await;
            assert_eq!(replies.message().await.unwrap().unwrap().text, "a");
            assert_eq!(grpc.ends(), [0, 0, 0, drops - 1, 0], "it hangs");
            drop(replies);
            assert_eq!(grpc.ended(drops).await, [0, 0, 0, drops, 0]);
        }
        assert_eq!(grpc.circuit.state(), State::Closed);
    })
    .await;
}

#[tokio::test]
async fn the_lease_bounds_an_endless_grpc_stream() {
    grpc_law(async |grpc| {
        grpc.circuit.trip();
        grpc.clock.advance(5 * SECOND);
        grpc.echo.behave(Behaviour::Hang);
        let mut replies = grpc.server_stream().await;
        assert_eq!(replies.message().await.unwrap().unwrap().text, "a");
        grpc.clock.advance(60 * SECOND - MILLISECOND);
        assert_eq!(grpc.circuit.state(), State::HalfOpen);
        grpc.clock.advance(MILLISECOND);
        assert_eq!(grpc.circuit.state(), State::Open);
        assert_eq!(grpc.circuit.snapshot().retry_after, Some(5 * SECOND));
        assert_eq!(grpc.ends(), FAILURE);
    })
    .await;
}

/// The whole story, where failures show in the middle of streams only.
#[tokio::test]
async fn streams_that_fail_open_the_circuit_and_whole_ones_close_it() {
    for kind in [Kind::ServerStream, Kind::Bidi] {
        grpc_law(async |grpc| {
            assert_eq!(grpc.call(kind).await.unwrap().len(), 3);
            grpc.ended(1).await;
            grpc.echo.behave(Behaviour::FailMidStream(Code::Unavailable));
            for calls in 2..=4 {
                assert_eq!(grpc.circuit.state(), State::Closed);
                grpc.call(kind).await.unwrap_err();
                grpc.ended(calls).await;
            }
            assert_eq!(grpc.circuit.state(), State::Open);
            for _ in 0..5 {
                let status = grpc.call(kind).await.unwrap_err();
                let pushback = status.metadata().get("grpc-retry-pushback-ms");
                match CircuitOpen::find_in(&status) {
                    Some(open) => assert_eq!(open.retry_after(), Some(5 * SECOND)),
                    None => assert_eq!(pushback.unwrap(), "5000"),
                }
            }
            assert_eq!(grpc.echo.hits(), 4, "a refused call reached the handler");

            grpc.echo.behave(Behaviour::Ok);
            grpc.clock.advance(5 * SECOND);
            grpc.call(kind).await.unwrap();
            grpc.ended(5).await;
            assert_eq!(grpc.circuit.state(), State::HalfOpen);
            grpc.call(kind).await.unwrap();
            grpc.ended(6).await;
            assert_eq!(grpc.circuit.state(), State::Closed);
            assert_eq!(grpc.ends(), [3, 3, 0, 0, 0]);
        })
        .await;
    }
}

/// A gRPC response that ends, and has not said how.
async fn grpc_without_a_status(body: fn() -> Body) {
    for stack in [Stack::HyperServer2, Stack::HyperClient2] {
        println!("{stack:?}");
        watchdog(async {
            let world = World::new(stack).await;
            let mut answer = Response::new(body());
            let content_type = HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert("content-type", content_type);
            world.answers.0.lock().unwrap().push_back((Duration::ZERO, answer));
            world.get().await.into_body().collect().await.unwrap();
            assert_eq!(world.ended(1).await, FAILURE);
        })
        .await;
    }
}

#[tokio::test]
async fn grpc_data_without_a_status_is_a_failure() {
    grpc_without_a_status(|| Body::from("part")).await;
}

#[tokio::test]
async fn a_grpc_head_without_a_status_and_a_body_is_a_failure() {
    grpc_without_a_status(Body::empty).await;
}

/// What it is for: the head of a stream that fails later looks well.
#[tokio::test]
async fn without_it_a_stream_is_judged_by_its_head() {
    watchdog(async {
        let circuit = Circuit::new(config(&ManualClock::new()).build().unwrap());
        let echo = Switchable::new();
        echo.behave(Behaviour::FailMidStream(Code::Unavailable));
        let (url, server) = echo.serve().await.unwrap();
        let channel = Channel::from_shared(url).unwrap().connect_lazy();
        let layer = CircuitBreakerLayer::new(circuit.clone()).when_open(WhenOpen::Defer);
        let client = ServiceBuilder::new().layer(layer).service(channel);
        Kind::ServerStream.call(&mut EchoClient::new(client)).await.unwrap_err();
        assert_eq!(ends(&circuit), SUCCESS);
        server.abort();
    })
    .await;
}
