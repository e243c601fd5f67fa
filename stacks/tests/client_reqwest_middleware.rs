//! reqwest-middleware with a breaker in it, and with one around it.

mod support_client;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Extensions, HeaderValue, Method, Response, StatusCode};
use reqwest::{Client, Request};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, retry::Policy, util::MapRequestLayer,
};
use tower_breaker::{
    CircuitOpen, HttpClassifier, ManualClock, Outcome, RetryPolicy,
    State::{Closed, Open},
    TowerMiddleware, WhenOpen,
};
use tower_breaker_stacks::upstream::{self, Upstream, text};

use self::support_client::{Stage, breaker};

const SECOND: Duration = Duration::from_secs(1);

async fn watched<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(60 * SECOND, test).await.expect("the test hangs")
}

/// In a word: status, header `x-why`, body.
async fn tell(response: reqwest::Response) -> Result<String, BoxError> {
    let why = response.headers().get("x-why").map_or("-", |why| why.to_str().unwrap());
    let head = format!("{} {why}", response.status().as_u16());
    Ok(format!("{head} {}", response.text().await?))
}

fn with(middleware: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(Client::new()).with(middleware).build()
}

#[tokio::test]
async fn an_outage_with_the_breaker_in_the_client() {
    let upstream = Upstream::start().unwrap();
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let client = with(TowerMiddleware::new(layer.clone()));
    let stage = Stage {
        layer,
        clock,
        call: async || {
            // A clone each time: one circuit for all requests.
            let answer: Result<_, Error> = client.clone().get(upstream.url("/")).send().await;
            if let Err(error) = &answer {
                assert!(error.is_middleware());
                assert!(CircuitOpen::find_in(error).is_some(), "{error:?}");
            }
            tell(answer?).await
        },
        set_sick: |sick| if sick { upstream.sicken() } else { upstream.heal() },
        hits: || upstream.hits(),
        healthy: "200 - hello",
        sick: "503 migration sick",
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn an_outage_with_the_breaker_around_the_client() {
    let upstream = Upstream::start().unwrap();
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut service = layer.layer(with(Count::default()));
    let stage = Stage {
        layer,
        clock,
        call: async || {
            let request = Request::new(Method::GET, upstream.url("/").parse()?);
            tell(service.ready().await?.call(request).await?).await
        },
        set_sick: |sick| if sick { upstream.sicken() } else { upstream.heal() },
        hits: || upstream.hits(),
        healthy: "200 - hello",
        sick: "503 migration sick",
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn clients_with_clones_of_one_layer_share_its_circuit() {
    let upstream = Upstream::start().unwrap();
    upstream.sicken();
    let layer = breaker(&ManualClock::new());
    let clients = [1, 2, 3].map(|_| with(TowerMiddleware::new(layer.clone())));
    watched(async {
        for client in &clients {
            assert_eq!(layer.circuit().state(), Closed);
            client.get(upstream.url("/")).send().await.unwrap();
        }
        assert_eq!(layer.circuit().state(), Open);
        for client in &clients {
            let error = client.get(upstream.url("/")).send().await.unwrap_err();
            assert!(CircuitOpen::find_in(&error).is_some());
        }
    })
    .await;
    assert_eq!(upstream.hits(), 3);
}

#[tokio::test]
async fn errors_from_further_in_come_out_as_themselves() {
    let closed = upstream::Closed::new().unwrap();
    let url = format!("http://{}/", closed.address().unwrap());
    let layer = breaker(&ManualClock::new());
    watched(async {
        let client = with(TowerMiddleware::new(layer.clone()));
        let error = client.get(&url).send().await.unwrap_err();
        assert!(matches!(&error, Error::Reqwest(_)) && error.is_connect(), "{error:?}");
        assert_eq!(layer.circuit().snapshot().totals.failure, 1);

        let client = ClientBuilder::new(Client::new())
            .with(TowerMiddleware::new(layer.clone()))
            .with(Break)
            .build();
        let Error::Middleware(error) = client.get(&url).send().await.unwrap_err() else {
            panic!("it was a middleware");
        };
        assert_eq!(error.downcast::<std::fmt::Error>().unwrap(), std::fmt::Error);
        assert_eq!(layer.circuit().snapshot().totals.failure, 2);

        // Also if a layer has taken it out of its wrapping.
        let stack = ServiceBuilder::new()
            .map_err(|error: BoxError| match error.downcast::<Error>().map(|error| *error) {
                Ok(Error::Reqwest(error)) => BoxError::from(error),
                other => panic!("{other:?}"),
            })
            .layer(layer.clone())
            .into_inner();
        let error = with(TowerMiddleware::new(stack)).get(&url).send().await.unwrap_err();
        assert!(matches!(&error, Error::Reqwest(_)) && error.is_connect(), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn one_default_judges_statuses_and_grpc_alike() {
    let cases = [
        (200, None, (1, 0, 0)),
        (429, None, (0, 0, 1)),
        (500, None, (0, 1, 0)),
        (200, Some("13"), (0, 1, 0)),
    ];
    let upstream = Upstream::start().unwrap();
    watched(async {
        for (status, grpc, ends) in cases {
            upstream.answer(move |_| {
                let mut response = Response::new(text(""));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if let Some(code) = grpc {
                    let headers = response.headers_mut();
                    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                    headers.insert("grpc-status", HeaderValue::from_static(code));
                }
                response
            });
            let layer = breaker(&ManualClock::new());
            let client = with(TowerMiddleware::new(layer.clone()));
            client.get(upstream.url("/")).send().await.unwrap();
            let totals = layer.circuit().snapshot().totals;
            let counted = (totals.success, totals.failure, totals.ignored);
            assert_eq!(counted, ends, "{status} {grpc:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_closure_needs_no_annotation() {
    let upstream = Upstream::start().unwrap();
    let layer = breaker(&ManualClock::new()).classify_http(|view| match view.headers() {
        Some(headers) if headers.contains_key("date") => Outcome::Failure,
        _ => HttpClassifier::new().outcome(view),
    });
    let circuit = layer.circuit().clone();
    let client = with(TowerMiddleware::new(layer.clone()));
    let under = layer.layer(with(Count::default()));
    watched(async {
        client.get(upstream.url("/")).send().await.unwrap();
        client.get(upstream.url("/")).send().await.unwrap();
        assert_eq!(circuit.state(), Closed);
        under.oneshot(client.get(upstream.url("/")).build().unwrap()).await.unwrap();
    })
    .await;
    assert_eq!(circuit.state(), Open);
}

#[tokio::test]
async fn a_fallback_answers_in_the_client_too() {
    let upstream = Upstream::start().unwrap();
    let layer = breaker(&ManualClock::new());
    layer.circuit().trip();
    let client = with(TowerMiddleware::new(layer.fallback(|open: CircuitOpen| {
        let mut response = Response::new(format!("instead of {}", open.name()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        reqwest::Response::from(response)
    })));
    watched(async {
        let response = client.get(upstream.url("/")).send().await.unwrap();
        assert_eq!(tell(response).await.unwrap(), "503 - instead of upstream");
    })
    .await;
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test]
async fn a_request_waits_in_the_client_until_the_circuit_admits() {
    let upstream = Upstream::start().unwrap();
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    layer.circuit().trip();
    let client = with(TowerMiddleware::new(layer.clone().when_open(WhenOpen::Wait)));
    watched(async {
        let request = tokio::spawn(client.get(upstream.url("/")).send());
        // On one thread each yield lets the request get as far as it can.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!request.is_finished());
        clock.advance(10 * SECOND);
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    })
    .await;
    assert_eq!(upstream.hits(), 1);
}

/// Retries what failed, so often.
#[derive(Clone)]
struct Times(u32);

impl Policy<Request, reqwest::Response, BoxError> for Times {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request,
        result: &mut Result<reqwest::Response, BoxError>,
    ) -> Option<Self::Future> {
        let failed = result.as_ref().map_or(true, |answer| answer.status().is_server_error());
        self.0 = if failed { self.0.checked_sub(1)? } else { return None };
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        request.try_clone()
    }
}

#[tokio::test]
async fn a_whole_stack_of_layers_fits_in_and_may_call_again() {
    let upstream = Upstream::start().unwrap();
    upstream.answer(|request| {
        let mut response = Response::new(text(""));
        assert_eq!(request.headers()["x-team"], "stock");
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    });
    let layer = breaker(&ManualClock::new());
    let stack = ServiceBuilder::new()
        .layer(MapRequestLayer::new(|mut request: Request| {
            request.headers_mut().insert("x-team", HeaderValue::from_static("stock"));
            request
        }))
        .retry(RetryPolicy::stop_when_open(Times(9)))
        .layer(layer.clone().when_open(WhenOpen::Defer))
        .into_inner();
    let inside = Count::default();
    let client = ClientBuilder::new(Client::new())
        .with(TowerMiddleware::new(stack))
        .with(inside.clone())
        .build();

    watched(async {
        let mut extensions = Extensions::new();
        extensions.insert(Seen(0));
        let request = client.get(upstream.url("/")).build().unwrap();
        let error = client.execute_with_extensions(request, &mut extensions).await.unwrap_err();
        // Two more attempts, and the fourth finds it open.
        assert!(CircuitOpen::find_in(&error).is_some());
        assert_eq!((upstream.hits(), inside.0.load(Ordering::SeqCst)), (3, 3));
        assert_eq!(extensions.get(), Some(&Seen(3)), "extensions go in and come out");
        assert_eq!(layer.circuit().snapshot().totals.rejected, 1);
    })
    .await;
}

/// How many requests a middleware has seen of this one's extensions.
#[derive(Clone, Debug, PartialEq)]
struct Seen(u32);

/// Counts the requests that get this far.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU32>);

#[tonic::async_trait]
impl Middleware for Count {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response, Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if let Some(Seen(times)) = extensions.get_mut() {
            *times += 1;
        }
        next.run(request, extensions).await
    }
}

/// Fails before it gets to the wire.
struct Break;

#[tonic::async_trait]
impl Middleware for Break {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> Result<reqwest::Response, Error> {
        Err(Error::middleware(std::fmt::Error))
    }
}
