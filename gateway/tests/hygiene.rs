//! What passes and what does not, byte for byte.

mod common;

use brk::config::{Route, Server, Service};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::common::{Origin, Running, full, guard};

/// Requests that go nowhere: what is wrong with them, their bytes, the status
/// and the problem's type.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", "bad-host"),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400", "bad-host"),
    ("no host", "GET / HTTP/1.1\r\n\r\n", "400", "bad-host"),
    ("a user in the host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "400", "bad-host"),
    ("a path in the host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400", "bad-host"),
    ("two hosts in one", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "400", "bad-host"),
    ("a user in the target", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-host"),
    (
        "two hosts beside a target",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "400",
        "bad-host",
    ),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "405", "connect-refused"),
    ("a dot segment", "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("a single dot", "GET /a/./b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("dots at the end", "GET /a/.. HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("encoded dots", "GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("half encoded dots", "GET /a/.%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("dots with parameters", "GET /a/..;x/b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("an encoded slash", "GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("an encoded backslash", "GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    ("an encoded NUL", "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-path"),
    (
        "dots in a whole target",
        "GET http://a/b/../c HTTP/1.1\r\nHost: a\r\n\r\n",
        "400",
        "bad-path",
    ),
    (
        "Connection: authorization",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization\r\n\r\n",
        "400",
        "bad-connection-header",
    ),
    (
        "Connection: cookie",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, cookie\r\n\r\n",
        "400",
        "bad-connection-header",
    ),
    (
        "Connection: host",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n",
        "400",
        "bad-connection-header",
    ),
    (
        "Connection: content-type",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Content-Type\r\n\r\n",
        "400",
        "bad-connection-header",
    ),
    (
        "Connection: content-length",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\n\r\n",
        "400",
        "bad-connection-header",
    ),
    (
        "Connection: forwarded",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: forwarded\r\n\r\n",
        "400",
        "bad-connection-header",
    ),
    (
        "Connection: via",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: Via\r\n\r\n",
        "400",
        "bad-connection-header",
    ),
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
        "ambiguous-message",
    ),
    (
        "both lengths, the other way",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "400",
        "ambiguous-message",
    ),
    (
        "one length twice",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "400",
        "ambiguous-message",
    ),
    (
        "two codings",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "400",
        "ambiguous-message",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
        "ambiguous-message",
    ),
    (
        "a bare line feed after the target",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "400",
        "ambiguous-message",
    ),
    (
        "a bare line feed in the head",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "400",
        "ambiguous-message",
    ),
    ("a bare line feed at its end", "GET / HTTP/1.1\r\nHost: a\r\n\n", "400", "ambiguous-message"),
    (
        "a hidden header",
        "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
        "ambiguous-message",
    ),
    (
        "no chunk size",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "400",
        "",
    ),
    (
        "a negative chunk",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "400",
        "",
    ),
    (
        "a chunk longer than it says",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        "400",
        "",
    ),
    (
        "a chunk with a bare line feed",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        "400",
        "",
    ),
];

/// Those that are no HTTP: the parser answers, and has no words for it.
const UNPARSED: &[(&str, &str)] = &[
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx"),
    ("no length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nx"),
    ("another coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
    (
        "a coding much like it",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    ("a bare carriage return", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n"),
    ("a NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n"),
    ("a backslash target", "GET \\a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
];

#[tokio::test]
async fn what_no_proxy_may_pass_on_is_refused() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |_, _| {});
    for (what, bytes, status, kind) in REFUSED {
        let mut caller = gateway.caller().await;
        caller.write(bytes).await;
        let head = caller.until("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {head}");
        assert!(head.contains("content-type: application/problem+json\r\n"), "{what}: {head}");
        let body = caller.until("}").await;
        let kind = format!("\"urn:brk:problem:{kind}");
        assert!(body.contains(&kind), "{what}: {body}");
    }
    for (what, bytes) in UNPARSED {
        let answer = gateway.exchange(bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    }
    let broken_on_the_way = 4;
    assert!(origin.seen() <= broken_on_the_way, "{} were passed on", origin.seen());
}

/// What follows such a request on its connection would be somebody else's
/// words in one reading of it.
#[tokio::test]
async fn nothing_is_served_after_an_ambiguous_request() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |_, _| {});
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, bytes, _, kind) in REFUSED {
        if !["ambiguous-message", "bad-host", ""].contains(kind) {
            continue;
        }
        let answer = gateway.exchange(format!("{bytes}{smuggled}")).await;
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{what}: {answer}");
        assert!(!answer.contains("/smuggled"), "{what}: {answer}");
    }
    // Also where the second request is the ambiguous one.
    let first = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
    let second = "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut caller = gateway.caller().await;
    caller.write(first).await;
    caller.until("GET /first").await;
    caller.write(format!("{second}{smuggled}")).await;
    let answer = caller.rest().await;
    assert!(answer.contains("urn:brk:problem:ambiguous-message"), "{answer}");
    assert!(!answer.contains("/smuggled"), "{answer}");
}

/// What follows may be in another protocol, so nobody looks whether it can be read
/// in two ways.
#[tokio::test]
async fn nothing_is_served_after_an_upgrade_that_is_not_granted() {
    let origin = Origin::echo().await;
    let gateway =
        Running::before(origin.address, |_, service| service.route.prefix = "/orders".to_owned());
    let next = "GET /orders/next HTTP/1.1\nHost: a\n\n";
    for (what, request) in [
        ("served", "GET /orders HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n"),
        ("no route", "GET /nowhere HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n"),
        ("a path", "GET /orders/a%2Fb HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n"),
        ("a header", "GET /orders HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: cookie\r\n\r\n"),
        ("two", "GET /nowhere HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nUpgrade: x\r\n\r\n"),
    ] {
        let mut caller = gateway.caller().await;
        caller.write(format!("{request}{next}")).await;
        let head = caller.until("\r\n\r\n").await;
        assert!(head.contains("\r\nconnection: close\r\n"), "{what}: {head}");
        let rest = caller.rest().await;
        assert!(!rest.contains("\r\ndate: "), "{what}: {rest}");
    }
    assert_eq!(origin.seen(), 1);
}

/// HTTP/2 lets a length be told twice, if it is the same; the upstream's HTTP/1
/// does not.
#[tokio::test]
async fn a_length_that_is_told_twice_is_refused_in_http_2_too() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |_, _| {});
    let stream = TcpStream::connect(gateway.address).await.expect("it listens");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("it is HTTP/2");
    tokio::spawn(connection);
    for (times, status) in [(1, 200), (2, 400)] {
        let mut request = Request::post(format!("http://{}/", gateway.address));
        for _ in 0..times {
            request = request.header("content-length", 1);
        }
        let request = request.body(Full::new(Bytes::from("x"))).expect("valid");
        let response = guard(sender.send_request(request)).await.expect("a response");
        assert_eq!(response.status(), status);
    }
    assert_eq!(origin.seen(), 1);
}

fn header<'a>(echo: &'a str, name: &str) -> Vec<&'a str> {
    let lines = echo.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// The upstream's view of a request. Its echo begins after the response's head.
async fn passed(gateway: &Running, request: &str) -> String {
    let answer = gateway.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

#[tokio::test]
async fn only_the_configuration_says_where_a_request_goes() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |_, _| {});
    let own = origin.address.to_string();
    for request in [
        "GET /a?b HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n",
        "GET http://other.example/a?b HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n",
        "GET https://other.example:1/a?b HTTP/1.1\r\nHost: third.example\r\nConnection: close\r\n\r\n",
    ] {
        let echo = passed(&gateway, request).await;
        assert!(echo.starts_with("GET /a?b HTTP/1.1\n"), "{echo}");
        assert_eq!(header(&echo, "host"), [&*own]);
        assert!(header(&echo, "x-forwarded-host")[0].starts_with("other.example"), "{echo}");
    }
}

/// RFC 9112, 3.2.2: the target's authority is what the request is for, and the
/// `Host` beside it is as good as not there.
#[tokio::test]
async fn a_whole_target_goes_before_the_host() {
    let (a, b) = (Origin::echo().await, Origin::echo().await);
    let route = |service: Service, host: &str| Service {
        route: Route { host: Some(host.to_owned()), prefix: "/".to_owned(), strip_prefix: false },
        ..service
    };
    let mut first = route(common::service("a", a.address), "a.example");
    first.upstream.preserve_host = true;
    let second = route(common::service("b", b.address), "b.example");
    let gateway = Running::start(common::settings(common::server(), [first, second]));
    let request =
        "GET http://A.example:80/ HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n";
    let echo = passed(&gateway, request).await;
    assert_eq!((a.seen(), b.seen()), (1, 0));
    assert_eq!(header(&echo, "host"), ["A.example:80"]);

    let nowhere =
        gateway.exchange("GET / HTTP/1.1\r\nHost: c.example\r\nConnection: close\r\n\r\n").await;
    assert!(nowhere.starts_with("HTTP/1.1 404 "), "{nowhere}");
    assert!(nowhere.contains("urn:brk:problem:no-route"), "{nowhere}");
}

#[tokio::test]
async fn what_is_between_neighbours_stays_between_them() {
    let origin = Origin::start(|request| async move {
        let mut response = Response::new(full(format!("{:?}", request.headers())));
        for (name, value) in [
            ("connection", "x-secret, keep-alive"),
            ("x-secret", "origin's"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
            ("x-kept", "yes"),
        ] {
            response.headers_mut().insert(name, value.parse().expect("a value"));
        }
        response
    })
    .await;
    let gateway = Running::before(origin.address, |_, _| {});
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\
                   Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: Basic eA==\r\n\
                   TE: trailers, deflate\r\nUpgrade: h2c\r\nAuthorization: kept\r\nCookie: kept\r\n\r\n";
    let answer = gateway.exchange(request).await;
    let (head, seen) = answer.split_once("\r\n\r\n").expect("a head");
    for gone in ["x-secret", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert!(!head.to_lowercase().contains(gone), "{gone}: {head}");
    }
    assert!(head.contains("x-kept: yes"), "{head}");
    for gone in
        ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "deflate", "h2c"]
    {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
    for kept in ["\"authorization\": \"kept\"", "\"cookie\": \"kept\"", "\"te\": \"trailers\""] {
        assert!(seen.contains(kept), "{kept}: {seen}");
    }
}

const FORGED: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\
    Forwarded: for=9.9.9.9\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Host: bank.example\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 9.9.9.9\r\n\r\n";

#[tokio::test]
async fn nobody_speaks_for_another_who_is_not_trusted() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |_, _| {});
    let echo = passed(&gateway, FORGED).await;
    assert_eq!(header(&echo, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(header(&echo, "x-forwarded-host"), ["a.example"]);
    assert_eq!(header(&echo, "x-forwarded-proto"), ["http"]);
    assert_eq!(header(&echo, "forwarded"), ["for=127.0.0.1;proto=http"]);
    assert!(header(&echo, "x-forwarded-port").is_empty(), "{echo}");
    assert!(header(&echo, "x-real-ip").is_empty(), "{echo}");

    let trusting = Running::before(origin.address, |server: &mut Server, _| {
        server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    });
    let echo = passed(&trusting, FORGED).await;
    assert_eq!(header(&echo, "x-forwarded-for"), ["9.9.9.9, 127.0.0.1"]);
    assert_eq!(header(&echo, "x-forwarded-host"), ["bank.example"]);
    assert_eq!(header(&echo, "x-forwarded-proto"), ["https"]);
    assert_eq!(header(&echo, "forwarded"), ["for=9.9.9.9, for=127.0.0.1;proto=http"]);
}

#[tokio::test]
async fn a_request_that_comes_round_again_is_stopped() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |_, _| {});
    let echo = passed(
        &gateway,
        "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 other\r\nConnection: close\r\n\r\n",
    )
    .await;
    let via = header(&echo, "via").join(", ");
    let (other, own) = via.split_once(", ").expect("two");
    assert_eq!(other, "1.0 other");
    assert!(own.starts_with("1.1 brk-"), "{own}");
    let again =
        format!("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 x, {own} (y)\r\nConnection: close\r\n\r\n");
    let answer = gateway.exchange(again).await;
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
    assert!(answer.contains("urn:brk:problem:loop-detected"), "{answer}");
}

/// RFC 9110, 7.6.2: for the two methods that look at the way itself.
#[tokio::test]
async fn a_request_goes_no_further_than_it_is_meant_to() {
    let origin = Origin::echo().await;
    let gateway = Running::before(origin.address, |_, _| {});
    let asked = |method: &str, hops: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\nConnection: close\r\n\r\n"
        )
    };
    for method in ["OPTIONS", "TRACE"] {
        let echo = passed(&gateway, &asked(method, "2")).await;
        assert_eq!(header(&echo, "max-forwards"), ["1"], "{method}");
        let seen = origin.seen();
        let answer = gateway.exchange(asked(method, "0")).await;
        assert!(answer.starts_with("HTTP/1.1 501 "), "{method}: {answer}");
        assert!(answer.contains("urn:brk:problem:last-hop"), "{method}: {answer}");
        assert_eq!(origin.seen(), seen, "{method}");
    }
    // It means nothing to others, and nothing at all if it is no number.
    for (method, hops) in [("GET", "0"), ("OPTIONS", "-1"), ("OPTIONS", "x")] {
        let echo = passed(&gateway, &asked(method, hops)).await;
        assert_eq!(header(&echo, "max-forwards"), [hops], "{method}");
    }
}

#[tokio::test]
async fn a_gateway_before_itself_says_so_instead_of_spinning() {
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = reserved.local_addr().expect("it is bound");
    drop(reserved);
    let gateway = Running::before(address, |server, _| server.listen = vec![address]);
    let answer = gateway.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
}

#[tokio::test]
async fn a_redirect_is_the_callers_to_follow() {
    let origin = Origin::start(|_| async {
        Response::builder()
            .status(302)
            .header("location", "http://elsewhere.example/")
            .body(full(""))
            .expect("valid")
    })
    .await;
    let gateway = Running::before(origin.address, |_, _| {});
    let answer = gateway.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
    assert!(answer.contains("location: http://elsewhere.example/\r\n"), "{answer}");
    assert_eq!(origin.seen(), 1);
}
