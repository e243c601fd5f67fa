//! What all streams tell alike, put together once for all of them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    cursor,
    list::{Filter, Part, Sort},
    service::Shared,
    sse,
    time::{rfc3339, wall_clock},
    view::{self, Print, Seen},
};

/// Of how many circuits that left it is known when.
const GONE: usize = 1_000;

/// For how many seconds a snapshot is good for others who ask, if no circuit has
/// changed. Its ages are off by as much, which must be less than half a step.
const KEPT_FOR: u64 = 5;

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
    /// The second in which something was last seen to have changed.
    changed: u64,
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
    age: Duration,
    /// What it is known by to have changed.
    print: Print,
    /// What was told of it when it last changed.
    told: Value,
}

/// All circuits, as a stream begins: one for all who begin in a second, or who
/// is slow would hold one of his own. What changed after it they are told as
/// all others are.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The second from which on they are to be told what changed.
    pub(super) second: u64,
    /// The number of the last event it knows of for certain.
    pub(super) last_id: u64,
    /// As an event without a number: events before it may be yet to come.
    pub(super) frame: Bytes,
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
            told.snapshot(service, 0).frame
        } else {
            told.encode(service, seen)
        };
        told.latest = Some((seen, frame.clone()));
        Some(frame)
    }

    /// All circuits, in the order of their trouble, no earlier than the event of
    /// this number.
    pub(super) fn snapshot(&self, service: &Shared, after: u64) -> Snapshot {
        let mut told = self.lock();
        // From here on it is known what has changed.
        told.advance(service);
        told.snapshot(service, after)
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
            if row.changed == second {
                self.changed = second;
            }
            self.rows.insert(seen.id, row);
        }
        if !before.is_empty() {
            self.changed = second;
        }
        self.gone.extend(before.into_keys().map(|id| (id, second)));
        if self.gone.len() > GONE {
            self.gone.clear();
            self.forgotten = second;
        }
    }

    fn snapshot(&mut self, service: &Shared, after: u64) -> Snapshot {
        let registry = &service.settings.registry;
        // The circuits were looked at.
        let second = self.second.unwrap_or_default();
        if let Some(snapshot) = &self.snapshot {
            let is_same = self.changed <= snapshot.second
                && second.saturating_sub(snapshot.second) < KEPT_FOR;
            if snapshot.last_id >= after && (is_same || snapshot.second == second) {
                return snapshot.clone();
            }
        }
        // Before the look: an event is told twice rather than never.
        let last_id = registry.events_after(u64::MAX, 0).last_id;
        let mut list = view::list(registry, &Filter::default(), Sort::Trouble, Part::ALL);
        list["epoch"] = cursor::epoch(registry).into();
        list["last_id"] = last_id.into();
        let frame = sse::event("snapshot", None, &list.to_string());
        let snapshot = Snapshot { second, last_id, frame };
        self.snapshot = Some(snapshot.clone());
        snapshot
    }

    fn encode(&self, service: &Shared, seen: u64) -> Bytes {
        let changed = self.rows.iter().filter(|(_, row)| row.changed > seen);
        let circuits = changed.filter_map(|(id, row)| row.tell(service, id, self.second, seen));
        let gone = self.gone.iter().filter(|(_, second)| **second > seen);
        let mut tick = json!({
            "now": rfc3339(wall_clock()),
            "circuits": circuits.collect::<Value>(),
            "gone": gone.map(|(id, _)| id.as_str()).collect::<Value>(),
        });
        if let Some(notice) = service.settings.notice.as_ref().and_then(|ask| ask()) {
            tick["notice"] = notice.into();
        }
        sse::event("tick", None, &tick.to_string())
    }
}

impl Row {
    fn of(seen: &Seen, before: Option<Self>, second: u64) -> Self {
        let (print, age) = (seen.to_print(), seen.age());
        let before = before.filter(|before| before.age <= age);
        let begun = before.as_ref().map_or(second, |before| before.begun);
        match before {
            // Many circuits, of which few change: no more is made of those.
            Some(before) if before.print == print => Self { age, ..before },
            _ => Self { begun, changed: second, age, print, told: seen.to_row().into() },
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
