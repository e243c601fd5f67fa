//! gRPC, with a breaker on both sides.
//!
//! The server has one around its service, for handlers that may be overrun;
//! the client has one around its channel, and follows streams to their end.
//!
//! You will see streams break off in the middle until the client's circuit
//! opens, and what a caller gets then: `UNAVAILABLE`, with the time to wait.
//! Then another client, which has no breaker, goes on until the server's own
//! circuit answers in the service's place. At last the service is well again,
//! and both circuits close.
//!
//! ```sh
//! cargo run -p tower-breaker-stacks --example tonic_server_and_client
//! ```

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    service::LayerExt,
    transport::{Channel, Server},
};
use tower::ServiceBuilder;
use tower_breaker::{
    Backoff, BoxError, Circuit, CircuitBreakerLayer, Config, ConfigError, Probes, State, WhenOpen,
    grpc_status, grpc_unavailable,
};
use tower_breaker_stacks::{
    echo::{Behaviour, Kind, Switchable},
    proto::echo_client::EchoClient,
};

fn circuit(name: &str, failures: u32) -> Result<Circuit, ConfigError> {
    let config = Config::builder(name)
        .consecutive_failures(failures)
        .open_for(Backoff::fixed(Duration::from_millis(500)))
        .probes(Probes::new(2))
        .build()?;
    Ok(Circuit::new(config))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The server.
    let (echo, server) = (Switchable::new(), circuit("server", 6)?);
    let breaker =
        CircuitBreakerLayer::new(server.clone()).fallback(grpc_unavailable).until_end_of_body();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(
        Server::builder()
            .add_service(breaker.named_layer(echo.service()))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );

    // The client.
    let client = circuit("client", 3)?;
    let breaker =
        CircuitBreakerLayer::new(client.clone()).when_open(WhenOpen::Defer).until_end_of_body();
    let channel = Channel::from_shared(url)?.connect().await?;
    let mut careless = EchoClient::new(channel.clone());
    let mut careful =
        EchoClient::new(ServiceBuilder::new().map_err(grpc_status).layer(breaker).service(channel));

    let show = |who: &str, result: Result<Vec<String>, Status>| {
        let code = match &result {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        };
        let says = match &result {
            Ok(texts) => format!("{texts:?}"),
            Err(status) => status.message().to_owned(),
        };
        println!("  {who}: {code:?}, {says}; service asked {} times", echo.hits());
        code
    };

    println!("The service is well.");
    expect(show("careful", Kind::ServerStream.call(&mut careful).await) == Code::Ok, "an answer")?;

    println!("\nIts streams break off.");
    echo.behave(Behaviour::FailMidStream(Code::DataLoss));
    while client.state() == State::Closed {
        let code = show("careful", Kind::ServerStream.call(&mut careful).await);
        expect(code == Code::DataLoss, "the service's own status")?;
    }
    let hits = echo.hits();
    let code = show("careful", Kind::ServerStream.call(&mut careful).await);
    expect(code == Code::Unavailable, "the client's refusal")?;
    expect(echo.hits() == hits, "a service left alone")?;

    println!("\nA client without a breaker goes on.");
    while server.state() == State::Closed {
        let code = show("careless", Kind::ServerStream.call(&mut careless).await);
        expect(code == Code::DataLoss, "the service's own status")?;
    }
    let hits = echo.hits();
    let refused = Kind::ServerStream.call(&mut careless).await;
    if let Err(status) = &refused {
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        println!("  grpc-retry-pushback-ms: {pushback:?}");
        expect(pushback.is_some(), "a time to wait")?;
    }
    expect(show("careless", refused) == Code::Unavailable, "the server's refusal")?;
    expect(echo.hits() == hits, "a service left alone")?;

    println!("\nThe service is well again, and the wait goes by.");
    echo.behave(Behaviour::Ok);
    tokio::time::sleep(Duration::from_millis(600)).await;
    for _ in 0..2 {
        let code = show("careful", Kind::ServerStream.call(&mut careful).await);
        expect(code == Code::Ok, "a probe that passes both circuits")?;
    }
    println!("  the server's circuit is {}, the client's is {}", server.state(), client.state());
    expect(server.state() == State::Closed && client.state() == State::Closed, "closed circuits")
}

/// The story did not happen: say so.
fn expect(is_so: bool, what: &str) -> Result<(), BoxError> {
    if is_so { Ok(()) } else { Err(format!("expected {what}").into()) }
}
