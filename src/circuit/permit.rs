//! The right to one call.

use std::{
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Circuit, lane::Lane, sync::Ordering};
use crate::{
    machine::{End, Ticket},
    outcome::{CallEnd, Outcome},
    time::{Time, nanos},
};

/// The right to one call, taken with
/// [`Circuit::try_acquire`](Circuit::try_acquire).
///
/// Tell it how the call went with [`record`](Self::record). However it is
/// dropped instead, it is settled: a drop is a *cancelled* call, judged as
/// [`Cancellation`](crate::Cancellation) says, and a drop by a panic is a
/// failure.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # fn call() -> Result<(), ()> { Ok(()) }
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// let permit = circuit.try_acquire()?;
/// match call() {
///     Ok(()) => permit.record(Outcome::Success),
///     Err(()) => permit.record(Outcome::Failure),
/// }
/// assert_eq!(circuit.snapshot().totals.success, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "a permit that is dropped counts as a cancelled call"]
pub struct Permit {
    /// Gone once it is settled and [given back](Self::give_back), or taken over.
    lane: Option<Arc<Lane>>,
    /// Gone once it is settled.
    ticket: Option<Ticket>,
    started: Started,
    /// What the circuit's shadows have to remember of it.
    #[cfg(feature = "shadow")]
    following: Option<Box<super::following::Following>>,
    /// One of another circuit that ends with it.
    #[cfg(feature = "keyed")]
    pub(super) joined: Option<Box<Permit>>,
}

/// When a permit was issued.
#[derive(Clone, Copy, Debug)]
pub(super) enum Started {
    /// Nobody wants to know how long the call takes.
    Untimed,
    /// As the clock shows it. Where nobody asks when it was, but only how long
    /// ago, that saves a conversion, which takes a quarter as long as the reading.
    Instant(Instant),
    At(Time),
}

impl Permit {
    #[inline(always)]
    pub(super) fn new(lane: Arc<Lane>, ticket: Ticket, started: Started) -> Self {
        #[cfg(feature = "shadow")]
        let following =
            lane.shared.followers().and_then(|all| all.begin(lane.shared.began_at(started)));
        Self {
            lane: Some(lane),
            ticket: Some(ticket),
            started,
            #[cfg(feature = "shadow")]
            following,
            #[cfg(feature = "keyed")]
            joined: None,
        }
    }

    /// Ends the call. Its duration, if a rule needs it, is the time since the
    /// permit was taken.
    #[inline]
    pub fn record(mut self, outcome: Outcome) {
        self.end(Some(outcome));
    }

    /// Ends the call as dropped, even while a panic unwinds.
    pub fn cancel(mut self) {
        self.end(None);
    }

    /// A handle to the circuit it belongs to.
    pub fn circuit(&self) -> Circuit {
        self.lane().circuit()
    }

    /// Where it was taken.
    fn lane(&self) -> &Arc<Lane> {
        match &self.lane {
            Some(lane) => lane,
            None => unreachable!("it went with the ticket"),
        }
    }

    /// Ends the call, unless it has ended.
    #[inline]
    pub(crate) fn end(&mut self, outcome: Option<Outcome>) {
        if self.ticket.is_some() {
            self.end_now(outcome);
        }
    }

    /// Apart: each place where a permit goes out of scope would have a copy.
    #[inline(never)]
    fn end_now(&mut self, outcome: Option<Outcome>) {
        let reading = self.read();
        self.settle(outcome, reading);
    }

    /// Whether anybody wants to know how long the call takes.
    #[inline(always)]
    pub(crate) fn is_timed(&self) -> bool {
        !matches!(self.started, Started::Untimed)
    }

    /// Reads the clock, if anybody wants to know how long the call took.
    #[inline(always)]
    pub(crate) fn read(&self) -> Reading {
        if self.is_timed() { self.read_clock() } else { Reading::NONE }
    }

    #[inline(never)]
    pub(crate) fn read_clock(&self) -> Reading {
        match self.started {
            Started::Untimed => Reading::NONE,
            Started::Instant(started) => {
                let taken = self.lane().shared.clock.now().saturating_duration_since(started);
                Reading { latency: nanos(taken), now: Reading::AT_ITS_END }
            }
            Started::At(started) => {
                let now = self.lane().shared.now();
                Reading { latency: now.nanos_since(started), now }
            }
        }
    }

    /// The same reading with the time in it, where somebody wants to know that.
    fn dated(&self, reading: Reading) -> Reading {
        if reading.now == Reading::AT_ITS_END {
            let started = self.lane().shared.began_at(self.started);
            reading.at(started.after(Duration::from_nanos(reading.latency)))
        } else {
            reading
        }
    }

    /// How long the call took, for whoever judges it: zero, if it was timed for a
    /// sample and nothing else.
    #[inline]
    pub(crate) fn latency_to_judge(&self, reading: Reading) -> Duration {
        let is_sample = || self.ticket.as_ref().is_some_and(Ticket::is_sample);
        reading.latency().filter(|_| !is_sample()).unwrap_or_default()
    }

    /// Ends the call, unless it has ended, with a duration read before.
    #[inline(always)]
    pub(crate) fn settle(&mut self, outcome: Option<Outcome>, reading: Reading) {
        let takes_samples = |lane: &Arc<Lane>| lane.shared.pace.samples();
        let reading = if reading.is_known() && self.lane.as_ref().is_some_and(takes_samples) {
            self.give_sample(reading)
        } else {
            reading
        };
        self.settle_once_sampled(outcome, reading);
    }

    #[inline(always)]
    fn settle_once_sampled(&mut self, outcome: Option<Outcome>, reading: Reading) {
        let (Some(ticket), Some(lane)) = (&self.ticket, &self.lane) else { return };
        let shared = &*lane.shared;
        let end = shared.end(outcome, reading);
        let is_good = outcome == Some(Outcome::Success) && !end.slow && ticket.is_call();
        #[cfg(feature = "shadow")]
        let is_good = is_good && shared.followers().is_none();
        let gate = shared.gate.0.load();
        if is_good && gate.is_clean_in(ticket.generation) {
            self.ticket = None;
            lane.counters.passed.fetch_add(1, Ordering::Relaxed);
            shared.tell_call(CallEnd::Success, false, reading);
        } else if is_good && gate.tallies_in(ticket.generation) {
            self.tally(reading);
        } else {
            self.settle_with_machine(end, outcome, reading);
        }
        #[cfg(feature = "keyed")]
        self.end_joined(outcome, reading);
    }

    /// Gives back what it holds, once it is settled. Right after the counting that
    /// costs half of what it does when the permit is dropped: the processor waits
    /// with both until all that was written before is in its cache, and a response
    /// is handed on in between.
    #[inline(always)]
    pub(crate) fn give_back(&mut self) {
        debug_assert!(self.ticket.is_none(), "it is given back before it is settled");
        self.lane = None;
    }

    /// Gives its latency to those who take samples, if it is its turn. What is
    /// left of the reading is for everybody.
    #[inline(never)]
    fn give_sample(&self, reading: Reading) -> Reading {
        let Some(ticket) = &self.ticket else { return reading };
        let is_sample = ticket.is_sample();
        if let Some(latency) = reading.latency() {
            if is_sample || self.lane().counters.is_turn() {
                self.lane().shared.tell_sample(latency);
            }
        }
        if is_sample { reading.without_latency() } else { reading }
    }

    /// Ends a good call where the gate tallies.
    #[inline(never)]
    fn tally(&mut self, reading: Reading) {
        let reading = self.dated(reading);
        let (Some(ticket), Some(lane)) = (self.ticket.take(), &self.lane) else { return };
        let Lane { shared, counters, .. } = &**lane;
        let now = reading.now().unwrap_or_else(|| shared.now());
        let is_in_time = now < Time::from_nanos(shared.tally_until.load(Ordering::Acquire));
        if is_in_time && counters.tally.count(ticket.generation) {
            shared.tell_call(CallEnd::Success, false, reading);
        } else {
            shared.record_good(counters, ticket, reading.at(now));
        }
    }

    /// Ends the call where the machine, or a shadow, has to hear of it.
    #[inline(never)]
    fn settle_with_machine(&mut self, end: End, outcome: Option<Outcome>, reading: Reading) {
        let reading = self.dated(reading);
        let (Some(ticket), Some(lane)) = (self.ticket.take(), &self.lane) else { return };
        let Lane { shared, counters, .. } = &**lane;
        #[cfg(feature = "shadow")]
        if let Some(followers) = shared.followers() {
            let now = reading.now().unwrap_or_else(|| shared.now());
            shared.record(counters, ticket, end, Reading { now, ..reading });
            let following = self.following.take();
            followers.end(
                following,
                shared.began_at(self.started),
                now,
                outcome,
                reading.latency(),
            );
            return;
        }
        if outcome == Some(Outcome::Success) && !end.slow && ticket.place().is_some() {
            // It is not overdue, so it may be gone before it counts; and from here
            // on it is a call like any other.
            self.ticket = Some(counters.leave(ticket));
            return self.settle_once_sampled(outcome, reading);
        }
        shared.record(counters, ticket, end, reading);
    }

    /// Ends the call because it is dropped. Few are.
    #[cold]
    fn abandon(&mut self) {
        self.end(thread::panicking().then_some(Outcome::Failure));
    }

    /// Notes that the dependency asked to be left alone for so long.
    pub(crate) fn hint(&mut self, retry_after: Duration) {
        let (Some(ticket), Some(lane)) = (&self.ticket, &self.lane) else { return };
        let shared = &*lane.shared;
        let now = shared.now();
        shared.hint(ticket, retry_after, now);
        #[cfg(feature = "shadow")]
        if let Some(followers) = shared.followers() {
            followers.hint(&mut self.following, now, retry_after);
        }
    }

    /// Notes that the dependency asked, at `at`, to be left alone for so long.
    #[cfg(feature = "shadow")]
    pub(super) fn hint_at(&self, at: Time, retry_after: Duration) {
        if let Some(ticket) = &self.ticket {
            self.lane().shared.hint(ticket, retry_after, at);
        }
    }

    /// The answer came. If it did in time, the call may take as long as it likes
    /// from here on.
    #[cfg(feature = "http")]
    pub(crate) fn untrack(&self, reading: Reading) {
        let Some(ticket) = &self.ticket else { return };
        self.lane().shared.untrack(&self.lane().counters, ticket, reading);
        #[cfg(feature = "shadow")]
        if let Some(following) = &self.following {
            following.untrack(reading);
        }
        #[cfg(feature = "keyed")]
        if let Some(joined) = &self.joined {
            joined.untrack(reading);
        }
    }

    /// The same, of a candidate's permit.
    #[cfg(feature = "shadow")]
    pub(super) fn untrack_candidate(&self, reading: Reading) {
        if let Some(ticket) = &self.ticket {
            self.lane().shared.untrack(&self.lane().counters, ticket, reading);
        }
    }

    /// Ends the call, unless it has ended, as dropped after its answer came:
    /// without a duration it is not slow, at any age.
    #[cfg(feature = "http")]
    pub(crate) fn drop_answered(&mut self, head: Reading) {
        self.note_head(head);
        self.settle(None, Reading::NONE);
    }

    /// So that a replay knows of it, too.
    #[cfg(feature = "http")]
    fn note_head(&mut self, head: Reading) {
        let _ = head;
        #[cfg(feature = "shadow")]
        if let (Some(_), Some(lane), Some(after)) = (&self.ticket, &self.lane, head.latency()) {
            if let Some(followers) = lane.shared.followers() {
                followers.answered(&mut self.following, after);
            }
        }
        #[cfg(feature = "keyed")]
        if let Some(joined) = &mut self.joined {
            joined.note_head(head);
        }
    }

    /// Hands the call over: this permit has ended and is asked for nothing more,
    /// the new one has not.
    #[cfg(feature = "http")]
    pub(crate) fn take(&mut self) -> Self {
        Self {
            lane: self.lane.take(),
            ticket: self.ticket.take(),
            started: self.started,
            #[cfg(feature = "shadow")]
            following: self.following.take(),
            #[cfg(feature = "keyed")]
            joined: self.joined.take(),
        }
    }
}

/// A look at the clock when a call ended, as far as anybody wants it. Two words,
/// so that it travels in registers.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// In nanoseconds; the most there can be if nobody knows.
    latency: u64,
    /// `NEVER` if it is not known.
    now: Time,
}

impl Reading {
    const UNKNOWN: u64 = u64::MAX;

    /// Where nobody has asked yet: as long after the call's beginning as it took.
    /// A clock does not show it.
    const AT_ITS_END: Time = Time::from_nanos(u64::MAX - 1);

    pub(crate) const NONE: Self = Self { latency: Self::UNKNOWN, now: Time::NEVER };

    #[cfg(feature = "shadow")]
    pub(crate) fn new(latency: Option<Duration>, now: Option<Time>) -> Self {
        let latency =
            latency.map_or(Self::UNKNOWN, |latency| crate::time::nanos(latency).min(u64::MAX - 1));
        Self { latency, now: now.unwrap_or(Time::NEVER) }
    }

    /// How long the call took.
    #[inline]
    pub(crate) fn latency(self) -> Option<Duration> {
        self.is_known().then(|| Duration::from_nanos(self.latency))
    }

    /// Whether it is known how long the call took.
    #[inline(always)]
    pub(crate) fn is_known(self) -> bool {
        self.latency != Self::UNKNOWN
    }

    /// Whether it took longer than so many nanoseconds.
    #[inline]
    pub(super) fn is_longer_than(self, nanos: u64) -> bool {
        self.latency > nanos && self.latency != Self::UNKNOWN
    }

    /// When it ended, if that is now.
    #[inline]
    pub(super) fn now(self) -> Option<Time> {
        (self.now != Time::NEVER).then_some(self.now)
    }

    fn without_latency(self) -> Self {
        Self { latency: Self::UNKNOWN, ..self }
    }

    /// The same, where the clock has been read since.
    fn at(self, now: Time) -> Self {
        Self { now, ..self }
    }

    /// The same, of a call that goes on.
    #[cfg(any(feature = "http", feature = "keyed"))]
    pub(crate) fn of_the_head(self) -> Self {
        Self { now: Time::NEVER, ..self }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("circuit", &self.circuit())
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.abandon();
        }
    }
}
