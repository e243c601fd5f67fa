//! What may pass from one connection to another, and what may not.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts,
    uri::Authority,
};
use ipnet::IpNet;

use super::problem::Refusal;

const AMBIGUOUS: Refusal = Refusal::bad_request(
    "ambiguous-message",
    "the request can be read in more than one way: line ends are CR LF, lines are not folded, and \
     one Content-Length or Transfer-Encoding: chunked tells where the body ends",
)
.closing();
const CONNECT: Refusal = Refusal::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "connect-refused",
    "This is no forward proxy",
    "CONNECT is not served",
)
.closing();
const HOST_MISSING: Refusal =
    Refusal::bad_request("bad-host", "an HTTP/1.1 request has a Host header").closing();
const HOST_TWICE: Refusal =
    Refusal::bad_request("bad-host", "a request has one Host header").closing();
const HOST_INVALID: Refusal = Refusal::bad_request(
    "bad-host",
    "the Host header is a name or an address, and a port if need be",
)
.closing();
const HOST_DIFFERS: Refusal =
    Refusal::bad_request("bad-host", "the Host header is the same as :authority if there are both")
        .closing();
const PATH: Refusal = Refusal::bad_request(
    "bad-path",
    "the path has a dot segment, a backslash, an encoded slash, backslash or NUL, or a percent \
     sign that encodes nothing",
);
const CONNECTION: Refusal = Refusal::bad_request(
    "bad-connection-header",
    "Connection names a header that is not the connection's: Authorization, Cookie, Host, \
     Content-*, Forwarded and Via go to the end",
);
const LOOP: Refusal = Refusal::new(
    StatusCode::LOOP_DETECTED,
    "loop-detected",
    "The request has been here before",
    "the Via header names this gateway: an upstream sends requests back to it",
);

const LAST_HOP: Refusal = Refusal::new(
    StatusCode::NOT_IMPLEMENTED,
    "last-hop",
    "The request goes no further",
    "Max-Forwards is 0, and the gateway itself has no answer to TRACE and OPTIONS",
);

/// Refuses what no proxy may pass on.
pub(super) fn check(parts: &mut Parts, is_malformed: bool, own_name: &str) -> Result<(), Refusal> {
    if is_malformed {
        return Err(AMBIGUOUS);
    }
    if parts.method == Method::CONNECT {
        return Err(CONNECT);
    }
    // In HTTP/2 the bytes are not followed, and an equal second one is let through.
    if parts.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(AMBIGUOUS);
    }
    check_host(parts)?;
    if !is_plain(parts.uri.path()) {
        return Err(PATH);
    }
    check_connection(&parts.headers)?;
    if is_loop(&parts.headers, own_name) {
        return Err(LOOP);
    }
    count_down(parts)
}

/// TRACE and OPTIONS may say how far they go (RFC 9110, 7.6.2).
fn count_down(parts: &mut Parts) -> Result<(), Refusal> {
    if !matches!(parts.method, Method::TRACE | Method::OPTIONS) {
        return Ok(());
    }
    let hops = parts.headers.get(header::MAX_FORWARDS).and_then(|hops| hops.to_str().ok());
    if let Some(hops) = hops.and_then(|hops| hops.parse::<u64>().ok()) {
        let left = hops.checked_sub(1).ok_or(LAST_HOP)?;
        parts.headers.insert(header::MAX_FORWARDS, left.into());
    }
    Ok(())
}

/// Leaves one `Host`, which says for whom the request is.
fn check_host(parts: &mut Parts) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HOST_TWICE);
    }
    if let Some(host) = host {
        check_authority(host.as_bytes())?;
    }
    match (parts.uri.authority(), host) {
        (None, None) if parts.version == Version::HTTP_11 => Err(HOST_MISSING),
        (None, _) => Ok(()),
        (Some(authority), host) => {
            check_authority(authority.as_str().as_bytes())?;
            let is_same = host.is_none_or(|host| {
                authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
            });
            // In HTTP/1 the target goes before the header (RFC 9112, 3.2.2); in
            // HTTP/2 such a message is malformed (RFC 9113, 8.3.1).
            if parts.version == Version::HTTP_2 && !is_same {
                return Err(HOST_DIFFERS);
            }
            if host.is_none() || !is_same {
                let host = HeaderValue::from_str(authority.as_str()).map_err(|_| HOST_INVALID)?;
                parts.headers.insert(header::HOST, host);
            }
            Ok(())
        }
    }
}

fn check_authority(host: &[u8]) -> Result<(), Refusal> {
    // Names nothing, which is allowed.
    if host.is_empty() {
        return Ok(());
    }
    match Authority::try_from(host) {
        Ok(authority) if !host.contains(&b'@') && !authority.host().is_empty() => Ok(()),
        _ => Err(HOST_INVALID),
    }
}

/// The host that a checked request is for, without its port.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let name = match host.rfind(':') {
        // The colons of an address in brackets are no port's.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    Some(name).filter(|name| !name.is_empty())
}

/// Whether everyone reads the path alike.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let has_odd = bytes.iter().any(|byte| matches!(byte, b'%' | b'\\' | 0));
    if !has_odd && !path.contains("/.") {
        return true;
    }
    !bytes.iter().any(|byte| matches!(byte, b'\\' | 0)) && path.split('/').all(is_plain_segment)
}

fn is_plain_segment(segment: &str) -> bool {
    let mut dots = 0;
    let mut length = 0;
    let mut in_parameters = false;
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let digits = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = digits else { return false };
                match high << 4 | low {
                    b'/' | b'\\' | 0 => return false,
                    decoded => decoded,
                }
            }
            // Some servers resolve `..;x` like `..`.
            b';' => {
                in_parameters = true;
                continue;
            }
            byte => byte,
        };
        if !in_parameters {
            length += 1;
            dots += usize::from(byte == b'.');
        }
    }
    !(dots == length && (dots == 1 || dots == 2))
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn check_connection(headers: &HeaderMap) -> Result<(), Refusal> {
    for value in headers.get_all(header::CONNECTION) {
        let value = value.to_str().map_err(|_| CONNECTION)?;
        if value.split(',').any(|name| is_protected(name.trim())) {
            return Err(CONNECTION);
        }
    }
    Ok(())
}

fn is_protected(name: &str) -> bool {
    const NAMES: [&str; 5] = ["authorization", "cookie", "host", "forwarded", "via"];
    NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected))
        || name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"))
}

fn is_loop(headers: &HeaderMap, own_name: &str) -> bool {
    headers.get_all(header::VIA).iter().any(|via| {
        via.to_str().is_ok_and(|via| via.split([' ', ',', '\t']).any(|word| word == own_name))
    })
}

/// Removes what is between two neighbours only, and what `Connection` names.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Makes of a caller's headers those of a request to the upstream.
pub(super) fn prepare(parts: &mut Parts, caller: &Caller, via: &Via) {
    let headers = &mut parts.headers;
    let takes_trailers = headers.get_all(header::TE).iter().any(|value| {
        let codings = value.to_str().unwrap_or_default().split(',');
        codings.map(str::trim).any(|coding| coding.eq_ignore_ascii_case("trailers"))
    });
    strip_hop_by_hop(headers);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // The gateway itself says `100 Continue`, once somebody wants the body.
    if headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        headers.remove(header::EXPECT);
    }
    if parts.version == Version::HTTP_2 {
        join_cookies(headers);
    }
    caller.announce(headers);
    headers.append(header::VIA, via.of(parts.version));
}

/// HTTP/2 may cut a cookie header in pieces, HTTP/1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let pieces: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

/// What is known of a caller's connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    is_trusted: bool,
    address: HeaderValue,
    forwarded: HeaderValue,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

impl Caller {
    pub(super) fn new(peer: SocketAddr, trusted: &[IpNet]) -> Caller {
        let address = peer.ip().to_canonical();
        let forwarded = match address {
            IpAddr::V4(address) => format!("for={address};proto=http"),
            IpAddr::V6(address) => format!("for=\"[{address}]\";proto=http"),
        };
        Caller {
            is_trusted: trusted.iter().any(|network| network.contains(&address)),
            address: value(&address.to_string()),
            forwarded: value(&forwarded),
        }
    }

    /// Says on whose behalf the request is made. Who is not trusted has no say
    /// in that.
    fn announce(&self, headers: &mut HeaderMap) {
        if self.is_trusted {
            extend(headers, X_FORWARDED_FOR, &self.address);
            extend(headers, header::FORWARDED, &self.forwarded);
        } else {
            forget(headers);
            headers.insert(X_FORWARDED_FOR, self.address.clone());
            headers.insert(header::FORWARDED, self.forwarded.clone());
        }
        if !headers.contains_key(X_FORWARDED_PROTO) {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        }
        if !headers.contains_key(X_FORWARDED_HOST) {
            if let Some(host) = headers.get(header::HOST).cloned() {
                headers.insert(X_FORWARDED_HOST, host);
            }
        }
    }
}

fn forget(headers: &mut HeaderMap) {
    let forged: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    headers.remove(X_REAL_IP);
}

/// Adds to a list, on one line: not everyone reads a second.
fn extend(headers: &mut HeaderMap, name: HeaderName, last: &HeaderValue) {
    let mut list: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    list.push(last.as_bytes());
    if let Ok(list) = HeaderValue::from_bytes(&list.join(&b", "[..])) {
        headers.insert(name, list);
    }
}

/// The gateway's own name in `Via`. It is another one each time the gateway is
/// started, for requests may well pass through several gateways.
#[derive(Clone, Debug)]
pub(super) struct Via {
    name: String,
    values: [HeaderValue; 3],
}

impl Via {
    pub(super) fn new(name: String) -> Via {
        let values = ["1.0", "1.1", "2"].map(|version| value(&format!("{version} {name}")));
        Via { name, values }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn of(&self, version: Version) -> HeaderValue {
        let at = match version {
            Version::HTTP_2 => 2,
            Version::HTTP_11 => 1,
            _ => 0,
        };
        self.values[at].clone()
    }
}

/// Of text that is known to be fit.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_plain_if_nobody_could_resolve_it_to_another() {
        for path in [
            "/",
            "/a",
            "/a.b",
            "/.a",
            "/a..",
            "/...",
            "//",
            "/a/%20",
            "/a;b",
            "/%2e%2e%2e",
            "*",
            "/ä",
        ] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e",
            "/%2E%2e/",
            "/.%2e",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%00b",
            "/..;/a",
            "/.;x=y",
            "/..%3b/%2e%2e",
            "/100%",
            "/%zz",
            "/%+1",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn a_host_has_no_port() {
        let host_of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(text));
            host(&headers).map(str::to_owned)
        };
        assert_eq!(host_of("a.example").as_deref(), Some("a.example"));
        assert_eq!(host_of("a.example:80").as_deref(), Some("a.example"));
        assert_eq!(host_of("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(host_of("[::1]").as_deref(), Some("[::1]"));
        assert_eq!(host_of(""), None);
    }
}
