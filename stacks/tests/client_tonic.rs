//! tonic's generated client over a `Channel` behind a breaker, against a real
//! server.

mod support_client;

use std::time::Duration;

use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Server},
};
use tower::{BoxError, ServiceBuilder};
use tower_breaker::{
    Circuit, CircuitBreakerLayer, CircuitOpen, Config, HttpClassifier, ManualClock, Outcome,
    State::{Closed, Open},
    WhenOpen, grpc_status,
};
use tower_breaker_stacks::{
    echo::{
        Behaviour::{self, Fail, FailMidStream, Hang},
        Switchable,
    },
    proto::{EchoReply, EchoRequest, echo_client::EchoClient},
    upstream,
};

use self::support_client::{Stage, breaker};

const SECOND: Duration = Duration::from_secs(1);

async fn watched<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(60 * SECOND, test).await.expect("the test hangs")
}

/// The client a user would write: `grpc_status` outermost, and a breaker that
/// defers.
macro_rules! client {
    ($layer:expr, $channel:expr) => {
        EchoClient::new(
            ServiceBuilder::new()
                .map_err(grpc_status)
                .layer($layer.when_open(WhenOpen::Defer))
                .service($channel),
        )
    };
}

/// A server that does as it is told, and a way to it.
async fn server() -> (Switchable, Channel) {
    let server = Switchable::new();
    let (url, _task) = server.serve().await.unwrap();
    (server, channel(url))
}

fn channel(url: String) -> Channel {
    Endpoint::from_shared(url).unwrap().connect_lazy()
}

fn hello() -> EchoRequest {
    EchoRequest::new("hello")
}

/// In a word: what the server answered. Or the refusal, as it has to be.
fn tell(answer: Result<EchoReply, Status>) -> Result<String, BoxError> {
    match answer {
        Ok(reply) => Ok(format!("Ok {}", reply.text)),
        Err(status) => match CircuitOpen::find_in(&status) {
            Some(open) => {
                assert_eq!(status.code(), Code::Unavailable);
                assert_eq!(status.message(), open.to_string());
                let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str()?;
                let retry_after = open.retry_after().unwrap().as_millis();
                assert_eq!(pushback, retry_after.to_string());
                Err(status.into())
            }
            None => Ok(format!("{:?} {}", status.code(), status.message())),
        },
    }
}

fn sickness(sick: bool) -> Behaviour {
    if sick { Fail(Code::Internal) } else { Behaviour::Ok }
}

#[tokio::test]
async fn an_outage_of_unary_calls() {
    let (server, channel) = server().await;
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut client = client!(layer.clone(), channel);
    let stage = Stage {
        layer,
        clock,
        call: async || tell(client.unary(hello()).await.map(|reply| reply.into_inner())),
        set_sick: |sick| server.behave(sickness(sick)),
        hits: || server.hits(),
        healthy: "Ok hello",
        sick: "Internal told to fail",
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn an_outage_of_unary_calls_that_end_with_their_trailers() {
    let (server, channel) = server().await;
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut client = client!(layer.clone().until_end_of_body(), channel);
    let stage = Stage {
        layer,
        clock,
        call: async || tell(client.unary(hello()).await.map(|reply| reply.into_inner())),
        set_sick: |sick| server.behave(sickness(sick)),
        hits: || server.hits(),
        healthy: "Ok hello",
        sick: "Internal told to fail",
    };
    watched(stage.outage()).await;
}

/// The last message of a stream, or how it failed.
async fn last_of(
    stream: Result<tonic::Response<tonic::Streaming<EchoReply>>, Status>,
) -> Result<EchoReply, Status> {
    let mut stream = stream?.into_inner();
    let mut last = None;
    while let Some(reply) = stream.message().await? {
        last = Some(reply);
    }
    Ok(last.expect("at least one message"))
}

#[tokio::test]
async fn an_outage_in_the_middle_of_streams() {
    let (server, channel) = server().await;
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut client = client!(layer.clone().until_end_of_body(), channel);
    let request = || EchoRequest { count: 3, ..hello() };
    let stage = Stage {
        layer,
        clock,
        call: async || tell(last_of(client.server_stream(request()).await).await),
        set_sick: |sick| {
            server.behave(if sick { FailMidStream(Code::DataLoss) } else { Behaviour::Ok });
        },
        hits: || server.hits(),
        healthy: "Ok hello",
        sick: "DataLoss told to fail",
    };
    watched(stage.outage()).await;
}

#[tokio::test]
async fn without_the_end_of_the_body_a_stream_that_fails_was_a_success() {
    let (server, channel) = server().await;
    server.behave(FailMidStream(Code::DataLoss));
    let layer = breaker(&ManualClock::new());
    let mut client = client!(layer.clone(), channel);
    watched(async {
        let request = EchoRequest { count: 3, ..hello() };
        let status = last_of(client.server_stream(request).await).await.unwrap_err();
        assert_eq!(status.code(), Code::DataLoss);
    })
    .await;
    assert_eq!(ends_of(layer.circuit()), (1, 0, 0, 0));
}

/// Success, failure, ignored, cancelled.
fn ends_of(circuit: &Circuit) -> (u64, u64, u64, u64) {
    let totals = circuit.snapshot().totals;
    (totals.success, totals.failure, totals.ignored, totals.cancelled)
}

#[tokio::test]
async fn all_four_kinds_of_calls_pass_and_are_refused() {
    let (server, channel) = server().await;
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut client = client!(layer.clone().until_end_of_body(), channel);
    watched(async {
        for open in [false, true] {
            if open {
                layer.circuit().trip();
            }
            let requests = || tokio_stream::iter([hello(), hello()]);
            let answers = [
                client.unary(hello()).await.map(|reply| reply.into_inner()),
                last_of(client.server_stream(hello()).await).await,
                client.client_stream(requests()).await.map(|reply| reply.into_inner()),
                last_of(client.bidi(requests()).await).await,
            ];
            for answer in answers {
                assert_eq!(tell(answer).is_err(), open);
            }
            assert_eq!(server.hits(), 4);
        }
    })
    .await;
    assert_eq!(ends_of(layer.circuit()), (4, 0, 0, 0));
    assert_eq!(layer.circuit().snapshot().totals.rejected, 4);
}

#[tokio::test]
async fn every_code_is_judged_by_the_one_default() {
    use Code::*;
    let (server, channel) = server().await;
    let failures = [Unknown, DeadlineExceeded, Internal, Unavailable, DataLoss];
    let ignored = [Cancelled, ResourceExhausted];
    watched(async {
        for code in (1..=16).map(Code::from_i32) {
            let expected = if failures.contains(&code) {
                (0, 3, 0, 0)
            } else if ignored.contains(&code) {
                (0, 0, 3, 0)
            } else {
                (3, 0, 0, 0)
            };
            // At the head, in the head of a stream, and in its trailers.
            let layer = breaker(&ManualClock::new());
            let mut client = client!(layer.clone().until_end_of_body(), channel.clone());
            server.behave(Fail(code));
            assert_eq!(client.unary(hello()).await.unwrap_err().code(), code);
            assert_eq!(client.server_stream(hello()).await.unwrap_err().code(), code);
            server.behave(FailMidStream(code));
            let status = last_of(client.server_stream(hello()).await).await.unwrap_err();
            assert_eq!(status.code(), code);
            assert_eq!(ends_of(layer.circuit()), expected, "{code:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_closure_needs_no_annotation() {
    let (server, channel) = server().await;
    server.behave(Fail(Code::NotFound));
    let layer = breaker(&ManualClock::new()).classify_http(|view| {
        match view.headers().and_then(|headers| headers.get("grpc-status")) {
            Some(code) if code == "5" => Outcome::Failure,
            _ => HttpClassifier::new().outcome(view),
        }
    });
    let mut client = client!(layer.clone(), channel);
    watched(async {
        for _ in 0..3 {
            assert_eq!(layer.circuit().state(), Closed);
            assert_eq!(client.unary(hello()).await.unwrap_err().code(), Code::NotFound);
        }
    })
    .await;
    assert_eq!(layer.circuit().state(), Open);
}

#[tokio::test]
async fn a_refused_connection_is_a_failure_and_tonics_own_status() {
    let closed = upstream::Closed::new().unwrap();
    let url = format!("http://{}", closed.address().unwrap());
    let clock = ManualClock::new();
    let layer = breaker(&clock);
    let mut client = client!(layer.clone(), channel(url));
    watched(async {
        for _ in 0..3 {
            assert_eq!(layer.circuit().state(), Closed);
            let status = client.unary(hello()).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert!(CircuitOpen::find_in(&status).is_none());
        }
        assert_eq!(layer.circuit().state(), Open);
        assert!(tell(client.unary(hello()).await.map(|reply| reply.into_inner())).is_err());

        let server = Switchable::new();
        let incoming = TcpListenerStream::new(closed.into_listener().unwrap());
        let router = Server::builder().add_service(server.service());
        tokio::spawn(router.serve_with_incoming(incoming));
        clock.advance(10 * SECOND);
        for _ in 0..2 {
            assert_eq!(client.unary(hello()).await.unwrap().into_inner().text, "hello");
        }
        assert_eq!((layer.circuit().state(), server.hits()), (Closed, 2));
    })
    .await;
}

#[tokio::test]
async fn a_stream_dropped_early_is_neutral_and_a_call_dropped_late_is_slow() {
    let (server, channel) = server().await;
    server.behave(Hang);
    let clock = ManualClock::new();
    let config = Config::builder("upstream").slow_calls(SECOND, 1.0).clock(&clock);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let mut client = client!(layer.clone().until_end_of_body(), channel);
    watched(async {
        let request = EchoRequest { count: 3, ..hello() };
        let mut stream = client.server_stream(request).await.unwrap().into_inner();
        assert_eq!(stream.next().await.unwrap().unwrap().text, "hello");
        clock.advance(60 * SECOND);
        assert_eq!(ends_of(layer.circuit()), (0, 0, 0, 0));
        drop(stream);
        assert_eq!(ends_of(layer.circuit()), (0, 0, 0, 1));
        assert_eq!(layer.circuit().snapshot().totals.slow, 0);

        tokio::select! {
            _ = client.unary(hello()) => panic!("it was to hang"),
            () = async {
                while server.hits() < 2 {
                    tokio::task::yield_now().await;
                }
                clock.advance(2 * SECOND);
            } => {}
        }
    })
    .await;
    assert_eq!(ends_of(layer.circuit()), (0, 0, 0, 2));
    assert_eq!(layer.circuit().snapshot().totals.slow, 1);
}

#[tokio::test]
async fn without_grpc_status_tonic_has_no_code_for_it_but_the_refusal_is_found() {
    let (server, channel) = server().await;
    let layer = breaker(&ManualClock::new());
    layer.circuit().trip();
    let deferring = layer.clone().when_open(WhenOpen::Defer);
    let service = ServiceBuilder::new().layer(deferring).service(channel.clone());
    let status = watched(EchoClient::new(service).unary(hello())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(CircuitOpen::find_in(&status).is_some());

    // And this is why it has to defer: the error of `poll_ready` is lost.
    let service = ServiceBuilder::new().map_err(grpc_status).layer(layer).service(channel);
    let status = watched(EchoClient::new(service).unary(hello())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(status.message().contains("not ready"), "{status}");
    assert_eq!(server.hits(), 0);
}
