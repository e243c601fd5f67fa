//! The layer: one circuit for every service it makes.

use std::{future::Future, time::Duration};

use tower_layer::Layer;

use crate::{
    circuit::{Circuit, CircuitOpen},
    classify::{Classify, ClassifyFn},
    ending::AtHead,
    error::BoxError,
    fallback::{
        Fallback, FallbackOnFailure, FallbackOnFailureWith, FallbackService, FallbackWith, Reject,
        Why,
    },
    outcome::Outcome,
    service::{CircuitBreaker, WhenOpen},
};

/// Puts a circuit breaker before a service.
///
/// One layer is one [`Circuit`], shared by every service it makes and by
/// their clones: frameworks call [`Layer::layer`] once a route, and some once
/// a request.
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_breaker::{CircuitBreakerLayer, CircuitOpen, Config};
///
/// # fn main() -> Result<(), BoxError> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// let layer = CircuitBreakerLayer::new(Config::builder("inventory").build()?);
/// let circuit = layer.circuit().clone();
/// let mut service = ServiceBuilder::new().layer(layer).service(service_fn(
///     async |_: Request<()>| Ok::<_, BoxError>(Response::new("hello")),
/// ));
///
/// let response = service.ready().await?.call(Request::new(())).await?;
/// assert_eq!(response.into_body(), "hello");
///
/// circuit.trip();
/// let error = service.ready().await.unwrap_err();
/// assert!(error.is::<CircuitOpen>());
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is put before a service"]
pub struct CircuitBreakerLayer<C, O = Reject, T = AtHead> {
    circuit: Circuit,
    classifier: C,
    on_open: O,
    when_open: WhenOpen,
    ending: T,
}

impl<C> CircuitBreakerLayer<C> {
    /// A layer for services of any kind, judged by `classifier`. For HTTP
    /// there is `CircuitBreakerLayer::new`.
    ///
    /// Takes a [`Config`](crate::Config), or a [`Circuit`] to share.
    pub fn with_classifier(circuit: impl Into<Circuit>, classifier: C) -> Self {
        Self {
            circuit: circuit.into(),
            classifier,
            on_open: Reject,
            when_open: WhenOpen::default(),
            ending: AtHead,
        }
    }
}

impl<C, O, T> CircuitBreakerLayer<C, O, T> {
    /// The circuit of every service this layer makes.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Sets who decides what a response or an error says.
    ///
    /// It is cloned for every call; keep shared state in an `Arc`.
    pub fn classify<D>(self, classifier: D) -> CircuitBreakerLayer<D, O, T> {
        CircuitBreakerLayer {
            circuit: self.circuit,
            classifier,
            on_open: self.on_open,
            when_open: self.when_open,
            ending: self.ending,
        }
    }

    /// Sets a closure that decides what a response of any type, or an error,
    /// says; it is given the latency too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{CircuitBreakerLayer, Config, Outcome};
    ///
    /// struct Reply { code: u16 }
    ///
    /// let layer = CircuitBreakerLayer::new(Config::default()).classify_fn(
    ///     |result: Result<&Reply, _>, latency| match result {
    ///         Ok(reply) if reply.code < 500 && latency < Duration::from_secs(1) => Outcome::Success,
    ///         Ok(_) | Err(_) => Outcome::Failure,
    ///     },
    /// );
    /// ```
    pub fn classify_fn<Response, F>(self, classifier: F) -> CircuitBreakerLayer<ClassifyFn<F>, O, T>
    where
        F: Fn(Result<&Response, &BoxError>, Duration) -> Outcome,
        ClassifyFn<F>: Classify<Response>,
    {
        self.classify(ClassifyFn(classifier))
    }

    /// Sets what `poll_ready` does while the circuit admits nothing.
    pub fn when_open(mut self, when_open: WhenOpen) -> Self {
        self.when_open = when_open;
        self
    }

    /// Answers in place of the error, and so keeps the inner service's error
    /// type. The closure returns a response, or a `Result` with that error.
    ///
    /// The inner error must be a `std::error::Error` or `tower::BoxError`.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use tower_breaker::{CircuitBreakerLayer, CircuitOpen, Config};
    /// # use std::convert::Infallible;
    /// # use http::Request;
    /// # use tower::{Layer, Service, ServiceExt, service_fn};
    /// # fn main() -> Result<(), Infallible> {
    /// let layer = CircuitBreakerLayer::new(Config::default()).fallback(|open: CircuitOpen| {
    ///     let mut response = Response::new(format!("{} is down", open.name()));
    ///     *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    ///     response
    /// });
    /// # layer.circuit().trip();
    /// # let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # let response = runtime.block_on(layer.layer(inner).oneshot(Request::new(())))?;
    /// # assert_eq!(response.into_body(), "default is down");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fallback<F, A, Kind>(self, fallback: F) -> CircuitBreakerLayer<C, Fallback<F, Kind>, T>
    where
        F: Fn(CircuitOpen) -> A,
    {
        self.on_open(Fallback::new(fallback))
    }

    /// Answers in place of the error with what an async closure makes of the
    /// request that would have been sent; otherwise like
    /// [`fallback`](Self::fallback).
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower_breaker::{CircuitBreakerLayer, CircuitOpen, Config};
    /// # use std::convert::Infallible;
    /// # use tower::{Layer, Service, ServiceExt, service_fn};
    /// # async fn cached(path: &str) -> String { path.to_owned() }
    /// # fn main() -> Result<(), Infallible> {
    /// let layer = CircuitBreakerLayer::new(Config::default()).fallback_with(
    ///     |request: Request<()>, _open| async move {
    ///         Response::new(cached(request.uri().path()).await)
    ///     },
    /// );
    /// # layer.circuit().trip();
    /// # let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # let response = runtime.block_on(layer.layer(inner).oneshot(Request::new(())))?;
    /// # assert_eq!(response.into_body(), "/");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fallback_with<Request, F, Fut, Kind>(
        self,
        fallback: F,
    ) -> CircuitBreakerLayer<C, FallbackWith<F, Kind>, T>
    where
        F: Fn(Request, CircuitOpen) -> Fut,
        Fut: Future,
    {
        self.on_open(FallbackWith::new(fallback))
    }

    /// Sends requests that are refused to another service, in place of the
    /// error; otherwise like [`fallback`](Self::fallback).
    ///
    /// It is cloned for each of them, and called when it is ready. Its error
    /// must be `Into` that of the inner service. A breaker of its own may stand
    /// before it.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{BoxError, Layer, ServiceExt, service_fn};
    /// use tower_breaker::{CircuitBreakerLayer, Config};
    ///
    /// # async fn run() -> Result<(), BoxError> {
    /// let main = service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new("main")));
    /// let spare = service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new("spare")));
    ///
    /// let layer = CircuitBreakerLayer::new(Config::default()).fallback_service(spare);
    /// layer.circuit().trip();
    /// let response = layer.layer(main).oneshot(Request::new(())).await?;
    /// assert_eq!(response.into_body(), "spare");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn fallback_service<F, Kind>(
        self,
        service: F,
    ) -> CircuitBreakerLayer<C, FallbackService<F, Kind>, T> {
        self.on_open(FallbackService::new(service))
    }

    /// Answers for calls that failed, too, not only for those that were
    /// refused: the closure is told [why](Why) it is asked, and may give back
    /// what the call came to.
    ///
    /// It is asked when the classifier judges a response or an error a failure,
    /// and for an error that says the call never got there. The circuit counts
    /// the call's own outcome, whatever the fallback comes to. Where a call
    /// goes on [to the end of its body](Self::until_end_of_body), a failure
    /// after the head comes too late: the head has gone to the caller.
    ///
    /// Cloned for every call. The request is gone when a call has failed; a
    /// fallback that wants it takes
    /// [`fallback_on_failure_with`](Self::fallback_on_failure_with).
    ///
    /// ```
    /// use http::Response;
    /// use tower_breaker::{CircuitBreakerLayer, Config, Why};
    /// # use http::Request;
    /// # use tower::{BoxError, Layer, ServiceExt, service_fn};
    /// # async fn run() -> Result<(), BoxError> {
    ///
    /// let layer = CircuitBreakerLayer::new(Config::default())
    ///     .fallback_on_failure(|_why: Why<_, BoxError>| Response::new("the default"));
    /// # let inner = service_fn(async |_: Request<()>| Err::<Response<&str>, BoxError>("reset".into()));
    /// # let response = layer.layer(inner).oneshot(Request::new(())).await?;
    /// # assert_eq!(response.into_body(), "the default");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn fallback_on_failure<Response, E, F, A, Kind>(
        self,
        fallback: F,
    ) -> CircuitBreakerLayer<C, FallbackOnFailure<F, Kind>, T>
    where
        F: Fn(Why<Response, E>) -> A,
    {
        self.on_open(FallbackOnFailure::new(fallback))
    }

    /// Answers for calls that were refused or failed with what an async closure
    /// makes of the request; otherwise like
    /// [`fallback_on_failure`](Self::fallback_on_failure).
    ///
    /// A call consumes its request, so each is cloned up front, by
    /// `clone_request`, also those that go well. Where that gives `None` a
    /// failure passes as it is. A panic in there ends the call as cancelled.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{BoxError, Layer, ServiceExt, service_fn};
    /// use tower_breaker::{CircuitBreakerLayer, Config, Why};
    ///
    /// # async fn run() -> Result<(), BoxError> {
    /// let main = service_fn(async |_: Request<()>| Err::<Response<&str>, _>(BoxError::from("reset")));
    /// let spare = service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new("spare")));
    ///
    /// // Another service, for failures too.
    /// let layer = CircuitBreakerLayer::new(Config::default()).fallback_on_failure_with(
    ///     |request: &Request<()>| Some(request.clone()),
    ///     move |request, _: Why<_, BoxError>| spare.clone().oneshot(request),
    /// );
    /// let response = layer.layer(main).oneshot(Request::new(())).await?;
    /// assert_eq!(response.into_body(), "spare");
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn fallback_on_failure_with<Request, Response, E, K, F, Fut, Kind>(
        self,
        clone_request: K,
        fallback: F,
    ) -> CircuitBreakerLayer<C, FallbackOnFailureWith<K, F, Kind>, T>
    where
        K: Fn(&Request) -> Option<Request>,
        F: Fn(Request, Why<Response, E>) -> Fut,
        Fut: Future,
    {
        self.on_open(FallbackOnFailureWith::new(clone_request, fallback))
    }

    #[cfg(feature = "http")]
    pub(crate) fn ending<U>(self, ending: U) -> CircuitBreakerLayer<C, O, U> {
        CircuitBreakerLayer {
            circuit: self.circuit,
            classifier: self.classifier,
            on_open: self.on_open,
            when_open: self.when_open,
            ending,
        }
    }

    fn on_open<P>(self, on_open: P) -> CircuitBreakerLayer<C, P, T> {
        CircuitBreakerLayer {
            circuit: self.circuit,
            classifier: self.classifier,
            on_open,
            when_open: self.when_open,
            ending: self.ending,
        }
    }
}

impl<S, C: Clone, O: Clone, T: Copy> Layer<S> for CircuitBreakerLayer<C, O, T> {
    type Service = CircuitBreaker<S, C, O, T>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(
            inner,
            self.circuit.clone(),
            self.classifier.clone(),
            self.on_open.clone(),
            self.when_open,
            self.ending,
        )
    }
}
