//! The service: looks in `poll_ready`, acquires in `call`.

use std::{
    fmt, mem,
    task::{Context, Poll},
};

use tower_service::Service;

#[cfg(feature = "tokio")]
use crate::circuit::Waiter;
use crate::{
    circuit::{Circuit, CircuitOpen, Permit},
    classify::Classify,
    ending::{AtHead, Ending},
    error::{BoxError, proves_nothing},
    fallback::{OnFailure, OnOpen, Reject},
    future::{CancelIfUnwound, ResponseFuture},
    machine::Rejection,
    outcome::Outcome,
};

/// A service behind a circuit breaker, made by
/// [`CircuitBreakerLayer`](crate::CircuitBreakerLayer).
///
/// Clones share the circuit. Being ready reserves nothing: the permit is taken
/// in `call`, synchronously, and lives in the future, so an idle clone holds no
/// probe. Between the two the circuit may open; then `call` answers as
/// [`WhenOpen::Defer`] does.
#[doc(alias = "outlier detection")]
pub struct CircuitBreaker<S, C, O = Reject, T = AtHead> {
    inner: S,
    circuit: Circuit,
    classifier: C,
    on_open: O,
    when_open: WhenOpen,
    ending: T,
    /// `poll_ready` said yes, and the inner service must not be called.
    deferred: Option<Deferred>,
    #[cfg(feature = "tokio")]
    waiter: Waiter,
}

/// What there is to say only when there is a request.
enum Deferred {
    /// The inner service was not asked, because `call` will refuse.
    Rejection(Rejection),
    /// The inner service refused, and somebody answers for that.
    Refused(BoxError),
}

/// What `poll_ready` does while the circuit admits nothing.
///
/// | around the breaker | choose | because |
/// |---|---|---|
/// | nothing, or a retry | `Error` | the caller learns it at once |
/// | `Buffer`, `Steer`, `SpawnReady`, `ConcurrencyLimit`, tonic | `Defer` | an error from `poll_ready` ends a `Buffer` for good, stops all routes of a `Steer`, keeps a place in a limit, and becomes a wrong status in tonic |
/// | `Balance` | `Wait` | an error evicts the endpoint for ever; waiting routes around it |
/// | `LoadShed` | `Error` or `Defer` | the refusal passes; with `Wait` the load is shed, without a reason |
///
/// The circuit is looked at before the inner service. A caller that the inner
/// service keeps waiting is woken by an opening (with feature `tokio`).
///
/// With a fallback, `Error` acts like `Defer`: there is an answer. More on it
/// in [the order of layers](crate::docs::order_of_layers).
///
/// ```
/// use tower_breaker::{CircuitBreakerLayer, Config, ResultClassifier, WhenOpen};
///
/// let layer = CircuitBreakerLayer::with_classifier(Config::default(), ResultClassifier::new())
///     .when_open(WhenOpen::Defer);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenOpen {
    /// `poll_ready` is `Ready(Err(CircuitOpen))`.
    #[default]
    Error,
    /// `poll_ready` is `Ready(Ok(()))`; the error comes from `call`.
    ///
    /// The inner service was not asked whether it is ready then, so the one call
    /// that this readiness is good for is refused, even if it comes after the
    /// circuit has closed: an owner that keeps readiness for long, such as
    /// `Steer`, pays one refusal.
    Defer,
    /// `poll_ready` is `Pending` until the circuit changes or the wait is
    /// over. Needs tokio's timer, so a tokio runtime (or a `ManualClock`).
    ///
    /// # Panics
    ///
    /// `poll_ready` panics outside a tokio runtime with its timer enabled, if
    /// it has to wait.
    #[cfg(feature = "tokio")]
    Wait,
}

impl<S, C, O, T> CircuitBreaker<S, C, O, T> {
    pub(crate) fn new(
        inner: S,
        circuit: Circuit,
        classifier: C,
        on_open: O,
        when_open: WhenOpen,
        ending: T,
    ) -> Self {
        Self {
            inner,
            circuit,
            classifier,
            on_open,
            when_open,
            ending,
            deferred: None,
            #[cfg(feature = "tokio")]
            waiter: Waiter::default(),
        }
    }

    /// The circuit it asks.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// The service behind it.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service behind it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the service from behind it.
    pub fn into_inner(self) -> S {
        self.inner
    }

    #[cfg(feature = "keyed")]
    pub(crate) fn classifier(&self) -> &C {
        &self.classifier
    }

    /// Calls the service behind it, which must be ready.
    #[inline]
    pub(crate) fn pass<Request>(
        &mut self,
        request: Request,
        mut permit: Permit,
    ) -> ResponseFuture<S::Future, O::Future, C, O::OnFailure, T>
    where
        S: Service<Request>,
        C: Clone,
        O: OnOpen<Request, S::Response, S::Error>,
        T: Copy,
    {
        let unwinding = CancelIfUnwound(&mut permit);
        let on_failure = self.on_open.on_failure(&request);
        mem::forget(unwinding);
        let call = self.inner.call(request);
        let classifier = self.classifier.clone();
        ResponseFuture::calling(call, permit, classifier, on_failure, self.ending)
    }

    /// Whether a task of this service may be registered with the circuit.
    #[inline]
    fn is_waiting(&self) -> bool {
        #[cfg(feature = "tokio")]
        return self.waiter.is_waiting();
        #[cfg(not(feature = "tokio"))]
        return false;
    }

    /// Polls a circuit that is not closed, or has not been, and then the service.
    #[inline(never)]
    fn poll_circuit<Request>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), O::Error>>
    where
        S: Service<Request>,
        O: OnOpen<Request, S::Response, S::Error>,
    {
        match self.when_open {
            #[cfg(feature = "tokio")]
            WhenOpen::Wait => std::task::ready!(self.waiter.poll(&self.circuit, cx)),
            WhenOpen::Error if !O::ANSWERS => {
                if let Err(open) = self.circuit.ready() {
                    return Poll::Ready(Err(O::release(open)));
                }
            }
            WhenOpen::Error | WhenOpen::Defer => {
                if let Err(rejection) = self.circuit.look_ahead() {
                    self.deferred = Some(Deferred::Rejection(rejection));
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let ready = self.inner.poll_ready(cx);
        self.leave_or_register::<Request>(ready, cx)
    }

    /// Passes on what the inner service says. A caller that it keeps waiting is
    /// registered with the circuit: an opening has to get it out of there.
    #[inline(never)]
    fn leave_or_register<Request>(
        &mut self,
        ready: Poll<Result<(), S::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), O::Error>>
    where
        S: Service<Request>,
        O: OnOpen<Request, S::Response, S::Error>,
    {
        let _ = &cx;
        #[cfg(feature = "tokio")]
        if ready.is_ready() {
            self.waiter.leave();
        } else {
            self.waiter.register(&self.circuit, cx);
            if self.circuit.look_for_hangs().is_err() {
                cx.waker().wake_by_ref();
            }
        }
        ready.map(|ready| {
            let Err(error) = ready else { return Ok(()) };
            let error = O::hold(error);
            let answers = <O::OnFailure as OnFailure<_, _, O::Future>>::ANSWERS;
            if !answers || !proves_nothing(&error) {
                return Err(O::release(error));
            }
            self.deferred = Some(Deferred::Refused(error));
            Ok(())
        })
    }

    /// Calls, if the circuit grants it after all.
    #[inline(never)]
    fn ask<Request>(
        &mut self,
        request: Request,
        measured: bool,
    ) -> ResponseFuture<S::Future, O::Future, C, O::OnFailure, T>
    where
        S: Service<Request>,
        C: Clone,
        O: OnOpen<Request, S::Response, S::Error>,
        T: Copy,
    {
        let open = match self.deferred.take() {
            // The inner service was not asked whether it is ready, so it must
            // not be called even if the wait has ended since.
            Some(Deferred::Rejection(rejection)) => self.circuit.refuse_deferred(rejection),
            Some(Deferred::Refused(error)) => match self.circuit.acquire(measured) {
                Ok(permit) => return self.answer_for(request, permit, error),
                Err(open) => open,
            },
            None => match self.circuit.ask(measured) {
                Ok(permit) => return self.pass(request, permit),
                Err(open) => open,
            },
        };
        self.refuse(request, open, &self.circuit)
    }

    /// Answers for a call that the inner service refused before it was made.
    #[cold]
    fn answer_for<Request>(
        &self,
        request: Request,
        mut permit: Permit,
        refusal: BoxError,
    ) -> ResponseFuture<S::Future, O::Future, C, O::OnFailure, T>
    where
        S: Service<Request>,
        O: OnOpen<Request, S::Response, S::Error>,
        T: Copy,
    {
        permit.end(Some(Outcome::Ignored));
        let answer = self.on_open.answer_for(request, O::release(refusal), &permit.circuit());
        ResponseFuture::answering(answer, self.ending)
    }

    /// Answers for a call that the circuit refused.
    #[cold]
    pub(crate) fn refuse<Request>(
        &self,
        request: Request,
        open: CircuitOpen,
        by: &Circuit,
    ) -> ResponseFuture<S::Future, O::Future, C, O::OnFailure, T>
    where
        S: Service<Request>,
        O: OnOpen<Request, S::Response, S::Error>,
        T: Copy,
    {
        ResponseFuture::answering(self.on_open.answer(request, open, by), self.ending)
    }
}

impl<S, C, O, T, Request> Service<Request> for CircuitBreaker<S, C, O, T>
where
    S: Service<Request>,
    C: Classify<S::Response> + Clone,
    O: OnOpen<Request, S::Response, S::Error>,
    T: Ending<S::Response>,
{
    type Response = T::Response;
    type Error = O::Error;
    type Future = ResponseFuture<S::Future, O::Future, C, O::OnFailure, T>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.deferred.is_some() {
            self.deferred = None;
        }
        if !self.circuit.looks_closed() || self.is_waiting() {
            return self.poll_circuit::<Request>(cx);
        }
        match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            ready => self.leave_or_register::<Request>(ready, cx),
        }
    }

    #[inline(never)]
    fn call(&mut self, request: Request) -> Self::Future {
        let measured = self.classifier.judges_latency();
        if self.deferred.is_none() {
            if let Some(permit) = self.circuit.pass(measured) {
                return self.pass(request, permit);
            }
        }
        self.ask(request, measured)
    }
}

/// Readiness is a clone's own.
impl<S: Clone, C: Clone, O: Clone, T: Copy> Clone for CircuitBreaker<S, C, O, T> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.circuit.clone(),
            self.classifier.clone(),
            self.on_open.clone(),
            self.when_open,
            self.ending,
        )
    }
}

impl<S, C, O, T> fmt::Debug for CircuitBreaker<S, C, O, T>
where
    S: fmt::Debug,
    C: fmt::Debug,
    O: fmt::Debug,
    T: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("circuit", &self.circuit)
            .field("classifier", &self.classifier)
            .field("on_open", &self.on_open)
            .field("when_open", &self.when_open)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}
