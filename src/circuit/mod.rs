//! The circuit: the pure machine behind one short lock, a clock, and a gate
//! that answers without the lock where it can.
//!
//! This floor has the only locks and atomics of the crate, and knows neither
//! Tower nor HTTP.

mod circuit_open;
mod clock;
mod config;
#[cfg(feature = "fast-clock")]
mod fast_clock;
mod flights;
#[cfg(feature = "shadow")]
mod following;
mod gate;
#[cfg(feature = "health-check")]
mod health_check;
#[cfg(all(test, feature = "test-util", not(tower_breaker_loom)))]
mod healthy_path;
#[cfg(feature = "keyed")]
mod keeping;
mod lane;
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
mod shared;
#[cfg(feature = "tokio")]
mod sleep;
mod snapshot;
mod steer;
pub(crate) mod sync;
mod tally;
#[cfg(feature = "tokio")]
mod waiter;

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::circuit_open::chain;
#[cfg(feature = "health-check")]
pub use self::health_check::HealthCheck;
#[cfg(feature = "keyed")]
pub(crate) use self::keeping::{Admission, Standing};
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
    gate::{GateWord, Word},
    lane::{AllCounters, Lanes},
    pace::{Pace, Timing},
    permit::Started,
    shared::{Alone, Core, Shared},
    sync::{AtomicU64, Mutex, Ordering},
};
#[cfg(feature = "shadow")]
pub use self::{
    recorder::Recorder,
    shadow::{Outcomes, Shadow, ShadowSnapshot, Unknown},
};
use crate::{
    cause::Cause,
    defaults::Watchers,
    machine::{Facts, Gate, Machine, Rejection, Ticket},
    outcome::FallbackEnd,
    overrides::Override,
    start::Start,
    state::State,
    time::Time,
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
pub struct Circuit(Arc<Lanes>);

impl Circuit {
    /// A closed circuit.
    pub fn new(config: Config) -> Self {
        Self::of_group(config, None, Watchers::of_circuit())
    }

    /// A circuit that is one of many, watched by these besides the observers of
    /// its configuration.
    pub(crate) fn of_group(config: Config, key: Option<Arc<str>>, watchers: Watchers) -> Self {
        Self::after(None, config, key, watchers)
    }

    /// A circuit, in the place of one that was saved.
    fn after(
        legacy: Option<saved::Legacy>,
        mut config: Config,
        key: Option<Arc<str>>,
        watchers: Watchers,
    ) -> Self {
        let born = config.clock.now();
        let seed = config.rules.open_for.seed_or(random_seed);
        #[cfg(feature = "shadow")]
        let followers = {
            let birth = Birth { at: born, clock: config.clock.clone(), seed };
            following::Followers::of(&mut config, &birth)
        };
        config.observers.series = watchers.series;
        config.observers.others.extend(watchers.observers);
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
        let samples = observers.take_samples();
        let pace = Pace::new(&rules, measure_latency || is_followed, samples);
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
            machine.start_under(over, &mut facts);
        }
        observers.series.begin_in(machine.state());
        let (until, tally_until) = match machine.gate() {
            Gate::Open { until } => (until, Time::ZERO),
            Gate::Tally { until } => (Time::ZERO, until),
            _ => (Time::ZERO, Time::ZERO),
        };
        let gate = Word::new(machine.generation(), machine.gate(), machine.watches_calls());
        let look_at = flights::look_at(machine.rules(), Time::ZERO);
        let core = Core {
            machine,
            measure_latency,
            published: gate,
            look_at,
            #[cfg(feature = "tokio")]
            wakers: waiter::Wakers::default(),
            // Told at the first call: a recorder may be installed by then.
            untold: facts.happened.into(),
            telling: false,
        };
        let shared = Shared {
            gate: Alone(GateWord::new(gate, look_at)),
            until: AtomicU64::new(until.as_nanos()),
            // None is born half-open.
            full_until: AtomicU64::new(0),
            tally_until: AtomicU64::new(tally_until.as_nanos()),
            counters: AllCounters::new(),
            fallbacks: fallbacks.map(AtomicU64::new),
            core: Mutex::new(core),
            name,
            key,
            #[cfg(feature = "fast-clock")]
            born_fast: clock.as_fast().map_or(0, |clock| clock.nanos(born)),
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
        };
        Self(Lanes::of(Arc::new(shared)))
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
    /// admitted, or somebody ends the wait by hand or by a health check, not
    /// before.
    pub fn state(&self) -> State {
        match self.0.gate.0.load() {
            gate if gate.looks_closed() => State::Closed,
            gate if gate.is_open() => State::Open,
            _ => self.0.lock().machine.view(self.0.now()).state,
        }
    }

    /// The circuit at this instant. Changes nothing.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.0.now();
        let (view, window) = {
            let mut core = self.0.lock();
            self.0.take_tallies(&mut core);
            let view = core.machine.view(now);
            let rules = core.machine.rules();
            let judges_slow = rules.slow_calls.is_some();
            let window = WindowSnapshot::new(view.window, rules.minimum_calls, judges_slow);
            let overdue = view.overdue + self.0.overdue_unheard_of(&core, view.generation, now);
            (view, WindowSnapshot { overdue, ..window })
        };
        let totals = self.0.add_to(view.totals);
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
            overridden_since: view.overridden.map(|(laid, before)| {
                let laid = self.0.instant(laid);
                laid.checked_sub(before).unwrap_or(laid)
            }),
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
        self.0.update(|machine, now, facts| machine.trip(Cause::Tripped, now, facts));
    }

    /// Closes it, with everything empty and the wait at its first step. Calls
    /// in flight will change nothing. Overrides and totals stay.
    pub fn reset(&self) {
        self.0.update(Machine::reset);
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
        self.0.update(|machine, now, facts| machine.set_override(over, now, facts));
    }

    /// Lifts the override, if there is one: the machine decides again.
    pub fn clear_override(&self) {
        self.0.update(Machine::clear_override);
    }

    /// Whether somebody else needs its calls measured.
    fn is_followed(&self) -> bool {
        #[cfg(feature = "shadow")]
        return self.0.followers().is_some();
        #[cfg(not(feature = "shadow"))]
        return false;
    }

    /// The candidates that watch its calls, in the order of
    /// [`ConfigBuilder::shadow`].
    #[cfg(feature = "shadow")]
    pub fn shadows(&self) -> &[Shadow] {
        self.0.followers().map_or(&[], following::Followers::shadows)
    }

    /// Asks for the right to one call, which is measured if `measured` or if
    /// the circuit needs it.
    #[inline]
    pub(crate) fn acquire(&self, measured: bool) -> Result<Permit, CircuitOpen> {
        match self.pass(measured) {
            Some(permit) => Ok(permit),
            None => self.ask(measured),
        }
    }

    /// A permit, if the gate lets everybody in.
    #[inline(always)]
    pub(crate) fn pass(&self, measured: bool) -> Option<Permit> {
        let gate = self.0.gate.0.load();
        if gate.is_closed() {
            Some(self.0.lane().permit(&self.0, gate.generation(), measured))
        } else {
            None
        }
    }

    /// Asks where the gate does not let everybody in.
    #[inline]
    pub(crate) fn ask(&self, measured: bool) -> Result<Permit, CircuitOpen> {
        let gate = self.0.gate.0.load();
        if gate.is_closed_to_the_watched() {
            if let Some(permit) = self.pass_watched() {
                return Ok(permit);
            }
        }
        self.ask_beyond(gate, measured)
    }

    #[inline(never)]
    fn ask_beyond(&self, gate: Word, measured: bool) -> Result<Permit, CircuitOpen> {
        if let Some((state, left)) = self.left_at(gate) {
            self.reject();
            return Err(self.refuse_as(|refusal| refusal.waiting(state, left)));
        }
        self.ask_machine(true, measured)
    }

    /// Asks the machine, obeyed or not.
    fn ask_machine(&self, obeyed: bool, measured: bool) -> Result<Permit, CircuitOpen> {
        self.ask_machine_at(self.0.now(), obeyed, measured)
    }

    fn ask_machine_at(
        &self,
        now: Time,
        obeyed: bool,
        measured: bool,
    ) -> Result<Permit, CircuitOpen> {
        let lane = self.0.lane();
        let admitted = self.0.update_at(now, |core, now, facts| {
            let ticket = core.machine.acquire(obeyed, now, facts)?;
            Ok(lane.counters.placed(ticket, now))
        });
        match admitted {
            Ok(ticket) => {
                let (ticket, started) = match self.0.pace.timing(measured, &lane.counters) {
                    Timing::Yes => (ticket, Started::At(now)),
                    Timing::Sampled if ticket.is_call() => {
                        (Ticket::sample(ticket.generation), Started::At(now))
                    }
                    Timing::Sampled | Timing::No => (ticket, Started::Untimed),
                };
                Ok(Permit::new(Arc::clone(lane), ticket, started))
            }
            Err(rejection) => Err(self.refuse(rejection)),
        }
    }

    /// Asks for the right to a call that begins `now`. Nobody follows it.
    #[cfg(feature = "shadow")]
    fn acquire_at(&self, now: Time) -> Result<Permit, CircuitOpen> {
        self.ask_machine_at(now, true, true)
    }

    /// Whether a permit would be granted `now`; if not, that was a call that asked.
    #[cfg(feature = "shadow")]
    fn asks_at(&self, now: Time) -> bool {
        self.0.update_at(now, |core, now, facts| {
            let is_admitted = core.machine.look(now, facts).is_ok();
            if !is_admitted {
                core.machine.pass_over();
            }
            is_admitted
        })
    }

    /// Whether everybody goes on as far as the call.
    #[inline]
    pub(crate) fn looks_closed(&self) -> bool {
        self.0.gate.0.load().looks_closed()
    }

    /// Whether a permit would be granted now, without taking one. The refusal
    /// is counted and told of.
    #[inline]
    pub(crate) fn ready(&self) -> Result<(), Box<CircuitOpen>> {
        let gate = self.0.gate.0.load();
        if gate.looks_closed() { Ok(()) } else { self.ready_beyond(gate) }
    }

    #[inline(never)]
    fn ready_beyond(&self, gate: Word) -> Result<(), Box<CircuitOpen>> {
        if let Some((state, left)) = self.left_at(gate) {
            // Copied from box to box: made anywhere else it would be moved.
            let mut open = Box::clone(self.reject());
            open.wait(state, left);
            self.0.tell_refusal(&open);
            return Err(open);
        }
        self.look_with_machine(true).map_err(|rejection| Box::new(self.refuse(rejection)))
    }

    /// Whether a permit would be granted now. A refusal is not counted: see
    /// [`refuse_deferred`](Self::refuse_deferred).
    #[inline]
    pub(crate) fn look_ahead(&self) -> Result<(), Rejection> {
        let gate = self.0.gate.0.load();
        if gate.looks_closed() { Ok(()) } else { self.look_ahead_beyond(gate) }
    }

    #[inline(never)]
    fn look_ahead_beyond(&self, gate: Word) -> Result<(), Rejection> {
        self.look_closer(gate, false)
    }

    /// Looks ahead for a caller that the inner service keeps waiting: it may be
    /// stuck behind calls that hang.
    #[cfg(feature = "tokio")]
    pub(crate) fn look_for_hangs(&self) -> Result<(), Rejection> {
        match self.0.gate.0.load() {
            gate if gate.is_closed() => Ok(()),
            gate if gate.is_closed_to_the_watched() && self.watched_gate().is_some() => Ok(()),
            gate => self.look_closer(gate, false),
        }
    }

    /// Refuses a call whose refusal was seen ahead, in today's terms if there
    /// still is reason to.
    pub(crate) fn refuse_deferred(&self, ahead: Rejection) -> CircuitOpen {
        let rejection = match self.look(true) {
            Ok(()) => {
                self.reject();
                Rejection { retry_after: Some(Duration::ZERO), ..ahead }
            }
            Err(rejection) => rejection,
        };
        self.refuse(rejection)
    }

    /// Refuses, and tells.
    fn refuse(&self, rejection: Rejection) -> CircuitOpen {
        self.refuse_as(|refusal| refusal.like(&rejection))
    }

    /// Makes a refusal where it is returned, unless somebody has to see it before:
    /// an error that is moved costs more than the rest of it.
    #[inline(always)]
    fn refuse_as(&self, make: impl Fn(&CircuitOpen) -> CircuitOpen) -> CircuitOpen {
        let refusal = &self.0.lane().refusal;
        if !self.0.count_refusal() {
            let open = make(refusal);
            self.0.tell_refusal(&open);
        }
        make(refusal)
    }

    /// Counts a refusal that the machine does not hear of, to be copied from what
    /// it returns.
    #[expect(clippy::borrowed_box, reason = "a clone of it is a box, too")]
    #[inline(always)]
    fn reject(&self) -> &Box<CircuitOpen> {
        let lane = self.0.lane();
        lane.counters.rejected.fetch_add(1, Ordering::Relaxed);
        &lane.refusal
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
        if self.0.gate.0.load().looks_closed() {
            return Ok(());
        }
        let mut asked = None;
        let refused = self.0.update_core(|core, now, facts| {
            core.machine.look(now, facts).map_err(|rejection| {
                let earlier = back.filter(|back| self.0.instant(now) < *back);
                if earlier.is_none() {
                    core.machine.pass_over();
                    asked = Some(now);
                }
                let back = rejection.retry_after.map(|wait| self.0.instant(now.after(wait)));
                let back = back.map(|back| earlier.map_or(back, |earlier| earlier.min(back)));
                (core.wakers.register(key, waker), back)
            })
        });
        #[cfg(feature = "shadow")]
        if let (Some(now), Some(followers)) = (asked, self.0.followers()) {
            followers.asked(now);
        }
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

    #[inline]
    fn look(&self, counted: bool) -> Result<(), Rejection> {
        let gate = self.0.gate.0.load();
        if gate.looks_closed() { Ok(()) } else { self.look_closer(gate, counted) }
    }

    #[inline]
    fn look_closer(&self, gate: Word, counted: bool) -> Result<(), Rejection> {
        if let Some((state, left)) = self.left_at(gate) {
            if counted {
                self.reject();
            }
            let retry_after = Some(Duration::from_nanos(left));
            return Err(Rejection { state, percent: None, retry_after });
        }
        self.look_with_machine(counted)
    }

    #[inline(never)]
    fn look_with_machine(&self, counted: bool) -> Result<(), Rejection> {
        self.0.update(|machine, now, facts| {
            machine.look(now, facts).inspect_err(|_| {
                if counted {
                    machine.count_rejection();
                }
            })
        })
    }

    /// In which state a gate, just seen, refuses, and for how many nanoseconds more;
    /// nothing if its wait is over.
    #[inline(always)]
    fn left_at(&self, gate: Word) -> Option<(State, u64)> {
        let state = gate.refuses_in()?;
        let now = self.0.now();
        let until = match state {
            State::HalfOpen => &self.0.full_until,
            State::Open | State::Closed => &self.0.until,
        };
        let left = Time::from_nanos(until.load(Ordering::Acquire)).nanos_since(now);
        (left > 0).then_some((state, left))
    }

    /// Counts what a fallback came to.
    pub(crate) fn fell_back(&self, end: FallbackEnd) {
        self.0.fallbacks[end as usize].fetch_add(1, Ordering::Relaxed);
        self.0.observers.tell(|observer| observer.on_fallback(&self.0.name, end));
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
