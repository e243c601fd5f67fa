//! What an operator does is done, told of, and done to what was seen.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tower_breaker::{EventKind, OverrideKind, State};

use crate::site::{Ask, Site, config};

#[tokio::test]
async fn an_override_has_a_reason_an_owner_and_an_end_and_is_told_of() {
    let site = Site::new();
    let path = "/api/v1/circuits/inventory/override";
    for (body, kind, lasts) in [
        (json!({ "kind": "force_open" }), OverrideKind::ForceOpen, Some(3_600)),
        (
            json!({ "kind": "force_closed", "expires_in": "90s" }),
            OverrideKind::ForceClosed,
            Some(90),
        ),
        (
            json!({ "kind": "observe_only", "expires_in": "until_cleared", "if_generation": null }),
            OverrideKind::ObserveOnly,
            None,
        ),
    ] {
        let mut body = body;
        body["reason"] = " <b>index</b> rebuild ".into();
        let said = site.ask(Ask::command(Method::POST, path, &body)).await;
        assert_eq!(said.status, 200, "{said:?}");
        let over = site.circuit("inventory").snapshot().active_override.unwrap();
        assert_eq!(over.kind, kind);
        assert_eq!(over.expires_in, lasts.map(Duration::from_secs));
        assert_eq!(over.reason.as_deref(), Some("<b>index</b> rebuild"));
        assert_eq!(over.owner.as_deref(), Some("alice"));
        let shown = &said.json()["circuit"]["override"];
        assert_eq!(shown["kind"], body["kind"]);
        assert_eq!(shown["owner"], "alice");
        assert_eq!(shown["expires_in_ms"].as_u64(), lasts.map(|seconds| seconds * 1_000));
    }
    let clear = json!({ "reason": "done" });
    let said = site.ask(Ask::command(Method::DELETE, path, &clear)).await;
    assert_eq!(said.json()["circuit"]["override"], Value::Null);

    // Who and why stand in the history, the latest last.
    let events = site.get("/api/v1/events?circuit=inventory").await.json();
    let commands: Vec<_> = events["events"].as_array().unwrap().iter().collect();
    let last = commands.last().unwrap();
    assert_eq!(last["kind"], "command");
    assert_eq!(
        (&last["action"], &last["by"], &last["reason"]),
        (&json!("clear_override"), &json!("alice"), &json!("done"))
    );
    let set: Vec<_> = commands.iter().filter(|event| event["kind"] == "override_set").collect();
    assert_eq!(set.len(), 3);
    assert!(
        set.iter().all(|event| event["by"] == "alice" && event["reason"] == "<b>index</b> rebuild")
    );
}

#[tokio::test]
async fn a_transition_moves_the_circuit_where_it_can_go() {
    let site = Site::new();
    let circuit = site.circuit("inventory");
    let go = async |to: &str| {
        let body = json!({ "to": to, "reason": "a drill" });
        site.ask(Ask::command(Method::POST, "/api/v1/circuits/inventory/transition", &body)).await
    };
    let refused = go("half_open").await;
    assert_eq!(
        (refused.status, &refused.error()["code"]),
        (StatusCode::CONFLICT, &json!("not_possible"))
    );
    assert_eq!(refused.error()["current"]["circuit"]["state"], "closed");
    assert_eq!(circuit.state(), State::Closed);

    for (to, state) in [
        ("open", State::Open),
        ("half_open", State::HalfOpen),
        ("open", State::Open),
        ("closed", State::Closed),
    ] {
        let said = go(to).await;
        assert_eq!(said.status, 200, "{said:?}");
        assert_eq!(circuit.state(), state);
        assert_eq!(said.json()["circuit"]["automatic_state"], to);
    }
    let commands = site.registry.events_after(0, 100).events;
    let commands = commands.iter().filter(|event| matches!(event.kind, EventKind::Command(_)));
    assert_eq!(commands.count(), 4, "one for each that was done");
}

#[tokio::test]
async fn a_stale_generation_is_told_what_has_changed() {
    let site = Site::new();
    let seen = site.get("/api/v1/circuits/inventory").await.json()["circuit"]["generation"].clone();
    let body = |kind: &str| json!({ "kind": kind, "reason": "mine", "if_generation": seen });
    let path = "/api/v1/circuits/inventory/override";
    assert_eq!(site.ask(Ask::command(Method::POST, path, &body("force_open"))).await.status, 200);

    let late = site.ask(Ask::command(Method::POST, path, &body("force_closed"))).await;
    assert_eq!(
        (late.status, &late.error()["code"]),
        (StatusCode::CONFLICT, &json!("stale_generation"))
    );
    let current = &late.error()["current"];
    assert_eq!(current["circuit"]["override"]["kind"], "force_open");
    let kinds: Vec<_> =
        current["events"].as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["registered", "override_set", "command"]);
    let again = current["circuit"]["generation"].clone();
    let mut body = body("force_closed");
    body["if_generation"] = again;
    assert_eq!(site.ask(Ask::command(Method::POST, path, &body)).await.status, 200);
}

#[tokio::test]
async fn many_are_steered_at_once_if_they_are_as_many_as_one_thinks() {
    let site = Site::new();
    (0..10).for_each(|index| drop(site.add(&format!("shard-{index}"))));
    let bulk =
        async |body: Value| site.ask(Ask::command(Method::POST, "/api/v1/bulk", &body)).await;
    let override_shards = |confirm| {
        json!({ "action": "override", "kind": "force_open", "expires_in": "5m", "reason": "moving",
                "filter": { "q": "SHARD" }, "confirm": confirm })
    };
    let wrong = bulk(override_shards(9)).await;
    assert_eq!(
        (wrong.status, &wrong.error()["current"]["matched"]),
        (StatusCode::CONFLICT, &json!(10))
    );
    let right = bulk(override_shards(10)).await.json();
    assert_eq!(right, json!({ "changed": 10, "unchanged": 0, "failed": [] }));
    let forced = |site: &Site| {
        let all = site.registry.circuits();
        all.iter().filter(|circuit| circuit.snapshot().active_override.is_some()).count()
    };
    assert_eq!(forced(&site), 10);

    // By id, each once.
    let ids = json!(["shard-1", "shard-2", "shard-1"]);
    let body = json!({ "action": "clear_override", "ids": ids, "confirm": 2, "reason": "moved" });
    assert_eq!(bulk(body).await.json()["changed"], 2);
    assert_eq!(forced(&site), 8);
    // By what callers meet: eight shards and `payments`.
    let body =
        json!({ "action": "close", "filter": { "state": ["open"] }, "confirm": 9, "reason": "r" });
    assert_eq!(bulk(body).await.json()["changed"], 9);
    assert_eq!(site.circuit("payments").state(), State::Closed);
    for (action, state) in [("open", State::Open), ("reset", State::Closed)] {
        let body = json!({ "action": action, "filter": {}, "confirm": 12, "reason": "r" });
        assert_eq!(bulk(body).await.json()["changed"], 12);
        assert!(site.registry.circuits().iter().all(|circuit| circuit.state() == state));
    }
}

#[tokio::test]
async fn of_many_each_is_steered_only_if_it_is_as_it_was_seen() {
    let site = Site::new();
    for name in ["shard-1", "shard-2", "shard-3"] {
        site.add(name);
    }
    let bulk =
        async |body: Value| site.ask(Ask::command(Method::POST, "/api/v1/bulk", &body)).await;
    // Somebody is faster at one of them.
    site.circuit("shard-2").trip();
    let seen = |id: &str| json!({ "id": id, "if_generation": 0 });
    let said = bulk(json!({
        "action": "open", "reason": "moving", "confirm": 3,
        "ids": [seen("shard-1"), seen("shard-2"), "shard-3"],
    }))
    .await
    .json();
    assert_eq!((&said["changed"], &said["unchanged"]), (&json!(2), &json!(0)));
    let message = "if_generation is 0, but the circuit has changed since and is at 1; \
                   look at it again";
    let error = json!({ "code": "stale_generation", "message": message, "field": "if_generation" });
    assert_eq!(said["failed"], json!([{ "id": "shard-2", "error": error }]));

    // What changes nothing is not said to have.
    let reason = "moved";
    let said = bulk(json!({
        "action": "clear_override", "reason": reason, "confirm": 3, "filter": { "q": "shard" },
    }));
    assert_eq!(said.await.json(), json!({ "changed": 0, "unchanged": 3, "failed": [] }));
    let said = bulk(json!({
        "action": "open", "reason": reason, "confirm": 2, "ids": ["shard-1", "inventory"],
    }));
    assert_eq!(said.await.json(), json!({ "changed": 1, "unchanged": 1, "failed": [] }));

    for (ids, message) in [
        (json!([1]), "ids must be a list of strings, or of objects with id and if_generation"),
        (json!("shard-1"), "ids must be a list"),
        (json!([{}]), "ids.id is needed"),
        (
            json!([{ "id": "shard-1", "generation": 1 }]),
            "ids.generation is not known here; known are if_generation or id",
        ),
        (json!(["shard-1", seen("shard-1")]), "ids names \"shard-1\" twice, as seen differently"),
    ] {
        let body = json!({ "action": "open", "reason": "r", "confirm": 1, "ids": ids });
        let said = bulk(body).await;
        assert_eq!((said.status.as_u16(), &said.error()["message"]), (422, &json!(message)));
    }
}

#[tokio::test]
async fn as_many_as_there_can_be_are_named_at_once() {
    let site = Site::new();
    let longest = "x".repeat(59);
    for number in 0..3 {
        site.add(&format!("{longest}{number:05}"));
    }
    let named = (0..10_000).map(|number| format!("{longest}{:05}", number % 3));
    let ids: Vec<_> = named.map(|id| json!({ "id": id, "if_generation": 0 })).collect();
    let body = json!({ "action": "open", "reason": "moving", "confirm": 3, "ids": ids });
    let said = site.ask(Ask::command(Method::POST, "/api/v1/bulk", &body)).await;
    assert_eq!(said.json(), json!({ "changed": 3, "unchanged": 0, "failed": [] }));
}

#[tokio::test]
async fn what_was_done_to_a_circuit_that_leaves_is_told_all_the_same() {
    use tower_breaker::{Observer, Override, Registry};

    /// Removes the circuit as soon as somebody steers it.
    struct Remover(Registry);

    impl Observer for Remover {
        fn on_override(&self, circuit: &str, _: Option<&Override>) {
            drop(self.0.remove(circuit));
        }
    }

    let site = Site::new();
    let remover = Remover(site.registry.clone());
    let config = config("fleeting", &site.clock).observer(remover).build().unwrap();
    site.registry.circuit(config).unwrap();
    let body = json!({ "kind": "force_open", "reason": "in time" });
    let path = "/api/v1/circuits/fleeting/override";
    assert_eq!(site.ask(Ask::command(Method::POST, path, &body)).await.status, 200);
    let events = site.get("/api/v1/events?circuit=fleeting").await.json();
    let last = events["events"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["kind"], &last["action"], &last["by"], &last["reason"]),
        (&json!("command"), &json!("override"), &json!("alice"), &json!("in time"))
    );
}

#[tokio::test]
async fn what_a_reconfiguration_changed_stands_in_the_history() {
    let site = Site::new();
    let other = config("inventory", &site.clock).minimum_calls(5).build().unwrap();
    site.circuit("inventory").reconfigure(other).unwrap();
    let detail = site.get("/api/v1/circuits/inventory").await.json();
    assert_eq!(detail["circuit"]["window"]["limits"]["minimum_calls"], 5);
    assert_eq!(detail["circuit"]["generation"], 1);
    let event = &detail["events"][1];
    assert_eq!(event["kind"], "reconfigured");
    assert_eq!(event["sentence"], "inventory: reconfigured, minimum_calls: 10 -> 5");
    let change = json!([{ "field": "minimum_calls", "from": "10", "to": "5" }]);
    assert_eq!(event["changes"], change);
}
