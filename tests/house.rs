//! The house has floors, and they only look down: no file names a module of a
//! floor above its own. The one exception is `defaults`, the stairs by which a
//! feature's observer gets into a circuit.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The modules of each floor, from the ground up. A module is a file of `src`
/// or a folder there.
const FLOORS: [&[&str]; 6] = [
    &[
        "backoff",
        "cause",
        "config_change",
        "config_error",
        "outcome",
        "overrides",
        "panics",
        "probes",
        "ratio",
        "rules",
        "sealed",
        "start",
        "state",
        "throttle",
        "tape",
        "time",
        "totals",
        "window",
    ],
    &["lint", "machine"],
    &["circuit", "defaults", "replay"],
    &["classify", "ending", "error", "fallback", "future", "layer", "service"],
    &["http"],
    &[
        "admin",
        "docs",
        "keyed",
        "metrics",
        "registry",
        "reqwest",
        "reqwest_middleware",
        "retry",
        "serde",
        "stale_if_error",
        "tonic",
        "tracing",
    ],
];

/// Crates a floor may not know, by the lowest floor that may.
const FOREIGN: [(&str, usize); 23] = [
    ("quanta", 2),
    ("tokio", 2),
    ("tower", 3),
    ("tower_layer", 3),
    ("tower_service", 3),
    ("pin_project_lite", 3),
    ("http", 4),
    ("bytes", 5),
    ("constant_time_eq", 5),
    ("flate2", 5),
    ("form_urlencoded", 5),
    ("hashbrown", 5),
    ("humantime", 5),
    ("metrics", 5),
    ("percent_encoding", 5),
    ("quick_cache", 5),
    ("reqwest", 5),
    ("reqwest_middleware", 5),
    ("serde", 5),
    ("serde_json", 5),
    ("strsim", 5),
    ("tonic", 5),
    ("tracing", 5),
];

/// What the pure floors do without.
const IMPURE: [&str; 7] =
    ["Mutex", "RwLock", "Atomic", "Arc<", "Instant", "cfg(feature", "thread::"];

#[test]
fn no_file_looks_up() {
    let mut wrong = Vec::new();
    for file in sources() {
        wrong.extend(upward_looks(&file.module, &file.text, &file.path));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn an_upward_import_is_found_by_file_and_line() {
    let planted = "use std::fmt;\nuse crate::{\n    time::Time,\n    circuit::Circuit,\n};\n";
    let found = upward_looks("machine", planted, Path::new("src/machine/mod.rs"));
    assert_eq!(found, ["src/machine/mod.rs:4 looks up at `circuit`"]);

    let planted = "fn f() { crate::http::view(); }\nuse tower_service::Service;\n";
    let found = upward_looks("circuit", planted, Path::new("src/circuit/mod.rs"));
    assert_eq!(
        found,
        [
            "src/circuit/mod.rs:1 looks up at `http`",
            "src/circuit/mod.rs:2 knows the crate `tower_service`"
        ]
    );

    let planted = "static LOCK: Mutex<()> = Mutex::new(());\n";
    let found = upward_looks("window", planted, Path::new("src/window/mod.rs"));
    assert_eq!(found, ["src/window/mod.rs:1 is not pure: `Mutex`"]);
}

#[test]
fn every_module_has_its_floor() {
    for file in sources() {
        assert!(floor_of(&file.module).is_some(), "{} is on no floor", file.path.display());
    }
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

fn upward_looks(module: &str, text: &str, path: &Path) -> Vec<String> {
    let Some(floor) = floor_of(module) else { return Vec::new() };
    let mut found = Vec::new();
    // Inside `use crate::{ … }`, whose lines name modules without a prefix.
    let mut in_group = false;
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut say = |what: String| {
            found.push(format!("{}:{} {what}", path.display(), number + 1));
        };
        for (above, modules) in FLOORS.iter().enumerate().skip(floor + 1) {
            for name in *modules {
                let named = names(code, &format!("crate::{name}"))
                    || code.contains("crate::{") && names(code, name)
                    || in_group && code.trim_start().starts_with(&format!("{name}::"));
                let by_the_stairs = module == "defaults" && above == FLOORS.len() - 1;
                if named && !by_the_stairs {
                    say(format!("looks up at `{name}`"));
                }
            }
        }
        for (krate, lowest) in FOREIGN {
            let named = names(code, &format!("{krate}::")) && !code.contains("crate::");
            if floor < lowest && named {
                say(format!("knows the crate `{krate}`"));
            }
        }
        if floor < 2 {
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                say(format!("is not pure: `{word}`"));
            }
        }
        in_group = (in_group || code.contains("crate::{")) && !code.contains("};");
    }
    found
}

/// Whether `code` has `path` standing on its own, not as the end of a longer
/// one or the start of a longer word.
fn names(code: &str, path: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(part)
            && !after.is_some_and(|c| !path.ends_with(':') && part(c) && c != ':')
    })
}

struct Source {
    module: String,
    path: PathBuf,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let module = relative.iter().nth(1).unwrap().to_str().unwrap();
            let module = module.trim_end_matches(".rs").to_owned();
            if module != "lib" {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { module, path: relative, text });
            }
        }
    }
    assert!(sources.len() > 20, "the sources were not found");
    sources
}
