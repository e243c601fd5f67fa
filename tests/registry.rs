//! Named circuits: who is there, what happened, and how they do.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    pin::pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use proptest::prelude::*;
use tower_breaker::{
    Backoff, Circuit, Command, Config, ConfigBuilder, DuplicateName, EventKind, Key, KeyedCircuits,
    KeyedCircuitsBuilder, Lagged, ManualClock, Observer, Outcome, Override, Probes, Registry,
    Start, State, Step, Subscription,
};

const SECOND: Duration = Duration::from_secs(1);

fn config(name: &str) -> Config {
    Config::builder(name).build().unwrap()
}

/// Opens at the second failure in a row, for a second.
fn brittle(clock: &ManualClock) -> ConfigBuilder {
    Config::builder("inventory")
        .consecutive_failures(2)
        .open_for(Backoff::fixed(SECOND))
        .clock(clock)
}

fn call(circuit: &Circuit, outcome: Outcome) {
    circuit.try_acquire().unwrap().record(outcome);
}

fn names(registry: &Registry) -> Vec<String> {
    registry.circuits().iter().map(|circuit| circuit.name().to_owned()).collect()
}

/// What has happened, in a word each.
fn kinds(registry: &Registry) -> Vec<&'static str> {
    registry.events_after(0, usize::MAX).events.iter().map(|event| event.kind.as_str()).collect()
}

#[test]
fn circuits_are_found_by_their_name_and_listed_in_its_order() {
    let registry = Registry::new();
    for name in ["search", "inventory", "payments"] {
        registry.circuit(config(name)).unwrap();
    }
    assert_eq!(names(&registry), ["inventory", "payments", "search"]);
    registry.get("payments").unwrap().trip();
    assert_eq!(registry.clone().get("payments").unwrap().state(), State::Open);
    assert_eq!(registry.get("search").unwrap().state(), State::Closed);
    assert!(registry.get("payment").is_none());
}

#[test]
fn a_layer_has_the_circuit_that_is_registered() {
    let registry = Registry::new();
    let layer = registry.layer(config("inventory")).unwrap();
    layer.circuit().trip();
    assert_eq!(registry.get("inventory").unwrap().state(), State::Open);
}

#[test]
fn a_name_is_had_once_until_it_is_removed() {
    let registry = Registry::new();
    let first = registry.circuit(config("inventory")).unwrap();
    let error: DuplicateName = registry.circuit(config("inventory")).unwrap_err();
    assert_eq!(error.name(), "inventory");
    assert_eq!(
        error.to_string(),
        "name is \"inventory\", but the registry has a circuit of that name"
    );
    assert!(registry.layer(config("inventory")).is_err());
    // Nothing came of it.
    first.trip();
    assert_eq!(registry.get("inventory").unwrap().state(), State::Open);
    assert_eq!(kinds(&registry), ["registered", "transition"]);

    let removed = registry.remove("inventory").unwrap();
    assert_eq!(removed.state(), State::Open);
    assert!(registry.remove("inventory").is_none());
    assert!(registry.get("inventory").is_none());
    let second = registry.circuit(config("inventory")).unwrap();
    assert_eq!(second.state(), State::Closed);
}

#[test]
fn one_of_many_at_once_gets_the_name() {
    for _ in 0..50 {
        let registry = Registry::new();
        let barrier = Barrier::new(4);
        let made: usize = thread::scope(|scope| {
            let create = || {
                barrier.wait();
                usize::from(registry.circuit(config("inventory")).is_ok())
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((made, kinds(&registry).len()), (1, 1));
    }
}

#[test]
fn the_registry_is_a_handle_and_so_is_every_other() {
    let registry = Registry::new();
    registry.circuit(config("inventory")).unwrap().trip();
    assert_eq!(registry.get("inventory").unwrap().state(), State::Open);

    let circuit = registry.remove("inventory").unwrap();
    drop(registry);
    circuit.reset();
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn nothing_is_told_of_a_circuit_once_it_is_removed_but_what_somebody_asked_of_it() {
    let registry = Registry::new();
    let old = registry.circuit(config("inventory")).unwrap();
    registry.remove("inventory");
    old.trip();
    let new = registry.circuit(config("inventory")).unwrap();
    old.reset();
    assert!(registry.vitals(&old).is_none());
    assert!(registry.vitals(&new).is_some());
    assert_eq!(kinds(&registry), ["registered", "removed", "registered"]);
    // Whoever steered it in the moment in which it left did so.
    assert_eq!(registry.record_command(&old, Command::new("reset").by("alice")), 4);
    let told = registry.events_after(3, 10).events;
    assert_eq!(told[0].to_string(), "inventory: alice asked for `reset`");
}

#[test]
fn what_happens_is_told_in_its_order_and_in_a_sentence() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let circuit = registry.circuit(brittle(&clock).build().unwrap()).unwrap();
    call(&circuit, Outcome::Failure);
    call(&circuit, Outcome::Failure);
    circuit.set_override(Override::force_closed().reason("the rebuild").expires_in(60 * SECOND));
    clock.advance(60 * SECOND);
    call(&circuit, Outcome::Success);
    circuit.set_override(Override::force_open().until_cleared());
    circuit.clear_override();
    registry.record_command(&circuit, Command::new("reset").by("alice"));
    circuit.reset();
    registry.remove("inventory");
    let told = registry.events_after(0, 100);
    let sentences: Vec<_> = told.events.iter().map(ToString::to_string).collect();
    assert_eq!(
        sentences,
        [
            "inventory: it was registered",
            "inventory: closed -> open, because 2 calls in a row failed, and 2 are enough to open; \
             next try in 1.0s",
            "inventory: an operator set force-closed for 60.0s: the rebuild",
            "inventory: the override has run out",
            "inventory: open -> half-open, because the wait of 1.0s was over",
            "inventory: an operator set force-open until it is cleared",
            "inventory: the override was lifted",
            "inventory: alice asked for `reset`",
            "inventory: half-open -> closed, because it was reset by hand",
            "inventory: it was removed from the registry",
        ]
    );
    let ids: Vec<_> = told.events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=10).collect::<Vec<u64>>());
    assert_eq!((told.missed, told.last_id), (0, 10));
}

#[test]
fn a_reconfiguration_and_an_owner_are_told_by_their_names() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let circuit = registry.circuit(brittle(&clock).build().unwrap()).unwrap();
    circuit.reconfigure(brittle(&clock).minimum_calls(5).build().unwrap()).unwrap();
    circuit.set_override(Override::force_open().owner("alice"));
    let told = registry.events_after(1, 10).events;
    let sentences: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        sentences,
        [
            "inventory: reconfigured, minimum_calls: 10 -> 5",
            "inventory: alice set force-open for 3600.0s",
        ]
    );
    let EventKind::Reconfigured(reconfigured) = &told[0].kind else { panic!("{told:?}") };
    assert_eq!(reconfigured.changes.len(), 1);
}

#[test]
fn an_event_has_the_date_of_its_circuits_clock() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let circuit = registry.circuit(brittle(&clock).build().unwrap()).unwrap();
    clock.advance(90 * SECOND);
    circuit.trip();
    let [registered, opened] = &registry.events_after(0, 10).events[..] else {
        panic!("there are two")
    };
    assert_eq!(opened.at.duration_since(registered.at).unwrap(), 90 * SECOND);
}

#[test]
fn one_that_is_restored_is_registered_as_it_was_and_counts_from_there() {
    let clock = ManualClock::new();
    let rules = || brittle(&clock).open_for(Backoff::fixed(60 * SECOND)).build().unwrap();
    let before = Circuit::new(rules());
    call(&before, Outcome::Success);
    call(&before, Outcome::Failure);
    call(&before, Outcome::Failure);
    let saved = before.save();

    let registry = Registry::new();
    let circuit = registry.restore(rules(), saved.clone()).unwrap();
    assert_eq!(registry.get("inventory").unwrap().state(), State::Open);
    assert_eq!(kinds(&registry), ["registered"]);
    clock.advance(SECOND);
    registry.sample();
    let vitals = registry.vitals(&circuit).unwrap();
    let step = vitals.series.steps[59].unwrap();
    assert_eq!((step.calls, step.worst, vitals.rates.calls), (0, State::Open, 0.0));
    assert_eq!(circuit.snapshot().totals.failure, 2);

    let error = registry.restore(rules(), saved.clone()).unwrap_err();
    assert_eq!(error.field(), "name");
    let other = Config::builder("other").build().unwrap();
    assert_eq!(registry.restore(other, saved).unwrap_err().field(), "saved.name");
    assert!(registry.get("other").is_none());
}

#[test]
fn an_override_that_was_restored_is_told_of_at_once_and_ends_as_one_that_ran_out() {
    let clock = ManualClock::new();
    let rules = || brittle(&clock).build().unwrap();
    let before = Circuit::new(rules());
    before.set_override(Override::force_open().expires_in(60 * SECOND));
    let registry = Registry::new();
    registry.restore(rules(), before.save()).unwrap();
    assert_eq!(kinds(&registry), ["registered", "override-set"]);
    clock.advance(60 * SECOND);
    registry.sample();
    let last = registry.events_after(2, 1).events[0].to_string();
    assert_eq!(last, "inventory: the override has run out");
}

#[test]
fn one_that_starts_observed_is_told_of_after_it_was_registered() {
    let registry = Registry::new();
    let start = Start::ObserveOnly(SECOND);
    let circuit = registry.circuit(Config::builder("a").start(start).build().unwrap()).unwrap();
    call(&circuit, Outcome::Success);
    assert_eq!(kinds(&registry), ["registered", "override-set"]);
}

/// What a reader knows of the events it was given.
struct Reader {
    subscription: Subscription,
    seen: u64,
}

impl Reader {
    fn new(subscription: Subscription) -> Self {
        Self { seen: subscription.last_id(), subscription }
    }

    /// Reads what is there, and checks that nothing is skipped unsaid.
    fn read(&mut self, at_most: usize) -> usize {
        for count in 0..at_most {
            match self.subscription.try_next() {
                Ok(None) => return count,
                Ok(Some(event)) => {
                    assert_eq!(event.id, self.seen + 1);
                    self.seen = event.id;
                }
                Err(Lagged { missed, .. }) => {
                    assert!(missed > 0);
                    self.seen += missed;
                }
            }
            assert_eq!(self.subscription.last_id(), self.seen);
        }
        at_most
    }
}

proptest! {
    #[test]
    fn a_reader_misses_nothing_unsaid_however_slow_it_is(
        history in 1..20usize,
        steps in prop::collection::vec((0..2usize, 0..30usize), 1..40),
    ) {
        let registry = Registry::builder().history(history).build();
        let circuit = registry.circuit(config("inventory")).unwrap();
        let mut reader = Reader::new(registry.subscribe_after(0));
        let mut published = 1u64;
        for (kind, many) in steps {
            if kind == 0 {
                for _ in 0..many {
                    published += 1;
                    let id = registry.record_command(&circuit, Command::new("look"));
                    prop_assert_eq!(id, published);
                }
            } else {
                reader.read(many);
            }
            let from = reader.seen;
            let past = registry.events_after(from, usize::MAX);
            prop_assert_eq!(past.last_id, published);
            prop_assert_eq!(past.missed + past.events.len() as u64, published - from);
            prop_assert!(past.events.len() <= history);
            let first = from + past.missed + 1;
            prop_assert!(past.events.iter().map(|event| event.id).eq(first..=published));
            prop_assert!(past.missed == 0 || past.events.len() == history);
        }
        reader.read(usize::MAX);
        prop_assert_eq!(reader.seen, published);
    }
}

#[test]
fn a_limit_takes_the_oldest() {
    let registry = Registry::new();
    let circuit = registry.circuit(config("inventory")).unwrap();
    (0..5).for_each(|_| {
        registry.record_command(&circuit, Command::new("look"));
    });
    let ids = |after, limit| -> Vec<u64> {
        registry.events_after(after, limit).events.iter().map(|event| event.id).collect()
    };
    assert_eq!(ids(0, 2), [1, 2]);
    assert_eq!(ids(3, 2), [4, 5]);
    assert_eq!(ids(6, 2), [0; 0]);
    assert_eq!(ids(0, 0), [0; 0]);
}

#[test]
fn the_number_of_an_event_yet_to_come_is_of_another_life() {
    let registry = Registry::builder().history(2).build();
    for name in ["a", "b", "c"] {
        registry.circuit(config(name)).unwrap();
    }
    let past = registry.events_after(99, 10);
    assert_eq!((past.events.len(), past.missed, past.last_id), (2, 1, 3));
    let mut events = registry.subscribe_after(99);
    assert_eq!(events.try_next().unwrap_err().missed, 1);
    assert_eq!(events.try_next().unwrap().unwrap().id, 2);

    // Also where nothing is gone, for what was there before is of no use.
    let registry = Registry::new();
    let mut events = registry.subscribe_after(99);
    registry.circuit(config("a")).unwrap();
    let lagged = events.try_next().unwrap_err();
    assert_eq!((lagged.missed, &*lagged.to_string()), (0, "the history starts over"));
    assert_eq!(events.try_next().unwrap().unwrap().id, 1);
    assert_eq!(events.try_next(), Ok(None));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn who_waits_is_woken_by_the_next_event_and_holds_nothing_else() {
    let registry = Registry::new();
    let circuit = registry.circuit(config("inventory")).unwrap();
    let mut events = registry.subscribe();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert!(pin!(events.next()).poll(&mut context).is_pending());
    // The same task, asking again: it waits once.
    assert!(pin!(events.next()).poll(&mut context).is_pending());
    assert_eq!(Arc::strong_count(&woken), 3);

    circuit.trip();
    circuit.reset();
    assert_eq!(woken.times(), 1);
    let Poll::Ready(Some(Ok(event))) = pin!(events.next()).poll(&mut context) else {
        panic!("there is an event")
    };
    assert_eq!(event.id, 2);
    assert!(matches!(&event.kind, EventKind::Transition(to) if to.to == State::Open));
    assert!(pin!(events.next()).poll(&mut context).is_ready());
    assert!(pin!(events.next()).poll(&mut context).is_pending());

    drop(events);
    assert_eq!(Arc::strong_count(&woken), 2);
    circuit.trip();
    assert_eq!(woken.times(), 1);
}

#[test]
fn a_subscription_ends_with_the_last_handle_of_the_registry() {
    let registry = Registry::new();
    let circuit = registry.circuit(config("inventory")).unwrap();
    let mut events = registry.subscribe_after(0);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert!(events.poll_next(&mut context).is_ready());
    assert!(events.poll_next(&mut context).is_pending());
    circuit.trip();
    drop(registry.clone());
    assert_eq!(woken.times(), 1);
    assert!(events.poll_next(&mut context).is_ready());
    assert!(events.poll_next(&mut context).is_pending());
    drop(registry);
    assert_eq!(woken.times(), 2);
    assert_eq!(events.poll_next(&mut context), Poll::Ready(None));
    // Nobody can follow any more.
    circuit.reset();
    assert_eq!(events.poll_next(&mut context), Poll::Ready(None));
}

/// Looks at the registry from within, which must not be under a lock.
struct Nosy(Registry, Mutex<Option<Subscription>>, AtomicUsize);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.0.circuits();
        self.0.events_after(0, 1);
        self.0.sample();
        self.2.fetch_add(1, Ordering::SeqCst);
        // Its own waker waits in there.
        drop(self.1.lock().unwrap().take());
    }
}

#[test]
fn nobody_is_woken_or_dropped_under_a_lock() {
    type Happens = fn(&Registry, &Circuit);
    let happenings: [Happens; 4] = [
        |_, circuit| circuit.trip(),
        |registry, _| drop(registry.circuit(config("another")).unwrap()),
        |registry, _| drop(registry.remove("inventory")),
        |registry, circuit| {
            registry.record_command(circuit, Command::new("look"));
        },
    ];
    for happens in happenings {
        in_no_time(move || {
            let registry = Registry::new();
            let circuit = registry.circuit(config("inventory")).unwrap();
            let nosy = Arc::new(Nosy(registry.clone(), Mutex::default(), AtomicUsize::new(0)));
            let waker = Waker::from(Arc::clone(&nosy));
            let mut events = registry.subscribe();
            assert!(events.poll_next(&mut Context::from_waker(&waker)).is_pending());
            *nosy.1.lock().unwrap() = Some(events);
            drop(waker);
            happens(&registry, &circuit);
            assert_eq!(nosy.2.load(Ordering::SeqCst), 1);
        });
    }
}

/// Fails, and does not hang, if what it runs hangs.
fn in_no_time(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel::<()>();
    let test = thread::spawn(move || {
        // Dropped at the end, also by a panic.
        let _done = done;
        test();
    });
    let waited = is_done.recv_timeout(30 * SECOND);
    assert_eq!(waited, Err(mpsc::RecvTimeoutError::Disconnected), "it hangs");
    test.join().unwrap_or_else(|panic| resume_unwind(panic));
}

#[test]
fn threads_that_open_and_close_are_told_of_without_a_gap() {
    let registry = Registry::builder().history(64).build();
    let circuits: Vec<_> =
        (0..4).map(|i| registry.circuit(config(&format!("c{i}"))).unwrap()).collect();
    let mut reader = Reader::new(registry.subscribe_after(0));
    thread::scope(|scope| {
        let restless = |circuit: &Circuit| {
            for _ in 0..500 {
                circuit.trip();
                circuit.reset();
            }
        };
        let threads: Vec<_> =
            circuits.iter().map(|circuit| scope.spawn(move || restless(circuit))).collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            if reader.read(64) == 0 {
                thread::yield_now();
            }
        }
    });
    reader.read(usize::MAX);
    // 4 registrations, and two transitions a turn.
    assert_eq!(reader.seen, 4 + 4 * 500 * 2);
    assert_eq!(registry.events_after(0, 0).last_id, reader.seen);
}

/// Every gauge and counter of a circuit, as `name labels`.
fn series(recorder: &DebuggingRecorder, circuit: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        let key = key.key();
        if !key.labels().any(|label| label.key() == "circuit" && label.value() == circuit) {
            continue;
        }
        let labels = key.labels().filter(|label| label.key() != "circuit");
        let labels: Vec<_> = labels.map(|label| label.value().to_owned()).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        series.insert(format!("{} {}", key.name(), labels.join(" ")), value);
    }
    series
}

#[test]
fn the_gauges_of_a_removed_circuit_come_to_rest_and_stay_so() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let registry = Registry::new();
        let circuit = registry.circuit(config("inventory")).unwrap();
        circuit.trip();
        circuit.set_override(Override::force_open());
        let before = series(&recorder, "inventory");
        assert_eq!(before["circuit_breaker_state open"], 1.0);
        assert_eq!(before["circuit_breaker_override force-open"], 1.0);

        registry.remove("inventory");
        // Whoever still has it may do with it what he likes.
        circuit.clear_override();
        circuit.reset();
        circuit.trip();
        circuit.set_override(Override::force_closed());
        let after = series(&recorder, "inventory");
        assert_eq!(after["circuit_breaker_state open"], 0.0);
        assert_eq!(after["circuit_breaker_state closed"], 1.0);
        assert_eq!(after["circuit_breaker_state_code "], 0.0);
        assert_eq!(after["circuit_breaker_override force-open"], 0.0);
        assert_eq!(after["circuit_breaker_override force-closed"], 0.0);

        // The next of its name is not disturbed, by one that never spoke neither.
        registry.circuit(config("inventory")).unwrap();
        let silent = registry.remove("inventory").unwrap();
        registry.circuit(config("inventory")).unwrap().trip();
        circuit.reset();
        silent.trip();
        silent.reset();
        assert!(silent.try_acquire().is_ok());
        assert_eq!(series(&recorder, "inventory")["circuit_breaker_state open"], 1.0);
    });
}

#[test]
fn the_gauges_of_a_removed_group_come_to_rest_and_stay_so() {
    let recorder = DebuggingRecorder::new();
    let clock = ManualClock::new();
    metrics::with_local_recorder(&recorder, || {
        let registry = Registry::new();
        let shown = || {
            let shown = series(&recorder, "hosts");
            let of_key = shown.get("circuit_breaker_state one open").copied();
            let in_state = |state| shown[&format!("circuit_breaker_keys {state}")];
            (["closed", "open", "half-open"].map(in_state), of_key)
        };
        let group = registry.keyed(hosts(&clock).label_keys()).unwrap();
        group.get_or_create("one").trip();
        group.get_or_create("two");
        assert_eq!(shown(), ([1.0, 1.0, 0.0], Some(1.0)));

        registry.remove("hosts");
        assert_eq!(shown(), ([0.0; 3], Some(0.0)));

        // The next of its name is not disturbed, by one that never spoke neither.
        let silent = registry.keyed(hosts(&clock).label_keys()).unwrap();
        registry.remove("hosts");
        let next = registry.keyed(hosts(&clock).label_keys()).unwrap();
        next.get_or_create("one").trip();
        next.get_or_create("three");
        group.get("one").unwrap().reset();
        group.get("two").unwrap().trip();
        group.get_or_create("three").trip();
        silent.get_or_create("one").trip();
        clock.advance(3_600 * SECOND);
        assert_eq!((group.evict_idle(), silent.evict_idle()), (3, 1));
        assert_eq!(shown(), ([1.0, 1.0, 0.0], Some(1.0)));
    });
}

/// Counts calls, unless it does not want to hear of them.
struct Calls {
    hears: bool,
    heard: Arc<AtomicUsize>,
}

impl Observer for Calls {
    fn hears_calls(&self) -> bool {
        self.hears
    }

    fn on_call(&self, _: &tower_breaker::Call<'_>) {
        self.heard.fetch_add(1, Ordering::SeqCst);
    }

    fn on_transition(&self, _: &tower_breaker::Transition) {
        self.heard.fetch_add(100, Ordering::SeqCst);
    }
}

#[test]
fn an_observer_hears_of_calls_only_if_it_wants_to() {
    for (hears, expected) in [(true, 103), (false, 100)] {
        let heard = Arc::new(AtomicUsize::new(0));
        let observer = Calls { hears, heard: Arc::clone(&heard) };
        let circuit = Circuit::new(Config::builder("a").observer(observer).build().unwrap());
        (0..3).for_each(|_| call(&circuit, Outcome::Success));
        circuit.trip();
        assert_eq!(heard.load(Ordering::SeqCst), expected);
    }
}

/// A registered circuit on a clock of its own, looked at once a second.
struct Bench {
    clock: ManualClock,
    registry: Registry,
    circuit: Circuit,
}

impl Bench {
    fn new() -> Self {
        let clock = ManualClock::new();
        let registry = Registry::new();
        let circuit = registry.circuit(brittle(&clock).build().unwrap()).unwrap();
        Self { clock, registry, circuit }
    }

    /// So many seconds, with as many calls in each.
    fn run(&self, seconds: u64, calls: u64) {
        for _ in 0..seconds {
            (0..calls).for_each(|_| call(&self.circuit, Outcome::Success));
            self.clock.advance(SECOND);
            self.registry.sample();
        }
    }

    fn steps(&self) -> Vec<Option<Step>> {
        let steps = self.registry.vitals(&self.circuit).unwrap().series.steps;
        assert_eq!(steps.len(), 60);
        steps
    }

    fn known(&self) -> Vec<Step> {
        self.steps().into_iter().flatten().collect()
    }
}

#[test]
fn rates_are_those_of_the_last_ten_seconds() {
    let bench = Bench::new();
    bench.run(20, 3);
    let rates = bench.registry.vitals(&bench.circuit).unwrap().rates;
    assert_eq!((rates.calls, rates.failures, rates.over), (3.0, 0.0, 10 * SECOND));
    bench.run(5, 7);
    let rates = bench.registry.vitals(&bench.circuit).unwrap().rates;
    assert_eq!((rates.calls, rates.over), (5.0, 10 * SECOND));

    // Nobody looked for a minute: it is the rate of that minute.
    (0..120).for_each(|_| call(&bench.circuit, Outcome::Success));
    bench.clock.advance(60 * SECOND);
    let rates = bench.registry.vitals(&bench.circuit).unwrap().rates;
    assert_eq!((rates.calls, rates.over), (2.0, 60 * SECOND));

    call(&bench.circuit, Outcome::Failure);
    call(&bench.circuit, Outcome::Failure);
    assert!(bench.circuit.try_acquire().is_err());
    bench.run(10, 0);
    let rates = bench.registry.vitals(&bench.circuit).unwrap().rates;
    assert_eq!((rates.calls, rates.failures, rates.rejected), (0.2, 0.2, 0.1));
}

#[test]
fn steps_add_up_to_the_totals_and_leave_after_a_quarter_of_an_hour() {
    let bench = Bench::new();
    assert_eq!(bench.steps().iter().flatten().count(), 1);
    bench.run(15, 2);
    bench.run(15, 3);
    bench.run(7, 4);
    let vitals = bench.registry.vitals(&bench.circuit).unwrap();
    assert_eq!((vitals.series.step, vitals.series.running_for), (15 * SECOND, 7 * SECOND));
    let calls: Vec<_> = bench.known().iter().map(|step| step.calls).collect();
    assert_eq!(calls, [30, 45, 28]);
    assert!(bench.steps()[..57].iter().all(Option::is_none));

    bench.run(8 + 57 * 15, 0);
    // The oldest has just left.
    let calls: Vec<_> = bench.known().iter().map(|step| step.calls).collect();
    assert_eq!((calls.len(), &calls[..3]), (60, &[45, 28, 0][..]));
}

#[test]
fn what_nobody_looked_at_is_spread_evenly_and_adds_up() {
    let bench = Bench::new();
    bench.clock.advance(5 * SECOND);
    bench.registry.sample();
    (0..100).for_each(|_| call(&bench.circuit, Outcome::Success));
    bench.clock.advance(40 * SECOND);
    let calls: Vec<_> = bench.known().iter().map(|step| step.calls).collect();
    // 10 s of the first step, 15 of each other, none of the one that begins.
    assert_eq!(calls, [25, 37, 38, 0]);

    // However long it was.
    (0..1_000).for_each(|_| call(&bench.circuit, Outcome::Success));
    bench.clock.advance(1_800 * SECOND);
    let steps = bench.known();
    assert_eq!(steps.len(), 60);
    assert_eq!(steps.iter().map(|step| step.calls).sum::<u64>(), 492);
    assert!(steps[..59].iter().all(|step| (8..=9).contains(&step.calls)));
    bench.clock.advance(Duration::from_secs(1 << 40));
    assert_eq!(bench.known().iter().map(|step| step.calls).sum::<u64>(), 0);
}

proptest! {
    #[test]
    fn nothing_is_counted_twice_or_lost_whenever_somebody_looks(
        turns in prop::collection::vec((0..20u64, 0..40_000u64, any::<bool>()), 1..60),
    ) {
        let bench = Bench::new();
        let mut made = 0;
        for (calls, millis, looks) in turns {
            (0..calls).for_each(|_| call(&bench.circuit, Outcome::Success));
            made += calls;
            bench.clock.advance(Duration::from_millis(millis.min(14_000)));
            if looks {
                bench.registry.sample();
            }
        }
        // Less than a quarter of an hour: all of it is there.
        let counted: u64 = bench.known().iter().map(|step| step.calls).sum();
        prop_assert_eq!(counted, made);
    }
}

#[test]
fn the_ribbon_has_the_worst_state_of_each_step() {
    let bench = Bench::new();
    let worst = |bench: &Bench| -> Vec<(State, bool)> {
        bench.known().iter().map(|step| (step.worst, step.is_forced)).collect()
    };
    bench.run(14, 1);
    // Open for a second, and closed again within the next step.
    bench.circuit.trip();
    bench.clock.advance(SECOND);
    for _ in 0..3 {
        call(&bench.circuit, Outcome::Success);
    }
    bench.run(15, 0);
    assert_eq!(worst(&bench), [(State::Open, false), (State::Open, false), (State::Closed, false)]);
    // Held open for twenty seconds, and nobody looks.
    bench.circuit.set_override(Override::force_open().expires_in(20 * SECOND));
    bench.clock.advance(60 * SECOND);
    let forced: Vec<_> = bench.known().iter().map(|step| step.is_forced).collect();
    assert_eq!(forced, [false, false, true, true, false, false, false]);
    call(&bench.circuit, Outcome::Success);
    // Observed is not held.
    bench.circuit.set_override(Override::observe_only());
    bench.run(15, 1);
    assert!(!worst(&bench).last().unwrap().1);
}

#[test]
fn a_state_that_time_ended_unseen_is_put_right_when_it_is_told() {
    let bench = Bench::new();
    bench.circuit.trip();
    bench.clock.advance(SECOND);
    // A probe that never comes back: its lease ends 10 s on, unseen.
    let probe = bench.circuit.try_acquire().unwrap();
    bench.clock.advance(100 * SECOND);
    // Reading alone tells nobody, but knows.
    assert_eq!(bench.known().last().unwrap().worst, State::Open);
    bench.clock.advance(60 * SECOND);
    let worst =
        |bench: &Bench| -> Vec<State> { bench.known().iter().map(|step| step.worst).collect() };
    assert_eq!(worst(&bench)[6..], [State::Open; 5]);
    // The next call is a probe, and tells when the lease was over.
    let _ = bench.circuit.try_acquire();
    assert_eq!(worst(&bench), [State::Open; 11]);
    drop(probe);
}

#[test]
fn a_sample_has_told_what_time_alone_has_done_and_when() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let circuit = registry.circuit(brittle(&clock).build().unwrap()).unwrap();
    circuit.set_override(Override::force_open().expires_in(60 * SECOND));
    clock.advance(59 * SECOND);
    registry.sample();
    assert_eq!(kinds(&registry), ["registered", "override-set"], "it is not over");
    clock.advance(3 * SECOND);
    registry.sample();
    registry.sample();
    assert_eq!(kinds(&registry), ["registered", "override-set", "override-cleared"]);
    let events = registry.events_after(0, 10).events;
    let EventKind::OverrideCleared { expired, .. } = events[2].kind else { panic!("{events:?}") };
    assert!(expired);
    assert_eq!(events[2].at.duration_since(events[1].at).unwrap(), 60 * SECOND);
    assert_eq!(circuit.snapshot().revision, 2, "what was seen is what is");

    // Probes that never come back: their leases end after ten seconds, unseen. Of
    // three one, and all.
    for lost in [1, 3] {
        circuit.reset();
        circuit.trip();
        clock.advance(SECOND);
        let probes: Vec<_> = (0..lost).map(|_| circuit.try_acquire().unwrap()).collect();
        let failed = circuit.snapshot().totals.failure;
        clock.advance(13 * SECOND);
        registry.sample();
        let events = registry.events_after(0, 100).events;
        let [.., probing, opened] = &events[..] else { panic!("{events:?}") };
        assert!(matches!(&opened.kind, EventKind::Transition(opened) if opened.to == State::Open));
        assert_eq!(opened.at.duration_since(probing.at).unwrap(), 10 * SECOND);
        assert_eq!(circuit.snapshot().totals.failure, failed + lost);
        drop(probes);
    }
}

#[test]
fn a_ramp_that_ended_unseen_ends_in_the_ribbon_where_it_did() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let rules = brittle(&clock).ramp(20 * SECOND).probes(Probes::new(1));
    let circuit = registry.circuit(rules.build().unwrap()).unwrap();
    circuit.trip();
    clock.advance(SECOND);
    call(&circuit, Outcome::Success);
    clock.advance(60 * SECOND);
    // Told of only now.
    call(&circuit, Outcome::Success);
    let steps = registry.vitals(&circuit).unwrap().series.steps;
    let worst: Vec<_> = steps.into_iter().flatten().map(|step| step.worst).collect();
    let closed = State::Closed;
    assert_eq!(worst, [State::Open, State::HalfOpen, closed, closed, closed]);
}

#[test]
fn what_a_call_counts_as_is_what_the_totals_say() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let rules = brittle(&clock).consecutive_failures(99).slow_calls(SECOND, 1.0);
    let circuit = registry.circuit(rules.build().unwrap()).unwrap();
    call(&circuit, Outcome::Failure);
    call(&circuit, Outcome::Ignored);
    circuit.try_acquire().unwrap().cancel();
    let slow = circuit.try_acquire().unwrap();
    clock.advance(2 * SECOND);
    slow.record(Outcome::Success);
    let stale = circuit.try_acquire().unwrap();
    circuit.trip();
    stale.record(Outcome::Success);
    assert!(circuit.try_acquire().is_err());
    let step = registry.vitals(&circuit).unwrap().series.steps[59].unwrap();
    assert_eq!((step.calls, step.failures, step.slow, step.rejected), (5, 1, 1, 1));
}

/// A group with a minimum of everything.
fn hosts(clock: &ManualClock) -> KeyedCircuitsBuilder {
    let template = Config::builder("hosts").consecutive_failures(1).clock(clock).build().unwrap();
    KeyedCircuits::builder(template).capacity(100)
}

#[test]
fn a_group_is_listed_by_name_and_key() {
    let registry = Registry::new();
    registry.circuit(config("a")).unwrap();
    registry.circuit(config("z")).unwrap();
    let group = registry.keyed(hosts(&ManualClock::new())).unwrap();
    for key in ["two", "one", "three/\u{e9}"] {
        group.get_or_create(key);
    }
    let listed: Vec<_> = registry
        .circuits()
        .iter()
        .map(|circuit| (circuit.name().to_owned(), circuit.key().map(str::to_owned)))
        .collect();
    let of = |name: &str, key: Option<&str>| (name.to_owned(), key.map(str::to_owned));
    assert_eq!(
        listed,
        [
            of("a", None),
            of("hosts", None),
            of("hosts", Some("one")),
            of("hosts", Some("three/\u{e9}")),
            of("hosts", Some("two")),
            of("z", None)
        ]
    );
    group.get_or_create("two").trip();
    assert_eq!(registry.get_key("hosts", "two").unwrap().state(), State::Open);
    assert_eq!(registry.get_key("hosts", "one").unwrap().state(), State::Closed);
    assert!(registry.get_key("hosts", "four").is_none());
    assert!(registry.get_key("a", "two").is_none());
    // Looking does not make one.
    assert_eq!(group.len(), 3);
    group.shared().trip();
    assert_eq!(registry.get("hosts").unwrap().state(), State::Open);
}

#[test]
fn a_group_shares_the_names_with_circuits() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    registry.circuit(config("hosts")).unwrap();
    let error = registry.keyed(hosts(&clock)).unwrap_err();
    assert_eq!(
        (error.field(), &*error.to_string()),
        ("name", "name is \"hosts\", but the registry has a circuit of that name")
    );
    registry.remove("hosts");
    // One that can't be built leaves the name free.
    assert_eq!(registry.keyed(hosts(&clock).capacity(0)).unwrap_err().field(), "capacity");
    registry.keyed(hosts(&clock)).unwrap();
    assert_eq!(registry.circuit(config("hosts")).unwrap_err().name(), "hosts");
    assert_eq!(kinds(&registry), ["registered", "removed", "registered"]);
}

#[test]
fn what_happens_to_a_key_is_told_with_the_key_until_the_group_is_removed() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let group = registry.keyed(hosts(&clock)).unwrap();
    let one = group.get_or_create("a b");
    group.try_acquire("a b").unwrap().record(Outcome::Failure);
    one.set_override(Override::force_closed());
    group.shared().trip();
    registry.record_command(&one, Command::new("look"));
    let told: Vec<_> = registry
        .events_after(0, 100)
        .events
        .iter()
        .map(|event| (event.kind.as_str(), event.circuit_id(), event.key.as_deref().is_some()))
        .collect();
    assert_eq!(
        told,
        [
            ("registered", "hosts".to_owned(), false),
            ("transition", "hosts/a%20b".to_owned(), true),
            ("override-set", "hosts/a%20b".to_owned(), true),
            ("transition", "hosts".to_owned(), false),
            ("command", "hosts/a%20b".to_owned(), true),
        ]
    );
    let sentence = registry.events_after(2, 1).events[0].to_string();
    assert_eq!(sentence, "hosts[\"a b\"]: an operator set force-closed for 3600.0s");

    let shared = registry.remove("hosts").unwrap();
    one.clear_override();
    shared.reset();
    group.get_or_create("new").trip();
    assert!(registry.vitals(&one).is_none() && registry.vitals(&shared).is_none());
    assert_eq!(registry.events_after(5, 10).events.len(), 1);
    assert!(registry.circuits().is_empty());
}

#[test]
fn each_key_has_vitals_of_its_own_and_they_go_with_its_circuit() {
    let clock = ManualClock::new();
    let registry = Registry::new();
    let group = registry.keyed(hosts(&clock).idle_for(60 * SECOND)).unwrap();
    for _ in 0..3 {
        group.try_acquire("one").unwrap().record(Outcome::Success);
    }
    group.try_acquire("two").unwrap().record(Outcome::Failure);
    let shared = group.try_acquire(Key::NONE).unwrap();
    shared.record(Outcome::Success);
    clock.advance(SECOND);
    registry.sample();
    let step = |circuit: &Circuit| -> Step {
        *registry.vitals(circuit).unwrap().series.steps.iter().flatten().next().unwrap()
    };
    let [one, two] = ["one", "two"].map(|key| registry.get_key("hosts", key).unwrap());
    assert_eq!((step(&one).calls, step(&one).failures, step(&one).worst), (3, 0, State::Closed));
    assert_eq!((step(&two).calls, step(&two).failures, step(&two).worst), (1, 1, State::Open));
    assert_eq!(step(group.shared()).calls, 1);

    // Evicted, and made anew: the old one is no circuit of the group's.
    drop(two);
    drop(one);
    let stray = Circuit::new(config("hosts"));
    assert!(registry.vitals(&stray).is_none());
    for _ in 0..3 {
        clock.advance(60 * SECOND);
        group.evict_idle();
    }
    assert!(group.is_empty());
    let one = group.get_or_create("one");
    assert_eq!(step(&one).calls, 0);
}

#[test]
fn handles_may_go_anywhere() {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<Registry>();
    anywhere::<Subscription>();
    anywhere::<Lagged>();
}

#[test]
fn one_call_in_64_is_timed_for_the_registry_and_for_nobody_else() {
    #[derive(Default, Clone)]
    struct Timed(Arc<Mutex<Vec<Option<Duration>>>>);

    impl Observer for Timed {
        fn on_call(&self, call: &tower_breaker::Call<'_>) {
            self.0.lock().unwrap().push(call.latency);
        }
    }

    let (clock, registry, timed) = (ManualClock::new(), Registry::new(), Timed::default());
    let config = Config::builder("inventory").clock(&clock).observer(timed.clone());
    let circuit = registry.circuit(config.build().unwrap()).unwrap();
    for call in 0..192 {
        let permit = circuit.try_acquire().unwrap();
        clock.advance(Duration::from_millis(10));
        match call % 3 {
            0 => drop(permit),
            1 => permit.record(Outcome::Failure),
            _ => permit.record(Outcome::Success),
        }
        circuit.reset();
    }
    let latency = registry.vitals(&circuit).unwrap().latency.unwrap();
    assert_eq!(latency.samples, 3);
    let off = latency.p50.as_secs_f64() / 0.01;
    assert!((0.97..=1.03).contains(&off), "{latency:?}");
    // Where the machine is asked for each call it is no different.
    circuit.set_override(Override::observe_only());
    for _ in 192..256 {
        let permit = circuit.try_acquire().unwrap();
        clock.advance(Duration::from_millis(10));
        permit.record(Outcome::Success);
    }
    assert_eq!(registry.vitals(&circuit).unwrap().latency.unwrap().samples, 4);
    assert_eq!(*timed.0.lock().unwrap(), vec![None; 256]);

    // Where every call is timed, all hear of it, and samples are samples still.
    let config = Config::builder("payments").clock(&clock).observer(timed.clone());
    let circuit = registry.circuit(config.measure_latency().build().unwrap()).unwrap();
    (0..128).for_each(|_| circuit.try_acquire().unwrap().record(Outcome::Success));
    assert_eq!(registry.vitals(&circuit).unwrap().latency.unwrap().samples, 2);
    assert_eq!(timed.0.lock().unwrap()[256..], vec![Some(Duration::ZERO); 128]);
}

#[test]
fn a_registry_has_an_epoch_of_its_own() {
    let registry = Registry::new();
    assert_eq!(registry.epoch(), registry.clone().epoch());
    assert_ne!(registry.epoch(), Registry::new().epoch());
}
