//! Second attempts: who gets one, and for what.
//!
//! Only a request that means the same when it is sent twice, by its method
//! (RFC 9110, 9.2.2), and that is at hand to be sent again: without a body, or
//! with one of a known length of up to 64 KiB, which is read first.
//!
//! Only where a second attempt may find what the first did not: no connection,
//! a connection that ended before the response, or a 502, 503 or 504 that does
//! not ask callers to stay away. Not after a timeout of the response: an upstream
//! that hangs has the first request still, and each retry would add to its load.
//!
//! And only from a budget, or retries keep down what has failed: so many for
//! each call of the last ten seconds, and one a second beside, so that a service
//! with few calls gets any. None while the circuit is not closed. Each worker
//! pays from the same one.

use std::time::Duration;

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, timeout_at};
use tower::{
    retry::{
        Policy,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::TpsBudget,
    },
    util::rng::HasherRng,
};
use tower_breaker::RetryBudget;

use super::{Body, BoxError, Timeout, UpstreamError, answer::Source, attempt::OutOfTime, now::now};
use crate::{config, gateway};

/// The longest body that is read to be sent again, in bytes.
pub const LONGEST_BODY: u64 = 64 * 1024;

/// Over how long the budget looks back.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// Pauses before a retry: from the first to the longest, doubled in between, and
/// up to twice as long at random.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

/// That of a service, for all its workers.
pub(super) fn budget(rules: &config::Retry, service: &gateway::Service) -> RetryBudget {
    RetryBudget::new(&service.circuit, TpsBudget::new(BUDGET_WINDOW, 1, rules.budget as f32))
}

/// Which attempt a request is, and when all of them have to have ended. Not
/// with requests that are only passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    number: u32,
    pub(super) deadline: Option<Instant>,
}

/// Makes a request ready to be sent more than once, if it may be. Its total time
/// runs from here on.
pub(super) async fn prepare(
    mut request: Request<Body>,
    total: Option<Duration>,
) -> Result<Request<Body>, BoxError> {
    if !request.method().is_idempotent() {
        return Ok(request);
    }
    let deadline = total.map(|total| now() + total);
    if !request.body().is_end_stream() {
        match request.body().size_hint().upper() {
            Some(length) if length <= LONGEST_BODY => {}
            _ => return Ok(request),
        }
        let (head, body) = request.into_parts();
        let body = match deadline {
            Some(deadline) => {
                timeout_at(deadline, body.collect()).await.map_err(|_| OutOfTime)??
            }
            None => body.collect().await?,
        };
        let trailers = body.trailers().cloned();
        let bytes = body.to_bytes();
        let body = match trailers {
            // They would be lost in a body that can be sent again.
            Some(trailers) => Body::wrap(
                http_body_util::Full::from(bytes)
                    .map_err(|never| match never {})
                    .with_trailers(std::future::ready(Some(Ok(trailers)))),
            ),
            None => Body::full(bytes),
        };
        request = Request::from_parts(head, body);
    }
    request.extensions_mut().insert(Attempt { number: 1, deadline });
    Ok(request)
}

/// Tries again, after a pause, so many times.
#[derive(Clone, Debug)]
pub(super) struct Again {
    attempts: u32,
    pauses: ExponentialBackoff,
}

impl Again {
    pub(super) fn new(rules: &config::Retry) -> Self {
        let (shortest, longest) = PAUSES;
        let pauses = ExponentialBackoffMaker::new(shortest, longest, 1.0, HasherRng::default());
        // Refused is a shortest pause above the longest.
        let pauses = pauses.unwrap_or_default().make_backoff();
        Self { attempts: rules.attempts, pauses }
    }
}

impl Policy<Request<Body>, Response<Body>, BoxError> for Again {
    type Future = Sleep;

    /// The request is the one to be sent next.
    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Sleep> {
        let attempt = request.extensions().get::<Attempt>()?;
        if attempt.number > self.attempts || !may_help(result) {
            return None;
        }
        let pause = self.pauses.next_backoff();
        let is_in_time = attempt.deadline.is_none_or(|deadline| pause.deadline() < deadline);
        is_in_time.then_some(pause)
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let attempt = *request.extensions().get::<Attempt>()?;
        let mut copy = Request::new(request.body().copy()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        copy.extensions_mut().insert(Attempt { number: attempt.number + 1, ..attempt });
        Some(copy)
    }
}

fn may_help(result: &Result<Response<Body>, BoxError>) -> bool {
    match result {
        Ok(response) => {
            // A fallback's answer is the answer.
            response.extensions().get::<Source>().is_none()
                && !response.headers().contains_key(RETRY_AFTER)
                && matches!(
                    response.status(),
                    StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                )
        }
        Err(error) => matches!(
            error.downcast_ref(),
            Some(
                UpstreamError::Connect(_)
                    | UpstreamError::Dns(_)
                    | UpstreamError::Reset(_)
                    | UpstreamError::Timeout { which: Timeout::Connect }
            )
        ),
    }
}
