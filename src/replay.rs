//! What other rules would have done with recorded calls.
//!
//! A call is admitted at its beginning and recorded at its end, so a recording,
//! which has one record a call, is two orders of events merged: ends as they
//! were written, beginnings by their time. Events of the same nanosecond keep
//! the order they had, as far as it was recorded. The engine is that of a
//! shadow.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    cause::Cause,
    circuit::{
        Birth, Clock, Config, Follower, Outcomes, Reading, Shadow, Told, Transition, Unknown,
        WindowSnapshot,
    },
    outcome::Outcome,
    state::State,
    tape::{Event, Recording},
    time::Time,
};

impl Recording {
    /// What `candidate` would have done with these calls.
    ///
    /// It starts empty, and closed unless the candidate says otherwise, when the
    /// recorded circuit was made, on virtual time (where the oldest records were
    /// dropped, it has heard of no call before the first that is left): some millions of calls a
    /// second, and 50 bytes of memory for each. Only the candidate's rules
    /// matter; its observers are not told and its clock is not read. Replaying the same
    /// recording gives the same report, always: a candidate whose jitter has no
    /// [`seed`](crate::Backoff::seed) takes that of the recorded circuit. The
    /// rules that were recorded, replayed, do what they did, but for what an
    /// operator did by hand and for callers that waited.
    ///
    /// Calls that the recorded circuit refused are *unknown*. They change
    /// nothing: where the candidate would have let one through, nobody knows
    /// how it would have gone. So record where little is refused.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{Circuit, Config, ManualClock, Outcome, Recorder};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let clock = ManualClock::new();
    /// let recorder = Recorder::new(1_000_000);
    /// let live = Config::builder("inventory").clock(&clock).recorder(&recorder);
    /// let circuit = Circuit::new(live.build()?);
    /// for _ in 0..100 {
    ///     let permit = circuit.try_acquire();
    ///     clock.advance(Duration::from_millis(100));
    ///     if let Ok(permit) = permit {
    ///         permit.record(Outcome::Failure);
    ///     }
    /// }
    ///
    /// let patient = Config::builder("patient").sustained_for(Duration::from_secs(3)).build()?;
    /// let report = recorder.recording().replay(patient);
    /// println!("{report}");
    /// assert!(report.unknown.passed > 0, "the live circuit opened first");
    /// # Ok(())
    /// # }
    /// ```
    pub fn replay(&self, candidate: Config) -> Report {
        Replay::new(self, candidate).run(self)
    }
}

/// What a candidate would have done with recorded calls. `Display` says it in a
/// few lines.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The candidate's name.
    pub name: String,
    /// Where the replay starts, since the recorded circuit was made.
    pub starts_at: Duration,
    /// Where it ends.
    pub ends_at: Duration,
    /// What the candidate would have done, in order.
    pub transitions: Vec<Replayed>,
    /// Calls it would have let through, by how they went: of these, callers
    /// would have seen the failures.
    pub passed: Outcomes,
    /// Calls it would have refused, by how they went.
    pub would_reject: Outcomes,
    /// Calls that the recorded circuit refused, so that nobody knows.
    pub unknown: Unknown,
    /// For how long it would have been open.
    pub time_open: Duration,
    /// For how long it would have been half-open.
    pub time_half_open: Duration,
}

/// A transition that a candidate would have made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Replayed {
    /// When, since the recorded circuit was made.
    pub at: Duration,
    /// The state it would have left.
    pub from: State,
    /// The state it would have gone to.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// The counts of the state it would have left.
    pub window: WindowSnapshot,
    /// If it opened: for how long.
    pub open_for: Option<Duration>,
}

impl Report {
    /// How often it would have opened.
    pub fn opened(&self) -> usize {
        self.transitions.iter().filter(|transition| transition.to == State::Open).count()
    }

    /// The share of the known calls that the dependency would have been spared,
    /// from 0 to 1; absent where no call is known.
    pub fn load_saved(&self) -> Option<f64> {
        let rejected = self.would_reject.total();
        let known = self.passed.total() + rejected;
        (known > 0).then(|| rejected as f64 / known as f64)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, passed, would_reject, unknown, .. } = self;
        let opened = self.opened();
        let times = if opened == 1 { "time" } else { "times" };
        writeln!(
            f,
            "{name}: would have opened {opened} {times}, for {:.1?} of {:.1?}",
            self.time_open,
            self.ends_at.saturating_sub(self.starts_at)
        )?;
        for transition in &self.transitions {
            let Replayed { at, from, to, cause, .. } = transition;
            writeln!(f, "  at {at:.3?}: {from} -> {to}, because {cause}")?;
        }
        writeln!(f, "  passed {} calls, {} failures among them", passed.total(), passed.failure)?;
        writeln!(
            f,
            "  would have refused {}: {} that failed and {} that did not",
            would_reject.total(),
            would_reject.failure,
            would_reject.total() - would_reject.failure
        )?;
        write!(
            f,
            "  unknown, because refused: {}, of which it would have let {} through",
            unknown.passed + unknown.rejected,
            unknown.passed
        )
    }
}

/// Two orders of events, being merged.
struct Replay {
    shadow: Shadow,
    told: Arc<Told>,
    birth: Birth,
    /// Calls that have begun and not ended.
    running: Seats,
}

/// When something happened: the nanosecond, and the place within it. The end
/// with `n` others before it is at `2n + 1`, a beginning after `n` of them at
/// `2n`.
type When = (u64, u64);

/// What is not in the order of the records.
struct Early {
    when: When,
    call: usize,
    what: What,
}

enum What {
    Begins,
    /// The head of its response comes, after so many nanoseconds, and its body
    /// takes longer.
    IsAnswered(u64),
    /// The dependency asks to be left alone for so many nanoseconds.
    Hints(u64),
}

impl Replay {
    fn new(recording: &Recording, mut candidate: Config) -> Self {
        let clock = Clock::system();
        let told = Arc::new(Told::default());
        let birth = Birth { at: clock.now(), clock, seed: recording.seed() };
        candidate.forget_observers();
        let shadow = Shadow::new(candidate, birth.clone(), vec![Arc::clone(&told) as _]);
        Self { shadow, told, birth, running: Seats::default() }
    }

    fn run(mut self, recording: &Recording) -> Report {
        let early = early(recording);
        let mut early = early.iter().peekable();
        let mut order = Order::default();
        let mut call = 0;
        for (at, event) in recording.events() {
            let when = order.next(at);
            while let Some(event) = early.next_if(|event| event.when < when) {
                self.come_early(event);
            }
            match event {
                Event::Call(ended) => {
                    let latency = ended.latency.map(Duration::from_nanos);
                    let reading = Reading::new(latency, Some(time(at)));
                    self.end(call, ended.outcome, reading);
                    call += 1;
                }
                Event::Refusal => self.shadow.unknown(time(at)),
                Event::Change { .. } => {}
            }
        }
        self.report(recording)
    }

    fn come_early(&mut self, event: &Early) {
        let at = time(event.when.0);
        let follower = self.running.get(event.call);
        match (&event.what, follower) {
            (What::Begins, _) => self.running.put(event.call, self.shadow.begin(at)),
            (What::IsAnswered(after), Some(follower)) => {
                follower.untrack(Reading::new(Some(Duration::from_nanos(*after)), None));
            }
            (What::Hints(wait), Some(follower)) => follower.hint(at, Duration::from_nanos(*wait)),
            (What::IsAnswered(_) | What::Hints(_), None) => {}
        }
    }

    fn end(&mut self, call: usize, outcome: Option<Outcome>, reading: Reading) {
        if let Some(follower) = self.running.take(call) {
            self.shadow.end(follower, outcome, reading);
        }
    }

    fn report(self, recording: &Recording) -> Report {
        let (starts_at, ends_at) = (recording.starts_at(), recording.ends_at());
        // Every call has ended, so time has nothing left to do by itself.
        let told = self.told.take();
        let transitions: Vec<_> = told.into_iter().map(|told| self.replayed(told)).collect();
        let snapshot = self.shadow.snapshot();
        let first = transitions.first().map_or(snapshot.circuit.state, |first| first.from);
        // Calls that began before the first that ended may have moved it before.
        let at = |transition: &Replayed| transition.at.max(starts_at);
        let begins = transitions.iter().map(|transition| (transition.to, at(transition)));
        let begins = [(first, starts_at)].into_iter().chain(begins);
        let ends = transitions.iter().map(at).chain([ends_at]);
        let time_in = |state: State| {
            let spent =
                begins.clone().zip(ends.clone()).filter(|((in_state, _), _)| *in_state == state);
            spent.map(|((_, begin), end)| end.saturating_sub(begin)).sum()
        };
        Report {
            name: self.shadow.name().to_owned(),
            starts_at,
            ends_at,
            time_open: time_in(State::Open),
            time_half_open: time_in(State::HalfOpen),
            passed: snapshot.passed,
            would_reject: snapshot.would_reject,
            unknown: snapshot.unknown,
            transitions,
        }
    }

    fn replayed(&self, told: Transition) -> Replayed {
        Replayed {
            at: told.at.saturating_duration_since(self.birth.at),
            from: told.from,
            to: told.to,
            cause: told.cause,
            window: told.window,
            open_for: told.open_for,
        }
    }
}

fn time(nanos: u64) -> Time {
    Time::from_elapsed(Duration::from_nanos(nanos))
}

/// Everything that came before the record it is told in, in order.
fn early(recording: &Recording) -> Vec<Early> {
    let mut early = Vec::with_capacity(usize::try_from(recording.calls()).unwrap_or_default());
    let mut order = Order::default();
    let mut call = 0;
    for (at, event) in recording.events() {
        let (_, place) = order.next(at);
        let Event::Call(ended) = event else { continue };
        // Before its own end, whatever was recorded.
        let latest = (at, place - 1);
        let began = (at - ended.duration, ended.ties.saturating_mul(2)).min(latest);
        early.push(Early { when: began, call, what: What::Begins });
        // Nothing says what came first in its nanosecond: these did last.
        let later = |after: u64| (began.0.saturating_add(after), u64::MAX).min(latest);
        let head = ended.head.or(ended.latency);
        if let Some(after) = head.filter(|after| *after < ended.duration) {
            early.push(Early { when: later(after), call, what: What::IsAnswered(after) });
        }
        if let Some((after, wait)) = ended.hint {
            early.push(Early { when: later(after), call, what: What::Hints(wait) });
        }
        call += 1;
    }
    // Stable: a call begins before it brings a hint.
    early.sort_by_key(|event| event.when);
    early
}

/// Numbers the records within their nanosecond.
#[derive(Default)]
struct Order(Option<When>);

impl Order {
    fn next(&mut self, at: u64) -> When {
        let before = self.0.filter(|(last, _)| *last == at);
        let when = (at, before.map_or(1, |(_, place)| place + 2));
        self.0 = Some(when);
        when
    }
}

/// The calls that run: few, out of many.
#[derive(Default)]
struct Seats {
    /// By call, while it runs: where it sits.
    of_calls: Vec<u32>,
    seats: Vec<Option<Follower>>,
    free: Vec<u32>,
}

impl Seats {
    fn put(&mut self, call: usize, follower: Follower) {
        let seat = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            // That many calls would not fit into any memory.
            (self.seats.len() - 1) as u32
        });
        if self.of_calls.len() <= call {
            self.of_calls.resize(call + 1, u32::MAX);
        }
        self.of_calls[call] = seat;
        self.seats[seat as usize] = Some(follower);
    }

    fn get(&self, call: usize) -> Option<&Follower> {
        self.seats.get(*self.of_calls.get(call)? as usize)?.as_ref()
    }

    /// Each call is taken once.
    fn take(&mut self, call: usize) -> Option<Follower> {
        let seat = *self.of_calls.get(call)?;
        let follower = self.seats.get_mut(seat as usize)?.take()?;
        self.free.push(seat);
        Some(follower)
    }
}
