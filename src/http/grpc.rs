//! What a gRPC status says about the dependency.

use http::{HeaderMap, header::CONTENT_TYPE};

use crate::outcome::Outcome;

/// The verdict of a head, if it is that of a gRPC response and has one.
#[inline(always)]
pub(super) fn outcome_of_head(headers: &HeaderMap) -> Option<Outcome> {
    // To look for a header costs more than to see that there is none.
    if headers.is_empty() { None } else { look_for_outcome(headers) }
}

#[inline(never)]
fn look_for_outcome(headers: &HeaderMap) -> Option<Outcome> {
    if is_grpc(headers) { outcome(headers) } else { None }
}

/// Whether the headers are those of a gRPC response.
#[inline]
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    has_content_type(headers, b"application/grpc")
}

/// Whether a gRPC response has its status in the trailers, as all have but
/// those of gRPC-Web, which keep it in the body.
pub(super) fn has_status_in_trailers(headers: &HeaderMap) -> bool {
    is_grpc(headers) && !has_content_type(headers, b"application/grpc-web")
}

/// Whether the content type starts like this.
#[inline]
fn has_content_type(headers: &HeaderMap, start: &[u8]) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..start.len()))
        .is_some_and(|value| value.eq_ignore_ascii_case(start))
}

/// The verdict of a `grpc-status`, if there is one among these headers or
/// trailers. What is no number is `UNKNOWN`, as gRPC has it.
pub(super) fn outcome(headers: &HeaderMap) -> Option<Outcome> {
    const UNKNOWN: u32 = 2;
    let value = headers.get("grpc-status")?;
    let code = value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN);
    Some(match code {
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS
        UNKNOWN | 4 | 13 | 14 | 15 => Outcome::Failure,
        // CANCELLED, RESOURCE_EXHAUSTED
        1 | 8 => Outcome::Ignored,
        // OK, and answers to a wrong question: INVALID_ARGUMENT, NOT_FOUND …
        _ => Outcome::Success,
    })
}
