//! Servers on ports of their own, and a plain client that looks at what they
//! answer.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{BoxError, Service};
use tower_breaker::{Backoff, Circuit, Config, ConfigBuilder, ManualClock, Probes};

/// Something that is well until it is told otherwise, and counts who comes.
/// Clones are the same patient.
#[derive(Clone, Debug, Default)]
pub struct Patient(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_sick: AtomicBool,
    hits: AtomicU64,
}

impl Patient {
    /// Well, and never visited.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on it fails, or does not.
    pub fn set_sick(&self, is_sick: bool) {
        self.0.is_sick.store(is_sick, Ordering::SeqCst);
    }

    /// How many calls have reached it.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::SeqCst)
    }

    /// Counts a call: 200, or 500 from one that is sick.
    pub fn visit(&self) -> StatusCode {
        self.0.hits.fetch_add(1, Ordering::SeqCst);
        if self.0.is_sick.load(Ordering::SeqCst) {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::OK
        }
    }
}

/// The start of a configuration on virtual time: opens after three failures
/// in a row, waits exactly five seconds, and closes after two good probes.
pub fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("stacks")
        .consecutive_failures(3)
        .open_for(Backoff::fixed(Duration::from_secs(5)))
        .probes(Probes::new(2).lease(Duration::from_secs(60)))
        .clock(clock)
}

/// A circuit of [`config`], as it is.
pub fn circuit(clock: &ManualClock) -> Circuit {
    match config(clock).build() {
        Ok(config) => Circuit::new(config),
        Err(error) => unreachable!("{error}"),
    }
}

/// Lets a test that hangs fail.
///
/// # Panics
///
/// After half a minute.
pub async fn watchdog<F: Future>(test: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(30), test).await {
        Ok(output) => output,
        Err(_) => panic!("the test hangs"),
    }
}

/// Comes back when `is_so`: for what another task does in its own time.
pub async fn eventually(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

/// Serves a router until the runtime ends; its URL, without a slash.
///
/// # Errors
///
/// If there is no port to be had.
pub async fn serve_axum(router: axum::Router) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

/// Serves a Tower service with hyper alone, HTTP/1 and HTTP/2, until the
/// runtime ends; its URL, without a slash.
///
/// # Errors
///
/// If there is no port to be had.
pub async fn serve_hyper<S, B>(service: S) -> io::Result<String>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                // A connection that breaks shows at its client.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(connection), service)
                    .await;
            });
        }
    });
    Ok(url)
}

/// What a server said, to the end.
#[derive(Clone, Debug)]
pub struct Said {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Said {
    /// A header's text, or none.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A plain HTTP client.
#[derive(Clone, Debug)]
pub struct Caller(Client<HttpConnector, Empty<Bytes>>);

impl Caller {
    /// Speaks HTTP/1.
    pub fn http1() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Speaks HTTP/2, from the first byte on.
    pub fn http2() -> Self {
        Self(Client::builder(TokioExecutor::new()).http2_only(true).build_http())
    }

    /// The client itself.
    pub fn client(&self) -> Client<HttpConnector, Empty<Bytes>> {
        self.0.clone()
    }

    /// Asks, and comes back with the head and a body to read.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub async fn ask(&self, method: Method, url: &str) -> Result<Response<Incoming>, BoxError> {
        let request = Request::builder().method(method).uri(url).body(Empty::new())?;
        Ok(self.0.request(request).await?)
    }

    /// Asks with `GET`, and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// If there is no answer, or it breaks off.
    pub async fn get(&self, url: &str) -> Result<Said, BoxError> {
        self.fetch(Method::GET, url).await
    }

    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// If there is no answer, or it breaks off.
    pub async fn fetch(&self, method: Method, url: &str) -> Result<Said, BoxError> {
        let (head, body) = self.ask(method, url).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Said { status: head.status, headers: head.headers, body })
    }
}
