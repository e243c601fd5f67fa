//! An HTTP upstream on loopback, whose answers can be switched under way.

use std::{
    convert::Infallible,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

type Answer = Arc<dyn Fn(&Request<Incoming>) -> Response<Body> + Send + Sync>;

/// A server for HTTP/1 and HTTP/2 on a free port of loopback. It counts the
/// requests it gets, and answers as it was last told; 200 at first.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    hits: AtomicU64,
    answer: Mutex<Answer>,
}

impl Upstream {
    /// Starts to listen.
    pub fn start() -> io::Result<Self> {
        Closed::new()?.listen()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of one of its pages.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests have come so far.
    pub fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// Answers like this from now on.
    pub fn answer<F>(&self, answer: F)
    where
        F: Fn(&Request<Incoming>) -> Response<Body> + Send + Sync + 'static,
    {
        *self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answer);
    }

    /// Answers 200 from now on, with `hello`.
    pub fn heal(&self) {
        self.answer(healthy);
    }

    /// Answers 503 from now on, with `sick` and the header `x-why`.
    pub fn sicken(&self) {
        self.answer(|_| {
            let mut response = Response::new(text("sick"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert("x-why", http::HeaderValue::from_static("migration"));
            response
        });
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A port of loopback that is taken, but refuses every connection.
#[derive(Debug)]
pub struct Closed(TcpSocket);

impl Closed {
    /// Takes a free port.
    pub fn new() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self(socket))
    }

    /// Where nobody listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Starts to listen there, for a server of your own.
    pub fn into_listener(self) -> io::Result<TcpListener> {
        self.0.listen(128)
    }

    /// Starts to serve there.
    pub fn listen(self) -> io::Result<Upstream> {
        let listener = self.into_listener()?;
        let address = listener.local_addr()?;
        let answer: Answer = Arc::new(healthy);
        let shared = Shared { hits: AtomicU64::new(0), answer: Mutex::new(answer) };
        let shared = Arc::new(shared);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Upstream { address, shared, accepting })
    }
}

/// A body of one piece.
pub fn text(text: &'static str) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn healthy(_: &Request<Incoming>) -> Response<Body> {
    Response::new(text("hello"))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                shared.hits.fetch_add(1, Ordering::SeqCst);
                let answer = shared.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
                async move { Ok::<_, Infallible>(answer(&request)) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // An answer that breaks off ends the connection: that is its point.
            let _broken = stream.set_nodelay(true).is_err()
                || server.serve_connection(TokioIo::new(stream), service).await.is_err();
        });
    }
}
