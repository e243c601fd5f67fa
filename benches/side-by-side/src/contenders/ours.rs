//! tower-breaker: the default configuration, and what can be asked of it.
//!
//! Feature `metrics` is on, as it is by default. Without a recorder it reports
//! to nobody; under [`reporting`] to Prometheus.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::Response;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tower::Layer;
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, Config, ConfigBuilder, HttpClassifier,
    KeyedCircuitBreakerLayer, KeyedCircuits, Outcome, Probes, ResultClassifier, WhenOpen, Window,
};

use super::{Contender, HOUR, HalfOpen};
use crate::{
    backend::{Ask, Backend, Request},
    driver::{Driven, Ended, Guarded, Looped, Tally},
};

pub const DEFAULT: &str = "tower-breaker";
pub const DEFERS: &str = "tower-breaker, deferring";
pub const LATENCY: &str = "tower-breaker, latency judged";
pub const SLOW_CALLS: &str = "tower-breaker, slow calls";
pub const TIME: &str = "tower-breaker, time window";
pub const TIME_LATENCY: &str = "tower-breaker, time window, latency judged";
pub const KEYED: &str = "tower-breaker, keyed";
pub const PROMETHEUS: &str = "tower-breaker, Prometheus";
pub const PROMETHEUS_LATENCY: &str = "tower-breaker, latency judged, Prometheus";
pub const ALONE: &str = "`Circuit::try_acquire` alone";
pub const FAST_LATENCY: &str = "tower-breaker, latency judged, fast clock";
pub const FAST_TIME: &str = "tower-breaker, time window, latency judged, fast clock";

const SECOND: Duration = Duration::from_secs(1);

type Configure = fn(ConfigBuilder) -> ConfigBuilder;

/// Opens at once when all fail, and admits one probe.
fn tripping(config: ConfigBuilder, wait: Duration) -> ConfigBuilder {
    config
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(wait))
        .probes(Probes::new(1).lease(HOUR))
}

fn build(config: ConfigBuilder) -> Config {
    config.build().unwrap_or_else(|error| panic!("{error}"))
}

fn config() -> ConfigBuilder {
    Config::builder("inventory")
}

type Service = <CircuitBreakerLayer<HttpClassifier> as Layer<Backend<Response<()>>>>::Service;

fn contender(
    name: &str,
    configure: Configure,
    classifier: HttpClassifier,
    when_open: WhenOpen,
) -> Contender {
    let service = move |config: ConfigBuilder| -> Driven<Service> {
        let layer = CircuitBreakerLayer::new(build(config)).classify(classifier);
        Driven(layer.when_open(when_open).layer(Backend::new()))
    };
    Contender::new(
        name,
        move || Box::new(service(configure(config()))),
        move |wait| Box::new(service(tripping(configure(config()), wait))),
    )
}

fn time(config: ConfigBuilder) -> ConfigBuilder {
    config.window(Window::time(10 * SECOND))
}

pub fn contenders() -> Vec<Contender> {
    let plain = HttpClassifier::new();
    let timed = plain.slow_is_failure(SECOND);
    let error = WhenOpen::Error;
    let slow: Configure = |config| config.slow_calls(SECOND, 0.5);
    #[cfg_attr(not(feature = "fast-clock"), expect(unused_mut, reason = "there is no more"))]
    let mut ours = vec![
        contender(DEFAULT, |config| config, plain, error),
        contender(DEFERS, |config| config, plain, WhenOpen::Defer),
        contender(LATENCY, |config| config, timed, error).half_open(HalfOpen::Skipped),
        contender(SLOW_CALLS, slow, plain, error).half_open(HalfOpen::Skipped),
        contender(TIME, time, plain, error).half_open(HalfOpen::Skipped),
        contender(TIME_LATENCY, time, timed, error).half_open(HalfOpen::Skipped),
        keyed(),
        alone(),
        reporting(PROMETHEUS, contender(DEFAULT, |config| config, plain, error)),
        reporting(PROMETHEUS_LATENCY, contender(LATENCY, |config| config, timed, error)),
    ];
    #[cfg(feature = "fast-clock")]
    {
        let fast: Configure = |config| config.clock(tower_breaker::Clock::fast());
        let fast_time: Configure = |config| time(config).clock(tower_breaker::Clock::fast());
        ours.push(contender(FAST_LATENCY, fast, timed, error).half_open(HalfOpen::Skipped));
        ours.push(contender(FAST_TIME, fast_time, timed, error).half_open(HalfOpen::Skipped));
    }
    ours
}

/// Judges any result.
pub fn plain() -> Contender {
    let service = |config: ConfigBuilder| {
        let circuit = Circuit::new(build(config));
        let layer = CircuitBreakerLayer::with_classifier(circuit, ResultClassifier::new());
        Driven(layer.layer(Backend::<u64>::new()))
    };
    Contender::new(
        DEFAULT,
        move || Box::new(service(config())),
        move |wait| Box::new(service(tripping(config(), wait))),
    )
}

/// A circuit per key; there are a hundred, and one is called.
fn keyed() -> Contender {
    let service = |config: ConfigBuilder| {
        let circuits =
            KeyedCircuits::builder(build(config)).build().unwrap_or_else(|error| panic!("{error}"));
        for key in 0u64..100 {
            circuits.get_or_create(key);
        }
        let layer = KeyedCircuitBreakerLayer::new(circuits, |request: &Request| request.key.into());
        Driven(layer.layer(Backend::<Response<()>>::new()))
    };
    Contender::new(
        KEYED,
        move || Box::new(service(config())),
        move |wait| Box::new(service(tripping(config(), wait))),
    )
    .half_open(HalfOpen::Skipped)
}

/// The circuit without a service: a permit, and its outcome.
fn alone() -> Contender {
    fn looped(config: ConfigBuilder) -> Box<dyn Guarded> {
        let circuit = Circuit::new(build(config));
        let mut calls = 0u64;
        // Held back, where a probe is to stay out.
        let mut probes = Vec::new();
        Box::new(Looped(move |request: Request| {
            let Ok(permit) = circuit.try_acquire() else { return Ended::Refused };
            calls += 1;
            let ended = match request.ask {
                Ask::Hang => {
                    probes.push(Arc::new(permit));
                    return Ended::Answered;
                }
                Ask::Answer => Ended::Answered,
                Ask::TenthFails if !calls.is_multiple_of(10) => Ended::Answered,
                Ask::TenthFails | Ask::Fail => Ended::Failed,
            };
            permit.record(match ended {
                Ended::Answered => Outcome::Success,
                _ => Outcome::Failure,
            });
            ended
        }))
    }
    Contender::new(ALONE, || looped(config()), |wait| looped(tripping(config(), wait)))
}

/// The same with Prometheus' recorder installed.
pub fn reporting(name: &str, contender: Contender) -> Contender {
    let Contender { closed, tripping, .. } = contender;
    Contender::new(
        name,
        move || Box::new(Reporting(closed(()))),
        move |wait| Box::new(Reporting(tripping(wait))),
    )
    .half_open(HalfOpen::Skipped)
}

/// Runs where the recorder is this thread's.
struct Reporting(Box<dyn Guarded>);

impl Guarded for Reporting {
    fn run(&mut self, request: Request, calls: u64) -> Tally {
        recorded(|| self.0.run(request, calls))
    }

    fn another(&self) -> Box<dyn Guarded> {
        Box::new(Self(self.0.another()))
    }

    fn begin(&mut self, request: Request) -> Box<dyn FnOnce()> {
        recorded(|| self.0.begin(request))
    }
}

/// What `f` reports, Prometheus' recorder gets.
pub fn recorded<T>(f: impl FnOnce() -> T) -> T {
    metrics::with_local_recorder(recorder(), f)
}

fn recorder() -> &'static PrometheusRecorder {
    static RECORDER: OnceLock<PrometheusRecorder> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().build_recorder())
}

/// What a server does between scrapes: without it histograms grow.
pub fn upkeep() {
    recorder().handle().run_upkeep();
}
