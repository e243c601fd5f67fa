//! Its own Tower layer: a boxed future a call, tokio's mutex taken twice, the
//! clock read for every event, and the name copied for each.
//!
//! The layer is the one whose services share a circuit. With its window of time
//! each call goes through all records of the window, so it is measured with the
//! window of calls it comes with.

use std::time::Duration;

use tower::Layer;
use tower_resilience_circuitbreaker::{CircuitBreakerConfigBuilder, CircuitBreakerLayer};

use super::{Contender, HalfOpen};
use crate::{
    backend::{Backend, Reply},
    driver::{Driven, Guarded},
};

fn service<R: Reply>(config: CircuitBreakerConfigBuilder) -> Box<dyn Guarded> {
    let (layer, _) =
        config.name("inventory").build_with_handle().unwrap_or_else(|error| panic!("{error}"));
    Box::new(Driven(layer.layer(Backend::<R>::new())))
}

/// As it comes, and with slow calls judged.
pub fn contenders<R: Reply>() -> Vec<Contender> {
    let tripping = |wait: Duration| {
        CircuitBreakerLayer::builder().sliding_window_size(10).wait_duration_in_open(wait)
    };
    let slow = |config: CircuitBreakerConfigBuilder| {
        config.slow_call_duration_threshold(Duration::from_secs(1)).slow_call_rate_threshold(0.5)
    };
    vec![
        Contender::new(
            "tower-resilience",
            || service::<R>(CircuitBreakerLayer::builder()),
            move |wait| service::<R>(tripping(wait)),
        ),
        Contender::new(
            "tower-resilience, slow calls",
            move || service::<R>(slow(CircuitBreakerLayer::builder())),
            move |wait| service::<R>(slow(tripping(wait))),
        )
        .half_open(HalfOpen::Skipped),
    ]
}
