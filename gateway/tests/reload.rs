//! Another configuration under the same traffic, and the same circuits after a
//! restart.

mod stacked;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use brk::{
    config::{self, Settings},
    gateway::{self, ChangeError, Gateway},
    proxy::{Stack, stack},
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tower_breaker::{Outcome, Override, OverrideKind, State};

use crate::stacked::{Mock, ask, get, no_connection, signed, text};

/// A guard, and no measure.
const SOON: Duration = Duration::from_secs(60);

struct Files {
    directory: TempDir,
}

impl Files {
    fn new(services: &str) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        files.write(services);
        files
    }

    fn main(&self) -> PathBuf {
        self.directory.path().join("brk.toml")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state/state.json")
    }

    fn text(services: &str) -> String {
        format!("[admin]\nstate = \"state\"\n{services}")
    }

    fn write(&self, services: &str) {
        fs::write(self.main(), Self::text(services)).unwrap();
    }

    fn settings(&self) -> Settings {
        config::load(&self.main()).unwrap()
    }

    fn start(&self) -> Gateway {
        Gateway::start(self.main(), self.settings())
    }
}

/// A service whose circuit opens at once and for an hour.
fn service(name: &str, more: &str) -> String {
    format!(
        "[services.{name}]\nupstream = \"http://127.0.0.1:1\"\n{more}\n[services.{name}.circuit]\n\
         open_for = {{ fixed = \"1h\" }}\n"
    )
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn what_a_circuit_knows_stays() {
    let files = Files::new(&["kept", "changed", "gone"].map(|name| service(name, "")).concat());
    let gateway = files.start();
    let before = gateway.table();
    for name in ["kept", "changed", "gone"] {
        let circuit = &before.service(name).unwrap().circuit;
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        circuit.set_override(Override::force_closed().reason("a test"));
        circuit.trip();
    }
    let changed = service("changed", "upgrade = true");
    files.write(&[service("kept", ""), changed, service("new", "")].concat());
    let applied = gateway.reload().unwrap();
    assert_eq!(applied.added, names(&["new"]));
    assert_eq!(applied.changed, names(&["changed"]));
    assert_eq!(applied.removed, names(&["gone"]));
    assert_eq!(applied.revision, before.revision + 1);
    assert!(applied.needs_restart.is_empty());

    let after = gateway.table();
    // Whoever has built on it has nothing to build anew.
    assert!(Arc::ptr_eq(before.service("kept").unwrap(), after.service("kept").unwrap()));
    assert!(after.service("changed").unwrap().settings.upgrade);
    for name in ["kept", "changed"] {
        let circuit = &after.service(name).unwrap().circuit;
        assert_eq!(circuit.state(), State::Open);
        let snapshot = circuit.snapshot();
        assert_eq!(snapshot.totals.failure, 1);
        assert_eq!(snapshot.active_override.unwrap().kind, OverrideKind::ForceClosed);
        // The registry shows the one that is at work.
        assert_eq!(gateway.registry().get(name).unwrap().snapshot().totals.failure, 1);
    }
    assert_eq!(after.service("new").unwrap().circuit.state(), State::Closed);
    assert!(gateway.registry().get("gone").is_none());

    // The same again is nothing new.
    let applied = gateway.reload().unwrap();
    assert!(applied.is_empty());
    assert!(Arc::ptr_eq(&gateway.table(), &after));
}

/// The stack of the only service as these files have it.
fn stack_with(files: &Files, gateway: &Gateway, more: &str, mock: &Mock) -> Stack<Mock> {
    files.write(&format!("[services.a]\n{more}"));
    gateway.reload().unwrap();
    stack(gateway.table().service("a").unwrap(), mock.clone())
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_there_until_it_would_be_anothers() {
    const WAS: &str = "upstream = \"http://127.0.0.1:1\"\nwhen_open.stale.ttl = \"1h\"";

    let files = Files::new("");
    let (gateway, mock) = (files.start(), Mock::ok());
    let stack = |more: &str| stack_with(&files, &gateway, more, &mock);
    text(ask(&stack(WAS), get()).await).await;
    let circuit = gateway.registry().get("a").unwrap();
    circuit.set_override(Override::force_open().until_cleared());
    for more in ["", "timeouts.head = \"3s\"", "retry = {}", "when_open.respond.status = 500"] {
        let answer = ask(&stack(&format!("{WAS}\n{more}")), get()).await;
        assert_eq!(signed(&answer)[2], Some("stale"), "{more}");
        assert_eq!(text(answer).await, "from the upstream");
    }
    for other in
        [WAS.replace(":1", ":2"), WAS.replace("1h", "2h"), format!("{WAS}\npath = \"/list\"")]
    {
        circuit.clear_override();
        text(ask(&stack(WAS), get()).await).await;
        circuit.set_override(Override::force_open().until_cleared());
        let answer = ask(&stack(&other), get()).await;
        assert_eq!(signed(&answer)[2], Some("refused"), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_not_full_again_because_something_else_has_changed() {
    const WAS: &str = "upstream = \"http://127.0.0.1:1\"\nprotect = false";

    let files = Files::new("");
    let (gateway, mock) = (files.start(), Mock::that(no_connection));
    let stack = |more: &str| stack_with(&files, &gateway, &format!("{WAS}\n{more}"), &mock);
    let attempts = async |stack: &Stack<Mock>| {
        let before = mock.calls();
        ask(stack, get()).await;
        mock.calls() - before
    };
    let first = stack("retry.budget = 0.01");
    for _ in 0..100 {
        attempts(&first).await;
    }
    assert_eq!(attempts(&first).await, 1, "it is used up");
    assert_eq!(attempts(&stack("retry.budget = 0.01\ntimeouts.head = \"3s\"")).await, 1);
    assert_eq!(attempts(&stack("retry.budget = 0.1")).await, 2, "another is a new one");
}

#[test]
fn new_rules_hold_for_the_old_circuit() {
    let files = Files::new(&service("a", ""));
    let gateway = files.start();
    let circuit = gateway.table().service("a").unwrap().circuit.clone();
    files.write(&(service("a", "") + "consecutive_failures = 1"));
    assert_eq!(gateway.reload().unwrap().changed, names(&["a"]));
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    assert_eq!(gateway.table().service("a").unwrap().circuit.state(), State::Open);
}

#[test]
fn routes_are_tried_in_their_order() {
    let route = |name, more: &str| format!("[services.{name}]\nupstream = \"http://h\"\n{more}\n");
    let files = Files::new(
        &[
            route("a", "path = \"/\""),
            route("b", "path = \"/long/er\""),
            route("c", "host = \"h\""),
            route("d", "path = \"/long\"\nhost = \"h\""),
        ]
        .concat(),
    );
    let table = files.start().table();
    let order: Vec<&str> = table.services.iter().map(|service| &*service.settings.name).collect();
    assert_eq!(order, ["d", "c", "b", "a"]);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_so() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let success = || {
        let metrics = snapshotter.snapshot().into_vec();
        let found = metrics
            .into_iter()
            .find(|(key, ..)| key.key().name() == "gateway_config_last_reload_success");
        found.map(|(.., value)| value)
    };
    metrics::with_local_recorder(&recorder, || {
        let files = Files::new(&[service("a", ""), service("b", "")].concat());
        let gateway = files.start();
        let before = gateway.table();
        // One half of it would be right.
        files.write(&[service("new", ""), service("a", "upgraed = true")].concat());
        let error = gateway.reload().unwrap_err();
        assert!(error.to_string().ends_with("unknown key, did you mean `upgrade`?"), "{error}");
        assert!(Arc::ptr_eq(&gateway.table(), &before));
        assert_eq!(gateway.registry().circuits().len(), 2);
        assert_eq!(gateway.last_reload().result, Err(error));
        assert_eq!(success(), Some(DebugValue::Gauge(0.0.into())));

        files.write(&service("a", ""));
        let applied = gateway.reload().unwrap();
        assert_eq!(applied.removed, names(&["b"]));
        assert_eq!(gateway.last_reload().result, Ok(applied));
        assert_eq!(success(), Some(DebugValue::Gauge(1.0.into())));
    });
}

#[test]
fn a_service_is_changed_by_whoever_saw_how_it_is() {
    let files = Files::new("");
    let gateway = files.start();
    let table = |text| toml::from_str::<toml::Table>(text).unwrap();
    let seen = gateway.table().revision;
    let one = table("upstream = \"http://h\"");
    let applied = gateway.put_service("a", &one, Some(seen)).unwrap();
    assert_eq!(applied.added, names(&["a"]));
    let two = table("upstream = \"http://g\"");
    let error = gateway.put_service("a", &two, Some(seen)).unwrap_err();
    assert_eq!(error, ChangeError::Changed { revision: seen + 1 });
    let error = gateway.remove_service("a", Some(seen)).unwrap_err();
    assert_eq!(error, ChangeError::Changed { revision: seen + 1 });
    assert_eq!(files.settings().services["a"].upstream.url, "http://h/");

    let wrong = table("upstream = \"h\"");
    assert!(matches!(gateway.put_service("a", &wrong, None), Err(ChangeError::Config(_))));
    assert_eq!(gateway.put_service("a", &two, Some(seen + 1)).unwrap().changed, names(&["a"]));
    let removed = gateway.remove_service("a", Some(seen + 2)).unwrap().unwrap();
    assert_eq!(removed.removed, names(&["a"]));
    assert_eq!(gateway.remove_service("a", None).unwrap(), None);
    assert!(files.settings().services.is_empty());
}

#[test]
fn a_change_that_is_refused_leaves_the_files_alone() {
    let files = Files::new("");
    let gateway = files.start();
    let a = toml::from_str::<toml::Table>("upstream = \"http://h\"").unwrap();
    gateway.put_service("a", &a, None).unwrap();
    let path = |name: &str| files.directory.path().join(format!("services.d/{name}.toml"));
    // What is wrong with another has nothing to do with it, and yet all is read
    // together or nothing is.
    fs::write(path("b"), "nonsense").unwrap();
    let error = gateway.remove_service("a", None).unwrap_err();
    assert!(error.to_string().contains("b.toml"), "{error}");
    assert!(path("a").exists() && gateway.table().service("a").is_some());
    // What is wrong may go, and the rest is right then.
    gateway.remove_service("b", None).unwrap().unwrap();

    // As while an editor writes it.
    fs::write(files.main(), "").unwrap();
    gateway.put_service("c", &a, None).unwrap_err();
    gateway.remove_service("a", None).unwrap_err();
    assert!(path("a").exists() && !path("c").exists());
    files.write("");
    assert_eq!(gateway.remove_service("a", None).unwrap().unwrap().removed, names(&["a"]));
}

#[test]
fn what_waits_for_a_restart_is_named() {
    let files = Files::new("");
    let gateway = files.start();
    let server = "[server]\nlisten = \"127.0.0.1:0\"\nbreaker_headers = false";
    files.write(&format!("hosts = \"h\"\n{server}"));
    let applied = gateway.reload().unwrap();
    assert_eq!(applied.needs_restart, ["server.listen", "admin"]);
    assert!(!gateway.table().settings.server.breaker_headers);
    // As long as it does.
    files.write("");
    assert!(gateway.reload().unwrap().needs_restart.is_empty());
}

/// Calls find their service and are let through, whatever is changed.
#[test]
fn a_thousand_changes_fail_no_call() {
    let text = |turn: usize| {
        let steady = service("steady", &format!("upgrade = {}", turn % 2 == 0));
        let rules = format!("minimum_calls = {}\n", 5 + turn % 10);
        let other = if turn % 3 == 0 { service("other", "") } else { String::new() };
        [steady, rules, other].concat()
    };
    let files = Files::new(&text(0));
    let gateway = files.start();
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let table = gateway.table();
                    let service = table.service("steady").expect("the service is always there");
                    let permit = service.circuit.try_acquire().expect("nothing has failed");
                    calls.fetch_add(1, Ordering::Relaxed);
                    permit.record(Outcome::Success);
                    thread::yield_now();
                }
            });
        }
        for turn in 1..=1_000 {
            // Some between any two.
            let before = calls.load(Ordering::Relaxed);
            while calls.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
            files.write(&text(turn));
            let applied = gateway.reload().unwrap();
            assert_eq!(applied.changed, names(&["steady"]));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let snapshot = gateway.table().service("steady").unwrap().circuit.snapshot();
    assert_eq!(snapshot.totals.success, calls.into_inner());
    assert_eq!(snapshot.totals.rejected + snapshot.totals.failure + snapshot.totals.stale, 0);
    assert_eq!(gateway.table().revision, 1_001);
}

/// A gateway with all that goes on beside the requests.
struct Kept {
    gateway: Gateway,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Kept {
    fn start(files: &Files) -> Self {
        let gateway = files.start();
        let (stop, stopped) = oneshot::channel::<()>();
        let keep = gateway.keep(async {
            let _ = stopped.await;
        });
        Self { gateway, stop, task: tokio::spawn(keep) }
    }

    async fn stop(self) {
        drop(self.stop);
        timeout(SOON, self.task).await.expect("it stops").unwrap();
    }

    /// As a process that is killed.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Waits until something was tried to be read.
    async fn reloaded(&self, what: impl FnOnce()) -> Result<gateway::Applied, config::Error> {
        let mut reloads = self.gateway.reloads();
        reloads.mark_unchanged();
        what();
        timeout(SOON, reloads.changed()).await.expect("the change is seen").unwrap();
        self.gateway.last_reload().result.clone()
    }
}

#[tokio::test]
async fn a_change_of_a_file_is_seen() {
    let files = Files::new(&service("a", ""));
    let kept = Kept::start(&files);
    let applied = kept.reloaded(|| files.write(&service("b", ""))).await.unwrap();
    assert_eq!((applied.added, applied.removed), (names(&["b"]), names(&["a"])));

    // As editors do.
    let renamed = || {
        let other = files.directory.path().join(".brk.toml.new");
        fs::write(&other, Files::text(&service("c", ""))).unwrap();
        fs::rename(other, files.main()).unwrap();
    };
    assert_eq!(kept.reloaded(renamed).await.unwrap().added, names(&["c"]));
    let error = kept.reloaded(|| files.write("x = 1")).await.unwrap_err();
    assert!(error.to_string().contains("unknown key"), "{error}");
    assert!(kept.gateway.table().service("c").is_some());
    files.write(&service("c", ""));

    // Also in a directory that was not there, and one that is there again.
    let d = files.directory.path().join("services.d");
    for _ in 0..2 {
        let put = || {
            fs::create_dir(&d).unwrap();
            fs::write(d.join("d.toml"), "upstream = \"http://h\"").unwrap();
        };
        let mut reloads = kept.gateway.reloads();
        put();
        let is_there = |there| {
            let gateway = kept.gateway.clone();
            move |_: &Arc<gateway::Reload>| gateway.table().service("d").is_some() == there
        };
        timeout(SOON, reloads.wait_for(is_there(true))).await.unwrap().unwrap();
        fs::write(d.join("d.toml"), "upstream = \"http://g\"").unwrap();
        let is_changed = |_: &Arc<gateway::Reload>| {
            let table = kept.gateway.table();
            table.service("d").is_some_and(|d| d.settings.upstream.url == "http://g/")
        };
        timeout(SOON, reloads.wait_for(is_changed)).await.unwrap().unwrap();
        fs::remove_dir_all(&d).unwrap();
        timeout(SOON, reloads.wait_for(is_there(false))).await.unwrap().unwrap();
    }
    kept.stop().await;
}

#[tokio::test]
async fn a_change_before_anybody_watched_is_seen() {
    let files = Files::new(&service("a", ""));
    let gateway = files.start();
    files.write(&service("b", ""));
    // Made later, it would be a change, too.
    fs::create_dir(files.directory.path().join("state")).unwrap();
    let mut reloads = gateway.reloads();
    let kept = tokio::spawn(gateway.keep(std::future::pending()));
    timeout(SOON, reloads.changed()).await.expect("the change is seen").unwrap();
    assert!(gateway.table().service("b").is_some());
    kept.abort();
}

/// What is saved of a circuit, once it is.
async fn saved(files: &Files, is: impl Fn(&serde_json::Value) -> bool) {
    let look = async {
        loop {
            let text = fs::read_to_string(files.state()).unwrap_or_default();
            // It is there as a whole or not at all.
            if !text.is_empty() && is(&serde_json::from_str(&text).expect("a whole file")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, look).await.expect("it is saved");
}

#[tokio::test]
async fn a_killed_process_is_as_it_was() {
    let files = Files::new(&["open", "held", "closed"].map(|name| service(name, "")).concat());
    let kept = Kept::start(&files);
    let circuit = |gateway: &Gateway, name| gateway.table().service(name).unwrap().circuit.clone();
    // From then on it is an event that has it saved.
    saved(&files, |state| state["circuits"].as_array().unwrap().len() == 3).await;
    circuit(&kept.gateway, "open").trip();
    circuit(&kept.gateway, "held").set_override(Override::force_open().reason("index rebuild"));
    saved(&files, |state| {
        let circuits = state["circuits"].as_array().unwrap();
        circuits.iter().any(|circuit| circuit["name"] == "open" && circuit["state"] == "open")
            && circuits.iter().any(|circuit| !circuit["active_override"].is_null())
    })
    .await;
    let revision = kept.gateway.table().revision;
    let wait_before = circuit(&kept.gateway, "open").snapshot().retry_after.unwrap();
    kept.kill().await;

    let gateway = files.start();
    assert_eq!(gateway.table().revision, revision + 1);
    let open = circuit(&gateway, "open").snapshot();
    assert_eq!(open.state, State::Open);
    let wait = open.retry_after.unwrap();
    // What is left of an hour, which is neither begun anew nor over.
    assert!(wait <= wait_before && wait > Duration::from_secs(1_800), "{wait:?}");
    assert!(circuit(&gateway, "open").try_acquire().is_err());
    let held = circuit(&gateway, "held").snapshot().active_override.unwrap();
    assert_eq!(held.kind, OverrideKind::ForceOpen);
    assert_eq!(held.reason.as_deref(), Some("index rebuild"));
    assert_eq!(circuit(&gateway, "closed").state(), State::Closed);
    assert_eq!(gateway.registry().circuits().len(), 3);
}

/// A gateway that saves without end, and is killed at any moment.
#[test]
#[ignore = "it is the program that the next test starts"]
fn saver() {
    let Some(main) = std::env::var_os("BRK_SAVER").map(PathBuf::from) else { return };
    let gateway = Gateway::start(&main, config::load(&main).unwrap());
    let circuit = gateway.table().service("a").unwrap().circuit.clone();
    loop {
        circuit.reset();
        gateway.save().unwrap();
        println!("closed");
        circuit.trip();
        gateway.save().unwrap();
        println!("open");
    }
}

#[cfg(unix)]
#[test]
fn a_saver_that_is_killed_loses_nothing() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    // Of so many that one file is not written in one go by chance.
    let services: Vec<_> = (0..100).map(|number| service(&format!("s{number}"), "")).collect();
    let files = Files::new(&(service("a", "") + &services.concat()));
    for round in 0..20 {
        let mut saver = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "saver", "--ignored", "--nocapture"])
            .env("BRK_SAVER", files.main())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(saver.stdout.take().unwrap()).lines().map(Result::unwrap);
        let is_state = |line: &String| line == "open" || line == "closed";
        assert!(lines.by_ref().filter(is_state).nth(round % 4).is_some());
        (0..round * 20_000).for_each(|_| std::hint::spin_loop());
        // SIGKILL.
        saver.kill().unwrap();
        saver.wait().unwrap();

        let before: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(files.state()).unwrap()).unwrap();
        let gateway = files.start();
        assert!(!files.state().with_extension("json.damaged").exists());
        assert_eq!(gateway.table().revision, before["revision"].as_u64().unwrap() + 1);
        assert_eq!(gateway.registry().circuits().len(), 101);
        let a = gateway.table().service("a").unwrap().circuit.state();
        let saved = before["circuits"].as_array().unwrap();
        let saved = saved.iter().find(|circuit| circuit["name"] == "a").unwrap();
        assert_eq!(saved["state"], a.as_str());
    }
}

#[tokio::test]
async fn a_stop_saves_what_no_event_told_of() {
    let files = Files::new(&service("a", ""));
    let kept = Kept::start(&files);
    let circuit = kept.gateway.table().service("a").unwrap().circuit.clone();
    saved(&files, |state| state["circuits"][0]["totals"]["success"] == 0).await;
    circuit.try_acquire().unwrap().record(Outcome::Success);
    kept.stop().await;
    let gateway = files.start();
    assert_eq!(gateway.table().service("a").unwrap().circuit.snapshot().totals.success, 1);
}

/// What was held while the disk was full used to be forgotten by the next
/// process, unless something else happened before that.
#[tokio::test]
async fn what_could_not_be_saved_is_saved_once_it_can_be() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let files = Files::new(&service("a", ""));
    let directory = files.directory.path().join("state");
    fs::write(&directory, "in the way").unwrap();
    let kept = Kept::start(&files);
    let is_failed = async {
        let name = "gateway_state_save_failures_total";
        let is_it = |key: &metrics_util::CompositeKey| key.key().name() == name;
        while !snapshotter.snapshot().into_vec().iter().any(|(key, ..)| is_it(key)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, is_failed).await.expect("it is tried, and told");
    fs::remove_file(&directory).unwrap();
    saved(&files, |state| state["circuits"][0]["name"] == "a").await;
    kept.stop().await;
}

/// Whoever saw a revision must not meet another configuration under its number,
/// also after a kill.
#[tokio::test]
async fn a_revision_is_saved_although_no_circuit_has_changed() {
    let files = Files::new(&service("a", ""));
    let kept = Kept::start(&files);
    saved(&files, |state| state["revision"] == 1).await;
    files.write(&service("a", "upgrade = true"));
    kept.gateway.reload().unwrap();
    saved(&files, |state| state["revision"] == 2).await;
    kept.kill().await;
}

/// Nor may it if the kill comes just after the answer.
#[test]
fn no_revision_is_told_before_it_is_saved() {
    let files = Files::new("");
    for turn in 1..=3 {
        let gateway = files.start();
        let before = gateway.table().revision;
        let service = format!("upstream = \"http://h:{turn}\"");
        let service = toml::from_str::<toml::Table>(&service).unwrap();
        let put = gateway.put_service("a", &service, None).unwrap();
        let removed = gateway.remove_service("a", None).unwrap().unwrap();
        assert_eq!([put.revision, removed.revision], [before + 1, before + 2]);
        assert_eq!(files.start().table().revision, removed.revision + 1);
    }
}

#[test]
fn a_damaged_state_is_set_aside() {
    let files = Files::new(&[service("a", ""), service("b", "")].concat());
    let gateway = files.start();
    gateway.registry().circuits().iter().for_each(|circuit| circuit.trip());
    gateway.save().unwrap();
    let whole = fs::read_to_string(files.state()).unwrap();
    let aside = files.state().with_extension("json.damaged");
    for damaged in ["", "{", "[]", "\0\0\0", &whole[..whole.len() / 2]] {
        fs::write(files.state(), damaged).unwrap();
        let gateway = files.start();
        assert!(
            gateway.registry().circuits().iter().all(|circuit| circuit.state() == State::Closed)
        );
        assert_eq!(fs::read_to_string(&aside).unwrap(), damaged);
        assert!(!files.state().exists());
    }
    // Of two the one that is whole is as it was.
    fs::write(files.state(), whole.replacen("\"state\": \"open\"", "\"state\": \"ajar\"", 1))
        .unwrap();
    let gateway = files.start();
    let states = |gateway: &Gateway| {
        let circuits = gateway.registry().circuits();
        circuits.iter().map(|circuit| circuit.state()).collect::<Vec<_>>()
    };
    assert_eq!(states(&gateway), [State::Closed, State::Open]);
    // What is there was not written by a stranger, so others may not read it.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        gateway.save().unwrap();
        assert_eq!(fs::metadata(files.state()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
