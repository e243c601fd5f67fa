//! What the machine decides by: thresholds, waits and probes, as values.

use std::time::Duration;

use crate::{
    backoff::Backoff, config_error::ConfigError, probes::Probes, ratio::Ratio, start::Start,
    throttle::Throttle, window::Kind, window::Window,
};

/// How a call that is dropped before it has ended is judged.
///
/// ```
/// use tower_breaker::{Cancellation, Config};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// Config::builder("checkout").cancellation(Cancellation::Neutral).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancellation {
    /// By its age. Younger than the slow threshold: the client went away,
    /// which is neutral. Older: it counts as slow, and as a probe it has
    /// failed, because a caller's timeout outside the breaker is how a hang
    /// shows. Without a slow rule every drop is neutral. The default.
    #[default]
    ByAge,
    /// Always neutral: for servers, whose clients leave when they please.
    Neutral,
}

/// Calls slower than `threshold` may be at most so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlowRule {
    pub(crate) threshold: Duration,
    pub(crate) rate: Ratio,
}

/// Everything the machine decides by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) window: Window,
    pub(crate) minimum_calls: u64,
    pub(crate) failure_rate: Option<Ratio>,
    pub(crate) slow_calls: Option<SlowRule>,
    pub(crate) sustained_for: Duration,
    pub(crate) consecutive_failures: Option<u32>,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) start: Start,
    pub(crate) warm_up: Duration,
    pub(crate) open_for: Backoff,
    pub(crate) probes: Probes,
    pub(crate) ramp: Option<Duration>,
    pub(crate) cancellation: Cancellation,
}

impl Rules {
    /// Refuses what could never open or never close.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        validate_window(self.window)?;
        if let Kind::Count { calls } = self.window.0 {
            let has_rate = self.failure_rate.is_some() || self.slow_calls.is_some();
            if has_rate && self.minimum_calls > u64::from(calls) {
                return Err(ConfigError::new(
                    "minimum_calls",
                    self.minimum_calls,
                    format!(
                        "must be at most the {calls} calls of the window, or no rate is ever known"
                    ),
                ));
            }
        }
        if self.slow_calls.is_some_and(|rule| rule.threshold.is_zero()) {
            return Err(ConfigError::new("slow_calls", "0ns", "must be longer than zero"));
        }
        let only_slow = self.failure_rate.is_none()
            && self.consecutive_failures.is_none()
            && self.throttle.is_none();
        let never = |rule: &SlowRule| only_slow && rule.threshold > LONGEST_EPISODE;
        if let Some(rule) = self.slow_calls.filter(never) {
            return Err(ConfigError::new(
                "slow_calls",
                format_args!("{:?}", rule.threshold),
                "must be at most 100 years, or the only rule there is never trips",
            ));
        }
        if self.sustained_for > LONGEST_EPISODE {
            return Err(ConfigError::new(
                "sustained_for",
                format_args!("{:?}", self.sustained_for),
                "must be at most 100 years, or no rate ever trips",
            ));
        }
        if self.consecutive_failures == Some(0) {
            return Err(ConfigError::new("consecutive_failures", 0, "must be at least 1"));
        }
        if self.failure_rate.is_none()
            && self.slow_calls.is_none()
            && self.consecutive_failures.is_none()
            && self.throttle.is_none()
        {
            return Err(ConfigError::new(
                "failure_rate",
                "off",
                "some rule must be on, or the circuit never opens: \
                 failure_rate, consecutive_failures, slow_calls or throttle",
            ));
        }
        if self.warm_up > LONGEST_EPISODE {
            return Err(ConfigError::new(
                "warm_up",
                format_args!("{:?}", self.warm_up),
                "must be at most 100 years, or no rule ever trips",
            ));
        }
        if let Start::ObserveOnly(duration) = self.start {
            if duration.is_zero() {
                return Err(ConfigError::new("start", "0ns", "must observe for longer than zero"));
            }
        }
        if let Some(throttle) = &self.throttle {
            throttle.validate()?;
        }
        if let Some(ramp) = self.ramp.filter(|ramp| ramp.is_zero() || *ramp > LONGEST_EPISODE) {
            return Err(ConfigError::new(
                "ramp",
                format_args!("{ramp:?}"),
                "must be longer than zero, and at most 100 years, or the circuit never closes",
            ));
        }
        self.open_for.validate()?;
        self.probes.validate()
    }
}

const LONGEST_EPISODE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn validate_window(window: Window) -> Result<(), ConfigError> {
    const MOST_CALLS: u32 = 10_000_000;
    const MOST_BUCKETS: u32 = 10_000;
    match window.0 {
        Kind::Count { calls } if !(1..=MOST_CALLS).contains(&calls) => Err(ConfigError::new(
            "window",
            format_args!("{calls} calls"),
            format!("must be at least 1 and at most {MOST_CALLS} calls"),
        )),
        Kind::Time { buckets, .. } if !(1..=MOST_BUCKETS).contains(&buckets) => {
            Err(ConfigError::new(
                "window.buckets",
                buckets,
                format!("must be at least 1 and at most {MOST_BUCKETS}"),
            ))
        }
        Kind::Time { span, buckets } if span < Duration::from_nanos(u64::from(buckets)) => {
            Err(ConfigError::new(
                "window",
                format_args!("{span:?}"),
                format!(
                    "must be longer than zero, and at least a nanosecond for each of its {buckets} buckets"
                ),
            ))
        }
        _ => Ok(()),
    }
}
