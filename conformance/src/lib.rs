//! How a circuit breaker has to behave, as data, and a runner for any breaker.
//!
//! The scenarios are in `scenarios/*.toml`, to be read by people: the rules a
//! breaker is made by, and what then happens, a step a line, on a clock that
//! only the steps move. `scenarios/README.md` says what can stand there.
//!
//! To try a breaker of your own, write a [`Subject`] that makes one by
//! [`Rules`] and says which [`Feature`]s it claims, and a [`Breaker`] that asks
//! it for a call; then [`judge`] it. Nobody fails for what he doesn't claim: a
//! scenario that needs it is left out, and the report says so.
//!
//! What is judged is one breaker on one clock. Scenarios of Tower stacks, of
//! listeners (what they may do, and in what order threads are told) and of
//! registries by key are code and not data: they are in the package's own
//! `tests`.

mod breaker;
mod feature;
mod report;
mod rules;
mod runner;
mod scenario;
mod step;
pub mod subjects;

pub use breaker::{Breaker, Call, Command, End, Refused, Seen, State, Subject, Time, TooLong};
pub use feature::Feature;
pub use report::Report;
pub use rules::{Rules, Slow, Wait, Window};
pub use runner::{Verdict, judge};
pub use scenario::{Refusal, Scenario, ScenarioError, all};
pub use step::{Step, Then};
