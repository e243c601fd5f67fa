//! A configuration, as a person writes it in a file.

use std::{fmt, mem, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{
    object::{Object, Table, required},
    value::{Flag, Number, Span, Text, Whole},
};
use crate::{
    Backoff, Cancellation, Config, ConfigBuilder, Probes, Start, Throttle, Window, rules::SlowRule,
    window::Kind,
};

/// The keys are named after the methods of [`ConfigBuilder`] and optional, but
/// for `name`. What is wrong is told as by [`ConfigBuilder::build`].
///
/// ```
/// use tower_breaker::Config;
///
/// let config: Config = toml::from_str(
///     r#"
///     name = "inventory"
///     window = { time = "1m 30s", buckets = 15 }    # or { count = 20 }
///     minimum_calls = 10
///     failure_rate = 0.5                            # or no_failure_rate = true
///     sustained_for = "1s"
///     consecutive_failures = 5
///     slow_calls = { threshold = "2s", share = 0.8 }
///     throttle = { k = 2.0, window = "30s", minimum_calls = 10 }
///     start = "closed"                              # "open", { observe_only = "1h" }
///     warm_up = "10s"
///     open_for = { initial = "1s", max = "8s", factor = 2.0, jitter = 0.2 }    # or { fixed = "5s" }
///     probes = { permits = 3, successes = 3, lease = "10s" }    # and share = 0.05
///     ramp = "30s"
///     cancellation = "by_age"                       # or "neutral"
///     measure_latency = true
///     "#,
/// )?;
/// assert_eq!(config.name(), "inventory");
///
/// let error = toml::from_str::<Config>("failure_rat = 0.5").unwrap_err();
/// assert_eq!(error.message(), "unknown key `failure_rat`, did you mean `failure_rate`?");
/// # Ok::<(), toml::de::Error>(())
/// ```
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Object::<Settings>::new().deserialize(from)
    }
}

/// What [`Config`]'s `Deserialize` reads. Observers, the clock, shadows and a
/// recorder are left out: those are no settings.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let rules = self.rules();
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("name", self.name())?;
        map.serialize_entry("window", &rules.window)?;
        map.serialize_entry("minimum_calls", &rules.minimum_calls)?;
        match rules.failure_rate {
            Some(share) => map.serialize_entry("failure_rate", &share.as_fraction())?,
            None => map.serialize_entry("no_failure_rate", &true)?,
        }
        map.serialize_entry("sustained_for", &Human(rules.sustained_for))?;
        if let Some(failures) = rules.consecutive_failures {
            map.serialize_entry("consecutive_failures", &failures)?;
        }
        if let Some(rule) = rules.slow_calls {
            map.serialize_entry("slow_calls", &rule)?;
        }
        if let Some(throttle) = rules.throttle {
            map.serialize_entry("throttle", &throttle)?;
        }
        map.serialize_entry("start", &rules.start)?;
        map.serialize_entry("warm_up", &Human(rules.warm_up))?;
        map.serialize_entry("open_for", &rules.open_for)?;
        map.serialize_entry("probes", &rules.probes)?;
        if let Some(ramp) = rules.ramp {
            map.serialize_entry("ramp", &Human(ramp))?;
        }
        map.serialize_entry("cancellation", &rules.cancellation)?;
        map.serialize_entry("measure_latency", &self.is_measured())?;
        map.end()
    }
}

/// A duration as a person writes it.
pub(super) struct Human(pub(super) Duration);

impl Serialize for Human {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(self.0))
    }
}

struct Settings {
    builder: ConfigBuilder,
    name: Option<String>,
    has_failure_rate: bool,
    no_failure_rate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let builder = Config::builder("");
        Self { builder, name: None, has_failure_rate: false, no_failure_rate: false }
    }
}

impl Settings {
    fn set(&mut self, set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) {
        self.builder = set(mem::replace(&mut self.builder, Config::builder("")));
    }
}

impl Table for Settings {
    const SETTING: &'static str = "";
    const KEYS: &'static [&'static str] = &[
        "name",
        "window",
        "minimum_calls",
        "failure_rate",
        "no_failure_rate",
        "sustained_for",
        "consecutive_failures",
        "slow_calls",
        "throttle",
        "start",
        "warm_up",
        "open_for",
        "probes",
        "ramp",
        "cancellation",
        "measure_latency",
    ];

    type Built = Config;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "name" => self.name = Some(from.next_value_seed(Text(key))?),
            "window" => {
                let window = from.next_value_seed(Object::<WindowTable>::new())?;
                self.set(|builder| builder.window(window));
            }
            "minimum_calls" => {
                let calls = from.next_value_seed(Whole(key, u64::MAX))?;
                self.set(|builder| builder.minimum_calls(calls));
            }
            "failure_rate" => {
                let share = from.next_value_seed(Number(key))?;
                self.has_failure_rate = true;
                self.set(|builder| builder.failure_rate(share));
            }
            "no_failure_rate" => self.no_failure_rate = from.next_value_seed(Flag(key))?,
            "sustained_for" => {
                let duration = from.next_value_seed(Span(key))?;
                self.set(|builder| builder.sustained_for(duration));
            }
            "consecutive_failures" => {
                let failures = Whole::small(key, from)?;
                self.set(|builder| builder.consecutive_failures(failures));
            }
            "slow_calls" => {
                let (threshold, share) = from.next_value_seed(Object::<SlowTable>::new())?;
                self.set(|builder| builder.slow_calls(threshold, share));
            }
            "throttle" => {
                let throttle = from.next_value_seed(Object::<ThrottleTable>::new())?;
                self.set(|builder| builder.throttle(throttle));
            }
            "start" => {
                let start = from.next_value_seed(StartSeed)?;
                self.set(|builder| builder.start(start));
            }
            "warm_up" => {
                let duration = from.next_value_seed(Span(key))?;
                self.set(|builder| builder.warm_up(duration));
            }
            "open_for" => {
                let backoff = from.next_value_seed(Object::<BackoffTable>::new())?;
                self.set(|builder| builder.open_for(backoff));
            }
            "probes" => {
                let probes = from.next_value_seed(Object::<ProbesTable>::new())?;
                self.set(|builder| builder.probes(probes));
            }
            "ramp" => {
                let over = from.next_value_seed(Span(key))?;
                self.set(|builder| builder.ramp(over));
            }
            "cancellation" => {
                let word = from.next_value_seed(Text(key))?;
                let cancellation = match &*word {
                    "by_age" => Cancellation::ByAge,
                    "neutral" => Cancellation::Neutral,
                    _ => {
                        return Err(de::Error::custom(format_args!(
                            "{key} is {word:?}, but must be \"by_age\" or \"neutral\""
                        )));
                    }
                };
                self.set(|builder| builder.cancellation(cancellation));
            }
            "measure_latency" => {
                if from.next_value_seed(Flag(key))? {
                    self.set(ConfigBuilder::measure_latency);
                }
            }
            _ => unreachable!("the key {key} is not among the known ones"),
        }
        Ok(())
    }

    fn build<E: de::Error>(mut self) -> Result<Config, E> {
        if self.no_failure_rate {
            if self.has_failure_rate {
                return Err(E::custom(
                    "no_failure_rate is true, but must not be beside a failure_rate",
                ));
            }
            self.set(ConfigBuilder::no_failure_rate);
        }
        let name = required(self.name, "name")?;
        self.builder.named(name).build().map_err(E::custom)
    }
}

#[derive(Default)]
struct WindowTable {
    count: Option<u32>,
    time: Option<Duration>,
    buckets: Option<u32>,
}

impl Table for WindowTable {
    const SETTING: &'static str = "window";
    const KEYS: &'static [&'static str] = &["count", "time", "buckets"];

    type Built = Window;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "count" => self.count = Some(Whole::small("window.count", from)?),
            "time" => self.time = Some(from.next_value_seed(Span("window.time"))?),
            _ => self.buckets = Some(Whole::small("window.buckets", from)?),
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Window, E> {
        match (self.count, self.time, self.buckets) {
            (Some(calls), None, None) => Ok(Window::count(calls)),
            (None, Some(span), None) => Ok(Window::time(span)),
            (None, Some(span), Some(buckets)) => Ok(Window::time(span).buckets(buckets)),
            (_, None, Some(_)) => {
                Err(E::custom("window.buckets is set, but only a window.time has buckets"))
            }
            (Some(_), Some(_), _) | (None, None, None) => {
                Err(E::custom("window must have one of the keys `count` and `time`"))
            }
        }
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match self.0 {
            Kind::Count { calls } => map.serialize_entry("count", &calls)?,
            Kind::Time { span, buckets } => {
                map.serialize_entry("time", &Human(span))?;
                map.serialize_entry("buckets", &buckets)?;
            }
        }
        map.end()
    }
}

#[derive(Default)]
struct SlowTable {
    threshold: Option<Duration>,
    share: Option<f64>,
}

impl Table for SlowTable {
    const SETTING: &'static str = "slow_calls";
    const KEYS: &'static [&'static str] = &["threshold", "share"];

    type Built = (Duration, f64);

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "threshold" => {
                self.threshold = Some(from.next_value_seed(Span("slow_calls.threshold"))?);
            }
            _ => self.share = Some(from.next_value_seed(Number("slow_calls.share"))?),
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<(Duration, f64), E> {
        let threshold = required(self.threshold, "slow_calls.threshold")?;
        Ok((threshold, required(self.share, "slow_calls.share")?))
    }
}

impl Serialize for SlowRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("threshold", &Human(self.threshold))?;
        map.serialize_entry("share", &self.rate.as_fraction())?;
        map.end()
    }
}

#[derive(Default)]
struct ThrottleTable {
    k: Option<f64>,
    window: Option<Duration>,
    minimum_calls: Option<u64>,
}

impl Table for ThrottleTable {
    const SETTING: &'static str = "throttle";
    const KEYS: &'static [&'static str] = &["k", "window", "minimum_calls"];

    type Built = Throttle;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "k" => self.k = Some(from.next_value_seed(Number("throttle.k"))?),
            "window" => self.window = Some(from.next_value_seed(Span("throttle.window"))?),
            _ => {
                let whole = Whole("throttle.minimum_calls", u64::MAX);
                self.minimum_calls = Some(from.next_value_seed(whole)?);
            }
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Throttle, E> {
        let throttle = Throttle::new(required(self.k, "throttle.k")?);
        Ok(Throttle {
            window: self.window.unwrap_or(throttle.window),
            minimum_calls: self.minimum_calls.unwrap_or(throttle.minimum_calls),
            ..throttle
        })
    }
}

impl Serialize for Throttle {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("k", &self.k)?;
        map.serialize_entry("window", &Human(self.window))?;
        map.serialize_entry("minimum_calls", &self.minimum_calls)?;
        map.end()
    }
}

#[derive(Default)]
struct BackoffTable {
    fixed: Option<Duration>,
    initial: Option<Duration>,
    max: Option<Duration>,
    factor: Option<f64>,
    jitter: Option<f64>,
    seed: Option<u64>,
}

impl Table for BackoffTable {
    const SETTING: &'static str = "open_for";
    const KEYS: &'static [&'static str] = &["fixed", "initial", "max", "factor", "jitter", "seed"];

    type Built = Backoff;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "fixed" => self.fixed = Some(from.next_value_seed(Span("open_for.fixed"))?),
            "initial" => self.initial = Some(from.next_value_seed(Span("open_for.initial"))?),
            "max" => self.max = Some(from.next_value_seed(Span("open_for.max"))?),
            "factor" => self.factor = Some(from.next_value_seed(Number("open_for.factor"))?),
            "jitter" => self.jitter = Some(from.next_value_seed(Number("open_for.jitter"))?),
            _ => self.seed = Some(from.next_value_seed(Whole("open_for.seed", u64::MAX))?),
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Backoff, E> {
        let grows = self.initial.is_some() || self.max.is_some() || self.factor.is_some();
        let backoff = match self.fixed {
            Some(_) if grows => {
                return Err(E::custom(
                    "open_for.fixed is set, but must not be beside `initial`, `max` or `factor`",
                ));
            }
            Some(wait) => Backoff::fixed(wait),
            None => Backoff::default(),
        };
        Ok(Backoff {
            initial: self.initial.unwrap_or(backoff.initial),
            max: self.max.unwrap_or(backoff.max),
            factor: self.factor.unwrap_or(backoff.factor),
            jitter: self.jitter.unwrap_or(backoff.jitter),
            seed: self.seed,
        })
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if self.factor == 1.0 && self.initial == self.max {
            map.serialize_entry("fixed", &Human(self.initial))?;
        } else {
            map.serialize_entry("initial", &Human(self.initial))?;
            map.serialize_entry("max", &Human(self.max))?;
            map.serialize_entry("factor", &self.factor)?;
        }
        map.serialize_entry("jitter", &self.jitter)?;
        if let Some(seed) = self.seed {
            map.serialize_entry("seed", &seed)?;
        }
        map.end()
    }
}

#[derive(Default)]
struct ProbesTable {
    permits: Option<u32>,
    successes: Option<u32>,
    lease: Option<Duration>,
    share: Option<f64>,
}

impl Table for ProbesTable {
    const SETTING: &'static str = "probes";
    const KEYS: &'static [&'static str] = &["permits", "successes", "lease", "share"];

    type Built = Probes;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        key: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "permits" => self.permits = Some(Whole::small("probes.permits", from)?),
            "successes" => self.successes = Some(Whole::small("probes.successes", from)?),
            "lease" => self.lease = Some(from.next_value_seed(Span("probes.lease"))?),
            _ => self.share = Some(from.next_value_seed(Number("probes.share"))?),
        }
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Probes, E> {
        let probes = self.permits.map_or_else(Probes::default, Probes::new);
        let Self { successes, lease, share, .. } = self;
        Ok(Probes { successes, lease, share, ..probes })
    }
}

impl Serialize for Probes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("permits", &self.permits)?;
        if let Some(successes) = self.successes {
            map.serialize_entry("successes", &successes)?;
        }
        if let Some(lease) = self.lease {
            map.serialize_entry("lease", &Human(lease))?;
        }
        if let Some(share) = self.share {
            map.serialize_entry("share", &share)?;
        }
        map.end()
    }
}

/// A word, or a table.
struct StartSeed;

impl<'de> DeserializeSeed<'de> for StartSeed {
    type Value = Start;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Start, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StartSeed {
    type Value = Start;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("start to be \"closed\", \"open\", or to have the key `observe_only`")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Start, E> {
        match word {
            "closed" => Ok(Start::Closed),
            "open" => Ok(Start::Open),
            _ => Err(E::custom(format_args!(
                "start is {word:?}, but must be \"closed\", \"open\", or have the key `observe_only`"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, from: A) -> Result<Start, A::Error> {
        Object::<StartTable>::new().visit_map(from)
    }
}

#[derive(Default)]
struct StartTable {
    observe_only: Option<Duration>,
}

impl Table for StartTable {
    const SETTING: &'static str = "start";
    const KEYS: &'static [&'static str] = &["observe_only"];

    type Built = Start;

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        _: &'static str,
        from: &mut A,
    ) -> Result<(), A::Error> {
        self.observe_only = Some(from.next_value_seed(Span("start.observe_only"))?);
        Ok(())
    }

    fn build<E: de::Error>(self) -> Result<Start, E> {
        required(self.observe_only, "start.observe_only").map(Start::ObserveOnly)
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Closed => to.serialize_str("closed"),
            Self::Open => to.serialize_str("open"),
            Self::ObserveOnly(duration) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("observe_only", &Human(*duration))?;
                map.end()
            }
        }
    }
}

impl Serialize for Cancellation {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::ByAge => "by_age",
            Self::Neutral => "neutral",
        })
    }
}
