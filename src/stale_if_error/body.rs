//! A response's body: passed on while it is copied, or one that was kept.

use std::{
    fmt,
    io::IoSlice,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response, Version, header::CONTENT_LENGTH, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    rules::{Life, Selection, kept_headers, selection},
    store::{Kept, Store},
};

/// How many bytes an announced length is believed to be.
const MOST_IN_ADVANCE: usize = 64 * 1024;

pin_project! {
    /// The body of a response from a [`StaleIfError`](crate::StaleIfError).
    ///
    /// One of the inner service's is passed on frame by frame, and copied on
    /// its way if it may be kept. One that was kept is a single frame.
    pub struct StaleIfErrorBody<B> {
        #[pin]
        source: Source<B>,
    }
}

pin_project! {
    #[project = SourceProj]
    enum Source<B> {
        // Boxed: it is seldom there, and a response is moved often.
        Live { #[pin] body: B, copy: Option<Box<Copy>> },
        Kept { bytes: Bytes },
    }
}

impl<B> StaleIfErrorBody<B> {
    /// Passes a body on.
    pub(super) const fn live(body: B) -> Self {
        Self { source: Source::Live { body, copy: None } }
    }

    /// Has a body that was kept.
    pub(super) const fn kept(bytes: Bytes) -> Self {
        Self { source: Source::Kept { bytes } }
    }
}

impl<B: Body> StaleIfErrorBody<B> {
    /// Passes a body on and has it kept, if it comes to its end.
    pub(super) fn copied(body: B, mut copy: Box<Copy>) -> Self {
        let hint = body.size_hint();
        let least = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
        if least > copy.store.settings.max_response_bytes {
            return Self::live(body);
        }
        if body.is_end_stream() {
            copy.is_complete = true;
            drop(copy);
            return Self::live(body);
        }
        copy.is_complete = hint.exact() == Some(0);
        // No more than a little on the word of a header: the rest as it comes.
        copy.bytes.reserve_exact(least.min(MOST_IN_ADVANCE));
        Self { source: Source::Live { body, copy: Some(copy) } }
    }
}

impl<B> Body for StaleIfErrorBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let (mut body, copying) = match self.project().source.project() {
            SourceProj::Live { body, copy } => (body, copy),
            SourceProj::Kept { bytes } if bytes.is_empty() => return Poll::Ready(None),
            SourceProj::Kept { bytes } => {
                return Poll::Ready(Some(Ok(Frame::data(mem::take(bytes).into()))));
            }
        };
        let Some(copy) = copying else { return body.poll_frame(cx) };

        let frame = match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return Poll::Pending,
        };
        let goes_on = match &frame {
            None => {
                copy.is_complete = true;
                false
            }
            Some(Ok(frame)) => {
                // Trailers are not kept, and a response without its own is
                // another one.
                let is_copied = frame.data_ref().is_some_and(|data| copy.add(data));
                let is_over = body.is_end_stream();
                // Whoever knows the length asks no further, and drops the body.
                copy.is_complete = is_copied && (is_over || body.size_hint().exact() == Some(0));
                is_copied && !is_over
            }
            Some(Err(_)) => {
                copy.is_complete = false;
                false
            }
        };
        if !goes_on {
            *copying = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Live { body, .. } => body.is_end_stream(),
            Source::Kept { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Live { body, .. } => body.size_hint(),
            Source::Kept { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl<B: Default> Default for StaleIfErrorBody<B> {
    fn default() -> Self {
        Self::live(B::default())
    }
}

impl<B: fmt::Debug> fmt::Debug for StaleIfErrorBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StaleIfErrorBody");
        match &self.source {
            Source::Live { body, copy } => {
                shown.field("body", body).field("copied", &copy.is_some())
            }
            Source::Kept { bytes } => shown.field("kept", &bytes.len()),
        };
        shown.finish()
    }
}

/// A response on its way into the store, where it gets when this is dropped and
/// the body is complete.
pub(super) struct Copy {
    store: Arc<Store>,
    key: String,
    scheme: Option<Scheme>,
    version: Version,
    headers: HeaderMap,
    selection: Selection,
    asked: Instant,
    life: Life,
    announced: Option<u64>,
    bytes: Vec<u8>,
    is_complete: bool,
}

impl Copy {
    /// The copy of a good response, if it may be kept.
    pub(super) fn of<B>(
        response: &Response<B>,
        store: Arc<Store>,
        key: String,
        scheme: Option<Scheme>,
        request: &HeaderMap,
        asked: Instant,
    ) -> Option<Box<Self>> {
        let headers = response.headers();
        let settings = &store.settings;
        let life = Life::of(request, headers, settings.audience, settings.ttl)?;
        let selection = selection(request, headers)?;
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.trim().parse().ok());
        if announced.is_some_and(|length: u64| length > settings.max_response_bytes as u64) {
            return None;
        }
        Some(Box::new(Self {
            key,
            scheme,
            version: response.version(),
            headers: kept_headers(headers),
            selection,
            asked,
            life,
            announced,
            bytes: Vec::new(),
            is_complete: false,
            store,
        }))
    }

    /// Copies a piece, without taking it. Whether that was possible.
    fn add(&mut self, data: &impl Buf) -> bool {
        let all = data.remaining();
        if all > self.store.settings.max_response_bytes.saturating_sub(self.bytes.len()) {
            return false;
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let count = data.chunks_vectored(&mut slices);
        let slices = &slices[..count];
        if slices.iter().map(|slice| slice.len()).sum::<usize>() != all {
            return false;
        }
        slices.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
        true
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let length = self.bytes.len() as u64;
        if !self.is_complete || self.announced.is_some_and(|announced| announced != length) {
            return;
        }
        let kept = Kept {
            version: self.version,
            headers: mem::take(&mut self.headers),
            // Exactly as large as it is.
            body: mem::take(&mut self.bytes).into_boxed_slice().into(),
            scheme: self.scheme.take(),
            selection: mem::take(&mut self.selection),
            asked: self.asked,
            life: self.life,
        };
        self.store.keep(mem::take(&mut self.key), kept);
    }
}
