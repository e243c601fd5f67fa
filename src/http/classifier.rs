//! The classifier of HTTP and gRPC responses, and closures in its place.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::{
    grpc, retry_after,
    view::{HttpHead, HttpView},
};
use crate::{
    circuit::Circuit, classify::Classify, error::BoxError, layer::CircuitBreakerLayer,
    outcome::Outcome,
};

/// Judges an HTTP call by its status and, if asked, its latency.
///
/// | end of the call | outcome |
/// |---|---|
/// | an error | failure |
/// | slower than [`slow_is_failure`](Self::slow_is_failure), if set | failure |
/// | gRPC with a `grpc-status` of 2, 4, 13, 14 or 15 | failure |
/// | gRPC with a `grpc-status` of 1 or 8 | ignored |
/// | gRPC with any other `grpc-status` | success |
/// | status 500 and above | failure |
/// | status 429 | ignored |
/// | any other status | success |
///
/// The first line that fits decides. A 429 says that this caller is too
/// eager, not that the dependency is sick; a 4xx is an answer.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{CircuitBreakerLayer, Config, HttpClassifier};
///
/// let layer = CircuitBreakerLayer::new(Config::default())
///     .classify(HttpClassifier::new().slow_is_failure(Duration::from_secs(1)));
/// ```
///
/// A [`Throttle`](crate::Throttle) is there for those who shed load. It sees
/// that they do where a 429 and gRPC's `RESOURCE_EXHAUSTED` (8; of a call that is
/// shed it is in the head) are failures:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_breaker::{CircuitBreakerLayer, Config, HttpClassifier, Outcome, Throttle};
/// # use http::Response;
/// # use tower::{BoxError, Layer, ServiceExt, service_fn};
///
/// # async fn run() -> Result<(), BoxError> {
/// let config = Config::builder("search").no_failure_rate().throttle(Throttle::new(2.0));
/// let is_exhausted = |headers: &HeaderMap| {
///     headers.get("grpc-status").is_some_and(|status| status == "8")
/// };
/// let layer = CircuitBreakerLayer::new(config.build()?).classify_http(move |view| {
///     match view.status() {
///         Some(StatusCode::TOO_MANY_REQUESTS) => Outcome::Failure,
///         _ if view.headers().is_some_and(is_exhausted) => Outcome::Failure,
///         _ => HttpClassifier::new().outcome(view),
///     }
/// });
/// # let service = layer.layer(service_fn(async |call: usize| {
/// #     let shed = Response::builder();
/// #     Ok::<_, BoxError>(match call {
/// #         0..5 => shed.status(429).body(())?,
/// #         _ => shed.header("content-type", "application/grpc").header("grpc-status", "8").body(())?,
/// #     })
/// # }));
/// # for call in 0..10 {
/// #     service.clone().oneshot(call).await?;
/// # }
/// # let snapshot = layer.circuit().snapshot();
/// # assert_eq!(snapshot.totals.failure, 10);
/// # assert!(snapshot.admitted_share.is_some_and(|share| share < 0.1));
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpClassifier {
    slow_after: Option<Duration>,
}

impl HttpClassifier {
    /// Judges by the status alone.
    pub const fn new() -> Self {
        Self { slow_after: None }
    }

    /// Turns a response that took longer than this into a failure. Costs two
    /// readings of the clock a call.
    pub const fn slow_is_failure(mut self, longer_than: Duration) -> Self {
        self.slow_after = Some(longer_than);
        self
    }

    /// The outcome of a call. For closures that decide some cases themselves:
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_breaker::{CircuitBreakerLayer, Config, HttpClassifier, Outcome};
    ///
    /// let layer = CircuitBreakerLayer::new(Config::default()).classify_http(|view| {
    ///     match view.status() {
    ///         Some(StatusCode::NOT_IMPLEMENTED) => Outcome::Success,
    ///         _ => HttpClassifier::new().outcome(view),
    ///     }
    /// });
    /// ```
    #[inline(always)]
    pub fn outcome(&self, view: HttpView<'_>) -> Outcome {
        let Ok((status, headers)) = view.result else { return Outcome::Failure };
        if self.slow_after.is_some_and(|slow| view.latency > slow) {
            return Outcome::Failure;
        }
        if let Some(outcome) = grpc::outcome_of_head(headers) {
            return outcome;
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS => Outcome::Ignored,
            status if status.as_u16() >= 500 => Outcome::Failure,
            _ => Outcome::Success,
        }
    }
}

impl<R: HttpHead> Classify<R> for HttpClassifier {
    #[inline(always)]
    fn classify(&self, result: Result<&R, &BoxError>, latency: Duration) -> Outcome {
        self.outcome(HttpView::new(result, latency))
    }

    fn judges_latency(&self) -> bool {
        self.slow_after.is_some()
    }

    fn retry_after(&self, response: &R) -> Option<Duration> {
        retry_after::hint(response.status(), response.headers())
    }
}

/// A closure that judges HTTP calls; made by
/// [`classify_http`](CircuitBreakerLayer::classify_http).
#[derive(Clone, Copy)]
pub struct ClassifyHttp<F>(F);

impl<F, R> Classify<R> for ClassifyHttp<F>
where
    F: Fn(HttpView<'_>) -> Outcome,
    R: HttpHead,
{
    fn classify(&self, result: Result<&R, &BoxError>, latency: Duration) -> Outcome {
        (self.0)(HttpView::new(result, latency))
    }

    fn retry_after(&self, response: &R) -> Option<Duration> {
        retry_after::hint(response.status(), response.headers())
    }
}

impl<F> fmt::Debug for ClassifyHttp<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClassifyHttp<{}>", std::any::type_name::<F>())
    }
}

impl CircuitBreakerLayer<HttpClassifier> {
    /// A layer for HTTP services, judged by [`HttpClassifier`].
    ///
    /// Takes a [`Config`](crate::Config), or a [`Circuit`] to share.
    pub fn new(circuit: impl Into<Circuit>) -> Self {
        Self::with_classifier(circuit, HttpClassifier::new())
    }
}

impl<C, O, T> CircuitBreakerLayer<C, O, T> {
    /// Sets a closure that decides by status, headers, error and latency; it
    /// needs no type annotation in any stack.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{CircuitBreakerLayer, Config, Outcome};
    ///
    /// let layer = CircuitBreakerLayer::new(Config::default()).classify_http(|view| {
    ///     let is_down = view.status().is_none_or(|status| status.is_server_error());
    ///     if is_down || view.latency() > Duration::from_secs(1) {
    ///         Outcome::Failure
    ///     } else {
    ///         Outcome::Success
    ///     }
    /// });
    /// ```
    pub fn classify_http<F>(self, classifier: F) -> CircuitBreakerLayer<ClassifyHttp<F>, O, T>
    where
        F: Fn(HttpView<'_>) -> Outcome,
    {
        self.classify(ClassifyHttp(classifier))
    }
}
