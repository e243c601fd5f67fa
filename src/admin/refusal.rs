//! What is said to a request that is not done as it asks.

use std::borrow::Cow;

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{answer, body::AdminBody};

/// An answer that says no: a status, a code for a program, a sentence for a
/// person.
///
/// ```
/// use http::StatusCode;
/// use tower_breaker::AdminRefusal;
///
/// let message = "no service is called \"orders\"";
/// let refusal = AdminRefusal::new(StatusCode::NOT_FOUND, "unknown_service", message);
/// # let _ = refusal;
/// ```
// Boxed: it is seldom there, and results are moved often.
#[derive(Debug)]
pub struct Refusal(Box<Said>);

#[derive(Debug)]
struct Said {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    field: Option<String>,
    current: Option<Value>,
    header: Option<(header::HeaderName, &'static str)>,
}

impl Refusal {
    /// Says no with a status, a word for programs, and a sentence that says what
    /// would be right.
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let (code, message) = (code.into(), message.into());
        Self(Box::new(Said { status, code, message, field: None, current: None, header: None }))
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Says how it is instead.
    #[must_use]
    pub fn current(mut self, current: impl Serialize) -> Self {
        // What can't be said as JSON is not said.
        self.0.current = serde_json::to_value(current).ok();
        self
    }

    /// Nothing is at this path: 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    /// The path has other methods, as `"GET, HEAD"`: 405.
    pub fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("this path allows {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
            .header(header::ALLOW, allowed)
    }

    /// A field can't be meant so: 422. What would be right follows its name in
    /// the message: `"upstream", "must be a URL"`.
    pub fn invalid(field: &str, expected: &str) -> Self {
        let message = format!("{field} {expected}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message).field(field)
    }

    fn header(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.0.header = Some((name, value));
        self
    }

    pub(super) fn unauthorized() -> Self {
        let message = "a valid bearer token is needed in the authorization header";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .header(header::WWW_AUTHENTICATE, "Bearer")
    }

    pub(super) fn nameless() -> Self {
        let message = "who must be a name on one line, without control characters, line \
                       separators and marks that turn the direction of the text";
        Self::new(StatusCode::FORBIDDEN, "forbidden", message).field("who")
    }

    pub(super) fn viewer() -> Self {
        let message = "a viewer may look and not steer; this needs an operator";
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn cross_site(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "cross_site", message)
    }

    pub(super) fn misdirected(message: String) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_host", message)
    }

    pub(super) fn unknown_circuit(id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        let message = format!("no circuit is registered as {shown:?}");
        Self::new(StatusCode::NOT_FOUND, "unknown_circuit", message)
    }

    pub(super) fn stale(asked: u64, now: u64) -> Self {
        let message = format!(
            "if_generation is {asked}, but the circuit has changed since and is at {now}; \
             look at it again"
        );
        Self::new(StatusCode::CONFLICT, "stale_generation", message).field("if_generation")
    }

    pub(super) fn not_possible(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "not_possible", message)
    }

    pub(super) fn confirm_mismatch(confirmed: u64, matched: u64) -> Self {
        let message = format!(
            "confirm is {confirmed}, but this is for {matched} circuits; nothing was changed"
        );
        Self::new(StatusCode::CONFLICT, "confirm_mismatch", message)
            .field("confirm")
            .current(json!({ "matched": matched }))
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body must be at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn too_slow() -> Self {
        let message = "the body must come within 10 seconds";
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
    }

    pub(super) fn not_json() -> Self {
        let message = "the content-type must be application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn too_many_streams(limit: usize) -> Self {
        let message = format!("all {limit} streams are taken; try again later, or poll");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message)
            .header(header::RETRY_AFTER, "5")
    }

    /// An application's answer can't be written as JSON: a mistake of its own.
    pub(super) fn unanswerable(error: &serde_json::Error) -> Self {
        let message = format!("the answer can't be written as JSON: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unanswerable", message)
    }

    pub(super) fn shutting_down() -> Self {
        let message = "the server is shutting down and begins no stream";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
    }

    /// The object under `error`.
    pub(super) fn to_json(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), (*self.0.code).into());
        error.insert("message".into(), self.0.message.as_str().into());
        if let Some(field) = &self.0.field {
            error.insert("field".into(), field.as_str().into());
        }
        if let Some(current) = &self.0.current {
            error.insert("current".into(), current.clone());
        }
        error.into()
    }

    pub(super) fn into_response(self) -> Response<AdminBody> {
        let mut response = answer::json(self.0.status, &json!({ "error": self.to_json() }));
        if let Some((name, value)) = self.0.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
