//! A service's `[circuit]`: the keys of [`Config`], which reads itself.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer, Error},
};
use tower_breaker::Config;

use super::reader::Value;

/// Reads the circuit of a service that may have none written. `Config` tells
/// the first thing that is wrong; the key at fault is left out and the rest is
/// read again, until nothing is.
pub(super) fn read(value: Option<Value<'_>>, service: &str) -> Option<Config> {
    let Some(value) = value else { return named(DeTable::new(), service).ok() };
    let (source, path, place, value) = value.into_parts();
    let span = value.span();
    let DeValue::Table(mut table) = value.into_inner() else {
        source.note(&place, &path, "must be a table");
        return None;
    };
    if let Some((name, _)) = table.remove_entry("name") {
        let place = source.place(name.span().start);
        let message = "unknown key: the circuit has the service's name";
        source.note(&place, &format!("{path}.name"), message);
        return named(table, service).ok().and(None);
    }
    let mut right = true;
    loop {
        let error = match named(table.clone(), service) {
            Ok(config) => return right.then_some(config),
            Err(error) => error,
        };
        let at = error.span().unwrap_or(span.clone());
        let fault = table
            .iter()
            .find(|(key, value)| [key.span(), value.span()].iter().any(|own| holds(own, &at)));
        match fault.map(|(key, _)| (key.get_ref().to_string(), key.span())) {
            Some((key, key_span)) => {
                let (key_told, message) = said(&error, Some(&key));
                let place = source.place(key_span.start);
                source.note(&place, &format!("{path}.{key_told}"), message);
                table.remove(&*key);
                right = false;
            }
            None if right => {
                let (key, message) = said(&error, None);
                let written = key.split('.').next().and_then(|key| table.get_key_value(key));
                let place = written.map_or(place, |(key, _)| source.place(key.span().start));
                let key = if key.is_empty() { path } else { format!("{path}.{key}") };
                source.note(&place, &key, message);
                return None;
            }
            // Without the keys at fault the others may not go together.
            None => return None,
        }
    }
}

fn named(mut table: DeTable<'_>, service: &str) -> Result<Config, Error> {
    let name = DeValue::String(service.to_owned().into());
    table.insert(Spanned::new(0..0, "name".into()), Spanned::new(0..0, name));
    // A call that is dropped is a caller who went away: what hangs is ended by
    // timeouts within the circuit.
    if !table.contains_key("cancellation") {
        let neutral = DeValue::String("neutral".into());
        table.insert(Spanned::new(0..0, "cancellation".into()), Spanned::new(0..0, neutral));
    }
    Config::deserialize(Deserializer::from(Spanned::new(0..usize::MAX, table)))
}

fn holds(own: &Range<usize>, other: &Range<usize>) -> bool {
    own.start <= other.start && other.end <= own.end
}

/// The key that an error is about, and the rest of what it says.
fn said(error: &Error, at: Option<&str>) -> (String, String) {
    let message = error.message();
    if let Some(rest) = message.strip_prefix("unknown key `") {
        if let Some((key, rest)) = rest.split_once('`') {
            return (key.to_owned(), format!("unknown key{rest}"));
        }
    }
    let (first, rest) = message.split_once(' ').unwrap_or(("", message));
    let is_key = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_' | b'.'))
    };
    let is_about = match at {
        Some(at) => first.split('.').next() == Some(at),
        None => is_key(first) && ["is ", "must "].iter().any(|verb| rest.starts_with(verb)),
    };
    match (is_about, at) {
        (true, _) => (first.to_owned(), rest.to_owned()),
        (false, at) => (at.unwrap_or_default().to_owned(), message.to_owned()),
    }
}
