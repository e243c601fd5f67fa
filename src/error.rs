//! The error type of the service, and which errors prove nothing.

use tower::load_shed::error::Overloaded;

use crate::circuit::CircuitOpen;

/// A boxed error: the same type as `tower::BoxError`.
pub type BoxError = tower::BoxError;

/// Whether an error says nothing about the dependency because the call never
/// got there: a breaker or a load shedder further in refused it.
pub(crate) fn proves_nothing(error: &BoxError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = next {
        if error.is::<Overloaded>() {
            return true;
        }
        next = error.source();
    }
    CircuitOpen::find_in(&**error).is_some()
}
