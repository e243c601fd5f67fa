//! How a circuit begins: closed, open, observed, and warming up.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_breaker::{
    Backoff, Circuit, Config, ConfigBuilder, ManualClock, Observer, Outcome, Override,
    OverrideKind, Probes, Start, State,
};

const SECOND: Duration = Duration::from_secs(1);

fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("young")
        .consecutive_failures(2)
        .slow_calls(SECOND, 0.5)
        .minimum_calls(2)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(SECOND))
        .probes(Probes::new(1))
        .clock(clock)
}

fn circuit(config: ConfigBuilder) -> Circuit {
    Circuit::new(config.build().unwrap())
}

#[test]
fn one_that_starts_open_probes_after_its_first_wait() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock).start(Start::Open));
    let seen = circuit.snapshot();
    assert_eq!((seen.state, seen.retry_after), (State::Open, Some(SECOND)));
    assert_eq!(seen.cause.unwrap().to_string(), "it starts open");
    assert_eq!(seen.totals.opened, 0, "it never was anything else");
    clock.advance(SECOND - Duration::from_nanos(1));
    circuit.try_acquire().unwrap_err();
    clock.advance(Duration::from_nanos(1));
    circuit.try_acquire().unwrap().record(Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
    assert_eq!(circuit.snapshot().totals.rejected, 1);
}

#[test]
fn metrics_show_what_it_was_born_in_whatever_is_told_first() {
    let clock = ManualClock::new();
    let refuse = |circuit: &Circuit| drop(circuit.try_acquire().unwrap_err());
    let observe = |circuit: &Circuit| circuit.set_override(Override::observe_only());
    let steer: [&dyn Fn(&Circuit); 4] = [
        &refuse,
        &observe,
        &|circuit| {
            observe(circuit);
            circuit.clear_override();
            refuse(circuit);
        },
        &|circuit| {
            observe(circuit);
            circuit.try_acquire().unwrap().cancel();
        },
    ];
    let saved = {
        let circuit = circuit(config(&clock));
        circuit.trip();
        observe(&circuit);
        circuit.save()
    };
    let births: [&dyn Fn() -> Circuit; 2] =
        [&|| circuit(config(&clock).start(Start::Open)), &|| {
            let restored =
                Circuit::restore(config(&clock).build().unwrap(), saved.clone()).unwrap();
            restored.try_acquire().unwrap().cancel();
            restored.clear_override();
            restored
        }];
    for (step, steer) in steer.iter().enumerate() {
        for birth in births {
            let recorder = DebuggingRecorder::new();
            metrics::with_local_recorder(&recorder, || steer(&birth()));
            let shown = recorder.snapshotter().snapshot().into_vec();
            let gauge = |name| {
                let found = shown.iter().find(|(key, ..)| key.key().name() == name);
                found.map(|(.., value)| format!("{value:?}"))
            };
            assert_eq!(
                gauge("circuit_breaker_state_code"),
                Some(format!("{:?}", DebugValue::Gauge(2.0.into()))),
                "{step}"
            );
            assert_eq!(
                gauge("circuit_breaker_admitted_share"),
                Some(format!("{:?}", DebugValue::Gauge(0.0.into()))),
                "{step}"
            );
        }
    }
}

#[test]
fn one_that_starts_observed_refuses_nothing_until_that_is_over() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<Option<Override>>>>);
    impl Observer for Log {
        fn on_override(&self, _: &str, active: Option<&Override>) {
            self.0.lock().unwrap().push(active.cloned());
        }
    }
    let (clock, log) = (ManualClock::new(), Log::default());
    let circuit =
        circuit(config(&clock).start(Start::ObserveOnly(60 * SECOND)).observer(log.clone()));
    assert_eq!(circuit.snapshot().active_override.unwrap().kind, OverrideKind::ObserveOnly);
    assert!(log.0.lock().unwrap().is_empty(), "a recorder may yet be installed");
    for _ in 0..3 {
        circuit.try_acquire().unwrap().record(Outcome::Failure);
    }
    assert_eq!((circuit.state(), circuit.snapshot().totals.would_reject), (State::Open, 1));
    assert_eq!(log.0.lock().unwrap().len(), 1);
    clock.advance(60 * SECOND);
    drop(circuit.try_acquire());
    assert_eq!(circuit.snapshot().active_override, None);
    assert_eq!(*log.0.lock().unwrap().last().unwrap(), None);
}

#[test]
fn what_ends_while_it_warms_up_feeds_the_totals_only() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock).warm_up(10 * SECOND));
    let hung: Vec<_> = (0..2).map(|_| circuit.try_acquire().unwrap()).collect();
    clock.advance(10 * SECOND - Duration::from_nanos(1));
    for _ in 0..5 {
        circuit.try_acquire().unwrap().record(Outcome::Failure);
    }
    let seen = circuit.snapshot();
    assert_eq!((seen.state, seen.window.calls, seen.totals.failure), (State::Closed, 0, 5));

    clock.advance(Duration::from_nanos(1));
    // What hangs since then is no longer excused.
    circuit.try_acquire().unwrap_err();
    drop(hung);
    circuit.reset();
    for _ in 0..2 {
        circuit.try_acquire().unwrap().record(Outcome::Failure);
    }
    assert_eq!(circuit.state(), State::Open);
}

#[test]
fn a_circuit_that_starts_open_is_probed_though_it_warms_up() {
    let clock = ManualClock::new();
    let circuit = circuit(config(&clock).start(Start::Open).warm_up(60 * SECOND));
    clock.advance(SECOND);
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    assert_eq!(circuit.state(), State::Open);
    clock.advance(SECOND);
    circuit.try_acquire().unwrap().record(Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn a_ramp_is_judged_though_it_warms_up() {
    let clock = ManualClock::new();
    let config = config(&clock).start(Start::Open).warm_up(60 * SECOND).ramp(8 * SECOND);
    let circuit = circuit(config);
    clock.advance(SECOND);
    circuit.try_acquire().unwrap().record(Outcome::Success);
    clock.advance(4 * SECOND);
    let hung: Vec<_> = (0..4).filter_map(|_| circuit.try_acquire().ok()).collect();
    assert_eq!(hung.len(), 2);
    clock.advance(SECOND + Duration::from_nanos(1));
    circuit.try_acquire().unwrap_err();
    assert_eq!(circuit.state(), State::Open, "as it would be had they ended");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let start = Config::builder("a").start(Start::ObserveOnly(Duration::ZERO)).build();
    assert!(start.unwrap_err().to_string().contains("start"));
    let warm_up = Config::builder("a").warm_up(Duration::MAX).build();
    assert!(warm_up.unwrap_err().to_string().contains("warm_up"));
}
