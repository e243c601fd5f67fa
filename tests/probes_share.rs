//! Half-open with a share: how many of the calls that ask are taken for probes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_breaker::{
    Backoff, Circuit, Clock, Config, ConfigBuilder, ManualClock, Observer, Outcome, Permit, Probes,
    State,
};

const WAIT: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(10);

fn config(clock: &ManualClock, probes: Probes) -> ConfigBuilder {
    Config::builder("share").open_for(Backoff::fixed(WAIT)).probes(probes.lease(LEASE)).clock(clock)
}

/// A circuit whose wait is over.
fn due(config: ConfigBuilder, clock: &ManualClock) -> Circuit {
    let circuit = Circuit::new(config.build().unwrap());
    circuit.trip();
    clock.advance(WAIT);
    circuit
}

fn ask(circuit: &Circuit, calls: u64) -> Vec<Permit> {
    (0..calls).filter_map(|_| circuit.try_acquire().ok()).collect()
}

#[test]
fn of_those_that_ask_every_whole_percentage_passes_rounded_up() {
    for percent in 1..=100u64 {
        let clock = ManualClock::new();
        let probes = Probes::new(10_000).share(percent as f64 / 100.0);
        let circuit = due(config(&clock, probes), &clock);
        let mut passed = Vec::new();
        for asked in 1..=1_000 {
            passed.extend(circuit.try_acquire().ok());
            let exact = (asked * percent).div_ceil(100);
            assert_eq!(passed.len() as u64, exact, "of {asked} at {percent} %");
        }
    }
}

#[test]
fn outcomes_do_not_move_the_share() {
    let clock = ManualClock::new();
    let circuit = due(config(&clock, Probes::new(1_000).successes(900).share(0.07)), &clock);
    let mut passed = 0;
    for asked in 0..2_000u64 {
        if let Ok(permit) = circuit.try_acquire() {
            passed += 1;
            // One given back, one failed, one good, in turn.
            match asked % 3 {
                0 => drop(permit),
                1 => permit.record(Outcome::Failure),
                _ => permit.record(Outcome::Success),
            }
        }
    }
    assert_eq!(passed, 140);
}

#[test]
fn it_closes_by_as_many_successes_as_ever_and_opens_by_as_many_failures() {
    for (outcome, state) in [(Outcome::Success, State::Closed), (Outcome::Failure, State::Open)] {
        let clock = ManualClock::new();
        let circuit = due(config(&clock, Probes::new(3).successes(2).share(0.1)), &clock);
        for _ in 0..10 {
            ask(&circuit, 1).into_iter().for_each(|permit| permit.record(outcome));
        }
        assert_eq!(circuit.state(), State::HalfOpen, "one probe decides nothing");
        ask(&circuit, 1).into_iter().for_each(|permit| permit.record(outcome));
        assert_eq!(circuit.state(), state);
    }
}

#[test]
fn calls_that_ask_while_no_permit_is_left_save_up_one_at_most() {
    let clock = ManualClock::new();
    let circuit = due(config(&clock, Probes::new(1).share(0.1)), &clock);
    let probe = ask(&circuit, 1_000);
    assert_eq!(probe.len(), 1);
    let refusal = circuit.try_acquire().unwrap_err();
    assert_eq!(refusal.retry_after(), Some(LEASE), "it is the permits that are missing");
    assert_eq!(
        refusal.to_string(),
        "circuit share is half-open with no probe left, retry after 10.0s"
    );
    drop(probe);
    assert_eq!(ask(&circuit, 1).len(), 1, "the next one was brought on");
    assert_eq!(ask(&circuit, 8).len(), 0, "and that was all");
    assert_eq!(ask(&circuit, 1).len(), 1);
}

#[test]
fn a_refusal_says_how_much_passes_and_when_to_come_back() {
    let clock = ManualClock::new();
    let circuit = due(config(&clock, Probes::new(10).share(0.25)), &clock);
    let _probe = ask(&circuit, 1);
    let refusal = circuit.try_acquire().unwrap_err();
    assert_eq!((refusal.state(), refusal.retry_after()), (State::HalfOpen, Some(LEASE / 100)));
    assert_eq!(refusal.to_string(), "circuit share lets 25% of its calls pass, retry after 0.1s");
    let seen = circuit.snapshot();
    assert_eq!((seen.admitted_share, seen.retry_after), (Some(0.25), Some(LEASE / 100)));
    assert_eq!(seen.probes.unwrap().permits_left, 9);
}

#[test]
fn every_refusal_by_a_share_says_when_to_come_back() {
    for percent in 1..100u64 {
        let clock = ManualClock::new();
        let circuit =
            due(config(&clock, Probes::new(10_000).share(percent as f64 / 100.0)), &clock);
        for asked in 1..=200 {
            let Err(refusal) = circuit.try_acquire() else { continue };
            assert_eq!(refusal.retry_after(), Some(LEASE / 100), "{asked} at {percent} %");
        }
    }
}

#[test]
fn all_of_the_calls_is_no_share() {
    let clock = ManualClock::new();
    let circuit = due(config(&clock, Probes::new(3).share(1.0)), &clock);
    let _probes = ask(&circuit, 2);
    let seen = circuit.snapshot();
    assert_eq!((seen.admitted_share, seen.retry_after), (None, None));
}

#[test]
fn observers_hear_of_the_share_when_half_open_begins_and_when_it_is_set() {
    #[derive(Clone, Default)]
    struct Shares(Arc<Mutex<Vec<f64>>>);
    impl Observer for Shares {
        fn on_admitted_share(&self, _: &str, share: f64) {
            self.0.lock().unwrap().push(share);
        }
    }
    let (clock, shares) = (ManualClock::new(), Shares::default());
    let probes = Probes::new(100).share(0.29);
    let circuit = due(config(&clock, probes).observer(shares.clone()), &clock);
    assert_eq!(ask(&circuit, 100).len(), 29);
    circuit.reconfigure(config(&clock, probes.share(0.5)).build().unwrap()).unwrap();
    assert_eq!(ask(&circuit, 100).len(), 50);
    circuit.reconfigure(config(&clock, Probes::new(1_000)).build().unwrap()).unwrap();
    assert_eq!(circuit.snapshot().admitted_share, None);
    assert_eq!(*shares.0.lock().unwrap(), [0.29, 0.5, 0.0], "probing, as without a share");
}

#[test]
fn another_share_takes_over_what_calls_have_earned() {
    let clock = ManualClock::new();
    let probes = Probes::new(100).share(0.1);
    let circuit = due(config(&clock, probes), &clock);
    let _probes = ask(&circuit, 10);
    circuit.reconfigure(config(&clock, probes.share(0.01)).build().unwrap()).unwrap();
    assert_eq!(ask(&circuit, 1).len(), 1, "nine have earned nearly all of one");
    assert_eq!(ask(&circuit, 99).len(), 0);
}

#[test]
fn what_is_no_share_is_refused() {
    for share in [0.0, -0.1, 1.01, f64::NAN] {
        let error =
            Config::builder("share").probes(Probes::new(3).share(share)).build().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("probes.share is {share}, but must be at least 0.000001 and at most 1")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_alone_passes_within_a_lease() {
    use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
    use tower_breaker::{CircuitBreakerLayer, WhenOpen};

    let probes = Probes::new(3).share(0.01).lease(LEASE);
    let circuit = Circuit::new(Config::builder("waits").probes(probes).build().unwrap());
    circuit.trip();
    circuit.end_wait().unwrap();
    let layer = CircuitBreakerLayer::new(circuit.clone()).when_open(WhenOpen::Wait);
    let mut service = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(async |()| Ok::<_, BoxError>(http::Response::new(()))));
    let clock = Clock::tokio();
    let began = clock.now();
    for _ in 0..2 {
        service.ready().await.unwrap().call(()).await.unwrap();
    }
    assert_eq!(circuit.state(), State::HalfOpen);
    let waited = clock.now() - began;
    assert!(waited > LEASE / 2 && waited <= LEASE, "{waited:?}");
}

#[test]
fn a_share_that_is_set_while_probing_begins_as_with_an_episode() {
    let clock = ManualClock::new();
    let probes = Probes::new(100);
    let circuit = due(config(&clock, probes), &clock);
    let _before = ask(&circuit, 3);
    circuit.reconfigure(config(&clock, probes.share(0.1)).build().unwrap()).unwrap();
    let first = ask(&circuit, 1);
    let then = [ask(&circuit, 9), ask(&circuit, 1), ask(&circuit, 9), ask(&circuit, 1)];
    assert_eq!((first.len(), then.each_ref().map(Vec::len)), (1, [0, 1, 0, 1]));
    assert_eq!(circuit.snapshot().probes.unwrap().permits_left, 94, "those before count");
}
