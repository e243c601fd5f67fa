//! A service's stack in front of an upstream that does as it is told.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file is a crate of its own and uses a part"
)]

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use brk::{
    config::{self, Protocol, Respond, Route, Timeouts, Upstream, WhenOpen},
    gateway,
    proxy::{Body, Stack, UpstreamError, stack},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};
use tower_breaker::{Backoff, Circuit, Config, ConfigBuilder, Probes};

pub const HEAD: Duration = Duration::from_secs(5);
pub const WAIT: Duration = Duration::from_secs(10);

/// What an upstream does with a request.
pub enum Does {
    Answers(Response<Body>),
    Fails(UpstreamError),
    Hangs,
}

/// Does what it was told in turn, and then goes on with the last.
#[derive(Clone, Default)]
pub struct Mock(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    turns: VecDeque<Box<dyn Fn() -> Does + Send>>,
    seen: Vec<Request<Bytes>>,
}

impl Mock {
    pub fn that(does: impl Fn() -> Does + Send + 'static) -> Self {
        Self::default().then(does)
    }

    pub fn ok() -> Self {
        Self::that(|| status(200))
    }

    pub fn then(self, does: impl Fn() -> Does + Send + 'static) -> Self {
        self.0.lock().unwrap().turns.push_back(Box::new(does));
        self
    }

    /// From now on.
    pub fn now(&self, does: impl Fn() -> Does + Send + 'static) {
        let mut told = self.0.lock().unwrap();
        told.turns.clear();
        told.turns.push_back(Box::new(does));
    }

    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().seen.len()
    }

    pub fn seen(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut self.0.lock().unwrap().seen)
    }
}

impl Service<Request<Body>> for Mock {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let told = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await;
            let body = body.map_err(UpstreamError::ClientGone)?.to_bytes();
            let does = {
                let mut told = told.lock().unwrap();
                told.seen.push(Request::from_parts(head, body));
                match told.turns.len() {
                    0 => panic!("nobody said what to do"),
                    1 => told.turns[0](),
                    _ => told.turns.pop_front().unwrap()(),
                }
            };
            match does {
                Does::Answers(response) => Ok(response),
                Does::Fails(error) => Err(error),
                Does::Hangs => std::future::pending().await,
            }
        })
    }
}

pub fn status(code: u16) -> Does {
    let mut response = Response::new(Body::full("from the upstream"));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    Does::Answers(response)
}

pub fn no_connection() -> Does {
    Does::Fails(UpstreamError::Connect("refused by 10.9.8.7".into()))
}

/// A circuit that opens at the tenth failure of ten.
pub fn circuit() -> ConfigBuilder {
    Config::builder("orders")
        .minimum_calls(10)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(WAIT))
        .probes(Probes::new(1))
}

pub fn settings(circuit: ConfigBuilder) -> config::Service {
    config::Service {
        name: "orders".to_owned(),
        route: Route { host: None, prefix: "/".to_owned(), strip_prefix: false },
        upstream: upstream(),
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            head: HEAD,
            body_idle: Duration::from_secs(60),
            total: None,
        },
        upgrade: false,
        retry: None,
        protect: true,
        until_end_of_body: false,
        slow_is_failure: None,
        circuit: circuit.build().unwrap(),
        when_open: WhenOpen::Respond(plain()),
    }
}

pub fn upstream() -> Upstream {
    Upstream {
        url: "http://upstream.example".parse().unwrap(),
        protocol: Protocol::Auto,
        preserve_host: false,
        ca_file: None,
        ca: Vec::new(),
        max_idle: 8,
    }
}

pub fn plain() -> Respond {
    Respond {
        status: StatusCode::SERVICE_UNAVAILABLE,
        retry_after: true,
        headers: HeaderMap::new(),
        body: None,
    }
}

pub fn service(settings: config::Service) -> Arc<gateway::Service> {
    let circuit = Circuit::new(settings.circuit.clone());
    Arc::new(gateway::Service { settings: Arc::new(settings), circuit, shared: Default::default() })
}

/// A stack and its circuit.
pub fn protect(settings: config::Service, mock: &Mock) -> (Stack<Mock>, Circuit) {
    let service = service(settings);
    (stack(&service, mock.clone()), service.circuit.clone())
}

/// What it is by the runtime's clock, which stands still unless it is moved.
#[expect(clippy::disallowed_methods, reason = "a test's own time, not a circuit's")]
pub fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

pub fn get() -> Request<Body> {
    Request::get("http://orders.example/list").body(Body::empty()).unwrap()
}

pub async fn ask(stack: &Stack<Mock>, request: Request<Body>) -> Response<Body> {
    stack.clone().oneshot(request).await.expect("an answer")
}

pub async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub async fn document(response: Response<Body>) -> serde_json::Value {
    serde_json::from_str(&text(response).await).unwrap()
}

/// The headers that say who decided.
pub fn signed(response: &Response<Body>) -> [Option<&str>; 4] {
    ["x-breaker-name", "x-breaker-state", "x-breaker-answer", "x-breaker-reason"]
        .map(|name| response.headers().get(name).map(|value| value.to_str().unwrap()))
}
