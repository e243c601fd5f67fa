//! A machine, the calls that it admitted, and everything that can happen to them;
//! with the laws that hold whatever does.

use std::time::Duration;

use super::super::{End, Fact, Facts, Machine, Phase, Place, Role, Ticket, Transition};
use crate::{
    cause::Cause,
    outcome::Outcome,
    overrides::{Override, OverrideKind},
    rules::{Cancellation, Rules},
    state::State,
    time::{Time, nanos},
    window::Counts,
};

/// The unit of time: all durations explored are multiples of it.
pub(super) const UNIT: Duration = Duration::from_millis(1);

/// A broken law.
pub(super) type Broken = String;

macro_rules! law {
    ($holds:expr, $($law:tt)+) => {
        if !$holds {
            return Err(format!($($law)+));
        }
    };
}

/// What is explored.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) name: &'static str,
    /// Where there are two sets, the circuit is reconfigured from one to the other
    /// and back.
    pub(super) rules: Vec<Rules>,
    /// Calls in flight at a time.
    pub(super) in_flight: usize,
    /// Calls that are kept by time, above which no more are made: nothing else
    /// bounds those.
    pub(super) known: u64,
    /// Steps from the first state, beyond which there are healthy ones only.
    pub(super) depth: usize,
    pub(super) operator: bool,
    pub(super) hints: bool,
    pub(super) checks: bool,
}

impl Scope {
    /// Longer than any duration of the rules.
    pub(super) fn longest(&self) -> Duration {
        let of = |rules: &Rules| {
            let slow = rules.slow_calls.map(|rule| rule.threshold);
            let span = match rules.window.0 {
                crate::window::Kind::Time { span, .. } => span,
                crate::window::Kind::Count { .. } => Duration::ZERO,
            };
            let throttle = rules.throttle.map(|throttle| throttle.span());
            [
                rules.open_for.longest_hinted(),
                rules.sustained_for * 2,
                slow.unwrap_or_default() + span,
                rules.ramp.unwrap_or_default(),
                throttle.unwrap_or_default(),
                rules.probes.lease.unwrap_or_default(),
            ]
        };
        self.rules.iter().flat_map(of).max().unwrap_or_default() + UNIT
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Op {
    /// Time passes, and nobody touches the circuit.
    Advance(u32),
    Acquire,
    /// A caller looks first, and is turned away if the answer is no.
    Look,
    /// One of the calls in flight ends; `None`: it is dropped.
    End(usize, Option<Outcome>),
    Trip,
    Reset,
    EndWait,
    /// For so many units, or until it is cleared.
    Lay(OverrideKind, Option<u32>),
    Clear,
    /// The dependency asks a call in flight to stay away for so many units.
    Hint(usize, u32),
    Reconfigure,
    Hold,
    Release,
    Checked,
    /// A call is made, succeeds at once if it is admitted, and time passes; an
    /// override without an end is cleared, and a health check finds all well.
    Healthy,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Time,
    calls: Vec<Call>,
    rules: usize,
    /// Probes of this generation that were issued and not given back.
    probes: u32,
    /// How often it opened from half-open since it closed.
    failed_recoveries: u32,
    /// Whether the wait can be told: not after a hint, nor under other rules.
    surprised: bool,
    /// How many facts of this step are in the books.
    booked: usize,
    /// Whether the last healthy call was admitted.
    pub(super) admitted: bool,
}

#[derive(Clone, Debug)]
struct Call {
    generation: u64,
    role: Role,
    began: Time,
    /// Where the machine keeps it, if that has heard of it.
    heard: Option<Place>,
}

impl World {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            machine: Machine::new(scope.rules[0].clone(), 0),
            now: Time::ZERO,
            calls: Vec::new(),
            rules: 0,
            probes: 0,
            failed_recoveries: 0,
            surprised: false,
            booked: 0,
            admitted: false,
        }
    }

    pub(super) fn essence(&self, longest: Duration) -> Vec<u64> {
        let mut essence = self.machine.essence(self.now, longest);
        essence.extend([
            self.rules as u64,
            self.probes.into(),
            self.failed_recoveries.min(3).into(),
        ]);
        essence.extend([self.surprised, self.admitted].map(u64::from));
        let mut calls: Vec<_> =
            self.calls.iter().map(|call| self.essence_of(call, longest)).collect();
        calls.sort_unstable();
        essence.extend(calls.into_iter().flatten());
        essence
    }

    fn essence_of(&self, call: &Call, longest: Duration) -> [u64; 3] {
        let place = |place: Option<usize>| place.map_or(u64::MAX, |place| place as u64);
        let age = match self.machine.rules.slow_calls {
            Some(_) => nanos(self.now.since(call.began).min(longest)),
            None => 0,
        };
        let is_current = call.generation == self.machine.generation;
        match (call.role, call.heard) {
            (Role::Probe(id), _) if self.machine.lapsed.contains(&id) => [1, 0, 0],
            _ if !is_current => [0, 0, 0],
            (Role::Probe(id), _) => [2, age, place(self.machine.probe_at(id))],
            (Role::PassedOver, _) => [3, age, 0],
            (Role::Call, _) => [4, age, 0],
            (Role::Tracked(_) | Role::Overdue(_), None) => [5, age, 0],
            (Role::Tracked(_) | Role::Overdue(_), Some(heard)) => {
                [6, age, place(self.machine.call_at(heard))]
            }
        }
    }

    /// What can happen now.
    pub(super) fn ops(&self, depth: usize, scope: &Scope) -> Vec<Op> {
        let mut ops = vec![Op::Healthy];
        if depth >= scope.depth {
            return ops;
        }
        ops.push(Op::Advance(1));
        if self.machine.calls_by_time() >= scope.known {
            return ops;
        }
        ops.extend([Op::Look, Op::Trip, Op::Reset]);
        if self.calls.len() < scope.in_flight {
            ops.push(Op::Acquire);
        }
        let longest = scope.longest();
        for (index, call) in self.calls.iter().enumerate() {
            let like = self.essence_of(call, longest);
            if self.calls[..index].iter().any(|other| self.essence_of(other, longest) == like) {
                continue;
            }
            let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Ignored].map(Some);
            ops.extend(outcomes.into_iter().chain([None]).map(|end| Op::End(index, end)));
            if scope.hints {
                // Longer than any wait may be.
                ops.push(Op::Hint(index, 7));
            }
        }
        if scope.operator {
            let kinds =
                [OverrideKind::ForceOpen, OverrideKind::ForceClosed, OverrideKind::ObserveOnly];
            ops.extend(
                kinds.into_iter().flat_map(|kind| [Some(2), None].map(|end| Op::Lay(kind, end))),
            );
            ops.extend([Op::Clear, Op::EndWait]);
        }
        if scope.rules.len() > 1 {
            ops.push(Op::Reconfigure);
        }
        if scope.checks {
            ops.extend([Op::Hold, Op::Release, Op::Checked]);
        }
        ops
    }

    /// The world after that, if no law is broken.
    pub(super) fn after(&self, op: Op, scope: &Scope) -> Result<Self, Broken> {
        let mut next = Self { booked: 0, ..self.clone() };
        let mut facts = Facts::default();
        next.hand_over();
        let ended = next.apply(op, scope, &mut facts)?;
        next.keep_book(&facts);
        next.check(self, op, ended, scope, &facts)?;
        Ok(next)
    }

    /// Hands the machine those that are overdue, as the circuit does before it
    /// asks it anything.
    fn hand_over(&mut self) {
        let Some(rule) = self.machine.rules.slow_calls else { return };
        self.hand_over_those(|now, call| now.since(call.began) > rule.threshold);
    }

    fn hand_over_those(&mut self, wanted: impl Fn(Time, &Call) -> bool) {
        let Self { machine, calls, now, .. } = self;
        let is_waiting = |call: &&mut Call| {
            call.generation == machine.generation
                && matches!(call.role, Role::Tracked(_))
                && call.heard.is_none()
        };
        let mut waiting: Vec<_> = calls.iter_mut().filter(is_waiting).collect();
        waiting.sort_by_key(|call| call.began);
        for call in waiting.into_iter().filter(|call| wanted(*now, call)) {
            call.heard = Some(machine.take_over(call.began));
        }
    }

    /// Does it; says how many calls ended that count as something.
    fn apply(&mut self, op: Op, scope: &Scope, facts: &mut Facts) -> Result<u64, Broken> {
        let now = self.now;
        match op {
            Op::Advance(units) => self.now = now.after(UNIT * units),
            Op::Acquire => {
                self.acquire(facts)?;
            }
            Op::Look => {
                if self.machine.look(now, facts).is_err() {
                    self.machine.count_rejection();
                }
            }
            Op::End(index, end) => return self.end(index, end, facts),
            Op::Trip => self.machine.trip(Cause::Tripped, now, facts),
            Op::Reset => self.machine.reset(now, facts),
            Op::EndWait => {
                self.machine.end_wait(now, facts);
            }
            Op::Lay(kind, units) => self.machine.set_override(laid(kind, units), now, facts),
            Op::Clear => self.machine.clear_override(now, facts),
            Op::Hint(index, units) => {
                let ticket = self.calls[index].ticket();
                self.machine.hint(&ticket, UNIT * units, now, facts);
                self.surprised = true;
            }
            Op::Reconfigure => {
                if self.machine.watches_calls() {
                    self.hand_over_those(|_, _| true);
                }
                self.rules = (self.rules + 1) % scope.rules.len();
                self.surprised = true;
                self.machine.reconfigure(scope.rules[self.rules].clone(), Vec::new(), now, facts);
            }
            Op::Hold => {
                self.machine.hold(UNIT, now, facts);
            }
            Op::Release => self.machine.release(None, now, facts),
            Op::Checked => self.check_health(facts),
            Op::Healthy => {
                if self.machine.overlay.as_ref().is_some_and(|overlay| overlay.until.is_none()) {
                    self.machine.clear_override(now, facts);
                }
                self.check_health(facts);
                self.admitted = self.acquire(facts)?;
                let ended = if self.admitted { self.end_newest(facts)? } else { 0 };
                self.now = now.after(UNIT);
                return Ok(ended);
            }
        }
        Ok(0)
    }

    fn check_health(&mut self, facts: &mut Facts) {
        let Some(hold) = self.machine.hold else { return };
        let generation = self.machine.generation;
        self.machine.health_checked(hold.id, generation, 1, false, self.now, facts);
    }

    fn acquire(&mut self, facts: &mut Facts) -> Result<bool, Broken> {
        let now = self.now;
        // The gate, or the machine: time has done what it does by itself.
        self.machine.revision_at(now, facts);
        self.keep_book(facts);
        let waits = matches!(&self.machine.phase, Phase::Open(open) if now < open.until);
        let overlay = self.machine.overlay.as_ref().map(|overlay| overlay.kind);
        let admitted = self.machine.acquire(true, now, facts);
        let Ok(ticket) = admitted else {
            law!(
                !matches!(overlay, Some(OverrideKind::ForceClosed | OverrideKind::ObserveOnly)),
                "an override that admits all refused a call"
            );
            return Ok(false);
        };
        let (generation, role) = (ticket.generation, ticket.role());
        law!(overlay != Some(OverrideKind::ForceOpen), "an operator's opening admitted a call");
        law!(overlay.is_some() || !waits, "a call was admitted before the wait was over");
        law!(
            overlay.is_some() || self.machine.state() != State::Open,
            "a call was admitted by an open circuit"
        );
        law!(generation == self.machine.generation, "a ticket of another generation was issued");
        if let Role::Probe(_) = role {
            law!(self.machine.state() == State::HalfOpen, "a probe was issued, but not half-open");
            self.keep_book(facts);
            self.probes += 1;
        }
        self.calls.push(Call { generation, role, began: now, heard: None });
        Ok(true)
    }

    fn end_newest(&mut self, facts: &mut Facts) -> Result<u64, Broken> {
        self.end(self.calls.len() - 1, Some(Outcome::Success), facts)
    }

    fn end(
        &mut self,
        index: usize,
        outcome: Option<Outcome>,
        facts: &mut Facts,
    ) -> Result<u64, Broken> {
        self.machine.revision_at(self.now, facts);
        let rules = &self.machine.rules;
        let took = self.now.since(self.calls[index].began);
        let is_long = rules.slow_calls.is_some_and(|rule| took > rule.threshold);
        let judged = outcome.is_some() || rules.cancellation == Cancellation::ByAge;
        let end = End { outcome, slow: is_long && judged };
        let call = self.calls.remove(index);
        let is_stale = call.generation != self.machine.generation;
        let lapsed = matches!(call.role, Role::Probe(id) if self.machine.lapsed.contains(&id));
        let before = is_stale.then(|| self.machine.clone());
        let known = facts.happened.len();
        if let (Role::Probe(_), false, false) = (call.role, is_stale, lapsed) {
            let overlay = self.machine.overlay.as_ref().map(|overlay| overlay.kind);
            let given_back = match outcome {
                Some(Outcome::Success | Outcome::Failure) => false,
                Some(Outcome::Ignored) => true,
                None => !end.slow,
            };
            let mid_episode = matches!(self.machine.phase, Phase::HalfOpen(_));
            if given_back && mid_episode && overlay != Some(OverrideKind::ForceClosed) {
                self.probes -= 1;
            }
        }
        self.machine.record(call.ticket(), end, self.now, facts);
        if let Some(before) = before {
            let longest = Duration::from_secs(1);
            law!(
                before.essence(self.now, longest) == self.machine.essence(self.now, longest)
                    && facts.happened.len() == known,
                "a stale result changed something"
            );
        }
        Ok(u64::from(!lapsed))
    }

    /// Notes which episode it is, and how many failed since it was closed.
    fn keep_book(&mut self, facts: &Facts) {
        for transition in facts.happened[self.booked..].iter().filter_map(transition) {
            self.probes = 0;
            match (transition.from, transition.to) {
                (State::HalfOpen, State::Open) => self.failed_recoveries += 1,
                (_, State::Closed) => (self.failed_recoveries, self.surprised) = (0, false),
                _ => {}
            }
        }
        self.booked = facts.happened.len();
    }

    fn check(
        &self,
        before: &Self,
        op: Op,
        ended: u64,
        scope: &Scope,
        facts: &Facts,
    ) -> Result<(), Broken> {
        self.check_events(before, op, facts)?;
        self.check_totals(before, ended, facts)?;
        self.check_state(scope)?;
        if matches!(op, Op::Advance(_)) {
            // Whatever is laid at an instant nobody touched is laid at others too.
            self.check_overrides()?;
        }
        Ok(())
    }

    /// Events alternate, and the last one is the truth; what a transition begins is
    /// empty.
    fn check_events(&self, before: &Self, op: Op, facts: &Facts) -> Result<(), Broken> {
        let (mut state, mut generation) = (before.machine.state(), before.machine.generation);
        let mut since = before.machine.since;
        let mut failed = before.failed_recoveries;
        let transitions: Vec<_> = facts.happened.iter().filter_map(transition).collect();
        for told in &transitions {
            law!(told.from == state && told.to != state, "told of {told:?} in {state}");
            law!(told.generation == generation + 1, "generation {generation}, then {told:?}");
            law!(since <= told.at && told.at <= self.now, "{told:?} is out of its time");
            if told.to == State::Open {
                failed += u32::from(told.from == State::HalfOpen);
                let rules = &self.machine.rules;
                let due = rules.open_for.wait(failed, 0.0);
                let wait = told.wait.ok_or("an opening without a wait")?;
                law!(self.surprised || wait == due, "waits {wait:?} where {due:?} is due");
            }
            if told.to == State::Closed {
                failed = 0;
            }
            (state, generation, since) = (told.to, told.generation, told.at);
        }
        law!(state == self.machine.state(), "told that it is {state}, and is not");
        let by_reset = transitions.last().is_some_and(|told| told.cause == Cause::Reset);
        let silent = u64::from(op == Op::Reset && !by_reset);
        law!(generation + silent == self.machine.generation, "the generation moved untold");
        let is_fresh = generation != before.machine.generation || silent > 0;
        // A healthy step goes on with a call.
        if is_fresh && op != Op::Healthy {
            let view = self.machine.view(self.now.min(self.machine.now));
            law!(view.window == Counts::default(), "a window that is not empty: {:?}", view.window);
            let tried = view.probes.map_or(0, |probes| probes.successes + probes.failures);
            law!(tried == 0, "an episode that begins with {tried} probes ended");
        }
        Ok(())
    }

    /// Each call ends once, and nothing else is counted.
    fn check_totals(&self, before: &Self, ended: u64, facts: &Facts) -> Result<(), Broken> {
        let (was, is) = (before.machine.totals, self.machine.totals);
        let ends = |totals: crate::totals::Totals| {
            totals.success + totals.failure + totals.ignored + totals.cancelled + totals.stale
        };
        let mut expected = ends(was) + ended;
        let (mut passed, mut opened) = (was.would_reject, was.opened);
        for fact in &facts.happened {
            match fact {
                Fact::Lapsed { probes } => expected += probes,
                Fact::WouldReject => passed += 1,
                Fact::Transition(told) if told.to == State::Open => opened += 1,
                _ => {}
            }
        }
        law!(ends(is) == expected, "{expected} calls have ended, counted are {is:?}");
        law!(is.would_reject == passed && is.opened == opened, "counted are {is:?}");
        Ok(())
    }

    fn check_state(&self, scope: &Scope) -> Result<(), Broken> {
        let Self { machine, now, .. } = self;
        let longest = scope.longest();
        let may_answer = |id: &u64| self.calls.iter().any(|call| call.role == Role::Probe(*id));
        law!(machine.lapsed.iter().all(may_answer), "a lapsed probe that nobody forgets");
        match &machine.phase {
            Phase::Open(open) => {
                law!(open.until.since(*now) < longest, "open for longer than any wait");
                law!(!open.wait.is_zero(), "open for no time");
                let most = machine.rules.open_for.longest_hinted();
                law!(open.wait <= most || scope.rules.len() > 1, "open for {:?}", open.wait);
                let held = machine.overlay.as_ref();
                let for_ever = held.is_some_and(|overlay| {
                    overlay.kind == OverrideKind::ForceOpen && overlay.until.is_none()
                });
                let retry = machine.view(*now).retry_after;
                law!(retry.is_some() != for_ever, "open, and next tried {retry:?}");
            }
            Phase::HalfOpen(half_open) => {
                let permitted = half_open.permitted();
                let known = self.calls.iter().filter_map(|call| match call.role {
                    Role::Probe(id) => machine.probe_at(id),
                    _ => None,
                });
                law!(half_open.unmuted() == known.count(), "a probe that is nobody's call");
                law!(self.probes <= permitted || scope.rules.len() > 1, "{} probes", self.probes);
                if half_open.permits_left() == 0 {
                    // Whatever the probes do or don't.
                    let state = machine.view(now.after(longest)).state;
                    law!(state != State::HalfOpen, "half-open without an end");
                }
            }
            Phase::Ramp(_) => {
                let state = machine.view(now.after(longest)).state;
                law!(state == State::Closed, "a ramp without an end");
            }
            Phase::Closed(_) => {
                law!(machine.step == 0, "closed with its wait at step {}", machine.step);
            }
        }
        Ok(())
    }

    /// An override hides what the machine decided, and loses none of it.
    fn check_overrides(&self) -> Result<(), Broken> {
        let now = self.now;
        let longest = Duration::from_secs(1);
        let mut settled = self.machine.clone();
        settled.clear_override(now, &mut Facts::default());
        let (essence, state) = (settled.essence(now, longest), settled.state());
        let generation = settled.generation;
        let kinds = [OverrideKind::ForceOpen, OverrideKind::ForceClosed, OverrideKind::ObserveOnly];
        for kind in kinds {
            let mut machine = settled.clone();
            let mut facts = Facts::default();
            machine.set_override(laid(kind, None), now, &mut facts);
            law!(machine.state() == state, "{kind:?} moved the state");
            if kind != OverrideKind::ObserveOnly {
                let admitted = machine.acquire(true, now, &mut facts);
                law!(
                    admitted.is_ok() == (kind == OverrideKind::ForceClosed),
                    "{kind:?} is not obeyed"
                );
                if let Ok(ticket) = admitted {
                    let end = End { outcome: Some(Outcome::Failure), slow: false };
                    machine.record(ticket, end, now, &mut facts);
                }
            }
            machine.clear_override(now, &mut facts);
            law!(machine.generation == generation, "{kind:?} began a generation");
            law!(machine.essence(now, longest) == essence, "{kind:?} left something behind");
        }
        Ok(())
    }
}

impl Call {
    fn ticket(&self) -> Ticket {
        match (self.role, self.heard) {
            (Role::Tracked(_), Some(place)) => Ticket::overdue(self.generation, place),
            // Its lane forgets it.
            (Role::Tracked(_), None) => Ticket::call(self.generation),
            (role, _) => Ticket::new(self.generation, role),
        }
    }
}

fn laid(kind: OverrideKind, units: Option<u32>) -> Override {
    let over = match kind {
        OverrideKind::ForceOpen => Override::force_open(),
        OverrideKind::ForceClosed => Override::force_closed(),
        OverrideKind::ObserveOnly => Override::observe_only(),
    };
    match units {
        Some(units) => over.expires_in(UNIT * units),
        None => over.until_cleared(),
    }
}

fn transition(fact: &Fact) -> Option<&Transition> {
    match fact {
        Fact::Transition(transition) => Some(transition),
        _ => None,
    }
}
