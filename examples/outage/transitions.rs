//! Two observers of a circuit: one says what it does, one remembers it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tower_breaker::{Observer, State, Transition};

/// Prints each transition as it happens, with its reason.
pub(crate) struct Announce {
    pub(crate) start: Instant,
}

impl Observer for Announce {
    fn on_transition(&self, transition: &Transition) {
        let at = transition.at.saturating_duration_since(self.start).as_secs_f64();
        println!("{at:>4.1} s   {transition}");
    }
}

/// When, from which state, to which.
pub(crate) type Moment = (Duration, State, State);

/// Keeps each transition for the verdict.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<Transition>>>);

impl Record {
    /// The transitions in their order, with the time since `start`.
    pub(crate) fn since(&self, start: Instant) -> Vec<Moment> {
        let moment = |transition: &Transition| {
            (transition.at.saturating_duration_since(start), transition.from, transition.to)
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(moment).collect()
    }
}

impl Observer for Record {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(transition.clone());
    }
}
