//! A gateway in thirty lines: axum in front, a hyper client behind, a breaker
//! between them.
//!
//! You will see it pass on what the upstream answers, until three answers in
//! a row are 500s. Then it answers 503 by itself, and the upstream is left
//! alone. When that is well again, two probes close the circuit.
//!
//! ```sh
//! cargo run -p tower-breaker-stacks --example axum_gateway
//! ```

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Request, State as Extract},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::{
    Backoff, BoxError, Circuit, CircuitBreaker, CircuitBreakerLayer, Config, HttpClassifier,
    Probes, State, WhenOpen, handle_error,
};
use tower_breaker_stacks::server::{Caller, Patient, serve_axum};

/// The gateway.
fn gateway(circuit: Circuit, upstream: String) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(circuit).when_open(WhenOpen::Defer))
        .service(client);
    Router::new().fallback(forward).with_state((client, upstream))
}

type Protected = CircuitBreaker<Client<HttpConnector, Body>, HttpClassifier>;

/// Sends a request on to the upstream.
async fn forward(
    Extract((client, upstream)): Extract<(Protected, String)>,
    mut request: Request,
) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = Uri::try_from(format!("{upstream}{path}")) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    match client.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => handle_error(error).await,
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let circuit = Circuit::new(
        Config::builder("upstream")
            .consecutive_failures(3)
            .open_for(Backoff::fixed(Duration::from_millis(500)))
            .probes(Probes::new(2))
            .build()?,
    );
    let patient = Patient::new();
    let handler = get(async |Extract(patient): Extract<Patient>| patient.visit());
    let upstream = Router::new().route("/stock", handler).with_state(patient.clone());
    let url = serve_axum(gateway(circuit.clone(), serve_axum(upstream).await?)).await?;
    println!("the gateway is on {url}\n");

    let caller = Caller::http1();
    let ask = async || {
        let said = caller.get(&format!("{url}/stock?of=tea")).await?;
        let (hits, state) = (patient.hits(), circuit.state());
        println!("  {}, upstream asked {hits} times, {state}", said.status);
        Ok::<_, BoxError>(said.status)
    };

    println!("The upstream is well.");
    expect(ask().await? == StatusCode::OK, "the upstream's answer")?;

    println!("\nIt fails.");
    patient.set_sick(true);
    while circuit.state() == State::Closed {
        expect(ask().await? == StatusCode::INTERNAL_SERVER_ERROR, "the upstream's answer")?;
    }
    let hits = patient.hits();
    expect(ask().await? == StatusCode::SERVICE_UNAVAILABLE, "the gateway's answer")?;
    expect(patient.hits() == hits, "an upstream left alone")?;

    println!("\nIt is well again, and the wait goes by.");
    patient.set_sick(false);
    tokio::time::sleep(Duration::from_millis(550)).await;
    expect(ask().await? == StatusCode::OK, "a probe that passes")?;
    expect(ask().await? == StatusCode::OK, "a probe that passes")?;
    expect(circuit.state() == State::Closed, "a closed circuit")
}

/// The story did not happen: say so.
fn expect(is_so: bool, what: &str) -> Result<(), BoxError> {
    if is_so { Ok(()) } else { Err(format!("expected {what}").into()) }
}
