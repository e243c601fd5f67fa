//! A caller's connection, watched.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{activity::Activity, framing::Framing};

/// Follows what is read, and tells when nothing can be written.
pub(super) struct Watched {
    stream: TcpStream,
    /// What was read to see which protocol it is.
    first: Vec<u8>,
    /// None for HTTP/2, which can be read in one way only.
    framing: Option<Framing>,
    activity: Arc<Activity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Watched {
        Watched { stream, first: Vec::new(), framing: None, activity }
    }

    /// Reads until it is clear what the caller speaks; `None` if it went away.
    pub(super) async fn version(&mut self) -> io::Result<Option<Version>> {
        let mut first = [0; HTTP2_PREFACE.len()];
        let mut length = 0;
        let version = loop {
            let read = self.stream.read(&mut first[length..]).await?;
            if read == 0 {
                return Ok(None);
            }
            length += read;
            if first[..length] != HTTP2_PREFACE[..length] {
                self.framing = Some(Framing::new());
                break Version::Http1;
            }
            if length == HTTP2_PREFACE.len() {
                break Version::Http2;
            }
        };
        self.first = first[..length].to_vec();
        Ok(Some(version))
    }

    fn watch<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match poll {
            Poll::Pending => self.activity.block(),
            Poll::Ready(_) => self.activity.unblock(),
        }
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let watched = &mut *self;
        let before = buffer.filled().len();
        if watched.first.is_empty() {
            std::task::ready!(Pin::new(&mut watched.stream).poll_read(context, buffer))?;
        } else {
            let here = watched.first.len().min(buffer.remaining());
            buffer.put_slice(&watched.first[..here]);
            watched.first.drain(..here);
        }
        if let Some(framing) = &mut watched.framing {
            if framing.read(&buffer.filled()[before..]).is_err() {
                watched.activity.set_malformed();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
