//! Judges everybody, and prints who passes what; with `--write`, into
//! `report.md`. Fails if tower-breaker does not pass everything.

use std::{env, fs, panic, path::Path, process::ExitCode};

use tower_breaker_conformance::{Report, all, subjects};

fn main() -> ExitCode {
    let write = match env::args().nth(1).as_deref() {
        None => false,
        Some("--write") => true,
        Some(other) => {
            eprintln!("`{other}` is no argument; `--write` is the only one");
            return ExitCode::FAILURE;
        }
    };
    // What panics is caught, and stands in the report.
    panic::set_hook(Box::new(|_| {}));
    let report = Report::new(&subjects::all(), &all());
    let text = report.to_string();
    if write {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("report.md");
        if let Err(error) = fs::write(&path, &text) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    } else {
        print!("{text}");
    }
    if report.passes_all("tower-breaker") { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
