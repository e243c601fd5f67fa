//! The calls in flight that a slow rule watches, lane by lane.
//!
//! A call that is not overdue concerns nobody but itself. It waits in a list of
//! the lane that it came by, and as a rule leaves it without the circuit's lock.
//! Until a certain time, which stands next to the gate, nobody can be overdue,
//! and whoever comes by then need not ask. Whoever comes later takes the
//! circuit's lock and hands the machine those that are overdue by now, from all
//! lanes and in the order in which they began; who waits then says until when
//! nobody has to look again. Nothing of that is a matter of chance: the machine
//! knows of each overdue call before it decides on anything.
//!
//! A lane's lock is taken under the circuit's, or alone; never the other way
//! round.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    Circuit,
    lane::Counters,
    permit::Permit,
    shared::{Alone, Core, Shared},
    sync::{Mutex, MutexGuard},
};
use crate::{
    machine::{InFlight, Place, Ticket},
    time::Time,
};

/// A lane's calls in flight.
pub(super) struct Flights(Alone<Mutex<List>>);

struct List {
    /// Whose calls they are: those of others are stale, and so is their age.
    generation: u64,
    calls: InFlight,
}

impl Flights {
    /// Calls that are overdue after `threshold`.
    pub(super) fn new(threshold: Duration) -> Self {
        let list = List { generation: 0, calls: InFlight::new(threshold) };
        Self(Alone(Mutex::new(list)))
    }

    /// A call begins in a generation.
    #[inline]
    fn begin(&self, generation: u64, now: Time) -> Ticket {
        let mut list = self.lock();
        if list.generation != generation {
            if list.generation > generation {
                return Ticket::call(generation);
            }
            list.restart(generation);
        }
        list.calls
            .begin(now)
            .map_or(Ticket::call(generation), |place| Ticket::tracked(generation, place))
    }

    /// A call ends, or nobody is to mind its age any more. Returns the place
    /// that the machine gave it, if that has heard of it.
    #[inline]
    fn end(&self, generation: u64, place: Place) -> Option<Place> {
        let mut list = self.lock();
        let is_known = list.generation == generation;
        let note = if is_known { list.calls.end(place) } else { None };
        note.map(Place::from_bits)
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, List> {
        // Nothing in there panics half-way.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    #[cold]
    fn restart(&mut self, generation: u64) {
        self.generation = generation;
        self.calls = self.calls.emptied();
    }
}

impl Counters {
    /// The permit's ticket for a call that the machine has admitted: with a
    /// place here, if its age counts. Under the circuit's lock, or the
    /// generation may be over.
    pub(super) fn placed(&self, ticket: Ticket, now: Time) -> Ticket {
        match (&self.flights, ticket.place()) {
            (Some(flights), Some(_)) => flights.begin(ticket.generation, now),
            _ => ticket,
        }
    }

    /// A call ends, or nobody is to mind its age any more: what its ticket is to
    /// the machine.
    #[inline]
    pub(super) fn leave(&self, ticket: Ticket) -> Ticket {
        let (Some(flights), Some(place)) = (&self.flights, ticket.place()) else { return ticket };
        match flights.end(ticket.generation, place) {
            Some(place) => Ticket::overdue(ticket.generation, place),
            None => Ticket::call(ticket.generation),
        }
    }
}

impl Counters {
    /// Nobody is to mind a call's age any more. Returns what its ticket is to
    /// the machine, if that has to hear of it.
    #[cfg(any(feature = "http", feature = "shadow"))]
    pub(super) fn untrack(&self, ticket: &Ticket) -> Option<Ticket> {
        let flights = self.flights.as_ref()?;
        let place = flights.end(ticket.generation, ticket.place()?)?;
        Some(Ticket::overdue(ticket.generation, place))
    }
}

impl Circuit {
    /// A permit, if the gate lets everybody in whose age is watched.
    #[inline(never)]
    pub(super) fn pass_watched(&self) -> Option<Permit> {
        let (generation, now) = self.watched_gate()?;
        let lane = self.0.lane();
        let ticket = lane.counters.flights.as_ref()?.begin(generation, now);
        Some(Permit::new(Arc::clone(lane), ticket, now))
    }

    /// The generation and the time, if everybody is let in whose age is watched,
    /// and nobody can be overdue yet.
    #[inline]
    pub(super) fn watched_gate(&self) -> Option<(u64, Time)> {
        // Before the gate: whoever sees that somebody has looked for overdue
        // calls sees the gate that came of it.
        let look_at = self.0.gate.0.look_at();
        let gate = self.0.gate.0.load();
        if !gate.is_closed_to_the_watched() {
            return None;
        }
        let now = self.0.now();
        (now <= look_at).then(|| (gate.generation(), now))
    }
}

impl Shared {
    /// Hands the machine the calls that are overdue.
    #[cold]
    pub(super) fn gather(&self, core: &mut Core, now: Time) {
        let Some(rule) = core.machine.rules().slow_calls else { return };
        let generation = core.machine.generation();
        let mut lists: Vec<_> = self.counters.flights().map(Flights::lock).collect();
        for list in &mut lists {
            // A call that comes to its list later has begun no earlier, whatever
            // its clock said: the machine has looked.
            list.calls.advance(now);
        }
        lists.retain(|list| list.generation == generation);
        let overdue = |list: &mut MutexGuard<'_, List>| list.calls.next_overdue(now);
        while let Some(list) = lists
            .iter_mut()
            .filter_map(|list| overdue(list).map(|began| (began, list)))
            .min_by_key(|(began, _)| *began)
            .map(|(began, list)| (began, &mut list.calls))
        {
            let (began, calls) = list;
            calls.pass(core.machine.take_over(began).to_bits());
        }
        let waiting = lists.iter().filter_map(|list| list.calls.waiting_since()).min();
        core.look_at = waiting.unwrap_or(now).min(now).after(rule.threshold);
    }

    /// How many calls of a generation are overdue that the machine has not heard
    /// of. Under the circuit's lock, or some may be counted twice or not at all.
    pub(super) fn overdue_unheard_of(&self, generation: u64, now: Time) -> u64 {
        let overdue = |flights: &Flights| {
            let list = flights.lock();
            if list.generation == generation { list.calls.overdue_beyond(now) } else { 0 }
        };
        self.counters.flights().map(overdue).sum()
    }
}
