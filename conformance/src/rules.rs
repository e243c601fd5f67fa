//! Rules in words that every breaker has its own for.

use std::{collections::BTreeSet, fmt, time::Duration};

use humantime::format_duration;
use serde::{Deserialize, Deserializer, de::Error};

use crate::feature::Feature;

/// What a breaker is to be made by. What is not said is off, or unreachable.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The calls that a rate is of. Without it: 20 calls.
    #[serde(default)]
    pub window: Window,
    /// Below it there is no rate. Without it: the whole window of calls, or one
    /// call in a stretch of time.
    pub minimum_calls: Option<u64>,
    /// Opens at this share of failures.
    pub failure_rate: Option<f64>,
    /// Opens after so many in a row.
    pub consecutive_failures: Option<u32>,
    /// Opens at this share of slow calls.
    pub slow_calls: Option<Slow>,
    /// How long it stays open. Without it: 5 s.
    #[serde(default)]
    pub open_for: Wait,
    /// So many probes pass, and all have to succeed. Without it: one.
    #[serde(default = "one")]
    pub probes: u32,
    /// A probe has failed after this time.
    #[serde(default, deserialize_with = "some_duration")]
    pub lease: Option<Duration>,
}

/// The calls that a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many.
    Calls(u32),
    /// Those of the last so long; in so many buckets, if that matters.
    Time(Duration, Option<u32>),
}

/// Which calls are slow, and how many are too many.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// Slower than this.
    #[serde(deserialize_with = "duration")]
    pub over: Duration,
    /// This share of the calls.
    pub rate: f64,
}

/// How long a breaker stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So long, each time.
    Fixed(Duration),
    /// So long at first, and twice as long after each failed probe, up to the
    /// second.
    Doubling(Duration, Duration),
}

impl Rules {
    /// What has to be claimed to be made by these.
    pub fn needs(&self) -> BTreeSet<Feature> {
        let asked = [
            (
                self.failure_rate.is_some() && matches!(self.window, Window::Calls(_)),
                Feature::FailureRate,
            ),
            (self.judges_a_rate() && self.minimum_is_apart(), Feature::Minimum),
            (matches!(self.window, Window::Time(..)), Feature::TimeWindow),
            (matches!(self.window, Window::Time(_, Some(_))), Feature::Buckets),
            (self.consecutive_failures.is_some(), Feature::ConsecutiveFailures),
            (self.slow_calls.is_some(), Feature::SlowCalls),
            (matches!(self.open_for, Wait::Doubling(..)), Feature::GrowingWait),
            (self.probes > 1, Feature::Successes),
            (self.lease.is_some(), Feature::Lease),
        ];
        asked.into_iter().filter(|(asked, _)| *asked).map(|(_, feature)| feature).collect()
    }

    /// The minimum of calls, said or not.
    pub fn minimum(&self) -> u64 {
        self.minimum_calls.unwrap_or(match self.window {
            Window::Calls(calls) => calls.into(),
            Window::Time(..) => 1,
        })
    }

    fn judges_a_rate(&self) -> bool {
        self.failure_rate.is_some() || self.slow_calls.is_some()
    }

    fn minimum_is_apart(&self) -> bool {
        matches!(self.window, Window::Calls(calls) if self.minimum() != calls.into())
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::Calls(20)
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self::Fixed(Duration::from_secs(5))
    }
}

/// `"4 calls"`, `"10s"`, `"10s in 5 buckets"`.
impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = |text: &str| {
            text.parse().map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
        };
        match *text.split(' ').collect::<Vec<_>>() {
            [calls, "calls" | "call"] => Ok(Self::Calls(number(calls)?)),
            [span] => Ok(Self::Time(parse(span).map_err(D::Error::custom)?, None)),
            [span, "in", buckets, "buckets"] => {
                let span = parse(span).map_err(D::Error::custom)?;
                Ok(Self::Time(span, Some(number(buckets)?)))
            }
            _ => Err(D::Error::custom(format!(
                "`{text}` is no window, but \"4 calls\" is, \"10s\", and \"10s in 5 buckets\""
            ))),
        }
    }
}

/// `"5s"`, `"1s doubling to 16s"`.
impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wait = match text.split_once(" doubling to ") {
            Some((first, longest)) => {
                parse(first).and_then(|first| Ok(Self::Doubling(first, parse(longest)?)))
            }
            None => parse(&text).map(Self::Fixed),
        };
        wait.map_err(D::Error::custom)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Calls(calls) => write!(f, "{calls} calls"),
            Self::Time(span, None) => write!(f, "{}", format_duration(span)),
            Self::Time(span, Some(buckets)) => {
                write!(f, "{} in {buckets} buckets", format_duration(span))
            }
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fixed(Duration::MAX) => f.write_str("for ever"),
            Self::Fixed(wait) => write!(f, "{}", format_duration(wait)),
            Self::Doubling(first, longest) => {
                write!(f, "{} doubling to {}", format_duration(first), format_duration(longest))
            }
        }
    }
}

/// A duration as people write it; `for ever` is the longest there is.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    match text {
        "for ever" => Ok(Duration::MAX),
        "0s" => Ok(Duration::ZERO),
        _ => humantime::parse_duration(text).map_err(|error| format!("`{text}`: {error}")),
    }
}

fn one() -> u32 {
    1
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}
