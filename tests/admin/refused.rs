//! Every mutation, spoilt in every way: the code, the sentence, and nothing
//! changed.

use http::Method;
use serde_json::{Value, json};

use crate::site::{Ask, OPERATOR, Site, VIEWER, bearer};

/// Every mutation there is, as it would be done.
pub(crate) fn mutations(site: &Site) -> Vec<Ask> {
    let generation = site.circuit("payments").snapshot().revision;
    let reason = "a drill";
    vec![
        Ask::command(
            Method::POST,
            "/api/v1/circuits/payments/override",
            &json!({ "kind": "force_closed", "reason": reason, "expires_in": "10m", "if_generation": generation }),
        ),
        Ask::command(
            Method::DELETE,
            "/api/v1/circuits/payments/override",
            &json!({ "reason": reason, "if_generation": generation }),
        ),
        Ask::command(
            Method::POST,
            "/api/v1/circuits/payments/transition",
            &json!({ "to": "closed", "reason": reason, "if_generation": generation }),
        ),
        Ask::command(
            Method::POST,
            "/api/v1/circuits/payments/reset",
            &json!({ "reason": reason, "if_generation": generation }),
        ),
        Ask::command(
            Method::POST,
            "/api/v1/bulk",
            &json!({ "action": "override", "kind": "force_open", "reason": reason, "confirm": 1,
                     "filter": { "state": ["open"] } }),
        ),
    ]
}

/// The body with a field set to raw text, which may be no JSON.
fn set(mut ask: Ask, field: &str, raw: &str) -> Ask {
    const MARK: &str = "\u{1}here\u{1}";
    let mut body: Value = serde_json::from_slice(&ask.body).unwrap();
    body[field] = MARK.into();
    ask.body = body.to_string().replace(&json!(MARK).to_string(), raw).into_bytes();
    ask
}

pub(crate) fn unset(mut ask: Ask, field: &str) -> Ask {
    let mut body: Value = serde_json::from_slice(&ask.body).unwrap();
    body.as_object_mut().unwrap().remove(field);
    ask.body = body.to_string().into_bytes();
    ask
}

fn filled(mut ask: Ask, length: usize) -> Ask {
    ask.body.resize(length, b' ');
    ask
}

fn is_bulk(ask: &Ask) -> bool {
    ask.path.ends_with("bulk")
}

type Spoil = fn(Ask) -> Option<Ask>;

/// A way to spoil a mutation, and what is said to it.
struct Fault {
    what: &'static str,
    spoil: Spoil,
    status: u16,
    code: &'static str,
    message: &'static str,
    field: Option<&'static str>,
}

const fn fault(
    what: &'static str,
    spoil: Spoil,
    status: u16,
    code: &'static str,
    message: &'static str,
) -> Fault {
    Fault { what, spoil, status, code, message, field: None }
}

const fn invalid(
    what: &'static str,
    spoil: Spoil,
    field: &'static str,
    message: &'static str,
) -> Fault {
    Fault { what, spoil, status: 422, code: "invalid", message, field: Some(field) }
}

const UNAUTHORIZED: &str = "a valid bearer token is needed in the authorization header";
const NOT_JSON: &str = "the content-type must be application/json";
const CROSS_SITE: &str = "sec-fetch-site says that a page of another site sent this";
const CROSS_ORIGIN: &str =
    "the origin is not this host's; a proxy in between must pass on the host";
const WHOLE: &str = "if_generation must be a whole number from 0 to 2^64 - 1";
const REASON: &str = "reason is needed: 1 to 500 characters that say why";
const ONE_LINE: &str = "reason must be one line, without control characters, line separators \
                        and marks that turn the direction of the text";
/// As long as a body may be, and one byte.
const TOO_LONG: usize = 64 * 1024 + 1;
const TOO_LONG_FOR_MANY: usize = 4 * 1024 * 1024 + 1;
const TIME: &str = "expires_in must be a time from \"1s\" to \"366d\", as \"30m\" or \"1h 30m\", \
                    or \"until_cleared\"";
const CONFIRM: &str = "confirm must be a whole number from 0 to 2^64 - 1";

const FAULTS: &[Fault] = &[
    // Who.
    fault("no token", |ask| Some(ask.without("authorization")), 401, "unauthorized", UNAUTHORIZED),
    fault(
        "a wrong token",
        |ask| Some(ask.with("authorization", "Bearer operator-7Jm2kQ9xT4vC")),
        401,
        "unauthorized",
        UNAUTHORIZED,
    ),
    fault(
        "the start of a token",
        |ask| Some(ask.with("authorization", "Bearer operator-7Jm2kQ9xT4v")),
        401,
        "unauthorized",
        UNAUTHORIZED,
    ),
    fault(
        "an empty token",
        |ask| Some(ask.with("authorization", "Bearer ")),
        401,
        "unauthorized",
        UNAUTHORIZED,
    ),
    fault(
        "another scheme",
        |ask| Some(ask.with("authorization", format!("Basic  {OPERATOR}"))),
        401,
        "unauthorized",
        UNAUTHORIZED,
    ),
    fault(
        "two tokens",
        |ask| Some(ask.and("authorization", bearer(VIEWER))),
        401,
        "unauthorized",
        UNAUTHORIZED,
    ),
    fault(
        "a token in a cookie",
        |ask| Some(ask.without("authorization").with("cookie", format!("token={OPERATOR}"))),
        401,
        "unauthorized",
        UNAUTHORIZED,
    ),
    fault(
        "a viewer",
        |ask| Some(ask.with("authorization", bearer(VIEWER))),
        403,
        "forbidden",
        "a viewer may look and not steer; this needs an operator",
    ),
    // From where.
    fault(
        "a bad host",
        |ask| Some(ask.with("host", "evil.example")),
        421,
        "misdirected_host",
        "the host \"evil.example\" is not allowed; `allow_host` adds it",
    ),
    fault(
        "a host that only starts well",
        |ask| Some(ask.with("host", "localhost.evil.example:80")),
        421,
        "misdirected_host",
        "the host \"localhost.evil.example:80\" is not allowed; `allow_host` adds it",
    ),
    fault(
        "a host behind a user",
        |ask| Some(ask.with("host", "evil.example@localhost")),
        421,
        "misdirected_host",
        "the host \"evil.example@localhost\" is not allowed; `allow_host` adds it",
    ),
    fault(
        "two hosts",
        |ask| Some(ask.and("host", "localhost")),
        421,
        "misdirected_host",
        "there must be one host header",
    ),
    fault(
        "no host",
        |ask| Some(ask.without("host")),
        421,
        "misdirected_host",
        "the request names no host",
    ),
    fault(
        "a bad authority, as HTTP/2 has it",
        |mut ask| {
            ask.path = format!("http://evil.example{}", ask.path);
            Some(ask)
        },
        421,
        "misdirected_host",
        "the host \"evil.example\" is not allowed; `allow_host` adds it",
    ),
    fault(
        "a page of another site",
        |ask| Some(ask.with("sec-fetch-site", "cross-site")),
        403,
        "cross_site",
        CROSS_SITE,
    ),
    fault(
        "a page of a neighbour",
        |ask| Some(ask.with("sec-fetch-site", "same-site")),
        403,
        "cross_site",
        CROSS_SITE,
    ),
    fault(
        "another origin",
        |ask| Some(ask.with("origin", "http://evil.example")),
        403,
        "cross_site",
        CROSS_ORIGIN,
    ),
    fault(
        "another port's origin",
        |ask| Some(ask.with("origin", "http://localhost:3000")),
        403,
        "cross_site",
        CROSS_ORIGIN,
    ),
    fault("no origin", |ask| Some(ask.with("origin", "null")), 403, "cross_site", CROSS_ORIGIN),
    // In which form.
    fault(
        "no content type",
        |ask| Some(ask.without("content-type")),
        415,
        "unsupported_media_type",
        NOT_JSON,
    ),
    fault(
        "a form's content type",
        |ask| Some(ask.with("content-type", "text/plain")),
        415,
        "unsupported_media_type",
        NOT_JSON,
    ),
    fault(
        "a content type with a parameter",
        |ask| Some(ask.with("content-type", "application/json; charset=latin1")),
        415,
        "unsupported_media_type",
        NOT_JSON,
    ),
    fault(
        "two content types",
        |ask| Some(ask.and("content-type", "application/json")),
        415,
        "unsupported_media_type",
        NOT_JSON,
    ),
    fault(
        "an oversized body",
        |ask| (!is_bulk(&ask)).then(|| filled(ask, TOO_LONG)),
        413,
        "too_large",
        "the body must be at most 65536 bytes",
    ),
    fault(
        "an oversized body for many",
        |ask| is_bulk(&ask).then(|| filled(ask, TOO_LONG_FOR_MANY)),
        413,
        "too_large",
        "the body must be at most 4194304 bytes",
    ),
    fault(
        "an oversized body that is announced",
        |ask| (!is_bulk(&ask)).then(|| ask.with("content-length", TOO_LONG.to_string())),
        413,
        "too_large",
        "the body must be at most 65536 bytes",
    ),
    fault(
        "an oversized body for many that is announced",
        |ask| is_bulk(&ask).then(|| ask.with("content-length", TOO_LONG_FOR_MANY.to_string())),
        413,
        "too_large",
        "the body must be at most 4194304 bytes",
    ),
    fault(
        "a reason twice",
        |mut ask| {
            ask.body.splice(..1, *b"{\"reason\": \"another\", ");
            Some(ask)
        },
        400,
        "malformed",
        "the body has the field \"reason\" twice at line 1 column",
    ),
    fault(
        "a filter's field twice",
        |ask| is_bulk(&ask).then(|| set(ask, "filter", r#"{"q":"a","q":"payments"}"#)),
        400,
        "malformed",
        "the body has the field \"q\" twice at line 1 column",
    ),
    fault(
        "no body",
        |ask| Some(Ask { body: Vec::new(), ..ask }),
        400,
        "malformed",
        "the body is not JSON: EOF while parsing a value at line 1 column 0",
    ),
    fault(
        "a list",
        |ask| Some(Ask { body: b"[]".to_vec(), ..ask }),
        400,
        "malformed",
        "the body must be a JSON object",
    ),
    // For what.
    fault(
        "an unknown name",
        |ask| match is_bulk(&ask) {
            true => Some(set(unset(ask, "filter"), "ids", r#"["payment"]"#)),
            false => Some(Ask { path: ask.path.replace("payments", "payment"), ..ask }),
        },
        404,
        "unknown_circuit",
        "no circuit is registered as \"payment\"",
    ),
    Fault {
        what: "a stale generation",
        spoil: |ask| (!is_bulk(&ask)).then(|| set(ask, "if_generation", "0")),
        status: 409,
        code: "stale_generation",
        message: "if_generation is 0, but the circuit has changed since and is at 1; look at it again",
        field: Some("if_generation"),
    },
    Fault {
        what: "a count that is not so any more",
        spoil: |ask| is_bulk(&ask).then(|| set(ask, "confirm", "2")),
        status: 409,
        code: "confirm_mismatch",
        message: "confirm is 2, but this is for 1 circuits; nothing was changed",
        field: Some("confirm"),
    },
    // With which numbers.
    fault(
        "a generation that is not a number",
        |ask| (!is_bulk(&ask)).then(|| set(ask, "if_generation", "NaN")),
        400,
        "malformed",
        "the body is not JSON: expected value at line 1 column",
    ),
    fault(
        "a generation beyond all numbers",
        |ask| (!is_bulk(&ask)).then(|| set(ask, "if_generation", "1e400")),
        400,
        "malformed",
        "the body is not JSON: number out of range at line 1 column",
    ),
    invalid(
        "a negative generation",
        |ask| (!is_bulk(&ask)).then(|| set(ask, "if_generation", "-1")),
        "if_generation",
        WHOLE,
    ),
    invalid(
        "a huge generation",
        |ask| (!is_bulk(&ask)).then(|| set(ask, "if_generation", "18446744073709551616")),
        "if_generation",
        WHOLE,
    ),
    invalid(
        "half a generation",
        |ask| (!is_bulk(&ask)).then(|| set(ask, "if_generation", "1.5")),
        "if_generation",
        WHOLE,
    ),
    invalid(
        "a generation in words",
        |ask| (!is_bulk(&ask)).then(|| set(ask, "if_generation", "\"1\"")),
        "if_generation",
        WHOLE,
    ),
    fault(
        "a count that is not a number",
        |ask| is_bulk(&ask).then(|| set(ask, "confirm", "NaN")),
        400,
        "malformed",
        "the body is not JSON: expected value at line 1 column",
    ),
    invalid(
        "a negative count",
        |ask| is_bulk(&ask).then(|| set(ask, "confirm", "-1")),
        "confirm",
        CONFIRM,
    ),
    invalid(
        "a huge count",
        |ask| is_bulk(&ask).then(|| set(ask, "confirm", "1e30")),
        "confirm",
        CONFIRM,
    ),
    invalid(
        "no count",
        |ask| is_bulk(&ask).then(|| unset(ask, "confirm")),
        "confirm",
        "confirm is needed: how many circuits this is for",
    ),
    invalid(
        "a generation of many",
        |ask| is_bulk(&ask).then(|| set(ask, "if_generation", "1")),
        "if_generation",
        "if_generation is not known here; known are action, kind, expires_in, ids, filter, \
         confirm or reason",
    ),
    invalid(
        "neither names nor a filter",
        |ask| is_bulk(&ask).then(|| unset(ask, "filter")),
        "filter",
        "filter or ids is needed, and only one of them",
    ),
    invalid(
        "a filter by a state there is not",
        |ask| is_bulk(&ask).then(|| set(ask, "filter", r#"{"state":["ajar"]}"#)),
        "filter.state",
        "filter.state must be of open, half_open or closed",
    ),
    invalid(
        "a filter by what there is not",
        |ask| is_bulk(&ask).then(|| set(ask, "filter", r#"{"stat":["open"]}"#)),
        "filter.stat",
        "filter.stat is not known here; known are state or q",
    ),
    invalid(
        "an action there is not",
        |ask| is_bulk(&ask).then(|| set(ask, "action", "\"explode\"")),
        "action",
        "action must be override, clear_override, open, close or reset",
    ),
    // Until when.
    invalid("a time that is not a number", |ask| expiring(ask, "\"NaN\""), "expires_in", TIME),
    invalid("a negative time", |ask| expiring(ask, "\"-1s\""), "expires_in", TIME),
    invalid("no time at all", |ask| expiring(ask, "\"0s\""), "expires_in", TIME),
    invalid("a time too long", |ask| expiring(ask, "\"367d\""), "expires_in", TIME),
    invalid(
        "a time beyond all times",
        |ask| expiring(ask, "\"99999999999999999999y\""),
        "expires_in",
        TIME,
    ),
    invalid("a time without a unit", |ask| expiring(ask, "\"60\""), "expires_in", TIME),
    invalid("a bare number as time", |ask| expiring(ask, "60"), "expires_in", TIME),
    invalid(
        "an override there is not",
        |ask| is_override(&ask).then(|| set(ask, "kind", "\"force_ajar\"")),
        "kind",
        "kind must be force_open, force_closed or observe_only",
    ),
    invalid(
        "a state there is not",
        |ask| ask.path.ends_with("transition").then(|| set(ask, "to", "\"ajar\"")),
        "to",
        "to must be open, half_open or closed",
    ),
    // Why.
    invalid("no reason", |ask| Some(unset(ask, "reason")), "reason", REASON),
    invalid("an empty reason", |ask| Some(set(ask, "reason", "\"  \"")), "reason", REASON),
    invalid("a reason that is none", |ask| Some(set(ask, "reason", "7")), "reason", REASON),
    invalid(
        "a reason too long",
        |ask| {
            let long = json!("x".repeat(501)).to_string();
            Some(set(ask, "reason", &long))
        },
        "reason",
        REASON,
    ),
    invalid(
        "a reason that forges a line",
        |ask| Some(set(ask, "reason", r#""fine\nalice: not fine""#)),
        "reason",
        ONE_LINE,
    ),
    invalid(
        "a reason that separates lines in another way",
        |ask| Some(set(ask, "reason", r#""fine\u2028alice: not fine""#)),
        "reason",
        ONE_LINE,
    ),
    invalid(
        "a reason that turns the text",
        |ask| Some(set(ask, "reason", r#""a \u202eenif\u202c b""#)),
        "reason",
        ONE_LINE,
    ),
    invalid(
        "a reason that isolates a turned text",
        |ask| Some(set(ask, "reason", r#""a \u2067enif\u2069 b""#)),
        "reason",
        ONE_LINE,
    ),
];

fn is_override(ask: &Ask) -> bool {
    ask.method == Method::POST && (ask.path.ends_with("override") || is_bulk(ask))
}

fn expiring(ask: Ask, raw: &str) -> Option<Ask> {
    is_override(&ask).then(|| set(ask, "expires_in", raw))
}

#[tokio::test]
async fn a_spoilt_mutation_is_refused_with_a_code_and_a_sentence_and_changes_nothing() {
    let site = Site::new();
    let before = site.looks();
    let mut spoilt = 0;
    for fault in FAULTS {
        for mutation in mutations(&site) {
            let shown = format!("{} {} with {}", mutation.method, mutation.path, fault.what);
            let Some(ask) = (fault.spoil)(mutation) else { continue };
            let said = site.ask(ask).await;
            spoilt += 1;
            let error = said.error();
            assert_eq!(said.status, fault.status, "{shown}: {error}");
            assert_eq!(error["code"], fault.code, "{shown}");
            let message = error["message"].as_str().unwrap();
            // Where in the body is the parser's own affair.
            match fault.message.ends_with("column") {
                true => assert!(message.starts_with(fault.message), "{shown}: {message}"),
                false => assert_eq!(message, fault.message, "{shown}"),
            }
            assert_eq!(error["field"].as_str(), fault.field, "{shown}");
            assert_eq!(site.looks(), before, "{shown} changed something");
        }
    }
    assert!(spoilt > 150, "only {spoilt}");

    // And none of it was refused for another reason: unspoilt, each is done.
    for index in 0..mutations(&site).len() {
        let site = Site::new();
        let before = site.looks();
        let mutation = mutations(&site).remove(index);
        let shown = format!("{mutation:?}");
        let said = site.ask(mutation).await;
        assert_eq!(said.status, 200, "{shown}: {said:?}");
        assert_ne!(site.looks(), before, "{shown} changed nothing");
    }
}
