//! What is read: the shapes of the answers, their order, and what they say.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tower_breaker::{
    AdminService, Circuit, Config, Outcome, Override, Probes, Registry, State, Throttle, Window,
};

use crate::site::{Ask, SECOND, Site, config, said};

/// The fields of an object, sorted.
fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn ids(list: &Value) -> Vec<&str> {
    let all = list["circuits"].as_array().unwrap();
    all.iter().map(|circuit| circuit["id"].as_str().unwrap()).collect()
}

fn call(circuit: &Circuit, outcome: Outcome, times: u32) {
    for _ in 0..times {
        circuit.try_acquire().unwrap().record(outcome);
    }
}

async fn sentence(site: &Site, name: &str) -> String {
    let detail = site.get(&format!("/api/v1/circuits/{name}")).await.json();
    detail["circuit"]["sentence"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_list_has_every_circuit_with_all_there_is_to_say_of_it() {
    let site = Site::new();
    let list = site.get("/api/v1/circuits").await.json();
    assert_eq!(fields(&list), ["circuits", "counts", "now", "offset", "total"]);
    assert_eq!(list["counts"], json!({ "open": 1, "half_open": 0, "closed": 1, "overridden": 0 }));
    assert_eq!((&list["total"], &list["offset"]), (&json!(2), &json!(0)));
    assert_eq!(ids(&list), ["payments", "inventory"], "the one in trouble first");
    let circuit = &list["circuits"][0];
    assert_eq!(
        fields(circuit),
        [
            "automatic_for_ms",
            "automatic_since",
            "automatic_state",
            "cause",
            "for_ms",
            "generation",
            "id",
            "key",
            "latency",
            "name",
            "override",
            "rates",
            "recovery",
            "retry_after_ms",
            "ribbon",
            "sentence",
            "since",
            "spark",
            "state",
            "step_left_ms",
            "totals",
            "window",
        ]
    );
    assert_eq!(circuit["cause"], "it was tripped by hand");
    assert_eq!(circuit["generation"], 1);
    assert_eq!(circuit["retry_after_ms"], 5_000);
    let waiting = json!({ "phase": "waiting", "wait_ms": 5_000, "left_ms": 5_000, "awaits_health_check": false });
    assert_eq!(circuit["recovery"], waiting);
    assert_eq!(
        circuit["window"]["limits"],
        json!({ "kind": "count", "size": 20, "span_ms": null, "minimum_calls": 10, "failure_rate": 0.5,
                "slow_rate": null, "slow_after_ms": null, "consecutive_failures": null })
    );
    for row in ["spark", "ribbon"] {
        let row = circuit[row].as_array().unwrap();
        assert_eq!(row.len(), 60);
        assert!(row[..59].iter().all(Value::is_null), "{row:?}");
    }
    assert_eq!((&circuit["spark"][59], &circuit["ribbon"][59]), (&json!(0.0), &json!("o")));
    let since = circuit["since"].as_str().unwrap();
    assert!(since.len() == 24 && since.ends_with('Z'), "{since}");
}

#[tokio::test]
async fn a_list_is_filtered_sorted_and_cut() {
    let site = Site::new();
    for (index, failures) in [(1, 0), (2, 4), (3, 1)] {
        let circuit = site.add(&format!("shard-{index}"));
        call(&circuit, Outcome::Success, 9 - failures + 10 * index);
        call(&circuit, Outcome::Failure, failures);
    }
    site.circuit("shard-1").set_override(Override::observe_only());
    site.circuit("shard-3").trip();
    site.circuit("shard-3").end_wait().unwrap();
    site.clock.advance(10 * SECOND);
    for (query, expected) in [
        ("", "payments shard-3 shard-1 shard-2 inventory"),
        ("?sort=name", "inventory payments shard-1 shard-2 shard-3"),
        ("?sort=rate", "shard-3 shard-2 shard-1 inventory payments"),
        ("?state=open", "payments"),
        ("?state=open,half_open", "payments shard-3"),
        ("?state=closed&sort=name", "inventory shard-1 shard-2"),
        ("?override=true", "shard-1"),
        ("?override=false&q=SHARD", "shard-3 shard-2"),
        ("?q=a%72d-", "shard-3 shard-1 shard-2"),
        ("?q=nobody", ""),
        ("?sort=name&limit=2", "inventory payments"),
        ("?sort=name&limit=2&offset=4", "shard-3"),
        ("?sort=name&offset=9", ""),
        ("?limit=0", ""),
    ] {
        let list = site.get(&format!("/api/v1/circuits{query}")).await.json();
        assert_eq!(ids(&list).join(" "), expected, "{query}");
        assert_eq!(list["counts"]["closed"], 3, "the counts are of all");
    }
    let cut = site.get("/api/v1/circuits?q=shard&limit=1&offset=1").await.json();
    assert_eq!((&cut["total"], &cut["offset"]), (&json!(3), &json!(1)));
}

#[tokio::test]
async fn a_query_that_can_not_be_meant_is_refused_by_the_name_of_its_field() {
    let site = Site::new();
    for (path, field) in [
        ("circuits?state=ajar", "state"),
        ("circuits?state=open,", "state"),
        ("circuits?override=yes", "override"),
        ("circuits?sort=worst", "sort"),
        ("circuits?limit=-1", "limit"),
        ("circuits?limit=1001", "limit"),
        ("circuits?limit=NaN", "limit"),
        ("circuits?limit=", "limit"),
        ("circuits?limit=%2B1", "limit"),
        ("circuits?offset=99999999999999999999999", "offset"),
        ("circuits?limit=1&limit=2", "limit"),
        ("circuits?stat=open", "stat"),
        ("circuits/payments?x=1", "x"),
        ("events?after=-1", "after"),
        ("events?limit=1e3", "limit"),
        ("stream?after=x", "after"),
        ("me?x", "x"),
    ] {
        let refused = site.get(&format!("/api/v1/{path}")).await;
        assert_eq!(refused.status, 422, "{path}");
        let error = refused.error();
        assert_eq!((&error["code"], &error["field"]), (&json!("invalid"), &json!(field)), "{path}");
        assert!(error["message"].as_str().unwrap().starts_with(field), "{error}");
    }
    for path in ["circuits/nobody", "circuits/a/b", "circuits/inventory%2Fb", "circuits/a%2F%25FF"]
    {
        let refused = site.get(&format!("/api/v1/{path}")).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.error()["code"]),
            (404, &json!("unknown_circuit"))
        );
    }
}

#[tokio::test]
async fn a_detail_says_how_far_back_somebody_else_goes() {
    let site = Site::new();
    let path = "/api/v1/circuits/inventory";
    assert_eq!(site.get(path).await.json()["history"], json!([]));
    let admin = AdminService::builder(&site.registry).insecure_no_auth().history(["24h", "7d"]);
    let admin = admin.build().unwrap();
    let detail = said(&admin, Ask::get(path).into_request()).await.json();
    assert_eq!(detail["history"], json!(["24h", "7d"]));
    // It is for whoever mounts the service to answer that.
    let path = "/api/v1/history/circuits/inventory?range=24h";
    assert_eq!(said(&admin, Ask::get(path).into_request()).await.status, 404);
}

#[tokio::test]
async fn a_detail_has_the_configuration_the_series_and_the_events() {
    let site = Site::new();
    let settings = config("slow", &site.clock)
        .window(Window::time(90 * SECOND))
        .slow_calls(SECOND / 4, 0.8)
        .consecutive_failures(7);
    let circuit = site.registry.circuit(settings.build().unwrap()).unwrap();
    call(&circuit, Outcome::Success, 30);
    site.clock.advance(16 * SECOND);
    call(&circuit, Outcome::Failure, 3);
    circuit.trip();

    let detail = site.get("/api/v1/circuits/slow").await.json();
    assert_eq!(fields(&detail), ["circuit", "config", "events", "history", "now", "series"]);
    assert_eq!(detail["circuit"]["state"], "open");
    let parsed: Config = serde_json::from_value(detail["config"].clone()).unwrap();
    assert_eq!(parsed.name(), "slow");
    assert_eq!(detail["config"]["slow_calls"], json!({ "threshold": "250ms", "share": 0.8 }));
    assert_eq!(
        detail["circuit"]["window"]["limits"],
        json!({ "kind": "time", "size": null, "span_ms": 90_000, "minimum_calls": 10, "failure_rate": 0.5,
                "slow_rate": 0.8, "slow_after_ms": 250, "consecutive_failures": 7 })
    );
    let series = &detail["series"];
    assert_eq!(
        fields(series),
        ["calls", "end", "failures", "p50_ms", "p99_ms", "rejected", "slow", "state", "step_ms"]
    );
    assert_eq!(series["step_ms"], 15_000);
    let calls: Vec<_> = series["calls"].as_array().unwrap()[58..].iter().collect();
    assert_eq!(calls.iter().filter_map(|calls| calls.as_u64()).sum::<u64>(), 33);
    assert_eq!(series["state"].as_array().unwrap()[58..], ["c", "o"]);
    let kinds: Vec<_> =
        detail["events"].as_array().unwrap().iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["registered", "transition"]);
    let opened = &detail["events"][1];
    assert_eq!((&opened["from"], &opened["to"]), (&json!("closed"), &json!("open")));
    assert_eq!(
        opened["sentence"],
        "slow: closed -> open, because it was tripped by hand; next try in 5.0s"
    );
    assert_eq!(
        (&opened["circuit_id"], &opened["name"], &opened["key"]),
        (&json!("slow"), &json!("slow"), &Value::Null)
    );
}

#[tokio::test]
async fn the_history_is_read_piece_by_piece() {
    let site = Site::new();
    let all = site.get("/api/v1/events").await.json();
    assert_eq!((&all["missed"], &all["last_id"]), (&json!(0), &json!(3)));
    let of = |page: &Value| -> Vec<u64> {
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(of(&all), [1, 2, 3]);
    assert_eq!(of(&site.get("/api/v1/events?after=1&limit=1").await.json()), [2]);
    assert_eq!(of(&site.get("/api/v1/events?circuit=payments&limit=1").await.json()), [2]);
    assert_eq!(of(&site.get("/api/v1/events?after=3").await.json()), [0; 0]);
    // One that was removed has a history still.
    site.registry.remove("payments");
    assert_eq!(of(&site.get("/api/v1/events?circuit=payments").await.json()), [2, 3, 4]);
    assert_eq!(of(&site.get("/api/v1/events?circuit=nobody").await.json()), [0; 0]);

    let short = Registry::builder().history(2).build();
    let circuit = short.circuit(Config::default()).unwrap();
    (0..3).for_each(|_| {
        circuit.trip();
        circuit.reset();
    });
    let admin = AdminService::builder(&short).insecure_no_auth().build().unwrap();
    let page = said(&admin, Ask::get("/api/v1/events?after=1").into_request()).await.json();
    assert_eq!((of(&page), &page["missed"], &page["last_id"]), (vec![6, 7], &json!(4), &json!(7)));
}

#[tokio::test]
async fn a_held_circuit_says_since_when_it_is_held() {
    let site = Site::new();
    site.clock.advance(100 * SECOND);
    site.circuit("inventory").set_override(Override::force_open());
    site.clock.advance(7 * SECOND);
    let detail = site.get("/api/v1/circuits/inventory").await.json();
    let circuit = &detail["circuit"];
    assert_eq!(
        (&circuit["for_ms"], &circuit["automatic_for_ms"]),
        (&json!(7_000), &json!(107_000))
    );
    assert_eq!(circuit["override"]["for_ms"], 7_000);
    assert_eq!(circuit["override"]["since"], circuit["since"]);
    assert_ne!(circuit["since"], circuit["automatic_since"]);
    // One laid over another begins anew.
    site.circuit("inventory").set_override(Override::force_closed());
    site.clock.advance(SECOND);
    let detail = site.get("/api/v1/circuits/inventory").await.json();
    assert_eq!(detail["circuit"]["for_ms"], 1_000);
    site.circuit("inventory").clear_override();
    let detail = site.get("/api/v1/circuits/inventory").await.json();
    let circuit = &detail["circuit"];
    assert_eq!((&circuit["for_ms"], &circuit["override"]), (&json!(108_000), &Value::Null));
    assert_eq!(circuit["since"], circuit["automatic_since"]);
}

#[tokio::test]
async fn the_sentence_says_what_it_does_why_and_what_next() {
    let site = Site::new();
    assert_eq!(sentence(&site, "inventory").await, "Closed: no calls yet.");
    call(&site.circuit("inventory"), Outcome::Success, 1);
    assert_eq!(sentence(&site, "inventory").await, "Closed: 0 of 1 call failed.");
    call(&site.circuit("inventory"), Outcome::Failure, 3);
    assert_eq!(sentence(&site, "inventory").await, "Closed: 3 of 4 calls failed.");

    site.clock.advance(Duration::from_millis(3_800));
    assert_eq!(
        sentence(&site, "payments").await,
        "Open for 3.8 s: it was tripped by hand. Next try in 1.2 s."
    );
    site.clock.advance(2 * SECOND);
    assert_eq!(
        sentence(&site, "payments").await,
        "Open for 5.8 s: it was tripped by hand. The next call is a try."
    );
    let probe = site.circuit("payments").try_acquire().unwrap();
    site.clock.advance(2 * SECOND);
    assert_eq!(
        sentence(&site, "payments").await,
        "Half-open for 2 s: 0 of 3 probes have succeeded, 1 is under way. It opened because it was tripped by hand."
    );
    let detail = site.get("/api/v1/circuits/payments").await.json();
    assert_eq!(
        detail["circuit"]["recovery"],
        json!({ "phase": "probing", "required": 3, "successes": 0, "failures": 0, "in_flight": 1, "permits_left": 2, "admitted_share": null })
    );
    drop(probe);

    let over = Override::force_open().owner("alice").reason("index rebuild");
    site.circuit("inventory").set_override(over.clone());
    site.clock.advance(12 * 60 * SECOND);
    assert_eq!(
        sentence(&site, "inventory").await,
        "Held open by alice, for 12 min so far and 48 min more: index rebuild. \
         Left to itself it would be closed."
    );
    site.circuit("inventory").set_override(Override::force_closed().until_cleared());
    site.circuit("inventory").trip();
    assert_eq!(
        sentence(&site, "inventory").await,
        "Held closed, for less than a minute so far and until somebody clears it. Left to itself it would be open, because it was tripped by hand."
    );
    let seen = site.get("/api/v1/circuits/inventory").await.json();
    let seen = &seen["circuit"];
    assert_eq!((&seen["state"], &seen["automatic_state"]), (&json!("closed"), &json!("open")));
    let observed =
        Override::observe_only().owner("bob").reason("Trying it.").expires_in(90 * SECOND);
    site.circuit("inventory").set_override(observed);
    assert_eq!(
        sentence(&site, "inventory").await,
        "Only observed: every call passes, by order of bob, for less than a minute so far and one minute more: \
         Trying it. \
         By its rules it is open, because it was tripped by hand."
    );
}

#[tokio::test]
async fn the_ramp_and_the_throttle_say_how_much_passes() {
    let site = Site::new();
    let ramped = config("ramped", &site.clock).probes(Probes::new(1)).ramp(100 * SECOND);
    let ramped = site.registry.circuit(ramped.build().unwrap()).unwrap();
    ramped.trip();
    site.clock.advance(5 * SECOND);
    call(&ramped, Outcome::Success, 1);
    site.clock.advance(40 * SECOND);
    assert_eq!(ramped.state(), State::HalfOpen);
    assert_eq!(
        sentence(&site, "ramped").await,
        "Half-open for 40 s: 40 % of the calls pass, and ever more. It opened because it was tripped by hand."
    );
    let detail = site.get("/api/v1/circuits/ramped").await.json();
    assert_eq!(detail["circuit"]["recovery"], json!({ "phase": "ramp", "admitted_share": 0.4 }));

    let throttle = Throttle::new(2.0);
    let throttled = config("throttled", &site.clock).no_failure_rate().throttle(throttle);
    let throttled = site.registry.circuit(throttled.build().unwrap()).unwrap();
    for _ in 0..100 {
        if let Ok(permit) = throttled.try_acquire() {
            permit.record(Outcome::Failure);
        }
    }
    let said = sentence(&site, "throttled").await;
    assert!(
        said.starts_with("Closed, but ") && said.contains(" % of the calls are refused: "),
        "{said}"
    );
}

#[tokio::test]
async fn what_is_written_anywhere_is_data_and_nothing_else() {
    let site = Site::new();
    let reason = "</script><img src=x onerror=alert(1)> \"quoted\" \u{2028} data: x";
    // Not by way of the service, which takes less.
    site.circuit("inventory").set_override(Override::force_open().reason(reason));
    let said = site.get("/api/v1/circuits/inventory").await;
    assert_eq!(said.headers["content-type"], "application/json");
    assert_eq!(said.json()["circuit"]["override"]["reason"], reason);
    for path in
        ["/api/v1/circuits/%3Cscript%3E", "/%3Cscript%3E", "/api/v1/circuits?q=%3Cscript%3E"]
    {
        let said = site.get(path).await;
        assert_eq!(said.headers["content-type"], "application/json", "{path}");
    }
}

#[tokio::test]
async fn readiness_depends_on_circuits_only_if_asked_to() {
    let site = Site::new();
    let admin = AdminService::builder(&site.registry).insecure_no_auth();
    let plain = admin.clone().build().unwrap();
    let asked = admin.ready_requires(["inventory", "late"]).build().unwrap();
    let probe = async |admin: &AdminService, path: &str| {
        let said = said(admin, Ask::get(path).into_request()).await;
        (said.status.as_u16(), said.json()["status"].as_str().unwrap().to_owned())
    };
    let (ok, unavailable) = ((200, "ok".to_owned()), (503, "unavailable".to_owned()));
    site.circuit("inventory").trip();
    for path in ["/livez", "/readyz"] {
        assert_eq!(probe(&plain, path).await, ok, "{path}");
    }
    site.circuit("inventory").reset();
    assert_eq!(probe(&asked, "/readyz").await, unavailable, "one is not registered");
    let late = site.add("late");
    assert_eq!(probe(&asked, "/readyz").await, ok);
    for (over, ready) in [
        (Override::force_open(), &unavailable),
        (Override::force_closed(), &ok),
        (Override::observe_only(), &ok),
    ] {
        late.set_override(over);
        assert_eq!(&probe(&asked, "/readyz").await, ready);
        assert_eq!(probe(&asked, "/livez").await, ok);
    }
    late.clear_override();
    late.trip();
    assert_eq!(probe(&asked, "/readyz").await, unavailable);
    let wait = late.snapshot().retry_after.unwrap();
    site.clock.advance(wait - Duration::from_nanos(1));
    assert_eq!(probe(&asked, "/readyz").await, unavailable);
    site.clock.advance(Duration::from_nanos(1));
    assert_eq!(probe(&asked, "/readyz").await, ok, "or nobody would come to try");
    assert_eq!(late.state(), State::Open, "and nobody has");
    late.set_override(Override::force_open());
    assert_eq!(probe(&asked, "/readyz").await, unavailable);
}

#[tokio::test]
async fn metrics_are_the_renderer_s_if_there_is_one() {
    let site = Site::new();
    assert_eq!(site.get("/metrics").await.status, 404);
    let admin = AdminService::builder(&site.registry)
        .insecure_no_auth()
        .metrics(|| "circuit_breaker_state 1\n".to_owned())
        .build()
        .unwrap();
    let said = said(&admin, Ask::get("/metrics").into_request()).await;
    assert_eq!(said.text, "circuit_breaker_state 1\n");
    assert_eq!(said.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
}

#[cfg(feature = "keyed")]
#[tokio::test]
async fn one_of_a_group_is_found_by_its_id_whatever_its_key_is() {
    let site = Site::new();
    let template = config("hosts", &site.clock).build().unwrap();
    let hosts = site.registry.keyed(tower_breaker::KeyedCircuits::builder(template)).unwrap();
    for key in ["a.example:80", "a/b c", "100%", "ü<script>", "override", ".", "..", ""] {
        hosts.get_or_create(key).trip();
        let list = site.get("/api/v1/circuits?q=hosts/").await.json();
        let all = list["circuits"].as_array().unwrap();
        let found = all.iter().find(|circuit| circuit["key"] == key).unwrap();
        let id = found["id"].as_str().unwrap();
        // As one segment, encoded once more, also what need not be; and as two.
        let one = id.replace('%', "%25").replace('/', "%2F");
        let dots = one.replace('.', "%252E");
        for path in [one, dots, id.to_owned()] {
            let detail = site.get(&format!("/api/v1/circuits/{path}")).await.json();
            assert_eq!(detail["circuit"]["key"], key, "{path}");
            assert_eq!(detail["events"][0]["circuit_id"], id);
            let body = json!({ "reason": "a drill" });
            let reset = format!("/api/v1/circuits/{path}/reset");
            let said = site.ask(Ask::command(Method::POST, &reset, &body)).await;
            assert_eq!(
                (said.status.as_u16(), said.json()["circuit"]["id"].as_str()),
                (200, Some(id))
            );
        }
        assert_eq!(hosts.get(key).unwrap().state(), State::Closed);
        // However it is written, in bulk it is one.
        let (_, told) = id.split_once('/').unwrap();
        let encoded = key.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let body = json!({
            "action": "open", "reason": "a drill", "confirm": 1,
            "ids": [format!("hosts/{told}"), format!("hosts/{encoded}")],
        });
        let said = site.ask(Ask::command(Method::POST, "/api/v1/bulk", &body)).await;
        assert_eq!(said.json(), json!({ "changed": 1, "unchanged": 0, "failed": [] }), "{key}");
    }
}
