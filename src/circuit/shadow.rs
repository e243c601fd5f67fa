//! Candidate rules beside the live ones, on the same calls.
//!
//! A [`Shadow`] is a circuit of its own that takes a permit when the live
//! circuit grants one and gives it back when that call ends, at the same
//! instants. It decides nothing: a call it would have refused runs, and the
//! shadow sees how it really went. A replay drives one the same way.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Circuit,
    clock::Clock,
    config::Config,
    observer::{Observer, Transition},
    permit::{Permit, Reading},
    snapshot::Snapshot,
    sync::{AtomicU64, Mutex, Ordering},
};
use crate::{outcome::Outcome, panics::contain, time::Time};

/// Candidate rules that watch a live circuit's calls and decide nothing.
///
/// Made by [`ConfigBuilder::shadow`](crate::ConfigBuilder::shadow), found by
/// [`Circuit::shadows`]; a handle, cheap to clone.
///
/// Each call that the live circuit lets through is a call to the candidate too,
/// with the same beginning, end, outcome and latency. Where the candidate would
/// have refused it the call runs all the same, and is counted by how it really
/// went: so one sees which failures the candidate would have spared, and which
/// good calls it would have refused. Half-open, its probes are real calls.
/// A call that the live circuit refused is *unknown*: nobody knows how it would
/// have gone. Overrides, trips and resets of the live circuit are not the
/// shadow's. With the live circuit's own rules it does what that does.
///
/// Its transitions go to the observers of the candidate configuration, under
/// the candidate's name. What features report of it has names of its own
/// (`circuit_breaker_shadow_…`), so that nobody takes it for a live circuit.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome, State};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let candidate = Config::builder("stricter").consecutive_failures(3).build()?;
/// let circuit = Circuit::new(Config::builder("inventory").shadow(candidate).build()?);
/// for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Failure, Outcome::Success] {
///     circuit.try_acquire()?.record(outcome);
/// }
///
/// assert_eq!(circuit.state(), State::Closed);
/// let stricter = circuit.shadows()[0].snapshot();
/// assert_eq!(stricter.circuit.state, State::Open);
/// assert_eq!(stricter.passed.failure, 3);
/// assert_eq!(stricter.would_reject.success, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Shadow(Arc<Shared>);

struct Shared {
    circuit: Circuit,
    tally: Tally,
    watchers: Watchers,
}

/// A shadow at one instant.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ShadowSnapshot {
    /// The candidate's circuit. Its `totals` are what they would be if the
    /// candidate were live: calls it would have refused are `rejected`.
    pub circuit: Snapshot,
    /// Calls it would have let through, by how they went.
    pub passed: Outcomes,
    /// Calls it would have refused, by how they went all the same.
    pub would_reject: Outcomes,
    /// Calls the live circuit refused, so that nobody knows.
    pub unknown: Unknown,
}

/// Calls that ended, by how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcomes {
    /// They succeeded.
    pub success: u64,
    /// They failed.
    pub failure: u64,
    /// They proved nothing.
    pub ignored: u64,
    /// They were dropped before they ended.
    pub cancelled: u64,
}

impl Outcomes {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.success + self.failure + self.ignored + self.cancelled
    }
}

/// Calls the live circuit refused, by what the candidate would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unknown {
    /// It would have let them through. They changed nothing: it is not known
    /// how they would have gone.
    pub passed: u64,
    /// It would have refused them too: where it lets only a share pass, they are
    /// calls that asked.
    pub rejected: u64,
}

/// Is told what a shadow makes of things.
pub(crate) trait ShadowObserver: Send + Sync {
    /// The candidate would have gone from one state to another.
    fn on_transition(&self, transition: &Transition);

    /// A call ended, which the candidate would have let through or not.
    fn on_call(&self, passed: bool, outcome: Option<Outcome>) {
        let _ = (passed, outcome);
    }

    /// The live circuit refused a call.
    fn on_unknown(&self, passed: bool) {
        let _ = passed;
    }
}

/// Those who watch a shadow, as an observer of the candidate.
#[derive(Clone)]
struct Watchers(Vec<Arc<dyn ShadowObserver>>);

impl Watchers {
    /// Tells them what comes with a call, which one that panics must not harm.
    fn tell(&self, tell: impl Fn(&dyn ShadowObserver)) {
        for watcher in &self.0 {
            let _ = contain(|| tell(&**watcher));
        }
    }
}

impl Observer for Watchers {
    fn on_transition(&self, transition: &Transition) {
        self.tell(|watcher| watcher.on_transition(transition));
    }
}

/// What the candidate made of a call that began.
#[derive(Debug)]
pub(crate) enum Follower {
    Passed(Permit),
    Refused,
}

impl Shadow {
    /// A candidate beside a circuit, which tells nobody but its own observers
    /// and `watchers`.
    pub(crate) fn new(
        mut candidate: Config,
        birth: Birth,
        watchers: Vec<Arc<dyn ShadowObserver>>,
    ) -> Self {
        candidate.clock = birth.clock;
        candidate.shadows = Vec::new();
        candidate.recorder = None;
        let watchers = Watchers(watchers);
        candidate.observers.others.push(Arc::new(watchers.clone()));
        let seed = candidate.rules.open_for.seed_or(|| birth.seed);
        let circuit = Circuit::assemble(candidate, None, birth.at, seed, None, None);
        Self(Arc::new(Shared { circuit, tally: Tally::default(), watchers }))
    }

    /// The candidate's name.
    pub fn name(&self) -> &str {
        self.0.circuit.name()
    }

    /// What the candidate would have done until now. Changes nothing.
    pub fn snapshot(&self) -> ShadowSnapshot {
        let tally = &self.0.tally;
        ShadowSnapshot {
            circuit: self.0.circuit.snapshot(),
            passed: Outcomes::read(&tally.passed),
            would_reject: Outcomes::read(&tally.would_reject),
            unknown: Unknown {
                passed: tally.unknown[0].load(Ordering::Relaxed),
                rejected: tally.unknown[1].load(Ordering::Relaxed),
            },
        }
    }

    /// A call began.
    pub(crate) fn begin(&self, at: Time) -> Follower {
        match self.0.circuit.acquire_at(at) {
            Ok(permit) => Follower::Passed(permit),
            Err(_) => Follower::Refused,
        }
    }

    /// A call that began ended, at an instant that the reading has.
    pub(crate) fn end(&self, follower: Follower, outcome: Option<Outcome>, reading: Reading) {
        let passed = match follower {
            Follower::Passed(mut permit) => {
                permit.settle(outcome, reading);
                true
            }
            Follower::Refused => false,
        };
        let tally = &self.0.tally;
        let counts = if passed { &tally.passed } else { &tally.would_reject };
        counts[index(outcome)].fetch_add(1, Ordering::Relaxed);
        self.0.watchers.tell(|watcher| watcher.on_call(passed, outcome));
    }

    /// The live circuit keeps a caller waiting, who may not come back.
    #[cfg(feature = "tokio")]
    pub(crate) fn asked(&self, at: Time) {
        self.0.circuit.asks_at(at);
    }

    /// The live circuit refused a call.
    pub(crate) fn unknown(&self, at: Time) {
        let passed = self.0.circuit.asks_at(at);
        self.0.tally.unknown[usize::from(!passed)].fetch_add(1, Ordering::Relaxed);
        self.0.watchers.tell(|watcher| watcher.on_unknown(passed));
    }
}

impl Follower {
    /// The dependency asked to be left alone.
    pub(crate) fn hint(&self, at: Time, retry_after: Duration) {
        if let Self::Passed(permit) = self {
            permit.hint_at(at, retry_after);
        }
    }

    /// The answer came, and the call goes on.
    pub(crate) fn untrack(&self, reading: Reading) {
        if let Self::Passed(permit) = self {
            permit.untrack_candidate(reading);
        }
    }
}

/// Keeps the transitions it is told of.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<Transition>>);

impl Told {
    pub(crate) fn take(&self) -> Vec<Transition> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ShadowObserver for Told {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(transition.clone());
    }
}

/// How and when a circuit was made: a candidate shares it, so that buckets and
/// jitter are the same.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) at: Instant,
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
}

#[derive(Default)]
struct Tally {
    passed: [AtomicU64; 4],
    would_reject: [AtomicU64; 4],
    unknown: [AtomicU64; 2],
}

impl Outcomes {
    fn read(counts: &[AtomicU64; 4]) -> Self {
        let [success, failure, ignored, cancelled] =
            [0, 1, 2, 3].map(|outcome: usize| counts[outcome].load(Ordering::Relaxed));
        Self { success, failure, ignored, cancelled }
    }
}

/// Where an outcome is counted.
const fn index(outcome: Option<Outcome>) -> usize {
    match outcome {
        Some(Outcome::Success) => 0,
        Some(Outcome::Failure) => 1,
        Some(Outcome::Ignored) => 2,
        None => 3,
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("circuit", &self.0.circuit).finish_non_exhaustive()
    }
}
