//! Configurations in and out, and what a page is shown.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};
use tower_breaker::{
    Backoff, Beyond, Cancellation, Cause, Circuit, Config, ConfigBuilder, KeyedCircuits,
    ManualClock, Outcome, Override, Probes, Quorum, Saved, Start, State, Throttle, Window,
};

const SECOND: Duration = Duration::from_secs(1);

fn config(text: &str) -> Result<Config, String> {
    let json: Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(json).map_err(|error| error.to_string())
}

/// What an error says of this besides a name.
fn error(text: &str) -> String {
    let text = if text.is_empty() { String::new() } else { format!(", {text}") };
    config(&format!("{{\"name\": \"inventory\"{text}}}")).unwrap_err()
}

#[test]
fn whatever_is_left_out_is_as_the_builder_has_it() {
    let read = config(r#"{"name": "inventory"}"#).unwrap();
    let built = Config::builder("inventory").build().unwrap();
    assert_eq!(format!("{read:?}"), format!("{built:?}"));
}

#[test]
fn every_key_is_that_of_the_builder() {
    let read = config(
        r#"{
            "name": "inventory", "window": {"time": "1m 30s", "buckets": 15}, "minimum_calls": 7,
            "failure_rate": 0.29, "sustained_for": "250ms", "consecutive_failures": 5,
            "slow_calls": {"threshold": "2s", "share": 1},
            "throttle": {"k": 2.5, "window": "1h 30m", "minimum_calls": 3},
            "start": {"observe_only": "1day"}, "warm_up": "10s",
            "open_for": {"initial": "2s", "max": "9s", "factor": 3, "jitter": 0.1, "seed": 7},
            "probes": {"permits": 5, "successes": 4, "lease": "3s", "share": 0.05}, "ramp": "30s",
            "cancellation": "neutral", "measure_latency": true
        }"#,
    )
    .unwrap();
    let built = Config::builder("inventory")
        .window(Window::time(90 * SECOND).buckets(15))
        .minimum_calls(7)
        .failure_rate(0.29)
        .sustained_for(Duration::from_millis(250))
        .consecutive_failures(5)
        .slow_calls(2 * SECOND, 1.0)
        .throttle(Throttle::new(2.5).window(5_400 * SECOND).minimum_calls(3))
        .start(Start::ObserveOnly(86_400 * SECOND))
        .warm_up(10 * SECOND)
        .open_for(Backoff::exponential(2 * SECOND, 9 * SECOND).factor(3.0).jitter(0.1).seed(7))
        .probes(Probes::new(5).successes(4).lease(3 * SECOND).share(0.05))
        .ramp(30 * SECOND)
        .cancellation(Cancellation::Neutral)
        .measure_latency()
        .build()
        .unwrap();
    assert_eq!(format!("{read:?}"), format!("{built:?}"));

    let read = config(
        r#"{"name": "inventory", "window": {"count": 5}, "minimum_calls": 5,
            "no_failure_rate": true, "consecutive_failures": 1, "open_for": {"fixed": "5s"},
            "measure_latency": false, "start": "open", "cancellation": "by_age"}"#,
    );
    let built = Config::builder("inventory")
        .window(Window::count(5))
        .minimum_calls(5)
        .no_failure_rate()
        .consecutive_failures(1)
        .open_for(Backoff::fixed(5 * SECOND))
        .start(Start::Open)
        .build();
    assert_eq!(format!("{:?}", read.unwrap()), format!("{:?}", built.unwrap()));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    for (text, nearest) in [
        (r#""failure_rat": 0.5"#, "unknown key `failure_rat`, did you mean `failure_rate`?"),
        (r#""failureRate": 0.5"#, "unknown key `failureRate`, did you mean `failure_rate`?"),
        (r#""min_calls": 5"#, "unknown key `min_calls`, did you mean `minimum_calls`?"),
        (
            r#""failure_rate_threshold": 5"#,
            "unknown key `failure_rate_threshold`, did you mean `failure_rate`?",
        ),
        (
            r#""window": {"time": "1s", "bukets": 5}"#,
            "unknown key `window.bukets`, did you mean `window.buckets`?",
        ),
        (
            r#""open_for": {"inital": "1s"}"#,
            "unknown key `open_for.inital`, did you mean `open_for.initial`?",
        ),
        (
            r#""probes": {"zzz": 3}"#,
            "unknown key `probes.zzz`, there are `permits`, `successes`, `lease`, `share`",
        ),
    ] {
        assert_eq!(error(text), nearest);
    }
}

#[test]
fn a_value_out_of_range_is_refused_in_the_words_of_the_builder() {
    fn words(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> String {
        change(Config::builder("inventory")).build().unwrap_err().to_string()
    }
    assert_eq!(error(r#""failure_rate": 1.5"#), words(|config| config.failure_rate(1.5)));
    assert_eq!(error(r#""failure_rate": -1"#), words(|config| config.failure_rate(-1.0)));
    assert_eq!(error(r#""minimum_calls": 21"#), words(|config| config.minimum_calls(21)));
    assert_eq!(error(r#""window": {"count": 0}"#), words(|config| config.window(Window::count(0))));
    assert_eq!(error(r#""ramp": "0s""#), words(|config| config.ramp(Duration::ZERO)));
    assert_eq!(
        error(r#""open_for": {"jitter": 1}"#),
        words(|config| config.open_for(Backoff::default().jitter(1.0)))
    );
    assert_eq!(
        error(r#""open_for": {"initial": "10s"}"#),
        words(|config| config.open_for(Backoff::exponential(10 * SECOND, 8 * SECOND)))
    );
    assert_eq!(
        error(r#""probes": {"permits": 3, "successes": 4}"#),
        words(|config| config.probes(Probes::new(3).successes(4)))
    );
    assert_eq!(error(r#""no_failure_rate": true"#), words(ConfigBuilder::no_failure_rate));
    let name = Config::builder("a b").build().unwrap_err().to_string();
    assert_eq!(config(r#"{"name": "a b"}"#).unwrap_err(), name);
    let nan = toml::from_str::<Config>("name = \"a\"\nfailure_rate = nan").unwrap_err();
    assert_eq!(nan.message(), words(|config| config.failure_rate(f64::NAN)));
}

#[test]
fn what_is_of_the_wrong_kind_is_refused_by_the_name_of_its_field() {
    for (text, said) in [
        (
            r#""minimum_calls": -1"#,
            "minimum_calls is -1, but must be a whole number, at least 0 and at most 18446744073709551615",
        ),
        (
            r#""consecutive_failures": 4294967296"#,
            "consecutive_failures is 4294967296, but must be a whole number, at least 0 and at most 4294967295",
        ),
        (
            r#""window": {"count": 2.5}"#,
            "window.count is 2.5, but must be a whole number, at least 0 and at most 4294967295",
        ),
        (
            r#""sustained_for": 10"#,
            "invalid type: integer `10`, expected sustained_for to be a duration such as \"10s\", \"250ms\" or \"1h 30m\"",
        ),
        (
            r#""sustained_for": null"#,
            "invalid type: null, expected sustained_for to be a duration such as \"10s\", \"250ms\" or \"1h 30m\"",
        ),
        (
            r#""open_for": "5s""#,
            "invalid type: string \"5s\", expected open_for to have the keys `fixed`, `initial`, `max`, `factor`, `jitter`, `seed`",
        ),
        (
            r#""measure_latency": 1"#,
            "invalid type: integer `1`, expected measure_latency to be true or false",
        ),
        (
            r#""start": "opne""#,
            "start is \"opne\", but must be \"closed\", \"open\", or have the key `observe_only`",
        ),
        (
            r#""start": 5"#,
            "invalid type: integer `5`, expected start to be \"closed\", \"open\", or to have the key `observe_only`",
        ),
        (
            r#""cancellation": "neutrl""#,
            "cancellation is \"neutrl\", but must be \"by_age\" or \"neutral\"",
        ),
        (r#""window": {}"#, "window must have one of the keys `count` and `time`"),
        (
            r#""window": {"count": 5, "buckets": 5}"#,
            "window.buckets is set, but only a window.time has buckets",
        ),
        (r#""slow_calls": {"share": 0.5}"#, "the key `slow_calls.threshold` is missing"),
        (
            r#""failure_rate": 0.5, "no_failure_rate": true"#,
            "no_failure_rate is true, but must not be beside a failure_rate",
        ),
        (
            r#""open_for": {"fixed": "1s", "max": "2s"}"#,
            "open_for.fixed is set, but must not be beside `initial`, `max` or `factor`",
        ),
    ] {
        assert_eq!(error(text), said);
    }
    for duration in ["", "10", "10 parsecs", "-1s", "1e400s", "99999999999999999999s"] {
        let said = error(&format!("\"warm_up\": {duration:?}"));
        let expected = format!("warm_up is {duration:?}, but must be a duration such as");
        assert!(said.starts_with(&expected), "{said}");
    }
    assert_eq!(config("{}").unwrap_err(), "the key `name` is missing");
    let twice = r#"{"name": "a", "ramp": "1s", "ramp": "2s"}"#;
    let said = serde_json::from_str::<Config>(twice).unwrap_err().to_string();
    assert!(said.starts_with("the key `ramp` is there twice"), "{said}");
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..10_000u64).prop_map(Duration::from_millis),
        (1..1_000_000_000_000u64).prop_map(Duration::from_nanos),
        (0..100 * 365 * 24 * 60 * 60u64, 0..1_000_000_000u32)
            .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

prop_compose! {
    fn backoff()(
        (initial, more) in (duration(), prop_oneof![Just(Duration::ZERO), duration()]),
        factor in prop_oneof![Just(1.0), 1.0..5.0],
        jitter in prop_oneof![Just(0.0), 0.0..1.0],
        seed in prop::option::of(0..i64::MAX as u64),
        fixed: bool,
    ) -> Backoff {
        let backoff = if fixed {
            Backoff::fixed(initial)
        } else {
            Backoff::exponential(initial, initial + more).factor(factor)
        };
        let backoff = backoff.jitter(jitter);
        seed.map_or(backoff, |seed| backoff.seed(seed))
    }
}

prop_compose! {
    fn probes()(permits in 1..=5u32, lease in prop::option::of(duration()))(
        successes in prop::option::of(1..=permits),
        permits in Just(permits),
        lease in Just(lease),
    ) -> Probes {
        let probes = successes.map_or(Probes::new(permits), |n| Probes::new(permits).successes(n));
        lease.map_or(probes, |lease| probes.lease(lease))
    }
}

fn throttle() -> impl Strategy<Value = Throttle> {
    (1.0..1_000.0, duration(), 0..i64::MAX as u64).prop_map(|(k, window, calls)| {
        Throttle::new(k).window(window + SECOND).minimum_calls(calls)
    })
}

fn share() -> impl Strategy<Value = f64> {
    prop_oneof![1e-6..=1.0, (1..=1_000_000u32).prop_map(|parts| f64::from(parts) / 1e6)]
}

prop_compose! {
    /// Every setting at any of its values.
    fn settings()(
        name in "[A-Za-z0-9._-]{1,64}",
        window in prop_oneof![
            (1..=1_000u32).prop_map(Window::count),
            (duration(), 1..=20u32)
                .prop_map(|(span, buckets)| Window::time(span + SECOND).buckets(buckets)),
        ],
        minimum_calls in 0..=20u64,
        rates in (prop::option::of(share()), prop::option::of((duration(), share()))),
        sustained_for in duration(),
        consecutive_failures in prop::option::of(1..u32::MAX),
        throttle in prop::option::of(throttle()),
        start in prop_oneof![
            Just(Start::Closed),
            Just(Start::Open),
            duration().prop_map(|duration| Start::ObserveOnly(duration + SECOND)),
        ],
        warm_up in duration(),
        (open_for, probes) in (backoff(), probes()),
        (ramp, measured) in (prop::option::of(duration()), any::<bool>()),
        cancellation in prop_oneof![Just(Cancellation::ByAge), Just(Cancellation::Neutral)],
    ) -> ConfigBuilder {
        let mut builder = Config::builder(name)
            .window(window)
            .minimum_calls(minimum_calls)
            .sustained_for(sustained_for)
            .start(start)
            .warm_up(warm_up)
            .open_for(open_for)
            .probes(probes)
            .cancellation(cancellation);
        let (failure_rate, slow_calls) = rates;
        builder = match failure_rate {
            Some(share) => builder.failure_rate(share),
            None => builder.no_failure_rate(),
        };
        if let Some((threshold, share)) = slow_calls {
            builder = builder.slow_calls(threshold, share);
        }
        if let Some(failures) = consecutive_failures {
            builder = builder.consecutive_failures(failures);
        }
        if let Some(throttle) = throttle {
            builder = builder.throttle(throttle);
        }
        if let Some(ramp) = ramp {
            builder = builder.ramp(ramp);
        }
        if measured { builder.measure_latency() } else { builder }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_configuration_comes_back_as_it_went(settings in settings()) {
        // What can't be built is refused before it is written.
        if let Ok(config) = settings.build() {
            let rules = format!("{config:?}");
            let json = serde_json::to_string(&config).unwrap();
            let read: Config = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(format!("{read:?}"), &*rules, "{}", json);

            let text = toml::to_string(&config).unwrap();
            let read: Config = toml::from_str(&text).unwrap();
            prop_assert_eq!(format!("{read:?}"), &*rules, "{}", text);
        }
    }
}

fn cause() -> impl Strategy<Value = Option<Cause>> {
    // As circuits come to them.
    (0..=7).prop_map(|kind| {
        if kind == 7 {
            let parent = Circuit::new(Config::builder("all").build().unwrap());
            let template = Config::builder("hosts").build().unwrap();
            let group = KeyedCircuits::builder(template).parent(&parent, Quorum::count(1));
            group.build().unwrap().get_or_create("one").trip();
            return parent.snapshot().cause;
        }
        let clock = ManualClock::new();
        let rules = Config::builder("inventory").clock(&clock).sustained_for(Duration::ZERO);
        let rules = match kind {
            0 | 6 => rules,
            1 => rules.minimum_calls(2).failure_rate(0.3),
            2 => rules.consecutive_failures(2),
            3 => rules.no_failure_rate().minimum_calls(2).slow_calls(SECOND, 1.0 / 3.0),
            4 => rules.consecutive_failures(2).probes(Probes::new(2).successes(1)),
            _ => rules.start(Start::Open),
        };
        let circuit = Circuit::new(rules.build().unwrap());
        if kind == 6 {
            circuit.trip();
        }
        for _ in 0..4 {
            let taken = circuit.try_acquire();
            clock.advance(Duration::from_millis(if kind == 3 { 1_500 } else { 1 }));
            taken.into_iter().filter(|_| kind != 0).for_each(|call| call.record(Outcome::Failure));
            if kind == 4 {
                clock.advance(5 * SECOND);
            }
        }
        let cause = circuit.snapshot().cause;
        assert_eq!(cause.is_none(), kind == 0, "{cause:?}");
        cause
    })
}

prop_compose! {
    fn saved()(
        cause in cause(),
        at in (0..4_000_000_000u64, 0..1_000_000_000u32),
        (state_for, wait, wait_left) in (duration(), duration(), duration()),
        (revision, step) in (0..u64::MAX, 0..u32::MAX),
        state in prop::sample::select(vec![State::Closed, State::Open, State::HalfOpen]),
        counts in prop::array::uniform12(0..u64::MAX),
        over in prop::option::of((
            prop::sample::select(
                vec![Override::force_open(), Override::force_closed(), Override::observe_only()]
            ),
            prop::option::of(".*"),
            prop::option::of(".*"),
            prop::option::of(duration()),
        )),
    ) -> Saved {
        let mut saved = Circuit::new(Config::default()).save();
        saved.saved_at = SystemTime::UNIX_EPOCH + Duration::new(at.0, at.1);
        (saved.state_for, saved.wait, saved.wait_left) = (state_for, wait, wait_left);
        (saved.revision, saved.step, saved.state, saved.cause) = (revision, step, state, cause);
        let totals = &mut saved.totals;
        [
            totals.success,
            totals.failure,
            totals.slow,
            totals.ignored,
            totals.cancelled,
            totals.stale,
            totals.rejected,
            totals.would_reject,
            totals.opened,
            totals.fallback_answered,
            totals.fallback_failed,
            totals.fallback_cancelled,
        ] = counts;
        saved.active_override = over.map(|(mut over, reason, owner, expires_in)| {
            (over.reason, over.owner, over.expires_in) = (reason, owner, expires_in);
            saved.overridden_for = state_for;
            over
        });
        saved
    }
}

proptest! {
    #[test]
    fn what_was_saved_comes_back_as_it_went(saved in saved()) {
        let json = serde_json::to_string(&saved).unwrap();
        let read: Saved = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read, saved, "{}", json);
    }
}

#[test]
fn what_was_not_saved_here_is_refused_by_its_field() {
    let circuit = Circuit::new(Config::default());
    circuit.trip();
    circuit.set_override(Override::force_open());
    let written = serde_json::to_value(circuit.save()).unwrap();
    let read = |change: fn(&mut Value)| {
        let mut changed = written.clone();
        change(&mut changed);
        serde_json::from_value::<Saved>(changed).map_err(|error| error.to_string())
    };
    assert!(read(|_| {}).is_ok());
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 9] = [
        (
            |saved| saved["state"] = json!("ajar"),
            "state is \"ajar\", but must be one of `closed`, `open`, `half_open`",
        ),
        (
            |saved| saved["step"] = json!(-1),
            "step is -1, but must be a whole number, at least 0 and at most 4294967295",
        ),
        (
            |saved| saved["totals"]["success"] = json!(0.5),
            "totals.success is 0.5, but must be a whole number, at least 0 and at most 18446744073709551615",
        ),
        (
            |saved| saved["cause"]["code"] = json!("moonlight"),
            "cause.code is \"moonlight\", but must be that of a cause that opens a circuit",
        ),
        (|saved| saved["cause"]["code"] = json!("quorum"), "the key `cause.open` is missing"),
        (
            |saved| saved["cause"] = json!({ "code": "failure_rate", "calls": -1 }),
            "cause.calls is -1, but must be a whole number, at least 0 and at most 18446744073709551615",
        ),
        (
            |saved| saved["active_override"]["kind"] = json!("no"),
            "active_override.kind is \"no\", but must be one of `force_open`, `force_closed`, `observe_only`",
        ),
        (|saved| saved["waits"] = json!("1s"), "unknown key `waits`, did you mean `wait`?"),
        (
            |saved| drop(saved.as_object_mut().unwrap().remove("revision")),
            "the key `revision` is missing",
        ),
    ];
    for (change, said) in cases {
        assert_eq!(read(change).unwrap_err(), said);
    }
    let said = read(|saved| saved["saved_at"] = json!("yesterday")).unwrap_err();
    assert!(said.starts_with("saved_at is \"yesterday\", but must be a date such as"), "{said}");
}

#[test]
fn a_circuit_tells_the_rules_it_goes_by() {
    let config = Config::builder("inventory")
        .failure_rate(0.25)
        .slow_calls(SECOND, 0.5)
        .ramp(SECOND)
        .build()
        .unwrap();
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(serde_json::to_value(Circuit::new(config).config()).unwrap(), written);
    assert_eq!(written["slow_calls"], json!({"threshold": "1s", "share": 0.5}));
    assert_eq!(written["open_for"]["max"], json!("8s"));
    assert_eq!(written["measure_latency"], json!(false));
}

#[test]
fn a_snapshot_shows_what_a_page_needs() {
    let clock = ManualClock::new();
    let config = Config::builder("inventory")
        .consecutive_failures(2)
        .open_for(Backoff::fixed(5 * SECOND))
        .clock(&clock)
        .build()
        .unwrap();
    let circuit = Circuit::new(config);
    for _ in 0..2 {
        circuit.try_acquire().unwrap().record(Outcome::Failure);
    }
    let over = Override::observe_only().reason("a <b> \"test\"").owner("alice").until_cleared();
    circuit.set_override(over);
    clock.advance(Duration::from_millis(1_200));
    let shown = serde_json::to_value(circuit.snapshot()).unwrap();
    assert_eq!(
        shown["cause"],
        json!({
            "code": "consecutive_failures",
            "sentence": "2 calls in a row failed, and 2 are enough to open"
        })
    );
    assert_eq!(shown["name"], "inventory");
    assert_eq!(shown["key"], Value::Null);
    assert_eq!(shown["state"], "open");
    assert_eq!(shown["for_ms"], 1_200);
    assert_eq!(shown["retry_after_ms"], 3_800);
    assert_eq!(shown["window"]["failure_rate"], Value::Null);
    assert_eq!(shown["totals"]["failure"], 2);
    assert_eq!(
        shown["active_override"],
        json!({"kind": "observe_only", "reason": "a <b> \"test\"", "owner": "alice", "expires_in_ms": null})
    );
    assert_eq!(shown["overridden_for_ms"], 1_200);
    assert_eq!(shown["revision"], 2);

    circuit.clear_override();
    clock.advance(5 * SECOND);
    let _probe = circuit.try_acquire().unwrap();
    let shown = serde_json::to_value(circuit.snapshot()).unwrap();
    assert_eq!(shown["state"], "half_open");
    let probes = json!(
        {"permits_left": 2, "in_flight": 1, "successes": 0, "failures": 0, "required": 3}
    );
    assert_eq!(shown["probes"], probes);
}

#[test]
fn a_group_shows_its_numbers() {
    let template = Config::builder("hosts").build().unwrap();
    let group = KeyedCircuits::builder(template)
        .minimum_keys(1)
        .max_open_share(0.5, Beyond::FailOpen)
        .build()
        .unwrap();
    group.get_or_create("a").trip();
    group.get_or_create("b").trip();
    let shown = serde_json::to_value(group.snapshot()).unwrap();
    assert_eq!(
        shown,
        json!({
            "name": "hosts", "closed": 0, "open": 2, "half_open": 0, "capacity": 10_000,
            "evicted": 0, "overflowed": 0, "beyond": "fail_open"
        })
    );
}

mod events {
    use tower_breaker::{Command, Registry};

    use super::*;

    #[test]
    fn an_event_shows_whose_what_when_and_why() {
        let registry = Registry::new();
        let circuit = registry.circuit(Config::default()).unwrap();
        circuit.trip();
        circuit.set_override(Override::force_closed().reason("because").owner("bob"));
        circuit.clear_override();
        let command = Command::new("reset").by("alice").reason("deployed");
        registry.record_command(&circuit, command);
        let stricter = Config::builder("default").minimum_calls(5).build().unwrap();
        circuit.reconfigure(stricter).unwrap();
        let events = registry.events_after(0, 10).events;
        let shown = |index: usize| serde_json::to_value(&*events[index]).unwrap();

        assert_eq!(shown(0)["id"], 1);
        assert_eq!(shown(0)["kind"], "registered");
        let at = shown(0)["at"].as_str().unwrap().to_owned();
        assert!(at.len() == "2026-01-01T00:00:00.000Z".len() && at.ends_with('Z'), "{at}");

        let opened = shown(1);
        assert_eq!(
            (&opened["kind"], &opened["circuit_id"], &opened["from"], &opened["to"]),
            (&json!("transition"), &json!("default"), &json!("closed"), &json!("open"))
        );
        assert_eq!(opened["cause"]["code"], "tripped");
        assert_eq!(opened["sentence"], events[1].to_string());

        assert_eq!(
            (&shown(2)["kind"], &shown(2)["reason"]),
            (&json!("override_set"), &json!("because"))
        );
        assert_eq!(shown(2)["override"]["expires_in_ms"], 3_600_000);
        assert_eq!(
            (&shown(3)["kind"], &shown(3)["expired"]),
            (&json!("override_cleared"), &json!(false))
        );
        let past = serde_json::to_value(registry.events_after(1, 2)).unwrap();
        assert_eq!((&past["missed"], &past["last_id"]), (&json!(0), &json!(6)));
        assert_eq!(past["events"], json!([shown(1), shown(2)]));
        assert_eq!((&shown(4)["action"], &shown(4)["by"]), (&json!("reset"), &json!("alice")));
        assert_eq!(
            (&shown(2)["by"], &shown(2)["override"]["owner"]),
            (&json!("bob"), &json!("bob"))
        );
        assert_eq!(shown(5)["revision"], circuit.snapshot().revision);
        let change = json!({"field": "minimum_calls", "from": "10", "to": "5"});
        assert_eq!(shown(5)["changes"], json!([change]));
    }

    #[test]
    fn vitals_are_rows_with_nothing_where_nothing_is_known() {
        let clock = ManualClock::new();
        let registry = Registry::new();
        let config = Config::builder("inventory").clock(&clock).build().unwrap();
        let circuit = registry.circuit(config).unwrap();
        let shown =
            |registry: &Registry| serde_json::to_value(registry.vitals(&circuit).unwrap()).unwrap();
        assert_eq!(shown(&registry)["latency"], Value::Null);
        circuit.try_acquire().unwrap().record(Outcome::Success);
        let shown = shown(&registry);
        assert_eq!(shown["series"]["step_ms"], 15_000.0);
        for row in ["calls", "failures", "slow", "rejected", "p50_ms", "p99_ms", "state"] {
            let row = shown["series"][row].as_array().unwrap();
            assert_eq!((row.len(), &row[58]), (60, &Value::Null));
        }
        assert_eq!(shown["series"]["calls"][59], 1);
        assert_eq!(shown["series"]["state"][59], "closed");
        assert_eq!(shown["latency"]["samples"], 1);
        assert_eq!(shown["rates"]["calls_per_s"], 1.0);
    }
}
