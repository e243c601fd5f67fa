//! Points in a circuit's own time: nanoseconds since it was made.
//!
//! Everything saturates. The last representable instant, 584 years in, stands
//! for "never": no reading of the clock reaches it.

use std::time::Duration;

/// Nanoseconds since the circuit was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(u64);

impl Time {
    pub(crate) const ZERO: Self = Self(0);

    /// The last instant.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The time on the clock: at most the last instant but two.
    #[inline]
    pub(crate) fn from_elapsed(elapsed: Duration) -> Self {
        Self(nanos(elapsed).min(u64::MAX - 2))
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) const fn elapsed(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The instant `duration` later, or the last one there is.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The same, in nanoseconds.
    #[inline]
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A duration in nanoseconds, or the most there can be.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    const MOST: u64 = u64::MAX / SECOND;
    if duration.as_secs() >= MOST {
        // Within a second of the most there can be.
        return u64::MAX;
    }
    duration.as_secs() * SECOND + u64::from(duration.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_overflows() {
        let late = Time::from_nanos(u64::MAX - 1);
        assert_eq!(late.after(Duration::MAX), Time::from_nanos(u64::MAX));
        assert_eq!(Time::ZERO.since(late), Duration::ZERO);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
