//! What an application adds stands behind the same guards as everything else.

use std::sync::{Arc, Mutex};

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tower_breaker::{AdminIdentity, AdminRefusal, AdminRequest, AdminService, Registry};

use crate::site::{Ask, OPERATOR, Said, VIEWER, bearer, said};

/// A service with a resource that notes what it is asked.
struct Noting {
    admin: AdminService,
    asked: Arc<Mutex<Vec<AdminRequest>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    size: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: String,
}

impl Noting {
    fn new() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let admin = AdminService::builder(&Registry::new())
            .bearer_token(AdminIdentity::operator("alice"), OPERATOR)
            .bearer_token(AdminIdentity::viewer("bob"), VIEWER)
            .resource("shelf", move |request: AdminRequest| {
                noted.lock().unwrap().push(request.clone());
                async move {
                    tokio::task::yield_now().await;
                    if request.method == Method::GET {
                        let range = request.parameters::<Range>();
                        return match request.path.as_slice() {
                            [] => Ok(json!("all")),
                            [ranged] if ranged == "range" => Ok(json!(range?.from)),
                            _ => Err(AdminRefusal::not_found()),
                        };
                    }
                    Ok(json!({ "size": request.body::<Wish>()?.size, "why": request.reason }))
                }
            })
            .build()
            .unwrap();
        Self { admin, asked }
    }

    async fn ask(&self, ask: Ask) -> Said {
        said(&self.admin, ask.into_request()).await
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn put() -> Ask {
    let body = json!({ "size": 3, "reason": "more books" });
    Ask::command(Method::PUT, "/api/v1/shelf/top%2Fleft", &body)
}

#[tokio::test]
async fn what_may_be_asked_is_asked_with_who_and_why() {
    let noting = Noting::new();
    let said = noting.ask(put()).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(said.json(), json!({ "size": 3, "why": "more books" }));
    let asked = noting.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.path, ["top/left"]);
    assert_eq!(asked.identity, AdminIdentity::operator("alice"));
    assert_eq!(asked.method, Method::PUT);

    let get = |method, path| Ask::new(method, path).with("authorization", bearer(VIEWER));
    let said = noting.ask(get(Method::GET, "/api/v1/shelf")).await;
    assert_eq!((said.status.as_u16(), said.json()), (200, json!("all")));
    let said = noting.ask(get(Method::GET, "/api/v1/shelf/range?from=a%20b")).await;
    assert_eq!((said.status.as_u16(), said.json()), (200, json!("a b")));
    let said = noting.ask(get(Method::HEAD, "/api/v1/shelf")).await;
    assert_eq!((said.status.as_u16(), said.text.as_str()), (200, ""));
    for head in ["content-security-policy", "cache-control", "x-content-type-options"] {
        assert!(said.headers.contains_key(head), "{head}");
    }
}

#[tokio::test]
async fn who_may_not_is_refused_and_the_application_not_asked() {
    let noting = Noting::new();
    let large = vec![b' '; 64 * 1024 + 1];
    let with_body = |body: &[u8]| Ask { body: body.to_vec(), ..put() };
    for (ask, status, code) in [
        (put().without("authorization"), 401, "unauthorized"),
        (put().with("authorization", bearer("guessed-0123456789")), 401, "unauthorized"),
        (put().with("authorization", bearer(VIEWER)), 403, "forbidden"),
        (put().with("host", "evil.example"), 421, "misdirected_host"),
        (put().with("origin", "http://evil.example"), 403, "cross_site"),
        (put().with("sec-fetch-site", "cross-site"), 403, "cross_site"),
        (put().with("content-type", "text/plain"), 415, "unsupported_media_type"),
        (with_body(&large), 413, "too_large"),
        (with_body(b"size=3"), 400, "malformed"),
        (with_body(br#"{"size":3,"size":4,"reason":"x"}"#), 400, "malformed"),
        (with_body(br#"{"size":3}"#), 422, "invalid"),
        (Ask::get("/api/v1/shelf"), 401, "unauthorized"),
        (Ask::get("/api/v1/shelf/%FF").with("authorization", bearer(VIEWER)), 400, "malformed"),
    ] {
        let shown = format!("{ask:?}").chars().take(300).collect::<String>();
        let said = noting.ask(ask).await;
        assert_eq!(said.status, status, "{shown}");
        assert_eq!(said.error()["code"], code, "{shown}");
        assert_eq!(noting.asked(), 0, "{shown}");
    }
}

#[tokio::test]
async fn what_can_not_be_meant_is_said_field_by_field() {
    let noting = Noting::new();
    for (body, said) in [
        (json!({ "size": 3, "colour": "red", "reason": "x" }), "unknown field `colour`"),
        (json!({ "size": "3", "reason": "x" }), "expected u32"),
        (json!({ "reason": "x" }), "missing field `size`"),
    ] {
        let answer = noting.ask(Ask::command(Method::PUT, "/api/v1/shelf", &body)).await;
        assert_eq!(answer.status, 422, "{body}");
        let message = answer.error()["message"].clone();
        assert!(message.as_str().unwrap().contains(said), "{message}");
    }
    for (query, said) in [
        ("from=a&from=b", "from must be there once"),
        ("from=a&to=b", "unknown field `to`"),
        ("", "missing field `from`"),
    ] {
        let ask = Ask::get(&format!("/api/v1/shelf/range?{query}"));
        let answer = noting.ask(ask.with("authorization", bearer(VIEWER))).await;
        assert_eq!(answer.status, 422, "{query}");
        let message = answer.error()["message"].clone();
        assert!(message.as_str().unwrap().contains(said), "{message}");
    }
}

#[tokio::test]
async fn a_name_that_is_taken_or_no_segment_is_refused() {
    let build = |names: &[&str]| {
        let admin = AdminService::builder(&Registry::new()).insecure_no_auth();
        let all = names
            .iter()
            .fold(admin, |admin, name| admin.resource(*name, |_| async { Ok(Value::Null) }));
        all.build().map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(build(&["services", "history"]), Ok(()));
    for (names, expected) in [
        (&["circuits"][..], "resource is \"circuits\", but must not be one that the service has"),
        (&["a/b"], "resource is \"a/b\", but must be of A-Z a-z 0-9 . _ -"),
        (&[""], "resource is \"\", but must be of A-Z"),
        (&["a", "b", "a"], "resource is \"a\", but must be there once"),
    ] {
        let error = build(names).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}
