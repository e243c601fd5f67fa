//! The service: from a request to its answer.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Buf;
use http::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use http_body::Body;
use pin_project_lite::pin_project;
use serde_json::{Value, json};
use tokio::{runtime::Handle, time::Sleep};
use tower_service::Service;

use super::{
    answer,
    auth::{Access, AdminIdentity},
    body::AdminBody,
    builder::{AdminAccess, Notice, Renderer},
    command::Command,
    cursor::Cursor,
    fields::Query,
    host::{Audience, Hosts, check_site},
    list::{Filter, Part, Sort},
    page::Page,
    places::Places,
    pulse::Pulse,
    refusal::Refusal,
    resource::{AdminRequest, Answering, Handler, Resources},
    route::{self, Route, Target},
    stream::EventStream,
    view,
};
use crate::{Circuit, Clock, Registry, State};

/// How long a body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// How often circuits are looked at.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Shows the circuits of a [`Registry`] over HTTP, and lets operators steer
/// them: a page for a person, JSON and a stream of events for a program.
///
/// A plain Tower service over `http`, for whatever body: mount it in axum, serve
/// it with hyper, put it beside a tonic service. Clones are the same service.
///
/// | path | |
/// |---|---|
/// | `/` | the page |
/// | `/api/v1/…` | circuits, events, the stream; what steers them; your [own](crate::AdminBuilder::resource) |
/// | `/metrics` | what [`metrics`](crate::AdminBuilder::metrics) gives |
/// | `/livez`, `/readyz` | whether the process answers; open to all |
///
/// Nothing is let in that was not asked for: the builder wants to know who may
/// come in, and the hosts it is called by. It wants tokens in a header and JSON
/// in a body, so a browser sends nothing by itself; it refuses what pages of
/// other sites send; and it never fetches anything. Whatever somebody does is
/// an [event](crate::Event) that says who, and why.
///
/// It belongs on a port for operators, with TLS in front of it if anyone could
/// listen. It needs tokio's runtime, with its timer: a task looks at the
/// circuits once a second, and ends with the last clone.
///
/// ```
/// use http::{Request, StatusCode};
/// use tower::ServiceExt;
/// use tower_breaker::{AdminIdentity, AdminService, Config, Registry};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::new();
/// let inventory = registry.circuit(Config::builder("inventory").build()?)?;
/// # let token = "vQ1pA9sT7mK3xZ5c";
/// let admin = AdminService::builder(&registry)
///     .bearer_token(AdminIdentity::operator("alice"), token)
///     .allow_host("breaker.example")
///     .build()?;
///
/// // let router = Router::new().nest_service("/breaker", admin.clone());
/// let request = Request::get("/api/v1/circuits/inventory")
///     .header("host", "breaker.example")
///     .header("authorization", format!("Bearer {token}"))
///     .body(String::new())?;
/// let answer = admin.oneshot(request).await?;
/// assert_eq!(answer.status(), StatusCode::OK);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct AdminService(Arc<Shared>);

/// What a service is built of.
pub(super) struct Settings {
    pub(super) registry: Registry,
    pub(super) access: Access,
    pub(super) hosts: Hosts,
    pub(super) page: Page,
    pub(super) base_path: String,
    pub(super) renderer: Option<Arc<Renderer>>,
    pub(super) notice: Option<Arc<Notice>>,
    pub(super) ready_requires: BTreeSet<String>,
    pub(super) resources: Resources,
    pub(super) history: Vec<String>,
    pub(super) places: Arc<Places>,
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) pulse: Pulse,
    born: Instant,
    /// The last second in which the circuits were looked at.
    sampled: AtomicU64,
    is_sampling: AtomicBool,
}

impl AdminService {
    /// Starts with the circuits to show.
    pub fn builder(registry: &Registry) -> AdminAccess {
        AdminAccess { registry: registry.clone() }
    }

    pub(super) fn new(settings: Settings) -> Self {
        let service = Self(Arc::new(Shared {
            settings,
            pulse: Pulse::default(),
            born: Clock::tokio().now(),
            sampled: AtomicU64::new(0),
            is_sampling: AtomicBool::new(false),
        }));
        service.keep_sampling();
        service
    }

    /// Ends every stream that is read at once, and begins no more. For the
    /// moment at which the server is to shut down: one that waits for its
    /// connections would wait for these for ever.
    ///
    /// A server does not ask a body for more while the socket is full, so the
    /// stream of a reader that does not read can't end: give the server a
    /// deadline of its own, as for any other reader, and abort what is left then.
    pub fn shutdown(&self) {
        self.0.settings.places.close();
    }

    /// Has the circuits looked at every second, as soon as there is a runtime.
    fn keep_sampling(&self) {
        if self.0.is_sampling.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.0.is_sampling.swap(true, Ordering::Relaxed) {
            runtime.spawn(sample(Sampling(Arc::downgrade(&self.0)), self.0.born));
        }
    }
}

/// The task that looks at the circuits. However it goes, another may come: the
/// runtime it is on need not be the last.
struct Sampling(Weak<Shared>);

impl Drop for Sampling {
    fn drop(&mut self) {
        if let Some(service) = self.0.upgrade() {
            service.is_sampling.store(false, Ordering::Relaxed);
        }
    }
}

/// Looks at the circuits every second, as long as the service is there.
async fn sample(task: Sampling, born: Instant) {
    let mut number = 0;
    loop {
        tokio::time::sleep_until((born + TICK * number).into()).await;
        let Some(service) = task.0.upgrade() else { return };
        service.sample();
        number = u32::try_from(service.second() + 1).unwrap_or(u32::MAX);
    }
}

impl Shared {
    /// Seconds since it was made.
    pub(super) fn second(&self) -> u64 {
        self.now().saturating_duration_since(self.born).as_secs()
    }

    /// When a second begins.
    pub(super) fn start_of(&self, second: u64) -> tokio::time::Instant {
        (self.born + Duration::from_secs(second)).into()
    }

    pub(super) fn now(&self) -> Instant {
        Clock::tokio().now()
    }

    /// Has the circuits looked at, once a second.
    pub(super) fn sample(&self) {
        let second = self.second() + 1;
        if self.sampled.fetch_max(second, Ordering::Relaxed) < second {
            self.settings.registry.sample();
        }
    }

    /// Finds what is asked for, and who asks. What can be answered without the
    /// body is.
    fn begin(self: &Arc<Self>, parts: &Parts) -> Result<Begun, Refusal> {
        let path = self.path_of(parts);
        let audience = match path {
            "/livez" | "/readyz" | "/metrics" => Audience::Machines,
            _ => Audience::People,
        };
        self.settings.hosts.check(parts, audience)?;
        if !route::is_guarded(path) {
            return self
                .answer_open(&route::find(&parts.method, path)?, parts)
                .map(Begun::Answered);
        }
        let identity = self.settings.access.identify(parts)?;
        check_site(parts)?;
        if let Some((handler, path)) = self.settings.resources.find(path) {
            let request = AdminRequest::new(parts, &path, identity)?;
            if request.method == Method::GET {
                return Ok(Begun::Asked(handler.answer(request)));
            }
            return self.read_first(parts, Task::Ask(handler.clone(), request));
        }
        match route::find(&parts.method, path)? {
            Route::Steer(target) => self.read_first(parts, Task::Steer(target, identity)),
            Route::Stream => self.stream(parts).map(Begun::Answered),
            Route::Metrics => match &self.settings.renderer {
                Some(render) => Ok(Begun::Answered(answer::metrics(render()))),
                None => Err(Refusal::not_found()),
            },
            route => {
                let value = self.read(&route, parts, &identity)?;
                Ok(Begun::Answered(answer::json(StatusCode::OK, &value)))
            }
        }
    }

    /// Has the body of what changes something read, if they may and it is JSON.
    fn read_first(self: &Arc<Self>, parts: &Parts, task: Task) -> Result<Begun, Refusal> {
        if !task.identity().can_write() {
            return Err(Refusal::viewer());
        }
        check_body(parts, task.longest_body())?;
        let reading = Box::new(Reading {
            service: Arc::clone(self),
            task,
            read: Vec::new(),
            late: tokio::time::sleep(BODY_WITHIN),
        });
        Ok(Begun::Read(Box::into_pin(reading)))
    }

    /// The path as it is below the mount, whether that has taken the prefix off
    /// or not.
    fn path_of<'a>(&self, parts: &'a Parts) -> &'a str {
        let path = parts.uri.path();
        match path.strip_prefix(&self.settings.base_path) {
            Some("") => "/",
            Some(below) if below.starts_with('/') => below,
            _ => path,
        }
    }

    fn answer_open(&self, route: &Route, parts: &Parts) -> Result<Response<AdminBody>, Refusal> {
        let status = |status, said| Ok(answer::json(status, &json!({ "status": said })));
        match route {
            Route::File(name) => {
                self.settings.page.get(name, &parts.headers).ok_or_else(Refusal::not_found)
            }
            Route::Ready if !self.is_ready() => {
                status(StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            Route::Live | Route::Ready => status(StatusCode::OK, "ok"),
            _ => Err(Refusal::not_found()),
        }
    }

    fn is_ready(&self) -> bool {
        self.settings.ready_requires.iter().all(|name| {
            let circuit = self.settings.registry.get(name);
            circuit.is_some_and(|circuit| {
                let snapshot = circuit.snapshot();
                // The try that ends an opening has to be asked for by somebody.
                view::met_by_callers(&snapshot) != State::Open
                    || snapshot.retry_after == Some(Duration::ZERO)
            })
        })
    }

    /// What a reading route answers.
    fn read(
        &self,
        route: &Route,
        parts: &Parts,
        identity: &AdminIdentity,
    ) -> Result<Value, Refusal> {
        let registry = &self.settings.registry;
        let mut query = Query::of(parts.uri.query());
        match route {
            Route::Me => {
                query.finish()?;
                Ok(json!({
                    "role": identity.role(),
                    "who": identity.who(),
                    "can_write": identity.can_write(),
                }))
            }
            Route::Circuits => {
                let filter = Filter::of_query(&mut query)?;
                let sort = Sort::of_query(&mut query)?;
                let part = Part::of_query(&mut query)?;
                query.finish()?;
                Ok(view::list(registry, &filter, sort, part))
            }
            Route::Circuit(id) => {
                query.finish()?;
                view::detail(registry, self.find(id)?, &self.settings.history)
            }
            Route::Events => {
                let after = query.text("after")?;
                let after = after.map_or(Ok(0), |id| Cursor::read(&id, "after", registry))?;
                let limit = query.number("limit", 1_000)?.unwrap_or(100);
                let id = query.text("circuit")?;
                query.finish()?;
                // At most a thousand.
                Ok(view::events(registry, after, limit as usize, id.as_deref()))
            }
            _ => Err(Refusal::not_found()),
        }
    }

    fn stream(self: &Arc<Self>, parts: &Parts) -> Result<Response<AdminBody>, Refusal> {
        let mut query = Query::of(parts.uri.query());
        let registry = &self.settings.registry;
        let after = query.text("after")?;
        query.finish()?;
        let after = match (parts.headers.get("last-event-id"), after) {
            (Some(id), _) => {
                let id = id.to_str().unwrap_or_default();
                Some(Cursor::read(id, "last-event-id", registry)?)
            }
            (None, Some(id)) => Some(Cursor::read(&id, "after", registry)?),
            (None, None) => None,
        };
        let place = self.settings.places.take(self.now())?;
        let stream = EventStream::new(Arc::clone(self), parts.clone(), place, after);
        Ok(answer::events(AdminBody::events(stream)))
    }

    /// The circuit of this id.
    pub(super) fn find(&self, id: &str) -> Result<Circuit, Refusal> {
        let registry = &self.settings.registry;
        let found = match id.split_once('/') {
            None => registry.get(id),
            #[cfg(feature = "keyed")]
            Some((name, key)) => {
                route::decode(key).ok().and_then(|key| registry.get_key(name, &key))
            }
            #[cfg(not(feature = "keyed"))]
            Some(_) => None,
        };
        found.ok_or_else(|| Refusal::unknown_circuit(id))
    }
}

/// A request whose head was read.
enum Begun {
    Answered(Response<AdminBody>),
    Read(Pin<Box<Reading>>),
    /// By the application.
    Asked(Answering),
}

/// What is to be done once the body is there.
enum Task {
    Steer(Target, AdminIdentity),
    Ask(Handler, AdminRequest),
}

impl Task {
    fn identity(&self) -> &AdminIdentity {
        match self {
            Self::Steer(_, identity) => identity,
            Self::Ask(_, request) => &request.identity,
        }
    }

    /// How many bytes of a body are read. Where many circuits can be named, so
    /// many that 10,000 can be.
    const fn longest_body(&self) -> usize {
        match self {
            Self::Steer(Target::Bulk, _) => 4 * 1024 * 1024,
            _ => 64 * 1024,
        }
    }
}

/// Whether a content type is JSON's, in UTF-8 if it says so.
fn is_json(content_type: &str) -> bool {
    let (essence, charset) = match content_type.split_once(';') {
        None => (content_type, None),
        Some((essence, parameter)) => (essence.trim_end(), Some(parameter.trim())),
    };
    let is_utf_8 = |parameter: &str| {
        ["charset=utf-8", "charset=\"utf-8\""]
            .iter()
            .any(|known| parameter.eq_ignore_ascii_case(known))
    };
    essence.eq_ignore_ascii_case("application/json") && charset.is_none_or(is_utf_8)
}

/// Refuses a body that is not JSON, or says that it is too long.
fn check_body(parts: &Parts, longest: usize) -> Result<(), Refusal> {
    let mut types = parts.headers.get_all(CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (Some(only), None) => only.to_str().is_ok_and(is_json),
        _ => false,
    };
    if !is_json {
        return Err(Refusal::not_json());
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > longest as u64 => Err(Refusal::too_large(longest)),
        _ => Ok(()),
    }
}

impl<B: Body> Service<Request<B>> for AdminService {
    type Response = Response<AdminBody>;
    type Error = Infallible;
    type Future = AdminFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> AdminFuture<B> {
        self.keep_sampling();
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let answer = match self.0.begin(&parts) {
            Ok(Begun::Answered(answer)) => answer,
            Ok(Begun::Read(reading)) => {
                return AdminFuture { step: Step::Reading { body, reading } };
            }
            Ok(Begun::Asked(answering)) => {
                return AdminFuture { step: Step::Answering { answering, is_head } };
            }
            Err(refusal) => refusal.into_response(),
        };
        AdminFuture { step: Step::Answered { answer: Some(headed(answer, is_head)) } }
    }
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService")
            .field("registry", &self.0.settings.registry)
            .field("access", &self.0.settings.access)
            .field("hosts", &self.0.settings.hosts)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The answer of an [`AdminService`], on its way.
    #[must_use = "futures do nothing unless polled"]
    pub struct AdminFuture<B> {
        #[pin]
        step: Step<B>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<B> {
        Answered { answer: Option<Response<AdminBody>> },
        // Boxed: it is seldom there.
        Reading { #[pin] body: B, reading: Pin<Box<Reading>> },
        Answering { answering: Answering, is_head: bool },
    }
}

pin_project! {
    /// A task whose body comes.
    struct Reading {
        service: Arc<Shared>,
        task: Task,
        read: Vec<u8>,
        #[pin]
        late: Sleep,
    }
}

impl<B: Body> Future for AdminFuture<B> {
    type Output = Result<Response<AdminBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let answering = match self.as_mut().project().step.project() {
                StepProj::Answered { answer } => match answer.take() {
                    Some(answer) => return Poll::Ready(Ok(answer)),
                    None => panic!("`AdminFuture` polled after completion"),
                },
                StepProj::Reading { body, reading } => {
                    match ready!(reading.as_mut().poll(body, cx)) {
                        Ok(Done::Steered(value)) => return Poll::Ready(Ok(answered(Ok(value)))),
                        Ok(Done::Asked(answering)) => answering,
                        Err(refusal) => return Poll::Ready(Ok(refusal.into_response())),
                    }
                }
                StepProj::Answering { answering, is_head } => {
                    let answer = answered(ready!(answering.as_mut().poll(cx)));
                    return Poll::Ready(Ok(headed(answer, *is_head)));
                }
            };
            self.as_mut().project().step.set(Step::Answering { answering, is_head: false });
        }
    }
}

/// What became of a task.
enum Done {
    Steered(Value),
    Asked(Answering),
}

impl Reading {
    /// Does the task once the body is there.
    fn poll<B: Body>(
        self: Pin<&mut Self>,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Done, Refusal>> {
        let this = self.project();
        let longest = this.task.longest_body();
        ready!(poll_body(body, this.read, longest, this.late, cx))?;
        Poll::Ready(match this.task {
            Task::Steer(target, identity) => Command::read(target, this.read)
                .and_then(|command| command.run(this.service, target, identity))
                .map(Done::Steered),
            Task::Ask(handler, request) => {
                request.clone().read(this.read).map(|request| Done::Asked(handler.answer(request)))
            }
        })
    }
}

fn answered(answer: Result<Value, Refusal>) -> Response<AdminBody> {
    match answer {
        Ok(value) => answer::json(StatusCode::OK, &value),
        Err(refusal) => refusal.into_response(),
    }
}

/// As it is, or to a `HEAD` without its body.
fn headed(answer: Response<AdminBody>, is_head: bool) -> Response<AdminBody> {
    if is_head { answer.map(|_| AdminBody::default()) } else { answer }
}

/// Reads on, to the end of the body or of what is borne.
fn poll_body<B: Body>(
    mut body: Pin<&mut B>,
    read: &mut Vec<u8>,
    longest: usize,
    late: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Refusal>> {
    // A body that always has something must not have the thread to itself.
    for _ in 0..64 {
        let frame = match body.as_mut().poll_frame(cx) {
            Poll::Pending => return late.poll(cx).map(|()| Err(Refusal::too_slow())),
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Ready(Some(Err(_))) => {
                return Poll::Ready(Err(Refusal::malformed("the body broke off")));
            }
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        let Ok(mut data) = frame.into_data() else { continue };
        if data.remaining() > longest - read.len() {
            return Poll::Ready(Err(Refusal::too_large(longest)));
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            let length = chunk.len();
            read.extend_from_slice(chunk);
            data.advance(length);
        }
    }
    cx.waker().wake_by_ref();
    late.poll(cx).map(|()| Err(Refusal::too_slow()))
}

impl<B> fmt::Debug for AdminFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminFuture").finish_non_exhaustive()
    }
}
