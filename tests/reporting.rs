//! What the `metrics` and `tracing` features tell, and when.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{BoxError, Layer, Service, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ManualClock, Observer, Outcome,
    Override, Probes, ResultClassifier, Start, Transition,
};
use tracing_subscriber::layer::SubscriberExt;

const SECOND: Duration = Duration::from_secs(1);

fn circuit(clock: &ManualClock) -> Circuit {
    let config = Config::builder("shop")
        .consecutive_failures(2)
        .open_for(Backoff::fixed(SECOND))
        .probes(Probes::new(1))
        .clock(clock);
    Circuit::new(config.build().unwrap())
}

/// Every series as `name{labels}`, with its value.
fn series(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let mut name = key.name().to_owned();
        for label in key.labels().filter(|label| label.key() != "circuit") {
            write!(name, " {}={}", label.key(), label.value()).unwrap();
        }
        assert!(key.labels().any(|label| (label.key(), label.value()) == ("circuit", "shop")));
        assert!(unit.is_some() && description.is_some(), "{name} is not described");
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
fn a_circuit_made_before_the_recorder_reports_to_it() {
    let clock = ManualClock::new();
    let early = circuit(&clock);
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        early.try_acquire().unwrap().record(Outcome::Success);
    });
    let series = series(&recorder.snapshotter());
    assert_eq!(series["circuit_breaker_calls_total outcome=success"], 1.0);
}

#[test]
fn each_refusal_is_told_once_to_the_series_and_to_every_observer() {
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<Option<Duration>>>>);

    impl Observer for Heard {
        fn on_rejection(&self, open: &CircuitOpen) {
            assert_eq!(open.name(), "shop");
            self.0.lock().unwrap().push(open.retry_after());
        }
    }

    for is_heard in [false, true] {
        let (clock, heard) = (ManualClock::new(), Heard::default());
        let mut config = Config::builder("shop").open_for(Backoff::fixed(SECOND)).clock(&clock);
        if is_heard {
            config = config.observer(heard.clone());
        }
        // Its opening is told where nobody counts, so a refusal comes first.
        let circuit = Circuit::new(config.start(Start::Open).build().unwrap());
        let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
        let mut service = layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) }));
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || {
            assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(SECOND));
            assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(SECOND));
            clock.advance(SECOND / 4);
            let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(ready, Poll::Ready(Err(_))));
        });
        assert_eq!(series(&recorder.snapshotter())["circuit_breaker_rejections_total"], 3.0);
        assert_eq!(circuit.snapshot().totals.rejected, 3);
        let expected = [Some(SECOND), Some(SECOND), Some(SECOND * 3 / 4)];
        let expected = if is_heard { &expected[..] } else { &[] };
        assert_eq!(*heard.0.lock().unwrap(), expected);
    }
}

#[test]
fn a_recorder_that_panics_harms_no_call() {
    struct Panics;

    impl CounterFn for Panics {
        fn increment(&self, value: u64) {
            assert_eq!(value, 0, "it counts nothing");
        }

        fn absolute(&self, _: u64) {}
    }

    impl Recorder for Panics {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(Self))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    let clock = ManualClock::new();
    let circuit = circuit(&clock);
    metrics::with_local_recorder(&Panics, || {
        // The first one of each makes what counts the others.
        for outcome in [Outcome::Success, Outcome::Success, Outcome::Failure, Outcome::Failure] {
            circuit.try_acquire().unwrap().record(outcome);
        }
        assert!(circuit.try_acquire().is_err());
        assert!(circuit.try_acquire().is_err());
    });
    let totals = circuit.snapshot().totals;
    assert_eq!((totals.success, totals.failure, totals.rejected), (2, 2, 2));
}

#[test]
fn from_the_first_call_every_series_is_there_at_zero() {
    let clock = ManualClock::new();
    let circuit = circuit(&clock);
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        circuit.try_acquire().unwrap().record(Outcome::Success);
    });
    let series = series(&recorder.snapshotter());
    let up: Vec<_> =
        series.iter().filter(|(_, value)| **value != 0.0).map(|(name, _)| &**name).collect();
    assert_eq!(
        up,
        [
            "circuit_breaker_admitted_share",
            "circuit_breaker_calls_total outcome=success",
            "circuit_breaker_state state=closed"
        ]
    );
    assert_eq!(series.len(), 3 + 1 + 1 + 3 + 5 + 1 + 1 + 1 + 2 + 18);
}

#[test]
fn the_share_on_the_ramp_is_a_series() {
    let clock = ManualClock::new();
    let config = Config::builder("shop").ramp(10 * SECOND).clock(&clock);
    let circuit = Circuit::new(config.build().unwrap());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let shows = || series(&snapshotter)["circuit_breaker_admitted_share"];
    metrics::with_local_recorder(&recorder, || {
        circuit.trip();
        assert_eq!(shows(), 0.0);
        clock.advance(2 * SECOND);
        (0..3).for_each(|_| circuit.try_acquire().unwrap().record(Outcome::Success));
        assert_eq!(shows(), 0.0);
        clock.advance(4 * SECOND);
        let _ = circuit.try_acquire();
        assert_eq!(shows(), 0.4);
        clock.advance(6 * SECOND);
        let _ = circuit.try_acquire();
        assert_eq!(shows(), 1.0);
    });
}

#[test]
fn the_series_say_what_happened() {
    let clock = ManualClock::new();
    let circuit = circuit(&clock);
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        circuit.try_acquire().unwrap().record(Outcome::Ignored);
        drop(circuit.try_acquire().unwrap());
        let stale = circuit.try_acquire().unwrap();
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        stale.record(Outcome::Success);
        for _ in 0..3 {
            circuit.try_acquire().unwrap_err();
        }
    });
    let open = series(&snapshotter);
    assert_eq!(open["circuit_breaker_state state=open"], 1.0);
    assert_eq!(open["circuit_breaker_state state=closed"], 0.0);
    assert_eq!(open["circuit_breaker_state_code"], 2.0);
    assert_eq!(open["circuit_breaker_rejections_total"], 3.0);
    for (outcome, calls) in
        [("success", 0.0), ("failure", 2.0), ("ignored", 1.0), ("cancelled", 1.0), ("stale", 1.0)]
    {
        assert_eq!(open[&format!("circuit_breaker_calls_total outcome={outcome}")], calls);
    }

    metrics::with_local_recorder(&recorder, || {
        clock.advance(SECOND);
        let lost = circuit.try_acquire().unwrap();
        clock.advance(10 * SECOND);
        circuit.try_acquire().unwrap_err();
        lost.record(Outcome::Success);
        clock.advance(SECOND);
        circuit.try_acquire().unwrap().record(Outcome::Success);
        circuit.set_override(Override::observe_only());
        circuit.trip();
        circuit.try_acquire().unwrap().record(Outcome::Success);
    });
    // A debugging recorder's counters start again at each snapshot.
    let later = series(&snapshotter);
    let told = |from: &str, to: &str, cause: &str| {
        later[&format!("circuit_breaker_transitions_total from={from} to={to} cause={cause}")]
    };
    assert_eq!(told("open", "half-open", "wait-over"), 2.0);
    assert_eq!(told("half-open", "open", "probes-failed"), 1.0);
    assert_eq!(told("half-open", "closed", "probes-succeeded"), 1.0);
    assert_eq!(told("closed", "open", "tripped"), 1.0);
    assert_eq!(later["circuit_breaker_calls_total outcome=failure"], 1.0, "the lost lease");
    assert_eq!(later["circuit_breaker_calls_total outcome=success"], 2.0);
    assert_eq!(later["circuit_breaker_override kind=observe-only"], 1.0);
    assert_eq!(later["circuit_breaker_would_reject_total"], 1.0);
    assert!(!later.contains_key("circuit_breaker_call_duration_seconds"), "nobody asked");
}

/// Would-be rejections come once a call. They were queued with the transitions,
/// and whoever was telling could not get away while others went on calling.
#[test]
fn what_comes_once_a_call_does_not_wait_for_who_is_telling_a_transition() {
    struct Slow {
        entered: mpsc::Sender<()>,
        leave: Mutex<mpsc::Receiver<()>>,
        would_reject: mpsc::Sender<thread::ThreadId>,
    }

    impl Observer for Slow {
        fn on_transition(&self, _: &Transition) {
            self.entered.send(()).unwrap();
            self.leave.lock().unwrap().recv().unwrap();
        }

        fn on_would_reject(&self, _: &str) {
            self.would_reject.send(thread::current().id()).unwrap();
        }
    }

    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel();
    let (would_reject, rejected) = mpsc::channel();
    let observer = Slow { entered, leave: Mutex::new(may_leave), would_reject };
    let circuit = Circuit::new(Config::builder("shop").observer(observer).build().unwrap());
    circuit.set_override(Override::observe_only());
    let tripping = circuit.clone();
    let teller = thread::spawn(move || tripping.trip());
    has_entered.recv().unwrap();
    for _ in 0..3 {
        drop(circuit.try_acquire().unwrap());
        assert_eq!(rejected.try_recv(), Ok(thread::current().id()));
    }
    leave.send(()).unwrap();
    teller.join().unwrap();
}

#[test]
fn a_call_that_proves_nothing_is_slow_nowhere() {
    let clock = ManualClock::new();
    let config = Config::builder("shop").slow_calls(SECOND, 1.0).clock(&clock).build().unwrap();
    let circuit = Circuit::new(config);
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let permit = circuit.try_acquire().unwrap();
        clock.advance(2 * SECOND);
        permit.record(Outcome::Ignored);
    });
    assert_eq!(series(&recorder.snapshotter())["circuit_breaker_slow_calls_total"], 0.0);
    assert_eq!(circuit.snapshot().totals.slow, 0);
}

#[test]
fn a_call_that_comes_too_late_to_count_is_slow_nowhere_either() {
    let clock = ManualClock::new();
    let config = Config::builder("shop").slow_calls(SECOND, 1.0).clock(&clock).build().unwrap();
    let circuit = Circuit::new(config);
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let [late, slow, slower] = [(); 3].map(|()| circuit.try_acquire().unwrap());
        clock.advance(2 * SECOND);
        slow.record(Outcome::Success);
        slower.record(Outcome::Success);
        circuit.trip();
        late.record(Outcome::Success);
    });
    let series = series(&recorder.snapshotter());
    assert_eq!(series["circuit_breaker_slow_calls_total"], 2.0);
    assert_eq!((circuit.snapshot().totals.stale, circuit.snapshot().totals.slow), (1, 2));
}

#[test]
fn durations_are_recorded_where_they_are_asked_for() {
    let clock = ManualClock::new();
    let config = Config::builder("shop").measure_latency().clock(&clock).build().unwrap();
    let circuit = Circuit::new(config);
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        for _ in 0..3 {
            let permit = circuit.try_acquire().unwrap();
            clock.advance(SECOND);
            permit.record(Outcome::Success);
        }
    });
    let series = series(&recorder.snapshotter());
    assert_eq!(series["circuit_breaker_call_duration_seconds"], 3.0);
}

#[test]
fn every_transition_is_one_event_with_the_sentence_that_explains_it() {
    let clock = ManualClock::new();
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::with_default(subscriber, || {
        let circuit = circuit(&clock);
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        circuit.try_acquire().unwrap().record(Outcome::Failure);
        clock.advance(SECOND);
        circuit.try_acquire().unwrap().record(Outcome::Success);
        circuit.set_override(Override::force_open().reason("drill").owner("alice"));
        let other = Config::builder("shop").minimum_calls(7).consecutive_failures(2);
        circuit.reconfigure(other.open_for(Backoff::fixed(SECOND)).build().unwrap()).unwrap();
    });
    let lines = log.0.lock().unwrap();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert_eq!(
        lines[0],
        "WARN circuit=shop from=closed to=open cause=consecutive-failures generation=1 \
         message=shop: closed -> open, because 2 calls in a row failed, and 2 are enough to open; \
         next try in 1.0s"
    );
    assert!(lines[1].starts_with("INFO circuit=shop from=open to=half-open cause=wait-over"));
    assert!(lines[2].starts_with("INFO circuit=shop from=half-open to=closed"));
    assert!(lines[3].contains("kind=force-open reason=drill owner=alice"), "{}", lines[3]);
    assert!(lines[4].starts_with("INFO circuit=shop revision=5"), "{}", lines[4]);
    assert!(lines[4].contains("shop: reconfigured, minimum_calls: 10 -> 7"), "{}", lines[4]);
}

/// Keeps every event as a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Fields(String::new(), String::new());
        event.record(&mut fields);
        let line = format!("{}{}{}", event.metadata().level(), fields.0, fields.1);
        self.0.lock().unwrap().push(line);
    }
}

/// The fields, and apart from them the message.
struct Fields(String, String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let part = if field.name() == "message" { &mut self.1 } else { &mut self.0 };
        write!(part, " {field}={value:?}").unwrap();
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
