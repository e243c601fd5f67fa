//! What an application adds to the service, behind the same guards.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use http::{Method, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{auth::AdminIdentity, fields::Fields, refusal::Refusal, route};
use crate::ConfigError;

/// The service's own words behind `/api/v1/`.
const OWN: [&str; 5] = ["bulk", "circuits", "events", "me", "stream"];

/// A request for a [resource](crate::AdminBuilder::resource), from somebody who
/// may make it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AdminRequest {
    /// Who asks. They may steer, unless the method is `GET`.
    pub identity: AdminIdentity,
    /// A `HEAD` comes as a `GET`.
    pub method: Method,
    /// What stands behind the resource's name, by segments, decoded.
    pub path: Vec<String>,
    /// Why, of one line; empty with a `GET`.
    pub reason: String,
    /// As it was sent.
    pub query: Option<String>,
    body: Map<String, Value>,
}

impl AdminRequest {
    /// Reads the body without its `reason`. Have the type deny unknown fields:
    /// a misspelt one would be a wish that goes unheard.
    ///
    /// # Errors
    ///
    /// If a field is not as it must be, or not known.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_value(self.body.clone().into())
            .map_err(|error| Refusal::invalid("the body", &format!("can't be meant so: {error}")))
    }

    /// Reads the query, of which each parameter is a text.
    ///
    /// # Errors
    ///
    /// If a parameter is not as it must be, not known or there twice.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let mut all = Map::new();
        let query = self.query.as_deref().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if all.insert(name.clone().into(), value.into()).is_some() {
                return Err(Refusal::invalid(&name, "must be there once"));
            }
        }
        serde_json::from_value(all.into())
            .map_err(|error| Refusal::invalid("the query", &format!("can't be meant so: {error}")))
    }

    pub(super) fn new(
        parts: &Parts,
        path: &[&str],
        identity: AdminIdentity,
    ) -> Result<Self, Refusal> {
        let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
        Ok(Self {
            identity,
            method,
            path: path.iter().map(|segment| route::decode(segment)).collect::<Result<_, _>>()?,
            reason: String::new(),
            query: parts.uri.query().map(str::to_owned),
            body: Map::new(),
        })
    }

    /// With what came in the body.
    pub(super) fn read(mut self, body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::of_body(body)?;
        self.reason = fields.reason()?;
        self.body = fields.rest();
        Ok(self)
    }
}

pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Value, Refusal>> + Send>>;

/// What answers for a resource.
#[derive(Clone)]
pub(super) struct Handler(Arc<dyn Fn(AdminRequest) -> Answering + Send + Sync>);

impl Handler {
    pub(super) fn new<F, A>(answer: impl Fn(AdminRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<A, Refusal>> + Send + 'static,
        A: Serialize,
    {
        Self(Arc::new(move |request| {
            let answer = answer(request);
            Box::pin(async move {
                let answer = answer.await?;
                // An application's own mistake, which is told to it.
                serde_json::to_value(&answer).map_err(|error| Refusal::unanswerable(&error))
            })
        }))
    }

    pub(super) fn answer(&self, request: AdminRequest) -> Answering {
        (self.0)(request)
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// The resources there are, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources(Vec<(String, Handler)>);

impl Resources {
    pub(super) fn add(&mut self, name: String, handler: Handler) {
        self.0.push((name, handler));
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        for (index, (name, _)) in self.0.iter().enumerate() {
            let expected = if name.is_empty() || !name.chars().all(allowed) {
                "must be of A-Z a-z 0-9 . _ -"
            } else if OWN.contains(&name.as_str()) {
                "must not be one that the service has already"
            } else if self.0[..index].iter().any(|(other, _)| other == name) {
                "must be there once"
            } else {
                continue;
            };
            return Err(ConfigError::new("resource", format_args!("{name:?}"), expected));
        }
        Ok(())
    }

    /// The one that a path is of, and the segments behind its name.
    pub(super) fn find<'a>(&self, path: &'a str) -> Option<(&Handler, Vec<&'a str>)> {
        let mut segments = path.strip_prefix("/api/v1/")?.split('/');
        let wanted = segments.next()?;
        let (_, handler) = self.0.iter().find(|(name, _)| name == wanted)?;
        Some((handler, segments.collect()))
    }
}
