//! A state machine behind a `parking_lot` mutex that each call takes twice. By
//! default it judges by a moving average over 30 s or five failures in a row.
//!
//! The adapter hands the backend's future to [`CircuitBreaker::call`]. So
//! `Service::call` runs even when open, and the future is dropped.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use failsafe::{
    Any, Config, Error, FailurePolicy, StateMachine, backoff, failure_policy,
    futures::{CircuitBreaker, ResponseFuture},
};
use tower::{BoxError, Service};

use super::{Contender, HalfOpen};
use crate::{
    backend::{Answer, Backend, Reply, Request},
    driver::{Driven, Guarded},
};

struct Adapter<R, P> {
    inner: Backend<R>,
    circuit: StateMachine<P, ()>,
}

impl<R, P> Clone for Adapter<R, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), circuit: self.circuit.clone() }
    }
}

impl<R: Reply, P: FailurePolicy + Send + Sync> Service<Request> for Adapter<R, P> {
    type Response = R;
    type Error = Error<BoxError>;
    type Future = ResponseFuture<Answer<R>, P, (), Any>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        CircuitBreaker::call(&self.circuit, self.inner.call(request))
    }
}

fn service<R: Reply, P>(circuit: StateMachine<P, ()>) -> Box<dyn Guarded>
where
    P: FailurePolicy + Send + Sync + 'static,
{
    Box::new(Driven(Adapter::<R, P> { inner: Backend::new(), circuit }))
}

/// As it comes.
pub fn contender<R: Reply>() -> Contender {
    Contender::new(
        "failsafe",
        || service::<R, _>(Config::new().build()),
        |wait: Duration| {
            let policy = failure_policy::SuccessRateOverTimeWindow::default()
                .or_else(failure_policy::consecutive_failures(5, backoff::constant(wait)));
            service::<R, _>(Config::new().failure_policy(policy).build())
        },
    )
    .half_open(HalfOpen::Admits)
}

/// Its cheaper policy: failures in a row, no rate.
pub fn consecutive<R: Reply>() -> Contender {
    let tripping = |wait: Duration| {
        let policy = failure_policy::consecutive_failures(5, backoff::constant(wait));
        service::<R, _>(Config::new().failure_policy(policy).build())
    };
    Contender::new("failsafe, failures in a row", move || tripping(super::HOUR), tripping)
        .half_open(HalfOpen::Admits)
}
