//! The last good answer of an HTTP service that fails (feature
//! `stale-if-error`): what RFC 5861 calls stale-if-error, by the rules of
//! RFC 9111 on what may be kept and for whom.
//!
//! A layer of its own, outside the breaker. It is no cache in any other way: a
//! request goes to the service always, and what is kept answers only when that
//! gives nothing better.

mod body;
mod directives;
mod future;
mod layer;
mod rules;
mod service;
mod store;

pub use self::{
    body::StaleIfErrorBody, future::StaleIfErrorFuture, layer::StaleIfErrorLayer,
    service::StaleIfError,
};
