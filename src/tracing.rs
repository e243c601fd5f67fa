//! Every transition and override is a `tracing` event (feature `tracing`).

use tracing::{Level, event};

use crate::{Observer, Override, State, Transition};

/// Tells `tracing`. Opening is a warning, everything else is information.
pub(crate) struct Trace;

impl Observer for Trace {
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

    fn on_override(&self, circuit: &str, active: Option<&Override>) {
        match active {
            Some(active) => event!(
                Level::WARN,
                circuit,
                kind = active.kind.as_str(),
                reason = active.reason.as_deref().unwrap_or_default(),
                expires_in = ?active.expires_in,
                "{circuit}: an operator set {}",
                active.kind.as_str()
            ),
            None => event!(Level::INFO, circuit, "{circuit}: the override is over"),
        }
    }
}
