//! Records a dependency's bad ten minutes, writes them to a file, reads that,
//! and shows side by side what two sets of rules would have done.
//!
//! ```sh
//! cargo run --release --example replay --features shadow,test-util
//! ```
//!
//! Nothing is refused while recording, so everything is known. The first set
//! of rules is the default; the second looks at ten calls and opens at once.
//! The first sleeps through a blip and a bad minute that is not bad enough,
//! and lets some more failures through when the dependency dies.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, File},
    time::Duration,
};

use tower_breaker::{
    Circuit, Config, ManualClock, Outcome, Override, Permit, Recorder, Recording, Report, Window,
};

const MINUTES: u64 = 10;
const CALLS_A_SECOND: u64 = 200;
const MICROS: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let path = std::env::temp_dir().join("tower-breaker-outage.rec");
    record()?.write_to(File::create(&path)?)?;
    let size = fs::metadata(&path)?.len();

    let recording = Recording::read_from(File::open(&path)?)?;
    fs::remove_file(&path)?;
    println!(
        "{} calls in {} minutes, {size} bytes on disk, {:.1} a call",
        recording.calls(),
        recording.ends_at().as_secs() / 60,
        size as f64 / recording.calls() as f64,
    );

    let hasty = Config::builder("hasty").window(Window::count(10)).sustained_for(Duration::ZERO);
    let reports =
        [Config::builder("default").build()?, hasty.build()?].map(|rules| recording.replay(rules));
    side_by_side(&reports);
    println!("\n{}", first_lines(&reports[0]));
    Ok(())
}

/// What the dependency does at a second: the share of calls that fail, in
/// percent, and how long a call takes, in milliseconds.
fn dependency(second: f64) -> (u64, u64) {
    match second {
        // A blip.
        s if (60.0..60.2).contains(&s) => (100, 5),
        // A bad minute.
        s if (120.0..180.0).contains(&s) => (30, 60),
        // Dead.
        s if (300.0..390.0).contains(&s) => (100, 5),
        // Half healed.
        s if (390.0..420.0).contains(&s) => (40, 150),
        _ => (1, 40),
    }
}

/// Makes the calls, on virtual time.
fn record() -> Result<Recording, Box<dyn Error + Send + Sync>> {
    let clock = ManualClock::new();
    let recorder = Recorder::new(4_000_000);
    let config = Config::builder("inventory").clock(&clock).recorder(&recorder).build()?;
    let circuit = Circuit::new(config);
    circuit.set_override(Override::observe_only().until_cleared());

    let mut dice = 1u64;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    // By when they end, and in what order they began.
    let mut running: BTreeMap<(u64, u64), (Permit, Outcome)> = BTreeMap::new();
    let mut now = 0;
    let mut advance = |to: u64| {
        clock.advance(Duration::from_micros(to - now));
        now = to;
    };
    for call in 0..MINUTES * 60 * CALLS_A_SECOND {
        let begins = call * MICROS / CALLS_A_SECOND + roll(MICROS / CALLS_A_SECOND);
        while let Some(first) = running.first_entry().filter(|call| call.key().0 <= begins) {
            let ((ends, _), (permit, outcome)) = first.remove_entry();
            advance(ends);
            permit.record(outcome);
        }
        advance(begins);
        let (failing, millis) = dependency(begins as f64 / MICROS as f64);
        let outcome = if roll(100) < failing { Outcome::Failure } else { Outcome::Success };
        let takes = millis * 500 + roll(millis * 1_000);
        running.insert((begins + takes, call), (circuit.try_acquire()?, outcome));
    }
    for ((ends, _), (permit, outcome)) in running {
        advance(ends);
        permit.record(outcome);
    }
    Ok(recorder.recording())
}

fn side_by_side(reports: &[Report]) {
    let row = |name: &str, value: &dyn Fn(&Report) -> String| {
        let values = reports.iter().map(|report| format!("{:>12}", value(report)));
        println!("{name:<42}{}", values.collect::<String>());
    };
    row("", &|report| report.name.clone());
    row("opened", &|report| report.opened().to_string());
    row("time open", &|report| format!("{:.1?}", report.time_open));
    row("failures that callers saw", &|report| report.passed.failure.to_string());
    row("failures they were spared", &|report| report.would_reject.failure.to_string());
    row("good calls refused", &|report| report.would_reject.success.to_string());
    row("calls the dependency was spared", &|report| {
        format!("{:.1} %", 100.0 * report.load_saved().unwrap_or_default())
    });
}

/// The head of a report, and its first openings.
fn first_lines(report: &Report) -> String {
    let text = report.to_string();
    text.lines().take(6).collect::<Vec<_>>().join("\n")
}
