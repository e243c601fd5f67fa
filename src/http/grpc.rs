//! What a gRPC status says about the dependency.

use http::{HeaderMap, header::CONTENT_TYPE};

use crate::outcome::Outcome;

/// Whether the headers are those of a gRPC response.
#[inline]
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..PREFIX.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
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
