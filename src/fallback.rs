//! What a caller gets while the circuit is open: the error, or an answer.

use std::{
    error::Error,
    fmt,
    future::{Future, Ready, ready},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::{circuit::CircuitOpen, error::BoxError, sealed::Sealed};

/// The error type towards the caller. Sealed.
///
/// The classifier wants to see a boxed error, and the caller may want its own
/// type back: hence the way in and the way out.
pub trait OuterError<E>: Sealed {
    /// What the caller sees.
    type Error;

    /// Boxes the inner service's error as itself.
    #[doc(hidden)]
    fn hold(error: E) -> BoxError;

    /// Gives it to the caller.
    #[doc(hidden)]
    fn release(error: BoxError) -> Self::Error;
}

/// What answers a call that was not let through. Sealed: it is [`Reject`],
/// [`Fallback`] or [`FallbackWith`].
#[diagnostic::on_unimplemented(
    message = "the circuit breaker can't pass on the inner service's error `{E}`",
    label = "the service in here fails with `{E}`",
    note = "without a fallback the error is boxed, so it must be `Into<tower::BoxError>`: a \
            `std::error::Error + Send + Sync + 'static`, a string, or the box itself",
    note = "implement `std::error::Error` for it, or turn it into one inside the breaker, with \
            `ServiceBuilder::map_err` after `.layer(breaker)`"
)]
pub trait OnOpen<Request, Response, E>: OuterError<E> {
    /// The answer to come.
    type Future: Future<Output = Result<Response, Self::Error>>;

    /// Whether the caller gets an answer, so that `poll_ready` need not fail.
    #[doc(hidden)]
    const ANSWERS: bool;

    #[doc(hidden)]
    fn answer(&self, request: Request, open: CircuitOpen) -> Self::Future;
}

/// Answers with [`CircuitOpen`], boxed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reject;

impl Sealed for Reject {}

impl<E: Into<BoxError>> OuterError<E> for Reject {
    type Error = BoxError;

    fn hold(error: E) -> BoxError {
        error.into()
    }

    fn release(error: BoxError) -> BoxError {
        error
    }
}

#[diagnostic::do_not_recommend]
impl<Request, Response, E: Into<BoxError>> OnOpen<Request, Response, E> for Reject {
    type Future = Ready<Result<Response, BoxError>>;

    const ANSWERS: bool = false;

    fn answer(&self, _: Request, open: CircuitOpen) -> Self::Future {
        ready(Err(open.into()))
    }
}

/// Answers with what a closure makes of the refusal; made by
/// [`fallback`](crate::CircuitBreakerLayer::fallback).
///
/// `Kind` is always inferred: it tells how the inner service's error is kept.
pub struct Fallback<F, Kind> {
    make: F,
    kind: PhantomData<fn() -> Kind>,
}

impl<F, Kind> Fallback<F, Kind> {
    pub(crate) const fn new(make: F) -> Self {
        Self { make, kind: PhantomData }
    }
}

impl<F, Kind> Sealed for Fallback<F, Kind> {}

impl<F, Kind, E: KeptError<Kind>> OuterError<E> for Fallback<F, Kind> {
    type Error = E;

    fn hold(error: E) -> BoxError {
        error.hold()
    }

    fn release(error: BoxError) -> E {
        E::release(error)
    }
}

impl<F, A, Kind, Request, Response, E> OnOpen<Request, Response, E> for Fallback<F, Kind>
where
    F: Fn(CircuitOpen) -> A,
    A: Answer<Response, E>,
    E: KeptError<Kind>,
{
    type Future = Ready<Result<Response, E>>;

    const ANSWERS: bool = true;

    fn answer(&self, _: Request, open: CircuitOpen) -> Self::Future {
        ready((self.make)(open).into_result())
    }
}

impl<F: Clone, Kind> Clone for Fallback<F, Kind> {
    fn clone(&self) -> Self {
        Self::new(self.make.clone())
    }
}

impl<F, Kind> fmt::Debug for Fallback<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fallback<{}>", std::any::type_name::<F>())
    }
}

/// Answers with what an async closure makes of the request and the refusal;
/// made by [`fallback_with`](crate::CircuitBreakerLayer::fallback_with).
///
/// `Kind` is always inferred: it tells how the inner service's error is kept.
pub struct FallbackWith<F, Kind> {
    make: F,
    kind: PhantomData<fn() -> Kind>,
}

impl<F, Kind> FallbackWith<F, Kind> {
    pub(crate) const fn new(make: F) -> Self {
        Self { make, kind: PhantomData }
    }
}

impl<F, Kind> Sealed for FallbackWith<F, Kind> {}

impl<F, Kind, E: KeptError<Kind>> OuterError<E> for FallbackWith<F, Kind> {
    type Error = E;

    fn hold(error: E) -> BoxError {
        error.hold()
    }

    fn release(error: BoxError) -> E {
        E::release(error)
    }
}

impl<F, Fut, Kind, Request, Response, E> OnOpen<Request, Response, E> for FallbackWith<F, Kind>
where
    F: Fn(Request, CircuitOpen) -> Fut,
    Fut: Future,
    Fut::Output: Answer<Response, E>,
    E: KeptError<Kind>,
{
    type Future = AnswerFuture<Fut, Response, E>;

    const ANSWERS: bool = true;

    fn answer(&self, request: Request, open: CircuitOpen) -> Self::Future {
        AnswerFuture { answer: (self.make)(request, open), result: PhantomData }
    }
}

impl<F: Clone, Kind> Clone for FallbackWith<F, Kind> {
    fn clone(&self) -> Self {
        Self::new(self.make.clone())
    }
}

impl<F, Kind> fmt::Debug for FallbackWith<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FallbackWith<{}>", std::any::type_name::<F>())
    }
}

pin_project! {
    /// The answer of a [`FallbackWith`] to come.
    pub struct AnswerFuture<F, Response, E> {
        #[pin]
        answer: F,
        result: PhantomData<fn() -> Result<Response, E>>,
    }
}

impl<F, Response, E> Future for AnswerFuture<F, Response, E>
where
    F: Future,
    F::Output: Answer<Response, E>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().answer.poll(cx)).into_result())
    }
}

impl<F, Response, E> fmt::Debug for AnswerFuture<F, Response, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerFuture").finish_non_exhaustive()
    }
}

/// What a fallback may return: a response, or a `Result` with the inner
/// service's error.
pub trait Answer<Response, E> {
    /// The answer as the service gives it.
    fn into_result(self) -> Result<Response, E>;
}

impl<Response, E> Answer<Response, E> for Response {
    fn into_result(self) -> Result<Response, E> {
        Ok(self)
    }
}

impl<Response, E> Answer<Response, E> for Result<Response, E> {
    fn into_result(self) -> Result<Response, E> {
        self
    }
}

/// An error that survives being boxed and unboxed: every `std` error, and the
/// box itself. `Kind` says which, because the two would overlap.
#[diagnostic::on_unimplemented(
    message = "a fallback keeps the inner service's error, and `{Self}` is no error it can keep",
    note = "it must be a `std::error::Error + Send + Sync + 'static`, or `tower::BoxError`"
)]
pub trait KeptError<Kind>: Sized {
    #[doc(hidden)]
    fn hold(self) -> BoxError;

    #[doc(hidden)]
    fn release(error: BoxError) -> Self;
}

/// The error is a `std::error::Error`.
#[derive(Debug)]
pub enum AsError {}

/// The error is a [`BoxError`].
#[derive(Debug)]
pub enum AsBox {}

#[diagnostic::do_not_recommend]
impl<E: Error + Send + Sync + 'static> KeptError<AsError> for E {
    fn hold(self) -> BoxError {
        Box::new(self)
    }

    fn release(error: BoxError) -> Self {
        match error.downcast() {
            Ok(error) => *error,
            Err(other) => unreachable!("only what was held is released, not {other:?}"),
        }
    }
}

impl KeptError<AsBox> for BoxError {
    fn hold(self) -> BoxError {
        self
    }

    fn release(error: BoxError) -> Self {
        error
    }
}
