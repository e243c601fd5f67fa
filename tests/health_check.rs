//! Health checks that the circuit runs while it is open.
#![expect(clippy::disallowed_methods, reason = "tokio's clock is paused here")]

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::{Instant, advance, sleep, timeout};
use tower_breaker::{
    Backoff, Circuit, Config, ConfigBuilder, HealthCheck, ManualClock, Observer, Outcome, Override,
    Probes, Start, State, Transition,
};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(4);

fn config() -> ConfigBuilder {
    Config::builder("checked")
        .consecutive_failures(1)
        .open_for(Backoff::fixed(WAIT))
        .probes(Probes::new(1))
}

fn circuit() -> Circuit {
    Circuit::new(config().build().unwrap())
}

/// A dependency that is up or down, and counts who asks.
#[derive(Clone, Default)]
struct Dependency {
    healthy: Arc<AtomicU32>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Dependency {
    fn check(&self) -> HealthCheck {
        let this = self.clone();
        HealthCheck::new(move || {
            let this = this.clone();
            async move {
                this.asked.lock().unwrap().push(Instant::now());
                if this.healthy.load(Relaxed) == 1 { Ok(()) } else { Err("down") }
            }
        })
        .interval(SECOND)
        .jitter(0.0)
    }

    fn heal(&self) {
        self.healthy.store(1, Relaxed);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// Lets every task come as far as it can at this instant.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn pass(duration: Duration) {
    settle().await;
    advance(duration).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn calls_pass_only_once_the_checks_have() {
    let (circuit, dependency) = (circuit(), Dependency::default());
    circuit.run_health_check(dependency.check().successes(2).of(3)).unwrap();
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    pass(WAIT - Duration::from_millis(1)).await;
    assert_eq!(dependency.asked(), 0, "not before the wait is over");
    let seen = circuit.snapshot();
    assert!(!seen.awaits_health_check);
    assert_eq!(seen.retry_after, Some(Duration::from_millis(1)), "before that the wait counts");
    for seconds in 0..10 {
        pass(if seconds == 0 { Duration::from_millis(1) } else { SECOND }).await;
        assert_eq!(dependency.asked(), seconds + 1);
        let open = circuit.try_acquire().unwrap_err();
        assert_eq!((open.state(), open.retry_after()), (State::Open, Some(SECOND)));
        assert!(circuit.snapshot().awaits_health_check);
    }
    dependency.heal();
    pass(SECOND).await;
    assert_eq!(circuit.state(), State::Open, "one of three is not enough");
    pass(SECOND).await;
    assert_eq!(circuit.state(), State::HalfOpen);
    assert!(!circuit.snapshot().awaits_health_check);

    // The probe decides, as without.
    let asked = dependency.asked();
    circuit.try_acquire().unwrap().record(Outcome::Failure);
    assert_eq!(circuit.state(), State::Open);
    pass(WAIT).await;
    pass(SECOND).await;
    assert_eq!((circuit.state(), dependency.asked()), (State::HalfOpen, asked + 2));
    circuit.try_acquire().unwrap().record(Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
    pass(100 * SECOND).await;
    assert_eq!(dependency.asked(), asked + 2, "none while closed");
}

#[tokio::test(start_paused = true)]
async fn n_of_the_last_m_count_and_none_of_an_earlier_opening() {
    let circuit = circuit();
    let answers = Arc::new(AtomicU32::new(0));
    let script = [true, false, false, true, false, true];
    let check = {
        let answers = answers.clone();
        HealthCheck::new(move || {
            let passed = script[answers.fetch_add(1, Relaxed) as usize % script.len()];
            async move { passed.then_some(()).ok_or(()) }
        })
    };
    circuit.run_health_check(check.interval(SECOND).jitter(0.0).successes(2).of(3)).unwrap();
    circuit.trip();
    pass(WAIT).await;
    // t f f t f t: only the last three hold two.
    for asked in 1..=5 {
        assert_eq!((circuit.state(), answers.load(Relaxed)), (State::Open, asked));
        pass(SECOND).await;
    }
    assert_eq!((circuit.state(), answers.load(Relaxed)), (State::HalfOpen, 6));

    circuit.trip();
    pass(WAIT).await;
    assert_eq!(answers.load(Relaxed), 7);
    assert_eq!(circuit.state(), State::Open, "the success before belongs to the last opening");
}

#[tokio::test(start_paused = true)]
async fn instead_of_probes_they_close_or_begin_the_ramp() {
    let dependency = Dependency::default();
    dependency.heal();
    let closing = circuit();
    let ramping = Circuit::new(config().ramp(10 * SECOND).build().unwrap());
    for circuit in [&closing, &ramping] {
        circuit.run_health_check(dependency.check().instead_of_probes()).unwrap();
        circuit.trip();
    }
    pass(WAIT).await;
    assert_eq!(closing.state(), State::Closed);
    assert_eq!(ramping.state(), State::HalfOpen);
    assert_eq!(ramping.snapshot().admitted_share, Some(0.0));
    pass(10 * SECOND).await;
    assert_eq!(ramping.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_the_wait_whatever_the_checks_say() {
    let (circuit, dependency) = (circuit(), Dependency::default());
    circuit.run_health_check(dependency.check()).unwrap();
    circuit.trip();
    pass(WAIT + SECOND).await;
    assert!(circuit.snapshot().awaits_health_check);
    circuit.end_wait().unwrap();
    circuit.try_acquire().unwrap().record(Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn checks_begin_earlier_where_the_wait_is_cut() {
    let long = config().open_for(Backoff::fixed(100 * WAIT)).build().unwrap();
    let (circuit, dependency) = (Circuit::new(long), Dependency::default());
    circuit.run_health_check(dependency.check()).unwrap();
    circuit.trip();
    pass(WAIT).await;
    circuit.reconfigure(config().build().unwrap()).unwrap();
    pass(WAIT - SECOND).await;
    assert_eq!(dependency.asked(), 0);
    pass(SECOND).await;
    assert_eq!(dependency.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_or_panics_has_failed_and_the_next_one_comes() {
    let circuit = circuit();
    let asked = Arc::new(AtomicU32::new(0));
    let check = {
        let asked = asked.clone();
        HealthCheck::new(move || {
            let turn = asked.fetch_add(1, Relaxed);
            assert!(turn != 1, "a check that panics as it begins");
            async move {
                match turn {
                    0 => pending().await,
                    2 => panic!("a check that panics later"),
                    3 => Err("down"),
                    _ => Ok(()),
                }
            }
        })
    };
    circuit.run_health_check(check.interval(SECOND).jitter(0.0).timeout(3 * SECOND)).unwrap();
    circuit.trip();
    pass(WAIT).await;
    assert_eq!(asked.load(Relaxed), 1);
    pass(3 * SECOND).await;
    for turn in 2..=4 {
        pass(SECOND).await;
        assert_eq!((asked.load(Relaxed), circuit.state()), (turn, State::Open));
    }
    pass(SECOND).await;
    assert_eq!(circuit.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_last_handle_of_the_circuit() {
    let alive = Arc::new(());
    let circuit = circuit();
    let held = alive.clone();
    let check = HealthCheck::new(move || {
        let held = held.clone();
        async move {
            let _held = held;
            pending::<Result<(), ()>>().await
        }
    });
    circuit.run_health_check(check).unwrap();
    circuit.trip();
    pass(WAIT).await;
    assert_eq!(Arc::strong_count(&alive), 3, "the check, and one that is under way");
    let clone = circuit.clone();
    drop(circuit);
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 3);
    drop(clone);
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(start_paused = true)]
async fn stopped_or_replaced_it_holds_nothing() {
    let (circuit, down) = (circuit(), Dependency::default());
    circuit.run_health_check(down.check()).unwrap();
    circuit.trip();
    pass(WAIT).await;
    circuit.try_acquire().unwrap_err();
    let up = Dependency::default();
    up.heal();
    circuit.run_health_check(up.check()).unwrap();
    settle().await;
    assert_eq!((circuit.state(), down.asked(), up.asked()), (State::HalfOpen, 1, 1));

    circuit.trip();
    circuit.run_health_check(down.check()).unwrap();
    pass(WAIT).await;
    circuit.try_acquire().unwrap_err();
    circuit.stop_health_check();
    circuit.try_acquire().unwrap().record(Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
    pass(100 * SECOND).await;
    assert_eq!(down.asked(), 2);
}

#[test]
fn a_runtime_that_is_gone_leaves_no_circuit_shut() {
    let clock = ManualClock::new();
    let circuit = Circuit::new(config().clock(&clock).build().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        circuit.run_health_check(Dependency::default().check()).unwrap();
        circuit.trip();
        clock.advance(WAIT);
        settle().await;
        circuit.try_acquire().unwrap_err();
    });
    drop(runtime);
    circuit.try_acquire().unwrap().record(Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn under_a_forced_state_none_runs_and_observed_it_decides() {
    let (circuit, dependency) = (circuit(), Dependency::default());
    dependency.heal();
    circuit.run_health_check(dependency.check()).unwrap();
    for forced in [Override::force_open(), Override::force_closed()] {
        circuit.set_override(forced);
        circuit.trip();
        pass(10 * WAIT).await;
        assert_eq!((circuit.state(), dependency.asked()), (State::Open, 0));
    }
    circuit.set_override(Override::observe_only());
    settle().await;
    assert_eq!((circuit.state(), dependency.asked()), (State::HalfOpen, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_let_in_when_the_check_passes() {
    use tower::{Layer, ServiceExt, service_fn};
    use tower_breaker::{BoxError, CircuitBreakerLayer, ResultClassifier, WhenOpen};

    let (circuit, dependency) = (circuit(), Dependency::default());
    circuit.run_health_check(dependency.check()).unwrap();
    circuit.trip();
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new())
        .when_open(WhenOpen::Wait);
    let service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    let began = Instant::now();
    let call = tokio::spawn(service.oneshot(()));
    sleep(WAIT + 5 * SECOND).await;
    assert!(!call.is_finished());
    dependency.heal();
    timeout(2 * SECOND, call).await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() <= WAIT + 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_time_alone_ends_needs_no_caller() {
    let (circuit, dependency) = (circuit(), Dependency::default());
    circuit.run_health_check(dependency.check()).unwrap();
    circuit.set_override(Override::force_closed().expires_in(10 * WAIT));
    circuit.trip();
    pass(10 * WAIT).await;
    assert_eq!(dependency.asked(), 1, "the override is over");
    dependency.heal();
    pass(SECOND).await;
    assert_eq!(circuit.state(), State::HalfOpen);

    // A probe that hangs loses its lease, and the circuit opens again.
    let probe = circuit.try_acquire().unwrap();
    pass(10 * SECOND).await;
    assert_eq!((circuit.state(), dependency.asked()), (State::Open, 2));
    pass(WAIT).await;
    assert_eq!((circuit.state(), dependency.asked()), (State::HalfOpen, 3));
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn a_check_of_an_earlier_opening_or_before_a_forced_state_decides_nothing() {
    let steer: [fn(&Circuit); 2] = [
        |circuit| circuit.set_override(Override::force_open()),
        |circuit| {
            circuit.reset();
            circuit.trip();
        },
    ];
    for steer in steer {
        let circuit = circuit();
        let check = HealthCheck::new(async || {
            sleep(WAIT + SECOND / 2).await;
            Ok::<_, ()>(())
        });
        circuit.run_health_check(check).unwrap();
        circuit.trip();
        pass(WAIT).await;
        steer(&circuit);
        pass(WAIT + SECOND / 2).await;
        assert_eq!(circuit.state(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_was_stopped_or_replaced_decides_nothing() {
    for replaced in [false, true] {
        let circuit = circuit();
        let (steered, down) = (circuit.clone(), Dependency::default());
        let check = HealthCheck::new(move || {
            let (steered, down) = (steered.clone(), down.clone());
            async move {
                if replaced {
                    steered.run_health_check(down.check()).unwrap();
                } else {
                    steered.stop_health_check();
                }
                Ok::<_, ()>(())
            }
        });
        circuit.run_health_check(check.instead_of_probes()).unwrap();
        circuit.trip();
        pass(WAIT).await;
        assert_eq!(circuit.state(), State::Open);
        assert_eq!(circuit.snapshot().awaits_health_check, replaced);
        circuit.stop_health_check();
    }
}

#[tokio::test(start_paused = true)]
async fn checks_without_a_pause_leave_time_for_others() {
    /// Time goes on while code runs.
    struct Ticking(ManualClock);
    impl Observer for Ticking {
        fn on_health_check(&self, _: &str, _: bool) {
            self.0.advance(Duration::from_micros(1));
        }
    }
    let (clock, asked) = (ManualClock::new(), Arc::new(AtomicU32::new(0)));
    let config = config().clock(&clock).observer(Ticking(clock.clone()));
    let circuit = Circuit::new(config.build().unwrap());
    let check = {
        let asked = asked.clone();
        HealthCheck::new(move || {
            let turn = asked.fetch_add(1, Relaxed);
            async move {
                if turn == 1_000 {
                    pending::<()>().await;
                }
                Err::<(), _>("down")
            }
        })
    };
    circuit.run_health_check(check.interval(Duration::from_nanos(1))).unwrap();
    circuit.trip();
    clock.advance(WAIT);
    settle().await;
    let asked = asked.load(Relaxed);
    assert!((1..100).contains(&asked), "{asked} checks in a row");
}

#[tokio::test(start_paused = true)]
async fn metrics_show_one_that_starts_open_as_open_though_nobody_called() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let circuit = Circuit::new(config().start(Start::Open).build().unwrap());
    circuit.run_health_check(Dependency::default().check()).unwrap();
    pass(WAIT).await;
    let shown = recorder.snapshotter().snapshot().into_vec();
    let code = shown.iter().find(|(key, ..)| key.key().name() == "circuit_breaker_state_code");
    assert_eq!(code.unwrap().3, DebugValue::Gauge(2.0.into()));
}

#[tokio::test(start_paused = true)]
async fn a_ramp_that_a_check_begins_is_told_of() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<f64>>>);
    impl Observer for Log {
        fn on_admitted_share(&self, _: &str, share: f64) {
            self.0.lock().unwrap().push(share);
        }
    }
    let (log, dependency) = (Log::default(), Dependency::default());
    dependency.heal();
    let config = config().ramp(10 * SECOND).observer(log.clone());
    let circuit = Circuit::new(config.build().unwrap());
    circuit.run_health_check(dependency.check().instead_of_probes()).unwrap();
    circuit.trip();
    pass(WAIT).await;
    assert_eq!(*log.0.lock().unwrap(), [0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_check_may_take_for_ever() {
    let circuit = circuit();
    let asked = Arc::new(AtomicU32::new(0));
    let check = {
        let asked = asked.clone();
        HealthCheck::new(move || {
            asked.fetch_add(1, Relaxed);
            async {
                tokio::task::yield_now().await;
                Err::<(), _>("down")
            }
        })
    };
    let tick = Duration::from_millis(1);
    circuit.run_health_check(check.interval(tick).jitter(0.0).timeout(Duration::MAX)).unwrap();
    circuit.trip();
    pass(WAIT).await;
    // At whichever part of a second it begins.
    for _ in 0..1_500 {
        pass(tick).await;
    }
    assert!(asked.load(Relaxed) > 1_000);
    circuit.try_acquire().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_the_checks_within_its_share() {
    let (circuit, dependency) = (circuit(), Dependency::default());
    circuit.run_health_check(dependency.check().jitter(0.5)).unwrap();
    circuit.trip();
    sleep(WAIT + 200 * SECOND).await;
    let asked = dependency.asked.lock().unwrap().clone();
    let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Tokio's timer counts in milliseconds.
    let tick = Duration::from_millis(1);
    assert!(pauses.iter().all(|p| *p >= SECOND / 2 && *p <= SECOND * 3 / 2 + tick), "{pauses:?}");
    assert!(pauses.iter().min().unwrap() < &(SECOND * 7 / 10));
    assert!(pauses.iter().max().unwrap() > &(SECOND * 13 / 10));
}

#[tokio::test(start_paused = true)]
async fn it_is_told_of_and_counted() {
    #[derive(Clone, Default)]
    struct Log(Arc<AtomicU64>, Arc<Mutex<Vec<String>>>);
    impl Observer for Log {
        fn on_health_check(&self, circuit: &str, passed: bool) {
            assert_eq!(circuit, "checked");
            self.0.fetch_add(if passed { 1_000 } else { 1 }, Relaxed);
        }
        fn on_transition(&self, transition: &Transition) {
            self.1.lock().unwrap().push(transition.to_string());
        }
    }
    let (log, dependency) = (Log::default(), Dependency::default());
    let circuit = Circuit::new(config().observer(log.clone()).build().unwrap());
    circuit.run_health_check(dependency.check()).unwrap();
    circuit.trip();
    pass(WAIT).await;
    pass(SECOND).await;
    dependency.heal();
    pass(SECOND).await;
    assert_eq!(log.0.load(Relaxed), 1_002);
    let told = log.1.lock().unwrap().last().unwrap().clone();
    assert_eq!(told, "checked: open -> half-open, because 1 health check passed");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let check = || Dependency::default().check();
    for (check, field) in [
        (check().interval(Duration::ZERO), "health_check.interval"),
        (check().timeout(Duration::ZERO), "health_check.timeout"),
        (check().jitter(1.0), "health_check.jitter"),
        (check().jitter(f64::NAN), "health_check.jitter"),
        (check().successes(0), "health_check.successes"),
        (check().successes(3).of(2), "health_check.successes"),
        (check().of(10_001), "health_check.of"),
    ] {
        let error = circuit().run_health_check(check).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    circuit().run_health_check(check().successes(3)).expect("all of the last three");
    circuit().run_health_check(check().of(10_000)).unwrap();
}

#[tokio::test]
async fn a_check_times_out_by_the_circuits_clock() {
    #[derive(Clone, Default)]
    struct Failed(Arc<AtomicU32>);
    impl Observer for Failed {
        fn on_health_check(&self, _: &str, passed: bool) {
            assert!(!passed);
            self.0.fetch_add(1, Relaxed);
        }
    }
    const NANO: Duration = Duration::from_nanos(1);
    let (clock, failed) = (ManualClock::new(), Failed::default());
    let circuit = Circuit::new(config().clock(&clock).observer(failed.clone()).build().unwrap());
    let check = HealthCheck::new(pending::<Result<(), &str>>).timeout(3 * SECOND);
    circuit.run_health_check(check.interval(10 * SECOND)).unwrap();
    circuit.trip();
    for (advance, times) in [(WAIT, 0), (3 * SECOND - NANO, 0), (NANO, 1)] {
        settle().await;
        clock.advance(advance);
        settle().await;
        assert_eq!(failed.0.load(Relaxed), times, "{advance:?}");
    }
}

/// A task that is woken by one check's beginning may begin another there and
/// then.
#[tokio::test(start_paused = true)]
async fn of_two_checks_that_begin_within_one_another_the_newer_one_stays() {
    use std::task::{Context, Wake, Waker};

    use tower::{BoxError, Layer, Service, service_fn};
    use tower_breaker::{CircuitBreakerLayer, ResultClassifier, WhenOpen};

    struct Begins(Circuit, Mutex<Option<HealthCheck>>);
    impl Wake for Begins {
        fn wake(self: Arc<Self>) {
            if let Some(check) = self.1.lock().unwrap().take() {
                self.0.run_health_check(check).unwrap();
            }
        }
    }
    let (circuit, older, newer) = (circuit(), Dependency::default(), Dependency::default());
    newer.heal();
    circuit.trip();
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
    let mut waiting =
        layer.when_open(WhenOpen::Wait).layer(service_fn(async |()| Ok::<_, BoxError>(())));
    let waker = Waker::from(Arc::new(Begins(circuit.clone(), Mutex::new(Some(newer.check())))));
    assert!(waiting.poll_ready(&mut Context::from_waker(&waker)).is_pending());

    circuit.run_health_check(older.check()).unwrap();
    pass(WAIT).await;
    assert_eq!((older.asked(), newer.asked()), (0, 1));
    assert_eq!(circuit.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn the_checks_of_many_circuits_come_apart() {
    let mut seconds = std::collections::HashSet::new();
    for _ in 0..10 {
        let (circuit, dependency) = (circuit(), Dependency::default());
        circuit.run_health_check(dependency.check().jitter(0.5)).unwrap();
        circuit.trip();
        while dependency.asked() < 2 {
            pass(Duration::from_millis(50)).await;
        }
        let asked = dependency.asked.lock().unwrap();
        seconds.insert(asked[1] - asked[0]);
    }
    // By chance fewer in one of very many runs.
    assert!(seconds.len() > 2, "{seconds:?}");
}
