//! Requests to the admin service: method and path on the first line, then headers,
//! an empty line, and the body.
//!
//! Whatever comes, the answer is well-formed; and without an operator's token
//! nothing has changed.

#![no_main]

use std::{
    cell::RefCell,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body;
use http_body_util::Full;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt};
use tower_breaker::{
    AdminBody, AdminIdentity, AdminService, Circuit, Config, KeyedCircuits, ManualClock, Registry,
    Snapshot,
};

const OPERATOR: &str = "operator-7Jm2kQ9xT4vB";
const VIEWER: &str = "viewer-x81Lw0PzR5nY3";

thread_local! {
    /// Made anew when a command has changed something, so that a request alone
    /// does what it did among others.
    static SITE: RefCell<Option<Site>> = const { RefCell::new(None) };
}

struct Site {
    registry: Registry,
    admin: AdminService,
    runtime: Runtime,
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some(request) = request(bytes) else { return Corpus::Reject };
    SITE.with_borrow_mut(|site| {
        let Site { registry, admin, runtime } = site.get_or_insert_with(Site::new);
        let before = looks(registry);
        runtime.block_on(ask(registry, admin, request));
        if looks(registry) != before {
            admin.shutdown();
            *site = None;
        }
    });
    Corpus::Keep
});

impl Site {
    fn new() -> Self {
        let (registry, clock) = (Registry::new(), ManualClock::new());
        let config = |name: &str| Config::builder(name).clock(&clock);
        let add = |name| registry.circuit(config(name).build().expect("it is valid"));
        add("inventory").expect("it is the first of its name");
        add("payments").expect("it is the first of its name").trip();
        let hosts = KeyedCircuits::builder(config("hosts").build().expect("it is valid"));
        let hosts = registry.keyed(hosts).expect("it is the first of its name");
        drop(hosts.try_acquire("a/b"));

        let admin = AdminService::builder(&registry)
            .bearer_token(AdminIdentity::operator("alice"), OPERATOR)
            .bearer_token(AdminIdentity::viewer("bob"), VIEWER)
            .metrics(|| "up 1\n".to_owned())
            .build()
            .expect("it is valid");
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        Self { registry, admin, runtime: runtime.expect("a runtime") }
    }
}

async fn ask(registry: &Registry, admin: &mut AdminService, request: Request<Full<Bytes>>) {
    let by_operator = request.headers().iter().any(|(name, value)| {
        name == header::AUTHORIZATION
            && value.as_bytes().windows(OPERATOR.len()).any(|part| part == OPERATOR.as_bytes())
    });
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_head = request.method() == Method::HEAD;

    let before = looks(registry);
    let ready = ServiceExt::<Request<Full<Bytes>>>::ready(admin).await.expect("it is ready");
    let response = ready.call(request).await.expect("it answers everybody");
    if !by_operator || is_safe || !response.status().is_success() {
        assert_eq!(looks(registry), before, "somebody changed something");
    }
    check(response, is_head);
}

fn looks(registry: &Registry) -> (Vec<Snapshot>, u64) {
    let snapshots = registry.circuits().iter().map(Circuit::snapshot).collect();
    (snapshots, registry.events_after(0, usize::MAX).last_id)
}

fn check(response: Response<AdminBody>, is_head: bool) {
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    let known = [200, 304, 400, 401, 403, 404, 405, 406, 409, 413, 415, 421, 422, 503];
    assert!(known.contains(&status), "{status}");
    assert!(head.headers.contains_key("x-content-type-options"), "{:?}", head.headers);
    let kind = head.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().expect("text"));
    let is_stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let Some(text) = text(body, is_stream) else { return };
    if is_head {
        assert!(text.is_empty(), "a HEAD has a body: {text:?}");
        return;
    }
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return;
    }
    let json: Value = serde_json::from_slice(&text).expect("it says that it is JSON");
    if status >= 400 {
        let error = &json["error"];
        let code = error["code"].as_str().expect("an error has a code");
        let message = error["message"].as_str().expect("an error has a message");
        assert!(!code.is_empty() && !message.is_empty(), "{json}");
    }
}

/// All of a body, or as much of a stream as is there now; none if it is packed.
fn text(body: AdminBody, is_stream: bool) -> Option<Vec<u8>> {
    let mut body = std::pin::pin!(body);
    let mut text = Vec::new();
    for _ in 0..100 {
        match body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(frame)) => {
                let frame = frame.expect("a body that can't fail").into_data();
                text.extend_from_slice(&frame.expect("there are no trailers"));
            }
            Poll::Ready(None) => return Some(text),
            Poll::Pending => {
                assert!(is_stream, "an answer that is not there yet");
                return None;
            }
        }
    }
    panic!("a body without an end");
}

fn request(bytes: &[u8]) -> Option<Request<Full<Bytes>>> {
    let mut rest = bytes;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        line
    };
    let first = line();
    let space = first.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&first[..space]).ok()?;
    let uri = Uri::try_from(&first[space + 1..]).ok()?;
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    loop {
        let header = line();
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&header[..colon]).ok()?;
        let value = HeaderValue::from_bytes(header[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request.map(|()| Full::new(Bytes::copy_from_slice(rest))))
}
