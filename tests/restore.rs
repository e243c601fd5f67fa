//! A circuit that outlives its process.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use tower_breaker::{
    Backoff, Cause, Circuit, Clock, Config, ConfigBuilder, ManualClock, Observer, Outcome,
    Override, OverrideKind, Probes, Saved, Start, State, Transition,
};

const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Each process has a clock of its own, and the calendar begins with it.
struct Process {
    clock: ManualClock,
    circuit: Circuit,
}

fn config() -> ConfigBuilder {
    Config::builder("shop")
        .consecutive_failures(2)
        .open_for(Backoff::exponential(10 * SECOND, 40 * SECOND).jitter(0.0))
        .probes(Probes::new(1))
}

impl Process {
    /// One that has run for an hour.
    fn new() -> Self {
        let clock = ManualClock::new();
        clock.advance(HOUR);
        Self { circuit: Circuit::new(config().clock(&clock).build().unwrap()), clock }
    }

    /// The next one, that much later.
    fn after(&self, down: Duration) -> Self {
        Self::restored(self.circuit.save(), down, config())
    }

    #[track_caller]
    fn restored(saved: Saved, down: Duration, config: ConfigBuilder) -> Self {
        let clock = ManualClock::new();
        let date = saved.saved_at + down;
        clock.advance(date.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let config = config.clock(&clock).build().unwrap();
        Self { circuit: Circuit::restore(config, saved).unwrap(), clock }
    }

    fn call(&self, outcome: Outcome) {
        self.circuit.try_acquire().unwrap().record(outcome);
    }

    /// What a caller is told to wait, if it is refused.
    fn refused_for(&self) -> Option<Duration> {
        match self.circuit.try_acquire() {
            Ok(permit) => panic!("{permit:?}"),
            Err(open) => open.retry_after(),
        }
    }
}

#[test]
fn the_wait_that_has_passed_meanwhile_has_passed() {
    let before = Process::new();
    before.circuit.trip();
    before.clock.advance(SECOND);

    let after = before.after(4 * SECOND);
    assert_eq!(after.circuit.state(), State::Open);
    assert_eq!(after.refused_for(), Some(5 * SECOND));
    let snapshot = after.circuit.snapshot();
    assert_eq!(after.clock.now() - snapshot.since, 5 * SECOND, "open for so long already");
    assert_eq!(snapshot.cause, Some(Cause::Tripped));

    after.clock.advance(5 * SECOND - NANO);
    assert_eq!(after.refused_for(), Some(NANO));
    after.clock.advance(NANO);
    let probe = after.circuit.try_acquire().unwrap();
    assert_eq!(after.circuit.state(), State::HalfOpen);
    probe.record(Outcome::Success);
    assert_eq!(after.circuit.state(), State::Closed);
}

#[test]
fn a_count_is_believed_up_to_the_most_there_can_be() {
    let saved = Process::new().circuit.save();
    let restored = |count| {
        let mut saved = saved.clone();
        saved.totals.success = count;
        Circuit::restore(config().build().unwrap(), saved).map(|it| it.snapshot().totals.success)
    };
    assert_eq!(restored(1 << 53).unwrap(), 1 << 53);
    assert_eq!(restored((1 << 53) + 1).unwrap_err().field(), "saved.totals.success");
}

#[test]
fn half_open_it_knows_how_long_it_was_open() {
    let before = Process::new();
    before.circuit.trip();
    before.clock.advance(10 * SECOND);
    let _probe = before.circuit.try_acquire().unwrap();
    let saved = before.circuit.save();
    assert_eq!((saved.state, saved.wait), (State::HalfOpen, 10 * SECOND));
    assert_eq!(saved.wait_left, Duration::ZERO);
}

#[test]
fn on_the_ramp_it_knows_how_long_it_was_open() {
    let (clock, config) = (ManualClock::new(), config().ramp(60 * SECOND));
    let before =
        Process { circuit: Circuit::new(config.clone().clock(&clock).build().unwrap()), clock };
    before.circuit.trip();
    before.clock.advance(10 * SECOND);
    before.call(Outcome::Success);
    before.clock.advance(30 * SECOND);
    let saved = before.circuit.save();
    assert_eq!((saved.state, saved.wait), (State::HalfOpen, 10 * SECOND));
    assert_eq!(saved.wait_left, Duration::ZERO);
    let after = Process::restored(saved, SECOND, config);
    after.call(Outcome::Success);
    assert_eq!(after.circuit.save().wait, 10 * SECOND);
}

#[test]
fn rules_that_end_a_wait_no_sooner_leave_it_as_it_was() {
    let before = Process::new();
    before.circuit.trip();
    let after = before.after(4 * SECOND);
    for (longest, wait) in [(7, 10), (6, 10), (5, 9)] {
        let rules = config().open_for(Backoff::fixed(longest * SECOND).jitter(0.0));
        after.circuit.reconfigure(rules.clock(&after.clock).build().unwrap()).unwrap();
        let saved = after.circuit.save();
        assert_eq!((saved.wait, saved.wait_left), (wait * SECOND, longest.min(6) * SECOND));
    }
}

#[test]
fn rules_that_cut_a_wait_leave_what_has_passed_of_it() {
    for is_restored in [false, true] {
        let before = Process::new();
        let rules = |longest| config().open_for(Backoff::fixed(longest * SECOND).jitter(0.0));
        before.circuit.reconfigure(rules(600).clock(&before.clock).build().unwrap()).unwrap();
        before.circuit.trip();
        before.clock.advance(100 * SECOND);
        let after = match is_restored {
            true => Process::restored(before.circuit.save(), Duration::ZERO, rules(600)),
            false => before,
        };
        after.clock.advance(SECOND);
        after.circuit.reconfigure(rules(60).clock(&after.clock).build().unwrap()).unwrap();
        let saved = after.circuit.save();
        let seconds = [saved.state_for, saved.wait, saved.wait_left].map(|span| span.as_secs());
        assert_eq!(seconds, [101, 161, 60], "{is_restored}");
    }
}

#[test]
fn a_wait_that_is_over_is_over() {
    let before = Process::new();
    before.circuit.trip();
    for down in [10 * SECOND, YEAR] {
        let after = before.after(down);
        assert_eq!(after.circuit.state(), State::Open);
        after.call(Outcome::Success);
        assert_eq!(after.circuit.state(), State::Closed);
    }
}

#[test]
fn a_calendar_that_was_set_back_lengthens_nothing() {
    let before = Process::new();
    before.circuit.trip();
    before.circuit.set_override(Override::force_open().expires_in(HOUR));
    before.clock.advance(SECOND);
    let saved = before.circuit.save();
    let clock = ManualClock::new();
    assert!(Circuit::new(config().clock(&clock).build().unwrap()).save().saved_at < saved.saved_at);
    let config = config().clock(&clock).build().unwrap();
    let circuit = Circuit::restore(config, saved).unwrap();
    let snapshot = circuit.snapshot();
    assert_eq!(snapshot.active_override.unwrap().expires_in, Some(HOUR - SECOND));
    circuit.clear_override();
    assert_eq!(circuit.snapshot().retry_after, Some(9 * SECOND));
}

#[test]
fn no_wait_is_longer_than_the_longest_of_the_new_rules() {
    let before = Process::new();
    before.circuit.trip();
    let shorter = config().open_for(Backoff::exponential(SECOND, 2 * SECOND).jitter(0.5));
    let after = Process::restored(before.circuit.save(), SECOND, shorter);
    assert_eq!(after.refused_for(), Some(3 * SECOND));
}

#[test]
fn the_step_of_the_wait_outlives_the_process() {
    let before = Process::new();
    before.circuit.trip();
    before.clock.advance(10 * SECOND);
    before.call(Outcome::Failure);
    assert_eq!(before.refused_for(), Some(20 * SECOND));

    let after = before.after(20 * SECOND);
    after.call(Outcome::Failure);
    assert_eq!(after.refused_for(), Some(40 * SECOND));
    assert!(matches!(after.circuit.snapshot().cause, Some(Cause::ProbesFailed { .. })));
}

/// Whatever held a probe is gone.
#[test]
fn a_half_open_circuit_is_open_with_its_wait_over() {
    let before = Process::new();
    before.circuit.trip();
    before.clock.advance(10 * SECOND);
    let probe = before.circuit.try_acquire().unwrap();
    assert_eq!(before.circuit.state(), State::HalfOpen);
    let after = before.after(Duration::ZERO);
    drop(probe);
    assert_eq!(after.circuit.state(), State::Open);
    assert_eq!(after.circuit.snapshot().retry_after, Some(Duration::ZERO));
    after.call(Outcome::Success);
    assert_eq!(after.circuit.state(), State::Closed);

    let before = Process::restored(before.circuit.save(), SECOND, config().ramp(HOUR));
    before.call(Outcome::Success);
    before.clock.advance(HOUR / 2);
    assert_eq!(before.circuit.snapshot().admitted_share, Some(0.5), "it is on its ramp");
    let after = Process::restored(before.circuit.save(), SECOND, config().ramp(HOUR));
    assert_eq!(after.circuit.state(), State::Open);
    after.call(Outcome::Success);
    assert_eq!(after.circuit.snapshot().admitted_share, Some(0.0));
}

#[test]
fn a_closed_circuit_is_closed_and_empty() {
    let before = Process::new();
    before.call(Outcome::Failure);
    before.call(Outcome::Success);
    let start = config().start(Start::Open);
    let after = Process::restored(before.circuit.save(), SECOND, start);
    let snapshot = after.circuit.snapshot();
    assert_eq!((snapshot.state, snapshot.window.calls), (State::Closed, 0));
    assert_eq!(snapshot.totals, before.circuit.snapshot().totals);
    after.call(Outcome::Failure);
    assert_eq!(after.circuit.state(), State::Closed, "one failure in a row");
    assert_eq!(after.circuit.snapshot().totals.failure, 2);
}

#[test]
fn an_override_keeps_its_owner_its_reason_and_its_end() {
    let before = Process::new();
    let over = Override::force_open().owner("alice").reason("index rebuild").expires_in(HOUR);
    before.circuit.set_override(over);
    before.clock.advance(60 * SECOND);

    let after = before.after(HOUR - 90 * SECOND);
    let over = after.circuit.snapshot().active_override.unwrap();
    assert_eq!(over.kind, OverrideKind::ForceOpen);
    assert_eq!(over.owner.as_deref(), Some("alice"));
    assert_eq!(over.reason.as_deref(), Some("index rebuild"));
    assert_eq!(over.expires_in, Some(30 * SECOND));
    let since = |process: &Process| process.circuit.snapshot().overridden_since.unwrap();
    assert_eq!(after.circuit.snapshot().at - since(&after), HOUR - 30 * SECOND);
    let later = after.after(SECOND);
    assert_eq!(later.circuit.snapshot().at - since(&later), HOUR - 29 * SECOND);
    assert_eq!(after.refused_for(), Some(30 * SECOND));
    after.clock.advance(30 * SECOND);
    after.call(Outcome::Success);

    assert_eq!(before.after(HOUR - 60 * SECOND).circuit.snapshot().active_override, None);
    before.circuit.set_override(Override::force_open().until_cleared());
    let over = before.after(YEAR).circuit.snapshot().active_override.unwrap();
    assert_eq!(over.expires_in, None);
    // One that is observed at its start is not once it has been saved without.
    before.circuit.clear_override();
    let start = config().start(Start::ObserveOnly(HOUR));
    let after = Process::restored(before.circuit.save(), SECOND, start);
    assert_eq!(after.circuit.snapshot().active_override, None);
}

#[test]
fn observers_hear_of_the_override_with_the_first_call_and_not_of_the_state() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);
    impl Observer for Log {
        fn on_transition(&self, transition: &Transition) {
            self.0.lock().unwrap().push(transition.to_string());
        }

        fn on_override(&self, _: &str, active: Option<&Override>) {
            let owner = active.and_then(|active| active.owner.clone());
            self.0.lock().unwrap().push(owner.unwrap_or_default());
        }
    }
    let before = Process::new();
    before.circuit.trip();
    before.circuit.set_override(Override::observe_only().owner("alice"));
    let log = Log::default();
    let watched = config().observer(log.clone());
    let after = Process::restored(before.circuit.save(), SECOND, watched);
    assert!(log.0.lock().unwrap().is_empty());
    after.call(Outcome::Success);
    assert_eq!(*log.0.lock().unwrap(), ["alice"]);

    // Of one that is over by then they hear nothing.
    let (log, down) = (Log::default(), 2 * HOUR);
    let after = Process::restored(before.circuit.save(), down, config().observer(log.clone()));
    let _ = after.circuit.try_acquire();
    assert_eq!(log.0.lock().unwrap().len(), 1, "it is half-open");
    assert!(!log.0.lock().unwrap().contains(&"alice".to_owned()));
}

#[test]
fn whoever_saw_the_circuit_before_has_not_seen_this_one() {
    let before = Process::new();
    before.circuit.trip();
    let seen = before.circuit.snapshot().revision;
    let after = before.after(SECOND);
    assert_eq!(after.circuit.snapshot().revision, seen + 1);
    after.circuit.if_revision(seen).reset().unwrap_err();
}

#[test]
fn what_is_saved_again_at_once_is_the_same() {
    let before = Process::new();
    for change in [
        |circuit: &Circuit| circuit.trip(),
        |circuit: &Circuit| circuit.set_override(Override::force_open().owner("alice")),
        |circuit: &Circuit| circuit.clear_override(),
        |circuit: &Circuit| circuit.reset(),
    ] {
        change(&before.circuit);
        before.clock.advance(SECOND);
        let saved = before.circuit.save();
        let mut again = before.after(Duration::ZERO).circuit.save();
        assert_eq!(again.revision, saved.revision + 1);
        again.revision -= 1;
        assert_eq!(again, saved);
    }
}

#[test]
fn fallbacks_and_refusals_are_counted_on() {
    let before = Process::new();
    before.circuit.trip();
    let _ = (before.refused_for(), before.refused_for());
    let mut saved = before.circuit.save();
    saved.totals.fallback_answered = 3;
    saved.totals.fallback_failed = 4;
    saved.totals.fallback_cancelled = 5;
    let after = Process::restored(saved.clone(), SECOND, config());
    let _ = after.refused_for();
    let mut expected = saved.totals;
    expected.rejected = 3;
    assert_eq!(after.circuit.snapshot().totals, expected);
}

#[test]
fn another_circuits_and_impossible_counts_are_refused() {
    let saved = Process::new().circuit.save();
    let refused = |change: fn(&mut Saved)| {
        let mut saved = saved.clone();
        change(&mut saved);
        Circuit::restore(config().build().unwrap(), saved).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|saved| saved.name = "other".to_owned()),
        "saved.name is other, but must be shop, the configuration's"
    );
    assert_eq!(
        refused(|saved| saved.revision = u64::MAX),
        "saved.revision is 18446744073709551615, but must be at most 9007199254740992"
    );
    assert_eq!(
        refused(|saved| saved.totals.rejected = u64::MAX / 2),
        "saved.totals.rejected is 9223372036854775807, but must be at most 9007199254740992"
    );
}

/// A file somebody has edited, and a clock that is anywhere.
#[test]
fn whatever_is_restored_panics_never_and_probes_within_the_longest_wait() {
    let duration = || {
        prop::sample::select(vec![
            Duration::ZERO,
            NANO,
            SECOND,
            40 * SECOND,
            YEAR,
            Duration::from_nanos(u64::MAX),
            Duration::MAX,
        ])
    };
    let dates = vec![SystemTime::UNIX_EPOCH - 100 * YEAR, SystemTime::UNIX_EPOCH]
        .into_iter()
        .chain([HOUR, YEAR, 1_000 * YEAR].map(|later| SystemTime::UNIX_EPOCH + later));
    let state = prop::sample::select(vec![State::Closed, State::Open, State::HalfOpen]);
    let step = prop::sample::select(vec![0, 1, 60, u32::MAX]);
    let over = prop::option::of(prop::option::of(duration()));
    let times = (prop::sample::select(dates.collect::<Vec<_>>()), duration(), duration());
    let cases = (state, times, duration(), step, over, any::<bool>());
    proptest!(ProptestConfig { cases: 2_000, ..ProptestConfig::default() }, |(
        (state, (saved_at, state_for, wait), wait_left, step, over, caused) in cases
    )| {
        let clock = ManualClock::new();
        clock.advance(HOUR);
        let make = || config().clock(&clock).build().unwrap();
        let mut saved = Circuit::new(make()).save();
        (saved.saved_at, saved.state, saved.state_for) = (saved_at, state, state_for);
        (saved.wait, saved.wait_left, saved.step) = (wait, wait_left, step);
        saved.cause = caused.then_some(Cause::Reset);
        saved.active_override = over.map(|left| match left {
            Some(left) => Override::force_closed().expires_in(left),
            None => Override::force_closed().until_cleared(),
        });
        let circuit = Circuit::restore(make(), saved).unwrap();
        let _ = (circuit.snapshot(), circuit.save(), format!("{circuit:?}"));
        circuit.clear_override();
        if state == State::Closed {
            prop_assert_eq!(circuit.state(), State::Closed);
            prop_assert_eq!(circuit.snapshot().cause, None);
        } else {
            prop_assert_eq!(circuit.state(), State::Open);
            let wait = circuit.snapshot().retry_after.unwrap();
            prop_assert!(wait <= 40 * SECOND, "{wait:?}");
            clock.advance(wait);
            circuit.try_acquire().unwrap().record(Outcome::Failure);
            clock.advance(40 * SECOND);
            circuit.try_acquire().unwrap().record(Outcome::Success);
        }
        circuit.try_acquire().unwrap().record(Outcome::Success);
        prop_assert_eq!(circuit.state(), State::Closed);
    });
}

/// Its own clock knows no days.
#[test]
#[expect(clippy::disallowed_methods, reason = "it is the calendar's time that is asked for")]
fn whatever_its_clock_a_circuit_is_dated_by_the_calendar() {
    let clocks = [
        Clock::system(),
        #[cfg(feature = "tokio")]
        Clock::tokio(),
        #[cfg(feature = "fast-clock")]
        Clock::fast(),
    ];
    for clock in clocks {
        let circuit = Circuit::new(config().clock(clock.clone()).build().unwrap());
        circuit.trip();
        let before = SystemTime::now();
        let saved = circuit.save();
        assert!(before <= saved.saved_at && saved.saved_at <= SystemTime::now(), "{clock:?}");
        let wait_left = saved.wait_left;
        let again = Circuit::restore(config().clock(clock).build().unwrap(), saved).unwrap();
        assert_eq!(again.state(), State::Open);
        assert!(again.snapshot().retry_after.unwrap() <= wait_left);
    }
}
