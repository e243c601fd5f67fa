//! An axum server whose handler depends on something that fails.
//!
//! You will see the handler answer, fail three times with 500, and then not be
//! asked any more: the breaker answers for it with 503, `retry-after` and a
//! problem document. When the dependency is well again, two probes close the
//! circuit.
//!
//! ```sh
//! cargo run -p tower-breaker-stacks --example axum_server
//! ```

use std::time::Duration;

use axum::{Router, extract::State as Extract, http::StatusCode, routing::get};
use tower_breaker::{
    Backoff, BoxError, Cancellation, Circuit, CircuitBreakerLayer, Config, Probes, State,
    service_unavailable,
};
use tower_breaker_stacks::server::{Caller, Patient, Said, serve_axum};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let config = Config::builder("checkout")
        .consecutive_failures(3)
        .open_for(Backoff::fixed(Duration::from_millis(500)))
        .probes(Probes::new(2))
        // A browser that goes away says nothing about the dependency.
        .cancellation(Cancellation::Neutral)
        .build()?;
    let breaker = CircuitBreakerLayer::new(config).fallback(service_unavailable);
    let circuit = breaker.circuit().clone();

    // The handler's 500 comes from whatever it depends on: a database, say.
    let database = Patient::new();
    let app = Router::new()
        .route("/", get(async |Extract(database): Extract<Patient>| database.visit()))
        .layer(breaker)
        .with_state(database.clone());
    let url = serve_axum(app).await?;
    println!("serving on {url}\n");

    let caller = Caller::http1();
    let ask = async || show(caller.get(&url).await?, &database, &circuit);

    println!("The database is well.");
    ask().await?;

    println!("\nIt fails.");
    database.set_sick(true);
    while circuit.state() == State::Closed {
        expect(ask().await? == StatusCode::INTERNAL_SERVER_ERROR, "the handler's own answer")?;
    }
    let hits = database.hits();
    expect(ask().await? == StatusCode::SERVICE_UNAVAILABLE, "the breaker's answer")?;
    expect(database.hits() == hits, "a database left alone")?;

    println!("\nIt is well again, and the wait goes by.");
    database.set_sick(false);
    tokio::time::sleep(Duration::from_millis(550)).await;
    ask().await?;
    ask().await?;
    expect(circuit.state() == State::Closed, "a closed circuit")
}

/// Shows an answer, and where it left the circuit.
fn show(said: Said, database: &Patient, circuit: &Circuit) -> Result<StatusCode, BoxError> {
    print!("  {}, database asked {} times, {}", said.status, database.hits(), circuit.state());
    match said.header("retry-after") {
        Some(seconds) => {
            println!("\n    retry-after: {seconds}\n    {}", std::str::from_utf8(&said.body)?)
        }
        None => println!(),
    }
    Ok(said.status)
}

/// The story did not happen: say so.
fn expect(is_so: bool, what: &str) -> Result<(), BoxError> {
    if is_so { Ok(()) } else { Err(format!("expected {what}").into()) }
}
