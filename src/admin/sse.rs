//! Server-sent events, as bytes.

use std::fmt::Write;

use bytes::Bytes;

/// One event. The data is JSON, and so has no line's end in it.
pub(super) fn event(name: &str, id: Option<u64>, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 48);
    push(&mut text, name, id, data);
    text.into()
}

/// Adds an event to others.
pub(super) fn push(text: &mut String, name: &str, id: Option<u64>, data: &str) {
    debug_assert!(!data.contains(['\r', '\n']), "data of an event is one line");
    // Writing into a string does not fail.
    let _ = match id {
        Some(id) => write!(text, "event: {name}\nid: {id}\ndata: {data}\n\n"),
        None => write!(text, "event: {name}\ndata: {data}\n\n"),
    };
}
