//! A scrape of circuits that have been through everything there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::{Request, Response};
use metrics_exporter_prometheus::{Matcher as Metric, PrometheusBuilder};
use regex::Regex;
use tokio::{task::yield_now, time::advance};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, Config, ConfigBuilder, HealthCheck,
    KeyedCircuitBreakerLayer, KeyedCircuits, Outcome, Override, Probes, State, service_unavailable,
};

use super::expression::Matcher;

const SECOND: Duration = Duration::from_secs(1);

/// What Prometheus puts on every series by itself.
const OF_THE_TARGET: [&str; 2] = ["instance", "job"];

/// All series, as the exporter writes them: durations once in buckets, and once
/// as quantiles.
pub(crate) struct Scrape {
    series: Vec<Series>,
    families: BTreeSet<String>,
}

struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

impl Scrape {
    pub(crate) async fn take() -> Self {
        let durations = Metric::Full("circuit_breaker_call_duration_seconds".to_owned());
        let buckets = PrometheusBuilder::new().set_buckets_for_metric(durations, &[0.1, 1.0]);
        let mut this = Self { series: Vec::new(), families: BTreeSet::new() };
        for exporter in [PrometheusBuilder::new(), buckets.unwrap()] {
            let recorder = exporter.build_recorder();
            let _guard = metrics::set_default_local_recorder(&recorder);
            live().await;
            this.read(&recorder.handle().render());
        }
        this
    }

    fn read(&mut self, text: &str) {
        let label = Regex::new(r#"(\w+)="([^"]*)""#).unwrap();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                self.families.extend(family.split(' ').next().map(str::to_owned));
            } else if let Some(end) = line.find(['{', ' ']).filter(|_| !line.starts_with('#')) {
                let labels = label.captures_iter(&line[end..]).map(|pair| {
                    let (_, [label, value]) = pair.extract();
                    (label.to_owned(), value.to_owned())
                });
                self.series.push(Series { name: line[..end].to_owned(), labels: labels.collect() });
            }
        }
    }

    /// The names of all metrics.
    pub(crate) const fn families(&self) -> &BTreeSet<String> {
        &self.families
    }

    /// The name of the metric that a series belongs to.
    pub(crate) fn family(&self, name: &str) -> Option<String> {
        let of_a_histogram = name.strip_suffix("_bucket").unwrap_or(name);
        [name, of_a_histogram]
            .into_iter()
            .find(|name| self.families.contains(*name))
            .map(str::to_owned)
    }

    /// Whether there is a series of this name that all matchers match.
    pub(crate) fn has(&self, name: &str, matchers: &[Matcher]) -> bool {
        let matchers: Vec<_> = matchers
            .iter()
            .map(|matcher| (&*matcher.label, whole(&matcher.values.join("|")), matcher.is_negated))
            .collect();
        self.of(name).any(|series| {
            matchers.iter().all(|(label, values, is_negated)| {
                OF_THE_TARGET.contains(label)
                    || series
                        .labels
                        .get(*label)
                        .is_some_and(|is| values.is_match(is) != *is_negated)
            })
        })
    }

    /// Whether some series of this name has this label, with a value that the
    /// regular expression matches.
    pub(crate) fn can_have(&self, name: &str, label: &str, value: &str) -> bool {
        let value = whole(value);
        let has = |series: &Series| series.labels.get(label).is_some_and(|is| value.is_match(is));
        OF_THE_TARGET.contains(&label) || self.of(name).any(has)
    }

    /// Whether any series has this label.
    pub(crate) fn has_label(&self, label: &str) -> bool {
        OF_THE_TARGET.contains(&label)
            || self.series.iter().any(|series| series.labels.contains_key(label))
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| series.name == name)
    }
}

fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

/// Everything that can happen to circuits.
async fn live() {
    outage().await;
    health_check().await;
    overrides();
    keys().await;
}

fn config(name: &str) -> ConfigBuilder {
    Config::builder(name)
        .consecutive_failures(3)
        .open_for(Backoff::fixed(SECOND))
        .probes(Probes::new(1))
        .measure_latency()
}

/// A circuit with a shadow and a fallback opens, and comes back by a ramp.
async fn outage() {
    let stricter = config("stricter").consecutive_failures(2).build().unwrap();
    let config = config("inventory").slow_calls(SECOND, 1.0).ramp(10 * SECOND).shadow(stricter);
    let breaker = CircuitBreakerLayer::new(config.build().unwrap()).fallback(service_unavailable);
    let circuit = breaker.circuit().clone();
    let client = breaker.layer(service_fn(async |request: Request<u16>| {
        advance(2 * SECOND).await;
        Ok::<_, BoxError>(Response::builder().status(*request.body()).body(String::new())?)
    }));
    for status in [200, 429, 500, 500, 500, 200] {
        client.clone().oneshot(Request::new(status)).await.unwrap();
    }
    drop(circuit.try_acquire().unwrap_err());
    assert_eq!(circuit.state(), State::Open);
    advance(SECOND).await;
    let late = circuit.try_acquire().unwrap();
    assert_eq!(circuit.state(), State::HalfOpen);
    late.record(Outcome::Success);
    advance(11 * SECOND).await;
    drop(circuit.try_acquire().unwrap());
    assert_eq!(circuit.state(), State::Closed);
}

async fn health_check() {
    let circuit = Circuit::new(config("payments").build().unwrap());
    let check = HealthCheck::new(async || Ok::<_, BoxError>(())).instead_of_probes();
    circuit.run_health_check(check).unwrap();
    circuit.trip();
    while circuit.state() != State::Closed {
        yield_now().await;
        advance(SECOND).await;
    }
}

fn overrides() {
    let circuit = Circuit::new(config("search").build().unwrap());
    circuit.set_override(Override::force_open());
    circuit.try_acquire().unwrap_err();
    circuit.set_override(Override::force_closed());
    circuit.try_acquire().unwrap().record(Outcome::Success);
    circuit.trip();
    circuit.set_override(Override::observe_only());
    circuit.try_acquire().unwrap().record(Outcome::Success);
}

/// A group that finds no room for its third key, and one that labels them and
/// has a fallback.
async fn keys() {
    let hosts = KeyedCircuits::builder(config("hosts").build().unwrap()).capacity(2).build();
    let hosts = hosts.unwrap();
    for key in ["a", "b"] {
        hosts.get_or_create(key).trip();
    }
    hosts.try_acquire("c").unwrap().record(Outcome::Success);

    let shards = KeyedCircuits::builder(config("shards").build().unwrap()).label_keys().build();
    let breaker = KeyedCircuitBreakerLayer::new(shards.unwrap(), |_: &Request<()>| "north".into())
        .fallback(service_unavailable);
    let north = breaker.circuits().get_or_create("north");
    let client =
        breaker.layer(service_fn(async |_| Ok::<_, BoxError>(Response::new(String::new()))));
    client.clone().oneshot(Request::new(())).await.unwrap();
    north.trip();
    client.oneshot(Request::new(())).await.unwrap();
}
