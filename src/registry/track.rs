//! A circuit's last quarter of an hour, put together from looks at its totals.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    histogram::{Bucket, Histogram},
    vitals::{Latency, Rates, Series, Step, Vitals},
};
use crate::{Snapshot, State, Totals};

const STEP: Duration = Duration::from_secs(15);

/// How many steps are kept.
const STEPS: usize = 60;

/// How many of them keep their histogram: the last minute.
const MINUTE: usize = 4;

/// Over how long rates are taken.
const RATES: Duration = Duration::from_secs(10);

/// Looks that are closer together are not kept apart.
const LOOKS: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Track {
    born: Instant,
    /// The number of the latest step, the last of `steps`.
    latest: u64,
    steps: VecDeque<Slot>,
    /// Of the latest steps that anything was measured in, with their numbers.
    measured: VecDeque<(u64, Histogram)>,
    state: State,
    /// Until when an operator holds it open or closed.
    forced: Option<Option<Instant>>,
    /// Looks of the last seconds, oldest first; the last one is what the steps
    /// know of.
    looks: VecDeque<Look>,
    last: Look,
}

/// A look at a circuit's totals.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    seen: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u64,
    failures: u64,
    slow: u64,
    rejected: u64,
}

impl Counts {
    const fn of(totals: &Totals) -> Self {
        Self {
            calls: totals.calls(),
            failures: totals.failure,
            slow: totals.slow,
            rejected: totals.rejected,
        }
    }

    fn map(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            calls: f(self.calls, other.calls),
            failures: f(self.failures, other.failures),
            slow: f(self.slow, other.slow),
            rejected: f(self.rejected, other.rejected),
        }
    }

    fn since(self, earlier: Self) -> Self {
        self.map(earlier, u64::saturating_sub)
    }
}

/// A step, as small as it may be: there are many of them.
#[derive(Clone, Copy, Debug)]
struct Slot {
    calls: u32,
    failures: u32,
    slow: u32,
    rejected: u32,
    p50: Option<Bucket>,
    p99: Option<Bucket>,
    worst: State,
    is_forced: bool,
}

impl Slot {
    const fn starting(worst: State, is_forced: bool) -> Self {
        Self { calls: 0, failures: 0, slow: 0, rejected: 0, p50: None, p99: None, worst, is_forced }
    }

    fn count(&mut self, counts: Counts) {
        let add = |sum: &mut u32, more: u64| {
            *sum = sum.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        };
        add(&mut self.calls, counts.calls);
        add(&mut self.failures, counts.failures);
        add(&mut self.slow, counts.slow);
        add(&mut self.rejected, counts.rejected);
    }

    fn pass(&mut self, state: State) {
        let rank = |state| match state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        if rank(state) > rank(self.worst) {
            self.worst = state;
        }
    }

    fn show(&self) -> Step {
        Step {
            calls: self.calls.into(),
            failures: self.failures.into(),
            slow: self.slow.into(),
            rejected: self.rejected.into(),
            p50: self.p50.map(Bucket::value),
            p99: self.p99.map(Bucket::value),
            worst: self.worst,
            is_forced: self.is_forced,
        }
    }
}

impl Track {
    pub(super) fn new(now: Instant, state: State) -> Self {
        let look = Look { at: now, seen: Counts::default() };
        Self {
            born: now,
            latest: 0,
            steps: [Slot::starting(state, false)].into(),
            measured: VecDeque::new(),
            state,
            forced: None,
            looks: [look].into(),
            last: look,
        }
    }

    /// Takes in the first look at the circuit, before anything was counted.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) {
        self.last.seen = Counts::of(&snapshot.totals);
        self.looks = [self.last].into();
        self.state = snapshot.state;
        self.steps = [Slot::starting(snapshot.state, false)].into();
    }

    /// Takes in a look at the circuit.
    pub(super) fn sample(&mut self, now: Instant, snapshot: &Snapshot) {
        self.advance(now);
        // What time alone has done is told later.
        self.state = snapshot.state;
        self.current().pass(snapshot.state);
        let look = Look { at: now.max(self.last.at), seen: Counts::of(&snapshot.totals) };
        self.spread(look);
        self.last = look;
        if self.looks.back().is_none_or(|last| look.at - last.at >= LOOKS) {
            self.looks.push_back(look);
        }
        // One that is old enough is all it takes.
        while self.looks.get(1).is_some_and(|second| look.at - second.at >= RATES) {
            self.looks.pop_front();
        }
    }

    /// The circuit went into a state, at an instant that may be past.
    pub(super) fn moved(&mut self, now: Instant, at: Instant, to: State) {
        self.advance(now);
        self.state = to;
        let first = self.number(at);
        for (number, step) in (self.oldest()..).zip(&mut self.steps) {
            if number == first {
                step.pass(to);
            } else if number > first {
                // Nobody knew.
                step.worst = to;
            }
        }
    }

    /// An operator holds it open or closed until then, or no longer.
    pub(super) fn forced(&mut self, now: Instant, until: Option<Option<Instant>>) {
        self.advance(now);
        self.forced = until;
        self.current().is_forced |= until.is_some();
    }

    /// A call took so long.
    pub(super) fn measured(&mut self, now: Instant, latency: Duration) {
        self.advance(now);
        if self.measured.back().is_none_or(|(number, _)| *number != self.latest) {
            self.measured.push_back((self.latest, Histogram::new()));
        }
        if let Some((_, histogram)) = self.measured.back_mut() {
            histogram.record(latency);
        }
    }

    /// How it does, as of the last look.
    pub(super) fn vitals(&mut self, now: Instant) -> Vitals {
        self.advance(now);
        self.show_percentiles();
        let known = self.steps.iter().map(|slot| Some(slot.show()));
        let unknown = std::iter::repeat_n(None, STEPS - self.steps.len());
        Vitals {
            rates: self.rates(),
            latency: self.latency(),
            series: Series {
                step: STEP,
                running_for: now.saturating_duration_since(self.start_of(self.latest)).min(STEP),
                steps: unknown.chain(known).collect(),
            },
        }
    }

    fn rates(&self) -> Rates {
        let Some(first) = self.looks.front() else { return Rates::default() };
        // A call just after the start is not a thousand a second.
        let over = (self.last.at - first.at).max(LOOKS);
        let seen = self.last.seen.since(first.seen);
        let rate = |count: u64| count as f64 / over.as_secs_f64();
        Rates {
            calls: rate(seen.calls),
            failures: rate(seen.failures),
            rejected: rate(seen.rejected),
            over,
        }
    }

    fn latency(&self) -> Option<Latency> {
        let mut all = Histogram::new();
        self.measured.iter().for_each(|(_, histogram)| all.add(histogram));
        Some(Latency {
            p50: all.percentile(50)?.value(),
            p90: all.percentile(90)?.value(),
            p99: all.percentile(99)?.value(),
            samples: all.samples(),
        })
    }

    /// Begins the steps that are due.
    fn advance(&mut self, now: Instant) {
        let latest = self.number(now);
        if latest <= self.latest {
            return;
        }
        self.show_percentiles();
        // Those that would leave again at once are not begun.
        let first = (self.latest + 1).max((latest + 1).saturating_sub(STEPS as u64));
        for number in first..=latest {
            if self.steps.len() == STEPS {
                self.steps.pop_front();
            }
            let start = self.start_of(number);
            let is_forced =
                self.forced.is_some_and(|until| until.is_none_or(|until| until > start));
            self.steps.push_back(Slot::starting(self.state, is_forced));
        }
        self.latest = latest;
        while self.measured.front().is_some_and(|(number, _)| number + MINUTE as u64 <= latest) {
            self.measured.pop_front();
        }
    }

    /// Notes the percentiles of the steps that still have their histograms.
    fn show_percentiles(&mut self) {
        let oldest = self.oldest();
        for (number, histogram) in &self.measured {
            // A histogram leaves long before its step.
            if let Some(step) = self.steps.get_mut((number - oldest) as usize) {
                step.p50 = histogram.percentile(50);
                step.p99 = histogram.percentile(99);
            }
        }
    }

    /// Counts what came since the last look, evenly over the time between.
    fn spread(&mut self, look: Look) {
        let counts = look.seen.since(self.last.seen);
        let (from, to) = (self.last.at, look.at);
        let whole = (to - from).as_nanos();
        let mut counted = Counts::default();
        let first = self.oldest().max(self.number(from));
        // What came before the first step that is kept is out of sight.
        if self.start_of(first) > from {
            counted = portion(counts, (self.start_of(first) - from).as_nanos(), whole);
        }
        for number in first..=self.latest {
            let end = self.start_of(number + 1);
            let so_far =
                if end >= to { counts } else { portion(counts, (end - from).as_nanos(), whole) };
            let index = (number - self.oldest()) as usize;
            self.steps[index].count(so_far.since(counted));
            counted = so_far;
        }
    }

    fn current(&mut self) -> &mut Slot {
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// The number of the oldest step that is kept.
    fn oldest(&self) -> u64 {
        self.latest + 1 - self.steps.len() as u64
    }

    fn number(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.born);
        elapsed.as_secs() / STEP.as_secs()
    }

    fn start_of(&self, number: u64) -> Instant {
        // Within the clock's range, for the clock has been there or will be soon.
        let elapsed = Duration::from_secs(number.saturating_mul(STEP.as_secs()));
        self.born.checked_add(elapsed).unwrap_or(self.born)
    }
}

/// `part` out of `whole` of what was counted.
fn portion(counts: Counts, part: u128, whole: u128) -> Counts {
    counts.map(Counts::default(), |count, _| {
        // At most the count.
        u64::try_from(u128::from(count) * part / whole.max(1)).unwrap_or(count)
    })
}
