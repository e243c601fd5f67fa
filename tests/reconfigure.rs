//! Other rules for a circuit that lives.

#[expect(dead_code, reason = "its own tests run histories whole")]
mod histories;

use std::{
    cell::RefCell,
    collections::HashSet,
    future::{Future, Ready, ready},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::{
    prelude::*,
    test_runner::{Config as Runs, TestRunner},
};
use tower::{BoxError, Layer, Service};
use tower_breaker::{
    Backoff, Call, Circuit, CircuitBreakerLayer, Config, ConfigBuilder, ManualClock, Observer,
    Outcome, Override, Permit, Probes, Reconfigured, ResultClassifier, Snapshot, Start, State,
    Throttle, Transition, WhenOpen, Window,
};

use self::histories::{Step, history, rules};

const NANO: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// No rule that could be met, unless a test says so.
fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("shop")
        .no_failure_rate()
        .consecutive_failures(u32::MAX)
        .minimum_calls(1)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(10 * SECOND))
        .probes(Probes::new(3).lease(10 * SECOND))
        .clock(clock)
}

struct Bench {
    circuit: Circuit,
    clock: ManualClock,
    log: Log,
}

impl Bench {
    #[track_caller]
    fn new(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let (clock, log) = (ManualClock::new(), Log::default());
        let config = change(config(&clock)).observer(log.clone()).build().unwrap();
        Self { circuit: Circuit::new(config), clock, log }
    }

    #[track_caller]
    fn reconfigure(&self, change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) {
        let generation = self.circuit.snapshot().generation;
        let moves = self.log.transitions();
        self.circuit.reconfigure(change(config(&self.clock)).build().unwrap()).unwrap();
        let moved = (self.log.transitions() - moves) as u64;
        assert_eq!(self.circuit.snapshot().generation, generation + moved, "it starts none");
    }

    /// Calls that end at once, one a letter.
    #[track_caller]
    fn run(&self, calls: &str) {
        calls.chars().for_each(|end| finish(self.permit(), end));
    }

    #[track_caller]
    fn permit(&self) -> Permit {
        self.circuit.try_acquire().expect("a permit")
    }

    #[track_caller]
    fn permits<const N: usize>(&self) -> [Permit; N] {
        [(); N].map(|()| self.permit())
    }

    fn retry_after(&self) -> Option<Duration> {
        self.circuit.try_acquire().expect_err("a refusal").retry_after()
    }

    fn state(&self) -> State {
        self.circuit.state()
    }

    /// Calls, failures and slow calls in the window.
    fn window(&self) -> (u64, u64, u64) {
        let window = self.circuit.snapshot().window;
        (window.calls, window.failures, window.slow)
    }

    /// Opens by hand, waits, and is half-open with so many probes out.
    #[track_caller]
    fn probes<const N: usize>(&self) -> [Permit; N] {
        self.circuit.trip();
        self.clock.advance(self.circuit.snapshot().retry_after.unwrap());
        self.permits()
    }
}

fn finish(permit: Permit, end: char) {
    match end {
        's' => permit.record(Outcome::Success),
        'f' => permit.record(Outcome::Failure),
        'i' => permit.record(Outcome::Ignored),
        _ => drop(permit),
    }
}

/// What an observer is told, in its order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn transitions(&self) -> usize {
        self.lines().iter().filter(|line| line.contains("because")).count()
    }
}

impl Observer for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap().push(transition.to_string());
    }

    fn on_reconfigured(&self, reconfigured: &Reconfigured) {
        self.0.lock().unwrap().push(reconfigured.to_string());
    }

    fn on_override(&self, circuit: &str, active: Option<&Override>) {
        let what = active.map_or("lifted", |active| active.kind.as_str());
        self.0.lock().unwrap().push(format!("{circuit}: {what}"));
    }
}

// Laws -----------------------------------------------------------------------

#[test]
fn the_same_configuration_changes_nothing_but_the_revision() {
    let config = (rules("same"), any::<u64>()).prop_map(|(config, seed)| {
        // The seed is the same, and the jitter with it.
        config.open_for(Backoff::exponential(SECOND / 2, 4 * SECOND).jitter(0.3).seed(seed))
    });
    let cases = (config, history(), 1..20usize);
    let reached = RefCell::new(HashSet::new());
    let law = |(config, history, every): (ConfigBuilder, Vec<Step>, usize)| {
        let (left, right) = (Twin::new(&config), Twin::new(&config));
        let (mut left_runs, mut right_runs) = (Vec::new(), Vec::new());
        let mut times = 0;
        for (index, step) in history.iter().enumerate() {
            left.take(step, &mut left_runs);
            right.take(step, &mut right_runs);
            if index % every == 0 {
                let Snapshot { state, admitted_share, .. } = left.circuit.snapshot();
                reached.borrow_mut().insert((state, admitted_share.is_some()));
                // That lets time have done what it does, and no more.
                left.circuit.clear_override();
                right.circuit.reconfigure(config.clone().build().unwrap()).unwrap();
                times += 1;
            }
            let (before, after) = (left.circuit.snapshot(), right.circuit.snapshot());
            prop_assert_eq!(after.revision, before.revision + times);
            prop_assert_eq!(left.timeless(before), right.timeless(after), "step {}", index);
            prop_assert_eq!(left.told(), right.told());
            prop_assert_eq!(left.shares.told(), right.shares.told());
        }
        Ok(())
    };
    let runs = Runs { cases: 300, failure_persistence: None, ..Runs::default() };
    TestRunner::new(runs).run(&cases, law).unwrap_or_else(|error| panic!("{error}"));
    // Closed, open and probing; throttling, and on the ramp.
    assert_eq!(reached.into_inner().len(), 5);
}

/// One of two that are to do the same.
struct Twin {
    circuit: Circuit,
    clock: ManualClock,
    log: histories::Log,
    shares: Shares,
    born: std::time::Instant,
}

/// Keeps the shares it is told of.
#[derive(Clone, Default)]
struct Shares(Arc<Mutex<Vec<f64>>>);

impl Shares {
    fn told(&self) -> Vec<f64> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Shares {
    fn on_admitted_share(&self, _: &str, share: f64) {
        self.0.lock().unwrap().push(share);
    }
}

impl Twin {
    fn new(config: &ConfigBuilder) -> Self {
        let (clock, log) = (ManualClock::new(), histories::Log::default());
        let (born, shares) = (clock.now(), Shares::default());
        let config = config.clone().clock(&clock).observer(log.clone()).observer(shares.clone());
        Self { circuit: Circuit::new(config.build().unwrap()), clock, log, shares, born }
    }

    fn take(&self, step: &Step, running: &mut Vec<Permit>) {
        match step {
            Step::Advance(duration) => self.clock.advance(*duration),
            Step::Begin => running.extend(self.circuit.try_acquire().ok()),
            Step::End(which, outcome) if !running.is_empty() => {
                let permit = running.swap_remove(which.index(running.len()));
                match outcome {
                    Some(outcome) => permit.record(*outcome),
                    None => drop(permit),
                }
            }
            Step::End(..) => {}
        }
    }

    /// All of a snapshot but the revision.
    fn timeless(&self, mut snapshot: Snapshot) -> String {
        let since = snapshot.since - self.born;
        snapshot.revision = 0;
        snapshot.since = self.clock.now();
        let Snapshot { state, generation, retry_after, cause, window, probes, .. } = &snapshot;
        let Snapshot { admitted_share, totals, active_override, .. } = &snapshot;
        format!(
            "{state} {generation} {since:?} {retry_after:?} {cause:?} {window:?} {probes:?} \
             {admitted_share:?} {totals:?} {active_override:?}"
        )
    }

    fn told(&self) -> Vec<String> {
        self.log.since(self.born)
    }
}

#[test]
fn a_window_that_shrinks_is_one_that_saw_the_newest_calls_alone() {
    let ends = prop::collection::vec(prop::sample::select(vec!['s', 's', 'f', 'i', 'd']), 0..120);
    let cases = (1..80u32, 1..80u32, ends.clone(), ends, 0.1..1.0f64);
    let law = |(before, after, past, future, rate): (u32, u32, Vec<char>, Vec<char>, f64)| {
        let judged: Vec<_> = past.iter().filter(|end| matches!(end, 's' | 'f')).collect();
        let newest = judged[judged.len().saturating_sub(before.min(after) as usize)..].to_vec();
        let left = Bench::new(|config| config.window(Window::count(before)));
        let right = Bench::new(|config| config.window(Window::count(after)));
        past.iter().for_each(|end| finish(left.permit(), *end));
        newest.into_iter().for_each(|end| finish(right.permit(), *end));
        for bench in [&left, &right] {
            bench.reconfigure(|config| config.window(Window::count(after)).failure_rate(rate));
        }
        prop_assert_eq!(left.window(), right.window());
        for end in future {
            match (left.circuit.try_acquire(), right.circuit.try_acquire()) {
                (Ok(one), Ok(other)) => {
                    finish(one, end);
                    finish(other, end);
                }
                (Err(_), Err(_)) => {}
                (one, other) => prop_assert!(false, "{one:?} and {other:?}"),
            }
            prop_assert_eq!(left.window(), right.window());
            prop_assert_eq!(left.state(), right.state());
        }
        Ok(())
    };
    let runs = Runs { cases: 1_000, failure_persistence: None, ..Runs::default() };
    TestRunner::new(runs).run(&cases, law).unwrap_or_else(|error| panic!("{error}"));
}

// The window -----------------------------------------------------------------

#[test]
fn a_threshold_decides_from_the_next_call_on_that_ends() {
    let bench = Bench::new(|config| config);
    bench.run("fffffss");
    let in_flight = bench.permit();
    bench.reconfigure(|config| config.failure_rate(0.5));
    assert_eq!(bench.state(), State::Closed, "no call has ended since");
    finish(in_flight, 's');
    assert_eq!(bench.state(), State::Open);
    let lines = bench.log.lines();
    assert!(lines[1].contains("5 of 8 calls failed (62.5 %), and 50 % are enough"), "{lines:?}");
}

#[test]
fn a_window_that_grows_keeps_all_and_what_has_left_is_gone() {
    let bench = Bench::new(|config| config.window(Window::count(4)));
    bench.run("fffssff");
    assert_eq!(bench.window(), (4, 2, 0));
    bench.reconfigure(|config| config.window(Window::count(100)));
    assert_eq!(bench.window(), (4, 2, 0));
    bench.run("fs");
    assert_eq!(bench.window(), (6, 3, 0));
    bench.reconfigure(|config| config.window(Window::count(3)));
    assert_eq!(bench.window(), (3, 2, 0));
    bench.reconfigure(|config| config.window(Window::count(100)));
    assert_eq!(bench.window(), (3, 2, 0));
}

#[test]
fn a_clean_window_that_grows_hears_of_successes_again() {
    let bench = Bench::new(|config| config.window(Window::count(5)));
    bench.run("ssssssss");
    bench.reconfigure(|config| config.window(Window::count(8)));
    bench.run("ssss");
    assert_eq!(bench.window(), (8, 0, 0));
    assert_eq!(bench.circuit.snapshot().totals.success, 12);
}

#[test]
fn a_time_window_keeps_what_is_in_the_new_span() {
    let bench = Bench::new(|config| config.window(Window::time(10 * SECOND)));
    for _ in 0..10 {
        bench.run("fs");
        bench.clock.advance(SECOND);
    }
    assert_eq!(bench.window(), (18, 9, 0));
    bench.reconfigure(|config| config.window(Window::time(4 * SECOND).buckets(4)));
    assert_eq!(bench.window(), (6, 3, 0));
    bench.reconfigure(|config| config.window(Window::time(60 * SECOND).buckets(60)));
    assert_eq!(bench.window(), (6, 3, 0));
    bench.clock.advance(57 * SECOND - NANO);
    assert_eq!(bench.window(), (6, 3, 0));
    bench.clock.advance(NANO);
    assert_eq!(bench.window(), (4, 2, 0));
}

#[test]
fn from_calls_to_time_and_back_the_window_starts_empty_and_the_row_goes_on() {
    let bench = Bench::new(|config| config.consecutive_failures(4));
    bench.run("ff");
    let time = |config: ConfigBuilder| config.window(Window::time(60 * SECOND));
    bench.reconfigure(|config| time(config).consecutive_failures(4));
    assert_eq!(bench.window(), (0, 0, 0));
    bench.run("f");
    bench.reconfigure(|config| config.consecutive_failures(4));
    assert_eq!(bench.window(), (0, 0, 0));
    assert_eq!(bench.state(), State::Closed);
    bench.run("f");
    assert_eq!(bench.state(), State::Open, "the fourth in a row");
}

#[test]
fn trouble_is_as_old_as_it_was() {
    let sustained = |seconds: u32| {
        move |config: ConfigBuilder| {
            config.failure_rate(0.5).sustained_for(seconds * SECOND).window(Window::count(100))
        }
    };
    let bench = Bench::new(sustained(60));
    for _ in 0..9 {
        bench.run("f");
        bench.clock.advance(SECOND);
    }
    bench.reconfigure(sustained(10));
    bench.run("f");
    assert_eq!(bench.state(), State::Closed, "it is 9 s old");
    bench.clock.advance(SECOND);
    bench.run("f");
    assert_eq!(bench.state(), State::Open);
}

// Slow calls -----------------------------------------------------------------

fn slow(after: Duration) -> impl Fn(ConfigBuilder) -> ConfigBuilder {
    move |config| config.slow_calls(after, 1.0).minimum_calls(3)
}

#[test]
fn calls_from_before_a_slow_rule_do_it_no_harm() {
    let bench = Bench::new(|config| config);
    let [untimed, dropped] = bench.permits();
    bench.reconfigure(slow(SECOND));
    let timed = bench.permit();
    bench.clock.advance(2 * SECOND);
    assert_eq!(bench.circuit.snapshot().window.overdue, 1);
    finish(untimed, 's');
    finish(dropped, 'd');
    finish(timed, 's');
    assert_eq!(bench.window(), (2, 0, 1));
    assert_eq!(bench.circuit.snapshot().window.overdue, 0);
}

/// The throttle has each call ask.
#[test]
fn calls_that_asked_before_there_was_a_slow_rule_do_it_no_harm() {
    let throttled = |config: ConfigBuilder| config.throttle(Throttle::new(2.0));
    for there_was_one_earlier in [false, true] {
        let first = |config| if there_was_one_earlier { slow(SECOND)(config) } else { config };
        let bench = Bench::new(|config| throttled(first(config)));
        bench.run("f");
        bench.reconfigure(throttled);
        let before: [Permit; 3] = bench.permits();
        bench.reconfigure(|config| throttled(slow(SECOND)(config)));
        bench.clock.advance(2 * SECOND);
        assert_eq!(bench.circuit.snapshot().window.overdue, 0);
        drop(bench.permit());
        assert_eq!(bench.state(), State::Closed);
        drop(before);
    }
}

#[test]
fn a_call_from_under_a_rule_that_came_back_does_not_end_anothers() {
    let bench = Bench::new(slow(SECOND));
    let old = bench.permit();
    bench.reconfigure(|config| config);
    let [between] = bench.permits();
    bench.reconfigure(slow(SECOND));
    let new = bench.permit();
    finish(between, 's');
    finish(old, 's');
    bench.clock.advance(SECOND + NANO);
    assert_eq!(bench.circuit.snapshot().window.overdue, 1);
    finish(new, 's');
    assert_eq!(bench.circuit.snapshot().window.overdue, 0);
}

#[test]
fn without_the_rule_no_call_is_slow_or_overdue() {
    let bench = Bench::new(slow(SECOND));
    let [hanging, ..] = bench.permits::<3>();
    let [late, later] = bench.permits();
    bench.clock.advance(5 * SECOND);
    assert_eq!(bench.circuit.snapshot().window.overdue, 3);
    bench.reconfigure(|config| config);
    assert_eq!(bench.circuit.snapshot().window.overdue, 0);
    finish(late, 's');
    drop(bench.permit());
    finish(later, 'd');
    assert_eq!(bench.window(), (1, 0, 0));
    assert_eq!(bench.state(), State::Closed);
    finish(hanging, 's');
}

#[test]
fn a_slow_threshold_holds_for_the_calls_in_flight() {
    let bench = Bench::new(slow(10 * SECOND));
    let calls: [Permit; 3] = bench.permits();
    bench.clock.advance(3 * SECOND);
    assert_eq!(bench.circuit.snapshot().window.overdue, 0);
    bench.reconfigure(slow(SECOND));
    assert_eq!(bench.circuit.snapshot().window.overdue, 3);
    bench.reconfigure(slow(5 * SECOND));
    assert_eq!(bench.circuit.snapshot().window.overdue, 0);
    drop(bench.permit());
    assert_eq!(bench.state(), State::Closed);
    bench.reconfigure(slow(SECOND));
    assert!(bench.circuit.try_acquire().is_err(), "all three are overdue");
    assert_eq!(bench.state(), State::Open);
    drop(calls);
}

#[test]
fn those_found_overdue_are_found_again_by_a_longer_threshold_when_it_is_time() {
    let at_four = |after: Duration| move |config| slow(after)(config).minimum_calls(4);
    let bench = Bench::new(at_four(SECOND));
    let calls: [Permit; 3] = bench.permits();
    bench.clock.advance(2 * SECOND);
    // Found, and one too few to open.
    let fourth = bench.permit();
    bench.reconfigure(at_four(4 * SECOND));
    assert_eq!(bench.circuit.snapshot().window.overdue, 0);
    bench.clock.advance(2 * SECOND);
    assert_eq!(bench.circuit.snapshot().window.overdue, 0);
    bench.clock.advance(NANO);
    assert_eq!(bench.circuit.snapshot().window.overdue, 3);
    bench.clock.advance(2 * SECOND);
    assert!(bench.circuit.try_acquire().is_err(), "the fourth is overdue too");
    drop((calls, fourth));
}

#[test]
fn those_overdue_are_no_older_in_a_window_of_another_kind() {
    let at_four = |config| slow(SECOND)(config).minimum_calls(4);
    let time = |config| at_four(config).window(Window::time(60 * SECOND));
    let bench = Bench::new(at_four);
    bench.clock.advance(HOUR);
    let calls: [Permit; 3] = bench.permits();
    bench.clock.advance(2 * SECOND);
    // Found, and one too few to open.
    let fourth = bench.permit();
    bench.reconfigure(time);
    bench.clock.advance(2 * SECOND);
    assert!(bench.circuit.try_acquire().is_err(), "all four are overdue");
    drop((calls, fourth));
}

// Open -----------------------------------------------------------------------

#[test]
fn an_open_circuit_keeps_what_is_left_of_its_wait() {
    let bench = Bench::new(|config| config);
    bench.circuit.trip();
    bench.clock.advance(4 * SECOND);
    bench.reconfigure(|config| config.open_for(Backoff::fixed(HOUR)));
    assert_eq!(bench.retry_after(), Some(6 * SECOND));
    bench.clock.advance(6 * SECOND - NANO);
    assert!(bench.circuit.try_acquire().is_err());
    bench.clock.advance(NANO);
    finish(bench.permit(), 'f');
    assert_eq!(bench.retry_after(), Some(HOUR), "the next wait is of the new ones");
}

#[test]
fn a_wait_is_cut_to_the_longest_of_the_new_ones() {
    let bench = Bench::new(|config| config.open_for(Backoff::fixed(HOUR)));
    bench.circuit.trip();
    bench.clock.advance(60 * SECOND);
    // With its jitter at the most.
    let waits = Backoff::exponential(SECOND, 4 * SECOND).jitter(0.5);
    bench.reconfigure(|config| config.open_for(waits));
    assert_eq!(bench.circuit.snapshot().retry_after, Some(6 * SECOND));
    assert_eq!(bench.retry_after(), Some(6 * SECOND));
    bench.clock.advance(6 * SECOND);
    let _probe = bench.permit();
    let lines = bench.log.lines();
    let last = lines.last().unwrap();
    assert_eq!(last, "shop: open -> half-open, because the wait of 66.0s was over");
}

#[test]
fn the_step_of_the_wait_stays() {
    let bench = Bench::new(|config| {
        config.open_for(Backoff::exponential(10 * SECOND, HOUR).jitter(0.0)).probes(Probes::new(1))
    });
    bench.circuit.trip();
    for _ in 0..3 {
        bench.clock.advance(bench.retry_after().unwrap());
        bench.run("f");
    }
    assert_eq!(bench.retry_after(), Some(80 * SECOND));
    bench.reconfigure(|config| {
        config.open_for(Backoff::exponential(SECOND, HOUR).jitter(0.0)).probes(Probes::new(1))
    });
    bench.clock.advance(80 * SECOND);
    bench.run("f");
    assert_eq!(bench.retry_after(), Some(16 * SECOND));
}

/// Ready always.
#[derive(Clone)]
struct Inner;

impl Service<()> for Inner {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

#[test]
fn whoever_waits_hears_of_a_shorter_wait() {
    let bench = Bench::new(|config| config.open_for(Backoff::fixed(HOUR)));
    bench.circuit.trip();
    let mut service = CircuitBreakerLayer::with_classifier(&bench.circuit, ResultClassifier::new())
        .when_open(WhenOpen::Wait)
        .layer(Inner);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    assert!(service.poll_ready(&mut cx).is_pending());
    bench.reconfigure(|config| config.open_for(Backoff::fixed(SECOND)));
    assert_eq!(woken.times(), 1);
    assert!(service.poll_ready(&mut cx).is_pending());
    bench.clock.advance(SECOND);
    assert_eq!(woken.times(), 2);
    assert!(service.poll_ready(&mut cx).is_ready());
    assert!(pin!(service.call(())).poll(&mut cx).is_ready());
}

#[derive(Default)]
struct Woken(Mutex<usize>);

impl Woken {
    fn times(&self) -> usize {
        *self.0.lock().unwrap()
    }
}

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
    }
}

// Half-open ------------------------------------------------------------------

#[test]
fn probes_that_are_out_count_and_no_more_pass_than_are_permitted() {
    let bench = Bench::new(|config| config);
    let [first, second] = bench.probes();
    bench.reconfigure(|config| config.probes(Probes::new(2)));
    assert!(bench.circuit.try_acquire().is_err(), "two are out");
    finish(first, 'i');
    let third = bench.permit();
    assert!(bench.circuit.try_acquire().is_err());
    finish(second, 's');
    finish(third, 's');
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_probe_given_back_is_none_where_more_are_out_than_permitted() {
    let bench = Bench::new(|config| config);
    let [first, second, third] = bench.probes();
    bench.reconfigure(|config| config.probes(Probes::new(1)));
    assert!(bench.circuit.try_acquire().is_err(), "three are out, and one permitted");
    finish(first, 'i');
    finish(second, 'd');
    assert!(bench.circuit.try_acquire().is_err(), "one is out, and one permitted");
    finish(third, 'i');
    let fourth = bench.permit();
    assert!(bench.circuit.try_acquire().is_err());
    finish(fourth, 's');
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn more_probes_let_more_pass() {
    let bench = Bench::new(|config| config);
    let probes: [Permit; 3] = bench.probes();
    assert!(bench.circuit.try_acquire().is_err());
    bench.reconfigure(|config| config.probes(Probes::new(5).successes(4)));
    let more: [Permit; 2] = bench.permits();
    assert!(bench.circuit.try_acquire().is_err());
    probes.into_iter().chain(more).zip("fssss".chars()).for_each(|(probe, end)| finish(probe, end));
    assert_eq!(bench.state(), State::Closed);
}

/// With no probe left to end, nobody would ever ask again.
#[test]
fn probes_that_have_decided_by_the_new_rules_decide_at_once() {
    let bench = Bench::new(|config| config);
    let probes: [Permit; 2] = bench.probes();
    probes.into_iter().for_each(|probe| finish(probe, 's'));
    assert_eq!(bench.state(), State::HalfOpen);
    bench.reconfigure(|config| config.probes(Probes::new(1)));
    assert_eq!(bench.state(), State::Closed);
    let lines = bench.log.lines();
    let last_two: Vec<_> = lines[lines.len() - 2..].iter().map(String::as_str).collect();
    assert_eq!(
        last_two,
        [
            "shop: reconfigured, probes: 3 of 3 must succeed, lease 10s -> 1 of 1 must succeed",
            "shop: half-open -> closed, because 2 probes succeeded"
        ]
    );

    let bench = Bench::new(|config| config.probes(Probes::new(3).successes(1)));
    let probes: [Permit; 2] = bench.probes();
    probes.into_iter().for_each(|probe| finish(probe, 'f'));
    bench.reconfigure(|config| config.probes(Probes::new(3)));
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn another_share_of_probes_is_that_of_the_calls_that_ask_from_then_on() {
    let share = |share| {
        move |config: ConfigBuilder| config.probes(Probes::new(100).share(share).lease(HOUR))
    };
    let bench = Bench::new(share(0.1));
    let probe: [Permit; 1] = bench.probes();
    let of_a_hundred =
        || (0..100).filter_map(|_| bench.circuit.try_acquire().ok()).collect::<Vec<_>>();
    let tenth = of_a_hundred();
    bench.reconfigure(share(0.5));
    let half = of_a_hundred();
    assert_eq!((tenth.len(), half.len()), (10, 50));
    drop(probe);
}

#[test]
fn no_probe_may_take_longer_than_a_new_one() {
    let lease = |lease| move |config: ConfigBuilder| config.probes(Probes::new(3).lease(lease));
    let bench = Bench::new(lease(HOUR));
    let [_hanging] = bench.probes();
    bench.clock.advance(SECOND);
    bench.reconfigure(lease(3 * SECOND));
    bench.clock.advance(SECOND);
    let [_later] = bench.permits();
    bench.clock.advance(2 * SECOND - NANO);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.clock.advance(NANO);
    assert_eq!(bench.state(), State::Open, "three seconds after the change");

    // One that has less than that keeps it.
    let bench = Bench::new(lease(3 * SECOND));
    let [_hanging] = bench.probes();
    bench.reconfigure(lease(HOUR));
    bench.clock.advance(3 * SECOND);
    assert_eq!(bench.state(), State::Open);
}

// The ramp and the throttle --------------------------------------------------

fn ramp(seconds: u32) -> impl Fn(ConfigBuilder) -> ConfigBuilder {
    move |config| config.ramp(seconds * SECOND).probes(Probes::new(1))
}

fn share(bench: &Bench) -> f64 {
    bench.circuit.snapshot().admitted_share.unwrap()
}

#[test]
fn a_ramp_goes_on_from_the_share_it_has_reached() {
    let bench = Bench::new(ramp(100));
    let [probe] = bench.probes();
    finish(probe, 's');
    bench.clock.advance(40 * SECOND);
    assert_eq!(share(&bench), 0.4);
    bench.reconfigure(ramp(10));
    assert_eq!(share(&bench), 0.4);
    bench.clock.advance(SECOND);
    assert_eq!(share(&bench), 0.5);
    bench.reconfigure(ramp(1_000));
    assert_eq!(share(&bench), 0.5);
    bench.clock.advance(100 * SECOND);
    assert_eq!(share(&bench), 0.6);
    bench.clock.advance(400 * SECOND);
    assert_eq!(bench.state(), State::Closed);
    bench.run("s");
    let lines = bench.log.lines();
    let last = lines.last().unwrap();
    assert!(last.contains("no rule tripped on the ramp of 541.0s"), "{last}");
}

#[test]
fn what_a_call_has_earned_on_the_ramp_it_keeps() {
    let bench = Bench::new(ramp(100));
    let [probe] = bench.probes();
    finish(probe, 's');
    bench.clock.advance(50 * SECOND);
    // Every second call passes: the first has earned half of what it costs.
    assert!(bench.circuit.try_acquire().is_err());
    bench.reconfigure(ramp(2));
    assert!(bench.circuit.try_acquire().is_ok());
    assert!(bench.circuit.try_acquire().is_err());
}

#[test]
fn without_a_ramp_the_circuit_is_closed() {
    let bench = Bench::new(ramp(100));
    let [probe] = bench.probes();
    finish(probe, 's');
    let call = {
        bench.clock.advance(99 * SECOND);
        let _ = bench.circuit.try_acquire();
        bench.permit()
    };
    bench.reconfigure(|config| config);
    assert_eq!(bench.state(), State::Closed);
    finish(call, 'f');
    assert_eq!(bench.circuit.snapshot().totals.stale, 1);
}

#[test]
fn a_throttle_comes_changes_and_goes() {
    let shares = Shares::default();
    let bench = Bench::new(|config| config.observer(shares.clone()));
    let throttle =
        |k| move |config: ConfigBuilder| config.throttle(Throttle::new(k).window(60 * SECOND));
    bench.run("ffffffffff");
    bench.reconfigure(throttle(2.0));
    assert_eq!(bench.circuit.snapshot().admitted_share, None, "it has seen no call");
    bench.run("sssssfffff");
    bench.run("f");
    // (2 * 5 + 1) / 12
    assert_eq!(share(&bench), 0.916_666);
    bench.reconfigure(throttle(1.0));
    assert_eq!(share(&bench), 0.5);
    bench.reconfigure(|config| {
        config.throttle(Throttle::new(1.0).window(30 * SECOND).minimum_calls(20))
    });
    assert_eq!(bench.circuit.snapshot().admitted_share, None, "11 calls are too few");
    bench.reconfigure(throttle(1.0));
    assert_eq!(share(&bench), 0.5, "it knows them still");
    bench.reconfigure(|config| config);
    (0..20).for_each(|_| drop(bench.permit()));
    assert_eq!(shares.told(), [0.91, 0.5, 1.0, 0.5, 1.0]);
}

#[test]
fn a_throttle_over_another_time_forgets_by_that() {
    let over = |seconds: u32| {
        move |config: ConfigBuilder| {
            config.throttle(Throttle::new(1.0).window(seconds * SECOND).minimum_calls(3))
        }
    };
    let bench = Bench::new(over(60));
    bench.run("fff");
    bench.reconfigure(over(20));
    assert_eq!(share(&bench), 0.25, "it knows them still");
    bench.clock.advance(20 * SECOND);
    assert_eq!(bench.circuit.snapshot().admitted_share, None);
}

// All of it ------------------------------------------------------------------

#[test]
fn calls_in_flight_count_on() {
    let bench = Bench::new(|config| config.failure_rate(1.0).minimum_calls(2));
    let [one, other] = bench.permits();
    bench.reconfigure(|config| config.failure_rate(1.0).minimum_calls(2).measure_latency());
    finish(one, 'f');
    finish(other, 'f');
    assert_eq!(bench.circuit.snapshot().totals.stale, 0);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_forced_state_stays() {
    let bench = Bench::new(|config| config);
    bench.circuit.set_override(Override::force_open().reason("drill").expires_in(HOUR));
    bench.clock.advance(SECOND);
    bench.reconfigure(|config| config.failure_rate(0.5));
    let over = bench.circuit.snapshot().active_override.unwrap();
    assert_eq!(over.reason.as_deref(), Some("drill"));
    assert_eq!(over.expires_in, Some(HOUR - SECOND));
    assert!(bench.circuit.try_acquire().is_err());
}

#[test]
fn observers_are_told_what_has_changed_once_and_in_order() {
    let bench = Bench::new(|config| config);
    bench.circuit.trip();
    bench.reconfigure(|config| {
        config
            .window(Window::time(90 * SECOND).buckets(3))
            .minimum_calls(7)
            .failure_rate(0.25)
            .sustained_for(2 * SECOND)
            .slow_calls(SECOND, 0.5)
            .throttle(Throttle::new(2.0))
            .warm_up(SECOND)
            .open_for(Backoff::exponential(SECOND, 8 * SECOND))
            .probes(Probes::new(4).successes(2))
            .ramp(30 * SECOND)
            .cancellation(tower_breaker::Cancellation::Neutral)
            .measure_latency()
            .consecutive_failures(5)
    });
    bench.circuit.set_override(Override::force_closed());
    bench.reconfigure(|config| config.minimum_calls(7));
    bench.reconfigure(|config| config.minimum_calls(7));
    bench.circuit.clear_override();
    let lines = bench.log.lines();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert_eq!(
        lines[1],
        "shop: reconfigured, window: the last 20 calls -> the last 90s in 3 buckets; \
         minimum_calls: 1 -> 7; failure_rate: off -> 25 %; sustained_for: 0ns -> 2s; \
         consecutive_failures: 4294967295 -> 5; slow_calls: off -> 50 % slower than 1s; \
         throttle: off -> 2 times what succeeds over 30s, from 10 calls on; \
         warm_up: 0ns -> 1s; open_for: 10s, jitter 0 -> 1s growing by 2 to 8s, jitter 0.2; \
         probes: 3 of 3 must succeed, lease 10s -> 2 of 4 must succeed; ramp: off -> 30s; \
         cancellation: by age -> neutral; measure_latency: off -> on"
    );
    assert_eq!(lines[2], "shop: force-closed");
    assert!(lines[3].starts_with("shop: reconfigured, window:"), "{}", lines[3]);
    assert_eq!(lines[4], "shop: reconfigured, nothing changed");
    assert_eq!(lines[5], "shop: lifted");
}

#[test]
fn what_differs_by_the_last_digit_is_told() {
    let slow = |rate| move |config: ConfigBuilder| config.slow_calls(SECOND, rate);
    let rate = |rate| move |config: ConfigBuilder| config.failure_rate(rate);
    let wait = |max| {
        move |config: ConfigBuilder| {
            config.open_for(Backoff::exponential(SECOND, max * SECOND).factor(1.0))
        }
    };
    let share = |share| move |config: ConfigBuilder| config.probes(Probes::new(9).share(share));
    type Change = Box<dyn Fn(ConfigBuilder) -> ConfigBuilder>;
    let pairs: [(Change, Change, &str); 4] = [
        (Box::new(rate(0.001)), Box::new(rate(0.0014)), "failure_rate: 0.1 % -> 0.14 %"),
        (
            Box::new(slow(0.5)),
            Box::new(slow(0.500_001)),
            "slow_calls: 50 % slower than 1s -> 50.0001 % slower than 1s",
        ),
        (
            Box::new(wait(8)),
            Box::new(wait(60)),
            "open_for: 1s to 8s, jitter 0.2 -> 1s to 60s, jitter 0.2",
        ),
        (
            Box::new(share(0.29)),
            Box::new(share(0.290_001)),
            "probes: 9 of 9 must succeed, 29 % of the calls -> \
             9 of 9 must succeed, 29.0001 % of the calls",
        ),
    ];
    for (before, after, told) in pairs {
        let bench = Bench::new(before);
        bench.reconfigure(after);
        assert_eq!(bench.log.lines(), [format!("shop: reconfigured, {told}")]);
    }
}

/// An observer that hears late must not see the rates of other rules.
#[test]
fn a_transition_shows_the_rates_of_the_rules_it_was_made_by() {
    #[derive(Clone, Default)]
    struct Late {
        circuit: Arc<Mutex<Option<Circuit>>>,
        rates: Arc<Mutex<Vec<Option<f64>>>>,
    }
    impl Observer for Late {
        fn on_override(&self, _: &str, _: Option<&Override>) {
            let circuit = self.circuit.lock().unwrap().take().unwrap();
            // Told of once this has returned.
            circuit.trip();
            let other = Config::builder("shop").minimum_calls(20).build().unwrap();
            circuit.reconfigure(other).unwrap();
        }

        fn on_transition(&self, transition: &Transition) {
            self.rates.lock().unwrap().push(transition.window.failure_rate);
        }
    }
    let late = Late::default();
    let bench = Bench::new(|config| config.observer(late.clone()));
    bench.run("sf");
    *late.circuit.lock().unwrap() = Some(bench.circuit.clone());
    bench.circuit.set_override(Override::observe_only());
    assert_eq!(*late.rates.lock().unwrap(), [Some(0.5)]);
}

#[test]
fn latency_is_measured_from_then_on() {
    #[derive(Clone, Default)]
    struct Calls(Arc<Mutex<Vec<Option<Duration>>>>);
    impl Observer for Calls {
        fn on_call(&self, call: &Call<'_>) {
            self.0.lock().unwrap().push(call.latency);
        }
    }
    let calls = Calls::default();
    let bench = Bench::new(|config| config.observer(calls.clone()));
    bench.run("s");
    bench.reconfigure(ConfigBuilder::measure_latency);
    bench.run("s");
    bench.reconfigure(|config| config);
    bench.run("s");
    assert_eq!(*calls.0.lock().unwrap(), [None, Some(Duration::ZERO), None]);
}

#[test]
fn a_configuration_of_another_name_is_refused() {
    let bench = Bench::new(|config| config);
    let before = format!("{:?} {:?}", bench.circuit.snapshot(), bench.circuit.config());
    let error = bench.circuit.reconfigure(Config::builder("other").build().unwrap()).unwrap_err();
    assert_eq!(error.field(), "name");
    assert_eq!(error.to_string(), "name is other, but must be shop, the circuit's own");
    let after = format!("{:?} {:?}", bench.circuit.snapshot(), bench.circuit.config());
    assert_eq!(before, after);
    assert!(bench.log.lines().is_empty());
}

#[test]
fn how_it_starts_is_not_to_do_with_a_circuit_that_lives() {
    let bench = Bench::new(|config| config.start(Start::Open));
    bench.reconfigure(|config| config.failure_rate(0.5));
    assert_eq!(bench.state(), State::Open);
    assert_eq!(Circuit::new(bench.circuit.config()).state(), State::Open);
}

#[test]
fn a_circuit_tells_what_it_goes_by() {
    let bench = Bench::new(|config| config);
    let other = config(&bench.clock).failure_rate(0.3).measure_latency().build().unwrap();
    bench.circuit.reconfigure(other.clone()).unwrap();
    assert_eq!(format!("{:?}", bench.circuit.config()), format!("{other:?}"));
}
