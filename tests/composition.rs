//! The breaker among tower's other middleware: what each does with an open
//! circuit, in each of the three ways to be open, and what the order of the
//! layers decides. Some of it is tower's doing and no virtue; it is pinned so
//! that the advice in the docs rests on what was seen.

use std::{
    future::{Future, Ready, ready},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, load_shed::error::Overloaded,
    timeout::error::Elapsed,
};
use tower_breaker::{
    Backoff, Circuit, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Config, ConfigBuilder,
    ManualClock, Probes, ResultClassifier, State, WhenOpen,
};
use tower_test::mock;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type Request = &'static str;
type Reply = &'static str;
type Guarded = CircuitBreaker<Dependency, ResultClassifier>;

/// Opens at the first failure, for five seconds; one probe. On tokio's clock.
fn on_tokios_clock() -> ConfigBuilder {
    Config::builder("touchy")
        .consecutive_failures(1)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1))
}

/// The same on a clock of the test's.
fn touchy(clock: &ManualClock) -> ConfigBuilder {
    on_tokios_clock().clock(clock)
}

fn circuit(config: ConfigBuilder) -> Circuit {
    Circuit::new(config.build().unwrap())
}

fn breaker(circuit: &Circuit, when_open: WhenOpen) -> CircuitBreakerLayer<ResultClassifier> {
    CircuitBreakerLayer::with_classifier(circuit, ResultClassifier::new()).when_open(when_open)
}

/// Answers with its name; can be down, or hang. Clones are the same.
#[derive(Clone)]
struct Dependency {
    name: Reply,
    mood: Arc<Mutex<Mood>>,
    calls: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Mood {
    Well,
    Down,
    Hangs,
}

impl Dependency {
    fn new(name: Reply, mood: Mood) -> Self {
        Self { name, mood: Arc::new(Mutex::new(mood)), calls: Arc::default() }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }
}

impl Service<Request> for Dependency {
    type Response = Reply;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        self.calls.fetch_add(1, Relaxed);
        let (name, mood) = (self.name, *self.mood.lock().unwrap());
        Box::pin(async move {
            match mood {
                Mood::Well => Ok(name),
                Mood::Down => Err("down".into()),
                Mood::Hangs => std::future::pending().await,
            }
        })
    }
}

/// A dependency, its circuit, and the one behind the other.
fn guarded(config: ConfigBuilder, when_open: WhenOpen) -> (Guarded, Dependency, Circuit) {
    let (circuit, dependency) = (circuit(config), Dependency::new("served", Mood::Well));
    (breaker(&circuit, when_open).layer(dependency.clone()), dependency, circuit)
}

/// One call, once the service is ready for it.
async fn ask<S: Service<Request>>(service: &mut S) -> Result<S::Response, S::Error> {
    in_time(async { service.ready().await?.call("anything").await }).await
}

/// Fails what hangs: on tokio's clock, paused in every test, a day is over at
/// once when there is nothing left to do.
async fn in_time<F: Future>(future: F) -> F::Output {
    // A timeout would poll it once more before it gives up, and a poll finds what nobody was woken for.
    tokio::select! {
        biased;
        () = tokio::time::sleep(DAY) => panic!("it hangs"),
        output = future => output,
    }
}

/// A call under way.
fn begin<S: Service<Request>>(service: &mut S) -> Pin<Box<S::Future>> {
    assert!(matches!(ready_now(service), Poll::Ready(Ok(()))));
    let mut call = Box::pin(service.call("anything"));
    assert!(poll(call.as_mut()).is_pending());
    call
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn ready_now<S: Service<Request>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

/// Has a mock answer its next request.
async fn serve(handle: &mut mock::Handle<Request, Reply>, reply: Reply) {
    let (_, answer) = in_time(handle.next_request()).await.unwrap();
    answer.send_response(reply);
}

/// How long it took on tokio's clock.
#[expect(clippy::disallowed_methods, reason = "it stands still unless somebody waits")]
async fn timed<F: Future>(future: F) -> (Duration, F::Output) {
    let start = tokio::time::Instant::now();
    let output = in_time(future).await;
    (start.elapsed(), output)
}

/// Tokio's timer counts in milliseconds, and rounds up.
fn about(expected: Duration, measured: Duration) -> bool {
    (expected..expected + Duration::from_millis(20)).contains(&measured)
}

fn is_open(error: &BoxError) -> bool {
    error.is::<CircuitOpen>()
}

mod buffer {
    use tower::buffer::{Buffer, error::ServiceError};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn with_error_one_call_while_open_ends_it_for_good() {
        let clock = ManualClock::new();
        let (service, dependency, circuit) = guarded(touchy(&clock), WhenOpen::Error);
        let mut buffer = Buffer::new(service, 8);
        assert_eq!(ask(&mut buffer).await.unwrap(), "served");

        // An opening that no call meets does no harm.
        circuit.trip();
        circuit.reset();
        assert_eq!(ask(&mut buffer).await.unwrap(), "served");

        circuit.trip();
        let mut other = buffer.clone();
        for _ in 0..3 {
            let error = ask(&mut buffer).await.unwrap_err();
            assert!(error.is::<ServiceError>(), "{error}");
            assert!(CircuitOpen::find_in(&*error).is_some(), "it is in the chain");
        }
        circuit.reset();
        assert_eq!(circuit.state(), State::Closed);
        for _ in 0..100 {
            clock.advance(DAY);
            assert!(ask(&mut buffer).await.unwrap_err().is::<ServiceError>());
            assert!(ask(&mut other).await.unwrap_err().is::<ServiceError>());
        }
        assert_eq!(dependency.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn with_defer_the_refusal_is_the_answer_and_the_buffer_lives_on() {
        let clock = ManualClock::new();
        let (service, dependency, circuit) = guarded(touchy(&clock), WhenOpen::Defer);
        let mut buffer = Buffer::new(service, 8);
        dependency.set(Mood::Down);
        assert_eq!(ask(&mut buffer).await.unwrap_err().to_string(), "down");
        assert_eq!(circuit.state(), State::Open);
        for _ in 0..100 {
            let error = ask(&mut buffer).await.unwrap_err();
            assert!(is_open(&error), "the error itself, in nothing: {error:?}");
        }
        assert_eq!(dependency.calls(), 1);

        dependency.set(Mood::Well);
        clock.advance(5 * SECOND);
        assert_eq!(ask(&mut buffer).await.unwrap(), "served");
        assert_eq!(circuit.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_the_call_and_all_behind_it_wait_in_the_buffer() {
        let (service, _dependency, circuit) = guarded(on_tokios_clock(), WhenOpen::Wait);
        let mut buffer = Buffer::new(service, 8);
        circuit.trip();
        let mut other = buffer.clone();
        let both = async { tokio::join!(ask(&mut buffer), ask(&mut other)) };
        let (took, (one, two)) = timed(both).await;
        assert!(about(5 * SECOND, took), "{took:?}");
        assert_eq!((one.unwrap(), two.unwrap()), ("served", "served"));
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_fallback_error_is_no_error_and_spares_it() {
        let circuit = circuit(touchy(&ManualClock::new()));
        let layer = breaker(&circuit, WhenOpen::Error).fallback(|_| "spare");
        let mut buffer = Buffer::new(layer.layer(Dependency::new("served", Mood::Well)), 8);
        circuit.trip();
        assert_eq!(ask(&mut buffer).await.unwrap(), "spare");
        circuit.reset();
        assert_eq!(ask(&mut buffer).await.unwrap(), "served");
    }
}

mod balance {
    use tower::{
        balance::p2c::Balance,
        discover::ServiceList,
        load::Constant,
        ready_cache::{ReadyCache, error::Failed},
    };

    use super::*;

    /// The key of an endpoint in a cache.
    const ONLY: u32 = 1;

    struct Endpoint {
        dependency: Dependency,
        circuit: Circuit,
    }

    impl Endpoint {
        fn new(name: Reply, config: ConfigBuilder) -> Self {
            Self { dependency: Dependency::new(name, Mood::Well), circuit: circuit(config) }
        }

        fn guarded(&self, when_open: WhenOpen) -> Guarded {
            breaker(&self.circuit, when_open).layer(self.dependency.clone())
        }
    }

    /// Of two endpoints that are ready the left one has less load, always.
    fn balance(
        [left, right]: &[Endpoint; 2],
        when_open: WhenOpen,
    ) -> Balance<ServiceList<Vec<Constant<Guarded, u32>>>, Request> {
        let services = vec![
            Constant::new(left.guarded(when_open), 1),
            Constant::new(right.guarded(when_open), 2),
        ];
        Balance::new(ServiceList::new::<Request>(services))
    }

    fn pair(clock: &ManualClock) -> [Endpoint; 2] {
        [Endpoint::new("left", touchy(clock)), Endpoint::new("right", touchy(clock))]
    }

    #[tokio::test(start_paused = true)]
    async fn with_error_an_endpoint_that_opened_once_is_evicted_for_ever() {
        let clock = ManualClock::new();
        let endpoints = pair(&clock);
        let [left, right] = &endpoints;
        let mut balance = balance(&endpoints, WhenOpen::Error);
        assert_eq!(ask(&mut balance).await.unwrap(), "left");
        assert_eq!(balance.len(), 2);

        left.dependency.set(Mood::Down);
        ask(&mut balance).await.unwrap_err();
        assert_eq!(left.circuit.state(), State::Open);
        assert_eq!(ask(&mut balance).await.unwrap(), "right");
        assert_eq!(balance.len(), 1);

        left.dependency.set(Mood::Well);
        left.circuit.reset();
        for _ in 0..100 {
            clock.advance(DAY);
            assert_eq!(ask(&mut balance).await.unwrap(), "right", "the left one has healed");
        }
        assert_eq!(left.dependency.calls(), 2);

        right.circuit.trip();
        let mut balance = mock::Spawn::new(balance);
        assert!(balance.poll_ready().is_pending());
        assert!(balance.get_ref().is_empty());
        right.circuit.reset();
        clock.advance(DAY);
        assert!(!balance.is_woken(), "nobody is left to wait for");
        assert!(balance.poll_ready().is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_an_endpoint_is_routed_around_and_comes_back() {
        let clock = ManualClock::new();
        let endpoints = pair(&clock);
        let [left, right] = &endpoints;
        let mut balance = balance(&endpoints, WhenOpen::Wait);
        left.dependency.set(Mood::Down);
        ask(&mut balance).await.unwrap_err();
        assert_eq!(left.circuit.state(), State::Open);
        for _ in 0..100 {
            assert_eq!(ask(&mut balance).await.unwrap(), "right");
        }
        assert_eq!(balance.len(), 2, "kept");
        assert_eq!((left.dependency.calls(), right.dependency.calls()), (1, 100));

        // While the probe is out, the others go round it.
        left.dependency.set(Mood::Hangs);
        clock.advance(5 * SECOND);
        let probe = begin(&mut balance);
        assert_eq!(left.circuit.state(), State::HalfOpen);
        assert_eq!(ask(&mut balance).await.unwrap(), "right");
        drop(probe);

        left.dependency.set(Mood::Well);
        assert_eq!(ask(&mut balance).await.unwrap(), "left");
        assert_eq!(left.circuit.state(), State::Closed);
        assert_eq!(ask(&mut balance).await.unwrap(), "left");
        assert_eq!(left.circuit.snapshot().totals.rejected, 0, "no caller was refused");
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_and_all_open_callers_wait_for_the_first_to_be_due() {
        let open_for = |seconds: u32| on_tokios_clock().open_for(Backoff::fixed(seconds * SECOND));
        let endpoints = [Endpoint::new("left", open_for(5)), Endpoint::new("right", open_for(3))];
        let mut balance = balance(&endpoints, WhenOpen::Wait);
        for endpoint in &endpoints {
            endpoint.dependency.set(Mood::Down);
            ask(&mut balance).await.unwrap_err();
            assert_eq!(endpoint.circuit.state(), State::Open);
            endpoint.dependency.set(Mood::Well);
        }
        let (took, answer) = timed(ask(&mut balance)).await;
        assert!(about(3 * SECOND, took), "{took:?}");
        assert_eq!(answer.unwrap(), "right");

        let [left, right] = &endpoints;
        assert_eq!(right.circuit.state(), State::Closed);
        assert_eq!(left.circuit.state(), State::Open);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(ask(&mut balance).await.unwrap(), "left");
        assert_eq!(left.circuit.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_and_all_open_a_reset_by_hand_wakes_the_balance() {
        let endpoints = pair(&ManualClock::new());
        let mut balance = mock::Spawn::new(balance(&endpoints, WhenOpen::Wait));
        assert!(balance.poll_ready().is_ready(), "both are in the set of the ready");
        endpoints.iter().for_each(|endpoint| endpoint.circuit.trip());
        assert!(balance.poll_ready().is_pending());
        endpoints[1].circuit.reset();
        assert!(balance.is_woken());
        assert!(balance.poll_ready().is_ready());
        assert_eq!(in_time(balance.call("anything")).await.unwrap(), "right");
    }

    #[tokio::test(start_paused = true)]
    async fn with_defer_an_open_endpoint_goes_on_drawing_the_calls() {
        let clock = ManualClock::new();
        let endpoints = pair(&clock);
        let [left, right] = &endpoints;
        let mut balance = balance(&endpoints, WhenOpen::Defer);
        left.circuit.trip();
        for _ in 0..100 {
            assert!(is_open(&ask(&mut balance).await.unwrap_err()));
        }
        assert_eq!(right.dependency.calls(), 0, "well, ready, and not asked");

        // Ready while open, it is asked once more before it is called.
        assert!(matches!(ready_now(&mut balance), Poll::Ready(Ok(()))));
        clock.advance(5 * SECOND);
        assert_eq!(ask(&mut balance).await.unwrap(), "left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_cache_drops_what_errs_and_keeps_what_waits() {
        let clock = ManualClock::new();
        let endpoint = Endpoint::new("only", touchy(&clock));
        let cx = &mut Context::from_waker(Waker::noop());

        for in_ready_set in [true, false] {
            let mut cache = ReadyCache::default();
            if !in_ready_set {
                endpoint.circuit.trip();
            }
            cache.push(ONLY, endpoint.guarded(WhenOpen::Error));
            let failed = if in_ready_set {
                assert!(matches!(cache.poll_pending(cx), Poll::Ready(Ok(()))));
                endpoint.circuit.trip();
                cache.check_ready(cx, &ONLY).unwrap_err()
            } else {
                let Poll::Ready(Err(failed)) = cache.poll_pending(cx) else { panic!("kept") };
                failed
            };
            let Failed(ONLY, error) = failed else { panic!("{failed}") };
            assert!(is_open(&error));
            assert!(cache.is_empty());
            endpoint.circuit.reset();
        }

        let mut cache = ReadyCache::default();
        cache.push(ONLY, endpoint.guarded(WhenOpen::Wait));
        assert!(matches!(cache.poll_pending(cx), Poll::Ready(Ok(()))));
        endpoint.circuit.trip();
        assert!(!cache.check_ready(cx, &ONLY).unwrap());
        assert_eq!((cache.ready_len(), cache.pending_len()), (0, 1));
        assert!(cache.poll_pending(cx).is_pending());
        clock.advance(5 * SECOND);
        assert!(matches!(cache.poll_pending(cx), Poll::Ready(Ok(()))));

        // Being in the set of the ready reserves no probe, so it may be gone.
        let probe = endpoint.circuit.try_acquire().unwrap();
        assert!(!cache.check_ready(cx, &ONLY).unwrap());
        probe.cancel();
        assert!(matches!(cache.poll_pending(cx), Poll::Ready(Ok(()))));
        assert!(cache.check_ready(cx, &ONLY).unwrap());
        assert_eq!(in_time(cache.call_ready(&ONLY, "anything")).await.unwrap(), "only");
        assert_eq!(endpoint.circuit.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_evicted_while_it_waits_is_dropped() {
        let endpoint = Endpoint::new("only", touchy(&ManualClock::new()));
        endpoint.circuit.trip();
        let mut cache = ReadyCache::default();
        cache.push(ONLY, endpoint.guarded(WhenOpen::Wait));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(cache.poll_pending(cx).is_pending());
        assert_eq!(Arc::strong_count(&endpoint.dependency.calls), 2);
        assert!(cache.evict(&ONLY));
        assert!(matches!(cache.poll_pending(cx), Poll::Ready(Ok(()))));
        assert_eq!(Arc::strong_count(&endpoint.dependency.calls), 1, "the service was dropped");
        assert!(cache.is_empty());
    }
}

mod load_shed {
    use tower::{limit::ConcurrencyLimit, load_shed::LoadShed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outside_a_breaker_that_waits_it_sheds_while_that_is_open() {
        let clock = ManualClock::new();
        let (service, dependency, circuit) = guarded(touchy(&clock), WhenOpen::Wait);
        let mut shed = LoadShed::new(service);
        dependency.set(Mood::Down);
        assert_eq!(ask(&mut shed).await.unwrap_err().to_string(), "down");
        for _ in 0..100 {
            let error = ask(&mut shed).await.unwrap_err();
            assert!(error.is::<Overloaded>());
            assert!(CircuitOpen::find_in(&*error).is_none(), "nothing says why");
        }
        assert_eq!(dependency.calls(), 1);
        assert_eq!(circuit.snapshot().totals.rejected, 0, "nor does the circuit hear of it");

        clock.advance(5 * SECOND);
        dependency.set(Mood::Hangs);
        let probe = begin(&mut shed);
        assert!(ask(&mut shed).await.unwrap_err().is::<Overloaded>(), "no probe is left");
        drop(probe);
        dependency.set(Mood::Well);
        assert_eq!(ask(&mut shed).await.unwrap(), "served");
        assert_eq!(circuit.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn outside_a_breaker_that_errs_or_defers_it_has_nothing_to_do() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer] {
            let clock = ManualClock::new();
            let (service, dependency, circuit) = guarded(touchy(&clock), when_open);
            let mut shed = LoadShed::new(service);
            circuit.trip();
            let readiness = ready_now(&mut shed);
            let early = matches!(&readiness, Poll::Ready(Err(error)) if is_open(error));
            assert_eq!(early, when_open == WhenOpen::Error);
            for _ in 0..10 {
                assert!(is_open(&ask(&mut shed).await.unwrap_err()), "{when_open:?}");
            }
            clock.advance(5 * SECOND);
            assert_eq!(ask(&mut shed).await.unwrap(), "served", "it survives: {when_open:?}");
            assert_eq!(dependency.calls(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn inside_what_it_sheds_is_ignored_and_gives_the_probe_back() {
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock));
        let dependency = Dependency::new("served", Mood::Hangs);
        let mut service = breaker(&circuit, WhenOpen::Error)
            .layer(LoadShed::new(ConcurrencyLimit::new(dependency.clone(), 1)));
        let full = begin(&mut service);
        for _ in 0..100 {
            assert!(ask(&mut service).await.unwrap_err().is::<Overloaded>());
        }
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.ignored, totals.failure), (100, 0));
        assert_eq!(circuit.state(), State::Closed, "one failure would have opened it");

        circuit.trip();
        clock.advance(5 * SECOND);
        for _ in 0..100 {
            assert!(ask(&mut service).await.unwrap_err().is::<Overloaded>());
            assert_eq!(circuit.snapshot().probes.unwrap().permits_left, 1);
        }
        assert_eq!(circuit.state(), State::HalfOpen);
        drop(full);
        dependency.set(Mood::Well);
        assert_eq!(ask(&mut service).await.unwrap(), "served");
        assert_eq!(circuit.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_shed_is_ignored_however_it_is_wrapped() {
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock));
        let shed = || io::Error::other(BoxError::from(io::Error::other(Overloaded::new())));
        let inner = tower::service_fn(|()| ready(Err::<(), BoxError>(shed().into())));
        breaker(&circuit, WhenOpen::Error).layer(inner).oneshot(()).await.unwrap_err();
        assert_eq!(circuit.snapshot().totals.ignored, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_breakers_it_hides_neither_from_the_other() {
        let clock = ManualClock::new();
        let (inner, _dependency, inner_circuit) = guarded(touchy(&clock), WhenOpen::Wait);
        let outer_circuit = circuit(touchy(&clock));
        let mut service = breaker(&outer_circuit, WhenOpen::Error).layer(LoadShed::new(inner));
        inner_circuit.trip();
        for _ in 0..10 {
            assert!(ask(&mut service).await.unwrap_err().is::<Overloaded>());
        }
        assert_eq!(outer_circuit.state(), State::Closed);
        assert_eq!(outer_circuit.snapshot().totals.ignored, 10);
    }
}

mod concurrency_limit {
    use tokio::sync::Semaphore;
    use tower::limit::{ConcurrencyLimit, GlobalConcurrencyLimitLayer};
    use tower_test::mock::{Handle, Mock};

    use super::*;

    type Breaker<S> = CircuitBreaker<S, ResultClassifier>;

    struct Parts {
        mock: Mock<Request, Reply>,
        handle: Handle<Request, Reply>,
        circuit: Circuit,
        clock: ManualClock,
        places: Arc<Semaphore>,
    }

    /// One place, and two probes.
    fn parts() -> Parts {
        let (mock, mut handle) = mock::pair();
        handle.allow(100);
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock).probes(Probes::new(2)));
        Parts { mock, handle, circuit, clock, places: Arc::new(Semaphore::new(1)) }
    }

    fn limit_in_breaker(
        parts: &Parts,
        when_open: WhenOpen,
    ) -> Breaker<ConcurrencyLimit<Mock<Request, Reply>>> {
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&parts.places));
        breaker(&parts.circuit, when_open).layer(limit.layer(parts.mock.clone()))
    }

    fn breaker_in_limit(
        parts: &Parts,
        when_open: WhenOpen,
    ) -> ConcurrencyLimit<Breaker<Mock<Request, Reply>>> {
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&parts.places));
        limit.layer(breaker(&parts.circuit, when_open).layer(parts.mock.clone()))
    }

    async fn a_throttled_call_spends_no_probe<S>(service: S, mut parts: Parts)
    where
        S: Service<Request, Response = Reply, Error = BoxError> + Clone,
    {
        let Parts { handle, circuit, clock, places, .. } = &mut parts;
        circuit.trip();
        clock.advance(5 * SECOND);
        let (mut first, mut second) = (service.clone(), service);

        // The place is taken by somebody else: half-open has not even begun.
        let place = Arc::clone(places).try_acquire_owned().unwrap();
        assert!(ready_now(&mut first.clone()).is_pending());
        assert_eq!((circuit.state(), circuit.snapshot().probes), (State::Open, None));
        drop(place);

        let progress = || {
            let probes = circuit.snapshot().probes.unwrap();
            (probes.permits_left, probes.in_flight)
        };
        let probe = begin(&mut first);
        assert_eq!(progress(), (1, 1));
        assert!(ready_now(&mut second).is_pending(), "throttled");
        assert_eq!(progress(), (1, 1));
        serve(handle, "well").await;
        assert_eq!(in_time(probe).await.unwrap(), "well");
        assert_eq!(progress(), (1, 0));

        let probe = begin(&mut second);
        assert_eq!(progress(), (0, 1));
        serve(handle, "well").await;
        assert_eq!(in_time(probe).await.unwrap(), "well");
        assert_eq!(circuit.state(), State::Closed);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn inside_a_throttled_call_spends_no_probe() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer, WhenOpen::Wait] {
            let parts = parts();
            let service = limit_in_breaker(&parts, when_open);
            a_throttled_call_spends_no_probe(service, parts).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outside_a_throttled_call_spends_no_probe() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer, WhenOpen::Wait] {
            let parts = parts();
            let service = breaker_in_limit(&parts, when_open);
            a_throttled_call_spends_no_probe(service, parts).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn inside_the_circuit_is_looked_at_again_when_a_place_is_free() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer, WhenOpen::Wait] {
            let mut parts = parts();
            let place = Arc::clone(&parts.places).try_acquire_owned().unwrap();
            let mut service = limit_in_breaker(&parts, when_open);
            assert!(ready_now(&mut service).is_pending(), "throttled");
            parts.circuit.trip();
            drop(place);
            match when_open {
                WhenOpen::Wait => assert!(ready_now(&mut service).is_pending()),
                _ => assert!(is_open(&ask(&mut service).await.unwrap_err())),
            }
            assert!(poll(parts.handle.next_request()).is_pending(), "{when_open:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn on_either_side_the_time_a_call_is_throttled_is_no_latency() {
        async fn throttled_for_a_minute(
            mut service: impl Service<Request, Response = Reply, Error = BoxError>,
            mut parts: Parts,
        ) {
            let place = Arc::clone(&parts.places).try_acquire_owned().unwrap();
            assert!(ready_now(&mut service).is_pending());
            parts.clock.advance(60 * SECOND);
            drop(place);
            let call = begin(&mut service);
            serve(&mut parts.handle, "well").await;
            assert_eq!(in_time(call).await.unwrap(), "well");
            let totals = parts.circuit.snapshot().totals;
            assert_eq!((totals.success, totals.slow), (1, 0));
        }

        let strict = || {
            let mut parts = parts();
            parts.circuit = circuit(touchy(&parts.clock).slow_calls(SECOND, 0.5));
            parts
        };
        let parts = strict();
        throttled_for_a_minute(limit_in_breaker(&parts, WhenOpen::Error), parts).await;
        let parts = strict();
        throttled_for_a_minute(breaker_in_limit(&parts, WhenOpen::Error), parts).await;
    }

    #[tokio::test(start_paused = true)]
    async fn inside_no_caller_takes_a_place_while_open() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer, WhenOpen::Wait] {
            let parts = parts();
            let mut service = limit_in_breaker(&parts, when_open);
            parts.circuit.trip();
            let _ = ready_now(&mut service);
            assert_eq!(parts.places.available_permits(), 1, "{when_open:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn inside_the_loser_between_ready_and_call_keeps_its_place_until_its_next_call() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer, WhenOpen::Wait] {
            let mut parts = parts();
            let mut service = limit_in_breaker(&parts, when_open);
            assert!(ready_now(&mut service).is_ready());
            parts.circuit.trip();
            assert!(is_open(&in_time(service.call("late")).await.unwrap_err()));
            // The limit gave it a place and was not called.
            assert_eq!(parts.places.available_permits(), 0, "{when_open:?}");
            parts.circuit.reset();
            assert!(ready_now(&mut service.clone()).is_pending(), "{when_open:?}");

            let call = begin(&mut service);
            serve(&mut parts.handle, "well").await;
            assert_eq!(in_time(call).await.unwrap(), "well");
            assert_eq!(parts.places.available_permits(), 1, "{when_open:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outside_a_refused_caller_keeps_its_place_until_it_is_dropped() {
        // Being refused, or waiting, it holds what others wait for.
        for when_open in [WhenOpen::Error, WhenOpen::Wait] {
            let parts = parts();
            let mut refused = breaker_in_limit(&parts, when_open);
            let mut other = refused.clone();
            parts.circuit.trip();
            match ready_now(&mut refused) {
                Poll::Ready(error) => assert!(is_open(&error.unwrap_err())),
                Poll::Pending => assert_eq!(when_open, WhenOpen::Wait),
            }
            parts.circuit.reset();
            assert!(ready_now(&mut other).is_pending(), "{when_open:?}");
            drop(refused);
            assert!(ready_now(&mut other).is_ready(), "{when_open:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outside_a_deferred_refusal_gives_its_place_back() {
        let parts = parts();
        let mut refused = breaker_in_limit(&parts, WhenOpen::Defer);
        parts.circuit.trip();
        for _ in 0..10 {
            assert!(is_open(&ask(&mut refused).await.unwrap_err()));
            assert_eq!(parts.places.available_permits(), 1);
        }
    }
}

mod timeout {
    use tower::timeout::Timeout;
    use tower_breaker::{Cancellation, Cause};

    use super::*;

    fn defaults() -> ConfigBuilder {
        Config::builder("defaults")
    }

    /// How many of a hundred calls reach a dependency that hangs.
    async fn reached(
        mut service: impl Service<Request, Error = BoxError, Response = Reply>,
        dependency: &Dependency,
    ) -> usize {
        dependency.set(Mood::Hangs);
        for _ in 0..100 {
            let error = ask(&mut service).await.unwrap_err();
            assert!(error.is::<Elapsed>() || is_open(&error), "{error}");
            if is_open(&error) {
                break;
            }
        }
        dependency.calls()
    }

    #[tokio::test(start_paused = true)]
    async fn inside_a_hang_is_an_error_and_opens() {
        let circuit = circuit(defaults());
        let dependency = Dependency::new("served", Mood::Hangs);
        let service =
            breaker(&circuit, WhenOpen::Error).layer(Timeout::new(dependency.clone(), SECOND));
        let (took, reached) = timed(reached(service, &dependency)).await;
        assert_eq!(reached, 10);
        assert!(about(10 * SECOND, took), "{took:?}");
        let snapshot = circuit.snapshot();
        assert!(matches!(snapshot.cause, Some(Cause::FailureRate { .. })), "{snapshot:?}");
        assert_eq!((snapshot.totals.failure, snapshot.totals.cancelled), (10, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn outside_a_hang_opens_by_the_slow_rule() {
        let config = defaults().slow_calls(SECOND / 2, 0.5);
        let (service, dependency, circuit) = guarded(config, WhenOpen::Error);
        let service = Timeout::new(service, SECOND);
        assert_eq!(reached(service, &dependency).await, 10);
        let snapshot = circuit.snapshot();
        assert!(matches!(snapshot.cause, Some(Cause::SlowCallRate { .. })), "{snapshot:?}");
        let totals = snapshot.totals;
        assert_eq!((totals.failure, totals.cancelled, totals.slow), (0, 10, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn outside_without_a_slow_rule_a_hang_never_opens() {
        let (service, dependency, circuit) =
            guarded(defaults().consecutive_failures(1), WhenOpen::Error);
        assert_eq!(reached(Timeout::new(service, SECOND), &dependency).await, 100);
        let snapshot = circuit.snapshot();
        assert_eq!((snapshot.state, snapshot.window.calls), (State::Closed, 0));
        assert_eq!(snapshot.totals.cancelled, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn outside_nor_if_the_threshold_is_above_it_or_drops_are_neutral() {
        let too_high = defaults().slow_calls(2 * SECOND, 0.5);
        let neutral = defaults().slow_calls(SECOND / 2, 0.5).cancellation(Cancellation::Neutral);
        for config in [too_high, neutral] {
            let (service, dependency, circuit) = guarded(config, WhenOpen::Error);
            assert_eq!(reached(Timeout::new(service, SECOND), &dependency).await, 100);
            assert_eq!(circuit.snapshot().window.calls, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outside_it_takes_a_probe_that_hangs_for_a_failed_one() {
        let (service, dependency, circuit) =
            guarded(on_tokios_clock().slow_calls(SECOND / 2, 0.5), WhenOpen::Error);
        let mut service = Timeout::new(service, SECOND);
        dependency.set(Mood::Hangs);
        circuit.trip();
        tokio::time::advance(5 * SECOND).await;
        assert!(ask(&mut service).await.unwrap_err().is::<Elapsed>());
        assert_eq!((circuit.state(), circuit.snapshot().totals.opened), (State::Open, 2));
        assert!(is_open(&ask(&mut service).await.unwrap_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_bound_the_wait_to_be_ready() {
        let (service, _dependency, circuit) = guarded(on_tokios_clock(), WhenOpen::Wait);
        let mut service = Timeout::new(service, SECOND);
        circuit.trip();
        let (took, answer) = timed(ask(&mut service)).await;
        assert_eq!(answer.unwrap(), "served");
        assert!(about(5 * SECOND, took), "{took:?}");
    }
}

mod retry {
    use tower::{
        retry::{
            Policy, Retry,
            budget::{Budget, TpsBudget},
        },
        timeout::Timeout,
    };

    use super::*;

    /// Three retries a call, and as many over all as the budget has.
    #[derive(Clone)]
    struct Retries {
        left: u32,
        stop_when_open: bool,
        budget: Arc<TpsBudget>,
    }

    impl Retries {
        /// `budget` retries, in tens.
        fn new(budget: u32, stop_when_open: bool) -> Self {
            let budget = Arc::new(TpsBudget::new(10 * SECOND, budget / 10, 0.0));
            Self { left: 3, stop_when_open, budget }
        }

        /// What is left of the budget, which this spends.
        fn spend_the_rest(&self) -> usize {
            std::iter::repeat_with(|| self.budget.withdraw()).take_while(|paid| *paid).count()
        }
    }

    impl Policy<Request, Reply, BoxError> for Retries {
        type Future = Ready<()>;

        fn retry(
            &mut self,
            _: &mut Request,
            result: &mut Result<Reply, BoxError>,
        ) -> Option<Self::Future> {
            let Err(error) = result else {
                self.budget.deposit();
                return None;
            };
            let stop = self.stop_when_open && CircuitOpen::find_in(&**error).is_some();
            if stop || self.left == 0 || !self.budget.withdraw() {
                return None;
            }
            self.left -= 1;
            Some(ready(()))
        }

        fn clone_request(&mut self, request: &Request) -> Option<Request> {
            Some(request)
        }
    }

    fn five() -> ConfigBuilder {
        on_tokios_clock().consecutive_failures(5)
    }

    #[tokio::test(start_paused = true)]
    async fn outside_it_stops_at_open_and_keeps_its_budget() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer] {
            let (service, dependency, circuit) = guarded(five(), when_open);
            let policy = Retries::new(10, true);
            let mut service = Retry::new(policy.clone(), service);
            dependency.set(Mood::Down);
            assert_eq!(ask(&mut service).await.unwrap_err().to_string(), "down");
            assert_eq!(dependency.calls(), 4);
            // The fifth failure opens; the retry of it learns that.
            assert!(is_open(&ask(&mut service).await.unwrap_err()), "{when_open:?}");
            assert_eq!(circuit.state(), State::Open);
            for _ in 0..100 {
                assert!(is_open(&ask(&mut service).await.unwrap_err()), "{when_open:?}");
            }
            assert_eq!(dependency.calls(), 5, "{when_open:?}");
            assert_eq!(policy.spend_the_rest(), 10 - 4, "{when_open:?}");

            dependency.set(Mood::Well);
            tokio::time::advance(5 * SECOND).await;
            assert_eq!(ask(&mut service).await.unwrap(), "served");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outside_one_that_goes_on_at_open_burns_its_budget_if_the_refusal_is_deferred() {
        // An error from `poll_ready` ends a retry without asking its policy.
        for (when_open, left) in [(WhenOpen::Error, 10), (WhenOpen::Defer, 0)] {
            let (service, dependency, circuit) = guarded(five(), when_open);
            let policy = Retries::new(10, false);
            let mut service = Retry::new(policy.clone(), service);
            circuit.trip();
            for _ in 0..100 {
                assert!(is_open(&ask(&mut service).await.unwrap_err()), "{when_open:?}");
            }
            assert_eq!(policy.spend_the_rest(), left, "{when_open:?}");
            assert_eq!(circuit.snapshot().totals.rejected as usize, 100 + (10 - left));
            assert_eq!(dependency.calls(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn outside_a_breaker_that_waits_the_retry_waits_and_is_the_probe() {
        let (service, dependency, circuit) = guarded(on_tokios_clock(), WhenOpen::Wait);
        let mut service = Retry::new(Retries::new(10, true), service);
        dependency.set(Mood::Down);
        let heal = async {
            tokio::time::sleep(SECOND).await;
            dependency.set(Mood::Well);
        };
        let (took, (answer, ())) = timed(async { tokio::join!(ask(&mut service), heal) }).await;
        assert_eq!(answer.unwrap(), "served");
        assert!(about(5 * SECOND, took), "{took:?}");
        assert_eq!((circuit.state(), dependency.calls()), (State::Closed, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn inside_it_amplifies_as_far_as_its_budget_goes() {
        // Five failures open. Outside, those were five calls.
        for (budget, reached) in [(1_000, 5 * 4), (10, 5 + 10), (0, 5)] {
            let circuit = circuit(five());
            let dependency = Dependency::new("served", Mood::Down);
            let mut service = breaker(&circuit, WhenOpen::Error)
                .layer(Retry::new(Retries::new(budget, true), dependency.clone()));
            for _ in 0..5 {
                assert_eq!(ask(&mut service).await.unwrap_err().to_string(), "down");
            }
            assert!(is_open(&ask(&mut service).await.unwrap_err()));
            assert_eq!(dependency.calls(), reached);
            assert_eq!(circuit.snapshot().totals.failure, 5);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn inside_one_probe_is_several_calls_and_hides_the_failures_before_a_success() {
        let circuit = circuit(five());
        let mut calls = 0;
        let mut service = breaker(&circuit, WhenOpen::Error)
            .layer(Retry::new(Retries::new(1_000, true), FailThrice::default()));
        for _ in 0..10 {
            assert_eq!(ask(&mut service).await.unwrap(), "at last");
            calls += 4;
        }
        let totals = circuit.snapshot().totals;
        assert_eq!((totals.success, totals.failure), (10, 0), "three of four calls fail");

        circuit.trip();
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(ask(&mut service).await.unwrap(), "at last");
        assert_eq!(circuit.state(), State::Closed);
        assert_eq!(service.get_ref().get_ref().calls.load(Relaxed), calls + 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_that_the_docs_advise_bounds_calls_and_time() {
        let circuit = circuit(five());
        let dependency = Dependency::new("served", Mood::Hangs);
        let mut service = ServiceBuilder::new()
            .timeout(10 * SECOND)
            .retry(Retries::new(1_000, true))
            .layer(breaker(&circuit, WhenOpen::Error))
            .timeout(SECOND)
            .service(dependency.clone());
        let (took, answer) = timed(ask(&mut service)).await;
        assert!(answer.unwrap_err().is::<Elapsed>());
        assert!(about(4 * SECOND, took), "{took:?}");
        let (took, answer) = timed(ask(&mut service)).await;
        assert!(is_open(&answer.unwrap_err()));
        assert!(about(SECOND, took), "{took:?}");
        assert_eq!((circuit.state(), dependency.calls()), (State::Open, 5));
        let (took, answer) = timed(ask(&mut service)).await;
        assert!(is_open(&answer.unwrap_err()));
        assert!(about(Duration::ZERO, took), "{took:?}");

        dependency.set(Mood::Well);
        tokio::time::advance(5 * SECOND).await;
        assert_eq!(ask(&mut service).await.unwrap(), "served");
    }

    #[tokio::test(start_paused = true)]
    async fn outside_a_breaker_that_waits_a_total_timeout_bounds_the_retry() {
        let (service, dependency, circuit) = guarded(on_tokios_clock(), WhenOpen::Wait);
        let mut service = Timeout::new(Retry::new(Retries::new(10, true), service), 2 * SECOND);
        dependency.set(Mood::Down);
        // The first attempt was admitted; its retry waits inside the call.
        let (took, answer) = timed(ask(&mut service)).await;
        assert!(answer.unwrap_err().is::<Elapsed>());
        assert!(about(2 * SECOND, took), "{took:?}");
        assert_eq!((circuit.state(), dependency.calls()), (State::Open, 1));
    }

    /// Three calls fail, the fourth does not, and so on.
    #[derive(Clone, Default)]
    struct FailThrice {
        calls: Arc<AtomicUsize>,
    }

    impl Service<Request> for FailThrice {
        type Response = Reply;
        type Error = BoxError;
        type Future = Ready<Result<Reply, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request) -> Self::Future {
            let nth = self.calls.fetch_add(1, Relaxed) + 1;
            ready(if nth % 4 == 0 { Ok("at last") } else { Err("down".into()) })
        }
    }
}

mod steer {
    use tower::steer::Steer;

    use super::*;

    type Route = fn(&Request, &[Guarded]) -> usize;

    /// Requests go to the service of that name.
    fn steer(
        clock: &ManualClock,
        when_open: WhenOpen,
    ) -> (Steer<Guarded, Route, Request>, [Circuit; 2]) {
        let circuits = [circuit(touchy(clock)), circuit(touchy(clock))];
        let services = ["left", "right"].iter().zip(&circuits).map(|(name, circuit)| {
            breaker(circuit, when_open).layer(Dependency::new(name, Mood::Well))
        });
        let route: Route = |request, _| usize::from(*request == "right");
        (Steer::new(services, route), circuits)
    }

    async fn go<S: Service<Request>>(
        service: &mut S,
        to: Request,
    ) -> Result<S::Response, S::Error> {
        in_time(async { service.ready().await?.call(to).await }).await
    }

    #[tokio::test(start_paused = true)]
    async fn with_error_one_open_circuit_stops_every_route() {
        let clock = ManualClock::new();
        let (mut steer, [left, right]) = steer(&clock, WhenOpen::Error);
        left.trip();
        for _ in 0..10 {
            assert!(is_open(&go(&mut steer, "right").await.unwrap_err()));
        }
        assert_eq!(right.snapshot().totals, Default::default(), "it had nothing to do with it");
        clock.advance(5 * SECOND);
        assert_eq!(go(&mut steer, "right").await.unwrap(), "right");

        // The left one was found ready just now, and is not asked again before
        // it is called: so long, the others pass.
        left.reset();
        left.trip();
        for _ in 0..10 {
            assert_eq!(go(&mut steer, "right").await.unwrap(), "right");
        }
        assert!(is_open(&go(&mut steer, "left").await.unwrap_err()));
        assert!(is_open(&go(&mut steer, "right").await.unwrap_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_one_open_circuit_stops_every_route_until_it_is_due() {
        let clock = ManualClock::new();
        let (steer, [left, _right]) = steer(&clock, WhenOpen::Wait);
        left.trip();
        let mut steer = mock::Spawn::new(steer);
        assert!(steer.poll_ready().is_pending());
        clock.advance(5 * SECOND);
        assert!(steer.is_woken());
        assert!(steer.poll_ready().is_ready());
        assert_eq!(in_time(steer.call("right")).await.unwrap(), "right");
    }

    #[tokio::test(start_paused = true)]
    async fn with_defer_each_route_stands_for_itself() {
        let clock = ManualClock::new();
        let (mut steer, [left, right]) = steer(&clock, WhenOpen::Defer);
        left.trip();
        for _ in 0..10 {
            assert_eq!(go(&mut steer, "right").await.unwrap(), "right");
            assert!(is_open(&go(&mut steer, "left").await.unwrap_err()));
        }
        assert_eq!(right.snapshot().totals.rejected, 0);

        // The left one said yes while it was open, and is not asked again
        // before it is called: that call is refused however late it comes.
        assert_eq!(go(&mut steer, "right").await.unwrap(), "right");
        clock.advance(DAY);
        let error = go(&mut steer, "left").await.unwrap_err();
        let open = error.downcast_ref::<CircuitOpen>().unwrap();
        assert_eq!(open.retry_after(), Some(Duration::ZERO));
        assert_eq!(go(&mut steer, "left").await.unwrap(), "left");
        assert_eq!(left.state(), State::Closed);
    }
}

mod boxed {
    use tower::util::{BoxCloneService, BoxCloneSyncService, BoxService};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn boxes_clones_and_oneshots_share_the_circuit() {
        let clock = ManualClock::new();
        let (service, dependency, circuit) = guarded(touchy(&clock), WhenOpen::Error);
        let mut boxed = BoxService::new(service.clone());
        let mut cloned = BoxCloneService::new(service.clone());
        let mut synced = BoxCloneSyncService::new(service.clone());
        fn sync<T: Sync>(_: &T) {}
        sync(&synced);
        assert_eq!(ask(&mut boxed).await.unwrap(), "served");
        assert_eq!(ask(&mut cloned).await.unwrap(), "served");
        assert_eq!(ask(&mut synced).await.unwrap(), "served");
        assert_eq!(service.clone().oneshot("anything").await.unwrap(), "served");
        assert_eq!(circuit.snapshot().totals.success, 4);

        dependency.set(Mood::Down);
        ask(&mut boxed).await.unwrap_err();
        assert_eq!(dependency.calls(), 5);
        assert!(is_open(&ask(&mut boxed).await.unwrap_err()));
        assert!(is_open(&ask(&mut cloned.clone()).await.unwrap_err()));
        assert!(is_open(&ask(&mut synced.clone()).await.unwrap_err()));
        assert!(is_open(&cloned.clone().oneshot("anything").await.unwrap_err()));
        assert!(is_open(&service.clone().oneshot("anything").await.unwrap_err()));
        assert_eq!((dependency.calls(), circuit.snapshot().totals.rejected), (5, 5));

        dependency.set(Mood::Well);
        clock.advance(5 * SECOND);
        assert_eq!(synced.clone().oneshot("anything").await.unwrap(), "served");
        assert_eq!(ask(&mut boxed).await.unwrap(), "served");
    }

    #[tokio::test(start_paused = true)]
    async fn a_oneshot_is_refused_early_or_late_or_waits() {
        for when_open in [WhenOpen::Error, WhenOpen::Defer, WhenOpen::Wait] {
            let (service, _dependency, circuit) = guarded(on_tokios_clock(), when_open);
            circuit.trip();
            let (took, answer) = timed(service.oneshot("anything")).await;
            if when_open == WhenOpen::Wait {
                assert!(about(5 * SECOND, took), "{took:?}");
                assert_eq!(answer.unwrap(), "served");
            } else {
                assert!(is_open(&answer.unwrap_err()), "{when_open:?}");
            }
        }
    }
}

mod reconnect {
    use tower::reconnect::Reconnect;

    use super::*;

    /// Connects to services behind one circuit, so many times; counts.
    fn maker(
        service: Guarded,
        most: usize,
    ) -> (
        impl Service<(), Response = Guarded, Error = BoxError, Future = Ready<Connection<Guarded>>>,
        Arc<AtomicUsize>,
    ) {
        let connects = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connects);
        let maker = tower::service_fn(move |()| {
            let may = counted.fetch_add(1, Relaxed) < most;
            ready(if may { Ok(service.clone()) } else { Err("out of sockets".into()) })
        });
        (maker, connects)
    }

    type Connection<S> = Result<S, BoxError>;

    #[tokio::test(start_paused = true)]
    async fn around_error_it_connects_in_a_spin_within_one_poll() {
        let clock = ManualClock::new();
        let (service, dependency, circuit) = guarded(touchy(&clock), WhenOpen::Error);
        let (maker, connects) = maker(service, 1_000);
        let mut service = Reconnect::new(maker, ());
        assert_eq!(ask(&mut service).await.unwrap(), "served");
        assert_eq!(connects.load(Relaxed), 1);

        circuit.trip();
        // Were there sockets without end, this would not return.
        assert!(matches!(ready_now(&mut service), Poll::Ready(Ok(()))));
        assert_eq!(connects.load(Relaxed), 1_001);
        assert_eq!(circuit.snapshot().totals.rejected, 1_000);
        let error = in_time(service.call("anything")).await.unwrap_err();
        assert_eq!(error.to_string(), "out of sockets");
        assert!(CircuitOpen::find_in(&*error).is_none(), "that it was open is lost");
        assert_eq!(dependency.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn around_defer_it_keeps_the_connection() {
        let clock = ManualClock::new();
        let (service, _dependency, circuit) = guarded(touchy(&clock), WhenOpen::Defer);
        let (maker, connects) = maker(service, 1_000);
        let mut service = Reconnect::new(maker, ());
        circuit.trip();
        for _ in 0..10 {
            assert!(is_open(&ask(&mut service).await.unwrap_err()));
        }
        clock.advance(5 * SECOND);
        assert_eq!(ask(&mut service).await.unwrap(), "served");
        assert_eq!(connects.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn around_wait_it_keeps_the_connection_and_waits() {
        let (service, _dependency, circuit) = guarded(on_tokios_clock(), WhenOpen::Wait);
        let (maker, connects) = maker(service, 1_000);
        let mut service = Reconnect::new(maker, ());
        circuit.trip();
        let (took, answer) = timed(ask(&mut service)).await;
        assert_eq!(answer.unwrap(), "served");
        assert!(about(5 * SECOND, took), "{took:?}");
        assert_eq!(connects.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn inside_a_connection_that_fails_is_a_failed_call_and_opens() {
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock).consecutive_failures(3));
        let up = Arc::new(AtomicUsize::new(0));
        let connects = Arc::new(AtomicUsize::new(0));
        let (is_up, counted) = (Arc::clone(&up), Arc::clone(&connects));
        let maker = tower::service_fn(move |()| {
            counted.fetch_add(1, Relaxed);
            ready(match is_up.load(Relaxed) {
                0 => Err(BoxError::from("connection refused")),
                _ => Ok(Dependency::new("served", Mood::Well)),
            })
        });
        let mut service = breaker(&circuit, WhenOpen::Error).layer(Reconnect::new(maker, ()));
        for _ in 0..3 {
            assert_eq!(circuit.state(), State::Closed);
            assert_eq!(ask(&mut service).await.unwrap_err().to_string(), "connection refused");
        }
        assert_eq!(circuit.state(), State::Open);
        assert_eq!(circuit.snapshot().totals.failure, 3);
        for _ in 0..100 {
            assert!(is_open(&ask(&mut service).await.unwrap_err()));
        }
        assert_eq!(connects.load(Relaxed), 3, "nobody knocks while it is open");

        // The probe knocks once.
        clock.advance(5 * SECOND);
        assert_eq!(ask(&mut service).await.unwrap_err().to_string(), "connection refused");
        assert_eq!((circuit.state(), connects.load(Relaxed)), (State::Open, 4));
        up.store(1, Relaxed);
        clock.advance(5 * SECOND);
        assert_eq!(ask(&mut service).await.unwrap(), "served");
        assert_eq!((circuit.state(), connects.load(Relaxed)), (State::Closed, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn inside_a_connection_error_that_nobody_fetched_fails_the_next_call() {
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock));
        let (inner, connects) = {
            let connects = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&connects);
            let maker = tower::service_fn(move |()| {
                ready(match counted.fetch_add(1, Relaxed) {
                    0 => Err(BoxError::from("connection refused")),
                    _ => Ok(Dependency::new("served", Mood::Well)),
                })
            });
            (Reconnect::new(maker, ()), connects)
        };
        let mut service = breaker(&circuit, WhenOpen::Error).layer(inner);
        assert!(matches!(ready_now(&mut service), Poll::Ready(Ok(()))));
        circuit.trip();
        assert!(is_open(&in_time(service.call("late")).await.unwrap_err()));

        // It has connected by now, and reports the old error all the same.
        clock.advance(5 * SECOND);
        assert_eq!(ask(&mut service).await.unwrap_err().to_string(), "connection refused");
        assert_eq!((circuit.state(), connects.load(Relaxed)), (State::Open, 2));
        clock.advance(5 * SECOND);
        assert_eq!(ask(&mut service).await.unwrap(), "served");
    }

    #[tokio::test(start_paused = true)]
    async fn inside_a_connection_that_hangs_is_no_call_and_never_opens() {
        let (_service, _dependency, circuit) =
            guarded(on_tokios_clock().slow_calls(SECOND, 0.5), WhenOpen::Error);
        let maker =
            tower::service_fn(
                |()| Box::pin(std::future::pending::<Result<Dependency, BoxError>>()),
            );
        let mut service = ServiceBuilder::new()
            .timeout(SECOND)
            .layer(breaker(&circuit, WhenOpen::Error))
            .service(Reconnect::new(maker, ()));
        for _ in 0..100 {
            tokio::time::advance(5 * SECOND).await;
            assert!(poll(service.ready()).is_pending(), "nor does the timeout see it");
        }
        let snapshot = circuit.snapshot();
        assert_eq!((snapshot.state, snapshot.totals), (State::Closed, Default::default()));
    }
}

mod spawn_ready {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tower::spawn_ready::SpawnReady;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn around_wait_it_waits_in_the_background() {
        let (service, _dependency, circuit) = guarded(on_tokios_clock(), WhenOpen::Wait);
        let mut service = SpawnReady::new(service);
        circuit.trip();
        assert!(poll(service.ready()).is_pending());
        let (took, answer) = timed(ask(&mut service)).await;
        assert_eq!(answer.unwrap(), "served");
        assert!(about(5 * SECOND, took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn around_wait_a_change_by_hand_is_heard_in_the_background() {
        let (service, _dependency, circuit) = guarded(on_tokios_clock(), WhenOpen::Wait);
        let mut service = SpawnReady::new(service);
        circuit.trip();
        // Polled here first and then in a task of its own: who waits, changes.
        assert!(poll(service.ready()).is_pending());
        let reset = async {
            tokio::time::sleep(SECOND).await;
            circuit.reset();
        };
        let (took, (answer, ())) = timed(async { tokio::join!(ask(&mut service), reset) }).await;
        assert_eq!(answer.unwrap(), "served");
        assert!(about(SECOND, took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn around_error_it_survives_a_refusal_at_once_and_not_one_in_the_background() {
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock));
        let (mock, mut handle) = mock::pair::<Request, Reply>();
        let mut service = SpawnReady::new(breaker(&circuit, WhenOpen::Error).layer(mock));
        handle.allow(0);
        circuit.trip();
        for _ in 0..3 {
            assert!(is_open(&ask(&mut service).await.unwrap_err()));
        }

        // Closed, the mock is not ready: somebody waits for it in a task. That
        // ends with the refusal, and the service with it.
        circuit.reset();
        assert!(poll(service.ready()).is_pending());
        tokio::task::yield_now().await;
        circuit.trip();
        handle.allow(1);
        assert!(is_open(&ask(&mut service).await.unwrap_err()));
        circuit.reset();
        let again = catch_unwind(AssertUnwindSafe(|| ready_now(&mut service).is_ready()));
        assert!(again.is_err(), "it awaits a task twice, and panics");
    }

    #[tokio::test(start_paused = true)]
    async fn around_defer_it_survives() {
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock));
        let (mock, mut handle) = mock::pair::<Request, Reply>();
        let mut service = SpawnReady::new(breaker(&circuit, WhenOpen::Defer).layer(mock));
        handle.allow(0);
        assert!(poll(service.ready()).is_pending());
        tokio::task::yield_now().await;
        circuit.trip();
        handle.allow(1);
        assert!(is_open(&ask(&mut service).await.unwrap_err()));
        circuit.reset();
        let call = begin(&mut service);
        serve(&mut handle, "served").await;
        assert_eq!(in_time(call).await.unwrap(), "served");
    }

    #[tokio::test(start_paused = true)]
    async fn inside_it_is_not_asked_while_open() {
        let clock = ManualClock::new();
        let circuit = circuit(touchy(&clock));
        let (mock, mut handle) = mock::pair::<Request, Reply>();
        let mut service = breaker(&circuit, WhenOpen::Error).layer(SpawnReady::new(mock));
        handle.allow(1);
        circuit.trip();
        assert!(is_open(&ask(&mut service).await.unwrap_err()));
        clock.advance(5 * SECOND);
        let probe = begin(&mut service);
        serve(&mut handle, "served").await;
        assert_eq!(in_time(probe).await.unwrap(), "served");
        assert_eq!(circuit.state(), State::Closed);
    }
}

mod building {
    use tower::util::{Either, Optional, option_layer};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_optional_layer_is_a_breaker_or_nothing() {
        let circuit = circuit(touchy(&ManualClock::new()));
        circuit.trip();
        for on in [true, false] {
            let layer = on.then(|| breaker(&circuit, WhenOpen::Error));
            let dependency = Dependency::new("served", Mood::Well);
            let mut service =
                ServiceBuilder::new().option_layer(layer.clone()).service(dependency.clone());
            assert_eq!(ask(&mut service).await.is_ok(), !on);

            let service = option_layer(layer).layer(dependency);
            assert_eq!(matches!(service, Either::Left(_)), on);
            assert_eq!(service.oneshot("anything").await.is_ok(), !on);
        }
        assert_eq!(circuit.snapshot().totals.rejected, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_optional_service_may_be_behind_a_breaker_or_before_it() {
        let clock = ManualClock::new();
        let (service, _dependency, circuit) = guarded(touchy(&clock), WhenOpen::Error);
        let mut before = Optional::new::<Request>(Some(service));
        assert_eq!(ask(&mut before).await.unwrap(), "served");
        circuit.trip();
        assert!(is_open(&ask(&mut before).await.unwrap_err()));
        circuit.reset();

        // That there is no service is an error like another.
        let none = Optional::new::<Request>(None::<Dependency>);
        let mut behind = breaker(&circuit, WhenOpen::Error).layer(none);
        assert!(ask(&mut behind).await.unwrap_err().is::<tower::util::error::optional::None>());
        assert_eq!(circuit.state(), State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_by_reference_puts_one_circuit_before_many() {
        let circuit = circuit(touchy(&ManualClock::new()));
        let layer = breaker(&circuit, WhenOpen::Error);
        let stack = ServiceBuilder::new().layer(&layer);
        let mut one = stack.service(Dependency::new("one", Mood::Well));
        let mut two = ServiceBuilder::new()
            .layer(&layer)
            .check_clone()
            .service(Dependency::new("two", Mood::Down));
        assert_eq!(ask(&mut one).await.unwrap(), "one");
        assert_eq!(ask(&mut two).await.unwrap_err().to_string(), "down");
        assert!(is_open(&ask(&mut one).await.unwrap_err()));
        assert_eq!(layer.circuit().state(), State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn tower_knows_the_stack_for_a_service_whose_errors_are_boxed() {
        let layer = breaker(&circuit(touchy(&ManualClock::new())), WhenOpen::Error);
        let service = ServiceBuilder::new()
            .check_service_clone::<Dependency>()
            .map_err(|error: BoxError| error.to_string())
            .layer(layer)
            .map_request(|request: Request| request)
            .check_service::<Dependency, Request, Reply, String>()
            .service(Dependency::new("served", Mood::Down));
        assert_eq!(service.oneshot("anything").await.unwrap_err(), "down");
    }
}
