//! What is around a service's calls.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use tower::{BoxError, ServiceExt};

use super::{Body, UpstreamError, problem};
use crate::gateway;

/// A service's stack, on one worker.
pub fn stack<F>(
    _service: &Arc<gateway::Service>,
    forward: F,
) -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ use<F>
where
    F: tower::Service<Request<Body>, Response = Response<Body>, Error = UpstreamError>
        + Clone
        + Send
        + 'static,
    F::Future: Send,
{
    forward.then(|result: Result<Response<Body>, UpstreamError>| async move {
        Ok::<_, BoxError>(result.unwrap_or_else(|error| {
            let (status, kind) = match error {
                UpstreamError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout"),
                _ => (StatusCode::BAD_GATEWAY, "upstream-failed"),
            };
            problem(status, kind, "The upstream failed", &error.to_string())
        }))
    })
}
