//! What happened to each circuit, minute by minute. Pure: both clocks are
//! arguments.
//!
//! How long something lasted is measured by the monotonic clock, and the
//! calendar only says to which minute it belongs. So a calendar that is set
//! forth leaves minutes out, and one that is set back adds to minutes that were
//! counted before; nothing gets lost, and nothing becomes negative.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tower_breaker::{OverrideKind, Snapshot, State, Totals, Vitals};

/// A minute of a circuit, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Minute {
    pub circuit: Arc<str>,
    /// Whole minutes since 1970.
    pub number: i64,
    pub counts: Counts,
    /// Of the calls that were measured within about the last minute.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
    pub lasted: Lasted,
}

/// Calls, as in [`Step`](tower_breaker::Step).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    pub failures: u64,
    pub slow: u64,
    pub rejected: u64,
}

/// How long callers met which state. What is missing to a minute was not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lasted {
    pub closed: Duration,
    pub half_open: Duration,
    pub open: Duration,
    /// An operator held it open or closed.
    pub held: Duration,
}

/// A look at a circuit.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub counts: Counts,
    pub state: State,
    pub is_held: bool,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
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

    const fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            failures: self.failures.saturating_sub(earlier.failures),
            slow: self.slow.saturating_sub(earlier.slow),
            rejected: self.rejected.saturating_sub(earlier.rejected),
        }
    }
}

impl Look {
    pub fn at(snapshot: &Snapshot, vitals: Option<&Vitals>) -> Self {
        let latency = vitals.and_then(|vitals| vitals.latency);
        Self {
            counts: Counts::of(&snapshot.totals),
            state: snapshot.state,
            is_held: snapshot.active_override.as_ref().is_some_and(|over| holds(over.kind)),
            p50: latency.map(|latency| latency.p50),
            p99: latency.map(|latency| latency.p99),
        }
    }

    /// What was counted before anybody looked at it in this life: a restored
    /// circuit goes on counting where it was. A circuit that is younger than
    /// its series has all of its life in there.
    pub fn counted_before(&self, vitals: &Vitals) -> Counts {
        let steps = &vitals.series.steps;
        if steps.iter().all(Option::is_some) {
            return self.counts;
        }
        let mut seen = Counts::default();
        for step in steps.iter().flatten() {
            seen.calls += step.calls;
            seen.failures += step.failures;
            seen.slow += step.slow;
            seen.rejected += step.rejected;
        }
        self.counts.since(seen)
    }
}

/// Whether callers meet the operator's will and not the circuit's state.
pub const fn holds(kind: OverrideKind) -> bool {
    matches!(kind, OverrideKind::ForceOpen | OverrideKind::ForceClosed)
}

/// The minute that is running, of all circuits.
#[derive(Debug, Default)]
pub struct Minutes(BTreeMap<Arc<str>, Track>);

#[derive(Debug)]
struct Track {
    counted: Counts,
    state: State,
    is_held: bool,
    /// When this minute, or this circuit's part of it, began.
    began: Instant,
    /// Up to when it is known how long things lasted.
    until: Instant,
    lasted: Lasted,
}

impl Track {
    fn pass(&mut self, at: Instant) {
        let passed = at.saturating_duration_since(self.until);
        let lasted = match self.state {
            _ if self.is_held => &mut self.lasted.held,
            State::Closed => &mut self.lasted.closed,
            State::HalfOpen => &mut self.lasted.half_open,
            _ => &mut self.lasted.open,
        };
        *lasted += passed;
        self.until = self.until.max(at);
    }

    fn end(&mut self, circuit: &Arc<str>, now: Instant, date: SystemTime, look: Look) -> Minute {
        self.pass(now);
        (self.state, self.is_held) = (look.state, look.is_held);
        let counted = std::mem::replace(&mut self.counted, look.counts);
        // Its middle: a timer is never exact, and no end is far from a boundary.
        let middle = now.saturating_duration_since(self.began) / 2;
        self.began = now;
        Minute {
            circuit: Arc::clone(circuit),
            number: number(date.checked_sub(middle).unwrap_or(UNIX_EPOCH)),
            counts: look.counts.since(counted),
            p50: look.p50,
            p99: look.p99,
            lasted: std::mem::take(&mut self.lasted),
        }
    }
}

/// Whole minutes since 1970.
pub fn number(date: SystemTime) -> i64 {
    let seconds = date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds / 60).unwrap_or(i64::MAX)
}

impl Minutes {
    /// Begins with a circuit; again with one that has another's name.
    pub fn begin(&mut self, circuit: &Arc<str>, now: Instant, look: Look, counted: Counts) {
        let track = Track {
            counted,
            state: look.state,
            is_held: look.is_held,
            began: now,
            until: now,
            lasted: Lasted::default(),
        };
        self.0.insert(Arc::clone(circuit), track);
    }

    /// A circuit went into a state, at an instant that may be past.
    pub fn moved(&mut self, circuit: &str, at: Instant, to: State) {
        if let Some(track) = self.0.get_mut(circuit) {
            track.pass(at);
            track.state = to;
        }
    }

    /// An operator holds it open or closed, or no longer.
    pub fn held(&mut self, circuit: &str, at: Instant, is_held: bool) {
        if let Some(track) = self.0.get_mut(circuit) {
            track.pass(at);
            track.is_held = is_held;
        }
    }

    /// Ends the minute of one circuit, and begins the next.
    pub fn end(
        &mut self,
        circuit: &Arc<str>,
        now: Instant,
        date: SystemTime,
        look: Look,
    ) -> Option<Minute> {
        self.0.get_mut(circuit).map(|track| track.end(circuit, now, date, look))
    }

    /// Knows of a circuit no longer.
    pub fn forget(&mut self, circuit: &str) {
        self.0.remove(circuit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Both clocks, beginning 20 seconds into minute 1,000.
    struct Bench {
        start: Instant,
        date: SystemTime,
        minutes: Minutes,
        name: Arc<str>,
        calls: u64,
        state: State,
    }

    impl Bench {
        fn new() -> Self {
            #[expect(clippy::disallowed_methods, reason = "where virtual time begins")]
            let start = Instant::now();
            let mut bench = Self {
                start,
                date: UNIX_EPOCH + SECOND * (60_000 + 20),
                minutes: Minutes::default(),
                name: "orders".into(),
                calls: 70,
                state: State::Closed,
            };
            let look = bench.look();
            bench.minutes.begin(&bench.name, start, look, look.counts);
            bench
        }

        fn look(&self) -> Look {
            let counts = Counts { calls: self.calls, ..Counts::default() };
            Look { counts, state: self.state, is_held: false, p50: None, p99: None }
        }

        fn at(&self, second: u32) -> Instant {
            self.start + SECOND * second
        }

        fn moved(&mut self, second: u32, to: State) {
            self.state = to;
            self.minutes.moved("orders", self.at(second), to);
        }

        /// Ends a minute, by a calendar that is off by so many seconds.
        fn end(&mut self, second: u32, off: i64) -> Minute {
            let date = self.date + SECOND * second;
            let by = SECOND * u32::try_from(off.abs()).unwrap();
            let date = if off < 0 { date - by } else { date + by };
            let (now, look) = (self.at(second), self.look());
            self.minutes.end(&self.name, now, date, look).unwrap()
        }
    }

    #[test]
    fn the_first_minute_is_as_long_as_was_seen_of_it() {
        let mut bench = Bench::new();
        bench.calls += 5;
        let first = bench.end(40, 0);
        assert_eq!((first.number, first.counts.calls), (1_000, 5));
        assert_eq!(first.lasted, Lasted { closed: 40 * SECOND, ..Lasted::default() });
        let second = bench.end(100, 0);
        assert_eq!((second.number, second.counts.calls), (1_001, 0));
        assert_eq!(second.lasted.closed, 60 * SECOND);
    }

    #[test]
    fn a_timer_that_is_a_little_early_or_late_does_not_miss_its_minute() {
        let mut bench = Bench::new();
        assert_eq!(bench.end(39, 0).number, 1_000);
        assert_eq!(bench.end(101, 0).number, 1_001);
        assert_eq!(bench.end(160, 0).number, 1_002);
    }

    #[test]
    fn each_state_has_its_time_by_when_it_happened() {
        let mut bench = Bench::new();
        bench.moved(10, State::Open);
        bench.moved(15, State::HalfOpen);
        bench.moved(17, State::Closed);
        bench.minutes.held("orders", bench.at(30), true);
        bench.minutes.held("orders", bench.at(34), false);
        let lasted = bench.end(40, 0).lasted;
        let expected = Lasted {
            closed: 29 * SECOND,
            half_open: 2 * SECOND,
            open: 5 * SECOND,
            held: 4 * SECOND,
        };
        assert_eq!(lasted, expected);
    }

    #[test]
    fn what_is_told_late_counts_from_where_the_last_minute_ended() {
        let mut bench = Bench::new();
        bench.end(40, 0);
        bench.moved(30, State::Open);
        let lasted = bench.end(100, 0).lasted;
        assert_eq!(lasted, Lasted { open: 60 * SECOND, ..Lasted::default() });
    }

    #[test]
    fn a_calendar_that_jumps_moves_minutes_and_neither_loses_nor_doubles_calls() {
        let mut bench = Bench::new();
        let mut calls = 0;
        for (second, off, number) in [
            (40, 0, 1_000),
            // An hour forth, and back again.
            (100, 3_600, 1_061),
            (160, 3_600, 1_062),
            (220, 0, 1_003),
            // Back to before it began.
            (280, -600, 994),
        ] {
            bench.calls += 7;
            let minute = bench.end(second, off);
            assert_eq!(minute.number, number);
            assert!(minute.lasted.closed <= 60 * SECOND);
            calls += minute.counts.calls;
        }
        assert_eq!(calls, 35);
    }

    #[test]
    fn a_date_before_1970_is_1970() {
        assert_eq!(number(UNIX_EPOCH - SECOND), 0);
    }

    #[test]
    fn a_circuit_that_counts_anew_counts_nothing_twice() {
        let mut bench = Bench::new();
        bench.calls = 3;
        assert_eq!(bench.end(40, 0).counts.calls, 0);
        bench.calls = 5;
        assert_eq!(bench.end(100, 0).counts.calls, 2);
    }
}
