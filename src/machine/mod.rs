//! The state machine: closed, open, half-open, and the operator's override
//! over them.
//!
//! It is pure. Time is an argument, nothing here locks, logs or reads a clock,
//! and what happened is returned as [`Facts`] for somebody else to tell. Each
//! state owns its data; a transition replaces it with a fresh value.

mod closed;
#[cfg(test)]
mod exploration;
mod half_open;
mod in_flight;
mod ramp;
mod throttling;

use std::time::Duration;

pub(crate) use self::in_flight::{InFlight, Place};
use self::{
    closed::Closed,
    half_open::{Decision, HalfOpen, Lapse},
    ramp::Ramp,
    throttling::Throttling,
};
use crate::{
    backoff::Noise,
    cause::Cause,
    config_change::ConfigChange,
    outcome::{CallEnd, Outcome},
    overrides::{Override, OverrideKind},
    ratio::Ratio,
    rules::Rules,
    start::Start,
    state::State,
    throttle::Throttle,
    time::Time,
    totals::Totals,
    window::{Counts, Sample},
};

/// One circuit's state, its override and its totals.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    rules: Rules,
    phase: Phase,
    /// Grows with every transition and reset.
    generation: u64,
    /// Grows with whatever an operator may have to know of.
    revision: u64,
    since: Time,
    /// Of the last opening; none once closed.
    cause: Option<Cause>,
    /// How often the circuit has gone from half-open to open since it closed.
    step: u32,
    noise: Noise,
    /// Until when the dependency asked to be left alone, since it was closed.
    hinted_until: Option<Time>,
    overlay: Option<Overlay>,
    /// A health check decides when an opening ends.
    hold: Option<Hold>,
    holds: u64,
    /// When an override, or whoever held it, last let go of it.
    let_go: Time,
    totals: Totals,
    /// The latest time seen: callers read the clock before they get here, so
    /// two may come in the wrong order.
    now: Time,
    next_probe: u64,
    /// Probes that lost their lease and may still answer.
    lapsed: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Phase {
    Closed(Closed),
    Open(Open),
    HalfOpen(HalfOpen),
    /// Half-open still, but past the probes.
    Ramp(Ramp),
}

impl Phase {
    /// A call was refused that counts as one that asked.
    fn pass_over(&mut self, now: Time) {
        match self {
            Self::Closed(calls) => calls.pass_over(now),
            Self::HalfOpen(half_open) => half_open.pass_over(),
            Self::Ramp(ramp) => ramp.pass_over(now),
            Self::Open(_) => {}
        }
    }
}

#[derive(Clone, Debug)]
struct Open {
    wait: Duration,
    until: Time,
}

#[derive(Clone, Debug)]
struct Overlay {
    kind: OverrideKind,
    reason: Option<String>,
    owner: Option<String>,
    since: Time,
    /// How long it had lain before, over the circuit whose place this one took.
    inherited: Duration,
    until: Option<Time>,
    /// Nobody laid it: the circuit starts with it.
    is_the_starts: bool,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    id: u64,
    /// How often it is checked.
    interval: Duration,
}

/// When the dependency is to be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    /// Not by this one, who holds it no more.
    Over,
    Never,
    At {
        generation: u64,
        at: Time,
    },
}

/// The right to one call, and what it was issued under.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) generation: u64,
    kind: Kind,
    /// If it is a special one: its [`Role`], two bits of tag below a number. If
    /// not: whether it is a sample.
    role: u64,
}

/// As wide as a word and with only two values on purpose: its spare ones are
/// what tells the states of a response's future apart. If the call inside had
/// more to spare, they would be taken there, and the future would be built in
/// one place and copied to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Kind {
    Call,
    Special,
}

impl Ticket {
    fn new(generation: u64, role: Role) -> Self {
        let role = match role {
            Role::Call => return Self::call(generation),
            Role::PassedOver => 0,
            Role::Tracked(place) => return Self::tracked(generation, place),
            Role::Probe(id) => id << 2 | 2,
            Role::Overdue(place) => place.to_bits() << 2 | 3,
        };
        Self { generation, kind: Kind::Special, role }
    }

    /// For a call that passes where everybody does.
    #[inline]
    pub(crate) const fn call(generation: u64) -> Self {
        Self { generation, kind: Kind::Call, role: 0 }
    }

    /// For one of those that is timed for a sample and nothing else.
    #[inline]
    pub(crate) const fn sample(generation: u64) -> Self {
        Self { generation, kind: Kind::Call, role: Self::SAMPLE }
    }

    const SAMPLE: u64 = 1;

    pub(crate) fn is_sample(&self) -> bool {
        self.is_call() && self.role == Self::SAMPLE
    }

    #[inline]
    pub(crate) fn is_call(&self) -> bool {
        self.kind == Kind::Call
    }

    /// For a call whose age counts while it lasts, by where it waits.
    #[inline]
    pub(crate) const fn tracked(generation: u64, place: Place) -> Self {
        Self { generation, kind: Kind::Special, role: place.to_bits() << 2 | 1 }
    }

    /// For a call that the machine has heard of, by the place that it gave it.
    pub(crate) fn overdue(generation: u64, place: Place) -> Self {
        Self::new(generation, Role::Overdue(place))
    }

    /// Where it waits, if its age counts while it lasts.
    #[inline]
    pub(crate) const fn place(&self) -> Option<Place> {
        match self.role() {
            Role::Tracked(place) => Some(place),
            _ => None,
        }
    }

    #[inline]
    const fn role(&self) -> Role {
        match (self.kind, self.role & 3) {
            (Kind::Call, _) => Role::Call,
            (Kind::Special, 0) => Role::PassedOver,
            (Kind::Special, 1) => Role::Tracked(Place::from_bits(self.role >> 2)),
            (Kind::Special, 2) => Role::Probe(self.role >> 2),
            (Kind::Special, _) => Role::Overdue(Place::from_bits(self.role >> 2)),
        }
    }
}

/// What a call is to the machine that admitted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The rules judge it.
    Call,
    /// The rules judge it, and its age while it lasts. The machine hears of that
    /// when it is overdue; until then it waits in a place that the machine does
    /// not know.
    Tracked(Place),
    /// The same, of a call that the machine has taken over.
    Overdue(Place),
    /// It decides a half-open episode.
    Probe(u64),
    /// It passed over the machine's head, by an override.
    PassedOver,
}

impl Role {
    fn of_call(calls: &Closed) -> Self {
        if calls.tracks_calls() { Self::Tracked(Place::NOWHERE) } else { Self::Call }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// `None`: it was dropped.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) slow: bool,
}

impl Fact {
    /// Whether it must be told after those before it. The others come once a
    /// call, and stand for themselves.
    pub(crate) fn has_an_order(&self) -> bool {
        match self {
            Self::Transition(_)
            | Self::Override { .. }
            | Self::Reconfigured(_)
            | Self::Share { .. } => true,
            Self::Lapsed { .. } | Self::WouldReject => false,
        }
    }
}

impl End {
    /// Whether it is counted as slow: only a call that was judged is.
    pub(crate) fn is_slow(self) -> bool {
        self.sample().is_some_and(|sample| sample.slow)
    }

    /// How it enters a window, if it does.
    fn sample(self) -> Option<Sample> {
        match self.outcome {
            Some(Outcome::Success) => Some(Sample { failed: false, slow: self.slow }),
            Some(Outcome::Failure) => Some(Sample { failed: true, slow: self.slow }),
            Some(Outcome::Ignored) => None,
            None => self.slow.then_some(Sample { failed: false, slow: true }),
        }
    }
}

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// The state that rejected it: open too if an operator holds it open.
    pub(crate) state: State,
    /// Where only a share passes, how much that is.
    pub(crate) percent: Option<u8>,
    pub(crate) retry_after: Option<Duration>,
}

/// What happened, in order.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) happened: Vec<Fact>,
    /// Whether a caller that was refused before may be admitted now.
    pub(crate) wake: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    Transition(Transition),
    Override {
        set: Option<Override>,
    },
    Reconfigured(Reconfigured),
    /// So much of the calls passes from now on.
    Share {
        percent: u8,
    },
    /// That many probes lost their lease.
    Lapsed {
        probes: u64,
    },
    WouldReject,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transition {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) cause: Cause,
    /// The generation it began.
    pub(crate) generation: u64,
    pub(crate) at: Time,
    /// The window of the state that ended.
    pub(crate) window: Counts,
    /// Of the rules it was judged by.
    pub(crate) minimum_calls: u64,
    pub(crate) judges_slow: bool,
    /// How long an opening lasts.
    pub(crate) wait: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reconfigured {
    pub(crate) changes: Vec<ConfigChange>,
    pub(crate) revision: u64,
    pub(crate) at: Time,
}

/// Everything there is to see, at one instant.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) generation: u64,
    pub(crate) revision: u64,
    pub(crate) since: Time,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) cause: Option<Cause>,
    pub(crate) window: Counts,
    pub(crate) overdue: u64,
    pub(crate) probes: Option<Progress>,
    pub(crate) admitted_share: Option<f64>,
    pub(crate) awaits_health_check: bool,
    /// The wait that began with the last opening, and what is left of it; zero
    /// where none matters.
    pub(crate) wait: Duration,
    pub(crate) wait_left: Duration,
    pub(crate) step: u32,
    pub(crate) totals: Totals,
    pub(crate) active_override: Option<Override>,
    /// When it was laid, and how long it had lain before.
    pub(crate) overridden: Option<(Time, Duration)>,
    /// Whether it is under the override that it started with, or none.
    #[cfg_attr(not(feature = "keyed"), expect(dead_code, reason = "a keeper asks"))]
    pub(crate) is_left_alone: bool,
    /// While open, since when any call would have been a probe, once there has been
    /// such a time; nothing while a health check has to pass first.
    #[cfg_attr(not(feature = "keyed"), expect(dead_code, reason = "a keeper asks"))]
    pub(crate) probes_since: Option<Time>,
}

/// What is left of a circuit when its process ends, for the one that takes its
/// place.
#[derive(Clone, Debug)]
pub(crate) struct Legacy {
    pub(crate) revision: u64,
    /// If it was not closed: how long it was to stay open, and what is left.
    pub(crate) open: Option<(Duration, Duration)>,
    pub(crate) step: u32,
    pub(crate) cause: Option<Cause>,
    pub(crate) totals: Totals,
    pub(crate) active_override: Option<Override>,
    pub(crate) overridden_for: Duration,
}

/// How far a half-open episode has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Calls that may still pass.
    pub permits_left: u32,
    /// Probes that have not ended.
    pub in_flight: u32,
    /// Probes that succeeded.
    pub successes: u32,
    /// Probes that failed or lost their lease.
    pub failures: u32,
    /// Successes it takes to close.
    pub required: u32,
}

/// What the fast path may do without asking the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing.
    Ask,
    /// Admit.
    Closed,
    /// Admit, and forget successes that are not slow.
    Clean,
    /// Ask, because calls are overdue, or may come to be; but whoever only looks
    /// may go on.
    Overdue,
    /// Admit, and add up successes that are not slow and end before that: tell
    /// the sum to [`Machine::add_successes`], before anything else.
    Tally { until: Time },
    /// Reject until then.
    Open { until: Time },
    /// Reject until then, for no probe is left.
    Full { until: Time },
}

impl Machine {
    pub(crate) fn new(rules: Rules, seed: u64) -> Self {
        let mut noise = Noise::new(seed);
        let (phase, cause) = match rules.start {
            Start::Open => {
                let wait = rules.open_for.wait(0, noise.draw());
                let until = Time::ZERO.after(wait);
                (Phase::Open(Open { wait, until }), Some(Cause::StartedOpen))
            }
            Start::Closed | Start::ObserveOnly(_) => (Phase::Closed(Closed::new(&rules)), None),
        };
        Self {
            phase,
            rules,
            generation: 0,
            revision: 0,
            since: Time::ZERO,
            cause,
            step: 0,
            noise,
            hinted_until: None,
            overlay: None,
            hold: None,
            holds: 0,
            let_go: Time::ZERO,
            totals: Totals::default(),
            now: Time::ZERO,
            next_probe: 0,
            lapsed: Vec::new(),
        }
    }

    /// Takes the place of another, at its birth. How it was to start is of no
    /// matter then.
    ///
    /// No wait is longer than the rules allow, whatever is said of it.
    pub(crate) fn inherit(&mut self, legacy: Legacy, facts: &mut Facts) {
        let longest = self.rules.open_for.longest_hinted();
        (self.phase, self.cause, self.step) = match legacy.open {
            Some((wait, left)) => {
                let wait = wait.min(longest);
                let until = Time::ZERO.after(left.min(wait));
                (Phase::Open(Open { wait, until }), legacy.cause, legacy.step)
            }
            None => (Phase::Closed(Closed::new(&self.rules)), None, 0),
        };
        self.totals = legacy.totals;
        if let Some(over) = legacy.active_override {
            self.set_override(over, Time::ZERO, facts);
            if let Some(overlay) = &mut self.overlay {
                overlay.inherited = legacy.overridden_for;
            }
        }
        self.revision = legacy.revision;
    }

    /// Asks for a permit; where its age counts, one without a place yet. If the machine is not `obeyed`, what it would refuse
    /// passes as under observe-only; an operator is obeyed always.
    pub(crate) fn acquire(
        &mut self,
        obeyed: bool,
        now: Time,
        facts: &mut Facts,
    ) -> Result<Ticket, Rejection> {
        self.settle(now, facts);
        let overlay = self.overlay.as_ref().map(|overlay| overlay.kind);
        let admitted = match overlay {
            Some(OverrideKind::ForceOpen) => Err(self.rejection()),
            Some(OverrideKind::ForceClosed) => Ok(match self.phase {
                Phase::Closed(_) => self.ticket(Role::Call),
                _ => self.ticket(Role::PassedOver),
            }),
            Some(OverrideKind::ObserveOnly) => Ok(self.admit_or_pass(facts)),
            None if obeyed => self.admit(facts),
            None => Ok(self.admit_or_pass(facts)),
        };
        if admitted.is_err() {
            self.totals.rejected += 1;
        }
        admitted
    }

    /// Whether `acquire` would admit, without taking anything.
    pub(crate) fn look(&mut self, now: Time, facts: &mut Facts) -> Result<(), Rejection> {
        self.settle(now, facts);
        if self.overlay.is_none() {
            self.find_overdue(facts);
        }
        let admits = match self.overlay.as_ref().map(|overlay| overlay.kind) {
            Some(OverrideKind::ForceOpen) => false,
            Some(OverrideKind::ForceClosed | OverrideKind::ObserveOnly) => true,
            None => match &self.phase {
                Phase::Closed(calls) => calls.would_admit(self.now),
                Phase::Open(open) => self.now >= open.until && self.hold.is_none(),
                Phase::HalfOpen(half_open) => half_open.would_take(),
                Phase::Ramp(ramp) => ramp.would_admit(self.now),
            },
        };
        if admits { Ok(()) } else { Err(self.rejection()) }
    }

    /// Takes back a permit with what came of it, and says how it was counted.
    /// `None`: it was a probe that had been, as a failure, when its lease
    /// ended.
    pub(crate) fn record(
        &mut self,
        ticket: Ticket,
        end: End,
        now: Time,
        facts: &mut Facts,
    ) -> Option<CallEnd> {
        self.settle(now, facts);
        if let Role::Probe(probe) = ticket.role() {
            if self.forget_lapsed(probe) {
                return None;
            }
        }
        if ticket.generation != self.generation {
            self.totals.stale += 1;
            return Some(CallEnd::Stale);
        }
        let counted = self.count(end);
        self.untrack(&ticket);
        let totals_only =
            matches!(&self.overlay, Some(overlay) if overlay.kind == OverrideKind::ForceClosed);
        let is_cold = self.is_cold();
        match (&mut self.phase, ticket.role()) {
            (_, Role::PassedOver) => {}
            (Phase::HalfOpen(half_open), Role::Probe(probe)) if totals_only => {
                half_open.mute(probe);
            }
            (Phase::HalfOpen(half_open), Role::Probe(probe)) => {
                let decision = half_open.end(probe, end, &self.rules.probes);
                facts.wake |= decision == Decision::GivenBack;
                self.decide(decision, self.now, facts);
            }
            (Phase::Closed(_), _) if is_cold => {}
            (Phase::Closed(calls) | Phase::Ramp(Ramp { calls, .. }), _) if !totals_only => {
                if let Some(cause) = calls.record(end, self.now, &self.rules, facts) {
                    self.open(cause, self.now, facts);
                }
            }
            _ => {}
        }
        Some(counted)
    }

    /// Takes in good calls that ended since anything else happened, while the
    /// gate said that they may be added up.
    pub(crate) fn add_successes(&mut self, calls: u64) {
        self.totals.success += calls;
        if let Phase::Closed(closed) = &mut self.phase {
            closed.add_successes(calls);
        }
    }

    /// Notes that the dependency asked a caller to stay away: should the
    /// circuit open, it stays open at least that long, up to the longest wait.
    pub(crate) fn hint(
        &mut self,
        ticket: &Ticket,
        retry_after: Duration,
        now: Time,
        facts: &mut Facts,
    ) {
        self.settle(now, facts);
        let is_heard = match (&self.overlay, ticket.role()) {
            (Some(overlay), _) if overlay.kind == OverrideKind::ForceClosed => false,
            (_, Role::PassedOver) => false,
            // It has failed by then, and its late answer counts for nothing.
            (_, Role::Probe(probe)) => !self.lapsed.contains(&probe),
            _ => true,
        };
        if is_heard && ticket.generation == self.generation {
            self.hinted_until = self.hinted_until.max(Some(self.now.after(retry_after)));
        }
    }

    /// The call goes on, but its age says nothing any more.
    pub(crate) fn untrack(&mut self, ticket: &Ticket) {
        if ticket.generation != self.generation {
            return;
        }
        if let (Phase::Closed(calls) | Phase::Ramp(Ramp { calls, .. }), Role::Overdue(place)) =
            (&mut self.phase, ticket.role())
        {
            calls.end(place);
        }
    }

    /// Hears of a call that began then, in this generation, and has not ended: no
    /// earlier than those it heard of before. Returns its place here.
    pub(crate) fn take_over(&mut self, began: Time) -> Place {
        let place = match &mut self.phase {
            Phase::Closed(calls) | Phase::Ramp(Ramp { calls, .. }) => calls.take_over(began),
            Phase::Open(_) | Phase::HalfOpen(_) => None,
        };
        place.unwrap_or(Place::NOWHERE)
    }

    /// Counts a refusal that no `acquire` made.
    pub(crate) fn count_rejection(&mut self) {
        self.totals.rejected += 1;
        self.pass_over();
    }

    /// A caller was refused without having asked, and counts as one that has
    /// where only a share passes; but not if it was an operator who refused.
    pub(crate) fn pass_over(&mut self) {
        if self.overlay.is_none() {
            self.phase.pass_over(self.now);
        }
    }

    /// Opens, for a reason from outside.
    pub(crate) fn trip(&mut self, cause: Cause, now: Time, facts: &mut Facts) {
        self.settle(now, facts);
        match self.phase {
            Phase::Closed(_) | Phase::HalfOpen(_) | Phase::Ramp(_) => {
                self.open(cause, self.now, facts);
            }
            Phase::Open(_) => {}
        }
    }

    /// Ends the wait of an open circuit by hand: the next calls are probes,
    /// whatever a health check says. Returns whether it was open.
    pub(crate) fn end_wait(&mut self, now: Time, facts: &mut Facts) -> bool {
        self.settle(now, facts);
        let Phase::Open(Open { wait, .. }) = self.phase else { return false };
        let half_open = Phase::HalfOpen(HalfOpen::new(&self.rules.probes, wait));
        self.enter(half_open, Cause::WaitEnded, None, self.now, facts);
        true
    }

    /// Closes with everything empty and the wait at its first step.
    pub(crate) fn reset(&mut self, now: Time, facts: &mut Facts) {
        self.settle(now, facts);
        if self.state() == State::Closed {
            self.phase = Phase::Closed(Closed::new(&self.rules));
            self.hinted_until = None;
            self.generation += 1;
            self.revision += 1;
            self.since = self.now;
            facts.wake = true;
            if self.rules.throttle.is_some() {
                facts.happened.push(Fact::Share { percent: 100 });
            }
        } else {
            self.close(Cause::Reset, self.now, facts);
        }
    }

    /// Goes by other rules from now on, and keeps all it knows: no state ends, so
    /// calls in flight count on. What is not to do with a circuit that lives, how
    /// it starts, stays.
    ///
    /// Waits, leases and ramps end under the new rules no later than under them
    /// alone. Rates and rows are judged when the next call ends, like always;
    /// probes at once, because none may be left to end.
    pub(crate) fn reconfigure(
        &mut self,
        rules: Rules,
        changes: Vec<ConfigChange>,
        now: Time,
        facts: &mut Facts,
    ) {
        self.settle(now, facts);
        let now = self.now;
        let rules = Rules { start: self.rules.start, ..rules };
        let old = std::mem::replace(&mut self.rules, rules);
        self.revision += 1;
        let revision = self.revision;
        facts.happened.push(Fact::Reconfigured(Reconfigured { changes, revision, at: now }));
        facts.wake = true;
        match &mut self.phase {
            Phase::Closed(calls) => {
                calls.reconfigure(&old, &self.rules, now);
                calls.rethrottle(self.rules.throttle, now, facts);
            }
            Phase::Open(open) if old.open_for != self.rules.open_for => {
                let latest = now.after(self.rules.open_for.longest_hinted());
                if latest < open.until {
                    // What has passed of it may have passed before its birth.
                    let wait = open.wait.saturating_sub(open.until.since(latest));
                    *open = Open { wait, until: latest };
                }
            }
            Phase::Open(_) => {}
            Phase::HalfOpen(half_open) => {
                let before = half_open.percent();
                half_open.reconfigure(&self.rules.probes, now);
                if half_open.percent() != before {
                    // Without one there are probes, and no share.
                    let percent = half_open.percent().unwrap_or(0);
                    facts.happened.push(Fact::Share { percent });
                }
                let decision = half_open.decision(&self.rules.probes);
                self.decide(decision, now, facts);
            }
            Phase::Ramp(ramp) => {
                ramp.calls.reconfigure(&old, &self.rules, now);
                match self.rules.ramp {
                    Some(over) if self.rules.ramp != old.ramp => ramp.reconfigure(over, now),
                    Some(_) => {}
                    None => {
                        let over = now.since(ramp.began());
                        self.close(Cause::RampCompleted { over }, now, facts);
                    }
                }
            }
        }
    }

    pub(crate) fn set_override(&mut self, over: Override, now: Time, facts: &mut Facts) {
        self.settle(now, facts);
        self.overlay = Some(Overlay {
            kind: over.kind,
            reason: over.reason.clone(),
            owner: over.owner.clone(),
            since: self.now,
            inherited: Duration::ZERO,
            until: over.expires_in.map(|duration| self.now.after(duration)),
            is_the_starts: false,
        });
        self.revision += 1;
        facts.happened.push(Fact::Override { set: Some(over) });
        facts.wake = true;
        // One that lasts no time at all is over.
        self.settle(now, facts);
    }

    /// Lays the one that the circuit starts with.
    pub(crate) fn start_under(&mut self, over: Override, facts: &mut Facts) {
        self.set_override(over, Time::ZERO, facts);
        if let Some(overlay) = &mut self.overlay {
            overlay.is_the_starts = true;
        }
    }

    pub(crate) fn clear_override(&mut self, now: Time, facts: &mut Facts) {
        self.settle(now, facts);
        if self.overlay.is_some() {
            self.lift_override(self.now, facts);
        }
    }

    fn lift_override(&mut self, at: Time, facts: &mut Facts) {
        self.overlay = None;
        self.let_go = at;
        self.revision += 1;
        facts.happened.push(Fact::Override { set: None });
        facts.wake = true;
    }

    /// From now on an opening lasts until the dependency is found healthy.
    pub(crate) fn hold(&mut self, interval: Duration, now: Time, facts: &mut Facts) -> u64 {
        self.settle(now, facts);
        self.holds += 1;
        self.hold = Some(Hold { id: self.holds, interval });
        facts.wake = true;
        self.holds
    }

    /// Nobody checks any more: whoever held it, or anybody.
    pub(crate) fn release(&mut self, id: Option<u64>, now: Time, facts: &mut Facts) {
        self.settle(now, facts);
        if self.hold.is_some_and(|hold| id.is_none_or(|id| id == hold.id)) {
            self.hold = None;
            self.let_go = self.now;
            facts.wake = true;
        }
    }

    /// When the dependency is to be checked by whoever holds it: while open, once
    /// the wait is over. Not before time alone has ended what is in the way of that.
    pub(crate) fn check_due(&mut self, id: u64, now: Time, facts: &mut Facts) -> Due {
        self.settle(now, facts);
        if self.hold.is_none_or(|hold| hold.id != id) {
            return Due::Over;
        }
        let at = match (&self.phase, &self.overlay) {
            (Phase::Open(open), Some(overlay)) if !self.hears_checks() => {
                overlay.until.map(|until| until.max(open.until))
            }
            (Phase::Open(open), _) => Some(open.until),
            (Phase::HalfOpen(half_open), _) => half_open.next_deadline(),
            (Phase::Closed(_) | Phase::Ramp(_), _) => None,
        };
        at.map_or(Due::Never, |at| Due::At { generation: self.generation, at })
    }

    /// The dependency was found healthy often enough, during that opening and by
    /// whoever holds it.
    pub(crate) fn health_checked(
        &mut self,
        id: u64,
        generation: u64,
        successes: u32,
        instead_of_probes: bool,
        now: Time,
        facts: &mut Facts,
    ) {
        self.settle(now, facts);
        let Phase::Open(Open { wait, until }) = self.phase else { return };
        if self.hold.is_none_or(|hold| hold.id != id) {
            return;
        }
        if generation != self.generation || self.now < until || !self.hears_checks() {
            return;
        }
        let cause = Cause::HealthChecked { successes };
        match (instead_of_probes, self.rules.ramp) {
            (false, _) => {
                let half_open = Phase::HalfOpen(HalfOpen::new(&self.rules.probes, wait));
                self.enter(half_open, cause, None, self.now, facts);
            }
            (true, Some(over)) => {
                let ramp = Ramp::new(over, wait, self.now, &self.rules);
                self.enter(Phase::Ramp(ramp), cause, None, self.now, facts);
                if let Phase::Ramp(ramp) = &mut self.phase {
                    ramp.tell_share(self.now, facts);
                }
            }
            (true, None) => self.close(cause, self.now, facts),
        }
    }

    /// Not under a forced state, which the machine sits out.
    fn hears_checks(&self) -> bool {
        self.overlay.as_ref().is_none_or(|overlay| overlay.kind == OverrideKind::ObserveOnly)
    }

    /// What there is to see at `now`. Changes nothing: leases and overrides
    /// that have run out by then are seen to be over, and told of later.
    pub(crate) fn view(&self, now: Time) -> View {
        if self.is_overdue(now) {
            let mut settled = self.clone();
            settled.settle(now, &mut Facts::default());
            return settled.view(now);
        }
        let now = self.now.max(now);
        View {
            state: self.state(),
            generation: self.generation,
            revision: self.revision,
            since: self.since,
            retry_after: self.retry_after(now),
            cause: self.cause.clone(),
            overdue: match &self.phase {
                Phase::Closed(calls) | Phase::Ramp(Ramp { calls, .. }) => calls.overdue_at(now),
                Phase::Open(_) | Phase::HalfOpen(_) => 0,
            },
            window: match &self.phase {
                Phase::Closed(calls) | Phase::Ramp(Ramp { calls, .. }) => calls.counts_at(now),
                Phase::Open(_) | Phase::HalfOpen(_) => Counts::default(),
            },
            probes: match &self.phase {
                Phase::HalfOpen(half_open) => Some(half_open.progress(&self.rules.probes)),
                Phase::Closed(_) | Phase::Open(_) | Phase::Ramp(_) => None,
            },
            admitted_share: match &self.phase {
                Phase::Ramp(ramp) => Some(ramp.share(now)),
                Phase::Closed(calls) => calls
                    .throttling(now)
                    .map(|throttling| f64::from(throttling.share(now)) / f64::from(Throttle::ALL)),
                Phase::HalfOpen(half_open) => half_open.share().map(Ratio::as_fraction),
                Phase::Open(_) => None,
            },
            awaits_health_check: match &self.phase {
                Phase::Open(open) => self.hold.is_some() && now >= open.until,
                Phase::Closed(_) | Phase::HalfOpen(_) | Phase::Ramp(_) => false,
            },
            wait: self.wait(),
            wait_left: match &self.phase {
                Phase::Open(open) => open.until.since(now),
                Phase::Closed(_) | Phase::HalfOpen(_) | Phase::Ramp(_) => Duration::ZERO,
            },
            step: self.step,
            totals: self.totals,
            active_override: self.overlay.as_ref().map(|overlay| Override {
                kind: overlay.kind,
                reason: overlay.reason.clone(),
                owner: overlay.owner.clone(),
                expires_in: overlay.until.map(|until| until.since(now)),
            }),
            overridden: self.overlay.as_ref().map(|overlay| (overlay.since, overlay.inherited)),
            is_left_alone: self.overlay.as_ref().is_none_or(|overlay| overlay.is_the_starts),
            probes_since: match &self.phase {
                Phase::Open(open) if self.hold.is_none() => Some(open.until.max(self.let_go)),
                _ => None,
            },
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Closed(_) => State::Closed,
            Phase::Open(_) => State::Open,
            Phase::HalfOpen(_) | Phase::Ramp(_) => State::HalfOpen,
        }
    }

    /// The wait that began with the last opening; zero while closed.
    fn wait(&self) -> Duration {
        match &self.phase {
            Phase::Open(open) => open.wait,
            Phase::HalfOpen(half_open) => half_open.waited(),
            Phase::Ramp(ramp) => ramp.waited(),
            Phase::Closed(_) => Duration::ZERO,
        }
    }

    /// Lets time have done what it does by itself, and says which revision
    /// that is.
    pub(crate) fn revision_at(&mut self, now: Time, facts: &mut Facts) -> u64 {
        self.settle(now, facts);
        self.revision
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it wants to hear of calls that are overdue.
    pub(crate) fn watches_calls(&self) -> bool {
        self.rules.slow_calls.is_some()
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn gate(&self) -> Gate {
        match &self.phase {
            _ if self.overlay.is_some() => Gate::Ask,
            Phase::Closed(closed) if closed.may_throttle() => Gate::Ask,
            Phase::Closed(closed) if closed.minds_calls() => Gate::Overdue,
            Phase::Closed(closed) if closed.is_clean() => Gate::Clean,
            Phase::Closed(closed) => match closed.only_sums_until() {
                Some(until) if !self.is_cold() => Gate::Tally { until },
                _ => Gate::Closed,
            },
            Phase::Open(open) => Gate::Open { until: open.until },
            Phase::HalfOpen(half_open) => match half_open.full_until() {
                Some(until) => Gate::Full { until },
                None => Gate::Ask,
            },
            Phase::Ramp(_) => Gate::Ask,
        }
    }

    fn admit(&mut self, facts: &mut Facts) -> Result<Ticket, Rejection> {
        self.find_overdue(facts);
        match self.phase {
            Phase::Open(Open { wait, until }) if self.now >= until && self.hold.is_none() => {
                let half_open = Phase::HalfOpen(HalfOpen::new(&self.rules.probes, wait));
                self.enter(half_open, Cause::WaitOver { waited: wait }, None, self.now, facts);
            }
            _ => {}
        }
        let role = match &mut self.phase {
            Phase::Closed(calls) => {
                if !calls.admit(self.now, facts) {
                    return Err(self.rejection());
                }
                Role::of_call(calls)
            }
            Phase::Open(_) => return Err(self.rejection()),
            Phase::HalfOpen(half_open) => {
                let is_first = half_open.next_deadline().is_none();
                if !half_open.take(self.next_probe, self.now) {
                    // Before this call has brought the next one on, whose turn would
                    // be no answer to it.
                    let rejection = self.rejection();
                    self.phase.pass_over(self.now);
                    return Err(rejection);
                }
                // Whoever checks is to know when the first lease ends.
                facts.wake |= self.hold.is_some() && is_first;
                self.next_probe += 1;
                Role::Probe(self.next_probe - 1)
            }
            Phase::Ramp(ramp) => {
                ramp.tell_share(self.now, facts);
                if !ramp.admit(self.now) {
                    return Err(self.rejection());
                }
                Role::of_call(&ramp.calls)
            }
        };
        Ok(self.ticket(role))
    }

    /// Opens if the calls in flight are reason enough.
    fn find_overdue(&mut self, facts: &mut Facts) {
        let is_cold = self.is_cold();
        let calls = match &mut self.phase {
            Phase::Closed(_) if is_cold => return,
            Phase::Closed(calls) | Phase::Ramp(Ramp { calls, .. }) => calls,
            Phase::Open(_) | Phase::HalfOpen(_) => return,
        };
        if let Some(cause) = calls.reason_in_flight(self.now, &self.rules) {
            self.open(cause, self.now, facts);
        }
    }

    /// Whether it warms up. That excuses what happens while closed.
    fn is_cold(&self) -> bool {
        self.now < Time::ZERO.after(self.rules.warm_up)
    }

    fn ticket(&self, role: Role) -> Ticket {
        Ticket::new(self.generation, role)
    }

    /// Admits, or lets pass what it would have refused.
    fn admit_or_pass(&mut self, facts: &mut Facts) -> Ticket {
        self.admit(facts).unwrap_or_else(|_| {
            self.totals.would_reject += 1;
            facts.happened.push(Fact::WouldReject);
            self.ticket(Role::PassedOver)
        })
    }

    fn rejection(&self) -> Rejection {
        let forced = matches!(&self.overlay, Some(o) if o.kind == OverrideKind::ForceOpen);
        Rejection {
            state: if forced { State::Open } else { self.state() },
            percent: match &self.phase {
                _ if forced => None,
                Phase::Ramp(ramp) => Some(ramp.percent(self.now)),
                Phase::Closed(calls) => {
                    calls.throttling(self.now).map(|throttling| throttling.percent(self.now))
                }
                // Without a permit the share is no matter.
                Phase::HalfOpen(half_open) if half_open.permits_left() > 0 => half_open.percent(),
                Phase::Open(_) | Phase::HalfOpen(_) => None,
            },
            retry_after: self.retry_after(self.now),
        }
    }

    /// How long until a call that is refused now may pass.
    fn retry_after(&self, now: Time) -> Option<Duration> {
        let machine = match &self.phase {
            Phase::Closed(calls) => calls.throttling(now).map(Throttling::next_step),
            Phase::Open(open) => Some(match self.hold {
                Some(hold) if now >= open.until => hold.interval,
                _ => open.until.since(now),
            }),
            Phase::HalfOpen(half_open) => half_open.retry_after(now),
            Phase::Ramp(ramp) => Some(ramp.next_step(now)),
        };
        match &self.overlay {
            Some(Overlay { kind: OverrideKind::ForceOpen, until, .. }) => {
                until.map(|until| until.since(now).max(machine.unwrap_or_default()))
            }
            _ => machine,
        }
    }

    /// Whether time alone has changed something that nobody was told of.
    pub(crate) fn is_overdue(&self, now: Time) -> bool {
        let phase = match &self.phase {
            Phase::HalfOpen(half_open) => half_open.next_deadline(),
            Phase::Ramp(ramp) => Some(ramp.end()),
            Phase::Closed(_) | Phase::Open(_) => None,
        };
        let overlay = self.overlay.as_ref().and_then(|overlay| overlay.until);
        [phase, overlay].into_iter().flatten().any(|end| end <= now)
    }

    /// Lets time have done what it does by itself: end leases, ramps and
    /// overrides.
    #[inline]
    fn settle(&mut self, now: Time, facts: &mut Facts) {
        self.now = self.now.max(now);
        let ends_by_itself = matches!(self.phase, Phase::HalfOpen(_) | Phase::Ramp(_));
        if ends_by_itself || self.overlay.is_some() {
            self.settle_what_ends(facts);
        }
    }

    /// Apart: where a circuit is closed or open and nobody has laid an override over
    /// it, time alone ends nothing.
    #[inline(never)]
    fn settle_what_ends(&mut self, facts: &mut Facts) {
        if let Some(until) = self.overlay.as_ref().and_then(|o| o.until) {
            if until <= self.now {
                self.settle_phase(until, facts);
                self.lift_override(until, facts);
            }
        }
        self.settle_phase(self.now, facts);
    }

    fn settle_phase(&mut self, now: Time, facts: &mut Facts) {
        // Probes whose leases end together fail together; ones whose leases
        // end after the circuit has opened again are late, and stale.
        while let Some((Lapse { at, mut unanswered }, decision)) = self.next_lapse(now) {
            if !unanswered.is_empty() {
                let probes = unanswered.len() as u64;
                self.totals.failure += probes;
                self.lapsed.append(&mut unanswered);
                facts.happened.push(Fact::Lapsed { probes });
            }
            self.decide(decision, at, facts);
        }
        if let Phase::Ramp(ramp) = &self.phase {
            let end = ramp.end();
            if end <= now {
                self.close(Cause::RampCompleted { over: end.since(ramp.began()) }, end, facts);
            }
        }
    }

    fn next_lapse(&mut self, now: Time) -> Option<(Lapse, Decision)> {
        match &mut self.phase {
            Phase::HalfOpen(half_open) => {
                let lapse = half_open.lapse(now)?;
                Some((lapse, half_open.decision(&self.rules.probes)))
            }
            Phase::Closed(_) | Phase::Open(_) | Phase::Ramp(_) => None,
        }
    }

    fn forget_lapsed(&mut self, probe: u64) -> bool {
        let position = self.lapsed.iter().position(|lapsed| *lapsed == probe);
        position.map(|position| self.lapsed.swap_remove(position)).is_some()
    }

    fn count(&mut self, end: End) -> CallEnd {
        let (total, counted) = match end.outcome {
            Some(Outcome::Success) => (&mut self.totals.success, CallEnd::Success),
            Some(Outcome::Failure) => (&mut self.totals.failure, CallEnd::Failure),
            Some(Outcome::Ignored) => (&mut self.totals.ignored, CallEnd::Ignored),
            None => (&mut self.totals.cancelled, CallEnd::Cancelled),
        };
        *total += 1;
        self.totals.slow += u64::from(end.is_slow());
        counted
    }

    fn decide(&mut self, decision: Decision, at: Time, facts: &mut Facts) {
        match decision {
            Decision::Wait | Decision::GivenBack => {}
            Decision::Close(cause) => match self.rules.ramp {
                Some(over) => {
                    let mut ramp = Ramp::new(over, self.wait(), at, &self.rules);
                    ramp.tell_share(at, facts);
                    self.phase = Phase::Ramp(ramp);
                    facts.wake = true;
                }
                None => self.close(cause, at, facts),
            },
            Decision::Reopen(cause) => self.open(cause, at, facts),
        }
    }

    fn open(&mut self, cause: Cause, at: Time, facts: &mut Facts) {
        if self.state() == State::HalfOpen {
            self.step = self.step.saturating_add(1);
        }
        let noise = self.noise.draw();
        // It holds for the openings to come, too, for as long as it was asked for.
        let hinted = self.hinted_until.map_or(Duration::ZERO, |until| until.since(at));
        let open_for = &self.rules.open_for;
        let wait = open_for.wait(self.step, noise).max(open_for.wait_hinted(hinted, noise));
        self.totals.opened += 1;
        self.cause = Some(cause.clone());
        self.enter(Phase::Open(Open { wait, until: at.after(wait) }), cause, Some(wait), at, facts);
    }

    fn close(&mut self, cause: Cause, at: Time, facts: &mut Facts) {
        self.step = 0;
        self.hinted_until = None;
        self.cause = None;
        self.enter(Phase::Closed(Closed::new(&self.rules)), cause, None, at, facts);
    }

    fn enter(
        &mut self,
        phase: Phase,
        cause: Cause,
        wait: Option<Duration>,
        at: Time,
        facts: &mut Facts,
    ) {
        let from = self.state();
        let window = match &self.phase {
            Phase::Closed(calls) | Phase::Ramp(Ramp { calls, .. }) => calls.counts_at(at),
            Phase::HalfOpen(half_open) => half_open.counts(),
            Phase::Open(_) => Counts::default(),
        };
        self.phase = phase;
        self.generation += 1;
        self.revision += 1;
        self.since = at;
        facts.happened.push(Fact::Transition(Transition {
            from,
            to: self.state(),
            cause,
            generation: self.generation,
            at,
            window,
            minimum_calls: self.rules.minimum_calls,
            judges_slow: self.rules.slow_calls.is_some(),
            wait,
        }));
        if let Phase::HalfOpen(half_open) = &self.phase {
            let share = half_open.percent().map(|percent| Fact::Share { percent });
            facts.happened.extend(share);
        }
        facts.wake = true;
    }
}
