//! What observers are told, and what they may do.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tower_breaker::{
    Backoff, Cause, Circuit, Observer, Outcome, Override, Probes, Snapshot, State, Transition,
    Window,
};

use crate::support::{Bench, Log, SECOND, in_no_time, rules};

thread_local! {
    /// What a server keeps about the request it is answering.
    static REQUEST: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Notes in whose request it was told.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<Option<usize>>>>);

impl Observer for Requests {
    fn on_transition(&self, _: &Transition) {
        self.0.lock().unwrap().push(REQUEST.get());
    }
}

#[test]
fn s105_the_event_carries_the_counts_that_were_left_behind() {
    let log = Log::default();
    let half = rules().minimum_calls(2).failure_rate(0.5).probes(Probes::new(3).successes(2));
    let bench = Bench::new(half.observer(log.clone()));
    bench.run("SF").is(State::Open);
    let opened = log.last();
    assert_eq!((opened.from, opened.to), (State::Closed, State::Open));
    assert_eq!((opened.window.calls, opened.window.failures), (2, 1));
    assert_eq!(opened.window.failure_rate, Some(0.5));
    let cause = &opened.cause;
    assert!(matches!(cause, Cause::FailureRate { failures: 1, calls: 2, .. }), "{cause:?}");
    assert_eq!(opened.open_for, Some(Duration::from_secs(5)));
    assert_eq!(opened.at, bench.clock.now());

    // Told apart from one that opens again, which carries its probes' counts.
    bench.wait().run("SFF").is(State::Open);
    let reopened = log.last();
    assert_eq!((reopened.from, reopened.to), (State::HalfOpen, State::Open));
    assert_eq!((reopened.window.calls, reopened.window.failures), (3, 2));
    let cause = &reopened.cause;
    assert!(matches!(cause, Cause::ProbesFailed { failures: 2, probes: 3, .. }), "{cause:?}");
    assert!(reopened.generation > opened.generation);
}

#[test]
fn s105_observers_are_told_in_the_context_of_the_call_that_did_it() {
    let requests = Requests::default();
    let bench = Bench::new(rules().consecutive_failures(1).observer(requests.clone()));
    let serve = |request: usize, outcome| {
        REQUEST.set(Some(request));
        bench.permit().record(outcome);
        REQUEST.set(None);
    };
    thread::scope(|scope| {
        for request in 1..=8 {
            // One after the other: what is asked is whose, not in what order.
            scope.spawn(move || serve(request, Outcome::Success)).join().unwrap();
        }
        scope.spawn(move || serve(9, Outcome::Failure)).join().unwrap();
        bench.wait();
        scope.spawn(move || serve(10, Outcome::Success)).join().unwrap();
    });
    // Opened by request 9; the probe of request 10 went half-open and closed.
    assert_eq!(*requests.0.lock().unwrap(), [Some(9), Some(10), Some(10)]);
}

#[test]
fn s106_whatever_the_threads_do_transitions_follow_from_one_another() {
    const ROUNDS: usize = if cfg!(miri) { 1 } else { 10 };
    const OPENINGS: u64 = if cfg!(miri) { 5 } else { 50 };
    in_no_time(|| {
        for _ in 0..ROUNDS {
            let log = Log::default();
            let wait = Duration::from_micros(3);
            let restless = rules().consecutive_failures(1).open_for(Backoff::fixed(wait));
            let bench = Bench::new(restless.observer(log.clone()));
            // Not so many calls each: a thread that is held up with the last probe in its hand lets the
            // others use up theirs on refusals.
            let restless = || {
                let mut outcomes = [Outcome::Failure, Outcome::Success].into_iter().cycle();
                while bench.totals().opened < OPENINGS {
                    bench.clock.advance(Duration::from_micros(1));
                    let outcome = outcomes.next().expect("they go round");
                    match bench.circuit.try_acquire() {
                        Ok(permit) => permit.record(outcome),
                        Err(_) => thread::yield_now(),
                    }
                }
            };
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(restless);
                }
            });
            let told = log.all();
            let mut state = State::Closed;
            for transition in &told {
                assert_eq!(transition.from, state);
                assert_ne!(transition.to, state);
                state = transition.to;
            }
            assert_eq!(bench.state(), state);
            let generations: Vec<u64> =
                told.iter().map(|transition| transition.generation).collect();
            assert_eq!(generations, (1..=told.len() as u64).collect::<Vec<_>>());
            let opened = told.iter().filter(|transition| transition.to == State::Open).count();
            assert_eq!(bench.totals().opened, opened as u64);
        }
    });
}

/// An observer's way to its circuit. The circuit holds the observer, so one of
/// them has to let go in the end.
#[derive(Clone, Default)]
struct Way(Arc<Mutex<Option<Circuit>>>);

impl Way {
    fn lead_to(&self, circuit: &Circuit) {
        *self.0.lock().unwrap() = Some(circuit.clone());
    }

    fn circuit(&self) -> Circuit {
        self.0.lock().unwrap().clone().expect("it is set before anything happens")
    }

    fn end(&self) {
        *self.0.lock().unwrap() = None;
    }
}

/// Calls back into its circuit.
#[derive(Clone, Default)]
struct Meddler {
    way: Way,
    saw: Arc<Mutex<Vec<Snapshot>>>,
}

impl Observer for Meddler {
    fn on_transition(&self, transition: &Transition) {
        let circuit = self.way.circuit();
        assert_eq!(circuit.state(), circuit.snapshot().state);
        let _ = circuit.try_acquire();
        self.saw.lock().unwrap().push(circuit.snapshot());
        if transition.to == State::Open {
            circuit.reset();
        }
    }
}

#[test]
fn s107_an_observer_may_call_back_into_the_circuit() {
    in_no_time(|| {
        let (meddler, log) = (Meddler::default(), Log::default());
        let watched =
            rules().consecutive_failures(1).observer(meddler.clone()).observer(log.clone());
        let bench = Bench::new(watched);
        meddler.way.lead_to(&bench.circuit);
        for _ in 0..3 {
            bench.run("F").is(State::Closed);
        }
        let round = [(State::Closed, State::Open), (State::Open, State::Closed)];
        assert_eq!(log.path(), round.repeat(3));
        let saw: Vec<State> =
            meddler.saw.lock().unwrap().iter().map(|snapshot| snapshot.state).collect();
        assert_eq!(saw, [State::Open, State::Closed].repeat(3));
        meddler.way.end();
    });
}

/// Panics whenever it is told anything.
struct Panicker(Arc<AtomicUsize>);

impl Panicker {
    fn panic(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("the observer fell over");
    }
}

impl Observer for Panicker {
    fn on_transition(&self, _: &Transition) {
        self.panic();
    }

    fn on_call(&self, _: &tower_breaker::Call<'_>) {
        self.panic();
    }

    fn on_rejection(&self, _: &tower_breaker::CircuitOpen) {
        self.panic();
    }
}

#[test]
fn s107_an_observer_that_panics_harms_nobody() {
    let (panics, log) = (Arc::default(), Log::default());
    let panicker = Panicker(Arc::clone(&panics));
    let watched = rules().consecutive_failures(1).observer(panicker).observer(log.clone());
    let bench = Bench::new(watched);
    bench.run("F").is(State::Open).ask("X");
    bench.wait().run("S").is(State::Closed);
    bench.circuit.trip();
    bench.circuit.reset();
    let told = [
        (State::Closed, State::Open),
        (State::Open, State::HalfOpen),
        (State::HalfOpen, State::Closed),
        (State::Closed, State::Open),
        (State::Open, State::Closed),
    ];
    assert_eq!(log.path(), told);
    // It was told of all that too: five transitions, two calls, one refusal.
    assert_eq!(panics.load(Ordering::Relaxed), 5 + 2 + 1);
}

/// Says that it was told, and returns when it is let go.
struct Sleeper {
    told: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Observer for Sleeper {
    fn on_transition(&self, _: &Transition) {
        let _ = self.told.send(());
        let _ = self.go.lock().unwrap().recv();
    }
}

#[test]
fn s107_a_slow_observer_delays_no_permit() {
    in_no_time(|| {
        let (told, is_told) = mpsc::channel();
        let (let_go, go) = mpsc::channel();
        let log = Log::default();
        let sleeper = Sleeper { told, go: Mutex::new(go) };
        let watched = rules().consecutive_failures(1).observer(sleeper).observer(log.clone());
        let bench = Bench::new(watched);
        thread::scope(|scope| {
            let failing = scope.spawn(|| bench.permit().record(Outcome::Failure));
            is_told.recv().unwrap();

            // While it sits on the opening, everything goes on.
            bench.is(State::Open).ask("X");
            bench.wait().run("S").is(State::Closed).run("SSS").holds(3, 0);
            bench.circuit.reset();
            assert_eq!(log.path(), []);
            assert!(!failing.is_finished());
            drop(let_go);
        });
        let told = [
            (State::Closed, State::Open),
            (State::Open, State::HalfOpen),
            (State::HalfOpen, State::Closed),
        ];
        assert_eq!(log.path(), told);
    });
}

/// Closes its circuit as soon as that has opened, and goes on with its calls.
#[derive(Clone, Default)]
struct Eager(Way);

impl Observer for Eager {
    fn on_transition(&self, transition: &Transition) {
        if transition.to == State::Open {
            let circuit = self.0.circuit();
            circuit.reset();
            for _ in 0..3 {
                circuit.try_acquire().expect("it is closed").record(Outcome::Success);
            }
        }
    }
}

/// While one thing is told the next one waits, and with it whatever passes
/// through the machine.
#[test]
fn s107_calls_beside_what_is_not_told_yet_are_counted_and_tell_nothing_twice() {
    in_no_time(|| {
        for window in [Window::count(20), Window::time(10 * SECOND)] {
            let (eager, log) = (Eager::default(), Log::default());
            let watched = rules().window(window).consecutive_failures(1);
            let bench = Bench::new(watched.observer(eager.clone()).observer(log.clone()));
            eager.0.lead_to(&bench.circuit);
            let round = [(State::Closed, State::Open), (State::Open, State::Closed)];
            for rounds in 1..=3 {
                bench.run("F").is(State::Closed).holds(3, 0);
                assert_eq!(log.path(), round.repeat(rounds));
                assert_eq!(bench.totals().success, 3 * rounds as u64);
            }
            eager.0.end();
        }
    });
}

/// Whatever time has done by itself is told in the order in which it did it.
#[test]
fn an_override_that_ends_is_told_between_what_ended_before_and_after() {
    #[derive(Clone, Default)]
    struct Order(Arc<Mutex<Vec<String>>>);
    impl Observer for Order {
        fn on_transition(&self, transition: &Transition) {
            self.0.lock().unwrap().push(format!("to {}", transition.to));
        }
        fn on_override(&self, _: &str, active: Option<&Override>) {
            let what = if active.is_some() { "laid" } else { "lifted" };
            self.0.lock().unwrap().push(what.to_owned());
        }
    }
    for (lease, ramp, expected) in [
        (3, None, ["laid", "to open", "lifted"]),
        (7, None, ["laid", "lifted", "to open"]),
        (3, Some(4), ["laid", "to closed", "lifted"]),
        (3, Some(6), ["laid", "lifted", "to closed"]),
    ] {
        let order = Order::default();
        let mut rules =
            rules().probes(Probes::new(1).lease(lease * SECOND)).observer(order.clone());
        if let Some(over) = ramp {
            rules = rules.ramp(over * SECOND);
        }
        let bench = Bench::new(rules);
        bench.circuit.trip();
        bench.wait();
        let probe = bench.permit();
        if ramp.is_some() {
            probe.record(Outcome::Success);
        } else {
            std::mem::forget(probe);
        }
        order.0.lock().unwrap().clear();
        bench.circuit.set_override(Override::observe_only().expires_in(5 * SECOND));
        bench.clock.advance(8 * SECOND);
        bench.circuit.clear_override();
        assert_eq!(*order.0.lock().unwrap(), expected, "{lease} {ramp:?}");
    }
}
