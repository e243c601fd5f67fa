//! HTTP: a circuit a host, a route, or a header's value.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Request, Uri, header::HOST};

use super::{
    circuits::KeyedCircuits,
    key::{Key, KeyOf},
    layer::KeyedCircuitBreakerLayer,
};
use crate::{
    http::{AtEndOfBody, ClassifyHttp, HttpClassifier, HttpView},
    outcome::Outcome,
};

/// The key is the host a request is for, in lower case, with its port if it
/// says one: of the URI, else of the `host` header.
///
/// ```
/// use http::Request;
/// use tower_breaker::{ByHost, KeyOf};
///
/// let request = Request::get("http://Api.Example.com:8080/users").body(()).unwrap();
/// assert_eq!(ByHost.key_of(&request).as_str(), Some("api.example.com:8080"));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByHost;

impl<B> KeyOf<Request<B>> for ByHost {
    fn key_of<'a>(&self, request: &'a Request<B>) -> Key<'a> {
        host(request.uri(), request.headers()).into()
    }
}

fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(HOST)?.to_str().ok()?,
    };
    // Who asks is not where.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() {
        return None;
    }
    Some(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

/// The key is the beginning of the path: so many of its segments.
///
/// Paths have identifiers in them, so keep to the segments before those. Where
/// a router knows the route's own name, a closure that asks it is better.
///
/// ```
/// use http::Request;
/// use tower_breaker::{ByRoute, KeyOf};
///
/// let request = Request::get("/api/users/42?page=3").body(()).unwrap();
/// assert_eq!(ByRoute::new(2).key_of(&request).as_str(), Some("/api/users"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ByRoute {
    segments: usize,
}

impl ByRoute {
    /// So many segments; a shorter path is a key as it is. With none, all paths
    /// are `/`.
    pub const fn new(segments: usize) -> Self {
        Self { segments }
    }

    fn prefix(self, path: &str) -> &str {
        let end = path.match_indices('/').nth(self.segments).map_or(path.len(), |(at, _)| at);
        match &path[..end] {
            prefix if prefix.is_empty() || self.segments == 0 => "/",
            prefix => prefix,
        }
    }
}

impl<B> KeyOf<Request<B>> for ByRoute {
    fn key_of<'a>(&self, request: &'a Request<B>) -> Key<'a> {
        self.prefix(request.uri().path()).into()
    }
}

/// The key is a header's value, such as a tenant's name; a request without the
/// header, or whose value is not ASCII, has none.
///
/// ```
/// use http::{HeaderName, Request};
/// use tower_breaker::{ByHeader, KeyOf};
///
/// let by_tenant = ByHeader::new(HeaderName::from_static("x-tenant"));
/// let request = Request::get("/").header("x-tenant", "acme").body(()).unwrap();
/// assert_eq!(by_tenant.key_of(&request).as_str(), Some("acme"));
/// ```
#[derive(Clone, Debug)]
pub struct ByHeader {
    name: HeaderName,
}

impl ByHeader {
    /// This header.
    pub const fn new(name: HeaderName) -> Self {
        Self { name }
    }
}

impl<B> KeyOf<Request<B>> for ByHeader {
    fn key_of<'a>(&self, request: &'a Request<B>) -> Key<'a> {
        request.headers().get(&self.name).and_then(|value| value.to_str().ok()).into()
    }
}

impl KeyedCircuitBreakerLayer<ByHost, HttpClassifier> {
    /// A circuit a host: see [`ByHost`].
    ///
    /// ```
    /// use tower_breaker::{Config, KeyedCircuitBreakerLayer, KeyedCircuits};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let circuits = KeyedCircuits::builder(Config::builder("hosts").build()?).build()?;
    /// let layer = KeyedCircuitBreakerLayer::per_host(circuits);
    /// # Ok(())
    /// # }
    /// ```
    pub fn per_host(circuits: KeyedCircuits) -> Self {
        Self::with_key(circuits, ByHost)
    }
}

impl KeyedCircuitBreakerLayer<ByRoute, HttpClassifier> {
    /// A circuit for each beginning of a path: see [`ByRoute`].
    pub fn per_route(circuits: KeyedCircuits, segments: usize) -> Self {
        Self::with_key(circuits, ByRoute::new(segments))
    }
}

impl KeyedCircuitBreakerLayer<ByHeader, HttpClassifier> {
    /// A circuit for each value of a header: see [`ByHeader`].
    pub fn per_header(circuits: KeyedCircuits, name: HeaderName) -> Self {
        Self::with_key(circuits, ByHeader::new(name))
    }
}

impl<K, C, O, T> KeyedCircuitBreakerLayer<K, C, O, T> {
    /// Like [`CircuitBreakerLayer::classify_http`](crate::CircuitBreakerLayer::classify_http).
    pub fn classify_http<F>(
        self,
        classifier: F,
    ) -> KeyedCircuitBreakerLayer<K, ClassifyHttp<F>, O, T>
    where
        F: Fn(HttpView<'_>) -> Outcome,
    {
        self.with(|layer| layer.classify_http(classifier))
    }
}

impl<K, C, O> KeyedCircuitBreakerLayer<K, C, O> {
    /// Like [`CircuitBreakerLayer::until_end_of_body`](crate::CircuitBreakerLayer::until_end_of_body).
    pub fn until_end_of_body(self) -> KeyedCircuitBreakerLayer<K, C, O, AtEndOfBody> {
        self.with(|layer| layer.until_end_of_body())
    }
}
