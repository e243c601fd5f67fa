//! Named circuits, what happens to them, and how they do (feature `registry`).

mod event;
#[cfg(feature = "keyed")]
mod group;
mod histogram;
mod history;
mod track;
mod vitals;
mod watch;

use std::{
    collections::{BTreeMap, btree_map},
    convert,
    error::Error,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, PoisonError},
};

#[cfg(feature = "keyed")]
use self::group::Group;
pub use self::{
    event::{Command, Event, EventKind},
    history::{History, Lagged, Subscription},
    vitals::{Latency, Rates, Series, Step, Vitals},
};
use self::{
    history::{Ring, Waiters},
    watch::Watch,
};
use crate::{
    circuit::{
        Circuit, Config, Saved,
        sync::{Mutex, MutexGuard},
    },
    config_error::ConfigError,
    defaults::Watchers,
};

/// Circuits by name, with what happened to them: a handle, cheap to clone;
/// clones are the same registry.
///
/// A circuit is made here in place of [`Circuit::new`]; from then on the
/// registry has a handle of it, tells of it, and knows how it does. Calls
/// cost what they cost without.
///
/// ```
/// use tower_breaker::{Config, Registry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::new();
/// let inventory = registry.circuit(Config::builder("inventory").build()?)?;
/// inventory.trip();
///
/// for circuit in registry.circuits() {
///     println!("{} is {}", circuit.name(), circuit.state());
/// }
/// for event in registry.events_after(0, 100).events {
///     println!("{event}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "CircuitBreakerRegistry")]
pub struct Registry(Arc<Inner>);

struct Inner {
    entries: Mutex<BTreeMap<Arc<str>, Entry>>,
    ring: Arc<Ring>,
    epoch: u64,
}

/// What has a name.
enum Entry {
    One(One),
    #[cfg(feature = "keyed")]
    Group(Group),
}

/// A circuit on its own.
struct One {
    circuit: Circuit,
    watch: Arc<Watch>,
    #[cfg(feature = "metrics")]
    series: Arc<crate::metrics::Metrics>,
}

impl Entry {
    /// The circuit of this name that has no key.
    fn circuit(&self) -> &Circuit {
        match self {
            Self::One(one) => &one.circuit,
            #[cfg(feature = "keyed")]
            Self::Group(group) => group.circuits().shared(),
        }
    }

    fn listed(&self) -> Vec<Circuit> {
        match self {
            Self::One(one) => vec![one.circuit.clone()],
            #[cfg(feature = "keyed")]
            Self::Group(group) => group.listed(),
        }
    }

    /// Does something with a circuit's observer, if it is this one's.
    fn with_watch<R>(&self, circuit: &Circuit, f: impl FnOnce(&Watch) -> R) -> Option<R> {
        match self {
            Self::One(one) => one.circuit.is(circuit).then(|| f(&one.watch)),
            #[cfg(feature = "keyed")]
            Self::Group(group) => group.with_watch(circuit, f),
        }
    }

    /// Tells that it leaves.
    fn leave(&self) -> Option<(u64, Waiters)> {
        match self {
            Self::One(one) => {
                let left = one.watch.leave();
                // Before another may have its name.
                #[cfg(feature = "metrics")]
                let _ = crate::panics::contain(|| one.series.rest());
                left
            }
            #[cfg(feature = "keyed")]
            Self::Group(group) => group.leave(),
        }
    }
}

impl Registry {
    /// An empty one, whose history is 4,096 events long.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts from the defaults.
    pub const fn builder() -> RegistryBuilder {
        RegistryBuilder { history: 4_096 }
    }

    /// Makes a circuit.
    ///
    /// # Errors
    ///
    /// [`DuplicateName`] if there is one of this name.
    pub fn circuit(&self, config: Config) -> Result<Circuit, DuplicateName> {
        self.register(config, convert::identity, |config, watched| {
            Ok(Circuit::of_group(config, None, watched))
        })
    }

    /// Makes a circuit that goes on where a saved one was: see
    /// [`Circuit::restore`].
    ///
    /// # Errors
    ///
    /// Those of [`Circuit::restore`], and one that names `name` if there is a
    /// circuit of this name.
    pub fn restore(&self, config: Config, saved: Saved) -> Result<Circuit, ConfigError> {
        self.register(config, DuplicateName::among_others, |config, watched| {
            Circuit::restore_watched(config, saved, watched)
        })
    }

    /// Makes a circuit with its observers, if its name is free.
    fn register<E>(
        &self,
        config: Config,
        taken: impl FnOnce(DuplicateName) -> E,
        make: impl FnOnce(Config, Watchers) -> Result<Circuit, E>,
    ) -> Result<Circuit, E> {
        let mut entries = self.0.entries();
        let name: Arc<str> = config.name().into();
        let btree_map::Entry::Vacant(vacant) = entries.entry(Arc::clone(&name)) else {
            return Err(taken(DuplicateName { name }));
        };
        let clock = config.clock().clone();
        let first = config.first_state();
        let watch = Watch::new(&self.0.ring, name, None, clock, first, &Arc::default());
        let watch = Arc::new(watch);
        #[cfg(feature = "metrics")]
        let series = Arc::new(crate::metrics::Metrics::default());
        let mut observers = crate::defaults::observers();
        observers.push(watch.clone());
        let watchers = Watchers {
            #[cfg(feature = "metrics")]
            series: series.clone().into(),
            #[cfg(not(feature = "metrics"))]
            series: crate::defaults::Series::default(),
            observers,
        };
        let circuit = make(config, watchers)?;
        watch.begin(&circuit);
        // Before anybody can find it, and so before anything else of it.
        let waiters = watch.publish(EventKind::Registered);
        vacant.insert(Entry::One(One {
            circuit: circuit.clone(),
            watch,
            #[cfg(feature = "metrics")]
            series,
        }));
        // Others are woken with the lock released.
        drop(entries);
        drop(waiters);
        // What it was restored with, while it is what it says.
        circuit.tell_untold();
        Ok(circuit)
    }

    /// Makes a circuit, and the layer that puts it before HTTP services.
    ///
    /// For others, give [`circuit`](Self::circuit) to
    /// [`CircuitBreakerLayer::with_classifier`](crate::CircuitBreakerLayer::with_classifier).
    ///
    /// ```
    /// use tower_breaker::{Config, Registry};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = Registry::new();
    /// let layer = registry.layer(Config::builder("inventory").build()?)?;
    /// assert_eq!(registry.get("inventory").unwrap().name(), layer.circuit().name());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DuplicateName`] if there is one of this name.
    #[cfg(feature = "http")]
    pub fn layer(
        &self,
        config: Config,
    ) -> Result<crate::CircuitBreakerLayer<crate::HttpClassifier>, DuplicateName> {
        self.circuit(config).map(crate::CircuitBreakerLayer::new)
    }

    /// Makes a group of circuits by key. Its [`shared`](crate::KeyedCircuits::shared)
    /// circuit is found by its name, and the circuits of its keys by
    /// [`get_key`](Self::get_key).
    ///
    /// What happens to them is told as of any other, but not that keys come and
    /// go. Of a group with more than 10,000 keys only the circuits that are not
    /// closed are listed and [sampled](Self::sample).
    ///
    /// ```
    /// use tower_breaker::{Config, KeyedCircuits, Registry, State};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = Registry::new();
    /// let template = Config::builder("hosts").consecutive_failures(3).build()?;
    /// let hosts = registry.keyed(KeyedCircuits::builder(template).capacity(1_000))?;
    ///
    /// hosts.get_or_create("a.example.com").trip();
    /// let circuit = registry.get_key("hosts", "a.example.com").unwrap();
    /// assert_eq!(circuit.state(), State::Open);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`build`](crate::KeyedCircuitsBuilder::build), and one that names `name` if
    /// the registry has a circuit of that name.
    #[cfg(feature = "keyed")]
    pub fn keyed(
        &self,
        builder: crate::KeyedCircuitsBuilder,
    ) -> Result<crate::KeyedCircuits, ConfigError> {
        let mut entries = self.0.entries();
        let name: Arc<str> = builder.name().into();
        let btree_map::Entry::Vacant(vacant) = entries.entry(Arc::clone(&name)) else {
            return Err(DuplicateName { name }.among_others());
        };
        let group = Group::build(builder, &self.0.ring)?;
        let circuits = group.circuits().clone();
        let waiters = group.publish(EventKind::Registered);
        vacant.insert(Entry::Group(group));
        // Others are woken with the lock released.
        drop(entries);
        drop(waiters);
        Ok(circuits)
    }

    /// The circuit of this name.
    pub fn get(&self, name: &str) -> Option<Circuit> {
        self.0.entries().get(name).map(|entry| entry.circuit().clone())
    }

    /// The circuit that a key has in the group of this name, if it has one. Not
    /// a use of it.
    #[cfg(feature = "keyed")]
    pub fn get_key(&self, name: &str, key: &str) -> Option<Circuit> {
        match self.0.entries().get(name)? {
            Entry::Group(group) => group.circuits().get(key),
            Entry::One(_) => None,
        }
    }

    /// All circuits, by name, and those of a group by key.
    pub fn circuits(&self) -> Vec<Circuit> {
        self.0.entries().values().flat_map(Entry::listed).collect()
    }

    /// Takes a circuit out, and gives it back; or a group, and gives its shared
    /// circuit back. Who else has a handle may go on using it; nothing more is
    /// told of it here, and its name is free.
    ///
    /// A series can't be taken back through the `metrics` facade: the gauges of
    /// the circuit are set to those of a closed one and stay so, and its
    /// counters stand still once nobody calls it any more. To have them go, set
    /// the exporter's idle timeout. A group's gauges show no keys any more.
    pub fn remove(&self, name: &str) -> Option<Circuit> {
        let mut entries = self.0.entries();
        let entry = entries.remove(name)?;
        let waiters = entry.leave();
        // Others are woken with the lock released.
        drop(entries);
        drop(waiters);
        Some(entry.circuit().clone())
    }

    /// What tells this registry's history from that of any other, as of the
    /// same program before it was started anew: a random number. Whoever keeps
    /// an event's number beyond the process keeps this beside it: under another
    /// epoch it is the number of another event.
    ///
    /// ```
    /// # use tower_breaker::Registry;
    /// # let registry = Registry::new();
    /// # let (kept_epoch, kept_id) = (registry.epoch() ^ 1, 7);
    /// let is_known = registry.epoch() == kept_epoch;
    /// let events = registry.subscribe_after(if is_known { kept_id } else { 0 });
    /// # drop(events);
    /// ```
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// What happened after the event of this number, oldest first, `limit`
    /// events at most. From 0 on, that is all the history there is; from a
    /// number that was not given yet, as of a process before this one, too; of
    /// one that was given anew nobody can tell but by the [epoch](Self::epoch).
    pub fn events_after(&self, id: u64, limit: usize) -> History {
        self.0.ring.after(id, limit)
    }

    /// Follows what happens from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription::from_now(Arc::clone(&self.0.ring))
    }

    /// Follows what happened after the event of this number, and what will. A
    /// number from before the process was started anew is to be told by its
    /// [epoch](Self::epoch).
    pub fn subscribe_after(&self, id: u64) -> Subscription {
        Subscription::after(Arc::clone(&self.0.ring), id)
    }

    /// Tells what somebody asked of a circuit, for the history; also of one that
    /// has left meanwhile, for it was asked all the same. Returns the event's
    /// number.
    pub fn record_command(&self, circuit: &Circuit, command: Command) -> u64 {
        let name: Arc<str> = circuit.name().into();
        let key = circuit.key().map(Arc::from);
        let (at, kind) = (circuit.date(), EventKind::Command(command));
        let published = self.0.ring.publish_if(|| true, at, &name, key.as_ref(), kind);
        // The ring is open for as long as there is a registry.
        published.map_or(0, |(id, _waiters)| id)
    }

    /// Looks at all circuits' totals, from which their
    /// [`vitals`](Self::vitals) come, and has told what time alone has done: an
    /// override or a ramp that is over, a probe that lost its lease. Without it
    /// that is told with the next call. To be called about once a second, by
    /// whoever shows them; no call waits for it.
    pub fn sample(&self) {
        for circuit in self.circuits() {
            circuit.tell_untold();
            self.with_watch(&circuit, |watch| watch.sample(&circuit));
        }
    }

    /// How a circuit does: `None`, if it is not registered.
    pub fn vitals(&self, circuit: &Circuit) -> Option<Vitals> {
        self.with_watch(circuit, |watch| watch.vitals(circuit))
    }

    fn with_watch<R>(&self, circuit: &Circuit, f: impl FnOnce(&Watch) -> R) -> Option<R> {
        self.0.entries().get(circuit.name())?.with_watch(circuit, f)
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Entry>> {
        // Nothing in there panics half-way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ring.close();
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.circuits()).finish()
    }
}

/// Builds a [`Registry`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RegistryBuilder {
    history: usize,
}

impl RegistryBuilder {
    /// Sets how many events are kept; at least one is.
    pub const fn history(mut self, events: usize) -> Self {
        self.history = events;
        self
    }

    /// The registry.
    pub fn build(self) -> Registry {
        let ring = Arc::new(Ring::new(self.history.max(1)));
        // The standard library's source of chance has it from the system's.
        let epoch = RandomState::new().hash_one(());
        Registry(Arc::new(Inner { entries: Mutex::default(), ring, epoch }))
    }
}

/// A registry has a circuit of this name already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateName {
    name: Arc<str>,
}

impl DuplicateName {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, among what else may be wrong.
    fn among_others(self) -> ConfigError {
        let expected = "the registry has a circuit of that name";
        ConfigError::new("name", format_args!("{:?}", self.name), expected)
    }
}

impl fmt::Display for DuplicateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name is {:?}, but the registry has a circuit of that name", self.name)
    }
}

impl Error for DuplicateName {}
