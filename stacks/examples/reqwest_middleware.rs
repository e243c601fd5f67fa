//! Retries and a circuit breaker inside a reqwest-middleware client.
//!
//! A job fetches twenty pages, one after the other. In the middle of it the
//! upstream answers 503 for a second and a half. The client retries what
//! fails, and while the circuit is open the retry waits for as long as it is
//! told, so that the job ends well and the sick upstream is left alone. You
//! will see each page, how long it took and how many requests it cost.
//!
//! `cargo run -p tower-breaker-stacks --example reqwest_middleware` takes about
//! four seconds, and fails unless every page came, the circuit opened and
//! closed again, and the outage cost fewer than fifteen requests.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use reqwest::{Client, Request, Response};
use reqwest_middleware::ClientBuilder;
use tokio::time::{Sleep, sleep};
use tower::{BoxError, ServiceBuilder, retry::Policy};
use tower_breaker::{
    Backoff, CircuitBreakerLayer, Config, RetryPolicy, State, TowerMiddleware, WhenOpen,
};
use tower_breaker_stacks::upstream::Upstream;

const PAGES: u64 = 20;
const SICK_AT: u64 = 5;

/// Retries what failed up to ten times, every 50 ms. It knows nothing of
/// circuits.
#[derive(Clone)]
struct TenTimes(u32);

impl Policy<Request, Response, BoxError> for TenTimes {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, BoxError>) -> Option<Sleep> {
        if result.as_ref().is_ok_and(|response| !response.status().is_server_error()) {
            return None;
        }
        self.0 = self.0.checked_sub(1)?;
        Some(sleep(Duration::from_millis(50)))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        request.try_clone()
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let upstream = Upstream::start()?;

    let config = Config::builder("pages")
        .consecutive_failures(3)
        .open_for(Backoff::exponential(Duration::from_millis(400), Duration::from_secs(1)))
        .build()?;
    let breaker = CircuitBreakerLayer::new(config).when_open(WhenOpen::Defer);
    let circuit = breaker.circuit().clone();
    let patience = Duration::from_secs(6);
    let stack = ServiceBuilder::new()
        .retry(RetryPolicy::wait_when_open(TenTimes(10), patience))
        .layer(breaker)
        .into_inner();
    let client = ClientBuilder::new(Client::new()).with(TowerMiddleware::new(stack)).build();

    let mut came = 0;
    for page in 0..PAGES {
        if page == SICK_AT {
            println!("         the upstream falls sick, for 1.5 s");
            upstream.sicken();
        }
        let before = upstream.hits();
        let start = now();
        let request = client.get(upstream.url(&format!("/pages/{page}"))).send();
        let response = if page == SICK_AT {
            let recovery = async {
                sleep(Duration::from_millis(1500)).await;
                upstream.heal();
            };
            tokio::join!(request, recovery).0?
        } else {
            request.await?
        };
        came += u64::from(response.status().is_success());
        println!(
            "page {page:2}: {} after {:4} ms and {} requests; the circuit is {}",
            response.status().as_u16(),
            start.elapsed().as_millis(),
            upstream.hits() - before,
            circuit.state(),
        );
        sleep(Duration::from_millis(50)).await;
    }

    let opened = circuit.snapshot().totals.opened;
    let extra = upstream.hits() - PAGES;
    println!("{came} of {PAGES} pages came; the outage cost {extra} requests more.");
    let happened =
        came == PAGES && opened > 0 && circuit.state() == State::Closed && (1..15).contains(&extra);
    Ok(if happened { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::disallowed_methods, reason = "for the eye, not for the breaker")]
fn now() -> Instant {
    Instant::now()
}
