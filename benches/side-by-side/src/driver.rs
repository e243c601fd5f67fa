//! How a contender is called: by hand, without a runtime.

use std::{
    future::Future,
    hint::{self, black_box},
    ops::AddAssign,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
};

use tower::Service;

use crate::backend::{self, Request};

/// What became of some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub answered: u64,
    pub refused: u64,
    /// That reached the backend.
    pub reached: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.reached += other.reached;
    }
}

/// A guarded service whose type is known inside the loop only.
pub trait Guarded: Send {
    /// So many calls, one after the other.
    fn run(&mut self, request: Request, calls: u64) -> Tally;

    /// A clone of the service: the same circuit.
    fn another(&self) -> Box<dyn Guarded>;

    /// Begins a call and keeps it: whoever is given holds it until dropped.
    fn begin(&mut self, request: Request) -> Box<dyn FnOnce()>;
}

/// A Tower service as it is.
#[derive(Clone, Debug)]
pub struct Driven<S>(pub S);

impl<S> Guarded for Driven<S>
where
    S: Service<Request> + Clone + Send + 'static,
    S::Future: 'static,
{
    fn run(&mut self, request: Request, calls: u64) -> Tally {
        let reached = backend::calls();
        let mut answered = 0;
        for _ in 0..calls {
            answered += u64::from(black_box(call(&mut self.0, black_box(request))).is_ok());
        }
        Tally { answered, refused: calls - answered, reached: backend::calls() - reached }
    }

    fn another(&self) -> Box<dyn Guarded> {
        Box::new(self.clone())
    }

    fn begin(&mut self, request: Request) -> Box<dyn FnOnce()> {
        let context = &mut Context::from_waker(Waker::noop());
        if self.0.poll_ready(context).is_pending() {
            return Box::new(|| ());
        }
        let mut call = Box::pin(self.0.call(request));
        let _: Poll<_> = call.as_mut().poll(context);
        Box::new(move || drop(call))
    }
}

/// One call through a service.
#[inline]
fn call<S: Service<Request>>(service: &mut S, request: Request) -> Result<S::Response, S::Error> {
    let context = &mut Context::from_waker(Waker::noop());
    let ready = wait_for(|| service.poll_ready(context));
    ready?;
    let mut call = pin!(service.call(request));
    wait_for(|| call.as_mut().poll(context))
}

/// Polls until it is ready. Only a contender that waits for a lock is not at
/// once; to poll on is kinder to it than a runtime, which would park the thread.
#[inline]
fn wait_for<T>(mut poll: impl FnMut() -> Poll<T>) -> T {
    let mut tries = 0;
    loop {
        if let Poll::Ready(ready) = poll() {
            return ready;
        }
        wait(&mut tries);
    }
}

#[cold]
fn wait(tries: &mut u32) {
    *tries += 1;
    if tries.is_multiple_of(64) {
        thread::yield_now();
    } else {
        hint::spin_loop();
    }
}

/// What came of one turn of a [`Looped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Answered,
    Failed,
    Refused,
}

/// A closure in place of a service.
#[derive(Clone, Debug)]
pub struct Looped<F>(pub F);

impl<F: FnMut(Request) -> Ended + Clone + Send + 'static> Guarded for Looped<F> {
    fn run(&mut self, request: Request, calls: u64) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..calls {
            let ended = (self.0)(black_box(request));
            tally.answered += u64::from(ended == Ended::Answered);
            tally.reached += u64::from(ended != Ended::Refused);
        }
        Tally { refused: calls - tally.answered, ..tally }
    }

    fn another(&self) -> Box<dyn Guarded> {
        Box::new(self.clone())
    }

    fn begin(&mut self, request: Request) -> Box<dyn FnOnce()> {
        (self.0)(request);
        Box::new(|| ())
    }
}
