//! The bounded history of events, and those who follow it.
//!
//! One ring for all readers, and a place in it for each: whoever publishes puts
//! one event into the ring and waits for nobody; whoever reads too slowly finds
//! that the ring has moved on, and is told so.

use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    fmt,
    future::poll_fn,
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use super::event::{Event, EventKind};
use crate::circuit::sync::{Mutex, MutexGuard};

/// The events of a registry: the last so many.
pub(super) struct Ring(Mutex<State>);

struct State {
    events: VecDeque<Arc<Event>>,
    /// How many there may be.
    capacity: usize,
    /// The number of the latest event; zero before the first.
    last: u64,
    /// Of those who wait for the next event.
    wakers: BTreeMap<u64, Waker>,
    subscriptions: u64,
    /// Whether nothing more will come.
    closed: bool,
}

/// Those who waited for an event. Woken when dropped, which must not be under
/// a lock.
#[must_use = "dropped at once it wakes under whatever lock is held"]
pub(super) struct Waiters(BTreeMap<u64, Waker>);

impl Drop for Waiters {
    fn drop(&mut self) {
        mem::take(&mut self.0).into_values().for_each(Waker::wake);
    }
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Mutex::new(State {
            events: VecDeque::new(),
            capacity,
            last: 0,
            wakers: BTreeMap::new(),
            subscriptions: 0,
            closed: false,
        }))
    }

    /// Adds an event, if somebody can still read it and `told` says so under
    /// the lock.
    pub(super) fn publish_if(
        &self,
        told: impl FnOnce() -> bool,
        at: SystemTime,
        circuit: &Arc<str>,
        key: Option<&Arc<str>>,
        kind: EventKind,
    ) -> Option<(u64, Waiters)> {
        let (circuit, key) = (Arc::clone(circuit), key.cloned());
        let mut state = self.lock();
        if state.closed || !told() {
            return None;
        }
        state.last += 1;
        let id = state.last;
        let is_full = state.events.len() == state.capacity;
        let oldest = is_full.then(|| state.events.pop_front());
        state.events.push_back(Arc::new(Event { id, at, circuit, key, kind }));
        let waiters = Waiters(mem::take(&mut state.wakers));
        drop(state);
        // With the lock released: it may be the last of much.
        drop(oldest);
        Some((id, waiters))
    }

    /// Lets everybody who waits know that nothing more will come.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiters = Waiters(mem::take(&mut state.wakers));
        drop(state);
        drop(waiters);
    }

    /// The events that came after this one, at most `limit`.
    pub(super) fn after(&self, id: u64, limit: usize) -> History {
        let state = self.lock();
        let id = state.known(id);
        let oldest = state.oldest();
        let skipped = (id + 1).saturating_sub(oldest);
        // At most the length of the ring.
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        History {
            events: state.events.iter().skip(skipped).take(limit).cloned().collect(),
            missed: oldest.saturating_sub(id + 1),
            last_id: state.last,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of the oldest event there is, or of the next one.
    fn oldest(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }

    /// Where somebody stands who has seen this event. One that is yet to come
    /// is of another life: of that, nothing here has been seen.
    const fn known(&self, id: u64) -> u64 {
        if id > self.last { 0 } else { id }
    }
}

/// Events of the past: see
/// [`Registry::events_after`](crate::Registry::events_after).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// In their order.
    pub events: Vec<Arc<Event>>,
    /// How many that were asked for had left the history.
    pub missed: u64,
    /// The number of the latest event of all; zero before the first.
    pub last_id: u64,
}

/// A place in a registry's history, to read on from: see
/// [`Registry::subscribe`](crate::Registry::subscribe).
///
/// It has no queue of its own, so it may be read as slowly as one likes, or not
/// at all: nobody waits for it, and it holds no memory. A reader that the
/// history has overtaken is told [how many events it missed](Lagged), and goes
/// on with the oldest there is.
///
/// It needs no runtime.
///
/// ```
/// use tower_breaker::{Config, EventKind, Registry};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::new();
/// let mut events = registry.subscribe();
/// registry.circuit(Config::builder("inventory").build()?)?.trip();
///
/// let registered = events.next().await.expect("the registry is there")?;
/// assert_eq!(registered.kind, EventKind::Registered);
/// let opened = events.next().await.expect("the registry is there")?;
/// assert_eq!(opened.to_string(), "inventory: closed -> open, because it was tripped by hand; next try in 1.0s");
/// # Ok(())
/// # }
/// ```
pub struct Subscription {
    ring: Arc<Ring>,
    /// The number of the event it has seen last.
    seen: u64,
    /// Whether it is yet to be told that it stands in another life's history.
    lost: bool,
    /// Its place among those who wait.
    place: u64,
}

impl Subscription {
    /// From the event after the latest.
    pub(super) fn from_now(ring: Arc<Ring>) -> Self {
        Self::at(ring, |state| state.last)
    }

    /// From the event after this one.
    pub(super) fn after(ring: Arc<Ring>, id: u64) -> Self {
        Self::at(ring, |_| id)
    }

    fn at(ring: Arc<Ring>, seen: impl FnOnce(&State) -> u64) -> Self {
        let mut state = ring.lock();
        let id = seen(&state);
        let seen = state.known(id);
        state.subscriptions += 1;
        let place = state.subscriptions;
        drop(state);
        Self { ring, seen, lost: seen != id, place }
    }

    /// The number of the event it has given out last, for
    /// [`Registry::subscribe_after`](crate::Registry::subscribe_after); after a
    /// [lag](Lagged), that of the last one missed.
    pub const fn last_id(&self) -> u64 {
        self.seen
    }

    /// The next event, if there is one. Never waits.
    ///
    /// # Errors
    ///
    /// [`Lagged`], once each time the history has moved on past its place.
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, Lagged> {
        let ring = Arc::clone(&self.ring);
        let state = ring.lock();
        self.read(&state)
    }

    /// The next event, as soon as there is one. `None` once every handle of
    /// the registry is gone and everything has been read. Nothing is lost if the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// [`Lagged`], once each time the history has moved on past its place.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Lagged>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// [`next`](Self::next) for whoever polls by hand; the shape is that of a
    /// `Stream`.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Arc<Event>, Lagged>>> {
        let waker = context.waker().clone();
        let ring = Arc::clone(&self.ring);
        // Dropped outside the lock: it may be the last of its task.
        let _replaced;
        let mut state = ring.lock();
        match self.read(&state).transpose() {
            None if !state.closed => {
                _replaced = state.wakers.insert(self.place, waker);
                Poll::Pending
            }
            next => Poll::Ready(next),
        }
    }

    fn read(&mut self, state: &State) -> Result<Option<Arc<Event>>, Lagged> {
        let oldest = state.oldest();
        let missed = oldest.saturating_sub(self.seen + 1);
        if missed > 0 || mem::take(&mut self.lost) {
            self.seen = oldest - 1;
            self.lost = false;
            return Err(Lagged { missed });
        }
        // At most the length of the ring.
        let Some(event) = state.events.get((self.seen + 1 - oldest) as usize) else {
            return Ok(None);
        };
        self.seen += 1;
        Ok(Some(Arc::clone(event)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let removed = self.ring.lock().wakers.remove(&self.place);
        // Outside the lock: it may be the last of its task.
        drop(removed);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("last_id", &self.seen).finish_non_exhaustive()
    }
}

/// A reader was slower than the history is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lagged {
    /// How many events it can't have any more. Zero if it went by the number of
    /// an event that is yet to come, as of a process before this one: whatever
    /// it had is of no use, and the whole history follows.
    pub missed: u64,
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missed {
            0 => f.write_str("the history starts over"),
            1 => f.write_str("1 event has left the history unread"),
            missed => write!(f, "{missed} events have left the history unread"),
        }
    }
}

impl Error for Lagged {}
