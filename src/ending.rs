//! When a call has ended: at the head of its response, or further on.

use std::fmt::Debug;

use crate::{
    circuit::{Permit, Reading},
    outcome::Outcome,
    sealed::Sealed,
};

/// When a call has ended. Sealed: it is [`AtHead`] or, for HTTP, `AtEndOfBody`.
pub trait Ending<Response>: Copy + Debug + Sealed {
    /// What the caller gets.
    type Response;

    /// Settles the permit, or sends it along with the response.
    #[doc(hidden)]
    fn judged(
        self,
        response: Response,
        outcome: Outcome,
        reading: Reading,
        permit: &mut Permit,
    ) -> Self::Response;

    /// Passes an answer that no call has made.
    #[doc(hidden)]
    fn unjudged(self, response: Response) -> Self::Response;
}

/// A call has ended when its response is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtHead;

impl Sealed for AtHead {}

impl<Response> Ending<Response> for AtHead {
    type Response = Response;

    #[inline]
    fn judged(
        self,
        response: Response,
        outcome: Outcome,
        reading: Reading,
        permit: &mut Permit,
    ) -> Response {
        permit.settle(Some(outcome), reading);
        response
    }

    fn unjudged(self, response: Response) -> Response {
        response
    }
}
