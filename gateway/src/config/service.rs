//! One service: `[services.NAME]`, or a file in `services.d`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE,
    },
    uri::Authority,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    circuit,
    reader::{Table, Value},
    settings::{Protocol, Respond, Retry, Route, Service, Template, Timeouts, Upstream, WhenOpen},
    template,
};

/// Reads a service. `base` is what relative paths are relative to. What comes
/// back is of use only if nothing was noted.
pub(super) fn read(name: &str, mut table: Table<'_>, base: &Path) -> Option<Service> {
    let route = route(name, &mut table);
    let upstream = match table.need("upstream", "\"http://127.0.0.1:3000\"") {
        Some(value) => upstream(value, base),
        None => None,
    };
    let timeouts = timeouts(table.table("timeouts"));
    let upgrade = table.take("upgrade");
    let place = upgrade.as_ref().map(|value| value.place().clone());
    let upgrade = upgrade.and_then(Value::flag).unwrap_or(false);
    let is_http2 = upstream.as_ref().is_some_and(|it| it.protocol == Protocol::Http2);
    if let Some(place) = place.filter(|_| upgrade && is_http2) {
        let message = "is true, but the upstream's `protocol` is \"http2\", which has no upgrades";
        table.source().note(&place, &table.key("upgrade"), message);
    }
    let retry = table.get("retry", |value| value.table().and_then(retry));
    let protect = table.get("protect", Value::flag).unwrap_or(true);
    let until_end_of_body = table.get("until_end_of_body", Value::flag).unwrap_or(false);
    let slow_is_failure = table.get("slow_is_failure", |value| value.duration(false));
    let circuit = circuit::read(table.take("circuit"), name);
    let when_open = when_open(table.table("when_open"), base);
    table.finish();
    Some(Service {
        name: name.to_owned(),
        route: route?,
        upstream: upstream?,
        timeouts,
        upgrade,
        retry,
        protect,
        until_end_of_body,
        slow_is_failure,
        circuit: circuit?,
        when_open: when_open?,
    })
}

/// What is wrong with a service's name: it is a circuit's, a file's and a
/// path's too.
pub(super) fn refuse_name(name: &str) -> Option<&'static str> {
    let is_right = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    (!is_right).then_some(
        "the name of a service must be 1 to 64 letters, digits, `.`, `_` or `-`, \
         and begin with a letter or a digit",
    )
}

fn route(name: &str, table: &mut Table<'_>) -> Option<Route> {
    let host = table
        .take("host")
        .map(|value| value.parsed("a host name such as \"api.example.com\", without a port", host));
    let path = table.take("path").map(|value| value.parsed("a path such as \"/orders\"", prefix));
    let strip_prefix = table.get("strip_prefix", Value::flag);
    let prefix = match (path, &host) {
        (Some(path), _) => path?,
        (None, Some(_)) => "/".to_owned(),
        (None, None) => format!("/{name}"),
    };
    let host = match host {
        Some(host) => Some(host?),
        None => None,
    };
    // There is nothing to strip of the shortest.
    let strip_prefix = prefix != "/" && strip_prefix.unwrap_or(true);
    Some(Route { host, prefix, strip_prefix })
}

/// As requests are looked up: in lower case and without the root's dot.
fn host(text: &str) -> Result<String, &'static str> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_address = text.starts_with('[') && text.ends_with(']');
    let is_right = match is_address {
        true => text[1..text.len() - 1].parse::<std::net::Ipv6Addr>().is_ok(),
        false => !text.is_empty() && text.len() <= 253 && text.chars().all(is_name),
    };
    let is_right =
        is_right && !text.starts_with('.') && !text.ends_with('.') && !text.contains("..");
    if is_right { Ok(text.to_ascii_lowercase()) } else { Err("") }
}

fn prefix(text: &str) -> Result<String, &'static str> {
    let Some(rest) = text.strip_prefix('/') else { return Err("it begins with a slash") };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() && text.len() <= 1 {
        return Ok("/".to_owned());
    }
    let mut segments = rest.split('/');
    if segments.clone().any(str::is_empty) {
        return Err("without empty segments");
    }
    if segments.any(|segment| matches!(segment, "." | "..")) {
        return Err("without dot segments");
    }
    if text.contains(['?', '#', '%', '\\']) || text.parse::<Uri>().is_err() {
        return Err("without a query, escapes or characters that a URL must escape");
    }
    Ok(format!("/{rest}"))
}

/// A URL, or a table of it and how it is called.
pub(super) fn upstream(value: Value<'_>, base: &Path) -> Option<Upstream> {
    if value.is_text() {
        return Some(Upstream {
            url: url(value)?,
            protocol: Protocol::Auto,
            preserve_host: false,
            ca_file: None,
            ca: Vec::new(),
            max_idle: MAX_IDLE,
        });
    }
    let mut table = value.table()?;
    let url = table.need("url", "\"http://127.0.0.1:3000\"").and_then(url);
    let protocol = table.get("protocol", |value| {
        value.parsed("\"auto\", \"http1\" or \"http2\"", |word| match word {
            "auto" => Ok(Protocol::Auto),
            "http1" => Ok(Protocol::Http1),
            "http2" => Ok(Protocol::Http2),
            _ => Err(""),
        })
    });
    let preserve_host = table.get("preserve_host", Value::flag).unwrap_or(false);
    let ca = table.get("ca_file", |value| ca_file(value, base));
    let (ca_file, ca) = ca.map_or((None, Vec::new()), |(file, ca)| (Some(file), ca));
    let max_idle = table.get("max_idle", |value| value.whole(0..100_001));
    table.finish();
    Some(Upstream {
        url: url?,
        protocol: protocol.unwrap_or(Protocol::Auto),
        preserve_host,
        ca_file,
        ca,
        max_idle: max_idle.map_or(MAX_IDLE, |max| max as usize),
    })
}

const MAX_IDLE: usize = 64;

type Certificates = Vec<CertificateDer<'static>>;

/// The file, and what is in it now.
pub(super) fn ca_file(value: Value<'_>, base: &Path) -> Option<(PathBuf, Certificates)> {
    value.parsed("a file with certificates as PEM", |path| {
        let path = base.join(path);
        match certificates(&path) {
            Ok(found) => Ok((path, found)),
            Err(why) => Err(format!("{}: {why}", path.display())),
        }
    })
}

fn certificates(path: &Path) -> Result<Certificates, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let found: Result<Certificates, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is none in it".to_owned()) } else { Ok(found) }
}

fn url(value: Value<'_>) -> Option<Uri> {
    let right = "a URL such as \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\"";
    value.parsed(right, http_url)
}

/// A URL to forward to: with a scheme and an authority, and nothing that a
/// request has of its own.
pub(crate) fn http_url(text: &str) -> Result<Uri, String> {
    let url = web_url(text)?;
    if url.query().is_some() {
        return Err("without a query".to_owned());
    }
    Ok(url)
}

/// Any URL of the web.
pub(super) fn web_url(text: &str) -> Result<Uri, String> {
    if text.contains('#') {
        return Err("without a fragment".to_owned());
    }
    let url: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(scheme) => return Err(format!("by http or https, not by {scheme}")),
        None => return Err("it begins with http:// or https://".to_owned()),
    }
    match url.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("without a user and a password".to_owned())
        }
        Some(authority) if !authority.host().is_empty() && has_right_port(authority) => Ok(url),
        _ => Err("it names a host, and a port from 1 to 65535 or none".to_owned()),
    }
}

/// Or none. What can't be read as one would be left out, and the scheme's own taken.
fn has_right_port(authority: &Authority) -> bool {
    authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port != 0)
}

fn timeouts(mut table: Table<'_>) -> Timeouts {
    let mut duration = |key| table.get(key, |value| value.duration(false));
    let timeouts = Timeouts {
        connect: duration("connect").unwrap_or(Duration::from_secs(2)),
        head: duration("head").unwrap_or(Duration::from_secs(10)),
        body_idle: duration("body_idle").unwrap_or(Duration::from_secs(30)),
        total: duration("total"),
    };
    table.finish();
    timeouts
}

fn retry(mut table: Table<'_>) -> Option<Retry> {
    let attempts = table.get("attempts", |value| value.whole(2..11)).unwrap_or(2);
    let budget = table.get("budget", |value| value.share(1.0)).unwrap_or(0.2);
    table.finish();
    Some(Retry { attempts: attempts as u32, budget })
}

fn when_open(mut table: Table<'_>, base: &Path) -> Option<WhenOpen> {
    let answer = table.take("respond");
    let has_answer = answer.is_some();
    let answer = match answer {
        Some(value) => value.table().and_then(respond),
        None => Some(Respond::default()),
    };
    let fallback = table.take("fallback").map(|value| upstream(value, base));
    let stale = table.take("stale").map(|value| value.table().map(stale));
    let close = table.get("close", Value::flag).unwrap_or(false);
    let chosen = [
        (has_answer && stale.is_none(), "respond"),
        (fallback.is_some(), "fallback"),
        (stale.is_some(), "stale"),
        (close, "close"),
    ];
    let chosen: Vec<&str> = chosen.into_iter().filter_map(|(is, key)| is.then_some(key)).collect();
    if chosen.len() > 1 {
        let chosen = chosen.join("` and `");
        let message =
            format!("has `{chosen}`, but must have one of them (`respond` may be beside `stale`)");
        table.refuse("", message);
    }
    table.finish();
    match (fallback, stale, close) {
        (Some(upstream), ..) => Some(WhenOpen::Fallback(upstream?)),
        (_, Some(stale), _) => {
            let (ttl, max_size) = stale?;
            Some(WhenOpen::Stale { ttl, max_size, respond: answer? })
        }
        (.., true) => Some(WhenOpen::Close),
        _ => Some(WhenOpen::Respond(answer?)),
    }
}

fn stale(mut table: Table<'_>) -> (Duration, usize) {
    let ttl = table.get("ttl", |value| value.duration(false)).unwrap_or(Duration::from_secs(600));
    let max_size = table.get("max_size", |value| value.size(1 << 10)).unwrap_or(64 << 20);
    table.finish();
    (ttl, max_size)
}

impl Default for Respond {
    /// 503, `Retry-After` and a problem document.
    fn default() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: true,
            headers: HeaderMap::new(),
            body: None,
        }
    }
}

fn respond(mut table: Table<'_>) -> Option<Respond> {
    let default = Respond::default();
    let status = table.get("status", |value| value.whole(200..600));
    let status = status.and_then(|status| StatusCode::from_u16(status as u16).ok());
    let status = status.unwrap_or(default.status);
    let retry_after = table.get("retry_after", Value::flag).unwrap_or(default.retry_after);
    let mut headers = HeaderMap::new();
    if let Some(table) = table.take("headers").and_then(Value::table) {
        read_headers(table, retry_after, &mut headers);
    }
    let content_type = table.take("content_type");
    let body = table.take("body");
    let has_none = matches!(status.as_u16(), 204 | 205 | 304);
    if let Some(body) = body.as_ref().filter(|_| has_none) {
        body.refuse(format_args!(
            "is there, but a response with status {} has no body",
            status.as_u16()
        ));
    }
    if let Some(content_type) = content_type.as_ref().filter(|_| body.is_none()) {
        content_type.refuse("is there, but must be beside a `body`");
    }
    let content_type = content_type.map_or(Some(PLAIN.to_owned()), |value| {
        value.parsed("a media type such as \"application/json\"", |text| {
            let is_right = text.contains('/') && HeaderValue::from_str(text).is_ok();
            if is_right { Ok(text.to_owned()) } else { Err("") }
        })
    });
    let has_body = body.is_some();
    let source = body.and_then(|value| {
        value.parsed("a template", |source| template::check(source).map(|()| source.to_owned()))
    });
    table.finish();
    let body = match source {
        Some(source) => Some(Template { content_type: content_type?, source }),
        None if has_body => return None,
        None => None,
    };
    Some(Respond { status, retry_after, headers, body })
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn read_headers(mut table: Table<'_>, has_retry_after: bool, headers: &mut HeaderMap) {
    for (name, value) in table.take_all() {
        let Ok(parsed) = HeaderName::try_from(&*name) else {
            value.refuse("is no name of a header");
            continue;
        };
        match parsed {
            CONTENT_TYPE => {
                value.refuse("is no header to set here; write `content_type` beside the `body`")
            }
            RETRY_AFTER if has_retry_after => {
                value.refuse("is set from the circuit; write `retry_after = false` to set another");
            }
            CONNECTION | CONTENT_LENGTH | TE | TRAILER | TRANSFER_ENCODING | UPGRADE => {
                value.refuse("is the connection's own, and can't be set");
            }
            name if ["keep-alive", "proxy-connection"].contains(&name.as_str()) => {
                value.refuse("is the connection's own, and can't be set");
            }
            name => {
                let values = value.one_or_more(|value| {
                    value.parsed("a header's value", |text| {
                        HeaderValue::from_str(text).map_err(|_| "")
                    })
                });
                for value in values.unwrap_or_default() {
                    headers.append(name.clone(), value);
                }
            }
        }
    }
}
