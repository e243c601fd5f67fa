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

    /// What goes along with it.
    #[doc(hidden)]
    type Rest;

    /// Settles the permit, or takes it along. By reference: a response is large,
    /// and moved once all of that is done.
    #[doc(hidden)]
    fn judged(
        self,
        response: &Response,
        outcome: Outcome,
        reading: Reading,
        permit: &mut Permit,
    ) -> Self::Rest;

    /// Passes an answer that was judged.
    #[doc(hidden)]
    fn wrap(self, response: Response, rest: Self::Rest) -> Self::Response;

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
    type Rest = ();

    #[inline(always)]
    fn judged(self, _: &Response, outcome: Outcome, reading: Reading, permit: &mut Permit) {
        permit.settle(Some(outcome), reading);
        permit.give_back();
    }

    #[inline(always)]
    fn wrap(self, response: Response, (): ()) -> Response {
        response
    }

    fn unjudged(self, response: Response) -> Response {
        response
    }
}
