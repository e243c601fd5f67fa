//! The page: files that are in the binary, and hold no data.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, IF_NONE_MATCH, VARY},
};

use super::{answer, body::AdminBody};

/// By the name it is asked for, what it is, and what it holds.
const FILES: [(&str, &str, &str); 11] = [
    ("", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("detail.js", SCRIPT, include_str!("page/detail.js")),
    ("draw.js", SCRIPT, include_str!("page/draw.js")),
    ("flip.js", SCRIPT, include_str!("page/flip.js")),
    ("overview.js", SCRIPT, include_str!("page/overview.js")),
    ("past.js", SCRIPT, include_str!("page/past.js")),
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
    plain: Form,
    /// A third of its size.
    zipped: Option<Form>,
}

/// The bytes of a file, and what they are known by.
#[derive(Debug)]
struct Form {
    etag: HeaderValue,
    bytes: Bytes,
}

impl Form {
    fn new(bytes: Bytes) -> Self {
        Self { etag: etag(&bytes), bytes }
    }
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
            let zipped = zip(&bytes).map(Form::new);
            File { name, content_type, plain: Form::new(bytes), zipped }
        };
        Self(FILES.into_iter().map(file).collect())
    }

    /// The file of this name, unless the browser has it.
    pub(super) fn get(&self, name: &str, headers: &HeaderMap) -> Option<Response<AdminBody>> {
        let file = self.0.iter().find(|file| file.name == name)?;
        let zipped = file.zipped.as_ref().filter(|_| takes_gzip(headers));
        let form = zipped.unwrap_or(&file.plain);
        let is_known = |known: &HeaderValue| {
            known.to_str().is_ok_and(|known| {
                known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == form.etag)
            })
        };
        if headers.get_all(IF_NONE_MATCH).iter().any(is_known) {
            let status = StatusCode::NOT_MODIFIED;
            let mut response = answer::file(status, file.content_type, &form.etag, Bytes::new());
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
            return Some(response);
        }
        let (kind, bytes) = (file.content_type, form.bytes.clone());
        let mut response = answer::file(StatusCode::OK, kind, &form.etag, bytes);
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        if zipped.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Some(response)
    }
}

fn zip(bytes: &[u8]) -> Option<Bytes> {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::best());
    zipped.write_all(bytes).ok()?;
    Some(zipped.finish().ok()?.into())
}

/// Whether gzip is named, and not with the weight that forbids it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let named = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
        is_gzip && weight.parse::<f32>().is_ok_and(|weight| weight > 0.0)
    })
}

/// Different for different bytes: a hash with a fixed key, quoted.
fn etag(bytes: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    // A quote is allowed in a header, and so are hexadecimal digits.
    HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}
