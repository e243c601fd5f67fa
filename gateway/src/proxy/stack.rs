//! What protects one service: total time → retry → circuit → attempt's time →
//! the forwarder.
//!
//! The common path, a circuit and nothing else, is made of plain services with
//! named futures. Retries, an upstream to fall back on and kept responses put a
//! boxed future around a call, which is little beside the copy of the request
//! or the response that they make anyway.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, Version, header::CONTENT_TYPE};
use pin_project_lite::pin_project;
use tower::{
    Layer, Service, ServiceExt,
    retry::Retry,
    service_fn,
    util::{BoxCloneService, MapResponse},
};
use tower_breaker::{
    AtEndOfBody, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Classify, HttpClassifier,
    Outcome, Reject, RetryBudget, RetryPolicy, StaleIfErrorLayer, WhenOpen,
};

use super::{
    Body, BoxError, UpstreamError,
    answer::{Abort, Answers, Source},
    attempt::{Attempts, OutOfTime, Waited},
    retry::{self, Again},
};
use crate::{config, gateway};

/// The stack of one service on one worker.
///
/// The response is the upstream's or one of the gateway's own; the error
/// means that the connection is to be closed without one.
#[derive(Clone)]
pub struct Stack<F> {
    path: Path<F>,
    answers: Arc<Answers>,
}

/// What the stacks of a service have in common, on all workers.
#[derive(Default)]
pub struct Shared {
    stale: OnceLock<StaleIfErrorLayer>,
    budget: OnceLock<RetryBudget>,
}

impl Shared {
    /// What of it is right for the service with other settings, too.
    pub(crate) fn after(&self, was: &config::Service, is: &config::Service) -> Self {
        let kept = |settings: &config::Service| match settings.when_open {
            config::WhenOpen::Stale { ttl, max_size, .. } => Some((ttl, max_size)),
            _ => None,
        };
        let is_same = (&was.upstream, &was.route) == (&is.upstream, &is.route);
        let stale = (is_same && kept(was) == kept(is)).then(|| self.stale.clone());
        let budget = (was.retry == is.retry).then(|| self.budget.clone());
        Self { stale: stale.unwrap_or_default(), budget: budget.unwrap_or_default() }
    }
}

#[derive(Clone)]
enum Path<F> {
    Plain(Judged<F>),
    Boxed(BoxCloneService<Request<Body>, Response<Body>, BoxError>),
}

/// Builds it around what sends a request to the upstream. If the service has an
/// upstream to fall back on, see [`Stack::fallback`].
pub fn stack<F>(service: &Arc<gateway::Service>, forward: F) -> Stack<F>
where
    F: Forward,
{
    let attempts = attempts(service, forward);
    Stack::new(service, Judged::new(service, attempts), None)
}

/// The same, for a service that falls back on another upstream, which has no
/// circuit.
pub fn stack_with_fallback<F>(service: &Arc<gateway::Service>, forward: F, spare: F) -> Stack<F>
where
    F: Forward,
{
    let (attempts, spare) = (attempts(service, forward), attempts(service, spare));
    Stack::new(service, Judged::new(service, attempts.clone()), Some((attempts, spare)))
}

/// What sends a request to an upstream.
pub trait Forward:
    Service<Request<Body>, Response = Response<Body>, Error = UpstreamError, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<F> Forward for F where
    F: Service<Request<Body>, Response = Response<Body>, Error = UpstreamError, Future: Send>
        + Clone
        + Send
        + 'static
{
}

fn attempts<F>(service: &gateway::Service, forward: F) -> Attempts<F> {
    let timeouts = &service.settings.timeouts;
    Attempts::new(forward, timeouts.head, timeouts.total)
}

impl<F: Forward> Stack<F> {
    fn new(
        service: &Arc<gateway::Service>,
        judged: Judged<F>,
        fallback: Option<(Attempts<F>, Attempts<F>)>,
    ) -> Self {
        let settings = &service.settings;
        let mut path = match fallback {
            Some((attempts, spare)) if settings.protect => {
                Path::Boxed(falling_back(service, attempts, spare))
            }
            _ => Path::Plain(judged),
        };
        if let Some(rules) = &settings.retry {
            let budget = service.shared.budget.get_or_init(|| retry::budget(rules, service));
            let policy = RetryPolicy::stop_when_open(Again::new(rules)).budget(budget.clone());
            path = Path::Boxed(retrying(path, policy, settings.timeouts.total));
        }
        if let config::WhenOpen::Stale { ttl, max_size, .. } = settings.when_open {
            let stale = service.shared.stale.get_or_init(|| {
                StaleIfErrorLayer::new()
                    .ttl(ttl)
                    .max_bytes(max_size as u64)
                    .max_response_bytes(max_size.min(1 << 20))
            });
            path = Path::Boxed(keeping(path, stale.clone()));
        }
        Self { path, answers: Arc::new(Answers::new(service)) }
    }

    /// Sets whether responses say which circuit decided; they do unless told.
    pub fn breaker_headers(mut self, shown: bool) -> Self {
        Arc::make_mut(&mut self.answers).show_headers(shown);
        self
    }
}

impl<F: Forward> Service<Request<Body>> for Stack<F> {
    type Response = Response<Body>;
    type Error = Abort;
    type Future = StackFuture<F>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Abort>> {
        // An error here would be the forwarder's own, and come before any
        // request: the call meets it again, and there it can be answered.
        self.path.poll_ready(context).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> StackFuture<F> {
        StackFuture {
            is_grpc: is_grpc(&request),
            answers: Arc::clone(&self.answers),
            call: self.path.call(request),
        }
    }
}

pin_project! {
    /// The answer to come.
    pub struct StackFuture<F: Forward> {
        #[pin]
        call: PathFuture<F>,
        answers: Arc<Answers>,
        is_grpc: bool,
    }
}

impl<F: Forward> Future for StackFuture<F> {
    type Output = Result<Response<Body>, Abort>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.call.poll(context));
        Poll::Ready(this.answers.finish(result, *this.is_grpc))
    }
}

/// gRPC wants HTTP/2, so the others need not be asked.
fn is_grpc(request: &Request<Body>) -> bool {
    request.version() == Version::HTTP_2
        && request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl<F: Forward> Service<Request<Body>> for Path<F> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = PathFuture<F>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Plain(judged) => judged.poll_ready(context),
            Self::Boxed(boxed) => boxed.poll_ready(context),
        }
    }

    fn call(&mut self, request: Request<Body>) -> PathFuture<F> {
        match self {
            Self::Plain(judged) => PathFuture::Plain { call: judged.call(request) },
            Self::Boxed(boxed) => PathFuture::Boxed { call: boxed.call(request) },
        }
    }
}

pin_project! {
    #[project = PathProj]
    enum PathFuture<F: Forward> {
        Plain { #[pin] call: JudgedFuture<F> },
        Boxed { call: Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>> },
    }
}

impl<F: Forward> Future for PathFuture<F> {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            PathProj::Plain { call } => call.poll(context),
            PathProj::Boxed { call } => call.as_mut().poll(context),
        }
    }
}

/// The upstream behind the service's circuit, if it has one.
#[derive(Clone)]
enum Judged<F> {
    Unprotected(Attempts<F>),
    AtHead(CircuitBreaker<Attempts<F>, Verdict>),
    AtEnd(ToEnd<F>),
}

type ToEnd<F> = CircuitBreaker<Attempts<F>, Verdict, Reject, AtEndOfBody>;

impl<F: Forward> Judged<F> {
    fn new(service: &gateway::Service, attempts: Attempts<F>) -> Self {
        if !service.settings.protect {
            return Self::Unprotected(attempts);
        }
        let layer = layer(service);
        if service.settings.until_end_of_body {
            Self::AtEnd(layer.until_end_of_body().layer(attempts))
        } else {
            Self::AtHead(layer.layer(attempts))
        }
    }
}

fn layer(service: &gateway::Service) -> CircuitBreakerLayer<Verdict> {
    CircuitBreakerLayer::new(service.circuit.clone())
        .classify(Verdict::new(&service.settings))
        // A refusal is an answer, and answers come from `call`.
        .when_open(WhenOpen::Defer)
}

impl<F: Forward> Service<Request<Body>> for Judged<F> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = JudgedFuture<F>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Unprotected(attempts) => attempts.poll_ready(context),
            Self::AtHead(breaker) => breaker.poll_ready(context),
            Self::AtEnd(breaker) => breaker.poll_ready(context),
        }
    }

    fn call(&mut self, request: Request<Body>) -> JudgedFuture<F> {
        match self {
            Self::Unprotected(attempts) => {
                JudgedFuture::Unprotected { call: attempts.call(request) }
            }
            Self::AtHead(breaker) => JudgedFuture::AtHead { call: breaker.call(request) },
            Self::AtEnd(breaker) => JudgedFuture::AtEnd { call: breaker.call(request) },
        }
    }
}

type FutureOf<S> = <S as Service<Request<Body>>>::Future;

pin_project! {
    #[project = JudgedProj]
    enum JudgedFuture<F: Forward> {
        Unprotected { #[pin] call: FutureOf<Attempts<F>> },
        AtHead { #[pin] call: FutureOf<CircuitBreaker<Attempts<F>, Verdict>> },
        AtEnd { #[pin] call: FutureOf<ToEnd<F>> },
    }
}

impl<F: Forward> Future for JudgedFuture<F> {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            JudgedProj::Unprotected { call } => call.poll(context),
            JudgedProj::AtHead { call } => call.poll(context),
            JudgedProj::AtEnd { call } => {
                call.poll(context).map_ok(|response| response.map(Body::wrap))
            }
        }
    }
}

/// What a call says about the upstream: as HTTP has it, but nothing that is the
/// caller's doing.
#[derive(Clone, Copy, Debug)]
struct Verdict(HttpClassifier, bool);

impl Verdict {
    fn new(settings: &config::Service) -> Self {
        let http = HttpClassifier::new();
        match settings.slow_is_failure {
            Some(slow) => Self(http.slow_is_failure(slow), true),
            None => Self(http, false),
        }
    }
}

impl Classify<Response<Body>> for Verdict {
    fn classify(&self, result: Result<&Response<Body>, &BoxError>, latency: Duration) -> Outcome {
        let latency = match result {
            Err(error) if is_the_callers(error) => return Outcome::Ignored,
            // What the caller took to send its body is not the upstream's time.
            Ok(response) => match response.extensions().get::<Waited>() {
                Some(Waited(waited)) => latency.min(*waited),
                None => latency,
            },
            Err(_) => latency,
        };
        self.0.classify(result, latency)
    }

    fn judges_latency(&self) -> bool {
        self.1
    }

    fn retry_after(&self, response: &Response<Body>) -> Option<Duration> {
        self.0.retry_after(response)
    }
}

/// Whether the call ended by what the caller asked for, by the caller's going
/// away, or by its total time, before the upstream had its own.
fn is_the_callers(error: &BoxError) -> bool {
    error.is::<OutOfTime>()
        || matches!(
            error.downcast_ref(),
            Some(UpstreamError::ClientGone(_) | UpstreamError::PathTooLong)
        )
}

/// Sends what the circuit refuses to another upstream. If that fails, the caller
/// is told of the circuit.
fn falling_back<F: Forward>(
    service: &gateway::Service,
    attempts: Attempts<F>,
    spare: Attempts<F>,
) -> BoxCloneService<Request<Body>, Response<Body>, BoxError> {
    // A service is `Send` and need not be `Sync`; what is called by reference
    // must be.
    let spare = Arc::new(Mutex::new(spare));
    let layer = layer(service).fallback_with(move |request: Request<Body>, open: CircuitOpen| {
        let spare = spare.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            match spare.oneshot(request).await {
                Ok(mut response) => {
                    response.extensions_mut().insert(Source::Fallback(open));
                    Ok(response)
                }
                Err(error) if is_the_callers(&error) => Err(error),
                Err(error) => {
                    tracing::debug!(service = open.name(), %error, "the fallback failed, too");
                    Err(BoxError::from(open))
                }
            }
        }
    });
    if service.settings.until_end_of_body {
        let breaker = layer.until_end_of_body().layer(attempts);
        BoxCloneService::new(breaker.map_response(|response| response.map(Body::wrap)))
    } else {
        BoxCloneService::new(layer.layer(attempts))
    }
}

fn retrying<F: Forward>(
    path: Path<F>,
    policy: RetryPolicy<Again>,
    total: Option<Duration>,
) -> BoxCloneService<Request<Body>, Response<Body>, BoxError> {
    BoxCloneService::new(service_fn(move |request| {
        let (path, policy) = (path.clone(), policy.clone());
        async move {
            let request = retry::prepare(request, total).await?;
            Retry::new(policy, path).oneshot(request).await
        }
    }))
}

/// Answers with what it has kept while the circuit refuses.
fn keeping<F: Forward>(
    path: Path<F>,
    stale: StaleIfErrorLayer,
) -> BoxCloneService<Request<Body>, Response<Body>, BoxError> {
    // What comes from the store is what has not come this way.
    let live = MapResponse::new(path, |mut response: Response<Body>| {
        let source = response.extensions().get::<Source>().cloned();
        response.extensions_mut().insert(source.unwrap_or(Source::Upstream));
        response
    });
    BoxCloneService::new(stale.layer(live).map_response(|response| {
        let mut response = response.map(Body::wrap);
        if response.extensions().get::<Source>().is_none() {
            response.extensions_mut().insert(Source::Kept);
        }
        response
    }))
}
