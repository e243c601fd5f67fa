//! What a caller gets where the dependency gives nothing: the error, or an
//! answer of somebody else.
//!
//! One file a kind of fallback; here is what they have in common, and the one
//! that is none.

mod answer;
mod closure;
mod failure;
mod kept;
mod service;

use std::future::{Future, Ready, ready};

pub use self::{
    answer::{Answer, AnswerFuture},
    closure::{Fallback, FallbackWith},
    failure::{FallbackOnFailure, FallbackOnFailureWith, SpareRequest, Why},
    kept::{AsBox, AsError, Kept, KeptError},
    service::{FallbackService, FallbackServiceFuture},
};
use crate::{
    circuit::{Circuit, CircuitOpen},
    error::BoxError,
    sealed::Sealed,
};

/// The error type towards the caller. Sealed.
///
/// The classifier wants to see a boxed error, and the caller may want its own
/// type back: hence the way in and the way out.
pub trait OuterError<E>: Sealed {
    /// What the caller sees.
    type Error;

    /// Boxes the inner service's error as itself.
    #[doc(hidden)]
    fn hold(error: E) -> BoxError;

    /// Gives it to the caller.
    #[doc(hidden)]
    fn release(error: BoxError) -> Self::Error;
}

/// What answers a call that was not let through. Sealed: it is [`Reject`],
/// [`Fallback`], [`FallbackWith`], [`FallbackService`], [`FallbackOnFailure`]
/// or [`FallbackOnFailureWith`].
#[diagnostic::on_unimplemented(
    message = "the circuit breaker can't pass on the inner service's error `{E}`",
    label = "the service in here fails with `{E}`",
    note = "without a fallback the error is boxed, so it must be `Into<tower::BoxError>`: a \
            `std::error::Error + Send + Sync + 'static`, a string, or the box itself",
    note = "implement `std::error::Error` for it, or turn it into one inside the breaker, with \
            `ServiceBuilder::map_err` after `.layer(breaker)`"
)]
pub trait OnOpen<Request, Response, E>: OuterError<E> {
    /// The answer to come.
    type Future: Future<Output = Result<Response, Self::Error>>;

    /// What a call that is let through takes along, in case it fails.
    type OnFailure: OnFailure<Response, E, Self::Future> + OuterError<E, Error = Self::Error>;

    /// Whether the caller gets an answer, so that `poll_ready` need not fail.
    #[doc(hidden)]
    const ANSWERS: bool;

    #[doc(hidden)]
    fn answer(&self, request: Request, open: CircuitOpen, circuit: &Circuit) -> Self::Future;

    /// Answers for a call that was refused further in, before it was made. Asked
    /// of those alone who answer for failures.
    #[doc(hidden)]
    fn answer_for(&self, _: Request, _refusal: Self::Error, _: &Circuit) -> Self::Future {
        unreachable!("it answers for no failure")
    }

    #[doc(hidden)]
    fn on_failure(&self, request: &Request) -> Self::OnFailure;
}

/// What a call takes along in case it fails; `A` is the answer to come. Sealed.
/// As a rule it is nothing, and takes no room.
pub trait OnFailure<Response, E, A>: OuterError<E> {
    /// Whether it has to be asked at all.
    #[doc(hidden)]
    const ANSWERS: bool;

    /// Answers for a call that failed, or gives back what it came to.
    #[doc(hidden)]
    fn answer(
        &mut self,
        failed: Result<Response, Self::Error>,
        circuit: &Circuit,
    ) -> Result<A, Result<Response, Self::Error>>;
}

/// Answers with [`CircuitOpen`], boxed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reject;

impl Sealed for Reject {}

impl<E: Into<BoxError>> OuterError<E> for Reject {
    type Error = BoxError;

    fn hold(error: E) -> BoxError {
        error.into()
    }

    fn release(error: BoxError) -> BoxError {
        error
    }
}

#[diagnostic::do_not_recommend]
impl<Request, Response, E: Into<BoxError>> OnOpen<Request, Response, E> for Reject {
    type Future = Ready<Result<Response, BoxError>>;
    type OnFailure = Self;

    const ANSWERS: bool = false;

    fn answer(&self, _: Request, open: CircuitOpen, _: &Circuit) -> Self::Future {
        ready(Err(open.into()))
    }

    #[inline]
    fn on_failure(&self, _: &Request) -> Self {
        Self
    }
}

impl<Response, E: Into<BoxError>, A> OnFailure<Response, E, A> for Reject {
    const ANSWERS: bool = false;

    fn answer(
        &mut self,
        failed: Result<Response, BoxError>,
        _: &Circuit,
    ) -> Result<A, Result<Response, BoxError>> {
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        io,
        task::{Context, Poll, Waker},
    };

    use tower_service::Service;

    use super::*;
    use crate::circuit::Config;

    /// What a request may hold and no log should: it can't be printed.
    #[derive(Clone)]
    struct Secret;

    #[derive(Clone, Debug)]
    struct Spare;

    impl Service<Secret> for Spare {
        type Response = u32;
        type Error = Infallible;
        type Future = std::future::Pending<Result<u32, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Secret) -> Self::Future {
            std::future::pending()
        }
    }

    #[test]
    fn what_is_on_its_way_says_how_far_it_is_and_nothing_of_the_request() {
        let circuit = Circuit::new(Config::default());
        circuit.trip();
        let open = || circuit.try_acquire().unwrap_err();
        let spare = FallbackOnFailureWith::new(
            |request: &Secret| Some(request.clone()),
            |_, _: Why<u32, io::Error>| ready(Ok::<_, io::Error>(1)),
        );
        let taken_along = OnOpen::<Secret, u32, io::Error>::on_failure(&spare, &Secret);
        assert_eq!(format!("{taken_along:?}"), "SpareRequest { .. }");
        let answer = OnOpen::<Secret, u32, io::Error>::answer(&spare, Secret, open(), &circuit);
        assert_eq!(format!("{answer:?}"), "AnswerFuture { .. }");

        let service = FallbackService::<_, AsBox>::new(Spare);
        let kept = OnOpen::<Secret, u32, BoxError>::on_failure(&service, &Secret);
        assert_eq!(format!("{kept:?}"), "Kept");
        let mut call = Box::pin(FallbackServiceFuture::new(Spare, Secret));
        assert_eq!(format!("{call:?}"), "FallbackServiceFuture { state: \"waiting\", .. }");
        let polled: Poll<Result<u32, BoxError>> =
            call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        assert_eq!(format!("{call:?}"), "FallbackServiceFuture { state: \"calling\", .. }");
    }

    #[test]
    #[should_panic(expected = "it answers for no failure")]
    fn whoever_answers_for_no_failure_is_not_asked_to() {
        let circuit = Circuit::new(Config::default());
        drop(OnOpen::<_, u32, BoxError>::answer_for(&Reject, Secret, "shed".into(), &circuit));
    }

    #[test]
    fn whoever_answers_for_no_failure_gives_back_what_the_call_came_to() {
        type Given = Result<Ready<Result<u32, BoxError>>, Result<u32, BoxError>>;
        let circuit = Circuit::new(Config::default());
        let reject = |failed| -> Given {
            OnFailure::<u32, BoxError, _>::answer(&mut Reject, failed, &circuit)
        };
        let keep = |failed| -> Given {
            let mut kept = Kept::<AsBox>::NOTHING;
            OnFailure::<u32, BoxError, _>::answer(&mut kept, failed, &circuit)
        };
        for given_back in [reject(Ok(500)), keep(Ok(500))] {
            assert_eq!(given_back.unwrap_err().unwrap(), 500);
        }
        for given_back in [reject(Err("down".into())), keep(Err("down".into()))] {
            assert_eq!(given_back.unwrap_err().unwrap_err().to_string(), "down");
        }
    }
}
