//! A registered circuit's observer: what it hears goes into the history and
//! the vitals.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use super::{
    event::EventKind,
    history::{Ring, Waiters},
    track::Track,
    vitals::Vitals,
};
use crate::{Circuit, Clock, Observer, Override, OverrideKind, State, Transition};

/// Watches one circuit.
pub(super) struct Watch {
    ring: Arc<Ring>,
    circuit: Arc<str>,
    key: Option<Arc<str>>,
    clock: Clock,
    track: Mutex<Track>,
    /// Until when an operator's override holds, while there is one.
    over: Mutex<Option<Ends>>,
    left: Arc<Left>,
}

/// Set, under the ring's lock, once a circuit or its group has left the
/// registry.
pub(super) type Left = OnceLock<()>;

/// When an override ends, if it does by itself.
type Ends = Option<Instant>;

impl Watch {
    pub(super) fn new(
        ring: &Arc<Ring>,
        circuit: Arc<str>,
        key: Option<Arc<str>>,
        clock: Clock,
        first: State,
        left: &Arc<Left>,
    ) -> Self {
        let track = Mutex::new(Track::new(clock.now(), first));
        let (ring, left) = (Arc::clone(ring), Arc::clone(left));
        Self { ring, circuit, key, clock, track, over: Mutex::default(), left }
    }

    /// Adds an event, unless the circuit has left.
    pub(super) fn publish(&self, kind: EventKind) -> Option<(u64, Waiters)> {
        self.publish_if(|| true, kind)
    }

    /// Adds the last event there will be of this circuit.
    pub(super) fn leave(&self) -> Option<(u64, Waiters)> {
        self.publish_if(|| self.left.set(()).is_ok(), EventKind::Removed)
    }

    fn publish_if(&self, told: impl FnOnce() -> bool, kind: EventKind) -> Option<(u64, Waiters)> {
        let told = || self.left.get().is_none() && told();
        self.ring.publish_if(told, &self.circuit, self.key.as_ref(), kind)
    }

    /// Looks at the circuit's totals.
    pub(super) fn sample(&self, circuit: &Circuit) {
        let mut track = self.track();
        // Under the lock, or an older look might come after a newer one.
        let snapshot = circuit.snapshot();
        track.sample(self.clock.now(), &snapshot);
    }

    /// How the circuit does now.
    pub(super) fn vitals(&self, circuit: &Circuit) -> Vitals {
        self.sample(circuit);
        self.track().vitals(self.clock.now())
    }

    fn track(&self) -> MutexGuard<'_, Track> {
        // Nothing in there panics half-way.
        self.track.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Watch {
    fn hears_calls(&self) -> bool {
        false
    }

    fn on_transition(&self, transition: &Transition) {
        self.track().moved(self.clock.now(), transition.at, transition.to);
        self.publish(EventKind::Transition(transition.clone()));
    }

    fn on_override(&self, _: &str, active: Option<&Override>) {
        let now = self.clock.now();
        let ends = active.map(|over| over.expires_in.and_then(|left| now.checked_add(left)));
        let forces = |over: &Override| {
            matches!(over.kind, OverrideKind::ForceOpen | OverrideKind::ForceClosed)
        };
        self.track().forced(now, active.filter(|over| forces(over)).and(ends));
        let before = {
            let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *over, ends)
        };
        self.publish(match active {
            Some(over) => EventKind::OverrideSet(over.clone()),
            None => EventKind::OverrideCleared {
                expired: before.flatten().is_some_and(|ends| now >= ends),
            },
        });
    }

    fn on_reconfigured(&self, _: &str) {
        self.publish(EventKind::Reconfigured);
    }

    fn on_latency_sample(&self, _: &str, latency: Duration) {
        let now = self.clock.now();
        self.track().measured(now, latency);
    }
}
