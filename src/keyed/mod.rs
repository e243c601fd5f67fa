//! A circuit per key (feature `keyed`).
//!
//! [`circuits`] is the handle: it finds a key's circuit or makes it, and asks
//! the guard and the parent. [`map`] holds the circuits within bounds, [`tally`]
//! counts them by state, and [`key`] is what they are found by. Around them are
//! a layer and a service like the ordinary ones.

mod circuits;
mod guard;
#[cfg(feature = "http")]
mod http;
mod key;
mod layer;
mod map;
mod service;
mod tally;

#[cfg(feature = "registry")]
pub(crate) use self::circuits::Watching;
#[cfg(feature = "http")]
pub use self::http::{ByHeader, ByHost, ByRoute};
pub use self::{
    circuits::{KeyedCircuits, KeyedCircuitsBuilder, KeyedSnapshot},
    guard::{Beyond, Quorum},
    key::{Key, KeyFn, KeyOf},
    layer::KeyedCircuitBreakerLayer,
    service::KeyedCircuitBreaker,
};
