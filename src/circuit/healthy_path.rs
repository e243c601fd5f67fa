//! What calls must not wait for: the circuit's lock and the clock.
//!
//! A way round that is lost costs no answer and so fails no other test. Here a
//! thread calls while another one holds what it has to do without; whoever
//! touches that waits, and is found out.

use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use super::{Circuit, Config, ConfigBuilder, ManualClock};
use crate::{
    backoff::Backoff, outcome::Outcome, probes::Probes, state::State, throttle::Throttle,
    window::Window,
};

const SECOND: Duration = Duration::from_secs(1);

/// What is held while the calls are made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Lock,
    LockAndClock,
}

/// Has `prepare` and then, with that held, `calls` run to their end.
fn run_without(
    held: Held,
    config: ConfigBuilder,
    prepare: impl FnOnce(&Circuit, &ManualClock),
    calls: impl Fn(&Circuit) + Send,
) {
    let clock = ManualClock::new();
    let circuit = &Circuit::new(config.clock(&clock).build().unwrap());
    prepare(circuit, &clock);
    thread::scope(|scope| {
        let (go_on, told) = mpsc::channel();
        let (done, ended) = mpsc::channel();
        scope.spawn(move || {
            // The first time takes a thread to its lane.
            calls(circuit);
            done.send(()).unwrap();
            if told.recv().is_ok() {
                calls(circuit);
                done.send(()).unwrap();
            }
        });
        ended.recv().unwrap();
        let core = circuit.0.lock();
        let time = (held == Held::LockAndClock).then(|| clock.lock());
        go_on.send(()).unwrap();
        let has_ended = ended.recv_timeout(20 * SECOND).is_ok();
        drop((core, time));
        assert!(has_ended, "a call waited for what was held: {held:?}");
    });
}

/// As a service calls: a look, then a call.
fn succeed(circuit: &Circuit) {
    for _ in 0..200 {
        circuit.ready().unwrap();
        circuit.look_ahead().unwrap();
        circuit.try_acquire().unwrap().record(Outcome::Success);
    }
}

/// The same, with a classifier that judges latencies.
fn succeed_measured(circuit: &Circuit) {
    for _ in 0..200 {
        circuit.look_ahead().unwrap();
        circuit.acquire(true).unwrap().record(Outcome::Success);
    }
}

fn be_refused_in(circuit: &Circuit, state: State) {
    for _ in 0..200 {
        let refused = circuit.try_acquire().unwrap_err();
        assert_eq!((refused.state(), refused.retry_after()), (state, Some(5 * SECOND)));
        assert_eq!(circuit.ready().unwrap_err().state(), state);
        let ahead = circuit.look_ahead().unwrap_err();
        assert_eq!(circuit.refuse_deferred(ahead).retry_after(), Some(5 * SECOND));
    }
}

fn config() -> ConfigBuilder {
    Config::builder("healthy").open_for(Backoff::fixed(5 * SECOND).jitter(0.0))
}

/// Not in the first one, which is called nought, nor when it begins.
fn in_some_generation(circuit: &Circuit, clock: &ManualClock) {
    (0..20).for_each(|_| circuit.reset());
    clock.advance(100 * SECOND);
}

#[test]
fn a_success_in_a_full_clean_window_takes_no_lock_and_does_not_look_at_the_clock() {
    for calls in [1, 20, 200] {
        let config = config().window(Window::count(calls)).minimum_calls(1);
        run_without(Held::LockAndClock, config, in_some_generation, |circuit| {
            succeed(circuit);
            assert_eq!(circuit.state(), State::Closed);
        });
    }
}

#[test]
fn a_success_that_is_measured_takes_no_lock() {
    let config = config().window(Window::count(20)).measure_latency();
    run_without(Held::Lock, config.clone(), in_some_generation, succeed);
    run_without(Held::Lock, config, in_some_generation, succeed_measured);
}

#[test]
fn a_success_in_a_clean_window_of_time_takes_no_lock() {
    let config = config().window(Window::time(10 * SECOND));
    run_without(Held::Lock, config.clone(), in_some_generation, succeed);
    run_without(Held::Lock, config, in_some_generation, succeed_measured);
}

#[test]
fn a_success_that_is_watched_takes_no_lock_while_nobody_hangs() {
    let slow = |config: ConfigBuilder| config.slow_calls(SECOND, 0.5);
    let count = slow(config().window(Window::count(20)));
    run_without(Held::Lock, count, in_some_generation, succeed);
    run_without(
        Held::Lock,
        slow(config().window(Window::time(10 * SECOND))),
        in_some_generation,
        succeed,
    );
}

#[test]
fn a_throttle_that_has_seen_no_failure_admits_without_the_lock() {
    let config = config().throttle(Throttle::new(2.0));
    let permits = Mutex::new(Vec::new());
    run_without(Held::LockAndClock, config, in_some_generation, |circuit| {
        circuit.look_ahead().unwrap();
        permits.lock().unwrap().push(circuit.try_acquire().unwrap());
    });
}

#[cfg(feature = "tokio")]
#[test]
fn to_look_for_hangs_takes_no_lock_while_nobody_hangs() {
    let look = |circuit: &Circuit| circuit.look_for_hangs().unwrap();
    run_without(Held::LockAndClock, config(), in_some_generation, look);
    run_without(Held::Lock, config().slow_calls(SECOND, 0.5), in_some_generation, look);
}

#[cfg(feature = "keyed")]
#[test]
fn who_keeps_a_closed_circuit_looks_at_it_without_its_lock() {
    run_without(Held::LockAndClock, config(), in_some_generation, |circuit| {
        assert!(circuit.is_closed() && circuit.is_left_closed());
        assert!(!circuit.has_closed_untold(circuit.0.born));
        assert!(circuit.admission().is_some());
    });
}

#[cfg(feature = "registry")]
#[test]
fn a_closed_circuit_has_nothing_untold_and_no_lock_is_taken_to_find_out() {
    run_without(Held::LockAndClock, config(), in_some_generation, Circuit::tell_untold);
}

#[test]
fn an_open_circuit_refuses_without_its_lock() {
    let open = |circuit: &Circuit, _: &ManualClock| circuit.trip();
    run_without(Held::Lock, config(), open, |circuit| {
        be_refused_in(circuit, State::Open);
        assert_eq!(circuit.state(), State::Open);
    });
}

#[test]
fn a_half_open_circuit_without_probes_refuses_without_its_lock() {
    let config = config().probes(Probes::new(1).lease(5 * SECOND));
    let taken = std::cell::Cell::new(None);
    let half_open = |circuit: &Circuit, clock: &ManualClock| {
        circuit.trip();
        clock.advance(5 * SECOND);
        taken.set(Some(circuit.try_acquire().unwrap()));
    };
    run_without(Held::Lock, config, half_open, |circuit| be_refused_in(circuit, State::HalfOpen));
}

/// As far as threads can run at once.
#[test]
fn threads_do_not_write_in_one_place() {
    let circuit = &Circuit::new(config().build().unwrap());
    let lane = || std::ptr::from_ref::<super::lane::Lane>(circuit.0.lane()) as usize;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut lanes = std::collections::HashSet::new();
    for _ in 0..10_000 {
        lanes.insert(thread::scope(|scope| scope.spawn(lane).join().unwrap()));
        if lanes.len() == threads.next_power_of_two().min(16) {
            return;
        }
    }
    panic!("ten thousand threads had {} lanes", lanes.len());
}
