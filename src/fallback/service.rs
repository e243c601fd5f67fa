//! Another service that answers while the circuit is open.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{AnswerFuture, Kept, KeptError, OnOpen, kept::keeps_the_error};
use crate::circuit::{Circuit, CircuitOpen};

/// Answers with what another service makes of the request; made by
/// [`fallback_service`](crate::CircuitBreakerLayer::fallback_service).
///
/// `Kind` is always inferred: it tells how the inner service's error is kept.
pub struct FallbackService<F, Kind> {
    service: F,
    kind: PhantomData<fn() -> Kind>,
}

impl<F, Kind> FallbackService<F, Kind> {
    pub(crate) const fn new(service: F) -> Self {
        Self { service, kind: PhantomData }
    }
}

keeps_the_error!(FallbackService<F>);

#[diagnostic::do_not_recommend]
impl<F, Kind, Request, Response, E> OnOpen<Request, Response, E> for FallbackService<F, Kind>
where
    F: Service<Request, Response = Response, Error: Into<E>> + Clone,
    E: KeptError<Kind>,
{
    type Future = AnswerFuture<FallbackServiceFuture<F, F::Future, Request, E>, Response, E>;
    type OnFailure = Kept<Kind>;

    const ANSWERS: bool = true;

    fn answer(&self, request: Request, _: CircuitOpen, circuit: &Circuit) -> Self::Future {
        AnswerFuture::new(circuit, || FallbackServiceFuture::new(self.service.clone(), request))
    }

    #[inline]
    fn on_failure(&self, _: &Request) -> Kept<Kind> {
        Kept::NOTHING
    }
}

impl<F: Clone, Kind> Clone for FallbackService<F, Kind> {
    fn clone(&self) -> Self {
        Self::new(self.service.clone())
    }
}

impl<F: fmt::Debug, Kind> fmt::Debug for FallbackService<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FallbackService").field(&self.service).finish()
    }
}

pin_project! {
    /// One call of a [`FallbackService`], from not being ready to the answer.
    pub struct FallbackServiceFuture<F, Fut, Request, E> {
        #[pin]
        state: State<F, Fut, Request>,
        error: PhantomData<fn() -> E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, Fut, Request> {
        // The request is there until the service is ready for it.
        Waiting { service: F, request: Option<Request> },
        Calling { #[pin] call: Fut },
    }
}

impl<F, Fut, Request, E> FallbackServiceFuture<F, Fut, Request, E> {
    pub(super) fn new(service: F, request: Request) -> Self {
        let state = State::Waiting { service, request: Some(request) };
        Self { state, error: PhantomData }
    }
}

impl<F, Request, E> Future for FallbackServiceFuture<F, F::Future, Request, E>
where
    F: Service<Request, Error: Into<E>>,
{
    type Output = Result<F::Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let call = match this.state.as_mut().project() {
                StateProj::Waiting { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = request.take() else {
                        unreachable!("polled after it panicked");
                    };
                    service.call(request)
                }
                StateProj::Calling { call } => return call.poll(cx).map_err(Into::into),
            };
            this.state.set(State::Calling { call });
        }
    }
}

impl<F, Fut, Request, E> fmt::Debug for FallbackServiceFuture<F, Fut, Request, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Waiting { .. } => "waiting",
            State::Calling { .. } => "calling",
        };
        f.debug_struct("FallbackServiceFuture").field("state", &state).finish_non_exhaustive()
    }
}
