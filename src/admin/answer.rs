//! The head that every answer has.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::body::AdminBody;

/// What tells a browser to do nothing with an answer but what it is for: no
/// script, style or connection from elsewhere, no frame, no guess at a type, no
/// copy on disk.
const HEADERS: [(HeaderName, &str); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::VARY, "authorization"),
];

pub(super) fn json(status: StatusCode, value: &Value) -> Response<AdminBody> {
    of(status, "application/json", AdminBody::full(value.to_string()))
}

/// The text a renderer of metrics gave.
pub(super) fn metrics(text: String) -> Response<AdminBody> {
    of(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", AdminBody::full(text))
}

pub(super) fn events(stream: AdminBody) -> Response<AdminBody> {
    let mut response = of(StatusCode::OK, "text/event-stream", stream);
    // Or nginx would keep the events until it has enough of them.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A file of the page. It holds no data, so a browser may keep it, and asks
/// whether it still is the same.
pub(super) fn file(
    status: StatusCode,
    content_type: &'static str,
    etag: &HeaderValue,
    bytes: Bytes,
) -> Response<AdminBody> {
    let mut response = of(status, content_type, AdminBody::full(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ETAG, etag.clone());
    response
}

fn of(status: StatusCode, content_type: &'static str, body: AdminBody) -> Response<AdminBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
