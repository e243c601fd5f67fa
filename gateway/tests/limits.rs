//! What takes too long, or is too much, comes to an end; what is at rest costs
//! little.

mod common;

use std::{
    fs,
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, Notify, mpsc},
};

use crate::common::{GUARD, Origin, Running, full, guard};

/// Short enough to wait for.
const SOON: Duration = Duration::from_millis(300);

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Tests that look at the process's memory, or fill its table of files, run
/// alone.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |server, _| server.header_timeout = SOON);
    // Nothing at all; a part of a head; a part of what begins HTTP/2; HTTP/2
    // and no request; rest after a response.
    for (bytes, answers) in [
        ("", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", false),
        ("PRI * HT", false),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", false),
        (REQUEST, true),
    ] {
        let mut caller = gateway.caller().await;
        caller.write(bytes).await;
        let mut rest = Vec::new();
        let _ = guard(caller.stream.read_to_end(&mut rest)).await;
        assert_eq!(rest.starts_with(b"HTTP/1.1 200 "), answers, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_no_better() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |server, _| server.header_timeout = SOON);
    let mut caller = gateway.caller().await;
    caller.write("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let dripping = async {
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        loop {
            interval.tick().await;
            // The second write after the end fails.
            if caller.stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    guard(dripping).await;
    assert_eq!(origin.seen(), 0);
}

/// While callers drip, others are served as ever.
#[tokio::test]
async fn slow_callers_hold_up_nobody() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |server, _| server.header_timeout = 10 * GUARD);
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut caller = gateway.caller().await;
        caller.write("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
        slow.push(caller);
    }
    for _ in 0..20 {
        let mut caller = gateway.caller().await;
        caller.write(REQUEST).await;
        caller.until("GET / ").await;
    }
    // They are there still, and may finish.
    for mut caller in slow {
        caller.write("x\r\n\r\n").await;
        caller.until("x-slow: x").await;
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |server, _| server.max_header_size = 4 << 10);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(5 << 10));
    let mut caller = gateway.caller().await;
    let _ = caller.stream.write_all(long.as_bytes()).await;
    let head = caller.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    assert_eq!(origin.seen(), 0);
}

#[tokio::test]
async fn the_next_connection_waits_for_one_to_end() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |server, _| {
        server.max_connections = 2;
        server.workers = 1;
    });
    let mut first = gateway.caller().await;
    let mut second = gateway.caller().await;
    for caller in [&mut first, &mut second] {
        caller.write(REQUEST).await;
        caller.until("GET / ").await;
    }
    let mut third = gateway.caller().await;
    third.write(REQUEST).await;
    // Requests on the first two pass the third by.
    for _ in 0..10 {
        first.write(REQUEST).await;
        first.until("GET / ").await;
        let read = third.stream.try_read(&mut [0; 1]);
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
    drop(second);
    third.until("GET / ").await;
}

#[tokio::test]
async fn a_request_body_that_stalls_ends_the_exchange() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let origin = Origin::start(move |request: Request<Incoming>| {
        let ended = ended.clone();
        async move {
            let whole = request.into_body().collect().await.is_ok();
            let _ = ended.send(whole);
            Response::new(full(""))
        }
    })
    .await;
    let gateway = Running::before(origin.address, |_, service| service.timeouts.body_idle = SOON);
    let mut caller = gateway.caller().await;
    caller.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let answer = caller.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("urn:brk:problem:request-body-stalled"), "{answer}");
    assert_eq!(guard(ends.recv()).await, Some(false), "the upstream sees that it is not whole");
}

#[tokio::test]
async fn a_response_body_that_stalls_ends_the_exchange() {
    let (gone, mut went) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_| {
        let gone = Gone(gone.clone());
        async move {
            let mut first = Some(Bytes::from_static(b"half"));
            let stream = futures_util::stream::poll_fn(move |_| {
                let _gone = &gone;
                match first.take() {
                    Some(piece) => std::task::Poll::Ready(Some(Ok(Frame::data(piece)))),
                    None => std::task::Poll::Pending,
                }
            });
            let body = BodyExt::boxed(StreamBody::new(stream));
            Response::builder().header("content-length", 10).body(body).expect("valid")
        }
    })
    .await;
    let gateway = Running::before(origin.address, |_, service| service.timeouts.body_idle = SOON);
    let mut caller = gateway.caller().await;
    caller.write(REQUEST).await;
    let answer = caller.rest().await;
    assert!(answer.ends_with("\r\n\r\nhalf"), "{answer}");
    guard(went.recv()).await.expect("the upstream's body is dropped");
}

/// Answers without an end, and says when such an answer is let go of.
async fn endless() -> (Origin, mpsc::UnboundedReceiver<()>) {
    let (gone, went) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_| {
        let gone = Gone(gone.clone());
        async move {
            let stream = futures_util::stream::poll_fn(move |_| {
                let _gone = &gone;
                let piece = Bytes::from_static(&[0; 64 << 10]);
                std::task::Poll::Ready(Some(Ok(Frame::data(piece))))
            });
            Response::new(BodyExt::boxed(StreamBody::new(stream)))
        }
    })
    .await;
    (origin, went)
}

#[tokio::test]
async fn a_caller_that_takes_nothing_is_let_go() {
    let (origin, mut went) = endless().await;
    let gateway = Running::before(origin.address, |server, service| {
        // No other limit helps.
        server.header_timeout = 10 * GUARD;
        service.timeouts.body_idle = SOON;
    });
    let mut caller = gateway.caller().await;
    caller.write(REQUEST).await;
    guard(went.recv()).await.expect("the upstream's body is dropped");
    drop(caller);
}

/// Nothing is ever in the way of a write then: each stream has its own window.
#[tokio::test]
async fn a_caller_that_opens_no_window_is_let_go() {
    let (origin, mut went) = endless().await;
    let gateway = Running::before(origin.address, |server, service| {
        // It is asked whether it is there, and says so.
        server.header_timeout = SOON;
        service.timeouts.body_idle = SOON;
    });
    let stream = TcpStream::connect(gateway.address).await.expect("it listens");
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .expect("it is HTTP/2");
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/", gateway.address));
    let response = sender.send_request(request.body(Empty::new()).expect("valid"));
    let response = guard(response).await.expect("a head");
    guard(went.recv()).await.expect("the upstream's body is dropped");
    let _ = guard(connection).await.expect("no panic");
    drop(response);
}

struct Gone(mpsc::UnboundedSender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_is_not_waited_for() {
    let origin = Origin::start(|_| std::future::pending()).await;
    let gateway = Running::before(origin.address, |_, service| service.timeouts.head = SOON);
    let answer = gateway.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

/// The upstream is not to blame for what has not been sent to it.
#[tokio::test]
async fn a_long_upload_is_no_slow_response() {
    let origin = Origin::start(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        Response::new(full(format!("{}", body.unwrap_or_default().len())))
    })
    .await;
    let gateway = Running::before(origin.address, |_, service| service.timeouts.head = SOON);
    let mut caller = gateway.caller().await;
    caller
        .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n")
        .await;
    // Each pause alone is longer than the upstream has for its response.
    let mut interval = tokio::time::interval(SOON * 3 / 2);
    for _ in 0..4 {
        interval.tick().await;
        caller.write("x".repeat(25)).await;
    }
    let answer = caller.rest().await;
    assert!(answer.ends_with("\r\n\r\n100"), "{answer}");
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_takes_no_more() {
    let answer = Arc::new(Notify::new());
    let (came, mut comes) = mpsc::unbounded_channel();
    let answers = Arc::clone(&answer);
    let origin = Origin::start(move |_| {
        let (answers, came) = (Arc::clone(&answers), came.clone());
        async move {
            let _ = came.send(());
            answers.notified().await;
            Response::new(full("late"))
        }
    })
    .await;
    let gateway = Running::before(origin.address, |_, _| {});
    let mut at_rest = gateway.caller().await;
    let mut busy = gateway.caller().await;
    busy.write(REQUEST).await;
    guard(comes.recv()).await;
    gateway.tell_to_stop();
    // What is at rest is closed, nothing more is taken, and what is under way
    // ends as it should.
    assert_eq!(at_rest.rest().await, "");
    guard(async { while TcpStream::connect(gateway.address).await.is_ok() {} }).await;
    answer.notify_one();
    let late = busy.rest().await;
    assert!(late.ends_with("\r\n\r\nlate"), "{late}");
    gateway.stopped().await;
}

#[tokio::test]
async fn a_stop_ends_what_does_not_end() {
    let (came, mut comes) = mpsc::unbounded_channel();
    let origin = Origin::start(move |_| {
        let _ = came.send(());
        std::future::pending()
    })
    .await;
    let gateway = Running::before(origin.address, |server, _| server.drain = SOON);
    let mut busy = gateway.caller().await;
    busy.write(REQUEST).await;
    guard(comes.recv()).await;
    gateway.tell_to_stop();
    gateway.stopped().await;
    assert_eq!(busy.rest().await, "");
}

/// What the process has in memory, in bytes.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok());
    kilobytes.expect("a number") << 10
}

const PIECE: usize = 64 << 10;

/// Pieces of a body as long as it is asked for.
fn pieces(length: usize) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, hyper::Error>> {
    futures_util::stream::iter(
        (0..length / PIECE).map(|_| Ok(Frame::data(Bytes::from_static(&[7; PIECE])))),
    )
}

#[tokio::test]
async fn long_bodies_pass_through_little_memory() {
    let _alone = ALONE.lock().await;
    let length = 64 << 20;
    let origin = Origin::start(move |request: Request<Incoming>| async move {
        let mut body = request.into_body();
        let mut got = 0;
        while let Some(Ok(frame)) = body.frame().await {
            got += frame.data_ref().map_or(0, Bytes::len);
        }
        let body = BodyExt::boxed(StreamBody::new(pieces(length)));
        Response::builder().header("x-got", got).body(body).expect("valid")
    })
    .await;
    let gateway = Running::before(origin.address, |_, _| {});
    let before = memory();
    let mut most = 0;
    let mut caller = gateway.caller().await;
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    caller.write(head).await;
    for _ in 0..length / PIECE {
        caller.write([7; PIECE]).await;
        most = most.max(memory());
    }
    let head = caller.until("\r\n\r\n").await;
    assert!(head.contains(&format!("x-got: {length}\r\n")), "{head}");
    let (mut got, mut piece) = (caller.ahead(), vec![0; PIECE]);
    while let read @ 1.. = guard(caller.stream.read(&mut piece)).await.expect("no error") {
        got += read;
        most = most.max(memory());
    }
    assert!(got > length, "{got} of {length}, in chunks");
    let grown = most.saturating_sub(before);
    assert!(grown < 16 << 20, "{} MiB more, for {} MiB", grown >> 20, length >> 20);
}

/// In this process each connection is here twice, with the caller's end.
/// `bench/limits` has 10,000 to the program itself.
#[tokio::test]
async fn connections_at_rest_cost_little() {
    let _alone = ALONE.lock().await;
    let connections = 2_000.min((open_files() - 500) / 2);
    if connections < 2_000 {
        println!("{connections} connections instead of 2,000: more files can't be open");
    }
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |server, _| server.header_timeout = 10 * GUARD);
    let before = memory();
    let mut callers = Vec::new();
    for _ in 0..connections {
        let mut caller = gateway.caller().await;
        caller.write(REQUEST).await;
        caller.until("\n\n").await;
        callers.push(caller);
    }
    let each = memory().saturating_sub(before) / connections;
    println!("{each} bytes for each of {connections} connections");
    assert!(each < 32 << 10, "{each} bytes each");
    // They are all of use still.
    for mut caller in callers {
        caller.write(REQUEST).await;
        caller.until("\n\n").await;
    }
}

/// As many as the process may have, or a little less than it could use.
fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_by_name() -> io::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let mut server = common::server();
    server.listen = vec![address];
    let settings = common::settings(server, []);
    let gateway = brk::gateway::Gateway::start(std::path::Path::new("brk.toml"), settings);
    let error = brk::serve::bind(gateway).err().expect("it is taken");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    Ok(())
}

/// Half the requests would go to each.
#[tokio::test]
async fn two_gateways_do_not_share_an_address() {
    let origin = Origin::echo().await;
    let first = Running::before(origin.address, |_, _| {});
    let mut server = common::server();
    server.listen = vec![first.address];
    let settings = common::settings(server, []);
    let second = brk::gateway::Gateway::start(std::path::Path::new("brk.toml"), settings);
    let error = brk::serve::bind(second).err().expect("it is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}
