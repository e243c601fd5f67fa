//! Adaptive throttling: refuse a share of the calls instead of all of them.

use std::time::Duration;

use crate::config_error::ConfigError;

/// Adaptive throttling: while closed, the circuit refuses as large a share of
/// the calls as it takes for the dependency to be asked at most `k` times as
/// often as it succeeds.
///
/// Of `requests` calls in the window, those refused here among them, `accepts`
/// succeeded. The share that passes is `(k × accepts + 1) / (requests + 1)`, or
/// all of them if that is more than one. With a `k` of 2 nothing is refused as
/// long as half of the calls succeed; a dead dependency is still asked now and
/// then, so there is no waiting and no probing.
///
/// **Choose it** where a dependency sheds load it can't bear: each client then
/// settles on the share that gets through. If it does so with 429, or gRPC's
/// `RESOURCE_EXHAUSTED`, those have to be failures, which by default they are not:
/// [`HttpClassifier`](crate::HttpClassifier) shows how. **Don't** where failing calls are
/// dear (a hang costs its caller the timeout, and throttling goes on sending
/// some), where a partial failure is not a matter of load (at 60 % errors of
/// some shard, calls to the healthy ones are refused as well), where the dependency
/// must have quiet to get up, or where traffic must be back at once: it comes
/// back by doubling, and 95 % of it is there after six to eight windows. For those there are the rules that
/// open the circuit; the two may be on together.
///
/// The rule is that of Google's *Site Reliability Engineering*, chapter 21,
/// with a minimum of calls, so that one failure at one call a second refuses
/// nothing, and a shorter window than the two minutes there, which heal slowly.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Config, Throttle};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// Config::builder("search")
///     .no_failure_rate()
///     .throttle(Throttle::new(2.0).window(Duration::from_secs(60)))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "client-side throttling")]
pub struct Throttle {
    pub(crate) k: f64,
    pub(crate) window: Duration,
    pub(crate) minimum_calls: u64,
}

impl Throttle {
    /// Lets the dependency be asked `k` times as often as it succeeds, over 30
    /// seconds, once 10 calls are known. From 1, which lets through no more than
    /// what succeeds, to 1,000.
    pub const fn new(k: f64) -> Self {
        Self { k, window: Duration::from_secs(30), minimum_calls: 10 }
    }

    /// Sets over how long the calls are counted, in ten buckets.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets how many calls the window must hold before any is refused.
    pub const fn minimum_calls(mut self, calls: u64) -> Self {
        self.minimum_calls = calls;
        self
    }

    pub(crate) fn in_words(&self) -> String {
        let Self { k, window, minimum_calls } = self;
        format!("{k} times what succeeds over {window:?}, from {minimum_calls} calls on")
    }

    pub(crate) const BUCKETS: u32 = 10;

    pub(crate) const fn span(&self) -> Duration {
        self.window
    }

    /// The share of the calls that passes, in parts of a million. At least one:
    /// where nothing passes nothing can succeed, and with more than a million
    /// calls in the window it would stay so for ever.
    pub(crate) fn share(&self, requests: u64, accepts: u64) -> u32 {
        if requests < self.minimum_calls {
            return Self::ALL;
        }
        let one = u128::from(Self::ALL);
        // Between one and a thousand, in millionths.
        let k = (self.k * f64::from(Self::ALL)).round() as u128;
        let share = (k * u128::from(accepts) + one) / (u128::from(requests) + 1);
        // At most a million.
        share.clamp(1, one) as u32
    }

    /// All calls, in parts of a million.
    pub(crate) const ALL: u32 = 1_000_000;

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(1.0..=1_000.0).contains(&self.k) {
            return Err(ConfigError::new(
                "throttle",
                self.k,
                "must be at least 1 and at most 1000 times what succeeds",
            ));
        }
        if self.window < Duration::from_millis(1) {
            return Err(ConfigError::new(
                "throttle.window",
                format_args!("{:?}", self.window),
                "must be at least 1ms",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_book_and_all_below_the_minimum() {
        let throttle = Throttle::new(2.0);
        for requests in 0..200u64 {
            for accepts in 0..=requests {
                let share = (2.0 * accepts as f64 + 1.0) / (requests as f64 + 1.0);
                let share = if requests < 10 { 1.0 } else { share.min(1.0) };
                let parts = f64::from(throttle.share(requests, accepts));
                assert!((parts - share * 1e6).abs() < 1.0, "{accepts} of {requests}");
            }
        }
        assert_eq!(Throttle::new(1_000.0).share(u64::MAX, u64::MAX), Throttle::ALL);
        // Just below its decimals in binary.
        assert_eq!(Throttle::new(1.005).share(2_999_999, 2_000_000), 670_000);
    }

    #[test]
    fn a_dead_dependency_is_asked_now_and_then_at_any_traffic() {
        for requests in [1_000_000, 1_200_000, u64::MAX] {
            assert_eq!(Throttle::new(2.0).share(requests, 0), 1);
        }
    }
}
