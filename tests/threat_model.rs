//! `THREAT-MODEL.md` is true: each of its rows names a test, and each test that
//! it names is there. What it says that no other test had to say is tested here.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_breaker::{Circuit, Config, ConfigBuilder, KeyedCircuits, ManualClock, Outcome, State};
use tracing_subscriber::layer::SubscriberExt;

fn source(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// The page's tests are in Python.
const PAGE: &str = "tests/page/run";

/// What stands between backticks and is the path of a test.
fn tests_of(row: &str) -> Vec<(&str, &str)> {
    let codes = row.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::"));
    codes.filter(|(file, _)| file.ends_with(".rs") || *file == PAGE).collect()
}

#[test]
fn every_row_names_a_test_and_every_test_is_there() {
    let model = source("THREAT-MODEL.md").expect("it is there");
    let is_row = |line: &&str| {
        line.starts_with("| ") && !line.starts_with("| threat ") && !line.starts_with("|--")
    };
    let rows: Vec<&str> = model.lines().filter(is_row).collect();
    assert!(rows.len() > 40, "only {} rows", rows.len());

    // Who has the package alone does not have the tests of the other ones.
    let is_whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("stacks").is_dir();
    let mut wrong = String::new();
    for row in rows {
        let tests = tests_of(row);
        if tests.is_empty() {
            writeln!(wrong, "no test: {row}").unwrap();
        }
        for (file, name) in tests {
            let is_test = |text: String| {
                if file == PAGE {
                    return text.contains(&format!("\ndef {name}(browser, example):"));
                }
                // By hand or by a macro, but in any case after an attribute.
                let at = text.find(&format!("fn {name}("));
                at.is_some_and(|at| text[..at].trim_end().ends_with(']') || is_async(&text, at))
            };
            if !source(file).map_or(!is_whole, is_test) {
                writeln!(wrong, "not there: {file}::{name}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Whether the function that begins there is an asynchronous test.
fn is_async(text: &str, at: usize) -> bool {
    let before = text[..at].trim_end();
    before.strip_suffix("async").is_some_and(|before| before.trim_end().ends_with(']'))
}

#[test]
fn there_is_no_unsafe_code() {
    // It can be forbidden once, and allowed nowhere again.
    let library = source("src/lib.rs").expect("it is there");
    assert!(library.lines().any(|line| line == "#![forbid(unsafe_code)]"));
}

#[test]
fn keys_are_hashed_with_a_seed_that_nobody_knows() {
    // What is hashed how can't be seen from outside.
    let map = source("src/keyed/map.rs").expect("it is there");
    assert!(map.contains("hasher: RandomState,") && map.contains("hasher: RandomState::new()"));
    assert!(map.contains("hash::{BuildHasher, Hasher, RandomState},"), "std's own");
}

fn circuit(clock: &ManualClock, rules: ConfigBuilder) -> Circuit {
    Circuit::new(rules.clock(clock).build().expect("a valid configuration"))
}

#[test]
fn failures_below_the_rate_open_nothing_however_many_they_are() {
    let clock = ManualClock::new();
    let circuit = circuit(&clock, Config::builder("inventory"));
    // Just below half of the calls, for ten minutes, a thousand a second.
    for call in 0..600_000_u32 {
        let fails = call % 20 % 2 == 1 && call % 20 != 19;
        let outcome = if fails { Outcome::Failure } else { Outcome::Success };
        circuit.try_acquire().expect("nothing is refused").record(outcome);
        clock.advance(Duration::from_millis(1));
    }
    assert_eq!((circuit.state(), circuit.snapshot().totals.opened), (State::Closed, 0));
    assert_eq!(circuit.snapshot().totals.failure, 270_000);
}

/// Keeps every event as a line of text, as it was given.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn during(does: impl FnOnce()) -> Vec<String> {
        let log = Self::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, does);
        std::mem::take(&mut *log.0.lock().unwrap())
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{field}={value:?} ").unwrap();
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

#[test]
fn calls_write_no_lines_and_an_outage_few() {
    const CALLS: u64 = 60_000;
    let clock = ManualClock::new();
    let circuit = circuit(&clock, Config::builder("inventory"));
    let lines = Log::during(|| {
        // Ten minutes of an outage, a hundred calls a second.
        for _ in 0..CALLS {
            if let Ok(permit) = circuit.try_acquire() {
                permit.record(Outcome::Failure);
            }
            clock.advance(Duration::from_millis(10));
        }
    });
    let totals = circuit.snapshot().totals;
    assert!(totals.rejected > CALLS / 10 * 9, "{totals:?}");
    // An opening a wait, and a half-opening between two of them.
    let transitions = 2 * totals.opened - 1;
    assert!(lines.len() as u64 == transitions || lines.len() as u64 == transitions + 1);
    assert!(totals.opened < 100, "{totals:?}");
}

#[test]
fn a_key_writes_no_line_of_its_own() {
    const KEY: &str = "a\nWARN all is well\r\u{1b}[2J";
    let clock = ManualClock::new();
    let template = Config::builder("hosts").clock(&clock).build().unwrap();
    let circuits = KeyedCircuits::builder(template).build().unwrap();
    let circuit = circuits.get_or_create(KEY);
    let mut lines = Log::during(|| circuit.trip());
    assert_eq!(lines.len(), 1);
    lines.push(circuit.try_acquire().unwrap_err().to_string());
    for line in lines {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.contains("hosts"), "{line:?}");
    }
}
