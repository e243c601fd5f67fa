//! An outage, seen by callers with a circuit breaker and by callers without.
//!
//! An HTTP upstream on loopback is healthy, then answers 503, then hangs, then
//! is healthy again; 50 calls a second go to it, whatever becomes of them. The
//! same load goes to a second upstream, of the same fate, without the breaker.
//! You will see both second by second, each move of the circuit with its
//! reason, and in the end a table of the two. Beside them runs a small worker
//! pool whose dependency hangs, once behind a breaker and once not.
//!
//! `cargo run --example outage` takes half a minute, and fails unless the
//! circuit opened, probed and closed again, and the breaker was worth having.
//!
//! The stack under test is in `client.rs`, the upstream's illness in
//! `upstream.rs`; the rest runs, counts and prints.

mod client;
mod report;
mod side;
mod timeline;
mod transitions;
mod upstream;
mod worker_pool;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use tower_breaker::{
    Backoff, BoxError, CircuitBreakerLayer, Config,
    State::{Closed, HalfOpen, Open},
};

use crate::{
    report::wait,
    side::Side,
    transitions::{Announce, Moment, Record},
    upstream::{Health, Script},
    worker_pool::Rates,
};

/// What both upstreams go through, from which second on.
const SCRIPT: Script = Script(&[
    (0, Health::Healthy),
    (SICK_FROM.as_secs(), Health::Errors),
    (8, Health::Hangs),
    (HEALED_AT.as_secs(), Health::Healthy),
]);
const SICK_FROM: Duration = Duration::from_secs(4);
const HEALED_AT: Duration = Duration::from_secs(14);
const END: Duration = Duration::from_secs(26);

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    report::introduce();
    let start = now();

    let record = Record::default();
    let config = Config::builder("stock")
        .open_for(Backoff::exponential(Duration::from_millis(500), Duration::from_secs(2)))
        .observer(Announce { start })
        .observer(record.clone())
        .build()?;
    let breaker = CircuitBreakerLayer::new(config);

    let mut with = Side::start(client::stack(Some(breaker)), start).await?;
    let mut without = Side::start(client::stack(None), start).await?;
    let ((), pool) = tokio::join!(
        timeline::print(&mut with, &mut without, start),
        worker_pool::compare(start, END),
    );
    let pool = pool?;

    report::compare(&with, &without);
    report::compare_pools(&pool);
    Ok(judge(&shortcomings(&record.since(start), &with, &without, &pool)))
}

/// What did not happen that should have.
fn shortcomings(transitions: &[Moment], with: &Side, without: &Side, pool: &Rates) -> Vec<String> {
    let (waited, waited_without) = (with.wait_while_sick(0.99), without.wait_while_sick(0.99));
    let [pool_with, pool_without] = pool.hanging;
    let expected = [
        (
            matches!(transitions, [(at, Closed, Open), ..] if *at >= SICK_FROM),
            "the circuit did not open when the upstream fell sick".to_owned(),
        ),
        (
            transitions.iter().any(|moment| matches!(moment, (_, Open, HalfOpen))),
            "the circuit did not probe".to_owned(),
        ),
        (
            matches!(transitions, [.., (at, HalfOpen, Closed)] if *at >= HEALED_AT),
            "the circuit did not close when the upstream had healed".to_owned(),
        ),
        (
            with.sick_calls() * 2 <= without.sick_calls(),
            format!(
                "the breaker did not spare the sick upstream: {} attempts, {} without it",
                with.sick_calls(),
                without.sick_calls(),
            ),
        ),
        (
            with.served() > without.served(),
            format!(
                "the breaker served no more calls: {}, {} without it",
                with.served(),
                without.served(),
            ),
        ),
        (
            waited < waited_without,
            format!(
                "the breaker shortened no waits: {}, {} without it",
                wait(waited),
                wait(waited_without),
            ),
        ),
        (
            pool_with >= 4.0 * pool_without,
            format!(
                "the breaker did not keep the worker pool going: {pool_with:.1}/s, \
                 {pool_without:.1}/s without it"
            ),
        ),
    ];
    expected.into_iter().filter(|(held, _)| !held).map(|(_, sentence)| sentence).collect()
}

fn judge(shortcomings: &[String]) -> ExitCode {
    println!();
    if shortcomings.is_empty() {
        println!(
            "PASSED: the circuit opened, probed and closed again, and the protected did better."
        );
        return ExitCode::SUCCESS;
    }
    for sentence in shortcomings {
        println!("FAILED: {sentence}");
    }
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "the outage runs in real time")]
fn now() -> Instant {
    Instant::now()
}
