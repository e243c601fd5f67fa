//! The service: asks always, and answers with what was kept if it must.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    body::StaleIfErrorBody,
    future::{Ask, StaleIfErrorFuture},
    store::Store,
};
use crate::{AsBox, BoxError, CircuitOpen, KeptError};

/// A service whose last good answers stand in for its errors, made by
/// [`StaleIfErrorLayer`](crate::StaleIfErrorLayer).
///
/// Clones share what is kept. An open circuit's refusal in `poll_ready` comes
/// from `call`, as with [`WhenOpen::Defer`](crate::WhenOpen::Defer): until then
/// nobody knows the request that it may have an answer for.
pub struct StaleIfError<S, Kind = AsBox> {
    inner: S,
    store: Arc<Store>,
    /// `poll_ready` said yes although the inner service refused.
    deferred: Option<BoxError>,
    kind: PhantomData<fn() -> Kind>,
}

impl<S, Kind> StaleIfError<S, Kind> {
    pub(super) const fn new(inner: S, store: Arc<Store>) -> Self {
        Self { inner, store, deferred: None, kind: PhantomData }
    }

    /// The service behind it.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service behind it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the service from behind it.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Kind, RequestBody, B> Service<Request<RequestBody>> for StaleIfError<S, Kind>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    S::Error: KeptError<Kind>,
    RequestBody: Body,
    B: Body,
    B::Data: From<Bytes>,
{
    type Response = Response<StaleIfErrorBody<B>>;
    type Error = S::Error;
    type Future = StaleIfErrorFuture<S::Future, Kind>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.deferred = None;
        let Err(error) = ready!(self.inner.poll_ready(cx)) else { return Poll::Ready(Ok(())) };
        let error = error.hold();
        if CircuitOpen::find_in(&*error).is_none() {
            return Poll::Ready(Err(S::Error::release(error)));
        }
        self.deferred = Some(error);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let ask = Ask::of(&request, &self.store);
        match self.deferred.take() {
            Some(error) => StaleIfErrorFuture::refused(error, ask),
            None => StaleIfErrorFuture::calling(self.inner.call(request), ask),
        }
    }
}

/// Readiness is a clone's own.
impl<S: Clone, Kind> Clone for StaleIfError<S, Kind> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.store))
    }
}

impl<S: fmt::Debug, Kind> fmt::Debug for StaleIfError<S, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleIfError")
            .field("inner", &self.inner)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
