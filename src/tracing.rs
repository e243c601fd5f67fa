//! Every transition, override and reconfiguration is a `tracing` event (feature `tracing`).

use tracing::{Level, event};

use crate::{Observer, Override, Reconfigured, State, Transition};

/// Tells `tracing`. Opening is a warning, everything else is information.
pub(crate) struct Trace;

impl Observer for Trace {
    fn hears_calls(&self) -> bool {
        false
    }

    fn on_transition(&self, transition: &Transition) {
        macro_rules! tell {
            ($level:expr) => {
                event!(
                    $level,
                    circuit = &*transition.circuit,
                    key = transition.key.as_deref(),
                    from = transition.from.as_str(),
                    to = transition.to.as_str(),
                    cause = transition.cause.label(),
                    generation = transition.generation,
                    "{transition}"
                )
            };
        }
        match transition.to {
            State::Open => tell!(Level::WARN),
            State::Closed | State::HalfOpen => tell!(Level::INFO),
        }
    }

    fn on_reconfigured(&self, reconfigured: &Reconfigured) {
        event!(
            Level::INFO,
            circuit = &*reconfigured.circuit,
            key = reconfigured.key.as_deref(),
            revision = reconfigured.revision,
            "{reconfigured}"
        );
    }

    fn on_override(&self, circuit: &str, active: Option<&Override>) {
        match active {
            Some(active) => event!(
                Level::WARN,
                circuit,
                kind = active.kind.as_str(),
                reason = active.reason.as_deref().unwrap_or_default(),
                owner = active.owner.as_deref(),
                expires_in = ?active.expires_in,
                "{circuit}: an operator set {}",
                active.kind.as_str()
            ),
            None => event!(Level::INFO, circuit, "{circuit}: the override is over"),
        }
    }
}

/// Tells `tracing` what a shadow would have done: information only, and named
/// so that nobody takes it for the live circuit.
#[cfg(feature = "shadow")]
pub(crate) struct ShadowTrace {
    circuit: std::sync::Arc<str>,
}

#[cfg(feature = "shadow")]
impl ShadowTrace {
    pub(crate) fn new(circuit: &std::sync::Arc<str>) -> Self {
        Self { circuit: std::sync::Arc::clone(circuit) }
    }
}

#[cfg(feature = "shadow")]
impl crate::circuit::ShadowObserver for ShadowTrace {
    fn on_transition(&self, transition: &Transition) {
        event!(
            Level::INFO,
            circuit = &*self.circuit,
            shadow = &*transition.circuit,
            from = transition.from.as_str(),
            to = transition.to.as_str(),
            cause = transition.cause.label(),
            "{}: its shadow {transition}",
            self.circuit
        );
    }
}
