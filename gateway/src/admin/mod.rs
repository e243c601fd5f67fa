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

use tokio::net::TcpListener;
use tower_breaker::AdminService;

use self::services::Services;
pub use self::{metrics::Metrics, tokens::Tokens};
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
    /// so that nobody opens it to the network without meaning to.
    ///
    /// # Errors
    ///
    /// If a host is none, or the address can't be had.
    pub async fn bind(
        gateway: &Gateway,
        programs: &[SocketAddr],
        tokens: Tokens,
        metrics: Metrics,
        past: History,
    ) -> io::Result<Self> {
        let settings = gateway.table().settings.admin.clone();
        if !settings.listen.ip().to_canonical().is_loopback() && settings.hosts.is_empty() {
            return Err(io::Error::other(format!(
                "admin.listen is {}, beyond loopback, so admin.hosts must name what it may be \
                 called by, such as [\"breaker.example.com\"]",
                settings.listen
            )));
        }
        let services = Services::new(gateway.clone(), programs.first().copied());
        let reload = services.clone();
        let watched = gateway.clone();
        let mut admin = AdminService::builder(gateway.registry())
            .check(move |parts| tokens.identify(parts))
            .metrics(move || metrics.render())
            .notice(move || notice(&watched))
            .resource("services", move |request| services.clone().answer(request))
            .resource("reload", move |request| reload.clone().reload(request))
            .resource("history", move |request| history::answer(past.clone(), request))
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

/// What is wrong with the files, while they are not what is at work.
fn notice(gateway: &Gateway) -> Option<String> {
    let reload = gateway.last_reload();
    let problems = reload.result.as_ref().err()?.problems();
    let first = problems.first()?;
    let more = match problems.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("The configuration is wrong, and stays as it was. {first}{more}"))
}
