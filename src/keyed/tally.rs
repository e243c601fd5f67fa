//! How many circuits are in which state, kept by the circuits themselves.

use std::sync::{Arc, OnceLock, PoisonError};

use super::guard::{Beyond, Census, Guard, QuorumRule};
use crate::{
    circuit::{
        Circuit, Observer, Transition,
        sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    },
    state::State,
};
#[cfg(feature = "metrics")]
use crate::{
    metrics::{GroupMetrics, Metrics},
    panics::contain,
};

/// The states of a group's circuits, added up, and what follows from them.
pub(super) struct Tally {
    /// How many are closed, open and half-open: one word, so that a look at it
    /// is a look at one instant.
    states: AtomicU64,
    evicted: AtomicU64,
    overflowed: AtomicU64,
    guard: Option<Guard>,
    parent: Option<(Circuit, QuorumRule)>,
    sweep: OnceLock<Box<dyn Fn() + Send + Sync>>,
    #[cfg(feature = "metrics")]
    metrics: GroupMetrics,
}

/// Bits a state has in the word.
const BITS: u32 = 21;

/// As many circuits as can be counted.
pub(super) const MOST_KEYS: u64 = 1_000_000;

const fn one(state: State) -> u64 {
    1 << (BITS * state as u32)
}

impl Tally {
    pub(super) fn new(
        #[cfg_attr(not(feature = "metrics"), expect(unused_variables))] name: &Arc<str>,
        guard: Option<Guard>,
        parent: Option<(Circuit, QuorumRule)>,
    ) -> Self {
        Self {
            states: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            guard,
            parent,
            sweep: OnceLock::new(),
            #[cfg(feature = "metrics")]
            metrics: GroupMetrics::new(Arc::clone(name)),
        }
    }

    /// How many are in this state.
    pub(super) fn count(&self, state: State) -> u64 {
        Self::count_in(self.states.load(Ordering::Acquire), state)
    }

    /// How many are closed, open and half-open, at one instant.
    pub(super) fn counts(&self) -> [u64; 3] {
        let states = self.states.load(Ordering::Acquire);
        [State::Closed, State::Open, State::HalfOpen].map(|state| Self::count_in(states, state))
    }

    pub(super) fn census(&self) -> Census {
        let [closed, open, half_open] = self.counts();
        Census { open: open + half_open, keys: closed + open + half_open }
    }

    fn count_in(states: u64, state: State) -> u64 {
        (states / one(state)) & (one(State::Open) - 1)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    pub(super) fn parent(&self) -> Option<&Circuit> {
        self.parent.as_ref().map(|(parent, _)| parent)
    }

    /// The parent, if it has a say.
    #[inline]
    pub(super) fn parent_to_ask(&self) -> Option<&Circuit> {
        self.parent().filter(|parent| !parent.is_closed())
    }

    /// What the guard does now, if too many are open.
    pub(super) fn beyond(&self) -> Option<Beyond> {
        let guard = self.guard.as_ref()?;
        guard.is_exceeded(self.census()).then_some(guard.beyond)
    }

    /// Whether closed circuits refuse too.
    #[inline]
    pub(super) fn refuses_all(&self) -> bool {
        match &self.guard {
            Some(guard) if guard.beyond == Beyond::FailClosed => guard.is_exceeded(self.census()),
            _ => false,
        }
    }

    /// Counts a new key that found no room.
    pub(super) fn overflow(&self) {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        report(|| self.metrics.overflowed());
    }

    /// Opens the parent if it is closed and enough are open.
    fn ask_quorum(&self) {
        let Some((parent, quorum)) = &self.parent else { return };
        if parent.state() != State::Closed || quorum.cause(self.census()).is_none() {
            return;
        }
        // Those that nobody has called since long ago are not counted.
        if let Some(sweep) = self.sweep.get() {
            sweep();
        }
        if let Some(cause) = quorum.cause(self.census()) {
            parent.open_because(cause);
        }
    }

    /// Sets how circuits that are idle leave.
    pub(super) fn sweep_with(&self, sweep: impl Fn() + Send + Sync + 'static) {
        // Once, when the group is made.
        let _ = self.sweep.set(Box::new(sweep));
    }

    fn moved(&self, from: Option<State>, to: Option<State>) {
        let change = to.map_or(0, one).wrapping_sub(from.map_or(0, one));
        // A difference: no state's count falls below zero or outgrows its bits.
        self.states.fetch_add(change, Ordering::AcqRel);
    }

    /// Shows none of its circuits any more.
    #[cfg(all(feature = "metrics", feature = "registry"))]
    pub(super) fn rest(&self) {
        report(|| self.metrics.rest());
    }

    /// Tells that a circuit was counted elsewhere. Not under a lock.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, clippy::unused_self))]
    pub(super) fn tell_moved(&self, from: Option<State>, to: Option<State>) {
        #[cfg(feature = "metrics")]
        report(|| self.metrics.moved(from, to));
    }
}

/// Reports through a recorder that is somebody else's: one that panics harms
/// nobody.
#[cfg(feature = "metrics")]
fn report(report: impl Fn()) {
    let _ = contain(report);
}

/// What a circuit is counted as.
#[derive(Clone, Copy)]
enum Counted {
    As(State),
    /// It is gone from the map, whatever its last calls still do to it. With
    /// what it was counted as until then.
    No(State),
}

/// One circuit's place in the tally: its observer.
pub(super) struct Member {
    tally: Arc<Tally>,
    counted: Mutex<Counted>,
    /// Its own series, if it has any.
    #[cfg(feature = "metrics")]
    series: Option<Arc<Metrics>>,
}

impl Member {
    /// A place for a new circuit, which starts in this state; yet to be told of.
    pub(super) fn join(
        tally: &Arc<Tally>,
        state: State,
        #[cfg(feature = "metrics")] series: Option<Arc<Metrics>>,
    ) -> Self {
        tally.moved(None, Some(state));
        #[cfg(feature = "metrics")]
        if tally.metrics.rests() {
            report(|| series.iter().for_each(|series| series.rest()));
        }
        Self {
            tally: Arc::clone(tally),
            counted: Mutex::new(Counted::As(state)),
            #[cfg(feature = "metrics")]
            series,
        }
    }

    /// Gives up the place, for the circuit is evicted; yet to be told of.
    pub(super) fn leave(&self) {
        let mut counted = self.lock();
        if let Counted::As(state) = *counted {
            *counted = Counted::No(state);
            self.tally.moved(Some(state), None);
            self.tally.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells that the circuit is evicted. Not under a lock.
    pub(super) fn tell_left(&self) {
        let (Counted::As(state) | Counted::No(state)) = *self.lock();
        self.tally.tell_moved(Some(state), None);
        #[cfg(feature = "metrics")]
        report(|| {
            self.tally.metrics.evicted();
            self.series.iter().for_each(|series| series.rest());
        });
    }

    /// Shows the circuit no more.
    #[cfg(all(feature = "metrics", feature = "registry"))]
    pub(super) fn rest(&self) {
        report(|| self.series.iter().for_each(|series| series.rest()));
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Member {
    fn hears_calls(&self) -> bool {
        false
    }

    fn on_transition(&self, transition: &Transition) {
        let mut counted = self.lock();
        let Counted::As(from) = *counted else { return };
        *counted = Counted::As(transition.to);
        self.tally.moved(Some(from), Some(transition.to));
        drop(counted);
        self.tally.tell_moved(Some(from), Some(transition.to));
        if transition.to == State::Open {
            self.tally.ask_quorum();
        }
    }
}
