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

use std::sync::{Arc, PoisonError};

use super::{
    Circuit,
    lane::Counters,
    permit::{Permit, Started},
    shared::{Alone, Core, Shared},
    sync::{Mutex, MutexGuard},
};
use crate::{
    machine::{InFlight, Place, Ticket},
    rules::Rules,
    time::Time,
};

/// A lane's calls in flight.
pub(super) struct Flights(Alone<Mutex<List>>);

struct List {
    /// Whose calls they are: those of others are stale, and so is their age.
    generation: u64,
    calls: InFlight,
}

impl Default for Flights {
    fn default() -> Self {
        Self(Alone(Mutex::new(List { generation: 0, calls: InFlight::new(None) })))
    }
}

impl Flights {
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
        if ticket.place().is_none() {
            return ticket;
        }
        self.flights().begin(ticket.generation, now)
    }

    #[inline]
    fn flights(&self) -> &Flights {
        self.flights.get_or_init(Box::default)
    }

    /// A call ends, or nobody is to mind its age any more: what its ticket is to
    /// the machine.
    #[inline]
    pub(super) fn leave(&self, ticket: Ticket) -> Ticket {
        let Some(place) = ticket.place() else { return ticket };
        match self.flights().end(ticket.generation, place) {
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
        let place = self.flights().end(ticket.generation, ticket.place()?)?;
        Some(Ticket::overdue(ticket.generation, place))
    }
}

impl Circuit {
    /// A permit, if the gate lets everybody in whose age is watched.
    #[inline(never)]
    pub(super) fn pass_watched(&self) -> Option<Permit> {
        let (generation, now) = self.watched_gate()?;
        let lane = self.0.lane();
        let ticket = lane.counters.flights().begin(generation, now);
        Some(Permit::new(Arc::clone(lane), ticket, Started::At(now)))
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

/// Until when nobody can be overdue of whom the first began then; `NEVER` if
/// nobody minds.
pub(super) fn look_at(rules: &Rules, began: Time) -> Time {
    rules.slow_calls.map_or(Time::NEVER, |rule| began.after(rule.threshold))
}

impl Shared {
    /// Hands the machine the calls that are overdue.
    #[cold]
    pub(super) fn hand_over_overdue(&self, core: &mut Core, now: Time) {
        if let Some(rule) = core.machine.rules().slow_calls {
            let waiting = self.hand_over(core, now, |began| now.since(began) > rule.threshold);
            core.look_at = look_at(core.machine.rules(), waiting);
        }
    }

    /// Lets the rules be changed: of the calls that were watched by the old ones
    /// the machine knows best what becomes of them, so it is handed all.
    pub(super) fn rewatch(&self, core: &mut Core, now: Time, change: impl FnOnce(&mut Core)) {
        let waiting =
            if core.machine.watches_calls() { self.hand_over(core, now, |_| true) } else { now };
        change(core);
        core.look_at = look_at(core.machine.rules(), waiting);
    }

    /// Hands the machine calls from all lanes, as long as those that began first
    /// are `wanted`. Returns when the first of the others began, if that was
    /// before `now`.
    fn hand_over(&self, core: &mut Core, now: Time, wanted: impl Fn(Time) -> bool) -> Time {
        let generation = core.machine.generation();
        let mut lists: Vec<_> = self.counters.flights().map(Flights::lock).collect();
        for list in &mut lists {
            // A call that comes to its list later has begun no earlier, whatever
            // its clock said: the machine has looked.
            list.calls.advance(now);
        }
        lists.retain(|list| list.generation == generation);
        loop {
            let waiting = |list: &mut MutexGuard<'_, List>| list.calls.waiting_since();
            let first = lists.iter_mut().filter_map(|list| Some((waiting(list)?, list)));
            match first.min_by_key(|(began, _)| *began) {
                Some((began, list)) if wanted(began) => {
                    list.calls.pass(core.machine.take_over(began).to_bits());
                }
                Some((began, _)) => return began.min(now),
                None => return now,
            }
        }
    }

    /// How many calls of a generation are overdue that the machine has not heard
    /// of. Under the circuit's lock, or some would be counted twice or not at
    /// all.
    pub(super) fn overdue_unheard_of(&self, core: &Core, generation: u64, now: Time) -> u64 {
        let Some(rule) = core.machine.rules().slow_calls else { return 0 };
        let overdue = |flights: &Flights| {
            let list = flights.lock();
            if list.generation != generation {
                return 0;
            }
            list.calls.overdue_beyond(now, rule.threshold)
        };
        self.counters.flights().map(overdue).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It read the gate before the others did, and came here after them.
    #[test]
    fn a_call_of_an_older_generation_is_not_watched_and_ends_no_list() {
        let (flights, now) = (Flights::default(), Time::ZERO);
        let newer = flights.begin(2, now).place().unwrap();
        assert_eq!(flights.begin(1, now).place(), None);
        assert_eq!(flights.lock().generation, 2);
        assert_eq!(flights.lock().calls.waiting_since(), Some(now));
        assert_eq!(flights.end(2, newer), None);
        assert_eq!(flights.lock().calls.waiting_since(), None);
        assert_ne!(flights.begin(3, now).place(), None);
        assert_eq!(flights.lock().generation, 3);
    }

    /// It read the clock before the others looked, and came here after them.
    #[test]
    fn a_call_began_no_earlier_than_the_last_look_in_another_generation_either() {
        let (flights, looked) = (Flights::default(), Time::from_nanos(10));
        flights.lock().calls.advance(looked);
        for generation in [0, 1] {
            flights.begin(generation, Time::ZERO);
            assert_eq!(flights.lock().calls.waiting_since(), Some(looked));
        }
    }
}
