//! The laws of a circuit on the fast clock, whose time no test can move.

use std::time::Duration;

use tower_breaker::{Backoff, Circuit, Clock, Config, Outcome, State};

#[test]
fn its_instants_are_those_of_its_clock() {
    let clock = Clock::fast();
    for _ in 0..100 {
        let before = clock.now();
        let circuit = Circuit::new(Config::builder("fast").clock(Clock::fast()).build().unwrap());
        let born = circuit.snapshot().since;
        let made = clock.now();
        assert!(before <= born && born <= made);
        circuit.trip();
        let (seen, after) = (circuit.snapshot(), clock.now());
        assert!(made <= seen.since && seen.since <= seen.at && seen.at <= after);
    }
}

#[test]
fn a_wait_is_over_no_sooner_than_by_its_clock() {
    const WAIT: Duration = Duration::from_millis(1);
    let clock = Clock::fast();
    let config = Config::builder("fast").open_for(Backoff::fixed(WAIT)).clock(clock.clone());
    let circuit = Circuit::new(config.measure_latency().build().unwrap());
    for _ in 0..10 {
        circuit.reset();
        let before = clock.now();
        circuit.trip();
        let permit = loop {
            match circuit.try_acquire() {
                Ok(permit) => break permit,
                Err(open) => assert!(open.retry_after().unwrap() <= WAIT),
            }
        };
        assert!(clock.now() - before >= WAIT);
        permit.record(Outcome::Failure);
        assert_eq!(circuit.state(), State::Open);
    }
}

#[test]
fn it_is_the_fast_one() {
    assert_eq!(format!("{:?}", Clock::fast()), "Clock::fast");
}
