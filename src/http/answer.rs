//! Ready-made answers of an open circuit: a 503 with a problem document, and
//! gRPC's `UNAVAILABLE`.

use std::time::Duration;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use tower::load_shed::error::Overloaded;

use crate::{circuit::CircuitOpen, error::BoxError};

/// Answers 503 with `retry-after` and an RFC 9457 problem document that has
/// the circuit's name, its state and the seconds to wait. For
/// [`fallback`](crate::CircuitBreakerLayer::fallback):
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_breaker::{CircuitBreakerLayer, Config, service_unavailable};
///
/// let breaker = CircuitBreakerLayer::new(Config::default()).fallback(service_unavailable);
/// let app: Router = Router::new().route("/", get(async || "hello")).layer(breaker);
/// ```
pub fn service_unavailable<B: From<String>>(open: CircuitOpen) -> Response<B> {
    // A name needs no escaping: see `Config::builder`.
    let mut members = format!(
        r#","detail":"{open}","circuit":"{}","state":"{}""#,
        open.name(),
        open.state().as_str(),
    );
    let seconds = open.retry_after().map(whole_seconds);
    if let Some(seconds) = seconds {
        members += &format!(r#","retry_after":{seconds}"#);
    }
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &members);
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Answers any error of a stack with a breaker in it, for axum's
/// `HandleErrorLayer`: an open circuit with [`service_unavailable`], a shed
/// load with 503, an elapsed timeout (feature `tokio`) with 504, and
/// everything else with a 500 that tells nothing of the inside.
///
/// In front of a `Router` the error must be handled or answered, or it does not
/// compile: "the trait bound `Infallible: From<Box<dyn Error + …>>` is not
/// satisfied". Handlers other than axum's may not see an error of `poll_ready`:
/// for those choose `WhenOpen::Defer`.
///
/// ```
/// use axum::{Router, body::Body, error_handling::HandleErrorLayer, routing::get};
/// use tower::ServiceBuilder;
/// use tower_breaker::{CircuitBreakerLayer, Config, WhenOpen, handle_error};
///
/// let app: Router = Router::new().route("/", get(async || "hello")).layer(
///     ServiceBuilder::new()
///         .layer(HandleErrorLayer::new(handle_error::<Body>))
///         .layer(CircuitBreakerLayer::new(Config::default()).when_open(WhenOpen::Defer)),
/// );
/// ```
pub async fn handle_error<B: From<String>>(error: BoxError) -> Response<B> {
    if let Some(open) = CircuitOpen::find_in(&*error) {
        service_unavailable(open.clone())
    } else if error.is::<Overloaded>() {
        problem(StatusCode::SERVICE_UNAVAILABLE, "")
    } else if is_elapsed(&error) {
        problem(StatusCode::GATEWAY_TIMEOUT, "")
    } else {
        problem(StatusCode::INTERNAL_SERVER_ERROR, "")
    }
}

/// Answers a gRPC call with `UNAVAILABLE` and `grpc-retry-pushback-ms`, as a
/// response that is all head. For
/// [`fallback`](crate::CircuitBreakerLayer::fallback) in a gRPC server.
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, Layer, ServiceExt, service_fn};
/// use tower_breaker::{CircuitBreakerLayer, Config, grpc_unavailable};
///
/// # async fn run() -> Result<(), BoxError> {
/// let breaker = CircuitBreakerLayer::new(Config::default()).fallback(grpc_unavailable);
/// # let circuit = breaker.circuit().clone();
/// # let grpc_service =
/// #     service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(String::new())));
/// let service = breaker.layer(grpc_service);
/// # circuit.trip();
/// # let response = service.oneshot(Request::new(())).await?;
/// # assert_eq!(response.headers()["grpc-status"], "14");
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
pub fn grpc_unavailable<B: Default>(open: CircuitOpen) -> Response<B> {
    let mut response = Response::new(B::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("14"));
    // Percent-encoded, as gRPC wants it: of all that a refusal says only this.
    if let Ok(message) = HeaderValue::try_from(open.to_string().replace('%', "%25")) {
        headers.insert("grpc-message", message);
    }
    if let Some(wait) = open.retry_after() {
        headers.insert("grpc-retry-pushback-ms", whole_millis(wait).into());
    }
    response
}

/// Rounded up, so that who comes back then is let in.
pub(crate) fn whole_millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

fn problem<B: From<String>>(status: StatusCode, members: &str) -> Response<B> {
    let title = status.canonical_reason().unwrap_or_default();
    let code = status.as_u16();
    let body = format!(r#"{{"type":"about:blank","title":"{title}","status":{code}{members}}}"#);
    let mut response = Response::new(B::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(feature = "tokio")]
fn is_elapsed(error: &BoxError) -> bool {
    error.is::<tower::timeout::error::Elapsed>()
}

#[cfg(not(feature = "tokio"))]
fn is_elapsed(_: &BoxError) -> bool {
    false
}
