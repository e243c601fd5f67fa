//! The service: finds the circuit in `call`, where there is a request.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    circuits::{KeyedCircuits, Refused},
    key::KeyOf,
};
use crate::{
    classify::Classify,
    ending::{AtHead, Ending},
    fallback::{OnOpen, Reject},
    future::ResponseFuture,
    service::CircuitBreaker,
};

/// A service behind a circuit a key, made by
/// [`KeyedCircuitBreakerLayer`](crate::KeyedCircuitBreakerLayer).
///
/// Clones share the circuits. `poll_ready` is that of the service behind it; the
/// permit is taken in `call`, synchronously, and lives in the future.
pub struct KeyedCircuitBreaker<S, K, C, O = Reject, T = AtHead> {
    circuits: KeyedCircuits,
    key: K,
    /// Called where it has been decided already; never polled.
    breaker: CircuitBreaker<S, C, O, T>,
}

impl<S, K, C, O, T> KeyedCircuitBreaker<S, K, C, O, T> {
    pub(super) fn new(
        breaker: CircuitBreaker<S, C, O, T>,
        circuits: KeyedCircuits,
        key: K,
    ) -> Self {
        Self { circuits, key, breaker }
    }

    /// The circuits it asks.
    pub fn circuits(&self) -> &KeyedCircuits {
        &self.circuits
    }

    /// The service behind it.
    pub fn get_ref(&self) -> &S {
        self.breaker.get_ref()
    }

    /// The service behind it.
    pub fn get_mut(&mut self) -> &mut S {
        self.breaker.get_mut()
    }

    /// Takes the service from behind it.
    pub fn into_inner(self) -> S {
        self.breaker.into_inner()
    }
}

impl<S, K, C, O, T, Request> Service<Request> for KeyedCircuitBreaker<S, K, C, O, T>
where
    S: Service<Request>,
    K: KeyOf<Request>,
    C: Classify<S::Response> + Clone,
    O: OnOpen<Request, S::Response, S::Error>,
    T: Ending<S::Response>,
{
    type Response = T::Response;
    type Error = O::Error;
    type Future = ResponseFuture<S::Future, O::Future, C, O::OnFailure, T>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.get_mut().poll_ready(cx).map_err(|error| O::release(O::hold(error)))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let measured = self.breaker.classifier().judges_latency();
        match self.circuits.acquire(&self.key.key_of(&request), measured) {
            Ok(permit) => self.breaker.pass(request, permit),
            Err(Refused { open, by }) => self.breaker.refuse(request, open, &by),
        }
    }
}

impl<S, K, C, O, T> Clone for KeyedCircuitBreaker<S, K, C, O, T>
where
    K: Clone,
    CircuitBreaker<S, C, O, T>: Clone,
{
    fn clone(&self) -> Self {
        Self::new(self.breaker.clone(), self.circuits.clone(), self.key.clone())
    }
}

impl<S, K, C, O, T> fmt::Debug for KeyedCircuitBreaker<S, K, C, O, T>
where
    K: fmt::Debug,
    CircuitBreaker<S, C, O, T>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreaker")
            .field("circuits", &self.circuits)
            .field("key", &self.key)
            .field("breaker", &self.breaker)
            .finish()
    }
}
