//! The ramp after the probes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_breaker::{
    Backoff, Cause, Circuit, Config, ConfigBuilder, ManualClock, Observer, Outcome, Override,
    Probes, State, Throttle, Transition,
};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(1);

fn config(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("ramp")
        .minimum_calls(4)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::exponential(WAIT, 8 * WAIT).jitter(0.0))
        .probes(Probes::new(2))
        .ramp(100 * SECOND)
        .clock(clock)
}

/// A circuit whose ramp has just begun.
fn ramping(config: ConfigBuilder, clock: &ManualClock) -> Circuit {
    let circuit = Circuit::new(config.build().unwrap());
    circuit.trip();
    clock.advance(WAIT);
    for _ in 0..2 {
        circuit.try_acquire().unwrap().record(Outcome::Success);
    }
    circuit
}

/// Calls that all have the same outcome; how many passed.
fn call(circuit: &Circuit, calls: u64, outcome: Outcome) -> u64 {
    let permits = (0..calls).filter_map(|_| circuit.try_acquire().ok());
    permits.map(|permit| permit.record(outcome)).count() as u64
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Transition>>>, Arc<Mutex<Vec<f64>>>);

impl Observer for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap().push(transition.clone());
    }

    fn on_admitted_share(&self, _: &str, share: f64) {
        self.1.lock().unwrap().push(share);
    }
}

impl Log {
    fn moves(&self) -> Vec<(State, State)> {
        self.0.lock().unwrap().iter().map(|told| (told.from, told.to)).collect()
    }
}

#[test]
fn every_whole_percentage_is_kept_within_one_call() {
    for percent in 0..100u64 {
        let clock = ManualClock::new();
        let circuit = ramping(config(&clock), &clock);
        clock.advance(SECOND * percent as u32);
        let mut passed = 0;
        for asked in 1..=500 {
            passed += call(&circuit, 1, Outcome::Success);
            let exact = asked * percent;
            assert!(passed * 100 <= exact && exact < (passed + 1) * 100, "{passed} of {asked}");
        }
        let share = circuit.snapshot().admitted_share.unwrap();
        assert!((share - percent as f64 / 100.0).abs() < 1e-9, "{share} at {percent} %");
    }
}

#[test]
fn the_share_is_that_of_the_calls_whatever_the_traffic_and_however_it_grows() {
    // One call in every step: the sum of the shares passes, within one.
    for step in [10, 70, 1_300, 9_999] {
        let clock = ManualClock::new();
        let circuit = ramping(config(&clock), &clock);
        let (mut passed, mut due, mut millis) = (0, 0, 0);
        while millis + step < 100_000 {
            clock.advance(Duration::from_millis(step));
            millis += step;
            due += millis;
            passed += call(&circuit, 1, Outcome::Success);
            assert!(passed * 100_000 <= due && due < (passed + 1) * 100_000, "at {millis} ms");
        }
    }
}

#[test]
fn it_is_half_open_until_its_end_and_then_closed_with_empty_counts() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let circuit = ramping(config(&clock).observer(log.clone()), &clock);
    let generation = circuit.snapshot().generation;
    clock.advance(50 * SECOND);
    assert_eq!(call(&circuit, 10, Outcome::Success), 5);
    let seen = circuit.snapshot();
    assert_eq!((seen.state, seen.window.calls, seen.generation), (State::HalfOpen, 5, generation));
    assert_eq!((seen.probes, seen.admitted_share), (None, Some(0.5)));
    assert_eq!(seen.cause, Some(Cause::Tripped), "the cause stays until it is closed");
    assert_eq!(seen.retry_after, Some(SECOND), "by then the share has grown by a percent");

    clock.advance(50 * SECOND - Duration::from_nanos(1));
    assert_eq!(circuit.state(), State::HalfOpen);
    clock.advance(Duration::from_nanos(1));
    let seen = circuit.snapshot();
    assert_eq!(
        (seen.state, seen.window.calls, seen.generation),
        (State::Closed, 0, generation + 1)
    );
    assert_eq!((seen.admitted_share, seen.cause), (None, None));
    assert_eq!(seen.since, clock.now());
    assert_eq!(circuit.state(), State::Closed);

    // Nobody called at that instant; it is told with the time it happened.
    let end = clock.now();
    clock.advance(SECOND);
    assert_eq!(call(&circuit, 3, Outcome::Success), 3);
    let told = log.0.lock().unwrap().last().unwrap().clone();
    assert_eq!((told.from, told.to, told.at), (State::HalfOpen, State::Closed, end));
    assert_eq!(told.cause.label(), "ramp-completed");
    assert_eq!(told.window.calls, 5);
}

#[test]
fn a_failing_ramp_opens_again_for_the_next_wait() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let circuit = ramping(config(&clock).observer(log.clone()), &clock);
    clock.advance(50 * SECOND);
    // Two probes succeeded, but they are not in these counts: of four calls two
    // failures are enough.
    call(&circuit, 4, Outcome::Success);
    assert_eq!(call(&circuit, 2, Outcome::Failure), 1);
    assert_eq!(circuit.state(), State::HalfOpen, "three calls are below the minimum");
    call(&circuit, 2, Outcome::Failure);
    let seen = circuit.snapshot();
    assert_eq!((seen.state, seen.retry_after), (State::Open, Some(2 * WAIT)));
    assert_eq!(seen.cause.unwrap().label(), "failure-rate");

    clock.advance(2 * WAIT);
    call(&circuit, 2, Outcome::Success);
    assert_eq!(circuit.snapshot().admitted_share, Some(0.0), "the next ramp begins anew");
    clock.advance(100 * SECOND);
    circuit.trip();
    assert_eq!(circuit.snapshot().retry_after, Some(WAIT), "closing began the waits anew");
    let states = [State::Open, State::HalfOpen, State::Open, State::HalfOpen, State::Closed];
    let moves: Vec<_> = [State::Closed].into_iter().chain(states).zip(states).collect();
    assert_eq!(log.moves()[..5], moves[..]);
}

#[test]
fn what_is_left_of_the_probes_is_judged_by_the_rules() {
    let clock = ManualClock::new();
    let config = config(&clock).probes(Probes::new(3).successes(1).lease(SECOND)).ramp(SECOND * 2);
    let circuit = Circuit::new(config.consecutive_failures(2).build().unwrap());
    circuit.trip();
    clock.advance(WAIT);
    let probes: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
    let mut probes = probes.into_iter();
    probes.next().unwrap().record(Outcome::Success);
    // On the ramp a lease ends nothing.
    clock.advance(SECOND);
    assert_eq!(circuit.state(), State::HalfOpen);
    probes.next().unwrap().record(Outcome::Failure);
    assert_eq!(circuit.snapshot().window.failures, 1);
    probes.next().unwrap().record(Outcome::Failure);
    assert_eq!(circuit.snapshot().cause.unwrap().label(), "consecutive-failures");
}

#[test]
fn refusals_that_are_seen_ahead_count_as_calls_that_asked() {
    use tower::{Layer, Service, service_fn};
    use tower_breaker::{BoxError, CircuitBreakerLayer, ResultClassifier, WhenOpen};

    for when_open in [WhenOpen::Error, WhenOpen::Defer] {
        let clock = ManualClock::new();
        let circuit = ramping(config(&clock), &clock);
        let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new())
            .when_open(when_open);
        let mut service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
        clock.advance(30 * SECOND);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let rejected = circuit.snapshot().totals.rejected;
        let mut passed = 0;
        for asked in 1..=100u64 {
            if let std::task::Poll::Ready(Ok(())) = service.poll_ready(&mut context) {
                let call = std::pin::pin!(service.call(()));
                passed += u64::from(matches!(
                    std::future::Future::poll(call, &mut context),
                    std::task::Poll::Ready(Ok(()))
                ));
            }
            assert!(
                passed * 10 <= asked * 3 && asked * 3 < (passed + 1) * 10,
                "{passed} of {asked}"
            );
        }
        assert_eq!(circuit.snapshot().totals.rejected - rejected, 70, "{when_open:?}");
    }
}

#[test]
fn who_waits_for_a_probe_is_woken_when_the_ramp_begins() {
    use std::{
        sync::atomic::{AtomicU32, Ordering::Relaxed},
        task::{Context, Wake, Waker},
    };
    use tower::{Layer, Service, service_fn};
    use tower_breaker::{BoxError, CircuitBreakerLayer, ResultClassifier, WhenOpen};

    struct Woken(AtomicU32);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let clock = ManualClock::new();
    let circuit = Circuit::new(config(&clock).probes(Probes::new(1)).build().unwrap());
    circuit.trip();
    clock.advance(WAIT);
    let probe = circuit.try_acquire().unwrap();
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new())
        .when_open(WhenOpen::Wait);
    let mut service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    let woken = Arc::new(Woken(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).map_ok(drop).is_pending());
    probe.record(Outcome::Success);
    assert_eq!(woken.0.load(Relaxed), 1, "or it would sleep until the end of the lease");
}

#[tokio::test(start_paused = true)]
async fn who_waits_asks_once_a_percent_however_often_it_is_polled() {
    use tower::{Layer, Service, service_fn};
    use tower_breaker::{BoxError, CircuitBreakerLayer, ResultClassifier, WhenOpen};

    let clock = ManualClock::new();
    let circuit = ramping(config(&clock), &clock);
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new())
        .when_open(WhenOpen::Wait);
    let mut service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    clock.advance(10 * SECOND);
    // Beside something busy in the same task, say.
    for _ in 0..100 {
        assert!(service.poll_ready(&mut context).map_ok(drop).is_pending());
    }
    circuit.try_acquire().unwrap_err();
    // Each percent it asks again: 10, 10, 11, 12 and so on to 15 make 85, and 15
    // and a half more is enough.
    for percent in 11..=15 {
        clock.advance(SECOND / 2);
        assert!(
            service.poll_ready(&mut context).map_ok(drop).is_pending(),
            "between, at {percent}"
        );
        clock.advance(SECOND / 2);
        assert!(service.poll_ready(&mut context).map_ok(drop).is_pending(), "{percent}");
    }
    clock.advance(SECOND / 2);
    assert!(service.poll_ready(&mut context).map_ok(drop).is_ready());
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_through_on_the_ramp() {
    use tower::{Layer, ServiceExt, service_fn};
    use tower_breaker::{BoxError, CircuitBreakerLayer, ResultClassifier, WhenOpen};

    let config = Config::builder("waiting").probes(Probes::new(1)).ramp(10 * SECOND);
    let circuit = Circuit::new(config.open_for(Backoff::fixed(WAIT)).build().unwrap());
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new())
        .when_open(WhenOpen::Wait);
    let service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
    circuit.trip();
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    for call in calls {
        // Ready is not admitted: who loses that race is told so.
        let _ = call.await.unwrap();
    }
    assert!(circuit.snapshot().totals.success > 1);
    assert_eq!(service.clone().oneshot(()).await.ok(), Some(()));
}

#[test]
fn steering_works_on_the_ramp_as_elsewhere() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let circuit = ramping(config(&clock).observer(log.clone()), &clock);
    clock.advance(10 * SECOND);

    circuit.set_override(Override::observe_only().until_cleared());
    assert_eq!(call(&circuit, 10, Outcome::Failure), 10, "all pass");
    let seen = circuit.snapshot();
    assert_eq!((seen.totals.would_reject, seen.window.failures), (9, 1), "one was the ramp's own");

    circuit.set_override(Override::force_closed().until_cleared());
    assert_eq!(call(&circuit, 10, Outcome::Failure), 10);
    assert_eq!(circuit.snapshot().window.failures, 1, "the machine hears of none");

    let held = circuit.try_acquire().unwrap();
    circuit.set_override(Override::force_open().until_cleared());
    assert_eq!(call(&circuit, 10, Outcome::Success), 0);
    let refused = circuit.try_acquire().unwrap_err().to_string();
    assert_eq!(refused, "circuit ramp is open", "no share passes");
    circuit.clear_override();
    held.record(Outcome::Failure);
    assert_eq!(circuit.snapshot().window.failures, 1, "nor of one that ends later");

    circuit.trip();
    assert_eq!(circuit.snapshot().retry_after, Some(2 * WAIT), "like a failed probe");
    clock.advance(2 * WAIT);
    call(&circuit, 2, Outcome::Success);
    circuit.reset();
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn the_share_is_told_once_a_percent() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let circuit = ramping(config(&clock).observer(log.clone()), &clock);
    for _ in 0..400 {
        clock.advance(Duration::from_millis(250));
        call(&circuit, 2, Outcome::Success);
    }
    let told = log.1.lock().unwrap().clone();
    let percents: Vec<_> = (0..100).map(|percent| f64::from(percent) / 100.0).collect();
    assert_eq!(told, percents);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn beside_a_throttle_the_ramp_s_share_alone_is_told() {
    let (clock, log) = (ManualClock::new(), Log::default());
    let throttle = Throttle::new(1.0).minimum_calls(0);
    let config = config(&clock).no_failure_rate().throttle(throttle).observer(log.clone());
    let circuit = ramping(config, &clock);
    clock.advance(50 * SECOND);
    assert_eq!(call(&circuit, 40, Outcome::Failure), 20, "while closed it would throttle");
    assert_eq!(*log.1.lock().unwrap(), [0.0, 0.5]);
}

#[test]
fn a_refusal_on_the_ramp_says_so() {
    let clock = ManualClock::new();
    let circuit = ramping(config(&clock), &clock);
    clock.advance(20 * SECOND);
    let open = circuit.try_acquire().unwrap_err();
    assert_eq!(open.state(), State::HalfOpen);
    assert_eq!(open.to_string(), "circuit ramp lets 20% of its calls pass, retry after 1.0s");
}

#[test]
fn a_ramp_that_never_ends_or_never_was_is_refused() {
    for (over, shown) in
        [(Duration::ZERO, "0ns"), (Duration::MAX, "18446744073709551615.999999999s")]
    {
        let error = Config::builder("ramp").ramp(over).build().unwrap_err();
        assert!(error.to_string().contains("ramp") && error.to_string().contains(shown), "{error}");
    }
}
