//! Where a circuit gets the time: the only place that reads it.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

/// Where a circuit gets the time; monotonic always.
///
/// The default follows `tokio::time::pause` (feature `tokio`) and needs no
/// runtime. Tests without tokio's clock take a `ManualClock` (feature
/// `test-util`).
///
/// ```
/// use tower_breaker::{Clock, Config};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// Config::builder("inventory").clock(Clock::system()).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Clock(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    System,
    #[cfg(feature = "tokio")]
    Tokio,
    #[cfg(feature = "fast-clock")]
    Fast(&'static super::fast_clock::FastClock),
    #[cfg(feature = "test-util")]
    Manual(super::manual_clock::ManualClock),
}

impl Clock {
    /// The operating system's monotonic clock. Under `tokio::time::pause` it
    /// runs on.
    pub const fn system() -> Self {
        Self(Kind::System)
    }

    /// Tokio's clock: the operating system's, unless the test that runs on
    /// this thread has paused it.
    #[cfg(feature = "tokio")]
    pub const fn tokio() -> Self {
        Self(Kind::Tokio)
    }

    /// The processor's time-stamp counter, where it has one that runs evenly on
    /// all cores, else the operating system's clock (feature `fast-clock`).
    ///
    /// Read in a third of the time. Durations are as good as the counter was
    /// measured against the operating system's clock, once, when this is first
    /// called (that takes up to a fifth of a second): to about a thousandth. It does not
    /// follow `tokio::time::pause`, nor corrections of the system's clock, so the
    /// instants that observers are told drift away from `Instant::now` by as much.
    /// Safe where processes stay on one machine; a virtual machine that is moved
    /// to another while it runs may find another frequency there.
    ///
    /// ```
    /// use tower_breaker::{Clock, Config};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// Config::builder("inventory").clock(Clock::fast()).build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "fast-clock")]
    pub fn fast() -> Self {
        Self(Kind::Fast(super::fast_clock::FastClock::get()))
    }

    /// Whether it is read in nanoseconds right away.
    #[cfg(feature = "fast-clock")]
    #[inline]
    pub(super) fn as_fast(&self) -> Option<&'static super::fast_clock::FastClock> {
        match self.0 {
            Kind::Fast(clock) => Some(clock),
            _ => None,
        }
    }

    #[cfg(feature = "test-util")]
    pub(super) const fn manual(clock: super::manual_clock::ManualClock) -> Self {
        Self(Kind::Manual(clock))
    }

    /// What it shows.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Instant {
        match &self.0 {
            Kind::System => Instant::now(),
            #[cfg(feature = "tokio")]
            Kind::Tokio => tokio::time::Instant::now().into_std(),
            #[cfg(feature = "fast-clock")]
            Kind::Fast(clock) => clock.now(),
            #[cfg(feature = "test-util")]
            Kind::Manual(clock) => clock.now(),
        }
    }

    /// What the calendar says: for what outlives the process. It may be set
    /// back.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn date(&self) -> SystemTime {
        match &self.0 {
            Kind::System => SystemTime::now(),
            #[cfg(feature = "tokio")]
            Kind::Tokio => SystemTime::now(),
            #[cfg(feature = "fast-clock")]
            Kind::Fast(_) => SystemTime::now(),
            #[cfg(feature = "test-util")]
            Kind::Manual(clock) => clock.date(),
        }
    }
}

impl Default for Clock {
    /// Tokio's clock with feature `tokio`, else the operating system's.
    fn default() -> Self {
        #[cfg(feature = "tokio")]
        return Self::tokio();
        #[cfg(not(feature = "tokio"))]
        return Self::system();
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::System => "Clock::system",
            #[cfg(feature = "tokio")]
            Kind::Tokio => "Clock::tokio",
            #[cfg(feature = "fast-clock")]
            Kind::Fast(_) => "Clock::fast",
            #[cfg(feature = "test-util")]
            Kind::Manual(_) => "ManualClock",
        })
    }
}

/// `instant` and `duration` together, or close to the last instant there is.
pub(super) fn add(instant: Instant, duration: Duration) -> Instant {
    instant.checked_add(duration).unwrap_or_else(|| {
        let mut latest = instant;
        let mut step = Duration::from_secs(1 << 62);
        while step >= Duration::from_secs(1) {
            match latest.checked_add(step) {
                Some(later) => latest = later,
                None => step /= 2,
            }
        }
        latest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_no_instant_can_hold_is_within_seconds_of_the_last_one() {
        let (now, second) = (Clock::system().now(), Duration::from_secs(1));
        assert_eq!(add(now, second), now + second);
        let last = add(now, Duration::MAX);
        assert!(last - now > Duration::from_secs(1 << 32));
        assert_eq!(last.checked_add(second), None);
        assert_eq!(add(last, second), last);
    }
}
