//! Every circuit reports through the `metrics` facade (feature `metrics`).
//!
//! Handles are made at a circuit's first event, not with the circuit: one made
//! before the application has installed its recorder would be dead for ever.
//! From then on every series is there, at zero.

#[cfg(feature = "shadow")]
mod shadow;

use std::sync::OnceLock;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

#[cfg(feature = "shadow")]
pub(crate) use self::shadow::ShadowMetrics;
use crate::{
    Call, CallEnd, CircuitOpen, FallbackEnd, Observer, Override, OverrideKind, State, Transition,
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
const TRANSITIONS: [(State, State, &str); 16] = [
    (State::Closed, State::Open, "failure-rate"),
    (State::Closed, State::Open, "consecutive-failures"),
    (State::Closed, State::Open, "slow-call-rate"),
    (State::Closed, State::Open, "tripped"),
    (State::Open, State::HalfOpen, "wait-over"),
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

/// The metrics of one circuit.
#[derive(Default)]
pub(crate) struct Metrics {
    handles: OnceLock<Handles>,
    duration: OnceLock<Histogram>,
    /// Only of a circuit that somebody answers for: made at its first fallback.
    fallbacks: OnceLock<[Counter; 3]>,
}

struct Handles {
    states: [Gauge; 3],
    state_code: Gauge,
    admitted_share: Gauge,
    overrides: [Gauge; 3],
    calls: [Counter; 5],
    slow_calls: Counter,
    rejections: Counter,
    would_reject: Counter,
    health_checks: [Counter; 2],
    transitions: [Counter; TRANSITIONS.len()],
}

impl Metrics {
    fn handles(&self, circuit: &str) -> &Handles {
        self.handles_in(State::Closed, circuit)
    }

    /// The handles; `state` is shown if the circuit is not known yet, for it may
    /// have started in any.
    fn handles_in(&self, state: State, circuit: &str) -> &Handles {
        self.handles.get_or_init(|| Handles::new(state, circuit))
    }
}

impl Observer for Metrics {
    fn on_call(&self, call: &Call<'_>) {
        let handles = self.handles(call.circuit);
        handles.calls[call.end as usize].increment(1);
        if call.slow {
            handles.slow_calls.increment(1);
        }
        if let Some(latency) = call.latency {
            let circuit = || call.circuit.to_owned();
            self.duration
                .get_or_init(
                    || histogram!("circuit_breaker_call_duration_seconds", "circuit" => circuit()),
                )
                .record(latency);
        }
    }

    fn on_rejection(&self, open: &CircuitOpen) {
        self.handles_in(open.state(), open.name()).rejections.increment(1);
    }

    fn on_would_reject(&self, circuit: &str) {
        self.handles(circuit).would_reject.increment(1);
    }

    fn on_fallback(&self, circuit: &str, end: FallbackEnd) {
        self.handles(circuit);
        self.fallbacks.get_or_init(|| fallbacks(circuit))[end as usize].increment(1);
    }

    fn on_transition(&self, transition: &Transition) {
        let handles = self.handles(&transition.circuit);
        handles.show_state(transition.to);
        let label = transition.cause.label();
        let known = (transition.from, transition.to, label);
        if let Some(index) = TRANSITIONS.iter().position(|row| *row == known) {
            handles.transitions[index].increment(1);
        }
    }

    fn on_admitted_share(&self, circuit: &str, share: f64) {
        self.handles(circuit).admitted_share.set(share);
    }

    fn on_health_check(&self, circuit: &str, passed: bool) {
        // One runs while it is open, which it may have been from the start.
        let handles = self.handles_in(State::Open, circuit);
        handles.health_checks[usize::from(passed)].increment(1);
    }

    fn on_override(&self, circuit: &str, active: Option<&Override>) {
        let handles = self.handles(circuit);
        for (kind, gauge) in OVERRIDES.iter().zip(&handles.overrides) {
            let is_active = active.is_some_and(|active| active.kind == *kind);
            gauge.set(f64::from(u8::from(is_active)));
        }
    }
}

impl Handles {
    fn new(state: State, circuit: &str) -> Self {
        describe();
        let circuit = || circuit.to_owned();
        let handles = Self {
            states: STATES.map(|state| {
                gauge!("circuit_breaker_state", "circuit" => circuit(), "state" => state.as_str())
            }),
            state_code: gauge!("circuit_breaker_state_code", "circuit" => circuit()),
            admitted_share: gauge!("circuit_breaker_admitted_share", "circuit" => circuit()),
            overrides: OVERRIDES.map(|kind| {
                gauge!("circuit_breaker_override", "circuit" => circuit(), "kind" => kind.as_str())
            }),
            calls: ENDS.map(|end| {
                counter!(
                    "circuit_breaker_calls_total",
                    "circuit" => circuit(), "outcome" => end.as_str()
                )
            }),
            slow_calls: counter!("circuit_breaker_slow_calls_total", "circuit" => circuit()),
            rejections: counter!("circuit_breaker_rejections_total", "circuit" => circuit()),
            would_reject: counter!("circuit_breaker_would_reject_total", "circuit" => circuit()),
            health_checks: CHECKS.map(|outcome| {
                counter!(
                    "circuit_breaker_health_checks_total",
                    "circuit" => circuit(), "outcome" => outcome
                )
            }),
            transitions: TRANSITIONS.map(|(from, to, cause)| {
                counter!(
                    "circuit_breaker_transitions_total",
                    "circuit" => circuit(),
                    "from" => from.as_str(), "to" => to.as_str(), "cause" => cause
                )
            }),
        };
        handles.show_zero();
        handles.show_state(state);
        handles
    }

    /// Some recorders show a series only once it has been written.
    fn show_zero(&self) {
        self.overrides.iter().for_each(|gauge| gauge.set(0.0));
        self.calls
            .iter()
            .chain(&self.transitions)
            .chain(&self.health_checks)
            .chain([&self.slow_calls, &self.rejections, &self.would_reject])
            .for_each(|counter| counter.increment(0));
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
}

fn fallbacks(circuit: &str) -> [Counter; 3] {
    FALLBACK_ENDS.map(|end| {
        let circuit = circuit.to_owned();
        let counter = counter!(
            "circuit_breaker_fallbacks_total",
            "circuit" => circuit, "outcome" => end.as_str()
        );
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
        "The share of calls that pass: 1 while closed, 0 while open or probing, between on the ramp"
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
