//! The locks and atomics of this crate, and their stand-ins for model checks.

#[cfg(not(tower_breaker_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

#[cfg(tower_breaker_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// How many threads of the model came before this one.
#[cfg(tower_breaker_loom)]
pub(crate) fn thread_number() -> usize {
    // The one thing that it tells, and that is the same in every run.
    let id = format!("{:?}", loom::thread::current().id());
    let number = id.trim_matches(|c: char| !c.is_ascii_digit());
    number.parse().unwrap_or_else(|_| panic!("a thread without a number: {id}"))
}
