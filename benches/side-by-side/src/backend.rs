//! What everybody guards: a service that answers, fails or hangs as it is asked.

use std::{
    cell::Cell,
    error, fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use tower::{BoxError, Service};

/// What a call is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Answer,
    /// Every tenth call of a thread fails.
    TenthFails,
    Fail,
    Hang,
}

#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub ask: Ask,
    /// Where the call goes, for whoever has a circuit per key.
    pub key: &'static str,
}

impl Request {
    pub const fn new(ask: Ask) -> Self {
        Self { ask, key: "inventory.example.com" }
    }
}

/// What the backend answers with.
pub trait Reply: Clone + Default + Send + 'static {}

impl<T: Clone + Default + Send + 'static> Reply for T {}

/// Ready at once, and answers at the first poll: until then nothing has been
/// called, so an adapter may make the future before it asks its breaker.
#[derive(Debug)]
pub struct Backend<R>(PhantomData<fn() -> R>);

impl<R> Backend<R> {
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<R> Default for Backend<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Clone for Backend<R> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<R: Reply> Service<Request> for Backend<R> {
    type Response = R;
    type Error = BoxError;
    type Future = Answer<R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answer<R> {
        Answer { ask: request.ask, reply: PhantomData }
    }
}

#[derive(Debug)]
pub struct Answer<R> {
    ask: Ask,
    reply: PhantomData<fn() -> R>,
}

impl<R: Reply> Future for Answer<R> {
    type Output = Result<R, BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let calls = CALLS.with(|calls| {
            calls.set(calls.get() + 1);
            calls.get()
        });
        match self.ask {
            Ask::Answer => Poll::Ready(Ok(R::default())),
            Ask::TenthFails if !calls.is_multiple_of(10) => Poll::Ready(Ok(R::default())),
            // An error without size needs no memory, so that a failure costs what it costs the
            // breaker.
            Ask::TenthFails | Ask::Fail => Poll::Ready(Err(Broken.into())),
            Ask::Hang => Poll::Pending,
        }
    }
}

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// How many calls have reached a backend on this thread.
pub fn calls() -> u64 {
    CALLS.with(Cell::get)
}

/// The error of a failing backend.
#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the backend failed")
    }
}

impl error::Error for Broken {}

/// Refuses every call for nothing: what there is left of a refusal without a breaker.
#[derive(Clone, Debug)]
pub struct Refuses;

impl Service<Request> for Refuses {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err(Broken.into()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        unreachable!("it is never ready")
    }
}
