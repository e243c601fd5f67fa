//! The future of a call: the inner one with its permit, or the answer in its
//! place.

use std::{
    fmt,
    future::Future,
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
    fallback::OnFailure,
    outcome::Outcome,
};

pin_project! {
    /// The future of [`CircuitBreaker`](crate::CircuitBreaker): of a call `F`
    /// that takes along `P` in case it fails, and of an answer `A`.
    pub struct ResponseFuture<F, A, C, P, T> {
        #[pin]
        state: State<F, A, C, P>,
        ending: T,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, A, C, P> {
        Calling { #[pin] call: F, watch: Watch<C>, on_failure: P },
        Answering { #[pin] answer: A },
    }
}

/// Hands on a response that was judged.
///
/// By value and as a match of what it is and all else: so it is copied once,
/// and the first word by itself, as callers read it, for they look at it first.
#[inline(always)]
fn hand_on<P, Response, E, A, T>(
    polled: Poll<Result<Response, E>>,
    rest: T::Rest,
    ending: T,
) -> Poll<Result<T::Response, P::Error>>
where
    P: OnFailure<Response, E, A>,
    T: Ending<Response>,
{
    match polled {
        Poll::Ready(Ok(response)) => Poll::Ready(Ok(ending.wrap(response, rest))),
        other => not_judged::<P, _, _, _, A>(other),
    }
}

/// What no judged call comes to.
#[cold]
#[inline(never)]
fn not_judged<P, Response, Wrapped, E, A>(
    polled: Poll<Result<Response, E>>,
) -> Poll<Result<Wrapped, P::Error>>
where
    P: OnFailure<Response, E, A>,
{
    match polled {
        Poll::Ready(Err(error)) => Poll::Ready(Err(P::release(P::hold(error)))),
        Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
    }
}

/// The permit and who judges. Dropped with the permit not settled, the call is
/// cancelled, also if that happens while a panic elsewhere unwinds.
struct Watch<C> {
    permit: Permit,
    classifier: C,
}

impl<F, A, C, P, T> ResponseFuture<F, A, C, P, T> {
    #[inline]
    pub(crate) fn calling(
        call: F,
        permit: Permit,
        classifier: C,
        on_failure: P,
        ending: T,
    ) -> Self {
        let watch = Watch { permit, classifier };
        Self { state: State::Calling { call, watch, on_failure }, ending }
    }

    pub(crate) fn answering(answer: A, ending: T) -> Self {
        Self { state: State::Answering { answer }, ending }
    }
}

impl<F, A, C, P, T, Response, E> Future for ResponseFuture<F, A, C, P, T>
where
    F: Future<Output = Result<Response, E>>,
    A: Future<Output = Result<Response, P::Error>>,
    C: Classify<Response>,
    P: OnFailure<Response, E, A>,
    T: Ending<Response>,
{
    type Output = Result<T::Response, P::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let ending = *this.ending;
        let (call, watch) = match this.state.project() {
            StateProj::Answering { answer } => {
                return answer.poll(cx).map_ok(|response| ending.unjudged(response));
            }
            StateProj::Calling { call, watch, .. } => (call, watch),
        };
        let unwinding = FailIfUnwound(&mut watch.permit);
        let polled = call.poll(cx);
        mem::forget(unwinding);

        // Judged where it lies: a response is large, and moved as seldom as can be.
        let rest = match &polled {
            Poll::Pending => return Poll::Pending,
            // Twice the same, so that without a clock there is nothing to do with time.
            Poll::Ready(Ok(response)) if watch.permit.is_timed() => {
                watch.judge(response, watch.permit.read_clock(), ending, P::ANSWERS)
            }
            Poll::Ready(Ok(response)) => watch.judge(response, Reading::NONE, ending, P::ANSWERS),
            Poll::Ready(Err(_)) => None,
        };
        if let Some(rest) = rest {
            hand_on::<P, _, _, A, _>(polled, rest, ending)
        } else {
            self.poll_failed(polled, cx)
        }
    }
}

impl<F, A, C, P, T> ResponseFuture<F, A, C, P, T> {
    /// Has an error judged, and a fallback asked for a call that failed. Apart:
    /// what is moved here is not to be moved where all goes well.
    #[inline(never)]
    fn poll_failed<Response, E>(
        self: Pin<&mut Self>,
        polled: Poll<Result<Response, E>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T::Response, P::Error>>
    where
        A: Future<Output = Result<Response, P::Error>>,
        C: Classify<Response>,
        P: OnFailure<Response, E, A>,
        T: Ending<Response>,
    {
        let mut this = self.project();
        let ending = *this.ending;
        let StateProj::Calling { watch, on_failure, .. } = this.state.as_mut().project() else {
            unreachable!("it has just been polled")
        };
        let failed = match ready!(polled) {
            Ok(response) => Ok(response),
            Err(error) => {
                let error = P::hold(error);
                let has_failed = watch.fail(&error);
                let error = P::release(error);
                if !P::ANSWERS || !has_failed {
                    return Poll::Ready(Err(error));
                }
                Err(error)
            }
        };
        // The call is settled: what the fallback comes to is not its end.
        match on_failure.answer(failed, &watch.permit.circuit()) {
            Ok(answer) => this.state.as_mut().set(State::Answering { answer }),
            Err(failed) => {
                return Poll::Ready(failed.map(|response| ending.unjudged(response)));
            }
        }
        match this.state.project() {
            StateProj::Answering { answer } => {
                answer.poll(cx).map_ok(|response| ending.unjudged(response))
            }
            StateProj::Calling { .. } => unreachable!("it has just been set"),
        }
    }
}

impl<F, A, C, P, T> fmt::Debug for ResponseFuture<F, A, C, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Calling { .. } => "calling",
            State::Answering { .. } => "answering",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

impl<C> Watch<C> {
    /// Has a response judged, and ends the call if that is its end. Nothing, if
    /// it failed and somebody `answers` for that.
    #[inline(always)]
    fn judge<Response, T>(
        &mut self,
        response: &Response,
        reading: Reading,
        ending: T,
        answers: bool,
    ) -> Option<T::Rest>
    where
        C: Classify<Response>,
        T: Ending<Response>,
    {
        let Self { permit, classifier } = self;
        let latency = permit.latency_to_judge(reading);
        let unwinding = FailIfUnwound(permit);
        let outcome = classifier.classify(Ok(response), latency);
        if outcome != Outcome::Success {
            Self::take_hint(classifier, response, unwinding.0);
        }
        let rest = if answers && outcome == Outcome::Failure {
            unwinding.0.settle(Some(outcome), reading);
            None
        } else {
            Some(ending.judged(response, outcome, reading, unwinding.0))
        };
        mem::forget(unwinding);
        rest
    }

    /// Hears whether the dependency asks to be left alone.
    #[cold]
    fn take_hint<Response>(classifier: &C, response: &Response, permit: &mut Permit)
    where
        C: Classify<Response>,
    {
        if let Some(hint) = classifier.retry_after(response) {
            permit.hint(hint);
        }
    }

    /// Has an error judged, and ends the call. Whether there was no answer: it
    /// failed, or never got there.
    fn fail<Response>(&mut self, error: &BoxError) -> bool
    where
        C: Classify<Response>,
    {
        let Self { permit, classifier } = self;
        let reading = permit.read();
        let latency = permit.latency_to_judge(reading);
        let unwinding = FailIfUnwound(permit);
        let never_got_there = proves_nothing(error);
        let outcome = if never_got_there {
            Outcome::Ignored
        } else {
            classifier.classify(Err(error), latency)
        };
        mem::forget(unwinding);
        permit.settle(Some(outcome), reading);
        never_got_there || outcome == Outcome::Failure
    }
}

impl<C> Drop for Watch<C> {
    fn drop(&mut self) {
        self.permit.end(None);
    }
}

/// Lives while code of the caller's runs: a panic in there says nothing.
pub(crate) struct CancelIfUnwound<'a>(pub(crate) &'a mut Permit);

impl Drop for CancelIfUnwound<'_> {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// Lives while code of others runs: a panic in there is a failure.
struct FailIfUnwound<'a>(&'a mut Permit);

impl Drop for FailIfUnwound<'_> {
    fn drop(&mut self) {
        self.0.end(Some(Outcome::Failure));
    }
}
