//! `services.d`: the services that commands write, one file each.
//!
//! What a person wrote in the main file is never written by a program. A file in
//! here may be edited by hand too: what a change does not touch, comments and
//! order among it, stays as it is.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use toml::{Table, Value};
use toml_edit::{DocumentMut, Item, TableLike};

use super::{
    atomic,
    error::{Error, Problem},
    load::{self, Sources},
    service,
};

/// Adds a service, or has it be as this table says: keys that are not in it go.
/// Nothing is written unless all files are right with it.
///
/// # Errors
///
/// What would be wrong; that the service stands in the main file, and where; and
/// what kept the file from being written.
pub fn put(main: &Path, name: &str, service: &Table) -> Result<(), Error> {
    let _turn = turn(main);
    let sources = Sources::read(main)?;
    let path = changeable(main, &sources, name)?;
    let before = sources.text_of(name).unwrap_or_default();
    // Of one that is no TOML nothing can be kept.
    let mut document = before.parse::<DocumentMut>().unwrap_or_default();
    merge(document.as_table_mut(), service);
    let text = document.to_string();
    if text == before {
        return sources.settings().map(|_| ());
    }
    sources.with(name, Some(text.clone())).settings()?;
    atomic::write(&path, text.as_bytes(), false).map_err(|error| cant_write(&path, &error))
}

/// Whether there is a service that [`remove`] would remove.
///
/// # Errors
///
/// That it stands in the main file, and where; and what kept the files from
/// being read.
pub fn has(main: &Path, name: &str) -> Result<bool, Error> {
    let sources = Sources::read(main)?;
    changeable(main, &sources, name)?;
    Ok(sources.text_of(name).is_some())
}

/// Removes a service. Whether there was one.
///
/// What is wrong already does not keep it from going, for it may be what is
/// wrong.
///
/// # Errors
///
/// What would be wrong without it; that it stands in the main file, and where;
/// and what kept the file from being removed.
pub fn remove(main: &Path, name: &str) -> Result<bool, Error> {
    let _turn = turn(main);
    let sources = Sources::read(main)?;
    let path = changeable(main, &sources, name)?;
    if sources.text_of(name).is_none() {
        return Ok(false);
    }
    let problems = |sources: &Sources| match sources.settings() {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().to_vec(),
    };
    let before = problems(&sources);
    let mut after = problems(&sources.with(name, None));
    after.retain(|problem| !before.contains(problem));
    if let Some(error) = Error::of(after) {
        return Err(error);
    }
    match atomic::remove(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).map_err(|error| cant_write(&path, &error)),
    }
}

/// Has changes come one after the other, also those of several processes: two
/// that are right each may be wrong together. Where the directory can't be
/// locked, or somebody keeps it for seconds, it goes on without.
#[expect(clippy::disallowed_methods, reason = "no call waits here")]
fn turn(main: &Path) -> Option<File> {
    const LOOK: Duration = Duration::from_millis(10);

    let directory = main.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..300 {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK) => thread::sleep(LOOK),
            Err(_) => return None,
        }
    }
    None
}

/// The file of a service, unless a person has it in theirs.
fn changeable(main: &Path, sources: &Sources, name: &str) -> Result<PathBuf, Error> {
    if let Some(why) = service::refuse_name(name) {
        return Err(Error::about(main, format!("{name:?}: {why}")));
    }
    match sources.line_in_main(name) {
        None => Ok(load::file(main, name)),
        Some(line) => {
            let message = "stands in a file that is written by hand; change it there".to_owned();
            let key = format!("services.{name}");
            let (file, line, column) = (main.to_owned(), Some(line), None);
            Err(Error::from(Problem { file, line, column, key, message }))
        }
    }
}

fn cant_write(path: &Path, error: &io::Error) -> Error {
    Error::about(path, format!("can't be written: {error}"))
}

/// Has a document say what a table says. What says it already stays.
fn merge(document: &mut dyn TableLike, table: &Table) {
    let gone: Vec<String> = document
        .iter()
        .map(|(key, _)| key.to_owned())
        .filter(|key| !table.contains_key(key))
        .collect();
    for key in gone {
        document.remove(&key);
    }
    for (key, value) in table {
        let Some(item) = document.get_mut(key) else {
            document.insert(key, item_of(value));
            continue;
        };
        if let (Some(within), Value::Table(value)) = (item.as_table_like_mut(), value) {
            merge(within, value);
        } else if !says(item, value) {
            let mut changed = item_of(value);
            // The comment behind it stays behind it.
            if let (Some(old), Some(new)) = (item.as_value(), changed.as_value_mut()) {
                *new.decor_mut() = old.decor().clone();
            }
            *item = changed;
        }
    }
}

fn item_of(value: &Value) -> Item {
    match value {
        Value::Table(table) => {
            let mut written = toml_edit::Table::new();
            merge(&mut written, table);
            Item::Table(written)
        }
        // A value alone is a value of a file.
        value => value.to_string().parse::<toml_edit::Value>().map_or(Item::None, Item::Value),
    }
}

/// Whether an item means a value, however it is written.
fn says(item: &Item, value: &Value) -> bool {
    let Some(written) = item.as_value() else { return false };
    let alone = written.clone().decorated("", "").to_string();
    toml::from_str::<Table>(&format!("value = {alone}")).is_ok_and(|read| read["value"] == *value)
}
