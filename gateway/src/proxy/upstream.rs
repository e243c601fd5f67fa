//! An upstream's connections, on one worker.
//!
//! Names, addresses and TLS are the connector's business; kept here is what has
//! been connected: HTTP/1 connections at rest, the last used on top, and HTTP/2
//! connections, of which the first one that has room takes the next request.

use std::{
    future::{Future, poll_fn},
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, Uri, uri};
use hyper::{
    client::conn::{http1, http2},
    rt::{Read, Write},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::connect::{
        Connection as _, HttpConnector,
        dns::{GaiAddrs, GaiResolver, Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::Instant;
use tower_service::Service;

use super::{Body, BoxError, Timeout, UpstreamError, now::now};
use crate::config::{self, Protocol};

/// Connections to one upstream. A clone is a handle to the same ones.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    settings: config::Upstream,
    target: Target,
    /// Absent if a certificate to trust is none.
    connectors: Result<Connectors, String>,
    idle: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<Http2>>,
    /// Held while an HTTP/2 connection is made, which is for all who wait.
    connecting: tokio::sync::Mutex<()>,
}

type Connector = HttpsConnector<HttpConnector<Resolver>>;

struct Connectors {
    any: Connector,
    /// For what HTTP/2 does not have.
    http1: Connector,
}

/// Which connections a request can have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    Any,
    Http1,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// A connection that takes as many requests at once as the upstream allows. More
/// would wait in it, and be taken for requests that the upstream lets wait.
struct Http2 {
    sender: http2::SendRequest<Body>,
    /// How many it allows: of this moment, for it may say so at any time.
    allowed: Box<dyn Fn() -> usize + Send>,
    /// One for each request, until its response has ended, and this.
    requests: Arc<()>,
}

/// What requests to the upstream say of where they go.
pub(super) struct Target {
    pub(super) scheme: uri::Scheme,
    pub(super) authority: uri::Authority,
    pub(super) host: HeaderValue,
    /// Put in front of every path; empty if there is nothing to put.
    pub(super) base: String,
}

/// A connection that takes a request now.
pub(super) enum Connection {
    Http1 {
        sender: http1::SendRequest<Body>,
        /// How long it was at rest; none if it is new.
        rested: Option<Duration>,
    },
    Http2 {
        sender: http2::SendRequest<Body>,
        /// Its place among those that there may be at once.
        _place: Arc<()>,
    },
}

/// A connection in use, which goes back to its pool if all went well.
pub(super) enum Lease {
    Http1 { pool: Pool, sender: http1::SendRequest<Body> },
    Http2 { _place: Arc<()> },
}

/// A server closes connections at rest when it likes; those that rested longer
/// are not worth the race.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Of a connection that seems to be alive but isn't.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

impl Pool {
    pub(super) fn new(settings: &config::Upstream) -> Pool {
        let inner = Inner {
            settings: settings.clone(),
            target: Target::new(&settings.url),
            connectors: connectors(settings).map_err(|error| error.to_string()),
            idle: Mutex::default(),
            http2: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        };
        Pool(Arc::new(inner))
    }

    pub(super) fn settings(&self) -> &config::Upstream {
        &self.0.settings
    }

    pub(super) fn target(&self) -> &Target {
        &self.0.target
    }

    /// A connection that has not been used for another request, or is made for
    /// many.
    pub(super) async fn fresh(
        &self,
        wants: Wants,
        timeout: Duration,
    ) -> Result<Connection, UpstreamError> {
        // Boxed because it is long and rare: who awaits it has to hold it.
        let made = tokio::time::timeout(timeout, Box::pin(self.make(wants))).await;
        let error = match made {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => UpstreamError::Timeout { which: Timeout::Connect },
        };
        // One more would have been better, but there are some: it waits in one.
        let crowded = (wants == Wants::Any).then(|| self.crowded(|_| true));
        crowded.flatten().ok_or(error)
    }

    /// The connection of those that has the fewest requests.
    fn crowded(&self, which: impl Fn(&Http2) -> bool) -> Option<Connection> {
        let http2 = lock(&self.0.http2);
        let live = http2.iter().filter(|one| !one.sender.is_closed() && which(one));
        live.min_by_key(|one| Arc::strong_count(&one.requests)).map(Http2::place)
    }

    async fn make(&self, wants: Wants) -> Result<Connection, UpstreamError> {
        let is_known = !lock(&self.0.http2).is_empty();
        let is_http2 = self.0.settings.protocol == Protocol::Http2 || is_known;
        if wants == Wants::Http1 || !is_http2 {
            return self.connect(wants).await;
        }
        let _turn = self.0.connecting.lock().await;
        // An upstream that allows none has enough: more would be no relief.
        match self.kept_http2().or_else(|| self.crowded(|one| (one.allowed)() == 0)) {
            Some(connection) => Ok(connection),
            None => self.connect(wants).await,
        }
    }

    /// A connection that is here already.
    pub(super) fn kept(&self, wants: Wants) -> Option<Connection> {
        if wants == Wants::Any {
            if let Some(connection) = self.kept_http2() {
                return Some(connection);
            }
        }
        let mut idle = lock(&self.0.idle);
        while let Some(Idle { sender, since }) = idle.pop() {
            let rested = now().saturating_duration_since(since);
            if rested > LONGEST_REST {
                // All below have rested for longer.
                idle.clear();
            } else if sender.is_ready() {
                return Some(Connection::Http1 { sender, rested: Some(rested) });
            }
        }
        None
    }

    fn kept_http2(&self) -> Option<Connection> {
        if self.0.settings.protocol == Protocol::Http1 {
            return None;
        }
        let mut http2 = lock(&self.0.http2);
        http2.retain(|one| !one.sender.is_closed());
        http2.iter().find(|one| one.has_room()).map(Http2::place)
    }

    async fn connect(&self, wants: Wants) -> Result<Connection, UpstreamError> {
        let mut connector = match (&self.0.connectors, wants) {
            (Ok(connectors), Wants::Any) => connectors.any.clone(),
            (Ok(connectors), Wants::Http1) => connectors.http1.clone(),
            (Err(error), _) => return Err(UpstreamError::Tls(error.clone().into())),
        };
        let io = connector.call(self.0.settings.url.clone()).await.map_err(connect_error)?;
        let is_http2 = self.0.settings.protocol == Protocol::Http2 && wants == Wants::Any;
        if is_http2 || io.connected().is_negotiated_h2() {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // What it allows is taken for what another does, until it has said so.
            let allowed = lock(&self.0.http2).iter().map(|one| (one.allowed)()).max();
            if let Some(allowed @ 1..) = allowed {
                builder.initial_max_send_streams(allowed);
            }
            let (sender, connection) = builder
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .handshake(io)
                .await
                .map_err(|error| UpstreamError::BadResponse(error.into()))?;
            let one = Http2::spawn(sender, connection);
            let place = one.place();
            lock(&self.0.http2).push(one);
            return Ok(place);
        }
        let (sender, connection) = http1::Builder::new()
            .handshake(io)
            .await
            .map_err(|error| UpstreamError::Reset(error.into()))?;
        tokio::spawn(connection.with_upgrades());
        Ok(Connection::Http1 { sender, rested: None })
    }

    pub(super) fn lease(&self, connection: Connection) -> Lease {
        match connection {
            Connection::Http1 { sender, .. } => Lease::Http1 { pool: self.clone(), sender },
            Connection::Http2 { _place, .. } => Lease::Http2 { _place },
        }
    }

    /// Closes what has rested for too long, and HTTP/2 connections that are not
    /// needed beside the first.
    pub(super) fn sweep(&self) {
        let now = now();
        let mut is_first = true;
        lock(&self.0.http2).retain(|one| {
            !one.sender.is_closed() && (std::mem::take(&mut is_first) || one.is_in_use())
        });
        lock(&self.0.idle).retain(|idle| {
            now.saturating_duration_since(idle.since) <= LONGEST_REST && !idle.sender.is_closed()
        });
    }
}

impl Lease {
    pub(super) fn give_back(self) {
        let Lease::Http1 { pool, sender } = self else { return };
        if sender.is_closed() {
            return;
        }
        let mut idle = lock(&pool.0.idle);
        if idle.len() < pool.0.settings.max_idle {
            idle.push(Idle { sender, since: now() });
        }
    }
}

impl Http2 {
    fn spawn<T>(
        sender: http2::SendRequest<Body>,
        connection: http2::Connection<T, Body, TokioExecutor>,
    ) -> Self
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let connection = Arc::new(Mutex::new(Some(connection)));
        let running = Arc::clone(&connection);
        tokio::spawn(poll_fn(move |context| {
            let mut running = lock(&running);
            let Some(connection) = &mut *running else { return Poll::Ready(()) };
            ready!(Pin::new(connection).poll(context).map(drop));
            // Those who wait in it hear of its end by that.
            *running = None;
            Poll::Ready(())
        }));
        let allowed = Box::new(move || match &*lock(&connection) {
            Some(connection) => connection.current_max_send_streams(),
            None => 0,
        });
        Self { sender, allowed, requests: Arc::default() }
    }

    fn has_room(&self) -> bool {
        Arc::strong_count(&self.requests) - 1 < (self.allowed)()
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.requests) > 1
    }

    fn place(&self) -> Connection {
        Connection::Http2 { sender: self.sender.clone(), _place: Arc::clone(&self.requests) }
    }
}

impl Target {
    fn new(url: &Uri) -> Target {
        let authority = url.authority().cloned().unwrap_or(uri::Authority::from_static("invalid"));
        let host = HeaderValue::from_str(authority.as_str());
        Target {
            scheme: url.scheme().cloned().unwrap_or(uri::Scheme::HTTP),
            host: host.unwrap_or(HeaderValue::from_static("invalid")),
            base: url.path().trim_end_matches('/').to_owned(),
            authority,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connectors(settings: &config::Upstream) -> Result<Connectors, BoxError> {
    let mut http = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEP_ALIVE));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for certificate in &settings.ca {
        roots.add(certificate.clone()).map_err(|error| {
            let file = settings.ca_file.as_deref().unwrap_or(Path::new("ca_file"));
            format!("certificates in {}: {error}", file.display())
        })?;
    }
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let builder = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
    let http1 = builder().enable_http1().wrap_connector(http.clone());
    let any = match settings.protocol {
        Protocol::Auto => builder().enable_all_versions().wrap_connector(http),
        Protocol::Http1 => http1.clone(),
        Protocol::Http2 => builder().enable_http2().wrap_connector(http),
    };
    Ok(Connectors { any, http1 })
}

fn connect_error(error: BoxError) -> UpstreamError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(cause) = source {
        if cause.is::<Unresolved>() {
            return UpstreamError::Dns(error);
        }
        let inside = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if cause.is::<rustls::Error>() || inside.is_some_and(|inside| inside.is::<rustls::Error>())
        {
            return UpstreamError::Tls(error);
        }
        source = cause.source();
    }
    UpstreamError::Connect(error)
}

/// The system's resolver, whose errors can be told apart.
#[derive(Clone)]
struct Resolver(GaiResolver);

#[derive(Debug)]
struct Unresolved(io::Error);

impl std::fmt::Display for Unresolved {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Unresolved {}

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = Unresolved;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, Unresolved>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        self.0.poll_ready(context).map_err(Unresolved)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = self.0.call(name);
        Box::pin(async move { addresses.await.map_err(Unresolved) })
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::SocketAddr};

    use http::{Request, Response, header::HOST};
    use hyper::{body::Incoming, server, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{DuplexStream, duplex},
        net::{TcpListener, TcpSocket},
    };
    use tower::ServiceExt;

    use super::*;
    use crate::{config::Sources, proxy::forward::Forward};

    fn service(upstream: &str) -> Arc<config::Service> {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("brk.toml");
        std::fs::write(&main, format!("[services.orders]\nupstream = {upstream}")).unwrap();
        let settings = Sources::read(&main).unwrap().settings().unwrap();
        Arc::clone(&settings.services["orders"])
    }

    /// Answers in HTTP/2, with the host that was asked for.
    async fn named() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(|request: Request<Incoming>| async move {
                    let host = request.uri().host().unwrap_or_default().to_owned();
                    let response = Response::builder().header("x-host", host);
                    Ok::<_, Infallible>(response.body(Body::empty()).unwrap())
                });
                let server = server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
            }
        });
        port
    }

    /// An address that is bound, so that nobody else gets it, and not listened on.
    fn nobody() -> (TcpSocket, SocketAddr) {
        let held = TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = held.local_addr().unwrap();
        (held, address)
    }

    /// A connection, and its other end.
    async fn connected() -> (Http2, DuplexStream) {
        let (ours, theirs) = duplex(1 << 16);
        let made = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(ours));
        let (sender, connection) = made.await.unwrap();
        (Http2::spawn(sender, connection), theirs)
    }

    #[tokio::test]
    async fn connections_for_a_rush_go_with_it() {
        let pool = Pool::new(&service("\"http://h\"").upstream);
        let mut ends = Vec::new();
        for _ in 0..3 {
            let (made, end) = connected().await;
            lock(&pool.0.http2).push(made);
            ends.push(end);
        }
        let last = lock(&pool.0.http2)[2].place();
        pool.sweep();
        assert_eq!(lock(&pool.0.http2).len(), 2, "the first, and the one in use");
        drop(last);
        pool.sweep();
        assert_eq!(lock(&pool.0.http2).len(), 1);
    }

    /// It waits for its turn there, as it would without.
    #[tokio::test]
    async fn where_no_more_connections_are_to_be_had_those_there_are_will_do() {
        for allowed in [0, 1] {
            let (_held, nobody) = nobody();
            let upstream = format!("{{ url = \"http://{nobody}\", protocol = \"http2\" }}");
            let pool = Pool::new(&service(&upstream).upstream);
            let second = Duration::from_secs(1);
            assert!(pool.fresh(Wants::Any, second).await.is_err(), "there is none");

            let (made, end) = connected().await;
            let answer = service_fn(async |_: Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(Body::empty()))
            });
            let mut server = server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(allowed);
            tokio::spawn(server.serve_connection(TokioIo::new(end), answer));
            while (made.allowed)() != allowed as usize {
                tokio::task::yield_now().await;
            }
            lock(&pool.0.http2).push(made);
            let _place = lock(&pool.0.http2)[0].place();
            assert!(pool.kept(Wants::Any).is_none(), "it is full");
            assert!(pool.fresh(Wants::Any, second).await.is_ok());
            assert!(pool.fresh(Wants::Http1, second).await.is_err());
        }
    }

    /// Not again and again into one that is gone.
    #[tokio::test]
    async fn what_can_be_sent_nowhere_is_given_up() {
        let (_held, nobody) = nobody();
        let upstream = format!("{{ url = \"http://{nobody}\", protocol = \"http2\" }}");
        let service = service(&upstream);
        let pool = Pool::new(&service.upstream);
        for _ in 0..3 {
            let (dead, _) = connected().await;
            lock(&pool.0.http2).push(dead);
        }
        let request = Request::get("/").body(Body::empty()).unwrap();
        let sent = Forward::new(pool, service).oneshot(request);
        let sent = tokio::time::timeout(Duration::from_secs(30), sent).await;
        let failed = sent.expect("it is given up").unwrap_err();
        assert!(matches!(failed, UpstreamError::Connect(_)), "{failed:?}");
    }

    #[tokio::test]
    async fn what_is_sent_again_goes_where_it_was_to_go() {
        for (preserve, expected) in [(true, "shop.example"), (false, "localhost")] {
            let url = format!("http://localhost:{}", named().await);
            let service = service(&format!(
                "{{ url = {url:?}, protocol = \"http2\", preserve_host = {preserve} }}"
            ));
            let pool = Pool::new(&service.upstream);
            // It is gone, and nobody has noticed.
            let (dead, _) = connected().await;
            lock(&pool.0.http2).push(dead);
            let request = Request::get("/").header(HOST, "shop.example").body(Body::empty());
            let response = Forward::new(pool, service).oneshot(request.unwrap()).await.unwrap();
            assert_eq!(response.headers()["x-host"], expected);
        }
    }
}
