//! The least breaker that is closed, and what else the crate promises, one step
//! at a time: each is a few instructions on the path of a call.
//!
//! 1. *All clones of a service are one circuit, and threads do not slow each
//!    other down*: a call finds the lane of its thread.
//! 2. *A recorder of metrics that panics harms nobody*: it is caught.
//! 3. *Rules change at any time, `call` refuses who was let through too early,
//!    429 and the status of gRPC are judged, observers hear of calls*: each is
//!    looked at.

use std::{
    cell::Cell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use http::{Response, StatusCode};
use metrics::Counter;
use tower::{BoxError, Service};

use crate::{
    backend::{Answer, Backend, Request},
    driver::{Driven, Guarded},
    least::{self, CLEAN, IS_OPEN, Line, Refusal},
};

pub const LANES: &str = "the same, and the thread's lane is found";
pub const PANICS: &str = "the same, and the recorder may panic";
pub const RULES: &str = "the same, and rules change, 429 and gRPC are judged, observers hear";

/// One after each step.
pub fn steps() -> [(&'static str, Box<dyn Guarded>); 3] {
    [
        (LANES, Box::new(Driven(Promising::<1>::new()))),
        (PANICS, Box::new(Driven(Promising::<2>::new()))),
        (RULES, Box::new(Driven(Promising::<3>::new()))),
    ]
}

/// What a service's clones share.
#[derive(Debug)]
struct Circuit {
    least: Arc<least::Shared>,
    rules: Arc<Rules>,
    lanes: Box<[OnceLock<Arc<Lane>>]>,
}

/// May change at any time.
#[derive(Debug)]
struct Rules {
    /// Whether calls are timed.
    is_timed: AtomicU64,
    /// Nanoseconds.
    slow_after: AtomicU64,
    observers: Vec<fn()>,
}

/// What one thread writes.
#[derive(Debug)]
struct Lane {
    least: Arc<least::Lane>,
    shared: Arc<least::Shared>,
    rules: Arc<Rules>,
    counter: Counter,
    passed: Line<AtomicU64>,
}

impl Circuit {
    fn lane(&self) -> &Arc<Lane> {
        self.lanes[seat() & (self.lanes.len() - 1)].get_or_init(|| {
            Arc::new(Lane {
                least: least::Lane::of(Arc::clone(&self.least)),
                shared: Arc::clone(&self.least),
                rules: Arc::clone(&self.rules),
                counter: Counter::noop(),
                passed: Line(AtomicU64::new(0)),
            })
        })
    }
}

/// A number for this thread.
fn seat() -> usize {
    thread_local!(static SEAT: Cell<usize> = const { Cell::new(usize::MAX) });
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    if SEAT.get() == usize::MAX {
        SEAT.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    SEAT.get()
}

/// The right to one call.
#[derive(Debug)]
struct Permit<const STEP: u8> {
    lane: Arc<Lane>,
    generation: Option<u64>,
    started: Option<Instant>,
}

impl<const STEP: u8> Permit<STEP> {
    #[inline(always)]
    fn settle(&mut self, has_failed: bool) {
        let Some(generation) = self.generation.take() else { return };
        let Lane { least, shared, rules, counter, passed } = &*self.lane;
        let is_slow = STEP >= 3
            && self.started.is_some_and(|started| {
                started.elapsed().as_nanos() > rules.slow_after.load(Ordering::Relaxed).into()
            });
        if has_failed || is_slow || shared.gate() != generation | CLEAN {
            return least.record(has_failed || is_slow, generation);
        }
        passed.0.fetch_add(1, Ordering::Relaxed);
        if STEP >= 2 {
            drop(catch_unwind(AssertUnwindSafe(|| counter.increment(1))));
        } else {
            counter.increment(1);
        }
        if STEP >= 3 {
            rules.observers.iter().for_each(|tell| tell());
        }
    }
}

impl<const STEP: u8> Drop for Permit<STEP> {
    fn drop(&mut self) {
        if self.generation.is_some() {
            self.lane.least.cancel();
        }
    }
}

/// A service behind a circuit that stays closed.
#[derive(Clone, Debug)]
struct Promising<const STEP: u8> {
    inner: Backend<Response<()>>,
    circuit: Arc<Circuit>,
    /// `poll_ready` has let through who is to be refused.
    deferred: Option<Instant>,
    /// Which status fails besides those of servers.
    fails: StatusCode,
}

impl<const STEP: u8> Promising<STEP> {
    fn new() -> Self {
        let rules = Rules {
            is_timed: AtomicU64::new(0),
            slow_after: AtomicU64::new(u64::MAX),
            observers: Vec::new(),
        };
        let circuit = Circuit {
            least: least::Shared::new(2 | CLEAN),
            rules: Arc::new(rules),
            lanes: (0..4).map(|_| OnceLock::new()).collect(),
        };
        let fails = StatusCode::TOO_MANY_REQUESTS;
        Self { inner: Backend::new(), circuit: Arc::new(circuit), deferred: None, fails }
    }
}

impl<const STEP: u8> Service<Request> for Promising<STEP> {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Call<STEP>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if STEP >= 3 {
            self.deferred = None;
        }
        if self.circuit.least.gate() == IS_OPEN {
            return Poll::Ready(Err(Refusal::boxed()));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Call<STEP> {
        let gate = self.circuit.least.gate();
        // One that is refused here is none that counts.
        let is_refused = gate == IS_OPEN || STEP >= 3 && self.deferred.is_some();
        let generation = (!is_refused).then_some(gate & !CLEAN);
        let lane = Arc::clone(self.circuit.lane());
        let is_timed = STEP >= 3 && lane.rules.is_timed.load(Ordering::Relaxed) != 0;
        let permit = Permit { lane, generation, started: is_timed.then(Instant::now) };
        Call { call: self.inner.call(request), permit, fails: self.fails }
    }
}

#[derive(Debug)]
struct Call<const STEP: u8> {
    call: Answer<Response<()>>,
    permit: Permit<STEP>,
    fails: StatusCode,
}

impl<const STEP: u8> Future for Call<STEP> {
    type Output = Result<Response<()>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.call).poll(cx);
        let has_failed = match &answer {
            Poll::Ready(Ok(response)) => {
                let (status, headers) = (response.status(), response.headers());
                status.as_u16() >= 500
                    || STEP >= 3 && status == self.fails
                    || STEP >= 3 && !headers.is_empty() && headers.contains_key("grpc-status")
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
