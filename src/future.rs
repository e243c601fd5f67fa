//! The future of a call: the inner one with its permit, or the answer of an
//! open circuit.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use crate::{
    circuit::Permit, classify::Classify, error::proves_nothing, fallback::OuterError,
    outcome::Outcome,
};

pin_project! {
    /// The future of [`CircuitBreaker`](crate::CircuitBreaker).
    pub struct ResponseFuture<F, A, C, O> {
        #[pin]
        state: State<F, A>,
        watch: Watch<C>,
        on_open: PhantomData<fn() -> O>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, A> {
        Calling { #[pin] call: F },
        Answering { #[pin] answer: A },
    }
}

/// The permit and who judges. Dropped with it, the call is cancelled, also if
/// that happens while a panic elsewhere unwinds.
struct Watch<C>(Option<(Permit, C)>);

impl<F, A, C, O> ResponseFuture<F, A, C, O> {
    pub(crate) fn calling(call: F, permit: Permit, classifier: C) -> Self {
        Self {
            state: State::Calling { call },
            watch: Watch(Some((permit, classifier))),
            on_open: PhantomData,
        }
    }

    pub(crate) fn answering(answer: A) -> Self {
        Self { state: State::Answering { answer }, watch: Watch(None), on_open: PhantomData }
    }
}

impl<F, A, C, O, Response, E> Future for ResponseFuture<F, A, C, O>
where
    F: Future<Output = Result<Response, E>>,
    A: Future<Output = Result<Response, O::Error>>,
    C: Classify<Response>,
    O: OuterError<E>,
{
    type Output = Result<Response, O::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = match this.state.project() {
            StateProj::Answering { answer } => return answer.poll(cx),
            StateProj::Calling { call } => call,
        };
        let unwinding = FailIfUnwound(this.watch);
        let polled = call.poll(cx);
        mem::forget(unwinding);

        let result = ready!(polled).map_err(O::hold);
        if let Some((permit, classifier)) = this.watch.0.take() {
            let latency = permit.latency();
            let outcome = match &result {
                Err(error) if proves_nothing(error) => Outcome::Ignored,
                result => classifier.classify(result.as_ref(), latency.unwrap_or_default()),
            };
            permit.record_with(outcome, latency);
        }
        Poll::Ready(result.map_err(O::release))
    }
}

impl<F, A, C, O> fmt::Debug for ResponseFuture<F, A, C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Calling { .. } => "calling",
            State::Answering { .. } => "answering",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

impl<C> Drop for Watch<C> {
    fn drop(&mut self) {
        if let Some((permit, _)) = self.0.take() {
            permit.cancel();
        }
    }
}

/// Lives while the inner future is polled: a panic in there is a failure.
struct FailIfUnwound<'a, C>(&'a mut Watch<C>);

impl<C> Drop for FailIfUnwound<'_, C> {
    fn drop(&mut self) {
        if let Some((permit, _)) = self.0.0.take() {
            permit.record(Outcome::Failure);
        }
    }
}
