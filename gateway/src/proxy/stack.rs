//! What is around a service's calls.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use tower::Service;

use super::{Body, BoxError, Timeout, UpstreamError, body::Upload, now::now, problem};
use crate::gateway;

/// The stack of one service on one worker.
#[derive(Clone)]
pub struct Stack<F> {
    service: Arc<gateway::Service>,
    forward: F,
}

/// Builds it around what sends a request to the upstream.
pub fn stack<F>(service: &Arc<gateway::Service>, forward: F) -> Stack<F> {
    Stack { service: Arc::clone(service), forward }
}

/// The same, for a service that falls back on another upstream.
pub fn stack_with_fallback<F>(service: &Arc<gateway::Service>, forward: F, _spare: F) -> Stack<F> {
    stack(service, forward)
}

impl<F> Service<Request<Body>> for Stack<F>
where
    F: Service<Request<Body>, Response = Response<Body>, Error = UpstreamError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.forward.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let upload = request.body().upload();
        let timeout = self.service.settings.timeouts.head;
        let call = self.forward.call(request);
        Box::pin(async move {
            let mut call = pin!(call);
            let mut timer = pin!(tokio::time::sleep(timeout));
            let result = loop {
                tokio::select! {
                    biased;
                    result = &mut call => break result,
                    () = &mut timer => {
                        let since = upload.as_ref().map(Upload::upstream_idle_since);
                        match since.map(|since| since + timeout) {
                            Some(over) if over > now() => timer.as_mut().reset(over),
                            _ => break Err(UpstreamError::Timeout { which: Timeout::Head }),
                        }
                    }
                }
            };
            Ok(result.unwrap_or_else(|error| {
                let (status, kind) = match error {
                    UpstreamError::Timeout { .. } => {
                        (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout")
                    }
                    _ => (StatusCode::BAD_GATEWAY, "upstream-failed"),
                };
                problem(status, kind, "The upstream failed", &error.to_string())
            }))
        })
    }
}
