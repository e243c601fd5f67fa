//! The history as JSON, for the operator's listener.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_breaker::{AdminRefusal, AdminRequest};

use super::{EventsAsked, History, Series, Sum, feed::date};

/// Answers for `/api/v1/history/`.
///
/// | path | query | |
/// |---|---|---|
/// | `<circuit>` | `range=24h` or `7d` | its series, in 60 steps |
/// | `events` | `range` (24 h), `circuit`, `before`, `limit` (100) | what happened, oldest first |
///
/// A circuit called `events` is found as `circuits/events`, and so is any
/// other.
///
/// # Errors
///
/// If there is no such thing, it can't be meant so, or the database can't be
/// read.
pub async fn answer(history: History, request: AdminRequest) -> Result<Value, AdminRefusal> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    match (&request.method, &*path) {
        (&Method::GET, ["events"]) => events(&history, request.parameters()?).await,
        (&Method::GET, ["circuits", circuit] | [circuit]) if !circuit.is_empty() => {
            minutes(&history, circuit, request.parameters()?).await
        }
        (&Method::GET, _) => Err(AdminRefusal::not_found()),
        _ => Err(AdminRefusal::method_not_allowed("GET, HEAD")),
    }
}

fn unreadable(error: rusqlite::Error) -> AdminRefusal {
    let message = format!("the history can't be read: {error}");
    AdminRefusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MinutesAsked {
    range: Option<String>,
}

async fn minutes(
    history: &History,
    circuit: &str,
    asked: MinutesAsked,
) -> Result<Value, AdminRefusal> {
    let range = match asked.range.as_deref() {
        None | Some("24h") => Duration::from_secs(24 * 3_600),
        Some("7d") => Duration::from_secs(7 * 24 * 3_600),
        Some(_) => return Err(AdminRefusal::invalid("range", "must be 24h or 7d")),
    };
    let Some(series) = history.minutes(circuit, range).await.map_err(unreadable)? else {
        let message = format!("nothing is known of a circuit called {circuit:?}");
        return Err(AdminRefusal::new(StatusCode::NOT_FOUND, "unknown_circuit", message));
    };
    Ok(json!({ "now": rfc3339(date()), "circuit": circuit, "series": shown(&series) }))
}

/// In the shape of the series in the detail of a circuit, and how long each
/// state lasted.
fn shown(series: &Series) -> Value {
    let each = |of: fn(&Sum) -> Value| -> Value {
        series.steps.iter().map(|step| step.as_ref().map_or(Value::Null, of)).collect()
    };
    json!({
        "step_ms": whole_millis(series.step),
        "end": rfc3339(series.end),
        "calls": each(|step| step.counts.calls.into()),
        "failures": each(|step| step.counts.failures.into()),
        "slow": each(|step| step.counts.slow.into()),
        "rejected": each(|step| step.counts.rejected.into()),
        "p50_ms": each(|step| millis(step.p50)),
        "p99_ms": each(|step| millis(step.p99)),
        "state": each(|step| worst(step).into()),
        "lasted_ms": {
            "closed": each(|step| whole_millis(step.lasted.closed)),
            "half_open": each(|step| whole_millis(step.lasted.half_open)),
            "open": each(|step| whole_millis(step.lasted.open)),
            "held": each(|step| whole_millis(step.lasted.held)),
        },
    })
}

/// A letter of the ribbon. In hours, an outage of minutes must not hide behind
/// somebody who held the circuit for a while.
fn worst(step: &Sum) -> &'static str {
    let lasted = &step.lasted;
    match () {
        () if lasted.open > Duration::ZERO => "o",
        () if lasted.held > Duration::ZERO => "f",
        () if lasted.half_open > Duration::ZERO => "h",
        () => "c",
    }
}

/// As it stands in the query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    range: Option<String>,
    circuit: Option<String>,
    before: Option<String>,
    limit: Option<String>,
}

async fn events(history: &History, asked: Asked) -> Result<Value, AdminRefusal> {
    const LIMIT: usize = 1_000;

    let range = asked.range.map_or(Ok(Duration::from_secs(24 * 3_600)), |range| {
        let expected = "must be a duration such as 24h or 7d";
        humantime::parse_duration(&range).map_err(|_| AdminRefusal::invalid("range", expected))
    })?;
    let limit = asked.limit.map_or(Ok(100), |limit| {
        let limit = limit.parse().ok().filter(|limit| (1..=LIMIT).contains(limit));
        limit.ok_or_else(|| AdminRefusal::invalid("limit", "must be a number from 1 to 1000"))
    })?;
    let expected = "must be the cursor of an event, as it stands with the event";
    let before = asked
        .before
        .map(|cursor| cursor_of(&cursor).ok_or_else(|| AdminRefusal::invalid("before", expected)));
    let (before, circuit) = (before.transpose()?, asked.circuit);
    let since = date().checked_sub(range).unwrap_or(UNIX_EPOCH);
    let asked = EventsAsked { since, circuit, before, limit };
    let Some(kept) = history.events(asked).await.map_err(unreadable)? else {
        return Err(AdminRefusal::invalid("before", "is of an event that is not kept any more"));
    };
    let with_cursor = |(epoch, mut event): (String, Value)| {
        if event.is_object() {
            event["cursor"] = format!("{epoch}-{}", event["id"]).into();
        }
        event
    };
    let events: Value = kept.events.into_iter().map(with_cursor).collect();
    Ok(json!({ "now": rfc3339(date()), "events": events, "more": kept.more }))
}

/// The epoch and the number in a cursor.
fn cursor_of(text: &str) -> Option<(u64, u64)> {
    let (epoch, number) = text.split_once('-')?;
    Some((u64::from_str_radix(epoch, 16).ok()?, number.parse().ok()?))
}

fn rfc3339(date: SystemTime) -> String {
    humantime::format_rfc3339_millis(date.max(UNIX_EPOCH)).to_string()
}

fn whole_millis(duration: Duration) -> Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

fn millis(duration: Option<Duration>) -> Value {
    duration.map(|duration| duration.as_micros() as f64 / 1e3).into()
}
