//! A registered circuit's observer: what it hears goes into the history and
//! the vitals.

use std::{
    sync::{Arc, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    event::EventKind,
    history::{Ring, Waiters},
    track::Track,
    vitals::Vitals,
};
use crate::{
    Circuit, Clock, Observer, Override, OverrideKind, Reconfigured, State, Transition,
    circuit::sync::{Mutex, MutexGuard},
};

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

    /// Looks at the circuit for the first time: it may have had another life.
    pub(super) fn begin(&self, circuit: &Circuit) {
        self.track().begin(&circuit.snapshot());
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
        self.publish_at(told, self.clock.date(), kind)
    }

    /// Adds an event of then.
    fn publish_then(&self, then: Instant, kind: EventKind) {
        let ago = self.clock.now().saturating_duration_since(then);
        let now = self.clock.date();
        self.publish_at(|| true, now.checked_sub(ago).unwrap_or(now), kind);
    }

    fn publish_at(
        &self,
        told: impl FnOnce() -> bool,
        at: SystemTime,
        kind: EventKind,
    ) -> Option<(u64, Waiters)> {
        let told = || self.left.get().is_none() && told();
        self.ring.publish_if(told, at, &self.circuit, self.key.as_ref(), kind)
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

    fn takes_latency_samples(&self) -> bool {
        true
    }

    fn on_transition(&self, transition: &Transition) {
        self.track().moved(self.clock.now(), transition.at, transition.to);
        self.publish_then(transition.at, EventKind::Transition(transition.clone()));
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
        let Some(over) = active else {
            let ended = before.flatten().filter(|ends| *ends <= now);
            let cleared = EventKind::OverrideCleared { expired: ended.is_some() };
            return self.publish_then(ended.unwrap_or(now), cleared);
        };
        self.publish(EventKind::OverrideSet(over.clone()));
    }

    fn on_reconfigured(&self, reconfigured: &Reconfigured) {
        self.publish(EventKind::Reconfigured(reconfigured.clone()));
    }

    fn on_latency_sample(&self, _: &str, latency: Duration) {
        let now = self.clock.now();
        self.track().measured(now, latency);
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::{Config, ManualClock};

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        clock: ManualClock,
        circuit: Circuit,
        watch: Watch,
    }

    impl Bench {
        fn new() -> Self {
            let clock = ManualClock::new();
            let circuit = Circuit::new(Config::builder("a").clock(&clock).build().unwrap());
            let ring = Arc::new(Ring::new(1));
            let watch = Watch::new(
                &ring,
                "a".into(),
                None,
                (&clock).into(),
                State::Closed,
                &Arc::default(),
            );
            Self { clock, circuit, watch }
        }

        /// Measures calls of so many milliseconds each.
        fn measure(&self, millis: impl IntoIterator<Item = u64>) {
            for millis in millis {
                self.watch.on_latency_sample("a", Duration::from_millis(millis));
            }
        }

        fn vitals(&self) -> Vitals {
            self.watch.vitals(&self.circuit)
        }
    }

    fn is_about(read: Duration, millis: u64) -> bool {
        (read.as_secs_f64() * 1e3 / millis as f64 - 1.0).abs() < 0.03
    }

    #[test]
    fn nobody_who_watches_is_on_the_path_of_a_call() {
        let bench = Bench::new();
        let observers: [Arc<dyn Observer>; 1] = [Arc::new(bench.watch)];
        assert!(!observers.iter().any(|observer| observer.hears_calls()));
    }

    #[test]
    fn latency_is_that_of_the_last_minute() {
        let bench = Bench::new();
        assert_eq!(bench.vitals().latency, None);
        bench.measure(1..=100);
        let latency = bench.vitals().latency.unwrap();
        assert_eq!(latency.samples, 100);
        assert!(is_about(latency.p50, 50), "{latency:?}");
        assert!(is_about(latency.p90, 90), "{latency:?}");
        assert!(is_about(latency.p99, 99), "{latency:?}");

        bench.clock.advance(45 * SECOND);
        bench.measure([1_000; 300]);
        let latency = bench.vitals().latency.unwrap();
        assert_eq!(latency.samples, 400);
        assert!(is_about(latency.p50, 1_000), "{latency:?}");

        // The first step has left the minute, though nobody has looked since.
        bench.clock.advance(15 * SECOND);
        let latency = bench.vitals().latency.unwrap();
        assert_eq!(latency.samples, 300);
        bench.clock.advance(60 * SECOND);
        assert_eq!(bench.vitals().latency, None);
    }

    #[test]
    fn a_step_keeps_its_percentiles_when_its_samples_are_gone() {
        let bench = Bench::new();
        bench.measure([10; 98].into_iter().chain([200; 2]));
        bench.clock.advance(15 * SECOND);
        bench.measure([30]);
        bench.clock.advance(300 * SECOND);
        let steps: Vec<_> = bench.vitals().series.steps.into_iter().flatten().collect();
        assert!(is_about(steps[0].p50.unwrap(), 10) && is_about(steps[0].p99.unwrap(), 200));
        assert!(is_about(steps[1].p50.unwrap(), 30));
        assert!(steps[2..].iter().all(|step| step.p50.is_none() && step.p99.is_none()));
    }
}
