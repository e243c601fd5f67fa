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
use crate::{Circuit, Registry};

/// How long a snapshot is good for others who ask, if nothing has happened: so
/// that many readers who come back at once are as one.
const SHARED_FOR: Duration = Duration::from_millis(250);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// The second in which the circuits were looked at.
    second: u64,
    rows: BTreeMap<String, Row>,
    /// What changed in the last second, encoded: what most readers want.
    latest: Option<(u64, Bytes)>,
    snapshot: Option<Snapshot>,
}

#[derive(Debug)]
struct Row {
    circuit: Circuit,
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
        let frame = told.encode(&service.settings.registry, seen);
        told.latest = Some((seen, frame.clone()));
        Some(frame)
    }

    /// All circuits, in the order of their trouble.
    pub(super) fn snapshot(&self, service: &Shared) -> Snapshot {
        let mut told = self.lock();
        // From here on it is known what has changed.
        told.advance(service);
        let (now, registry) = (service.now(), &service.settings.registry);
        // Before the look: an event is told twice rather than never.
        let last_id = registry.events_after(u64::MAX, 0).last_id;
        if let Some(snapshot) = &told.snapshot {
            let age = now.saturating_duration_since(snapshot.at);
            if snapshot.last_id == last_id && age < SHARED_FOR {
                return snapshot.clone();
            }
        }
        let mut list = view::list(registry, &Filter::default(), Sort::Trouble, Part::ALL);
        list["last_id"] = last_id.into();
        let snapshot = Snapshot { at: now, last_id, json: list.to_string().into() };
        told.snapshot = Some(snapshot.clone());
        snapshot
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
        if second == self.second && !self.rows.is_empty() {
            return;
        }
        service.sample();
        self.second = second;
        self.latest = None;
        let mut before = std::mem::take(&mut self.rows);
        for seen in view::all(&service.settings.registry) {
            let row = Row::of(&seen, before.remove(&seen.id), second);
            self.rows.insert(seen.id, row);
        }
    }

    fn encode(&self, registry: &Registry, seen: u64) -> Bytes {
        let changed = self.rows.values().filter(|row| row.changed > seen);
        let circuits = changed.filter_map(|row| row.tell(registry, self.second, seen));
        let tick = json!({
            "now": rfc3339(wall_clock()),
            "circuits": circuits.collect::<Value>(),
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
            _ => {
                let (circuit, told) = (seen.circuit.clone(), seen.to_row().into());
                Self { circuit, begun, changed: second, print, told }
            }
        }
    }

    /// What it is to a reader who knows how it was in a second: all there is, if
    /// it was not there then.
    fn tell(&self, registry: &Registry, now: u64, known: u64) -> Option<Value> {
        let is_new = self.begun > known;
        if self.changed == now && !is_new {
            return Some(self.told.clone());
        }
        let seen = Seen::of(registry, self.circuit.clone())?;
        Some(if is_new { seen.to_json() } else { seen.to_row() }.into())
    }
}
