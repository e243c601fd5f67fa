//! Streams: the snapshot first, then what happens; nothing is lost unsaid,
//! nothing piles up, and all end at once.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    runtime::Builder,
    time::{advance, sleep, timeout},
};
use tower::ServiceExt;
use tower_breaker::{
    AdminBody, AdminIdentity, AdminService, Circuit, Clock, Config, Outcome, Override, Registry,
};

use crate::site::{Ask, OPERATOR, SECOND, VIEWER, bearer};

const MILLISECOND: Duration = Duration::from_millis(1);

/// One event of a stream.
#[derive(Debug)]
struct Told {
    event: String,
    /// As it is sent.
    cursor: Option<String>,
    /// The event's number in it.
    id: Option<u64>,
    data: Value,
}

/// A stream that is read.
struct Reader {
    body: AdminBody,
    read: Vec<Told>,
}

impl Reader {
    async fn new(admin: &AdminService) -> Self {
        Self::open(admin, Ask::get("/api/v1/stream")).await.unwrap()
    }

    async fn open(admin: &AdminService, ask: Ask) -> Result<Self, (StatusCode, Value)> {
        let ask = ask.with("authorization", bearer(OPERATOR));
        let response = admin.clone().oneshot(ask.into_request()).await.unwrap();
        if response.status() != 200 {
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            return Err((status, serde_json::from_slice(&body).unwrap()));
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Ok(Self { body: response.into_body(), read: Vec::new() })
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Told> {
        let mut text = String::new();
        while self.read.is_empty() {
            // Much longer than a tick: one that never comes fails the test.
            // Not a timeout, which would ask once more before it gives up, woken or not.
            let frame = tokio::select! {
                biased;
                () = sleep(60 * SECOND) => panic!("nothing comes"),
                frame = self.body.frame() => frame,
            };
            let bytes = frame?.unwrap().into_data().unwrap();
            text += std::str::from_utf8(&bytes).unwrap();
            if text.ends_with("\n\n") {
                self.read = text.trim_end().split("\n\n").map(parse).collect();
            }
        }
        Some(self.read.remove(0))
    }

    /// The next event, which is of this kind.
    async fn expect(&mut self, event: &str) -> Told {
        let told = self.next().await.expect("the stream is over");
        assert_eq!(told.event, event, "{told:?}");
        told
    }

    /// The next event but ticks.
    async fn news(&mut self) -> Told {
        loop {
            let told = self.next().await.expect("the stream is over");
            if told.event != "tick" {
                return told;
            }
        }
    }

    /// Whether there is nothing to read now.
    fn is_quiet(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.read.is_empty() && pin!(self.body.frame()).poll(&mut context).is_pending()
    }
}

fn parse(block: &str) -> Told {
    let mut told = Told { event: String::new(), cursor: None, id: None, data: Value::Null };
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("event", name)) => told.event = name.to_owned(),
            Some(("id", cursor)) => {
                told.cursor = Some(cursor.to_owned());
                told.id = Some(cursor.split_once('-').unwrap().1.parse().unwrap());
            }
            Some(("data", data)) => told.data = serde_json::from_str(data).unwrap(),
            _ => panic!("{line}"),
        }
    }
    told
}

fn circuit(registry: &Registry, name: &str) -> Circuit {
    registry.circuit(Config::builder(name).build().unwrap()).unwrap()
}

fn site() -> (Registry, AdminService) {
    let registry = Registry::new();
    let admin = crate::site::admin(&registry);
    (registry, admin)
}

fn ids(told: &Told) -> Vec<&str> {
    let all = told.data["circuits"].as_array().unwrap();
    all.iter().map(|circuit| circuit["id"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_all_there_is_and_goes_on_with_what_changes() {
    let (registry, admin) = site();
    let inventory = circuit(&registry, "inventory");
    circuit(&registry, "payments").trip();
    let mut reader = Reader::new(&admin).await;

    let snapshot = reader.expect("snapshot").await;
    assert_eq!(snapshot.id, Some(3));
    assert_eq!(snapshot.data["last_id"], 3);
    assert_eq!(snapshot.data["total"], 2);
    assert_eq!(ids(&snapshot), ["payments", "inventory"]);
    assert_eq!(snapshot.data["circuits"][0]["spark"].as_array().unwrap().len(), 60);
    assert!(reader.is_quiet());

    // An event comes at once, a tick with the second.
    inventory.trip();
    let opened = reader.expect("event").await;
    assert_eq!((opened.id, &opened.data["id"]), (Some(4), &json!(4)));
    assert_eq!(
        (&opened.data["circuit_id"], &opened.data["to"]),
        (&json!("inventory"), &json!("open"))
    );
    assert!(reader.is_quiet());
    let tick = reader.expect("tick").await;
    // Both are open: their countdowns change.
    assert_eq!(ids(&tick), ["inventory", "payments"]);
    let row = &tick.data["circuits"][0];
    assert_eq!((&row["state"], &row["generation"]), (&json!("open"), &json!(1)));
    assert_eq!((&row["spark_last"], &row["ribbon_last"]), (&json!(0.0), &json!("o")));
    for only_in_the_snapshot in ["spark", "ribbon", "name"] {
        assert!(row.get(only_in_the_snapshot).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_tells_of_those_that_changed_and_an_empty_one_is_the_heartbeat() {
    let (registry, admin) = site();
    let busy = circuit(&registry, "busy");
    circuit(&registry, "idle");
    let mut reader = Reader::new(&admin).await;
    reader.expect("snapshot").await;
    for _ in 0..3 {
        let before = Clock::tokio().now();
        let tick = reader.expect("tick").await;
        assert_eq!(ids(&tick), [""; 0], "nothing has changed");
        let waited = Clock::tokio().now() - before;
        assert!(
            (SECOND - 2 * MILLISECOND..=SECOND + 2 * MILLISECOND).contains(&waited),
            "{waited:?}"
        );
    }
    busy.try_acquire().unwrap().record(Outcome::Failure);
    let tick = reader.expect("tick").await;
    assert_eq!(ids(&tick), ["busy"]);
    assert_eq!(tick.data["circuits"][0]["totals"]["failure"], 1);

    // One that is new comes whole.
    circuit(&registry, "late");
    assert_eq!(reader.expect("event").await.data["kind"], "registered");
    let tick = reader.expect("tick").await;
    let late = tick.data["circuits"].as_array().unwrap().iter().find(|row| row["id"] == "late");
    assert_eq!(late.unwrap()["spark"].as_array().unwrap().len(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_tick_has_the_notice_for_as_long_as_there_is_one() {
    let is_wrong = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_wrong);
    let notice = move || asked.load(Ordering::Relaxed).then(|| "it is wrong".to_owned());
    let admin = AdminService::builder(&Registry::new()).insecure_no_auth().notice(notice);
    let mut reader = Reader::new(&admin.build().unwrap()).await;
    reader.expect("snapshot").await;
    for (said, told) in [(false, Value::Null), (true, json!("it is wrong")), (false, Value::Null)] {
        is_wrong.store(said, Ordering::Relaxed);
        assert_eq!(reader.expect("tick").await.data["notice"], told);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_the_first_of_all_comes_whole_to_everybody() {
    let (registry, admin) = site();
    let mut early = Reader::new(&admin).await;
    early.expect("snapshot").await;
    circuit(&registry, "first");
    // Within the same second somebody else looks.
    Reader::new(&admin).await.expect("snapshot").await;
    early.expect("event").await;
    assert_eq!(ids(&early.expect("tick").await), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_replaced_comes_whole_though_nobody_saw_it_gone() {
    let (registry, admin) = site();
    circuit(&registry, "inventory");
    let mut reader = Reader::new(&admin).await;
    reader.expect("snapshot").await;
    // Longer than its series goes back.
    for _ in 0..1_000 {
        assert_eq!(ids(&reader.expect("tick").await), [""; 0]);
    }
    registry.remove("inventory");
    circuit(&registry, "inventory");
    for kind in ["removed", "registered"] {
        assert_eq!(reader.expect("event").await.data["kind"], kind);
    }
    let tick = reader.expect("tick").await;
    assert_eq!(ids(&tick), ["inventory"]);
    let row = &tick.data["circuits"][0];
    assert_eq!((&row["name"], &tick.data["gone"]), (&json!("inventory"), &json!([])));
    let steps = row["ribbon"].as_array().expect("it comes whole");
    assert_eq!(steps.iter().filter(|step| !step.is_null()).count(), 1, "of its own life");
    // From then on it is no news.
    for _ in 0..40 {
        assert_eq!(ids(&reader.expect("tick").await), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_left_are_gone_from_the_list_for_quick_readers_and_slow_ones() {
    let (registry, admin) = site();
    for index in 0..1_100 {
        circuit(&registry, &format!("c-{index}"));
    }
    let (mut quick, mut slow) = (Reader::new(&admin).await, Reader::new(&admin).await);
    quick.expect("snapshot").await;
    slow.expect("snapshot").await;
    let tick = async |reader: &mut Reader| loop {
        let told = reader.next().await.unwrap();
        if told.event != "event" {
            break told;
        }
    };
    for (name, again) in [("c-0", false), ("c-1", true)] {
        registry.remove(name);
        assert_eq!(tick(&mut quick).await.data["gone"], json!([name]));
        again.then(|| circuit(&registry, name));
        let next = tick(&mut quick).await;
        assert_eq!((&next.data["gone"], ids(&next).len()), (&json!([]), usize::from(again)));
    }
    assert_eq!(tick(&mut slow).await.data["gone"], json!(["c-0"]));

    // Of so many it is not known any more who they were: all is told anew.
    for index in 1..1_100 {
        registry.remove(&format!("c-{index}"));
    }
    let anew = tick(&mut quick).await;
    assert_eq!((&*anew.event, anew.id, &anew.data["total"]), ("snapshot", None, &json!(0)));
    assert_eq!(tick(&mut quick).await.data["gone"], json!([]));
}

#[cfg(feature = "keyed")]
#[tokio::test(start_paused = true)]
async fn a_key_that_is_shown_is_let_go_when_it_is_idle() {
    let (registry, admin) = site();
    let template = Config::builder("hosts").build().unwrap();
    let keys = registry.keyed(tower_breaker::KeyedCircuits::builder(template)).unwrap();
    drop(keys.get_or_create("a/b"));
    let mut reader = Reader::new(&admin).await;
    assert_eq!(ids(&reader.expect("snapshot").await), ["hosts", "hosts/a%2Fb"]);
    advance(3_600 * SECOND).await;
    assert_eq!(keys.evict_idle(), 1, "whoever looks holds nothing");
    let tick = reader.expect("tick").await;
    assert_eq!(tick.data["gone"], json!(["hosts/a%2Fb"]));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_missed_ticks_is_told_all_that_changed_meanwhile() {
    let (registry, admin) = site();
    let all = ["a", "b", "c"].map(|name| circuit(&registry, name));
    let (mut slow, mut quick) = (Reader::new(&admin).await, Reader::new(&admin).await);
    slow.expect("snapshot").await;
    quick.expect("snapshot").await;
    for (circuit, name) in all.iter().zip(["a", "b"]) {
        // Changes once, and then no more.
        circuit.set_override(Override::force_open().until_cleared());
        assert_eq!(quick.expect("event").await.data["kind"], "override_set");
        assert_eq!(ids(&quick.expect("tick").await), [name]);
    }
    slow.expect("event").await;
    slow.expect("event").await;
    let tick = slow.expect("tick").await;
    assert_eq!(ids(&tick), ["a", "b"]);
    // As of now, and not of when it changed.
    assert_eq!(tick.data["circuits"][0]["for_ms"], 2_000);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_resumed_where_it_broke_off() {
    let (registry, admin) = site();
    let circuit = circuit(&registry, "inventory");
    let mut first = Reader::new(&admin).await;
    first.expect("snapshot").await;
    circuit.trip();
    assert_eq!(first.news().await.id, Some(2));
    drop(first);
    circuit.reset();
    circuit.trip();

    let by_header = Ask::get("/api/v1/stream").with("last-event-id", "2");
    for ask in [
        by_header.clone(),
        Ask::get("/api/v1/stream?after=2"),
        Ask { path: "/api/v1/stream?after=9".into(), ..by_header },
    ] {
        let mut resumed = Reader::open(&admin, ask).await.unwrap();
        let snapshot = resumed.expect("snapshot").await;
        assert_eq!(snapshot.id, None, "who breaks off here has missed the events still");
        assert_eq!(snapshot.data["circuits"][0]["state"], "open");
        assert_eq!(resumed.expect("event").await.id, Some(3));
        assert_eq!(resumed.expect("event").await.id, Some(4));
        assert!(resumed.is_quiet());
    }
    let wrong = Ask::get("/api/v1/stream").with("last-event-id", "-1");
    let (status, _) = Reader::open(&admin, wrong).await.err().unwrap();
    assert_eq!(status, 422);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_overtaken_is_told_so_and_begins_anew() {
    let registry = Registry::builder().history(4).build();
    let admin = crate::site::admin(&registry);
    let circuit = circuit(&registry, "inventory");
    let mut reader = Reader::new(&admin).await;
    reader.expect("snapshot").await;
    for _ in 0..5 {
        circuit.trip();
        circuit.reset();
    }
    let resync = reader.news().await;
    assert_eq!((&*resync.event, &resync.data["missed"]), ("resync", &json!(6)));
    assert_eq!(resync.id, Some(7), "the last it will not be told");
    let snapshot = reader.expect("snapshot").await;
    // Without a number: the events that are still there are yet to come.
    assert_eq!((snapshot.id, &snapshot.data["last_id"]), (None, &json!(11)));
    assert_eq!(snapshot.data["circuits"][0]["generation"], 10);
    circuit.trip();
    // One more has left the history meanwhile.
    assert_eq!(reader.expect("resync").await.data["missed"], 1);
    reader.expect("snapshot").await;
    for id in 9..=12 {
        assert_eq!(reader.expect("event").await.id, Some(id));
    }
    assert!(reader.is_quiet());

    // Resumed too late, or with the number of another life.
    for (after, missed) in [(3, 5), (99, 8)] {
        let ask = Ask::get(&format!("/api/v1/stream?after={after}"));
        let mut late = Reader::open(&admin, ask).await.unwrap();
        assert_eq!(late.expect("resync").await.data["missed"], missed);
        assert_eq!(late.expect("snapshot").await.id, None);
        for id in 9..=12 {
            assert_eq!(late.expect("event").await.id, Some(id));
        }
        assert!(late.is_quiet());
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_is_told_or_counted_however_a_reader_dawdles_and_breaks_off() {
    let registry = Registry::builder().history(4).build();
    let admin = crate::site::admin(&registry);
    let circuit = circuit(&registry, "inventory");
    let mut reader = Reader::new(&admin).await;
    let mut known = reader.expect("snapshot").await.data["last_id"].as_u64().unwrap();
    let mut cursor = None;
    for round in 0_usize..200 {
        for _ in 0..round * 7 % 11 {
            circuit.trip();
            circuit.reset();
        }
        if let Some(last) = cursor.take().filter(|_| round % 3 == 0) {
            let ask = Ask::get("/api/v1/stream").with("last-event-id", &last);
            reader = Reader::open(&admin, ask).await.unwrap();
        }
        for _ in 0..round * 5 % 8 {
            let told = reader.next().await.unwrap();
            match &*told.event {
                "tick" => {}
                "event" => known += 1,
                "resync" => known += told.data["missed"].as_u64().unwrap(),
                _ => assert!(told.data["last_id"].as_u64().unwrap() >= known),
            }
            if told.id.is_some() {
                assert_eq!(told.id, Some(known), "{told:?}");
                cursor = told.cursor;
            }
        }
    }
    assert!(known > 500, "{known} events are no rush");
}

#[tokio::test(start_paused = true)]
async fn who_comes_with_the_number_of_another_process_is_told_the_whole_history() {
    let (before, old) = site();
    circuit(&before, "inventory");
    let mut reader = Reader::new(&old).await;
    let kept = reader.expect("snapshot").await;
    let cursor = kept.cursor.unwrap();
    let (epoch, id) = cursor.split_once('-').unwrap();
    assert_eq!((&kept.data["epoch"], id), (&json!(epoch), "1"));

    // The process is started anew, and has numbers of its own.
    let (registry, admin) = site();
    circuit(&registry, "inventory").trip();
    assert_ne!(registry.epoch(), before.epoch());
    for ask in [
        Ask::get("/api/v1/stream").with("last-event-id", &cursor),
        Ask::get(&format!("/api/v1/stream?after={cursor}")),
    ] {
        let mut reader = Reader::open(&admin, ask).await.unwrap();
        assert_eq!(reader.expect("resync").await.data["missed"], 0);
        assert_ne!(reader.expect("snapshot").await.data["epoch"], epoch);
        assert_eq!(reader.expect("event").await.id, Some(1));
        assert_eq!(reader.expect("event").await.id, Some(2));
        assert!(reader.is_quiet());
    }
    let events = async |after: &str| {
        let ask = Ask::get(&format!("/api/v1/events?after={after}"));
        let ask = ask.with("authorization", bearer(OPERATOR));
        let answer = crate::site::said(&admin, ask.into_request()).await.json();
        (answer["events"].as_array().unwrap().len(), answer["epoch"].clone())
    };
    let here = format!("{:016x}", registry.epoch());
    assert_eq!(events(&cursor).await, (2, json!(here)));
    assert_eq!(events(&format!("{here}-1")).await, (1, json!(here)));
    assert_eq!(events("1").await.0, 1, "a number alone is one of this process");

    for wrong in ["", "-", "-1", "1-", "+1", "1-+1", "1-2-3", "g-1", "12345678901234567-1"] {
        let ask = Ask::get("/api/v1/stream").with("last-event-id", wrong);
        let (status, said) = Reader::open(&admin, ask).await.err().unwrap();
        assert_eq!((status.as_u16(), &said["error"]["field"]), (422, &json!("last-event-id")));
    }
}

#[tokio::test(start_paused = true)]
async fn who_begins_in_the_same_second_begins_with_the_same_bytes() {
    let (registry, admin) = site();
    let circuit = circuit(&registry, "inventory");
    let begin = async || {
        let mut reader = Reader::new(&admin).await;
        let number = reader.body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(number.starts_with(b"id: "));
        (reader.body.frame().await.unwrap().unwrap().into_data().unwrap(), reader)
    };
    let (first, _one) = begin().await;
    circuit.trip();
    let (second, mut other) = begin().await;
    assert_eq!(first.as_ptr(), second.as_ptr());
    // What has happened since comes behind, and the change with the second.
    assert_eq!(other.expect("event").await.data["to"], "open");
    assert_eq!(other.expect("tick").await.data["circuits"][0]["state"], "open");
    let (later, mut third) = begin().await;
    assert_ne!(first, later);
    assert!(third.is_quiet());

    // Nothing changes: who comes later has the same, and what time it is.
    circuit.reset();
    advance(20 * SECOND).await;
    let (still, _fourth) = begin().await;
    advance(SECOND).await;
    let (same, mut fifth) = begin().await;
    assert_eq!(still.as_ptr(), same.as_ptr());
    assert_eq!(ids(&fifth.expect("tick").await), [""; 0]);
    advance(5 * SECOND).await;
    assert_ne!(begin().await.0.as_ptr(), still.as_ptr(), "ages are not told in ticks");
}

#[tokio::test(start_paused = true)]
async fn there_are_so_many_streams_and_no_more() {
    let registry = Registry::new();
    let admin = AdminService::builder(&registry).insecure_no_auth().max_streams(2).build().unwrap();
    let one = Reader::new(&admin).await;
    let mut other = Reader::new(&admin).await;
    let ask = || Ask::get("/api/v1/stream");
    let (status, said) = Reader::open(&admin, ask()).await.err().unwrap();
    assert_eq!((status.as_u16(), &said["error"]["code"]), (503, &json!("too_many_streams")));
    drop(one);
    let mut stuck = Reader::open(&admin, ask()).await.unwrap();
    stuck.expect("snapshot").await;

    // Whoever reads keeps its place; who has not for half a minute makes room.
    for _ in 0..30 {
        other.news_or_tick().await;
    }
    assert!(Reader::open(&admin, ask()).await.is_err(), "29 s are no half a minute");
    other.news_or_tick().await;
    other.news_or_tick().await;
    // It is asleep with nothing to read, and hears of it at once.
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    while Pin::new(&mut stuck.body).poll_frame(&mut Context::from_waker(&waker)).is_ready() {}
    for _ in 0..31 {
        other.news_or_tick().await;
    }
    woken.0.store(false, Ordering::Relaxed);
    let _third = Reader::open(&admin, ask()).await.unwrap();
    assert!(woken.0.load(Ordering::Relaxed));
    assert!(Reader::open(&admin, ask()).await.is_err(), "the other one is read");
    assert_eq!(stuck.expect("end").await.data["reason"], "unread");
    assert!(stuck.next().await.is_none());
    drop(stuck);
    assert!(Reader::open(&admin, ask()).await.is_err(), "its place was taken before");
}

#[tokio::test(start_paused = true)]
async fn every_stream_ends_at_once_when_the_server_shuts_down() {
    let (registry, admin) = site();
    circuit(&registry, "inventory");
    let mut waiting = Reader::new(&admin).await;
    waiting.expect("snapshot").await;
    let mut fresh = Reader::new(&admin).await;
    let before = Clock::tokio().now();
    let handle = admin.clone();
    let ended = tokio::spawn(async move {
        let end = waiting.expect("end").await;
        assert_eq!(end.data["reason"], "shutdown");
        assert!(waiting.body.is_end_stream());
        assert!(waiting.next().await.is_none());
    });
    tokio::task::yield_now().await;
    handle.shutdown();
    ended.await.unwrap();
    assert_eq!(fresh.expect("end").await.data["reason"], "shutdown");
    assert_eq!(Clock::tokio().now() - before, Duration::ZERO);
    let (status, said) = Reader::open(&admin, Ask::get("/api/v1/stream")).await.err().unwrap();
    assert_eq!((status.as_u16(), &said["error"]["code"]), (503, &json!("shutting_down")));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_within_seconds_once_its_reader_may_look_no_more() {
    let registry = Registry::new();
    let circuit = circuit(&registry, "inventory");
    let is_known = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_known);
    let check = move |parts: &http::request::Parts| {
        let is_first = parts.headers["authorization"] == bearer(OPERATOR);
        let is_known = asked.load(Ordering::Relaxed) || !is_first;
        is_known.then(|| AdminIdentity::viewer("bob"))
    };
    let admin = AdminService::builder(&registry).check(check).build().unwrap();
    let mut first = Reader::new(&admin).await;
    let ask = Ask::get("/api/v1/stream").with("authorization", bearer(VIEWER));
    let mut other = Reader {
        body: admin.oneshot(ask.into_request()).await.unwrap().into_body(),
        read: Vec::new(),
    };
    for reader in [&mut first, &mut other] {
        reader.expect("snapshot").await;
        for _ in 0..30 {
            reader.expect("tick").await;
        }
    }
    is_known.store(false, Ordering::Relaxed);
    let before = Clock::tokio().now();
    // Also if there is always something to tell.
    let end = loop {
        advance(SECOND / 10).await;
        circuit.trip();
        circuit.reset();
        let told = first.next().await.unwrap();
        if told.event == "end" {
            break told;
        }
        assert!(Clock::tokio().now() - before < 6 * SECOND, "it goes on: {told:?}");
    };
    assert_eq!(end.data["reason"], "unauthorized");
    assert!(first.next().await.is_none());
    for _ in 0..20 {
        assert_ne!(other.next().await.unwrap().event, "end");
    }
}

#[tokio::test(start_paused = true)]
async fn circuits_are_looked_at_every_second_though_nobody_asks() {
    let (registry, admin) = site();
    let circuit = circuit(&registry, "inventory");
    tokio::task::yield_now().await;
    for _ in 0..20 {
        circuit.try_acquire().unwrap().record(Outcome::Success);
        advance(SECOND).await;
        tokio::task::yield_now().await;
    }
    // Nobody looked, and one call came each second: so the rate is of now.
    let rates = registry.vitals(&circuit).unwrap().rates;
    assert!(rates.over <= 11 * SECOND, "{rates:?}");
    assert!((rates.calls - 1.0).abs() < 0.11, "{rates:?}");

    // The task ends with the service.
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 1);
    drop(admin);
    advance(2 * SECOND).await;
    tokio::task::yield_now().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[test]
fn circuits_are_looked_at_though_the_runtime_of_the_first_call_is_gone() {
    let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build();
    let admin = {
        let first = runtime().unwrap();
        let _entered = first.enter();
        // Its task has not even begun when it goes.
        site().1
    };
    for _ in 0..2 {
        let next = runtime().unwrap();
        next.block_on(async {
            crate::site::said(&admin, Ask::get("/livez").into_request()).await;
            tokio::task::yield_now().await;
        });
        assert_eq!(next.metrics().num_alive_tasks(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (registry, admin) = site();
    let circuit = circuit(&registry, "inventory");
    let before = circuit.snapshot();
    let ask = Ask::command(
        http::Method::POST,
        "/api/v1/circuits/inventory/reset",
        &json!({ "reason": "a drill" }),
    );
    for (pieces, status, code) in [
        (vec![Piece::Data("{"), Piece::Never], 408, "too_slow"),
        (vec![Piece::Data("{"), Piece::Broken], 400, "malformed"),
    ] {
        let request = ask.clone().into_request().map(|_| Slow(pieces));
        let answer = timeout(11 * SECOND, crate::site::said(&admin, request)).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.error()["code"]), (status, &json!(code)));
    }
    // One that always has something, and nothing in it, lets others run.
    let request = ask.into_request().map(|_| Slow(vec![Piece::Empties]));
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(admin.oneshot(request)).poll(&mut context).is_pending());
    assert_eq!(circuit.snapshot().revision, before.revision);
}

impl Reader {
    async fn news_or_tick(&mut self) {
        self.next().await.expect("the stream is over");
    }
}

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A body that goes wrong in the end.
struct Slow(Vec<Piece>);

#[derive(Clone, Copy)]
enum Piece {
    Data(&'static str),
    Never,
    Broken,
    /// Frames without end that have nothing in them.
    Empties,
}

impl Body for Slow {
    type Data = bytes::Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, &'static str>>> {
        let data = |text: &'static str| Ok(http_body::Frame::data(text.into()));
        match self.0[0] {
            Piece::Data(text) => {
                self.0.remove(0);
                Poll::Ready(Some(data(text)))
            }
            Piece::Never => Poll::Pending,
            Piece::Broken => Poll::Ready(Some(Err("broken"))),
            Piece::Empties => Poll::Ready(Some(data(""))),
        }
    }
}
