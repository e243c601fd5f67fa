//! The laws of a breaker in a hyper server that has nothing else: a Tower
//! service in `TowerToHyperService`.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_breaker::{
    Circuit, CircuitBreakerLayer, ManualClock, State, WhenOpen, handle_error, service_unavailable,
};
use tower_breaker_stacks::server::{Caller, Patient, Said, circuit, serve_hyper, watchdog};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

type Answer = Response<Full<Bytes>>;

struct Site {
    url: String,
    patient: Patient,
    clock: ManualClock,
    circuit: Circuit,
}

impl Site {
    async fn new<S, B>(stack: impl FnOnce(Circuit, Patient) -> S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let clock = ManualClock::new();
        let (circuit, patient) = (circuit(&clock), Patient::new());
        let url = serve_hyper(stack(circuit.clone(), patient.clone())).await.unwrap();
        Self { url, patient, clock, circuit }
    }

    /// The whole story: well, sick, open, healed, closed.
    async fn outage_and_recovery(&self, caller: &Caller) {
        let get = async || caller.get(&self.url).await.unwrap();
        let well = get().await;
        assert_eq!((well.status, &*well.body), (StatusCode::OK, &b"200 OK"[..]));
        assert_eq!(well.header("content-length"), Some("6"));

        self.patient.set_sick(true);
        for _ in 0..3 {
            assert_eq!(self.circuit.state(), State::Closed);
            assert_eq!(get().await.status, StatusCode::INTERNAL_SERVER_ERROR);
        }
        assert_eq!(self.circuit.state(), State::Open);

        for _ in 0..5 {
            assert_refused(&get().await, 5);
        }
        self.patient.set_sick(false);
        self.clock.advance(5 * SECOND - MILLISECOND);
        assert_refused(&get().await, 1);
        assert_eq!(self.patient.hits(), 4, "a refused call reached the service");

        self.clock.advance(MILLISECOND);
        assert_eq!(get().await.status, StatusCode::OK);
        assert_eq!(self.circuit.state(), State::HalfOpen);
        assert_eq!(get().await.status, StatusCode::OK);
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
    assert_eq!(said.header("content-type"), Some("application/problem+json"));
    assert_eq!(said.header("content-length"), Some(said.body.len().to_string().as_str()));
    let problem: serde_json::Value = serde_json::from_slice(&said.body).unwrap();
    assert_eq!((&problem["status"], &problem["retry_after"]), (&503.into(), &seconds.into()));
    assert_eq!((&problem["circuit"], &problem["state"]), (&"stacks".into(), &"open".into()));
}

fn answer(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::from(status.to_string()));
    *response.status_mut() = status;
    response
}

/// Answers by the patient's health; `Infallible`, as is usual with hyper.
macro_rules! handler {
    ($patient:expr) => {{
        let patient: Patient = $patient;
        service_fn(move |_: Request<Incoming>| {
            std::future::ready(Ok::<_, Infallible>(answer(patient.visit())))
        })
    }};
}

fn callers() -> [Caller; 2] {
    [Caller::http1(), Caller::http2()]
}

#[tokio::test]
async fn with_a_fallback_it_opens_answers_and_closes() {
    for caller in callers() {
        watchdog(async {
            let site = Site::new(|circuit, patient| {
                ServiceBuilder::new()
                    .layer(CircuitBreakerLayer::new(circuit).fallback(service_unavailable))
                    .service(handler!(patient))
            })
            .await;
            site.outage_and_recovery(&caller).await;
        })
        .await;
    }
}

#[tokio::test]
async fn to_the_end_of_the_body_it_opens_answers_and_closes() {
    for caller in callers() {
        watchdog(async {
            let site = Site::new(|circuit, patient| {
                ServiceBuilder::new()
                    .layer(
                        CircuitBreakerLayer::new(circuit)
                            .fallback(service_unavailable)
                            .until_end_of_body(),
                    )
                    .service(handler!(patient))
            })
            .await;
            site.outage_and_recovery(&caller).await;
        })
        .await;
    }
}

/// `then` maps what `call` gives and not what `poll_ready` does: so `Defer`.
#[tokio::test]
async fn with_handle_error_it_opens_answers_and_closes() {
    for caller in callers() {
        watchdog(async {
            let site = Site::new(|circuit, patient| {
                ServiceBuilder::new()
                    .then(async |result: Result<Answer, BoxError>| match result {
                        Ok(response) => Ok::<_, BoxError>(response),
                        Err(error) => Ok(handle_error(error).await),
                    })
                    .layer(CircuitBreakerLayer::new(circuit).when_open(WhenOpen::Defer))
                    .service(handler!(patient))
            })
            .await;
            site.outage_and_recovery(&caller).await;
        })
        .await;
    }
}

/// hyper has nowhere to put an error: it hangs up (HTTP/1) or resets the
/// stream (HTTP/2). The handler is spared all the same.
#[tokio::test]
async fn without_an_answer_callers_get_none() {
    for when_open in [WhenOpen::Error, WhenOpen::Defer] {
        for caller in callers() {
            watchdog(async {
                let site = Site::new(|circuit, patient| {
                    ServiceBuilder::new()
                        .layer(CircuitBreakerLayer::new(circuit).when_open(when_open))
                        .service(handler!(patient))
                })
                .await;
                assert_eq!(caller.get(&site.url).await.unwrap().status, StatusCode::OK);
                site.circuit.trip();
                caller.get(&site.url).await.unwrap_err();
                assert_eq!(site.patient.hits(), 1);
                site.clock.advance(5 * SECOND);
                for _ in 0..2 {
                    assert_eq!(caller.get(&site.url).await.unwrap().status, StatusCode::OK);
                }
                assert_eq!(site.circuit.state(), State::Closed);
            })
            .await;
        }
    }
}

/// Every connection has a clone of the service, and all are one circuit.
#[tokio::test]
async fn connections_share_the_circuit() {
    watchdog(async {
        let site = Site::new(|circuit, patient| {
            ServiceBuilder::new()
                .layer(CircuitBreakerLayer::new(circuit).fallback(service_unavailable))
                .service(handler!(patient))
        })
        .await;
        site.patient.set_sick(true);
        for caller in [Caller::http1(), Caller::http1(), Caller::http2()] {
            let said = caller.get(&site.url).await.unwrap();
            assert_eq!(said.status, StatusCode::INTERNAL_SERVER_ERROR);
        }
        for caller in callers() {
            assert_refused(&caller.get(&site.url).await.unwrap(), 5);
        }
        assert_eq!(site.patient.hits(), 3);
    })
    .await;
}
