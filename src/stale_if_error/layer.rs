//! The layer: one store for every service it makes.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{
    rules::Audience,
    service::StaleIfError,
    store::{Settings, Store},
};
use crate::{AsBox, Clock};

/// Answers with the last good response when the service behind it fails: the
/// stale-if-error of RFC 5861, for HTTP.
///
/// Put it outside the breaker. It sends every request on, and keeps good
/// responses; when the circuit refuses a GET or a HEAD, it answers with what it
/// has kept for it, if that is not too old. Asked to, it does so for
/// [any error](Self::on_any_error) and for
/// [server errors](Self::on_server_errors), too.
///
/// | setting | default |
/// |---|---|
/// | [`ttl`](Self::ttl) | 5 minutes, where the response does not say |
/// | [`max_bytes`](Self::max_bytes) | 64 MiB |
/// | [`max_response_bytes`](Self::max_response_bytes) | 1 MiB |
/// | [`private`](Self::private) | off: it keeps what may be shared |
///
/// What is kept, and for whom, is as RFC 9111 has it; the rules are in
/// [fallbacks](crate::docs::fallbacks). One layer is one store, shared by every
/// service it makes and by their clones. Bodies are passed on as they come, and
/// copied on their way.
///
/// For `http::Response` alone, with a body whose data can be made of `Bytes`.
/// `Kind` is always inferred: it tells how the inner service's error is kept.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_breaker::{CircuitBreakerLayer, Config, StaleIfErrorLayer};
///
/// # async fn run() -> Result<(), BoxError> {
/// let breaker = CircuitBreakerLayer::new(Config::builder("news").build()?);
/// let circuit = breaker.circuit().clone();
/// let mut client = ServiceBuilder::new()
///     .layer(StaleIfErrorLayer::new())
///     .layer(breaker)
///     .service(service_fn(async |_: Request<String>| {
///         Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("the news")))
///     }));
///
/// let get = || Request::get("http://news.example/today").body(String::new());
/// let fresh = client.ready().await?.call(get()?).await?;
/// assert_eq!(fresh.into_body().collect().await?.to_bytes(), "the news");
///
/// circuit.trip();
/// let stale = client.ready().await?.call(get()?).await?;
/// assert_eq!(stale.headers()["age"], "0");
/// assert_eq!(stale.into_body().collect().await?.to_bytes(), "the news");
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[doc(alias = "cache")]
#[doc(alias = "proxy_cache_use_stale")]
#[doc(alias = "grace")]
#[must_use = "a layer does nothing until it is put before a service"]
pub struct StaleIfErrorLayer<Kind = AsBox> {
    store: Arc<Store>,
    kind: PhantomData<fn() -> Kind>,
}

impl<Kind> StaleIfErrorLayer<Kind> {
    /// Answers for refusals of a circuit, with an empty store.
    pub fn new() -> Self {
        Self::with(Settings {
            ttl: Duration::from_secs(5 * 60),
            max_bytes: 64 << 20,
            max_response_bytes: 1 << 20,
            audience: Audience::Shared,
            on_any_error: false,
            on_server_errors: false,
            clock: Clock::default(),
        })
    }

    /// Sets for how long a response may answer after it was fresh, where it
    /// does not say so itself by `stale-if-error`. One that says nothing of
    /// its freshness was never fresh.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.ttl = ttl)
    }

    /// Sets how many bytes are kept in all: bodies, headers and URIs, with half
    /// a kibibyte for each response and each URI, so that their number is
    /// bounded, too. Those longest without use go first.
    ///
    /// Copies under way come on top, of up to
    /// [`max_response_bytes`](Self::max_response_bytes) for each call.
    pub fn max_bytes(self, bytes: u64) -> Self {
        self.set(|settings| settings.max_bytes = bytes)
    }

    /// Sets how large a body is kept at most. A larger one is passed on like
    /// any other.
    pub fn max_response_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_response_bytes = bytes)
    }

    /// Keeps what is for one user: responses that are `private`, or to
    /// requests with an `authorization`. What is said to shared caches alone
    /// (`s-maxage`, `proxy-revalidate`) is passed over.
    ///
    /// Only where all requests are one user's, or their answers would go to
    /// others.
    pub fn private(self) -> Self {
        self.set(|settings| settings.audience = Audience::Private)
    }

    /// Answers for any error of the inner service's `call`, not only for an
    /// open circuit.
    pub fn on_any_error(self) -> Self {
        self.set(|settings| settings.on_any_error = true)
    }

    /// Answers in place of the statuses 500, 502, 503 and 504, too; so also
    /// where a breaker has a fallback that gives a 503.
    pub fn on_server_errors(self) -> Self {
        self.set(|settings| settings.on_server_errors = true)
    }

    /// Sets where it gets the time.
    pub fn clock(self, clock: impl Into<Clock>) -> Self {
        self.set(|settings| settings.clock = clock.into())
    }

    /// The same with something changed, and an empty store.
    fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.store.settings.clone();
        change(&mut settings);
        Self::with(settings)
    }

    fn with(settings: Settings) -> Self {
        Self { store: Arc::new(Store::new(settings)), kind: PhantomData }
    }
}

impl<Kind> Default for StaleIfErrorLayer<Kind> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, Kind> Layer<S> for StaleIfErrorLayer<Kind> {
    type Service = StaleIfError<S, Kind>;

    fn layer(&self, inner: S) -> Self::Service {
        StaleIfError::new(inner, Arc::clone(&self.store))
    }
}

/// A clone shares what is kept, until it is set otherwise.
impl<Kind> Clone for StaleIfErrorLayer<Kind> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), kind: PhantomData }
    }
}

impl<Kind> fmt::Debug for StaleIfErrorLayer<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleIfErrorLayer").field("store", &self.store).finish()
    }
}
