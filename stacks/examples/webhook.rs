//! Events of a registry, posted to a webhook as they come.
//!
//! You will see a receiver on loopback fail at the first event. The webhook's own
//! breaker gives it half a second of peace; meanwhile more happens than the
//! registry's short history holds, so the receiver is told how many events it
//! missed, and gets the rest.
//!
//! ```sh
//! cargo run -p tower-breaker-stacks --example webhook
//! ```

use std::{process::ExitCode, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use reqwest::{Client, Method, Request, Url, header::CONTENT_TYPE};
use serde_json::json;
use tokio::sync::mpsc;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_breaker::{
    Backoff, CircuitBreakerLayer, Config, Outcome, Probes, Registry, Subscription, WhenOpen,
};
use tower_breaker_stacks::server::{Patient, serve_axum};

/// Posts what happens to circuits, until their registry is gone and all is told.
/// An event that the receiver could not take is posted again; whatever falls out of the
/// registry's history meanwhile is told as missed.
async fn forward(mut events: Subscription, url: Url) -> Result<(), BoxError> {
    // Not of the registry, or its troubles would be events to post.
    let config = Config::builder("webhook")
        .consecutive_failures(1)
        .open_for(Backoff::exponential(Duration::from_millis(500), Duration::from_secs(60)))
        .probes(Probes::new(1));
    let breaker = CircuitBreakerLayer::new(config.build()?)
        .when_open(WhenOpen::Wait)
        .classify_http(|view| match view.status() {
            Some(status) if !is_for_now(status) => Outcome::Success,
            _ => Outcome::Failure,
        });
    let client = Client::builder().timeout(Duration::from_secs(2)).build()?;
    let mut webhook = breaker.layer(client);

    while let Some(event) = events.next().await {
        let body = match event {
            Ok(event) => serde_json::to_vec(&*event)?,
            Err(lagged) => serde_json::to_vec(&json!({ "missed": lagged.missed }))?,
        };
        loop {
            let mut request = Request::new(Method::POST, url.clone());
            request.headers_mut().insert(CONTENT_TYPE, "application/json".parse()?);
            *request.body_mut() = Some(body.clone().into());
            // Waits for as long as the breaker is open.
            match webhook.ready().await?.call(request).await {
                Ok(response) if is_for_now(response.status()) => {
                    eprintln!("posting again: {}", response.status());
                }
                Ok(response) if response.status().is_success() => break,
                Ok(response) => {
                    eprintln!("the webhook will not have it: {}", response.status());
                    break;
                }
                Err(error) => eprintln!("posting again: {error}"),
            }
        }
    }
    Ok(())
}

/// Whether a later try may get another answer.
fn is_for_now(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, BoxError> {
    let (receiver, (sender, mut received)) = (Patient::new(), mpsc::channel(64));
    receiver.set_sick(true);
    let router = Router::new().route("/", post(receive)).with_state((receiver.clone(), sender));
    let url = serve_axum(router).await?.parse()?;

    let registry = Registry::builder().history(3).build();
    let posting = tokio::spawn(forward(registry.subscribe(), url));
    let circuit = registry.circuit(Config::builder("inventory").build()?)?;

    let refused = received.recv().await;
    receiver.set_sick(false);
    // Seven events, of which the history keeps three.
    for _ in 0..3 {
        circuit.trip();
        circuit.reset();
    }
    circuit.trip();
    drop(registry);
    posting.await??;

    let mut got = Vec::new();
    while let Ok(body) = received.try_recv() {
        println!("{body}\n");
        got.push(body);
    }
    let happened = got.len() == 5 && got.first() == refused.as_ref() && got[1] == r#"{"missed":4}"#;
    Ok(if happened { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes an event, if it is well.
async fn receive(
    State((receiver, sender)): State<(Patient, mpsc::Sender<String>)>,
    event: String,
) -> StatusCode {
    let status = receiver.visit();
    match sender.send(event).await {
        Ok(()) => status,
        Err(_) => StatusCode::GONE,
    }
}
