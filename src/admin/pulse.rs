//! What all streams tell alike, put together once for all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    list::{Filter, Part, Sort},
    service::Shared,
    sse,
    time::{rfc3339, wall_clock},
    view::{self, Print, Seen},
};

/// Of how many circuits that left it is known when.
const GONE: usize = 1_000;

/// How long a snapshot is good for others who ask, if nothing has happened: so
/// that many readers who come back at once are as one.
const SHARED_FOR: Duration = Duration::from_millis(250);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// The second in which the circuits were looked at, once they were.
    second: Option<u64>,
    rows: BTreeMap<String, Row>,
    /// Those that were there and are no more, with the second in which that was
    /// seen.
    gone: BTreeMap<String, u64>,
    /// Who left up to this second is not known any more.
    forgotten: u64,
    /// What changed in the last second, encoded: what most readers want.
    latest: Option<(u64, Bytes)>,
    snapshot: Option<Snapshot>,
}

/// One circuit. There is no handle in it: a key's circuit that somebody holds
/// would never be idle.
#[derive(Debug)]
struct Row {
    /// The seconds in which it was first there, and in which it last changed.
    begun: u64,
    changed: u64,
    /// What it is known by to have changed.
    print: Print,
    /// What was told of it when it last changed.
    told: Value,
}

/// All circuits, as a stream begins.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    at: Instant,
    /// The number of the last event it may not know of yet.
    pub(super) last_id: u64,
    pub(super) json: Arc<str>,
}

impl Pulse {
    /// What has changed after a second, as an event of a stream. `None` if
    /// somebody else is just putting it together: come back soon.
    pub(super) fn since(&self, service: &Shared, seen: u64) -> Option<Bytes> {
        let mut told = match self.0.try_lock() {
            Ok(told) => told,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        told.advance(service);
        if let Some((since, frame)) = &told.latest {
            if *since == seen {
                return Some(frame.clone());
            }
        }
        let frame = if seen < told.forgotten {
            // Without a number: events before it may be yet to come.
            sse::event("snapshot", None, &told.snapshot(service).json)
        } else {
            told.encode(service, seen)
        };
        told.latest = Some((seen, frame.clone()));
        Some(frame)
    }

    /// All circuits, in the order of their trouble.
    pub(super) fn snapshot(&self, service: &Shared) -> Snapshot {
        let mut told = self.lock();
        // From here on it is known what has changed.
        told.advance(service);
        told.snapshot(service)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // What is there is told anew in the next second.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Looks at the circuits, once a second.
    fn advance(&mut self, service: &Shared) {
        let second = service.second();
        if self.second.replace(second) == Some(second) {
            return;
        }
        service.sample();
        self.latest = None;
        let mut before = std::mem::take(&mut self.rows);
        for seen in view::all(&service.settings.registry) {
            let row = Row::of(&seen, before.remove(&seen.id), second);
            self.gone.remove(&seen.id);
            self.rows.insert(seen.id, row);
        }
        self.gone.extend(before.into_keys().map(|id| (id, second)));
        if self.gone.len() > GONE {
            self.gone.clear();
            self.forgotten = second;
        }
    }

    fn snapshot(&mut self, service: &Shared) -> Snapshot {
        let (now, registry) = (service.now(), &service.settings.registry);
        // Before the look: an event is told twice rather than never.
        let last_id = registry.events_after(u64::MAX, 0).last_id;
        if let Some(snapshot) = &self.snapshot {
            let age = now.saturating_duration_since(snapshot.at);
            if snapshot.last_id == last_id && age < SHARED_FOR {
                return snapshot.clone();
            }
        }
        let mut list = view::list(registry, &Filter::default(), Sort::Trouble, Part::ALL);
        list["last_id"] = last_id.into();
        let snapshot = Snapshot { at: now, last_id, json: list.to_string().into() };
        self.snapshot = Some(snapshot.clone());
        snapshot
    }

    fn encode(&self, service: &Shared, seen: u64) -> Bytes {
        let changed = self.rows.iter().filter(|(_, row)| row.changed > seen);
        let circuits = changed.filter_map(|(id, row)| row.tell(service, id, self.second, seen));
        let gone = self.gone.iter().filter(|(_, second)| **second > seen);
        let tick = json!({
            "now": rfc3339(wall_clock()),
            "circuits": circuits.collect::<Value>(),
            "gone": gone.map(|(id, _)| id.as_str()).collect::<Value>(),
        });
        sse::event("tick", None, &tick.to_string())
    }
}

impl Row {
    fn of(seen: &Seen, before: Option<Self>, second: u64) -> Self {
        let print = seen.to_print();
        let begun = before.as_ref().map_or(second, |before| before.begun);
        match before {
            // Many circuits, of which few change: no more is made of those.
            Some(before) if before.print == print => before,
            _ => Self { begun, changed: second, print, told: seen.to_row().into() },
        }
    }

    /// What it is to a reader who knows how it was in a second: all there is, if
    /// it was not there then.
    fn tell(&self, service: &Shared, id: &str, now: Option<u64>, known: u64) -> Option<Value> {
        let is_new = self.begun > known;
        if Some(self.changed) == now && !is_new {
            return Some(self.told.clone());
        }
        let seen = Seen::of(&service.settings.registry, service.find(id).ok()?)?;
        Some(if is_new { seen.to_json() } else { seen.to_row() }.into())
    }
}
