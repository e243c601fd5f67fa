//! A circuit as of now, for a page.

use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{
    Cause, ConfigChange, Override, OverrideKind, Progress, Snapshot, State, Totals, Transition,
    WindowSnapshot,
};

/// A duration in whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A latency in milliseconds, to the nanosecond.
#[cfg(feature = "registry")]
pub(super) fn fine_millis(duration: Duration) -> f64 {
    // Divided and not multiplied, so that it reads as it was written.
    duration.as_nanos() as f64 / 1e6
}

/// A time by the calendar, as RFC 3339 has it, to the millisecond.
#[cfg(feature = "registry")]
pub(super) struct Date(pub(super) std::time::SystemTime);

#[cfg(feature = "registry")]
impl Serialize for Date {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // A calendar set before 1970 or past 9999 is not worth a panic.
        let first = std::time::SystemTime::UNIX_EPOCH;
        let last = first + Duration::from_millis(253_402_300_799_999);
        to.collect_str(&humantime::format_rfc3339_millis(self.0.clamp(first, last)))
    }
}

/// A word that has hyphens elsewhere.
pub(super) struct Word(pub(super) &'static str);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0.replace('-', "_"))
    }
}

/// `closed`, `open` or `half_open`.
impl Serialize for State {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Word(self.as_str()).serialize(to)
    }
}

/// `force_open`, `force_closed` or `observe_only`.
impl Serialize for OverrideKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Word(self.as_str()).serialize(to)
    }
}

/// `kind`, `reason`, `owner`, and `expires_in_ms`, which is null if it does not.
impl Serialize for Override {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut shown = to.serialize_struct("Override", 4)?;
        shown.serialize_field("kind", &self.kind)?;
        shown.serialize_field("reason", &self.reason)?;
        shown.serialize_field("owner", &self.owner)?;
        shown.serialize_field("expires_in_ms", &self.expires_in.map(millis))?;
        shown.end()
    }
}

/// `code`, its [label](Cause::label) in `snake_case`, and `sentence`.
impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut shown = to.serialize_struct("Cause", 2)?;
        shown.serialize_field("code", &Word(self.label()))?;
        shown.serialize_field("sentence", &self.to_string())?;
        shown.end()
    }
}

/// Its fields.
impl Serialize for WindowSnapshot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { calls, failures, slow, overdue, failure_rate, slow_rate } = self;
        let mut shown = to.serialize_struct("WindowSnapshot", 6)?;
        shown.serialize_field("calls", calls)?;
        shown.serialize_field("failures", failures)?;
        shown.serialize_field("slow", slow)?;
        shown.serialize_field("overdue", overdue)?;
        shown.serialize_field("failure_rate", failure_rate)?;
        shown.serialize_field("slow_rate", slow_rate)?;
        shown.end()
    }
}

/// Its fields.
impl Serialize for Progress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { permits_left, in_flight, successes, failures, required } = self;
        let mut shown = to.serialize_struct("Progress", 5)?;
        shown.serialize_field("permits_left", permits_left)?;
        shown.serialize_field("in_flight", in_flight)?;
        shown.serialize_field("successes", successes)?;
        shown.serialize_field("failures", failures)?;
        shown.serialize_field("required", required)?;
        shown.end()
    }
}

/// Its fields.
impl Serialize for Totals {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self {
            success,
            failure,
            slow,
            ignored,
            cancelled,
            stale,
            rejected,
            would_reject,
            opened,
            fallback_answered,
            fallback_failed,
            fallback_cancelled,
        } = self;
        let mut shown = to.serialize_struct("Totals", 12)?;
        shown.serialize_field("success", success)?;
        shown.serialize_field("failure", failure)?;
        shown.serialize_field("slow", slow)?;
        shown.serialize_field("ignored", ignored)?;
        shown.serialize_field("cancelled", cancelled)?;
        shown.serialize_field("stale", stale)?;
        shown.serialize_field("rejected", rejected)?;
        shown.serialize_field("would_reject", would_reject)?;
        shown.serialize_field("opened", opened)?;
        shown.serialize_field("fallback_answered", fallback_answered)?;
        shown.serialize_field("fallback_failed", fallback_failed)?;
        shown.serialize_field("fallback_cancelled", fallback_cancelled)?;
        shown.end()
    }
}

/// Its fields, but for `since`, which is `for_ms`: how long it has been in this
/// state; and for `overridden_since`, which is `overridden_for_ms`.
impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut shown = to.serialize_struct("Snapshot", 15)?;
        shown.serialize_field("name", &self.name)?;
        shown.serialize_field("key", &self.key)?;
        shown.serialize_field("state", &self.state)?;
        shown.serialize_field("generation", &self.generation)?;
        shown.serialize_field("revision", &self.revision)?;
        let age = self.at.saturating_duration_since(self.since);
        shown.serialize_field("for_ms", &millis(age))?;
        shown.serialize_field("retry_after_ms", &self.retry_after.map(millis))?;
        shown.serialize_field("cause", &self.cause)?;
        shown.serialize_field("window", &self.window)?;
        shown.serialize_field("probes", &self.probes)?;
        shown.serialize_field("admitted_share", &self.admitted_share)?;
        shown.serialize_field("awaits_health_check", &self.awaits_health_check)?;
        shown.serialize_field("totals", &self.totals)?;
        shown.serialize_field("active_override", &self.active_override)?;
        let held = self.overridden_since.map(|since| self.at.saturating_duration_since(since));
        shown.serialize_field("overridden_for_ms", &held.map(millis))?;
        shown.end()
    }
}

/// Its fields.
impl Serialize for ConfigChange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { field, from, to: becomes } = self;
        let mut shown = to.serialize_struct("ConfigChange", 3)?;
        shown.serialize_field("field", field)?;
        shown.serialize_field("from", from)?;
        shown.serialize_field("to", becomes)?;
        shown.end()
    }
}

/// Its fields, but for `at`, which is of no use outside the process, and with
/// `open_for_ms`.
impl Serialize for Transition {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut shown = to.serialize_struct("Transition", 8)?;
        shown.serialize_field("circuit", &*self.circuit)?;
        shown.serialize_field("key", &self.key.as_deref())?;
        shown.serialize_field("from", &self.from)?;
        shown.serialize_field("to", &self.to)?;
        shown.serialize_field("cause", &self.cause)?;
        shown.serialize_field("generation", &self.generation)?;
        shown.serialize_field("window", &self.window)?;
        shown.serialize_field("open_for_ms", &self.open_for.map(millis))?;
        shown.end()
    }
}

/// Its fields, `beyond` as `fail_open` or `fail_closed`.
#[cfg(feature = "keyed")]
impl Serialize for crate::KeyedSnapshot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { name, closed, open, half_open, capacity, evicted, overflowed, beyond } = self;
        let beyond = beyond.map(|beyond| match beyond {
            crate::Beyond::FailOpen => "fail_open",
            crate::Beyond::FailClosed => "fail_closed",
        });
        let mut shown = to.serialize_struct("KeyedSnapshot", 8)?;
        shown.serialize_field("name", name)?;
        shown.serialize_field("closed", closed)?;
        shown.serialize_field("open", open)?;
        shown.serialize_field("half_open", half_open)?;
        shown.serialize_field("capacity", capacity)?;
        shown.serialize_field("evicted", evicted)?;
        shown.serialize_field("overflowed", overflowed)?;
        shown.serialize_field("beyond", &beyond)?;
        shown.end()
    }
}

#[cfg(all(test, feature = "registry"))]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn every_date_has_four_digits_of_a_year() {
        let epoch = SystemTime::UNIX_EPOCH;
        let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        for (at, shown) in [
            (epoch - century, "1970-01-01T00:00:00.000Z"),
            (epoch + Duration::from_micros(1_500), "1970-01-01T00:00:00.001Z"),
            (epoch + 100 * century, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(serde_json::to_value(Date(at)).unwrap(), shown);
        }
    }
}
