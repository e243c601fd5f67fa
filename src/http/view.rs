//! The end of an HTTP call without its body.

use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};

use crate::error::BoxError;

/// A response that has a status and headers: `http::Response` of any body,
/// and what other crates make of it.
pub trait HttpHead {
    /// The status.
    fn status(&self) -> StatusCode;

    /// The headers.
    fn headers(&self) -> &HeaderMap;
}

impl<B> HttpHead for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

/// The end of an HTTP call without its body: what
/// [`classify_http`](crate::CircuitBreakerLayer::classify_http) judges by.
#[derive(Clone, Copy, Debug)]
pub struct HttpView<'a> {
    pub(super) result: Result<(StatusCode, &'a HeaderMap), &'a BoxError>,
    pub(super) latency: Duration,
}

impl<'a> HttpView<'a> {
    pub(super) fn new<R: HttpHead>(result: Result<&'a R, &'a BoxError>, latency: Duration) -> Self {
        Self { result: result.map(|head| (head.status(), head.headers())), latency }
    }

    /// The response's status; `None` if there was an error instead.
    pub fn status(&self) -> Option<StatusCode> {
        self.result.ok().map(|(status, _)| status)
    }

    /// The response's headers; `None` if there was an error instead.
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        self.result.ok().map(|(_, headers)| headers)
    }

    /// The error; `None` if there was a response.
    pub fn error(&self) -> Option<&'a BoxError> {
        self.result.err()
    }

    /// The time from the call to the response's head, or to the error.
    pub fn latency(&self) -> Duration {
        self.latency
    }
}
