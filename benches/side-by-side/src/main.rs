//! Measures everybody, and tells.
//!
//! - nothing: measures, and prints the report;
//! - `--write`: writes it to `report.md`, and the short table to the `README.md`;
//! - `--quick`: a few short rounds, which show that every cell does what it says.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures wall time")]

mod report;

use std::{
    env, error, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use http::Response;
use tower_breaker_side_by_side::{
    backend::{Ask, Request},
    contenders::{self, BARE, HOUR, HalfOpen, ours},
    driver::Guarded,
    floor,
    lab::{self, Cell, Effort, Expected, Figures},
    least, promises, windows,
};

use crate::report::{Memory, Report};

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

fn main() -> Result<()> {
    // Seatbelt's clock wants one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _entered = runtime.enter();

    let arguments: Vec<String> = env::args().skip(1).collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        [] => print!("{}", report(&Length::FULL)?.long()),
        ["--write"] => write(&report(&Length::FULL)?)?,
        ["--quick"] => {
            let report = report(&Length::QUICK)?;
            println!("{} cells do what they say.", report.figures.len());
        }
        // By itself, built with the peers' metrics.
        ["--metrics"] => print!("{}", report::metrics_lines(&measure_metrics(Length::FULL.single))),
        _ => return Err("nothing, --write or --quick".into()),
    }
    Ok(())
}

/// How long to look.
struct Length {
    single: Effort,
    threads: Effort,
    /// How long circuits that are to be half-open stay open. Seatbelt lets
    /// another probe pass after as long again, so half-open must be measured
    /// within.
    wait: Duration,
    is_quick: bool,
}

impl Length {
    const FULL: Self = Self {
        single: Effort { rounds: 200, turn: Duration::from_millis(1) },
        threads: Effort { rounds: 100, turn: Duration::from_millis(1) },
        wait: Duration::from_secs(60),
        is_quick: false,
    };
    const QUICK: Self = Self {
        single: Effort { rounds: 3, turn: Duration::from_micros(20) },
        threads: Effort { rounds: 3, turn: Duration::from_micros(20) },
        wait: Duration::from_secs(2),
        is_quick: true,
    };
}

fn report(length: &Length) -> Result<Report> {
    let load = report::load();
    let half_open = HalfOpenSoon::trip(length.wait);
    let mut figures = lab::measure(on_one_thread(), length.single, ours::upkeep);
    figures.extend(lab::measure(on_threads(), length.threads, ours::upkeep));
    figures.extend(lab::measure(windows::cells(), length.single, || ()));
    figures.extend(half_open.measure(length.single));
    let memory = Memory::read(&ourselves(&["--bin", "memory"], &[])?)?;
    let peer_metrics = if length.is_quick {
        Vec::new()
    } else {
        let child = ourselves(&["--features", "peer-metrics"], &["--metrics"])?;
        report::read_metrics(&child)?
    };
    Ok(Report { figures, memory, peer_metrics, load: (load, report::load()) })
}

/// Another binary of this package, or this one built otherwise, by cargo.
fn ourselves(build: &[&str], arguments: &[&str]) -> Result<String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = Command::new(cargo)
        .args(["run", "--release", "--quiet", "--manifest-path"])
        .arg(here("Cargo.toml"))
        .args(build)
        .arg("--")
        .args(arguments)
        .output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    Ok(String::from_utf8(run.stdout)?)
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn write(report: &Report) -> Result<()> {
    fs::write(here("report.md"), report.long())?;
    let path = here("../../README.md");
    let readme = fs::read_to_string(&path)?;
    let [begin, end] = ["<!-- side by side: begin -->\n", "<!-- side by side: end -->"];
    let (before, rest) = readme.split_once(begin).ok_or("README.md lacks where it begins")?;
    let (_, after) = rest.split_once(end).ok_or("README.md lacks where it ends")?;
    fs::write(path, format!("{before}{begin}{}{end}{after}", report.short()))?;
    Ok(())
}

fn http() -> Box<dyn Guarded> {
    contenders::bare::<Response<()>>()
}

fn on_one_thread() -> Vec<Cell> {
    use report::{CLOSED, FLOOR, OPEN, PLAIN, TENTH};

    let mut cells = vec![
        Cell::new(CLOSED, BARE, "", Expected::Answered, http()),
        Cell::new(TENTH, BARE, "", Expected::TenthFails, http()),
        Cell::new(OPEN, BARE, "", Expected::Refused, contenders::refusal()),
        Cell::new(PLAIN, BARE, "", Expected::Answered, contenders::bare::<u64>()),
    ];
    for contender in contenders::all() {
        let mut cell = |column, expected, guarded| {
            cells.push(Cell::new(column, &contender.name, BARE, expected, guarded));
        };
        cell(CLOSED, Expected::Answered, contender.closed());
        cell(TENTH, Expected::TenthFails, contender.closed());
        cell(OPEN, Expected::Refused, contender.open(HOUR));
    }
    for contender in contenders::plain() {
        cells.push(Cell::new(PLAIN, &contender.name, BARE, Expected::Answered, contender.closed()));
    }
    cells.extend([
        Cell::new(CLOSED, least::CLOSED, BARE, Expected::Answered, least::closed()),
        Cell::new(CLOSED, least::LATENCY, BARE, Expected::Answered, least::latency()),
        Cell::new(TENTH, least::TENTH, BARE, Expected::TenthFails, least::closed()),
        Cell::new(OPEN, least::OPEN, BARE, Expected::Refused, least::open()),
        Cell::new(OPEN, least::REFUSED, BARE, Expected::Refused, least::refused()),
    ]);
    for (name, program) in promises::steps() {
        cells.push(Cell::new(CLOSED, name, BARE, Expected::Answered, program));
    }
    for (name, program) in floor::programs() {
        cells.push(Cell::new(FLOOR, name, floor::NOTHING, Expected::Answered, program));
    }
    cells
}

fn on_threads() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (threads, ok, tenth) in report::THREADS {
        let mut cell = |column, name: &str, expected, guarded| {
            cells.push(Cell::new(column, name, BARE, expected, guarded).threads(threads));
        };
        cell(ok, BARE, Expected::Answered, http());
        cell(tenth, BARE, Expected::TenthFails, http());
        for contender in contenders::all() {
            cell(ok, &contender.name, Expected::Answered, contender.closed());
            cell(tenth, &contender.name, Expected::TenthFails, contender.closed());
        }
        for (name, program) in floor::shared_programs() {
            cell(ok, name, Expected::Answered, program);
        }
    }
    cells
}

/// Circuits that are open, and will be half-open in a while.
struct HalfOpenSoon {
    at: Instant,
    contenders: Vec<Soon>,
}

struct Soon {
    name: String,
    half_open: Box<dyn Guarded>,
    open: Box<dyn Guarded>,
}

impl HalfOpenSoon {
    fn trip(wait: Duration) -> Self {
        let contenders = contenders::all()
            .into_iter()
            .filter(|contender| contender.half_open == HalfOpen::Refuses)
            .map(|contender| Soon {
                half_open: contender.open(wait),
                open: contender.open(HOUR),
                name: contender.name,
            })
            .collect();
        Self { at: Instant::now() + wait, contenders }
    }

    /// Sends each a probe that does not end, and measures what the others get.
    fn measure(self, effort: Effort) -> Figures {
        use report::{HALF_OPEN, OPEN_BESIDE};

        // A little more, because some compare with `>`.
        thread::sleep(self.at.saturating_duration_since(Instant::now()) + Duration::from_millis(9));
        let mut probes = Vec::new();
        let mut cells = vec![
            Cell::new(HALF_OPEN, BARE, "", Expected::Refused, contenders::refusal()),
            Cell::new(OPEN_BESIDE, BARE, "", Expected::Refused, contenders::refusal()),
        ];
        for Soon { name, mut half_open, open } in self.contenders {
            probes.push(half_open.begin(Request::new(Ask::Hang)));
            cells.push(Cell::new(HALF_OPEN, &name, BARE, Expected::Refused, half_open));
            cells.push(Cell::new(OPEN_BESIDE, &name, BARE, Expected::Refused, open));
        }
        let figures = lab::measure(cells, effort, || ());
        drop(probes);
        figures
    }
}

/// Whoever reports through the `metrics` facade, with a recorder and without.
fn measure_metrics(effort: Effort) -> Figures {
    let mut cells = vec![Cell::new(report::CLOSED, BARE, "", Expected::Answered, http())];
    for contender in contenders::reporting() {
        let closed = contender.closed();
        cells.push(Cell::new(report::CLOSED, contender.name, BARE, Expected::Answered, closed));
    }
    lab::measure(cells, effort, ours::upkeep)
}
