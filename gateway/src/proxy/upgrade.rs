//! WebSockets and other protocols that HTTP hands its connection to.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use super::worker::Seat;

/// A request's wish to leave HTTP. It travels in the request's extensions, and
/// is there only if the service allows it.
#[derive(Clone)]
pub(super) struct Upgrade {
    pub(super) protocol: HeaderValue,
    pub(super) caller: OnUpgrade,
    /// Counts the connection for as long as it lives.
    pub(super) seat: Arc<Seat>,
}

/// Whether a request asks for it. `h2c` is not meant: HTTP/2 in clear text is
/// spoken from the first byte or not at all.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::UPGRADE)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

/// Whether `h2c` is among what it asks for. Whoever granted that would speak
/// HTTP/2 with the caller, and nobody would look at the requests.
pub(super) fn names_http2(headers: &HeaderMap) -> bool {
    let protocols = headers.get_all(header::UPGRADE).iter();
    let mut names = protocols.flat_map(|value| value.as_bytes().split(|byte| b",/".contains(byte)));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

impl Upgrade {
    /// Carries bytes to and fro until both sides have ended or one has failed.
    pub(super) fn grant(self, response: &mut Response<Incoming>) {
        let upstream = hyper::upgrade::on(response);
        let Upgrade { caller, seat, .. } = self;
        tokio::spawn(async move {
            let _seat = seat;
            if let (Ok(caller), Ok(upstream)) = tokio::join!(caller, upstream) {
                carry(caller, upstream).await;
            }
        });
    }
}

async fn carry(caller: Upgraded, upstream: Upgraded) {
    let (mut caller, mut upstream) = (TokioIo::new(caller), TokioIo::new(upstream));
    // Either side may go away when it likes; there is nobody left to tell.
    let _ = tokio::io::copy_bidirectional(&mut caller, &mut upstream).await;
}
