//! The last good answer with real servers and clients: in front of a client,
//! in a server, and between the two.

use std::time::Duration;

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use bytes::Bytes;
use http::{Method, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};
use tower_breaker::{
    CircuitBreaker, CircuitBreakerLayer, CircuitOpen, HttpClassifier, ManualClock, StaleIfError,
    StaleIfErrorLayer, State, service_unavailable,
};
use tower_breaker_stacks::{
    server::{Caller, Patient, Said, circuit, serve_axum, watchdog},
    upstream::{self, Upstream, text},
};

const SECOND: Duration = Duration::from_secs(1);

type Client = legacy::Client<HttpConnector, Empty<Bytes>>;

/// A client that makes a connection for each request, so that a server that is
/// gone is gone.
fn client(version: Version) -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .http2_only(version == Version::HTTP_2)
        .build_http()
}

type Stack = StaleIfError<CircuitBreaker<Client, HttpClassifier>>;

/// A client that opens at the third failure in a row, for five seconds.
fn stack(clock: &ManualClock, version: Version, layer: StaleIfErrorLayer) -> Stack {
    let breaker = CircuitBreakerLayer::new(circuit(clock));
    layer.clock(clock).layer(breaker.layer(client(version)))
}

async fn ask(stack: &Stack, method: Method, url: &str) -> Result<Said, BoxError> {
    let request = http::Request::builder().method(method).uri(url).body(Empty::new())?;
    let (head, body) = stack.clone().oneshot(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Said { status: head.status, headers: head.headers, body })
}

/// Status, age and body in a word.
fn word(said: &Said) -> String {
    let age = said.header("age").unwrap_or("-");
    format!("{} {age} {}", said.status.as_u16(), String::from_utf8_lossy(&said.body))
}

#[tokio::test]
async fn a_client_lives_on_what_it_had_until_the_upstream_is_well() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        watchdog(async {
            let upstream = Upstream::start().unwrap();
            let clock = ManualClock::new();
            let stack = stack(&clock, version, StaleIfErrorLayer::new().ttl(60 * SECOND));
            let circuit = stack.get_ref().circuit().clone();
            let url = upstream.url("/page");
            let ask = async || word(&ask(&stack, Method::GET, &url).await.unwrap());

            assert_eq!(ask().await, "200 - hello");
            upstream.sicken();
            for _ in 0..3 {
                assert_eq!(ask().await, "503 - sick", "nobody asked for those to be answered");
            }
            assert_eq!(circuit.state(), State::Open);
            let hits = upstream.hits();
            clock.advance(2 * SECOND);
            for _ in 0..5 {
                assert_eq!(ask().await, "200 2 hello");
            }
            assert_eq!(upstream.hits(), hits, "the upstream is left alone");
            assert_eq!(circuit.snapshot().totals.rejected, 5);

            // A probe is asked for what there is, and fails.
            clock.advance(3 * SECOND);
            assert_eq!(ask().await, "503 - sick");
            clock.advance(SECOND);
            assert_eq!(ask().await, "200 6 hello");

            upstream.answer(|_| http::Response::new(text("well again")));
            clock.advance(4 * SECOND);
            for _ in 0..3 {
                assert_eq!(ask().await, "200 - well again");
            }
            assert_eq!(circuit.state(), State::Closed);
            circuit.trip();
            clock.advance(4 * SECOND);
            assert_eq!(ask().await, "200 4 well again");
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_kept_has_its_time() {
    watchdog(async {
        let upstream = Upstream::start().unwrap();
        upstream.answer(|request| {
            let mut response = http::Response::new(text("page"));
            if request.uri().path() == "/short" {
                let said = http::HeaderValue::from_static("max-age=10, stale-if-error=20");
                response.headers_mut().insert("cache-control", said);
            }
            response
        });
        let clock = ManualClock::new();
        let stack = stack(&clock, Version::HTTP_11, StaleIfErrorLayer::new().ttl(60 * SECOND));
        let urls = [upstream.url("/short"), upstream.url("/long")];
        for url in &urls {
            ask(&stack, Method::GET, url).await.unwrap();
        }
        let circuit = stack.get_ref().circuit();
        for (second, short, long) in
            [(29, true, true), (30, false, true), (59, false, true), (60, false, false)]
        {
            clock.advance(second * SECOND);
            circuit.trip();
            for (url, is_kept) in urls.iter().zip([short, long]) {
                let answer = ask(&stack, Method::GET, url).await;
                assert_eq!(answer.is_ok(), is_kept, "{url} after {second} s");
                if let Err(error) = answer {
                    assert!(CircuitOpen::find_in(&*error).is_some());
                }
            }
            // Back to the start, with both of them new.
            circuit.reset();
            for url in &urls {
                ask(&stack, Method::GET, url).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_answered_for_if_asked() {
    watchdog(async {
        let upstream = Upstream::start().unwrap();
        let clock = ManualClock::new();
        let asked = stack(&clock, Version::HTTP_11, StaleIfErrorLayer::new().on_any_error());
        let plain = stack(&clock, Version::HTTP_11, StaleIfErrorLayer::new());
        let url = upstream.url("/");
        for stack in [&asked, &plain] {
            ask(stack, Method::GET, &url).await.unwrap();
        }
        drop(upstream);
        // The port is closed when its task has ended.
        while client(Version::HTTP_11).get(url.parse().unwrap()).await.is_ok() {}
        assert_eq!(word(&ask(&asked, Method::GET, &url).await.unwrap()), "200 0 hello");
        assert!(ask(&asked, Method::POST, &url).await.is_err());
        let error = ask(&plain, Method::GET, &url).await.unwrap_err();
        assert!(error.is::<legacy::Error>(), "the client's own error");
        assert_eq!(asked.get_ref().circuit().snapshot().totals.failure, 2);
    })
    .await;
}

/// The caller sees it break off, as ever, and nobody sees it again.
#[tokio::test]
async fn a_body_that_breaks_off_is_not_kept() {
    watchdog(async {
        let upstream = Upstream::start().unwrap();
        upstream.answer(|_| {
            let frames = [
                Ok(Frame::data(Bytes::from_static(b"half of"))),
                Err(std::io::Error::other("reset")),
            ];
            http::Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync())
        });
        let clock = ManualClock::new();
        let stack = stack(&clock, Version::HTTP_11, StaleIfErrorLayer::new().on_any_error());
        let url = upstream.url("/");
        assert!(ask(&stack, Method::GET, &url).await.is_err());
        stack.get_ref().circuit().trip();
        let error = ask(&stack, Method::GET, &url).await.unwrap_err();
        assert!(CircuitOpen::find_in(&*error).is_some());
    })
    .await;
}

/// A gateway: a server, the last good answer, a breaker, a client.
async fn gateway(clock: &ManualClock, upstream: &Upstream, layer: StaleIfErrorLayer) -> String {
    let stack = layer.clock(clock).layer(
        CircuitBreakerLayer::new(circuit(clock))
            .layer(legacy::Client::builder(TokioExecutor::new()).build_http::<Body>()),
    );
    let origin = upstream.url("");
    let forward = move |mut request: Request| {
        let path = request.uri().path_and_query().unwrap().clone();
        *request.uri_mut() = format!("{origin}{path}").parse().unwrap();
        let call = stack.clone().oneshot(request);
        async move {
            match call.await {
                Ok(response) => response.map(Body::new),
                Err(error) => tower_breaker::handle_error(error).await,
            }
        }
    };
    serve_axum(Router::new().fallback(forward)).await.unwrap()
}

/// What comes first is there before there is more, and the copy waits for all
/// of it.
#[tokio::test]
async fn a_body_is_passed_on_while_it_is_copied() {
    watchdog(async {
        let upstream = Upstream::start().unwrap();
        let (send, frames) = mpsc::unbounded_channel();
        let frames = std::sync::Mutex::new(Some(frames));
        upstream.answer(move |_| match frames.lock().unwrap().take() {
            Some(frames) => {
                let body = StreamBody::new(UnboundedReceiverStream::new(frames));
                http::Response::new(BodyExt::boxed_unsync(body))
            }
            None => {
                let mut response = http::Response::new(text("sick"));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        });
        let clock = ManualClock::new();
        let url = gateway(&clock, &upstream, StaleIfErrorLayer::new().on_server_errors()).await;
        let caller = Caller::http1();

        let mut body = caller.ask(Method::GET, &url).await.unwrap().into_body();
        for piece in ["first", "second"] {
            send.send(Ok(Frame::data(Bytes::from(piece)))).unwrap();
            // The next one is not sent before this one is here.
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, piece);
            assert_eq!(caller.get(&url).await.unwrap().status, StatusCode::BAD_GATEWAY);
        }
        drop(send);
        assert!(body.frame().await.is_none());
        assert_eq!(word(&caller.get(&url).await.unwrap()), "200 0 firstsecond");
        let head = caller.fetch(Method::HEAD, &url).await.unwrap();
        assert_eq!(word(&head), "200 0 ");
    })
    .await;
}

/// A server whose errors are none: the breaker answers 503, and the layer
/// around it answers for that.
#[tokio::test]
async fn in_an_axum_server_with_a_fallback_inside() {
    watchdog(async {
        let clock = ManualClock::new();
        let circuit = circuit(&clock);
        let patient = Patient::new();
        let visited = patient.clone();
        let handler = move |request: Request| {
            let status = visited.visit();
            let language = request.headers().get("accept-language").cloned();
            async move {
                let mut response = Response::new(Body::from(match &language {
                    Some(language) => format!("in {}", language.to_str().unwrap()),
                    None => "in any".to_owned(),
                }));
                *response.status_mut() = status;
                let vary = http::HeaderValue::from_static("accept-language");
                response.headers_mut().insert("vary", vary);
                response
            }
        };
        let app = Router::new().route("/", get(handler.clone()).post(handler)).layer(
            ServiceBuilder::new()
                .layer(StaleIfErrorLayer::new().clock(&clock).on_server_errors())
                .layer(CircuitBreakerLayer::new(&circuit).fallback(service_unavailable)),
        );
        let url = serve_axum(app).await.unwrap();
        let client = legacy::Client::builder(TokioExecutor::new()).build_http();
        let ask = async |method: Method, language: Option<&str>| {
            let mut request = http::Request::builder().method(method).uri(&url);
            if let Some(language) = language {
                request = request.header("accept-language", language);
            }
            let response = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await;
            let (head, body) = response.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            word(&Said { status: head.status, headers: head.headers, body })
        };

        for language in [Some("de"), Some("en")] {
            assert!(ask(Method::GET, language).await.starts_with("200 - in "));
        }
        patient.set_sick(true);
        for _ in 0..3 {
            assert_eq!(ask(Method::GET, Some("de")).await, "200 0 in de", "the 500 is replaced");
        }
        assert_eq!(circuit.state(), State::Open, "and counted");
        let hits = patient.hits();
        clock.advance(SECOND);
        assert_eq!(ask(Method::GET, Some("en")).await, "200 1 in en", "so is the fallback's 503");
        assert_eq!(ask(Method::HEAD, Some("en")).await, "200 1 ");
        assert!(ask(Method::GET, None).await.starts_with("503 - "));
        assert!(ask(Method::POST, Some("de")).await.starts_with("503 - "));
        assert_eq!(patient.hits(), hits);
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.rejected, totals.fallback_answered), (4, 4));

        // A write that gets through makes it forget, in HTTP/2 too.
        patient.set_sick(false);
        circuit.reset();
        assert_eq!(ask(Method::GET, Some("de")).await, "200 - in de");
        clock.advance(SECOND);
        let written = Caller::http2().fetch(Method::POST, &url).await.unwrap();
        assert_eq!(written.status, StatusCode::OK);
        circuit.trip();
        assert!(ask(Method::GET, Some("de")).await.starts_with("503 - "));
    })
    .await;
}

/// As many at once as there are: what is kept is whole, always.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_get_whole_answers() {
    watchdog(async {
        let upstream = Upstream::start().unwrap();
        upstream.answer(|request| {
            let path = request.uri().path().to_owned();
            let frames =
                path.into_bytes().into_iter().map(|byte| Ok(Frame::data(Bytes::from(vec![byte]))));
            let frames: Vec<_> = frames.collect();
            http::Response::new(upstream::Body::new(StreamBody::new(tokio_stream::iter(frames))))
        });
        let clock = ManualClock::new();
        let stack = stack(&clock, Version::HTTP_2, StaleIfErrorLayer::new());
        let circuit = stack.get_ref().circuit().clone();
        let ask_all = async || {
            let asks = (0..64).map(|n| {
                let (stack, url) = (stack.clone(), upstream.url(&format!("/page/{}", n % 8)));
                tokio::spawn(async move {
                    let said = ask(&stack, Method::GET, &url).await.unwrap();
                    assert!(url.ends_with(std::str::from_utf8(&said.body).unwrap()));
                })
            });
            for ask in asks.collect::<Vec<_>>() {
                ask.await.unwrap();
            }
        };
        ask_all().await;
        let hits = upstream.hits();
        circuit.trip();
        ask_all().await;
        assert_eq!(upstream.hits(), hits);
    })
    .await;
}
