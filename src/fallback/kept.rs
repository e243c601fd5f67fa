//! A fallback keeps the inner service's error: it is boxed for the classifier,
//! and unboxed for the caller.

use std::{error::Error, fmt, marker::PhantomData};

use super::{OnFailure, OuterError};
use crate::{circuit::Circuit, error::BoxError, sealed::Sealed};

/// An error that survives being boxed and unboxed: every `std` error, and the
/// box itself. `Kind` says which, because the two would overlap.
#[diagnostic::on_unimplemented(
    message = "a fallback keeps the inner service's error, and `{Self}` is no error it can keep",
    note = "it must be a `std::error::Error + Send + Sync + 'static`, or `tower::BoxError`"
)]
pub trait KeptError<Kind>: Sized {
    #[doc(hidden)]
    fn hold(self) -> BoxError;

    #[doc(hidden)]
    fn release(error: BoxError) -> Self;
}

/// The error is a `std::error::Error`.
#[derive(Debug)]
pub enum AsError {}

/// The error is a [`BoxError`].
#[derive(Debug)]
pub enum AsBox {}

#[diagnostic::do_not_recommend]
impl<E: Error + Send + Sync + 'static> KeptError<AsError> for E {
    fn hold(self) -> BoxError {
        Box::new(self)
    }

    fn release(error: BoxError) -> Self {
        match error.downcast() {
            Ok(error) => *error,
            Err(other) => unreachable!("only what was held is released, not {other:?}"),
        }
    }
}

impl KeptError<AsBox> for BoxError {
    fn hold(self) -> BoxError {
        self
    }

    fn release(error: BoxError) -> Self {
        error
    }
}

/// Keeps the inner service's error, and answers for no failure: what a call
/// takes along where a fallback answers for an open circuit alone.
pub struct Kept<Kind>(PhantomData<fn() -> Kind>);

impl<Kind> Kept<Kind> {
    pub(super) const NOTHING: Self = Self(PhantomData);
}

impl<Kind> Sealed for Kept<Kind> {}

impl<Kind, E: KeptError<Kind>> OuterError<E> for Kept<Kind> {
    type Error = E;

    fn hold(error: E) -> BoxError {
        error.hold()
    }

    fn release(error: BoxError) -> E {
        E::release(error)
    }
}

impl<Kind, Response, E: KeptError<Kind>, A> OnFailure<Response, E, A> for Kept<Kind> {
    const ANSWERS: bool = false;

    fn answer(
        &mut self,
        failed: Result<Response, E>,
        _: &Circuit,
    ) -> Result<A, Result<Response, E>> {
        Err(failed)
    }
}

impl<Kind> fmt::Debug for Kept<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// The same way in and out for every fallback.
macro_rules! keeps_the_error {
    ($fallback:ident<$($parameter:ident),+>) => {
        impl<$($parameter),+, Kind> crate::sealed::Sealed for $fallback<$($parameter),+, Kind> {}

        impl<$($parameter),+, Kind, E> crate::fallback::OuterError<E>
            for $fallback<$($parameter),+, Kind>
        where
            E: crate::fallback::KeptError<Kind>,
        {
            type Error = E;

            fn hold(error: E) -> crate::error::BoxError {
                error.hold()
            }

            fn release(error: crate::error::BoxError) -> E {
                E::release(error)
            }
        }
    };
}

pub(super) use keeps_the_error;
