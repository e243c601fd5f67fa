//! What the gateway runs by: the configuration after defaults and checks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode, Uri};
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tower_breaker::Config;

/// Everything, from all files, with every default filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server: Server,
    pub admin: Admin,
    pub history: History,
    pub notify: Vec<Target>,
    /// By name.
    pub services: BTreeMap<String, Arc<Service>>,
}

/// The listener that programs call.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    /// Threads that carry requests; as many as there are processors unless said.
    pub workers: usize,
    /// Connections from callers at once, over all workers.
    pub max_connections: usize,
    /// How long a request's head may take to come, from its first byte or, on
    /// a connection at rest, from the end of the last response.
    pub header_timeout: Duration,
    /// The longest a head may be, in bytes.
    pub max_header_size: usize,
    /// How long requests may run on once the gateway has been told to stop.
    pub drain: Duration,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are passed on.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether responses say which circuit decided (`x-breaker-…`).
    pub breaker_headers: bool,
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Names beside `localhost` and addresses that a browser may call it by.
    pub hosts: Vec<String>,
    /// Where the tokens, the history and the saved state are kept.
    pub state: PathBuf,
}

/// What is kept of the past.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub events: Duration,
    pub minutes: Duration,
}

/// One service: its route, its upstream and its circuit.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub route: Route,
    pub upstream: Upstream,
    pub timeouts: Timeouts,
    /// WebSocket and other upgrades pass.
    pub upgrade: bool,
    pub retry: Option<Retry>,
    /// False lets every call through unjudged: for comparison.
    pub protect: bool,
    /// The verdict waits for the response's body.
    pub until_end_of_body: bool,
    /// A response slower than this is a failure.
    pub slow_is_failure: Option<Duration>,
    /// Its name is the service's.
    pub circuit: Config,
    pub when_open: WhenOpen,
}

/// Which requests are a service's. The longest prefix of those with the
/// request's host wins; routes without a host come last.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// In lower case and without a port; any host if absent.
    pub host: Option<String>,
    /// Begins with a slash and ends with none, but for `/` itself. Matches on
    /// a boundary of segments: `/a` is for `/a` and `/a/b`, not for `/ab`.
    pub prefix: String,
    /// Whether the upstream sees the path without the prefix.
    pub strip_prefix: bool,
}

impl Route {
    /// What programs call, where the gateway listens: one that listens
    /// everywhere does so on this machine, too.
    pub fn url(&self, listen: SocketAddr) -> String {
        let Self { host, prefix, .. } = self;
        match host {
            Some(host) => format!("http://{host}:{}{prefix}", listen.port()),
            None => format!("http://{}{prefix}", here(listen)),
        }
    }
}

/// Where what listens on an address is reached from this machine.
pub(crate) fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Where a service's requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `http` or `https`, an authority, and a path that is put in front.
    pub url: Uri,
    pub protocol: Protocol,
    /// The `Host` that the upstream sees is the caller's, not its own.
    pub preserve_host: bool,
    /// Certificates to trust beside the web's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// What was in it. Others in the same file are another upstream.
    pub ca: Vec<CertificateDer<'static>>,
    /// Connections at rest that are kept, for each worker.
    pub max_idle: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 where TLS has agreed on it.
    Auto,
    Http1,
    /// Over TLS or, with `http`, by prior knowledge.
    Http2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the request's forwarding to the response's head: the attempt timeout.
    pub head: Duration,
    /// The longest pause within a body, either way.
    pub body_idle: Duration,
    /// Over all attempts, to the response's head.
    pub total: Option<Duration>,
}

/// Second attempts, for idempotent methods whose request has no body or a short
/// one.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// At most, the first included.
    pub attempts: u32,
    /// Retries for each call, on average.
    pub budget: f64,
}

/// What a caller gets while the circuit refuses.
#[derive(Clone, Debug, PartialEq)]
pub enum WhenOpen {
    Respond(Respond),
    /// The request goes to another upstream, which has no circuit.
    Fallback(Upstream),
    /// The last good response if it is no older than `ttl`, or else `respond`.
    Stale {
        ttl: Duration,
        /// Memory for kept responses, in bytes.
        max_size: usize,
        respond: Respond,
    },
    /// The connection is closed without an answer.
    Close,
}

/// An answer of the gateway's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    pub status: StatusCode,
    /// `Retry-After`, from the circuit.
    pub retry_after: bool,
    pub headers: HeaderMap,
    /// A problem document (RFC 9457) if absent.
    pub body: Option<Template>,
}

/// A body with `{{ name }}`, `{{ state }}`, `{{ retry_after }}` (whole seconds
/// or none) and `{{ cause }}` in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub content_type: String,
    pub source: String,
}

/// Whom to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub name: String,
    pub kind: TargetKind,
    /// Services it is about; all if empty.
    pub services: Vec<String>,
    /// A state is told once it has lasted this long.
    pub hold_down: Duration,
    /// At most one message a service in this time; what came between is summed up.
    pub cooldown: Duration,
    /// More openings than this in ten minutes are told as flapping, once.
    pub flapping: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TargetKind {
    Webhook {
        url: Uri,
        /// Key of the HMAC-SHA256 in `x-brk-signature`.
        secret_file: Option<PathBuf>,
    },
    Slack {
        /// The URL is a secret, so it is read from a file.
        url_file: PathBuf,
    },
    Email {
        /// `smtps://`, or `smtp://` for STARTTLS, with the user in it. Without TLS
        /// only to this machine itself.
        server: String,
        password_file: Option<PathBuf>,
        /// Certificates to trust beside the web's, as PEM.
        ca_file: Option<PathBuf>,
        from: String,
        to: Vec<String>,
    },
}
