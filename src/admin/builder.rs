//! How an admin service is made: who may come in is said first.

use std::{collections::BTreeSet, fmt, future::Future, sync::Arc};

use http::request::Parts;
use serde::Serialize;

use super::{
    auth::{Access, AdminIdentity},
    host::Hosts,
    page::Page,
    places::Places,
    refusal::Refusal,
    resource::{AdminRequest, Handler, Resources},
    service::{AdminService, Settings},
};
use crate::{ConfigError, Registry};

/// An [`AdminService`] of which it is yet to be said who may use it. There is
/// no default, and nothing can be built without.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct AdminAccess {
    pub(super) registry: Registry,
}

impl AdminAccess {
    /// Lets in whoever sends this token, as `authorization: Bearer …`. More
    /// tokens may follow: see [`AdminBuilder::bearer_token`].
    pub fn bearer_token(self, identity: AdminIdentity, token: impl Into<String>) -> AdminBuilder {
        self.with(Access::default()).bearer_token(identity, token)
    }

    /// Lets in whom this closure knows: by a header that a proxy in front sets,
    /// by a client's certificate, by what a middleware has put into the
    /// extensions. `None` is answered with 401. Of a stream it is asked again every
    /// five seconds, with the same request.
    ///
    /// What a browser sends by itself, as a cookie, is no good for this: other
    /// sites' pages have it sent, too. The checks of `host` and `origin` are all
    /// that is left then.
    pub fn check(
        self,
        check: impl Fn(&Parts) -> Option<AdminIdentity> + Send + Sync + 'static,
    ) -> AdminBuilder {
        self.with(Access::check(check))
    }

    /// Lets in everybody who can reach it, as an operator called `anonymous`.
    /// For a port that nobody else reaches.
    pub fn insecure_no_auth(self) -> AdminBuilder {
        self.with(Access::open())
    }

    fn with(self, access: Access) -> AdminBuilder {
        AdminBuilder {
            registry: self.registry,
            access,
            hosts: Vec::new(),
            base_path: String::new(),
            renderer: None,
            notice: None,
            max_streams: 128,
            ready_requires: BTreeSet::new(),
            resources: Resources::default(),
            history: Vec::new(),
        }
    }
}

pub(super) type Renderer = dyn Fn() -> String + Send + Sync;
pub(super) type Notice = dyn Fn() -> Option<String> + Send + Sync;

/// Builds an [`AdminService`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct AdminBuilder {
    registry: Registry,
    access: Access,
    hosts: Vec<String>,
    base_path: String,
    renderer: Option<Arc<Renderer>>,
    notice: Option<Arc<Notice>>,
    max_streams: usize,
    ready_requires: BTreeSet<String>,
    resources: Resources,
    history: Vec<String>,
}

impl AdminBuilder {
    /// Lets in whoever sends this token, too.
    ///
    /// 16 to 512 visible ASCII characters, of which as many as can be should
    /// come from a generator of random ones.
    pub fn bearer_token(mut self, identity: AdminIdentity, token: impl Into<String>) -> Self {
        self.access.add_token(identity, token.into());
        self
    }

    /// Answers requests for this host, too: `breaker.example`, at any port, or
    /// `breaker.example:8443`. `localhost`, `127.0.0.1` and `[::1]` are
    /// answered always.
    ///
    /// A name that is not known is refused, or a page elsewhere could point its
    /// own name here and read along (DNS rebinding).
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Sets below which path browsers find it, as `/breaker`.
    ///
    /// Needed where the mount leaves the path as it is (`route_service`, plain
    /// hyper). Where it takes the prefix off (`nest_service`), it is needed only
    /// for the page to work without a slash at the end of its address.
    pub fn base_path(mut self, path: impl Into<String>) -> Self {
        self.base_path = path.into();
        self
    }

    /// Gives the text at `/metrics`, such as a Prometheus recorder's `render`.
    /// Without, there is nothing there.
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.renderer = Some(Arc::new(render));
        self
    }

    /// Sets what everyone who looks has to know of beside the circuits, as long
    /// as there is something: that a configuration could not be read, say. It is
    /// asked for once a second while somebody looks, stands above all else on the
    /// page, and in each tick of the stream as `notice`.
    pub fn notice(mut self, ask: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.notice = Some(Arc::new(ask));
        self
    }

    /// Sets how many streams there may be at once; 128 unless said. A stream
    /// that nobody has read for half a minute makes room for another.
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self
    }

    /// Makes `/readyz` depend on these circuits: 503 while one of them is open and
    /// refuses every call, or is not registered. Once its wait is over it is 200
    /// again, since without traffic there would never be a probe.
    ///
    /// Think twice. A service whose dependency is down can often still do
    /// something, and the orchestrator takes every replica out at once.
    pub fn ready_requires(mut self, circuits: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.ready_requires.extend(circuits.into_iter().map(Into::into));
        self
    }

    /// Answers for `/api/v1/{name}` and all below it by a closure of your own,
    /// with JSON.
    ///
    /// It stands behind the same guards as everything else. All but `GET` wants
    /// an operator and, as JSON of at most 64 KiB, a body with a `reason`. What
    /// the closure is asked may be done; that it is told as an event is its own
    /// affair ([`Registry::record_command`]).
    ///
    /// ```
    /// use http::Method;
    /// use serde_json::json;
    /// use tower_breaker::{AdminIdentity, AdminRefusal, AdminService, Registry};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (registry, token) = (Registry::new(), "vQ1pA9sT7mK3xZ5c");
    /// let admin = AdminService::builder(&registry)
    ///     .bearer_token(AdminIdentity::operator("alice"), token)
    ///     .resource("region", |request| async move {
    ///         match request.method {
    ///             Method::GET => Ok(json!({ "region": "eu-north" })),
    ///             _ => Err(AdminRefusal::method_not_allowed("GET, HEAD")),
    ///         }
    ///     })
    ///     .build()?;
    /// # let _ = admin;
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn resource<F, A>(
        mut self,
        name: impl Into<String>,
        answer: impl Fn(AdminRequest) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<A, Refusal>> + Send + 'static,
        A: Serialize,
    {
        self.resources.add(name.into(), Handler::new(answer));
        self
    }

    /// Says that there is more of the past than the last quarter of an hour, so
    /// far back as each of these ranges: `24h`, `7d`. The page then offers them
    /// for circuits without a key.
    ///
    /// A [resource](Self::resource) `history` has to answer for it, at
    /// `/api/v1/history/circuits/{id}?range=24h`, with `now` and a `series` like
    /// that of a circuit.
    pub fn history(mut self, ranges: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.history.extend(ranges.into_iter().map(Into::into));
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// If a token, a host, the path or a resource's name is not as it must be. The error names the
    /// field and what would be right, and shows no token.
    pub fn build(self) -> Result<AdminService, ConfigError> {
        self.access.validate()?;
        let mut hosts = Hosts::default();
        self.hosts.iter().try_for_each(|host| hosts.allow(host))?;
        let base_path = valid_path(&self.base_path)?;
        self.resources.validate()?;
        if self.max_streams == 0 {
            return Err(ConfigError::new("max_streams", 0, "must be at least 1"));
        }
        if let Some(range) = self.history.iter().find(|range| !is_range(range)) {
            let expected = "must be a number of hours or days, such as 24h or 7d";
            return Err(ConfigError::new("history", format_args!("{range:?}"), expected));
        }
        Ok(AdminService::new(Settings {
            registry: self.registry,
            access: self.access,
            hosts,
            page: Page::new(base_path),
            base_path: base_path.to_owned(),
            renderer: self.renderer,
            notice: self.notice,
            ready_requires: self.ready_requires,
            resources: self.resources,
            history: self.history,
            places: Arc::new(Places::new(self.max_streams)),
        }))
    }
}

fn is_range(range: &str) -> bool {
    let number = range.strip_suffix(['h', 'd']).unwrap_or_default();
    // Not as `+1` or `01`, or the page would ask for another than is offered.
    number.parse::<u16>().is_ok_and(|parsed| parsed > 0 && parsed.to_string() == number)
}

/// The path without the slash at its end: nothing, or `/` and something.
fn valid_path(path: &str) -> Result<&str, ConfigError> {
    let shorter = path.strip_suffix('/').unwrap_or(path);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '/');
    let is_path = shorter.is_empty()
        || shorter.starts_with('/') && !shorter.contains("//") && shorter.chars().all(allowed);
    // The service has paths of its own there, and a path could be meant either way.
    let is_own = matches!(shorter, "/api" | "/api/v1");
    if is_path && !is_own {
        return Ok(shorter);
    }
    let expected =
        "must start with a slash, be of A-Z a-z 0-9 . _ - ~ and single slashes, and not be /api";
    Err(ConfigError::new("base_path", format_args!("{path:?}"), expected))
}

impl fmt::Debug for AdminBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBuilder")
            .field("access", &self.access)
            .field("hosts", &self.hosts)
            .field("base_path", &self.base_path)
            .field("metrics", &self.renderer.is_some())
            .field("notice", &self.notice.is_some())
            .field("max_streams", &self.max_streams)
            .field("ready_requires", &self.ready_requires)
            .field("resources", &self.resources)
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}
