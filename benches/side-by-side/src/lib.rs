//! tower-breaker beside other circuit breakers, in one run.
//!
//! Every contender guards the same backend and is driven the same way: one
//! `poll_ready`, one `call`, and the future polled by hand to its end, in a loop
//! that knows the service's type. Whoever is no Tower layer stands behind the
//! smallest adapter that makes it one; what each does is said where it is made.
//!
//! What is not here: that the answers are right. The package's own tests say so.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures wall time")]

pub mod backend;
pub mod contenders;
pub mod driver;
pub mod floor;
pub mod lab;
pub mod least;
pub mod promises;
pub mod threads;
pub mod windows;
