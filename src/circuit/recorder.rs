//! Keeps what happens to a circuit's calls, for a replay.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    clock::Clock,
    observer::{Observer, Transition},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};
use crate::{
    outcome::Outcome,
    tape::{Ended, Event, Origin, Recording, Tape},
    time::nanos,
};

/// Keeps the last calls of a circuit, in about eight bytes each, so that other
/// rules can be tried on them later: see [`Recording::replay`].
///
/// Give it to a configuration with
/// [`ConfigBuilder::recorder`](crate::ConfigBuilder::recorder); clones are the
/// same recorder. It records one circuit, the first made from a configuration
/// that has it. That circuit then measures every call, which is two readings of
/// the clock; recording one takes a short lock, and allocates nothing once
/// the memory is in use.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome, Recorder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let recorder = Recorder::new(1_000_000);
/// let circuit = Circuit::new(Config::builder("inventory").recorder(&recorder).build()?);
/// for _ in 0..10 {
///     circuit.try_acquire()?.record(Outcome::Failure);
/// }
///
/// let stricter = Config::builder("stricter").consecutive_failures(5).build()?;
/// let report = recorder.recording().replay(stricter);
/// assert_eq!(report.passed.failure, 5);
/// assert_eq!(report.would_reject.failure, 5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    /// The time of the last record, to be looked at without the lock.
    last: AtomicU64,
    taping: Mutex<Taping>,
}

struct Taping {
    tape: Tape,
    /// Nobody's, until a circuit is made.
    recorded: Option<Recorded>,
}

struct Recorded {
    origin: Origin,
    clock: Clock,
    born: Instant,
}

impl Recorder {
    /// Keeps the last `bytes` of records; when they are full, the oldest
    /// sixteenth of them makes room (at most 64 KiB). At least 16 KiB.
    ///
    /// The memory is taken as it is needed.
    pub fn new(bytes: usize) -> Self {
        let taping = Taping { tape: Tape::new(bytes), recorded: None };
        Self(Arc::new(Shared { last: AtomicU64::new(0), taping: Mutex::new(taping) }))
    }

    /// A copy of what it holds. Calls that have not ended are not in it. Calls
    /// that end meanwhile wait until it is made: copying takes about a
    /// millisecond a megabyte.
    pub fn recording(&self) -> Recording {
        let taping = self.lock();
        match &taping.recorded {
            Some(Recorded { origin, clock, born }) => {
                let taken = clock.now().saturating_duration_since(*born);
                taping.tape.recording(origin.clone(), nanos(taken))
            }
            None => taping.tape.recording(Origin::default(), 0),
        }
    }

    /// Records the circuit that is being made, unless it records another.
    pub(super) fn attach(&self, name: &str, seed: u64, clock: &Clock, born: Instant) -> bool {
        let mut taping = self.lock();
        if taping.recorded.is_some() {
            return false;
        }
        let since_1970 = clock.date().duration_since(SystemTime::UNIX_EPOCH);
        let origin =
            Origin { name: name.into(), born: nanos(since_1970.unwrap_or_default()), seed };
        taping.recorded = Some(Recorded { origin, clock: clock.clone(), born });
        true
    }

    /// How many records there are of the instant at which a call begins.
    pub(super) fn ties_at(&self, at: Duration) -> u64 {
        let at = nanos(at);
        if self.0.last.load(Ordering::Relaxed) == at { self.lock().tape.written_at(at) } else { 0 }
    }

    /// Records a call.
    pub(super) fn call(&self, call: TapedCall) {
        let TapedCall { began, ended, outcome, latency, ties, hint, head } = call;
        let began = nanos(began);
        let hint = hint.map(|(at, wait)| (nanos(at).saturating_sub(began), nanos(wait)));
        self.push(&mut self.lock(), ended, |ended| {
            let duration = ended.saturating_sub(began);
            let (latency, head) = (latency.map(nanos), head.map(nanos));
            Event::Call(Ended { duration, latency, outcome, ties, hint, head })
        });
    }

    pub(super) fn refusal(&self, at: Duration) {
        self.push(&mut self.lock(), at, |_| Event::Refusal);
    }

    fn push(&self, taping: &mut Taping, at: Duration, event: impl FnOnce(u64) -> Event) {
        let at = taping.tape.push(nanos(at), event);
        self.0.last.store(at, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Taping> {
        self.0.taping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that ended, for the tape; times since the circuit was made.
pub(super) struct TapedCall {
    pub(super) began: Duration,
    pub(super) ended: Duration,
    /// `None`: it was dropped.
    pub(super) outcome: Option<Outcome>,
    pub(super) latency: Option<Duration>,
    pub(super) ties: u64,
    /// When the dependency asked to be left alone, and for how long.
    pub(super) hint: Option<(Duration, Duration)>,
    /// After how long the head came, if that is not the latency.
    pub(super) head: Option<Duration>,
}

impl Observer for Recorder {
    fn on_transition(&self, transition: &Transition) {
        let mut taping = self.lock();
        let Some(recorded) = &taping.recorded else { return };
        let at = transition.at.saturating_duration_since(recorded.born);
        self.push(&mut taping, at, |now| Event::Change {
            // It may be told late.
            ago: now.saturating_sub(nanos(at)),
            from: transition.from,
            to: transition.to,
            cause: transition.cause.label().to_owned(),
        });
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}
