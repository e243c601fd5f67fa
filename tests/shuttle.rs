//! Whole lives of a circuit, with many threads, in thousands of orders: longer
//! than `tests/loom.rs` can go through all of. Orders are drawn at random, and
//! so that bugs which take few switches at the right places are likely (PCT).
//! What `shuttle` does not vary is what an ordering weaker than sequential
//! consistency allows: that is loom's. Run with
//! `RUSTFLAGS="--cfg tower_breaker_shuttle" cargo test --release --all-features --test shuttle`.
#![cfg(tower_breaker_shuttle)]

use std::{future::poll_fn, mem, sync::Arc, time::Duration};

use shuttle::{
    future::block_on,
    rand::{Rng, thread_rng},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};
use tower::{BoxError, Layer, Service, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, Config, ConfigBuilder, ManualClock, Observer, Outcome,
    Override, Permit, Probes, ResultClassifier, State, Transition, WhenOpen, Window,
};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(2);

fn check(model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let (random, by_depth) = (Arc::clone(&model), model);
    shuttle::check_random(move || random(), 10_000);
    shuttle::check_pct(move || by_depth(), 10_000, 3);
}

fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("shuttle")
        .window(Window::count(4))
        .minimum_calls(2)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(SECOND))
        .probes(Probes::new(2).lease(LEASE))
        .clock(clock)
}

/// Hears of every transition.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Transition>>>);

impl Observer for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap().push(transition.clone());
    }
}

/// What a thread's calls came to.
#[derive(Default)]
struct Tally {
    admitted: u64,
    refused: u64,
}

/// Calls, and steers, as it comes.
fn live(circuit: &Circuit, clock: &ManualClock, steps: usize) -> Tally {
    let mut tally = Tally::default();
    let mut calls: Vec<Permit> = Vec::new();
    for _ in 0..steps {
        let chance = thread_rng().gen_range(0..20);
        match chance {
            0..10 => match circuit.try_acquire() {
                Ok(permit) => {
                    tally.admitted += 1;
                    calls.push(permit);
                }
                Err(_) => tally.refused += 1,
            },
            10 => circuit.trip(),
            11 => circuit.reset(),
            12 => circuit.set_override(Override::force_open().expires_in(SECOND)),
            13 => circuit.set_override(Override::force_closed()),
            14 => circuit.set_override(Override::observe_only()),
            15 => circuit.clear_override(),
            _ => clock.advance(SECOND / 2),
        }
        if calls.len() > 2 || chance % 2 == 0 {
            end(calls.pop());
        }
    }
    calls.into_iter().for_each(|call| end(Some(call)));
    tally
}

fn end(call: Option<Permit>) {
    let Some(call) = call else { return };
    match thread_rng().gen_range(0..8) {
        0..3 => call.record(Outcome::Success),
        3..6 => call.record(Outcome::Failure),
        6 => call.record(Outcome::Ignored),
        _ => drop(call),
    }
}

/// Three threads live on one circuit; then every law has to hold that is one at
/// rest.
fn a_life(config: impl Fn(ConfigBuilder) -> ConfigBuilder + Send + Sync + 'static) {
    check(move || {
        let (clock, log) = (ManualClock::new(), Log::default());
        let config = config(self::config(&clock)).observer(log.clone());
        let circuit = Circuit::new(config.build().unwrap());
        let threads = [(); 3].map(|()| {
            let (circuit, clock) = (circuit.clone(), clock.clone());
            thread::spawn(move || live(&circuit, &clock, 8))
        });
        let tallies = threads.map(|thread| thread.join().unwrap());

        // What time alone has done is told at the next touch.
        circuit.clear_override();
        let seen = circuit.snapshot();
        let totals = &seen.totals;
        let ended = totals.success + totals.failure + totals.ignored + totals.cancelled;
        let admitted: u64 = tallies.iter().map(|tally| tally.admitted).sum();
        assert_eq!(ended + totals.stale, admitted, "{totals:?}");
        let refused: u64 = tallies.iter().map(|tally| tally.refused).sum();
        assert_eq!(totals.rejected, refused, "{totals:?}");
        assert_eq!(seen.window.overdue, 0);

        let told = mem::take(&mut *log.0.lock().unwrap());
        let opened = told.iter().filter(|told| told.to == State::Open).count() as u64;
        assert_eq!(totals.opened, opened);
        let mut state = State::Closed;
        for (transition, before) in told.iter().zip(0..) {
            assert_eq!(transition.from, state, "{told:?}");
            assert_ne!(transition.from, transition.to, "{told:?}");
            assert!(transition.generation > before, "{told:?}");
            state = transition.to;
        }

        assert_closes(&circuit, &clock);
    });
}

/// From wherever it is, a dependency that is well leads to a closed circuit that
/// lets everybody in.
fn assert_closes(circuit: &Circuit, clock: &ManualClock) {
    for _ in 0..4 {
        while let Ok(call) = circuit.try_acquire() {
            call.record(Outcome::Success);
            if circuit.state() == State::Closed {
                break;
            }
        }
        // A probe that ended while it was forced closed has its lease yet.
        clock.advance(LEASE);
    }
    assert_eq!(circuit.state(), State::Closed);
    drop(circuit.try_acquire().unwrap());
}

#[test]
fn a_life_with_a_window_of_calls() {
    a_life(|config| config);
}

#[test]
fn a_life_with_a_window_of_time() {
    a_life(|config| config.window(Window::time(4 * SECOND)));
}

#[test]
fn a_life_with_calls_that_are_watched() {
    a_life(|config| config.slow_calls(SECOND, 0.5));
}

#[test]
fn probes_at_once_are_never_more_than_there_are() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(config(&clock).build().unwrap());
        circuit.trip();
        clock.advance(SECOND);
        let out = Arc::new(AtomicUsize::new(0));
        let threads = [(); 4].map(|()| {
            let (circuit, out) = (circuit.clone(), Arc::clone(&out));
            thread::spawn(move || {
                for _ in 0..4 {
                    let Ok(probe) = circuit.try_acquire() else { continue };
                    assert!(out.fetch_add(1, SeqCst) < 2, "a third probe");
                    out.fetch_sub(1, SeqCst);
                    // Neither decides anything, so the episode goes on.
                    match thread_rng().gen_range(0..2) {
                        0 => drop(probe),
                        _ => probe.record(Outcome::Ignored),
                    }
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(circuit.state(), State::HalfOpen);
        let both = [(); 2].map(|()| circuit.try_acquire().unwrap());
        assert!(circuit.try_acquire().is_err());
        drop(both);
    });
}

#[test]
fn nobody_waits_for_ever() {
    check(|| {
        let clock = ManualClock::new();
        let circuit = Circuit::new(config(&clock).build().unwrap());
        circuit.trip();
        let callers = [(); 3].map(|()| {
            let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
            let mut service = layer
                .when_open(WhenOpen::Wait)
                .layer(service_fn(|()| std::future::ready(Ok::<_, BoxError>(()))));
            thread::spawn(move || {
                block_on(async {
                    let mut answered = 0;
                    while answered < 3 {
                        poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
                        // Being ready is no promise.
                        answered += u32::from(service.call(()).await.is_ok());
                    }
                });
            })
        });
        let operator = {
            let circuit = circuit.clone();
            thread::spawn(move || {
                circuit.reset();
                circuit.set_override(Override::force_open().expires_in(SECOND));
                circuit.trip();
                circuit.clear_override();
            })
        };
        operator.join().unwrap();
        // If anybody waits for ever, nothing can go on: shuttle says so.
        clock.advance(SECOND);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}
