//! A reqwest client with a circuit breaker, through an outage.
//!
//! Ten times a second a client asks an upstream on loopback, which is well,
//! then answers 503 for two seconds, then is well again. You will see what
//! each call came to: `.` an answer, `x` a 503, `-` refused at once by the open
//! circuit, and each move of the circuit with its reason.
//!
//! `cargo run -p tower-breaker-stacks --example reqwest_client` takes seven
//! seconds, and fails unless the circuit opened, kept calls away from the
//! upstream and closed again.

use std::{
    mem,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use reqwest::{Client, Request};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_breaker::{
    Backoff, CircuitBreakerLayer, CircuitOpen, Config, Observer, State, Transition,
};
use tower_breaker_stacks::upstream::Upstream;

const CALLS: usize = 70;
const SICK_FROM: usize = 10;
const HEALED_AT: usize = 30;

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let upstream = Upstream::start()?;

    let moves = Moves::default();
    let config = Config::builder("stock")
        .observer(moves.clone())
        .minimum_calls(5)
        .sustained_for(Duration::from_millis(500))
        .open_for(Backoff::exponential(Duration::from_millis(300), Duration::from_secs(1)))
        .build()?;
    let breaker = CircuitBreakerLayer::new(config);
    let circuit = breaker.circuit().clone();
    let mut client = breaker.layer(Client::new());

    let mut every = tokio::time::interval(Duration::from_millis(100));
    let mut line = String::new();
    for call in 0..CALLS {
        every.tick().await;
        match call {
            SICK_FROM => upstream.sicken(),
            HEALED_AT => upstream.heal(),
            _ => {}
        }

        let request = Request::new(Method::GET, upstream.url("/").parse()?);
        let answer = match client.ready().await {
            Ok(client) => client.call(request).await,
            Err(error) => Err(error),
        };
        line.push(match answer {
            Ok(response) if response.status().is_success() => '.',
            Ok(_) => 'x',
            Err(error) if CircuitOpen::find_in(&*error).is_some() => '-',
            Err(error) => return Err(error),
        });

        for transition in moves.take() {
            println!("{line:CALLS$}  {transition}");
            line = " ".repeat(line.len());
        }
    }
    println!("{line}");

    let totals = circuit.snapshot().totals;
    let hits = upstream.hits();
    println!(
        "{CALLS} calls: {} answered, {} failed, {} refused. The upstream got {hits}, \
         and the circuit opened {} times.",
        totals.success, totals.failure, totals.rejected, totals.opened,
    );
    let happened = totals.opened > 0
        && totals.rejected > 0
        && hits + totals.rejected == CALLS as u64
        && circuit.state() == State::Closed
        && line.ends_with('.');
    Ok(if happened { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the circuit did, to be told after the call that made it do so.
#[derive(Clone, Default)]
struct Moves(Arc<Mutex<Vec<String>>>);

impl Moves {
    fn take(&self) -> Vec<String> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Moves {
    fn on_transition(&self, transition: &Transition) {
        let mut moves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moves.push(transition.to_string());
    }
}
