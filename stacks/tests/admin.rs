//! The laws of the admin service on real servers: in axum below a prefix,
//! under hyper alone with HTTP/1 and HTTP/2, and beside a gRPC service.

use std::future::IntoFuture;

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::Routes,
    transport::{Channel, Server},
};
use tower_breaker::{AdminIdentity, AdminService, Config, Registry, State};
use tower_breaker_stacks::{
    echo::{Kind, Switchable},
    proto::echo_client::EchoClient,
    server::{serve_axum, serve_hyper, watchdog},
};

const TOKEN: &str = "token-5tG8wQ2zX9rL";

/// A registry with the circuit `inventory`, and the service that shows it.
struct Site {
    registry: Registry,
    admin: AdminService,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Site {
    fn new() -> Self {
        let registry = Registry::new();
        registry.circuit(Config::builder("inventory").build().unwrap()).unwrap();
        let admin = AdminService::builder(&registry)
            .bearer_token(AdminIdentity::operator("alice"), TOKEN)
            .build()
            .unwrap();
        Self { registry, admin, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    fn http2(mut self) -> Self {
        self.client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        self
    }

    async fn ask(&self, method: Method, url: String, body: Option<Value>) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {TOKEN}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let response = self.client.request(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn stream(&self, url: &str) -> Incoming {
        let request = Request::get(format!("{url}/api/v1/stream"))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::default())
            .unwrap();
        let response = self.client.request(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.into_body()
    }

    /// The whole story at a mount: look, steer, follow, and the end of it.
    async fn look_steer_and_follow(&self, url: &str) {
        let (status, page) = self.ask(Method::GET, format!("{url}/"), None).await;
        assert!(status == 200 && page.contains("app.js"), "{status} {page}");
        assert_eq!(self.ask(Method::GET, format!("{url}/app.js"), None).await.0, 200);
        assert_eq!(self.ask(Method::GET, format!("{url}/nothing"), None).await.0, 404);

        let mut stream = self.stream(url).await;
        let told = until(&mut stream, "\n\n").await;
        let epoch = self.registry.epoch();
        let begin = format!("id: {epoch:016x}-1\nevent: snapshot\ndata: {{");
        assert!(told.starts_with(&begin), "{told}");

        let circuit = self.registry.get("inventory").unwrap();
        let path = format!("{url}/api/v1/circuits/inventory");
        let body = json!({ "to": "open", "reason": "a drill", "if_generation": 0 });
        let (status, said) =
            self.ask(Method::POST, format!("{path}/transition"), Some(body.clone())).await;
        assert_eq!((status, circuit.state()), (StatusCode::OK, State::Open), "{said}");
        let (status, said) = self.ask(Method::POST, format!("{path}/transition"), Some(body)).await;
        assert_eq!(status, StatusCode::CONFLICT, "{said}");
        let body = json!({ "reason": "x".repeat(64 << 10) });
        let (status, said) = self.ask(Method::POST, format!("{path}/reset"), Some(body)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{said}");

        let told = until(&mut stream, "asked for `open`: a drill").await;
        assert!(told.contains("closed -> open, because it was tripped by hand"), "{told}");
        let (status, said) = self.ask(Method::GET, path, None).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((status, &said["circuit"]["state"]), (StatusCode::OK, &json!("open")));

        self.admin.shutdown();
        let told = until(&mut stream, "\"shutdown\"}\n\n").await;
        assert!(told.contains("event: end\n"), "{told}");
        assert!(stream.frame().await.is_none(), "the stream is over");
    }
}

/// Reads a stream until it has said something, and gives all it has
/// told till then.
async fn until(stream: &mut Incoming, said: &str) -> String {
    let (mut told, mut before) = (String::new(), 0);
    loop {
        let frame = stream.frame().await.expect("the stream broke off").unwrap();
        let start = told.len();
        told += str::from_utf8(frame.data_ref().unwrap()).unwrap();
        if told[before..].contains(said) {
            return told;
        }
        // A long stream is not searched over and over.
        before = start;
    }
}

#[tokio::test]
async fn it_is_nested_in_axum_below_a_prefix() {
    watchdog(async {
        let site = Site::new();
        let router = Router::new()
            .route("/", get(async || "the app"))
            .nest_service("/breaker", site.admin.clone());
        let url = serve_axum(router).await.unwrap();
        assert_eq!(site.ask(Method::GET, url.clone(), None).await.1, "the app");
        site.look_steer_and_follow(&format!("{url}/breaker")).await;
    })
    .await;
}

#[tokio::test]
async fn it_is_a_route_of_axum_that_keeps_its_prefix() {
    watchdog(async {
        let site = Site::new();
        let admin = AdminService::builder(&site.registry)
            .bearer_token(AdminIdentity::operator("alice"), TOKEN)
            .base_path("/ops/breaker")
            .build()
            .unwrap();
        let site = Site { admin, ..site };
        let router = Router::new()
            .route_service("/ops/breaker", site.admin.clone())
            .route_service("/ops/breaker/{*path}", site.admin.clone())
            .route_service("/ops/breaker/", site.admin.clone());
        let url = serve_axum(router).await.unwrap();
        let (status, page) = site.ask(Method::GET, format!("{url}/ops/breaker"), None).await;
        assert!(status == 200 && page.contains("<base href=\"/ops/breaker/\">"), "{page}");
        site.look_steer_and_follow(&format!("{url}/ops/breaker")).await;
    })
    .await;
}

#[tokio::test]
async fn it_is_the_fallback_of_axum() {
    watchdog(async {
        let site = Site::new();
        let router = Router::new().fallback_service(site.admin.clone());
        site.look_steer_and_follow(&serve_axum(router).await.unwrap()).await;
    })
    .await;
}

#[tokio::test]
async fn a_graceful_shutdown_does_not_wait_for_streams() {
    watchdog(async {
        let site = Site::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let (admin, router) =
            (site.admin.clone(), Router::new().fallback_service(site.admin.clone()));
        let server = axum::serve(listener, router).with_graceful_shutdown(async move {
            let _ = stopped.await;
            admin.shutdown();
        });
        let server = tokio::spawn(server.into_future());
        let mut streams = Vec::new();
        for _ in 0..5 {
            let mut stream = site.stream(&url).await;
            until(&mut stream, "\n\n").await;
            streams.push(stream);
        }
        stop.send(()).unwrap();
        for mut stream in streams {
            until(&mut stream, "event: end").await;
        }
        server.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn hyper_serves_it_alone() {
    watchdog(async {
        for site in [Site::new(), Site::new().http2()] {
            let url = serve_hyper(site.admin.clone()).await.unwrap();
            site.look_steer_and_follow(&url).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_that_was_pointed_here_gets_nothing() {
    watchdog(async {
        let site = Site::new();
        let url = serve_hyper(site.admin.clone()).await.unwrap();
        let address = url.strip_prefix("http://").unwrap();

        // HTTP/1: in the header, or in the request line.
        for head in [
            "GET / HTTP/1.1\r\nhost: evil.example\r\n",
            "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n",
            "GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n",
            "GET / HTTP/1.0\r\n",
        ] {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let head = format!("{head}connection: close\r\n\r\n");
            connection.write_all(head.as_bytes()).await.unwrap();
            let mut said = String::new();
            connection.read_to_string(&mut said).await.unwrap();
            assert!(said.contains(" 421 Misdirected Request\r\n"), "{head}: {said}");
        }

        // HTTP/2: in the authority.
        for (authority, expected) in
            [("evil.example", StatusCode::MISDIRECTED_REQUEST), ("localhost:1", StatusCode::OK)]
        {
            let connection = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), connection)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let request = Request::get(format!("http://{authority}/livez"));
            let response =
                sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
            assert_eq!(response.status(), expected, "{authority}");
        }
    })
    .await;
}

#[tokio::test]
async fn it_stands_beside_a_grpc_service() {
    watchdog(async {
        let (site, echo) = (Site::new(), Switchable::new());
        let routes = Routes::new(echo.service())
            .into_axum_router()
            .nest_service("/breaker", site.admin.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().accept_http1(true).add_routes(Routes::from(routes));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

        let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
        let mut client = EchoClient::new(channel);
        Kind::Unary.call(&mut client).await.unwrap();
        site.look_steer_and_follow(&format!("{url}/breaker")).await;
        Kind::Unary.call(&mut client).await.unwrap();

        let site = Site::new().http2();
        let routes = Routes::new(echo.service())
            .into_axum_router()
            .nest_service("/breaker", site.admin.clone());
        let url = serve_hyper(routes).await.unwrap();
        site.look_steer_and_follow(&format!("{url}/breaker")).await;
    })
    .await;
}

/// A reader that has stopped costs what the connection holds, and nobody else
/// anything.
#[tokio::test]
async fn a_reader_that_stops_holds_nobody_up() {
    watchdog(async {
        let site = Site::new();
        let url = serve_hyper(site.admin.clone()).await.unwrap();
        let address = url.strip_prefix("http://").unwrap();
        let mut dead = Vec::new();
        for _ in 0..5 {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).await.unwrap();
            dead.push(connection);
        }
        let mut reader = site.stream(&url).await;
        until(&mut reader, "\n\n").await;
        let circuit = site.registry.get("inventory").unwrap();
        for _ in 0..1_000 {
            circuit.trip();
            circuit.reset();
        }
        circuit.set_override(tower_breaker::Override::force_open().reason("the last one"));
        until(&mut reader, "the last one").await;
        drop(dead);
    })
    .await;
}
