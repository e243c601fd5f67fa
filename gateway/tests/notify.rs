//! Who is told, against real servers: webhooks, Slack's and mail's.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use brk::{
    config::{Target, TargetKind},
    notify::{self, Notifications},
};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls};
use tower_breaker::{Circuit, Config, Override, Registry};

const GUARD: Duration = Duration::from_secs(30);

fn registry() -> (Registry, Circuit) {
    let registry = Registry::new();
    let circuit = registry.circuit(Config::builder("orders").build().unwrap()).unwrap();
    (registry, circuit)
}

/// A target that is told of everything at once.
fn target(name: &str, kind: TargetKind) -> Target {
    Target {
        name: name.into(),
        kind,
        services: Vec::new(),
        hold_down: Duration::ZERO,
        cooldown: Duration::ZERO,
        flapping: 1_000,
    }
}

fn webhook(server: &Server) -> Target {
    let url = server.url.parse().unwrap();
    target("hook", TargetKind::Webhook { url, secret_file: None })
}

fn telling(registry: &Registry, targets: &[Target]) -> Notifications {
    let notifications = Notifications::new(registry);
    notifications.apply(targets);
    notifications
}

/// What a server answers; 200 if nothing is said.
enum Answer {
    Status(u16),
    Redirect(String),
    /// To be asked again after so many seconds.
    Later(u64),
    Never,
}

struct Server {
    url: String,
    received: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/services/T0/SECRET-PATH", listener.local_addr().unwrap());
        let (sender, received) = mpsc::unbounded_channel();
        let answers: Arc<Mutex<VecDeque<Answer>>> = Arc::default();
        let script = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, script) = (sender.clone(), Arc::clone(&script));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (sender, script) = (sender.clone(), Arc::clone(&script));
                    async move {
                        let (head, body) = request.into_parts();
                        assert_eq!(head.method, "POST");
                        let body = body.collect().await.unwrap().to_bytes();
                        let _ = sender.send((head.headers, body));
                        let answer = script.lock().unwrap().pop_front();
                        let response = Response::builder();
                        let response = match answer {
                            None => response.status(200),
                            Some(Answer::Status(status)) => response.status(status),
                            Some(Answer::Redirect(to)) => {
                                response.status(307).header("location", to)
                            }
                            Some(Answer::Later(seconds)) => {
                                response.status(429).header("retry-after", seconds)
                            }
                            Some(Answer::Never) => std::future::pending().await,
                        };
                        Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { url, received, answers }
    }

    fn will(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }

    async fn next(&mut self) -> (HeaderMap, Bytes) {
        timeout(GUARD, self.received.recv()).await.expect("a message").unwrap()
    }

    async fn next_json(&mut self) -> Value {
        serde_json::from_slice(&self.next().await.1).unwrap()
    }
}

fn file(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn an_opening_and_the_recovery_are_told_signed_and_each_with_its_key() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    let secret_file = Some(file(&directory, "secret", "tell nobody\n"));
    let url = server.url.parse().unwrap();
    let _told = telling(&registry, &[target("hook", TargetKind::Webhook { url, secret_file })]);
    circuit.trip();
    let (headers, body) = server.next().await;
    let message: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(message["service"], "orders");
    assert_eq!(message["news"]["condition"], "open");
    assert!(message["news"]["sentence"].as_str().unwrap().contains("tripped by hand"));
    let id = format!("{:016x}-2", registry.epoch());
    assert_eq!(headers["idempotency-key"], id.as_str());
    assert_eq!(message["id"], id.as_str());
    assert_eq!(headers["content-type"], "application/json");

    let sent = headers["x-brk-timestamp"].to_str().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"tell nobody").unwrap();
    mac.update(format!("{sent}.").as_bytes());
    mac.update(&body);
    let digits: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(headers["x-brk-signature"], format!("v1={digits}").as_str());

    circuit.reset();
    let message = server.next_json().await;
    assert_eq!(message["news"]["condition"], "closed");
    assert_eq!(message["before"], "open");
    assert_eq!(message["title"], "orders is closed again");
}

#[tokio::test]
async fn an_operators_hold_is_told_with_who_and_why() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    let _told = telling(&registry, &[webhook(&server)]);
    circuit.set_override(Override::force_open().owner("alice").reason("index rebuild"));
    let message = server.next_json().await;
    assert_eq!(message["news"]["condition"], "force_open");
    assert_eq!(
        (&message["news"]["by"], &message["news"]["reason"]),
        (&"alice".into(), &"index rebuild".into())
    );
    circuit.clear_override();
    assert_eq!(server.next_json().await["news"]["condition"], "closed");
}

#[tokio::test]
async fn a_message_that_did_not_arrive_comes_again_with_the_same_key() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    server.will(Answer::Status(500));
    let _told = telling(&registry, &[webhook(&server)]);
    circuit.trip();
    let (first, second) = (server.next().await, server.next().await);
    assert_eq!(first.0["idempotency-key"], second.0["idempotency-key"]);
    assert_eq!(first.1, second.1);
}

#[tokio::test]
async fn redirects_are_not_followed_and_what_is_lost_is_told_next() {
    let (mut server, mut other) = (Server::start().await, Server::start().await);
    let (registry, circuit) = registry();
    server.will(Answer::Redirect(other.url.clone()));
    server.will(Answer::Status(404));
    let _told = telling(&registry, &[webhook(&server)]);
    circuit.trip();
    assert_eq!(server.next_json().await["messages_lost"], 0);
    circuit.reset();
    // Whoever says no is not asked again.
    assert_eq!(server.next_json().await["messages_lost"], 1);
    circuit.trip();
    let message = server.next_json().await;
    assert_eq!(
        (&message["messages_lost"], &message["news"]["condition"]),
        (&2.into(), &"open".into())
    );
    assert!(other.received.try_recv().is_err());
}

/// By then it would be too late for what it was told, but not for what comes next.
#[tokio::test]
async fn a_target_that_wants_to_be_left_alone_is() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    server.will(Answer::Later(3_600));
    server.will(Answer::Later(u64::MAX));
    let _told = telling(&registry, &[webhook(&server)]);
    circuit.trip();
    assert_eq!(server.next_json().await["messages_lost"], 0);
    circuit.reset();
    assert_eq!(server.next_json().await["messages_lost"], 1);
    circuit.trip();
    assert_eq!(server.next_json().await["messages_lost"], 2);
}

#[tokio::test]
async fn nobody_is_notified_about_notifications() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    server.will(Answer::Status(500));
    let _told = telling(&registry, &[webhook(&server)]);
    circuit.trip();
    server.next().await;
    server.next().await;
    let names: Vec<_> =
        registry.circuits().iter().map(|circuit| circuit.name().to_owned()).collect();
    assert_eq!(names, ["orders"]);
    let events = registry.events_after(0, 100).events;
    assert!(events.iter().all(|event| &*event.circuit == "orders"));
}

#[tokio::test]
async fn what_is_due_is_delivered_at_the_end() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    let told = telling(&registry, &[webhook(&server)]);
    circuit.trip();
    assert_eq!(told.finish(GUARD).await, 0);
    assert_eq!(server.next_json().await["news"]["condition"], "open");
}

/// Whoever comes next finds it closed, and has nothing to tell.
#[tokio::test]
async fn that_it_is_over_is_told_at_the_end_however_soon_that_is() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    let cooldown = Duration::from_secs(3_600);
    let told = telling(&registry, &[Target { cooldown, ..webhook(&server) }]);
    circuit.trip();
    assert_eq!(server.next_json().await["news"]["condition"], "open");
    circuit.reset();
    assert_eq!(told.finish(GUARD).await, 0);
    assert_eq!(server.next_json().await["title"], "orders is closed again");
    assert!(server.received.try_recv().is_err());
}

#[tokio::test]
async fn a_target_that_hangs_does_not_hold_up_the_end_and_is_said() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    server.will(Answer::Never);
    let told = telling(&registry, &[webhook(&server)]);
    circuit.trip();
    server.next().await;
    circuit.reset();
    assert_eq!(told.finish(Duration::from_millis(50)).await, 2);
}

#[tokio::test]
async fn a_target_that_is_configured_anew_is_not_told_again() {
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    let before = webhook(&server);
    let told = telling(&registry, std::slice::from_ref(&before));
    circuit.trip();
    assert_eq!(server.next_json().await["news"]["condition"], "open");
    let after = Target { flapping: 7, ..before.clone() };
    told.apply(std::slice::from_ref(&after));
    circuit.reset();
    assert_eq!(server.next_json().await["news"]["condition"], "closed");
    // One that is new is told how it is.
    circuit.trip();
    assert_eq!(server.next_json().await["news"]["condition"], "open");
    let mut second = Server::start().await;
    told.apply(&[after, Target { name: "second".into(), ..webhook(&second) }]);
    let message = second.next_json().await;
    assert_eq!(
        (&message["news"]["condition"], &message["title"]),
        (&"open".into(), &"orders is open".into())
    );
    // One that was taken out is told nothing.
    told.apply(&[]);
    circuit.reset();
    assert_eq!(told.finish(GUARD).await, 0);
    assert!(server.received.try_recv().is_err() && second.received.try_recv().is_err());
}

#[tokio::test]
async fn whoever_missed_events_is_told_how_it_is_and_once() {
    let mut server = Server::start().await;
    let registry = Registry::builder().history(8).build();
    let circuit = registry.circuit(Config::builder("orders").build().unwrap()).unwrap();
    let told = telling(&registry, &[webhook(&server)]);
    // More than the history holds, before anybody can read it.
    for _ in 0..20 {
        circuit.trip();
        circuit.reset();
    }
    circuit.trip();
    assert_eq!(told.finish(GUARD).await, 0);
    let message = server.next_json().await;
    assert_eq!(message["news"]["condition"], "open");
    assert_eq!(message["earlier"], serde_json::json!([]));
    assert!(server.received.try_recv().is_err());
}

#[tokio::test]
async fn a_target_hears_of_its_services_only() {
    let mut server = Server::start().await;
    let (registry, orders) = registry();
    let other = registry.circuit(Config::builder("other").build().unwrap()).unwrap();
    let about = Target { services: vec!["orders".into()], ..webhook(&server) };
    let told = telling(&registry, &[about]);
    other.trip();
    orders.trip();
    assert_eq!(told.finish(GUARD).await, 0);
    assert_eq!(server.next_json().await["service"], "orders");
    assert!(server.received.try_recv().is_err());
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn slack_is_told_in_plain_text_and_no_secret_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let directory = TempDir::new().unwrap();
    let mut server = Server::start().await;
    let (registry, circuit) = registry();
    let url_file = file(&directory, "slack", &format!("{}\n", server.url));
    server.will(Answer::Status(503));
    let told =
        telling(&registry, &[target("team", TargetKind::Slack { url_file: url_file.clone() })]);
    circuit.set_override(Override::force_open().reason("<!channel> *look* & run"));
    server.next().await;
    let message = server.next_json().await;
    assert_eq!(message["text"], "orders is held open");
    let blocks = message["blocks"].as_array().unwrap();
    assert!(blocks.iter().all(|block| block["text"]["type"] == "plain_text"), "{message}");
    assert!(blocks[1]["text"]["text"].as_str().unwrap().contains("<!channel> *look* & run"));

    // An address that is none, and one where nobody listens.
    for url in ["no url, SECRET-PATH", "http://127.0.0.1:1/SECRET-PATH"] {
        std::fs::write(&url_file, url).unwrap();
        circuit.clear_override();
        circuit.set_override(Override::force_open());
    }
    told.finish(Duration::from_secs(2)).await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("team"), "{log}");
    let ours: Vec<_> = log.lines().filter(|line| line.contains("brk")).collect();
    assert!(ours.iter().all(|line| !line.contains("SECRET")), "{ours:#?}");
}

/// A mail, as it was handed in.
#[derive(Debug)]
struct Mail {
    is_encrypted: bool,
    login: Option<String>,
    recipients: Vec<String>,
    text: String,
}

/// How a mail server takes TLS.
#[derive(Clone, Copy, PartialEq)]
enum Tls {
    Not,
    AfterStarttls,
    FromTheStart,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A server of mail that knows as much as it must.
async fn mail_server(
    tls: Tls,
    acceptor: Option<TlsAcceptor>,
) -> (u16, mpsc::UnboundedReceiver<Mail>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, acceptor) = (sender.clone(), acceptor.clone());
            tokio::spawn(async move {
                let mut stream: Box<dyn Stream> = Box::new(stream);
                let mut is_encrypted = tls == Tls::FromTheStart;
                if is_encrypted {
                    stream = Box::new(acceptor.clone().unwrap().accept(stream).await?);
                }
                stream.write_all(b"220 here\r\n").await?;
                while let Some(plain) = talk(stream, tls, is_encrypted, &sender).await? {
                    stream = Box::new(acceptor.clone().unwrap().accept(plain).await?);
                    is_encrypted = true;
                }
                io::Result::Ok(())
            });
        }
    });
    (port, received)
}

/// Until the end; or until TLS is asked for, and then the stream.
async fn talk(
    stream: Box<dyn Stream>,
    tls: Tls,
    is_encrypted: bool,
    mails: &mpsc::UnboundedSender<Mail>,
) -> io::Result<Option<Box<dyn Stream>>> {
    let mut stream = BufReader::new(stream);
    let mut mail = Mail { is_encrypted, login: None, recipients: Vec::new(), text: String::new() };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        let answer = match line.split(' ').next().unwrap_or_default() {
            "EHLO" if tls == Tls::AfterStarttls && !is_encrypted => "250-here\r\n250 STARTTLS\r\n",
            "EHLO" => "250-here\r\n250 AUTH PLAIN\r\n",
            "STARTTLS" => {
                stream.write_all(b"220 go on\r\n").await?;
                return Ok(Some(stream.into_inner()));
            }
            "AUTH" => {
                mail.login = Some(line.to_owned());
                "235 welcome\r\n"
            }
            "RCPT" => {
                mail.recipients.push(line.to_owned());
                "250 ok\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                while !mail.text.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut mail.text).await?;
                }
                let next =
                    Mail { is_encrypted, login: None, recipients: Vec::new(), text: String::new() };
                let _ = mails.send(std::mem::replace(&mut mail, next));
                "250 taken\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(None);
            }
            _ => "250 ok\r\n",
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn email(server: String) -> TargetKind {
    TargetKind::Email {
        server,
        password_file: None,
        ca_file: None,
        from: "Gateway <brk@example.com>".into(),
        to: vec!["ops@example.com".into(), "Alice <alice@example.com>".into()],
    }
}

/// A server's certificate for `localhost`, and the same as PEM.
fn certificate() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

#[tokio::test]
async fn a_mail_goes_to_all_and_nobody_writes_into_its_head() {
    let (port, mut mails) = mail_server(Tls::Not, None).await;
    let (registry, circuit) = registry();
    let told = telling(&registry, &[target("mail", email(format!("smtp://localhost:{port}")))]);
    circuit.set_override(Override::force_open().reason("x\r\nBcc: eve@example.com\r\n\r\n.\r\n"));
    assert_eq!(told.finish(GUARD).await, 0);
    let mail = mails.recv().await.unwrap();
    assert_eq!(mail.recipients, ["RCPT TO:<ops@example.com>", "RCPT TO:<alice@example.com>"]);
    let (head, body) = mail.text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Subject: orders is held open"), "{head}");
    assert!(
        head.contains(&format!("Message-ID: <{:016x}-2@example.com>", registry.epoch())),
        "{head}"
    );
    assert!(!head.contains("eve@"), "{head}");
    assert!(body.contains("eve@example.com"), "{body}");
    assert!(mails.try_recv().is_err());
}

#[tokio::test]
async fn mail_goes_over_tls_with_the_password_that_is_in_the_file() {
    let directory = TempDir::new().unwrap();
    for (tls, scheme) in [(Tls::AfterStarttls, "smtp"), (Tls::FromTheStart, "smtps")] {
        let (acceptor, pem) = certificate();
        let (port, mut mails) = mail_server(tls, Some(acceptor)).await;
        let (registry, circuit) = registry();
        let kind = TargetKind::Email {
            server: format!("{scheme}://brk@localhost:{port}"),
            password_file: Some(file(&directory, "password", "s3cret\n")),
            ca_file: Some(file(&directory, "ca.pem", &pem)),
            from: "brk@example.com".into(),
            to: vec!["ops@example.com".into()],
        };
        let told = telling(&registry, &[target("mail", kind)]);
        circuit.trip();
        assert_eq!(told.finish(GUARD).await, 0);
        let mail = mails.recv().await.unwrap();
        assert!(mail.is_encrypted);
        // "\0brk\0s3cret"
        assert_eq!(mail.login.as_deref(), Some("AUTH PLAIN AGJyawBzM2NyZXQ="));
        assert!(mail.text.contains("Subject: orders is open"));
    }
}

#[tokio::test]
async fn a_server_that_can_not_encrypt_or_is_another_gets_no_mail() {
    let directory = TempDir::new().unwrap();
    let (acceptor, _) = certificate();
    let (_, pem) = certificate();
    for (tls, acceptor) in [(Tls::Not, None), (Tls::AfterStarttls, Some(acceptor))] {
        let (port, mut mails) = mail_server(tls, acceptor).await;
        let (registry, circuit) = registry();
        let kind = TargetKind::Email {
            server: format!("smtp://localhost:{port}"),
            password_file: None,
            ca_file: Some(file(&directory, "ca.pem", &pem)),
            from: "brk@example.com".into(),
            to: vec!["ops@example.com".into()],
        };
        let told = telling(&registry, &[target("mail", kind)]);
        circuit.trip();
        assert_eq!(told.finish(Duration::from_millis(1_500)).await, 1);
        assert!(mails.try_recv().is_err());
    }
}

#[test]
fn what_is_wrong_with_a_target_is_told_by_its_key() {
    let right = |server: &str, from: &str, to: &[&str]| TargetKind::Email {
        server: server.into(),
        password_file: None,
        ca_file: None,
        from: from.into(),
        to: to.iter().map(|to| (*to).to_owned()).collect(),
    };
    let (server, from, to) = ("smtps://mail.example", "a@example.com", ["b@example.com"]);
    assert_eq!(notify::check(&target("mail", right(server, from, &to))), Ok(()));
    for (name, kind, key) in [
        ("mail", right("mail.example", from, &to), "server"),
        ("mail", right("smtp://a:secret@mail.example", from, &to), "server"),
        ("mail", right(server, "a\r\nBcc: b@example.com", &to), "from"),
        ("mail", right(server, from, &[]), "to"),
        ("mail", right(server, from, &["nobody"]), "to"),
        ("m/l", right(server, from, &to), "name"),
        (
            "hook",
            TargetKind::Webhook { url: "/path".parse().unwrap(), secret_file: None },
            "webhook",
        ),
    ] {
        let why = notify::check(&target(name, kind)).unwrap_err();
        assert!(why.starts_with(key) && !why.contains("secret"), "{why}");
    }
}
