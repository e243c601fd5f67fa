//! The operator's side: the library's page and API with services, the history
//! and metrics beside them, on a listener of its own.
//!
//! All of it stands behind the library's guards. Who may come in is said by
//! `tokens`, `services` are shown and changed, and `listen` carries it.

mod listen;
mod metrics;
pub mod services;
pub mod tokens;

use std::{io, net::SocketAddr};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tower_breaker::{AdminRefusal, AdminRequest, AdminService};

pub use self::metrics::Metrics;
use self::{services::Services, tokens::Tokens};
use crate::{
    gateway::Gateway,
    history::{self, History},
    proxy::Stop,
};

/// The operator's listener, before it serves.
#[derive(Debug)]
pub struct Operator {
    listener: TcpListener,
    admin: AdminService,
}

impl Operator {
    /// Listens where the settings say. `programs` is where the services are
    /// listened for.
    ///
    /// Beyond loopback it does so only if they name hosts it may be called by:
    /// so that nobody opens it to the network without meaning to. The tokens are
    /// made if they are not there, and nothing is listened on without them.
    ///
    /// # Errors
    ///
    /// If there are no tokens, a host is none, or the address can't be had.
    pub async fn bind(
        gateway: &Gateway,
        programs: &[SocketAddr],
        metrics: Metrics,
        past: History,
    ) -> io::Result<Self> {
        let settings = gateway.table().settings.admin.clone();
        let tokens = Tokens::of(&settings.state).map_err(io::Error::other)?;
        if !settings.listen.ip().to_canonical().is_loopback() && settings.hosts.is_empty() {
            return Err(io::Error::other(format!(
                "admin.listen is {}, beyond loopback, so admin.hosts must name what it may be \
                 called by, such as [\"breaker.example.com\"]",
                settings.listen
            )));
        }
        let services = Services::new(gateway.clone(), programs.first().copied());
        let reload = services.clone();
        let mut admin = AdminService::builder(gateway.registry())
            .check(move |parts| tokens.identify(parts))
            .metrics(move || metrics.render())
            .resource("services", move |request| services.clone().answer(request))
            .resource("reload", move |request| reload.clone().reload(request))
            .resource("history", move |request| history(past.clone(), request))
            .history(history::RANGES);
        for host in &settings.hosts {
            admin = admin.allow_host(host);
        }
        let admin = admin.build().map_err(io::Error::other)?;
        let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("admin.listen {}: {error}", settings.listen))
        })?;
        Ok(Self { listener, admin })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is told to stop; within a second of that it has.
    pub async fn serve(self, stop: Stop) {
        listen::serve(self.listener, self.admin, stop).await;
    }
}

/// The history answers whole; here it gets the head that all answers have.
async fn history(past: History, request: AdminRequest) -> Result<Value, AdminRefusal> {
    if request.method != Method::GET {
        return Err(AdminRefusal::method_not_allowed("GET, HEAD"));
    }
    let encode = |segment: &String| {
        percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
    };
    let path = request.path.iter().map(encode).collect::<Vec<_>>().join("/");
    let answer = history::answer(&past, &path, request.query.as_deref()).await;
    let (head, body) = answer.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let mut said: Value = serde_json::from_slice(&body).unwrap_or_default();
    if head.status == StatusCode::OK {
        return Ok(said);
    }
    let error = said["error"].take();
    let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    let refusal = AdminRefusal::new(head.status, text("code"), text("message"));
    Err(if error["field"].is_string() { refusal.field(text("field")) } else { refusal })
}
