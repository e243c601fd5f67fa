//! What is remembered: everything once, whatever happens to the disk, and
//! nothing ever waits for it.

use std::{
    collections::BTreeSet,
    fs,
    future::{Future, pending},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use brk::{
    config,
    history::{
        self, EventsAsked, EventsKept, History,
        minutes::{Counts, Lasted, Minute},
        store::{Batch, Cutoffs, Entry, Store},
    },
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tower::ServiceExt;
use tower_breaker::{AdminIdentity, AdminService, Circuit, Config, Outcome, Override, Registry};

const GUARD: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

fn keep() -> config::History {
    config::History { events: 90 * DAY, minutes: 7 * DAY }
}

/// A directory, and what is remembered in it.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("history.db")
    }

    fn begin(&self, registry: &Registry) -> History {
        self.begin_until(registry, pending())
    }

    fn begin_until(
        &self,
        registry: &Registry,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> History {
        history::begin(registry, self.path(), keep, stop).unwrap()
    }

    /// Remembers until something was done, and stops.
    async fn remember(&self, registry: &Registry, something: impl FnOnce()) {
        let (stop, stopped) = oneshot::channel::<()>();
        let history = self.begin_until(registry, async { drop(stopped.await) });
        something();
        drop(stop);
        assert!(history.finish(GUARD).await);
    }
}

#[expect(clippy::disallowed_methods, reason = "minutes go by the calendar")]
fn date() -> SystemTime {
    SystemTime::now()
}

fn registry() -> (Registry, Circuit) {
    let registry = Registry::new();
    let circuit = registry.circuit(Config::builder("orders").build().unwrap()).unwrap();
    (registry, circuit)
}

async fn flush(history: &History) {
    tokio::time::timeout(GUARD, history.flush()).await.expect("it is written");
}

fn all() -> EventsAsked {
    EventsAsked { since: UNIX_EPOCH, circuit: None, before: None, limit: 10_000 }
}

async fn events(history: &History) -> EventsKept {
    history.events(all()).await.unwrap().unwrap()
}

fn call(circuit: &Circuit, outcome: Outcome) {
    circuit.try_acquire().unwrap().record(outcome);
}

#[tokio::test]
async fn events_are_kept_as_they_were_told() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    let history = bench.begin(&registry);
    circuit.trip();
    circuit.set_override(Override::force_open().reason("index rebuild").owner("alice"));
    circuit.clear_override();
    registry.remove("orders");
    flush(&history).await;
    let told: Vec<_> = registry.events_after(0, 100).events;
    let epoch = format!("{:016x}", registry.epoch());
    let expected: Vec<_> =
        told.iter().map(|event| (epoch.clone(), serde_json::to_value(&**event).unwrap())).collect();
    assert_eq!(expected.len(), 5);
    assert_eq!(events(&history).await, EventsKept { events: expected, more: false });
}

#[tokio::test]
async fn who_asks_at_once_waits_for_the_database_to_be_made() {
    let (registry, _circuit) = registry();
    for of_no_use in [false, true].repeat(10) {
        let bench = Bench::new();
        if of_no_use {
            fs::write(bench.path(), "not a database, but as long as the head of one").unwrap();
        }
        let history = bench.begin(&registry);
        let minutes = history.minutes("orders", DAY).await.unwrap();
        assert_eq!(minutes.unwrap().steps, [None; 60]);
        history.events(all()).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_lost_or_there_twice_over_restarts() {
    let bench = Bench::new();
    let (registry, circuit) = registry();
    // The same process, over and over: it reads from the beginning each time.
    for _ in 0..3 {
        bench.remember(&registry, || circuit.trip()).await;
        circuit.reset();
    }
    // Two more, which count from 1 again.
    for _ in 0..2 {
        let (registry, circuit) = self::registry();
        bench.remember(&registry, || circuit.trip()).await;
    }
    let (other, _) = self::registry();
    let history = bench.begin(&other);
    flush(&history).await;
    let kept = events(&history).await.events;
    let numbers: Vec<_> = kept.iter().map(|(_, event)| event["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 1, 2, 1, 2, 1]);
    let epochs: BTreeSet<_> = kept.iter().map(|(epoch, _)| epoch).collect();
    assert_eq!(epochs.len(), 4);
}

#[tokio::test]
async fn what_left_the_registry_unread_is_counted_in_its_place() {
    let bench = Bench::new();
    let registry = Registry::builder().history(8).build();
    let circuit = registry.circuit(Config::builder("orders").build().unwrap()).unwrap();
    let history = bench.begin(&registry);
    flush(&history).await;
    for _ in 0..50 {
        circuit.trip();
        circuit.reset();
    }
    flush(&history).await;
    let kept = events(&history).await.events;
    let kinds: Vec<_> = kept.iter().map(|(_, event)| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds[..2], ["registered", "missed"]);
    assert!(kinds[2..].iter().all(|kind| *kind == "transition"));
    let missed = kept[1].1["missed"].as_u64().unwrap();
    assert_eq!(missed + kept.len() as u64 - 1, 101);
    // Whoever reads it all again knows what is there already.
    let before = kept.len();
    let again = bench.begin(&registry);
    flush(&again).await;
    assert_eq!(events(&again).await.events.len(), before);
}

#[tokio::test]
async fn what_was_kept_before_a_pause_is_not_called_missed() {
    let bench = Bench::new();
    let registry = Registry::builder().history(8).build();
    let circuit = registry.circuit(Config::builder("orders").build().unwrap()).unwrap();
    bench.remember(&registry, || circuit.trip()).await;
    for _ in 0..10 {
        circuit.reset();
        circuit.trip();
    }
    let history = bench.begin(&registry);
    flush(&history).await;
    let kept = events(&history).await.events;
    let missed: Vec<_> = kept.iter().filter_map(|(_, event)| event["missed"].as_u64()).collect();
    // Of 22 the first two were kept, and the last eight are.
    assert_eq!((kept.len(), missed), (2 + 1 + 8, vec![12]));
}

#[tokio::test]
async fn a_locked_database_is_waited_for_and_nothing_is_lost() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    let history = bench.begin(&registry);
    flush(&history).await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    circuit.trip();
    let mut flushed = Box::pin(history.flush());
    // Longer than it waits for a lock.
    let early = tokio::time::timeout(Duration::from_millis(1_500), &mut flushed).await;
    assert!(early.is_err(), "it was written in spite of the lock");
    // Meanwhile it can be read.
    assert_eq!(events(&history).await.events.len(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    tokio::time::timeout(GUARD, flushed).await.expect("it is written");
    assert_eq!(events(&history).await.events.len(), 2);
}

#[tokio::test]
async fn a_directory_that_is_not_there_stops_nothing_and_may_come_later() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    let path = bench.directory.path().join("later").join("history.db");
    let history = history::begin(&registry, path.clone(), keep, pending()).unwrap();
    circuit.trip();
    assert!(history.events(all()).await.is_err());
    assert_eq!(get(&history, "orders", "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    fs::create_dir(path.parent().unwrap()).unwrap();
    flush(&history).await;
    assert_eq!(events(&history).await.events.len(), 2);
}

/// In a process of its own, in which no file may be longer than 256 KiB.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_stops_nothing() {
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" --ignored --exact on_a_full_disk";
    let this = std::env::current_exe().unwrap();
    let ran = std::process::Command::new("bash").args(["-c", script]).arg(this).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by the test above, on a disk that is full"]
async fn on_a_full_disk() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    let (stop, stopped) = oneshot::channel::<()>();
    let history = bench.begin_until(&registry, async { drop(stopped.await) });
    let mut flushed = 0;
    // What fits is kept, until nothing does any more.
    loop {
        (0..200).for_each(|_| {
            circuit.trip();
            circuit.reset();
        });
        if tokio::time::timeout(Duration::from_secs(3), history.flush()).await.is_err() {
            break;
        }
        flushed += 400;
        assert!(flushed < 100_000, "the disk is never full");
    }
    assert!(flushed > 0);
    call(&circuit, Outcome::Success);
    drop(stop);
    assert!(history.finish(GUARD).await);
    // What was there is there, and whole.
    assert!(!bench.directory.path().join("history.db.damaged").exists());
    assert_eq!(events(&history).await.events.len(), flushed + 1);
}

#[tokio::test]
async fn whoever_stops_it_does_not_wait_for_a_disk_that_takes_nothing() {
    let (bench, (registry, _)) = (Bench::new(), registry());
    let path = bench.directory.path().join("never").join("history.db");
    let (stop, stopped) = oneshot::channel::<()>();
    let history = history::begin(&registry, path, keep, async { drop(stopped.await) }).unwrap();
    drop(stop);
    assert!(history.finish(GUARD).await);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside() {
    let (bench, (registry, _)) = (Bench::new(), registry());
    let scribble = [b"no database at all. ".repeat(500), vec![0; 100]].concat();
    fs::write(bench.path(), &scribble).unwrap();
    let history = bench.begin(&registry);
    flush(&history).await;
    assert_eq!(events(&history).await.events.len(), 1);
    assert_eq!(fs::read(bench.directory.path().join("history.db.damaged")).unwrap(), scribble);
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_another_begun() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    let trip = || {
        for _ in 0..1_000 {
            circuit.trip();
            circuit.reset();
        }
    };
    bench.remember(&registry, trip).await;
    let mut bytes = fs::read(bench.path()).unwrap();
    assert!(bytes.len() > 100_000, "{}", bytes.len());
    // Its first page is whole, so that it opens.
    bytes[8_192..60_000].fill(0xa5);
    fs::write(bench.path(), bytes).unwrap();

    let (registry, _) = self::registry();
    let history = bench.begin(&registry);
    flush(&history).await;
    assert_eq!(events(&history).await.events.len(), 1);
    assert!(bench.directory.path().join("history.db.damaged").exists());
}

#[tokio::test]
async fn a_database_that_gets_damaged_is_set_aside_while_it_runs() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    let history = bench.begin(&registry);
    flush(&history).await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    let damage = "PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET rootpage = 999999 WHERE name = 'events';
        PRAGMA schema_version = 12345;";
    other.execute_batch(damage).unwrap();
    circuit.trip();
    flush(&history).await;
    let kinds: Vec<_> =
        events(&history).await.events.into_iter().map(|(_, event)| event["kind"].clone()).collect();
    assert_eq!(kinds, ["transition"]);
    assert!(bench.directory.path().join("history.db.damaged").exists());
}

#[tokio::test]
async fn the_database_of_a_later_release_is_left_as_it_is() {
    let (bench, (registry, _)) = (Bench::new(), registry());
    bench.remember(&registry, || {}).await;
    let later = |path: &Path| rusqlite::Connection::open(path).unwrap();
    later(&bench.path()).pragma_update(None, "user_version", 99).unwrap();
    let history = bench.begin(&registry);
    flush(&history).await;
    assert_eq!(events(&history).await.events.len(), 1);
    let aside = later(&bench.directory.path().join("history.db.version-99"));
    let count: i64 = aside.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn minutes_add_up_to_the_calls_there_were() {
    let bench = Bench::new();
    let (registry, circuit) = registry();
    // Before anybody looks.
    call(&circuit, Outcome::Success);
    let history = bench.begin(&registry);
    let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Ignored, Outcome::Failure];
    outcomes.into_iter().for_each(|outcome| call(&circuit, outcome));
    flush(&history).await;
    circuit.trip();
    assert!(circuit.try_acquire().is_err());
    flush(&history).await;
    let series = history.minutes("orders", DAY).await.unwrap().unwrap();
    assert_eq!(series.step, Duration::from_secs(24 * 60));
    assert_eq!(series.steps.len(), 60);
    let now = date();
    assert!(series.end > now && series.end <= now + series.step);
    let sums: Vec<_> = series.steps.iter().flatten().collect();
    let count = |of: fn(&Counts) -> u64| sums.iter().map(|sum| of(&sum.counts)).sum::<u64>();
    assert_eq!(count(|counts| counts.calls), 5);
    assert_eq!(count(|counts| counts.failures), 2);
    assert_eq!(count(|counts| counts.rejected), 1);
    assert_eq!(history.minutes("nobody", DAY).await.unwrap(), None);
}

#[tokio::test]
async fn a_restored_circuit_does_not_count_its_former_life() {
    let bench = Bench::new();
    let (before, circuit) = registry();
    (0..7).for_each(|_| call(&circuit, Outcome::Success));
    let saved = circuit.save();
    drop(before);
    let registry = Registry::new();
    let circuit = registry.restore(Config::builder("orders").build().unwrap(), saved).unwrap();
    call(&circuit, Outcome::Success);
    let history = bench.begin(&registry);
    call(&circuit, Outcome::Success);
    // Its last minute counts, too.
    registry.remove("orders");
    flush(&history).await;
    let series = history.minutes("orders", DAY).await.unwrap().unwrap();
    let calls: u64 = series.steps.iter().flatten().map(|sum| sum.counts.calls).sum();
    assert_eq!(calls, 2);
}

fn minute(number: i64, calls: u64, p50: Option<u64>, p99: Option<u64>) -> Minute {
    Minute {
        circuit: "orders".into(),
        number,
        counts: Counts { calls, ..Counts::default() },
        p50: p50.map(Duration::from_millis),
        p99: p99.map(Duration::from_millis),
        lasted: Lasted { closed: Duration::from_secs(30), ..Lasted::default() },
    }
}

#[test]
fn two_parts_of_a_minute_become_one() {
    let bench = Bench::new();
    let mut store = Store::open(&bench.path()).unwrap();
    let parts = vec![
        minute(1_000, 10, Some(20), Some(90)),
        minute(1_000, 30, Some(40), Some(70)),
        minute(1_000, 5, None, None),
        minute(1_001, 45, Some(100), None),
        minute(1_002, 0, None, None),
    ];
    store.write(&Batch { epoch: 1, entries: vec![], minutes: parts }).unwrap();
    let reader = history::store::Reader::open(&bench.path()).unwrap();
    let minutes = reader.sums("orders", 999, 1, 5).unwrap();
    assert_eq!(minutes[0], None);
    let first = minutes[1].unwrap();
    assert_eq!(first.counts.calls, 45);
    assert_eq!(first.lasted.closed, Duration::from_secs(90));
    assert_eq!(
        (first.p50, first.p99),
        (Some(Duration::from_millis(40)), Some(Duration::from_millis(90)))
    );
    assert_eq!(minutes[3].unwrap().p50, None);
    // Both and an idle one: the median is weighed by calls.
    let sum = reader.sums("orders", 1_000, 10, 1).unwrap()[0].unwrap();
    assert_eq!((sum.counts.calls, sum.p50), (90, Some(Duration::from_millis(70))));
}

#[test]
fn what_is_too_old_goes_a_little_at_a_time() {
    let bench = Bench::new();
    let mut store = Store::open(&bench.path()).unwrap();
    let now = UNIX_EPOCH + 10_000 * DAY;
    let old = |number: u64| Entry::Missed { last: number, count: 1, at: now - 100 * DAY };
    let young = |number: u64| Entry::Missed { last: number, count: 1, at: now - 80 * DAY };
    let entries = (1..=1_200).map(old).chain((1_201..=1_203).map(young)).collect();
    let last =
        i64::try_from((now - 7 * DAY).duration_since(UNIX_EPOCH).unwrap().as_secs() / 60).unwrap();
    let minutes = [last - 1, last, last + 1].map(|number| minute(number, 1, None, None));
    store.write(&Batch { epoch: 1, entries, minutes: minutes.to_vec() }).unwrap();
    let count = |table: &str| -> i64 {
        let connection = rusqlite::Connection::open(bench.path()).unwrap();
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap()
    };
    let cutoffs = Cutoffs { events: now - 90 * DAY, most: usize::MAX >> 1, minutes: now - 7 * DAY };
    for (left, more) in [(703, true), (203, true), (3, false), (3, false)] {
        assert_eq!(store.prune(cutoffs).unwrap(), more);
        assert_eq!(count("events"), left);
    }
    assert_eq!(count("minutes"), 2);
}

#[test]
fn nobody_else_reads_what_is_remembered() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::new();
    Store::open(&bench.path()).unwrap();
    assert_eq!(fs::metadata(bench.path()).unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn however_much_happens_the_file_does_not_grow_without_end() {
    let bench = Bench::new();
    let mut store = Store::open(&bench.path()).unwrap();
    let connection = rusqlite::Connection::open(bench.path()).unwrap();
    connection
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
            INSERT INTO events (epoch, number, at_ms, circuit, event)
                SELECT '0', i, 9000000000000 + i, 'orders', '{}' FROM n",
            [1_700],
        )
        .unwrap();
    let cutoffs = Cutoffs { events: UNIX_EPOCH, most: 1_000, minutes: UNIX_EPOCH };
    while store.prune(cutoffs).unwrap() {}
    let (count, first): (i64, i64) = connection
        .query_row("SELECT count(*), min(number) FROM events", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((count, first), (1_000, 701), "the oldest go");
}

/// As whoever may look asks for it.
async fn get(history: &History, path: &str, query: &str) -> (StatusCode, Value) {
    let history = history.clone();
    let admin = AdminService::builder(&Registry::new())
        .check(|_| Some(AdminIdentity::viewer("viewer")))
        .resource("history", move |request| history::answer(history.clone(), request))
        .build()
        .unwrap();
    let uri = format!("/api/v1/history/{path}?{query}");
    let request = Request::get(uri).header("host", "localhost").body(Empty::<Bytes>::new());
    let answer = admin.oneshot(request.unwrap()).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn the_page_gets_its_series() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    let history = bench.begin(&registry);
    call(&circuit, Outcome::Failure);
    circuit.trip();
    // The opening lasts for as long as it takes to write it.
    flush(&history).await;
    flush(&history).await;
    for (path, range, step_ms) in
        [("orders", "range=24h", 1_440_000), ("circuits/orders", "range=7d", 10_080_000)]
    {
        let (status, answer) = get(&history, path, range).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let series = &answer["series"];
        assert_eq!(series["step_ms"], step_ms);
        for row in ["calls", "failures", "slow", "rejected", "p50_ms", "p99_ms", "state"] {
            assert_eq!(series[row].as_array().unwrap().len(), 60, "{row}");
        }
        assert_eq!(series["failures"][59], 1);
        assert_eq!(series["calls"][0], Value::Null);
        assert_eq!(series["state"][59], "o");
    }
}

#[tokio::test]
async fn events_are_read_backwards_page_by_page() {
    let (bench, (registry, circuit)) = (Bench::new(), registry());
    registry.circuit(Config::builder("other").build().unwrap()).unwrap().trip();
    let history = bench.begin(&registry);
    (0..5).for_each(|_| {
        circuit.trip();
        circuit.reset();
    });
    flush(&history).await;
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let query = format!("circuit=orders&limit=4{before}");
        let (status, answer) = get(&history, "events", &query).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let events = answer["events"].as_array().unwrap().clone();
        before = format!("&before={}", events[0]["cursor"].as_str().unwrap());
        seen.splice(0..0, events);
        if answer["more"] == false {
            break;
        }
    }
    let numbers: Vec<_> = seen.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told_by_its_field() {
    let (bench, (registry, _)) = (Bench::new(), registry());
    let history = bench.begin(&registry);
    flush(&history).await;
    for (path, query, field) in [
        ("orders", "range=1h", "range"),
        ("orders", "range=24h&range=7d", "range"),
        ("orders", "colour=red", "the query"),
        ("events", "limit=0", "limit"),
        ("events", "limit=1001", "limit"),
        ("events", "before=17", "before"),
        ("events", "before=9f-17", "before"),
        ("events", "range=long", "range"),
    ] {
        let (answered, answer) = get(&history, path, query).await;
        assert_eq!((answered.as_u16(), &answer["error"]["field"]), (422, &field.into()), "{query}");
    }
    for path in ["nobody", "a/b", "circuits/a/b"] {
        assert_eq!(get(&history, path, "").await.0, StatusCode::NOT_FOUND, "{path:?}");
    }
    assert_eq!(get(&history, "ord%65rs", "").await.0, StatusCode::OK);
}

#[test]
fn an_event_knows_its_history_from_any_other() {
    let bench = Bench::new();
    let (registry, _) = registry();
    let event = Arc::clone(&registry.events_after(0, 1).events[0]);
    let mut store = Store::open(&bench.path()).unwrap();
    for epoch in [1, 2, 1] {
        let entries = vec![Entry::Event(Arc::clone(&event))];
        store.write(&Batch { epoch, entries, minutes: vec![] }).unwrap();
    }
    let reader = history::store::Reader::open(&bench.path()).unwrap();
    let epochs: Vec<_> = reader.events(&all()).unwrap().unwrap().events;
    let epochs: Vec<_> = epochs.into_iter().map(|(epoch, _)| epoch).collect();
    assert_eq!(epochs, ["0000000000000001", "0000000000000002"]);
}
