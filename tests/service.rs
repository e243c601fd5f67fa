//! The laws of the layer, the service and the future: when `poll_ready` says
//! what, who holds a permit, and which error the caller sees.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, load_shed::error::Overloaded, service_fn,
};
use tower_breaker::{
    Backoff, Cancellation, Circuit, CircuitBreakerLayer, CircuitOpen, Classify, Config,
    ConfigBuilder, HttpClassifier, ManualClock, Outcome, Override, Probes, ResultClassifier, State,
    WhenOpen,
};
use tower_test::{assert_request_eq, mock};

const SECOND: Duration = Duration::from_secs(1);

/// Opens at the first failure, for five seconds; one probe.
fn touchy(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("touchy")
        .consecutive_failures(1)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1))
        .clock(clock)
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn ready_now<S: Service<R>, R>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

type Mock = mock::Mock<&'static str, &'static str>;
type Handle = mock::Handle<&'static str, &'static str>;

/// A mock behind a touchy circuit.
fn mocked(
    clock: &ManualClock,
    when_open: WhenOpen,
) -> (tower_breaker::CircuitBreaker<Mock, ResultClassifier>, Handle, Circuit) {
    let (mock, handle) = mock::pair();
    let circuit = Circuit::new(touchy(clock).build().unwrap());
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
    (layer.when_open(when_open).layer(mock), handle, circuit)
}

mod readiness {
    use super::*;

    #[tokio::test]
    async fn while_open_poll_ready_fails_before_it_touches_the_inner_service() {
        let clock = ManualClock::new();
        let polled = Arc::new(AtomicUsize::new(0));
        let inner = CountReady { polled: Arc::clone(&polled), ready: true };
        let layer = CircuitBreakerLayer::with_classifier(
            touchy(&clock).build().unwrap(),
            ResultClassifier::new(),
        );
        let mut service = layer.layer(inner);
        assert!(ready_now(&mut service).is_ready());
        assert_eq!(polled.load(Relaxed), 1);

        layer.circuit().trip();
        let Poll::Ready(Err(error)) = ready_now(&mut service) else { panic!("not refused") };
        let open = error.downcast_ref::<CircuitOpen>().unwrap();
        assert_eq!((open.name(), open.state()), ("touchy", State::Open));
        assert_eq!(open.retry_after(), Some(5 * SECOND));
        assert_eq!(polled.load(Relaxed), 1);
        assert_eq!(layer.circuit().snapshot().totals.rejected, 1);
    }

    #[test]
    fn a_wait_without_end_is_a_wait() {
        let clock = ManualClock::new();
        let endless = touchy(&clock).open_for(Backoff::fixed(Duration::MAX).jitter(0.0));
        let circuit = Circuit::new(endless.build().unwrap());
        let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
        let inner = CountReady { polled: Arc::default(), ready: true };
        let mut service = layer.layer(inner);
        let mut refusals = || {
            let Poll::Ready(Err(error)) = ready_now(&mut service) else { panic!("not refused") };
            let seen = error.downcast_ref::<CircuitOpen>().unwrap().retry_after();
            [seen, circuit.try_acquire().unwrap_err().retry_after()]
        };
        let centuries = |wait: Option<Duration>| wait.is_some_and(|wait| wait.as_secs() > 1 << 34);
        circuit.trip();
        assert!(refusals().into_iter().all(centuries));
        circuit.set_override(Override::force_open().expires_in(Duration::MAX));
        assert!(refusals().into_iter().all(centuries));
        circuit.set_override(Override::force_open().until_cleared());
        assert_eq!(refusals(), [None; 2]);
    }

    #[tokio::test]
    async fn looking_takes_no_probe_however_many_clones_look() {
        let clock = ManualClock::new();
        let (service, mut handle, circuit) = mocked(&clock, WhenOpen::Error);
        circuit.trip();
        clock.advance(5 * SECOND);
        let mut idle: Vec<_> = (0..1_000).map(|_| service.clone()).collect();
        handle.allow(2_000);
        for clone in &mut idle {
            assert!(matches!(ready_now(clone), Poll::Ready(Ok(()))));
        }
        assert_eq!(circuit.state(), State::Open, "looking moves nothing");

        let call = idle[500].call("probe");
        assert_eq!(circuit.state(), State::HalfOpen);
        assert_request_eq!(handle, "probe").send_response("well");
        assert_eq!(call.await.unwrap(), "well");
        assert_eq!(circuit.state(), State::Closed);
    }

    #[tokio::test]
    async fn the_loser_between_ready_and_call_is_refused_by_call() {
        let clock = ManualClock::new();
        for when_open in [WhenOpen::Error, WhenOpen::Defer, WhenOpen::Wait] {
            let (mut service, mut handle, circuit) = mocked(&clock, when_open);
            handle.allow(10);
            assert!(ready_now(&mut service).is_ready());
            circuit.trip();
            let error = service.call("late").await.unwrap_err();
            assert!(error.is::<CircuitOpen>(), "{when_open:?}");
            assert!(poll(handle.next_request()).is_pending(), "the inner service was called");
            assert_eq!(circuit.snapshot().totals.rejected, 1);
        }
    }

    #[tokio::test]
    async fn call_without_poll_ready_admits_when_closed_and_refuses_when_open() {
        let clock = ManualClock::new();
        let layer = CircuitBreakerLayer::with_classifier(
            touchy(&clock).build().unwrap(),
            ResultClassifier::new(),
        );
        let mut service = layer.layer(service_fn(async |n: u32| Ok::<_, BoxError>(n + 1)));
        assert_eq!(service.call(1).await.unwrap(), 2);
        layer.circuit().trip();
        assert!(service.call(1).await.unwrap_err().is::<CircuitOpen>());
        clock.advance(5 * SECOND);
        assert_eq!(service.call(1).await.unwrap(), 2);
        assert_eq!(layer.circuit().state(), State::Closed);
    }

    #[tokio::test]
    async fn errors_of_the_inner_poll_ready_pass_and_are_not_counted() {
        let clock = ManualClock::new();
        let (mut service, mut handle, circuit) = mocked(&clock, WhenOpen::Error);
        handle.send_error("no socket");
        let Poll::Ready(Err(error)) = ready_now(&mut service) else { panic!("swallowed") };
        assert_eq!(error.to_string(), "no socket");
        assert_eq!(circuit.snapshot().totals, Default::default());
        assert_eq!(circuit.state(), State::Closed);
    }

    #[tokio::test]
    async fn deferred_the_inner_service_is_never_called_unasked() {
        let clock = ManualClock::new();
        let inner = CountReady { polled: Arc::default(), ready: false };
        let layer = CircuitBreakerLayer::with_classifier(
            touchy(&clock).build().unwrap(),
            ResultClassifier::new(),
        );
        let mut service = layer.clone().when_open(WhenOpen::Defer).layer(inner);
        layer.circuit().trip();
        assert!(matches!(ready_now(&mut service), Poll::Ready(Ok(()))), "stuck inner or not");
        // The wait ends between the two; the inner service, never ready, would
        // panic if it were called.
        clock.advance(5 * SECOND);
        let error = service.call(()).await.unwrap_err();
        let open = error.downcast_ref::<CircuitOpen>().unwrap();
        assert_eq!(open.retry_after(), Some(Duration::ZERO));
        assert_eq!(layer.circuit().state(), State::Open, "no probe was spent");
        assert_eq!(layer.circuit().snapshot().totals.rejected, 1);
        assert!(ready_now(&mut service).is_pending(), "now the inner service is asked");
    }

    #[tokio::test]
    async fn a_caller_stuck_in_the_inner_service_is_woken_by_an_opening() {
        let clock = ManualClock::new();
        for when_open in [WhenOpen::Error, WhenOpen::Defer] {
            let (service, mut stuck, circuit) = mocked(&clock, when_open);
            stuck.allow(0);
            let mut service = tower_test::mock::Spawn::new(service);
            assert!(service.poll_ready().is_pending());
            assert!(!service.is_woken());
            circuit.set_override(Override::force_open());
            assert!(service.is_woken(), "{when_open:?}");
            assert!(service.poll_ready().is_ready(), "refused, or deferred");
        }
    }

    #[tokio::test]
    async fn half_open_without_a_probe_left_is_refused_as_such() {
        let clock = ManualClock::new();
        for (when_open, early) in [(WhenOpen::Error, true), (WhenOpen::Defer, false)] {
            let (mut service, mut handle, circuit) = mocked(&clock, when_open);
            handle.allow(10);
            circuit.trip();
            clock.advance(5 * SECOND);
            let _probe = circuit.try_acquire().unwrap();
            let error = match ready_now(&mut service) {
                Poll::Ready(Err(error)) => {
                    assert!(early);
                    error
                }
                _ => {
                    assert!(!early);
                    service.call("second").await.unwrap_err()
                }
            };
            let open = error.downcast_ref::<CircuitOpen>().unwrap();
            assert_eq!(open.state(), State::HalfOpen);
            assert_eq!(open.retry_after(), Some(10 * SECOND), "the end of the lease");
        }
    }

    #[test]
    fn the_service_behind_it_can_be_reached_and_taken_back() {
        let layer = CircuitBreakerLayer::new(Config::default());
        let mut service = layer.layer(vec!["inner"]);
        service.get_mut().push("service");
        assert_eq!(service.get_ref().join(" "), "inner service");
        assert_eq!(service.into_inner(), ["inner", "service"]);
    }

    #[test]
    fn everything_is_send_and_sync_if_the_inner_service_is() {
        fn is<T: Send + Sync + Clone + std::fmt::Debug + 'static>(_: &T) {}
        let layer = CircuitBreakerLayer::new(Config::default());
        is(&layer);
        is(layer.circuit());
        is(&layer.layer(()));
        is(&layer.clone().fallback::<_, _, tower_breaker::AsError>(|_| Response::new(())));
        fn send<T: Send + Sync>() {}
        send::<tower_breaker::Permit>();
        send::<tower_breaker::Snapshot>();
        send::<CircuitOpen>();
    }

    /// Ready or never; counts how often it was asked, and panics if called
    /// without having been ready.
    struct CountReady {
        polled: Arc<AtomicUsize>,
        ready: bool,
    }

    impl Service<()> for CountReady {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.polled.fetch_add(1, Relaxed);
            if self.ready { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn call(&mut self, (): ()) -> Self::Future {
            assert!(self.ready, "called without having been ready");
            std::future::ready(Ok(()))
        }
    }
}

mod waiting {
    use super::*;

    #[tokio::test]
    async fn wait_is_pending_until_the_wait_is_over() {
        let clock = ManualClock::new();
        let (service, mut handle, circuit) = mocked(&clock, WhenOpen::Wait);
        circuit.trip();
        let mut service = tower_test::mock::Spawn::new(service);
        handle.allow(1);
        assert!(service.poll_ready().is_pending());
        clock.advance(5 * SECOND - Duration::from_nanos(1));
        assert!(!service.is_woken());
        clock.advance(Duration::from_nanos(1));
        assert!(service.is_woken());
        assert!(service.poll_ready().is_ready());
        assert_eq!(circuit.snapshot().totals.rejected, 0, "nobody was refused");
    }

    #[tokio::test]
    async fn every_change_that_may_admit_wakes() {
        let clock = ManualClock::new();
        type Change = fn(&Circuit, &ManualClock);
        let changes: [(&str, Change); 5] = [
            ("reset", |circuit, _| circuit.reset()),
            ("force closed", |circuit, _| circuit.set_override(Override::force_closed())),
            ("observe", |circuit, _| circuit.set_override(Override::observe_only())),
            ("the wait's end", |_, clock| clock.advance(5 * SECOND)),
            ("all at once", |circuit, clock| {
                clock.advance(SECOND);
                circuit.reset();
                circuit.trip();
                circuit.reset();
            }),
        ];
        for (name, change) in changes {
            let (service, mut handle, circuit) = mocked(&clock, WhenOpen::Wait);
            handle.allow(1);
            circuit.trip();
            let mut service = tower_test::mock::Spawn::new(service);
            assert!(service.poll_ready().is_pending(), "{name}");
            change(&circuit, &clock);
            assert!(service.is_woken(), "{name}");
            assert!(service.poll_ready().is_ready(), "{name}");
        }
    }

    #[tokio::test]
    async fn under_an_override_the_end_of_that_counts_too() {
        let clock = ManualClock::new();
        let (service, mut handle, circuit) = mocked(&clock, WhenOpen::Wait);
        handle.allow(1);
        circuit.set_override(Override::force_open().expires_in(60 * SECOND));
        let mut service = tower_test::mock::Spawn::new(service);
        assert!(service.poll_ready().is_pending());
        clock.advance(60 * SECOND);
        assert!(service.is_woken());
        assert!(service.poll_ready().is_ready());

        circuit.set_override(Override::force_open().until_cleared());
        let (mut service, _handle) = (tower_test::mock::Spawn::new(service.into_inner()), handle);
        assert!(service.poll_ready().is_pending());
        clock.advance(1_000_000 * SECOND);
        assert!(!service.is_woken(), "nothing ends by itself");
        circuit.clear_override();
        assert!(service.is_woken());
    }

    #[tokio::test]
    async fn a_probe_given_back_and_a_lease_that_ends_wake() {
        let clock = ManualClock::new();
        let (service, mut handle, circuit) = mocked(&clock, WhenOpen::Wait);
        handle.allow(9);
        circuit.trip();
        clock.advance(5 * SECOND);
        let probe = circuit.try_acquire().unwrap();
        let mut service = tower_test::mock::Spawn::new(service);
        assert!(service.poll_ready().is_pending());
        drop(probe);
        assert!(service.is_woken());
        assert!(service.poll_ready().is_ready());

        let _probe = circuit.try_acquire().unwrap();
        assert!(service.poll_ready().is_pending());
        clock.advance(10 * SECOND);
        assert!(service.is_woken(), "the lease is over, and the new wait as well, from its end");
        clock.advance(5 * SECOND);
        assert!(service.poll_ready().is_ready());
    }

    #[tokio::test]
    async fn a_service_that_no_longer_waits_is_forgotten() {
        let clock = ManualClock::new();
        let (service, _handle, circuit) = mocked(&clock, WhenOpen::Wait);
        circuit.trip();
        let waker = Arc::new(Count(AtomicUsize::new(0)));
        let mut clones: Vec<_> = (0..100).map(|_| service.clone()).collect();
        for clone in &mut clones {
            let waker = Waker::from(Arc::clone(&waker));
            assert!(clone.poll_ready(&mut Context::from_waker(&waker)).is_pending());
        }
        assert!(Arc::strong_count(&waker) > 100);
        drop(clones);
        assert_eq!(Arc::strong_count(&waker), 1, "a waker stayed behind");
        circuit.reset();
        assert_eq!(waker.0.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_service_that_is_ready_waits_no_more() {
        let clock = ManualClock::new();
        let (service, mut handle, circuit) = mocked(&clock, WhenOpen::Error);
        let mut service = tower_test::mock::Spawn::new(service);
        handle.allow(0);
        assert!(service.poll_ready().is_pending(), "the inner one is busy");
        handle.allow(1);
        assert!(service.poll_ready().is_ready());
        circuit.trip();
        assert!(!service.is_woken());
    }

    #[tokio::test]
    async fn everybody_who_waits_is_woken() {
        let clock = ManualClock::new();
        let changes: [fn(&Circuit, &ManualClock); 2] =
            [|circuit, _| circuit.reset(), |_, clock| clock.advance(5 * SECOND)];
        for change in changes {
            let (service, _handle, circuit) = mocked(&clock, WhenOpen::Wait);
            circuit.trip();
            let mut services = [(); 3].map(|()| tower_test::mock::Spawn::new(service.clone()));
            for service in &mut services {
                assert!(service.poll_ready().is_pending());
            }
            // One of them gives up.
            let [first, second, third] = services;
            drop(second);
            change(&circuit, &clock);
            assert!(first.is_woken() && third.is_woken());
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "it stands still unless somebody waits")]
    async fn with_tokios_clock_it_waits_on_tokios_timer() {
        let config = Config::builder("paused").open_for(Backoff::fixed(3 * SECOND)).build();
        let layer = CircuitBreakerLayer::with_classifier(config.unwrap(), ResultClassifier::new());
        let mut service = layer
            .clone()
            .when_open(WhenOpen::Wait)
            .layer(service_fn(async |()| Ok::<_, BoxError>(())));
        layer.circuit().trip();
        let start = tokio::time::Instant::now();
        service.ready().await.unwrap().call(()).await.unwrap();
        let waited = start.elapsed();
        assert!(waited >= 3 * SECOND && waited < 4 * SECOND, "{waited:?}");
    }

    /// A waker that counts.
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
}

mod errors {
    use super::*;

    #[derive(Debug)]
    struct Broken;

    impl std::fmt::Display for Broken {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("broken")
        }
    }

    impl std::error::Error for Broken {}

    #[tokio::test]
    async fn inner_errors_are_boxed_as_themselves() {
        let layer = CircuitBreakerLayer::new(Config::default());
        let service = layer.layer(service_fn(async |_: ()| Err::<Response<()>, _>(Broken)));
        assert!(service.oneshot(()).await.unwrap_err().is::<Broken>());
        let service =
            layer.layer(service_fn(async |_: ()| Err::<Response<()>, BoxError>(Broken.into())));
        assert!(service.oneshot(()).await.unwrap_err().is::<Broken>(), "not boxed twice");
        assert_eq!(layer.circuit().snapshot().totals.failure, 2);
    }

    #[tokio::test]
    async fn a_fallback_keeps_the_inner_error_type_whatever_it_is() {
        let layer =
            CircuitBreakerLayer::new(Config::default()).fallback(|_| Response::new("spare"));
        let service = layer.layer(service_fn(async |_: ()| Err::<Response<&str>, _>(Broken)));
        let Broken = service.oneshot(()).await.unwrap_err();

        let layer =
            CircuitBreakerLayer::new(Config::default()).fallback(|_| Response::new("spare"));
        let service =
            layer.layer(service_fn(async |_: ()| Err::<Response<&str>, BoxError>(Broken.into())));
        let error: BoxError = service.oneshot(()).await.unwrap_err();
        assert!(error.is::<Broken>());

        let layer =
            CircuitBreakerLayer::new(Config::default()).fallback(|_| Response::new("spare"));
        layer.circuit().trip();
        let inner = service_fn(async |_: ()| Ok::<_, Infallible>(Response::new("real")));
        let answer: Result<_, Infallible> = layer.layer(inner).oneshot(()).await;
        assert_eq!(answer.unwrap().into_body(), "spare");
    }

    #[tokio::test]
    async fn a_fallback_is_given_the_request_and_the_refusal_and_may_fail_itself() {
        let layer = CircuitBreakerLayer::new(Config::default()).fallback_with(
            |request: Request<&'static str>, open: CircuitOpen| async move {
                tokio::task::yield_now().await;
                match *request.body() {
                    "fail" => Err(Broken),
                    body => Ok(Response::new(format!("{body} for {}", open.name()))),
                }
            },
        );
        let circuit = layer.circuit().clone();
        let service = layer.layer(service_fn(async |_: Request<&'static str>| {
            Ok::<_, Broken>(Response::new("real".to_owned()))
        }));
        let ask = |body| service.clone().oneshot(Request::new(body));
        assert_eq!(ask("a").await.unwrap().into_body(), "real");
        circuit.trip();
        assert_eq!(ask("a").await.unwrap().into_body(), "a for default");
        let Broken = ask("fail").await.unwrap_err();
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.success, totals.failure, totals.rejected), (1, 0, 2));
    }

    #[tokio::test]
    async fn refusals_from_further_in_are_ignored() {
        let inner_open = || {
            let circuit = Circuit::new(Config::builder("inner").build().unwrap());
            circuit.trip();
            circuit.try_acquire().unwrap_err()
        };
        let wrapped = std::io::Error::other(inner_open());
        let errors: [BoxError; 3] =
            [Box::new(inner_open()), Box::new(wrapped), Box::new(Overloaded::new())];
        for error in errors {
            let layer = CircuitBreakerLayer::new(Config::default());
            let mut error = Some(error);
            let service = layer.layer(service_fn(move |_: ()| {
                let error = error.take().unwrap();
                async move { Err::<Response<()>, _>(error) }
            }));
            service.oneshot(()).await.unwrap_err();
            let totals = layer.circuit().snapshot().totals;
            assert_eq!((totals.ignored, totals.failure), (1, 0));
        }
    }

    #[tokio::test]
    async fn a_breaker_in_a_breaker_lets_the_inner_one_decide() {
        let clock = ManualClock::new();
        let outer = CircuitBreakerLayer::new(touchy(&clock).build().unwrap());
        let inner = CircuitBreakerLayer::new(touchy(&clock).build().unwrap());
        inner.circuit().trip();
        let service = ServiceBuilder::new()
            .layer(outer.clone())
            .layer(inner.when_open(WhenOpen::Defer))
            .service(service_fn(async |_: ()| Ok::<_, BoxError>(Response::new(()))));
        let error = service.oneshot(()).await.unwrap_err();
        assert!(CircuitOpen::find_in(&*error).is_some());
        assert_eq!(outer.circuit().state(), State::Closed);
        assert_eq!(outer.circuit().snapshot().totals.ignored, 1);
    }
}

mod endings {
    use super::*;

    /// A service that never answers.
    fn hang() -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone {
        service_fn(async |()| std::future::pending::<Result<(), BoxError>>().await)
    }

    fn slow_rule(clock: &ManualClock) -> ConfigBuilder {
        touchy(clock)
            .sustained_for(Duration::ZERO)
            .minimum_calls(2)
            .slow_calls(SECOND, 1.0)
            .probes(Probes::new(1).lease(60 * SECOND))
    }

    fn drop_after(age: Duration, clock: &ManualClock, circuit: &Circuit) {
        let layer = CircuitBreakerLayer::with_classifier(circuit, ResultClassifier::new());
        let mut service = layer.layer(hang());
        assert!(ready_now(&mut service).is_ready());
        let mut call = Box::pin(service.call(()));
        assert!(poll(call.as_mut()).is_pending());
        clock.advance(age);
        drop(call);
    }

    #[tokio::test]
    async fn a_call_dropped_young_is_neutral_and_one_dropped_old_is_slow() {
        let clock = ManualClock::new();
        let circuit = Circuit::new(slow_rule(&clock).build().unwrap());
        for _ in 0..10 {
            drop_after(SECOND, &clock, &circuit);
        }
        assert_eq!(circuit.snapshot().window.calls, 0);
        let old = SECOND + Duration::from_nanos(1);
        drop_after(old, &clock, &circuit);
        assert_eq!(circuit.snapshot().window.slow, 1);
        drop_after(old, &clock, &circuit);
        assert_eq!(circuit.state(), State::Open, "a caller's timeout outside shows the hang");
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.cancelled, totals.slow, totals.failure), (12, 2, 0));

        clock.advance(5 * SECOND);
        drop_after(SECOND, &clock, &circuit);
        assert_eq!(circuit.state(), State::HalfOpen, "a young drop gives the probe back");
        drop_after(old, &clock, &circuit);
        assert_eq!(circuit.state(), State::Open, "an old one has failed");
    }

    #[tokio::test]
    async fn on_servers_a_drop_can_be_made_neutral_at_any_age() {
        let clock = ManualClock::new();
        let config = slow_rule(&clock).cancellation(Cancellation::Neutral).build().unwrap();
        let circuit = Circuit::new(config);
        for _ in 0..10 {
            drop_after(60 * SECOND, &clock, &circuit);
        }
        let snapshot = circuit.snapshot();
        assert_eq!((snapshot.window.calls, snapshot.totals.cancelled), (0, 10));
    }

    #[tokio::test]
    async fn a_future_dropped_before_its_first_poll_gives_its_probe_back() {
        let clock = ManualClock::new();
        let (mut service, mut handle, circuit) = mocked(&clock, WhenOpen::Error);
        handle.allow(100);
        circuit.trip();
        clock.advance(5 * SECOND);
        for _ in 0..50 {
            assert!(matches!(ready_now(&mut service), Poll::Ready(Ok(()))));
            drop(service.call("probe"));
        }
        assert_eq!(circuit.snapshot().probes.unwrap().permits_left, 1);
        assert_eq!(circuit.snapshot().totals.cancelled, 50);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_wherever_it_happens_and_goes_on() {
        let clock = ManualClock::new();
        for stage in ["call", "poll", "classifier"] {
            let layer = CircuitBreakerLayer::with_classifier(
                touchy(&clock).build().unwrap(),
                ResultClassifier::new(),
            )
            .classify_fn(move |_: Result<&(), _>, _| match stage {
                "classifier" => panic!("in the classifier"),
                _ => Outcome::Success,
            });
            let circuit = layer.circuit().clone();
            let mut service = layer.layer(service_fn(move |()| {
                assert_ne!(stage, "call");
                async move {
                    assert_ne!(stage, "poll");
                    Ok::<_, BoxError>(())
                }
            }));
            let call = tokio::spawn(async move { service.call(()).await });
            assert!(call.await.unwrap_err().is_panic(), "{stage}");
            let totals = circuit.snapshot().totals;
            assert_eq!((totals.failure, totals.cancelled), (1, 0), "{stage}");
            assert_eq!(circuit.state(), State::Open, "{stage}");
        }
    }

    #[tokio::test]
    async fn a_call_in_flight_when_something_else_panics_was_only_cancelled() {
        let clock = ManualClock::new();
        let layer = CircuitBreakerLayer::with_classifier(
            touchy(&clock).build().unwrap(),
            ResultClassifier::new(),
        );
        let circuit = layer.circuit().clone();
        let mut service = layer.layer(hang());
        let task = tokio::spawn(async move {
            let mut call = Box::pin(service.call(()));
            poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            panic!("elsewhere");
        });
        assert!(task.await.unwrap_err().is_panic());
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.failure, totals.cancelled), (0, 1));
    }

    #[tokio::test]
    async fn the_permit_lives_in_the_future_and_not_in_the_service() {
        let clock = ManualClock::new();
        let (mut service, mut handle, circuit) = mocked(&clock, WhenOpen::Error);
        handle.allow(9);
        circuit.trip();
        clock.advance(5 * SECOND);
        assert!(ready_now(&mut service).is_ready());
        let call = service.call("probe");
        drop(service);
        assert_eq!(circuit.snapshot().probes.unwrap().in_flight, 1);
        drop(call);
        assert_eq!(circuit.snapshot().probes.unwrap().in_flight, 0);
    }
}

mod sharing {
    use super::*;

    #[tokio::test]
    async fn a_layer_applied_anew_for_every_request_still_trips() {
        let clock = ManualClock::new();
        let config = touchy(&clock).consecutive_failures(5).build().unwrap();
        let layer = CircuitBreakerLayer::new(config);
        let calls = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let calls = Arc::clone(&calls);
            let service = layer.layer(service_fn(move |_: ()| {
                calls.fetch_add(1, Relaxed);
                async { Err::<Response<()>, BoxError>("down".into()) }
            }));
            service.oneshot(()).await.unwrap_err();
        }
        assert_eq!(calls.load(Relaxed), 5);
    }

    #[tokio::test]
    async fn two_layers_may_share_a_circuit_and_two_configs_do_not() {
        let circuit = Circuit::new(Config::default());
        let a = CircuitBreakerLayer::new(circuit.clone());
        let b = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
        a.circuit().trip();
        assert_eq!(b.circuit().state(), State::Open);
        assert_eq!(CircuitBreakerLayer::new(Config::default()).circuit().state(), State::Closed);
    }
}

mod classifying {
    use super::*;

    async fn totals_of(
        layer: CircuitBreakerLayer<impl tower_breaker::Classify<Response<()>> + Clone>,
        answer: impl Fn() -> Result<Response<()>, BoxError>,
    ) -> (u64, u64, u64) {
        let circuit = layer.circuit().clone();
        let service = layer.layer(service_fn(|_: ()| std::future::ready(answer())));
        let _ = service.oneshot(()).await;
        let totals = circuit.snapshot().totals;
        (totals.success, totals.failure, totals.ignored)
    }

    const SUCCESS: (u64, u64, u64) = (1, 0, 0);
    const FAILURE: (u64, u64, u64) = (0, 1, 0);
    const IGNORED: (u64, u64, u64) = (0, 0, 1);

    #[tokio::test]
    async fn http_is_judged_by_its_status() {
        for code in 100..=999 {
            let expected = match code {
                429 => IGNORED,
                500.. => FAILURE,
                _ => SUCCESS,
            };
            let answer = || {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok(response)
            };
            let layer = CircuitBreakerLayer::new(Config::default());
            assert_eq!(totals_of(layer, answer).await, expected, "{code}");
        }
        let layer = CircuitBreakerLayer::new(Config::default());
        assert_eq!(totals_of(layer, || Err("reset".into())).await, FAILURE);
    }

    #[tokio::test]
    async fn grpc_is_judged_by_its_status_if_it_has_one_at_the_head() {
        let of = |content_type: &'static str, status: Option<&'static str>, code: u16| {
            move || {
                let mut response =
                    Response::builder().status(code).header("content-type", content_type);
                if let Some(status) = status {
                    response = response.header("grpc-status", status);
                }
                Ok(response.body(()).unwrap())
            }
        };
        for status in 0..=20u32 {
            let expected = match status {
                2 | 4 | 13 | 14 | 15 => FAILURE,
                1 | 8 => IGNORED,
                _ => SUCCESS,
            };
            let status: &'static str = status.to_string().leak();
            for content_type in ["application/grpc", "application/grpc+proto", "Application/gRPC"] {
                let layer = CircuitBreakerLayer::new(Config::default());
                let totals = totals_of(layer, of(content_type, Some(status), 200)).await;
                assert_eq!(totals, expected, "{content_type} {status}");
            }
        }
        let layer = || CircuitBreakerLayer::new(Config::default());
        let nonsense = of("application/grpc", Some("nonsense"), 200);
        assert_eq!(totals_of(layer(), nonsense).await, FAILURE);
        assert_eq!(totals_of(layer(), of("application/grpc", None, 200)).await, SUCCESS);
        assert_eq!(totals_of(layer(), of("application/grpc", None, 503)).await, FAILURE);
        assert_eq!(totals_of(layer(), of("text/html", Some("14"), 200)).await, SUCCESS);
    }

    #[tokio::test]
    async fn latency_turns_an_answer_into_a_failure_only_above_the_limit() {
        let clock = ManualClock::new();
        let config = || Config::builder("latency").clock(&clock).build().unwrap();
        for (latency, expected) in [(SECOND, SUCCESS), (SECOND + Duration::from_nanos(1), FAILURE)]
        {
            let answer = || {
                clock.advance(latency);
                Ok(Response::new(()))
            };
            let http = HttpClassifier::new().slow_is_failure(SECOND);
            let layer = CircuitBreakerLayer::new(config()).classify(http);
            assert_eq!(totals_of(layer, answer).await, expected, "{latency:?}");
            let plain = ResultClassifier::new().slow_is_failure(SECOND);
            let layer = CircuitBreakerLayer::with_classifier(config(), plain);
            assert_eq!(totals_of(layer, answer).await, expected, "{latency:?}");
        }
    }

    #[tokio::test]
    async fn a_call_is_timed_only_if_somebody_wants_to_know() {
        #[derive(Default, Clone)]
        struct Latencies(Arc<Mutex<Vec<Option<Duration>>>>);

        impl tower_breaker::Observer for Latencies {
            fn on_call(&self, call: &tower_breaker::Call<'_>) {
                self.0.lock().unwrap().push(call.latency);
            }
        }

        let (clock, told) = (ManualClock::new(), Latencies::default());
        let config = || Config::builder("timed").clock(&clock).observer(told.clone());
        let config = || config().build().unwrap();
        let answer = || {
            clock.advance(SECOND);
            Ok(Response::new(()))
        };
        let (plain, http) = (ResultClassifier::new(), HttpClassifier::new());
        totals_of(CircuitBreakerLayer::with_classifier(config(), plain), answer).await;
        totals_of(CircuitBreakerLayer::with_classifier(config(), http), answer).await;
        assert_eq!(*told.0.lock().unwrap(), [None; 2]);
        let (plain, http) = (plain.slow_is_failure(SECOND), http.slow_is_failure(SECOND));
        totals_of(CircuitBreakerLayer::with_classifier(config(), plain), answer).await;
        totals_of(CircuitBreakerLayer::with_classifier(config(), http), answer).await;
        assert_eq!(told.0.lock().unwrap()[2..], [Some(SECOND); 2]);
    }

    #[tokio::test]
    async fn a_call_that_is_timed_for_a_sample_is_not_judged_by_that() {
        #[derive(Default, Clone)]
        struct Samples(Arc<AtomicUsize>);

        impl tower_breaker::Observer for Samples {
            fn takes_latency_samples(&self) -> bool {
                true
            }

            fn on_latency_sample(&self, _: &str, latency: Duration) {
                assert_eq!(latency, SECOND);
                self.0.fetch_add(1, Relaxed);
            }
        }

        /// Did not ask for the latency, and looks all the same.
        #[derive(Clone)]
        struct Peeks;

        impl Classify<()> for Peeks {
            fn classify(&self, _: Result<&(), &BoxError>, latency: Duration) -> Outcome {
                if latency.is_zero() { Outcome::Success } else { Outcome::Failure }
            }

            fn judges_latency(&self) -> bool {
                false
            }
        }

        let (clock, samples) = (ManualClock::new(), Samples::default());
        let config = Config::builder("samples").clock(&clock).observer(samples.clone());
        let layer = CircuitBreakerLayer::with_classifier(config.build().unwrap(), Peeks);
        let mut service = layer.layer(service_fn(|fails: bool| {
            clock.advance(SECOND);
            std::future::ready(if fails { Err(BoxError::from("reset")) } else { Ok(()) })
        }));
        for call in 0..128 {
            let _ = service.ready().await.unwrap().call(call < 64).await;
        }
        assert_eq!(layer.circuit().snapshot().totals.success, 128);
        assert_eq!(samples.0.load(Relaxed), 2);
    }

    #[test]
    fn who_takes_no_samples_is_given_none() {
        #[derive(Default, Clone)]
        struct TakesNone(Arc<AtomicUsize>);

        impl tower_breaker::Observer for TakesNone {
            fn on_latency_sample(&self, _: &str, _: Duration) {
                self.0.fetch_add(1, Relaxed);
            }
        }

        let (clock, given) = (ManualClock::new(), TakesNone::default());
        let config = touchy(&clock).observer(given.clone()).measure_latency();
        let circuit = Circuit::new(config.build().unwrap());
        for _ in 0..128 {
            circuit.try_acquire().unwrap().record(Outcome::Success);
        }
        assert_eq!(given.0.load(Relaxed), 0);
    }

    #[test]
    fn samples_are_taken_of_what_asks_the_machine_too_and_a_probe_stays_one() {
        #[derive(Default, Clone)]
        struct Samples(Arc<AtomicUsize>);

        impl tower_breaker::Observer for Samples {
            fn takes_latency_samples(&self) -> bool {
                true
            }

            fn on_latency_sample(&self, _: &str, _: Duration) {
                self.0.fetch_add(1, Relaxed);
            }
        }

        let (clock, samples) = (ManualClock::new(), Samples::default());
        let circuit = Circuit::new(touchy(&clock).observer(samples.clone()).build().unwrap());
        for _ in 0..128 {
            circuit.trip();
            clock.advance(5 * SECOND);
            circuit.try_acquire().unwrap().record(Outcome::Success);
            assert_eq!(circuit.state(), State::Closed);
        }
        samples.0.store(0, Relaxed);
        circuit.set_override(Override::observe_only().until_cleared());
        for _ in 0..128 {
            circuit.try_acquire().unwrap().record(Outcome::Success);
        }
        assert_eq!(samples.0.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_closure_needs_no_annotations_and_sees_it_all() {
        let clock = ManualClock::new();
        let config = Config::builder("closure").clock(&clock).build().unwrap();
        let layer = CircuitBreakerLayer::new(config).classify_http(|view| {
            assert_eq!(view.latency(), SECOND);
            match (view.status(), view.headers(), view.error()) {
                (Some(status), Some(headers), None) => {
                    assert_eq!((status.as_u16(), headers.len()), (200, 1));
                    Outcome::Ignored
                }
                (None, None, Some(error)) => {
                    assert_eq!(error.to_string(), "reset");
                    Outcome::Success
                }
                _ => Outcome::Failure,
            }
        });
        let answer = || {
            clock.advance(SECOND);
            Ok(Response::builder().header("x-a", "b").body(()).unwrap())
        };
        assert_eq!(totals_of(layer.clone(), answer).await, IGNORED);
        let answer = || {
            clock.advance(SECOND);
            Err("reset".into())
        };
        assert_eq!(totals_of(layer, answer).await, (1, 0, 1));
    }

    #[tokio::test]
    async fn any_response_can_be_judged() {
        struct Reply(u32);
        let layer = CircuitBreakerLayer::new(Config::default()).classify_fn(
            |result: Result<&Reply, _>, _latency| match result {
                Ok(Reply(0)) => Outcome::Success,
                Ok(_) | Err(_) => Outcome::Failure,
            },
        );
        let circuit = layer.circuit().clone();
        let mut service = layer.layer(service_fn(async |n| Ok::<_, Infallible>(Reply(n))));
        for n in [0, 1, 2] {
            service.ready().await.unwrap().call(n).await.unwrap();
        }
        assert_eq!((circuit.snapshot().totals.success, circuit.snapshot().totals.failure), (1, 2));
    }

    #[tokio::test]
    async fn a_permit_is_settled_before_the_caller_sees_the_answer() {
        let clock = ManualClock::new();
        let (answer, answered) = oneshot::channel();
        let mut answered = Some(answered);
        let layer = CircuitBreakerLayer::with_classifier(
            touchy(&clock).build().unwrap(),
            ResultClassifier::new(),
        );
        let mut service = layer.layer(service_fn(move |()| {
            let answered = answered.take().unwrap();
            async move { answered.await.unwrap() }
        }));
        let call = tokio::spawn(service.call(()));
        answer.send(Err::<(), BoxError>("down".into())).unwrap();
        call.await.unwrap().unwrap_err();
        assert_eq!(layer.circuit().state(), State::Open);
    }
}

#[tokio::test]
async fn debug_says_what_something_is_and_how_it_stands() {
    let says = |shown: &dyn std::fmt::Debug, words: &[&str]| {
        let shown = format!("{shown:?}");
        for word in words {
            assert!(shown.contains(word), "{shown} says nothing of {word}");
        }
    };
    let clock = ManualClock::new();
    let circuit = Circuit::new(touchy(&clock).build().unwrap());
    says(&circuit, &["Circuit", "touchy", "Closed"]);
    says(&circuit.try_acquire().unwrap(), &["Permit", "touchy"]);
    says(&touchy(&clock).build().unwrap(), &["touchy", "ManualClock", "[0 observers]"]);

    let layer = CircuitBreakerLayer::new(&circuit).when_open(WhenOpen::Wait);
    let service =
        layer.layer(service_fn(|_: ()| std::future::pending::<Result<Response<()>, BoxError>>()));
    let mut service = service;
    says(&service.call(()), &["ResponseFuture", "calling"]);
    circuit.trip();
    says(&service.call(()), &["ResponseFuture", "answering"]);
    let by_view = CircuitBreakerLayer::new(&circuit).classify_http(|_| Outcome::Success);
    says(&by_view, &["ClassifyHttp<", "touchy", "Open"]);
    let by_result = by_view.classify_fn(|_: Result<&(), _>, _| Outcome::Success);
    says(&by_result, &["ClassifyFn<"]);
    says(&by_result.layer(()), &["CircuitBreaker", "touchy", "ClassifyFn<", "Error", "AtHead"]);
}
