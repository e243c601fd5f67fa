//! Configurations: as text after a zero (JSON) or a one (TOML), and after anything
//! else drawn from the bytes for the builder, as extreme as can be.
//!
//! Nothing panics; what is accepted reads the same when it is written; and a
//! circuit of it opens and closes again, where that is not a matter of thousands
//! of calls.

#![no_main]

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tower_breaker::{
    Backoff, Cancellation, Circuit, Config, ConfigBuilder, ManualClock, Outcome, Permit, Probes,
    Start, State, Throttle, Window,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match (kind, std::str::from_utf8(bytes)) {
        (0, Ok(text)) => {
            if let Ok(config) = serde_json::from_str::<Config>(text) {
                read(config);
            }
        }
        (1, Ok(text)) => {
            if let Ok(config) = toml::from_str::<Config>(text) {
                read(config);
            }
        }
        (0 | 1, Err(_)) => {}
        _ => {
            if let Ok(choice) = Choice::arbitrary(&mut Unstructured::new(bytes)) {
                built(&choice);
            }
        }
    }
});

fn read(config: Config) {
    let text = serde_json::to_string(&config).expect("it can be written");
    let again: Config = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(serde_json::to_string(&again).expect("it can be written"), text);
    let circuit = Circuit::new(config);
    circuit.trip();
    drop(circuit.try_acquire());
    assert_eq!(
        circuit.snapshot().totals.opened,
        1 - u64::from(text.contains("\"start\":\"open\""))
    );
}

/// What the builder is told.
#[derive(Debug)]
struct Choice {
    count: Option<u32>,
    span: Duration,
    buckets: u32,
    minimum: u64,
    rate: Option<f64>,
    row: Option<u32>,
    slow: Option<(Duration, f64)>,
    sustained: Duration,
    throttle: Option<(f64, Duration, u64)>,
    start: Start,
    warm_up: Duration,
    wait: (Duration, Duration, f64, f64),
    permits: u32,
    successes: Option<u32>,
    lease: Option<Duration>,
    ramp: Option<Duration>,
    neutral: bool,
}

/// A number of the size that is asked for, or one that is not.
fn number(from: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match from.int_in_range(0..=9u8)? {
        0 => 0,
        1 => u64::MAX,
        2 => from.arbitrary()?,
        3 => from.int_in_range(0..=20_000_000)?,
        _ => from.int_in_range(1..=20)?,
    })
}

fn duration(from: &mut Unstructured<'_>) -> Result<Duration> {
    Ok(match from.int_in_range(0..=9u8)? {
        0 => Duration::ZERO,
        1 => Duration::MAX,
        2 => Duration::from_nanos(from.arbitrary()?),
        3 => Duration::from_secs(from.arbitrary()?),
        4 => Duration::from_nanos(from.int_in_range(1..=100)?),
        _ => Duration::from_millis(from.int_in_range(1..=5_000)?),
    })
}

fn fraction(from: &mut Unstructured<'_>) -> Result<f64> {
    Ok(match from.int_in_range(0..=5u8)? {
        0 => from.arbitrary()?,
        1 => 1.0,
        _ => f64::from(from.int_in_range(1..=1_000u32)?) / 1_000.0,
    })
}

fn small(from: &mut Unstructured<'_>) -> Result<u32> {
    Ok(number(from)? as u32)
}

fn maybe<T>(
    from: &mut Unstructured<'_>,
    draw: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    Ok(if from.arbitrary()? { Some(draw(from)?) } else { None })
}

impl<'a> Arbitrary<'a> for Choice {
    fn arbitrary(from: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            count: maybe(from, small)?,
            span: duration(from)?,
            buckets: small(from)?,
            minimum: number(from)?,
            rate: maybe(from, fraction)?,
            row: maybe(from, small)?,
            slow: maybe(from, |from| Ok((duration(from)?, fraction(from)?)))?,
            sustained: if from.arbitrary()? { Duration::ZERO } else { duration(from)? },
            throttle: maybe(from, |from| {
                Ok((fraction(from)? * 2.0, duration(from)?, number(from)?))
            })?,
            start: match from.int_in_range(0..=3u8)? {
                0 => Start::Open,
                1 => Start::ObserveOnly(duration(from)?),
                _ => Start::Closed,
            },
            warm_up: if from.arbitrary()? { Duration::ZERO } else { duration(from)? },
            wait: (duration(from)?, duration(from)?, 1.0 + fraction(from)?, fraction(from)?),
            permits: small(from)?,
            successes: maybe(from, small)?,
            lease: maybe(from, duration)?,
            ramp: maybe(from, duration)?,
            neutral: from.arbitrary()?,
        })
    }
}

impl Choice {
    fn builder(&self) -> ConfigBuilder {
        let mut config = Config::builder("chosen")
            .window(match self.count {
                Some(calls) => Window::count(calls),
                None => Window::time(self.span).buckets(self.buckets),
            })
            .minimum_calls(self.minimum)
            .sustained_for(self.sustained)
            .start(self.start)
            .warm_up(self.warm_up);
        config = match self.rate {
            Some(rate) => config.failure_rate(rate),
            None => config.no_failure_rate(),
        };
        if let Some(row) = self.row {
            config = config.consecutive_failures(row);
        }
        if let Some((threshold, share)) = self.slow {
            config = config.slow_calls(threshold, share);
        }
        if let Some((k, window, minimum)) = self.throttle {
            config = config.throttle(Throttle::new(k).window(window).minimum_calls(minimum));
        }
        if let Some(ramp) = self.ramp {
            config = config.ramp(ramp);
        }
        if self.neutral {
            config = config.cancellation(Cancellation::Neutral);
        }
        let (first, longest, factor, jitter) = self.wait;
        let mut probes = Probes::new(self.permits);
        if let Some(successes) = self.successes {
            probes = probes.successes(successes);
        }
        if let Some(lease) = self.lease {
            probes = probes.lease(lease);
        }
        let wait = Backoff::exponential(first, longest).factor(factor).jitter(jitter).seed(1);
        config.open_for(wait).probes(probes)
    }

    /// How many calls it takes at once, and how often, if that is not too often.
    fn bursts(&self) -> Option<(u64, u64, Duration)> {
        const MOST: u64 = 2_000;
        let by_rate = self.rate.is_some() || self.slow.is_some();
        let full = self.count.map_or(self.minimum, |calls| self.minimum.max(calls.into()));
        let calls = match self.row {
            Some(row) if by_rate => full.min(row.into()),
            Some(row) => row.into(),
            None => full,
        };
        let calls = calls.max(1);
        let step = match self.count {
            Some(_) => self.sustained.max(Duration::from_nanos(1)),
            // Often enough that the window is never empty, nor half empty.
            None => (self.span / self.buckets.max(2)).max(Duration::from_nanos(1)),
        };
        let times = u64::try_from(self.sustained.as_nanos() / step.as_nanos()).ok()? + 3;
        let calls_in_all = calls.checked_mul(times)?;
        // A circuit's time ends after 584 years.
        let lasts = step.checked_mul(u32::try_from(times).ok()?)?;
        if lasts > YEAR * 100 {
            return None;
        }
        let only_throttles = !by_rate && self.row.is_none();
        (calls_in_all <= MOST && !only_throttles).then_some((calls, times, step))
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn built(choice: &Choice) {
    let clock = ManualClock::new();
    let Ok(config) = choice.builder().clock(&clock).build() else { return };
    let circuit = Circuit::new(config);
    circuit.clear_override();
    let long = [choice.warm_up, choice.slow.map_or(Duration::ZERO, |(threshold, _)| threshold)];
    if long.into_iter().max() > Some(YEAR) || choice.wait.1 > YEAR {
        return;
    }
    clock.advance(choice.warm_up);
    if choice.start != Start::Open {
        let Some((calls, times, step)) = choice.bursts() else { return };
        let takes = choice.slow.map_or(Duration::ZERO, |(threshold, _)| threshold)
            + Duration::from_nanos(1);
        // Each burst, or each span, would be a stretch of trouble of its own.
        let is_cut = takes > step || choice.buckets == 1;
        if is_cut && choice.count.is_none() && !choice.sustained.is_zero() {
            return;
        }
        'trouble: for _ in 0..times {
            // Those that throttling refuses have been refused for a reason.
            let burst: Vec<Permit> =
                (0..calls).filter_map(|_| circuit.try_acquire().ok()).collect();
            clock.advance(takes);
            for permit in burst {
                permit.record(Outcome::Failure);
                if circuit.state() == State::Open {
                    break 'trouble;
                }
            }
            clock.advance(step.saturating_sub(takes));
        }
        if choice.throttle.is_none() {
            assert_eq!(circuit.state(), State::Open, "it does not open: {choice:?}");
        }
    }
    circuit.trip();
    let wait = circuit.snapshot().retry_after.expect("an opening has an end");
    clock.advance(wait);
    if choice.permits > 2_000 {
        return;
    }
    for _ in 0..choice.successes.unwrap_or(choice.permits) {
        let probe = circuit.try_acquire();
        probe.unwrap_or_else(|open| panic!("{open}: {choice:?}")).record(Outcome::Success);
    }
    clock.advance(choice.ramp.unwrap_or_default());
    assert_eq!(circuit.state(), State::Closed, "it does not close: {choice:?}");
}
