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
    circuit::Permit,
    classify::Classify,
    error::{BoxError, proves_nothing},
    fallback::OuterError,
    outcome::Outcome,
};

pin_project! {
    /// The future of [`CircuitBreaker`](crate::CircuitBreaker).
    pub struct ResponseFuture<F, A, C, O> {
        #[pin]
        state: State<F, A, C>,
        on_open: PhantomData<fn() -> O>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, A, C> {
        Calling { #[pin] call: F, watch: Watch<C> },
        Answering { #[pin] answer: A },
    }
}

/// The permit and who judges. Dropped with the permit not settled, the call is
/// cancelled, also if that happens while a panic elsewhere unwinds.
struct Watch<C> {
    permit: Permit,
    classifier: C,
}

impl<F, A, C, O> ResponseFuture<F, A, C, O> {
    #[inline]
    pub(crate) fn calling(call: F, permit: Permit, classifier: C) -> Self {
        let watch = Watch { permit, classifier };
        Self { state: State::Calling { call, watch }, on_open: PhantomData }
    }

    pub(crate) fn answering(answer: A) -> Self {
        Self { state: State::Answering { answer }, on_open: PhantomData }
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
        let (call, watch) = match self.project().state.project() {
            StateProj::Answering { answer } => return answer.poll(cx),
            StateProj::Calling { call, watch } => (call, watch),
        };
        let unwinding = FailIfUnwound(&mut watch.permit);
        let polled = call.poll(cx);
        mem::forget(unwinding);

        // By branches: a response is large, and moved as seldom as can be.
        match ready!(polled) {
            Ok(response) => {
                watch.end(Ok(&response));
                Poll::Ready(Ok(response))
            }
            Err(error) => {
                let error = O::hold(error);
                watch.end(Err(&error));
                Poll::Ready(Err(O::release(error)))
            }
        }
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

impl<C> Watch<C> {
    /// Has the end of the call judged, and takes the permit back.
    #[inline]
    fn end<Response>(&mut self, result: Result<&Response, &BoxError>)
    where
        C: Classify<Response>,
    {
        let Self { permit, classifier } = self;
        let unwinding = FailIfUnwound(permit);
        unwinding.0.end_judged(|latency| match result {
            Err(error) if proves_nothing(error) => Some(Outcome::Ignored),
            result => Some(classifier.classify(result, latency.unwrap_or_default())),
        });
        mem::forget(unwinding);
    }
}

impl<C> Drop for Watch<C> {
    fn drop(&mut self) {
        self.permit.end(None);
    }
}

/// Lives while code of others runs: a panic in there is a failure.
struct FailIfUnwound<'a>(&'a mut Permit);

impl Drop for FailIfUnwound<'_> {
    fn drop(&mut self) {
        self.0.end(Some(Outcome::Failure));
    }
}
