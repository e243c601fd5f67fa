//! Three endpoints under Tower's `Balance`, each with a circuit of its own.
//!
//! A hundred calls a second are spread over three upstreams on loopback. After
//! a second `b` answers 503, for three seconds. Its circuit opens, and because
//! it is on `WhenOpen::Wait` the endpoint is merely not ready: the balancer
//! sends the calls to the others, keeps `b` in its set, and uses it again once
//! the probes were good. You will see, half second by half second, how many
//! calls each endpoint got, the state of its circuit, and what callers saw.
//!
//! `cargo run -p tower-breaker-stacks --example balance` takes seven seconds,
//! and fails unless `b` was left alone while it was sick, got its share again
//! later, and no caller was ever refused.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use reqwest::{Client, Request};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
};
use tower_breaker::{Backoff, Circuit, CircuitBreakerLayer, Config, Probes, State, WhenOpen};
use tower_breaker_stacks::upstream::Upstream;

const NAMES: [&str; 3] = ["a", "b", "c"];
const SICK: usize = 1;
/// Half seconds.
const SICK_FROM: u64 = 2;
const HEALED_AT: u64 = 8;
const END: u64 = 14;
const CALLS_A_ROW: u64 = 50;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let mut upstreams = Vec::new();
    let mut circuits = Vec::new();
    let mut endpoints = Vec::new();
    for name in NAMES {
        let upstream = Upstream::start()?;
        let circuit = Circuit::new(config(name)?);
        let url = upstream.url("");
        let breaker = CircuitBreakerLayer::new(circuit.clone()).when_open(WhenOpen::Wait);
        let service = ServiceBuilder::new()
            .map_request(move |path: &'static str| {
                let url = format!("{url}{path}").parse();
                Request::new(Method::GET, url.expect("the address of an upstream"))
            })
            .service(Client::new());
        let service = breaker.layer(service);
        endpoints.push(PendingRequests::new(service, CompleteOnResponse::default()));
        upstreams.push(upstream);
        circuits.push(circuit);
    }
    let mut balance = Balance::new(ServiceList::new::<&'static str>(endpoints));

    println!("          calls to               circuits                          callers saw");
    println!("            a     b     c        a          b          c             200  503");
    let answers = Arc::new(Answers::default());
    let mut every = tokio::time::interval(Duration::from_millis(500) / CALLS_A_ROW as u32);
    let mut rows = Vec::new();
    for row in 0..END {
        match row {
            SICK_FROM => upstreams[SICK].sicken(),
            HEALED_AT => upstreams[SICK].heal(),
            _ => {}
        }
        let before = [0, 1, 2].map(|endpoint: usize| upstreams[endpoint].hits());
        for _ in 0..CALLS_A_ROW {
            every.tick().await;
            let call = balance.ready().await?.call("/");
            let answers = Arc::clone(&answers);
            tokio::spawn(async move { answers.count(call.await) });
        }
        let calls = [0, 1, 2].map(|endpoint: usize| upstreams[endpoint].hits() - before[endpoint]);
        let states = circuits.iter().map(|circuit| format!("{:11}", circuit.state().to_string()));
        println!(
            "{:4.1} s {:6}{:6}{:6}        {}  {:5}{:5}{}",
            (row + 1) as f64 / 2.0,
            calls[0],
            calls[1],
            calls[2],
            states.collect::<String>(),
            answers.ok.swap(0, Ordering::SeqCst),
            answers.sick.swap(0, Ordering::SeqCst),
            match row + 1 {
                SICK_FROM => "   b falls sick",
                HEALED_AT => "   b is well again",
                _ => "",
            }
        );
        rows.push(calls[SICK]);
    }

    let totals = circuits[SICK].snapshot().totals;
    let refused = answers.error.load(Ordering::SeqCst);
    println!(
        "b failed {} calls, of some {} it would have got; {refused} calls were refused.",
        totals.failure,
        (HEALED_AT - SICK_FROM) * CALLS_A_ROW / 3,
    );
    let happened = totals.opened > 0
        && totals.failure < 30
        && refused == 0
        && circuits.iter().all(|circuit| circuit.state() == State::Closed)
        && rows.last().is_some_and(|calls| *calls > CALLS_A_ROW / 10);
    Ok(if happened { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn config(name: &str) -> Result<Config, tower_breaker::ConfigError> {
    Config::builder(name)
        .consecutive_failures(3)
        .open_for(Backoff::exponential(Duration::from_millis(500), Duration::from_secs(1)))
        .probes(Probes::new(3))
        .build()
}

/// What callers got since the last row.
#[derive(Default)]
struct Answers {
    ok: AtomicU64,
    sick: AtomicU64,
    /// Since the start.
    error: AtomicU64,
}

impl Answers {
    fn count(&self, answer: Result<reqwest::Response, BoxError>) {
        let counter = match answer {
            Ok(response) if response.status().is_success() => &self.ok,
            Ok(_) => &self.sick,
            Err(_) => &self.error,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}
