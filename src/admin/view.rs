//! Circuits and events as JSON.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    cursor,
    list::{Filter, Part, Sort},
    refusal::Refusal,
    route::encode,
    sentence::sentence,
    time::{fine_millis, millis, rfc3339, round, wall_clock, wall_time},
};
use crate::{
    Circuit, Event, Latency, Override, OverrideKind, Registry, Series, Snapshot, State, Step,
    Vitals,
};

/// How many events go with the detail of a circuit.
const RECENT: usize = 50;

/// A circuit at one instant, with all there is to say of it.
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) circuit: Circuit,
    /// What callers meet, an override included.
    pub(super) state: State,
    pub(super) snapshot: Snapshot,
    pub(super) vitals: Vitals,
    /// By the circuit's clock.
    now: Instant,
    wall: SystemTime,
}

impl Seen {
    /// `None` if it is registered no longer.
    pub(super) fn of(registry: &Registry, circuit: Circuit) -> Option<Self> {
        let vitals = registry.vitals(&circuit)?;
        let snapshot = circuit.snapshot();
        let now = snapshot.at;
        Some(Self {
            id: id(&snapshot.name, snapshot.key.as_deref()),
            state: met_by_callers(&snapshot),
            wall: wall_clock(),
            circuit,
            snapshot,
            vitals,
            now,
        })
    }

    /// How long the machine has been in its state.
    fn lasted(&self) -> Duration {
        self.now.saturating_duration_since(self.snapshot.since)
    }

    /// How long an operator has had a hand in it.
    fn overridden_for(&self) -> Option<Duration> {
        self.snapshot.overridden_since.map(|since| self.now.saturating_duration_since(since))
    }

    /// How long it has been registered, as far back as its series goes. If it has
    /// grown younger it is another one of the same id.
    pub(super) fn age(&self) -> Duration {
        let Series { step, running_for, steps } = &self.vitals.series;
        if steps.iter().all(Option::is_some) {
            return Duration::MAX;
        }
        // The last one is still running.
        steps.iter().flatten().skip(1).fold(*running_for, |age, _| age + *step)
    }

    /// All there is in a list.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut all = self.to_news();
        all.extend(self.to_ages());
        all.insert("name".into(), self.snapshot.name.as_str().into());
        all.insert("key".into(), self.snapshot.key.as_deref().into());
        let series = &self.vitals.series;
        let last = series.steps.len().saturating_sub(1);
        let spark = series
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| spark(*step, (index == last).then_some(series)));
        all.insert("spark".into(), spark.collect());
        all.insert("ribbon".into(), series.steps.iter().map(|step| ribbon(*step)).collect());
        all
    }

    /// What changes, and is told when it does.
    fn to_news(&self) -> Map<String, Value> {
        let mut window = shown(&self.snapshot.window);
        window["limits"] = limits(&config(&self.circuit));
        let news = json!({
            "id": self.id,
            "state": state_word(self.state),
            "automatic_state": state_word(self.snapshot.state),
            "override": self.snapshot.active_override.as_ref().map(over),
            "generation": self.snapshot.revision,
            "retry_after_ms": self.snapshot.retry_after.map(millis),
            "cause": self.snapshot.cause.as_ref().map(ToString::to_string),
            "sentence": sentence(&self.snapshot),
            "window": window,
            "recovery": self.recovery(),
            "rates": self.rates(),
            "latency": shown(&self.vitals.latency),
            "totals": shown(&self.snapshot.totals),
        });
        object(news)
    }

    /// What grows older all the time, and is no news.
    fn to_ages(&self) -> Map<String, Value> {
        let date = |instant| rfc3339(wall_time(instant, self.now, self.wall));
        let automatic_since = self.snapshot.since;
        // What callers meet is the operator's.
        let since = self.snapshot.overridden_since.unwrap_or(automatic_since);
        let lasted = self.overridden_for().unwrap_or_else(|| self.lasted());
        let mut ages = object(json!({
            "since": date(since),
            "for_ms": millis(lasted),
            "automatic_since": date(automatic_since),
            "automatic_for_ms": millis(self.lasted()),
        }));
        if let Some(active) = &self.snapshot.active_override {
            let mut over = over(active);
            over["since"] = date(since).into();
            over["for_ms"] = millis(lasted);
            over["expires_in_ms"] = active.expires_in.map(millis).into();
            ages.insert("override".into(), over);
        }
        let Series { step, running_for, .. } = self.vitals.series;
        ages.insert("step_left_ms".into(), millis(step.saturating_sub(running_for)));
        ages
    }

    /// What is told of it when it has changed: the ends of the spark and the
    /// ribbon alone, of the step that is running.
    pub(super) fn to_row(&self) -> Map<String, Value> {
        let mut row = self.to_news();
        row.extend(self.to_ages());
        let (spark, ribbon) = self.ends();
        row.insert("spark_last".into(), spark);
        row.insert("ribbon_last".into(), ribbon);
        row
    }

    fn ends(&self) -> (Value, Value) {
        let series = &self.vitals.series;
        let last = series.steps.last().copied().flatten();
        (spark(last, Some(series)), ribbon(last))
    }

    /// What it is known by to have changed.
    pub(super) fn to_print(&self) -> Print {
        let mut snapshot = self.snapshot.clone();
        // It grows older all the time, and that is no news.
        snapshot.at = snapshot.since;
        if let Some(over) = &mut snapshot.active_override {
            // The sentence says how many minutes.
            let minutes = |time: Duration| Duration::from_secs(time.as_secs() / 60);
            over.expires_in = over.expires_in.map(minutes);
            snapshot.at += self.overridden_for().map_or(Duration::ZERO, minutes);
        }
        Print { snapshot, rates: self.rates(), latency: self.vitals.latency, ends: self.ends() }
    }

    fn rates(&self) -> Value {
        let rates = &self.vitals.rates;
        json!({
            "calls_per_s": round(rates.calls, 100.0),
            "failures_per_s": round(rates.failures, 100.0),
            "rejected_per_s": round(rates.rejected, 100.0),
        })
    }

    fn recovery(&self) -> Value {
        match (self.snapshot.state, &self.snapshot.probes, self.snapshot.admitted_share) {
            (State::Open, ..) => {
                // Under a forced opening it may be that one's end.
                let is_forced =
                    self.state == State::Open && self.snapshot.active_override.is_some();
                let left = self.snapshot.retry_after.filter(|_| !is_forced);
                json!({
                    "phase": "waiting",
                    "wait_ms": left.map(|left| millis(self.lasted() + left)),
                    "left_ms": left.map(millis),
                    "awaits_health_check": self.snapshot.awaits_health_check,
                })
            }
            (State::HalfOpen, Some(probes), share) => json!({
                "phase": "probing",
                "required": probes.required,
                "successes": probes.successes,
                "failures": probes.failures,
                "in_flight": probes.in_flight,
                "permits_left": probes.permits_left,
                "admitted_share": share.map(|share| round(share, 1e6)),
            }),
            (State::HalfOpen, None, Some(share)) => {
                json!({ "phase": "ramp", "admitted_share": round(share, 1e3) })
            }
            _ => Value::Null,
        }
    }
}

/// All that is told of a circuit but its age.
#[derive(Debug, PartialEq)]
pub(super) struct Print {
    snapshot: Snapshot,
    rates: Value,
    latency: Option<Latency>,
    ends: (Value, Value),
}

/// How a circuit is called: by its name, and for one of a group by its key
/// behind a slash, written as in a path.
pub(super) fn id(name: &str, key: Option<&str>) -> String {
    match key {
        None => name.to_owned(),
        Some(key) => format!("{name}/{}", encode(key)),
    }
}

/// The state that callers meet.
pub(super) fn met_by_callers(snapshot: &Snapshot) -> State {
    match snapshot.active_override.as_ref().map(|over| over.kind) {
        None => snapshot.state,
        Some(OverrideKind::ForceOpen) => State::Open,
        Some(_) => State::Closed,
    }
}

pub(super) const fn state_word(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::HalfOpen => "half_open",
        _ => "closed",
    }
}

/// Without what is left of it.
fn over(over: &Override) -> Value {
    let mut over = shown(over);
    for age in ["since", "for_ms", "expires_in_ms"] {
        over[age] = Value::Null;
    }
    over
}

/// What a circuit goes by, as it is written in a file.
fn config(circuit: &Circuit) -> Value {
    shown(&circuit.config())
}

/// What the window is held against.
fn limits(config: &Value) -> Value {
    let millis = |duration: &Value| {
        let duration = humantime::parse_duration(duration.as_str()?).ok()?;
        Some(super::time::millis(duration))
    };
    let Value::Object(window) = &config["window"] else { return Value::Null };
    let slow_calls = &config["slow_calls"];
    json!({
        "kind": if window.contains_key("count") { "count" } else { "time" },
        "size": window.get("count"),
        "span_ms": window.get("time").and_then(millis),
        "minimum_calls": config["minimum_calls"],
        "failure_rate": config.get("failure_rate"),
        "slow_rate": slow_calls.get("share"),
        "slow_after_ms": slow_calls.get("threshold").and_then(millis),
        "consecutive_failures": config.get("consecutive_failures"),
    })
}

/// Calls a second; the step that is running is judged by what has passed of it.
fn spark(step: Option<Step>, running: Option<&Series>) -> Value {
    let Some(step) = step else { return Value::Null };
    let lasted = match running {
        Some(series) => series.running_for.max(Duration::from_secs(1)),
        None => Duration::from_secs(15),
    };
    round(step.calls as f64 / lasted.as_secs_f64(), 100.0)
}

fn ribbon(step: Option<Step>) -> Value {
    let Some(step) = step else { return Value::Null };
    let letter = match step.worst {
        _ if step.is_forced => "f",
        State::Open => "o",
        State::HalfOpen => "h",
        _ => "c",
    };
    letter.into()
}

fn series(series: &Series, wall: SystemTime) -> Value {
    let each = |of: fn(Step) -> Value| -> Value {
        series.steps.iter().map(|step| step.map_or(Value::Null, of)).collect()
    };
    let rest = series.step.saturating_sub(series.running_for);
    json!({
        "step_ms": millis(series.step),
        "end": rfc3339(wall + rest),
        "calls": each(|step| step.calls.into()),
        "failures": each(|step| step.failures.into()),
        "slow": each(|step| step.slow.into()),
        "rejected": each(|step| step.rejected.into()),
        "p50_ms": each(|step| step.p50.map(fine_millis).into()),
        "p99_ms": each(|step| step.p99.map(fine_millis).into()),
        "state": each(|step| ribbon(Some(step))),
    })
}

/// All circuits, as they are.
pub(super) fn all(registry: &Registry) -> Vec<Seen> {
    registry.circuits().into_iter().filter_map(|circuit| Seen::of(registry, circuit)).collect()
}

/// The circuits that are asked for. The counts are of all there are.
pub(super) fn list(registry: &Registry, filter: &Filter, sort: Sort, part: Part) -> Value {
    let mut all = all(registry);
    let count = |state| all.iter().filter(|seen| seen.state == state).count();
    let counts = json!({
        "open": count(State::Open),
        "half_open": count(State::HalfOpen),
        "closed": count(State::Closed),
        "overridden": all.iter().filter(|seen| seen.snapshot.active_override.is_some()).count(),
    });
    all.retain(|seen| filter.is_met_by(seen));
    sort.sort(&mut all);
    let circuits = all.iter().skip(part.offset).take(part.limit).map(Seen::to_json);
    json!({
        "now": rfc3339(wall_clock()),
        "total": all.len(),
        "offset": part.offset,
        "counts": counts,
        "circuits": circuits.map(Value::Object).collect::<Value>(),
    })
}

/// One circuit as it is in a list; null if it is registered no longer.
pub(super) fn one(registry: &Registry, circuit: &Circuit) -> Value {
    Seen::of(registry, circuit.clone()).map(|seen| seen.to_json()).into()
}

/// All there is to know of a circuit, and how much further back somebody else
/// goes.
pub(super) fn detail(
    registry: &Registry,
    circuit: Circuit,
    history: &[String],
) -> Result<Value, Refusal> {
    let history = if circuit.key().is_none() { history } else { &[] };
    let config = config(&circuit);
    let name = circuit.name().to_owned();
    let seen = Seen::of(registry, circuit).ok_or_else(|| Refusal::unknown_circuit(&name))?;
    Ok(json!({
        "now": rfc3339(seen.wall),
        "circuit": seen.to_json(),
        "config": config,
        "series": series(&seen.vitals.series, seen.wall),
        "events": latest(registry, &seen.id, RECENT),
        "history": history,
    }))
}

/// The latest events of a circuit, in their order.
pub(super) fn latest(registry: &Registry, of: &str, most: usize) -> Value {
    let history = registry.events_after(0, usize::MAX);
    let events = history.events.iter().rev().filter(|event| event.circuit_id() == of).take(most);
    let events: Vec<_> = events.collect();
    events.into_iter().rev().map(|event| self::event(event)).collect()
}

/// Events after one, of one circuit or of all.
pub(super) fn events(registry: &Registry, after: u64, limit: usize, of: Option<&str>) -> Value {
    let most = if of.is_some() { usize::MAX } else { limit };
    let history = registry.events_after(after, most);
    let events = history.events.iter().filter(|event| of.is_none_or(|of| event.circuit_id() == of));
    json!({
        "events": events.take(limit).map(|event| self::event(event)).collect::<Value>(),
        "missed": history.missed,
        "epoch": cursor::epoch(registry),
        "last_id": history.last_id,
    })
}

/// An event.
pub(super) fn event(event: &Event) -> Value {
    shown(event)
}

/// As `serde` shows it.
fn shown(value: &impl Serialize) -> Value {
    // Nothing that is shown has a key that is no text, or a step that fails.
    serde_json::to_value(value).unwrap_or_default()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
