//! Who gets in, from where, and what a browser is told.

use std::io::Read;

use flate2::read::GzDecoder;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;
use tower_breaker::{AdminIdentity, AdminService, Config, Registry};

use crate::{
    refused::{mutations, unset},
    site::{Ask, OPERATOR, Site, VIEWER, bearer, said},
};

#[tokio::test]
async fn what_is_answered_to_the_wrong_method_says_the_right_one() {
    let site = Site::new();
    for (method, path, allowed) in [
        (Method::POST, "/api/v1/circuits", "GET, HEAD"),
        (Method::PUT, "/api/v1/circuits/payments", "GET, HEAD"),
        (Method::HEAD, "/api/v1/stream", "GET"),
        (Method::GET, "/api/v1/bulk", "POST"),
        (Method::OPTIONS, "/api/v1/circuits/payments/override", "POST, DELETE"),
        (Method::DELETE, "/api/v1/circuits/payments/reset", "POST"),
        (Method::POST, "/", "GET, HEAD"),
    ] {
        let ask = Ask::new(method.clone(), path).with("authorization", bearer(OPERATOR));
        let said = site.ask(ask).await;
        assert_eq!(said.status, 405, "{method} {path}");
        assert_eq!(said.headers["allow"], allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn nothing_but_the_page_and_the_probes_is_answered_without_a_token() {
    let site = Site::new();
    for path in [
        "/metrics",
        "/api",
        "/api/v1/me",
        "/api/v1/circuits",
        "/api/v1/circuits/payments",
        "/api/v1/circuits/nobody",
        "/api/v1/events",
        "/api/v1/stream",
        "/api/v2/anything",
    ] {
        let said = site.ask(Ask::get(path)).await;
        assert_eq!(said.status, 401, "{path}");
        assert_eq!(said.headers["www-authenticate"], "Bearer", "{path}");
        assert!(!said.text.contains("payments"), "{path}: {}", said.text);
    }
    for path in ["/", "/app.js", "/style.css", "/livez", "/readyz"] {
        assert_eq!(site.ask(Ask::get(path)).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_known_gets_nothing_and_an_address_only_what_is_for_machines() {
    let registry = Registry::new();
    let admin = AdminService::builder(&registry)
        .insecure_no_auth()
        .allow_host("breaker.example")
        .allow_host("Other.Example:8443")
        .metrics(|| "up 1\n".to_owned())
        .build()
        .unwrap();
    for (host, is_known) in [
        ("localhost", true),
        ("LocalHost:3000", true),
        ("127.0.0.1:8080", true),
        ("[::1]:8080", true),
        ("[::1]", true),
        ("breaker.example", true),
        ("breaker.example:80", true),
        ("other.example:8443", true),
        ("other.example:8444", false),
        ("other.example", false),
        ("x.breaker.example", false),
        ("localhost.", false),
        ("localhost:", false),
        ("localhost:99999", false),
        ("localhost/x", false),
        ("", false),
        ("127.0.0.2", false),
        ("10.0.0.7:9000", false),
    ] {
        for path in ["/", "/app.js", "/api/v1/circuits", "/nothing"] {
            let ask = Ask::get(path).with("host", host);
            let status = said(&admin, ask.into_request()).await.status;
            assert_eq!(status != 421, is_known, "{host} {path}: {status}");
        }
        // Nobody can rebind an address.
        let is_address = host.starts_with("10.") || host.starts_with("127.");
        for path in ["/livez", "/readyz", "/metrics"] {
            let ask = Ask::get(path).with("host", host);
            let status = said(&admin, ask.into_request()).await.status;
            assert_eq!(status == 200, is_known || is_address, "{host} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn the_page_s_own_requests_are_of_its_site() {
    let site = Site::new();
    for (host, origin) in [
        ("localhost:8080", "http://localhost:8080"),
        ("localhost", "http://localhost"),
        ("localhost", "https://localhost"),
        ("localhost:443", "https://localhost"),
        ("127.0.0.1:80", "http://127.0.0.1"),
    ] {
        let ask = mutations(&site)
            .remove(3)
            .with("host", host)
            .with("origin", origin)
            .with("sec-fetch-site", "same-origin");
        let ask = unset(ask, "if_generation");
        assert_eq!(site.ask(ask).await.status, 200, "{host} {origin}");
    }
    for (host, origin) in [
        ("localhost", "ftp://localhost"),
        ("localhost:443", "http://localhost"),
        ("localhost", "http://localhost:8080"),
        ("localhost", "localhost"),
        ("localhost", ""),
    ] {
        let ask = mutations(&site).remove(3).with("host", host).with("origin", origin);
        assert_eq!(site.ask(ask).await.status, 403, "{host} {origin}");
    }
}

#[tokio::test]
async fn every_answer_tells_the_browser_to_be_strict() {
    let site = Site::new();
    for ask in [
        Ask::get("/"),
        Ask::get("/app.js"),
        Ask::get("/nothing"),
        Ask::get("/livez"),
        Ask::get("/api/v1/circuits"),
        Ask::get("/api/v1/circuits").with("authorization", bearer(VIEWER)),
        Ask::get("/").with("host", "evil.example"),
        mutations(&site).remove(0),
    ] {
        let shown = format!("{ask:?}");
        let said = site.ask(ask).await;
        let csp = said.headers["content-security-policy"].to_str().unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "script-src 'self';"] {
            assert!(csp.contains(part), "{shown}: {csp}");
        }
        assert!(!csp.contains("unsafe"), "{csp}");
        assert_eq!(said.headers["x-content-type-options"], "nosniff", "{shown}");
        assert_eq!(said.headers["referrer-policy"], "no-referrer", "{shown}");
        assert_eq!(said.headers["x-frame-options"], "DENY", "{shown}");
        let cache =
            if ["/\"", "/app.js\""].iter().any(|path| shown.contains(&format!("path: \"{path}")))
                && said.status == 200
            {
                "no-cache"
            } else {
                "no-store"
            };
        assert_eq!(said.headers["cache-control"], cache, "{shown}");
        for never in ["set-cookie", "access-control-allow-origin", "server", "location"] {
            assert!(!said.headers.contains_key(never), "{shown} has {never}");
        }
    }
}

#[tokio::test]
async fn a_file_of_the_page_has_its_type_and_is_not_sent_twice() {
    let site = Site::new();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
    ] {
        let first = site.ask(Ask::get(path)).await;
        assert_eq!(
            (first.status, &first.headers["content-type"]),
            (StatusCode::OK, &kind.parse().unwrap())
        );
        let etag = first.headers["etag"].to_str().unwrap();
        for known in [etag.to_owned(), format!("W/{etag}"), format!("\"other\", {etag}")] {
            let again = site.ask(Ask::get(path).with("if-none-match", known)).await;
            assert_eq!((again.status, &*again.text), (StatusCode::NOT_MODIFIED, ""));
        }
        let other = site.ask(Ask::get(path).with("if-none-match", "\"other\"")).await;
        assert_eq!(other.text, first.text);
        let head = site.ask(Ask { method: Method::HEAD, ..Ask::get(path) }).await;
        assert_eq!((head.status, &*head.text), (StatusCode::OK, ""));
    }
}

#[tokio::test]
async fn the_page_is_a_few_tens_of_kilobytes_to_who_takes_gzip_and_the_same() {
    let site = Site::new();
    let names = ["", "style.css", "app.js", "api.js", "detail.js", "draw.js"];
    let names =
        names.into_iter().chain(["flip.js", "overview.js", "past.js", "store.js", "text.js"]);
    let send = |request| async { site.admin.clone().oneshot(request).await.unwrap() };
    let mut sent = 0;
    for name in names {
        let ask = |encodings: &str| {
            Ask::get(&format!("/{name}")).with("accept-encoding", encodings).into_request()
        };
        let plain = send(ask("gzip;q=0, br")).await;
        assert!(!plain.headers().contains_key("content-encoding"));
        assert_eq!(plain.headers()["vary"], "accept-encoding");
        let zipped = send(ask("br, GZIP;q=0.5")).await;
        assert_eq!(zipped.headers()["content-encoding"], "gzip");
        assert_ne!(zipped.headers()["etag"], plain.headers()["etag"]);
        let zipped = zipped.into_body().collect().await.unwrap().to_bytes();
        sent += zipped.len();
        let mut unzipped = Vec::new();
        GzDecoder::new(&*zipped).read_to_end(&mut unzipped).unwrap();
        assert_eq!(unzipped, plain.into_body().collect().await.unwrap().to_bytes());
    }
    assert!(sent < 40_000, "{sent} bytes");
}

#[tokio::test]
async fn a_mount_may_take_its_prefix_off_or_leave_it() {
    let registry = Registry::new();
    let builder = AdminService::builder(&registry).insecure_no_auth();
    let at_root = builder.clone().build().unwrap();
    let below = builder.base_path("/ops/breaker/").build().unwrap();
    let page = said(&at_root, Ask::get("/").into_request()).await.text;
    assert!(page.contains("<head>") && !page.contains("<base"));
    for path in ["/", "/ops/breaker", "/ops/breaker/"] {
        let page = said(&below, Ask::get(path).into_request()).await.text;
        assert!(page.contains("<head><base href=\"/ops/breaker/\">"), "{path}: {page}");
    }
    for path in ["/api/v1/me", "/ops/breaker/api/v1/me", "/ops/breaker/app.js"] {
        assert_eq!(said(&below, Ask::get(path).into_request()).await.status, 200, "{path}");
    }
    for path in ["/ops/breakers", "/ops", "/ops/breaker/ops/breaker/app.js", "/ops/breaker/nothing"]
    {
        assert_eq!(said(&below, Ask::get(path).into_request()).await.status, 404, "{path}");
    }
    assert_eq!(said(&at_root, Ask::get("/ops/breaker/").into_request()).await.status, 404);
}

#[test]
fn what_can_not_be_meant_is_an_error_that_names_the_field_and_shows_no_token() {
    let registry = Registry::new();
    let access = || AdminService::builder(&registry);
    let alice = || AdminIdentity::operator("alice");
    let builder = || access().insecure_no_auth();
    let secret = "squeamish";
    for (builder, field) in [
        (access().bearer_token(alice(), ""), "bearer_token"),
        (access().bearer_token(alice(), secret), "bearer_token"),
        (access().bearer_token(alice(), "squeamish-ossifr"), ""),
        (access().bearer_token(alice(), "squeamish ossifrage"), "bearer_token"),
        (access().bearer_token(alice(), "squeamish-össifrage"), "bearer_token"),
        (access().bearer_token(alice(), secret.repeat(60)), "bearer_token"),
        (access().bearer_token(AdminIdentity::viewer(" "), OPERATOR), "bearer_token"),
        (access().bearer_token(alice(), OPERATOR).bearer_token(alice(), OPERATOR), "bearer_token"),
        (builder().bearer_token(alice(), OPERATOR), "insecure_no_auth"),
        (builder().allow_host(""), "allow_host"),
        (builder().allow_host("http://breaker.example"), "allow_host"),
        (builder().allow_host("breaker.example:x"), "allow_host"),
        (builder().base_path("breaker"), "base_path"),
        (builder().base_path("/a\"><script>"), "base_path"),
        (builder().base_path("//evil.example"), "base_path"),
        (builder().base_path("/api"), "base_path"),
        (builder().base_path("/breaker/"), ""),
        (builder().max_streams(0), "max_streams"),
        (builder().history(["24h", "7d"]), ""),
        (builder().history(["24h", "1w"]), "history"),
        (builder().history(["0d"]), "history"),
        (builder().history(["+1d"]), "history"),
        (builder().history([""]), "history"),
    ] {
        assert!(!format!("{builder:?}").contains(secret), "{builder:?}");
        match builder.build() {
            Ok(admin) => {
                assert_eq!(field, "", "{admin:?}");
                assert!(!format!("{admin:?}").contains(secret), "{admin:?}");
            }
            Err(error) => {
                assert_eq!(error.field(), field, "{error}");
                assert!(!format!("{error} {error:?}").contains(secret), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_a_check_gives_reads_as_it_is_written() {
    for (who, status) in [
        ("carol", 200),
        ("Zoë 'the hand' O\u{2019}Neill", 200),
        ("", 403),
        ("  ", 403),
        ("carol\nalice", 403),
        ("carol\u{85}alice", 403),
        ("carol\u{2028}alice", 403),
        ("carol\u{2029}alice", 403),
        ("\u{202e}lorac", 403),
        ("\u{2066}carol", 403),
        ("carol\u{2069}", 403),
    ] {
        let admin = AdminService::builder(&Registry::new())
            .check(move |_| Some(AdminIdentity::operator(who)))
            .build()
            .unwrap();
        let said = said(&admin, Ask::get("/api/v1/me").into_request()).await;
        assert_eq!(said.status.as_u16(), status, "{who:?}: {said:?}");
        assert!(status == 200 || said.error()["field"] == "who", "{said:?}");

        let admin = AdminService::builder(&Registry::new())
            .bearer_token(AdminIdentity::operator(who), OPERATOR)
            .build();
        assert_eq!(admin.is_ok(), status == 200, "{who:?}");
    }
}

#[tokio::test]
async fn json_may_say_that_it_is_utf_8() {
    let site = Site::new();
    for (content_type, status) in [
        ("application/json", 200),
        ("Application/JSON", 200),
        ("application/json; charset=utf-8", 200),
        ("application/json;charset=UTF-8", 200),
        ("application/json ; charset=\"utf-8\"", 200),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=utf-8; x=y", 415),
        ("application/json;", 415),
        ("application/jsonp", 415),
        ("text/plain; charset=utf-8", 415),
        ("text/plain; application/json", 415),
    ] {
        let ask = Ask::command(
            Method::POST,
            "/api/v1/circuits/inventory/reset",
            &json!({ "reason": "r" }),
        );
        let said = site.ask(ask.with("content-type", content_type)).await;
        assert_eq!(said.status.as_u16(), status, "{content_type}: {said:?}");
    }
}

#[tokio::test]
async fn a_check_of_one_s_own_says_who_it_is() {
    let registry = Registry::new();
    let circuit = registry.circuit(Config::default()).unwrap();
    let admin = AdminService::builder(&registry)
        .check(|parts| {
            let who = parts.headers.get("x-forwarded-user")?.to_str().ok()?;
            Some(AdminIdentity::operator(who))
        })
        .build()
        .unwrap();
    let me = |who: Option<&str>| {
        let ask = Ask::get("/api/v1/me");
        who.map_or(ask.clone(), |who| ask.with("x-forwarded-user", who)).into_request()
    };
    assert_eq!(said(&admin, me(None)).await.status, 401);
    let carol = said(&admin, me(Some("carol"))).await.json();
    assert_eq!(carol, json!({ "role": "operator", "who": "carol", "can_write": true }));

    let body = json!({ "kind": "force_open", "reason": "r" });
    let ask = Ask::command(Method::POST, "/api/v1/circuits/default/override", &body)
        .with("x-forwarded-user", "carol");
    assert_eq!(said(&admin, ask.into_request()).await.status, 200);
    let owner = circuit.snapshot().active_override.and_then(|over| over.owner);
    assert_eq!(owner.as_deref(), Some("carol"));
}
