//! Who may have a stream: a bounded number, and whoever stops reading makes
//! room.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::{Duration, Instant},
};

use super::refusal::Refusal;

/// After so long without a look at it a stream is taken for stuck: one that is
/// read is polled every second. It then makes room, if room is wanted.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The places there are.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by: BTreeMap<u64, Reader>,
    tickets: u64,
    is_over: bool,
}

#[derive(Debug)]
struct Reader {
    polled: Instant,
    waker: Option<Waker>,
}

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    ticket: u64,
}

/// How it stands with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Kept,
    /// Somebody else has it.
    Lost,
    /// There are no more streams.
    Over,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, taken: Mutex::default() }
    }

    /// Takes a place, if need be from one who is stuck.
    pub(super) fn take(self: &Arc<Self>, now: Instant) -> Result<Place, Refusal> {
        let mut stuck = None;
        let mut taken = self.lock();
        if taken.is_over {
            return Err(Refusal::shutting_down());
        }
        if taken.by.len() >= self.limit {
            let longest = taken.by.iter().min_by_key(|(_, reader)| reader.polled);
            let is_stuck = |(_, reader): &(_, &Reader)| {
                now.saturating_duration_since(reader.polled) > STUCK_AFTER
            };
            let Some((&ticket, _)) = longest.filter(is_stuck) else {
                return Err(Refusal::too_many_streams(self.limit));
            };
            stuck = taken.by.remove(&ticket);
        }
        taken.tickets += 1;
        let ticket = taken.tickets;
        taken.by.insert(ticket, Reader { polled: now, waker: None });
        drop(taken);
        // Outside the lock. It ends at once if its server can still ask it.
        stuck.and_then(|reader| reader.waker).into_iter().for_each(Waker::wake);
        Ok(Place { places: Arc::clone(self), ticket })
    }

    /// Ends every stream, and begins no more.
    pub(super) fn close(&self) {
        let taken = {
            let mut taken = self.lock();
            taken.is_over = true;
            mem::take(&mut taken.by)
        };
        taken.into_values().filter_map(|reader| reader.waker).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing in there panics half-way.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Notes that it is looked at, and whom to wake when it ends.
    pub(super) fn check(&self, now: Instant, waker: &Waker) -> Standing {
        // Cloned and dropped outside the lock: both may run what is not ours.
        let waker = waker.clone();
        let _replaced;
        let mut taken = self.places.lock();
        if taken.is_over {
            return Standing::Over;
        }
        let Some(reader) = taken.by.get_mut(&self.ticket) else { return Standing::Lost };
        reader.polled = now;
        _replaced = reader.waker.replace(waker);
        Standing::Kept
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.places.lock().by.remove(&self.ticket);
        // Outside the lock: its waker may be the last of its task.
        drop(left);
    }
}
