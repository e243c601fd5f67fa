//! A response's body with the permit of its call: the call ends where the
//! response does.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{grpc, retry_after};
use crate::{
    circuit::{Permit, Reading},
    ending::{AtHead, Ending},
    layer::CircuitBreakerLayer,
    outcome::Outcome,
    sealed::Sealed,
};

/// A call has ended when the body of its response has: set by
/// [`until_end_of_body`](CircuitBreakerLayer::until_end_of_body).
#[derive(Clone, Copy, Debug)]
pub struct AtEndOfBody {
    latency: Latency,
}

#[derive(Clone, Copy, Debug)]
enum Latency {
    ToHead,
    ToEnd,
}

impl Sealed for AtEndOfBody {}

impl<B: Body> Ending<Response<B>> for AtEndOfBody {
    type Response = Response<ResponseBody<B>>;
    type Rest = Option<Watch>;

    fn judged(
        self,
        response: &Response<B>,
        outcome: Outcome,
        reading: Reading,
        permit: &mut Permit,
    ) -> Option<Watch> {
        let headers = response.headers();
        let is_all_head = grpc::is_grpc(headers) && grpc::outcome(headers).is_some();
        let wants_status = !is_all_head && grpc::has_status_in_trailers(headers);
        let is_over = is_all_head || response.body().is_end_stream();
        let outcome = match outcome {
            Outcome::Success if is_over && wants_status => Outcome::Failure,
            outcome => outcome,
        };
        if outcome != Outcome::Success || is_over {
            permit.settle(Some(outcome), reading);
            return None;
        }
        if let Latency::ToHead = self.latency {
            permit.untrack(reading);
        }
        Some(Watch {
            permit: permit.take(),
            reading: match self.latency {
                Latency::ToHead => Some(reading.of_the_head()),
                Latency::ToEnd => None,
            },
            wants_status,
            is_complete: response.body().size_hint().exact() == Some(0),
        })
    }

    fn wrap(self, response: Response<B>, watch: Option<Watch>) -> Self::Response {
        response.map(|body| ResponseBody { body, watch })
    }

    fn unjudged(self, response: Response<B>) -> Self::Response {
        self.wrap(response, None)
    }
}

impl<C, O> CircuitBreakerLayer<C, O, AtHead> {
    /// Lets a call end where the body of its response ends, not at the head.
    ///
    /// A response that is a success so far is one only if its body comes to
    /// its end: an error in the middle is a failure, and the trailers of a
    /// gRPC response decide by their `grpc-status` (one that ends without is
    /// a failure). What is no success at the head is settled there. A body
    /// that is dropped early is neutral, for the client may have seen enough;
    /// so is one that a server drops because the request was a HEAD.
    ///
    /// A gRPC status in the trailers is judged as by
    /// [`HttpClassifier`](crate::HttpClassifier), whichever classifier judged
    /// the head.
    ///
    /// The latency is still that of the head; see
    /// [`latency_to_end_of_body`](CircuitBreakerLayer::latency_to_end_of_body).
    /// **Read the bodies.** Where most are dropped unread, failures (which count
    /// at the head) are nearly all the circuit sees, and probes are given back
    /// for ever. And mind long streams: a probe's lease bounds an endless one,
    /// and one that outlives its lease has failed, however well it went. Where
    /// streams are long, raise [`Probes::lease`](crate::Probes::lease) above
    /// them, or judge at the head.
    ///
    /// For `http::Response` alone: `reqwest::Response` keeps its body to itself.
    ///
    /// ```
    /// use tower_breaker::{CircuitBreakerLayer, Config};
    ///
    /// let layer = CircuitBreakerLayer::new(Config::default()).until_end_of_body();
    /// ```
    pub fn until_end_of_body(self) -> CircuitBreakerLayer<C, O, AtEndOfBody> {
        self.ending(AtEndOfBody { latency: Latency::ToHead })
    }
}

impl<C, O> CircuitBreakerLayer<C, O, AtEndOfBody> {
    /// Lets the slow rule judge the whole call, body and all, by the time
    /// until it ends. A classifier still sees the time to the head.
    pub fn latency_to_end_of_body(self) -> Self {
        self.ending(AtEndOfBody { latency: Latency::ToEnd })
    }
}

pin_project! {
    /// The body of a response from a
    /// [`CircuitBreaker`](crate::CircuitBreaker) that watches it
    /// [to its end](CircuitBreakerLayer::until_end_of_body).
    ///
    /// Passes everything on: frames, errors, size and end.
    pub struct ResponseBody<B> {
        #[pin]
        body: B,
        watch: Option<Watch>,
    }
}

/// The permit, on its way to the end of the body.
#[derive(Debug)]
pub struct Watch {
    permit: Permit,
    /// That of the head; `None`: the clock is read at the end.
    reading: Option<Reading>,
    /// The end is not enough: there must be a `grpc-status`.
    wants_status: bool,
    /// All of the announced length has come. Whoever knows the length asks no
    /// further, and drops the body.
    is_complete: bool,
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(watch) = this.watch else { return this.body.poll_frame(cx) };

        let unwinding = FailIfUnwound(watch);
        let polled = this.body.as_mut().poll_frame(cx);
        mem::forget(unwinding);

        let frame = ready!(polled);
        let end = match &frame {
            None => Some(watch.at_the_end()),
            Some(Err(_)) => Some(Outcome::Failure),
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => Some(watch.at_trailers(trailers)),
                None if this.body.is_end_stream() => Some(watch.at_the_end()),
                None => {
                    watch.is_complete = this.body.size_hint().exact() == Some(0);
                    None
                }
            },
        };
        if let Some(outcome) = end {
            watch.settle(outcome);
            *this.watch = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { body: B::default(), watch: None }
    }
}

impl<B: fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("body", &self.body)
            .field("watched", &self.watch.is_some())
            .finish()
    }
}

impl Watch {
    fn at_the_end(&self) -> Outcome {
        if self.wants_status { Outcome::Failure } else { Outcome::Success }
    }

    fn at_trailers(&mut self, trailers: &HeaderMap) -> Outcome {
        if !self.wants_status {
            return Outcome::Success;
        }
        let outcome = grpc::outcome(trailers).unwrap_or(Outcome::Failure);
        if outcome != Outcome::Success {
            if let Some(hint) = retry_after::grpc_pushback(trailers) {
                self.permit.hint(hint);
            }
        }
        outcome
    }

    fn settle(&mut self, outcome: Outcome) {
        let reading = self.reading.unwrap_or_else(|| self.permit.read());
        self.permit.settle(Some(outcome), reading);
    }
}

/// Lives while code of others runs: a panic in there is a failure, as long after
/// the beginning as any other.
struct FailIfUnwound<'a>(&'a mut Watch);

impl Drop for FailIfUnwound<'_> {
    fn drop(&mut self) {
        self.0.settle(Outcome::Failure);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_complete && !self.wants_status {
            self.settle(Outcome::Success);
        } else {
            self.permit.drop_answered(self.reading.unwrap_or(Reading::NONE));
        }
    }
}
