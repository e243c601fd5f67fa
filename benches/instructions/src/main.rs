//! What the breaker adds to a call, in instructions.
//!
//! Time is noisy on a shared machine, instructions are not: the same binary
//! executes the same ones. This runs each path under Valgrind's callgrind with
//! two numbers of calls, takes the difference, takes off what the bare service
//! costs, and compares with `budget.txt`. More than 5 % above its budget, a path
//! fails; more than 5 % below, the budget is to be lowered.
//!
//! `cargo run --release --package tower-breaker-instructions` checks;
//! with `-- --write` it writes the budget anew.

mod paths;

use std::{
    env, error,
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, ExitCode},
};

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

/// So many calls and twice as many.
const CALLS: u64 = 10_000;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        // Under callgrind, by itself.
        ["run", path, calls] => {
            paths::run(path, calls.parse()?)?;
            Ok(ExitCode::SUCCESS)
        }
        [] => check(),
        ["--write"] => write(),
        _ => Err("nothing to check the budget, or --write to write it".into()),
    }
}

fn check() -> Result<ExitCode> {
    let budget = fs::read_to_string(budget())?;
    let mut is_kept = true;
    println!("{:<28}{:>8}{:>8}", "instructions a call", "budget", "now");
    for line in budget.lines().filter(|line| !line.starts_with('#')) {
        let (path, allowed) = line.rsplit_once(' ').ok_or_else(|| format!("no number: {line}"))?;
        let (path, allowed) = (path.trim(), allowed.parse::<u64>()?);
        let now = added(path)?;
        let verdict = match now {
            now if now * 100 > allowed * 105 => "  over",
            now if now * 105 < allowed * 100 => "  under: lower the budget",
            _ => "",
        };
        is_kept &= verdict.is_empty();
        println!("{path:<28}{allowed:>8}{now:>8}{verdict}");
    }
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write() -> Result<ExitCode> {
    let mut lines =
        "# Instructions a call beyond the bare service. Written by `--write`.\n".to_owned();
    for path in paths::ALL {
        writeln!(lines, "{path:<28} {}", added(path)?)?;
    }
    fs::write(budget(), &lines)?;
    print!("{lines}");
    Ok(ExitCode::SUCCESS)
}

fn budget() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.txt")
}

/// What a path costs beyond the bare service.
fn added(path: &str) -> Result<u64> {
    let bare = a_call("bare")?;
    a_call(path)?.checked_sub(bare).ok_or_else(|| format!("{path} costs less than bare").into())
}

fn a_call(path: &str) -> Result<u64> {
    // What starting up costs is the same in both.
    Ok((counted(path, 2 * CALLS)? - counted(path, CALLS)?) / CALLS)
}

fn counted(path: &str, calls: u64) -> Result<u64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["run", path, &calls.to_string()])
        .output()
        .map_err(|error| format!("valgrind did not start ({error}): is it installed?"))?;
    let told = String::from_utf8_lossy(&run.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, number)) if run.status.success() => Ok(number.trim().parse()?),
        _ => Err(format!("{path} was not counted:\n{told}").into()),
    }
}
