//! One thread that carries requests: its own listeners, connections and pools.
//!
//! Nothing that a request touches is shared with another thread, but for the
//! circuits themselves.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tower::{BoxError, ServiceExt};

use super::{
    Body, Stop, Stopper,
    activity::{Activity, Look},
    body::Failure,
    forward::Forward,
    hygiene::{self, Caller, Via},
    io::{Version, Watched},
    now::now,
    paced::paced,
    problem::Refusal,
    route::Routes,
    stack::{Stack, stack, stack_with_fallback},
    upgrade::{self, Upgrade},
    upstream::Pool,
};
use crate::{
    config::{self, WhenOpen},
    gateway::{Gateway, Service, Table},
};

/// What a worker is given to begin with.
pub(super) struct Start {
    pub(super) gateway: Gateway,
    pub(super) listeners: Vec<std::net::TcpListener>,
    /// As many permits as there may be connections, for all workers.
    pub(super) connections: Arc<Semaphore>,
    pub(super) via: Via,
    pub(super) stop: Stop,
}

/// A connection's place among those that there may be. The worker stays until
/// the last has been given up.
pub(super) struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
    _open: mpsc::Sender<Infallible>,
}

const NO_ROUTE: Refusal = Refusal::new(
    StatusCode::NOT_FOUND,
    "no-route",
    "No service is here",
    "no service has this host and path",
);
const BODY_STALLED: Refusal = Refusal::new(
    StatusCode::REQUEST_TIMEOUT,
    "request-body-stalled",
    "The request's body did not come",
    "nothing came for longer than the service waits",
)
.closing();
const BODY_BROKEN: Refusal =
    Refusal::bad_request("request-body-broken", "the request's body ended early or is not one")
        .closing();

/// Runs until the stop has been told and all connections have ended, or the
/// time to drain is over.
///
/// # Errors
///
/// A runtime or a listener that can't be set up.
pub(super) fn run(start: Start) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What is still open when this returns ends with the runtime.
    runtime.block_on(work(start))
}

async fn work(start: Start) -> io::Result<()> {
    let Start { gateway, listeners, connections, via, mut stop } = start;
    let worker = Arc::new(Worker { stacks: Mutex::new(Stacks::new(&gateway)), gateway, via });
    let (open, mut all_closed) = mpsc::channel(1);
    let (stopper, told) = Stop::new();
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let listener = TcpListener::from_std(listener)?;
            let seats = Seats { connections: Arc::clone(&connections), open: open.clone() };
            Ok(tokio::spawn(accept(listener, Arc::clone(&worker), seats, told.clone())))
        })
        .collect::<io::Result<_>>()?;
    drop(open);
    let sweeper = tokio::spawn(sweep(Arc::clone(&worker)));

    stop.told().await;
    Stopper::stop(&stopper);
    let drain = worker.gateway.table().settings.server.drain;
    let drained = async {
        for accepting in accepting {
            let _ = accepting.await;
        }
        all_closed.recv().await;
    };
    let _ = tokio::time::timeout(drain, drained).await;
    sweeper.abort();
    Ok(())
}

/// Connections at rest that nobody takes any more.
async fn sweep(worker: Arc<Worker>) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        worker.stacks.lock().unwrap_or_else(PoisonError::into_inner).sweep();
    }
}

struct Seats {
    connections: Arc<Semaphore>,
    open: mpsc::Sender<Infallible>,
}

impl Seats {
    async fn take(&self) -> Arc<Seat> {
        // Never closed, so never an error.
        let permit = Arc::clone(&self.connections).acquire_owned().await.ok();
        Arc::new(Seat { _permit: permit, _open: self.open.clone() })
    }
}

/// Takes connections until the stop is told. While there are as many as may be,
/// the next ones wait in the listener's queue.
async fn accept(listener: TcpListener, worker: Arc<Worker>, seats: Seats, stop: Stop) {
    let mut told = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told.told() => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, most likely: some will come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let seat = tokio::select! {
            seat = seats.take() => seat,
            () = told.told() => break,
        };
        tokio::spawn(connection(stream, peer, seat, Arc::clone(&worker), stop.clone()));
    }
    // Who was in the queue when the stop was told may have asked already.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        let Some(seat) = seats.take().now_or_never() else { break };
        tokio::spawn(connection(stream, peer, seat, Arc::clone(&worker), stop.clone()));
    }
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    seat: Arc<Seat>,
    worker: Arc<Worker>,
    mut stop: Stop,
) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);

    let table = worker.gateway.table();
    let server = &table.settings.server;
    let activity = Activity::new(server.header_timeout);
    let mut io = Watched::new(stream, Arc::clone(&activity));
    let version = tokio::select! {
        biased;
        version = tokio::time::timeout(server.header_timeout, io.version()) => version,
        () = stop.told() => return,
    };
    let Ok(Ok(Some(version))) = version else { return };

    let caller = Arc::new(Connection {
        worker,
        caller: Caller::new(peer, &server.trusted_proxies),
        activity: Arc::clone(&activity),
        seat,
    });
    let service = service_fn(move |request| Arc::clone(&caller).answer(request));
    match version {
        Version::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // `Activity` has it in its eye.
                .header_read_timeout(None)
                .max_header_size(server.max_header_size)
                .serve_connection(TokioIo::new(io), service)
                .with_upgrades();
            drop(table);
            attend(connection, |connection| connection.graceful_shutdown(), &activity, stop).await;
        }
        Version::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(server.max_header_size).unwrap_or(u32::MAX))
                .keep_alive_interval(server.header_timeout)
                .serve_connection(TokioIo::new(io), service);
            drop(table);
            attend(connection, |connection| connection.graceful_shutdown(), &activity, stop).await;
        }
    }
}

/// How long a connection may take to end once it was asked to.
const FAREWELL: Duration = Duration::from_secs(1);

/// Sees to it that the connection ends: by itself, when the stop is told, or
/// when it has been idle or blocked for too long.
async fn attend<C>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    activity: &Activity,
    mut stop: Stop,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut told = pin!(stop.told());
    let mut timer = pin!(tokio::time::sleep_until(match activity.look() {
        Look::Again(at) => at,
        Look::Idle | Look::Blocked => now(),
    }));
    let mut is_stopping = false;
    let mut is_leaving = false;
    poll_fn(|context| {
        loop {
            // A caller that went away, or sent what is no HTTP: nobody to tell.
            if connection.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            if !is_stopping && told.as_mut().poll(context).is_ready() {
                is_stopping = true;
                shut_down(connection.as_mut());
                continue;
            }
            if let Some(until) = activity.blocked_until() {
                if until < timer.deadline() {
                    timer.as_mut().reset(until);
                }
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            match activity.look() {
                Look::Again(at) => {
                    is_leaving = false;
                    timer.as_mut().reset(at);
                }
                Look::Idle if !is_leaving => {
                    is_leaving = true;
                    shut_down(connection.as_mut());
                    timer.as_mut().reset(now() + FAREWELL);
                }
                Look::Idle | Look::Blocked => return Poll::Ready(()),
            }
        }
    })
    .await;
}

struct Worker {
    gateway: Gateway,
    /// Locked by this thread only.
    stacks: Mutex<Stacks>,
    via: Via,
}

/// The worker's own view of the table.
struct Stacks {
    table: Arc<Table>,
    routes: Routes,
    /// In the table's order.
    services: Vec<Entry>,
}

impl Stacks {
    fn new(gateway: &Gateway) -> Stacks {
        let table = gateway.table();
        let mut stacks =
            Stacks { routes: Routes::new(&table.services), services: Vec::new(), table };
        stacks.services = stacks.build(&[]);
        stacks
    }

    /// Takes over another table: what has not changed is kept, and so are the
    /// connections to upstreams that have not.
    fn follow(&mut self, table: Arc<Table>) {
        let old = std::mem::replace(&mut self.table, table);
        self.routes = Routes::new(&self.table.services);
        let shows_breaker = |table: &Table| table.settings.server.breaker_headers;
        let is_shown_alike = shows_breaker(&old) == shows_breaker(&self.table);
        self.services = self.build(if is_shown_alike { &old.services[..] } else { &[] });
    }

    /// What is the same as an old service stays as it is.
    fn build(&mut self, old: &[Arc<Service>]) -> Vec<Entry> {
        let kept = std::mem::take(&mut self.services);
        let services = self.table.services.iter();
        let shows_breaker = self.table.settings.server.breaker_headers;
        let build =
            |service: &Arc<Service>| match old.iter().position(|old| Arc::ptr_eq(old, service)) {
                Some(same) => kept[same].clone(),
                None => Entry::new(service, &kept, shows_breaker),
            };
        services.map(build).collect()
    }

    fn sweep(&self) {
        for entry in &self.services {
            entry.pool.sweep();
            entry.spare.iter().for_each(Pool::sweep);
        }
    }

    fn find(&self, host: Option<&str>, path: &str) -> Option<(Stack<Forward>, &config::Service)> {
        let at = self.routes.find(host, path)?;
        Some((self.services[at].stack.clone(), &self.table.services[at].settings))
    }
}

/// A service, as the worker has it.
#[derive(Clone)]
struct Entry {
    stack: Stack<Forward>,
    pool: Pool,
    /// Of the upstream that the service falls back on.
    spare: Option<Pool>,
}

impl Entry {
    fn new(service: &Arc<Service>, kept: &[Entry], shows_breaker: bool) -> Entry {
        let pool = |upstream: &config::Upstream| {
            let pools = kept.iter().flat_map(|entry| [Some(&entry.pool), entry.spare.as_ref()]);
            let same = pools.flatten().find(|pool| pool.settings() == upstream);
            same.cloned().unwrap_or_else(|| Pool::new(upstream))
        };
        let forward = |pool: &Pool| Forward::new(pool.clone(), Arc::clone(&service.settings));
        let settings = &service.settings;
        let (main, spare) = match &settings.when_open {
            WhenOpen::Fallback(upstream) => (pool(&settings.upstream), Some(pool(upstream))),
            _ => (pool(&settings.upstream), None),
        };
        let stack = match &spare {
            Some(spare) => stack_with_fallback(service, forward(&main), forward(spare)),
            None => stack(service, forward(&main)),
        };
        Entry { stack: stack.breaker_headers(shows_breaker), pool: main, spare }
    }
}

/// One caller's connection.
struct Connection {
    worker: Arc<Worker>,
    caller: Caller,
    activity: Arc<Activity>,
    seat: Arc<Seat>,
}

impl Connection {
    /// The response to one request. An error closes the connection without one.
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, BoxError> {
        let active = self.activity.begin();
        let (mut parts, incoming) = request.into_parts();
        let wants_upgrade = upgrade::is_wanted(&parts.headers);
        let is_http2 = parts.version == http::Version::HTTP_2;
        let refused =
            hygiene::check(&mut parts, self.activity.is_malformed(), self.worker.via.name());
        let mut response = match refused {
            Ok(()) => self.call(parts, incoming, wants_upgrade).await?,
            Err(refusal) => refuse(refusal),
        };
        // The body of a switch is the connection itself.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        // The bytes after a wish to leave HTTP are not followed, so none is taken.
        if self.activity.is_malformed() || wants_upgrade {
            close(&mut response);
        }
        let patience = self.activity.write_timeout();
        Ok(response.map(|body| match is_http2 {
            true => paced(body.holding(active), patience),
            false => body.holding(active),
        }))
    }

    async fn call(
        &self,
        mut parts: Parts,
        incoming: Incoming,
        wants_upgrade: bool,
    ) -> Result<Response<Body>, BoxError> {
        let found = {
            let mut stacks = self.worker.stacks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(table) = self.worker.gateway.table_if_other(&stacks.table) {
                stacks.follow(table);
            }
            stacks
                .find(hygiene::host(&parts.headers), parts.uri.path())
                .map(|(stack, settings)| (stack, settings.timeouts.body_idle, settings.upgrade))
        };
        let Some((stack, body_idle, may_upgrade)) = found else { return Ok(refuse(NO_ROUTE)) };
        self.activity.set_write_timeout(body_idle);

        let upgrade = (may_upgrade && wants_upgrade).then(|| self.upgrade(&mut parts)).flatten();
        hygiene::prepare(&mut parts, &self.caller, &self.worker.via);
        if let Some(upgrade) = upgrade {
            parts.extensions.insert(upgrade);
        }
        let body = Body::request(incoming, body_idle);
        let upload = body.upload();
        let response = stack.oneshot(Request::from_parts(parts, body)).await;
        match upload.and_then(|upload| upload.failure()) {
            Some(Failure::Stalled) => Ok(refuse(BODY_STALLED)),
            Some(Failure::Broken) => Ok(refuse(BODY_BROKEN)),
            None => Ok(response?),
        }
    }

    fn upgrade(&self, parts: &mut Parts) -> Option<Upgrade> {
        if upgrade::names_http2(&parts.headers) {
            return None;
        }
        let protocol = parts.headers.get(header::UPGRADE)?.clone();
        let caller = parts.extensions.remove()?;
        Some(Upgrade { protocol, caller, seat: Arc::clone(&self.seat) })
    }
}

fn refuse(refusal: Refusal) -> Response<Body> {
    let mut response = refusal.response();
    if refusal.close {
        close(&mut response);
    }
    response
}

/// HTTP/2 has no such header, and needs none: a stream's faults are its own.
fn close(response: &mut Response<Body>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
