//! Traits that only this crate implements.

/// Keeps a public trait from being implemented elsewhere.
pub trait Sealed {}
