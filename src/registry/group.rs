//! A registered group of circuits by key (feature `keyed`).

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use super::{
    event::EventKind,
    history::{Ring, Waiters},
    watch::{Left, Watch},
};
use crate::{
    Circuit, Clock, ConfigError, KeyedCircuits, KeyedCircuitsBuilder, Observer, Override,
    Reconfigured, State, Transition,
    circuit::sync::{Mutex, MutexGuard},
    keyed::Watching,
};

/// A group, and who watches its circuits.
pub(super) struct Group {
    circuits: KeyedCircuits,
    watches: Arc<Watches>,
    /// Of the circuit of those who have none of their own.
    shared: Arc<Watch>,
}

/// The observers of the circuits there are, by key.
#[derive(Default)]
struct Watches(Mutex<BTreeMap<Arc<str>, Weak<KeyWatch>>>);

/// A key's circuit's observer, which is forgotten with it.
struct KeyWatch {
    watch: Watch,
    key: Arc<str>,
    watches: Weak<Watches>,
}

impl Group {
    /// As many keys as are all listed and sampled: of more, only those that are
    /// not closed.
    const ALL: usize = 10_000;

    pub(super) fn build(
        builder: KeyedCircuitsBuilder,
        ring: &Arc<Ring>,
    ) -> Result<Self, ConfigError> {
        let name: Arc<str> = builder.name().into();
        let clock: Clock = builder.template().clock().clone();
        let first: State = builder.template().first_state();
        let left = Arc::new(Left::new());
        let watches = Arc::new(Watches::default());
        let watch = {
            let (ring, name, left) = (Arc::clone(ring), Arc::clone(&name), Arc::clone(&left));
            move |key| Watch::new(&ring, Arc::clone(&name), key, clock.clone(), first, &left)
        };
        let shared = Arc::new(watch(None));
        let watching = {
            let (shared, watches) = (Arc::clone(&shared), Arc::downgrade(&watches));
            move |key: Option<&Arc<str>>| -> Arc<dyn Observer> {
                let Some(key) = key else { return shared.clone() };
                let (watches, key) = (Weak::clone(&watches), Arc::clone(key));
                let watch = watch(Some(Arc::clone(&key)));
                KeyWatch::remembered(KeyWatch { watch, key, watches })
            }
        };
        let circuits = builder.watched(Watching(Arc::new(watching))).build()?;
        Ok(Self { circuits, watches, shared })
    }

    pub(super) fn circuits(&self) -> &KeyedCircuits {
        &self.circuits
    }

    /// The shared circuit, and the keys' in their order.
    pub(super) fn listed(&self) -> Vec<Circuit> {
        let mut keys = self.circuits.circuits();
        if keys.len() > Self::ALL {
            keys.retain(|circuit| !circuit.is_closed());
        }
        keys.sort_unstable_by(|one, other| one.key().cmp(&other.key()));
        keys.insert(0, self.circuits.shared().clone());
        keys
    }

    /// Does something with a circuit's observer, if it is of the group.
    pub(super) fn with_watch<R>(
        &self,
        circuit: &Circuit,
        f: impl FnOnce(&Watch) -> R,
    ) -> Option<R> {
        let Some(key) = circuit.key() else {
            return self.circuits.shared().is(circuit).then(|| f(&self.shared));
        };
        let known = self.circuits.get(key)?;
        let watch = known.is(circuit).then(|| self.watches.lock().get(key)?.upgrade())??;
        Some(f(&watch.watch))
    }

    pub(super) fn publish(&self, kind: EventKind) -> Option<(u64, Waiters)> {
        self.shared.publish(kind)
    }

    pub(super) fn leave(&self) -> Option<(u64, Waiters)> {
        let left = self.shared.leave();
        // Before another may have its name.
        #[cfg(feature = "metrics")]
        self.circuits.rest();
        left
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Weak<KeyWatch>>> {
        // Nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyWatch {
    fn remembered(self) -> Arc<Self> {
        let this = Arc::new(self);
        if let Some(watches) = this.watches.upgrade() {
            // In place of one whose circuit was evicted and may live on.
            watches.lock().insert(Arc::clone(&this.key), Arc::downgrade(&this));
        }
        this
    }
}

impl Drop for KeyWatch {
    fn drop(&mut self) {
        let Some(watches) = self.watches.upgrade() else { return };
        let mut watches = watches.lock();
        // Its successor, if there is one, has been put in its place.
        if watches.get(&self.key).is_some_and(|watch| watch.strong_count() == 0) {
            watches.remove(&self.key);
        }
    }
}

impl Observer for KeyWatch {
    fn hears_calls(&self) -> bool {
        self.watch.hears_calls()
    }

    fn takes_latency_samples(&self) -> bool {
        self.watch.takes_latency_samples()
    }

    fn on_transition(&self, transition: &Transition) {
        self.watch.on_transition(transition);
    }

    fn on_override(&self, circuit: &str, active: Option<&Override>) {
        self.watch.on_override(circuit, active);
    }

    fn on_reconfigured(&self, reconfigured: &Reconfigured) {
        self.watch.on_reconfigured(reconfigured);
    }

    fn on_latency_sample(&self, circuit: &str, latency: Duration) {
        self.watch.on_latency_sample(circuit, latency);
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::{Config, ManualClock};

    #[test]
    fn a_key_that_is_gone_is_forgotten() {
        let clock = ManualClock::new();
        let template = Config::builder("hosts").clock(&clock).build().unwrap();
        let builder = KeyedCircuits::builder(template).capacity(10);
        let group = Group::build(builder, &Arc::new(Ring::new(1))).unwrap();
        // More than there is room for.
        for key in 0..1_000u64 {
            clock.advance(Duration::from_secs(1));
            group.circuits.get_or_create(key);
        }
        assert_eq!(group.watches.lock().len(), 10);
    }

    #[test]
    fn one_that_outlives_its_place_does_not_take_its_successor_along() {
        let watches = Arc::new(Watches::default());
        let join = || {
            let clock = ManualClock::new();
            let (ring, left) = (Arc::new(Ring::new(1)), Arc::default());
            let key: Arc<str> = "one".into();
            let of = Some(Arc::clone(&key));
            let watch = Watch::new(&ring, "hosts".into(), of, clock.into(), State::Closed, &left);
            KeyWatch::remembered(KeyWatch { watch, key, watches: Arc::downgrade(&watches) })
        };
        let (evicted, anew) = (join(), join());
        drop(evicted);
        let found = watches.lock().get("one").and_then(Weak::upgrade);
        assert!(found.is_some_and(|found| Arc::ptr_eq(&found, &anew)));
        drop(anew);
        assert!(watches.lock().is_empty());
    }
}
