//! The page: files that are in the binary, and hold no data.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, IF_NONE_MATCH},
};

use super::{answer, body::AdminBody};

/// By the name it is asked for, what it is, and what it holds.
const FILES: [(&str, &str, &str); 10] = [
    ("", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("detail.js", SCRIPT, include_str!("page/detail.js")),
    ("draw.js", SCRIPT, include_str!("page/draw.js")),
    ("flip.js", SCRIPT, include_str!("page/flip.js")),
    ("overview.js", SCRIPT, include_str!("page/overview.js")),
    ("store.js", SCRIPT, include_str!("page/store.js")),
    ("text.js", SCRIPT, include_str!("page/text.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the page, ready to send.
#[derive(Debug)]
pub(super) struct Page(Vec<File>);

#[derive(Debug)]
struct File {
    name: &'static str,
    content_type: &'static str,
    etag: HeaderValue,
    bytes: Bytes,
}

impl Page {
    /// The page as it is mounted at `base_path`: what it links to is found from
    /// there, whether its own address ends with a slash or not.
    pub(super) fn new(base_path: &str) -> Self {
        let file = |(name, content_type, text): (&'static str, _, &'static str)| {
            let bytes = if name.is_empty() && !base_path.is_empty() {
                let head = format!("<head><base href=\"{base_path}/\">");
                text.replacen("<head>", &head, 1).into()
            } else {
                Bytes::from_static(text.as_bytes())
            };
            File { name, content_type, etag: etag(&bytes), bytes }
        };
        Self(FILES.into_iter().map(file).collect())
    }

    /// The file of this name, unless the browser has it.
    pub(super) fn get(&self, name: &str, headers: &HeaderMap) -> Option<Response<AdminBody>> {
        let file = self.0.iter().find(|file| file.name == name)?;
        let is_known = |known: &HeaderValue| {
            known.to_str().is_ok_and(|known| {
                known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == file.etag)
            })
        };
        if headers.get_all(IF_NONE_MATCH).iter().any(is_known) {
            let status = StatusCode::NOT_MODIFIED;
            let mut response = answer::file(status, file.content_type, &file.etag, Bytes::new());
            response.headers_mut().remove(CONTENT_TYPE);
            return Some(response);
        }
        let (kind, bytes) = (file.content_type, file.bytes.clone());
        Some(answer::file(StatusCode::OK, kind, &file.etag, bytes))
    }
}

/// Different for different bytes: a hash with a fixed key, quoted.
fn etag(bytes: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    // A quote is allowed in a header, and so are hexadecimal digits.
    HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}
