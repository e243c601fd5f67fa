//! `AsyncRecloser` around the future of the call: an atomic pointer to the
//! state, guarded by crossbeam's epochs, and a ring of the last 100 calls.
//!
//! The adapter hands the backend's future to [`AsyncRecloser::call`]. So
//! `Service::call` runs even when open, and the future is dropped.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use recloser::{AnyError, AsyncRecloser, Error, Recloser, RecloserFuture};
use tower::{BoxError, Service};

use super::{Contender, HalfOpen};
use crate::{
    backend::{Answer, Backend, Reply, Request},
    driver::{Driven, Guarded},
};

#[derive(Clone, Debug)]
struct Adapter<R> {
    inner: Backend<R>,
    recloser: AsyncRecloser,
}

impl<R: Reply> Service<Request> for Adapter<R> {
    type Response = R;
    type Error = Error<BoxError>;
    type Future = RecloserFuture<Answer<R>, AnyError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.recloser.call(self.inner.call(request))
    }
}

fn service<R: Reply>(recloser: Recloser) -> Box<dyn Guarded> {
    Box::new(Driven(Adapter::<R> { inner: Backend::new(), recloser: recloser.into() }))
}

pub fn contender<R: Reply>() -> Contender {
    Contender::new(
        "recloser",
        || service::<R>(Recloser::custom().build()),
        |wait: Duration| service::<R>(Recloser::custom().closed_len(10).open_wait(wait).build()),
    )
    .half_open(HalfOpen::Admits)
}
