//! The operator's listener: who may do what, what is answered, and that what is
//! refused changes nothing.

mod running;

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::fs::{MetadataExt, chown},
    time::Duration,
};

use serde_json::{Value, json};

use crate::running::{Ask, Place, Running, Said, TWO_SERVICES, mode, set_mode};

/// All that a refused request must leave as it is.
fn looks(running: &Running) -> Value {
    let written = fs::read_dir(running.place.path("services.d"));
    let written: Vec<_> = written
        .into_iter()
        .flatten()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    json!({
        "services": running.get("api/v1/services"),
        "last_id": running.get("api/v1/events?limit=0")["last_id"],
        "written": written,
    })
}

fn cart() -> Value {
    json!({ "service": { "upstream": "http://127.0.0.1:9" }, "reason": "a new shop" })
}

/// Every request of the gateway's own that changes something, as it should be.
fn mutations(running: &Running) -> Vec<Ask> {
    let ask = |method, path, body: Value| {
        Ask::new(method, path)
            .token(&running.place.token("operator"))
            .with("content-type", "application/json")
            .body(body.to_string())
    };
    vec![
        ask("PUT", "api/v1/services/cart", cart()),
        ask("DELETE", "api/v1/services/shop", json!({ "reason": "gone" })),
        ask("POST", "api/v1/reload", json!({ "reason": "new files" })),
    ]
}

/// How a request is spoilt, and what is said to it.
type Spoilt = (&'static str, Box<dyn Fn(Ask) -> Ask>, u16, &'static str, &'static str);

#[test]
fn a_spoilt_request_is_refused_with_a_code_and_a_sentence_and_changes_nothing() {
    let running = Running::new();
    let shop = json!({ "service": { "upstream": "http://127.0.0.1:9" }, "reason": "open" });
    assert_eq!(running.operator("PUT", "api/v1/services/shop", &shop).status, 200);
    // What a reload would find.
    fs::write(running.place.path("services.d/.hidden.toml"), "").unwrap();
    let before = looks(&running);

    let viewer = running.place.token("viewer");
    let needs_token = "a valid bearer token is needed in the authorization header";
    let spoil: Vec<Spoilt> = vec![
        (
            "no token",
            Box::new(|ask| ask.without("authorization")),
            401,
            "unauthorized",
            needs_token,
        ),
        (
            "a wrong token",
            Box::new(|ask| ask.token("0123456789abcdef0123456789abcdef0123456789abcdef")),
            401,
            "unauthorized",
            needs_token,
        ),
        (
            "a viewer",
            Box::new(move |ask| ask.token(&viewer)),
            403,
            "forbidden",
            "a viewer may look and not steer; this needs an operator",
        ),
        (
            "another host",
            Box::new(|ask| ask.with("host", "evil.example")),
            421,
            "misdirected_host",
            "the host \"evil.example\" is not allowed; `allow_host` adds it",
        ),
        (
            "a page of another site",
            Box::new(|ask| ask.with("sec-fetch-site", "cross-site")),
            403,
            "cross_site",
            "sec-fetch-site says that a page of another site sent this",
        ),
        (
            "another origin",
            Box::new(|ask| ask.with("origin", "http://evil.example")),
            403,
            "cross_site",
            "the origin is not this host's; a proxy in between must pass on the host",
        ),
        (
            "a form",
            Box::new(|ask| ask.with("content-type", "text/plain")),
            415,
            "unsupported_media_type",
            "the content-type must be application/json",
        ),
        (
            "too long a body",
            Box::new(|ask| ask.body(" ".repeat(64 * 1024 + 1))),
            413,
            "too_large",
            "the body must be at most 65536 bytes",
        ),
        (
            "no reason",
            Box::new(|ask| {
                let mut body: Value = serde_json::from_str(&ask.body).unwrap();
                body.as_object_mut().unwrap().remove("reason");
                ask.body(body.to_string())
            }),
            422,
            "invalid",
            "reason is needed: 1 to 500 characters that say why",
        ),
        (
            "no object",
            Box::new(|ask| ask.body("[]")),
            400,
            "malformed",
            "the body must be a JSON object",
        ),
    ];
    for ask in mutations(&running) {
        for (how, spoil, status, code, message) in &spoil {
            let answer = running.ask(&spoil(ask.clone()));
            let said = (answer.status, answer.code(), answer.message());
            let expected = (*status, (*code).to_owned(), (*message).to_owned());
            assert_eq!(said, expected, "{how}: {} {}", ask.method, ask.path);
            assert_eq!(looks(&running), before, "{how}: {} {}", ask.method, ask.path);
        }
    }
    // And none of them was refused for what it is.
    for ask in mutations(&running) {
        assert_eq!(running.ask(&ask).status, 200, "{} {}", ask.method, ask.path);
    }
}

#[test]
fn what_can_not_be_meant_is_refused_and_changes_nothing() {
    let running = Running::new();
    let before = looks(&running);
    let put = "api/v1/services/cart";
    for (method, path, body, status, code, said) in [
        (
            "PUT",
            put,
            json!({ "service": { "upstraem": "http://a" }, "reason": "x" }),
            422,
            "invalid_configuration",
            "upstream",
        ),
        (
            "PUT",
            put,
            json!({ "service": { "upstream": "http://a", "path": "/orders" }, "reason": "x" }),
            422,
            "invalid_configuration",
            "has the route /orders of `",
        ),
        (
            "PUT",
            "api/v1/services/..%2Fescape",
            cart(),
            422,
            "invalid_configuration",
            "the name of a service must be",
        ),
        (
            "PUT",
            "api/v1/services/orders",
            cart(),
            422,
            "invalid_configuration",
            "stands in a file that is written by hand",
        ),
        (
            "DELETE",
            "api/v1/services/orders",
            json!({ "reason": "x" }),
            422,
            "invalid_configuration",
            "by hand",
        ),
        (
            "DELETE",
            "api/v1/services/nobody",
            json!({ "reason": "x" }),
            404,
            "unknown_service",
            "nobody",
        ),
        ("PUT", put, json!({ "reason": "x" }), 422, "invalid", "missing field `service`"),
        (
            "PUT",
            put,
            json!({ "service": {}, "if_revison": 3, "reason": "x" }),
            422,
            "invalid",
            "unknown field `if_revison`",
        ),
        ("POST", "api/v1/reload", json!({ "reason": "x", "force": true }), 422, "invalid", "force"),
        (
            "POST",
            "api/v1/services/cart",
            cart(),
            405,
            "method_not_allowed",
            "GET, HEAD, PUT, DELETE",
        ),
        ("PUT", "api/v1/services", cart(), 405, "method_not_allowed", "GET, HEAD"),
        ("PUT", "api/v1/reload", cart(), 405, "method_not_allowed", "POST"),
        ("PUT", "api/v1/services/a/b", cart(), 404, "not_found", "nothing at this path"),
    ] {
        let answer = running.operator(method, path, &body);
        assert_eq!(
            (answer.status, &*answer.code()),
            (status, code),
            "{method} {path} {body}: {answer:?}"
        );
        assert!(answer.message().contains(said), "{said:?}: {answer:?}");
        assert_eq!(looks(&running), before, "{method} {path} {body}");
    }
}

#[test]
fn a_service_is_added_changed_and_removed_in_the_name_of_who_asked() {
    let running = Running::new();
    let revision = running.get("api/v1/services")["revision"].as_u64().unwrap();
    let added = running.operator("PUT", "api/v1/services/cart", &cart()).json();
    assert_eq!(added["service"]["url"], format!("{}/cart", running.programs));
    assert_eq!(added["service"]["settings"]["upstream"]["url"], "http://127.0.0.1:9/");
    assert_eq!(added["revision"], revision + 1);
    assert!(running.place.path("services.d/cart.toml").exists());
    assert_eq!(running.get("api/v1/circuits/cart")["circuit"]["state"], "closed");
    assert_eq!(running.get("api/v1/services/cart")["service"], added["service"]);

    let change = json!({
        "service": { "upstream": "http://127.0.0.1:10" },
        "reason": "it has moved",
        "if_revision": revision + 1,
    });
    let changed = running.operator("PUT", "api/v1/services/cart", &change);
    assert_eq!(changed.status, 200, "{changed:?}");
    // Whoever has not seen that is told what has changed, by whom and why.
    let late = running.operator("PUT", "api/v1/services/cart", &change);
    assert_eq!((late.status, &*late.code()), (409, "stale_revision"));
    let current = &late.json()["error"]["current"];
    assert_eq!(current["service"]["settings"]["upstream"]["url"], "http://127.0.0.1:10/");
    let told = current["events"].to_string();
    assert!(told.contains("operator asked for `change_service`: it has moved"), "{told}");
    let gone = json!({ "reason": "x", "if_revision": revision });
    assert_eq!(running.operator("DELETE", "api/v1/services/cart", &gone).status, 409);

    let gone = json!({ "reason": "closed for good", "if_revision": revision + 2 });
    let removed = running.operator("DELETE", "api/v1/services/cart", &gone);
    assert_eq!(removed.status, 200, "{removed:?}");
    assert!(!running.place.path("services.d/cart.toml").exists());
    let told = running.get("api/v1/events?circuit=cart").to_string();
    for said in [
        "operator asked for `add_service`: a new shop",
        "operator asked for `change_service`: it has moved",
        "operator asked for `remove_service`: closed for good",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
}

#[test]
fn a_reload_takes_up_what_is_right_and_says_where_it_is_not() {
    let running = Running::new();
    let config = running.place.config();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[services.cart]\nupstraem = \"http://a\"\n")).unwrap();
    let reload = || running.operator("POST", "api/v1/reload", &json!({ "reason": "new files" }));
    let refused = reload();
    assert_eq!((refused.status, &*refused.code()), (422, "invalid_configuration"));
    let problems = refused.json()["error"]["current"]["problems"].clone();
    let line = text.lines().count() as u64 + 2;
    assert!(problems.as_array().unwrap().iter().any(|one| one["line"] == line), "{problems}");
    assert_eq!(running.get("api/v1/services")["services"].as_array().unwrap().len(), 2);

    fs::write(&config, format!("{text}[services.cart]\nupstream = \"http://a\"\n")).unwrap();
    // It may have found that by itself.
    assert_eq!(reload().status, 200);
    assert_eq!(running.get("api/v1/services")["services"].as_array().unwrap().len(), 3);
}

#[test]
fn tokens_are_made_once_for_their_owner_alone_and_a_new_one_counts_at_once() {
    let running = Running::new();
    let path = |role| running.place.path(&format!("state/{role}.token"));
    for role in ["operator", "viewer"] {
        assert_eq!(mode(&path(role)), 0o600, "{role}");
        assert_eq!(running.place.token(role).len(), 48);
    }
    assert_eq!(mode(&running.place.path("state")), 0o700);
    let [operator, viewer] = ["operator", "viewer"].map(|role| running.place.token(role));
    assert_ne!(operator, viewer);
    let me = |token: &str| running.ask(&Ask::new("GET", "api/v1/me").token(token));
    assert_eq!(me(&operator).json()["role"], "operator");
    assert_eq!(me(&viewer).json()["role"], "viewer");

    let mut stream = TcpStream::connect(running.admin.trim_start_matches("http://")).unwrap();
    let asked = format!("authorization: Bearer {operator}\r\nconnection: close\r\n\r\n");
    write!(stream, "GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n{asked}").unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");

    let new = running.brk(&["token", "--rotate"]).ok();
    assert_ne!(new.trim(), operator);
    // Far fewer than there are in a minute.
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take(200);
    assert!(lines.any(|line| line == "data: {\"reason\":\"unauthorized\"}"), "it goes on");
    assert_eq!(me(&operator).status, 401);
    assert_eq!(me(new.trim()).json()["role"], "operator");
    assert_eq!(me(&viewer).json()["role"], "viewer");
    assert_eq!(mode(&path("operator")), 0o600);

    // One that others may have read is nobody's.
    set_mode(&path("viewer"), 0o644);
    assert_eq!(me(&viewer).status, 401);
    set_mode(&path("viewer"), 0o600);
    assert_eq!(me(&viewer).status, 200);
    fs::remove_file(path("viewer")).unwrap();
    assert_eq!(me(&viewer).status, 401);

    running.signal("TERM");
    let (status, log, place) = running.end();
    assert!(status.success() && !log.contains("WARN"), "a first run lacks nothing: {log}");
    let again = place.start();
    assert_eq!(again.place.token("operator"), new.trim(), "it is made at the first start only");
    assert_ne!(again.place.token("viewer"), viewer);
}

/// As `brk` is run by root where the gateway runs as somebody else.
#[test]
fn what_root_writes_into_the_state_belongs_to_whose_the_state_is() {
    const NOBODY: u32 = 65_534;

    let place = Place::new(TWO_SERVICES);
    let state = place.path("state");
    fs::create_dir(&state).unwrap();
    if let Err(error) = chown(&state, Some(NOBODY), Some(NOBODY)) {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        eprintln!("NOT RUN: only root can give a directory to somebody else ({error})");
        return;
    }
    for arguments in [&["token", "--viewer"][..], &["token"], &["token", "--rotate"]] {
        Said::of(place.command().args(arguments).output().unwrap()).ok();
    }
    let running = place.start();
    running.signal("TERM");
    let (status, log, place) = running.end();
    assert!(status.success(), "{log}");
    let mut names = Vec::new();
    for file in fs::read_dir(place.path("state")).unwrap() {
        let (name, data) = file.map(|file| (file.file_name(), file.metadata().unwrap())).unwrap();
        assert_eq!((data.uid(), data.gid()), (NOBODY, NOBODY), "{name:?}");
        assert_eq!(data.mode() & 0o077 & !0o044, 0, "{name:?}");
        names.push(name.into_string().unwrap());
    }
    for name in ["operator.token", "viewer.token", "state.json", "history.db", "lock"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
}

/// Or whoever has the directory could have any file.
#[test]
fn what_a_link_in_the_state_leads_to_stays_whose_it_is() {
    const NOBODY: u32 = 65_534;

    let place = Place::new(TWO_SERVICES);
    let (state, roots) = (place.path("state"), ["one", "two"].map(|name| place.path(name)));
    fs::create_dir(&state).unwrap();
    if let Err(error) = chown(&state, Some(NOBODY), Some(NOBODY)) {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        eprintln!("NOT RUN: only root can give a directory to somebody else ({error})");
        return;
    }
    roots.iter().for_each(|path| fs::write(path, "root's\n").unwrap());
    std::os::unix::fs::symlink(&roots[0], state.join("lock")).unwrap();
    fs::hard_link(&roots[1], state.join("history.db")).unwrap();
    let running = place.start();
    running.signal("TERM");
    let (status, log, _place) = running.end();
    assert!(status.success(), "{log}");
    for path in &roots {
        assert_eq!(fs::metadata(path).unwrap().uid(), 0, "{}", path.display());
    }
    assert_eq!(fs::read_to_string(&roots[0]).unwrap(), "root's\n");
}

#[test]
fn nothing_is_listened_on_without_tokens_or_beyond_loopback_by_chance() {
    let place = Place::new(TWO_SERVICES);
    assert_eq!(Said::of(place.command().arg("token").output().unwrap()).code, 0);
    let token = place.path("state/operator.token");
    set_mode(&token, 0o640);
    let serve = |place: &Place| Said::of(place.command().arg("serve").output().unwrap());
    serve(&place).fails(1, "its mode is 640, so others may read it; make it 600");
    set_mode(&token, 0o600);
    fs::write(&token, "short\n").unwrap();
    serve(&place).fails(1, "it must hold 16 to 512 visible characters on one line");

    let place = Place::at("0.0.0.0:0", TWO_SERVICES);
    serve(&place).fails(1, "beyond loopback, so `hosts` must name what it may be called by");
}

#[test]
fn the_metrics_are_for_who_has_a_token() {
    let running = Running::new();
    assert_eq!(running.ask(&Ask::new("GET", "metrics")).status, 401);
    let body = json!({ "to": "open", "reason": "a drill" });
    assert_eq!(running.operator("POST", "api/v1/circuits/orders/transition", &body).status, 200);
    let ask = Ask::new("GET", "metrics").token(&running.place.token("viewer"));
    // A scraper asks by address.
    let answer = running.ask(&ask.with("host", "10.0.0.7:9090"));
    assert_eq!(answer.status, 200);
    for series in
        ["circuit_breaker_state{circuit=\"orders\",state=\"open\"} 1", "gateway_build_info{"]
    {
        assert!(answer.text.contains(series), "{series}: {}", answer.text);
    }
}

#[test]
fn the_page_and_the_library_s_api_are_there_and_everything_is_strict() {
    let running = Running::new();
    let page = running.ask(&Ask::new("GET", ""));
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    let token = running.place.token("viewer");
    for path in ["api/v1/services", "api/v1/services/orders", "api/v1/circuits/orders"] {
        let answer = running.ask(&Ask::new("GET", path).token(&token));
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains("cache-control: no-store"), "{path}: {}", answer.head);
        assert_eq!(running.ask(&Ask::new("GET", path)).status, 401, "{path}");
    }
    let head = running.ask(&Ask::new("HEAD", "api/v1/services").token(&token));
    assert_eq!((head.status, &*head.text), (200, ""));
}

#[test]
fn the_history_is_there_for_who_has_a_token() {
    let running = Running::new();
    let path = "api/v1/history/circuits/orders?range=24h";
    assert_eq!(running.ask(&Ask::new("GET", path)).status, 401);
    let series = running.get(path)["series"].take();
    assert_eq!(series["calls"].as_array().map(Vec::len), Some(60), "{series}");
    assert!(running.get("api/v1/history/events")["events"].is_array());
    let token = running.place.token("viewer");
    let ask = |method: &str, path: &str| Ask::new(method, path).token(&token);
    let wrong = running.ask(&ask("GET", "api/v1/history/circuits/orders?range=1y"));
    assert_eq!((wrong.status, &*wrong.code()), (422, "invalid"), "{wrong:?}");
    assert_eq!(running.ask(&ask("GET", "api/v1/history/nothing/of/the/kind")).status, 404);
    let put = running.operator("PUT", path, &json!({ "reason": "x" }));
    assert_eq!((put.status, &*put.code()), (405, "method_not_allowed"));
}

#[test]
fn a_head_that_does_not_come_holds_no_stop_up() {
    let running = Running::new();
    let address = running.admin.trim_start_matches("http://").to_owned();
    let mut held = TcpStream::connect(address).unwrap();
    held.write_all(b"GET / HTTP/1.1\r\nhost: lo").unwrap();
    // Whoever comes later was answered, so it was read.
    running.get("api/v1/me");
    running.signal("TERM");
    // Half a minute is what a head may take.
    held.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    match held.read(&mut [0; 1]) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is still open"),
    }
    let (status, log, _) = running.end();
    assert!(status.success(), "{log}");
}
