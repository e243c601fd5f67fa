//! What all handles and permits of a circuit share: the pure machine behind one
//! short lock, the gate before it, and those who watch.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

#[cfg(feature = "shadow")]
use super::following;
#[cfg(feature = "health-check")]
use super::health_check;
#[cfg(feature = "tokio")]
use super::waiter;
use super::{
    circuit_open::CircuitOpen,
    clock::{self, Clock},
    gate::{GateWord, Word},
    lane::{AllCounters, Counters},
    observer::{Call, Observer, Observers, Reconfigured, Transition, tell_each},
    pace::Pace,
    permit::{Reading, Started},
    snapshot::WindowSnapshot,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};
use crate::{
    machine::{self, End, Fact, Facts, Gate, Machine, Ticket, View},
    outcome::{CallEnd, FallbackEnd, Outcome},
    time::Time,
    totals::Totals,
};

pub(super) struct Shared {
    pub(super) gate: Alone<GateWord>,
    /// Nanoseconds: when the wait of the last opening is over.
    pub(super) until: AtomicU64,
    /// Nanoseconds: when the first lease ends, if no probe is left. Not the same
    /// word: whoever has seen an open gate may come to read the other one late.
    pub(super) full_until: AtomicU64,
    /// Nanoseconds: until when the gate tallies, if it does. Apart for the same
    /// reason.
    pub(super) tally_until: AtomicU64,
    pub(super) counters: AllCounters,
    /// Fallbacks by how they ended.
    pub(super) fallbacks: [AtomicU64; 3],
    pub(super) core: Mutex<Core>,
    pub(super) name: Arc<str>,
    /// Which of its group it is.
    pub(super) key: Option<Arc<str>>,
    pub(super) clock: Clock,
    pub(super) born: Instant,
    /// The same on the fast clock, if that is the circuit's.
    #[cfg(feature = "fast-clock")]
    pub(super) born_fast: u64,
    /// How long the state it was born in had lasted.
    pub(super) inherited: Duration,
    pub(super) observers: Observers,
    /// Those of them that hear of every call, besides the series.
    pub(super) call_observers: Vec<Arc<dyn Observer>>,
    pub(super) pace: Pace,
    #[cfg(feature = "health-check")]
    pub(super) health_check: health_check::Running,
    #[cfg(feature = "shadow")]
    pub(super) followers: Option<Box<following::Followers>>,
}

/// A cache line (two, where the processor fetches pairs) for one value.
#[repr(align(128))]
pub(super) struct Alone<T>(pub(super) T);

pub(super) struct Core {
    pub(super) machine: Machine,
    /// Whether every call is measured though no rule asks for it.
    pub(super) measure_latency: bool,
    /// What the gate shows.
    pub(super) published: Word,
    /// Until when no call can be overdue that the machine has not heard of;
    /// `NEVER` if nobody minds.
    pub(super) look_at: Time,
    #[cfg(feature = "tokio")]
    pub(super) wakers: waiter::Wakers,
    /// What happened and nobody was told of yet.
    pub(super) untold: VecDeque<Fact>,
    /// Whether somebody is telling, so that there is one order.
    pub(super) telling: bool,
}

impl Shared {
    /// Counts a refusal, if nobody has to be told more of it than that.
    #[inline(always)]
    pub(super) fn count_refusal(&self) -> bool {
        #[cfg(feature = "shadow")]
        if self.followers.is_some() {
            return false;
        }
        self.observers.others.is_empty() && self.observers.series.count_rejection()
    }

    #[inline(always)]
    pub(super) fn tell_refusal(&self, open: &CircuitOpen) {
        #[cfg(feature = "shadow")]
        if let Some(followers) = self.followers() {
            followers.refused(self.now());
        }
        self.observers.series.rejection(open);
        if !self.observers.others.is_empty() {
            self.tell_observers_of_refusal(open);
        }
    }

    #[inline(never)]
    fn tell_observers_of_refusal(&self, open: &CircuitOpen) {
        tell_each(&self.observers.others, |observer| observer.on_rejection(open));
    }

    /// How a call counts that ended so.
    #[inline]
    pub(super) fn end(&self, outcome: Option<Outcome>, reading: Reading) -> End {
        let is_long = reading.is_longer_than(self.pace.slow_after());
        End { outcome, slow: is_long && (outcome.is_some() || self.pace.judges_drops()) }
    }

    /// Takes a permit back where the machine has to hear of it.
    #[inline(never)]
    pub(super) fn record(&self, by: &Counters, ticket: Ticket, end: End, reading: Reading) {
        let now = reading.now().unwrap_or_else(|| self.now());
        let counted = self.update_at(now, |core, now, facts| {
            // Under the lock: who is overdue must not be gone before it counts.
            let ticket = by.leave(ticket);
            core.machine.record(ticket, end, now, facts)
        });
        if let Some(counted) = counted {
            let slow = end.is_slow() && counted != CallEnd::Stale;
            self.tell_call(counted, slow, reading);
        }
    }

    /// The dependency asked this call to stay away for so long.
    pub(super) fn hint(&self, ticket: &Ticket, retry_after: Duration, now: Time) {
        self.update_at(now, |core, now, facts| core.machine.hint(ticket, retry_after, now, facts));
    }

    /// What refusals are copied from.
    pub(super) fn refusal(&self) -> CircuitOpen {
        CircuitOpen::template(Arc::clone(&self.name), self.key.clone())
    }

    #[cfg(feature = "shadow")]
    #[inline]
    pub(super) fn followers(&self) -> Option<&following::Followers> {
        self.followers.as_deref()
    }

    /// The call goes on, but its age says nothing any more: unless it is slow
    /// already.
    #[cfg(any(feature = "http", feature = "shadow"))]
    pub(super) fn untrack(&self, by: &Counters, ticket: &Ticket, reading: Reading) {
        if reading.is_longer_than(self.pace.slow_after()) {
            return;
        }
        if let Some(overdue) = by.untrack(ticket) {
            self.update(|machine, _, _| machine.untrack(&overdue));
        }
    }

    /// An instant in the circuit's own time.
    pub(super) fn time(&self, instant: Instant) -> Time {
        Time::from_elapsed(instant.saturating_duration_since(self.born))
    }

    pub(super) fn instant(&self, time: Time) -> Instant {
        clock::add(self.born, time.elapsed())
    }

    #[inline]
    pub(super) fn now(&self) -> Time {
        #[cfg(feature = "fast-clock")]
        if let Some(clock) = self.clock.as_fast() {
            return Time::from_nanos(clock.elapsed().saturating_sub(self.born_fast));
        }
        self.time(self.clock.now())
    }

    /// When a call begins that is timed.
    #[inline]
    pub(super) fn start(&self) -> Started {
        #[cfg(feature = "fast-clock")]
        if self.clock.as_fast().is_some() {
            return Started::At(self.now());
        }
        Started::Instant(self.clock.now())
    }

    /// When a permit was issued, in the circuit's own time.
    pub(super) fn began_at(&self, started: Started) -> Time {
        match started {
            Started::Untimed => Time::NEVER,
            Started::Instant(instant) => self.time(instant),
            Started::At(time) => time,
        }
    }

    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Machine, Time, &mut Facts) -> R) -> R {
        self.update_core(|core, now, facts| change(&mut core.machine, now, facts))
    }

    pub(super) fn update_core<R>(
        &self,
        change: impl FnOnce(&mut Core, Time, &mut Facts) -> R,
    ) -> R {
        self.update_at(self.now(), change)
    }

    /// Changes the machine; then, with the lock released, wakes those who wait
    /// and tells those who watch.
    pub(super) fn update_at<R>(
        &self,
        now: Time,
        change: impl FnOnce(&mut Core, Time, &mut Facts) -> R,
    ) -> R {
        let mut facts = Facts::default();
        let mut core = self.lock();
        self.shut_tallies(&mut core);
        let look_at = core.look_at;
        if now > look_at {
            self.hand_over_overdue(&mut core, now);
        }
        let result = change(&mut core, now, &mut facts);
        self.publish(&mut core);
        if core.look_at != look_at {
            // After the gate: whoever need not look is to see what came of it.
            self.gate.0.store_look_at(core.look_at);
        }
        if facts.wake || !facts.happened.is_empty() || !core.untold.is_empty() {
            self.announce(core, facts);
        }
        result
    }

    /// Takes in a good call of a lane that may tally the next ones. Good it stays,
    /// even if a slow rule has come meanwhile: it would leave tallies open behind
    /// a gate that does not tally.
    #[inline(never)]
    pub(super) fn record_good(&self, lane: &Counters, ticket: Ticket, reading: Reading) {
        let now = reading.now().unwrap_or_else(|| self.now());
        let end = End { outcome: Some(Outcome::Success), slow: false };
        let mut facts = Facts::default();
        let mut core = self.lock();
        // Not shut: a good call makes none of the others matter.
        self.take_tallies(&mut core);
        let generation = ticket.generation;
        let counted = core.machine.record(ticket, end, now, &mut facts);
        self.publish(&mut core);
        if core.published.tallies_in(generation) {
            lane.tally.open(generation);
        }
        if facts.wake || !facts.happened.is_empty() {
            self.announce(core, facts);
        } else {
            drop(core);
        }
        if let Some(counted) = counted {
            self.tell_call(counted, false, reading);
        }
    }

    /// Has the machine take in what was tallied.
    pub(super) fn take_tallies(&self, core: &mut Core) {
        if core.published.tallies() {
            core.machine.add_successes(self.counters.sum_of(|counters| counters.tally.take()));
        }
    }

    /// The same, and nothing can be tallied until the gate says so again.
    fn shut_tallies(&self, core: &mut Core) {
        if core.published.tallies() {
            core.machine.add_successes(self.counters.sum_of(|counters| counters.tally.shut()));
        }
    }

    /// Releases the lock, then wakes and tells.
    #[cold]
    pub(super) fn announce(&self, mut core: MutexGuard<'_, Core>, facts: Facts) {
        #[cfg(feature = "tokio")]
        let woken = if facts.wake { core.wakers.take() } else { Vec::new() };
        // Only what has an order waits for a teller. The rest comes once a call,
        // and would pile up behind a slow observer.
        let watched = !facts.happened.is_empty() && !self.observers.is_empty();
        let happened = if watched { facts.happened } else { Vec::new() };
        let (ordered, direct): (Vec<_>, Vec<_>) =
            happened.into_iter().partition(Fact::has_an_order);
        for fact in ordered {
            // Of a share only the latest is news, and it may change once a call.
            if let (Fact::Share { .. }, Some(Fact::Share { .. })) = (&fact, core.untold.back()) {
                core.untold.pop_back();
            }
            core.untold.push_back(fact);
        }
        let has_untold = !core.untold.is_empty();
        drop(core);
        #[cfg(feature = "tokio")]
        for waker in woken {
            let _ = crate::panics::contain(|| waker.wake());
        }
        direct.into_iter().for_each(|fact| self.tell(fact));
        if has_untold {
            self.tell_untold();
        }
    }

    /// Tells the observers what they have not been told. One thread at a time
    /// does, so that there is one order; the others leave it their facts.
    pub(super) fn tell_untold(&self) {
        let mut core = self.lock();
        if core.telling {
            return;
        }
        core.telling = true;
        while let Some(fact) = core.untold.pop_front() {
            drop(core);
            self.tell(fact);
            core = self.lock();
        }
        core.telling = false;
    }
}

impl Shared {
    #[cfg(feature = "tokio")]
    pub(super) fn forget_waiter(&self, key: u64) {
        let removed = self.lock().wakers.remove(key);
        // Outside the lock: it may be the last of its task.
        drop(removed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing in there panics half-way; what a panic elsewhere poisoned is
        // whole.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the gate what the machine has become.
    pub(super) fn publish(&self, core: &mut Core) {
        let gate = core.machine.gate();
        let word = Word::new(core.machine.generation(), gate, core.machine.watches_calls());
        // Written only when it changes: every call reads its cache line.
        let until = match gate {
            Gate::Open { until } => Some((&self.until, until)),
            Gate::Full { until } => Some((&self.full_until, until)),
            Gate::Tally { until } => Some((&self.tally_until, until)),
            _ => None,
        };
        if let Some((word, until)) = until {
            if word.load(Ordering::Relaxed) != until.as_nanos() {
                word.store(until.as_nanos(), Ordering::Release);
            }
        }
        if core.published == word {
            return;
        }
        core.published = word;
        self.gate.0.store(word);
    }

    #[inline]
    pub(super) fn tell_call(&self, end: CallEnd, slow: bool, reading: Reading) {
        self.observers.series.call(&self.name, end, slow, reading);
        if !self.call_observers.is_empty() {
            self.tell_observers_of_call(end, slow, reading);
        }
    }

    pub(super) fn tell_sample(&self, latency: Duration) {
        self.observers.tell(|observer| observer.on_latency_sample(&self.name, latency));
    }

    #[inline(never)]
    fn tell_observers_of_call(&self, end: CallEnd, slow: bool, reading: Reading) {
        let (circuit, key) = (&*self.name, self.key.as_deref());
        let call = Call { circuit, key, end, slow, latency: reading.latency() };
        tell_each(&self.call_observers, |observer| observer.on_call(&call));
    }

    pub(super) fn tell(&self, fact: Fact) {
        let name = &*self.name;
        match fact {
            Fact::Transition(transition) => {
                let machine::Transition { minimum_calls, judges_slow, .. } = transition;
                let transition = Transition {
                    circuit: Arc::clone(&self.name),
                    key: self.key.clone(),
                    from: transition.from,
                    to: transition.to,
                    cause: transition.cause,
                    generation: transition.generation,
                    at: self.instant(transition.at),
                    window: WindowSnapshot::new(transition.window, minimum_calls, judges_slow),
                    open_for: transition.wait,
                };
                self.observers.tell(|observer| observer.on_transition(&transition));
            }
            Fact::Override { set } => {
                self.observers.tell(|observer| observer.on_override(name, set.as_ref()));
            }
            Fact::Reconfigured(machine::Reconfigured { changes, revision, at }) => {
                let (circuit, key) = (Arc::clone(&self.name), self.key.clone());
                let at = self.instant(at);
                let reconfigured = Reconfigured { circuit, key, revision, at, changes };
                self.observers.tell(|observer| observer.on_reconfigured(&reconfigured));
            }
            Fact::Share { percent } => {
                let share = f64::from(percent) / 100.0;
                self.observers.tell(|observer| observer.on_admitted_share(name, share));
            }
            Fact::Lapsed { probes } => {
                (0..probes).for_each(|_| self.tell_call(CallEnd::Failure, false, Reading::NONE));
            }
            Fact::WouldReject => {
                self.observers.tell(|observer| observer.on_would_reject(name));
            }
        }
    }

    #[cfg(feature = "health-check")]
    pub(super) fn tell_health_check(&self, passed: bool) {
        self.observers.tell(|observer| observer.on_health_check(&self.name, passed));
    }

    /// When a state began: that of birth may have begun before.
    pub(super) fn began(&self, view: &View) -> Instant {
        let began = self.instant(view.since);
        match view.generation {
            0 => began.checked_sub(self.inherited).unwrap_or(began),
            _ => began,
        }
    }

    /// Adds what the machine does not count.
    pub(super) fn add_to(&self, mut totals: Totals) -> Totals {
        totals.success += self.counters.sum(|counters| &counters.passed);
        totals.rejected += self.counters.sum(|counters| &counters.rejected);
        let fallbacks = |end| self.fallbacks[end as usize].load(Ordering::Relaxed);
        totals.fallback_answered = fallbacks(FallbackEnd::Answered);
        totals.fallback_failed = fallbacks(FallbackEnd::Failed);
        totals.fallback_cancelled = fallbacks(FallbackEnd::Cancelled);
        totals
    }
}

#[cfg(test)]
#[cfg(feature = "test-util")]
mod tests {
    use super::{
        super::{Circuit, Config, ManualClock},
        *,
    };
    use crate::{backoff::Backoff, probes::Probes};

    #[derive(Clone, Default)]
    struct Ends(Arc<Mutex<Vec<CallEnd>>>);

    impl Observer for Ends {
        fn on_call(&self, call: &Call<'_>) {
            self.0.lock().unwrap().push(call.end);
        }
    }

    /// It read the gate before the circuit opened, and came here after the others.
    #[test]
    fn a_success_that_comes_too_late_to_be_tallied_finds_out_what_time_has_done() {
        let (clock, ends) = (ManualClock::new(), Ends::default());
        let second = Duration::from_secs(1);
        let config = Config::builder("late")
            .open_for(Backoff::fixed(second))
            .probes(Probes::new(2).successes(1).lease(second))
            .observer(ends.clone())
            .clock(&clock);
        let circuit = Circuit::new(config.build().unwrap());
        circuit.trip();
        clock.advance(second);
        let probe = circuit.try_acquire().unwrap();
        clock.advance(second);
        let (lane, ticket) = (circuit.0.lane(), Ticket::call(0));
        circuit.0.record_good(&lane.counters, ticket, Reading::NONE);
        assert_eq!(*ends.0.lock().unwrap(), [CallEnd::Failure, CallEnd::Stale]);
        drop(probe);
    }
}
