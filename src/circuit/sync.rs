//! The locks and atomics of this crate, and their stand-ins for model checks.

#[cfg(tower_breaker_loom)]
use loom as model;
#[cfg(tower_breaker_shuttle)]
use shuttle as model;
#[cfg(not(any(tower_breaker_loom, tower_breaker_shuttle)))]
use std as model;

pub(crate) use model::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(feature = "keyed")]
pub(crate) use model::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicBool};
#[cfg(any(tower_breaker_loom, tower_breaker_shuttle))]
pub(crate) use model::thread;

/// Whether this is a model check.
pub(crate) const IS_MODEL: bool = cfg!(any(tower_breaker_loom, tower_breaker_shuttle));
