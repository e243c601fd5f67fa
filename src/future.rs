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
    circuit::{Permit, Reading},
    classify::Classify,
    ending::Ending,
    error::{BoxError, proves_nothing},
    fallback::OuterError,
    outcome::Outcome,
};

pin_project! {
    /// The future of [`CircuitBreaker`](crate::CircuitBreaker).
    pub struct ResponseFuture<F, A, C, O, T> {
        #[pin]
        state: State<F, A, C>,
        ending: T,
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

impl<F, A, C, O, T> ResponseFuture<F, A, C, O, T> {
    #[inline]
    pub(crate) fn calling(call: F, permit: Permit, classifier: C, ending: T) -> Self {
        let watch = Watch { permit, classifier };
        Self { state: State::Calling { call, watch }, ending, on_open: PhantomData }
    }

    pub(crate) fn answering(answer: A, ending: T) -> Self {
        Self { state: State::Answering { answer }, ending, on_open: PhantomData }
    }
}

impl<F, A, C, O, T, Response, E> Future for ResponseFuture<F, A, C, O, T>
where
    F: Future<Output = Result<Response, E>>,
    A: Future<Output = Result<Response, O::Error>>,
    C: Classify<Response>,
    O: OuterError<E>,
    T: Ending<Response>,
{
    type Output = Result<T::Response, O::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let ending = *this.ending;
        let (call, watch) = match this.state.project() {
            StateProj::Answering { answer } => {
                return answer.poll(cx).map_ok(|response| ending.unjudged(response));
            }
            StateProj::Calling { call, watch } => (call, watch),
        };
        let unwinding = FailIfUnwound(&mut watch.permit);
        let polled = call.poll(cx);
        mem::forget(unwinding);

        // By branches: a response is large, and moved as seldom as can be.
        match ready!(polled) {
            Ok(response) => {
                let (outcome, reading) = watch.judge(&response);
                let permit = &mut watch.permit;
                Poll::Ready(Ok(ending.judged(response, outcome, reading, permit)))
            }
            Err(error) => {
                let error = O::hold(error);
                watch.fail(&error);
                Poll::Ready(Err(O::release(error)))
            }
        }
    }
}

impl<F, A, C, O, T> fmt::Debug for ResponseFuture<F, A, C, O, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Calling { .. } => "calling",
            State::Answering { .. } => "answering",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

impl<C> Watch<C> {
    /// Has a response judged. It may not be the end of the call yet.
    #[inline]
    fn judge<Response>(&mut self, response: &Response) -> (Outcome, Reading)
    where
        C: Classify<Response>,
    {
        let Self { permit, classifier } = self;
        let reading = permit.read();
        let unwinding = FailIfUnwound(permit);
        let outcome = classifier.classify(Ok(response), reading.latency.unwrap_or_default());
        if outcome != Outcome::Success {
            if let Some(hint) = classifier.retry_after(response) {
                unwinding.0.hint(hint);
            }
        }
        mem::forget(unwinding);
        (outcome, reading)
    }

    /// Has an error judged, and ends the call.
    fn fail<Response>(&mut self, error: &BoxError)
    where
        C: Classify<Response>,
    {
        let Self { permit, classifier } = self;
        let reading = permit.read();
        let unwinding = FailIfUnwound(permit);
        let outcome = if proves_nothing(error) {
            Outcome::Ignored
        } else {
            classifier.classify(Err(error), reading.latency.unwrap_or_default())
        };
        mem::forget(unwinding);
        permit.settle(Some(outcome), reading);
    }
}

impl<C> Drop for Watch<C> {
    fn drop(&mut self) {
        self.permit.end(None);
    }
}

/// Lives while code of others runs: a panic in there is a failure.
pub(crate) struct FailIfUnwound<'a>(pub(crate) &'a mut Permit);

impl Drop for FailIfUnwound<'_> {
    fn drop(&mut self) {
        self.0.end(Some(Outcome::Failure));
    }
}
