//! A file's text as tables of keys, each of which is taken once.
//!
//! Nothing in here fails: what is wrong is noted with its place, and reading
//! goes on, so that a person is told all of it at once.

use std::{
    cell::{Cell, RefCell},
    fmt, iter,
    net::SocketAddr,
    ops::Range,
    path::Path,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{error::Problem, size};

/// A file, and what is wrong with it so far.
pub(super) struct Source<'s> {
    pub(super) file: &'s Path,
    text: &'s str,
    /// Where its lines begin.
    lines: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    /// Lines that are no TOML: what else they seem to say is nobody's word.
    broken: RefCell<Vec<usize>>,
    /// Whether a header is among them: nobody knows where what follows belongs.
    is_lost: Cell<bool>,
}

/// Where something stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

/// A table's keys. What is left when it is [finished](Self::finish) is unknown.
pub(super) struct Table<'s> {
    source: &'s Source<'s>,
    /// Its own key, from the root of all files.
    path: String,
    place: Place,
    /// In the order of the file.
    entries: Vec<(Spanned<String>, Spanned<DeValue<'s>>)>,
    known: Vec<&'static str>,
}

/// A value that has not been looked at.
pub(super) struct Value<'s> {
    source: &'s Source<'s>,
    path: String,
    place: Place,
    value: Spanned<DeValue<'s>>,
}

impl<'s> Source<'s> {
    pub(super) fn new(file: &'s Path, text: &'s str) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Self {
            file,
            text,
            lines: iter::once(0).chain(ends).collect(),
            problems: RefCell::default(),
            broken: RefCell::default(),
            is_lost: Cell::new(false),
        }
    }

    /// The file's table. `path` is what its keys stand under.
    pub(super) fn read(&'s self, path: &str) -> Table<'s> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        let mut is_lost = false;
        for error in errors {
            let place = self.place(error.span().map_or(0, |span| span.start));
            self.note(&place, "", format_args!("this is not TOML: {}", one_line(error.message())));
            self.broken.borrow_mut().push(place.line);
            let line = self.text.lines().nth(place.line - 1).unwrap_or_default();
            is_lost |= line.trim_start().starts_with('[');
        }
        self.is_lost.set(is_lost);
        Table::new(self, path.to_owned(), self.place(0), root.into_inner())
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let is_beginning = |at: &usize| self.text.is_char_boundary(*at);
        let offset = (0..=offset.min(self.text.len())).rev().find(is_beginning).unwrap_or(0);
        let line = self.lines.partition_point(|begin| *begin <= offset);
        let column = self.text[self.lines[line - 1]..offset].chars().count() + 1;
        Place { line, column }
    }

    pub(super) fn note(&self, place: &Place, key: &str, message: impl fmt::Display) {
        if self.is_lost.get() || self.broken.borrow().contains(&place.line) {
            return;
        }
        self.problems.borrow_mut().push(place.problem(self.file, key, message.to_string()));
    }
}

/// Parsers write over several lines.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Place {
    pub(super) const fn line(&self) -> usize {
        self.line
    }

    pub(super) fn problem(&self, file: &Path, key: &str, message: String) -> Problem {
        let (line, column) = (Some(self.line), Some(self.column));
        Problem { file: file.to_owned(), line, column, key: key.to_owned(), message }
    }
}

impl<'s> Table<'s> {
    fn new(source: &'s Source<'s>, path: String, place: Place, table: DeTable<'s>) -> Self {
        let mut entries: Vec<_> = table
            .into_iter()
            .map(|(key, value)| (Spanned::new(key.span(), key.into_inner().into_owned()), value))
            .collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        Self { source, path, place, entries, known: Vec::new() }
    }

    pub(super) fn source(&self) -> &'s Source<'s> {
        self.source
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn key(&self, key: &str) -> String {
        match &*self.path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// A problem with a key that is not there, or with the table.
    pub(super) fn refuse(&self, key: &str, message: impl fmt::Display) {
        let key = if key.is_empty() { self.path.clone() } else { self.key(key) };
        self.source.note(&self.place, &key, message);
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'s>> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.entries.remove(at);
        Some(self.value(&name, value))
    }

    /// The same, for a key that has to be there.
    pub(super) fn need(&mut self, key: &'static str, such_as: &str) -> Option<Value<'s>> {
        let value = self.take(key);
        if value.is_none() {
            self.refuse(key, format_args!("is missing; write one such as {such_as}"));
        }
        value
    }

    /// All that is left, by name.
    pub(super) fn take_all(&mut self) -> Vec<(String, Value<'s>)> {
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_iter()
            .map(|(name, value)| {
                let value = self.value(&name, value);
                (name.into_inner(), value)
            })
            .collect()
    }

    fn value(&self, name: &Spanned<String>, value: Spanned<DeValue<'s>>) -> Value<'s> {
        let place = self.source.place(name.span().start);
        Value { source: self.source, path: self.key(name.get_ref()), place, value }
    }

    /// What a key has, if it is there and right.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'s>) -> Option<T>,
    ) -> Option<T> {
        self.take(key).and_then(read)
    }

    /// A table that may be absent.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'s> {
        let value = self.take(key);
        value.and_then(Value::table).unwrap_or_else(|| {
            Table::new(self.source, self.key(key), self.place.clone(), DeTable::new())
        })
    }

    /// Notes the keys that nobody took, with the nearest somebody would have.
    pub(super) fn finish(mut self) {
        for (name, value) in self.take_all() {
            value.refuse(unknown(&name, &self.known));
        }
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    const NEAR: f64 = 0.75;
    let likenesses = known.iter().map(|known| (strsim::jaro_winkler(key, known), known));
    match likenesses.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((likeness, nearest)) if likeness > NEAR => {
            format!("unknown key, did you mean `{nearest}`?")
        }
        _ => format!("unknown key, there are `{}`", known.join("`, `")),
    }
}

impl<'s> Value<'s> {
    pub(super) fn refuse(&self, message: impl fmt::Display) {
        self.source.note(&self.place, &self.path, message);
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Says what it is, and what it has to be.
    fn must_be<T>(&self, right: impl fmt::Display) -> Option<T> {
        let is = match self.value.get_ref() {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(date) => date.to_string(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.refuse(format_args!("is {is}, but must be {right}"));
        None
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(_))
    }

    pub(super) fn text(self) -> Option<String> {
        self.parsed("text", |text| Ok::<_, &str>(text.to_owned()))
    }

    /// Text that means something. An empty complaint says no more than that it
    /// is not that.
    pub(super) fn parsed<T, E: fmt::Display>(
        self,
        right: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let DeValue::String(text) = self.value.get_ref() else { return self.must_be(right) };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(why) => match why.to_string() {
                why if why.is_empty() => self.must_be(right),
                why => self.must_be(format_args!("{right} ({why})")),
            },
        }
    }

    pub(super) fn flag(self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.must_be("true or false"),
        }
    }

    pub(super) fn whole(self, range: Range<u64>) -> Option<u64> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).or_else(|| {
            let (least, most) = (range.start, range.end - 1);
            self.must_be(format_args!("a whole number from {least} to {most}"))
        })
    }

    /// A number above zero and at most this.
    pub(super) fn share(self, most: f64) -> Option<f64> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| *number > 0.0 && *number <= most)
            .or_else(|| self.must_be(format_args!("a number above 0 and at most {most}")))
    }

    /// A stretch of time; one that is over at once only if that means something.
    pub(super) fn duration(self, may_be_zero: bool) -> Option<Duration> {
        const RIGHT: &str = "a duration such as \"10s\", \"250ms\" or \"1h 30m\"";
        self.parsed(RIGHT, |text| match humantime::parse_duration(text) {
            Ok(Duration::ZERO) if !may_be_zero => Err("zero is too short".to_owned()),
            Ok(duration) if duration > LONGEST => Err("at most 10 years".to_owned()),
            Ok(duration) => Ok(duration),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Memory, in bytes.
    pub(super) fn size(self, least: usize) -> Option<usize> {
        let right =
            format!("a size from {} on, such as \"64MiB\" or \"16KiB\"", size::format(least));
        self.parsed(&right, |text| size::parse(text).filter(|size| *size >= least).ok_or(""))
    }

    pub(super) fn address(self) -> Option<SocketAddr> {
        let right = "an address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
        self.parsed(right, |text| text.parse().map_err(|_| ""))
    }

    /// One value, or a list of such.
    pub(super) fn one_or_more<T>(self, read: impl Fn(Value<'s>) -> Option<T>) -> Option<Vec<T>> {
        if self.is_list() { self.list(read) } else { read(self).map(|one| vec![one]) }
    }

    /// What is wrong with one of them is noted, and it is left out.
    pub(super) fn list<T>(self, read: impl Fn(Value<'s>) -> Option<T>) -> Option<Vec<T>> {
        if !self.is_list() {
            return self.must_be("a list such as [\"one\", \"two\"]");
        }
        let (source, path) = (self.source, self.path);
        let DeValue::Array(values) = self.value.into_inner() else { return None };
        let values = values.into_iter().enumerate().map(|(at, value)| {
            let place = source.place(value.span().start);
            Value { source, path: format!("{path}[{at}]"), place, value }
        });
        Some(values.filter_map(read).collect())
    }

    pub(super) fn table(self) -> Option<Table<'s>> {
        if !matches!(self.value.get_ref(), DeValue::Table(_)) {
            return self.must_be("a table");
        }
        let DeValue::Table(table) = self.value.into_inner() else { return None };
        Some(Table::new(self.source, self.path, self.place, table))
    }

    /// The value itself, and where it stands, for another reader.
    pub(super) fn into_parts(self) -> (&'s Source<'s>, String, Place, Spanned<DeValue<'s>>) {
        (self.source, self.path, self.place, self.value)
    }
}

/// Beyond that a date may not be written.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
