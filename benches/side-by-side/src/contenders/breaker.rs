//! Its own Tower layer: a boxed future a call, and a `parking_lot` read-write
//! lock around a ring of the last 10 calls.
//!
//! The layer runs `Service::call` even when open, and drops the future.

use std::time::Duration;

use breaker::{BreakerLayer, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerConfigBuilder};
use tower::Layer;

use super::Contender;
use crate::{
    backend::{Backend, Reply},
    driver::{Driven, Guarded},
};

fn service<R: Reply>(config: CircuitBreakerConfigBuilder) -> Box<dyn Guarded> {
    let layer = BreakerLayer::new(CircuitBreaker::new(config.build()));
    Box::new(Driven(layer.layer(Backend::<R>::new())))
}

pub fn contender<R: Reply>() -> Contender {
    Contender::new(
        "breaker",
        || service::<R>(CircuitBreakerConfig::builder()),
        |wait: Duration| {
            let config = CircuitBreakerConfig::builder().wait_duration(wait);
            service::<R>(config.half_open_max_calls(1))
        },
    )
}
