//! Services over HTTP: what `brk add` and `brk rm` do, and what shows them.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_breaker::{AdminRefusal, AdminRequest, Command};

use crate::{
    config::{self, Service},
    gateway::{ChangeError, Gateway},
};

/// What may be asked of services.
///
/// | request | body, beside `reason` | |
/// |---|---|---|
/// | `GET services` | | the `revision`, and the `services` in the order of their names |
/// | `GET services/{name}` | | the `revision`, and the `service` |
/// | `PUT services/{name}` | `service`: the table that its file has; `if_revision` | adds or changes it |
/// | `DELETE services/{name}` | `if_revision` | removes it |
/// | `POST reload` | | reads all files again |
///
/// A service has its `name`, the `url` that programs call, and its `settings` as
/// its file would have them with every default. The revision is that of the whole
/// configuration. With `if_revision` a service is changed only if nothing in it
/// has been since. What is changed is in `services.d`; a service that stands in a
/// file written by hand is refused.
#[derive(Clone, Debug)]
pub struct Services {
    gateway: Gateway,
    /// Where programs call.
    programs: Option<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    service: toml::Table,
    if_revision: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    if_revision: Option<u64>,
}

/// A body or a query with nothing in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Services {
    pub fn new(gateway: Gateway, programs: Option<SocketAddr>) -> Self {
        Self { gateway, programs }
    }

    /// Answers for `/api/v1/services`.
    pub async fn answer(self, request: AdminRequest) -> Result<Value, AdminRefusal> {
        let Nothing {} = request.parameters()?;
        match (&request.method, request.path.as_slice()) {
            (&Method::GET, []) => Ok(self.all()),
            (_, []) => Err(AdminRefusal::method_not_allowed("GET, HEAD")),
            (&Method::GET, [name]) => self.one(name),
            (&Method::PUT, [name]) => self.put(name, &request).await,
            (&Method::DELETE, [name]) => self.delete(name, &request).await,
            (_, [_]) => Err(AdminRefusal::method_not_allowed("GET, HEAD, PUT, DELETE")),
            _ => Err(AdminRefusal::not_found()),
        }
    }

    /// Answers for `/api/v1/reload`.
    pub async fn reload(self, request: AdminRequest) -> Result<Value, AdminRefusal> {
        let Nothing {} = request.parameters()?;
        match (&request.method, request.path.as_slice()) {
            (&Method::POST, []) => {}
            (_, []) => return Err(AdminRefusal::method_not_allowed("POST")),
            _ => return Err(AdminRefusal::not_found()),
        }
        let Nothing {} = request.body()?;
        let gateway = self.gateway.clone();
        let applied = blocking(move || gateway.reload()).await?.map_err(|error| wrong(&error))?;
        for name in applied.added.iter().chain(&applied.changed) {
            self.note("reload", name, &request);
        }
        Ok(json!({
            "revision": applied.revision,
            "added": applied.added,
            "changed": applied.changed,
            "removed": applied.removed,
            "needs_restart": applied.needs_restart,
        }))
    }

    fn all(&self) -> Value {
        let table = self.gateway.table();
        let services = table.settings.services.values();
        let services: Vec<_> = services.map(|service| self.shown(service)).collect();
        json!({ "revision": table.revision, "services": services })
    }

    fn one(&self, name: &str) -> Result<Value, AdminRefusal> {
        let table = self.gateway.table();
        let service = table.settings.services.get(name).ok_or_else(|| unknown(name))?;
        Ok(json!({ "revision": table.revision, "service": self.shown(service) }))
    }

    fn shown(&self, service: &Service) -> Value {
        // As its file would be.
        let table: Option<toml::Table> = toml::from_str(&service.to_toml()).ok();
        json!({
            "name": service.name,
            "url": self.programs.map(|listen| service.route.url(listen)),
            "settings": table,
        })
    }

    async fn put(&self, name: &str, request: &AdminRequest) -> Result<Value, AdminRefusal> {
        let Put { service, if_revision } = request.body()?;
        let (gateway, owned) = (self.gateway.clone(), name.to_owned());
        let done = blocking(move || gateway.put_service(&owned, &service, if_revision)).await?;
        let applied = done.map_err(|error| self.refused(name, if_revision, &error))?;
        let is_new = applied.added.iter().any(|added| added == name);
        self.note(if is_new { "add_service" } else { "change_service" }, name, request);
        self.one(name)
    }

    async fn delete(&self, name: &str, request: &AdminRequest) -> Result<Value, AdminRefusal> {
        let Delete { if_revision } = request.body()?;
        // It leaves the registry, but what was asked of it is told all the same.
        let circuit = self.gateway.registry().get(name);
        let (gateway, owned) = (self.gateway.clone(), name.to_owned());
        let done = blocking(move || gateway.remove_service(&owned, if_revision)).await?;
        let applied = done.map_err(|error| self.refused(name, if_revision, &error))?;
        let applied = applied.ok_or_else(|| unknown(name))?;
        if let Some(circuit) = circuit {
            let command = command("remove_service", request);
            self.gateway.registry().record_command(&circuit, command);
        }
        Ok(json!({ "revision": applied.revision, "removed": name }))
    }

    fn refused(&self, name: &str, seen: Option<u64>, error: &ChangeError) -> AdminRefusal {
        let revision = match error {
            ChangeError::Config(error) => return wrong(error),
            ChangeError::Changed { revision } => *revision,
        };
        let seen = seen.unwrap_or_default();
        let message = format!(
            "if_revision is {seen}, but the configuration has changed since and is at \
             {revision}; look at it again"
        );
        let table = self.gateway.table();
        let service = table.settings.services.get(name);
        let current = json!({
            "revision": revision,
            "service": service.map(|service| self.shown(service)),
            "events": self.latest(name),
        });
        AdminRefusal::new(StatusCode::CONFLICT, "stale_revision", message)
            .field("if_revision")
            .current(current)
    }

    /// The latest events of a circuit.
    fn latest(&self, name: &str) -> Value {
        let history = self.gateway.registry().events_after(0, usize::MAX);
        let its = history.events.iter().filter(|event| event.circuit_id() == name);
        let mut latest: Vec<_> = its.rev().take(5).map(|event| json!(**event)).collect();
        latest.reverse();
        latest.into()
    }

    /// Says who did what to a service, and why.
    fn note(&self, action: &str, name: &str, request: &AdminRequest) {
        let registry = self.gateway.registry();
        if let Some(circuit) = registry.get(name) {
            registry.record_command(&circuit, command(action, request));
        }
    }
}

fn command(action: &str, request: &AdminRequest) -> Command {
    Command::new(action).by(request.identity.who()).reason(&request.reason)
}

/// Files are read and written where nobody waits for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AdminRefusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        let message = "it has panicked; the log says where";
        AdminRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "panicked", message)
    })
}

fn unknown(name: &str) -> AdminRefusal {
    let shown: String = name.chars().take(80).collect();
    let message = format!("there is no service {shown:?}");
    AdminRefusal::new(StatusCode::NOT_FOUND, "unknown_service", message)
}

/// What is wrong with the files, each with its place. Nothing was changed.
fn wrong(error: &config::Error) -> AdminRefusal {
    let problems: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| {
            json!({
                "file": problem.file,
                "line": problem.line,
                "key": problem.key,
                "message": problem.message,
            })
        })
        .collect();
    AdminRefusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_configuration", error.to_string())
        .current(json!({ "problems": problems }))
}
