//! reqwest-middleware: any Tower layer as a middleware (feature
//! `reqwest-middleware`).

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;

/// Puts a Tower layer into a `reqwest_middleware::ClientBuilder`.
///
/// The layer is kept, so one [`CircuitBreakerLayer`](crate::CircuitBreakerLayer)
/// is one circuit for all requests of the client. Its refusal is in the error's
/// chain of sources.
///
/// ```
/// use reqwest_middleware::ClientBuilder;
/// use tower_breaker::{CircuitBreakerLayer, CircuitOpen, Config, TowerMiddleware};
///
/// # async fn run() {
/// let breaker = CircuitBreakerLayer::new(Config::default());
/// # breaker.circuit().trip();
/// let client = ClientBuilder::new(reqwest::Client::new())
///     .with(TowerMiddleware::new(breaker))
///     .build();
///
/// let error = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
/// assert!(CircuitOpen::find_in(&error).is_some());
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run());
/// ```
#[derive(Clone, Debug)]
pub struct TowerMiddleware<L> {
    layer: L,
}

impl<L> TowerMiddleware<L> {
    /// A middleware that puts `layer` around the rest of the chain.
    pub const fn new(layer: L) -> Self {
        Self { layer }
    }
}

#[async_trait::async_trait]
impl<L> Middleware for TowerMiddleware<L>
where
    L: for<'a> Layer<
            NextService<'a>,
            Service: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send>
                         + Send,
        > + Send
        + Sync
        + 'static,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        // A copy, so that the caller keeps its own if this is dropped.
        let shared = Arc::new(Mutex::new(extensions.clone()));
        let next = NextService { next, extensions: Arc::clone(&shared) };
        let result = self.layer.layer(next).oneshot(request).await;
        *extensions = mem::take(&mut lock(&shared));
        result.map_err(|error| outer_error(error.into()))
    }
}

/// The rest of a middleware chain, as a service.
#[derive(Clone)]
pub struct NextService<'a> {
    next: Next<'a>,
    extensions: Arc<Mutex<Extensions>>,
}

impl<'a> Service<Request> for NextService<'a> {
    type Response = Response;
    type Error = Error;
    type Future = NextFuture<'a>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> NextFuture<'a> {
        let Self { next, extensions } = self.clone();
        NextFuture(Box::pin(async move {
            // A copy, because a layer may call twice, and nothing is locked
            // while a call is under way.
            let mut own = lock(&extensions).clone();
            let result = next.run(request, &mut own).await;
            *lock(&extensions) = own;
            result
        }))
    }
}

impl fmt::Debug for NextService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextService").finish_non_exhaustive()
    }
}

/// The future of [`NextService`]. Boxed, as every middleware's is.
pub struct NextFuture<'a>(Pin<Box<dyn Future<Output = Result<Response, Error>> + Send + 'a>>);

impl Future for NextFuture<'_> {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for NextFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NextFuture")
    }
}

fn lock(extensions: &Mutex<Extensions>) -> MutexGuard<'_, Extensions> {
    extensions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The chain's own errors as they are; others as a middleware's.
fn outer_error(error: BoxError) -> Error {
    error
        .downcast::<Error>()
        .map(|error| *error)
        .or_else(|error| error.downcast::<reqwest::Error>().map(|error| Error::Reqwest(*error)))
        .unwrap_or_else(|error| Error::middleware(LayerError(error)))
}

/// `reqwest_middleware::Error` names as its source not the error it carries
/// but that one's source: hence one more around it.
#[derive(Debug)]
struct LayerError(BoxError);

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for LayerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
