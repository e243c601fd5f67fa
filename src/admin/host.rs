//! Whether a request was meant for here: by its `host`, and by the site whose
//! page sent it.
//!
//! A page elsewhere may point its own name at this address (DNS rebinding) and
//! is then of the same origin in the browser's eyes. Only the name tells, so
//! only known names are answered.

use std::net::IpAddr;

use http::{
    Uri,
    header::{HOST, HeaderName, ORIGIN},
    request::Parts,
    uri::Authority,
};

use super::refusal::Refusal;
use crate::ConfigError;

/// The hosts that are answered.
#[derive(Clone, Debug)]
pub(super) struct Hosts(Vec<Allowed>);

#[derive(Clone, Debug)]
struct Allowed {
    host: String,
    /// Any, if none.
    port: Option<u16>,
}

impl Default for Hosts {
    /// This machine, by its usual names.
    fn default() -> Self {
        let any_port = |host: &str| Allowed { host: host.to_owned(), port: None };
        Self(["localhost", "127.0.0.1", "[::1]"].map(any_port).into())
    }
}

impl Hosts {
    pub(super) fn allow(&mut self, host: &str) -> Result<(), ConfigError> {
        let Some(authority) = parse(host.as_bytes()) else {
            let expected = "must be a host, with a port or without: breaker.example:8080";
            return Err(ConfigError::new("allow_host", format_args!("{host:?}"), expected));
        };
        let port = authority.port_u16();
        self.0.push(Allowed { host: authority.host().to_ascii_lowercase(), port });
        Ok(())
    }

    /// Checks every name the request has for its server.
    pub(super) fn check(&self, parts: &Parts, audience: Audience) -> Result<(), Refusal> {
        let mut is_named = false;
        if let Some(authority) = parts.uri.authority() {
            is_named = true;
            self.check_one(authority.as_str().as_bytes(), audience)?;
        }
        let mut headers = parts.headers.get_all(HOST).iter();
        if let Some(host) = headers.next() {
            is_named = true;
            self.check_one(host.as_bytes(), audience)?;
        }
        if headers.next().is_some() {
            return Err(Refusal::misdirected("there must be one host header".into()));
        }
        if is_named {
            return Ok(());
        }
        Err(Refusal::misdirected("the request names no host".into()))
    }

    fn check_one(&self, named: &[u8], audience: Audience) -> Result<(), Refusal> {
        let is_allowed = parse(named).is_some_and(|authority| {
            let by_name = self.0.iter().any(|allowed| {
                allowed.host.eq_ignore_ascii_case(authority.host())
                    && allowed.port.is_none_or(|port| authority.port_u16() == Some(port))
            });
            by_name || audience == Audience::Machines && is_address(authority.host())
        });
        if is_allowed {
            return Ok(());
        }
        let shown: String = String::from_utf8_lossy(named).chars().take(80).collect();
        let message = format!("the host {shown:?} is not allowed; `allow_host` adds it");
        Err(Refusal::misdirected(message))
    }
}

/// Who asks for a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Browsers and people.
    People,
    /// An orchestrator or a scraper, which asks by address. An address is not
    /// looked up, so nobody can rebind it.
    Machines,
}

/// A host and perhaps a port, and nothing else.
fn parse(named: &[u8]) -> Option<Authority> {
    let authority = Authority::try_from(named).ok()?;
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host)?;
    let is_whole = rest.is_empty() || rest.starts_with(':') && authority.port_u16().is_some();
    (!host.is_empty() && is_whole).then_some(authority)
}

fn is_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Refuses what a page of another site sends, as far as its browser tells.
/// Programs tell nothing, and come with a token.
pub(super) fn check_site(parts: &Parts) -> Result<(), Refusal> {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    for site in parts.headers.get_all(SEC_FETCH_SITE) {
        if site != "same-origin" && site != "none" {
            let message = "sec-fetch-site says that a page of another site sent this";
            return Err(Refusal::cross_site(message));
        }
    }
    for origin in parts.headers.get_all(ORIGIN) {
        if !is_same_origin(origin.as_bytes(), parts) {
            let message = "the origin is not this host's; a proxy in between must pass on the host";
            return Err(Refusal::cross_site(message));
        }
    }
    Ok(())
}

fn is_same_origin(origin: &[u8], parts: &Parts) -> bool {
    let here = parts.headers.get(HOST).map(|host| host.as_bytes());
    let here = here.or_else(|| Some(parts.uri.authority()?.as_str().as_bytes()));
    let (Some(here), Ok(origin)) = (here.and_then(parse), Uri::try_from(origin)) else {
        return false;
    };
    let default_port = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let Some(there) = origin.authority() else { return false };
    // Whether TLS ended before us is not known: no port is the origin's own.
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    here.host().eq_ignore_ascii_case(there.host()) && port(&here) == port(there)
}
