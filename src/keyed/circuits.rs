//! The handle: finds a key's circuit or makes it, and asks who else has a say.

use std::{
    fmt, mem,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{
    guard::{Beyond, Guard, Quorum, QuorumRule},
    key::Key,
    map::{Entry, Keeper, Map, Now},
    tally::{MOST_KEYS, Member, Tally},
};
use crate::{
    circuit::{
        Admission, Circuit, CircuitOpen, Config, Observer, Permit,
        sync::{Mutex, MutexGuard},
    },
    config_error::ConfigError,
    defaults::{Series, Watchers},
    state::State,
    time::{Time, nanos},
};

/// A circuit per key, within bounds: a handle, cheap to clone; clones are the
/// same group.
///
/// Every key has a circuit of its own, made at its first call, so that one dead
/// host, shard or tenant does not stop the calls of the others. With Tower, put
/// it behind a [`KeyedCircuitBreakerLayer`](crate::KeyedCircuitBreakerLayer);
/// without, take permits here.
///
/// What is bounded, who is evicted, and what the guard and the parent do is told
/// in [the guide](crate::docs::keyed).
///
/// ```
/// use tower_breaker::{Config, KeyedCircuits, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let config = Config::builder("hosts").consecutive_failures(3).build()?;
/// let circuits = KeyedCircuits::builder(config).capacity(1_000).build()?;
///
/// while let Ok(permit) = circuits.try_acquire("a.example.com") {
///     // Call the host. It fails:
///     permit.record(Outcome::Failure);
/// }
/// let open = circuits.try_acquire("a.example.com").unwrap_err();
/// assert_eq!((open.name(), open.key()), ("hosts", Some("a.example.com")));
/// assert!(circuits.try_acquire("b.example.com").is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "CircuitBreakerRegistry")]
#[doc(alias = "outlier detection")]
pub struct KeyedCircuits(Arc<Group>);

struct Group {
    /// Every circuit's configuration.
    template: Config,
    born: Instant,
    map: Map,
    tally: Arc<Tally>,
    /// For calls that have no circuit of their own.
    shared: Circuit,
    keeper: Mutex<Keeper>,
    capacity: usize,
    idle_for: u64,
    reports: Reports,
}

impl KeyedCircuits {
    /// Longer keys, in bytes, have no circuit of their own: what a request
    /// brings must not decide how much memory is held.
    pub const LONGEST_KEY: usize = 512;

    /// Starts a group. `template` configures the circuit of every key; its
    /// name is the group's, and its observers watch all of them. Where it
    /// starts [observed](crate::Start::ObserveOnly), that ends for all keys at
    /// once, so long after the group was built.
    pub fn builder(template: Config) -> KeyedCircuitsBuilder {
        KeyedCircuitsBuilder {
            template,
            capacity: 10_000,
            idle_for: Duration::from_secs(10 * 60),
            minimum_keys: 5,
            max_open_share: None,
            parent: None,
            label_keys: false,
            #[cfg(feature = "registry")]
            watching: None,
        }
    }

    /// The group's name: that of its template.
    pub fn name(&self) -> &str {
        self.0.template.name()
    }

    /// Asks for the right to one call by this key. Never waits.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] if the key's circuit refuses, or the parent, or the
    /// guard. [`CircuitOpen::name`] tells the parent's refusal from the group's,
    /// [`CircuitOpen::key`] tells whose it is.
    pub fn try_acquire<'a>(&self, key: impl Into<Key<'a>>) -> Result<Permit, CircuitOpen> {
        self.acquire(&key.into(), false).map_err(|refused| refused.open)
    }

    /// A key's circuit, made if need be, to look at and to steer. A key that
    /// finds no room, is too long or is none gets the [`shared`](Self::shared)
    /// circuit.
    ///
    /// Permits taken from it directly are judged by this circuit alone: the
    /// guard and the parent are asked by [`try_acquire`](Self::try_acquire)
    /// here. A circuit that somebody holds is not evicted for being idle.
    ///
    /// ```
    /// use tower_breaker::{Config, KeyedCircuits, Override};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let circuits = KeyedCircuits::builder(Config::default()).build()?;
    /// circuits.get_or_create("shard-3").set_override(Override::force_open().reason("rebuild"));
    /// assert!(circuits.try_acquire("shard-3").is_err());
    /// assert!(circuits.try_acquire("shard-4").is_ok());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "getOrCreate")]
    pub fn get_or_create<'a>(&self, key: impl Into<Key<'a>>) -> Circuit {
        self.0.find(&key.into())
    }

    /// A key's circuit, if it has one. Not a use of it.
    pub fn get<'a>(&self, key: impl Into<Key<'a>>) -> Option<Circuit> {
        let key = key.into();
        let key = key.as_str()?;
        self.0.map.get(self.0.map.hash(key), key)
    }

    /// The circuit of all calls that have none of their own: requests without a
    /// key, keys that are too long, and new keys while there is no room.
    pub fn shared(&self) -> &Circuit {
        &self.0.shared
    }

    /// The parent, if there is one.
    pub fn parent(&self) -> Option<&Circuit> {
        self.0.tally.parent()
    }

    /// How many keys have a circuit.
    pub fn len(&self) -> usize {
        // At most the capacity, which fits.
        self.0.tally.census().keys as usize
    }

    /// Whether no key has a circuit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys' circuits are open: not closed, that is, half-open ones
    /// among them. This is what the guard and the parent go by.
    pub fn open(&self) -> usize {
        self.0.tally.census().open as usize
    }

    /// The circuits as of now, in no order. Each knows its
    /// [`key`](Circuit::key).
    ///
    /// ```
    /// use tower_breaker::{Config, KeyedCircuits};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// # let circuits = KeyedCircuits::builder(Config::default()).build()?;
    /// # circuits.get_or_create("a");
    /// for circuit in circuits.circuits() {
    ///     println!("{:?} is {}", circuit.key(), circuit.state());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn circuits(&self) -> Vec<Circuit> {
        self.0.map.circuits(&self.0.keeper())
    }

    /// The group at this instant, in numbers. Changes nothing.
    pub fn snapshot(&self) -> KeyedSnapshot {
        let tally = &self.0.tally;
        let [closed, open, half_open] = tally.counts();
        KeyedSnapshot {
            name: self.name().to_owned(),
            closed,
            open,
            half_open,
            capacity: self.0.capacity as u64,
            evicted: tally.evicted(),
            overflowed: tally.overflowed(),
            beyond: tally.beyond(),
        }
    }

    /// Evicts every circuit that is idle, and says how many those were.
    ///
    /// New keys do so too, a part of the map each. Call it from a timer if
    /// memory matters while none come.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{Config, KeyedCircuits, ManualClock};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let clock = ManualClock::new();
    /// let config = Config::builder("hosts").clock(&clock).build()?;
    /// let circuits =
    ///     KeyedCircuits::builder(config).idle_for(Duration::from_secs(60)).build()?;
    /// circuits.get_or_create("a");
    /// clock.advance(Duration::from_secs(60));
    /// // It was used since somebody last looked, so it is idle from now.
    /// circuits.get_or_create("a");
    /// assert_eq!(circuits.evict_idle(), 0);
    ///
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(circuits.evict_idle(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn evict_idle(&self) -> usize {
        self.0.evict_idle()
    }

    /// Shows nothing more of itself in gauges: another may have its name by now.
    #[cfg(all(feature = "metrics", feature = "registry"))]
    pub(crate) fn rest(&self) {
        self.0.tally.rest();
        let members = {
            // One that is made meanwhile finds that, or is found.
            let _keeper = self.0.keeper();
            self.0.map.members()
        };
        members.iter().for_each(|member| member.rest());
    }

    /// Asks for the right to one call, which is measured if `measured` or if
    /// the circuit needs it.
    #[inline]
    pub(super) fn acquire(&self, key: &Key<'_>, measured: bool) -> Result<Permit, Refused> {
        let tally = &*self.0.tally;
        let parent = tally.parent_to_ask();
        if parent.is_some() || tally.refuses_all() {
            return self.acquire_guarded(key, parent, measured);
        }
        match self.0.admission(key) {
            Some(admission) => Ok(admission.permit(measured)),
            None => self.0.ask(&self.0.find(key), measured),
        }
    }

    /// Asks where the parent or the guard has a say.
    fn acquire_guarded(
        &self,
        key: &Key<'_>,
        parent: Option<&Circuit>,
        measured: bool,
    ) -> Result<Permit, Refused> {
        if let Some(parent) = parent {
            // Looked at first, so that a refusal of its moves no circuit below.
            parent.ready().map_err(|open| Refused { open: *open, by: parent.clone() })?;
        }
        // While closed it hears of no call: an operator was to be asked.
        let parent = parent.filter(|parent| parent.state() != State::Closed);
        let measured = measured || parent.is_some_and(Circuit::measures_latency);
        let circuit = if self.0.tally.refuses_all() {
            // A key that is new is no sign of health: it gets no circuit now.
            self.0.known(key).unwrap_or_else(|| self.0.shared.clone())
        } else {
            self.0.find(key)
        };
        let mut permit = self.0.ask(&circuit, measured)?;
        if let Some(parent) = parent {
            match parent.acquire(false) {
                Ok(other) => permit.join(other),
                Err(open) => {
                    permit.cancel();
                    return Err(Refused { open, by: parent.clone() });
                }
            }
        }
        Ok(permit)
    }
}

/// A refusal, and whose it is.
pub(super) struct Refused {
    pub(super) open: CircuitOpen,
    pub(super) by: Circuit,
}

impl Group {
    /// A key's circuit, made if need be, or the shared one.
    #[inline]
    fn find(&self, key: &Key<'_>) -> Circuit {
        match key.as_str() {
            Some(key) if key.len() <= KeyedCircuits::LONGEST_KEY => {
                let hash = self.map.hash(key);
                self.map.find(hash, key).unwrap_or_else(|| self.create(hash, key))
            }
            _ => self.shared.clone(),
        }
    }

    /// The first half of a permit, if the key's circuit is there and closed.
    #[inline]
    fn admission(&self, key: &Key<'_>) -> Option<Admission> {
        match key.as_str() {
            Some(key) if key.len() <= KeyedCircuits::LONGEST_KEY => {
                self.map.with(self.map.hash(key), key, Circuit::admission)?
            }
            _ => self.shared.admission(),
        }
    }

    /// The circuit a key has, which is thereby in use.
    fn known(&self, key: &Key<'_>) -> Option<Circuit> {
        let key = key.as_str()?;
        self.map.find(self.map.hash(key), key)
    }

    /// Asks a circuit, and the guard whether it is obeyed.
    fn ask(&self, circuit: &Circuit, measured: bool) -> Result<Permit, Refused> {
        if self.tally.beyond().is_some() {
            self.sweep_due();
        }
        let admitted = match self.tally.beyond() {
            Some(Beyond::FailOpen) => circuit.acquire_regardless(measured),
            Some(Beyond::FailClosed) if circuit.is_left_closed() => Err(circuit.turn_away()),
            Some(Beyond::FailClosed) | None => circuit.acquire(measured),
        };
        admitted.map_err(|open| Refused { open, by: circuit.clone() })
    }

    /// Makes a key's circuit, unless another thread has.
    #[cold]
    fn create(&self, hash: u64, key: &str) -> Circuit {
        let mut gone = Vec::new();
        let (circuit, late) = {
            let mut keeper = self.keeper();
            let circuit = self.create_within(&mut keeper, hash, key, &mut gone);
            (circuit, mem::take(&mut keeper.late))
        };
        // With the lock released: others are told of it.
        tell_left(gone);
        late.iter().for_each(Circuit::catch_up);
        match circuit {
            Some((circuit, is_new)) => {
                if is_new {
                    self.tally.tell_moved(None, Some(self.template.first_state()));
                }
                circuit
            }
            None => {
                self.tally.overflow();
                self.shared.clone()
            }
        }
    }

    /// A key's circuit and whether it is new; `None` if there is no room.
    fn create_within(
        &self,
        keeper: &mut Keeper,
        hash: u64,
        key: &str,
        gone: &mut Vec<Entry>,
    ) -> Option<(Circuit, bool)> {
        if let Some(circuit) = self.map.find(hash, key) {
            return Some((circuit, false));
        }
        let now = self.now();
        self.map.sweep_due(keeper, now, self.idle_for, gone);
        if keeper.len >= self.capacity {
            if self.tally.count(State::Closed) == 0 {
                return None;
            }
            gone.push(self.map.evict(keeper, now)?);
        }
        let key: Arc<str> = key.into();
        let first = self.template.first_state();
        let (member, watchers) = self.reports.member(&self.tally, first, &key);
        let config = self.template.clone().joining_after(now.time.elapsed());
        let circuit = Circuit::of_group(config, Some(Arc::clone(&key)), watchers);
        self.map.insert(keeper, Entry::new(hash, key, circuit.clone(), member, now.time));
        Some((circuit, true))
    }

    fn evict_idle(&self) -> usize {
        let mut gone = Vec::new();
        let late = {
            let mut keeper = self.keeper();
            self.map.sweep_all(&mut keeper, self.now(), self.idle_for, &mut gone);
            mem::take(&mut keeper.late)
        };
        let evicted = gone.len();
        tell_left(gone);
        late.iter().for_each(Circuit::catch_up);
        evicted
    }

    /// Evicts some of those that are idle, unless somebody else is at it.
    fn sweep_due(&self) {
        let mut gone = Vec::new();
        let mut late = Vec::new();
        if let Ok(mut keeper) = self.keeper.try_lock() {
            self.map.sweep_due(&mut keeper, self.now(), self.idle_for, &mut gone);
            late = mem::take(&mut keeper.late);
        }
        tell_left(gone);
        late.iter().for_each(Circuit::catch_up);
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let instant = self.template.clock().now();
        let time = Time::from_elapsed(instant.saturating_duration_since(self.born));
        Now { instant, time }
    }
}

/// Tells of evicted circuits, and drops them. Not under the keeper's lock.
fn tell_left(gone: Vec<Entry>) {
    gone.iter().for_each(|entry| entry.member.tell_left());
}

/// Whom the circuits of a group tell, besides the template's observers.
struct Reports {
    /// The group's.
    series: Series,
    others: Vec<Arc<dyn Observer>>,
    #[cfg(feature = "metrics")]
    labelled: bool,
    #[cfg(feature = "registry")]
    watching: Option<Watching>,
}

/// Makes an observer for one circuit of a group: for a key's, or for the shared
/// one.
#[cfg(feature = "registry")]
type Watch = dyn Fn(Option<&Arc<str>>) -> Arc<dyn Observer> + Send + Sync;

#[cfg(feature = "registry")]
#[derive(Clone)]
pub(crate) struct Watching(pub(crate) Arc<Watch>);

#[cfg(feature = "registry")]
impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watching")
    }
}

impl Reports {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    fn new(label_keys: bool, #[cfg(feature = "registry")] watching: Option<Watching>) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            series: Arc::new(crate::metrics::Metrics::of_group()).into(),
            #[cfg(not(feature = "metrics"))]
            series: Series::default(),
            others: crate::defaults::observers(),
            #[cfg(feature = "metrics")]
            labelled: label_keys,
            #[cfg(feature = "registry")]
            watching,
        }
    }

    /// The observers of the circuit of all who have none of their own.
    fn of_shared(&self) -> Watchers {
        #[cfg_attr(
            not(feature = "registry"),
            expect(unused_mut, reason = "only a registry adds to them")
        )]
        let mut observers = self.others.clone();
        #[cfg(feature = "registry")]
        observers.extend(self.watching.as_ref().map(|watching| (watching.0)(None)));
        Watchers { series: self.series.clone(), observers }
    }

    /// The observers of a new circuit, the first of which is its place in the
    /// tally.
    fn member(&self, tally: &Arc<Tally>, first: State, key: &Arc<str>) -> (Arc<Member>, Watchers) {
        #[cfg(feature = "metrics")]
        let series =
            self.labelled.then(|| Arc::new(crate::metrics::Metrics::of_key(Arc::clone(key))));
        #[cfg(not(any(feature = "metrics", feature = "registry")))]
        let _ = key;
        let mut observers = Vec::with_capacity(1 + self.others.len());
        let member = Arc::new(Member::join(
            tally,
            first,
            #[cfg(feature = "metrics")]
            series.clone(),
        ));
        observers.push(Arc::clone(&member) as Arc<dyn Observer>);
        observers.extend_from_slice(&self.others);
        #[cfg(feature = "registry")]
        observers.extend(self.watching.as_ref().map(|watching| (watching.0)(Some(key))));
        // Its own in place of the group's.
        #[cfg(feature = "metrics")]
        let series = series.map(Series::from);
        #[cfg(not(feature = "metrics"))]
        let series = None;
        let series = series.unwrap_or_else(|| self.series.clone());
        (member, Watchers { series, observers })
    }
}

impl fmt::Debug for KeyedCircuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuits")
            .field("name", &self.name())
            .field("keys", &self.len())
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

/// Builds [`KeyedCircuits`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedCircuitsBuilder {
    template: Config,
    capacity: u64,
    idle_for: Duration,
    minimum_keys: u64,
    max_open_share: Option<(f64, Beyond)>,
    parent: Option<(Circuit, Quorum)>,
    label_keys: bool,
    #[cfg(feature = "registry")]
    watching: Option<Watching>,
}

impl KeyedCircuitsBuilder {
    /// The name the group will have.
    #[cfg(feature = "registry")]
    pub(crate) fn name(&self) -> &str {
        self.template.name()
    }

    /// What the group's circuits will be made of.
    #[cfg(feature = "registry")]
    pub(crate) const fn template(&self) -> &Config {
        &self.template
    }

    /// Gives every circuit an observer of its own.
    #[cfg(feature = "registry")]
    pub(crate) fn watched(mut self, watching: Watching) -> Self {
        self.watching = Some(watching);
        self
    }

    /// Sets how many circuits there may be: 10,000 unless said, at most a
    /// million. One takes about 2.7 KB, 32 bytes
    /// for each processor (up to 16), and its key; and where threads on several
    /// processors call it 400 bytes more for each of these, or 700 with a slow
    /// rule.
    ///
    /// A new key beyond that takes the place of a closed circuit: of one that
    /// has seen no trouble, if there is any, and there of the one that is idle
    /// longest. Where none is closed it finds no room and goes by the
    /// [`shared`](KeyedCircuits::shared) circuit.
    pub fn capacity(mut self, keys: u64) -> Self {
        self.capacity = keys;
        self
    }

    /// Sets for how long a circuit may go unused before it may be evicted
    /// though there is room: 10 minutes unless said.
    ///
    /// One that is open goes too once its wait is over, so that a key that never
    /// comes back does not count as open for ever. One with a call under way, one
    /// that an operator has overridden, and one whose handle somebody holds stay.
    pub fn idle_for(mut self, duration: Duration) -> Self {
        self.idle_for = duration;
        self
    }

    /// Sets what share of the keys may be open. If more are, it is probably us
    /// or the network and not the keys, and `beyond` says what happens then.
    ///
    /// More means more: three of six are not above 0.5, compared exactly. One
    /// open key alone is always obeyed, and so is every key while there are
    /// fewer than [`minimum_keys`](Self::minimum_keys).
    ///
    /// ```
    /// use tower_breaker::{Beyond, Config, KeyedCircuits};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let circuits = KeyedCircuits::builder(Config::default())
    ///     .max_open_share(0.5, Beyond::FailOpen)
    ///     .build()?;
    /// for shard in 0_u64..6 {
    ///     circuits.get_or_create(shard);
    /// }
    /// (0_u64..3).for_each(|shard| circuits.get_or_create(shard).trip());
    /// assert!(circuits.try_acquire(0_u64).is_err());
    ///
    /// circuits.get_or_create(3_u64).trip();
    /// assert!(circuits.try_acquire(0_u64).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "max_ejection_percent")]
    #[doc(alias = "panic threshold")]
    pub fn max_open_share(mut self, share: f64, beyond: Beyond) -> Self {
        self.max_open_share = Some((share, beyond));
        self
    }

    /// Sets how many keys there must be before a share of them is known: 5
    /// unless said.
    pub fn minimum_keys(mut self, keys: u64) -> Self {
        self.minimum_keys = keys;
        self
    }

    /// Puts a circuit over all keys: a [`Config`], or a [`Circuit`] to share. It
    /// opens, if it is closed, when a key's circuit opens and that makes a
    /// quorum.
    ///
    /// While it is closed it hears of no call. It recovers by its own wait and
    /// probes, whose calls need a permit of their key's circuit too and settle
    /// both.
    pub fn parent(mut self, parent: impl Into<Circuit>, quorum: Quorum) -> Self {
        self.parent = Some((parent.into(), quorum));
        self
    }

    /// Gives every key its own series, with the label `key`, in place of the
    /// group's (feature `metrics`).
    ///
    /// Only for few keys that nobody else chooses: a series can't be taken back
    /// through the facade. At an eviction the key's gauges are set to those of a
    /// closed circuit; to have the series go, set the exporter's idle timeout.
    pub fn label_keys(mut self) -> Self {
        self.label_keys = true;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// If a value is out of its range, the parent has the group's name, or the
    /// template has a recorder, which records one circuit only.
    pub fn build(self) -> Result<KeyedCircuits, ConfigError> {
        let Self { capacity, idle_for, minimum_keys, template, .. } = self;
        if !(1..=MOST_KEYS).contains(&capacity) {
            let expected = format!("must be at least 1 and at most {MOST_KEYS}");
            return Err(ConfigError::new("capacity", capacity, expected));
        }
        if idle_for.is_zero() {
            return Err(ConfigError::new("idle_for", "0ns", "must be longer than zero"));
        }
        #[cfg(feature = "shadow")]
        if template.is_recorded() {
            let expected = "must be that of a single circuit, which is all it records";
            return Err(ConfigError::new("recorder", "of a group's template", expected));
        }
        let by_share = self.max_open_share.is_some()
            || self.parent.as_ref().is_some_and(|(_, quorum)| quorum.is_share());
        if by_share && !(1..=capacity).contains(&minimum_keys) {
            let expected = format!("must be at least 1 and at most the capacity of {capacity}");
            return Err(ConfigError::new("minimum_keys", minimum_keys, expected));
        }
        let guard = self
            .max_open_share
            .map(|(share, beyond)| Guard::new(share, beyond, minimum_keys))
            .transpose()?;
        let parent = self
            .parent
            .map(|(parent, quorum)| {
                if parent.name() == template.name() {
                    let expected = "must be another than the group's";
                    return Err(ConfigError::new("parent.name", parent.name(), expected));
                }
                Ok((parent, QuorumRule::new(quorum, minimum_keys, capacity)?))
            })
            .transpose()?;
        let name = template.name().into();
        let reports = Reports::new(
            self.label_keys,
            #[cfg(feature = "registry")]
            self.watching,
        );
        let shared = Circuit::of_group(template.clone(), None, reports.of_shared());
        // At most a million.
        let capacity = capacity as usize;
        let group = Arc::new(Group {
            born: template.clock().now(),
            map: Map::new(capacity),
            tally: Arc::new(Tally::new(&name, guard, parent)),
            shared,
            keeper: Mutex::default(),
            capacity,
            idle_for: nanos(idle_for),
            reports,
            template,
        });
        let weak = Arc::downgrade(&group);
        group.tally.sweep_with(move || {
            weak.upgrade().map(|group| group.evict_idle());
        });
        Ok(KeyedCircuits(group))
    }
}

/// A group at one instant, for a person or a page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedSnapshot {
    /// The group's name.
    pub name: String,
    /// Keys whose circuit is closed.
    pub closed: u64,
    /// Keys whose circuit is open.
    pub open: u64,
    /// Keys whose circuit is half-open.
    pub half_open: u64,
    /// How many keys there may be.
    pub capacity: u64,
    /// Circuits evicted so far.
    pub evicted: u64,
    /// Calls so far whose key was new and found no room.
    pub overflowed: u64,
    /// What the guard does, while more keys are open than may be.
    pub beyond: Option<Beyond>,
}
