//! A message as JSON, by `POST`, signed.
//!
//! The body is signed with the time at which it is sent, so that nobody can
//! send it again later. With the headers of a request and its body, a receiver
//! checks it like this, in Python:
//!
//! ```python
//! import hashlib, hmac, time
//!
//! def is_genuine(headers, body: bytes, secret: bytes) -> bool:
//!     sent = headers["x-brk-timestamp"]
//!     if abs(time.time() - int(sent)) > 300:
//!         return False
//!     expected = hmac.new(secret, sent.encode() + b"." + body, hashlib.sha256).hexdigest()
//!     return hmac.compare_digest("v1=" + expected, headers["x-brk-signature"])
//! ```
//!
//! The secret is what is in the file, without space at its ends. A message may
//! come more than once, if its receiver's answer got lost: the header
//! `idempotency-key` is the same then.

use std::{path::PathBuf, time::SystemTime};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::{HeaderValue, Request, Uri, header};
use sha2::Sha256;

use super::{failure::Failure, http::Client, message::Message, secret};

#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) client: Client,
    pub(super) url: Uri,
    pub(super) secret_file: Option<PathBuf>,
}

impl Webhook {
    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        let body = message.to_json().to_string();
        let mut request = Request::post(self.url.clone());
        if let Some(file) = &self.secret_file {
            let secret = secret::read(file, "secret_file").await?;
            let sent = seconds(date());
            request = request
                .header("x-brk-timestamp", sent)
                .header("x-brk-signature", signature(secret.as_bytes(), sent, body.as_bytes()));
        }
        if let Ok(id) = HeaderValue::from_str(&message.id()) {
            request = request.header("idempotency-key", id);
        }
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(|_| Failure::permanent("the URL makes no request"))?;
        self.client.post(request).await
    }
}

/// As it stands in `x-brk-signature`.
fn signature(secret: &[u8], sent: u64, body: &[u8]) -> String {
    use std::fmt::Write;

    let mut signed = String::from("v1=");
    // A key of any length will do, so there is no error.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(sent.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(signed, "{byte:02x}");
        }
    }
    signed
}

fn seconds(date: SystemTime) -> u64 {
    date.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[expect(clippy::disallowed_methods, reason = "told to the receiver")]
fn date() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `openssl dgst -sha256 -hmac`.
    #[test]
    fn the_signature_is_what_others_compute() {
        assert_eq!(
            signature(b"key", 1_700_000_000, b"{\"a\":1}"),
            "v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"
        );
    }
}
