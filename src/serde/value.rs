//! Single values, each of which knows the name of its setting, so that errors
//! can tell it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::de::{self, DeserializeSeed, Deserializer, Visitor};

/// A duration as a person writes it.
pub(super) struct Span(pub(super) &'static str);

/// A time by the calendar, as RFC 3339 has it.
pub(super) struct Moment(pub(super) &'static str);

/// A whole number up to a limit.
pub(super) struct Whole(pub(super) &'static str, pub(super) u64);

/// A number, whole or not.
pub(super) struct Number(pub(super) &'static str);

/// Yes or no.
pub(super) struct Flag(pub(super) &'static str);

/// Text.
pub(super) struct Text(pub(super) &'static str);

impl Whole {
    /// A number of 32 bits.
    pub(super) fn small<'de, A: de::MapAccess<'de>>(
        setting: &'static str,
        from: &mut A,
    ) -> Result<u32, A::Error> {
        let number = from.next_value_seed(Self(setting, u32::MAX.into()))?;
        // At most the limit.
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn refuse<E: de::Error>(&self, value: impl fmt::Display) -> E {
        let Self(setting, most) = self;
        E::custom(format_args!(
            "{setting} is {value}, but must be a whole number, at least 0 and at most {most}"
        ))
    }
}

impl<'de> DeserializeSeed<'de> for Span {
    type Value = Duration;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Span {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a duration such as \"10s\", \"250ms\" or \"1h 30m\"", self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text).map_err(|error| {
            E::custom(format_args!(
                "{} is {text:?}, but must be a duration such as \"10s\", \"250ms\" or \"1h 30m\" \
                 ({error})",
                self.0
            ))
        })
    }
}

impl Moment {
    /// The nearest that can be written: of a calendar set before 1970 or past
    /// 9999.
    pub(super) fn of(at: SystemTime) -> impl fmt::Display {
        let first = SystemTime::UNIX_EPOCH;
        let last = first + Duration::from_secs(253_402_300_799);
        humantime::format_rfc3339_nanos(at.clamp(first, last))
    }
}

impl<'de> DeserializeSeed<'de> for Moment {
    type Value = SystemTime;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<SystemTime, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Moment {
    type Value = SystemTime;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a date such as \"2030-01-31T12:00:00Z\"", self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SystemTime, E> {
        humantime::parse_rfc3339(text).map_err(|error| {
            E::custom(format_args!(
                "{} is {text:?}, but must be a date such as \"2030-01-31T12:00:00Z\" ({error})",
                self.0
            ))
        })
    }
}

impl<'de> DeserializeSeed<'de> for Whole {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u64, D::Error> {
        from.deserialize_u64(self)
    }
}

impl Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a whole number", self.0)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        if value <= self.1 { Ok(value) } else { Err(self.refuse(value)) }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(self.refuse(value)),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<u64, E> {
        Err(self.refuse(value))
    }
}

impl<'de> DeserializeSeed<'de> for Number {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<f64, D::Error> {
        from.deserialize_f64(self)
    }
}

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a number", self.0)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    // Whole numbers of this size are out of every range.
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }
}

impl<'de> DeserializeSeed<'de> for Flag {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_bool(self)
    }
}

impl Visitor<'_> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be true or false", self.0)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be text", self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}
