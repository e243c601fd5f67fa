//! The layer: the ordinary one, with a circuit a key in place of its own.

use std::{fmt, future::Future, time::Duration};

use tower_layer::Layer;

use super::{
    circuits::KeyedCircuits,
    key::{Key, KeyFn},
    service::KeyedCircuitBreaker,
};
#[cfg(feature = "http")]
use crate::http::HttpClassifier;
use crate::{
    circuit::CircuitOpen,
    classify::{Classify, ClassifyFn},
    ending::AtHead,
    error::BoxError,
    fallback::{Fallback, FallbackWith, Reject},
    layer::CircuitBreakerLayer,
    outcome::Outcome,
};

/// Puts a circuit a key before a service.
///
/// Which circuit is asked is known once there is a request, so `poll_ready` asks
/// the service behind it and nobody else, and the refusal comes from `call`. What
/// decides, what answers and when a call has ended is set as on the ordinary
/// [`CircuitBreakerLayer`].
///
/// For HTTP there are [`per_host`](Self::per_host), [`per_route`](Self::per_route)
/// and [`per_header`](Self::per_header).
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_breaker::{CircuitOpen, Config, KeyedCircuitBreakerLayer, KeyedCircuits};
///
/// # fn main() -> Result<(), BoxError> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let circuits = KeyedCircuits::builder(Config::builder("shards").build()?).build()?;
/// let service = ServiceBuilder::new()
///     .layer(KeyedCircuitBreakerLayer::new(circuits.clone(), |request: &Request<u64>| {
///         (*request.body() % 10).into()
///     }))
///     .service(service_fn(async |_: Request<u64>| Ok::<_, BoxError>(Response::new("hello"))));
///
/// circuits.get_or_create("3").trip();
/// let error = service.clone().oneshot(Request::new(13)).await.unwrap_err();
/// assert_eq!(CircuitOpen::find_in(&*error).and_then(CircuitOpen::key), Some("3"));
/// assert!(service.oneshot(Request::new(14)).await.is_ok());
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a layer does nothing until it is put before a service"]
pub struct KeyedCircuitBreakerLayer<K, C, O = Reject, T = AtHead> {
    circuits: KeyedCircuits,
    key: K,
    /// Its circuit is the group's shared one, and is not asked.
    template: CircuitBreakerLayer<C, O, T>,
}

#[cfg(feature = "http")]
impl<F> KeyedCircuitBreakerLayer<KeyFn<F>, HttpClassifier> {
    /// A layer for HTTP services, judged by [`HttpClassifier`], with a closure
    /// that takes the key from a request.
    pub fn new<Request>(circuits: KeyedCircuits, key: F) -> Self
    where
        F: Fn(&Request) -> Key<'_>,
    {
        Self::with_key(circuits, KeyFn(key))
    }
}

#[cfg(feature = "http")]
impl<K> KeyedCircuitBreakerLayer<K, HttpClassifier> {
    /// A layer for HTTP services, judged by [`HttpClassifier`], with a
    /// [`KeyOf`](crate::KeyOf) that takes the key from a request.
    pub fn with_key(circuits: KeyedCircuits, key: K) -> Self {
        let template = CircuitBreakerLayer::new(circuits.shared());
        Self { circuits, key, template }
    }
}

impl<F, C> KeyedCircuitBreakerLayer<KeyFn<F>, C> {
    /// A layer for services of any kind, judged by `classifier`, with a closure
    /// that takes the key from a request.
    ///
    /// ```
    /// use tower_breaker::{Config, KeyedCircuitBreakerLayer, KeyedCircuits, ResultClassifier};
    ///
    /// struct Query { tenant: String }
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let circuits = KeyedCircuits::builder(Config::default()).build()?;
    /// let layer = KeyedCircuitBreakerLayer::with_classifier(
    ///     circuits,
    ///     |query: &Query| (&query.tenant).into(),
    ///     ResultClassifier::new(),
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_classifier<Request>(circuits: KeyedCircuits, key: F, classifier: C) -> Self
    where
        F: Fn(&Request) -> Key<'_>,
    {
        let template = CircuitBreakerLayer::with_classifier(circuits.shared(), classifier);
        Self { circuits, key: KeyFn(key), template }
    }
}

impl<K, C, O, T> KeyedCircuitBreakerLayer<K, C, O, T> {
    /// The circuits of every service this layer makes.
    pub fn circuits(&self) -> &KeyedCircuits {
        &self.circuits
    }

    /// Like [`CircuitBreakerLayer::classify`].
    pub fn classify<D>(self, classifier: D) -> KeyedCircuitBreakerLayer<K, D, O, T> {
        self.with(|layer| layer.classify(classifier))
    }

    /// Like [`CircuitBreakerLayer::classify_fn`].
    pub fn classify_fn<Response, F>(
        self,
        classifier: F,
    ) -> KeyedCircuitBreakerLayer<K, ClassifyFn<F>, O, T>
    where
        F: Fn(Result<&Response, &BoxError>, Duration) -> Outcome,
        ClassifyFn<F>: Classify<Response>,
    {
        self.with(|layer| layer.classify_fn(classifier))
    }

    /// Like [`CircuitBreakerLayer::fallback`].
    pub fn fallback<F, A, Kind>(
        self,
        fallback: F,
    ) -> KeyedCircuitBreakerLayer<K, C, Fallback<F, Kind>, T>
    where
        F: Fn(CircuitOpen) -> A,
    {
        self.with(|layer| layer.fallback(fallback))
    }

    /// Like [`CircuitBreakerLayer::fallback_with`].
    pub fn fallback_with<Request, F, Fut, Kind>(
        self,
        fallback: F,
    ) -> KeyedCircuitBreakerLayer<K, C, FallbackWith<F, Kind>, T>
    where
        F: Fn(Request, CircuitOpen) -> Fut,
        Fut: Future,
    {
        self.with(|layer| layer.fallback_with(fallback))
    }

    /// Sets anything that can be set on the ordinary layer; its circuit is not
    /// asked, and its `when_open` has no say.
    ///
    /// ```
    /// use tower_breaker::{Config, HttpClassifier, KeyedCircuitBreakerLayer, KeyedCircuits};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let circuits = KeyedCircuits::builder(Config::default()).build()?;
    /// let layer = KeyedCircuitBreakerLayer::per_host(circuits)
    ///     .with(|layer| layer.classify(HttpClassifier::new()).until_end_of_body());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with<D, P, U>(
        self,
        set: impl FnOnce(CircuitBreakerLayer<C, O, T>) -> CircuitBreakerLayer<D, P, U>,
    ) -> KeyedCircuitBreakerLayer<K, D, P, U> {
        KeyedCircuitBreakerLayer {
            circuits: self.circuits,
            key: self.key,
            template: set(self.template),
        }
    }
}

impl<S, K, C, O, T> Layer<S> for KeyedCircuitBreakerLayer<K, C, O, T>
where
    K: Clone,
    C: Clone,
    O: Clone,
    T: Copy,
{
    type Service = KeyedCircuitBreaker<S, K, C, O, T>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedCircuitBreaker::new(
            self.template.layer(inner),
            self.circuits.clone(),
            self.key.clone(),
        )
    }
}

impl<K, C, O, T> fmt::Debug for KeyedCircuitBreakerLayer<K, C, O, T>
where
    K: fmt::Debug,
    CircuitBreakerLayer<C, O, T>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreakerLayer")
            .field("circuits", &self.circuits)
            .field("key", &self.key)
            .field("template", &self.template)
            .finish()
    }
}
