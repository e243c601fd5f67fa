//! Results of calls that were admitted under another state.

use std::time::Duration;

use tower_breaker::{Circuit, Outcome, Override, Permit, State, Window};

use crate::support::{Bench, finish, rules};

/// Every order of these.
fn orders(of: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for letter in of.chars() {
        found = found
            .iter()
            .flat_map(|order| (0..=order.len()).map(move |at| (order, at)))
            .map(|(order, at)| format!("{}{letter}{}", &order[..at], &order[at..]))
            .collect();
    }
    found.sort();
    found.dedup();
    found
}

#[test]
#[cfg_attr(miri, ignore = "much of the same")]
fn s70_stale_results_neither_decide_nor_mint_probes() {
    for ends in ["SFIS", "SSSS", "FFFF", "IIII", "CCCC", "SFIC"] {
        for order in orders(ends) {
            for (probe_ends, state) in [('F', State::Open), ('S', State::Closed)] {
                let bench = Bench::new(rules().consecutive_failures(1));
                let old = bench.ask("PPPP");
                bench.run("F").is(State::Open);
                let probe = bench.wait().permit();
                for (permit, end) in old.into_iter().zip(order.chars()) {
                    finish(permit, end);
                    bench.is(State::HalfOpen).ask("X");
                }
                finish(probe, probe_ends);
                bench.is(state).holds(0, 0);
                let totals = bench.totals();
                assert_eq!((totals.stale, totals.ignored, totals.cancelled), (4, 0, 0), "{order}");
                assert_eq!(totals.success + totals.failure, 2, "{order}");
            }
        }
    }
}

/// What is done to a circuit by hand.
type Move = fn(&Circuit);

#[test]
fn s76_a_reset_and_every_transition_by_hand_discard_what_was_in_flight() {
    let trip_and_reset: Move = |circuit| {
        circuit.trip();
        circuit.reset();
    };
    let (reset, trip): (Move, Move) = (Circuit::reset, Circuit::trip);
    for (by_hand, state) in
        [(reset, State::Closed), (trip, State::Open), (trip_and_reset, State::Closed)]
    {
        for end in ['S', 'F', 'I', 'C'] {
            let bench = Bench::new(rules().consecutive_failures(3));
            let old = bench.run("SFF").permit();
            let generation = bench.circuit.snapshot().generation;
            by_hand(&bench.circuit);
            assert!(bench.circuit.snapshot().generation > generation);
            finish(old, end);
            bench.is(state).holds(0, 0);
            let totals = bench.totals();
            assert_eq!((totals.success, totals.failure, totals.stale), (1, 2, 1));
            assert_eq!((totals.ignored, totals.cancelled), (0, 0));
        }
    }
    // From half-open: the probe was of an episode that is over.
    for (by_hand, state) in [(reset, State::Closed), (trip, State::Open)] {
        for end in ['S', 'F', 'I', 'C'] {
            let bench = Bench::new(rules().consecutive_failures(1));
            let probe = bench.probe();
            by_hand(&bench.circuit);
            finish(probe, end);
            bench.is(state).holds(0, 0);
            assert_eq!(bench.totals().stale, 1);
        }
    }
    // A success too, where the window is full of successes already.
    let bench = Bench::new(rules().window(Window::count(2)));
    let old = bench.run("SS").permit();
    bench.circuit.reset();
    bench.run("SS").holds(2, 0);
    finish(old, 'S');
    assert_eq!((bench.totals().success, bench.totals().stale), (4, 1));

    // Neither does such a probe decide anything in the next episode.
    let bench = Bench::new(rules());
    let (before, probe) = (bench.probe(), bench.probe());
    finish(before, 'S');
    bench.is(State::HalfOpen).ask("X");
    finish(probe, 'S');
    bench.is(State::Closed);
}

#[test]
fn s76_an_override_moves_no_state_and_so_discards_nothing() {
    for over in [Override::force_open(), Override::force_closed(), Override::observe_only()] {
        let bench = Bench::new(rules().consecutive_failures(2));
        let old: Vec<Permit> = bench.ask("PP");
        let generation = bench.circuit.snapshot().generation;
        bench.circuit.set_override(over.clone());
        bench.circuit.clear_override();
        bench.circuit.set_override(over.expires_in(Duration::from_secs(1)));
        bench.clock.advance(Duration::from_secs(1));
        assert_eq!(bench.circuit.snapshot().generation, generation);

        let [first, second] = old.try_into().unwrap();
        first.record(Outcome::Failure);
        bench.is(State::Closed).holds(1, 1);
        second.record(Outcome::Failure);
        bench.is(State::Open);
        assert_eq!(bench.totals().stale, 0);
    }
}
