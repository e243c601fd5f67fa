//! The error type of the service, and which errors prove nothing.

use tower::load_shed::error::Overloaded;

use crate::circuit::{CircuitOpen, chain};

/// A boxed error: the same type as `tower::BoxError`.
pub type BoxError = tower::BoxError;

/// Whether an error says nothing about the dependency because the call never
/// got there: a breaker or a load shedder further in refused it.
pub(crate) fn proves_nothing(error: &BoxError) -> bool {
    chain(&**error).any(|error| error.is::<Overloaded>() || error.is::<CircuitOpen>())
}
