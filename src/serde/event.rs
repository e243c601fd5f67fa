//! What a registry tells, for a page.

use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::shown::{Date, Word, fine_millis, millis};
use crate::{Event, EventKind, History, Latency, Rates, Series, Step, Vitals};

/// `id`, `at` (RFC 3339, UTC), `circuit_id`, `name`, `key`, `kind` (in
/// `snake_case`), `sentence`, `by` and `reason`; and by kind `from`, `to`,
/// `cause`, `generation`, `open_for_ms`, `override`, `expired`, `revision`,
/// `changes` or `action`.
///
/// `circuit_id` is [`Event::circuit_id`].
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (by, reason) = match &self.kind {
            EventKind::OverrideSet(over) => (over.owner.as_deref(), over.reason.as_deref()),
            EventKind::Command(command) => (command.by.as_deref(), command.reason.as_deref()),
            _ => (None, None),
        };
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("at", &Date(self.at))?;
        map.serialize_entry("circuit_id", &self.circuit_id())?;
        map.serialize_entry("name", &*self.circuit)?;
        map.serialize_entry("key", &self.key.as_deref())?;
        map.serialize_entry("kind", &Word(self.kind.as_str()))?;
        map.serialize_entry("sentence", &self.to_string())?;
        map.serialize_entry("by", &by)?;
        map.serialize_entry("reason", &reason)?;
        match &self.kind {
            EventKind::Transition(transition) => {
                map.serialize_entry("from", &transition.from)?;
                map.serialize_entry("to", &transition.to)?;
                map.serialize_entry("cause", &transition.cause)?;
                map.serialize_entry("generation", &transition.generation)?;
                map.serialize_entry("open_for_ms", &transition.open_for.map(millis))?;
            }
            EventKind::OverrideSet(over) => map.serialize_entry("override", over)?,
            EventKind::OverrideCleared { expired } => map.serialize_entry("expired", expired)?,
            EventKind::Command(command) => map.serialize_entry("action", &command.action)?,
            EventKind::Reconfigured(reconfigured) => {
                map.serialize_entry("revision", &reconfigured.revision)?;
                map.serialize_entry("changes", &reconfigured.changes)?;
            }
            EventKind::Registered | EventKind::Removed => {}
        }
        map.end()
    }
}

/// Its fields.
impl Serialize for History {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { events, missed, last_id } = self;
        let events: Vec<&Event> = events.iter().map(|event| &**event).collect();
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry("events", &events)?;
        map.serialize_entry("missed", missed)?;
        map.serialize_entry("last_id", last_id)?;
        map.end()
    }
}

/// `rates`, `latency` and `series`.
impl Serialize for Vitals {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("rates", &self.rates)?;
        map.serialize_entry("latency", &self.latency)?;
        map.serialize_entry("series", &self.series)?;
        map.end()
    }
}

/// `calls_per_s`, `failures_per_s` and `rejected_per_s`.
impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("calls_per_s", &self.calls)?;
        map.serialize_entry("failures_per_s", &self.failures)?;
        map.serialize_entry("rejected_per_s", &self.rejected)?;
        map.end()
    }
}

/// `p50_ms`, `p90_ms`, `p99_ms` and `samples`.
impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("p50_ms", &fine_millis(self.p50))?;
        map.serialize_entry("p90_ms", &fine_millis(self.p90))?;
        map.serialize_entry("p99_ms", &fine_millis(self.p99))?;
        map.serialize_entry("samples", &self.samples)?;
        map.end()
    }
}

/// `step_ms`, `running_for_ms`, and a row for each of `calls`, `failures`,
/// `slow`, `rejected`, `p50_ms`, `p99_ms`, `state` and `forced`, with null where
/// nothing is known.
impl Serialize for Series {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let row = |f: fn(&Step) -> u64| -> Vec<Option<u64>> {
            self.steps.iter().map(|step| step.as_ref().map(f)).collect()
        };
        let times = |f: fn(&Step) -> Option<Duration>| -> Vec<Option<f64>> {
            self.steps.iter().map(|step| step.as_ref().and_then(f).map(fine_millis)).collect()
        };
        let states: Vec<_> = self.steps.iter().map(|step| step.map(|step| step.worst)).collect();
        let forced: Vec<_> =
            self.steps.iter().map(|step| step.map(|step| step.is_forced)).collect();
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("step_ms", &millis(self.step))?;
        map.serialize_entry("running_for_ms", &millis(self.running_for))?;
        map.serialize_entry("calls", &row(|step| step.calls))?;
        map.serialize_entry("failures", &row(|step| step.failures))?;
        map.serialize_entry("slow", &row(|step| step.slow))?;
        map.serialize_entry("rejected", &row(|step| step.rejected))?;
        map.serialize_entry("p50_ms", &times(|step| step.p50))?;
        map.serialize_entry("p99_ms", &times(|step| step.p99))?;
        map.serialize_entry("state", &states)?;
        map.serialize_entry("forced", &forced)?;
        map.end()
    }
}
