//! A registry to look at, and requests that can be spoilt.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;
use tower_breaker::{
    AdminIdentity, AdminService, Backoff, Circuit, Config, ConfigBuilder, ManualClock, Registry,
    Snapshot,
};

pub(crate) const OPERATOR: &str = "operator-7Jm2kQ9xT4vB";
pub(crate) const VIEWER: &str = "viewer-x81Lw0PzR5nY3";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A registry with circuits on a clock that stands still, and its service.
pub(crate) struct Site {
    pub(crate) registry: Registry,
    pub(crate) clock: ManualClock,
    pub(crate) admin: AdminService,
}

impl Site {
    /// `inventory` is closed, `payments` open.
    pub(crate) fn new() -> Self {
        let (registry, clock) = (Registry::new(), ManualClock::new());
        let admin = admin(&registry);
        let site = Self { registry, clock, admin };
        site.add("inventory");
        site.add("payments").trip();
        site
    }

    pub(crate) fn add(&self, name: &str) -> Circuit {
        self.registry.circuit(config(name, &self.clock).build().unwrap()).unwrap()
    }

    pub(crate) fn circuit(&self, name: &str) -> Circuit {
        self.registry.get(name).unwrap()
    }

    /// All there is that a refused request must leave as it is.
    pub(crate) fn looks(&self) -> (Vec<Snapshot>, u64) {
        let snapshots = self.registry.circuits().iter().map(Circuit::snapshot).collect();
        (snapshots, self.registry.events_after(0, usize::MAX).last_id)
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.ask(Ask::get(path).with(header::AUTHORIZATION, bearer(VIEWER))).await
    }

    pub(crate) async fn ask(&self, ask: Ask) -> Said {
        said(&self.admin, ask.into_request()).await
    }
}

pub(crate) fn config(name: &str, clock: &ManualClock) -> ConfigBuilder {
    Config::builder(name).open_for(Backoff::fixed(5 * SECOND)).clock(clock)
}

pub(crate) fn admin(registry: &Registry) -> AdminService {
    AdminService::builder(registry)
        .bearer_token(AdminIdentity::operator("alice"), OPERATOR)
        .bearer_token(AdminIdentity::viewer("bob"), VIEWER)
        .build()
        .unwrap()
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A request that can be spoilt.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: Method, path: &str) -> Self {
        let headers = vec![("host".to_owned(), b"localhost:8080".to_vec())];
        Self { method, path: path.to_owned(), headers, body: Vec::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// A command by the operator.
    pub(crate) fn command(method: Method, path: &str, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..Self::new(method, path) }
            .with(header::AUTHORIZATION, bearer(OPERATOR))
            .with(header::CONTENT_TYPE, "application/json")
    }

    pub(crate) fn with(self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.without(name.as_ref()).and(name.as_ref(), value)
    }

    pub(crate) fn and(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn into_request(self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(Full::from(self.body)).unwrap()
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn error(&self) -> Value {
        self.json()["error"].clone()
    }
}

pub(crate) async fn said<B>(admin: &AdminService, request: Request<B>) -> Said
where
    B: Body,
    B::Error: std::fmt::Debug,
{
    let response = admin.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    Said { status: head.status, headers: head.headers, text }
}
