//! A page that stays readable while its server is down.
//!
//! You will see a hyper client read the news from a server on loopback; then
//! the server answers 503, and the client goes on with the last good page, in
//! place of the 503s at first and then of the open circuit's refusals, by which
//! the server is left alone; then it is well, and there is new news.
//!
//! `cargo run -p tower-breaker-stacks --example stale_if_error` takes no time,
//! for the circuit's clock is moved by hand, and fails unless all of that
//! happened.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::{
    Backoff, CircuitBreakerLayer, Config, ManualClock, Probes, StaleIfErrorLayer, State,
};
use tower_breaker_stacks::upstream::{Upstream, text};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let upstream = Upstream::start()?;
    upstream.answer(|_| Response::new(text("Breakers hold.")));

    let clock = ManualClock::new();
    let breaker = CircuitBreakerLayer::new(
        Config::builder("news")
            .consecutive_failures(3)
            .open_for(Backoff::fixed(5 * SECOND))
            .probes(Probes::new(1))
            .clock(&clock)
            .build()?,
    );
    let circuit = breaker.circuit().clone();
    let client = ServiceBuilder::new()
        .layer(StaleIfErrorLayer::new().ttl(60 * SECOND).on_server_errors().clock(&clock))
        .layer(breaker)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let read = async || {
        let request = Request::get(upstream.url("/news")).body(Empty::<Bytes>::new())?;
        let (head, body) = client.clone().oneshot(request).await?.into_parts();
        let page = String::from_utf8(body.collect().await?.to_bytes().into())?;
        let age = head.headers.get("age").map_or("new", |age| age.to_str().unwrap_or("?"));
        let (hits, state) = (upstream.hits(), circuit.state());
        println!("  {page}  (age {age}; {state}, server asked {hits} times)");
        Ok::<_, BoxError>((page, age.to_owned()))
    };
    let expect = |read: (String, String), page: &str, age: &str| {
        let is_so = (&*read.0, &*read.1) == (page, age);
        if is_so { Ok(()) } else { Err(format!("expected {page:?} of age {age}, got {read:?}")) }
    };

    println!("The server is well.");
    expect(read().await?, "Breakers hold.", "new")?;

    println!("\nIt is down.");
    upstream.answer(|_| {
        let mut response = Response::new(text("No news."));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    for age in ["1", "2", "3"] {
        clock.advance(SECOND);
        expect(read().await?, "Breakers hold.", age)?;
    }
    let hits = upstream.hits();
    for age in ["4", "5"] {
        clock.advance(SECOND);
        expect(read().await?, "Breakers hold.", age)?;
    }
    if (circuit.state(), upstream.hits()) != (State::Open, hits) {
        return Err("expected an open circuit, and a server left alone".into());
    }

    println!("\nIt is well again, and the wait goes by.");
    upstream.answer(|_| Response::new(text("All is well.")));
    clock.advance(5 * SECOND);
    expect(read().await?, "All is well.", "new")?;
    if circuit.state() != State::Closed {
        return Err("expected a closed circuit".into());
    }
    Ok(())
}
