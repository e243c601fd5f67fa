//! The least breakers: Tower services that do what the promises ask of every
//! call, and nothing else. They have no configuration, no transitions and nobody
//! who watches.
//!
//! - *A circuit that has opened admits nobody*: readiness and call load a gate.
//! - *A call may outlive its service, and be dropped at any time*: its future
//!   carries a permit, which holds what it is counted in, knows the generation
//!   it was issued in, and is settled when it is dropped.
//! - *Threads do not slow each other down*: each service has a lane, and counts
//!   there.
//! - *Metrics are on*: each call adds to a counter of the `metrics` facade.
//! - *The call that reaches a threshold finds every call before it*: while the
//!   window holds a failure, each is recorded under a lock.
//! - *Trouble must last*: then each is recorded by its time, too.
//! - *A refusal says who refused, and for how long*: it is boxed, names its
//!   circuit, and the clock is read for it.

use std::{
    error, fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Response;
use metrics::Counter;
use tower::{BoxError, Service};

use crate::{
    backend::{Answer, Backend, Request},
    contenders::HOUR,
    driver::{Driven, Ended, Guarded, Looped},
};

/// Lets good calls pass.
pub const CLOSED: &str = "gate, permit, lane, verdict, count";
/// Lets good calls pass, and asks how long each took.
pub const LATENCY: &str = "gate, permit, lane, verdict, count, and `Instant::now` twice";
/// Records each call, for the window holds failures.
pub const TENTH: &str =
    "gate, permit, lane, verdict, count, `Instant::now`, and a window behind a lock";
/// Refuses in `poll_ready`.
pub const OPEN: &str = "gate, `Instant::now`, box, name, wait, count";
/// Refuses without a service, and without a box.
pub const REFUSED: &str = "gate, `Instant::now`, name, wait, count";

/// One that is closed, in mint condition.
pub fn closed() -> Box<dyn Guarded> {
    Box::new(Driven(Least::<false>::new()))
}

/// The same, which judges latencies.
pub fn latency() -> Box<dyn Guarded> {
    Box::new(Driven(Least::<true>::new()))
}

/// One that is open.
pub fn open() -> Box<dyn Guarded> {
    Box::new(Driven(Refuser::open()))
}

/// The same without a service.
pub fn refused() -> Box<dyn Guarded> {
    let circuit = Refuser::open();
    Box::new(Looped(move |_| match circuit.refuse() {
        Some(refusal) => {
            std::hint::black_box(refusal);
            Ended::Refused
        }
        None => Ended::Answered,
    }))
}

/// A generation above a bit that says whether a good call changes nothing.
pub(crate) const CLEAN: u64 = 1;
pub(crate) const IS_OPEN: u64 = u64::MAX;
const SECOND: Duration = Duration::from_secs(1);

#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Line<T>(pub(crate) T);

#[derive(Debug)]
pub(crate) struct Shared {
    gate: Line<AtomicU64>,
    born: Instant,
    window: Mutex<Window>,
    name: Arc<str>,
}

/// What one thread writes.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
    passed: Line<AtomicU64>,
    cancelled: AtomicU64,
    counter: Counter,
    name: Arc<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(gate: u64) -> Arc<Self> {
        Arc::new(Self {
            gate: Line(AtomicU64::new(gate)),
            born: Instant::now(),
            window: Mutex::default(),
            name: "inventory".into(),
        })
    }

    pub(crate) fn gate(&self) -> u64 {
        self.gate.0.load(Ordering::Acquire)
    }
}

impl Lane {
    pub(crate) fn of(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::new(Arc::clone(&shared.name)),
            shared,
            passed: Line(AtomicU64::new(0)),
            cancelled: AtomicU64::new(0),
            counter: Counter::noop(),
        })
    }

    fn new(gate: u64) -> Arc<Self> {
        Self::of(Shared::new(gate))
    }

    fn gate(&self) -> u64 {
        self.shared.gate()
    }

    /// Counts a call that was dropped.
    pub(crate) fn cancel(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    #[inline(never)]
    pub(crate) fn record(&self, has_failed: bool, generation: u64) {
        let now = Instant::now().saturating_duration_since(self.shared.born);
        let mut window = self.shared.window.lock().unwrap_or_else(PoisonError::into_inner);
        if self.gate() & !CLEAN != generation {
            return;
        }
        let gate = match window.record(has_failed, now) {
            Verdict::Opens => IS_OPEN,
            Verdict::Clean => generation | CLEAN,
            Verdict::Dirty => generation,
        };
        if self.gate() != gate {
            self.shared.gate.0.store(gate, Ordering::Release);
        }
        drop(window);
        self.counter.increment(1);
    }
}

/// The last calls, the trouble they make, and its last seconds.
#[derive(Debug, Default)]
struct Window {
    failed: [u64; 2],
    next: u32,
    failures: u32,
    run: u32,
    began: Option<Duration>,
    recent: [(u32, u32); 8],
    recent_sum: (u32, u32),
    step: usize,
    step_ends: Duration,
}

enum Verdict {
    Opens,
    Clean,
    Dirty,
}

impl Window {
    /// It is full from the beginning.
    const CALLS: u32 = 100;

    fn record(&mut self, has_failed: bool, now: Duration) -> Verdict {
        let (word, bit) = (&mut self.failed[(self.next / 64) as usize], 1 << (self.next % 64));
        self.failures -= u32::from(*word & bit != 0);
        self.failures += u32::from(has_failed);
        *word = if has_failed { *word | bit } else { *word & !bit };
        self.next = if self.next + 1 == Self::CALLS { 0 } else { self.next + 1 };
        self.run = if has_failed { self.run + 1 } else { 0 };
        if self.failures == 0 {
            self.began = None;
            return Verdict::Clean;
        }
        let began = *self.began.get_or_insert(now);
        if now >= self.step_ends {
            self.step = (self.step + 1) % self.recent.len();
            let (calls, failures) = mem::take(&mut self.recent[self.step]);
            self.recent_sum.0 -= calls;
            self.recent_sum.1 -= failures;
            self.step_ends = now + SECOND;
        }
        for (calls, failures) in [&mut self.recent[self.step], &mut self.recent_sum] {
            *calls += 1;
            *failures += u32::from(has_failed);
        }
        let (calls, failures) = self.recent_sum;
        let reaches =
            self.failures * 2 >= Self::CALLS && now - began >= SECOND && failures * 2 >= calls;
        if reaches || self.run >= 1_000 { Verdict::Opens } else { Verdict::Dirty }
    }
}

/// The right to one call.
#[derive(Debug)]
struct Permit {
    lane: Arc<Lane>,
    generation: Option<u64>,
}

impl Permit {
    #[inline(always)]
    fn settle(&mut self, has_failed: bool) {
        let Some(generation) = self.generation.take() else { return };
        if !has_failed && self.lane.gate() == generation | CLEAN {
            self.lane.passed.0.fetch_add(1, Ordering::Relaxed);
            self.lane.counter.increment(1);
        } else {
            self.lane.record(has_failed, generation);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.generation.is_some() {
            self.lane.cancel();
        }
    }
}

/// A service behind a circuit that stays closed.
#[derive(Debug)]
struct Least<const IS_TIMED: bool> {
    inner: Backend<Response<()>>,
    lane: Arc<Lane>,
}

impl<const IS_TIMED: bool> Least<IS_TIMED> {
    fn new() -> Self {
        Self { inner: Backend::new(), lane: Lane::new(2 | CLEAN) }
    }
}

/// A lane of its own.
impl<const IS_TIMED: bool> Clone for Least<IS_TIMED> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), lane: Lane::of(Arc::clone(&self.lane.shared)) }
    }
}

impl<const IS_TIMED: bool> Service<Request> for Least<IS_TIMED> {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Call<IS_TIMED>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.lane.gate() == IS_OPEN {
            return Poll::Ready(Err(Refusal::boxed()));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Call<IS_TIMED> {
        let gate = self.lane.gate();
        // One that is refused here is none that counts.
        let generation = (gate != IS_OPEN).then_some(gate & !CLEAN);
        let permit = Permit { lane: Arc::clone(&self.lane), generation };
        let started = IS_TIMED.then(Instant::now);
        Call { call: self.inner.call(request), permit, started }
    }
}

#[derive(Debug)]
struct Call<const IS_TIMED: bool> {
    call: Answer<Response<()>>,
    permit: Permit,
    started: Option<Instant>,
}

impl<const IS_TIMED: bool> Future for Call<IS_TIMED> {
    type Output = Result<Response<()>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Judged where it lies, and by no wider loads than what made it stored.
        let answer = Pin::new(&mut self.call).poll(cx);
        let has_failed = match &answer {
            Poll::Ready(Ok(response)) => {
                self.started.is_some_and(|started| started.elapsed() > SECOND)
                    || response.status().as_u16() >= 500
            }
            Poll::Ready(Err(error)) => !error.is::<Refusal>(),
            Poll::Pending => return answer,
        };
        self.permit.settle(has_failed);
        // Handed on as most callers take it: first which of the two it is.
        answer.map(|answer| match answer {
            Ok(response) => Ok(response),
            Err(error) => Err(error),
        })
    }
}

/// A service behind a circuit that stays open.
#[derive(Debug)]
struct Refuser {
    lane: Arc<Lane>,
    until: Instant,
}

/// What a refusal tells.
#[derive(Debug)]
pub(crate) struct Refusal {
    name: Option<Arc<Arc<str>>>,
    retry_after: Duration,
}

impl Refusal {
    pub(crate) fn boxed() -> BoxError {
        Box::new(Self { name: None, retry_after: Duration::ZERO })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is open, retry after {:?}", self.name, self.retry_after)
    }
}

impl error::Error for Refusal {}

impl Refuser {
    fn open() -> Self {
        Self { lane: Lane::new(IS_OPEN), until: Instant::now() + HOUR }
    }

    #[inline(always)]
    fn refuse(&self) -> Option<Refusal> {
        if self.lane.gate() != IS_OPEN {
            return None;
        }
        let retry_after = self.until.saturating_duration_since(Instant::now());
        if retry_after.is_zero() {
            return None;
        }
        self.lane.passed.0.fetch_add(1, Ordering::Relaxed);
        self.lane.counter.increment(1);
        Some(Refusal { name: Some(Arc::clone(&self.lane.name)), retry_after })
    }
}

impl Clone for Refuser {
    fn clone(&self) -> Self {
        Self { lane: Lane::of(Arc::clone(&self.lane.shared)), until: self.until }
    }
}

impl Service<Request> for Refuser {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.refuse() {
            Some(refusal) => Poll::Ready(Err(Box::new(refusal))),
            None => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: Request) -> Self::Future {
        unreachable!("it is never ready")
    }
}
