//! How long a circuit stays open, and how that grows.

use std::time::Duration;

use crate::{config_error::ConfigError, time::nanos};

/// How long a circuit stays open before it probes.
///
/// The wait grows each time the probes fail and starts again at the first
/// step once the circuit closes. *Jitter* spreads it, so that many clients of
/// one dependency do not probe it at the same instant: a jitter of 0.2 keeps
/// each wait between 0.8 and 1.2 times its step. It is applied after the cap.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Backoff, Config};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// // About 500 ms, 1 s, 2 s, 4 s, 4 s …
/// let open_for = Backoff::exponential(Duration::from_millis(500), Duration::from_secs(4));
/// Config::builder("inventory").open_for(open_for).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "waitDurationInOpenState")]
#[doc(alias = "BreakDuration")]
#[doc(alias = "baseEjectionTime")]
pub struct Backoff {
    pub(crate) initial: Duration,
    pub(crate) max: Duration,
    pub(crate) factor: f64,
    pub(crate) jitter: f64,
    pub(crate) seed: Option<u64>,
}

impl Backoff {
    /// A wait that doubles from `initial` to at most `max`, with a jitter of
    /// 0.2.
    pub const fn exponential(initial: Duration, max: Duration) -> Self {
        Self { initial, max, factor: 2.0, jitter: 0.2, seed: None }
    }

    /// The same wait every time, without jitter. A server's hint, which is
    /// heeded up to the longest wait, can't lengthen it.
    pub const fn fixed(wait: Duration) -> Self {
        Self { initial: wait, max: wait, factor: 1.0, jitter: 0.0, seed: None }
    }

    /// Sets by what each wait is multiplied to give the next; at least 1.
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets by what share a wait may be shorter or longer; at least 0 and
    /// below 1.
    pub const fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Makes the jitter repeatable. Without a seed every circuit draws its
    /// own; with one, circuits made from the same configuration move in step,
    /// so keep it to tests and simulations.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    pub(crate) fn in_words(&self) -> String {
        let Self { initial, max, factor, jitter, .. } = self;
        let growth = match factor {
            1.0 if initial == max => String::new(),
            // So far only by a server's hint.
            1.0 => format!(" to {max:?}"),
            _ => format!(" growing by {factor} to {max:?}"),
        };
        format!("{initial:?}{growth}, jitter {jitter}")
    }

    pub(crate) fn seed_or(&self, random: impl FnOnce() -> u64) -> u64 {
        self.seed.unwrap_or_else(random)
    }

    /// The longest wait, before jitter.
    pub(crate) fn cap(&self) -> Duration {
        if self.factor > 1.0 { self.max } else { self.initial }
    }

    /// The longest wait there can be.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos((nanos(self.cap()) as f64 * (1.0 + self.jitter)) as u64)
    }

    /// The longest wait there can be where a server's hint is heeded too.
    pub(crate) fn longest_hinted(&self) -> Duration {
        self.wait_hinted(self.max, 1.0)
    }

    pub(crate) fn has_jitter(&self) -> bool {
        self.jitter > 0.0
    }

    pub(crate) fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// The wait at `step` (0 is the first), spread by `noise` out of `0..=1`.
    pub(crate) fn wait(&self, step: u32, noise: f64) -> Duration {
        let wait = self.step(step);
        if self.jitter == 0.0 {
            return wait;
        }
        let spread = 1.0 + self.jitter * (2.0 * noise - 1.0);
        // Casting a float to an integer saturates.
        Duration::from_nanos(((nanos(wait) as f64 * spread) as u64).max(1))
    }

    /// The wait a server asked for, up to the cap; spread upwards only, so that
    /// not all whom it told the same come back together.
    pub(crate) fn wait_hinted(&self, hinted: Duration, noise: f64) -> Duration {
        let wait = nanos(hinted.min(self.max));
        if self.jitter == 0.0 {
            return Duration::from_nanos(wait);
        }
        // Casting a float to an integer saturates.
        Duration::from_nanos((wait as f64 * (1.0 + self.jitter * noise)) as u64)
    }

    fn step(&self, step: u32) -> Duration {
        let grown = power(self.factor, step);
        let wait = nanos(self.initial) as f64 * grown;
        // A wait that has not grown, or no more, is exact.
        if grown == 1.0 {
            self.initial
        } else if wait >= nanos(self.max) as f64 {
            self.max
        } else {
            Duration::from_nanos(wait as u64)
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.initial.is_zero() {
            return Err(ConfigError::new("open_for", "0ns", "must be longer than zero"));
        }
        if self.max < self.initial {
            return Err(ConfigError::new(
                "open_for.max",
                format_args!("{:?}", self.max),
                format!("must be at least the first wait, {:?}", self.initial),
            ));
        }
        if !(self.factor.is_finite() && self.factor >= 1.0) {
            return Err(ConfigError::new(
                "open_for.factor",
                self.factor,
                "must be a number and at least 1",
            ));
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return Err(ConfigError::new(
                "open_for.jitter",
                self.jitter,
                "must be at least 0 and below 1",
            ));
        }
        Ok(())
    }
}

impl Default for Backoff {
    /// About 1, 2, 4, then 8 seconds, with a jitter of 0.2.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(8))
    }
}

/// A small seeded generator (SplitMix64): jitter wants spread, not secrecy.
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number out of `0..=1`.
    pub(crate) fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // 53 bits fill a float's mantissa.
        (mixed >> 11) as f64 / ((1u64 << 53) - 1) as f64
    }
}

/// By products alone: what `powi` makes of the last bit may differ from one
/// platform to the next, and a replay must not.
fn power(base: f64, exponent: u32) -> f64 {
    let (mut result, mut base, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left % 2 == 1 {
            result *= base;
        }
        base *= base;
        left /= 2;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_wait_grows_by_the_factor_up_to_the_cap() {
        let backoff = Backoff::exponential(SECOND, 16 * SECOND).jitter(0.0);
        let waits: Vec<_> = (0..7).map(|step| backoff.wait(step, 0.5).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(backoff.wait(u32::MAX, 0.5), 16 * SECOND);
        let backoff = backoff.factor(1.5);
        assert_eq!(backoff.wait(2, 0.5), Duration::from_millis(2_250));
    }

    #[test]
    fn jitter_keeps_within_its_share_and_uses_it() {
        let backoff = Backoff::exponential(SECOND, 8 * SECOND).jitter(0.2);
        let mut noise = Noise::new(7);
        for step in 0..5 {
            let base = (SECOND * 2u32.pow(step)).min(8 * SECOND);
            let waits: Vec<_> = (0..1_000).map(|_| backoff.wait(step, noise.draw())).collect();
            let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*shortest >= base.mul_f64(0.8) && *shortest < base.mul_f64(0.81));
            assert!(*longest <= base.mul_f64(1.2) && *longest > base.mul_f64(1.19));
        }
    }

    #[test]
    fn no_wait_overflows_or_vanishes() {
        let backoff = Backoff::exponential(Duration::MAX, Duration::MAX).jitter(0.999);
        assert_eq!(backoff.wait(u32::MAX, 1.0), Duration::from_nanos(u64::MAX));
        assert_eq!(Backoff::fixed(Duration::from_nanos(1)).jitter(0.9).wait(0, 0.0).as_nanos(), 1);
        assert_eq!(Backoff::fixed(Duration::MAX).wait(3, 0.5), Duration::MAX);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draws = |seed| {
            let mut noise = Noise::new(seed);
            [(); 8].map(|()| noise.draw().to_bits())
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
