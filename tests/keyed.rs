//! The laws of keyed circuits: a key, a circuit; how many, and who goes; when
//! the guard and the parent have a say; and what is told of it.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    fmt::Write,
    future::Future,
    pin::pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::BodyExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use proptest::prelude::*;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Beyond, ByHeader, ByHost, ByRoute, Cause, Circuit, CircuitOpen, Config, ConfigBuilder,
    Key, KeyOf, KeyedCircuitBreakerLayer, KeyedCircuits, ManualClock, Observer, Outcome, Override,
    Permit, Probes, Quorum, ResultClassifier, Start, State, Throttle, Transition, Window,
    service_unavailable,
};
use tower_test::{assert_request_eq, mock};
use tracing_subscriber::layer::SubscriberExt;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Opens at the second failure in a row, for five seconds; one probe.
fn touchy(clock: &ManualClock) -> ConfigBuilder {
    named("keys", clock)
}

fn named(name: &str, clock: &ManualClock) -> ConfigBuilder {
    Config::builder(name)
        .consecutive_failures(2)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1))
        .clock(clock)
}

fn group(clock: &ManualClock) -> tower_breaker::KeyedCircuitsBuilder {
    KeyedCircuits::builder(touchy(clock).build().unwrap())
}

fn fail(circuits: &KeyedCircuits, key: &str) {
    circuits.try_acquire(key).unwrap().record(Outcome::Failure);
}

fn succeed(circuits: &KeyedCircuits, key: &str) {
    circuits.try_acquire(key).unwrap().record(Outcome::Success);
}

/// Fails until it is open.
fn open(circuits: &KeyedCircuits, key: impl AsRef<str>) {
    let key = key.as_ref();
    (0..2)
        .for_each(|_| circuits.get_or_create(key).try_acquire().unwrap().record(Outcome::Failure));
    assert_eq!(circuits.get(key).unwrap().state(), State::Open);
}

fn keys(circuits: &KeyedCircuits) -> HashSet<String> {
    circuits.circuits().iter().map(|circuit| circuit.key().unwrap().to_owned()).collect()
}

fn is_same(one: &Circuit, other: &Circuit) -> bool {
    let before = other.snapshot().totals.ignored;
    one.try_acquire().unwrap().record(Outcome::Ignored);
    other.snapshot().totals.ignored == before + 1
}

mod one_circuit_a_key {
    use super::*;

    #[test]
    fn s130_key_a_open_key_b_still_permitted() {
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        fail(&circuits, "a");
        fail(&circuits, "a");
        let refused = circuits.try_acquire("a").unwrap_err();
        assert_eq!((refused.name(), refused.key()), ("keys", Some("a")));
        assert_eq!((refused.state(), refused.retry_after()), (State::Open, Some(5 * SECOND)));
        for _ in 0..10 {
            succeed(&circuits, "b");
        }
        assert!(circuits.try_acquire("a").is_err());
        assert_eq!((circuits.len(), circuits.open()), (2, 1));
    }

    #[test]
    fn s130_a_hundred_threads_get_or_create_one_instance() {
        const THREADS: u64 = 100;
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        for key in 0..50_u64 {
            let start = Barrier::new(THREADS as usize);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        start.wait();
                        circuits.try_acquire(key).unwrap().record(Outcome::Success);
                    });
                }
            });
            let circuit = circuits.get(key).unwrap();
            // Two would have shared the calls, wherever the other one went.
            assert_eq!(circuit.snapshot().totals.success, THREADS, "key {key}");
        }
        assert_eq!(circuits.len(), 50);
        assert_eq!(circuits.circuits().len(), 50);
        assert_eq!(circuits.snapshot().evicted, 0);
    }

    #[test]
    fn a_key_is_found_by_any_of_its_forms() {
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        let circuit = circuits.get_or_create("18446744073709551615");
        assert!(is_same(&circuit, &circuits.get(u64::MAX).unwrap()));
        assert!(is_same(&circuit, &circuits.get(u64::MAX.to_string()).unwrap()));
        assert!(is_same(&circuits.get_or_create(0_u8), &circuits.get("0").unwrap()));
        assert_eq!(circuits.len(), 2);
    }

    #[test]
    fn what_has_no_circuit_of_its_own_shares_one() {
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        let long = "k".repeat(KeyedCircuits::LONGEST_KEY + 1);
        for key in [Key::NONE, Key::from(&long), None::<&str>.into()] {
            assert!(is_same(&circuits.get_or_create(key), circuits.shared()));
        }
        assert!(circuits.get(Key::NONE).is_none());
        assert!(circuits.get(&long).is_none());
        assert!(circuits.is_empty());
        assert_eq!(circuits.get_or_create(&long[1..]).key(), Some(&long[1..]));

        circuits.shared().trip();
        let refused = circuits.try_acquire(Key::NONE).unwrap_err();
        assert_eq!((refused.name(), refused.key()), ("keys", None));
        assert!(circuits.try_acquire("a").is_ok());
        assert_eq!(circuits.open(), 0, "it stands for no key");
    }

    #[test]
    fn a_handle_is_a_handle_to_the_same_group() {
        fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        is_shared(&circuits);
        open(&circuits.clone(), "a");
        assert!(circuits.try_acquire("a").is_err());
        assert_eq!(
            format!("{circuits:?}"),
            r#"KeyedCircuits { name: "keys", keys: 1, open: 1, .. }"#
        );
    }
}

mod bounds {
    use super::*;

    #[test]
    fn a_blank_circuit_goes_before_one_that_has_seen_trouble() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(3).build().unwrap();
        fail(&circuits, "troubled");
        clock.advance(SECOND);
        succeed(&circuits, "old");
        clock.advance(SECOND);
        succeed(&circuits, "new");
        clock.advance(SECOND);

        succeed(&circuits, "newer");
        assert_eq!(keys(&circuits), ["troubled", "new", "newer"].map(str::to_owned).into());
        succeed(&circuits, "newest");
        assert!(keys(&circuits).contains("troubled"), "though it is idle longest");
        // What it remembers is still there.
        fail(&circuits, "troubled");
        assert_eq!(circuits.get("troubled").unwrap().state(), State::Open);
    }

    #[test]
    fn so_it_does_before_one_that_throttles() {
        let clock = ManualClock::new();
        let config = Config::builder("throttled")
            .clock(&clock)
            .no_failure_rate()
            .window(Window::count(1))
            .minimum_calls(1)
            .throttle(Throttle::new(1.0).minimum_calls(1));
        let circuits = KeyedCircuits::builder(config.build().unwrap()).capacity(2).build().unwrap();
        let calls = |times, outcome| {
            for _ in 0..times {
                if let Ok(permit) = circuits.try_acquire("throttled") {
                    permit.record(outcome);
                }
            }
        };
        calls(2, Outcome::Failure);
        calls(20, Outcome::Success);
        let seen = circuits.get("throttled").unwrap().snapshot();
        assert_eq!((seen.window.failures, seen.admitted_share.is_some()), (0, true));
        circuits.evict_idle();
        clock.advance(SECOND);
        circuits.get_or_create("blank");
        clock.advance(SECOND);
        circuits.get_or_create("new");
        assert_eq!(keys(&circuits), ["throttled", "new"].map(str::to_owned).into());
    }

    #[test]
    fn of_alike_circuits_the_one_idle_longest_goes() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(10).build().unwrap();
        for n in 0..10_u64 {
            circuits.get_or_create(n);
            clock.advance(SECOND);
        }
        for n in 10..30_u64 {
            circuits.get_or_create(n);
            clock.advance(SECOND);
            let expected: HashSet<_> = (n - 9..=n).map(|n| n.to_string()).collect();
            assert_eq!(keys(&circuits), expected);
        }
        // A use counts: 20 would have been next.
        circuits.get_or_create(20_u64);
        circuits.get_or_create(30_u64);
        assert!(keys(&circuits).contains("20"));
        assert!(!keys(&circuits).contains("21"));
    }

    #[test]
    fn looking_at_a_circuit_is_no_use_of_it() {
        let clock = ManualClock::new();
        let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
        circuits.get_or_create("a");
        clock.advance(MINUTE);
        assert!(circuits.get("a").is_some());
        assert_eq!(circuits.circuits().len(), 1);
        let _: String = format!("{:?}", circuits.snapshot());
        assert_eq!(circuits.evict_idle(), 1);
    }

    #[test]
    fn what_is_open_half_open_or_overridden_is_not_evicted_for_another() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(4).build().unwrap();
        open(&circuits, "half-open");
        clock.advance(5 * SECOND);
        let probe = circuits.try_acquire("half-open").unwrap();
        open(&circuits, "open");
        circuits.get_or_create("overridden").set_override(Override::force_closed());
        for n in 0..100 {
            succeed(&circuits, &format!("other {n}"));
        }
        let kept = keys(&circuits);
        for key in ["half-open", "open", "overridden"] {
            assert!(kept.contains(key), "{key}");
        }
        assert_eq!(circuits.len(), 4);
        assert_eq!(circuits.snapshot().evicted, 99);
        probe.record(Outcome::Success);
        assert_eq!(circuits.get("half-open").unwrap().state(), State::Closed);
    }

    #[test]
    fn new_keys_share_one_circuit_while_all_are_open() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(40).build().unwrap();
        for n in 0..40 {
            open(&circuits, n.to_string());
        }
        for n in 100..200 {
            let circuit = circuits.get_or_create(n.to_string());
            assert!(is_same(&circuit, circuits.shared()));
        }
        let snapshot = circuits.snapshot();
        assert_eq!((snapshot.overflowed, snapshot.evicted, circuits.len()), (100, 0, 40));

        // As soon as one is closed, there is room.
        circuits.get("7").unwrap().reset();
        circuits.get_or_create("new");
        assert!(circuits.get("new").is_some());
        assert!(circuits.get("7").is_none());
        assert_eq!((circuits.len(), circuits.open()), (40, 39));
    }

    #[test]
    fn the_one_closed_circuit_is_found_among_the_open() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(1_000).build().unwrap();
        for n in 0..1_000 {
            open(&circuits, n.to_string());
        }
        circuits.get("531").unwrap().reset();
        circuits.get_or_create("new");
        assert!(circuits.get("531").is_none() && circuits.get("new").is_some());
    }

    #[test]
    fn idle_circuits_go_and_no_sooner() {
        let clock = ManualClock::new();
        let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
        succeed(&circuits, "once");
        let _permit = circuits.try_acquire("under way").unwrap();
        let _held = circuits.get_or_create("held");
        circuits.get_or_create("overridden").set_override(Override::force_closed().until_cleared());
        clock.advance(MINUTE - Duration::from_nanos(1));
        assert_eq!(circuits.evict_idle(), 0);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(circuits.evict_idle(), 1);
        assert!(circuits.get("once").is_none());
        assert_eq!(circuits.len(), 3);
    }

    #[test]
    fn an_open_circuit_that_nobody_calls_goes_once_its_wait_is_over() {
        let clock = ManualClock::new();
        let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
        open(&circuits, "gone for good");
        clock.advance(5 * SECOND + MINUTE - Duration::from_nanos(1));
        assert_eq!((circuits.evict_idle(), circuits.open()), (0, 1));
        clock.advance(Duration::from_nanos(1));
        assert_eq!((circuits.evict_idle(), circuits.open()), (1, 0));
    }

    /// Its wait is over and still no call is a probe.
    #[test]
    fn one_that_an_operator_had_a_hand_on_goes_as_long_after_that() {
        for over in [Override::force_open(), Override::force_closed()] {
            let clock = ManualClock::new();
            let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
            open(&circuits, "a");
            let steered = circuits.get("a").unwrap();
            steered.set_override(over.until_cleared());
            for _ in 0..3_600 {
                clock.advance(SECOND);
                let _ = circuits.try_acquire("a").map(|permit| permit.record(Outcome::Success));
            }
            steered.clear_override();
            drop(steered);
            assert_eq!(circuits.evict_idle(), 0);
            clock.advance(MINUTE - Duration::from_nanos(1));
            assert_eq!((circuits.evict_idle(), circuits.open()), (0, 1));
            clock.advance(Duration::from_nanos(1));
            assert_eq!((circuits.evict_idle(), circuits.open()), (1, 0));
        }
    }

    #[test]
    fn so_does_one_whose_override_has_run_out_whenever_somebody_looks() {
        for look in [0, 30, 60] {
            let clock = ManualClock::new();
            let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
            open(&circuits, "a");
            let over = Override::force_open().expires_in(10 * MINUTE);
            circuits.get("a").unwrap().set_override(over);
            for _ in 0..10 {
                assert_eq!(circuits.evict_idle(), 0);
                clock.advance(MINUTE);
            }
            clock.advance(look * SECOND);
            // Who looks at it finds the override over, and is told so.
            if look > 0 {
                circuits.get("a").unwrap().clear_override();
            }
            assert_eq!(circuits.evict_idle(), usize::from(look == 60), "after {look} s");
            clock.advance((60 - look) * SECOND);
            assert_eq!(circuits.evict_idle(), usize::from(look != 60), "after {look} s");
        }
    }

    /// Its successor starts observed as well, for what is left of that.
    #[test]
    fn one_that_starts_observed_goes_like_another() {
        let clock = ManualClock::new();
        let config = touchy(&clock).start(Start::ObserveOnly(60 * MINUTE)).build().unwrap();
        let circuits = KeyedCircuits::builder(config).capacity(2).idle_for(MINUTE).build().unwrap();
        succeed(&circuits, "a");
        clock.advance(SECOND);
        succeed(&circuits, "b");
        succeed(&circuits, "c");
        assert_eq!(keys(&circuits), ["b", "c"].map(str::to_owned).into());
        circuits.get_or_create("b").set_override(Override::observe_only().until_cleared());
        clock.advance(2 * MINUTE);
        assert_eq!(circuits.evict_idle(), 1);
        assert_eq!(keys(&circuits), HashSet::from(["b".to_owned()]), "that one is an operator's");
        succeed(&circuits, "c");
        let over = circuits.get("c").unwrap().snapshot().active_override.unwrap();
        assert_eq!(over.expires_in, Some(58 * MINUTE - SECOND));
    }

    #[test]
    fn a_half_open_circuit_goes_when_no_probe_is_out_and_nobody_calls() {
        let clock = ManualClock::new();
        let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
        open(&circuits, "a");
        clock.advance(5 * SECOND);
        circuits.try_acquire("a").unwrap().record(Outcome::Ignored);
        assert_eq!(circuits.snapshot().half_open, 1);
        circuits.evict_idle();
        clock.advance(MINUTE);
        assert_eq!((circuits.evict_idle(), circuits.open()), (1, 0));
    }

    #[test]
    fn so_does_one_whose_next_probe_is_a_matter_of_calls() {
        let clock = ManualClock::new();
        let config = touchy(&clock).probes(Probes::new(1).share(0.1)).build().unwrap();
        let circuits = KeyedCircuits::builder(config).idle_for(MINUTE).build().unwrap();
        open(&circuits, "a");
        clock.advance(5 * SECOND);
        circuits.try_acquire("a").unwrap().record(Outcome::Ignored);
        circuits.try_acquire("a").unwrap_err();
        assert_eq!(circuits.snapshot().half_open, 1);
        circuits.evict_idle();
        clock.advance(MINUTE);
        assert_eq!((circuits.evict_idle(), circuits.open()), (1, 0));
    }

    #[test]
    fn new_keys_evict_the_idle() {
        let clock = ManualClock::new();
        let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
        (0..1_000_u64).for_each(|key| drop(circuits.get_or_create(key)));
        clock.advance(MINUTE);
        (0..10_u64).for_each(|n| drop(circuits.get_or_create(format!("new {n}"))));
        assert_eq!(circuits.len(), 10);
    }

    /// However often: each look is for a part of them.
    #[test]
    fn whoever_comes_with_new_keys_evicts_the_idle() {
        for pace in [SECOND / 50, SECOND, 90 * SECOND] {
            let clock = ManualClock::new();
            let circuits = group(&clock).idle_for(MINUTE).build().unwrap();
            succeed(&circuits, "once");
            let looks = 2 * MINUTE.as_millis() / pace.as_millis() + 1;
            for look in 0..looks as u64 {
                clock.advance(pace);
                drop(circuits.get_or_create(look));
            }
            assert!(circuits.get("once").is_none(), "one each {pace:?}");
        }
    }

    #[test]
    fn a_call_in_flight_outlives_its_circuit_and_changes_no_other() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(1).build().unwrap();
        let late: Vec<Permit> = (0..3).map(|_| circuits.try_acquire("a").unwrap()).collect();
        let gone = late[0].circuit().clone();
        succeed(&circuits, "b");
        assert!(circuits.get("a").is_none(), "there was room for one");
        succeed(&circuits, "a");
        late.into_iter().for_each(|permit| permit.record(Outcome::Failure));
        assert_eq!(gone.state(), State::Open);
        assert_eq!(circuits.get("a").unwrap().state(), State::Closed);
        assert_eq!((circuits.len(), circuits.open()), (1, 0), "what is gone is not counted");
        gone.reset();
        assert_eq!((circuits.len(), circuits.open()), (1, 0));
    }

    #[test]
    fn a_circuit_with_a_call_under_way_goes_after_one_without() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(2).build().unwrap();
        let permit = circuits.try_acquire("slow").unwrap();
        clock.advance(SECOND);
        succeed(&circuits, "quick");
        clock.advance(SECOND);
        succeed(&circuits, "new");
        assert!(circuits.get("slow").is_some());
        permit.record(Outcome::Failure);
        assert_eq!(circuits.get("slow").unwrap().snapshot().totals.failure, 1);
    }

    #[test]
    fn many_threads_and_many_keys_keep_the_bound_and_the_count() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(100).idle_for(SECOND).build().unwrap();
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (circuits, clock) = (&circuits, &clock);
                scope.spawn(move || {
                    for n in 0..2_000_u64 {
                        let key = (n * 7 + thread * 13) % 300;
                        if let Ok(permit) = circuits.try_acquire(key) {
                            let fails = key % 5 == 0;
                            permit.record(if fails { Outcome::Failure } else { Outcome::Success });
                        }
                        if n % 100 == 0 {
                            clock.advance(SECOND / 10);
                            circuits.evict_idle();
                        }
                        assert!(circuits.circuits().len() <= 100);
                    }
                });
            }
        });
        let circuits_there = circuits.circuits();
        let keys: HashSet<_> = circuits_there.iter().map(Circuit::key).collect();
        assert_eq!(keys.len(), circuits_there.len(), "two circuits for one key");
        let snapshot = circuits.snapshot();
        let in_state =
            |state| circuits_there.iter().filter(|circuit| circuit.state() == state).count() as u64;
        assert_eq!(snapshot.closed, in_state(State::Closed));
        assert_eq!(
            snapshot.open + snapshot.half_open,
            in_state(State::Open) + in_state(State::HalfOpen)
        );
    }

    /// What a history may hold.
    #[derive(Clone, Debug)]
    enum Step {
        Call(u8, bool),
        Wait(u8),
        Sweep,
        Trip(u8),
        Reset(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..12_u8, any::<bool>()).prop_map(|(key, fails)| Step::Call(key, fails)),
            2 => (0..40_u8).prop_map(Step::Wait),
            1 => Just(Step::Sweep),
            1 => (0..12_u8).prop_map(Step::Trip),
            1 => (0..12_u8).prop_map(Step::Reset),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever happens: the bound holds, no circuit whose wait runs is lost,
        /// a key in use is not lost while a closed one is idle longer, and the
        /// count is that of the circuits there are.
        #[test]
        fn any_history_keeps_the_laws(
            steps in prop::collection::vec(step(), 1..120),
            capacity in 1..8_u64,
        ) {
            let clock = ManualClock::new();
            let circuits =
                group(&clock).capacity(capacity).idle_for(20 * SECOND).build().unwrap();
            for step in steps {
                let waiting: Vec<String> = circuits
                    .circuits()
                    .iter()
                    .filter(|circuit| {
                        let wait = circuit.snapshot().retry_after;
                        circuit.state() == State::Open && wait.is_some_and(|wait| !wait.is_zero())
                    })
                    .map(|circuit| circuit.key().unwrap().to_owned())
                    .collect();
                let had = keys(&circuits);
                match step {
                    Step::Call(key, fails) => {
                        if let Ok(permit) = circuits.try_acquire(key) {
                            permit.record(if fails { Outcome::Failure } else { Outcome::Success });
                        }
                        let closed = had.len() > waiting.len();
                        let room = had.len() < capacity as usize;
                        let has = circuits.get(key).is_some();
                        prop_assert!(has || !room && !had.contains(&key.to_string()));
                        // Lapsed circuits are neither closed nor waiting.
                        prop_assert!(!has || room || closed || had.contains(&key.to_string()));
                    }
                    Step::Wait(seconds) => clock.advance(u32::from(seconds) * SECOND),
                    Step::Sweep => { circuits.evict_idle(); }
                    Step::Trip(key) => circuits.get(key).iter().for_each(Circuit::trip),
                    Step::Reset(key) => circuits.get(key).iter().for_each(Circuit::reset),
                }
                let now = circuits.circuits();
                prop_assert!(now.len() <= capacity as usize);
                prop_assert_eq!(now.len(), circuits.len());
                let kept = keys(&circuits);
                prop_assert_eq!(kept.len(), now.len());
                prop_assert!(waiting.iter().all(|key| kept.contains(key)));
                let not_closed = now.iter().filter(|c| c.state() != State::Closed).count();
                prop_assert_eq!(not_closed, circuits.open());
            }
        }
    }
}

mod the_guard {
    use super::*;

    fn guarded(clock: &ManualClock, share: f64, beyond: Beyond, keys: u64) -> KeyedCircuits {
        let circuits = group(clock).max_open_share(share, beyond).minimum_keys(1).build().unwrap();
        (0..keys).for_each(|key| drop(circuits.get_or_create(key)));
        circuits
    }

    #[test]
    fn it_has_a_say_from_one_key_more_than_the_share() {
        let clock = ManualClock::new();
        for keys in 2..=12_u64 {
            for allowed in 1..keys {
                let share = allowed as f64 / keys as f64;
                let circuits = guarded(&clock, share, Beyond::FailOpen, keys);
                for open_keys in 1..=keys {
                    open(&circuits, (open_keys - 1).to_string());
                    let passes = circuits.try_acquire(0_u64).is_ok();
                    assert_eq!(
                        passes,
                        open_keys > allowed.max(1),
                        "{open_keys} of {keys}, {share}"
                    );
                    let beyond = circuits.snapshot().beyond;
                    assert_eq!(beyond, passes.then_some(Beyond::FailOpen));
                }
            }
        }
    }

    #[test]
    fn fewer_keys_than_the_minimum_have_no_share() {
        let clock = ManualClock::new();
        let circuits = group(&clock).max_open_share(0.2, Beyond::FailOpen).build().unwrap();
        for n in 0..4 {
            open(&circuits, n.to_string());
        }
        assert!(circuits.try_acquire("0").is_err(), "five are the minimum unless said");
        circuits.get_or_create("5");
        assert!(circuits.try_acquire("0").is_ok());
    }

    #[test]
    fn fail_open_passes_and_counts_what_it_would_have_refused() {
        let clock = ManualClock::new();
        let circuits = guarded(&clock, 0.5, Beyond::FailOpen, 4);
        for n in 0..3 {
            open(&circuits, n.to_string());
        }
        for _ in 0..5 {
            fail(&circuits, "0");
        }
        let totals = circuits.get("0").unwrap().snapshot().totals;
        assert_eq!((totals.would_reject, totals.rejected, totals.failure), (5, 0, 7));
        assert_eq!(circuits.get("0").unwrap().state(), State::Open);

        // Its own probe brings it back, and the guard has no say any more.
        clock.advance(5 * SECOND);
        succeed(&circuits, "0");
        assert_eq!(circuits.get("0").unwrap().state(), State::Closed);
        circuits.get("1").unwrap().trip();
        assert_eq!(circuits.snapshot().beyond, None);
    }

    #[test]
    fn fail_open_obeys_an_operator() {
        let clock = ManualClock::new();
        let circuits = guarded(&clock, 0.5, Beyond::FailOpen, 4);
        for n in 0..3 {
            open(&circuits, n.to_string());
        }
        circuits.get_or_create("0").set_override(Override::force_open());
        assert!(circuits.try_acquire("0").is_err());
        assert!(circuits.try_acquire("1").is_ok());
    }

    #[test]
    fn fail_closed_refuses_all_but_the_probes_that_lead_back() {
        let clock = ManualClock::new();
        let circuits = guarded(&clock, 0.5, Beyond::FailClosed, 4);
        open(&circuits, "0");
        open(&circuits, "1");
        assert!(circuits.try_acquire("3").is_ok());
        open(&circuits, "2");
        let refused = circuits.try_acquire("3").unwrap_err();
        assert_eq!((refused.key(), refused.state()), (Some("3"), State::Open));
        assert_eq!(refused.retry_after(), None, "nobody knows");
        assert_eq!(circuits.get("3").unwrap().snapshot().totals.rejected, 1);
        assert_eq!(circuits.try_acquire("0").unwrap_err().retry_after(), Some(5 * SECOND));
        assert!(circuits.try_acquire(Key::NONE).is_err(), "those without a key too");

        assert!(circuits.try_acquire("new").is_err());
        assert_eq!(circuits.len(), 4, "a key that is new is no sign of health");

        circuits.get("3").unwrap().set_override(Override::force_closed());
        assert!(circuits.try_acquire("3").is_ok(), "an operator is obeyed");

        clock.advance(5 * SECOND);
        succeed(&circuits, "0");
        assert!(circuits.try_acquire("0").is_ok());
    }

    #[test]
    fn keys_that_nobody_calls_any_more_do_not_hold_the_guard() {
        let clock = ManualClock::new();
        for beyond in [Beyond::FailOpen, Beyond::FailClosed] {
            let circuits = guarded(&clock, 0.5, beyond, 4);
            for n in 0..3 {
                open(&circuits, n.to_string());
            }
            clock.advance(3_600 * SECOND);
            assert_eq!(circuits.snapshot().beyond, Some(beyond), "nobody has looked");
            assert!(circuits.try_acquire("3").is_ok() || circuits.try_acquire("3").is_ok());
            circuits.get_or_create("3").trip();
            assert!(circuits.try_acquire("3").is_err(), "{beyond:?}");
            assert_eq!(circuits.snapshot().beyond, None);
        }
    }

    #[test]
    fn they_do_not_while_others_call_all_the_time() {
        for pace in [SECOND / 100, SECOND / 2, SECOND, 90 * SECOND] {
            let clock = ManualClock::new();
            let config = touchy(&clock).build().unwrap();
            let circuits = KeyedCircuits::builder(config)
                .max_open_share(0.5, Beyond::FailClosed)
                .minimum_keys(1)
                .idle_for(MINUTE)
                .build()
                .unwrap();
            drop(circuits.get_or_create("3"));
            (0..3).for_each(|n| open(&circuits, n.to_string()));
            let calls = 2 * MINUTE.as_millis() / pace.as_millis() + 1;
            for _ in 0..calls {
                clock.advance(pace);
                if let Ok(permit) = circuits.try_acquire("3") {
                    permit.record(Outcome::Success);
                }
            }
            assert_eq!(circuits.snapshot().beyond, None, "a call each {pace:?}");
        }
    }
}

mod the_parent {
    use super::*;

    fn family(clock: &ManualClock, quorum: Quorum) -> KeyedCircuits {
        let parent = named("parent", clock).open_for(Backoff::fixed(3 * SECOND)).build().unwrap();
        group(clock).parent(parent, quorum).build().unwrap()
    }

    #[test]
    fn it_opens_when_a_quorum_is_open_and_says_so() {
        let clock = ManualClock::new();
        let circuits = family(&clock, Quorum::count(3));
        (0..10_u64).for_each(|key| drop(circuits.get_or_create(key)));
        open(&circuits, "0");
        open(&circuits, "1");
        assert!(circuits.try_acquire("9").is_ok());
        open(&circuits, "2");
        let refused = circuits.try_acquire("9").unwrap_err();
        assert_eq!((refused.name(), refused.key()), ("parent", None));
        assert_eq!(refused.retry_after(), Some(3 * SECOND));

        let snapshot = circuits.parent().unwrap().snapshot();
        let cause = snapshot.cause.unwrap();
        assert!(matches!(cause, Cause::Quorum { open: 3, keys: 10, required: 3, .. }));
        assert_eq!(cause.to_string(), "3 of 10 keys were open, and 3 are enough to open");
        assert_eq!(cause.label(), "quorum");
        assert_eq!(snapshot.totals.rejected, 1);
        assert_eq!(circuits.get("9").unwrap().snapshot().totals.rejected, 0);
    }

    #[test]
    fn a_share_makes_a_quorum_at_exactly_that_share() {
        let clock = ManualClock::new();
        for keys in 5..=10_u64 {
            for needed in 1..=keys {
                let circuits = family(&clock, Quorum::share(needed as f64 / keys as f64));
                (0..keys).for_each(|key| drop(circuits.get_or_create(key)));
                for open_keys in 1..=keys {
                    open(&circuits, (open_keys - 1).to_string());
                    let is_open = circuits.parent().unwrap().state() == State::Open;
                    assert_eq!(is_open, open_keys >= needed, "{open_keys} of {keys}");
                }
            }
        }
    }

    #[test]
    fn while_closed_it_hears_of_no_call() {
        let clock = ManualClock::new();
        let circuits = family(&clock, Quorum::count(3));
        fail(&circuits, "a");
        fail(&circuits, "b");
        fail(&circuits, "c");
        let totals = circuits.parent().unwrap().snapshot().totals;
        assert_eq!(totals, tower_breaker::Totals::default());
    }

    #[test]
    fn it_recovers_by_its_own_wait_and_a_probe_settles_both() {
        let clock = ManualClock::new();
        let circuits = family(&clock, Quorum::count(2));
        circuits.get_or_create("well");
        open(&circuits, "0");
        open(&circuits, "1");
        clock.advance(3 * SECOND);

        let probe = circuits.try_acquire("well").unwrap();
        assert_eq!(circuits.parent().unwrap().state(), State::HalfOpen);
        assert_eq!(circuits.try_acquire("well").unwrap_err().name(), "parent");
        probe.record(Outcome::Failure);
        assert_eq!(circuits.parent().unwrap().state(), State::Open);
        assert_eq!(circuits.get("well").unwrap().snapshot().totals.failure, 1);

        clock.advance(3 * SECOND);
        // Both need a probe, and both take one.
        let probe = circuits.try_acquire("0").unwrap();
        assert_eq!(circuits.get("0").unwrap().state(), State::HalfOpen);
        probe.record(Outcome::Success);
        assert_eq!(circuits.parent().unwrap().state(), State::Closed);
        assert_eq!(circuits.get("0").unwrap().state(), State::Closed);
        assert!(circuits.try_acquire("well").is_ok());
    }

    #[test]
    fn a_refusal_of_the_parent_moves_no_key() {
        let clock = ManualClock::new();
        let parent = named("parent", &clock).open_for(Backoff::fixed(20 * SECOND));
        let circuits =
            group(&clock).parent(parent.build().unwrap(), Quorum::count(1)).build().unwrap();
        open(&circuits, "0");
        clock.advance(5 * SECOND);
        assert_eq!(circuits.try_acquire("0").unwrap_err().name(), "parent");
        assert_eq!(circuits.get("0").unwrap().state(), State::Open);
        circuits.try_acquire("new").unwrap_err();
        assert!(circuits.get("new").is_none());
    }

    #[test]
    fn a_refusal_of_the_key_takes_no_probe_of_the_parent() {
        let clock = ManualClock::new();
        let circuits = family(&clock, Quorum::count(2));
        open(&circuits, "0");
        open(&circuits, "1");
        clock.advance(3 * SECOND);
        let refused = circuits.try_acquire("0").unwrap_err();
        assert_eq!((refused.name(), refused.key()), ("keys", Some("0")));
        assert_eq!(circuits.parent().unwrap().state(), State::Open);
        assert!(circuits.try_acquire("2").is_ok());
    }

    #[test]
    fn a_probe_that_is_dropped_gives_both_back() {
        let clock = ManualClock::new();
        let circuits = family(&clock, Quorum::count(2));
        open(&circuits, "0");
        open(&circuits, "1");
        clock.advance(5 * SECOND);
        drop(circuits.try_acquire("0").unwrap());
        drop(circuits.try_acquire("0").unwrap());
        let totals = circuits.parent().unwrap().snapshot().totals;
        assert_eq!((totals.cancelled, totals.failure), (2, 0));
        circuits.try_acquire("0").unwrap().record(Outcome::Success);
        assert_eq!(circuits.parent().unwrap().state(), State::Closed);
    }

    #[test]
    fn a_failing_key_does_not_open_it_again_while_it_probes() {
        let clock = ManualClock::new();
        let circuits = family(&clock, Quorum::count(2));
        open(&circuits, "0");
        open(&circuits, "1");
        clock.advance(3 * SECOND);
        let probe = circuits.try_acquire("well").unwrap();
        circuits.get("1").unwrap().reset();
        open(&circuits, "1");
        assert_eq!(circuits.parent().unwrap().state(), State::HalfOpen);
        probe.record(Outcome::Success);
        assert_eq!(circuits.parent().unwrap().state(), State::Closed);
        // Closed, it listens again.
        open(&circuits, "2");
        assert_eq!(circuits.parent().unwrap().state(), State::Open);
    }

    #[test]
    fn keys_that_nobody_calls_any_more_make_no_quorum() {
        let clock = ManualClock::new();
        let circuits = family(&clock, Quorum::count(3));
        open(&circuits, "0");
        open(&circuits, "1");
        clock.advance(3_600 * SECOND);
        open(&circuits, "2");
        assert_eq!(circuits.parent().unwrap().state(), State::Closed);
        assert_eq!(circuits.open(), 1);
    }
}

mod configuration {
    use super::*;

    #[test]
    fn what_can_never_be_is_refused_by_its_name() {
        let clock = ManualClock::new();
        let parent = |name: &str| named(name, &clock).build().unwrap();
        let fail_open = Beyond::FailOpen;
        for (builder, field) in [
            (group(&clock).capacity(0), "capacity"),
            (group(&clock).capacity(1_000_001), "capacity"),
            (group(&clock).idle_for(Duration::ZERO), "idle_for"),
            (group(&clock).max_open_share(0.0, fail_open), "max_open_share"),
            (group(&clock).max_open_share(1.0, fail_open), "max_open_share"),
            (group(&clock).max_open_share(f64::NAN, fail_open), "max_open_share"),
            (group(&clock).max_open_share(0.5, fail_open).minimum_keys(0), "minimum_keys"),
            (group(&clock).max_open_share(0.5, fail_open).capacity(4), "minimum_keys"),
            (group(&clock).parent(parent("p"), Quorum::share(0.5)).capacity(4), "minimum_keys"),
            (group(&clock).parent(parent("p"), Quorum::count(0)), "parent.quorum"),
            (group(&clock).parent(parent("p"), Quorum::count(5)).capacity(4), "parent.quorum"),
            (group(&clock).parent(parent("p"), Quorum::share(1.1)), "parent.quorum"),
            (group(&clock).parent(parent("keys"), Quorum::count(1)), "parent.name"),
        ] {
            assert_eq!(builder.build().unwrap_err().field(), field);
        }
        group(&clock).capacity(1).build().unwrap();
        group(&clock).parent(parent("p"), Quorum::count(4)).capacity(4).build().unwrap();
    }
}

mod services {
    use super::*;

    fn http_service(
        status: impl Fn(&Request<()>) -> u16 + Clone,
    ) -> impl Service<
        Request<()>,
        Response = Response<String>,
        Error = Infallible,
        Future = std::future::Ready<Result<Response<String>, Infallible>>,
    > + Clone {
        service_fn(move |request: Request<()>| {
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::from_u16(status(&request)).unwrap();
            std::future::ready(Ok(response))
        })
    }

    #[tokio::test]
    async fn one_dead_shard_of_ten_stops_no_other() {
        let clock = ManualClock::new();
        let config = Config::builder("shards").window(Window::count(20)).clock(&clock);
        let circuits = KeyedCircuits::builder(config.build().unwrap())
            .max_open_share(0.5, Beyond::FailOpen)
            .build()
            .unwrap();
        let dead = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&dead);
        let service = ServiceBuilder::new()
            .layer(KeyedCircuitBreakerLayer::per_host(circuits.clone()))
            .service(http_service(move |request| match request.uri().host() {
                Some("shard-3.example.com") => {
                    seen.fetch_add(1, Relaxed);
                    503
                }
                _ => 200,
            }));
        let mut refused = [0; 10];
        for _ in 0..1_000 {
            clock.advance(Duration::from_millis(10));
            for (shard, refused) in refused.iter_mut().enumerate() {
                let uri = format!("http://shard-{shard}.example.com/");
                let request = Request::get(uri).body(()).unwrap();
                match service.clone().oneshot(request).await {
                    Ok(response) => assert_eq!(response.status() == 503, shard == 3),
                    Err(error) => {
                        let open = CircuitOpen::find_in(&*error).unwrap();
                        assert_eq!(open.key(), Some("shard-3.example.com"));
                        *refused += 1;
                    }
                }
            }
        }
        let reached = dead.load(Relaxed);
        assert!(reached < 150, "{reached} calls of 1,000 got to the dead shard");
        assert_eq!(refused.iter().sum::<usize>(), refused[3]);
        assert_eq!(refused[3] + reached, 1_000);
        assert_eq!((circuits.len(), circuits.open()), (10, 1));
    }

    #[tokio::test]
    async fn readiness_is_that_of_the_inner_service() {
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        let (mock, mut handle) = mock::pair::<&'static str, &'static str>();
        let layer = KeyedCircuitBreakerLayer::with_classifier(
            circuits.clone(),
            |key: &&'static str| (*key).into(),
            ResultClassifier::new(),
        );
        let mut service = layer.layer(mock);
        open(&circuits, "a");
        let mut context = Context::from_waker(Waker::noop());
        handle.allow(0);
        assert!(service.poll_ready(&mut context).is_pending());
        handle.allow(1);
        assert!(matches!(service.poll_ready(&mut context), Poll::Ready(Ok(()))));
        let error = service.call("a").await.unwrap_err();
        assert!(error.is::<CircuitOpen>());
        assert!(pin!(handle.next_request()).as_mut().poll(&mut context).is_pending());

        // It was ready, and is: the refusal used nothing up.
        let mut service = service.clone();
        handle.allow(1);
        assert!(matches!(service.poll_ready(&mut context), Poll::Ready(Ok(()))));
        let call = tokio::spawn(service.call("b"));
        assert_request_eq!(handle, "b").send_response("well");
        assert_eq!(call.await.unwrap().unwrap(), "well");
        assert_eq!(circuits.get("b").unwrap().snapshot().totals.success, 1);
    }

    #[tokio::test]
    async fn a_probe_takes_the_place_of_the_wait() {
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        let service =
            KeyedCircuitBreakerLayer::per_host(circuits.clone()).layer(http_service(|_| 200));
        open(&circuits, "a");
        let request = || Request::get("http://a/").body(()).unwrap();
        assert!(service.clone().oneshot(request()).await.is_err());
        clock.advance(5 * SECOND);
        assert!(service.clone().oneshot(request()).await.is_ok());
        assert_eq!(circuits.get("a").unwrap().state(), State::Closed);
    }

    #[tokio::test]
    async fn what_is_set_on_the_ordinary_layer_holds_here() {
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        let teapot = StatusCode::IM_A_TEAPOT;
        let service = KeyedCircuitBreakerLayer::new(circuits.clone(), |request: &Request<()>| {
            request.uri().path().into()
        })
        .classify_http(move |view| match view.status() {
            Some(status) if status == teapot => Outcome::Failure,
            _ => Outcome::Success,
        })
        .until_end_of_body()
        .fallback(service_unavailable::<String>)
        .layer(http_service(|_| 418));
        let request = || Request::get("/kitchen").body(()).unwrap();
        for expected in [418, 418, 503, 503] {
            let Ok(response) = service.clone().oneshot(request()).await;
            assert_eq!(response.status(), expected);
        }
        assert_eq!(circuits.get("/kitchen").unwrap().snapshot().totals.failure, 2);

        let service = KeyedCircuitBreakerLayer::per_host(circuits.clone())
            .classify_fn(|_: Result<&Response<String>, _>, _| Outcome::Failure)
            .fallback_with(|request: Request<()>, open: CircuitOpen| async move {
                Response::new(format!("{} {:?}", request.uri(), open.key()))
            })
            .layer(http_service(|_| 200));
        let request = || Request::get("http://B/").body(()).unwrap();
        for expected in ["", "", r#"http://B/ Some("b")"#] {
            let Ok(response) = service.clone().oneshot(request()).await;
            assert_eq!(response.into_body(), expected);
        }
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_settles_both_permits() {
        let clock = ManualClock::new();
        let parent = named("parent", &clock).build().unwrap();
        let circuits = group(&clock).parent(parent, Quorum::count(1)).build().unwrap();
        open(&circuits, "a");
        clock.advance(5 * SECOND);
        let service = KeyedCircuitBreakerLayer::with_classifier(
            circuits.clone(),
            |key: &&'static str| (*key).into(),
            ResultClassifier::new(),
        )
        .layer(service_fn(async |_: &'static str| {
            std::future::pending::<Result<(), BoxError>>().await
        }));
        let mut service = service;
        drop(service.call("a"));
        let parent = circuits.parent().unwrap();
        assert_eq!(parent.state(), State::HalfOpen);
        assert_eq!(parent.snapshot().totals.cancelled, 1);
        assert_eq!(circuits.get("a").unwrap().snapshot().totals.cancelled, 1);
        assert!(parent.try_acquire().is_ok(), "the probe was given back");
    }

    #[tokio::test]
    async fn a_call_that_ends_with_its_body_settles_both_permits_there() {
        let clock = ManualClock::new();
        let parent = named("parent", &clock).build().unwrap();
        let circuits = group(&clock).parent(parent, Quorum::count(1)).build().unwrap();
        open(&circuits, "a");
        clock.advance(5 * SECOND);
        let service = KeyedCircuitBreakerLayer::per_host(circuits.clone())
            .until_end_of_body()
            .layer(service_fn(async |_: Request<()>| {
                Ok::<_, BoxError>(Response::new("hello".to_owned()))
            }));
        let request = Request::get("http://a/").body(()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        let states = || [circuits.parent().unwrap().state(), circuits.get("a").unwrap().state()];
        assert_eq!(states(), [State::HalfOpen; 2]);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(states(), [State::Closed; 2]);
    }

    #[test]
    fn everything_says_what_it_is() {
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        let layer = KeyedCircuitBreakerLayer::per_host(circuits);
        let shown = format!("{layer:?} {:?}", layer.layer(()));
        assert!(shown.contains("ByHost") && shown.contains(r#"name: "keys""#), "{shown}");
    }
}

mod extractors {
    use super::*;

    fn key_of(by: impl KeyOf<Request<()>>, request: http::request::Builder) -> Option<String> {
        let request = request.body(()).unwrap();
        by.key_of(&request).as_str().map(str::to_owned)
    }

    #[test]
    fn the_host_is_that_of_the_uri_else_of_the_header() {
        for (uri, header, expected) in [
            ("http://a.example.com/x", None, Some("a.example.com")),
            ("http://A.Example.COM:8080/x", None, Some("a.example.com:8080")),
            ("http://a/", Some("b"), Some("a")),
            ("/x", Some("b.example.com"), Some("b.example.com")),
            ("/x", Some("B.example.com:81"), Some("b.example.com:81")),
            ("http://user:secret@a:1/", None, Some("a:1")),
            ("http://[::1]:8080/", None, Some("[::1]:8080")),
            ("/x", None, None),
            ("/x", Some(""), None),
            ("*", Some("a"), Some("a")),
        ] {
            let mut request = Request::get(uri);
            if let Some(host) = header {
                request = request.header("host", host);
            }
            assert_eq!(key_of(ByHost, request).as_deref(), expected, "{uri} {header:?}");
        }
    }

    #[test]
    fn the_route_is_the_first_segments() {
        for (segments, uri, expected) in [
            (0, "/api/users", "/"),
            (0, "*", "/"),
            (1, "*", "*"),
            (1, "/", "/"),
            (1, "/api", "/api"),
            (1, "/api/", "/api"),
            (1, "/api/users/42", "/api"),
            (2, "/api/users/42?a=/b/c", "/api/users"),
            (2, "http://a/api/users/", "/api/users"),
            (5, "/api/users", "/api/users"),
        ] {
            let found = key_of(ByRoute::new(segments), Request::get(uri));
            assert_eq!(found.as_deref(), Some(expected), "{segments} of {uri}");
        }
    }

    #[test]
    fn the_header_is_taken_as_it_is() {
        let by = ByHeader::new(HeaderName::from_static("x-tenant"));
        let request = || Request::get("/");
        let tenant = |value: &[u8]| key_of(by.clone(), request().header("x-tenant", value));
        assert_eq!(tenant(b"Acme").as_deref(), Some("Acme"));
        assert_eq!(tenant(b"\xff"), None);
        assert_eq!(key_of(by.clone(), request()), None);
    }

    #[test]
    fn numbers_are_written_as_anybody_would() {
        for n in [0, 1, 9, 10, 99, 100, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            assert_eq!(Key::from(n).as_str(), Some(&*n.to_string()));
        }
    }
}

mod telling {
    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Log {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl Observer for Log {
        fn on_transition(&self, transition: &Transition) {
            self.0.lock().unwrap().push(format!("{:?} {transition}", transition.key));
        }

        fn on_rejection(&self, open: &CircuitOpen) {
            self.0.lock().unwrap().push(format!("{:?} rejected: {open}", open.key()));
        }

        fn on_call(&self, call: &tower_breaker::Call<'_>) {
            let line = format!("{:?} {} of {}", call.key, call.end.as_str(), call.circuit);
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn the_templates_observers_learn_which_key() {
        let clock = ManualClock::new();
        let log = Log::default();
        let config = touchy(&clock).observer(log.clone()).build().unwrap();
        let circuits = KeyedCircuits::builder(config).build().unwrap();
        fail(&circuits, "a\n\"b\"");
        fail(&circuits, "a\n\"b\"");
        circuits.try_acquire("a\n\"b\"").unwrap_err();
        assert_eq!(
            log.take(),
            [
                "Some(\"a\\n\\\"b\\\"\") failure of keys",
                "Some(\"a\\n\\\"b\\\"\") keys[\"a\\n\\\"b\\\"\"]: closed -> open, because 2 calls in \
                 a row failed, and 2 are enough to open; next try in 5.0s",
                "Some(\"a\\n\\\"b\\\"\") failure of keys",
                "Some(\"a\\n\\\"b\\\"\") rejected: circuit keys is open, retry after 5.0s",
            ]
        );
    }

    #[test]
    fn an_observer_may_ask_the_group() {
        struct Asking(Arc<Mutex<Option<KeyedCircuits>>>);
        impl Observer for Asking {
            fn on_transition(&self, transition: &Transition) {
                let circuits = self.0.lock().unwrap().take().unwrap();
                circuits.get_or_create(format!("beside {:?}", transition.key));
                circuits.evict_idle();
                circuits.snapshot();
            }
        }
        let clock = ManualClock::new();
        let asked = Arc::new(Mutex::new(None));
        let config = touchy(&clock).observer(Asking(Arc::clone(&asked))).build().unwrap();
        let circuits = KeyedCircuits::builder(config).build().unwrap();
        *asked.lock().unwrap() = Some(circuits.clone());
        circuits.get_or_create("a").trip();
        assert_eq!(circuits.len(), 2);
    }

    /// Every series as `name label=value …`, with its value.
    fn series(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
        let mut series = BTreeMap::new();
        for (key, _, description, value) in snapshotter.snapshot().into_vec() {
            let key = key.key();
            let mut name = key.name().to_owned();
            for label in key.labels() {
                write!(name, " {}={}", label.key(), label.value()).unwrap();
            }
            assert!(description.is_some(), "{name} is not described");
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(values) => values.len() as f64,
            };
            series.insert(name, value);
        }
        series
    }

    #[test]
    fn the_group_reports_under_its_one_name() {
        let clock = ManualClock::new();
        let circuits = group(&clock).capacity(3).build().unwrap();
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || {
            open(&circuits, "a");
            open(&circuits, "b");
            succeed(&circuits, "c");
            succeed(&circuits, "d");
            for key in ["a", "a", "b"] {
                circuits.try_acquire(key).unwrap_err();
            }
            circuits.get("d").unwrap().trip();
            succeed(&circuits, "e");
            clock.advance(5 * SECOND);
            drop(circuits.try_acquire("a").unwrap());
        });
        let series = series(&recorder.snapshotter());
        let of = |name: &str| series[name];
        assert_eq!(of("circuit_breaker_calls_total circuit=keys outcome=failure"), 4.0);
        assert_eq!(of("circuit_breaker_calls_total circuit=keys outcome=success"), 3.0);
        assert_eq!(of("circuit_breaker_rejections_total circuit=keys"), 3.0);
        assert_eq!(of("circuit_breaker_keys circuit=keys state=closed"), 0.0);
        assert_eq!(of("circuit_breaker_keys circuit=keys state=open"), 2.0);
        assert_eq!(of("circuit_breaker_keys circuit=keys state=half-open"), 1.0);
        assert_eq!(of("circuit_breaker_key_evictions_total circuit=keys"), 1.0);
        assert_eq!(of("circuit_breaker_key_overflows_total circuit=keys"), 1.0);
        let by_two = "circuit_breaker_transitions_total circuit=keys from=closed to=open";
        assert_eq!(of(&format!("{by_two} cause=consecutive-failures")), 2.0);
        assert_eq!(of(&format!("{by_two} cause=tripped")), 1.0);
        for name in series.keys() {
            assert!(!name.contains("key="), "{name}");
            assert!(!name.starts_with("circuit_breaker_state"), "{name}: whose?");
            assert!(!name.starts_with("circuit_breaker_override"), "{name}: whose?");
        }
        assert_eq!(series.len(), 5 + 3 + 2 + 18 + 3 + 2);
    }

    #[test]
    fn keys_are_labels_where_that_was_asked_for() {
        let clock = ManualClock::new();
        let reported = |is_evicted: bool| {
            let circuits = group(&clock).idle_for(MINUTE).label_keys().build().unwrap();
            let recorder = DebuggingRecorder::new();
            metrics::with_local_recorder(&recorder, || {
                open(&circuits, "a");
                succeed(&circuits, "b");
                succeed(&circuits, "b");
                if is_evicted {
                    clock.advance(5 * SECOND + MINUTE);
                    assert_eq!(circuits.evict_idle(), 1);
                }
            });
            series(&recorder.snapshotter())
        };
        let states = |series: &BTreeMap<String, f64>| {
            ["circuit_breaker_state circuit=keys key=a", "circuit_breaker_keys circuit=keys"].map(
                |name| ["closed", "open"].map(|state| series[&format!("{name} state={state}")]),
            )
        };
        let before = reported(false);
        assert_eq!(states(&before), [[0.0, 1.0], [1.0, 1.0]]);
        assert_eq!(states(&reported(true)), [[1.0, 0.0], [1.0, 0.0]], "at rest");
        let calls = "circuit_breaker_calls_total circuit=keys key=b outcome=success";
        assert_eq!(before[calls], 2.0);
        assert!(!before.contains_key("circuit_breaker_calls_total circuit=keys outcome=success"));
    }

    #[test]
    fn tracing_tells_the_key() {
        #[derive(Clone, Default)]
        struct Events(Arc<Mutex<String>>);
        impl tracing::field::Visit for Events {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0.lock().unwrap(), "{field}={value:?} ").unwrap();
            }
        }
        impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Events {
            fn on_event(
                &self,
                event: &tracing::Event<'_>,
                _: tracing_subscriber::layer::Context<'_, S>,
            ) {
                event.record(&mut self.clone());
            }
        }
        let events = Events::default();
        let subscriber = tracing_subscriber::registry().with(events.clone());
        let clock = ManualClock::new();
        let circuits = group(&clock).build().unwrap();
        tracing::subscriber::with_default(subscriber, || {
            circuits.get_or_create("a").trip();
            circuits.shared().trip();
        });
        let told = events.0.lock().unwrap();
        assert!(told.contains(r#"circuit="keys" key="a" from="closed""#), "{told}");
        assert!(told.contains(r#"circuit="keys" from="closed""#), "{told}");
    }
}
