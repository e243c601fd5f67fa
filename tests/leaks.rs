//! Nothing leaks, nothing hangs: a million calls that end in every way there
//! is, and afterwards every permit is back, every call is counted once, and
//! the circuit closes.

use std::{
    future::Future,
    mem,
    panic::{self, AssertUnwindSafe, catch_unwind, panic_any},
    pin::{Pin, pin},
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use tower::{BoxError, Layer, Service};
use tower_breaker::{
    Backoff, Call, Circuit, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Classify, Config,
    ConfigBuilder, ManualClock, Observer, Outcome, Override, Probes, State, Totals, Transition,
    WhenOpen,
};

// Miri takes a thousand times as long.
const FEWER_DROPS: u64 = if cfg!(miri) { 1_000 } else { 1 };
const FEWER: u64 = if cfg!(miri) { 100 } else { 1 };

// A panic costs as much as many drops, so there are fewer of them.
const DROPPED_CLOSED: u64 = 280_000 / FEWER_DROPS;
const DROPPED_HALF_OPEN: u64 = 280_000 / FEWER_DROPS;
const DROPPED_BY_THREADS: u64 = 400_000 / FEWER_DROPS;
const PANICKING_CLOSED: u64 = 8_000 / FEWER;
const PANICKING_HALF_OPEN: u64 = 8_000 / FEWER;
const WATCHED_BY_PANICKERS: u64 = 4_000 / FEWER;
const ANSWERED_BY_PANICKERS: u64 = 4_000 / FEWER;
const ABORTED: u64 = 8_000 / FEWER;
const FORGOTTEN: u64 = 8_000 / FEWER;

const _: () = assert!(
    cfg!(miri)
        || DROPPED_CLOSED
            + DROPPED_HALF_OPEN
            + DROPPED_BY_THREADS
            + PANICKING_CLOSED
            + PANICKING_HALF_OPEN
            + WATCHED_BY_PANICKERS
            + ANSWERED_BY_PANICKERS
            + ABORTED
            + FORGOTTEN
            == 1_000_000
);

const WAIT: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_millis(100);

/// How a call ends. It is the request too, so that the dependency and the
/// classifier know what to do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// The permit is dropped before it is used.
    PermitUnused,
    PermitCancelled,
    PermitInAPanic,
    /// The future is dropped before it is polled.
    Unpolled,
    /// … once the inner future was found pending.
    Pending,
    /// … when it is so old that the drop says something.
    PendingLong,
    /// … by a panic that is none of the call's.
    PendingInAPanic,
    PanicInCall,
    PanicInFuture,
    PanicInClassifier,
    Fails,
    Succeeds,
}

use Way::*;

/// Ways to end that say nothing of the dependency.
const NEUTRAL: [Way; 4] = [PermitUnused, PermitCancelled, Unpolled, Pending];
const PANICKING: [Way; 5] =
    [PermitInAPanic, PendingInAPanic, PanicInCall, PanicInFuture, PanicInClassifier];

#[test]
fn calls_dropped_while_closed_leave_nothing_behind() {
    let mut rig = Rig::new(never_opens());
    for way in cycle(DROPPED_CLOSED, &[&NEUTRAL[..], &[PendingLong, Fails, Succeeds]].concat()) {
        rig.call(way);
    }
    assert_eq!(rig.circuit.state(), State::Closed);
    let totals = rig.settled(DROPPED_CLOSED);
    // Five of seven ways drop the call.
    assert_eq!(totals.cancelled, DROPPED_CLOSED / 7 * 5);
    assert_eq!((totals.opened, totals.rejected), (0, 0));
    rig.recovers();
}

#[test]
fn probes_dropped_before_they_say_anything_can_be_taken_again() {
    for probes in [1, 3] {
        let mut rig = Rig::new(never_opens().probes(Probes::new(probes)));
        rig.half_open();
        for way in cycle(DROPPED_HALF_OPEN / 2, &NEUTRAL) {
            rig.call(way);
            assert_eq!(rig.circuit.state(), State::HalfOpen, "after {way:?}");
        }
        assert_eq!(rig.circuit.snapshot().probes.unwrap().permits_left, probes);
        // With the one that made it half-open.
        let calls = DROPPED_HALF_OPEN / 2 + 1;
        assert_eq!(rig.settled(calls).cancelled, calls);
        rig.recovers();
    }
}

#[test]
fn threads_that_drop_probes_at_once_lose_none() {
    const THREADS: u64 = 4;
    let mut rig = Rig::new(never_opens().probes(Probes::new(2)));
    rig.half_open();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let mut own = rig.clone();
            scope.spawn(move || {
                for way in cycle(DROPPED_BY_THREADS / THREADS, &NEUTRAL) {
                    own.call_or_be_refused(way);
                }
            });
        }
    });
    assert_eq!(rig.circuit.state(), State::HalfOpen);
    assert_eq!(rig.circuit.snapshot().probes.unwrap().permits_left, 2);
    // Whoever found both probes out was refused, once.
    let refused = rig.circuit.snapshot().totals.rejected;
    let calls = DROPPED_BY_THREADS + 1 - refused;
    assert_eq!(rig.settled(calls).cancelled, calls);
    rig.recovers();
}

#[test]
fn calls_that_panic_while_closed_are_counted_once() {
    let mut rig = Rig::new(never_opens());
    for way in cycle(PANICKING_CLOSED, &PANICKING) {
        rig.call(way);
    }
    let totals = rig.settled(PANICKING_CLOSED);
    // One way of five is a panic that is none of the call's.
    assert_eq!(totals.failure, PANICKING_CLOSED / 5 * 4);
    assert_eq!(totals.cancelled, PANICKING_CLOSED / 5);
    rig.recovers();
}

#[test]
fn probes_that_panic_have_failed_and_the_next_can_be_taken() {
    let mut rig = Rig::new(never_opens());
    rig.half_open();
    let ways = [&PANICKING[..], &[PendingLong, Fails, Pending]].concat();
    for way in cycle(PANICKING_HALF_OPEN, &ways) {
        rig.let_probes_in();
        rig.call(way);
        let proves_nothing = matches!(way, PendingInAPanic | Pending);
        let state = if proves_nothing { State::HalfOpen } else { State::Open };
        assert_eq!(rig.circuit.state(), state, "after {way:?}");
    }
    let totals = rig.settled(PANICKING_HALF_OPEN + 1);
    // Of eight ways two prove nothing, and one fails by being dropped late.
    assert_eq!(totals.opened, 1 + PANICKING_HALF_OPEN / 8 * 6);
    assert_eq!(totals.failure, PANICKING_HALF_OPEN / 8 * 5);
    rig.recovers();
}

#[test]
fn observers_that_panic_cost_no_permit() {
    let observer = Panicker::default();
    let panics = Arc::clone(&observer.0);
    let mut rig = Rig::new(never_opens().observer(observer));
    rig.half_open();
    // Some of these panic themselves: then the observer does while they unwind.
    let ways = [PermitUnused, Pending, PermitInAPanic, PanicInFuture, PendingInAPanic, Fails];
    for way in cycle(WATCHED_BY_PANICKERS, &ways) {
        rig.let_probes_in();
        rig.call(way);
    }
    let calls = WATCHED_BY_PANICKERS + 1;
    let totals = rig.settled(calls);
    // It was told of each call, of each opening, and of each wait that ended.
    rig.let_probes_in();
    drop(rig.circuit.try_acquire().unwrap());
    assert_eq!(panics.load(Ordering::Relaxed), calls + 1 + totals.opened * 2);
    rig.recovers();
}

/// What it panics with may panic as well, when it is dropped.
#[test]
fn an_observer_that_panics_twice_keeps_nothing_from_the_others() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_any(Planned);
        }
    }
    struct Bomber;
    impl Observer for Bomber {
        fn on_transition(&self, _: &Transition) {
            panic_any(Bomb);
        }
    }
    #[derive(Clone, Default)]
    struct Told(Arc<AtomicU64>);
    impl Observer for Told {
        fn on_transition(&self, _: &Transition) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let told = Told::default();
    let config = Config::builder("bombed").observer(Bomber).observer(told.clone());
    let circuit = Circuit::new(config.build().unwrap());
    for _ in 0..3 {
        circuit.trip();
        circuit.reset();
    }
    assert_eq!(told.0.load(Ordering::Relaxed), 6);
}

#[test]
fn a_waker_that_panics_leaves_nobody_asleep() {
    struct Bell(Option<Arc<AtomicU64>>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            match &self.0 {
                Some(rung) => rung.fetch_add(1, Ordering::Relaxed),
                None => panic_any(Planned),
            };
        }
    }
    let rung = Arc::new(AtomicU64::new(0));
    let rig = Rig::new(never_opens());
    rig.circuit.set_override(Override::force_open());
    let waits = |bell: Option<&Arc<AtomicU64>>| {
        let waker = Waker::from(Arc::new(Bell(bell.cloned())));
        let mut service = rig.layer().when_open(WhenOpen::Wait).layer(Dependency);
        let ready = service.poll_ready(&mut Context::from_waker(&waker));
        assert!(ready.is_pending());
        service
    };
    let _waiting = [None, Some(&rung), None, Some(&rung), None].map(waits);
    rig.circuit.clear_override();
    assert_eq!(rung.load(Ordering::Relaxed), 2);
}

#[test]
fn fallbacks_that_panic_cost_no_permit() {
    let mut rig = Rig::new(never_opens());
    rig.half_open();
    let mut at_once =
        rig.layer().fallback(|_: CircuitOpen| -> Way { panic_any(Planned) }).layer(Dependency);
    let mut later = rig
        .layer()
        .fallback_with(async |_: Way, _: CircuitOpen| -> Way { panic_any(Planned) })
        .layer(Dependency);
    for round in 0..ANSWERED_BY_PANICKERS / 4 {
        // Refused for want of a probe, then because it is open.
        let probe = rig.circuit.try_acquire().unwrap();
        if round % 2 == 1 {
            rig.circuit.trip();
        }
        panics_as_planned(|| poll_once(&mut at_once, Succeeds));
        panics_as_planned(|| poll_once(&mut later, Succeeds));
        drop(probe);

        rig.let_probes_in();
        assert!(poll_once(&mut at_once, Pending).is_pending());
        assert!(poll_once(&mut later, Pending).is_pending());
        assert_eq!(rig.circuit.state(), State::HalfOpen);
    }
    let totals = rig.settled(1 + ANSWERED_BY_PANICKERS / 4 * 3);
    assert_eq!(totals.rejected, ANSWERED_BY_PANICKERS / 2);
    assert_eq!(totals.stale, ANSWERED_BY_PANICKERS / 8);
    rig.recovers();
}

#[tokio::test(start_paused = true)]
async fn aborted_tasks_and_timeouts_give_their_probes_back() {
    let mut rig = Rig::new(never_opens());
    rig.half_open();
    for _ in 0..ABORTED / 2 {
        let mut service = rig.service.clone();
        let task = tokio::spawn(async move { service.call(Pending).await });
        tokio::task::yield_now().await;
        assert_eq!(rig.circuit.snapshot().probes.unwrap().in_flight, 1);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());

        let call = rig.service.call(Pending);
        tokio::time::timeout(Duration::from_millis(1), call).await.unwrap_err();
    }
    assert_eq!(rig.circuit.state(), State::HalfOpen);
    assert_eq!(rig.settled(ABORTED + 1).cancelled, ABORTED + 1);
    rig.recovers();
}

#[test]
#[cfg_attr(miri, ignore = "what is forgotten leaks")]
fn a_probe_that_is_forgotten_holds_it_half_open_no_longer_than_its_lease() {
    const LEASE: Duration = Duration::from_secs(2);
    let mut rig = Rig::new(never_opens().probes(Probes::new(1).lease(LEASE)));
    rig.half_open();
    for _ in 0..FORGOTTEN / 2 {
        let probe = rig.circuit.try_acquire().unwrap();
        mem::forget(probe);
        assert!(rig.circuit.try_acquire().is_err());
        rig.clock.advance(LEASE + WAIT);

        mem::forget(rig.service.call(Pending));
        assert!(rig.circuit.try_acquire().is_err());
        rig.clock.advance(LEASE + WAIT);
    }
    // The last lease has ended, though nobody has asked since.
    let totals = rig.settled(FORGOTTEN + 1);
    assert_eq!((totals.failure, totals.opened), (FORGOTTEN, FORGOTTEN + 1));
    rig.recovers();
}

/// A circuit, its clock, and a service before a dependency that does as it is
/// asked.
#[derive(Clone)]
struct Rig {
    circuit: Circuit,
    clock: ManualClock,
    service: CircuitBreaker<Dependency, Judge>,
}

impl Rig {
    fn new(config: ConfigBuilder) -> Self {
        keep_quiet_about_planned_panics();
        let clock = ManualClock::new();
        let circuit = Circuit::new(config.clock(&clock).build().unwrap());
        let service = CircuitBreakerLayer::with_classifier(&circuit, Judge).layer(Dependency);
        Self { circuit, clock, service }
    }

    fn layer(&self) -> CircuitBreakerLayer<Judge> {
        CircuitBreakerLayer::with_classifier(&self.circuit, Judge)
    }

    /// Opens it, lets the wait pass, and takes and drops a first probe.
    fn half_open(&mut self) {
        self.circuit.trip();
        self.let_probes_in();
        self.call(PermitUnused);
        assert_eq!(self.circuit.state(), State::HalfOpen);
    }

    /// Lets the wait pass, if it is open.
    fn let_probes_in(&self) {
        if self.circuit.state() == State::Open {
            self.clock.advance(WAIT);
        }
    }

    /// Makes a call, which must be admitted.
    fn call(&mut self, way: Way) {
        assert!(self.call_or_be_refused(way), "{way:?} was refused");
    }

    /// Makes a call that is gone at the end of this, and says whether it was
    /// let that far.
    fn call_or_be_refused(&mut self, way: Way) -> bool {
        if matches!(way, PermitUnused | PermitCancelled | PermitInAPanic) {
            let Ok(permit) = self.circuit.try_acquire() else { return false };
            match way {
                PermitUnused => drop(permit),
                PermitCancelled => permit.cancel(),
                _ => panics_as_planned(|| {
                    let _permit = permit;
                    panic_any(Planned)
                }),
            }
            return true;
        }
        let Self { clock, service, .. } = self;
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(ready) = service.poll_ready(&mut cx) else { panic!("{way:?} must wait") };
        if ready.is_err() {
            return false;
        }
        match way {
            Unpolled => drop(service.call(way)),
            PanicInCall | PanicInFuture | PanicInClassifier => {
                panics_as_planned(|| poll_once(service, way));
            }
            PendingInAPanic => panics_as_planned(|| {
                let mut call = pin!(service.call(way));
                assert!(call.as_mut().poll(&mut cx).is_pending());
                panic_any(Planned)
            }),
            PendingLong => {
                let mut call = Box::pin(service.call(way));
                assert!(call.as_mut().poll(&mut cx).is_pending());
                clock.advance(SLOW + Duration::from_nanos(1));
            }
            // May be pending, may lose the race for a probe.
            _ => drop(poll_once(service, way)),
        }
        true
    }

    /// Every permit is back, and so many calls were counted, each once.
    #[track_caller]
    fn settled(&self, calls: u64) -> Totals {
        let snapshot = self.circuit.snapshot();
        assert_eq!(snapshot.probes.map_or(0, |probes| probes.in_flight), 0);
        let totals = snapshot.totals;
        let ends = [totals.success, totals.failure, totals.ignored, totals.cancelled, totals.stale];
        assert_eq!(ends.iter().sum::<u64>(), calls, "{totals:?}");
        totals
    }

    /// It opens, probes and closes as if nothing had been.
    #[track_caller]
    fn recovers(&self) {
        self.circuit.trip();
        assert_eq!(self.circuit.state(), State::Open);
        self.clock.advance(WAIT);
        // Three probes are the most that any of these circuits has.
        for _ in 0..3 {
            self.circuit.try_acquire().expect("a probe").record(Outcome::Success);
        }
        assert_eq!(self.circuit.state(), State::Closed);
    }
}

/// No rule that these calls could meet, and every drop judged by its age.
fn never_opens() -> ConfigBuilder {
    Config::builder("leaks")
        .no_failure_rate()
        .consecutive_failures(u32::MAX)
        .minimum_calls(20)
        .slow_calls(SLOW, 1.0)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(WAIT))
        .probes(Probes::new(1))
}

fn cycle(calls: u64, ways: &[Way]) -> impl Iterator<Item = Way> {
    ways.iter().copied().cycle().take(calls as usize)
}

/// Calls, polls once, and drops what came of it.
fn poll_once<S: Service<Way>>(service: &mut S, way: Way) -> Poll<Result<S::Response, S::Error>> {
    pin!(service.call(way)).poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
fn panics_as_planned<R>(call: impl FnOnce() -> R) {
    let panic = catch_unwind(AssertUnwindSafe(call)).err().expect("a panic");
    assert!(panic.is::<Planned>());
}

/// The payload of the panics that belong to the tests.
struct Planned;

fn keep_quiet_about_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !panic.payload().is::<Planned>() {
                loud(panic);
            }
        }));
    });
}

#[derive(Clone)]
struct Dependency;

impl Service<Way> for Dependency {
    type Response = Way;
    type Error = BoxError;
    type Future = Work;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, way: Way) -> Work {
        if way == PanicInCall {
            panic_any(Planned);
        }
        Work(way)
    }
}

struct Work(Way);

impl Future for Work {
    type Output = Result<Way, BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0 {
            Pending | PendingLong | PendingInAPanic => Poll::Pending,
            PanicInFuture => panic_any(Planned),
            Fails => Poll::Ready(Err("it failed".into())),
            way => Poll::Ready(Ok(way)),
        }
    }
}

#[derive(Clone)]
struct Judge;

impl Classify<Way> for Judge {
    fn classify(&self, result: Result<&Way, &BoxError>, _: Duration) -> Outcome {
        match result {
            Ok(PanicInClassifier) => panic_any(Planned),
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}

/// Panics whenever it is told anything.
#[derive(Default)]
struct Panicker(Arc<AtomicU64>);

impl Panicker {
    fn panic(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic_any(Planned)
    }
}

impl Observer for Panicker {
    fn on_transition(&self, _: &Transition) {
        self.panic();
    }

    fn on_call(&self, _: &Call<'_>) {
        self.panic();
    }

    fn on_rejection(&self, _: &CircuitOpen) {
        self.panic();
    }
}
