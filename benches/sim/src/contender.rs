//! Who competes.

use std::time::Duration;

use tower_breaker::{Backoff, Config, ConfigBuilder, ManualClock, Throttle};

use crate::{
    policy::{
        Gradual, Hystrix, Linkerd, Ours, Policy, Polly, Resilience4j, Shape, SreThrottle,
        Unprotected,
    },
    rng::Rng,
};

/// A policy with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contender {
    /// tower-breaker's defaults.
    Ours,
    /// tower-breaker with other settings.
    OursWith(Tuning),
    /// tower-breaker's defaults inside a simulated way to come back.
    Gradual(Shape, Duration),
    /// resilience4j's defaults.
    Resilience4j,
    /// Hystrix's defaults.
    Hystrix,
    /// Polly's defaults.
    Polly,
    /// Linkerd's defaults.
    Linkerd,
    /// Client-side throttling of the SRE book.
    Sre,
    /// Nothing.
    Unprotected,
}

/// One setting that differs from the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tuning {
    /// `slow_calls` with this threshold and half of the calls.
    Slow(Duration),
    /// A ramp of this length after the probes.
    Ramp(Duration),
    /// The throttle of the SRE book instead of a failure rate.
    Throttle,
    /// `sustained_for` of zero, which the tests break things by.
    NotSustained,
    /// A wait of 8 s from the first one on without jitter, likewise.
    FixedWait,
    /// A wait of 45 s from the first one on, likewise.
    LongWait,
}

impl Contender {
    /// The defaults of all, ours first.
    pub const ALL: [Self; 7] = [
        Self::Ours,
        Self::Resilience4j,
        Self::Hystrix,
        Self::Polly,
        Self::Linkerd,
        Self::Sre,
        Self::Unprotected,
    ];

    /// The circuit breakers that we measure ourselves against.
    pub const PEERS: [Self; 4] = [Self::Resilience4j, Self::Hystrix, Self::Polly, Self::Linkerd];

    /// Its name in tables and charts.
    pub fn name(self) -> String {
        match self {
            Self::Ours => "tower-breaker".into(),
            Self::OursWith(Tuning::Slow(_)) => "tower-breaker, slow rule".into(),
            Self::OursWith(Tuning::Ramp(over)) => {
                format!("tower-breaker, ramp {} s", over.as_secs())
            }
            Self::OursWith(Tuning::Throttle) => "tower-breaker, throttle".into(),
            Self::OursWith(Tuning::NotSustained) => "tower-breaker, not sustained".into(),
            Self::OursWith(Tuning::FixedWait) => "tower-breaker, fixed wait".into(),
            Self::OursWith(Tuning::LongWait) => "tower-breaker, long wait".into(),
            Self::Gradual(Shape::Linear, over) => format!("linear over {} s", over.as_secs()),
            Self::Gradual(Shape::Doubling, over) => format!("doubling over {} s", over.as_secs()),
            Self::Resilience4j => "resilience4j".into(),
            Self::Hystrix => "Hystrix".into(),
            Self::Polly => "Polly".into(),
            Self::Linkerd => "Linkerd".into(),
            Self::Sre => "SRE throttle".into(),
            Self::Unprotected => "none".into(),
        }
    }

    pub(crate) fn build(self, clock: &ManualClock, rng: &mut Rng) -> Box<dyn Policy> {
        match self {
            Self::Ours => Box::new(Ours::new(config(clock, rng, |builder| builder))),
            Self::OursWith(tuning) => Box::new(Ours::new(config(clock, rng, |b| tuning.apply(b)))),
            Self::Gradual(shape, over) => {
                Box::new(Gradual::new(config(clock, rng, |builder| builder), shape, over))
            }
            Self::Resilience4j => Box::new(Resilience4j::new()),
            Self::Hystrix => Box::new(Hystrix::new(rng)),
            Self::Polly => Box::new(Polly::new(rng)),
            Self::Linkerd => Box::new(Linkerd::new(rng.clone())),
            Self::Sre => Box::new(SreThrottle::new(rng)),
            Self::Unprotected => Box::new(Unprotected),
        }
    }
}

impl Tuning {
    fn apply(self, builder: ConfigBuilder) -> ConfigBuilder {
        match self {
            Self::Slow(threshold) => builder.slow_calls(threshold, 0.5),
            Self::Ramp(over) => builder.ramp(over),
            Self::Throttle => {
                // Over two minutes, as in the book.
                let book = Throttle::new(2.0).window(Duration::from_secs(120));
                builder.no_failure_rate().throttle(book)
            }
            Self::NotSustained => builder.sustained_for(Duration::ZERO),
            Self::FixedWait => builder.open_for(Backoff::fixed(Duration::from_secs(8))),
            Self::LongWait => builder.open_for(Backoff::fixed(Duration::from_secs(45))),
        }
    }
}

/// The defaults, but with the engine's clock and a jitter that can be repeated.
fn config(
    clock: &ManualClock,
    rng: &mut Rng,
    tune: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> Config {
    let builder = Config::builder("sim").clock(clock).open_for(Backoff::default().seed(rng.bits()));
    match tune(builder).build() {
        Ok(config) => config,
        Err(error) => unreachable!("a contender's configuration is valid: {error}"),
    }
}
