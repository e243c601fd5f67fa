//! The answer of a fallback to come, and its tally.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::{circuit::Circuit, outcome::FallbackEnd};

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

pin_project! {
    /// The answer of a fallback to come.
    pub struct AnswerFuture<F, Response, E> {
        #[pin]
        answer: F,
        // Gone once the answer is there.
        tally: Option<Tally>,
        result: PhantomData<fn() -> Result<Response, E>>,
    }
}

impl<F, Response, E> AnswerFuture<F, Response, E> {
    /// Has the answer made, which may panic.
    pub(super) fn new(circuit: &Circuit, make: impl FnOnce() -> F) -> Self {
        let mut tally = Tally { circuit: circuit.clone(), end: FallbackEnd::Failed };
        let answer = make();
        tally.end = FallbackEnd::Cancelled;
        Self { answer, tally: Some(tally), result: PhantomData }
    }
}

impl<F, Response, E> Future for AnswerFuture<F, Response, E>
where
    F: Future,
    F::Output: Answer<Response, E>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let end = |tally: &mut Option<Tally>, end| {
            if let Some(tally) = tally {
                tally.end = end;
            }
        };
        // Should it panic.
        end(this.tally, FallbackEnd::Failed);
        let Poll::Ready(answer) = this.answer.poll(cx) else {
            end(this.tally, FallbackEnd::Cancelled);
            return Poll::Pending;
        };
        let result = answer.into_result();
        if result.is_ok() {
            end(this.tally, FallbackEnd::Answered);
        }
        *this.tally = None;
        Poll::Ready(result)
    }
}

impl<F, Response, E> fmt::Debug for AnswerFuture<F, Response, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerFuture").finish_non_exhaustive()
    }
}

/// Counts a fallback when it is dropped: as what it would be if it were dropped
/// now.
struct Tally {
    circuit: Circuit,
    end: FallbackEnd,
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.circuit.fell_back(self.end);
    }
}
