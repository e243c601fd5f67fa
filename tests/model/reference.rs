//! The reference: what happens, what both show, the circuit on its bench, and the
//! model.

use std::{
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use proptest::{prelude::TestCaseError, prop_assert_eq};
use tower::{Layer, Service};
use tower_breaker::{
    Backoff, BoxError, Cancellation, Cause, Circuit, CircuitBreaker, CircuitBreakerLayer,
    CircuitOpen, Config, ConfigBuilder, ManualClock, Observer, Outcome, Override, OverrideKind,
    Permit, Probes, ResultClassifier, Start, State, Throttle, Transition, Window,
};

// What happens ---------------------------------------------------------------

/// One thing that happens to a circuit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// The call stays in flight.
    Acquire,
    /// The call ends after so long, if it is admitted.
    Call(End, Mark, i8),
    /// Ends one of the calls in flight.
    Finish(usize, End),
    /// A service in front of a ready one is asked whether it is ready.
    Poll,
    /// The same in front of one that is stuck.
    PollStuck,
    Advance(Mark, i8),
    Trip,
    Reset,
    Lay(OverrideKind, Expiry),
    Clear,
    /// Takes on a part of one of the other setups.
    Reconfigure(Part, usize),
}

/// Settings that are changed together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Nothing,
    Window,
    Rates,
    Slow,
    Waits,
    Probes,
    Ramp,
    Throttle,
    Rest,
}

/// How a call ends: with an outcome, or dropped.
pub(crate) type End = Option<Outcome>;

/// A stretch of time that means something to a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Nothing,
    SlowThreshold,
    FirstWait,
    LongestWait,
    Lease,
    Span,
    Sustained,
    /// Until the next bucket of the window begins.
    NextBucket,
    /// Until the next step of the recent share begins.
    NextStep,
    /// An eighth of the ramp.
    OfTheRamp,
    /// Until the next bucket of the throttle's window begins.
    NextThrottleBucket,
    /// Until the next wait, lease, ramp or override, or the warm-up, is over.
    Deadline,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiry {
    AsItComes,
    In(u64),
    UntilCleared,
}

/// What all of them that ask are answered: admitted, or refused by
/// which state and until when.
pub(crate) type Answer = Option<Result<(), (State, Option<u64>)>>;

/// Does the same to both.
pub(crate) fn both(bench: &mut Bench, model: &mut Model, op: &Op) -> (Answer, Answer) {
    let advance = |bench: &mut Bench, model: &mut Model, mark, off| {
        let by = model.length(mark).saturating_add_signed(i64::from(off));
        bench.clock.advance(Duration::from_nanos(by));
        model.now += by;
    };
    match *op {
        Op::Acquire => return (bench.acquire(), model.acquire()),
        Op::Call(end, mark, off) => {
            let answers = (bench.acquire(), model.acquire());
            if answers == (Some(Ok(())), Some(Ok(()))) {
                advance(bench, model, mark, off);
                let last = model.in_flight.len() - 1;
                bench.finish(last, end);
                model.finish(last, end);
            }
            return answers;
        }
        Op::Finish(pick, end) => {
            if !model.in_flight.is_empty() {
                let pick = pick % model.in_flight.len();
                bench.finish(pick, end);
                model.finish(pick, end);
            }
        }
        Op::Poll => return (bench.poll(), model.poll()),
        Op::PollStuck => return (bench.poll_stuck(), model.poll_stuck()),
        Op::Advance(mark, off) => advance(bench, model, mark, off),
        Op::Trip => {
            bench.circuit.trip();
            model.trip();
        }
        Op::Reset => {
            bench.circuit.reset();
            model.reset();
        }
        Op::Lay(kind, expiry) => {
            bench.lay(kind, expiry);
            model.lay(kind, expiry);
        }
        Op::Clear => {
            bench.circuit.clear_override();
            model.clear();
        }
        Op::Reconfigure(part, other) => {
            model.reconfigure(part, other);
            let config = model.setup.to_builder().build().expect("the setup is valid");
            bench.circuit.reconfigure(config).expect("it is the circuit's");
        }
    }
    (None, None)
}

/// Drives both through a history. Returns the model as it is then, if they agree
/// after every step.
pub(crate) fn agree(
    (setup, others, history): (Setup, [Setup; OTHERS], Vec<Op>),
) -> Result<Model, TestCaseError> {
    let mut bench = Bench::new(&setup);
    let mut model = Model { others, ..Model::new(setup) };
    for (step, op) in history.iter().enumerate() {
        let answers = both(&mut bench, &mut model, op);
        prop_assert_eq!(answers.0, answers.1, "the answer at step {}, {:?}", step, op);
        let view = bench.view();
        prop_assert_eq!(&view, &model.view(), "the view after step {}, {:?}", step, op);
        prop_assert_eq!(bench.circuit.state(), view.state, "state() after step {}", step);
        prop_assert_eq!(bench.view(), view, "the second reading after step {}", step);
        prop_assert_eq!(bench.moves(), model.moves.clone(), "the moves by step {}", step);
    }
    Ok(model)
}

pub(crate) const MILLION: u64 = 1_000_000;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;
pub(crate) const HOUR: u64 = 3_600 * SECOND;

/// Each history has a few setups to take others' parts from.
pub(crate) const OTHERS: usize = 2;

// What both show -------------------------------------------------------------

/// A snapshot, in nanoseconds since the circuit was made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) state: State,
    /// Since birth.
    pub(crate) generation: u64,
    pub(crate) revision: u64,
    pub(crate) since: u64,
    pub(crate) retry_after: Option<u64>,
    pub(crate) cause: Option<Evidence>,
    pub(crate) window: Rates,
    pub(crate) progress: Option<Progress>,
    pub(crate) admitted_share: Option<f64>,
    /// Calls in flight that are overdue.
    pub(crate) overdue: u64,
    pub(crate) totals: Tally,
    /// The override, and what is left of it.
    pub(crate) laid: Option<(OverrideKind, Option<u64>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rates {
    calls: u64,
    failures: u64,
    slow: u64,
    failure_rate: Option<f64>,
    slow_rate: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Progress {
    permits_left: u32,
    in_flight: u32,
    successes: u32,
    failures: u32,
}

pub(crate) type Tally = [(&'static str, u64); 9];

/// A transition, as an observer was told of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) cause: Evidence,
    pub(crate) generation: u64,
    pub(crate) at: u64,
    pub(crate) open_for: Option<u64>,
}

/// A cause's label, and the numbers it gives as proof.
pub(crate) type Evidence = (&'static str, Vec<u64>);

/// From where, and why. "hangs" is a slow call rate with calls that have not
/// ended.
pub(crate) const MOVES: [(State, &str); 17] = [
    (State::Closed, "failure-rate"),
    (State::Closed, "consecutive-failures"),
    (State::Closed, "slow-call-rate"),
    (State::Closed, "hangs"),
    (State::Closed, "tripped"),
    (State::Open, "wait-over"),
    (State::Open, "reset"),
    (State::HalfOpen, "probes-failed"),
    (State::HalfOpen, "probes-succeeded"),
    (State::HalfOpen, "tripped"),
    (State::HalfOpen, "reset"),
    // On the ramp.
    (State::HalfOpen, "ramp-completed"),
    (State::HalfOpen, "failure-rate"),
    (State::HalfOpen, "consecutive-failures"),
    (State::HalfOpen, "slow-call-rate"),
    (State::HalfOpen, "hangs"),
    (State::Open, "started-open"),
];

/// What else the model noticed, and in which state.
pub(crate) const SEEN: [(State, &str); 22] = [
    (State::HalfOpen, "taken as a probe by the share"),
    (State::HalfOpen, "no probe by the share"),
    (State::HalfOpen, "no probe by the share, ahead"),
    (State::HalfOpen, "saved up for a probe"),
    (State::HalfOpen, "passed by its share"),
    (State::HalfOpen, "refused by its share"),
    (State::HalfOpen, "refused ahead by its share"),
    (State::HalfOpen, "judged a leftover probe"),
    (State::HalfOpen, "passed over"),
    (State::Closed, "passed by its share"),
    (State::Closed, "refused by its share"),
    (State::Closed, "refused ahead by its share"),
    (State::Closed, "ended while it warmed up"),
    (State::Closed, "found stuck"),
    (State::Open, "refused ahead"),
    (State::HalfOpen, "refused ahead"),
    (State::Closed, "reconfigured"),
    (State::Open, "reconfigured"),
    (State::HalfOpen, "reconfigured"),
    (State::Open, "cut its wait"),
    (State::HalfOpen, "ended its ramp"),
    (State::HalfOpen, "decided by other rules"),
];

pub(crate) fn evidence(cause: &Cause) -> Evidence {
    let parts = |share: f64| (share * 1e6).round() as u64;
    let proof = match *cause {
        Cause::FailureRate { failures, calls, threshold, .. } => {
            vec![failures, calls, parts(threshold)]
        }
        Cause::ConsecutiveFailures { failures, threshold, .. } => {
            vec![failures.into(), threshold.into()]
        }
        Cause::SlowCallRate { slow, calls, unfinished, threshold, slower_than, .. } => {
            vec![slow, calls, parts(threshold), nanos(slower_than), unfinished]
        }
        Cause::ProbesFailed { failures, timed_out, probes, required, .. } => {
            vec![failures.into(), timed_out.into(), probes.into(), required.into()]
        }
        Cause::WaitOver { waited, .. } => vec![nanos(waited)],
        Cause::ProbesSucceeded { successes, .. } => vec![successes.into()],
        Cause::RampCompleted { over, .. } => vec![nanos(over)],
        _ => vec![],
    };
    (cause.label(), proof)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("no history lasts that long")
}

// The configuration ----------------------------------------------------------

/// A configuration in plain numbers; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) window: Kept,
    pub(crate) minimum: u64,
    pub(crate) failure_rate: Option<Share>,
    pub(crate) sustained: u64,
    pub(crate) consecutive: Option<u32>,
    pub(crate) slow: Option<(u64, Share)>,
    pub(crate) waits: Waits,
    pub(crate) probes: u32,
    pub(crate) successes: u32,
    pub(crate) lease: Option<u64>,
    /// Of the calls that ask, so many are taken for probes.
    pub(crate) probing: Share,
    pub(crate) ramp: Option<u64>,
    pub(crate) throttle: Option<Throttled>,
    pub(crate) start: Begin,
    pub(crate) warm_up: u64,
    pub(crate) by_age: bool,
}

/// So often as the dependency succeeds, over that long, from that many calls on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throttled {
    pub(crate) k: Share,
    pub(crate) span: u64,
    pub(crate) minimum: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    Closed,
    Open,
    Observed(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    Calls(u32),
    Time { span: u64, buckets: u32 },
}

/// So many out of so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(pub(crate) u64, pub(crate) u64);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    pub(crate) first: u64,
    pub(crate) longest: u64,
    pub(crate) factor: Share,
}

impl Setup {
    pub(crate) fn plain() -> Self {
        Self {
            window: Kept::Calls(1),
            minimum: 1,
            failure_rate: Some(Share(1, 1)),
            sustained: 0,
            consecutive: None,
            slow: None,
            waits: Waits { first: MS, longest: MS, factor: Share(1, 1) },
            probes: 1,
            successes: 1,
            lease: None,
            probing: Share(1, 1),
            ramp: None,
            throttle: None,
            start: Begin::Closed,
            warm_up: 0,
            by_age: true,
        }
    }

    fn to_builder(self) -> ConfigBuilder {
        let mut config = Config::builder("model")
            .window(match self.window {
                Kept::Calls(calls) => Window::count(calls),
                Kept::Time { span, buckets } => {
                    Window::time(Duration::from_nanos(span)).buckets(buckets)
                }
            })
            .minimum_calls(self.minimum)
            .sustained_for(Duration::from_nanos(self.sustained))
            .open_for(self.waits.to_backoff())
            .start(match self.start {
                Begin::Closed => Start::Closed,
                Begin::Open => Start::Open,
                Begin::Observed(span) => Start::ObserveOnly(Duration::from_nanos(span)),
            })
            .warm_up(Duration::from_nanos(self.warm_up))
            .cancellation(match self.by_age {
                true => Cancellation::ByAge,
                false => Cancellation::Neutral,
            });
        config = match self.failure_rate {
            Some(share) => config.failure_rate(share.fraction()),
            None => config.no_failure_rate(),
        };
        if let Some(failures) = self.consecutive {
            config = config.consecutive_failures(failures);
        }
        if let Some((threshold, share)) = self.slow {
            config = config.slow_calls(Duration::from_nanos(threshold), share.fraction());
        }
        if let Some(over) = self.ramp {
            config = config.ramp(Duration::from_nanos(over));
        }
        if let Some(Throttled { k, span, minimum }) = self.throttle {
            let throttle = Throttle::new(k.fraction()).window(Duration::from_nanos(span));
            config = config.throttle(throttle.minimum_calls(minimum));
        }
        let mut probes = Probes::new(self.probes).successes(self.successes);
        if let Some(lease) = self.lease {
            probes = probes.lease(Duration::from_nanos(lease));
        }
        if self.probing.parts() < MILLION {
            probes = probes.share(self.probing.fraction());
        }
        config.probes(probes)
    }
}

impl Setup {
    /// With a part of another, as far as they go together. A rate that must be
    /// sustained is neither switched on nor off.
    fn with(self, part: Part, other: &Self) -> Self {
        let mut new = self;
        let switches = |on: bool, off: bool| self.sustained > 0 && on != off;
        match part {
            Part::Nothing => {}
            Part::Window => new.window = other.window,
            Part::Rates => {
                if !switches(self.failure_rate.is_some(), other.failure_rate.is_some()) {
                    new.failure_rate = other.failure_rate;
                }
                (new.minimum, new.consecutive) = (other.minimum, other.consecutive);
            }
            Part::Slow => {
                if !switches(self.slow.is_some(), other.slow.is_some()) {
                    new.slow = other.slow;
                }
            }
            Part::Waits => new.waits = other.waits,
            Part::Probes => {
                (new.probes, new.successes) = (other.probes, other.successes);
                (new.lease, new.probing) = (other.lease, other.probing);
            }
            Part::Ramp => new.ramp = other.ramp,
            Part::Throttle => {
                let span = self.throttle.map(|throttle| throttle.span);
                let kept = |it: Throttled| Throttled { span: span.unwrap_or(it.span), ..it };
                new.throttle = other.throttle.map(kept);
            }
            Part::Rest => (new.warm_up, new.by_age) = (other.warm_up, other.by_age),
        }
        let rules = new.failure_rate.is_some() || new.slow.is_some();
        if !rules && new.consecutive.is_none() && new.throttle.is_none() {
            new.consecutive = Some(2);
        }
        if let Kept::Calls(calls) = new.window {
            new.minimum = new.minimum.min(calls.into());
        }
        new
    }
}

impl Share {
    fn fraction(self) -> f64 {
        self.0 as f64 / self.1 as f64
    }

    /// In parts of a million, rounded down.
    fn parts(self) -> u64 {
        self.0 * 1_000_000 / self.1
    }

    fn reached_by(self, part: usize, whole: usize) -> bool {
        whole > 0 && part as u64 * 1_000_000 >= self.parts() * whole as u64
    }
}

impl Waits {
    pub(crate) fn to_backoff(self) -> Backoff {
        let first = Duration::from_nanos(self.first);
        if self.first == self.longest {
            return Backoff::fixed(first);
        }
        Backoff::exponential(first, Duration::from_nanos(self.longest))
            .factor(self.factor.fraction())
            .jitter(0.0)
    }

    pub(crate) fn nth(self, step: u32) -> u64 {
        let (mut over, mut under) = (u128::from(self.first), 1);
        for _ in 0..step {
            over *= u128::from(self.factor.0);
            under *= u128::from(self.factor.1);
            if over / under >= u128::from(self.longest) {
                return self.longest;
            }
        }
        (over / under) as u64
    }
}

// The circuit ----------------------------------------------------------------

/// The real circuit, on a clock that stands still.
pub(crate) struct Bench {
    pub(crate) circuit: Circuit,
    pub(crate) clock: ManualClock,
    pub(crate) born: Instant,
    pub(crate) first_generation: u64,
    pub(crate) log: Log,
    pub(crate) permits: Vec<Permit>,
    pub(crate) service: CircuitBreaker<Inner, ResultClassifier>,
    pub(crate) stuck: CircuitBreaker<Inner, ResultClassifier>,
}

/// A service that is ready, or never.
#[derive(Clone)]
pub(crate) struct Inner {
    is_stuck: bool,
}

impl Service<()> for Inner {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.is_stuck { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Transition>>>);

impl Observer for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().expect("nobody panics with it").push(transition.clone());
    }
}

impl Bench {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self::with(setup, |config| config)
    }

    pub(crate) fn with(setup: &Setup, change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let (clock, log) = (ManualClock::new(), Log::default());
        let config = change(setup.to_builder()).clock(&clock).observer(log.clone()).build();
        let circuit = Circuit::new(config.expect("the setup is valid"));
        let first_generation = circuit.snapshot().generation;
        let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
        Self {
            born: clock.now(),
            service: layer.layer(Inner { is_stuck: false }),
            stuck: layer.layer(Inner { is_stuck: true }),
            circuit,
            clock,
            first_generation,
            log,
            permits: Vec::new(),
        }
    }

    fn acquire(&mut self) -> Answer {
        Some(match self.circuit.try_acquire() {
            Ok(permit) => {
                self.permits.push(permit);
                Ok(())
            }
            Err(open) => Err(refusal(&open)),
        })
    }

    fn poll(&mut self) -> Answer {
        Some(match self.service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => panic!("it neither waits nor is stuck"),
            Poll::Ready(answer) => {
                answer.map_err(|error| refusal(CircuitOpen::find_in(&*error).expect("a refusal")))
            }
        })
    }

    /// Stuck is not refused.
    fn poll_stuck(&mut self) -> Answer {
        Some(match self.stuck.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => panic!("what is stuck is not ready"),
            Poll::Ready(Err(error)) => {
                Err(refusal(CircuitOpen::find_in(&*error).expect("a refusal")))
            }
        })
    }

    pub(crate) fn finish(&mut self, pick: usize, end: End) {
        let permit = self.permits.remove(pick);
        match end {
            Some(outcome) => permit.record(outcome),
            None => drop(permit),
        }
    }

    fn lay(&self, kind: OverrideKind, expiry: Expiry) {
        let laid = match kind {
            OverrideKind::ForceOpen => Override::force_open(),
            OverrideKind::ForceClosed => Override::force_closed(),
            _ => Override::observe_only(),
        };
        self.circuit.set_override(match expiry {
            Expiry::AsItComes => laid,
            Expiry::In(left) => laid.expires_in(Duration::from_nanos(left)),
            Expiry::UntilCleared => laid.until_cleared(),
        });
    }

    pub(crate) fn view(&self) -> View {
        let seen = self.circuit.snapshot();
        View {
            state: seen.state,
            generation: seen.generation - self.first_generation,
            revision: seen.revision,
            since: self.offset(seen.since),
            retry_after: seen.retry_after.map(nanos),
            cause: seen.cause.as_ref().map(evidence),
            window: Rates {
                calls: seen.window.calls,
                failures: seen.window.failures,
                slow: seen.window.slow,
                failure_rate: seen.window.failure_rate,
                slow_rate: seen.window.slow_rate,
            },
            admitted_share: seen.admitted_share,
            overdue: seen.window.overdue,
            progress: seen.probes.map(|probes| Progress {
                permits_left: probes.permits_left,
                in_flight: probes.in_flight,
                successes: probes.successes,
                failures: probes.failures,
            }),
            totals: [
                ("success", seen.totals.success),
                ("failure", seen.totals.failure),
                ("slow", seen.totals.slow),
                ("ignored", seen.totals.ignored),
                ("cancelled", seen.totals.cancelled),
                ("stale", seen.totals.stale),
                ("rejected", seen.totals.rejected),
                ("would_reject", seen.totals.would_reject),
                ("opened", seen.totals.opened),
            ],
            laid: seen.active_override.map(|laid| (laid.kind, laid.expires_in.map(nanos))),
        }
    }

    pub(crate) fn moves(&self) -> Vec<Move> {
        let log = self.log.0.lock().expect("nobody panics with it");
        log.iter()
            .map(|told| Move {
                from: told.from,
                to: told.to,
                cause: evidence(&told.cause),
                generation: told.generation - self.first_generation,
                at: self.offset(told.at),
                open_for: told.open_for.map(nanos),
            })
            .collect()
    }

    fn offset(&self, instant: Instant) -> u64 {
        nanos(instant.duration_since(self.born))
    }
}

pub(crate) fn refusal(open: &CircuitOpen) -> (State, Option<u64>) {
    (open.state(), open.retry_after().map(nanos))
}

// The model ------------------------------------------------------------------

/// All that ever happened. Nothing is added up before somebody asks.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) setup: Setup,
    pub(crate) others: [Setup; OTHERS],
    pub(crate) now: u64,
    pub(crate) revision: u64,
    /// Every state there was, the present one last. An era's index is its
    /// generation.
    pub(crate) eras: Vec<Era>,
    /// Every call that was admitted.
    pub(crate) calls: Vec<Call>,
    /// Which of them have not ended.
    pub(crate) in_flight: Vec<usize>,
    /// Every outcome that entered a window, in order.
    pub(crate) judged: Vec<Judged>,
    /// Every call that asked where a share passes.
    pub(crate) asked: Vec<Asked>,
    /// Every call that asked where a share is taken for probes.
    pub(crate) asked_to_probe: Vec<Asked>,
    /// Every call that the throttle knows of.
    pub(crate) throttled: Vec<Known>,
    pub(crate) moves: Vec<Move>,
    /// What a history is to reach.
    pub(crate) seen: Vec<(State, &'static str)>,
    pub(crate) rejected: u64,
    pub(crate) would_reject: u64,
    pub(crate) laid: Option<Laid>,
}

#[derive(Clone)]
pub(crate) struct Era {
    state: State,
    since: u64,
    /// While open: until when, and why; while half-open: what it was.
    wait: u64,
    cause: Option<Evidence>,
    /// While half-open, once enough probes have succeeded, if a ramp follows.
    ramp: Option<Climb>,
}

/// A way up the ramp. Where its length was changed it has another beginning.
#[derive(Clone, Copy)]
pub(crate) struct Climb {
    began: u64,
    /// How far it had come then, and when that was.
    come: u64,
    at: u64,
}

impl Era {
    fn closed(since: u64) -> Self {
        Self { state: State::Closed, since, wait: 0, cause: None, ramp: None }
    }
}

/// A call that asked, and how much it earned of what one costs.
#[derive(Clone)]
pub(crate) struct Asked {
    generation: usize,
    earned: u64,
    passed: bool,
}

/// A call that ended, or was refused, under the throttle's eyes.
#[derive(Clone)]
pub(crate) struct Known {
    generation: usize,
    at: u64,
    accepted: bool,
}

#[derive(Clone)]
pub(crate) struct Call {
    generation: usize,
    acquired: u64,
    /// Whether its duration is known when it ends.
    timed: bool,
    /// If it is a probe.
    lease_end: u64,
    /// It passed where the machine would have refused it, or was not asked.
    passed_over: bool,
    /// What the machine makes of it, if it is a probe.
    probe: Option<Fate>,
    /// As what the totals count it.
    counted: Option<&'static str>,
    slow: bool,
    /// If the slow rule minds its age while it lasts.
    aging: Option<Aging>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Aging {
    InTime,
    /// What moves the window on stood there when it was found overdue.
    Overdue(u64),
    /// It has been overdue for a whole window, and is no news.
    Old,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Outstanding,
    Succeeded,
    Failed,
    TimedOut,
    GivenBack,
}

#[derive(Clone)]
pub(crate) struct Judged {
    generation: usize,
    at: u64,
    /// When it ended as far as the window knows; `None`: that has let go of it.
    held_from: Option<u64>,
    /// Whether it began a stretch of trouble: by failing, and by being slow.
    begins: [bool; 2],
    failed: bool,
    slow: bool,
    cancelled: bool,
}

#[derive(Clone)]
pub(crate) struct Laid {
    kind: OverrideKind,
    at: u64,
    expires_in: Option<u64>,
}

impl Model {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut model = Self {
            setup,
            others: [setup; OTHERS],
            now: 0,
            revision: 0,
            eras: vec![Era::closed(0)],
            calls: Vec::new(),
            in_flight: Vec::new(),
            judged: Vec::new(),
            asked: Vec::new(),
            asked_to_probe: Vec::new(),
            throttled: Vec::new(),
            moves: Vec::new(),
            seen: Vec::new(),
            rejected: 0,
            would_reject: 0,
            laid: None,
        };
        match setup.start {
            Begin::Closed => {}
            Begin::Open => {
                let cause = Some(("started-open", vec![]));
                let wait = setup.waits.nth(0);
                model.eras = vec![Era { state: State::Open, wait, cause, ..Era::closed(0) }];
                model.seen.push((State::Open, "started-open"));
            }
            Begin::Observed(span) => {
                let kind = OverrideKind::ObserveOnly;
                model.laid = Some(Laid { kind, at: 0, expires_in: Some(span) });
                model.revision = 1;
            }
        }
        model
    }

    // What is done to it.

    fn acquire(&mut self) -> Answer {
        self.let_time_pass();
        let kind = self.in_force().map(|(kind, _)| kind);
        let answer = match kind {
            Some(OverrideKind::ForceOpen) => Err((State::Open, self.retry_after())),
            // While closed it is a call like any other, but for its age.
            Some(OverrideKind::ForceClosed) => Ok(match self.era().state {
                State::Closed => (None, false),
                State::Open | State::HalfOpen => (None, true),
            }),
            Some(_) => self.admit().map(|probe| (probe, false)).or_else(|_| {
                self.would_reject += 1;
                Ok((None, true))
            }),
            None => self.admit().map(|probe| (probe, false)),
        };
        Some(match answer {
            Ok((probe, passed_over)) => {
                let is_minded = self.setup.slow.is_some()
                    && probe.is_none()
                    && !passed_over
                    && kind != Some(OverrideKind::ForceClosed);
                self.in_flight.push(self.calls.len());
                self.calls.push(Call {
                    generation: self.generation(),
                    acquired: self.now,
                    timed: self.setup.slow.is_some(),
                    lease_end: self.now + self.lease(),
                    passed_over,
                    probe,
                    counted: None,
                    slow: false,
                    aging: is_minded.then_some(Aging::InTime),
                });
                if passed_over {
                    self.note("passed over");
                }
                Ok(())
            }
            Err(refusal) => {
                self.rejected += 1;
                Err(refusal)
            }
        })
    }

    /// The machine's own decision.
    fn admit(&mut self) -> Result<Option<Fate>, (State, Option<u64>)> {
        self.mind_the_overdue();
        let era = self.era().clone();
        if era.state == State::Open && self.now >= era.since + era.wait {
            let half_open = Era { state: State::HalfOpen, since: self.now, ..era };
            self.go(half_open, ("wait-over", vec![era.wait]));
        }
        if self.is_probing() {
            let refusal = (State::HalfOpen, self.own_retry_after());
            return if self.ask_to_probe() { Ok(Some(Fate::Outstanding)) } else { Err(refusal) };
        }
        if self.lets_a_share_pass() && self.ask() {
            return Ok(None);
        }
        Err((self.era().state, self.own_retry_after()))
    }

    /// A look from `poll_ready`: takes nothing, and is a call that asked only if
    /// it is refused.
    fn poll(&mut self) -> Answer {
        let was_laid = self.laid.is_some();
        self.let_time_pass();
        let kind = self.in_force().map(|(kind, _)| kind);
        // While closed the admission minds them, a lock later, unless there is a
        // lock anyway.
        if kind.is_none() && (was_laid || self.asks_each_call()) {
            self.mind_the_overdue();
        }
        let era = self.era();
        let admits = match kind {
            Some(OverrideKind::ForceOpen) => false,
            Some(_) => true,
            None if era.state == State::Open => self.now >= era.since + era.wait,
            None if self.is_probing() => self.permits_left() > 0 && self.is_next_probe(),
            None => self.has_earned_enough(),
        };
        if admits {
            return Some(Ok(()));
        }
        self.rejected += 1;
        let refusal = match kind {
            Some(_) => (State::Open, self.retry_after()),
            None => (self.era().state, self.own_retry_after()),
        };
        if kind.is_none() && self.lets_a_share_pass() {
            self.ask();
            self.note("refused ahead by its share");
        } else if kind.is_none() && self.is_probing() {
            let is_by_share = self.permits_left() > 0;
            self.ask_to_probe();
            self.note(if is_by_share { "no probe by the share, ahead" } else { "refused ahead" });
        } else {
            self.note("refused ahead");
        }
        Some(Err(refusal))
    }

    /// Who is stuck behind calls that hang has to find that out itself.
    fn poll_stuck(&mut self) -> Answer {
        let answer = self.poll();
        if answer == Some(Ok(())) && self.in_force().is_none() {
            let before = self.era().state;
            self.mind_the_overdue();
            if self.era().state != before {
                self.seen.push((before, "found stuck"));
            }
        }
        answer
    }

    pub(crate) fn finish(&mut self, pick: usize, end: End) {
        self.let_time_pass();
        let index = self.in_flight.remove(pick);
        let call = self.calls[index].clone();
        if call.probe == Some(Fate::TimedOut) {
            return;
        }
        if call.generation != self.generation() {
            self.calls[index].counted = Some("stale");
            return;
        }
        let is_over = |(threshold, _): (u64, Share)| self.now - call.acquired > threshold;
        let overdue = call.timed && self.setup.slow.is_some_and(is_over);
        let (counted, slow) = match end {
            Some(Outcome::Success) => ("success", overdue),
            Some(Outcome::Failure) => ("failure", overdue),
            Some(Outcome::Ignored) => ("ignored", false),
            None => ("cancelled", overdue && self.setup.by_age),
        };
        self.calls[index].counted = Some(counted);
        self.calls[index].slow = slow;
        let is_heard = !matches!(self.in_force(), Some((OverrideKind::ForceClosed, _)));
        if !is_heard || call.passed_over {
            return;
        }
        let failed = counted == "failure";
        let decides = failed || counted == "success" || slow;
        if self.is_probing() {
            self.calls[index].probe = Some(match decides {
                true if failed || slow => Fate::Failed,
                true => Fate::Succeeded,
                false => Fate::GivenBack,
            });
            self.decide_on_probes(self.now);
        } else if self.is_warming_up() {
            self.note("ended while it warmed up");
        } else if decides {
            let (generation, at) = (self.generation(), self.now);
            let cancelled = counted == "cancelled";
            let held = self.window_of(&self.judged_now(), at);
            let none = |bad: fn(&Judged) -> bool| !held.iter().any(bad);
            let begins = [failed && none(|call| call.failed), slow && none(|call| call.slow)];
            let held_from = Some(at);
            let ended = Judged { generation, at, held_from, begins, failed, slow, cancelled };
            self.judged.push(ended);
            let accepted = counted == "success";
            self.throttled.push(Known { generation, at, accepted });
            if call.probe.is_some() {
                self.note("judged a leftover probe");
            }
            self.decide_on_rules();
        }
    }

    // Where a share passes.

    /// All of the calls are a share too.
    fn lets_a_share_pass(&self) -> bool {
        self.era().state == State::Closed || self.era().ramp.is_some()
    }

    /// What a call that asks now earns, and what it costs to pass.
    fn share(&self) -> (u64, u64) {
        match (self.era().ramp, self.setup.ramp) {
            (Some(climb), Some(over)) => (climb.come + self.now - climb.at, over),
            _ => (self.throttled_share(), MILLION),
        }
    }

    /// In parts of a million, rounded down.
    fn throttled_share(&self) -> u64 {
        let Some(Throttled { k, minimum, .. }) = self.setup.throttle else { return MILLION };
        let known = self.known_at(self.now);
        let requests = known.len() as u64;
        let accepts = known.iter().filter(|call| call.accepted).count() as u64;
        match requests < minimum {
            true => MILLION,
            false => ((k.parts() * accepts + MILLION) / (requests + 1)).clamp(1, MILLION),
        }
    }

    /// What the throttle's window, of ten buckets, holds at `now`.
    fn known_at(&self, now: u64) -> Vec<&Known> {
        let Some(Throttled { span, .. }) = self.setup.throttle else { return Vec::new() };
        let of = |at| bucket(at, span, 10);
        let of_now = self.throttled.iter().filter(|call| call.generation == self.generation());
        of_now.filter(|call| of(call.at) + 10 > of(now)).collect()
    }

    /// Each call that asks earns the share of its time; one that passes costs a
    /// whole.
    fn has_earned_enough(&self) -> bool {
        let (earns, whole) = self.share();
        let of_now = self.asked.iter().filter(|call| call.generation == self.generation());
        let earned: u64 = of_now.clone().map(|call| call.earned).sum();
        let passed = of_now.filter(|call| call.passed).count() as u64;
        earned + earns >= whole * (passed + 1)
    }

    fn ask(&mut self) -> bool {
        let (generation, at) = (self.generation(), self.now);
        let (earned, whole) = self.share();
        let passed = self.has_earned_enough();
        if earned < whole {
            self.note(if passed { "passed by its share" } else { "refused by its share" });
        }
        self.asked.push(Asked { generation, earned, passed });
        if !passed && self.era().state == State::Closed {
            self.throttled.push(Known { generation, at, accepted: false });
        }
        passed
    }

    // Where a share is taken for probes.

    /// What the next call brings along, in parts of what a probe costs. The
    /// first of an episode is a part short of that, or a call would be taken
    /// that has only just earned it, and not the one after. Those that
    /// can't be taken save up for one.
    fn saved_up(&self) -> u64 {
        let of_now = self.asked_to_probe.iter().filter(|call| call.generation == self.generation());
        of_now.fold(MILLION - 1, |saved, call| match call.passed {
            true => saved + call.earned - MILLION,
            false => (saved + call.earned).min(MILLION),
        })
    }

    fn is_next_probe(&self) -> bool {
        self.saved_up() + self.setup.probing.parts() >= MILLION
    }

    fn ask_to_probe(&mut self) -> bool {
        let earned = self.setup.probing.parts();
        let passed = self.permits_left() > 0 && self.is_next_probe();
        if earned == MILLION {
            return passed;
        }
        match (passed, self.is_next_probe()) {
            (true, _) => self.note("taken as a probe by the share"),
            (false, true) => self.note("saved up for a probe"),
            (false, false) => self.note("no probe by the share"),
        }
        self.asked_to_probe.push(Asked { generation: self.generation(), earned, passed });
        passed
    }

    /// Whether the machine is asked for each call though it is not open.
    fn asks_each_call(&self) -> bool {
        let last = self.throttled.last().filter(|last| last.generation == self.generation());
        let throttles = |last: &Known| self.known_at(last.at).iter().any(|call| !call.accepted);
        self.era().ramp.is_some()
            || self.era().state == State::Closed && last.is_some_and(throttles)
    }

    fn trip(&mut self) {
        self.let_time_pass();
        if self.era().state != State::Open {
            self.open(self.now, ("tripped", vec![]));
        }
    }

    fn reset(&mut self) {
        self.let_time_pass();
        let closed = Era::closed(self.now);
        if self.era().state == State::Closed {
            self.revision += 1;
            self.eras.push(closed);
        } else {
            self.go(closed, ("reset", vec![]));
        }
    }

    fn lay(&mut self, kind: OverrideKind, expiry: Expiry) {
        self.let_time_pass();
        let expires_in = match expiry {
            Expiry::AsItComes => Some(HOUR),
            Expiry::In(left) => Some(left),
            Expiry::UntilCleared => None,
        };
        self.laid = Some(Laid { kind, at: self.now, expires_in });
        self.revision += 1;
        // One that lasts no time at all is over.
        self.let_time_pass();
    }

    fn clear(&mut self) {
        self.let_time_pass();
        self.revision += u64::from(self.laid.take().is_some());
    }

    // What other rules make of it.

    fn reconfigure(&mut self, part: Part, other: usize) {
        self.let_time_pass();
        let (old, new) = (self.setup, self.setup.with(part, &self.others[other]));
        let now = self.now;
        self.revision += 1;
        self.note("reconfigured");
        self.hold_in(new.window);
        let is_alike = matches!(
            (old.window, new.window),
            (Kept::Calls(_), Kept::Calls(_)) | (Kept::Time { .. }, Kept::Time { .. })
        );
        let threshold = |setup: Setup| setup.slow.map(|(threshold, _)| threshold);
        if threshold(old) != threshold(new) || !is_alike {
            for call in &mut self.calls {
                if let Some(Aging::Overdue(_)) = call.aging {
                    call.aging = Some(Aging::InTime);
                }
            }
        }
        if old.throttle.is_none() && self.era().state == State::Closed {
            self.throttled.clear();
            self.asked.clear();
        }
        self.setup = new;
        let latest = now + new.waits.longest;
        let era = self.eras.last_mut().expect("there is always a state");
        if era.state == State::Open && era.since + era.wait > latest {
            era.wait = latest - era.since;
            self.note("cut its wait");
        }
        if self.setup.probing.parts() == MILLION {
            self.asked_to_probe.clear();
        }
        if self.is_probing() {
            let lease = self.lease();
            for index in self.probes_that(Fate::Outstanding) {
                let call = &mut self.calls[index];
                call.lease_end = call.lease_end.min(now + lease);
            }
            let eras = self.eras.len();
            self.decide_on_probes(now);
            if eras != self.eras.len() {
                self.seen.push((State::HalfOpen, "decided by other rules"));
            }
        } else if let Some(climb) = self.era().ramp {
            let was = old.ramp.expect("it is on it");
            let come = climb.come + now - climb.at;
            match new.ramp {
                Some(over) if over == was => {}
                Some(over) => {
                    let scaled = |part: u64| (part as u128 * over as u128 / was as u128) as u64;
                    let of_now =
                        self.asked.iter().filter(|call| call.generation == self.generation());
                    let spent = of_now.clone().filter(|call| call.passed).count() as u64 * was;
                    let earned = scaled(of_now.map(|call| call.earned).sum::<u64>() - spent);
                    let generation = self.generation();
                    self.asked = vec![Asked { generation, earned, passed: false }];
                    let climb = Climb { come: scaled(come), at: now, ..climb };
                    self.eras.last_mut().expect("there is always a state").ramp = Some(climb);
                }
                None => {
                    self.note("ended its ramp");
                    self.go(Era::closed(now), ("ramp-completed", vec![now - climb.began]));
                }
            }
        }
    }

    /// Lets go of what another window would not hold.
    fn hold_in(&mut self, window: Kept) {
        let generation = self.generation();
        let now = self.now;
        let held = self.judged.iter_mut().filter(|call| call.generation == generation);
        match (self.setup.window, window) {
            (Kept::Calls(before), Kept::Calls(after)) => {
                let held = held.filter(|call| call.held_from.is_some()).rev();
                let gone = held.skip(before.min(after) as usize);
                gone.for_each(|call| call.held_from = None);
            }
            (Kept::Time { span, buckets }, Kept::Time { span: after, buckets: into })
                if (span, buckets) != (after, into) =>
            {
                for call in held {
                    // When its bucket was over, if it is.
                    let Some(at) = call.held_from else { continue };
                    let is_out = bucket(at, span, buckets) + u128::from(buckets)
                        <= bucket(now, span, buckets);
                    let last = at + until_next_bucket(at, span, buckets) - 1;
                    call.held_from = (!is_out).then_some(last.min(now));
                }
            }
            (Kept::Time { .. }, Kept::Time { .. }) => {}
            (Kept::Calls(_), Kept::Time { .. }) | (Kept::Time { .. }, Kept::Calls(_)) => {
                held.for_each(|call| call.held_from = None);
            }
        }
    }

    // What it decides.

    /// Leases and ramps end at their own instants, whenever it is noticed.
    fn let_time_pass(&mut self) {
        if self.in_force().is_none() {
            self.revision += u64::from(self.laid.take().is_some());
        }
        while let Some(end) = self.next_lease_end().filter(|end| *end <= self.now) {
            for index in self.probes_that(Fate::Outstanding) {
                let call = &mut self.calls[index];
                if call.lease_end == end {
                    call.probe = Some(Fate::TimedOut);
                    call.counted.get_or_insert("failure");
                }
            }
            self.decide_on_probes(end);
        }
        if let Some(end) = self.ramp_end().filter(|end| *end <= self.now) {
            let climb = self.era().ramp.expect("there is one");
            self.go(Era::closed(end), ("ramp-completed", vec![end - climb.began]));
        }
    }

    fn decide_on_probes(&mut self, at: u64) {
        let Setup { probes, successes: required, .. } = self.setup;
        let successes = self.count_probes_that(Fate::Succeeded);
        let timed_out = self.count_probes_that(Fate::TimedOut);
        let failures = timed_out + self.count_probes_that(Fate::Failed);
        if successes >= required {
            if self.setup.ramp.is_some() {
                let climb = Climb { began: at, come: 0, at };
                self.eras.last_mut().expect("there is always a state").ramp = Some(climb);
            } else {
                self.go(Era::closed(at), ("probes-succeeded", vec![successes.into()]));
            }
        } else if probes < failures + required {
            let proof = [failures, timed_out, probes, required].map(u64::from);
            self.open(at, ("probes-failed", proof.to_vec()));
        }
    }

    /// Opens if it would, had the calls that are overdue ended now.
    fn mind_the_overdue(&mut self) {
        let Some((threshold, share)) = self.setup.slow else { return };
        if !self.lets_a_share_pass() || self.is_warming_up() {
            return;
        }
        let of_now = self.judged_now();
        let (odometer, span) = match self.setup.window {
            Kept::Calls(calls) => (of_now.len() as u64, calls.into()),
            Kept::Time { span, .. } => (self.now, span),
        };
        let mut overdue = Vec::new();
        for index in &self.in_flight {
            let (generation, now) = (self.eras.len() - 1, self.now);
            let call = &mut self.calls[*index];
            if call.generation != generation || now - call.acquired <= threshold {
                continue;
            }
            let found = match (call.aging, self.setup.window) {
                (Some(Aging::InTime), Kept::Calls(_)) => odometer,
                (Some(Aging::InTime), Kept::Time { .. }) => call.acquired + threshold,
                (Some(Aging::Overdue(found)), _) => found,
                (Some(Aging::Old) | None, _) => continue,
            };
            call.aging = match odometer - found >= span {
                true => Some(Aging::Old),
                false => Some(Aging::Overdue(found)),
            };
            if let Some(Aging::Overdue(_)) = call.aging {
                overdue.push(call.acquired);
            }
        }
        let Some(since) = overdue.iter().min() else { return };

        let (generation, at) = (self.generation(), self.now);
        let (held_from, begins) = (Some(at), [false; 2]);
        let (failed, slow, cancelled) = (false, true, true);
        let late = Judged { generation, at, held_from, begins, failed, slow, cancelled };
        let mut imagined = of_now.clone();
        imagined.extend(overdue.iter().map(|_| late.clone()));
        let window = self.window_of(&imagined, self.now);
        let slow = window.iter().filter(|call| call.slow).count();

        let ended = self.window_of(&of_now, self.now);
        let (began, recent) = match self.trouble(&of_now, |call| call.begins[1]) {
            Some((began, recent)) if ended.iter().any(|call| call.slow) => (began, recent),
            _ => (*since, Vec::new()),
        };
        let hits = recent.iter().filter(|call| call.slow).count() + overdue.len();
        let is_sustained = self.setup.sustained == 0
            || self.now - began.min(*since) >= self.setup.sustained
                && share.reached_by(hits, recent.len() + overdue.len());
        if window.len() as u64 >= self.setup.minimum
            && share.reached_by(slow, window.len())
            && is_sustained
        {
            let unfinished = overdue.len().min(window.len());
            let [slow, calls, unfinished] = [slow, window.len(), unfinished].map(|n| n as u64);
            let proof = vec![slow, calls, share.parts(), threshold, unfinished];
            self.open(self.now, ("slow-call-rate", proof));
        }
    }

    fn decide_on_rules(&mut self) {
        let of_now = self.judged_now();
        let window = self.window_of(&of_now, self.now);
        let failures = window.iter().filter(|call| call.failed).count();
        let slow = window.iter().filter(|call| call.slow).count();
        let run = of_now.iter().rev().filter(|call| !call.cancelled);
        let run = run.take_while(|call| call.failed).count();
        let trips = |share: Share, bad: fn(&Judged) -> bool, begins: fn(&Judged) -> bool| {
            let hits = window.iter().filter(|call| bad(call)).count();
            window.len() as u64 >= self.setup.minimum
                && share.reached_by(hits, window.len())
                && self.is_sustained(share, bad, begins)
        };
        let proof = |numbers: [usize; 2]| numbers.map(|number| number as u64).to_vec();
        let mut cause = None;
        if let Some(share) = self.setup.failure_rate {
            if trips(share, |call| call.failed, |call| call.begins[0]) {
                let numbers = [proof([failures, window.len()]), vec![share.parts()]];
                cause = Some(("failure-rate", numbers.concat()));
            }
        }
        if let (None, Some(enough)) = (&cause, self.setup.consecutive) {
            if run >= enough as usize {
                cause = Some(("consecutive-failures", proof([run, enough as usize])));
            }
        }
        if let (None, Some((threshold, share))) = (&cause, self.setup.slow) {
            if trips(share, |call| call.slow, |call| call.begins[1]) {
                let numbers = [proof([slow, window.len()]), vec![share.parts(), threshold, 0]];
                cause = Some(("slow-call-rate", numbers.concat()));
            }
        }
        if let Some(cause) = cause {
            self.open(self.now, cause);
        }
    }

    /// Whether the trouble has lasted for long enough, and is recent.
    fn is_sustained(
        &self,
        share: Share,
        bad: fn(&Judged) -> bool,
        begins: fn(&Judged) -> bool,
    ) -> bool {
        if self.setup.sustained == 0 {
            return true;
        }
        let Some((began, recent)) = self.trouble(&self.judged_now(), begins) else { return false };
        let hits = recent.iter().filter(|call| bad(call)).count();
        self.now - began >= self.setup.sustained && share.reached_by(hits, recent.len())
    }

    /// When the last stretch of trouble began, and its recent calls.
    fn trouble(
        &self,
        of_now: &[Judged],
        begins: fn(&Judged) -> bool,
    ) -> Option<(u64, Vec<Judged>)> {
        let first = of_now.iter().rposition(begins)?;
        if self.setup.sustained == 0 {
            return Some((of_now[first].at, Vec::new()));
        }
        let step = |at| bucket(at, 2 * self.setup.sustained, 8);
        let recent = of_now[first..].iter().filter(|call| step(call.at) + 8 > step(self.now));
        Some((of_now[first].at, recent.cloned().collect()))
    }

    fn open(&mut self, at: u64, cause: Evidence) {
        let since_closed = self.eras.iter().rev().take_while(|era| era.state != State::Closed);
        let step = since_closed.filter(|era| era.state == State::HalfOpen).count();
        let wait = self.setup.waits.nth(step as u32);
        let why = Some(cause.clone());
        let open = Era { state: State::Open, since: at, wait, cause: why, ramp: None };
        self.go(open, cause);
    }

    fn go(&mut self, era: Era, cause: Evidence) {
        self.revision += 1;
        self.moves.push(Move {
            from: self.era().state,
            to: era.state,
            cause,
            generation: self.eras.len() as u64,
            at: era.since,
            open_for: (era.state == State::Open).then_some(era.wait),
        });
        self.eras.push(era);
    }

    // What it shows.

    /// Time goes on for a reader too, but only in what is read.
    pub(crate) fn view(&self) -> View {
        let mut seen = self.clone();
        seen.let_time_pass();
        let era = seen.era();
        View {
            state: era.state,
            generation: seen.generation() as u64,
            revision: seen.revision,
            since: era.since,
            retry_after: seen.retry_after(),
            cause: era.cause.clone(),
            window: seen.rates(),
            admitted_share: seen.admitted_share(),
            overdue: seen.count_overdue(),
            progress: seen.is_probing().then(|| Progress {
                permits_left: seen.permits_left(),
                in_flight: seen.count_probes_that(Fate::Outstanding),
                successes: seen.count_probes_that(Fate::Succeeded),
                failures: seen.count_probes_that(Fate::Failed)
                    + seen.count_probes_that(Fate::TimedOut),
            }),
            totals: seen.tally(),
            laid: seen.in_force(),
        }
    }

    fn rates(&self) -> Rates {
        let window = self.window_of(&self.judged_now(), self.now);
        let calls = window.len() as u64;
        let count = |bad: fn(&&Judged) -> bool| window.iter().filter(bad).count() as u64;
        let (failures, slow) = (count(|call| call.failed), count(|call| call.slow));
        let known = calls > 0 && calls >= self.setup.minimum;
        Rates {
            calls,
            failures,
            slow,
            failure_rate: known.then(|| failures as f64 / calls as f64),
            slow_rate: (known && self.setup.slow.is_some()).then(|| slow as f64 / calls as f64),
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        let counted = |as_what| {
            let calls = self.calls.iter().filter(|call| call.counted == Some(as_what));
            (as_what, calls.count() as u64)
        };
        let slow = self.calls.iter().filter(|call| call.slow).count() as u64;
        // A start is no opening.
        let opened = self.eras[1..].iter().filter(|era| era.state == State::Open).count() as u64;
        [
            counted("success"),
            counted("failure"),
            ("slow", slow),
            counted("ignored"),
            counted("cancelled"),
            counted("stale"),
            ("rejected", self.rejected),
            ("would_reject", self.would_reject),
            ("opened", opened),
        ]
    }

    /// The override that holds, and what is left of it.
    fn in_force(&self) -> Option<(OverrideKind, Option<u64>)> {
        let laid = self.laid.as_ref()?;
        match laid.expires_in {
            None => Some((laid.kind, None)),
            Some(expires_in) if self.now >= laid.at + expires_in => None,
            Some(expires_in) => Some((laid.kind, Some(laid.at + expires_in - self.now))),
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self.in_force() {
            Some((OverrideKind::ForceOpen, left)) => {
                left.map(|left| left.max(self.own_retry_after().unwrap_or(0)))
            }
            _ => self.own_retry_after(),
        }
    }

    fn own_retry_after(&self) -> Option<u64> {
        let era = self.era();
        match era.state {
            State::Closed => {
                let throttle = self.setup.throttle.filter(|_| self.throttled_share() < MILLION);
                throttle.map(|throttle| throttle.span / 10)
            }
            State::Open => Some((era.since + era.wait).saturating_sub(self.now)),
            // A percent on, or at the end.
            State::HalfOpen if era.ramp.is_some() => {
                let percent = self.setup.ramp.map(|over| (over / 100).max(1));
                percent.min(self.ramp_end().map(|end| end - self.now))
            }
            // Calls bring the next probe and not time, so it is a guess.
            State::HalfOpen if self.permits_left() > 0 => {
                (!self.is_next_probe()).then(|| (self.lease() / 100).max(MS))
            }
            State::HalfOpen => self.next_lease_end().map(|end| end - self.now),
        }
    }

    fn admitted_share(&self) -> Option<f64> {
        let probing = self.setup.probing.parts();
        if self.is_probing() && probing < MILLION {
            return Some(probing as f64 / MILLION as f64);
        }
        let (share, whole) = self.share();
        let is_partial = share < whole || self.era().ramp.is_some();
        (self.lets_a_share_pass() && is_partial).then(|| share as f64 / whole as f64)
    }

    /// Those that are no news are let go of when the next call asks.
    fn count_overdue(&self) -> u64 {
        let Some((threshold, _)) = self.setup.slow else { return 0 };
        let counts = |call: &&Call| {
            call.generation == self.generation()
                && call.aging.is_some_and(|aging| aging != Aging::Old)
                && self.now - call.acquired > threshold
        };
        self.in_flight.iter().map(|index| &self.calls[*index]).filter(counts).count() as u64
    }

    // What it is asked for in all of these.

    fn note(&mut self, what: &'static str) {
        self.seen.push((self.era().state, what));
    }

    fn is_probing(&self) -> bool {
        self.era().state == State::HalfOpen && self.era().ramp.is_none()
    }

    /// It does so while closed alone.
    fn is_warming_up(&self) -> bool {
        self.era().state == State::Closed && self.now < self.setup.warm_up
    }

    fn ramp_end(&self) -> Option<u64> {
        let climb = self.era().ramp?;
        Some(climb.at + self.setup.ramp? - climb.come)
    }

    fn era(&self) -> &Era {
        self.eras.last().expect("there is always a state")
    }

    fn generation(&self) -> usize {
        self.eras.len() - 1
    }

    fn lease(&self) -> u64 {
        self.setup.lease.unwrap_or(self.era().wait.max(10 * SECOND))
    }

    /// On the ramp there are none.
    fn next_lease_end(&self) -> Option<u64> {
        if !self.is_probing() {
            return None;
        }
        let outstanding = self.probes_that(Fate::Outstanding);
        outstanding.into_iter().map(|index| self.calls[index].lease_end).min()
    }

    fn permits_left(&self) -> u32 {
        let taken = self.calls.iter().filter(|call| {
            call.generation == self.generation()
                && call.probe.is_some_and(|fate| fate != Fate::GivenBack)
        });
        self.setup.probes.saturating_sub(taken.count() as u32)
    }

    /// Of this episode.
    fn probes_that(&self, fate: Fate) -> Vec<usize> {
        let is = |call: &Call| call.generation == self.generation() && call.probe == Some(fate);
        (0..self.calls.len()).filter(|index| is(&self.calls[*index])).collect()
    }

    fn count_probes_that(&self, fate: Fate) -> u32 {
        self.probes_that(fate).len() as u32
    }

    /// What has entered the window since it was last emptied.
    fn judged_now(&self) -> Vec<Judged> {
        let judged = self.judged.iter().filter(|call| call.generation == self.generation());
        judged.cloned().collect()
    }

    /// Those of `judged`, all there were, that the window holds at `now`.
    fn window_of(&self, judged: &[Judged], now: u64) -> Vec<Judged> {
        let known = judged.iter().filter_map(|call| Some((call, call.held_from?)));
        match self.setup.window {
            Kept::Calls(calls) => {
                let known: Vec<_> = known.map(|(call, _)| call.clone()).collect();
                known[known.len().saturating_sub(calls as usize)..].to_vec()
            }
            Kept::Time { span, buckets } => {
                let of = |at| bucket(at, span, buckets);
                let held = known.filter(|(_, at)| of(*at) + u128::from(buckets) > of(now));
                held.map(|(call, _)| call.clone()).collect()
            }
        }
    }

    /// How long a mark is, here and now.
    fn length(&self, mark: Mark) -> u64 {
        match mark {
            Mark::Nothing => 0,
            Mark::SlowThreshold => self.setup.slow.map_or(0, |(threshold, _)| threshold),
            Mark::FirstWait => self.setup.waits.first,
            Mark::LongestWait => self.setup.waits.longest,
            Mark::Lease => self.setup.lease.unwrap_or(10 * SECOND),
            Mark::Span => match self.setup.window {
                Kept::Calls(_) => 0,
                Kept::Time { span, .. } => span,
            },
            Mark::Sustained => self.setup.sustained,
            Mark::NextBucket => match self.setup.window {
                Kept::Calls(_) => 0,
                Kept::Time { span, buckets } => until_next_bucket(self.now, span, buckets),
            },
            Mark::NextStep => match self.setup.sustained {
                0 => 0,
                sustained => until_next_bucket(self.now, 2 * sustained, 8),
            },
            Mark::OfTheRamp => self.setup.ramp.map_or(0, |over| over / 8),
            Mark::NextThrottleBucket => match self.setup.throttle {
                None => 0,
                Some(throttle) => until_next_bucket(self.now, throttle.span, 10),
            },
            Mark::Deadline => {
                let era = self.era();
                let wait = (era.state == State::Open).then_some(era.since + era.wait);
                let laid = self.laid.as_ref();
                let laid = laid.and_then(|laid| Some(laid.at + laid.expires_in?));
                let warm_up = Some(self.setup.warm_up);
                let ends = [wait, self.next_lease_end(), self.ramp_end(), laid, warm_up];
                let ahead = ends.into_iter().flatten().filter(|end| *end > self.now);
                ahead.min().map_or(0, |end| end - self.now)
            }
        }
    }
}

/// The number of the bucket that `at` falls in, since birth.
pub(crate) fn bucket(at: u64, span: u64, buckets: u32) -> u128 {
    u128::from(at) * u128::from(buckets) / u128::from(span)
}

pub(crate) fn until_next_bucket(now: u64, span: u64, buckets: u32) -> u64 {
    let next = bucket(now, span, buckets) + 1;
    (next * u128::from(span)).div_ceil(u128::from(buckets)) as u64 - now
}
