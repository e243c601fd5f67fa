//! The laws of a breaker in a tonic server, around all of it and around one
//! service.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    service::{LayerExt, Routes},
    transport::{Channel, Server},
};
use tower::ServiceBuilder;
use tower_breaker::{
    Circuit, CircuitBreakerLayer, ManualClock, Override, State, WhenOpen, grpc_status,
    grpc_unavailable,
};
use tower_breaker_stacks::{
    echo::{Behaviour, Kind, Switchable},
    proto::{EchoRequest, bystander_client::BystanderClient, echo_client::EchoClient},
    server::{circuit, serve_hyper, watchdog},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Serves a tonic router until the runtime ends; gives the URL.
macro_rules! serve {
    ($router:expr) => {{
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = $router;
        tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        url
    }};
}

struct Site {
    url: String,
    channel: Channel,
    echo: Switchable,
    clock: ManualClock,
    circuit: Circuit,
}

/// The ways to put a breaker into a tonic server.
#[derive(Clone, Copy, Debug)]
enum Mounted {
    /// `Server::layer` with the ready-made answer.
    AroundTheServer,
    /// The same, and calls end where their bodies do.
    AroundTheServerToTheEnd,
    /// One named service with the ready-made answer.
    AroundAService,
    /// `Server::layer`, where errors become a `Status`.
    AsAStatus,
    /// `Router::layer` of the axum router that tonic's services are.
    InAnAxumRouter,
}

impl Mounted {
    const ALL: [Self; 5] = [
        Self::AroundTheServer,
        Self::AroundTheServerToTheEnd,
        Self::AroundAService,
        Self::AsAStatus,
        Self::InAnAxumRouter,
    ];
}

impl Site {
    async fn new(mounted: Mounted) -> Self {
        let clock = ManualClock::new();
        let (circuit, echo) = (circuit(&clock), Switchable::new());
        let breaker = CircuitBreakerLayer::new(circuit.clone());
        let (service, bystander) = (echo.service(), echo.bystander());
        let url = match mounted {
            Mounted::AroundTheServer => serve!(
                Server::builder()
                    .layer(breaker.fallback(grpc_unavailable))
                    .add_service(service)
                    .add_service(bystander)
            ),
            Mounted::AroundTheServerToTheEnd => serve!(
                Server::builder()
                    .layer(breaker.fallback(grpc_unavailable).until_end_of_body())
                    .add_service(service)
                    .add_service(bystander)
            ),
            Mounted::AroundAService => serve!(
                Server::builder()
                    .add_service(breaker.fallback(grpc_unavailable).named_layer(service))
                    .add_service(bystander)
            ),
            Mounted::AsAStatus => serve!(
                Server::builder()
                    .layer(
                        ServiceBuilder::new()
                            .map_err(grpc_status)
                            .layer(breaker.when_open(WhenOpen::Defer))
                            .into_inner()
                    )
                    .add_service(service)
                    .add_service(bystander)
            ),
            Mounted::InAnAxumRouter => {
                let routes = Routes::new(service).add_service(bystander);
                let breaker = breaker.fallback(grpc_unavailable);
                serve_hyper(routes.into_axum_router().layer(breaker)).await.unwrap()
            }
        };
        let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
        Self { url, channel, echo, clock, circuit }
    }

    async fn call(&self, kind: Kind) -> Result<Vec<String>, Status> {
        kind.call(&mut EchoClient::new(self.channel.clone())).await
    }

    async fn bystander(&self) -> Result<String, Status> {
        let request = EchoRequest::new("a");
        let reply = BystanderClient::new(self.channel.clone()).unary(request).await?;
        Ok(reply.into_inner().text)
    }

    async fn fail_until_open(&self, kind: Kind) {
        self.echo.behave(Behaviour::Fail(Code::Unavailable));
        for _ in 0..3 {
            assert_eq!(self.circuit.state(), State::Closed);
            let status = self.call(kind).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::Unavailable, "told to fail"));
        }
        assert_eq!(self.circuit.state(), State::Open);
    }

    /// The whole story: well, sick, open, healed, closed.
    async fn outage_and_recovery(&self, kind: Kind) {
        self.call(kind).await.unwrap();
        self.fail_until_open(kind).await;

        let hits = self.echo.hits();
        assert_eq!(hits, 4);
        for _ in 0..5 {
            assert_refused(&self.call(kind).await.unwrap_err(), "5000");
        }
        self.echo.behave(Behaviour::Ok);
        self.clock.advance(5 * SECOND - MILLISECOND);
        assert_refused(&self.call(kind).await.unwrap_err(), "1");
        assert_eq!(self.echo.hits(), hits, "a refused call reached the handler");

        self.clock.advance(MILLISECOND);
        self.call(kind).await.unwrap();
        assert_eq!(self.circuit.state(), State::HalfOpen);
        self.call(kind).await.unwrap();
        assert_eq!(self.circuit.state(), State::Closed);
        assert_eq!(self.echo.hits(), 6);

        let totals = self.circuit.snapshot().totals;
        assert_eq!((totals.success, totals.failure, totals.rejected), (3, 3, 6));
    }
}

/// `UNAVAILABLE` in a real gRPC answer, with a time to wait in milliseconds.
fn assert_refused(status: &Status, pushback: &str) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().starts_with("circuit stacks is open, retry after "), "{status:?}");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), pushback);
}

/// The story, with every kind of call.
async fn law(mounted: Mounted) {
    for kind in Kind::ALL {
        watchdog(async { Site::new(mounted).await.outage_and_recovery(kind).await }).await;
    }
}

#[tokio::test]
async fn around_the_server_it_opens_answers_and_closes() {
    law(Mounted::AroundTheServer).await;
}

#[tokio::test]
async fn around_the_server_to_the_end_it_opens_answers_and_closes() {
    law(Mounted::AroundTheServerToTheEnd).await;
}

#[tokio::test]
async fn around_a_service_it_opens_answers_and_closes() {
    law(Mounted::AroundAService).await;
}

#[tokio::test]
async fn with_errors_as_a_status_it_opens_answers_and_closes() {
    law(Mounted::AsAStatus).await;
}

#[tokio::test]
async fn in_an_axum_router_it_opens_answers_and_closes() {
    law(Mounted::InAnAxumRouter).await;
}

#[tokio::test]
async fn around_the_server_it_refuses_every_service() {
    watchdog(async {
        let site = Site::new(Mounted::AroundTheServer).await;
        assert_eq!(site.bystander().await.unwrap(), "a");
        site.fail_until_open(Kind::Unary).await;
        assert_refused(&site.bystander().await.unwrap_err(), "5000");
    })
    .await;
}

#[tokio::test]
async fn around_a_service_it_leaves_the_others_alone() {
    watchdog(async {
        let site = Site::new(Mounted::AroundAService).await;
        site.fail_until_open(Kind::Unary).await;
        assert_refused(&site.call(Kind::Unary).await.unwrap_err(), "5000");
        assert_eq!(site.bystander().await.unwrap(), "a");
        assert_eq!(site.circuit.snapshot().totals.success, 0, "it sees its own calls only");
    })
    .await;
}

#[tokio::test]
async fn all_four_kinds_of_calls_share_the_circuit() {
    watchdog(async {
        let site = Site::new(Mounted::AroundAService).await;
        site.fail_until_open(Kind::Bidi).await;
        for kind in Kind::ALL {
            assert_refused(&site.call(kind).await.unwrap_err(), "5000");
        }
    })
    .await;
}

/// What a client other than tonic's sees: HTTP 200, all head, and a
/// connection that lives on.
#[tokio::test]
async fn a_refusal_is_all_head_on_a_connection_that_lives_on() {
    watchdog(async {
        for mounted in Mounted::ALL {
            let site = Site::new(mounted).await;
            site.circuit.trip();
            let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
            for _ in 0..3 {
                let request = Request::builder()
                    .method(Method::POST)
                    .uri(format!("{}/stacks.Echo/Unary", site.url))
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .header(header::TE, "trailers")
                    .body(Full::new(Bytes::from_static(&[0; 5])))
                    .unwrap();
                let response = client.request(request).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.headers()["content-type"], "application/grpc");
                assert_eq!(response.headers()["grpc-status"], "14");
                assert_eq!(response.headers()["grpc-retry-pushback-ms"], "5000");
                assert!(response.body().is_end_stream(), "{mounted:?}: not all head");
                let body = response.into_body().collect().await.unwrap();
                assert_eq!(body.trailers(), None);
                assert!(body.to_bytes().is_empty());
            }
            assert_eq!(site.echo.hits(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn calls_in_flight_outlive_the_opening() {
    watchdog(async {
        let site = Site::new(Mounted::AroundTheServer).await;
        let (requests, incoming) = tokio::sync::mpsc::channel(1);
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        let mut client = EchoClient::new(site.channel.clone());
        let mut replies = client.bidi(incoming).await.unwrap().into_inner();

        site.fail_until_open(Kind::Unary).await;
        assert_refused(&site.call(Kind::Bidi).await.unwrap_err(), "5000");
        requests.send(EchoRequest::new("still here")).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap().text, "still here");
        drop(requests);
        assert_eq!(replies.message().await.unwrap(), None);
    })
    .await;
}

/// The table of gRPC statuses, through a real server.
#[tokio::test]
async fn only_statuses_that_blame_the_server_open_the_circuit() {
    use Code::{
        Aborted, AlreadyExists, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition,
        Internal, InvalidArgument, NotFound, OutOfRange, PermissionDenied, ResourceExhausted,
        Unauthenticated, Unavailable, Unimplemented, Unknown,
    };
    let failures = [Unknown, DeadlineExceeded, Internal, Unavailable, DataLoss];
    let ignored = [Cancelled, ResourceExhausted];
    let successes = [
        InvalidArgument,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Unauthenticated,
    ];
    watchdog(async {
        for mounted in [Mounted::AroundTheServer, Mounted::AroundTheServerToTheEnd] {
            let site = Site::new(mounted).await;
            let outcome_of = async |code| {
                site.circuit.reset();
                let before = site.circuit.snapshot().totals;
                site.echo.behave(Behaviour::Fail(code));
                assert_eq!(site.call(Kind::Unary).await.unwrap_err().code(), code);
                let after = site.circuit.snapshot().totals;
                let count =
                    |total: fn(&tower_breaker::Totals) -> u64| total(&after) - total(&before);
                (count(|t| t.success), count(|t| t.failure), count(|t| t.ignored))
            };
            for code in failures {
                assert_eq!(outcome_of(code).await, (0, 1, 0), "{code:?}");
            }
            for code in ignored {
                assert_eq!(outcome_of(code).await, (0, 0, 1), "{code:?}");
            }
            for code in successes {
                assert_eq!(outcome_of(code).await, (1, 0, 0), "{code:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn no_pushback_where_there_is_no_end() {
    watchdog(async {
        let site = Site::new(Mounted::AroundTheServer).await;
        site.circuit.set_override(Override::force_open().until_cleared());
        let status = site.call(Kind::Unary).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "circuit stacks is open")
        );
        assert!(status.metadata().get("grpc-retry-pushback-ms").is_none());
    })
    .await;
}

/// Why a server wants the fallback: this is what callers see without.
#[tokio::test]
async fn without_an_answer_callers_see_a_broken_protocol() {
    watchdog(async {
        let (circuit, echo) = (circuit(&ManualClock::new()), Switchable::new());
        circuit.trip();
        let breaker = CircuitBreakerLayer::new(circuit);
        let url = serve!(Server::builder().layer(breaker).add_service(echo.service()));
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let status = Kind::Unary.call(&mut EchoClient::new(channel)).await.unwrap_err();
        assert_ne!(status.code(), Code::Unavailable);
        assert!(status.message().contains("h2 protocol error"), "{status:?}");
    })
    .await;
}
