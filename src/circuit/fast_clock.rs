//! The processor's time-stamp counter as a clock.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::clock;

/// One for all: it is calibrated once.
pub(super) struct FastClock {
    counter: quanta::Clock,
    /// What the counter showed.
    first: u64,
    /// When that was.
    at: Instant,
}

impl FastClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(super) fn get() -> &'static Self {
        static CLOCK: OnceLock<FastClock> = OnceLock::new();
        CLOCK.get_or_init(|| {
            let counter = quanta::Clock::new();
            Self { first: counter.raw(), at: Instant::now(), counter }
        })
    }

    /// Nanoseconds since it was first asked for.
    #[inline]
    pub(super) fn elapsed(&self) -> u64 {
        self.counter.delta_as_nanos(self.first, self.counter.raw())
    }

    pub(super) fn now(&self) -> Instant {
        clock::add(self.at, Duration::from_nanos(self.elapsed()))
    }

    /// An instant of its own in nanoseconds since it was first asked for.
    pub(super) fn nanos(&self, instant: Instant) -> u64 {
        crate::time::nanos(instant.saturating_duration_since(self.at))
    }
}
