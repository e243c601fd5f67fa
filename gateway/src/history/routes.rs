//! The history as JSON, for the operator's listener.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{EventsAsked, History, Series, Sum, feed::date};

/// Answers a `GET` of what stands behind `/api/v1/history/`, as it stands in
/// the request's path and query. Whoever asks was let in before.
///
/// | path | query | |
/// |---|---|---|
/// | `<circuit>` | `range=24h` or `7d` | its series, in 60 steps |
/// | `events` | `range` (24 h), `circuit`, `before`, `limit` (100) | what happened, oldest first |
///
/// A circuit called `events` is found as `circuits/events`, and so is any
/// other.
pub async fn answer(history: &History, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
    let answered = match path.split('/').collect::<Vec<_>>()[..] {
        ["events"] => events(history, query).await,
        ["circuits", circuit] | [circuit] if !circuit.is_empty() => {
            minutes(history, circuit, query).await
        }
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")),
    };
    let (status, value) = match answered {
        Ok(value) => (StatusCode::OK, value),
        Err(Refusal { status, error }) => (status, json!({ "error": error })),
    };
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::VARY, "authorization"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

struct Refusal {
    status: StatusCode,
    error: Value,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, error: json!({ "code": code, "message": message.into() }) }
    }

    fn invalid(field: &str, expected: &str) -> Self {
        let message = format!("{field} {expected}");
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, "invalid", message);
        refusal.error["field"] = field.into();
        refusal
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        let message = format!("the history can't be read: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }
}

async fn minutes(history: &History, circuit: &str, query: Option<&str>) -> Result<Value, Refusal> {
    let mut query = Query::read(query)?;
    let range = match query.take("range").as_deref() {
        None | Some("24h") => Duration::from_secs(24 * 3_600),
        Some("7d") => Duration::from_secs(7 * 24 * 3_600),
        Some(_) => return Err(Refusal::invalid("range", "must be 24h or 7d")),
    };
    query.finish()?;
    let circuit = decode(circuit)?;
    let Some(series) = history.minutes(&circuit, range).await? else {
        let message = format!("nothing is known of a circuit called {circuit:?}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_circuit", message));
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

async fn events(history: &History, query: Option<&str>) -> Result<Value, Refusal> {
    const LIMIT: usize = 1_000;

    let mut query = Query::read(query)?;
    let range = query.take("range").map_or(Ok(Duration::from_secs(24 * 3_600)), |range| {
        let expected = "must be a duration such as 24h or 7d";
        humantime::parse_duration(&range).map_err(|_| Refusal::invalid("range", expected))
    })?;
    let limit = query.take("limit").map_or(Ok(100), |limit| {
        let limit = limit.parse().ok().filter(|limit| (1..=LIMIT).contains(limit));
        limit.ok_or_else(|| Refusal::invalid("limit", "must be a number from 1 to 1000"))
    })?;
    let expected = "must be the cursor of an event, as it stands with the event";
    let before = query
        .take("before")
        .map(|cursor| cursor_of(&cursor).ok_or_else(|| Refusal::invalid("before", expected)));
    let (before, circuit) = (before.transpose()?, query.take("circuit"));
    query.finish()?;
    let since = date().checked_sub(range).unwrap_or(UNIX_EPOCH);
    let asked = EventsAsked { since, circuit, before, limit };
    let Some(kept) = history.events(asked).await? else {
        return Err(Refusal::invalid("before", "is of an event that is not kept any more"));
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

/// What stands behind the question mark, each once.
struct Query<'a>(Vec<(Cow<'a, str>, String)>);

impl<'a> Query<'a> {
    fn read(query: Option<&'a str>) -> Result<Self, Refusal> {
        let mut pairs: Vec<(Cow<'a, str>, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name: Cow<'a, str> = decode(name)?.into();
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::invalid(&name, "must be there once"));
            }
            pairs.push((name, decode(&value.replace('+', " "))?));
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn finish(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::invalid(name, "is not known here")),
        }
    }
}

fn decode(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    let refusal =
        |_| Refusal::new(StatusCode::BAD_REQUEST, "malformed", "the path or query is not UTF-8");
    decoded.map(Cow::into_owned).map_err(refusal)
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
