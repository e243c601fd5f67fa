//! `state.json`: open waits and overrides, for the next process.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower_breaker::Saved;

use super::Table;
use crate::config::write_atomically;

pub(super) struct StateFile {
    path: PathBuf,
    /// Held from the look at the circuits to the end of the writing, or an
    /// older look could be written over a newer one.
    writing: Mutex<()>,
}

/// What was saved.
#[derive(Default)]
pub(super) struct State {
    pub(super) revision: u64,
    /// By name.
    pub(super) circuits: BTreeMap<String, Saved>,
}

#[derive(Serialize)]
struct Written {
    revision: u64,
    circuits: Vec<Saved>,
}

/// Circuits are read one by one, so that one that is damaged takes no other
/// along.
#[derive(Deserialize)]
struct Read {
    revision: u64,
    circuits: Vec<Value>,
}

impl StateFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join("state.json"), writing: Mutex::default() }
    }

    /// What can be read of it. The rest is set aside.
    pub(super) fn read(&self) -> State {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return State::default(),
            Err(error) => {
                self.set_aside(&error);
                return State::default();
            }
        };
        let read: Read = match serde_json::from_str(&text) {
            Ok(read) => read,
            Err(error) => {
                self.set_aside(&error);
                return State::default();
            }
        };
        let mut state = State { revision: read.revision, circuits: BTreeMap::new() };
        let mut damaged = None;
        for circuit in read.circuits {
            match serde_json::from_value::<Saved>(circuit) {
                Ok(saved) => drop(state.circuits.insert(saved.name.clone(), saved)),
                Err(error) => damaged = Some(error),
            }
        }
        if let Some(error) = damaged {
            self.set_aside(&error);
        }
        state
    }

    /// Whoever wants to know what was in it finds it beside.
    fn set_aside(&self, error: &dyn std::fmt::Display) {
        let aside = self.path.with_extension("json.damaged");
        let path = self.path.display();
        match fs::rename(&self.path, &aside) {
            Ok(()) => tracing::warn!(
                "{path} is damaged and was set aside as {}: {error}",
                aside.display()
            ),
            Err(_) => tracing::warn!("{path} can't be read: {error}"),
        }
    }

    pub(super) fn write(&self, table: impl FnOnce() -> Arc<Table>) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = table();
        let circuits = table.services.iter().map(|service| service.circuit.save()).collect();
        let written = Written { revision: table.revision, circuits };
        let mut text = serde_json::to_vec_pretty(&written)?;
        text.push(b'\n');
        write_atomically(&self.path, &text, true)
    }
}
