//! The directives of `cache-control`, and what else is said in seconds.

use std::time::Duration;

use http::{
    HeaderMap,
    header::{AGE, CACHE_CONTROL, PRAGMA},
};

/// What the `cache-control` of a request or a response says, as far as it
/// matters here.
///
/// In doubt it says the stricter thing: a directive that is said of single
/// fields (`private="x-user"`) is taken for the whole response, of a number
/// that is said twice the smaller counts, what should be a number and is none is
/// zero, and where a quote is never closed nothing is allowed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CacheControl {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
}

impl CacheControl {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            for directive in split(value.as_bytes()) {
                said.add(directive);
            }
            if !is_closed(value.as_bytes()) {
                (said.no_store, said.no_cache) = (true, true);
            }
        }
        // What `cache-control` was called before there was one.
        if !headers.contains_key(CACHE_CONTROL) {
            let mut pragmas = headers.get_all(PRAGMA).iter().map(|value| value.as_bytes());
            let is_no_cache = |pragma: &[u8]| pragma.trim_ascii().eq_ignore_ascii_case(b"no-cache");
            said.no_cache = pragmas.any(|list| !is_closed(list) || split(list).any(is_no_cache));
        }
        said
    }

    fn add(&mut self, directive: &[u8]) {
        let (name, value) = match directive.iter().position(|byte| *byte == b'=') {
            Some(at) => (&directive[..at], Some(&directive[at + 1..])),
            None => (directive, None),
        };
        let number = |known: &mut Option<Duration>| {
            let said = value.and_then(|value| seconds(unquoted(value))).unwrap_or_default();
            *known = Some(known.map_or(said, |known| known.min(said)));
        };
        match &*name.trim_ascii().to_ascii_lowercase() {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"max-age" => number(&mut self.max_age),
            b"s-maxage" => number(&mut self.s_maxage),
            b"stale-if-error" => number(&mut self.stale_if_error),
            _ => {}
        }
    }
}

/// How old a response was when it came, as far as those before us told.
pub(super) fn age(headers: &HeaderMap) -> Duration {
    headers.get(AGE).and_then(|value| seconds(value.as_bytes())).unwrap_or_default()
}

/// The parts of a list, without what stands in quotes being cut.
pub(super) fn split(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = quotes();
    list.split(move |byte| !is_quoted(byte) && *byte == b',')
}

/// Whether each quote of a list is closed.
fn is_closed(list: &[u8]) -> bool {
    let mut is_quoted = quotes();
    !list.iter().fold(false, |_, byte| is_quoted(byte))
}

/// Says of one byte after the other whether it leads on within quotes.
fn quotes() -> impl FnMut(&u8) -> bool {
    let mut is_quoted = false;
    let mut is_escaped = false;
    move |byte| {
        let escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !escaped => is_escaped = true,
            b'"' if !escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_quoted
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// Digits and nothing else; more of them than fit mean very long.
fn seconds(value: &[u8]) -> Option<Duration> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = value
        .iter()
        .fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    // What RFC 9111 takes for infinity.
    Some(Duration::from_secs(seconds.min(1 << 31)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(values: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, value.parse().unwrap());
        }
        CacheControl::of(&headers)
    }

    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn directives_are_found_in_any_spelling() {
        let expected = CacheControl {
            public: true,
            must_revalidate: true,
            max_age: secs(60),
            stale_if_error: secs(600),
            ..CacheControl::default()
        };
        for values in [
            &["public, max-age=60, stale-if-error=600, must-revalidate"] as &[_],
            &[
                "PUBLIC,Max-Age=\"60\" ,, Stale-If-Error = 600 , x=\"a, no-store, b\"",
                "must-revalidate",
            ],
            &["x=\"\\\", no-cache, b\", must-revalidate, max-age=60, public", "stale-if-error=600"],
        ] {
            assert_eq!(said(values), expected, "{values:?}");
        }
    }

    #[test]
    fn in_doubt_the_stricter_thing_is_said() {
        assert!(said(&["private=\"set-cookie, x-user\""]).private);
        assert!(said(&["no-cache=\"set-cookie\""]).no_cache);
        assert_eq!(said(&["max-age=60, max-age=5", "max-age=7"]).max_age, secs(5));
        for nonsense in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon"] {
            assert_eq!(said(&[nonsense]).max_age, secs(0), "{nonsense}");
        }
        let endless = format!("stale-if-error={}", "9".repeat(40));
        assert_eq!(said(&[&endless]).stale_if_error, secs(1 << 31));
    }

    /// Nobody knows what it hides, or what it was to hide.
    #[test]
    fn a_quote_that_is_never_closed_forbids_everything() {
        for open in ["x=\"a, no-store", "max-age=60, x=\"a\\\", public", "\""] {
            let said = said(&["max-age=60", open]);
            assert!(said.no_store && said.no_cache, "{open}");
            let mut headers = HeaderMap::new();
            headers.insert(PRAGMA, open.parse().unwrap());
            assert!(CacheControl::of(&headers).no_cache, "{open}");
        }
        assert!(!said(&["x=\"a\", y=\"\\\"\""]).no_store);
    }

    #[test]
    fn an_old_pragma_counts_where_nothing_newer_is_said() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, "no-cache".parse().unwrap());
        assert!(CacheControl::of(&headers).no_cache);
        headers.insert(CACHE_CONTROL, "max-age=1".parse().unwrap());
        assert!(!CacheControl::of(&headers).no_cache);
    }

    #[test]
    fn an_age_is_a_number_or_none() {
        for (value, seconds) in [("7", 7), (" 7 ", 7), ("-7", 0), ("old", 0), ("", 0)] {
            let mut headers = HeaderMap::new();
            headers.insert(AGE, value.parse().unwrap());
            assert_eq!(age(&headers), Duration::from_secs(seconds), "{value:?}");
        }
    }
}
