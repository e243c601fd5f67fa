//! Model checks of every atomic protocol: all interleavings up to three
//! preemptions. Run with
//! `RUSTFLAGS="--cfg tower_breaker_loom" cargo test --release --all-features --test loom`. What each is there to
//! find is planted by `.ci/controls`.
#![cfg(tower_breaker_loom)]

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use loom::thread;
use tower::{BoxError, Layer, Service, service_fn};
use tower_breaker::{
    Backoff, Cause, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ConfigBuilder, ManualClock,
    Observer, Outcome, Override, Permit, Probes, ResultClassifier, State, Transition, WhenOpen,
    Window,
};

const SECOND: Duration = Duration::from_secs(1);

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn touchy(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("loom")
        .consecutive_failures(1)
        .open_for(Backoff::fixed(SECOND))
        .probes(Probes::new(1))
        .clock(clock)
}

/// A circuit whose wait is just over.
fn due(clock: &ManualClock, probes: Probes) -> Circuit {
    let circuit = Circuit::new(touchy(clock).probes(probes).build().unwrap());
    circuit.trip();
    clock.advance(SECOND);
    circuit
}

/// Starts a thread; what it returns is awaited.
fn start<T: 'static>(circuit: &Circuit, run: impl FnOnce(Circuit) -> T + 'static) -> Running<T> {
    let circuit = circuit.clone();
    thread::spawn(move || run(circuit))
}

type Running<T> = thread::JoinHandle<T>;

#[test]
fn racing_admissions_never_take_more_probes_than_there_are() {
    for permits in [1, 2] {
        check(move || {
            let clock = ManualClock::new();
            let circuit = due(&clock, Probes::new(permits));
            let take = |circuit: Circuit| circuit.try_acquire().ok();
            let (a, b) = (start(&circuit, take), start(&circuit, take));
            let taken = [take(circuit.clone()), a.join().unwrap(), b.join().unwrap()];
            assert_eq!(taken.iter().flatten().count(), permits as usize);
            assert_eq!(circuit.state(), State::HalfOpen);
        });
    }
}

#[test]
fn a_refusal_tells_the_wait_of_its_own_opening() {
    check(|| {
        let clock = ManualClock::new();
        let open_for = Backoff::exponential(SECOND, 10 * SECOND).factor(10.0).jitter(0.0);
        let circuit = Circuit::new(touchy(&clock).open_for(open_for).build().unwrap());
        circuit.trip();
        clock.advance(SECOND);
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(10 * SECOND));

        circuit.reset();
        let a = start(&circuit, |circuit| circuit.trip());
        if let Err(open) = circuit.try_acquire() {
            assert_eq!(open.retry_after(), Some(SECOND), "an earlier opening's wait");
        }
        a.join().unwrap();
    });
}

/// Of one probe and a lease of five seconds, after a wait of one.
const LEASE: Duration = Duration::from_secs(5);

/// What a caller may be told where an opening of one second and an episode with
/// one probe out meet, and nothing else.
fn is_of_one_state(open: &CircuitOpen) -> bool {
    matches!(
        (open.state(), open.retry_after()),
        (State::Open, Some(SECOND)) | (State::HalfOpen, Some(LEASE))
    )
}

#[test]
fn a_refusal_without_a_probe_left_tells_the_lease_of_its_own_episode() {
    // Into the episode, and out of it.
    check(|| {
        let clock = ManualClock::new();
        let config = touchy(&clock).probes(Probes::new(1).lease(LEASE)).build().unwrap();
        let circuit = Circuit::new(config);
        circuit.trip();
        let a = start(&circuit, |circuit| {
            circuit.end_wait().unwrap();
            circuit.try_acquire().map(|probe| probe.record(Outcome::Failure)).is_ok()
        });
        let ours = circuit.try_acquire();
        if let Err(open) = &ours {
            assert!(is_of_one_state(open), "{open:?}");
        }
        let refused = u64::from(ours.is_err()) + u64::from(!a.join().unwrap());
        drop(ours);
        assert_eq!(circuit.snapshot().totals.rejected, refused);
    });
}

#[test]
fn a_refusal_without_a_probe_left_knows_no_lease_of_before() {
    check(|| {
        let clock = ManualClock::new();
        let longer = Probes::new(1).lease(10 * LEASE);
        let circuit = due(&clock, longer);
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        clock.advance(SECOND);
        let shorter = touchy(&clock).probes(Probes::new(1).lease(LEASE)).build().unwrap();
        circuit.reconfigure(shorter).unwrap();
        let a = start(&circuit, |circuit| circuit.try_acquire());
        let b = circuit.try_acquire();
        let taken = [a.join().unwrap(), b];
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1);
        for open in taken.iter().filter_map(|taken| taken.as_ref().err()) {
            assert!(is_of_one_state(open), "{open:?}");
        }
    });
}

#[test]
fn a_probe_that_ends_beside_a_refusal_lets_the_next_one_in() {
    type End = fn(Permit, &Circuit, &ManualClock);
    let ends: [End; 4] = [
        |probe, _, _| probe.cancel(),
        |probe, _, _| probe.record(Outcome::Success),
        |_probe, circuit, _| circuit.set_override(Override::force_closed()),
        |probe, circuit, clock| {
            let two = touchy(clock).probes(Probes::new(2)).build().unwrap();
            circuit.reconfigure(two).unwrap();
            std::mem::forget(probe);
        },
    ];
    for end in ends {
        check(move || {
            let clock = ManualClock::new();
            let circuit = due(&clock, Probes::new(1).lease(LEASE));
            let probe = circuit.try_acquire().unwrap();
            let a = start(&circuit, move |circuit| end(probe, &circuit, &clock));
            let first = circuit.try_acquire();
            if let Err(open) = &first {
                assert!(is_of_one_state(open), "{open:?}");
            }
            a.join().unwrap();
            let refused = u64::from(first.is_err());
            drop(first);
            assert!(circuit.try_acquire().is_ok(), "refused though a probe is left");
            assert_eq!(circuit.snapshot().totals.rejected, refused);
        });
    }
}

#[test]
fn a_lease_that_ends_beside_a_refusal_opens() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = due(&clock, Probes::new(1).lease(LEASE));
        let _probe = circuit.try_acquire().unwrap();
        let ticking = clock.clone();
        let a = thread::spawn(move || ticking.advance(LEASE));
        let open = circuit.try_acquire().unwrap_err();
        assert!(is_of_one_state(&open), "{open:?}");
        a.join().unwrap();
        let open = circuit.try_acquire().unwrap_err();
        assert_eq!((open.state(), open.retry_after()), (State::Open, Some(SECOND)));
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.rejected, totals.failure, totals.opened), (2, 1, 2));
    });
}

#[test]
fn nobody_gets_in_before_the_wait_is_over() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        circuit.trip();
        let ask = |circuit: Circuit| circuit.try_acquire().is_err();
        let a = start(&circuit, ask);
        assert!(ask(circuit.clone()));
        assert!(a.join().unwrap());
        assert_eq!(circuit.snapshot().totals.rejected, 2);
    });
}

#[test]
fn a_trip_makes_late_results_stale_or_comes_after_them() {
    check(|| {
        let clock = ManualClock::new();
        let config = touchy(&clock).consecutive_failures(2).build().unwrap();
        let circuit = Circuit::new(config);
        let late = circuit.try_acquire().unwrap();
        let a = thread::spawn(move || late.record(Outcome::Failure));
        let b = start(&circuit, |circuit| circuit.trip());
        a.join().unwrap();
        b.join().unwrap();
        let snapshot = circuit.snapshot();
        assert_eq!(snapshot.state, State::Open);
        assert_eq!(snapshot.generation, 1);
        assert_eq!(snapshot.totals.failure + snapshot.totals.stale, 1);
        assert_eq!(snapshot.totals.opened, 1);
    });
}

#[test]
fn a_late_result_never_decides_a_later_episode() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        let late = circuit.try_acquire().unwrap();
        circuit.trip();
        clock.advance(SECOND);
        let a = thread::spawn(move || late.record(Outcome::Success));
        let probe = circuit.try_acquire().unwrap();
        a.join().unwrap();
        assert_eq!(circuit.state(), State::HalfOpen);
        probe.record(Outcome::Failure);
        assert_eq!(circuit.state(), State::Open);
    });
}

#[test]
fn a_failure_beside_a_success_on_a_clean_window_is_never_lost() {
    // The success may skip the lock because the window is clean, while the
    // failure makes it dirty. One order of the two explains the window.
    check(|| {
        let clock = ManualClock::new();
        let config = Config::builder("loom")
            .window(Window::count(2))
            .minimum_calls(2)
            .failure_rate(1.0)
            .sustained_for(Duration::ZERO)
            .clock(&clock);
        let circuit = Circuit::new(config.build().unwrap());
        for _ in 0..2 {
            circuit.try_acquire().unwrap().record(Outcome::Success);
        }
        let (good, bad) = (circuit.try_acquire().unwrap(), circuit.try_acquire().unwrap());
        let a = thread::spawn(move || good.record(Outcome::Success));
        bad.record(Outcome::Failure);
        a.join().unwrap();
        let snapshot = circuit.snapshot();
        assert_eq!((snapshot.window.calls, snapshot.window.failures), (2, 1));
        assert_eq!(snapshot.totals.success, 3);
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        let in_a_row = circuit.state() == State::Open;
        // If the success came last it pushed nothing out of the way.
        circuit.try_acquire().map(|permit| permit.record(Outcome::Failure)).ok();
        assert!(in_a_row || circuit.state() == State::Open);
    });
}

#[test]
fn the_record_that_reaches_the_threshold_returns_to_an_open_circuit() {
    check(|| {
        let clock = ManualClock::new();
        let config = touchy(&clock).consecutive_failures(2).build().unwrap();
        let circuit = Circuit::new(config);
        let fail = |circuit: Circuit| {
            circuit.try_acquire().map(|permit| permit.record(Outcome::Failure)).is_ok()
        };
        let a = start(&circuit, fail);
        let b = fail(circuit.clone());
        assert!(a.join().unwrap() && b);
        assert_eq!(circuit.state(), State::Open);
        assert!(circuit.try_acquire().is_err());
    });
}

#[test]
fn an_override_beside_a_transition_loses_neither() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        let permit = circuit.try_acquire().unwrap();
        let a = thread::spawn(move || permit.record(Outcome::Failure));
        circuit.set_override(Override::force_open().until_cleared());
        a.join().unwrap();
        let snapshot = circuit.snapshot();
        assert_eq!(snapshot.state, State::Open);
        assert!(snapshot.active_override.is_some());
        assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), None);
        circuit.clear_override();
        assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(SECOND));
    });
}

#[test]
fn clearing_an_override_beside_an_admission_leaves_the_gate_right() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        circuit.set_override(Override::force_open());
        let a = start(&circuit, |circuit| circuit.clear_override());
        let _either = circuit.try_acquire();
        a.join().unwrap();
        assert!(circuit.try_acquire().is_ok());
    });
}

#[test]
fn whoever_waits_is_woken_by_the_change_it_raced_with() {
    type Change = fn(&Circuit, &ManualClock);
    let changes: [Change; 4] = [
        |circuit, _| circuit.reset(),
        |circuit, _| circuit.set_override(Override::force_closed()),
        |_, clock| clock.advance(SECOND),
        |circuit, _| {
            circuit.reset();
            circuit.trip();
            circuit.reset();
        },
    ];
    for change in changes {
        check(move || {
            let clock = ManualClock::new();
            let circuit = Circuit::new(touchy(&clock).build().unwrap());
            circuit.trip();
            assert_never_stuck(&circuit, move |circuit| change(&circuit, &clock));
        });
    }
}

#[test]
fn whoever_waits_for_a_probe_is_woken_when_one_is_given_back() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = due(&clock, Probes::new(1));
        let probe = circuit.try_acquire().unwrap();
        assert_never_stuck(&circuit, move |_| drop(probe));
    });
}

/// A waiting service, polled while `change` happens, is ready or was woken.
fn assert_never_stuck(circuit: &Circuit, change: impl FnOnce(Circuit) + 'static) {
    let layer = CircuitBreakerLayer::with_classifier(circuit, ResultClassifier::new());
    let mut service = layer
        .when_open(WhenOpen::Wait)
        .layer(service_fn(|()| std::future::ready(Ok::<_, BoxError>(()))));
    let changing = start(circuit, change);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let first = service.poll_ready(&mut Context::from_waker(&waker));
    changing.join().unwrap();
    if first.is_pending() {
        assert!(woken.0.load(Relaxed) > 0, "pending, and nobody will come");
        assert!(matches!(
            service.poll_ready(&mut Context::from_waker(&waker)),
            Poll::Ready(Ok(()))
        ));
    }
}

#[test]
fn whoever_is_stuck_in_the_inner_service_is_woken_by_an_opening() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
        let mut service = layer.layer(Stuck);
        let a = start(&circuit, |circuit| circuit.trip());
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let first = service.poll_ready(&mut Context::from_waker(&waker));
        a.join().unwrap();
        assert!(first.is_ready() || woken.0.load(Relaxed) > 0, "stuck, and nobody will come");
        assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_ready());
    });
}

struct Stuck;

impl Service<()> for Stuck {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn transitions_are_told_in_order_and_each_once() {
    #[derive(Default, Clone)]
    struct Log(Arc<loom::sync::Mutex<Vec<(State, State)>>>);

    impl Observer for Log {
        fn on_transition(&self, transition: &Transition) {
            self.0.lock().unwrap().push((transition.from, transition.to));
        }
    }

    check(|| {
        let clock = ManualClock::new();
        let log = Log::default();
        let circuit = Circuit::new(touchy(&clock).observer(log.clone()).build().unwrap());
        let flip = |circuit: Circuit| {
            circuit.trip();
            circuit.reset();
        };
        let a = start(&circuit, flip);
        flip(circuit.clone());
        a.join().unwrap();
        let told = log.0.lock().unwrap();
        assert_eq!(told.len() as u64, 2 * circuit.snapshot().totals.opened);
        assert!(told.iter().all(|(from, to)| from != to));
        assert!(told.windows(2).all(|pair| pair[0].1 == pair[1].0), "{told:?}");
        assert_eq!(told.last().unwrap().1, circuit.state());
    });
}

/// A circuit with a slow rule: one call that takes too long opens it.
fn impatient(clock: &ManualClock) -> Circuit {
    let config = Config::builder("loom")
        .no_failure_rate()
        .window(Window::count(2))
        .minimum_calls(1)
        .slow_calls(SECOND, 1.0)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(SECOND))
        .clock(clock);
    Circuit::new(config.build().unwrap())
}

#[test]
fn an_overdue_trip_beside_an_end_and_an_admission_has_one_order() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = impatient(&clock);
        let hung = circuit.try_acquire().unwrap();
        clock.advance(2 * SECOND);
        // If it ends first it is slow, and opens; if not, whoever asks opens.
        let a = thread::spawn(move || hung.record(Outcome::Success));
        let b = start(&circuit, |circuit| circuit.try_acquire().is_ok());
        assert!(circuit.try_acquire().is_err(), "admitted beside one that is overdue");
        assert!(!b.join().unwrap(), "admitted beside one that is overdue");
        a.join().unwrap();
        let seen = circuit.snapshot();
        assert_eq!((seen.state, seen.generation, seen.totals.opened), (State::Open, 1, 1));
        assert_eq!(seen.totals.rejected, 2);
        let Some(Cause::SlowCallRate { unfinished, .. }) = seen.cause else {
            panic!("opened by {:?}", seen.cause)
        };
        // Whoever opens while it lasts makes its end stale.
        assert_eq!((seen.totals.success, seen.totals.stale), (1 - unfinished, unfinished));
        assert_eq!(seen.totals.slow, seen.totals.success);
    });
}

#[test]
fn ends_beside_an_overdue_trip_take_nobody_else_s_place() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = impatient(&clock);
        let hung = [(); 2].map(|()| circuit.try_acquire().unwrap());
        clock.advance(2 * SECOND);
        let [a, b] = hung.map(|permit| thread::spawn(move || permit.record(Outcome::Failure)));
        circuit.try_acquire().unwrap_err();
        circuit.reset();
        // Their places are others' from now on.
        let [first, second] = [(); 2].map(|()| circuit.try_acquire().unwrap());
        drop(first);
        let held = circuit.try_acquire().unwrap();
        a.join().unwrap();
        b.join().unwrap();
        let totals = circuit.snapshot().totals;
        assert!(totals.stale >= 1 && totals.stale + totals.failure == 2, "{totals:?}");
        clock.advance(2 * SECOND);
        assert_eq!(circuit.snapshot().window.overdue, 2);
        second.record(Outcome::Ignored);
        held.record(Outcome::Ignored);
        let seen = circuit.snapshot();
        assert_eq!((seen.state, seen.window.overdue), (State::Closed, 0));
    });
}

#[test]
fn calls_that_come_and_go_leave_nobody_overdue() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = impatient(&clock);
        let come_and_go = |circuit: Circuit| {
            let first = circuit.try_acquire().unwrap();
            let second = circuit.try_acquire().unwrap();
            drop(first);
            second.record(Outcome::Success);
        };
        let a = start(&circuit, come_and_go);
        come_and_go(circuit.clone());
        let seen = circuit.snapshot();
        assert_eq!(seen.window.overdue, 0);
        a.join().unwrap();
        clock.advance(2 * SECOND);
        assert_eq!(circuit.snapshot().window.overdue, 0);
        drop(circuit.try_acquire().unwrap());
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.success, totals.cancelled, totals.stale), (2, 3, 0));
    });
}

/// The same, but it takes two calls.
fn less_impatient(clock: &ManualClock) -> Circuit {
    let config = Config::builder("loom")
        .no_failure_rate()
        .window(Window::count(4))
        .minimum_calls(2)
        .slow_calls(SECOND, 1.0)
        .sustained_for(Duration::ZERO)
        .clock(clock);
    Circuit::new(config.build().unwrap())
}

#[test]
fn an_end_beside_an_admission_that_looks_for_overdue_calls_is_missed_by_nobody() {
    // Overdue or ended, both are slow to whoever asks, and they came by two lanes.
    check(|| {
        let clock = ManualClock::new();
        let circuit = less_impatient(&clock);
        let take = |circuit: Circuit| circuit.try_acquire().unwrap();
        let theirs = start(&circuit, take).join().unwrap();
        let ours = take(circuit.clone());
        clock.advance(2 * SECOND);
        let a = thread::spawn(move || theirs.record(Outcome::Success));
        assert!(circuit.try_acquire().is_err(), "admitted beside two that are slow");
        a.join().unwrap();
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.success + totals.stale, totals.opened), (1, 1));
        drop(ours);
    });
}

#[test]
fn an_end_beside_an_admission_that_looks_for_overdue_calls_leaves_nobody_behind() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = less_impatient(&clock);
        let call = start(&circuit, |circuit| circuit.try_acquire().unwrap()).join().unwrap();
        // It may end in time, be overdue when it ends, or neither: it looks at
        // its clock before.
        let a = thread::spawn(move || call.record(Outcome::Success));
        clock.advance(2 * SECOND);
        circuit.try_acquire().unwrap().record(Outcome::Ignored);
        a.join().unwrap();
        let seen = circuit.snapshot();
        assert_eq!((seen.window.calls, seen.totals.success), (1, 1));
        assert_eq!(seen.window.overdue, 0);
        circuit.try_acquire().unwrap().record(Outcome::Ignored);
        assert_eq!(circuit.snapshot().window.overdue, 0);
    });
}

#[test]
fn calls_that_begin_beside_a_new_generation_are_watched_in_their_own() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = impatient(&clock);
        // The next thread shares a lane with this one.
        thread::spawn(|| {}).join().unwrap();
        let late = circuit.try_acquire().unwrap();
        let a = start(&circuit, |circuit| circuit.try_acquire().ok());
        circuit.trip();
        circuit.reset();
        let new = circuit.try_acquire().unwrap();
        let either = a.join().unwrap();
        clock.advance(2 * SECOND);
        let overdue = circuit.snapshot().window.overdue;
        [Some(late), either, Some(new)]
            .into_iter()
            .flatten()
            .for_each(|call| call.record(Outcome::Ignored));
        let seen = circuit.snapshot();
        assert_eq!(overdue, seen.totals.ignored, "the others are stale");
        assert_eq!(seen.window.overdue, 0);
    });
}

#[test]
fn calls_that_begin_or_end_beside_other_rules_are_watched_by_them_once() {
    for threshold in [SECOND / 2, 2 * SECOND] {
        check(move || {
            let clock = ManualClock::new();
            let circuit = impatient(&clock);
            let old = circuit.try_acquire().unwrap();
            let a = start(&circuit, |circuit| circuit.try_acquire().unwrap());
            let b = thread::spawn(move || old.record(Outcome::Success));
            let config = Config::builder("loom")
                .no_failure_rate()
                .window(Window::count(2))
                .minimum_calls(1)
                .slow_calls(threshold, 0.5)
                .sustained_for(Duration::ZERO)
                .clock(&clock);
            circuit.reconfigure(config.build().unwrap()).unwrap();
            let new = a.join().unwrap();
            b.join().unwrap();
            clock.advance(threshold);
            assert_eq!(circuit.snapshot().window.overdue, 0);
            circuit.try_acquire().unwrap().record(Outcome::Ignored);
            clock.advance(Duration::from_nanos(1));
            assert_eq!(circuit.snapshot().window.overdue, 1);
            // Half of what was seen is slow.
            circuit.try_acquire().unwrap_err();
            new.record(Outcome::Ignored);
            let seen = circuit.snapshot();
            assert_eq!((seen.state, seen.window.overdue), (State::Open, 0));
            assert_eq!((seen.totals.success, seen.totals.stale), (1, 1));
        });
    }
}

#[test]
fn the_end_of_a_ramp_beside_an_admission_and_a_failure_is_one_move() {
    #[derive(Default, Clone)]
    struct Log(Arc<loom::sync::Mutex<Vec<(State, &'static str, Instant)>>>);

    impl Observer for Log {
        fn on_transition(&self, transition: &Transition) {
            let told = (transition.to, transition.cause.label(), transition.at);
            self.0.lock().unwrap().push(told);
        }
    }

    check(|| {
        let (clock, log) = (ManualClock::new(), Log::default());
        let open_for = Backoff::exponential(SECOND, 10 * SECOND).factor(10.0).jitter(0.0);
        let config = touchy(&clock).open_for(open_for).ramp(2 * SECOND).observer(log.clone());
        let circuit = Circuit::new(config.build().unwrap());
        circuit.trip();
        clock.advance(SECOND);
        circuit.try_acquire().unwrap().record(Outcome::Success);
        clock.advance(SECOND);
        // Half of the calls pass: the second.
        circuit.try_acquire().unwrap_err();
        let bad = circuit.try_acquire().unwrap();
        let before = clock.now();
        let ticking = clock.clone();
        let a = thread::spawn(move || ticking.advance(SECOND));
        let b = thread::spawn(move || bad.record(Outcome::Failure));
        let passed = circuit.try_acquire().is_ok();
        a.join().unwrap();
        b.join().unwrap();
        let seen = circuit.snapshot();
        let failed = (State::Open, "consecutive-failures", before);
        let completed = (State::Closed, "ramp-completed", before + SECOND);
        let told = log.0.lock().unwrap();
        if seen.totals.failure == 1 {
            // On the ramp: that opens, for longer than what is left of the ramp.
            assert_eq!((told[2..].to_vec(), seen.state), (vec![failed], State::Open));
            assert_eq!(seen.totals.stale, 0);
        } else {
            // After its end: a result from the ramp.
            assert_eq!((told[2..].to_vec(), seen.state), (vec![completed], State::Closed));
            assert_eq!(seen.totals.stale, 1);
            assert!(passed || seen.totals.rejected == 2);
        }
        assert_eq!(seen.generation, 3);
        assert_eq!(seen.totals.rejected, 1 + u64::from(!passed));
    });
}

/// A window of time, so that good calls are tallied once one was recorded.
fn tallied(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("loom").window(Window::time(SECOND)).sustained_for(Duration::ZERO).clock(clock)
}

#[test]
fn a_tallied_success_is_counted_before_the_failure_that_makes_it_matter_or_decides_itself() {
    // One failure in three opens the circuit, and it takes all three to see it.
    check(|| {
        let clock = ManualClock::new();
        let config = tallied(&clock).minimum_calls(3).failure_rate(1.0 / 3.0).build().unwrap();
        let circuit = Circuit::new(config);
        circuit.try_acquire().unwrap().record(Outcome::Success);
        let (good, bad) = (circuit.try_acquire().unwrap(), circuit.try_acquire().unwrap());
        let a = thread::spawn(move || good.record(Outcome::Success));
        bad.record(Outcome::Failure);
        a.join().unwrap();
        assert_eq!(circuit.state(), State::Open);
    });
}

#[test]
fn a_tallied_success_belongs_to_its_own_generation() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(tallied(&clock).build().unwrap());
        circuit.try_acquire().unwrap().record(Outcome::Success);
        let late = circuit.try_acquire().unwrap();
        let a = thread::spawn(move || late.record(Outcome::Success));
        circuit.trip();
        circuit.reset();
        a.join().unwrap();
        let snapshot = circuit.snapshot();
        assert_eq!(snapshot.window.calls, 0);
        assert_eq!(snapshot.totals.success + snapshot.totals.stale, 2);
    });
}

#[test]
fn a_late_tallied_success_is_none_of_the_generation_that_tallies_now() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(tallied(&clock).build().unwrap());
        let succeed = || circuit.try_acquire().unwrap().record(Outcome::Success);
        succeed();
        let late = circuit.try_acquire().unwrap();
        let a = thread::spawn(move || late.record(Outcome::Success));
        circuit.trip();
        circuit.reset();
        succeed();
        a.join().unwrap();
        let seen = circuit.snapshot();
        assert_eq!(seen.window.calls, 1);
        assert_eq!(seen.totals.success + seen.totals.stale, 3);
    });
}

#[test]
fn tallies_that_are_read_while_they_grow_lose_nothing() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(tallied(&clock).build().unwrap());
        circuit.try_acquire().unwrap().record(Outcome::Success);
        let [good, better, other] = [(); 3].map(|()| circuit.try_acquire().unwrap());
        let a = thread::spawn(move || {
            good.record(Outcome::Success);
            better.record(Outcome::Success);
        });
        let before = circuit.snapshot();
        other.record(Outcome::Success);
        assert_eq!(before.window.calls, before.totals.success);
        a.join().unwrap();
        let after = circuit.snapshot();
        assert_eq!((after.window.calls, after.totals.success), (4, 4));
    });
}

#[test]
fn a_tally_that_is_open_into_the_next_bucket_loses_nothing() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(tallied(&clock).build().unwrap());
        circuit.try_acquire().unwrap().record(Outcome::Success);
        // Of one lane, and in the next bucket.
        let [good, better] = [(); 2].map(|()| circuit.try_acquire().unwrap());
        clock.advance(SECOND / 10);
        let a = thread::spawn(move || good.record(Outcome::Success));
        better.record(Outcome::Success);
        a.join().unwrap();
        let seen = circuit.snapshot();
        assert_eq!((seen.window.calls, seen.totals.success), (3, 3));
    });
}

#[test]
fn a_refusal_tells_no_wait_but_that_of_its_opening() {
    // Closed again it tallies, for ten times as long.
    check(|| {
        let clock = ManualClock::new();
        let config = tallied(&clock).window(Window::time(100 * SECOND));
        let config = config.open_for(Backoff::fixed(SECOND)).build().unwrap();
        let circuit = Circuit::new(config);
        circuit.trip();
        let a = start(&circuit, |circuit| circuit.reset());
        if let Err(open) = circuit.try_acquire() {
            assert_eq!(open.retry_after(), Some(SECOND), "when a bucket ends");
        }
        a.join().unwrap();
    });
}

#[test]
fn a_success_that_was_good_before_a_slow_rule_came_leaves_no_tally_behind() {
    check(|| {
        let clock = ManualClock::new();
        let config = || tallied(&clock).measure_latency();
        let circuit = Circuit::new(config().build().unwrap());
        circuit.try_acquire().unwrap().record(Outcome::Success);
        // By a lane of its own.
        let long = start(&circuit, |circuit| circuit.try_acquire().unwrap()).join().unwrap();
        clock.advance(SECOND / 20);
        let short = circuit.try_acquire().unwrap();
        let a = thread::spawn(move || long.record(Outcome::Success));
        circuit.reconfigure(config().slow_calls(SECOND / 50, 1.0).build().unwrap()).unwrap();
        circuit.try_acquire().unwrap().record(Outcome::Success);
        let b = thread::spawn(move || short.record(Outcome::Success));
        a.join().unwrap();
        b.join().unwrap();
        let seen = circuit.snapshot();
        assert_eq!((seen.window.calls, seen.totals.success), (4, 4));
    });
}

#[test]
fn of_two_who_saw_the_same_revision_one_steers() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        let seen = circuit.snapshot().revision;
        let steer = move |circuit: Circuit| {
            circuit.if_revision(seen).set_override(Override::force_open()).is_ok()
        };
        let a = start(&circuit, steer);
        let steered = [steer(circuit.clone()), a.join().unwrap()];
        assert_eq!(steered.iter().filter(|steered| **steered).count(), 1);
    });
}

#[test]
fn good_calls_that_end_at_once_at_a_clean_gate_are_all_counted() {
    check(|| {
        let clock = ManualClock::new();
        let config = Config::builder("loom").window(Window::count(1)).minimum_calls(1);
        let circuit = Circuit::new(config.clock(&clock).build().unwrap());
        circuit.try_acquire().unwrap().record(Outcome::Success);
        // By the lane of the thread that took them.
        let [ours, theirs] = [(); 2].map(|()| circuit.try_acquire().unwrap());
        let a = thread::spawn(move || theirs.record(Outcome::Success));
        ours.record(Outcome::Success);
        a.join().unwrap();
        assert_eq!(circuit.snapshot().totals.success, 3);
    });
}

#[test]
fn refusals_at_once_by_one_lane_are_all_counted() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        circuit.trip();
        // The next thread shares a lane with this one.
        thread::spawn(|| {}).join().unwrap();
        let a = start(&circuit, |circuit| circuit.try_acquire().is_err());
        assert!(circuit.try_acquire().is_err());
        assert!(a.join().unwrap());
        assert_eq!(circuit.snapshot().totals.rejected, 2);
    });
}

#[test]
fn fallbacks_that_end_at_once_are_all_counted() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(touchy(&clock).build().unwrap());
        circuit.trip();
        let fall_back = |circuit: Circuit| {
            let layer = CircuitBreakerLayer::with_classifier(circuit, ResultClassifier::new());
            let mut service = layer.fallback(|_: CircuitOpen| ()).layer(Stuck);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(service.poll_ready(&mut cx).is_ready());
            assert!(pin!(service.call(())).poll(&mut cx).is_ready());
        };
        let a = start(&circuit, fall_back);
        fall_back(circuit.clone());
        a.join().unwrap();
        assert_eq!(circuit.snapshot().totals.fallback_answered, 2);
    });
}

#[cfg(feature = "shadow")]
#[test]
fn calls_and_refusals_at_once_are_all_counted_by_a_shadow() {
    check(|| {
        let clock = ManualClock::new();
        let candidate = Config::builder("candidate").clock(&clock).build().unwrap();
        let circuit = Circuit::new(touchy(&clock).shadow(candidate).build().unwrap());
        let call = |circuit: Circuit| {
            circuit.try_acquire().unwrap().record(Outcome::Success);
        };
        let a = start(&circuit, call);
        call(circuit.clone());
        a.join().unwrap();
        assert_eq!(circuit.shadows()[0].snapshot().passed.success, 2);

        circuit.trip();
        let refuse = |circuit: Circuit| assert!(circuit.try_acquire().is_err());
        let a = start(&circuit, refuse);
        refuse(circuit.clone());
        a.join().unwrap();
        assert_eq!(circuit.shadows()[0].snapshot().unknown.passed, 2);
    });
}

#[cfg(feature = "keyed")]
mod keyed {
    use tower_breaker::{KeyedCircuits, KeyedCircuitsBuilder, Quorum};

    use super::*;

    fn group(clock: &ManualClock) -> KeyedCircuitsBuilder {
        KeyedCircuits::builder(touchy(clock).build().unwrap()).capacity(2)
    }

    /// Has a thread do something with the same group.
    fn with<T: 'static>(
        circuits: &KeyedCircuits,
        run: impl FnOnce(KeyedCircuits) -> T + 'static,
    ) -> Running<T> {
        let circuits = circuits.clone();
        thread::spawn(move || run(circuits))
    }

    /// What is counted, and what there is.
    fn assert_counted(circuits: &KeyedCircuits) {
        let there = circuits.circuits();
        let count = |state| there.iter().filter(|circuit| circuit.state() == state).count() as u64;
        let seen = circuits.snapshot();
        let counted = [seen.closed, seen.open, seen.half_open];
        assert_eq!(counted, [State::Closed, State::Open, State::HalfOpen].map(count));
    }

    #[test]
    fn two_who_bring_a_new_key_at_once_get_one_circuit() {
        check(|| {
            let clock = ManualClock::new();
            let circuits = group(&clock).build().unwrap();
            let a = with(&circuits, |circuits| circuits.get_or_create("a"));
            let ours = circuits.get_or_create("a");
            let theirs = a.join().unwrap();
            ours.trip();
            assert_eq!(theirs.state(), State::Open);
            assert_counted(&circuits);
        });
    }

    #[test]
    fn keys_that_come_at_once_never_outgrow_the_bound() {
        check(|| {
            let clock = ManualClock::new();
            let circuits = group(&clock).capacity(1).build().unwrap();
            let a = with(&circuits, |circuits| drop(circuits.get_or_create("a")));
            drop(circuits.get_or_create("b"));
            a.join().unwrap();
            let seen = circuits.snapshot();
            assert_eq!((circuits.len(), circuits.circuits().len()), (1, 1));
            // The other one had to go, or found no room.
            assert_eq!(seen.evicted + seen.overflowed, 1);
        });
    }

    #[test]
    fn a_transition_beside_an_eviction_is_counted_once_or_not_at_all() {
        check(|| {
            let clock = ManualClock::new();
            let circuits = group(&clock).capacity(1).build().unwrap();
            let circuit = circuits.get_or_create("a");
            let a = thread::spawn(move || circuit.trip());
            drop(circuits.get_or_create("b"));
            a.join().unwrap();
            assert_counted(&circuits);
        });
    }

    #[test]
    fn a_look_at_the_group_beside_a_transition_is_one_at_one_instant() {
        check(|| {
            let clock = ManualClock::new();
            let circuits = group(&clock).build().unwrap();
            let circuit = circuits.get_or_create("a");
            let a = thread::spawn(move || circuit.trip());
            let seen = circuits.snapshot();
            assert_eq!(seen.closed + seen.open + seen.half_open, 1, "{seen:?}");
            a.join().unwrap();
        });
    }

    #[test]
    fn two_keys_that_open_at_once_are_a_quorum_of_two() {
        check(|| {
            let clock = ManualClock::new();
            let parent = Config::builder("parent").clock(&clock).build().unwrap();
            let circuits = group(&clock).parent(parent, Quorum::count(2)).build().unwrap();
            let [a, b] = ["a", "b"].map(|key| circuits.get_or_create(key));
            let a = thread::spawn(move || a.trip());
            b.trip();
            a.join().unwrap();
            assert_eq!(circuits.parent().unwrap().state(), State::Open);
        });
    }

    #[test]
    fn a_call_beside_a_look_of_the_keeper_is_a_use() {
        check(|| {
            let clock = ManualClock::new();
            let circuits = group(&clock).idle_for(2 * SECOND).build().unwrap();
            drop(circuits.get_or_create("a"));
            clock.advance(SECOND);
            let a = with(&circuits, |circuits| drop(circuits.try_acquire("a")));
            circuits.evict_idle();
            a.join().unwrap();
            // It was called a second ago.
            clock.advance(SECOND);
            assert_eq!(circuits.evict_idle(), 0);
            clock.advance(2 * SECOND);
            assert_eq!(circuits.evict_idle(), 1);
        });
    }
}

#[cfg(feature = "registry")]
mod registry {
    use tower_breaker::{EventKind, Registry};

    use super::*;

    #[test]
    fn a_reader_is_woken_by_the_event_it_raced_with() {
        check(|| {
            let clock = ManualClock::new();
            let registry = Registry::new();
            let circuit = registry.circuit(touchy(&clock).build().unwrap()).unwrap();
            let mut events = registry.subscribe();
            let a = thread::spawn(move || circuit.trip());
            let woken = Arc::new(Woken(AtomicUsize::new(0)));
            let waker = Waker::from(Arc::clone(&woken));
            let first = events.poll_next(&mut Context::from_waker(&waker));
            a.join().unwrap();
            if first.is_pending() {
                assert!(woken.0.load(Relaxed) > 0, "pending, and nobody will come");
                assert!(events.poll_next(&mut Context::from_waker(&waker)).is_ready());
            }
        });
    }

    #[test]
    fn a_circuit_that_leaves_beside_a_transition_is_heard_of_no_more() {
        check(|| {
            let clock = ManualClock::new();
            let registry = Registry::new();
            let circuit = registry.circuit(touchy(&clock).build().unwrap()).unwrap();
            let mut events = registry.subscribe();
            let a = thread::spawn(move || circuit.trip());
            drop(registry.remove("loom"));
            a.join().unwrap();
            let kinds = std::iter::from_fn(|| events.try_next().unwrap());
            let last = kinds.map(|event| event.kind.clone()).last();
            assert_eq!(last, Some(EventKind::Removed));
        });
    }
}
