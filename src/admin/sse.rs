//! Server-sent events, as bytes.

use bytes::Bytes;

use super::cursor::Cursor;

/// One event. The data is JSON, and so has no line's end in it.
pub(super) fn event(name: &str, id: Option<Cursor>, data: &str) -> Bytes {
    debug_assert!(!data.contains(['\r', '\n']), "data of an event is one line");
    match id {
        Some(id) => format!("event: {name}\nid: {id}\ndata: {data}\n\n"),
        None => format!("event: {name}\ndata: {data}\n\n"),
    }
    .into()
}

/// The number of the event that follows without one.
pub(super) fn id(id: Cursor) -> Bytes {
    format!("id: {id}\n").into()
}
