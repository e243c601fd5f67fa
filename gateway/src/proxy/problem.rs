//! What the gateway itself has to say: problem documents (RFC 9457).

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::Body;

/// An answer of the gateway's own.
///
/// `kind` becomes the document's `type`, `urn:brk:problem:KIND`: programs tell
/// answers apart by it, so it stays as it is.
pub fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> Response<Body> {
    problem_with(status, kind, title, detail, [])
}

/// The same with more members.
pub(super) fn problem_with<const N: usize>(
    status: StatusCode,
    kind: &str,
    title: &str,
    detail: &str,
    members: [(&str, Value); N],
) -> Response<Body> {
    let mut document = serde_json::json!({
        "type": format!("urn:brk:problem:{kind}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    for (name, value) in members {
        document[name] = value;
    }
    let mut response = Response::new(Body::full(document.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// Why a request goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: &'static str,
    /// What follows on the connection can't be trusted either.
    pub(super) close: bool,
}

impl Refusal {
    pub(super) const fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: &'static str,
    ) -> Refusal {
        Refusal { status, kind, title, detail, close: false }
    }

    pub(super) const fn bad_request(kind: &'static str, detail: &'static str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, kind, "The request is refused", detail)
    }

    pub(super) const fn closing(self) -> Refusal {
        Refusal { close: true, ..self }
    }

    pub(super) fn response(self) -> Response<Body> {
        problem(self.status, self.kind, self.title, self.detail)
    }
}
