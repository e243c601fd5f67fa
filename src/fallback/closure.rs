//! Closures that answer while the circuit is open.

use std::{
    fmt,
    future::{Future, Ready, ready},
    marker::PhantomData,
};

use super::{Answer, AnswerFuture, Kept, KeptError, OnOpen, kept::keeps_the_error};
use crate::circuit::{Circuit, CircuitOpen};

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

keeps_the_error!(Fallback<F>);

impl<F, A, Kind, Request, Response, E> OnOpen<Request, Response, E> for Fallback<F, Kind>
where
    F: Fn(CircuitOpen) -> A,
    A: Answer<Response, E>,
    E: KeptError<Kind>,
{
    type Future = AnswerFuture<Ready<Result<Response, E>>, Response, E>;
    type OnFailure = Kept<Kind>;

    const ANSWERS: bool = true;

    fn answer(&self, _: Request, open: CircuitOpen, circuit: &Circuit) -> Self::Future {
        AnswerFuture::new(circuit, || ready((self.make)(open).into_result()))
    }

    #[inline]
    fn on_failure(&self, _: &Request) -> Kept<Kind> {
        Kept::NOTHING
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

keeps_the_error!(FallbackWith<F>);

impl<F, Fut, Kind, Request, Response, E> OnOpen<Request, Response, E> for FallbackWith<F, Kind>
where
    F: Fn(Request, CircuitOpen) -> Fut,
    Fut: Future,
    Fut::Output: Answer<Response, E>,
    E: KeptError<Kind>,
{
    type Future = AnswerFuture<Fut, Response, E>;
    type OnFailure = Kept<Kind>;

    const ANSWERS: bool = true;

    fn answer(&self, request: Request, open: CircuitOpen, circuit: &Circuit) -> Self::Future {
        AnswerFuture::new(circuit, || (self.make)(request, open))
    }

    #[inline]
    fn on_failure(&self, _: &Request) -> Kept<Kind> {
        Kept::NOTHING
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
