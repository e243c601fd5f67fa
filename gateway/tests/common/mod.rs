//! A gateway in this process, upstreams to put behind it, and callers that
//! write their bytes by hand.

#![allow(dead_code, reason = "each test uses a part of this")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use brk::{
    config::{
        Admin, History, Protocol, Respond, Route, Server, Service, Settings, Timeouts, Upstream,
        WhenOpen,
    },
    gateway::Gateway,
    proxy::{Stop, Stopper},
    serve,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tower_breaker::Config;

/// Longer than anything here takes, on any machine.
pub const GUARD: Duration = Duration::from_secs(60);

/// A gateway that runs until it is dropped or stopped.
pub struct Running {
    pub address: SocketAddr,
    pub gateway: Gateway,
    stopper: Stopper,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub fn start(settings: Settings) -> Running {
        let gateway = Gateway::start(Path::new("brk.toml"), settings);
        let bound = serve::bind(gateway.clone()).expect("port 0 is free");
        let address = bound.addresses()[0];
        let (stopper, stop) = Stop::new();
        Running { address, gateway, stopper, task: tokio::spawn(bound.run(stop)) }
    }

    /// In front of one upstream, with the settings of both changed as said.
    pub fn before(upstream: SocketAddr, change: impl FnOnce(&mut Server, &mut Service)) -> Running {
        let mut server = server();
        let mut service = service("upstream", upstream);
        change(&mut server, &mut service);
        Running::start(settings(server, [service]))
    }

    pub fn tell_to_stop(&self) {
        self.stopper.stop();
    }

    pub async fn stopped(self) {
        guard(self.task).await.expect("the gateway does not panic").expect("it ends well");
    }

    pub async fn caller(&self) -> Caller {
        let stream = TcpStream::connect(self.address).await.expect("the gateway listens");
        Caller { stream, ahead: Vec::new() }
    }

    /// One exchange on a connection of its own, read to the connection's end.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut caller = self.caller().await;
        caller.write(bytes).await;
        caller.rest().await
    }
}

pub fn settings(server: Server, services: impl IntoIterator<Item = Service>) -> Settings {
    let services = services.into_iter().map(|service| (service.name.clone(), Arc::new(service)));
    Settings {
        server,
        admin: Admin {
            listen: ([127, 0, 0, 1], 0).into(),
            hosts: Vec::new(),
            state: PathBuf::new(),
        },
        history: History { events: Duration::ZERO, minutes: Duration::ZERO },
        notify: Vec::new(),
        services: services.collect::<BTreeMap<_, _>>(),
    }
}

pub fn server() -> Server {
    Server {
        listen: vec![([127, 0, 0, 1], 0).into()],
        workers: 2,
        max_connections: 20_000,
        header_timeout: Duration::from_secs(30),
        max_header_size: 16 << 10,
        drain: Duration::from_secs(30),
        trusted_proxies: Vec::new(),
        breaker_headers: true,
    }
}

pub fn service(name: &str, upstream: SocketAddr) -> Service {
    Service {
        name: name.to_owned(),
        route: Route { host: None, prefix: "/".to_owned(), strip_prefix: false },
        upstream: Upstream {
            url: format!("http://{upstream}").parse().expect("a URL"),
            protocol: Protocol::Auto,
            preserve_host: false,
            ca_file: None,
            ca: Vec::new(),
            max_idle: 32,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body_idle: Duration::from_secs(30),
            total: None,
        },
        upgrade: false,
        retry: None,
        protect: true,
        until_end_of_body: false,
        slow_is_failure: None,
        circuit: Config::builder(name).build().expect("a name"),
        when_open: WhenOpen::Respond(Respond {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: true,
            headers: HeaderMap::new(),
            body: None,
        }),
    }
}

/// A connection whose bytes are written by hand.
pub struct Caller {
    pub stream: TcpStream,
    /// Read, and not asked for yet.
    ahead: Vec<u8>,
}

impl Caller {
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the gateway reads");
    }

    /// Reads until the text is there, and not beyond.
    pub async fn until(&mut self, text: &str) -> String {
        let end = |ahead: &[u8]| {
            let at = ahead.windows(text.len()).position(|window| window == text.as_bytes());
            at.map(|at| at + text.len())
        };
        guard(async {
            loop {
                if let Some(end) = end(&self.ahead) {
                    let rest = self.ahead.split_off(end);
                    let read = std::mem::replace(&mut self.ahead, rest);
                    return String::from_utf8(read).expect("text");
                }
                let read = self.stream.read_buf(&mut self.ahead).await;
                let so_far = String::from_utf8_lossy(&self.ahead);
                assert!(read.is_ok_and(|read| read > 0), "no {text:?} in {so_far:?}");
            }
        })
        .await
    }

    /// Bytes that were read beyond what was asked for.
    pub fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Reads to the connection's end.
    pub async fn rest(&mut self) -> String {
        let mut read = std::mem::take(&mut self.ahead);
        // A reset after the last byte is an end, too.
        let _ = guard(self.stream.read_to_end(&mut read)).await;
        String::from_utf8(read).expect("text")
    }
}

/// Fails where it would hang.
pub async fn guard<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("it ends")
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A server whose every request goes to a closure, in HTTP/1.1 and HTTP/2.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<AtomicUsize>,
}

impl Origin {
    pub async fn start<R>(respond: impl Fn(Request<Incoming>) -> R + Clone + Send + 'static) -> Self
    where
        R: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (respond, count) = (respond.clone(), Arc::clone(&count));
                let service = service_fn(move |request| {
                    count.fetch_add(1, Ordering::SeqCst);
                    let response = respond(request);
                    async { Ok::<_, Infallible>(response.await) }
                });
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let io = TokioIo::new(stream);
                    let _ = builder.serve_connection_with_upgrades(io, service).await;
                });
            }
        });
        Origin { address, seen }
    }

    /// Answers with what it was asked: the request's line and headers, and its
    /// body after an empty line.
    pub async fn echo() -> Self {
        Origin::start(|request: Request<Incoming>| async move {
            let (parts, body) = request.into_parts();
            let mut text = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version);
            for (name, value) in &parts.headers {
                text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
            }
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            text += "\n";
            text += &String::from_utf8_lossy(&body);
            Response::new(full(text))
        })
        .await
    }

    /// Requests so far.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

pub fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}
