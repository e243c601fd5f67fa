//! What the writer is fed with: events as they come, and a look at every
//! circuit each minute.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{mpsc, oneshot};
use tower_breaker::{Circuit, Event, EventKind, Lagged, Registry, Subscription};

use super::{
    minutes::{self, Look, Minute, Minutes},
    store::{Batch, Cutoffs, Entry},
};
use crate::config;

const MINUTE: Duration = Duration::from_secs(60);

/// How many events wait for the writer here. The others wait in the registry,
/// which counts those that leave it unread.
const EVENTS: usize = 512;

/// How many events are kept, however young they are: about half a gigabyte. An
/// upstream that is down for good makes some twenty thousand a day.
const MOST: usize = 1_000_000;

/// How many minutes wait for the writer, over all circuits.
const MINUTES: usize = 20_000;

/// For how long the calendar must have gone on evenly before anything is
/// forgotten by it: one that was wrong when the machine came up, or is set to
/// the wrong year, would else take everything with it.
const STEADY: Duration = Duration::from_secs(600);

/// How often what is too old is forgotten.
const PRUNING: Duration = Duration::from_secs(3_600);

/// What the writer is to do.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) prune: Option<Cutoffs>,
    /// Who waits for it to be done.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
}

pub(super) struct Feed<K> {
    registry: Registry,
    subscription: Subscription,
    /// Events up to this one had happened when the circuits were looked at.
    looked_after: u64,
    circuits: BTreeMap<Arc<str>, Circuit>,
    minutes: Minutes,
    calendar: Calendar,
    keep: K,
    job: Job,
}

impl<K: Fn() -> config::History> Feed<K> {
    pub(super) fn new(registry: Registry, keep: K) -> Self {
        let subscription = registry.subscribe_after(0);
        let mut feed = Self {
            looked_after: 0,
            circuits: BTreeMap::new(),
            minutes: Minutes::default(),
            calendar: Calendar::new(now(), date()),
            keep,
            job: Job::default(),
            subscription,
            registry,
        };
        feed.find_circuits();
        feed
    }

    /// Feeds the writer until it is told to stop, and gives it all there is
    /// then.
    pub(super) async fn run(
        mut self,
        jobs: mpsc::Sender<Job>,
        mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = pin!(stop);
        let mut minute = pin!(tokio::time::sleep(rest_of_minute(date())));
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                place = jobs.reserve(), if self.has_any() => match place {
                    Ok(place) => place.send(self.take()),
                    // It has panicked, and said so.
                    Err(_) => return,
                },
                Some(waiting) = flushes.recv() => {
                    self.read_all();
                    self.look(now(), date());
                    self.job.waiting.push(waiting);
                }
                event = self.subscription.next(), if self.job.batch.entries.len() < EVENTS => {
                    // It holds the registry, so there is no end.
                    event.into_iter().for_each(|event| self.take_in(event));
                }
                () = &mut minute => {
                    self.look(now(), date());
                    self.job.prune = self.calendar.prune(now(), date(), (self.keep)());
                    minute.set(tokio::time::sleep(rest_of_minute(date())));
                }
            }
        }
        self.read_all();
        self.look(now(), date());
        if self.has_any() {
            let _ = jobs.send(self.take()).await;
        }
    }

    fn has_any(&self) -> bool {
        let Job { batch, prune, waiting } = &self.job;
        let is_empty = batch.entries.is_empty() && batch.minutes.is_empty();
        !is_empty || prune.is_some() || !waiting.is_empty()
    }

    fn take(&mut self) -> Job {
        let mut job = mem::take(&mut self.job);
        job.batch.epoch = self.registry.epoch();
        job
    }

    /// All events there are: no more than the registry's history is long.
    fn read_all(&mut self) {
        loop {
            match self.subscription.try_next() {
                Ok(None) => return,
                Ok(Some(event)) => self.take_in(Ok(event)),
                Err(lagged) => self.take_in(Err(lagged)),
            }
        }
    }

    fn take_in(&mut self, next: Result<Arc<Event>, Lagged>) {
        let entry = match next {
            Ok(event) => {
                if event.id > self.looked_after {
                    self.hear(&event);
                }
                Entry::Event(event)
            }
            Err(Lagged { missed, .. }) => {
                self.find_circuits();
                metrics::counter!("brk_history_events_missed_total").increment(missed);
                Entry::Missed { last: self.subscription.last_id(), count: missed, at: date() }
            }
        };
        self.job.batch.entries.push(entry);
    }

    /// What an event changes in the minute that is running.
    fn hear(&mut self, event: &Event) {
        let circuit = &event.circuit;
        match &event.kind {
            EventKind::Registered if !self.circuits.contains_key(circuit) => {
                let circuit = self.registry.get(circuit);
                circuit.into_iter().for_each(|circuit| self.begin(circuit));
            }
            EventKind::Removed => {
                self.end(circuit, now(), date());
                self.circuits.remove(circuit);
                self.minutes.forget(circuit);
            }
            EventKind::Transition(transition) => {
                self.minutes.moved(circuit, transition.at, transition.to);
            }
            EventKind::OverrideSet(over) => {
                self.minutes.held(circuit, now(), minutes::holds(over.kind));
            }
            EventKind::OverrideCleared { .. } => self.minutes.held(circuit, now(), false),
            _ => {}
        }
    }

    /// Begins with the circuits that are new, and forgets those that are gone.
    fn find_circuits(&mut self) {
        self.looked_after = self.registry.events_after(0, 0).last_id;
        let registry = &self.registry;
        self.circuits.retain(|_, circuit| registry.vitals(circuit).is_some());
        for circuit in self.registry.circuits() {
            if !self.circuits.contains_key(circuit.name()) {
                self.begin(circuit);
            }
        }
    }

    fn begin(&mut self, circuit: Circuit) {
        let Some(vitals) = self.registry.vitals(&circuit) else { return };
        let look = Look::at(&circuit.snapshot(), Some(&vitals));
        let name: Arc<str> = circuit.name().into();
        self.minutes.begin(&name, now(), look, look.counted_before(&vitals));
        self.circuits.insert(name, circuit);
    }

    /// Ends the minute of all circuits.
    fn look(&mut self, now: Instant, date: SystemTime) {
        let names: Vec<_> = self.circuits.keys().cloned().collect();
        names.iter().for_each(|name| self.end(name, now, date));
        let waiting = &mut self.job.batch.minutes;
        let too_many = waiting.len().saturating_sub(MINUTES);
        if too_many > 0 {
            waiting.drain(..too_many);
            metrics::counter!("brk_history_minutes_dropped_total").increment(too_many as u64);
        }
    }

    fn end(&mut self, name: &Arc<str>, now: Instant, date: SystemTime) {
        let Some(circuit) = self.circuits.get(name) else { return };
        let vitals = self.registry.vitals(circuit);
        let look = Look::at(&circuit.snapshot(), vitals.as_ref());
        let ended: Option<Minute> = self.minutes.end(name, now, date, look);
        self.job.batch.minutes.extend(ended);
    }
}

/// Whether the calendar goes as evenly as the clock, and when to forget by it.
#[derive(Debug)]
struct Calendar {
    now: Instant,
    date: SystemTime,
    steady_since: Instant,
    pruned: Option<Instant>,
}

impl Calendar {
    const fn new(now: Instant, date: SystemTime) -> Self {
        Self { now, date, steady_since: now, pruned: None }
    }

    /// Looked at each minute. What to forget, if it is time to.
    fn prune(&mut self, now: Instant, date: SystemTime, keep: config::History) -> Option<Cutoffs> {
        let expected = self.date + now.saturating_duration_since(self.now);
        let off = match date.duration_since(expected) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        };
        (self.now, self.date) = (now, date);
        if off >= MINUTE {
            self.steady_since = now;
        }
        let is_steady = now.saturating_duration_since(self.steady_since) >= STEADY;
        let is_due =
            self.pruned.is_none_or(|pruned| now.saturating_duration_since(pruned) >= PRUNING);
        if !is_steady || !is_due {
            return None;
        }
        self.pruned = Some(now);
        let before = |kept: Duration| date.checked_sub(kept).unwrap_or(UNIX_EPOCH);
        Some(Cutoffs { events: before(keep.events), most: MOST, minutes: before(keep.minutes) })
    }
}

/// How long the calendar's minute has still to run.
fn rest_of_minute(date: SystemTime) -> Duration {
    let since = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    MINUTE - Duration::from_nanos((since.as_nanos() % MINUTE.as_nanos()) as u64)
}

fn now() -> Instant {
    // As the circuits have it.
    tower_breaker::Clock::tokio().now()
}

#[expect(clippy::disallowed_methods, reason = "to which minute something belongs")]
pub(super) fn date() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: config::History = config::History {
        events: Duration::from_secs(86_400),
        minutes: Duration::from_secs(3_600),
    };

    #[test]
    fn a_minute_ends_with_the_calendars() {
        let date = UNIX_EPOCH + Duration::from_millis(90_250);
        assert_eq!(rest_of_minute(date), Duration::from_millis(29_750));
        assert_eq!(rest_of_minute(UNIX_EPOCH + MINUTE), MINUTE);
    }

    #[test]
    fn nothing_is_forgotten_by_a_calendar_that_has_just_jumped() {
        let (start, date) = (now(), date());
        let mut calendar = Calendar::new(start, date);
        let mut pruned = Vec::new();
        for minute in 1..=150_u32 {
            let century = Duration::from_secs(100 * 365 * 86_400);
            // At minute 65 the year is another, and at 68 it is put right.
            let off = if (65..68).contains(&minute) { century } else { Duration::ZERO };
            let cutoffs =
                calendar.prune(start + MINUTE * minute, date + MINUTE * minute + off, KEEP);
            if let Some(cutoffs) = cutoffs {
                assert_eq!(cutoffs.events + KEEP.events, date + MINUTE * minute);
                assert_eq!(cutoffs.minutes + KEEP.minutes, date + MINUTE * minute);
                pruned.push(minute);
            }
        }
        assert_eq!(pruned, [10, 78, 138]);
    }
}
