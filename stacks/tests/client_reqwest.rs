//! reqwest's `Client` behind a breaker, against a real upstream.

mod support_client;

use std::time::Duration;

use http::{HeaderValue, Method, Response, StatusCode, Version};
use reqwest::{Client, Request};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{
    CircuitOpen, HttpClassifier, ManualClock, Outcome,
    State::{Closed, Open},
    WhenOpen,
};
use tower_breaker_stacks::upstream::{self, Upstream, text};

use self::support_client::{Stage, breaker};

const SECOND: Duration = Duration::from_secs(1);

async fn watched<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(60 * SECOND, test).await.expect("the test hangs")
}

fn get(url: &str) -> Request {
    Request::new(Method::GET, url.parse().unwrap())
}

/// In a word: status, header `x-why`, body.
async fn tell(response: reqwest::Response) -> Result<String, BoxError> {
    let why = response.headers().get("x-why").map_or("-", |why| why.to_str().unwrap());
    let head = format!("{} {why}", response.status().as_u16());
    Ok(format!("{head} {}", response.text().await?))
}

#[tokio::test]
async fn an_outage() {
    let upstream = Upstream::start().unwrap();
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut service = layer.layer(Client::new());
    let stage = Stage {
        layer,
        clock,
        call: async || tell(service.ready().await?.call(get(&upstream.url("/"))).await?).await,
        set_sick: |sick| if sick { upstream.sicken() } else { upstream.heal() },
        hits: || upstream.hits(),
        healthy: "200 - hello",
        sick: "503 migration sick",
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn an_outage_seen_through_clones_in_a_buffer() {
    let upstream = Upstream::start().unwrap();
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let service = ServiceBuilder::new()
        .buffer(8)
        .layer(layer.clone().when_open(WhenOpen::Defer))
        .service(Client::new());
    let stage = Stage {
        layer,
        clock,
        call: async || tell(service.clone().oneshot(get(&upstream.url("/"))).await?).await,
        set_sick: |sick| if sick { upstream.sicken() } else { upstream.heal() },
        hits: || upstream.hits(),
        healthy: "200 - hello",
        sick: "503 migration sick",
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn a_refused_connection_is_a_failure_and_stays_reqwests_error() {
    let closed = upstream::Closed::new().unwrap();
    let url = format!("http://{}/", closed.address().unwrap());
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let service = layer.layer(Client::new());
    watched(async {
        for _ in 0..3 {
            assert_eq!(layer.circuit().state(), Closed);
            let error = service.clone().oneshot(get(&url)).await.unwrap_err();
            assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_connect());
        }
        assert_eq!(layer.circuit().state(), Open);
        assert!(service.clone().oneshot(get(&url)).await.unwrap_err().is::<CircuitOpen>());

        let upstream = closed.listen().unwrap();
        clock.advance(10 * SECOND);
        for _ in 0..2 {
            let response = service.clone().oneshot(get(&url)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(layer.circuit().state(), Closed);
        assert_eq!(upstream.hits(), 2);
    })
    .await;
}

#[tokio::test]
async fn one_default_judges_statuses_and_grpc_alike() {
    let cases = [
        (200, None, (1, 0, 0)),
        (404, None, (1, 0, 0)),
        (429, None, (0, 0, 1)),
        (500, None, (0, 1, 0)),
        (200, Some("0"), (1, 0, 0)),
        (200, Some("13"), (0, 1, 0)),
        (200, Some("8"), (0, 0, 1)),
    ];
    let upstream = Upstream::start().unwrap();
    watched(async {
        for (status, grpc, ends) in cases {
            upstream.answer(move |_| {
                let mut response = Response::new(text(""));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if let Some(code) = grpc {
                    let headers = response.headers_mut();
                    headers
                        .insert("content-type", HeaderValue::from_static("application/grpc+proto"));
                    headers.insert("grpc-status", HeaderValue::from_static(code));
                }
                response
            });
            let layer = breaker(&ManualClock::new());
            layer.layer(Client::new()).oneshot(get(&upstream.url("/"))).await.unwrap();
            let totals = layer.circuit().snapshot().totals;
            let counted = (totals.success, totals.failure, totals.ignored);
            assert_eq!(counted, ends, "{status} {grpc:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn closures_need_no_annotation() {
    let upstream = Upstream::start().unwrap();
    upstream.answer(|_| {
        let mut response = Response::new(text(""));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    });
    let by_view = breaker(&ManualClock::new()).classify_http(|view| match view.status() {
        Some(StatusCode::NOT_FOUND) => Outcome::Failure,
        _ => HttpClassifier::new().outcome(view),
    });
    let by_response = breaker(&ManualClock::new()).classify_fn(
        |result: Result<&reqwest::Response, _>, _latency| match result {
            Ok(response) if response.version() == Version::HTTP_11 => Outcome::Failure,
            Ok(_) | Err(_) => Outcome::Success,
        },
    );
    let get = || get(&upstream.url("/"));
    watched(async {
        for _ in 0..3 {
            assert_eq!(
                (by_view.circuit().state(), by_response.circuit().state()),
                (Closed, Closed)
            );
            by_view.layer(Client::new()).oneshot(get()).await.unwrap();
            by_response.layer(Client::new()).oneshot(get()).await.unwrap();
        }
    })
    .await;
    assert_eq!((by_view.circuit().state(), by_response.circuit().state()), (Open, Open));
}

#[tokio::test]
async fn a_fallback_keeps_reqwests_error() {
    let upstream = Upstream::start().unwrap();
    let layer = breaker(&ManualClock::new());
    let circuit = layer.circuit().clone();
    let service = layer
        .fallback(|open: CircuitOpen| {
            reqwest::Response::from(Response::new(format!("instead of {}", open.name())))
        })
        .layer(Client::new());
    watched(async {
        let answer: Result<_, reqwest::Error> =
            service.clone().oneshot(get(&upstream.url("/"))).await;
        assert_eq!(answer.unwrap().text().await.unwrap(), "hello");
        circuit.trip();
        let answer = service.clone().oneshot(get(&upstream.url("/"))).await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "instead of upstream");
    })
    .await;
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test]
async fn a_refusal_says_for_how_long_a_real_server_asked() {
    let upstream = Upstream::start().unwrap();
    upstream.answer(|_| {
        let mut response = Response::new(text(""));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert("retry-after", HeaderValue::from_static("7"));
        response
    });
    let clock = ManualClock::new();
    let config = tower_breaker::Config::builder("upstream")
        .consecutive_failures(2)
        .open_for(tower_breaker::Backoff::exponential(SECOND, 8 * SECOND).jitter(0.0))
        .clock(&clock);
    let layer = tower_breaker::CircuitBreakerLayer::new(config.build().unwrap());
    let service = layer.layer(Client::new());
    watched(async {
        for _ in 0..2 {
            let response = service.clone().oneshot(get(&upstream.url("/"))).await.unwrap();
            assert_eq!(response.headers()["retry-after"], "7");
        }
        clock.advance(7 * SECOND - Duration::from_nanos(1));
        let error = service.clone().oneshot(get(&upstream.url("/"))).await.unwrap_err();
        let left = CircuitOpen::find_in(&*error).unwrap().retry_after();
        assert_eq!(left, Some(Duration::from_nanos(1)));
        clock.advance(Duration::from_nanos(1));
        service.clone().oneshot(get(&upstream.url("/"))).await.unwrap();
    })
    .await;
    assert_eq!(upstream.hits(), 3);
}
