//! The circuit: the pure machine behind one short lock, a clock, and a gate
//! that answers without the lock where it can.
//!
//! This floor has the only locks and atomics of the crate, and knows neither
//! Tower nor HTTP.
//!
//! # The gate
//!
//! One atomic word says what may be done without asking the machine: its three
//! low bits are the kind of [`Gate`], the rest is the generation. It is written
//! only under the lock, after the machine has changed. Admission on a closed
//! circuit is one load of it. A success whose generation matches a *clean*
//! gate (the window is full and holds nothing but good calls) would leave the
//! machine as it is, so it is only counted. A rejection needs the word and the
//! end of the wait, which is written before the word. While the circuit is open
//! only a reconfiguration changes it: to an earlier end, which a rejection may
//! miss by an instant.

mod circuit_open;
mod clock;
mod config;
#[cfg(feature = "shadow")]
mod following;
#[cfg(feature = "health-check")]
mod health_check;
#[cfg(feature = "keyed")]
mod keeping;
#[cfg(feature = "test-util")]
mod manual_clock;
mod observer;
mod pace;
mod permit;
#[cfg(feature = "shadow")]
mod recorder;
#[cfg(feature = "registry")]
mod registering;
mod saved;
#[cfg(feature = "shadow")]
mod shadow;
#[cfg(feature = "tokio")]
mod sleep;
mod snapshot;
mod steer;
mod sync;
#[cfg(feature = "tokio")]
mod waiter;

use std::{
    collections::{VecDeque, hash_map::RandomState},
    fmt,
    hash::{BuildHasher, Hasher},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

#[cfg(feature = "health-check")]
pub use self::health_check::HealthCheck;
#[cfg(feature = "keyed")]
pub(crate) use self::keeping::Standing;
#[cfg(feature = "test-util")]
pub use self::manual_clock::ManualClock;
#[cfg(feature = "shadow")]
pub(crate) use self::shadow::{Birth, Follower, ShadowObserver, Told};
#[cfg(feature = "tokio")]
pub(crate) use self::waiter::Waiter;
pub use self::{
    circuit_open::CircuitOpen,
    clock::Clock,
    config::{Config, ConfigBuilder},
    observer::{Call, Observer, Reconfigured, Transition},
    permit::{Permit, Reading},
    saved::Saved,
    snapshot::{Snapshot, WindowSnapshot},
    steer::{IfRevision, SteerError},
};
use self::{
    observer::Observers,
    pace::Pace,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};
#[cfg(feature = "shadow")]
pub use self::{
    recorder::Recorder,
    shadow::{Outcomes, Shadow, ShadowSnapshot, Unknown},
};
use crate::{
    cause::Cause,
    machine::{self, End, Fact, Facts, Gate, Machine, Rejection, Ticket, View},
    outcome::{CallEnd, FallbackEnd, Outcome},
    overrides::Override,
    start::Start,
    state::State,
    time::Time,
    totals::Totals,
};

/// A circuit breaker: a handle, cheap to clone; clones are the same circuit.
///
/// With Tower, a [`CircuitBreakerLayer`](crate::CircuitBreakerLayer) has one;
/// without, take permits from it yourself, from threads as well as tasks.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome, State};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let circuit = Circuit::new(Config::builder("inventory").consecutive_failures(3).build()?);
/// while let Ok(permit) = circuit.try_acquire() {
///     // Call the dependency. It fails:
///     permit.record(Outcome::Failure);
/// }
/// assert_eq!(circuit.state(), State::Open);
/// assert_eq!(circuit.snapshot().totals.failure, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Circuit(Arc<Shared>);

struct Shared {
    gate: Alone<AtomicU64>,
    /// Nanoseconds: when the wait of the last opening is over.
    open_until: AtomicU64,
    counters: Alone<Counters>,
    core: Mutex<Core>,
    name: Arc<str>,
    /// Which of its group it is.
    key: Option<Arc<str>>,
    clock: Clock,
    born: Instant,
    /// How long the state it was born in had lasted.
    inherited: Duration,
    observers: Observers,
    /// Those of them that hear of every call.
    call_observers: Observers,
    pace: Pace,
    #[cfg(feature = "health-check")]
    health_check: health_check::Running,
    #[cfg(feature = "shadow")]
    followers: Option<Box<following::Followers>>,
}

/// What is counted without the machine: by many at once, but mostly only one
/// of them at a time, so they share a cache line.
struct Counters {
    /// Successes that passed the clean gate.
    passed: AtomicU64,
    /// Rejections at the open one.
    rejected: AtomicU64,
    /// Fallbacks by how they ended.
    fallbacks: [AtomicU64; 3],
}

/// A cache line (two, where the processor fetches pairs) for one value.
#[repr(align(128))]
struct Alone<T>(T);

struct Core {
    machine: Machine,
    /// Whether every call is measured though no rule asks for it.
    measure_latency: bool,
    /// What the gate shows.
    published: u64,
    #[cfg(feature = "tokio")]
    wakers: waiter::Wakers,
    /// What happened and nobody was told of yet.
    untold: VecDeque<Fact>,
    /// Whether somebody is telling, so that there is one order.
    telling: bool,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(config: Config) -> Self {
        Self::of_group(config, None, crate::defaults::observers())
    }

    /// A circuit that is one of many, watched by `more` besides the observers of
    /// its configuration.
    pub(crate) fn of_group(
        config: Config,
        key: Option<Arc<str>>,
        more: Vec<Arc<dyn Observer>>,
    ) -> Self {
        Self::after(None, config, key, more)
    }

    /// A circuit, in the place of one that was saved.
    fn after(
        legacy: Option<saved::Legacy>,
        mut config: Config,
        key: Option<Arc<str>>,
        more: Vec<Arc<dyn Observer>>,
    ) -> Self {
        let born = config.clock.now();
        let seed = config.rules.open_for.seed_or(random_seed);
        #[cfg(feature = "shadow")]
        let followers = {
            let birth = Birth { at: born, clock: config.clock.clone(), seed };
            following::Followers::of(&mut config, &birth)
        };
        config.observers.0.extend(more);
        Self::assemble(
            config,
            key,
            born,
            seed,
            legacy,
            #[cfg(feature = "shadow")]
            followers,
        )
    }

    /// A circuit with no more observers than it is given.
    fn assemble(
        config: Config,
        key: Option<Arc<str>>,
        born: Instant,
        seed: u64,
        legacy: Option<saved::Legacy>,
        #[cfg(feature = "shadow")] followers: Option<Box<following::Followers>>,
    ) -> Self {
        #[cfg(feature = "shadow")]
        let is_followed = followers.is_some();
        #[cfg(not(feature = "shadow"))]
        let is_followed = false;
        let Config { name, rules, clock, observers, measure_latency, .. } = config;
        let call_observers = observers.hearing_calls();
        let pace = Pace::new(&rules, measure_latency || is_followed);
        let start = rules.start;
        let mut machine = Machine::new(rules, seed);
        let mut facts = Facts::default();
        let mut inherited = Duration::ZERO;
        let mut fallbacks = [0; 3];
        if let Some(legacy) = legacy {
            (inherited, fallbacks) = (legacy.state_for, legacy.fallbacks);
            machine.inherit(legacy.of_machine, &mut facts);
        } else if let Start::ObserveOnly(duration) = start {
            let over = Override::observe_only().reason("it starts observed").expires_in(duration);
            machine.set_override(over, Time::ZERO, &mut facts);
        }
        let open_until = match machine.gate() {
            Gate::Open { until } => until.as_nanos(),
            _ => 0,
        };
        let gate = word(machine.generation(), machine.gate());
        let core = Core {
            machine,
            measure_latency,
            published: gate,
            #[cfg(feature = "tokio")]
            wakers: waiter::Wakers::default(),
            // Told at the first call: a recorder may be installed by then.
            untold: facts.happened.into(),
            telling: false,
        };
        Self(Arc::new(Shared {
            gate: Alone(AtomicU64::new(gate)),
            open_until: AtomicU64::new(open_until),
            counters: Alone(Counters {
                passed: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
                fallbacks: fallbacks.map(AtomicU64::new),
            }),
            core: Mutex::new(core),
            name,
            key,
            clock,
            born,
            inherited,
            observers,
            call_observers,
            pace,
            #[cfg(feature = "health-check")]
            health_check: health_check::Running::none(),
            #[cfg(feature = "shadow")]
            followers,
        }))
    }

    /// The name it was configured with.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The key it stands for, if it is one of a group: see `KeyedCircuits`
    /// (feature `keyed`).
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The state the machine has decided on, whatever an operator laid over
    /// it.
    ///
    /// Reading changes nothing. Open turns into half-open when a call is
    /// admitted, not before.
    pub fn state(&self) -> State {
        match self.0.gate.0.load(Ordering::Acquire) {
            gate if looks_closed(gate) => State::Closed,
            gate if gate & KIND == OPEN => State::Open,
            _ => self.0.lock().machine.view(self.now()).state,
        }
    }

    /// The circuit at this instant. Changes nothing.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.now();
        let (view, window) = {
            let core = self.0.lock();
            let view = core.machine.view(now);
            let rules = core.machine.rules();
            let judges_slow = rules.slow_calls.is_some();
            let window = WindowSnapshot::new(view.window, rules.minimum_calls, judges_slow);
            (view.clone(), WindowSnapshot { overdue: view.overdue, ..window })
        };
        let totals = self.0.counters.0.add_to(view.totals);
        Snapshot {
            name: self.0.name.to_string(),
            key: self.0.key.as_deref().map(str::to_owned),
            state: view.state,
            generation: view.generation,
            revision: view.revision,
            at: self.0.instant(now),
            since: self.0.began(&view),
            retry_after: view.retry_after,
            cause: view.cause,
            window,
            probes: view.probes,
            admitted_share: view.admitted_share,
            awaits_health_check: view.awaits_health_check,
            totals,
            active_override: view.active_override,
        }
    }

    /// Asks for the right to one call. Never waits.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] while the circuit is open, while it is half-open with no
    /// probe left, and while an operator holds it open; and for a share of the
    /// calls, while it is led up its [ramp](ConfigBuilder::ramp) or
    /// [throttles](ConfigBuilder::throttle).
    #[doc(alias = "tryAcquirePermission")]
    pub fn try_acquire(&self) -> Result<Permit, CircuitOpen> {
        self.acquire(false)
    }

    /// Opens it, as if a rule had been met: from half-open the wait grows as
    /// after a failed probe; an open one stays as it is.
    ///
    /// ```
    /// use tower_breaker::{Circuit, Config, State};
    ///
    /// let circuit = Circuit::new(Config::default());
    /// circuit.trip();
    /// assert_eq!(circuit.state(), State::Open);
    ///
    /// circuit.reset();
    /// assert_eq!(circuit.state(), State::Closed);
    /// ```
    pub fn trip(&self) {
        self.update(|machine, now, facts| machine.trip(Cause::Tripped, now, facts));
    }

    /// Closes it, with everything empty and the wait at its first step. Calls
    /// in flight will change nothing. Overrides and totals stay.
    pub fn reset(&self) {
        self.update(Machine::reset);
    }

    /// Ends the wait of an open circuit, if need be before its
    /// [health check](Self) has passed: the next calls are probes.
    ///
    /// # Errors
    ///
    /// [`SteerError::NotOpen`], if it is not open: a closed circuit has nothing
    /// to probe.
    pub fn end_wait(&self) -> Result<(), SteerError> {
        self.if_revision(None).end_wait().map(|_| ())
    }

    /// Lays an operator's decision over the machine's, in place of the one
    /// there was.
    pub fn set_override(&self, over: Override) {
        self.update(|machine, now, facts| machine.set_override(over, now, facts));
    }

    /// Lifts the override, if there is one: the machine decides again.
    pub fn clear_override(&self) {
        self.update(Machine::clear_override);
    }

    /// Whether somebody else needs its calls measured.
    fn is_followed(&self) -> bool {
        #[cfg(feature = "shadow")]
        return self.followers().is_some();
        #[cfg(not(feature = "shadow"))]
        return false;
    }

    /// The candidates that watch its calls, in the order of
    /// [`ConfigBuilder::shadow`].
    #[cfg(feature = "shadow")]
    pub fn shadows(&self) -> &[Shadow] {
        self.followers().map_or(&[], following::Followers::shadows)
    }

    /// Asks for the right to one call, which is measured if `measured` or if
    /// the circuit needs it.
    #[inline]
    pub(crate) fn acquire(&self, measured: bool) -> Result<Permit, CircuitOpen> {
        let gate = self.0.gate.0.load(Ordering::Acquire);
        if is_closed(gate) {
            Ok(self.clone().pass(gate, measured))
        } else {
            self.ask(gate, measured)
        }
    }

    /// A permit by a gate that lets everybody in.
    #[inline]
    fn pass(self, gate: u64, measured: bool) -> Permit {
        let ticket = Ticket::call(gate >> KIND_BITS);
        let started = (measured || self.0.pace.measures_latency()).then(|| self.instant());
        Permit::new(self, ticket, started)
    }

    /// Asks where the gate did not answer, unless it did: it may be open.
    fn ask(&self, gate: u64, measured: bool) -> Result<Permit, CircuitOpen> {
        if gate & KIND == OPEN {
            if let Err(rejection) = self.pass_open_gate() {
                self.0.counters.0.rejected.fetch_add(1, Ordering::Relaxed);
                return Err(self.refuse(rejection));
            }
        }
        self.ask_machine(true, measured)
    }

    /// Asks the machine, obeyed or not.
    fn ask_machine(&self, obeyed: bool, measured: bool) -> Result<Permit, CircuitOpen> {
        let (now, admitted) =
            self.update(|machine, now, facts| (now, machine.acquire(obeyed, now, facts)));
        match admitted {
            Ok(ticket) => {
                let measured = measured || self.0.pace.measures_latency();
                let started = measured.then(|| self.0.instant(now));
                Ok(Permit::new(self.clone(), ticket, started))
            }
            Err(rejection) => Err(self.refuse(rejection)),
        }
    }

    /// Asks for the right to a call that begins at `at`. Nobody follows it.
    #[cfg(feature = "shadow")]
    fn acquire_at(&self, at: Instant) -> Result<Permit, CircuitOpen> {
        let now = self.time(at);
        match self.update_at(now, |core, now, facts| core.machine.acquire(true, now, facts)) {
            Ok(ticket) => Ok(Permit::new(self.clone(), ticket, Some(at))),
            Err(rejection) => Err(self.refuse(rejection)),
        }
    }

    /// Whether a permit would be granted at `at`.
    #[cfg(feature = "shadow")]
    fn admits_at(&self, at: Instant) -> bool {
        let now = self.time(at);
        self.update_at(now, |core, now, facts| core.machine.look(now, facts)).is_ok()
    }

    /// Whether a permit would be granted now, without taking one. The refusal
    /// is counted and told of.
    #[inline]
    pub(crate) fn ready(&self) -> Result<(), CircuitOpen> {
        match self.look(true) {
            Ok(()) => Ok(()),
            Err(rejection) => Err(self.refuse(rejection)),
        }
    }

    /// Whether a permit would be granted now. A refusal is not counted: see
    /// [`refuse_deferred`](Self::refuse_deferred).
    #[inline]
    pub(crate) fn look_ahead(&self) -> Result<(), Rejection> {
        self.look(false)
    }

    /// Looks ahead for a caller that the inner service keeps waiting: it may be
    /// stuck behind calls that hang.
    #[cfg(feature = "tokio")]
    pub(crate) fn look_for_hangs(&self) -> Result<(), Rejection> {
        match self.0.gate.0.load(Ordering::Acquire) {
            gate if is_closed(gate) => Ok(()),
            gate => self.look_closer(gate, false),
        }
    }

    /// Refuses a call whose refusal was seen ahead, in today's terms if there
    /// still is reason to.
    pub(crate) fn refuse_deferred(&self, ahead: Rejection) -> CircuitOpen {
        let rejection = match self.look(true) {
            Ok(()) => {
                self.0.counters.0.rejected.fetch_add(1, Ordering::Relaxed);
                Rejection { retry_after: Some(Duration::ZERO), ..ahead }
            }
            Err(rejection) => rejection,
        };
        self.refuse(rejection)
    }

    /// Whether a permit would be granted now; if not, the task is registered
    /// before anything can change, and what is returned is its key and when
    /// to come back unasked. It asks again then, and not each time it is polled:
    /// `back` is what it was told before.
    #[cfg(feature = "tokio")]
    fn look_or_register(
        &self,
        key: Option<u64>,
        back: Option<Instant>,
        waker: std::task::Waker,
    ) -> Result<(), (u64, Option<Instant>)> {
        if looks_closed(self.0.gate.0.load(Ordering::Acquire)) {
            return Ok(());
        }
        let refused = self.update_core(|core, now, facts| {
            core.machine.look(now, facts).map_err(|rejection| {
                let earlier = back.filter(|back| self.0.instant(now) < *back);
                if earlier.is_none() {
                    core.machine.pass_over();
                }
                let back = rejection.retry_after.map(|wait| self.0.instant(now.after(wait)));
                let back = back.map(|back| earlier.map_or(back, |earlier| earlier.min(back)));
                (core.wakers.register(key, waker), back)
            })
        });
        // The waker that was replaced is dropped here, outside the lock.
        refused.map_err(|((key, _replaced), back)| (key, back))
    }

    /// Registers a task to be woken at the next change.
    #[cfg(feature = "tokio")]
    fn register(&self, key: Option<u64>, waker: std::task::Waker) -> u64 {
        let (key, replaced) = self.0.lock().wakers.register(key, waker);
        // Outside the lock: it may be the last of its task.
        drop(replaced);
        key
    }

    #[cfg(feature = "tokio")]
    fn forget_waiter(&self, key: u64) {
        let removed = self.0.lock().wakers.remove(key);
        // Outside the lock: it may be the last of its task.
        drop(removed);
    }

    #[cfg(feature = "tokio")]
    fn sleep_until(&self, deadline: Instant) -> sleep::Sleep {
        self.0.clock.sleep_until(deadline)
    }

    #[inline]
    fn look(&self, counted: bool) -> Result<(), Rejection> {
        let gate = self.0.gate.0.load(Ordering::Acquire);
        if looks_closed(gate) { Ok(()) } else { self.look_closer(gate, counted) }
    }

    #[cold]
    fn look_closer(&self, gate: u64, counted: bool) -> Result<(), Rejection> {
        if gate & KIND == OPEN {
            if let Err(rejection) = self.pass_open_gate() {
                if counted {
                    self.0.counters.0.rejected.fetch_add(1, Ordering::Relaxed);
                }
                return Err(rejection);
            }
        }
        self.update(|machine, now, facts| {
            machine.look(now, facts).inspect_err(|_| {
                if counted {
                    machine.count_rejection();
                }
            })
        })
    }

    /// Whether the wait of an open gate, just seen, is over.
    fn pass_open_gate(&self) -> Result<(), Rejection> {
        let now = self.now();
        let until = Time::from_nanos(self.0.open_until.load(Ordering::Acquire));
        if now >= until {
            return Ok(());
        }
        let retry_after = Some(until.since(now));
        Err(Rejection { state: State::Open, percent: None, retry_after })
    }

    fn refuse(&self, rejection: Rejection) -> CircuitOpen {
        let open = CircuitOpen::new(Arc::clone(&self.0.name), self.0.key.clone(), rejection);
        #[cfg(feature = "shadow")]
        if let Some(followers) = self.followers() {
            followers.refused(self.instant());
        }
        self.0.observers.tell(|observer| observer.on_rejection(&open));
        open
    }

    /// Counts what a fallback came to.
    pub(crate) fn fell_back(&self, end: FallbackEnd) {
        self.0.counters.0.fallbacks[end as usize].fetch_add(1, Ordering::Relaxed);
        self.0.observers.tell(|observer| observer.on_fallback(&self.0.name, end));
    }

    /// Takes a permit back.
    #[inline]
    fn settle(&self, ticket: Ticket, outcome: Option<Outcome>, reading: Reading) {
        let Reading { latency, now } = reading;
        let shared = &*self.0;
        let is_long = latency.is_some_and(|latency| shared.pace.is_slow(latency));
        let judged = outcome.is_some() || shared.pace.judges_drops();
        let end = End { outcome, slow: judged && is_long };
        let good = outcome == Some(Outcome::Success) && !end.slow && ticket.is_call();
        if good && self.is_clean_in(ticket.generation) {
            shared.counters.0.passed.fetch_add(1, Ordering::Relaxed);
            shared.tell_call(CallEnd::Success, false, latency);
        } else {
            self.record(ticket, end, latency, now);
        }
    }

    /// Takes a permit back where the machine has to hear of it.
    fn record(&self, ticket: Ticket, end: End, latency: Option<Duration>, now: Option<Instant>) {
        let now = self.time(now.unwrap_or_else(|| self.instant()));
        let counted =
            self.update_at(now, |core, now, facts| core.machine.record(ticket, end, now, facts));
        if let Some(counted) = counted {
            let slow = end.is_slow() && counted != CallEnd::Stale;
            self.0.tell_call(counted, slow, latency);
        }
    }

    /// The dependency asked this call to stay away for so long.
    fn hint(&self, ticket: &Ticket, retry_after: Duration, at: Instant) {
        let now = self.time(at);
        self.update_at(now, |core, now, facts| core.machine.hint(ticket, retry_after, now, facts));
    }

    #[cfg(feature = "shadow")]
    #[inline]
    fn followers(&self) -> Option<&following::Followers> {
        self.0.followers.as_deref()
    }

    /// The call goes on, but its age says nothing any more.
    #[cfg(any(feature = "http", feature = "shadow"))]
    fn untrack(&self, ticket: &Ticket) {
        if ticket.is_tracked() {
            self.update(|machine, _, _| machine.untrack(ticket));
        }
    }

    #[inline]
    fn is_clean_in(&self, generation: u64) -> bool {
        self.0.gate.0.load(Ordering::Acquire) == word(generation, Gate::Clean)
    }

    #[inline]
    fn instant(&self) -> Instant {
        self.0.clock.now()
    }

    /// An instant in the circuit's own time.
    fn time(&self, instant: Instant) -> Time {
        Time::from_elapsed(instant.saturating_duration_since(self.0.born))
    }

    fn now(&self) -> Time {
        self.time(self.instant())
    }

    fn update<R>(&self, change: impl FnOnce(&mut Machine, Time, &mut Facts) -> R) -> R {
        self.update_core(|core, now, facts| change(&mut core.machine, now, facts))
    }

    fn update_core<R>(&self, change: impl FnOnce(&mut Core, Time, &mut Facts) -> R) -> R {
        self.update_at(self.now(), change)
    }

    /// Changes the machine; then, with the lock released, wakes those who wait
    /// and tells those who watch.
    fn update_at<R>(&self, now: Time, change: impl FnOnce(&mut Core, Time, &mut Facts) -> R) -> R {
        let shared = &*self.0;
        let mut facts = Facts::default();
        let mut core = shared.lock();
        let result = change(&mut core, now, &mut facts);
        shared.publish(&mut core);
        if facts.wake || !facts.happened.is_empty() || !core.untold.is_empty() {
            self.announce(core, facts);
        }
        result
    }

    /// Releases the lock, then wakes and tells.
    #[cold]
    fn announce(&self, mut core: MutexGuard<'_, Core>, facts: Facts) {
        let shared = &*self.0;
        #[cfg(feature = "tokio")]
        let woken = if facts.wake { core.wakers.take() } else { Vec::new() };
        // Only what has an order waits for a teller. The rest comes once a call,
        // and would pile up behind a slow observer.
        let watched = !facts.happened.is_empty() && !shared.observers.is_empty();
        let happened = if watched { facts.happened } else { Vec::new() };
        let (ordered, direct): (Vec<_>, Vec<_>) =
            happened.into_iter().partition(Fact::has_an_order);
        for fact in ordered {
            // Of a share only the latest is news, and it may change once a call.
            if let (Fact::Share { .. }, Some(Fact::Share { .. })) = (&fact, core.untold.back()) {
                core.untold.pop_back();
            }
            core.untold.push_back(fact);
        }
        let has_untold = !core.untold.is_empty();
        drop(core);
        #[cfg(feature = "tokio")]
        woken.into_iter().for_each(std::task::Waker::wake);
        direct.into_iter().for_each(|fact| shared.tell_apart(fact));
        if has_untold {
            self.tell();
        }
    }

    /// Tells the observers what they have not been told. One thread at a time
    /// does, so that there is one order; the others leave it their facts.
    fn tell(&self) {
        let shared = &*self.0;
        let mut core = shared.lock();
        if core.telling {
            return;
        }
        core.telling = true;
        while let Some(fact) = core.untold.pop_front() {
            drop(core);
            shared.tell(fact);
            core = shared.lock();
        }
        core.telling = false;
    }
}

impl Counters {
    fn add_to(&self, mut totals: Totals) -> Totals {
        totals.success += self.passed.load(Ordering::Relaxed);
        totals.rejected += self.rejected.load(Ordering::Relaxed);
        let fallbacks = |end| self.fallbacks[end as usize].load(Ordering::Relaxed);
        totals.fallback_answered = fallbacks(FallbackEnd::Answered);
        totals.fallback_failed = fallbacks(FallbackEnd::Failed);
        totals.fallback_cancelled = fallbacks(FallbackEnd::Cancelled);
        totals
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing in there panics half-way; what a panic elsewhere poisoned is
        // whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the gate what the machine has become.
    fn publish(&self, core: &mut Core) {
        let gate = core.machine.gate();
        let word = word(core.machine.generation(), gate);
        // Written only when it changes: every call reads its cache line.
        if core.published == word {
            return;
        }
        core.published = word;
        if let Gate::Open { until } = gate {
            self.open_until.store(until.as_nanos(), Ordering::Release);
        }
        self.gate.0.store(word, Ordering::Release);
    }

    #[inline]
    fn tell_call(&self, end: CallEnd, slow: bool, latency: Option<Duration>) {
        if self.call_observers.is_empty() {
            return;
        }
        let key = self.key.as_deref();
        let call = Call { circuit: &self.name, key, end, slow, latency };
        self.call_observers.tell(|observer| observer.on_call(&call));
    }

    fn tell(&self, fact: Fact) {
        let name = &*self.name;
        match fact {
            Fact::Transition(transition) => {
                let machine::Transition { minimum_calls, judges_slow, .. } = transition;
                let transition = Transition {
                    circuit: Arc::clone(&self.name),
                    key: self.key.clone(),
                    from: transition.from,
                    to: transition.to,
                    cause: transition.cause,
                    generation: transition.generation,
                    at: self.instant(transition.at),
                    window: WindowSnapshot::new(transition.window, minimum_calls, judges_slow),
                    open_for: transition.wait,
                };
                self.observers.tell(|observer| observer.on_transition(&transition));
            }
            Fact::Override { set } => {
                self.observers.tell(|observer| observer.on_override(name, set.as_ref()));
            }
            Fact::Reconfigured(machine::Reconfigured { changes, revision, at }) => {
                let (circuit, key) = (Arc::clone(&self.name), self.key.clone());
                let at = self.instant(at);
                let reconfigured = Reconfigured { circuit, key, revision, at, changes };
                self.observers.tell(|observer| observer.on_reconfigured(&reconfigured));
            }
            Fact::Share { percent } => {
                let share = f64::from(percent) / 100.0;
                self.observers.tell(|observer| observer.on_admitted_share(name, share));
            }
            apart @ (Fact::Lapsed { .. } | Fact::WouldReject) => self.tell_apart(apart),
        }
    }

    #[cfg(feature = "health-check")]
    fn tell_health_check(&self, passed: bool) {
        self.observers.tell(|observer| observer.on_health_check(&self.name, passed));
    }

    /// Tells what has no order.
    fn tell_apart(&self, fact: Fact) {
        match fact {
            Fact::Lapsed { probes } => {
                (0..probes).for_each(|_| self.tell_call(CallEnd::Failure, false, None));
            }
            Fact::WouldReject => {
                self.observers.tell(|observer| observer.on_would_reject(&self.name));
            }
            _in_order => {}
        }
    }

    /// When a state began: that of birth may have begun before.
    fn began(&self, view: &View) -> Instant {
        let began = self.instant(view.since);
        match view.generation {
            0 => began.checked_sub(self.inherited).unwrap_or(began),
            _ => began,
        }
    }

    fn instant(&self, time: Time) -> Instant {
        clock::add(self.born, time.elapsed())
    }
}

/// The machine knows no features: what only a feature uses is named here.
#[cfg(not(feature = "health-check"))]
const _: () = {
    use crate::machine::Due;
    let _ = (Machine::hold, Machine::release, Machine::check_due, Machine::health_checked);
    let _ = |due| matches!(due, Due::At { generation: 0, at: Time::ZERO });
};

fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

const KIND_BITS: u32 = 3;
const KIND: u64 = (1 << KIND_BITS) - 1;
const ASK: u64 = 0;
const CLOSED: u64 = 1;
const CLEAN: u64 = 2;
const OPEN: u64 = 3;
const TRACKING: u64 = 4;

/// Whether a gate lets everybody in.
const fn is_closed(gate: u64) -> bool {
    matches!(gate & KIND, CLOSED | CLEAN)
}

/// Whether a gate lets everybody go on as far as the call, where the machine
/// is asked.
const fn looks_closed(gate: u64) -> bool {
    matches!(gate & KIND, CLOSED | CLEAN | TRACKING)
}

const fn word(generation: u64, gate: Gate) -> u64 {
    let kind = match gate {
        Gate::Ask => ASK,
        Gate::Closed => CLOSED,
        Gate::Clean => CLEAN,
        Gate::Open { .. } => OPEN,
        Gate::Tracking => TRACKING,
    };
    generation << KIND_BITS | kind
}

impl From<Config> for Circuit {
    fn from(config: Config) -> Self {
        Self::new(config)
    }
}

impl From<&Circuit> for Circuit {
    fn from(circuit: &Circuit) -> Self {
        circuit.clone()
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("name", &self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
