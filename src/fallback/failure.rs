//! Closures that answer for calls that failed, too.

use std::{
    fmt,
    future::{Future, Ready, ready},
    marker::PhantomData,
};

use super::{Answer, AnswerFuture, KeptError, OnFailure, OnOpen, kept::keeps_the_error};
use crate::circuit::{Circuit, CircuitOpen};

/// Why a fallback is asked.
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_breaker::{CircuitBreakerLayer, Config, Why, service_unavailable};
/// # use http::Request;
/// # use tower::{BoxError, Layer, ServiceExt, service_fn};
/// # async fn run() -> Result<(), BoxError> {
///
/// let layer = CircuitBreakerLayer::new(Config::default()).fallback_on_failure(|why| match why {
///     Why::Open(open) => Ok(service_unavailable(open)),
///     Why::Failed(Err(_)) => {
///         let mut response = Response::new("no answer".to_owned());
///         *response.status_mut() = StatusCode::BAD_GATEWAY;
///         Ok(response)
///     }
///     // A response can be given back as it is.
///     Why::Failed(failed) => failed,
/// });
/// # let inner = service_fn(async |_: Request<()>| Err::<Response<String>, BoxError>("reset".into()));
/// # let response = layer.layer(inner).oneshot(Request::new(())).await?;
/// # assert_eq!(response.status(), 502);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Debug)]
pub enum Why<Response, E> {
    /// The call was not let through.
    Open(CircuitOpen),
    /// The call was made, and this is what it came to: an error, or a response
    /// that was judged a failure. The circuit has counted it.
    ///
    /// An error that says the call never got there, because a breaker or a load
    /// shedder further in refused it, is here too. If `poll_ready` gave it, it
    /// was kept until there was a request.
    Failed(Result<Response, E>),
}

/// Answers with what a closure makes of a refusal or a failure; made by
/// [`fallback_on_failure`](crate::CircuitBreakerLayer::fallback_on_failure).
///
/// `Kind` is always inferred: it tells how the inner service's error is kept.
pub struct FallbackOnFailure<F, Kind> {
    make: F,
    kind: PhantomData<fn() -> Kind>,
}

impl<F, Kind> FallbackOnFailure<F, Kind> {
    pub(crate) const fn new(make: F) -> Self {
        Self { make, kind: PhantomData }
    }

    fn answer_to<A, Response, E>(
        &self,
        why: Why<Response, E>,
        circuit: &Circuit,
    ) -> AnswerFuture<Ready<Result<Response, E>>, Response, E>
    where
        F: Fn(Why<Response, E>) -> A,
        A: Answer<Response, E>,
    {
        AnswerFuture::new(circuit, || ready((self.make)(why).into_result()))
    }
}

keeps_the_error!(FallbackOnFailure<F>);

#[diagnostic::do_not_recommend]
impl<F, A, Kind, Request, Response, E> OnOpen<Request, Response, E> for FallbackOnFailure<F, Kind>
where
    F: Fn(Why<Response, E>) -> A + Clone,
    A: Answer<Response, E>,
    E: KeptError<Kind>,
{
    type Future = AnswerFuture<Ready<Result<Response, E>>, Response, E>;
    type OnFailure = Self;

    const ANSWERS: bool = true;

    fn answer(&self, _: Request, open: CircuitOpen, circuit: &Circuit) -> Self::Future {
        self.answer_to(Why::Open(open), circuit)
    }

    fn answer_for(&self, _: Request, refusal: E, circuit: &Circuit) -> Self::Future {
        self.answer_to(Why::Failed(Err(refusal)), circuit)
    }

    fn on_failure(&self, _: &Request) -> Self {
        self.clone()
    }
}

impl<F, A, Kind, Response, E>
    OnFailure<Response, E, AnswerFuture<Ready<Result<Response, E>>, Response, E>>
    for FallbackOnFailure<F, Kind>
where
    F: Fn(Why<Response, E>) -> A,
    A: Answer<Response, E>,
    E: KeptError<Kind>,
{
    const ANSWERS: bool = true;

    fn answer(
        &mut self,
        failed: Result<Response, E>,
        circuit: &Circuit,
    ) -> Result<AnswerFuture<Ready<Result<Response, E>>, Response, E>, Result<Response, E>> {
        Ok(self.answer_to(Why::Failed(failed), circuit))
    }
}

impl<F: Clone, Kind> Clone for FallbackOnFailure<F, Kind> {
    fn clone(&self) -> Self {
        Self::new(self.make.clone())
    }
}

impl<F, Kind> fmt::Debug for FallbackOnFailure<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FallbackOnFailure<{}>", std::any::type_name::<F>())
    }
}

/// Answers with what an async closure makes of the request and a refusal or a
/// failure; made by
/// [`fallback_on_failure_with`](crate::CircuitBreakerLayer::fallback_on_failure_with).
///
/// `Kind` is always inferred: it tells how the inner service's error is kept.
pub struct FallbackOnFailureWith<K, F, Kind> {
    clone_request: K,
    make: F,
    kind: PhantomData<fn() -> Kind>,
}

impl<K, F, Kind> FallbackOnFailureWith<K, F, Kind> {
    pub(crate) const fn new(clone_request: K, make: F) -> Self {
        Self { clone_request, make, kind: PhantomData }
    }
}

keeps_the_error!(FallbackOnFailureWith<K, F>);

#[diagnostic::do_not_recommend]
impl<K, F, Fut, Kind, Request, Response, E> OnOpen<Request, Response, E>
    for FallbackOnFailureWith<K, F, Kind>
where
    K: Fn(&Request) -> Option<Request>,
    F: Fn(Request, Why<Response, E>) -> Fut + Clone,
    Fut: Future,
    Fut::Output: Answer<Response, E>,
    E: KeptError<Kind>,
{
    type Future = AnswerFuture<Fut, Response, E>;
    type OnFailure = SpareRequest<Request, F, Kind>;

    const ANSWERS: bool = true;

    fn answer(&self, request: Request, open: CircuitOpen, circuit: &Circuit) -> Self::Future {
        AnswerFuture::new(circuit, || (self.make)(request, Why::Open(open)))
    }

    fn answer_for(&self, request: Request, refusal: E, circuit: &Circuit) -> Self::Future {
        AnswerFuture::new(circuit, || (self.make)(request, Why::Failed(Err(refusal))))
    }

    fn on_failure(&self, request: &Request) -> Self::OnFailure {
        let spare = (self.clone_request)(request).map(|request| (request, self.make.clone()));
        SpareRequest { spare, kind: PhantomData }
    }
}

impl<K: Clone, F: Clone, Kind> Clone for FallbackOnFailureWith<K, F, Kind> {
    fn clone(&self) -> Self {
        Self::new(self.clone_request.clone(), self.make.clone())
    }
}

impl<K, F, Kind> fmt::Debug for FallbackOnFailureWith<K, F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FallbackOnFailureWith<{}>", std::any::type_name::<F>())
    }
}

/// The clone of a request, taken along by its call in case that fails.
pub struct SpareRequest<Request, F, Kind> {
    /// `None`: there is no clone of this one.
    spare: Option<(Request, F)>,
    kind: PhantomData<fn() -> Kind>,
}

keeps_the_error!(SpareRequest<Request, F>);

impl<F, Fut, Kind, Request, Response, E> OnFailure<Response, E, AnswerFuture<Fut, Response, E>>
    for SpareRequest<Request, F, Kind>
where
    F: Fn(Request, Why<Response, E>) -> Fut,
    E: KeptError<Kind>,
{
    const ANSWERS: bool = true;

    fn answer(
        &mut self,
        failed: Result<Response, E>,
        circuit: &Circuit,
    ) -> Result<AnswerFuture<Fut, Response, E>, Result<Response, E>> {
        let Some((request, make)) = self.spare.take() else { return Err(failed) };
        Ok(AnswerFuture::new(circuit, || make(request, Why::Failed(failed))))
    }
}

impl<Request, F, Kind> fmt::Debug for SpareRequest<Request, F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpareRequest").finish_non_exhaustive()
    }
}
