//! Every circuit reports through the `metrics` facade (feature `metrics`).
//!
//! Handles are made at a circuit's first event, not with the circuit: one made
//! before the application has installed its recorder would be dead for ever.
//! From then on every series is there, at zero.

#[cfg(feature = "shadow")]
mod shadow;

#[cfg(feature = "keyed")]
use std::sync::Arc;
use std::{sync::OnceLock, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, Label, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};

#[cfg(feature = "shadow")]
pub(crate) use self::shadow::ShadowMetrics;
use crate::{
    CallEnd, CircuitOpen, FallbackEnd, Observer, Override, OverrideKind, State, Transition,
};

const STATES: [State; 3] = [State::Closed, State::HalfOpen, State::Open];

const OVERRIDES: [OverrideKind; 3] =
    [OverrideKind::ForceOpen, OverrideKind::ForceClosed, OverrideKind::ObserveOnly];

/// Every way to end, in the order of its discriminants.
const ENDS: [CallEnd; 5] =
    [CallEnd::Success, CallEnd::Failure, CallEnd::Ignored, CallEnd::Cancelled, CallEnd::Stale];

/// What a health check comes to.
const CHECKS: [&str; 2] = ["failure", "success"];

/// Every way for a fallback to end, in the order of its discriminants.
const FALLBACK_ENDS: [FallbackEnd; 3] =
    [FallbackEnd::Answered, FallbackEnd::Failed, FallbackEnd::Cancelled];

/// Every transition there is, with the label of its cause.
const TRANSITIONS: [(State, State, &str); 18] = [
    (State::Closed, State::Open, "failure-rate"),
    (State::Closed, State::Open, "consecutive-failures"),
    (State::Closed, State::Open, "slow-call-rate"),
    (State::Closed, State::Open, "quorum"),
    (State::Closed, State::Open, "tripped"),
    (State::Open, State::HalfOpen, "wait-over"),
    (State::Open, State::HalfOpen, "wait-ended"),
    (State::Open, State::HalfOpen, "health-checked"),
    (State::Open, State::Closed, "health-checked"),
    (State::Open, State::Closed, "reset"),
    (State::HalfOpen, State::Open, "probes-failed"),
    (State::HalfOpen, State::Open, "failure-rate"),
    (State::HalfOpen, State::Open, "consecutive-failures"),
    (State::HalfOpen, State::Open, "slow-call-rate"),
    (State::HalfOpen, State::Open, "tripped"),
    (State::HalfOpen, State::Closed, "probes-succeeded"),
    (State::HalfOpen, State::Closed, "ramp-completed"),
    (State::HalfOpen, State::Closed, "reset"),
];

/// The metrics of one circuit, or of all in a group.
#[derive(Default)]
pub(crate) struct Metrics {
    scope: Scope,
    /// What its circuit was born in: there has been no other when it is first told of
    /// anything.
    birth: OnceLock<State>,
    handles: OnceLock<Handles>,
    duration: OnceLock<Histogram>,
    /// Only of a circuit that somebody answers for: made at its first fallback.
    fallbacks: OnceLock<[Counter; 3]>,
    /// Set once the circuit is gone from where it was found.
    rests: OnceLock<()>,
}

/// Whose series they are.
#[derive(Clone, Default)]
enum Scope {
    #[default]
    Circuit,
    /// Of all circuits of a group: what is one circuit's alone is left out.
    #[cfg(feature = "keyed")]
    Group,
    /// Of a group's circuit, by its key.
    #[cfg(feature = "keyed")]
    Key(Arc<str>),
}

struct Handles {
    own: Option<Own>,
    calls: [Counter; 5],
    slow_calls: Counter,
    rejections: Counter,
    would_reject: Counter,
    health_checks: [Counter; 2],
    transitions: [Counter; TRANSITIONS.len()],
}

/// What is one circuit's alone.
struct Own {
    states: [Gauge; 3],
    state_code: Gauge,
    admitted_share: Gauge,
    overrides: [Gauge; 3],
}

impl Metrics {
    /// Adds up the circuits of a group.
    #[cfg(feature = "keyed")]
    pub(crate) fn of_group() -> Self {
        Self { scope: Scope::Group, ..Self::default() }
    }

    /// Labels a group's circuit with its key.
    #[cfg(feature = "keyed")]
    pub(crate) fn of_key(key: Arc<str>) -> Self {
        Self { scope: Scope::Key(key), ..Self::default() }
    }

    /// Its circuit begins in that state.
    pub(crate) fn begin_in(&self, birth: State) {
        // Of a group's circuits no state is shown.
        let _ = self.birth.set(birth);
    }

    /// Shows a circuit that is gone as one that is closed, whatever its last
    /// calls still do to it: another may have its name by now.
    #[cfg(any(feature = "keyed", feature = "registry"))]
    pub(crate) fn rest(&self) {
        // Set before, so that who shows something meanwhile finds it after.
        let is_first = self.rests.set(()).is_ok();
        if let Some(Handles { own: Some(own), .. }) = self.handles.get().filter(|_| is_first) {
            own.rest();
        }
    }

    /// Shows what is the circuit's own, unless it is gone.
    fn show(&self, handles: &Handles, show: impl FnOnce(&Own)) {
        if let Some(own) = handles.own.as_ref().filter(|_| self.rests.get().is_none()) {
            show(own);
            if self.rests.get().is_some() {
                own.rest();
            }
        }
    }

    #[inline]
    fn handles(&self, circuit: &str) -> &Handles {
        match self.handles.get() {
            Some(handles) => handles,
            None => self.first_handles(circuit),
        }
    }

    #[cold]
    fn first_handles(&self, circuit: &str) -> &Handles {
        self.handles.get_or_init(|| {
            let birth = self.birth.get().copied().unwrap_or(State::Closed);
            let is_shown = self.rests.get().is_none();
            Handles::new(is_shown.then_some(birth), circuit, &self.scope)
        })
    }

    /// What counts calls that end so, once there is one.
    #[inline(always)]
    pub(crate) fn counter(&self, end: CallEnd) -> Option<&Counter> {
        self.handles.get().map(|handles| &handles.calls[end as usize])
    }

    /// What counts calls that are not admitted, once there is one.
    #[inline(always)]
    pub(crate) fn rejections(&self) -> Option<&Counter> {
        self.handles.get().map(|handles| &handles.rejections)
    }

    /// An admitted call ended.
    pub(crate) fn call(&self, circuit: &str, end: CallEnd, slow: bool, latency: Option<Duration>) {
        self.handles(circuit).calls[end as usize].increment(1);
        if slow || latency.is_some() {
            self.tell_duration(circuit, slow, latency);
        }
    }

    /// Where latencies go, once there has been one.
    #[inline]
    pub(crate) fn duration(&self) -> Option<&Histogram> {
        self.duration.get()
    }

    /// A call was not admitted, and nobody was told of anything before.
    #[cold]
    pub(crate) fn first_rejection(&self, open: &CircuitOpen) {
        self.handles(open.name()).rejections.increment(1);
    }

    /// Apart, so that a call that was not measured need not carry it.
    #[inline(never)]
    fn tell_duration(&self, circuit: &str, slow: bool, latency: Option<Duration>) {
        if slow {
            self.handles(circuit).slow_calls.increment(1);
        }
        let Some(latency) = latency else { return };
        let duration = self.duration.get_or_init(|| {
            let labels = self.scope.labels(circuit, []);
            histogram!("circuit_breaker_call_duration_seconds", labels)
        });
        duration.record(latency);
    }
}

impl Scope {
    fn labels<const N: usize>(
        &self,
        circuit: &str,
        more: [(&'static str, &'static str); N],
    ) -> Vec<Label> {
        let mut labels = vec![Label::new("circuit", circuit.to_owned())];
        #[cfg(feature = "keyed")]
        if let Self::Key(key) = self {
            labels.push(Label::new("key", Arc::clone(key)));
        }
        labels.extend(more.map(|(label, value)| Label::from_static_parts(label, value)));
        labels
    }
}

/// What comes once a call is told by [`Series`](crate::defaults::Series).
impl Observer for Metrics {
    fn hears_calls(&self) -> bool {
        false
    }

    fn on_would_reject(&self, circuit: &str) {
        self.handles(circuit).would_reject.increment(1);
    }

    fn on_fallback(&self, circuit: &str, end: FallbackEnd) {
        self.handles(circuit);
        self.fallbacks.get_or_init(|| fallbacks(circuit, &self.scope))[end as usize].increment(1);
    }

    fn on_transition(&self, transition: &Transition) {
        let handles = self.handles(&transition.circuit);
        self.show(handles, |own| own.show_state(transition.to));
        let label = transition.cause.label();
        let known = (transition.from, transition.to, label);
        if let Some(index) = TRANSITIONS.iter().position(|row| *row == known) {
            handles.transitions[index].increment(1);
        }
    }

    fn on_admitted_share(&self, circuit: &str, share: f64) {
        self.show(self.handles(circuit), |own| own.admitted_share.set(share));
    }

    fn on_health_check(&self, circuit: &str, passed: bool) {
        self.handles(circuit).health_checks[usize::from(passed)].increment(1);
    }

    fn on_override(&self, circuit: &str, active: Option<&Override>) {
        let kind = active.map(|active| active.kind);
        self.show(self.handles(circuit), |own| own.show_override(kind));
    }
}

impl Handles {
    /// Those of a circuit that is gone, and in no state, are its counters only.
    fn new(state: Option<State>, circuit: &str, scope: &Scope) -> Self {
        describe();
        let count = |name| counter!(name, scope.labels(circuit, []));
        let handles = Self {
            own: state.and_then(|state| Own::new(state, circuit, scope)),
            calls: ENDS.map(|end| {
                let labels = scope.labels(circuit, [("outcome", end.as_str())]);
                counter!("circuit_breaker_calls_total", labels)
            }),
            slow_calls: count("circuit_breaker_slow_calls_total"),
            rejections: count("circuit_breaker_rejections_total"),
            would_reject: count("circuit_breaker_would_reject_total"),
            health_checks: CHECKS.map(|outcome| {
                let labels = scope.labels(circuit, [("outcome", outcome)]);
                counter!("circuit_breaker_health_checks_total", labels)
            }),
            transitions: TRANSITIONS.map(|(from, to, cause)| {
                let more = [("from", from.as_str()), ("to", to.as_str()), ("cause", cause)];
                counter!("circuit_breaker_transitions_total", scope.labels(circuit, more))
            }),
        };
        handles.show_zero();
        handles
    }

    /// Some recorders show a series only once it has been written.
    fn show_zero(&self) {
        self.calls
            .iter()
            .chain(&self.transitions)
            .chain(&self.health_checks)
            .chain([&self.slow_calls, &self.rejections, &self.would_reject])
            .for_each(|counter| counter.increment(0));
    }
}

impl Own {
    fn new(state: State, circuit: &str, scope: &Scope) -> Option<Self> {
        #[cfg(feature = "keyed")]
        if matches!(scope, Scope::Group) {
            return None;
        }
        let own = Self {
            states: STATES.map(|state| {
                let labels = scope.labels(circuit, [("state", state.as_str())]);
                gauge!("circuit_breaker_state", labels)
            }),
            state_code: gauge!("circuit_breaker_state_code", scope.labels(circuit, [])),
            admitted_share: gauge!("circuit_breaker_admitted_share", scope.labels(circuit, [])),
            overrides: OVERRIDES.map(|kind| {
                let labels = scope.labels(circuit, [("kind", kind.as_str())]);
                gauge!("circuit_breaker_override", labels)
            }),
        };
        own.show_state(state);
        own.show_override(None);
        Some(own)
    }

    fn rest(&self) {
        self.show_state(State::Closed);
        self.show_override(None);
    }

    fn show_state(&self, shown: State) {
        for (code, (state, gauge)) in STATES.iter().zip(&self.states).enumerate() {
            let is_shown = *state == shown;
            gauge.set(f64::from(u8::from(is_shown)));
            if is_shown {
                // Below three.
                self.state_code.set(code as f64);
            }
        }
        self.admitted_share.set(f64::from(u8::from(shown == State::Closed)));
    }

    fn show_override(&self, shown: Option<OverrideKind>) {
        for (kind, gauge) in OVERRIDES.iter().zip(&self.overrides) {
            gauge.set(f64::from(u8::from(shown == Some(*kind))));
        }
    }
}

/// How many circuits of a group are in which state, and who found no room.
#[cfg(feature = "keyed")]
pub(crate) struct GroupMetrics {
    group: Arc<str>,
    handles: OnceLock<GroupHandles>,
    /// Set once the group is gone from where it was found.
    rests: OnceLock<()>,
}

#[cfg(feature = "keyed")]
struct GroupHandles {
    /// Of a group that is gone there are its counters only.
    keys: Option<[Gauge; 3]>,
    evictions: Counter,
    overflows: Counter,
}

#[cfg(feature = "keyed")]
impl GroupMetrics {
    pub(crate) fn new(group: Arc<str>) -> Self {
        Self { group, handles: OnceLock::new(), rests: OnceLock::new() }
    }

    /// A circuit was counted elsewhere. Added and not set, for two may come in
    /// the wrong order.
    pub(crate) fn moved(&self, from: Option<State>, to: Option<State>) {
        if self.rests() {
            return;
        }
        self.add(from, to);
        if self.rests() {
            // Its own and no more: the next may be counted there.
            self.add(to, from);
        }
    }

    fn add(&self, from: Option<State>, to: Option<State>) {
        for (state, gauge) in STATES.iter().zip(self.handles().keys.iter().flatten()) {
            if to == Some(*state) {
                gauge.increment(1.0);
            }
            if from == Some(*state) {
                gauge.decrement(1.0);
            }
        }
    }

    /// Shows no keys any more, whatever becomes of them: another group may have its
    /// name by now.
    #[cfg(feature = "registry")]
    pub(crate) fn rest(&self) {
        // Set before, so that who shows something meanwhile finds it after.
        let _ = self.rests.set(());
        self.handles.get().iter().for_each(|handles| handles.show_none());
    }

    pub(crate) fn rests(&self) -> bool {
        self.rests.get().is_some()
    }

    pub(crate) fn evicted(&self) {
        self.handles().evictions.increment(1);
    }

    pub(crate) fn overflowed(&self) {
        self.handles().overflows.increment(1);
    }

    fn handles(&self) -> &GroupHandles {
        self.handles.get_or_init(|| {
            describe_group();
            let labels = |more: &[(&'static str, &'static str)]| {
                let mut labels = vec![Label::new("circuit", Arc::clone(&self.group))];
                labels.extend(more.iter().map(|(label, value)| Label::new(*label, *value)));
                labels
            };
            let handles = GroupHandles {
                keys: (!self.rests()).then(|| {
                    STATES.map(|state| {
                        gauge!("circuit_breaker_keys", labels(&[("state", state.as_str())]))
                    })
                }),
                evictions: counter!("circuit_breaker_key_evictions_total", labels(&[])),
                overflows: counter!("circuit_breaker_key_overflows_total", labels(&[])),
            };
            handles.show_none();
            handles.evictions.increment(0);
            handles.overflows.increment(0);
            handles
        })
    }
}

#[cfg(feature = "keyed")]
impl GroupHandles {
    fn show_none(&self) {
        self.keys.iter().flatten().for_each(|gauge| gauge.set(0.0));
    }
}

#[cfg(feature = "keyed")]
fn describe_group() {
    describe_gauge!(
        "circuit_breaker_keys",
        Unit::Count,
        "Keys of a group whose circuit is in this state"
    );
    describe_counter!(
        "circuit_breaker_key_evictions_total",
        Unit::Count,
        "Circuits of a group that were evicted"
    );
    describe_counter!(
        "circuit_breaker_key_overflows_total",
        Unit::Count,
        "Calls whose key was new and found no room"
    );
}

fn fallbacks(circuit: &str, scope: &Scope) -> [Counter; 3] {
    FALLBACK_ENDS.map(|end| {
        let labels = scope.labels(circuit, [("outcome", end.as_str())]);
        let counter = counter!("circuit_breaker_fallbacks_total", labels);
        counter.increment(0);
        counter
    })
}

fn describe() {
    describe_gauge!(
        "circuit_breaker_state",
        Unit::Count,
        "1 for the state the circuit is in, 0 for the others"
    );
    describe_gauge!(
        "circuit_breaker_state_code",
        Unit::Count,
        "The state the circuit is in: 0 closed, 1 half-open, 2 open"
    );
    describe_gauge!(
        "circuit_breaker_admitted_share",
        Unit::Count,
        "The share of calls that pass: 1 while closed, 0 while open or probing, between where a share passes"
    );
    describe_gauge!(
        "circuit_breaker_override",
        Unit::Count,
        "1 for the override an operator laid over the circuit, 0 for the others"
    );
    describe_counter!(
        "circuit_breaker_calls_total",
        Unit::Count,
        "Calls that were let through and ended, by outcome"
    );
    describe_counter!(
        "circuit_breaker_slow_calls_total",
        Unit::Count,
        "Calls that took longer than the slow rule's threshold"
    );
    describe_counter!(
        "circuit_breaker_rejections_total",
        Unit::Count,
        "Calls that were not let through"
    );
    describe_counter!(
        "circuit_breaker_would_reject_total",
        Unit::Count,
        "Calls that passed only because the circuit is being observed"
    );
    describe_counter!(
        "circuit_breaker_health_checks_total",
        Unit::Count,
        "Health checks the circuit ran while it was open, by outcome"
    );
    describe_counter!(
        "circuit_breaker_fallbacks_total",
        Unit::Count,
        "Answers in place of the dependency's, by what they came to"
    );
    describe_counter!(
        "circuit_breaker_transitions_total",
        Unit::Count,
        "Changes of state, by the two states and the cause"
    );
    describe_histogram!(
        "circuit_breaker_call_duration_seconds",
        Unit::Seconds,
        "How long calls took, where that is measured"
    );
}
