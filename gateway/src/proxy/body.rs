//! The one body that requests and responses have, in both directions.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{Timeout, UpstreamError, activity::Active, now::now, upstream::Lease};

pub type BoxError = tower::BoxError;

/// A body, streamed as it comes.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    /// The request that it answers ends with it.
    _active: Option<Active>,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Full<Bytes>),
    /// From a connection.
    Stream(Stream),
    /// From a middleware that wraps bodies in one of its own.
    Wrapped(UnsyncBoxBody<Bytes, BoxError>),
}

struct Stream {
    incoming: Incoming,
    idle: Duration,
    /// Made at the first wait, since most bodies never have one, and then kept.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    end: End,
}

enum End {
    /// It is a request's, and the upstream's clock runs by it.
    Request(Upload),
    /// It is a response's, and gives its connection back.
    Response(Option<Lease>),
}

impl Body {
    fn of(kind: Kind) -> Body {
        Body { kind, _active: None }
    }

    pub fn empty() -> Body {
        Body::of(Kind::Empty)
    }

    pub fn full(bytes: impl Into<Bytes>) -> Body {
        Body::of(Kind::Full(Full::new(bytes.into())))
    }

    /// What a middleware has made of a body.
    pub fn wrap<B>(body: B) -> Body
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Body::of(Kind::Wrapped(body.boxed_unsync()))
    }

    /// A caller's. It fails once it has paused for longer than `idle`.
    pub fn request(incoming: Incoming, idle: Duration) -> Body {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        Body::stream(incoming, idle, End::Request(Upload::new()))
    }

    /// An upstream's. It fails once it has paused for longer than `idle`.
    pub(super) fn response(incoming: Incoming, idle: Duration, lease: Lease) -> Body {
        if incoming.is_end_stream() {
            lease.give_back();
            return Body::empty();
        }
        Body::stream(incoming, idle, End::Response(Some(lease)))
    }

    fn stream(incoming: Incoming, idle: Duration, end: End) -> Body {
        Body::of(Kind::Stream(Stream { incoming, idle, timer: None, waiting: false, end }))
    }

    /// The same body, holding what ends with it.
    pub(super) fn holding(self, active: Active) -> Body {
        Body { _active: Some(active), ..self }
    }

    /// The same once more, if it is here already.
    pub(super) fn copy(&self) -> Option<Body> {
        match &self.kind {
            Kind::Empty => Some(Body::empty()),
            Kind::Full(full) => Some(Body::of(Kind::Full(full.clone()))),
            Kind::Stream(_) | Kind::Wrapped(_) => None,
        }
    }

    /// How far a caller's body has come; none if it is here already.
    pub(super) fn upload(&self) -> Option<Upload> {
        match &self.kind {
            Kind::Stream(Stream { end: End::Request(upload), .. }) => Some(upload.clone()),
            _ => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::full(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.kind {
            Kind::Empty => "Body(empty)",
            Kind::Full(_) => "Body(full)",
            Kind::Stream(_) => "Body(stream)",
            Kind::Wrapped(_) => "Body(wrapped)",
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(full) => Pin::new(full).poll_frame(context).map_err(|never| match never {}),
            Kind::Stream(stream) => stream.poll_frame(context),
            Kind::Wrapped(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(full) => full.is_end_stream(),
            Kind::Stream(stream) => stream.incoming.is_end_stream(),
            Kind::Wrapped(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(full) => full.size_hint(),
            Kind::Stream(stream) => stream.incoming.size_hint(),
            Kind::Wrapped(body) => body.size_hint(),
        }
    }
}

impl Stream {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.poll_idle(context));
                return Poll::Ready(Some(Err(self.stalled())));
            }
        };
        self.waiting = false;
        match (&mut self.end, frame) {
            (End::Request(upload), Some(Ok(frame))) => {
                upload.moved();
                Poll::Ready(Some(Ok(frame)))
            }
            (End::Request(upload), Some(Err(error))) => {
                upload.fail(Failure::Broken);
                Poll::Ready(Some(Err(UpstreamError::ClientGone(error.into()).into())))
            }
            (End::Request(upload), None) => {
                upload.moved();
                Poll::Ready(None)
            }
            (End::Response(lease), Some(Ok(frame))) => {
                if self.incoming.is_end_stream() {
                    lease.take().into_iter().for_each(Lease::give_back);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            (End::Response(lease), Some(Err(error))) => {
                drop(lease.take());
                Poll::Ready(Some(Err(UpstreamError::Reset(error.into()).into())))
            }
            (End::Response(lease), None) => {
                lease.take().into_iter().for_each(Lease::give_back);
                Poll::Ready(None)
            }
        }
    }

    /// Ready once the pause is too long.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) if self.waiting => timer,
            Some(timer) => {
                timer.as_mut().reset(now() + self.idle);
                timer
            }
            none => none.insert(Box::pin(tokio::time::sleep(self.idle))),
        };
        if !self.waiting {
            self.waiting = true;
            if let End::Request(upload) = &self.end {
                upload.wait();
            }
        }
        timer.as_mut().poll(context)
    }

    fn stalled(&mut self) -> BoxError {
        match &mut self.end {
            End::Request(upload) => {
                upload.fail(Failure::Stalled);
                UpstreamError::ClientGone("the request's body stalled".into()).into()
            }
            End::Response(lease) => {
                drop(lease.take());
                UpstreamError::Timeout { which: Timeout::BodyIdle }.into()
            }
        }
    }
}

/// How far a caller's body has come. The upstream is not to blame for what the
/// caller has not sent.
#[derive(Clone)]
pub(super) struct Upload(Arc<Mutex<Uploading>>);

struct Uploading {
    moved: Instant,
    waiting: bool,
    failure: Option<Failure>,
}

/// How a caller's body went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It paused for too long.
    Stalled,
    /// It ended early, or is not one.
    Broken,
}

impl Upload {
    fn new() -> Upload {
        let uploading = Uploading { moved: now(), waiting: false, failure: None };
        Upload(Arc::new(Mutex::new(uploading)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Uploading) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn moved(&self) {
        self.with(|uploading| {
            uploading.moved = now();
            uploading.waiting = false;
        });
    }

    fn wait(&self) {
        self.with(|uploading| uploading.waiting = true);
    }

    fn fail(&self, failure: Failure) {
        self.with(|uploading| uploading.failure = Some(failure));
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.with(|uploading| uploading.failure)
    }

    /// Since when the upstream has had all that there was of it.
    pub(super) fn upstream_idle_since(&self) -> Instant {
        self.with(|uploading| if uploading.waiting { now() } else { uploading.moved })
    }
}
