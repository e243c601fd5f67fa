//! What of a circuit outlives its process, in a file.

use std::time::{Duration, SystemTime};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, MapAccess},
    ser::{Error, SerializeMap},
};

use super::{
    config::Human,
    object::{Object, Table, required},
    shown::Word,
    value::{Moment, Number, Span, Text, Whole},
};
use crate::{Cause, Override, OverrideKind, Saved, State, Totals};

/// Its fields, with durations such as `"1s 500ms"` and the date as RFC 3339 has
/// it; what is not there is left out.
///
/// ```
/// use tower_breaker::{Circuit, Config, Saved, State};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// circuit.trip();
/// let file = serde_json::to_string(&circuit.save())?;
///
/// let saved: Saved = serde_json::from_str(&file)?;
/// let circuit = Circuit::restore(Config::builder("inventory").build()?, saved)?;
/// assert_eq!(circuit.state(), State::Open);
/// # Ok(())
/// # }
/// ```
impl Serialize for Saved {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("saved_at", &format_args!("{}", Moment::of(self.saved_at)))?;
        map.serialize_entry("revision", &self.revision)?;
        map.serialize_entry("state", &self.state)?;
        map.serialize_entry("state_for", &Human(self.state_for))?;
        map.serialize_entry("wait", &Human(self.wait))?;
        map.serialize_entry("wait_left", &Human(self.wait_left))?;
        map.serialize_entry("step", &self.step)?;
        if let Some(cause) = &self.cause {
            map.serialize_entry("cause", &SavedCause(cause))?;
        }
        if let Some(over) = &self.active_override {
            map.serialize_entry("active_override", &SavedOverride(over))?;
            map.serialize_entry("overridden_for", &Human(self.overridden_for))?;
        }
        map.serialize_entry("totals", &self.totals)?;
        map.end()
    }
}

/// What [`Saved`]'s `Serialize` wrote.
impl<'de> Deserialize<'de> for Saved {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Object::<SavedTable>::new().deserialize(from)
    }
}

#[derive(Default)]
struct SavedTable {
    name: Option<String>,
    saved_at: Option<SystemTime>,
    revision: Option<u64>,
    state: Option<State>,
    state_for: Option<Duration>,
    wait: Option<Duration>,
    wait_left: Option<Duration>,
    step: Option<u32>,
    cause: Option<Cause>,
    active_override: Option<Override>,
    overridden_for: Option<Duration>,
    totals: Option<Totals>,
}

impl Table for SavedTable {
    const SETTING: &'static str = "";
    const KEYS: &'static [&'static str] = &[
        "name",
        "saved_at",
        "revision",
        "state",
        "state_for",
        "wait",
        "wait_left",
        "step",
        "cause",
        "active_override",
        "overridden_for",
        "totals",
    ];

    type Built = Saved;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "name" => self.name = Some(from.next_value_seed(Text(key))?),
            "saved_at" => self.saved_at = Some(from.next_value_seed(Moment(key))?),
            "revision" => self.revision = Some(from.next_value_seed(Whole(key, u64::MAX))?),
            "state" => {
                let states = [State::Closed, State::Open, State::HalfOpen];
                self.state = Some(one_of(key, from, states, State::as_str)?);
            }
            "state_for" => self.state_for = Some(from.next_value_seed(Span(key))?),
            "wait" => self.wait = Some(from.next_value_seed(Span(key))?),
            "wait_left" => self.wait_left = Some(from.next_value_seed(Span(key))?),
            "step" => self.step = Some(Whole::small(key, from)?),
            "cause" => self.cause = Some(from.next_value_seed(Object::<CauseTable>::new())?),
            "active_override" => {
                self.active_override = Some(from.next_value_seed(Object::<OverrideTable>::new())?);
            }
            "overridden_for" => self.overridden_for = Some(from.next_value_seed(Span(key))?),
            _ => self.totals = Some(from.next_value_seed(Object::<Totals>::new())?),
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Saved, E> {
        Ok(Saved {
            name: required(self.name, "name")?,
            saved_at: required(self.saved_at, "saved_at")?,
            revision: required(self.revision, "revision")?,
            state: required(self.state, "state")?,
            state_for: required(self.state_for, "state_for")?,
            wait: required(self.wait, "wait")?,
            wait_left: required(self.wait_left, "wait_left")?,
            step: required(self.step, "step")?,
            cause: self.cause,
            active_override: self.active_override,
            overridden_for: self.overridden_for.unwrap_or_default(),
            totals: required(self.totals, "totals")?,
        })
    }
}

/// A value by its word, which has hyphens elsewhere.
fn one_of<'de, T: Copy, A: MapAccess<'de>, const N: usize>(
    setting: &'static str,
    from: &mut A,
    values: [T; N],
    word_of: fn(T) -> &'static str,
) -> Result<T, A::Error> {
    let word = from.next_value_seed(Text(setting))?;
    let words = values.map(|value| word_of(value).replace('-', "_"));
    match words.iter().position(|known| *known == word) {
        Some(index) => Ok(values[index]),
        None => Err(de::Error::custom(format_args!(
            "{setting} is {word:?}, but must be one of `{}`",
            words.join("`, `")
        ))),
    }
}

/// An override with what is left of it, for a file.
struct SavedOverride<'a>(&'a Override);

impl Serialize for SavedOverride<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Override { kind, reason, owner, expires_in } = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("kind", kind)?;
        if let Some(reason) = reason {
            map.serialize_entry("reason", reason)?;
        }
        if let Some(owner) = owner {
            map.serialize_entry("owner", owner)?;
        }
        if let Some(left) = expires_in {
            map.serialize_entry("expires_in", &Human(*left))?;
        }
        map.end()
    }
}

#[derive(Default)]
struct OverrideTable {
    kind: Option<OverrideKind>,
    reason: Option<String>,
    owner: Option<String>,
    expires_in: Option<Duration>,
}

impl Table for OverrideTable {
    const SETTING: &'static str = "active_override";
    const KEYS: &'static [&'static str] = &["kind", "reason", "owner", "expires_in"];

    type Built = Override;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "kind" => {
                let kinds =
                    [OverrideKind::ForceOpen, OverrideKind::ForceClosed, OverrideKind::ObserveOnly];
                let kind = one_of("active_override.kind", from, kinds, OverrideKind::as_str)?;
                self.kind = Some(kind);
            }
            "reason" => self.reason = Some(from.next_value_seed(Text("active_override.reason"))?),
            "owner" => self.owner = Some(from.next_value_seed(Text("active_override.owner"))?),
            _ => {
                self.expires_in = Some(from.next_value_seed(Span("active_override.expires_in"))?);
            }
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Override, E> {
        let kind = required(self.kind, "active_override.kind")?;
        let Self { reason, owner, expires_in, .. } = self;
        Ok(Override { kind, reason, owner, expires_in })
    }
}

/// A cause with its evidence, for a file.
struct SavedCause<'a>(&'a Cause);

impl Serialize for SavedCause<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("code", &Word(self.0.label()))?;
        match self.0 {
            Cause::FailureRate { failures, calls, threshold } => {
                map.serialize_entry("failures", failures)?;
                map.serialize_entry("calls", calls)?;
                map.serialize_entry("threshold", threshold)?;
            }
            Cause::ConsecutiveFailures { failures, threshold } => {
                map.serialize_entry("failures", failures)?;
                map.serialize_entry("threshold", threshold)?;
            }
            Cause::SlowCallRate { slow, calls, unfinished, threshold, slower_than } => {
                map.serialize_entry("slow", slow)?;
                map.serialize_entry("calls", calls)?;
                map.serialize_entry("unfinished", unfinished)?;
                map.serialize_entry("threshold", threshold)?;
                map.serialize_entry("slower_than", &Human(*slower_than))?;
            }
            Cause::ProbesFailed { failures, timed_out, probes, required } => {
                map.serialize_entry("failures", failures)?;
                map.serialize_entry("timed_out", timed_out)?;
                map.serialize_entry("probes", probes)?;
                map.serialize_entry("required", required)?;
            }
            Cause::Quorum { open, keys, required } => {
                map.serialize_entry("open", open)?;
                map.serialize_entry("keys", keys)?;
                map.serialize_entry("required", required)?;
            }
            Cause::StartedOpen | Cause::Tripped => {}
            Cause::WaitOver { .. }
            | Cause::WaitEnded
            | Cause::HealthChecked { .. }
            | Cause::ProbesSucceeded { .. }
            | Cause::RampCompleted { .. }
            | Cause::Reset => {
                return Err(S::Error::custom("cause must be one that opens a circuit"));
            }
        }
        map.end()
    }
}

/// The evidence of every cause that opens a circuit.
#[derive(Default)]
struct CauseTable {
    code: Option<String>,
    /// Counts, by their setting.
    counts: Vec<(&'static str, u64)>,
    threshold: Option<f64>,
    slower_than: Option<Duration>,
}

impl CauseTable {
    fn count<E: de::Error>(&self, setting: &'static str) -> Result<u64, E> {
        let count = self.counts.iter().find(|(known, _)| *known == setting);
        required(count.map(|(_, count)| *count), setting)
    }

    fn small<E: de::Error>(&self, setting: &'static str) -> Result<u32, E> {
        // None was written larger.
        Ok(u32::try_from(self.count::<E>(setting)?).unwrap_or(u32::MAX))
    }
}

impl Table for CauseTable {
    const SETTING: &'static str = "cause";
    const KEYS: &'static [&'static str] = &[
        "code",
        "threshold",
        "slower_than",
        "failures",
        "calls",
        "slow",
        "unfinished",
        "timed_out",
        "probes",
        "required",
        "open",
        "keys",
    ];

    type Built = Cause;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "code" => self.code = Some(from.next_value_seed(Text("cause.code"))?),
            "threshold" => self.threshold = Some(from.next_value_seed(Number("cause.threshold"))?),
            "slower_than" => {
                self.slower_than = Some(from.next_value_seed(Span("cause.slower_than"))?);
            }
            _ => {
                let setting = match key {
                    "failures" => "cause.failures",
                    "calls" => "cause.calls",
                    "slow" => "cause.slow",
                    "unfinished" => "cause.unfinished",
                    "timed_out" => "cause.timed_out",
                    "probes" => "cause.probes",
                    "required" => "cause.required",
                    "open" => "cause.open",
                    _ => "cause.keys",
                };
                self.counts.push((setting, from.next_value_seed(Whole(setting, u64::MAX))?));
            }
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Cause, E> {
        let threshold = || required(self.threshold, "cause.threshold");
        Ok(match required(self.code.as_deref(), "cause.code")? {
            "failure_rate" => Cause::FailureRate {
                failures: self.count("cause.failures")?,
                calls: self.count("cause.calls")?,
                threshold: threshold()?,
            },
            "consecutive_failures" => Cause::ConsecutiveFailures {
                failures: self.small("cause.failures")?,
                // Casting a float to an integer saturates.
                threshold: threshold()? as u32,
            },
            "slow_call_rate" => Cause::SlowCallRate {
                slow: self.count("cause.slow")?,
                calls: self.count("cause.calls")?,
                unfinished: self.count("cause.unfinished")?,
                threshold: threshold()?,
                slower_than: required(self.slower_than, "cause.slower_than")?,
            },
            "probes_failed" => Cause::ProbesFailed {
                failures: self.small("cause.failures")?,
                timed_out: self.small("cause.timed_out")?,
                probes: self.small("cause.probes")?,
                required: self.small("cause.required")?,
            },
            "started_open" => Cause::StartedOpen,
            "quorum" => Cause::Quorum {
                open: self.count("cause.open")?,
                keys: self.count("cause.keys")?,
                required: self.count("cause.required")?,
            },
            "tripped" => Cause::Tripped,
            other => {
                return Err(E::custom(format_args!(
                    "cause.code is {other:?}, but must be that of a cause that opens a circuit"
                )));
            }
        })
    }
}

/// Counts by their names, all of which are optional: there may be more one day.
macro_rules! totals {
    ($($count:ident)*) => {
        impl Table for Totals {
            const SETTING: &'static str = "totals";
            const KEYS: &'static [&'static str] = &[$(stringify!($count)),*];

            type Built = Self;

            fn read<'de, A: MapAccess<'de>>(
                &mut self,
                key: &'static str,
                from: &mut A,
            ) -> Result<(), A::Error> {
                $(if key == stringify!($count) {
                    let setting = concat!("totals.", stringify!($count));
                    self.$count = from.next_value_seed(Whole(setting, u64::MAX))?;
                })*
                Ok(())
            }

            fn build<E: de::Error>(self) -> Result<Self, E> {
                // All of them are named above.
                let Self { $($count: _),* } = self;
                Ok(self)
            }
        }
    };
}

totals! {
    success failure slow ignored cancelled stale rejected would_reject opened
    fallback_answered fallback_failed fallback_cancelled
}
