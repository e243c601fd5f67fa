//! A response over HTTP/2 that its caller does not take.
//!
//! Each stream has a window of its own there, and while that is closed nobody asks
//! the body for anything: the upstream's connection would be held for as long as
//! the caller likes. So a task asks in the caller's stead, hands on what comes, and
//! lets go if that is not taken.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{sync::mpsc, time::timeout};

use super::{Body, BoxError};

/// The most that is handed on at once, in bytes: who takes that much in time takes
/// something.
const PIECE: usize = 16 << 10;

/// The same body, let go of once nothing was taken of it for so long.
pub(super) fn paced(body: Body, patience: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let length = body.size_hint();
    let (give, take) = mpsc::channel(1);
    tokio::spawn(hand_on(body, give, patience));
    Body::wrap(Paced { take, length })
}

/// What was handed on; none is the end.
type Handed = Result<Option<Frame<Bytes>>, BoxError>;

async fn hand_on(mut body: Body, give: mpsc::Sender<Handed>, patience: Duration) {
    loop {
        let next = tokio::select! {
            next = body.frame() => next.transpose(),
            // The caller went away.
            () = give.closed() => return,
        };
        let is_last = !matches!(next, Ok(Some(_)));
        for piece in pieces(next) {
            if !matches!(timeout(patience, give.send(piece)).await, Ok(Ok(()))) {
                return;
            }
        }
        if is_last {
            return;
        }
    }
}

fn pieces(next: Handed) -> impl Iterator<Item = Handed> {
    let (mut data, other) = match next.map(|next| next.map(Frame::into_data)) {
        Ok(Some(Ok(data))) => (data, None),
        Ok(Some(Err(trailers))) => (Bytes::new(), Some(Ok(Some(trailers)))),
        Ok(None) => (Bytes::new(), Some(Ok(None))),
        Err(error) => (Bytes::new(), Some(Err(error))),
    };
    let pieces = std::iter::from_fn(move || {
        let piece = data.split_to(data.len().min(PIECE));
        (!piece.is_empty()).then(|| Ok(Some(Frame::data(piece))))
    });
    pieces.chain(other)
}

struct Paced {
    take: mpsc::Receiver<Handed>,
    /// As it was in the beginning, which is when it is asked for.
    length: SizeHint,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let handed = ready!(self.take.poll_recv(context));
        // Without an end it must not look like a whole one.
        let cut_off = || Err("nothing of it was taken for too long".into());
        Poll::Ready(handed.unwrap_or_else(cut_off).transpose())
    }

    fn size_hint(&self) -> SizeHint {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::HeaderMap;
    use http_body_util::StreamBody;
    use tokio::time::sleep;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn data(length: usize) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(vec![7; length].into()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_is_all_there_however_slowly() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-a", "b".parse().unwrap());
        let frames = [data(1), data(3 * PIECE + 2), data(0), Ok(Frame::trailers(trailers.clone()))];
        let mut body = paced(Body::wrap(StreamBody::new(stream::iter(frames))), PATIENCE);
        let (mut length, mut last) = (0, None);
        while let Some(frame) = body.frame().await.transpose().unwrap() {
            sleep(PATIENCE * 9 / 10).await;
            let piece = frame.data_ref().map_or(0, Bytes::len);
            assert!(piece <= PIECE, "{piece} bytes are more than a slow caller has time for");
            length += piece;
            last = frame.into_trailers().ok();
        }
        assert_eq!((length, last), (3 * PIECE + 3, Some(trailers)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_let_go_does_not_end_like_a_whole_one() {
        let endless = stream::repeat_with(|| data(PIECE));
        let mut body = paced(Body::wrap(StreamBody::new(endless)), PATIENCE);
        body.frame().await.unwrap().unwrap();
        sleep(PATIENCE * 2).await;
        let mut left = 0;
        while body.frame().await.expect("no end").is_ok() {
            left += 1;
        }
        assert_eq!(left, 1, "what was on its way");
    }
}
