//! Calls of those who take a future, polled by hand.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::breaker::{Call, End};

/// How a call is to end, once that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(Arc<Mutex<Option<End>>>);

/// The error of a call that ended badly, or in a way that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Failure,
    Neutral,
}

/// A future that a breaker watches over, and how it is to end.
struct Driven<F> {
    future: Pin<Box<F>>,
    ending: Ending,
}

impl Future for Ending {
    type Output = Result<(), Bad>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Poll::Pending,
            Some(End::Success) => Poll::Ready(Ok(())),
            Some(End::Failure) => Poll::Ready(Err(Bad::Failure)),
            Some(End::Neutral) => Poll::Ready(Err(Bad::Neutral)),
            // Not `panic!`, which would be reported.
            Some(End::Panic) => resume_unwind(Box::new("the call fell over")),
        }
    }
}

/// Has a breaker make a future around a call, and polls it once: it has the
/// call under way, or is refused at once.
pub(super) fn ask<F>(call: impl FnOnce(Ending) -> F) -> Option<Box<dyn Call>>
where
    F: Future + Send + 'static,
{
    let ending = Ending::default();
    let mut driven = Driven { future: Box::pin(call(ending.clone())), ending };
    match driven.poll() {
        Poll::Pending => Some(Box::new(driven)),
        Poll::Ready(_) => None,
    }
}

/// What a future gives that waits for nobody.
///
/// # Panics
///
/// If it waits.
pub(super) fn at_once<F: Future>(future: F) -> F::Output {
    match Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits, and nobody is there to be waited for"),
    }
}

impl<F: Future> Driven<F> {
    fn poll(&mut self) -> Poll<F::Output> {
        self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl<F: Future + Send> Call for Driven<F> {
    fn end(mut self: Box<Self>, end: End) {
        *self.ending.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        match (catch_unwind(AssertUnwindSafe(|| self.poll().is_ready())), end) {
            (Ok(true), _) | (Err(_), End::Panic) => {}
            // The breaker's own.
            (Err(panic), _) => resume_unwind(panic),
            (Ok(false), _) => panic!("a call that was told to end waits"),
        }
    }
}
