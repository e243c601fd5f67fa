//! Who decides what a response, or an error, says about the dependency.

use std::{fmt, time::Duration};

use crate::{error::BoxError, outcome::Outcome};

/// Decides what the end of a call says about the dependency.
///
/// Errors that prove nothing never get here, because the call was refused
/// further in: [`CircuitOpen`](crate::CircuitOpen) of another breaker, and
/// `tower::load_shed::error::Overloaded`. They are
/// [`Ignored`](Outcome::Ignored).
///
/// For HTTP there is [`HttpClassifier`](crate::HttpClassifier); for one rule
/// of your own a closure will do, given to
/// [`classify_http`](crate::CircuitBreakerLayer::classify_http) or
/// [`classify_fn`](crate::CircuitBreakerLayer::classify_fn).
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{BoxError, Classify, Outcome};
///
/// /// Knows a reply that says "try again later".
/// #[derive(Clone)]
/// struct Busy;
///
/// impl Classify<String> for Busy {
///     fn classify(&self, result: Result<&String, &BoxError>, _latency: Duration) -> Outcome {
///         match result {
///             Ok(reply) if reply == "BUSY" => Outcome::Failure,
///             Ok(_) => Outcome::Success,
///             Err(_) => Outcome::Failure,
///         }
///     }
///
///     fn judges_latency(&self) -> bool {
///         false
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot judge a response of type `{Response}`",
    note = "`CircuitBreakerLayer::new` judges HTTP responses; for others say how with \
            `.classify_fn(|result: Result<&{Response}, _>, latency| …)` or start with \
            `CircuitBreakerLayer::with_classifier(config, ResultClassifier::new())`"
)]
pub trait Classify<Response> {
    /// Decides. The latency is that from the call to the response's head; it
    /// is zero if nobody asked for it to be measured: neither
    /// [`judges_latency`](Self::judges_latency) nor a rule, say.
    fn classify(&self, result: Result<&Response, &BoxError>, latency: Duration) -> Outcome;

    /// Whether the latency matters, which costs two readings of the clock a
    /// call.
    fn judges_latency(&self) -> bool {
        true
    }

    /// For how long a response that was no success asks callers to stay away.
    /// Should the circuit open, it stays open at least that long, up to the
    /// longest wait it is configured with.
    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let _ = response;
        None
    }
}

/// Judges by the `Result` alone: an error is a failure, a response a success.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{CircuitBreakerLayer, Config, ResultClassifier};
///
/// let classifier = ResultClassifier::new().slow_is_failure(Duration::from_secs(1));
/// let layer = CircuitBreakerLayer::with_classifier(Config::default(), classifier);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultClassifier {
    slow_after: Option<Duration>,
}

impl ResultClassifier {
    /// Judges by the `Result` alone.
    pub const fn new() -> Self {
        Self { slow_after: None }
    }

    /// Turns a response that took longer than this into a failure.
    pub const fn slow_is_failure(mut self, longer_than: Duration) -> Self {
        self.slow_after = Some(longer_than);
        self
    }
}

impl<Response> Classify<Response> for ResultClassifier {
    fn classify(&self, result: Result<&Response, &BoxError>, latency: Duration) -> Outcome {
        match result {
            Ok(_) if self.slow_after.is_some_and(|slow| latency > slow) => Outcome::Failure,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }

    fn judges_latency(&self) -> bool {
        self.slow_after.is_some()
    }
}

/// A closure that judges; made by
/// [`classify_fn`](crate::CircuitBreakerLayer::classify_fn).
#[derive(Clone, Copy)]
pub struct ClassifyFn<F>(pub(crate) F);

impl<F, Response> Classify<Response> for ClassifyFn<F>
where
    F: Fn(Result<&Response, &BoxError>, Duration) -> Outcome,
{
    fn classify(&self, result: Result<&Response, &BoxError>, latency: Duration) -> Outcome {
        (self.0)(result, latency)
    }
}

impl<F> fmt::Debug for ClassifyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClassifyFn<{}>", std::any::type_name::<F>())
    }
}
