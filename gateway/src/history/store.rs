//! The database: its schema, what goes in, what comes out. Blocks.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params, params_from_iter,
    types::Value as Sql,
};
use tower_breaker::Event;

use super::minutes::{Counts, Lasted, Minute};
use crate::config::{NO_LINK, hand_over};

/// How long somebody else's lock is waited for.
const BUSY: Duration = Duration::from_secs(1);

/// How many rows are deleted at a time, so that nobody waits long.
const BITE: usize = 500;

/// Each takes the schema one version further. What is here was released: it is
/// never changed, only added to.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        epoch TEXT NOT NULL,
        number INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        circuit TEXT NOT NULL,
        event TEXT NOT NULL,
        UNIQUE (epoch, number)
    );
    CREATE INDEX events_by_time ON events (at_ms);
    CREATE INDEX events_by_circuit ON events (circuit, seq);
    CREATE TABLE minutes (
        circuit TEXT NOT NULL,
        minute INTEGER NOT NULL,
        calls INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        slow INTEGER NOT NULL,
        rejected INTEGER NOT NULL,
        p50_us INTEGER,
        p99_us INTEGER,
        closed_ms INTEGER NOT NULL,
        half_open_ms INTEGER NOT NULL,
        open_ms INTEGER NOT NULL,
        held_ms INTEGER NOT NULL,
        PRIMARY KEY (circuit, minute)
    ) WITHOUT ROWID;
    CREATE INDEX minutes_by_time ON minutes (minute);
"];

/// What is to be written at once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub epoch: u64,
    pub entries: Vec<Entry>,
    pub minutes: Vec<Minute>,
}

/// What goes into the table of events.
#[derive(Clone, Debug)]
pub enum Entry {
    Event(Arc<Event>),
    /// So many events, the last of this number, have left the registry unread.
    Missed {
        last: u64,
        count: u64,
        at: SystemTime,
    },
}

/// Before when what happened is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    pub events: SystemTime,
    /// How many events are kept, however young they are.
    pub most: usize,
    pub minutes: SystemTime,
}

/// Which events are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsAsked {
    pub since: SystemTime,
    pub circuit: Option<String>,
    /// Only those that were told before this one: an epoch and a number.
    pub before: Option<(u64, u64)>,
    pub limit: usize,
}

/// Events of the past, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventsKept {
    /// With their epochs, as they were shown when they happened.
    pub events: Vec<(String, serde_json::Value)>,
    /// Whether there are older ones.
    pub more: bool,
}

/// A stretch of minutes, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    pub counts: Counts,
    /// The mean over the minutes, weighed by their calls.
    pub p50: Option<Duration>,
    /// That of the worst minute.
    pub p99: Option<Duration>,
    pub lasted: Lasted,
}

/// The database, open for writing.
#[derive(Debug)]
pub struct Store(Connection);

/// Why the file is of no use.
#[derive(Debug)]
pub enum OpenError {
    /// It is damaged, or no database.
    Damaged(String),
    /// A later version of the gateway made it: it has this version.
    Newer(i64),
    /// It may work later.
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error.to_string()) } else { Self::Other(error) }
    }
}

/// Whether an error says that the file is damaged.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Puts a file out of the way, with what belongs to it, in place of the last
/// one that was.
pub fn set_aside(path: &Path, as_what: &str) -> io::Result<PathBuf> {
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = |end: &str| {
        let mut name = with(&format!(".{as_what}")).into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    for end in ["-wal", "-shm", ""] {
        match fs::rename(with(end), aside(end)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // One that was put there earlier is not this file's.
                let _ = fs::remove_file(aside(end));
            }
            renamed => renamed?,
        }
    }
    Ok(aside(""))
}

impl Store {
    /// Opens it, makes it if there is none, and brings it up to date. Reads all
    /// of it, to see whether it is whole.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // Reasons are in it, and are nobody else's to read. What can't be made is
        // told by the next line.
        let made = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(NO_LINK)
            .open(path);
        if let Ok(file) = made {
            let _ = hand_over(&file, path.parent().unwrap_or(Path::new(".")));
        }
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        // A commit costs no waiting for the disk. If the power fails the last
        // ones may be missing; the file stays whole.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
        let verdict: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(OpenError::Damaged(verdict));
        }
        let mut store = Self(connection);
        store.migrate(&MIGRATIONS)?;
        Ok(store)
    }

    /// Takes the schema to the last version there is, each step whole or not at
    /// all.
    fn migrate(&mut self, steps: &[&str]) -> Result<(), OpenError> {
        loop {
            let begun =
                self.0.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let version: i64 = begun.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            let Some(step) = usize::try_from(version).ok().and_then(|done| steps.get(done)) else {
                let is_known = version == i64::try_from(steps.len()).unwrap_or(i64::MAX);
                return if is_known { Ok(()) } else { Err(OpenError::Newer(version)) };
            };
            begun.execute_batch(step)?;
            begun.pragma_update(None, "user_version", version + 1)?;
            begun.commit()?;
        }
    }

    /// Writes all of it or nothing. What was written before is not written
    /// twice; minutes add up.
    pub fn write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let begun = self.0.transaction()?;
        let epoch = format!("{:016x}", batch.epoch);
        for entry in &batch.entries {
            write_entry(&begun, &epoch, entry)?;
        }
        for minute in &batch.minutes {
            write_minute(&begun, minute)?;
        }
        begun.commit()
    }

    /// Forgets some of what is older; whether there may be more.
    pub fn prune(&mut self, cutoffs: Cutoffs) -> rusqlite::Result<bool> {
        let events = self.0.execute(
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE at_ms < ?1 LIMIT ?2)",
            params![millis(cutoffs.events), BITE],
        )?;
        let surplus = self.0.execute(
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events
                WHERE seq <= (SELECT max(seq) FROM events) - ?1 ORDER BY seq LIMIT ?2)",
            params![cutoffs.most, BITE],
        )?;
        let minutes = self.0.execute(
            "DELETE FROM minutes WHERE (circuit, minute) IN
                (SELECT circuit, minute FROM minutes WHERE minute < ?1 LIMIT ?2)",
            params![super::minutes::number(cutoffs.minutes), BITE],
        )?;
        Ok([events, surplus, minutes].contains(&BITE))
    }
}

fn write_entry(to: &Transaction<'_>, epoch: &str, entry: &Entry) -> rusqlite::Result<()> {
    let mut insert = to.prepare_cached(
        "INSERT OR IGNORE INTO events (epoch, number, at_ms, circuit, event)
            VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    match entry {
        Entry::Event(event) => {
            // Nothing that is shown has a step that fails.
            let shown = serde_json::to_string(&**event).unwrap_or_default();
            insert.execute(params![
                epoch,
                int(event.id),
                millis(event.at),
                event.circuit_id(),
                shown
            ])?;
        }
        Entry::Missed { last, count, at } => {
            let known: u64 = to.query_row(
                "SELECT COUNT(*) FROM events WHERE epoch = ?1 AND number > ?2 AND number <= ?3",
                params![epoch, int(last.saturating_sub(*count)), int(*last)],
                |row| row.get(0),
            )?;
            let missed = count.saturating_sub(known);
            if missed > 0 {
                let sentence = not_kept(missed);
                let shown = serde_json::json!({
                    "id": last,
                    "at": humantime::format_rfc3339_millis((*at).max(UNIX_EPOCH)).to_string(),
                    "circuit_id": null,
                    "name": null,
                    "key": null,
                    "kind": "missed",
                    "sentence": sentence,
                    "missed": missed,
                });
                insert.execute(params![epoch, int(*last), millis(*at), "", shown.to_string()])?;
            }
        }
    }
    Ok(())
}

fn not_kept(missed: u64) -> String {
    match missed {
        1 => "1 event could not be kept".to_owned(),
        missed => format!("{missed} events could not be kept"),
    }
}

fn write_minute(to: &Transaction<'_>, minute: &Minute) -> rusqlite::Result<()> {
    // Of two parts of a minute, the busier one's median and the worse 99th
    // percentile.
    let mut upsert = to.prepare_cached(
        "INSERT INTO minutes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
        ON CONFLICT (circuit, minute) DO UPDATE SET
            p50_us = CASE WHEN p50_us IS NULL OR excluded.calls > calls
                THEN coalesce(excluded.p50_us, p50_us) ELSE p50_us END,
            p99_us = max(coalesce(p99_us, excluded.p99_us), coalesce(excluded.p99_us, p99_us)),
            calls = calls + excluded.calls,
            failures = failures + excluded.failures,
            slow = slow + excluded.slow,
            rejected = rejected + excluded.rejected,
            closed_ms = closed_ms + excluded.closed_ms,
            half_open_ms = half_open_ms + excluded.half_open_ms,
            open_ms = open_ms + excluded.open_ms,
            held_ms = held_ms + excluded.held_ms",
    )?;
    let Minute { circuit, number, counts, p50, p99, lasted } = minute;
    let micros =
        |duration: &Option<Duration>| duration.map(|duration| int_of(duration.as_micros()));
    let millis = |duration: Duration| int_of(duration.as_millis());
    upsert.execute(params![
        &**circuit,
        number,
        int(counts.calls),
        int(counts.failures),
        int(counts.slow),
        int(counts.rejected),
        micros(p50),
        micros(p99),
        millis(lasted.closed),
        millis(lasted.half_open),
        millis(lasted.open),
        millis(lasted.held),
    ])?;
    Ok(())
}

/// The database, open for reading.
#[derive(Debug)]
pub struct Reader(Connection);

impl Reader {
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(Self(connection))
    }

    /// The minutes of a circuit from `first` on, added up in steps of so many
    /// from there: `count` of them, `None` where nothing is known.
    pub fn sums(
        &self,
        circuit: &str,
        first: i64,
        step: i64,
        count: usize,
    ) -> rusqlite::Result<Vec<Option<Sum>>> {
        let mut query = self.0.prepare_cached(
            "SELECT (minute - ?2) / ?3, sum(calls), sum(failures), sum(slow), sum(rejected),
                sum(p50_us * max(calls, 1)) / sum(iif(p50_us IS NULL, 0, max(calls, 1))),
                max(p99_us), sum(closed_ms), sum(half_open_ms), sum(open_ms), sum(held_ms)
            FROM minutes WHERE circuit = ?1 AND minute >= ?2 AND minute < ?2 + ?3 * ?4
            GROUP BY 1",
        )?;
        let mut sums = vec![None; count];
        let mut rows = query.query(params![circuit, first, step, count])?;
        while let Some(row) = rows.next()? {
            let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
            let millis = |index| count(index).map(Duration::from_millis);
            let micros = |index| -> rusqlite::Result<_> {
                let micros: Option<i64> = row.get(index)?;
                Ok(micros.map(|micros| Duration::from_micros(micros.unsigned_abs())))
            };
            let sum = Sum {
                counts: Counts {
                    calls: count(1)?,
                    failures: count(2)?,
                    slow: count(3)?,
                    rejected: count(4)?,
                },
                p50: micros(5)?,
                p99: micros(6)?,
                lasted: Lasted {
                    closed: millis(7)?,
                    half_open: millis(8)?,
                    open: millis(9)?,
                    held: millis(10)?,
                },
            };
            let at: usize = row.get(0)?;
            if let Some(place) = sums.get_mut(at) {
                *place = Some(sum);
            }
        }
        Ok(sums)
    }

    /// Whether there is anything of a circuit.
    pub fn knows(&self, circuit: &str) -> rusqlite::Result<bool> {
        let mut query =
            self.0.prepare_cached("SELECT 1 FROM minutes WHERE circuit = ?1 LIMIT 1")?;
        query.exists([circuit])
    }

    /// The latest of the events that are asked for. `None` if there is none of
    /// the number it is to begin before.
    pub fn events(&self, asked: &EventsAsked) -> rusqlite::Result<Option<EventsKept>> {
        let mut wanted = vec!["at_ms >= ?"];
        let mut values: Vec<Sql> = vec![millis(asked.since).into()];
        if let Some((epoch, number)) = asked.before {
            let mut query =
                self.0.prepare_cached("SELECT seq FROM events WHERE epoch = ?1 AND number = ?2")?;
            let key = params![format!("{epoch:016x}"), int(number)];
            let Some(seq) = query.query_row(key, |row| row.get::<_, i64>(0)).optional()? else {
                return Ok(None);
            };
            wanted.push("seq < ?");
            values.push(seq.into());
        }
        if let Some(circuit) = &asked.circuit {
            wanted.push("circuit = ?");
            values.push(circuit.clone().into());
        }
        // One more, to see whether there is.
        values.push(int_of(asked.limit as u128 + 1).into());
        let mut query = self.0.prepare_cached(&format!(
            "SELECT epoch, event FROM events WHERE {} ORDER BY seq DESC LIMIT ?",
            wanted.join(" AND ")
        ))?;
        let rows = query.query_map(params_from_iter(values), |row| {
            let (epoch, event): (String, String) = (row.get(0)?, row.get(1)?);
            Ok((epoch, serde_json::from_str(&event).unwrap_or_default()))
        })?;
        let mut events = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let more = events.len() > asked.limit;
        events.truncate(asked.limit);
        events.reverse();
        Ok(Some(EventsKept { events, more }))
    }
}

/// As SQLite has numbers.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn int_of(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn millis(date: SystemTime) -> i64 {
    int_of(date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(store: &Store) -> i64 {
        store.0.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_schema_goes_forth_step_by_step_and_each_once() {
        let steps = ["CREATE TABLE a (x)", "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)"];
        let mut store = Store(Connection::open_in_memory().unwrap());
        for last in [1, 1, 3, 3] {
            store.migrate(&steps[..last]).unwrap();
            assert_eq!(version(&store), last as i64);
        }
        let sum: i64 = store.0.query_row("SELECT sum(x) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(sum, 3);
        assert!(matches!(store.migrate(&steps[..2]), Err(OpenError::Newer(3))));
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_behind() {
        let steps = ["CREATE TABLE a (x)", "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)"];
        let mut store = Store(Connection::open_in_memory().unwrap());
        assert!(matches!(store.migrate(&steps), Err(OpenError::Other(_))));
        assert_eq!(version(&store), 1);
        let count: i64 = store.0.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    }
}
