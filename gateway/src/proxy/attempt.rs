//! The time an attempt may take.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use super::{Body, BoxError, Timeout, UpstreamError, body::Upload, now::now, retry::Attempt};

/// Ends an attempt that gives no response in time.
///
/// The total time is looked after here, too, inside the circuit: a timer outside
/// of it would drop the call, and a call that is dropped says nothing about the
/// upstream. One that hangs would never open the circuit then.
///
/// An upstream need not answer before it has the request, so with a long body
/// its time begins with the last piece of it.
#[derive(Clone, Debug)]
pub(super) struct Attempts<F> {
    forward: F,
    /// For each attempt.
    allowed: Duration,
    total: Option<Duration>,
}

/// How long the upstream took, where that is not what the call did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited(pub(super) Duration);

/// The request's total time is over, and the upstream has not had its own.
#[derive(Debug)]
pub(super) struct OutOfTime;

impl fmt::Display for OutOfTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the request's time is over")
    }
}

impl std::error::Error for OutOfTime {}

impl<F> Attempts<F> {
    pub(super) fn new(forward: F, head: Duration, total: Option<Duration>) -> Self {
        let allowed = total.map_or(head, |total| total.min(head));
        Self { forward, allowed, total }
    }
}

impl<F> Service<Request<Body>> for Attempts<F>
where
    F: Service<Request<Body>, Response = Response<Body>, Error = UpstreamError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = AttemptFuture<F::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.forward.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let began = now();
        let deadline = match request.extensions().get::<Attempt>() {
            Some(attempt) => attempt.deadline,
            None => self.total.map(|total| began + total),
        };
        let upload = request.body().upload();
        let first = began + self.allowed;
        AttemptFuture {
            call: self.forward.call(request),
            timer: sleep_until(deadline.map_or(first, |deadline| deadline.min(first))),
            began,
            allowed: self.allowed,
            deadline,
            upload,
        }
    }
}

pin_project! {
    /// The response to come, or the end of its time.
    pub(super) struct AttemptFuture<C> {
        #[pin]
        call: C,
        #[pin]
        timer: Sleep,
        began: Instant,
        allowed: Duration,
        deadline: Option<Instant>,
        upload: Option<Upload>,
    }
}

impl<C> Future for AttemptFuture<C>
where
    C: Future<Output = Result<Response<Body>, UpstreamError>>,
{
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(result) = this.call.poll(context) {
            return Poll::Ready(match (result, &this.upload) {
                (Ok(mut response), Some(upload)) => {
                    let waited = upload.upstream_idle_since().elapsed();
                    response.extensions_mut().insert(Waited(waited));
                    Ok(response)
                }
                (result, _) => result.map_err(Into::into),
            });
        }
        loop {
            ready!(this.timer.as_mut().poll(context));
            let now = now();
            let since = this.upload.as_ref().map_or(*this.began, Upload::upstream_idle_since);
            let end = since + *this.allowed;
            if end <= now {
                let which = Timeout::Head;
                return Poll::Ready(Err(UpstreamError::Timeout { which }.into()));
            }
            if this.deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Err(OutOfTime.into()));
            }
            this.timer.as_mut().reset(this.deadline.map_or(end, |deadline| deadline.min(end)));
        }
    }
}
