//! Requests and responses arrive as they were sent, whatever the two sides
//! speak.

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use brk::config::{Protocol, Retry, Route, Server};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use tokio_rustls::TlsAcceptor;
use tower_breaker::Config;

use crate::common::{Origin, Running, full, guard, server, service, settings};

type Sent = BoxBody<Bytes, std::convert::Infallible>;

fn sent(bytes: impl Into<Bytes>) -> Sent {
    Full::new(bytes.into()).boxed()
}

/// One exchange in the given version on a connection of its own.
async fn exchange(
    to: SocketAddr,
    version: Version,
    mut request: Request<Sent>,
) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(to).await.expect("it listens"));
    let response = async {
        if version == Version::HTTP_2 {
            let whole = format!("http://{to}{}", request.uri()).parse().expect("a URI");
            *request.uri_mut() = whole;
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("it speaks HTTP/2");
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            request.headers_mut().insert("host", to.to_string().parse().expect("a value"));
            let (mut sender, connection) = http1::handshake(io).await.expect("it speaks HTTP/1");
            tokio::spawn(connection);
            sender.send_request(request).await
        }
    };
    guard(response).await.expect("a response")
}

/// All pairs of what the caller and the upstream speak.
const VERSIONS: [(Version, Protocol); 4] = [
    (Version::HTTP_11, Protocol::Http1),
    (Version::HTTP_11, Protocol::Http2),
    (Version::HTTP_2, Protocol::Http1),
    (Version::HTTP_2, Protocol::Http2),
];

#[tokio::test]
async fn all_methods_pass_with_their_bodies() {
    let origin = Origin::start(|request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Response::builder()
            .status(207)
            .header("x-method", parts.method.as_str())
            .header("x-path", parts.uri.path_and_query().expect("a path").as_str())
            .header("x-version", format!("{:?}", parts.version))
            .header(
                "x-type",
                parts
                    .headers
                    .get("content-type")
                    .cloned()
                    .unwrap_or(HeaderValue::from_static("none")),
            )
            .body(full(body))
            .expect("valid")
    })
    .await;
    let binary: Vec<u8> = (0..1_000_003_u32).map(|byte| (byte % 251) as u8).collect();
    for (version, protocol) in VERSIONS {
        let gateway =
            Running::before(origin.address, |_, service| service.upstream.protocol = protocol);
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"]
        {
            let bytes = if matches!(method, "POST" | "PUT" | "DELETE") { &binary[..] } else { &[] };
            let request = Request::builder()
                .method(method)
                .uri("/a%20b?c=%2F&d")
                .header("content-type", "application/x-own")
                .body(sent(bytes.to_vec()))
                .expect("valid");
            let response = exchange(gateway.address, version, request).await;
            assert_eq!(response.status(), 207, "{method}");
            assert_eq!(response.version(), version);
            let headers = response.headers();
            assert_eq!(headers["x-method"], method);
            assert_eq!(headers["x-path"], "/a%20b?c=%2F&d");
            assert_eq!(headers["x-type"], "application/x-own");
            let spoken = if protocol == Protocol::Http2 { "HTTP/2.0" } else { "HTTP/1.1" };
            assert_eq!(headers["x-version"], spoken);
            let body =
                guard(response.into_body().collect()).await.expect("a whole body").to_bytes();
            assert!(body == bytes, "{method}: {} of {} bytes", body.len(), bytes.len());
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let origin = Origin::start(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.expect("a whole body");
        let mut trailers = HeaderMap::new();
        let got = body.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
        trailers.insert("x-got", got.unwrap_or(HeaderValue::from_static("none")));
        let frames = [Ok(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Response::builder().header("trailer", "x-got").body(BodyExt::boxed(body)).expect("valid")
    })
    .await;
    for (version, protocol) in VERSIONS {
        let gateway =
            Running::before(origin.address, |_, service| service.upstream.protocol = protocol);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let frames = [Ok(Frame::data(Bytes::from_static(b"data"))), Ok(Frame::trailers(trailers))];
        let request = Request::builder()
            .method("POST")
            .uri("/")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))))
            .expect("valid");
        let response = exchange(gateway.address, version, request).await;
        let body = guard(response.into_body().collect()).await.expect("a whole body");
        let got = body.trailers().and_then(|trailers| trailers.get("x-got")).cloned();
        assert_eq!(got, Some(HeaderValue::from_static("42")), "{version:?} to {protocol:?}");
        assert_eq!(body.to_bytes(), "data");
    }
}

/// Neither side waits for the other's last byte.
#[tokio::test]
async fn bodies_are_streamed() {
    let origin = Origin::start(|request: Request<Incoming>| async move {
        Response::new(request.into_body().boxed())
    })
    .await;
    for (version, protocol) in VERSIONS {
        let gateway =
            Running::before(origin.address, |_, service| service.upstream.protocol = protocol);
        let (pieces, mut to_send) = mpsc::channel::<Bytes>(1);
        let stream = futures_util::stream::poll_fn(move |context| {
            to_send.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        });
        pieces.send(Bytes::from_static(b"0")).await.expect("it is taken");
        let request =
            Request::post("/").body(BodyExt::boxed(StreamBody::new(stream))).expect("valid");
        let mut body = exchange(gateway.address, version, request).await.into_body();
        for round in 0..5 {
            let frame = guard(body.frame()).await.expect("more").expect("no error");
            assert_eq!(frame.into_data().expect("data"), round.to_string());
            pieces.send((round + 1).to_string().into()).await.expect("it is taken");
        }
        drop(pieces);
        guard(body.collect()).await.expect("an end");
    }
}

/// Few send one with such a method, but who does means it.
#[tokio::test]
async fn a_body_of_unknown_length_passes_whatever_the_method() {
    let origin = Origin::start(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.expect("a whole body").to_bytes();
        Response::builder().header("x-got", body.len()).body(full("")).expect("valid")
    })
    .await;
    for (version, protocol) in VERSIONS {
        let gateway =
            Running::before(origin.address, |_, service| service.upstream.protocol = protocol);
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let pieces = ["{\"a\":", "1}"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
            let body = StreamBody::new(futures_util::stream::iter(pieces));
            let mut request = Request::builder().method(method).uri("/_search");
            if version == Version::HTTP_11 {
                request = request.header("transfer-encoding", "chunked");
            }
            let request = request.body(BodyExt::boxed(body)).expect("valid");
            let response = exchange(gateway.address, version, request).await;
            assert_eq!(response.headers()["x-got"], "7", "{method} {version:?} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn the_path_is_put_together_from_both() {
    let origin = Origin::echo().await;
    for (prefix, strip, base, asked, seen) in [
        ("/", false, "", "/a?b", "/a?b"),
        ("/", true, "", "/a?b", "/a?b"),
        ("/orders", false, "", "/orders/1", "/orders/1"),
        ("/orders", true, "", "/orders/1?x=/orders", "/1?x=/orders"),
        ("/orders", true, "", "/orders", "/"),
        ("/orders", true, "", "/orders?x", "/?x"),
        ("/orders", true, "", "/orders/", "/"),
        ("/orders", true, "/v2", "/orders", "/v2"),
        ("/orders", true, "/v2/", "/orders/1", "/v2/1"),
        ("/orders", false, "/v2", "/orders/1", "/v2/orders/1"),
        ("/", false, "/v2", "/", "/v2/"),
    ] {
        let gateway = Running::before(origin.address, |_, service| {
            service.route = Route { host: None, prefix: prefix.to_owned(), strip_prefix: strip };
            let url = format!("http://{}{base}", origin.address);
            service.upstream.url = url.parse().expect("a URL");
        });
        let answer = gateway
            .exchange(format!("GET {asked} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
            .await;
        let line = format!("GET {seen} HTTP/1.1\n");
        assert!(answer.contains(&line), "{prefix} {strip} {base} {asked}: {answer}");
    }
}

/// One that is too long with what stands in front of it must not be sent without.
#[tokio::test]
async fn no_path_leaves_the_upstreams_base() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |server, service| {
        server.max_header_size = 128 << 10;
        service.upstream.url = format!("http://{}/v2", origin.address).parse().expect("a URL");
        service.retry = Some(Retry { attempts: 3, budget: 1.0 });
    });
    let asked = |length: usize| {
        let path = "x".repeat(length - 1);
        format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    };
    let answer = gateway.exchange(asked(65_534 - 3)).await;
    assert!(answer.contains("GET /v2/xxx"), "{}", &answer[..200]);
    let answer = gateway.exchange(asked(65_534 - 2)).await;
    assert!(answer.starts_with("HTTP/1.1 414 "), "{}", &answer[..200]);
    assert!(answer.contains("urn:brk:problem:path-too-long"), "{answer}");
    assert_eq!(origin.seen(), 1);
    let circuit = gateway.gateway.registry().get("upstream").expect("it has one");
    let totals = circuit.snapshot().totals;
    assert_eq!((totals.success, totals.failure, totals.ignored), (1, 0, 1));
}

#[tokio::test]
async fn a_body_is_asked_for_when_somebody_wants_it() {
    let origin = Origin::echo().await;
    let gateway =
        Running::before(origin.address, |_, service| service.route.prefix = "/a".to_owned());
    let mut caller = gateway.caller().await;
    caller
        .write("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let first = caller.until("\r\n\r\n").await;
    assert!(first.starts_with("HTTP/1.1 100 "), "{first}");
    caller.write("data").await;
    let answer = caller.until("\n\ndata").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.contains("expect"), "{answer}");

    let mut caller = gateway.caller().await;
    caller
        .write("PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let answer = caller.rest().await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

/// Shouts what it hears once it has been upgraded.
async fn shouting() -> Origin {
    Origin::start(|mut request: Request<Incoming>| async move {
        let Some(protocol) = request.headers().get("upgrade").cloned() else {
            return Response::new(full("no upgrade"));
        };
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.expect("it is upgraded"));
            let mut piece = [0; 1024];
            while let Ok(read @ 1..) = io.read(&mut piece).await {
                io.write_all(&piece[..read].to_ascii_uppercase()).await.expect("the caller reads");
            }
        });
        Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", protocol)
            .body(full(""))
            .expect("valid")
    })
    .await
}

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test]
async fn an_upgrade_passes_if_the_service_allows_it() {
    let origin = shouting().await;
    let gateway = Running::before(origin.address, |_, service| service.upgrade = true);
    let mut caller = gateway.caller().await;
    caller.write(UPGRADE).await;
    let head = caller.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
    for round in 0..100 {
        // What the framing of HTTP would stumble over.
        caller.write(format!("\n\r\n\0 hello {round}\n.")).await;
        let heard = caller.until(".").await;
        assert_eq!(heard, format!("\n\r\n\0 HELLO {round}\n."));
    }
    caller.stream.shutdown().await.expect("it is open");
    assert_eq!(caller.rest().await, "");
}

#[tokio::test]
async fn no_upgrade_to_http2_passes_in_company_either() {
    let origin = shouting().await;
    let gateway = Running::before(origin.address, |_, service| service.upgrade = true);
    for protocols in ["h2c, websocket", "websocket, H2C", "h2c\r\nUpgrade: websocket", "x,h2c/2 "] {
        let request = UPGRADE.replace("websocket", protocols);
        let answer = gateway.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{protocols}: {answer}");
        assert!(answer.ends_with("no upgrade"), "{protocols}: {answer}");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_allowed_is_an_ordinary_request() {
    let origin = shouting().await;
    let gateway = Running::before(origin.address, |_, _| {});
    let answer =
        gateway.exchange(format!("{UPGRADE}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("no upgrade"), "{answer}");
    assert_eq!(origin.seen(), 1);
    // HTTP/2 on the side is not granted either, and costs no connection.
    let mut caller = gateway.caller().await;
    for _ in 0..3 {
        caller.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").await;
        caller.until("no upgrade").await;
    }
}

/// Answers each request on a connection, and says how many connections came.
async fn counted(answers_each: usize) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("it is bound");
    let count = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *counter.lock().expect("no panic") += 1;
            tokio::spawn(async move {
                for _ in 0..answers_each {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn connections_to_the_upstream_are_used_again() {
    let (address, count) = counted(usize::MAX).await;
    let gateway = Running::before(address, |server, _| server.workers = 1);
    for _ in 0..20 {
        let mut caller = gateway.caller().await;
        caller.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        caller.until("\r\n\r\nok").await;
    }
    assert_eq!(*count.lock().expect("no panic"), 1);
}

/// It closes as it likes, and nobody is to blame.
#[tokio::test]
async fn an_upstream_that_closes_kept_connections_fails_no_request() {
    let (address, count) = counted(1).await;
    let gateway = Running::before(address, |server, _| server.workers = 1);
    for _ in 0..50 {
        let answer =
            gateway.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(*count.lock().expect("no panic"), 50);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_call() {
    let (gone, mut went) = mpsc::unbounded_channel();
    let (came, mut comes) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_| {
        let (gone, came) = (OnDrop(gone.clone()), came.clone());
        async move {
            let _gone = gone;
            came.send(()).expect("the test listens");
            std::future::pending().await
        }
    })
    .await;
    for (version, protocol) in VERSIONS {
        let gateway =
            Running::before(origin.address, |_, service| service.upstream.protocol = protocol);
        let request = Request::get("/").body(sent("")).expect("valid");
        let call = tokio::spawn(exchange(gateway.address, version, request));
        guard(comes.recv()).await.expect("the upstream is asked");
        call.abort();
        guard(went.recv()).await.expect("the upstream hears of it");
    }
}

struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_problem() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let gateway = Running::before(address, |_, _| {});
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = gateway.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");

    let nonsense = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = nonsense.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = nonsense.accept().await {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.expect("it is open");
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let gateway = Running::before(address, |_, _| {});
    let answer = gateway.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_configurations_under_load_fail_no_request() {
    let origin = Origin::start(|_| async { Response::new(full("here")) }).await;
    let running = Running::before(origin.address, |_, _| ());
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers = [(); 4].map(|()| {
        let (over, answered, to) = (Arc::clone(&over), Arc::clone(&answered), running.address);
        tokio::spawn(async move {
            let io = TokioIo::new(TcpStream::connect(to).await.expect("it listens"));
            let (mut sender, connection) = http1::handshake(io).await.expect("it speaks HTTP/1");
            tokio::spawn(connection);
            while !over.load(Ordering::Relaxed) {
                let request = Request::get("/").header("host", "any").body(sent(""));
                sender.ready().await.expect("the connection stays");
                let response = sender.send_request(request.expect("a request")).await;
                let response = response.expect("a response");
                assert_eq!(response.status(), 200);
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                assert_eq!(body, "here");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for turn in 1..=1_000 {
        // Some between any two.
        let before = answered.load(Ordering::Relaxed);
        let moved = async {
            while answered.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
        };
        guard(moved).await;
        let mut service = service("upstream", origin.address);
        service.timeouts.head += Duration::from_millis(turn);
        // The connections to the upstream are new ones, too.
        service.upstream.max_idle += usize::try_from(turn % 2).expect("it fits");
        let minimum = 10 + turn % 5;
        service.circuit =
            Config::builder("upstream").minimum_calls(minimum).build().expect("right");
        assert_eq!(running.gateway.apply(settings(server(), [service])).changed, ["upstream"]);
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        guard(caller).await.expect("every request was answered by the upstream");
    }
    let circuit = running.gateway.registry().get("upstream").expect("it is the same all along");
    assert_eq!(circuit.snapshot().totals.success, answered.load(Ordering::Relaxed));
}

#[tokio::test]
async fn who_decided_is_told_for_as_long_as_the_configuration_says_so() {
    let origin = Origin::echo().await;
    let running = Running::before(origin.address, |_, _| ());
    for shown in [true, false, true] {
        let server = Server { breaker_headers: shown, ..server() };
        let applied =
            running.gateway.apply(settings(server, [service("upstream", origin.address)]));
        assert!(applied.is_empty(), "{applied}");
        let request = Request::get("/").body(sent("")).expect("a request");
        let response = exchange(running.address, Version::HTTP_11, request).await;
        assert_eq!(response.headers().contains_key("x-breaker-name"), shown);
    }
}

/// Takes TLS off in front of an origin, and offers these protocols. Its port, and
/// the certificate to trust, for `localhost`.
async fn tls(origin: SocketAddr, protocols: &[&str]) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
    let key = made.signing_key.serialize_der().try_into().expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("it has some")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they belong together");
    config.alpn_protocols = protocols.iter().map(|&protocol| protocol.into()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not trust it goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut origin = TcpStream::connect(origin).await.expect("it listens");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut origin).await;
            });
        }
    });
    (port, made.cert.pem())
}

#[tokio::test]
async fn an_upstream_behind_tls_is_called_in_what_it_offers_and_only_if_it_is_trusted() {
    let origin = Origin::echo().await;
    for (protocol, version) in [("h2", "HTTP/2.0"), ("http/1.1", "HTTP/1.1")] {
        let (port, certificate) = tls(origin.address, &[protocol]).await;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
        for (ca, status) in [(vec![certificate], 200), (Vec::new(), 502)] {
            let running = Running::before(origin.address, |_, service| {
                service.upstream.url = format!("https://localhost:{port}").parse().expect("a URL");
                service.upstream.ca = ca;
            });
            let seen = origin.seen();
            let request = Request::get("/a").body(sent("")).expect("a request");
            let response = exchange(running.address, Version::HTTP_11, request).await;
            assert_eq!(response.status(), status, "{protocol}");
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            let text = String::from_utf8_lossy(&body);
            assert_eq!(
                text.lines().next().is_some_and(|line| line.ends_with(version)),
                status == 200
            );
            assert_eq!(origin.seen() - seen, usize::from(status == 200));
        }
    }
}

/// A certificate that takes the place of another in the same file, as one does
/// that runs out.
#[tokio::test]
async fn a_certificate_to_trust_is_taken_up_with_the_configuration() {
    let origin = Origin::echo().await;
    let (port, right) = tls(origin.address, &["http/1.1"]).await;
    let (_, wrong) = tls(origin.address, &["http/1.1"]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nstate = \"state\"\n\
         [services.a]\npath = \"/\"\n\
         upstream = {{ url = \"https://localhost:{port}\", ca_file = \"ca.pem\" }}"
    );
    std::fs::write(path("brk.toml"), text).expect("it is written");
    let load = |pem: &str| {
        std::fs::write(path("ca.pem"), pem).expect("it is written");
        brk::config::load(&path("brk.toml")).expect("it is right")
    };
    let running = Running::start(load(&wrong));
    let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = running.exchange(asked).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(running.gateway.apply(load(&right)).changed, ["a"]);
    let answer = running.exchange(asked).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(running.gateway.apply(load(&right)).is_empty());
    assert_eq!(running.gateway.apply(load(&wrong)).changed, ["a"]);
    let answer = running.exchange(asked).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "what was trusted is no more: {answer}");
}

/// Answers in HTTP/2, at most two requests at once on a connection, and the
/// number of connections so far.
async fn narrow<R>(respond: impl Fn() -> R + Clone + Send + 'static) -> (SocketAddr, Arc<AtomicU64>)
where
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("it is bound");
    let connections = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let respond = respond.clone();
            let service = hyper::service::service_fn(move |_: Request<Incoming>| {
                let ready = respond();
                async move {
                    ready.await;
                    Ok::<_, std::convert::Infallible>(Response::new(sent("ok")))
                }
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(2);
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, connections)
}

async fn statuses(gateway: &Running, count: usize) -> Vec<u16> {
    let ask = || async {
        let request = Request::get("/").body(sent("")).expect("a request");
        let response = exchange(gateway.address, Version::HTTP_11, request).await;
        let status = response.status().as_u16();
        response.into_body().collect().await.expect("a body");
        status
    };
    futures_util::future::join_all((0..count).map(|_| ask())).await
}

/// No request waits for another's stream, until its time is over and the
/// upstream is blamed.
#[tokio::test]
async fn an_upstream_that_takes_few_at_once_gets_more_connections() {
    let together = Arc::new(tokio::sync::Barrier::new(7));
    let is_first = Arc::new(AtomicBool::new(true));
    let (address, connections) = narrow(move || {
        let (together, is_first) = (Arc::clone(&together), is_first.swap(false, Ordering::SeqCst));
        async move {
            if !is_first {
                together.wait().await;
            }
        }
    })
    .await;
    let gateway = Running::before(address, |server, service| {
        server.workers = 1;
        service.upstream.protocol = Protocol::Http2;
        service.timeouts.head = Duration::from_secs(5);
    });
    assert_eq!(statuses(&gateway, 1).await, [200]);
    for _ in 0..3 {
        assert_eq!(statuses(&gateway, 7).await, [200; 7]);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 4, "no more than it takes");
}

/// HTTP/2 has no upgrades, whatever else has made of the connections.
#[tokio::test]
async fn an_upgrade_passes_to_an_upstream_that_offers_http2_too() {
    let origin = shouting().await;
    let (port, certificate) = tls(origin.address, &["h2", "http/1.1"]).await;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    let gateway = Running::before(origin.address, |server, service| {
        server.workers = 1;
        service.upgrade = true;
        service.upstream.url = format!("https://localhost:{port}").parse().expect("a URL");
        service.upstream.ca = vec![certificate];
    });
    for _ in 0..2 {
        let mut caller = gateway.caller().await;
        caller.write(UPGRADE).await;
        let head = caller.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        caller.write("hello.").await;
        assert_eq!(caller.until(".").await, "HELLO.");
        // Now there is a connection in HTTP/2.
        let answer =
            gateway.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("no upgrade"), "{answer}");
    }
}
