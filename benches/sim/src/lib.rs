//! Simulates clients, circuit breakers and a dependency in trouble, in virtual
//! time, and measures what each breaker does to both sides.
//!
//! The real [`Circuit`](tower_breaker::Circuit) is driven through its public
//! API. The peers are models of their documented defaults.

pub mod chart;
pub mod claims;
mod contender;
mod engine;
mod figures;
mod lab;
pub mod policy;
pub mod report;
mod rng;
mod run;
pub mod scenario;
mod server;

pub use crate::{
    contender::{Contender, Tuning},
    engine::Model,
    figures::{Figures, Metric},
    lab::Lab,
    rng::Rng,
    run::{Bucket, ClientLog, Run, STEP, Tally, median},
    server::{Capacity, Cold, Health, Trouble, WarmUp},
};
