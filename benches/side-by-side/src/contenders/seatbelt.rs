//! Its own Tower layer: a boxed future a call, and a mutex around a window of
//! 30 s. It reads its clock for every call.
//!
//! The threshold is half of the calls, because its tenth is what fails here.
//! The refusal is an error without size, the cheapest that can be given to it.

use std::time::Duration;

use layered::Layer;
use seatbelt::{
    RecoveryInfo, ResilienceContext,
    breaker::{Breaker, BreakerId, BreakerLayer, HalfOpenMode},
    typestates::Set,
};
use tick::Clock;
use tower::BoxError;

use super::{Contender, HOUR, HalfOpen};
use crate::{
    backend::{Backend, Broken, Reply, Request},
    driver::{Driven, Guarded},
};

type Answered<R> = Result<R, BoxError>;

fn layer<R: Reply>(clock: &Clock, wait: Duration) -> BreakerLayer<Request, Answered<R>, Set, Set> {
    Breaker::layer("inventory", &ResilienceContext::<Request, Answered<R>>::new(clock))
        .recovery_with(|answer, _| match answer {
            Ok(_) => RecoveryInfo::never(),
            Err(_) => RecoveryInfo::retry(),
        })
        .rejected_input_error(|_, _| Broken.into())
        .failure_threshold(0.5)
        .half_open_mode(HalfOpenMode::quick())
        .break_duration(wait)
}

fn service<R: Reply>(layer: BreakerLayer<Request, Answered<R>, Set, Set>) -> Box<dyn Guarded> {
    Box::new(Driven(layer.layer(Backend::<R>::new())))
}

/// As it comes, with its coarse clock, and with a circuit per key.
pub fn contenders<R: Reply>() -> Vec<Contender> {
    let clock = Clock::new_tokio;
    let coarse = || Clock::new_tokio().with_fast_instant(true);
    let keyed = |wait| {
        layer::<R>(&Clock::new_tokio(), wait)
            .breaker_id(|request| BreakerId::hashed(&request.key, "host"))
    };
    let each = |name, clock: fn() -> Clock| {
        Contender::new(
            name,
            move || service(layer::<R>(&clock(), HOUR)),
            move |wait| service(layer::<R>(&clock(), wait)),
        )
    };
    vec![
        each("seatbelt", clock),
        each("seatbelt, coarse clock", coarse).half_open(HalfOpen::Skipped),
        Contender::new(
            "seatbelt, keyed",
            move || service(keyed(HOUR)),
            move |wait| service(keyed(wait)),
        )
        .half_open(HalfOpen::Skipped),
    ]
}
