//! What shadows would have done, in series of their own: `circuit` is the live
//! circuit's name, `shadow` the candidate's.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use super::{STATES, TRANSITIONS};
use crate::{Outcome, State, Transition, circuit::ShadowObserver};

const VERDICTS: [&str; 2] = ["passed", "rejected"];

/// The ends of calls; that of one which the live circuit refused is unknown.
const OUTCOMES: [&str; 5] = ["success", "failure", "ignored", "cancelled", "unknown"];

/// The metrics of one shadow.
pub(crate) struct ShadowMetrics {
    circuit: Arc<str>,
    shadow: Arc<str>,
    /// What the candidate begins in.
    birth: State,
    handles: OnceLock<Handles>,
}

struct Handles {
    states: [Gauge; 3],
    calls: [[Counter; 5]; 2],
    transitions: [Counter; TRANSITIONS.len()],
}

impl ShadowMetrics {
    pub(crate) fn new(circuit: &Arc<str>, shadow: &Arc<str>, birth: State) -> Self {
        let (circuit, shadow) = (Arc::clone(circuit), Arc::clone(shadow));
        Self { circuit, shadow, birth, handles: OnceLock::new() }
    }

    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles::new(&self.circuit, &self.shadow, self.birth))
    }

    fn count(&self, passed: bool, outcome: usize) {
        self.handles().calls[usize::from(!passed)][outcome].increment(1);
    }
}

impl ShadowObserver for ShadowMetrics {
    fn on_call(&self, passed: bool, outcome: Option<Outcome>) {
        let outcome = outcome.map_or("cancelled", Outcome::as_str);
        if let Some(index) = OUTCOMES.iter().position(|known| *known == outcome) {
            self.count(passed, index);
        }
    }

    fn on_unknown(&self, passed: bool) {
        self.count(passed, OUTCOMES.len() - 1);
    }

    fn on_transition(&self, transition: &Transition) {
        let handles = self.handles();
        handles.show_state(transition.to);
        let known = (transition.from, transition.to, transition.cause.label());
        if let Some(index) = TRANSITIONS.iter().position(|row| *row == known) {
            handles.transitions[index].increment(1);
        }
    }
}

impl Handles {
    fn new(circuit: &str, shadow: &str, birth: State) -> Self {
        describe();
        let circuit = || circuit.to_owned();
        let shadow = || shadow.to_owned();
        let call = |verdict: &'static str, outcome: &'static str| {
            counter!(
                "circuit_breaker_shadow_calls_total",
                "circuit" => circuit(), "shadow" => shadow(),
                "verdict" => verdict, "outcome" => outcome
            )
        };
        let handles = Self {
            states: STATES.map(|state| {
                gauge!(
                    "circuit_breaker_shadow_state",
                    "circuit" => circuit(), "shadow" => shadow(), "state" => state.as_str()
                )
            }),
            calls: VERDICTS.map(|verdict| OUTCOMES.map(|outcome| call(verdict, outcome))),
            transitions: TRANSITIONS.map(|(from, to, cause)| {
                counter!(
                    "circuit_breaker_shadow_transitions_total",
                    "circuit" => circuit(), "shadow" => shadow(),
                    "from" => from.as_str(), "to" => to.as_str(), "cause" => cause
                )
            }),
        };
        // Some recorders show a series only once it has been written.
        handles.show_state(birth);
        handles
            .calls
            .iter()
            .flatten()
            .chain(&handles.transitions)
            .for_each(|counter| counter.increment(0));
        handles
    }

    fn show_state(&self, shown: State) {
        for (state, gauge) in STATES.iter().zip(&self.states) {
            gauge.set(f64::from(u8::from(*state == shown)));
        }
    }
}

fn describe() {
    describe_gauge!(
        "circuit_breaker_shadow_state",
        Unit::Count,
        "1 for the state a candidate that decides nothing would be in, 0 for the others"
    );
    describe_counter!(
        "circuit_breaker_shadow_calls_total",
        Unit::Count,
        "Calls by what a candidate that decides nothing made of them, and how they really went"
    );
    describe_counter!(
        "circuit_breaker_shadow_transitions_total",
        Unit::Count,
        "Changes of state that a candidate that decides nothing would have made"
    );
}
