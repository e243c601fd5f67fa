//! The laws of a breaker in an axum server, wherever it is mounted.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::State as Extract,
    http::{Method, Request, Response, StatusCode},
    routing::{MethodRouter, get},
};
use tower::{BoxError, ServiceBuilder, layer::layer_fn, service_fn, util::BoxCloneSyncService};
use tower_breaker::{
    Circuit, CircuitBreakerLayer, CircuitOpen, ManualClock, State, WhenOpen, handle_error,
    service_unavailable,
};
use tower_breaker_stacks::server::{Caller, Patient, Said, circuit, serve_axum, watchdog};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A server with a breaker somewhere in it, and all there is to see of it.
struct Site {
    url: String,
    caller: Caller,
    patient: Patient,
    clock: ManualClock,
    circuit: Circuit,
}

impl Site {
    async fn new(router: impl FnOnce(Circuit, Patient) -> Router) -> Self {
        let clock = ManualClock::new();
        let (circuit, patient) = (circuit(&clock), Patient::new());
        let url = serve_axum(router(circuit.clone(), patient.clone())).await.unwrap();
        Self { url, caller: Caller::http1(), patient, clock, circuit }
    }

    async fn get(&self, path: &str) -> Said {
        self.caller.get(&format!("{}{path}", self.url)).await.unwrap()
    }

    /// Fails until the circuit opens; every caller sees the handler's own 500.
    async fn fail_until_open(&self, path: &str) {
        self.patient.set_sick(true);
        for _ in 0..3 {
            assert_eq!(self.circuit.state(), State::Closed);
            assert_eq!(self.get(path).await.status, StatusCode::INTERNAL_SERVER_ERROR);
        }
        assert_eq!(self.circuit.state(), State::Open);
    }

    /// The whole story: well, sick, open, healed, closed.
    async fn outage_and_recovery(&self, path: &str) {
        assert_eq!(self.get(path).await.status, StatusCode::OK);
        self.fail_until_open(path).await;

        let hits = self.patient.hits();
        assert_eq!(hits, 4);
        for _ in 0..5 {
            assert_refused(&self.get(path).await, 5);
        }
        self.patient.set_sick(false);
        self.clock.advance(5 * SECOND - MILLISECOND);
        assert_refused(&self.get(path).await, 1);
        assert_eq!(self.patient.hits(), hits, "a refused call reached the handler");

        self.clock.advance(MILLISECOND);
        assert_eq!(self.get(path).await.status, StatusCode::OK);
        assert_eq!(self.circuit.state(), State::HalfOpen);
        assert_eq!(self.get(path).await.status, StatusCode::OK);
        assert_eq!(self.circuit.state(), State::Closed);

        let totals = self.circuit.snapshot().totals;
        assert_eq!((totals.success, totals.failure, totals.rejected), (3, 3, 6));
        assert_eq!(self.patient.hits(), 6);
    }
}

/// A 503 with `retry-after` and a problem document that says the same.
fn assert_refused(said: &Said, seconds: u64) {
    assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(said.header("retry-after"), Some(seconds.to_string().as_str()));
    let problem = problem(said);
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["title"], "Service Unavailable");
    assert_eq!(problem["circuit"], "stacks");
    assert_eq!(problem["state"], "open");
    assert_eq!(problem["retry_after"], seconds);
}

/// A problem document as RFC 9457 has it.
fn problem(said: &Said) -> serde_json::Value {
    assert_eq!(said.header("content-type"), Some("application/problem+json"));
    assert_eq!(said.header("content-length"), Some(said.body.len().to_string().as_str()));
    let problem: serde_json::Value = serde_json::from_slice(&said.body).unwrap();
    assert!(problem["type"].is_string() && problem["title"].is_string());
    assert_eq!(problem["status"], said.status.as_u16());
    problem
}

fn handler(patient: Patient) -> MethodRouter {
    get(async |Extract(patient): Extract<Patient>| patient.visit()).with_state(patient)
}

/// Answers by itself, so it may stand anywhere in a router.
macro_rules! answering {
    ($circuit:expr) => {
        CircuitBreakerLayer::new($circuit).fallback(service_unavailable)
    };
}

/// Errors, and `HandleErrorLayer` makes answers of them.
macro_rules! handled {
    ($circuit:expr, $when_open:expr) => {
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(handle_error::<Body>))
            .layer(CircuitBreakerLayer::new($circuit).when_open($when_open))
    };
}

/// A law for a breaker mounted in every way axum has; `$layer` makes it.
macro_rules! mounted_in_every_way {
    ($($name:ident: |$circuit:ident| $layer:expr;)*) => {$(
        mod $name {
            use super::*;

            async fn law(path: &str, router: impl FnOnce(Circuit, Patient) -> Router) {
                watchdog(async { Site::new(router).await.outage_and_recovery(path).await }).await;
            }

            #[tokio::test]
            async fn by_router_layer() {
                law("/a", |$circuit, patient| {
                    Router::new().route("/a", handler(patient)).layer($layer)
                })
                .await;
            }

            #[tokio::test]
            async fn by_route_layer() {
                law("/a", |$circuit, patient| {
                    Router::new().route("/a", handler(patient)).route_layer($layer)
                })
                .await;
            }

            #[tokio::test]
            async fn by_method_router_layer() {
                law("/a", |$circuit, patient| {
                    Router::new().route("/a", handler(patient).layer($layer))
                })
                .await;
            }

            #[tokio::test]
            async fn by_method_router_route_layer() {
                law("/a", |$circuit, patient| {
                    Router::new().route("/a", handler(patient).route_layer($layer))
                })
                .await;
            }

            #[tokio::test]
            async fn inside_a_nested_router() {
                law("/in/a", |$circuit, patient| {
                    let inner = Router::new().route("/a", handler(patient)).layer($layer);
                    Router::new().nest("/in", inner)
                })
                .await;
            }

            #[tokio::test]
            async fn around_a_nested_router() {
                law("/in/a", |$circuit, patient| {
                    let inner = Router::new().route("/a", handler(patient));
                    Router::new().nest("/in", inner).layer($layer)
                })
                .await;
            }

            #[tokio::test]
            async fn inside_a_merged_router() {
                law("/a", |$circuit, patient| {
                    let inner = Router::new().route("/a", handler(patient)).layer($layer);
                    Router::new().route("/b", get(async || "b")).merge(inner)
                })
                .await;
            }

            #[tokio::test]
            async fn around_the_fallback_handler() {
                law("/no/such/route", |$circuit, patient| {
                    Router::new().fallback_service(handler(patient)).layer($layer)
                })
                .await;
            }
        }
    )*};
}

mounted_in_every_way! {
    with_a_fallback: |circuit| answering!(circuit);
    with_an_async_fallback: |circuit| CircuitBreakerLayer::new(circuit).fallback_with(
        async |_: Request<Body>, open| service_unavailable::<Body>(open),
    );
    with_handle_error: |circuit| handled!(circuit, WhenOpen::Error);
    with_handle_error_and_defer: |circuit| handled!(circuit, WhenOpen::Defer);
}

#[tokio::test]
async fn one_layer_is_one_circuit_for_all_its_routes() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            Router::new()
                .route("/a", handler(patient.clone()))
                .route("/b", handler(patient))
                .layer(answering!(circuit))
        })
        .await;
        site.fail_until_open("/a").await;
        assert_refused(&site.get("/b").await, 5);
    })
    .await;
}

#[tokio::test]
async fn calls_spread_over_routes_add_up() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            let nested = Router::new().route("/c", handler(patient.clone()));
            Router::new()
                .route("/a", handler(patient.clone()))
                .route("/b", handler(patient))
                .nest("/in", nested)
                .layer(answering!(circuit))
        })
        .await;
        site.patient.set_sick(true);
        for path in ["/a", "/b", "/in/c"] {
            assert_eq!(site.get(path).await.status, StatusCode::INTERNAL_SERVER_ERROR);
        }
        assert_refused(&site.get("/a").await, 5);
    })
    .await;
}

#[tokio::test]
async fn what_is_outside_the_breaker_is_served_on() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            let inner = Router::new().route("/a", handler(patient.clone()));
            Router::new()
                .nest("/in", inner.layer(answering!(circuit.clone())))
                .route("/a", handler(patient.clone()).layer(answering!(circuit)))
                .route("/b", handler(patient))
        })
        .await;
        site.fail_until_open("/in/a").await;
        assert_refused(&site.get("/a").await, 5);
        site.patient.set_sick(false);
        assert_eq!(site.get("/b").await.status, StatusCode::OK);
        assert_eq!(site.get("/c").await.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test]
async fn a_layer_refuses_unknown_paths_too_and_a_route_layer_does_not() {
    watchdog(async {
        let layered = Site::new(|circuit, patient| {
            Router::new().route("/a", handler(patient)).layer(answering!(circuit))
        })
        .await;
        layered.fail_until_open("/a").await;
        assert_refused(&layered.get("/unknown").await, 5);

        let route_layered = Site::new(|circuit, patient| {
            Router::new().route("/a", handler(patient)).route_layer(answering!(circuit))
        })
        .await;
        route_layered.fail_until_open("/a").await;
        assert_refused(&route_layered.get("/a").await, 5);
        assert_eq!(route_layered.get("/unknown").await.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_path_is_an_answer_and_no_failure() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            Router::new().route("/a", handler(patient)).layer(answering!(circuit))
        })
        .await;
        for _ in 0..20 {
            assert_eq!(site.get("/unknown").await.status, StatusCode::NOT_FOUND);
        }
        assert_eq!(site.circuit.state(), State::Closed);
        assert_eq!(site.circuit.snapshot().totals.success, 20);
    })
    .await;
}

#[tokio::test]
async fn a_refused_head_has_the_head_of_the_answer_only() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            Router::new().route("/a", handler(patient)).layer(answering!(circuit))
        })
        .await;
        site.circuit.trip();
        let said = site.caller.fetch(Method::HEAD, &format!("{}/a", site.url)).await.unwrap();
        assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said.header("retry-after"), Some("5"));
        assert!(said.body.is_empty());
        assert_eq!(site.patient.hits(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_fallback_of_ones_own_sees_the_request_and_the_refusal() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            let breaker = CircuitBreakerLayer::new(circuit).fallback_with(
                async |request: Request<Body>, open: CircuitOpen| {
                    let path = request.uri().path();
                    Response::new(Body::from(format!("{path} of {} is cached", open.name())))
                },
            );
            Router::new().route("/a", handler(patient)).layer(breaker)
        })
        .await;
        site.fail_until_open("/a").await;
        let said = site.get("/a").await;
        assert_eq!((said.status, &*said.body), (StatusCode::OK, &b"/a of stacks is cached"[..]));
        assert_eq!(site.patient.hits(), 3);
        assert_eq!(site.circuit.snapshot().totals.rejected, 1);
    })
    .await;
}

/// A layer whose service fails with this error.
fn failing(
    error: fn() -> BoxError,
) -> impl tower::Layer<
    axum::routing::Route,
    Service = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>,
> + Clone {
    layer_fn(move |_| {
        BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
            std::future::ready(Err::<Response<Body>, _>(error()))
        }))
    })
}

#[tokio::test]
async fn handle_error_answers_other_errors_by_their_kind() {
    let elapsed: fn() -> BoxError = || tower::timeout::error::Elapsed::new().into();
    let overloaded: fn() -> BoxError = || tower::load_shed::error::Overloaded::new().into();
    let secret: fn() -> BoxError = || "postgres://root:hunter2@db/ refused".into();
    let cases = [
        (elapsed, StatusCode::GATEWAY_TIMEOUT),
        (overloaded, StatusCode::SERVICE_UNAVAILABLE),
        (secret, StatusCode::INTERNAL_SERVER_ERROR),
    ];
    watchdog(async {
        for (error, status) in cases {
            let site = Site::new(|circuit, patient| {
                let stack = handled!(circuit, WhenOpen::Defer).layer(failing(error));
                Router::new().route("/a", handler(patient)).layer(stack)
            })
            .await;
            let said = site.get("/a").await;
            assert_eq!(said.status, status);
            assert_eq!(said.header("retry-after"), None);
            let problem = problem(&said);
            assert!(problem.get("circuit").is_none(), "no circuit refused this");
            assert!(!problem.to_string().contains("hunter2"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_timeout_inside_the_breaker_opens_it_and_answers_504_until_then() {
    watchdog(async {
        let site = Site::new(|circuit, _| {
            let stack = handled!(circuit, WhenOpen::Defer).timeout(MILLISECOND);
            let hangs = get(async || std::future::pending::<()>().await);
            Router::new().route("/a", hangs).layer(stack)
        })
        .await;
        for _ in 0..3 {
            assert_eq!(site.get("/a").await.status, StatusCode::GATEWAY_TIMEOUT);
        }
        assert_refused(&site.get("/a").await, 5);
    })
    .await;
}

#[tokio::test]
async fn a_held_open_circuit_names_no_time_where_there_is_no_end() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            Router::new().route("/a", handler(patient)).layer(answering!(circuit))
        })
        .await;
        let held = tower_breaker::Override::force_open().until_cleared();
        site.circuit.set_override(held);
        let said = site.get("/a").await;
        assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said.header("retry-after"), None);
        assert!(problem(&said).get("retry_after").is_none());
        assert_eq!(site.patient.hits(), 0);
    })
    .await;
}

/// axum takes a service only if it cannot fail: with a fallback it cannot.
#[tokio::test]
async fn with_a_fallback_the_error_stays_infallible() {
    fn infallible<S: tower::Service<Request<Body>, Error = Infallible>>(_: &S) {}

    let patient = Patient::new();
    let breaker = answering!(circuit(&ManualClock::new()));
    infallible(&tower::Layer::layer(&breaker, handler(patient)));
}
