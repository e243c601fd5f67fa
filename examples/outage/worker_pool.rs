//! A worker pool of one, and what a hanging dependency makes of it.

use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{Backoff, BoxError, CircuitBreakerLayer, Config, Probes};

use crate::{
    client,
    upstream::{Health, Script, Upstream, WORK},
};

pub(crate) const REQUEST: Duration = Duration::from_millis(200);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const HANGS_FROM: Duration = Duration::from_secs(4);
/// Two timeouts after that the circuit is open, and a little.
pub(crate) const OPEN_BY: Duration = Duration::from_secs(9);
const SCRIPT: Script = Script(&[(0, Health::Healthy), (HANGS_FROM.as_secs(), Health::Hangs)]);

/// Requests done in a second, with a breaker and without.
pub(crate) struct Rates {
    pub(crate) healthy: [f64; 2],
    pub(crate) noticing: [f64; 2],
    pub(crate) hanging: [f64; 2],
}

/// Runs two pools, which differ in the breaker alone, until `end`.
pub(crate) async fn compare(start: Instant, end: Duration) -> Result<Rates, BoxError> {
    // One worker makes few calls, and half a call a second once they time out:
    // it cannot wait for ten of them. And a probe that times out costs it ten
    // requests, so it probes seldom.
    let config = Config::builder("worker-pool")
        .consecutive_failures(2)
        .open_for(Backoff::exponential(Duration::from_secs(10), Duration::from_secs(60)))
        .probes(Probes::new(1))
        .build()?;
    let breaker = CircuitBreakerLayer::new(config).fallback(|_open| Response::new(()));
    let client = ServiceBuilder::new().timeout(TIMEOUT).service(client::http());
    let protected = ServiceBuilder::new().layer(breaker).service(client.clone());

    let upstreams = (Upstream::start(SCRIPT, start).await?, Upstream::start(SCRIPT, start).await?);
    let (with, without) = tokio::join!(
        work(protected, upstreams.0.request()?, start, end),
        work(client, upstreams.1.request()?, start, end),
    );
    let rates = |from, to| [rate(&with, from, to), rate(&without, from, to)];
    Ok(Rates {
        healthy: rates(Duration::ZERO, HANGS_FROM),
        noticing: rates(HANGS_FROM, OPEN_BY),
        hanging: rates(OPEN_BY, end),
    })
}

/// One worker, one request after the other: its own part of the work, then a
/// call to the dependency. Returns when each request was done.
async fn work<S>(
    dependency: S,
    request: Request<String>,
    start: Instant,
    end: Duration,
) -> Vec<Duration>
where
    S: Service<Request<String>> + Clone,
{
    let mut done = Vec::new();
    while start.elapsed() < end {
        sleep(REQUEST - WORK).await;
        // Done is done: with the dependency's answer, the fallback or an error.
        let _ = dependency.clone().oneshot(request.clone()).await;
        done.push(start.elapsed());
    }
    done
}

/// How many a second were done between two moments.
fn rate(done: &[Duration], from: Duration, to: Duration) -> f64 {
    let count = done.iter().filter(|at| (from..to).contains(*at)).count();
    count as f64 / (to - from).as_secs_f64()
}
