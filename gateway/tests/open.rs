//! What a caller gets from a service's stack, above all while its circuit is
//! open.

mod stacked;

use std::{
    future::Future,
    task::{Context, Poll, Waker},
    time::Duration,
};

use brk::{
    config::{Respond, Template, WhenOpen},
    proxy::{Abort, Body, UpstreamError, stack, stack_with_fallback},
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use serde_json::json;
use stacked::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Service, ServiceExt};
use tower_breaker::{Override, Probes, State};

#[tokio::test(start_paused = true)]
async fn an_upstream_that_hangs_opens_the_circuit_and_then_nobody_waits() {
    let mock = Mock::that(|| Does::Hangs);
    let (stack, circuit) = protect(settings(circuit()), &mock);
    for _ in 0..10 {
        let began = now();
        let late = ask(&stack, get()).await;
        assert_eq!((late.status(), began.elapsed()), (StatusCode::GATEWAY_TIMEOUT, HEAD));
        assert_eq!(signed(&late)[2..], [Some("error"), Some("upstream-timeout")]);
    }
    let began = now();
    let refused = ask(&stack, get()).await;
    assert_eq!(
        (refused.status(), began.elapsed()),
        (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO)
    );
    assert_eq!((mock.calls(), circuit.state()), (10, State::Open));

    mock.now(|| status(200));
    tokio::time::advance(WAIT).await;
    let probe = ask(&stack, get()).await;
    assert_eq!((probe.status(), circuit.state()), (StatusCode::OK, State::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_503_with_a_problem_document_that_tells_all() {
    let (stack, circuit) = protect(settings(circuit()), &Mock::ok());
    circuit.trip();
    tokio::time::advance(Duration::from_millis(2_500)).await;
    let refused = ask(&stack, get()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(refused.headers()["retry-after"], "8", "rounded up, or it would come too early");
    assert_eq!(signed(&refused), ["orders", "open", "refused", "tripped"].map(Some));
    assert_eq!(
        document(refused).await,
        json!({
            "type": "urn:brk:problem:circuit-open",
            "title": "The circuit lets no call pass now",
            "status": 503,
            "detail": "circuit orders is open, retry after 7.5s",
            "name": "orders",
            "state": "open",
            "retry_after": 8,
            "cause": "it was tripped by hand",
        })
    );
}

#[tokio::test(start_paused = true)]
async fn held_open_says_so_whatever_its_rules_make_of_it() {
    let (stack, circuit) = protect(settings(circuit()), &Mock::ok());
    circuit.set_override(Override::force_open().reason("index rebuild").until_cleared());
    let refused = ask(&stack, get()).await;
    assert_eq!(signed(&refused), ["orders", "open", "refused", "force-open"].map(Some));
    assert!(!refused.headers().contains_key("retry-after"), "nobody knows when");
    let told = document(refused).await;
    assert_eq!(
        (&told["retry_after"], &told["cause"]),
        (&json!(null), &json!("held open: index rebuild"))
    );
    tokio::time::advance(Duration::from_secs(100_000)).await;
    assert_eq!(ask(&stack, get()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    circuit.clear_override();
    assert_eq!(ask(&stack, get()).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn held_closed_a_response_says_how_it_is_by_its_rules() {
    let (stack, circuit) = protect(settings(circuit()), &Mock::ok());
    circuit.trip();
    for over in [Override::force_closed(), Override::observe_only()] {
        circuit.set_override(over.until_cleared());
        let passed = ask(&stack, get()).await;
        assert_eq!(passed.status(), StatusCode::OK);
        assert_eq!(signed(&passed), [Some("orders"), Some("open"), None, None]);
    }
}

#[tokio::test(start_paused = true)]
async fn status_headers_and_body_of_a_refusal_are_the_operators() {
    let mut own = settings(circuit());
    let mut respond = plain();
    respond.status = StatusCode::TOO_MANY_REQUESTS;
    respond.headers.append("x-a", HeaderValue::from_static("1"));
    respond.headers.append("x-a", HeaderValue::from_static("2"));
    respond.body = Some(Template {
        content_type: "text/html; charset=utf-8".to_owned(),
        source: "<p>{{ name }} is {{ state }}: {{ cause }}. {% if retry_after %}In {{ retry_after }} s{% endif %}".to_owned(),
    });
    own.when_open = WhenOpen::Respond(respond.clone());
    let (stack, circuit) = protect(own.clone(), &Mock::ok());
    circuit.trip();
    let refused = ask(&stack, get()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(refused.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(text(refused).await, "<p>orders is open: it was tripped by hand. In 10 s");

    circuit.set_override(Override::force_open().reason("<b>&</b>").until_cleared());
    let refused = ask(&stack, get()).await;
    assert_eq!(
        text(refused).await,
        "<p>orders is open: held open: &lt;b&gt;&amp;&lt;&#x2f;b&gt;. "
    );

    respond.retry_after = false;
    respond.status = StatusCode::NO_CONTENT;
    respond.body = None;
    own.when_open = WhenOpen::Respond(respond);
    let (stack, circuit) = protect(own, &Mock::ok());
    circuit.trip();
    let refused = ask(&stack, get()).await;
    assert!(!refused.headers().contains_key("retry-after"));
    assert_eq!((refused.status(), text(refused).await.as_str()), (StatusCode::NO_CONTENT, ""));
}

#[tokio::test(start_paused = true)]
async fn html_is_escaped_however_its_type_is_written() {
    for (content_type, is_html) in [
        ("text/html", true),
        ("Text/HTML; charset=utf-8", true),
        (" TEXT/html;a=b", true),
        ("text/html charset=utf-8", true),
        ("text/plain", false),
        ("a/b", false),
    ] {
        let mut own = settings(circuit());
        let (content_type, source) = (content_type.to_owned(), "{{ cause }}".to_owned());
        let said = format!("{content_type} is escaped");
        let body = Some(Template { content_type, source });
        own.when_open = WhenOpen::Respond(Respond { body, ..plain() });
        let (stack, circuit) = protect(own, &Mock::ok());
        circuit.set_override(Override::force_open().reason("<b>").until_cleared());
        let told = text(ask(&stack, get()).await).await;
        let expected = if is_html { "held open: &lt;b&gt;" } else { "held open: <b>" };
        assert_eq!(told, expected, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_goes_to_the_fallback_as_it_is() {
    let mut own = settings(circuit());
    own.when_open = WhenOpen::Fallback(upstream());
    let own = service(own);
    let (mock, spare) = (Mock::ok(), Mock::ok());
    let stack = stack_with_fallback(&own, mock.clone(), spare.clone());
    let put = |body: &'static [u8]| {
        Request::post("/list?a=b").header("x-mine", "1").body(Body::full(body)).unwrap()
    };
    assert_eq!(
        signed(&ask(&stack, put(b"one")).await),
        [Some("orders"), Some("closed"), None, None]
    );
    assert_eq!((mock.calls(), spare.calls()), (1, 0));

    own.circuit.trip();
    spare.now(|| status(500));
    let answered = ask(&stack, put(b"two")).await;
    assert_eq!(answered.status(), StatusCode::INTERNAL_SERVER_ERROR, "the fallback's answer");
    assert_eq!(signed(&answered), ["orders", "open", "fallback", "tripped"].map(Some));
    let seen = spare.seen().remove(0);
    assert_eq!((seen.method().as_str(), seen.uri().to_string()), ("POST", "/list?a=b".to_owned()));
    assert_eq!(
        (&seen.headers()["x-mine"], &seen.body()[..]),
        (&HeaderValue::from_static("1"), &b"two"[..])
    );
    assert_eq!(mock.calls(), 1);

    for fails in [no_connection as fn() -> Does, || Does::Hangs] {
        spare.now(fails);
        let refused = ask(&stack, put(b"three")).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(signed(&refused)[2..], [Some("refused"), Some("tripped")]);
    }
    let totals = own.circuit.snapshot().totals;
    assert_eq!(
        (totals.failure, totals.success),
        (0, 1),
        "the fallback is none of the circuit's calls"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_answers_for_its_time_and_says_how_old_it_is() {
    let mut own = settings(circuit());
    let ttl = Duration::from_secs(300);
    own.when_open = WhenOpen::Stale { ttl, max_size: 1 << 20, respond: plain() };
    let own = service(own);
    let mock = Mock::ok();
    // What one worker keeps answers on all.
    let (stack, other) = (stack(&own, mock.clone()), stack(&own, mock.clone()));
    assert_eq!(signed(&ask(&stack, get()).await)[2..], [None, None], "unread, so not kept");
    assert_eq!(text(ask(&stack, get()).await).await, "from the upstream");

    own.circuit.set_override(Override::force_open().until_cleared());
    tokio::time::advance(Duration::from_secs(299)).await;
    let kept = ask(&other, get()).await;
    assert_eq!(signed(&kept), ["orders", "open", "stale", "force-open"].map(Some));
    assert_eq!(
        (kept.status(), &kept.headers()["age"]),
        (StatusCode::OK, &HeaderValue::from_static("299"))
    );
    assert_eq!(text(kept).await, "from the upstream");
    let post = Request::post("http://orders.example/list").body(Body::empty()).unwrap();
    assert_eq!(ask(&stack, post).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::advance(Duration::from_secs(1)).await;
    let refused = ask(&stack, get()).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(signed(&refused)[2..], [Some("refused"), Some("force-open")]);

    // An error is an answer: it is kept for refusals alone.
    own.circuit.clear_override();
    mock.now(no_connection);
    assert_eq!(ask(&stack, get()).await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn close_gives_no_answer_and_only_while_open() {
    let mut own = settings(circuit());
    own.when_open = WhenOpen::Close;
    let (stack, circuit) = protect(own, &Mock::ok());
    assert_eq!(ask(&stack, get()).await.status(), StatusCode::OK);
    circuit.trip();
    assert_eq!(stack.oneshot(get()).await.unwrap_err(), Abort);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_caller_is_refused_in_its_own_terms() {
    let (stack, circuit) = protect(settings(circuit()), &Mock::that(no_connection));
    let call = || {
        Request::post("/orders.Orders/List")
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc+proto")
            .body(Body::empty())
            .unwrap()
    };
    let failed = ask(&stack, call()).await;
    assert_eq!(
        (failed.status(), &failed.headers()["grpc-status"]),
        (StatusCode::OK, &HeaderValue::from_static("14"))
    );
    circuit.trip();
    let refused = ask(&stack, call()).await;
    assert_eq!(
        (refused.status(), &refused.headers()["grpc-status"]),
        (StatusCode::OK, &HeaderValue::from_static("14"))
    );
    assert_eq!(refused.headers()["grpc-retry-pushback-ms"], "10000");
    assert_eq!(signed(&refused), ["orders", "open", "refused", "tripped"].map(Some));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_can_not_speak_for_a_circuit() {
    let forged = || {
        let mut response = Response::new(Body::empty());
        for name in ["x-breaker-name", "x-breaker-state", "x-breaker-answer", "x-breaker-reason"] {
            response.headers_mut().append(name, HeaderValue::from_static("forged"));
            response.headers_mut().append(name, HeaderValue::from_static("twice"));
        }
        Does::Answers(response)
    };
    let mock = Mock::that(forged);
    let (stack, circuit) = protect(settings(circuit()), &mock);
    let passed = ask(&stack, get()).await;
    assert_eq!(signed(&passed), [Some("orders"), Some("closed"), None, None]);
    assert_eq!(passed.headers().len(), 2);

    let silent = stack.breaker_headers(false);
    assert_eq!(ask(&silent, get()).await.headers().len(), 0);
    circuit.trip();
    let refused = ask(&silent, get()).await;
    assert_eq!(signed(&refused), [None; 4]);
    assert_eq!(document(refused).await["state"], "open", "the document is for people");

    let mut own = settings(stacked::circuit());
    own.protect = false;
    let (stack, circuit) = protect(own, &mock);
    circuit.trip();
    let passed = ask(&stack, get()).await;
    assert_eq!(
        (passed.status(), signed(&passed)),
        (StatusCode::OK, [None; 4]),
        "no circuit decides"
    );
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_upstream_say_their_kind_and_tell_nothing_of_the_inside() {
    type Fails = fn() -> UpstreamError;
    let cases: [(Fails, u16, &str); 6] = [
        (|| UpstreamError::Connect("10.9.8.7".into()), 502, "upstream-unreachable"),
        (|| UpstreamError::Dns("10.9.8.7".into()), 502, "upstream-unreachable"),
        (|| UpstreamError::Tls("10.9.8.7".into()), 502, "upstream-unreachable"),
        (|| UpstreamError::Reset("10.9.8.7".into()), 502, "upstream-reset"),
        (|| UpstreamError::BadResponse("10.9.8.7".into()), 502, "upstream-bad-response"),
        (
            || UpstreamError::Timeout { which: brk::proxy::Timeout::Connect },
            504,
            "upstream-timeout",
        ),
    ];
    for (error, code, kind) in cases {
        let (stack, circuit) =
            protect(settings(circuit()), &Mock::that(move || Does::Fails(error())));
        let answer = ask(&stack, get()).await;
        assert_eq!(answer.status().as_u16(), code);
        assert_eq!(signed(&answer), ["orders", "closed", "error", kind].map(Some));
        let told = text(answer).await;
        assert!(
            told.contains(&format!("urn:brk:problem:{kind}")) && !told.contains("10.9.8.7"),
            "{told}"
        );
        assert_eq!(circuit.snapshot().totals.failure, 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_is_no_failure_of_the_upstream() {
    let mock = Mock::that(|| Does::Fails(UpstreamError::ClientGone("gone".into())));
    let (stack, circuit) = protect(settings(circuit().consecutive_failures(1)), &mock);
    assert_eq!(stack.clone().oneshot(get()).await.unwrap_err(), Abort);

    mock.now(|| Does::Hangs);
    for _ in 0..100 {
        let mut call = Box::pin(stack.clone().oneshot(get()));
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        tokio::time::advance(HEAD / 2).await;
    }
    let totals = circuit.snapshot().totals;
    assert_eq!((totals.failure, totals.slow, totals.ignored, totals.cancelled), (0, 0, 1, 100));
    assert_eq!(circuit.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_total_time_shorter_than_the_attempts_does_not_hide_a_hang() {
    let mut own = settings(circuit());
    own.timeouts.total = Some(HEAD / 5);
    let (stack, circuit) = protect(own, &Mock::that(|| Does::Hangs));
    for _ in 0..10 {
        let began = now();
        assert_eq!(ask(&stack, get()).await.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(began.elapsed(), HEAD / 5);
    }
    assert_eq!(circuit.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_a_failure_if_the_verdict_waits_for_it() {
    for (waits, failures) in [(false, 0), (true, 1)] {
        let mut own = settings(circuit());
        own.until_end_of_body = waits;
        let broken = || {
            let frames = [Ok(http_body::Frame::data(Bytes::from("half"))), Err("broken".into())];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            Does::Answers(Response::new(Body::wrap(body)))
        };
        let (stack, circuit) = protect(own, &Mock::that(broken));
        let response = ask(&stack, get()).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap_err();
        assert_eq!(circuit.snapshot().totals.failure, failures, "{waits}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_open_lets_exactly_its_share_through_for_every_whole_percentage() {
    for percent in 1..=100u64 {
        let probes = Probes::new(1_000).share(percent as f64 / 100.0);
        let mock = Mock::ok();
        let (stack, circuit) = protect(settings(circuit().probes(probes)), &mock);
        circuit.trip();
        circuit.end_wait().unwrap();
        let mut passed = 0;
        for asked in 1..=200 {
            let answer = ask(&stack, get()).await;
            passed += u64::from(answer.status() == StatusCode::OK);
            assert_eq!(passed, (asked * percent).div_ceil(100), "of {asked} at {percent} %");
            if answer.status() != StatusCode::OK {
                assert_eq!(
                    signed(&answer),
                    ["orders", "half-open", "refused", "half-open"].map(Some)
                );
            }
        }
        assert_eq!(mock.calls() as u64, passed);
    }
}

/// A caller on a wire, and what comes of its requests.
fn wire(stack: brk::proxy::Stack<Mock>) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let serve = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let request = request.map(|body| Body::request(body, Duration::from_secs(3_600)));
        stack.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .serve_connection(TokioIo::new(theirs), serve);
    tokio::spawn(connection);
    ours
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_sends_slowly_is_not_the_upstreams_slowness() {
    let mut own = settings(circuit().consecutive_failures(1));
    own.slow_is_failure = Some(Duration::from_secs(1));
    own.timeouts.total = Some(20 * HEAD);
    let (stack, circuit) = protect(own, &Mock::ok());
    let mut caller = wire(stack);
    caller
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n")
        .await
        .unwrap();
    for byte in b"0123456789" {
        tokio::time::sleep(HEAD - Duration::from_secs(1)).await;
        caller.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(circuit.snapshot().totals.success, 1);
}

#[tokio::test(start_paused = true)]
async fn the_total_time_ends_a_slow_caller_and_blames_nobody() {
    let mut own = settings(circuit().consecutive_failures(1));
    own.timeouts.total = Some(2 * HEAD);
    let (stack, circuit) = protect(own, &Mock::ok());
    let mut caller = wire(stack);
    let began = now();
    caller
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    caller.read_exact(&mut answer).await.unwrap();
    assert_eq!((&answer[..], began.elapsed()), (&b"HTTP/1.1 504"[..], 2 * HEAD));
    let totals = circuit.snapshot().totals;
    assert_eq!((totals.failure, totals.ignored), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn close_ends_the_connection_without_a_byte() {
    let mut own = settings(circuit());
    own.when_open = WhenOpen::Close;
    let (stack, circuit) = protect(own, &Mock::ok());
    circuit.trip();
    let mut caller = wire(stack);
    caller.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    caller.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"");
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_waits_for_nobody_holds_no_probe() {
    let (stack, circuit) = protect(settings(circuit()), &Mock::ok());
    circuit.trip();
    circuit.end_wait().unwrap();
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut clone = stack.clone();
        let ready = clone.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(()))));
        idle.push(clone);
    }
    assert_eq!(ask(&stack, get()).await.status(), StatusCode::OK);
    assert_eq!(circuit.state(), State::Closed);
}
