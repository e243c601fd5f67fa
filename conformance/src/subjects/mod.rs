//! Who is judged, each by an adapter of its own.
//!
//! A peer is made the way that is kindest to it. Where its words for a rule
//! differ but mean the same, they are translated; what it has no word for is
//! not claimed. Each adapter's own text says what was decided.

mod breaker;
mod driven;
mod failsafe;
mod ours;
mod pace;
mod recloser;
mod tower_resilience;

pub use breaker::Breaker;
pub use failsafe::Failsafe;
pub use ours::TowerBreaker;
pub use recloser::Recloser;
pub use tower_resilience::TowerResilience;

use crate::breaker::Subject;

/// Everybody, ourselves first.
pub fn all() -> Vec<Box<dyn Subject>> {
    vec![
        Box::new(TowerBreaker),
        Box::new(TowerResilience),
        Box::new(Failsafe),
        Box::new(Recloser),
        Box::new(Breaker),
    ]
}
