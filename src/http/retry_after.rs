//! For how long a server asks to be left alone.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, StatusCode,
    header::{DATE, RETRY_AFTER},
};

/// What the head of a response asks for: `retry-after` with 429 and 503, and
/// gRPC's pushback with any status. Nonsense is as good as nothing.
pub(super) fn hint(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let is_asking =
        matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if is_asking { retry_after(headers) } else { None }.or_else(|| grpc_pushback(headers))
}

/// gRPC's `grpc-retry-pushback-ms`; a negative one says not to retry at all,
/// which is no time.
pub(super) fn grpc_pushback(headers: &HeaderMap) -> Option<Duration> {
    whole(text(headers, "grpc-retry-pushback-ms")?).map(Duration::from_millis)
}

/// Seconds, or a date. A date is taken against the server's own `date`, so
/// that its clock need not agree with ours.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER.as_str())?;
    if let Some(seconds) = whole(value) {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let date = text(headers, DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok());
    until.duration_since(date.unwrap_or_else(today)).ok()
}

/// More digits than fit mean very long.
fn whole(value: &str) -> Option<u64> {
    let is_whole = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| value.parse().unwrap_or(u64::MAX))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[expect(clippy::disallowed_methods, reason = "a date on the wire is of the calendar")]
fn today() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(status: u16, headers: &[(&'static str, &str)]) -> Option<Duration> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        hint(StatusCode::from_u16(status).unwrap(), &map)
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(asked(503, &[("retry-after", "120")]), Some(Duration::from_secs(120)));
        assert_eq!(asked(429, &[("retry-after", " 0 ")]), Some(Duration::ZERO));
        let date = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(asked(503, &[DATE, date]), Some(Duration::from_secs(60)));
        let asctime = ("retry-after", "Sun Nov  6 08:50:07 1994");
        assert_eq!(asked(503, &[DATE, asctime]), Some(Duration::from_secs(30)));
        let far = asked(503, &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")]);
        assert!(far.unwrap() > Duration::from_secs(60 * 60 * 24 * 365));
    }

    #[test]
    fn nonsense_and_other_statuses_ask_for_nothing() {
        for value in ["", "-1", "1.5", "soon", "1 s", "0x10", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(asked(503, &[("retry-after", value)]), None, "{value:?}");
        }
        assert_eq!(asked(500, &[("retry-after", "120")]), None);
        assert_eq!(asked(301, &[("retry-after", "120")]), None);
        let endless = "9".repeat(40);
        assert_eq!(asked(503, &[("retry-after", &endless)]), Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn a_grpc_server_pushes_back_in_milliseconds() {
        let name = "grpc-retry-pushback-ms";
        assert_eq!(asked(200, &[(name, "1500")]), Some(Duration::from_millis(1500)));
        for value in ["-1", "", "soon", "+1"] {
            assert_eq!(asked(200, &[(name, value)]), None, "{value:?}");
        }
        let endless = "9".repeat(40);
        assert_eq!(asked(200, &[(name, &endless)]), Some(Duration::from_millis(u64::MAX)));
    }
}
