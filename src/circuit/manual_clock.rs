//! A clock that moves when a test says so.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    clock::{Clock, add},
    sync::{Mutex, MutexGuard},
};
use crate::time::nanos;

/// A clock that moves when a test says so. Clones are the same clock.
///
/// Advancing it also wakes whoever waits on it, such as a service with
/// `WhenOpen::Wait`.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Backoff, Circuit, Config, ManualClock, State};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let clock = ManualClock::new();
/// let config = Config::builder("inventory")
///     .open_for(Backoff::fixed(Duration::from_secs(5)))
///     .clock(clock.clone())
///     .build()?;
/// let circuit = Circuit::new(config);
/// circuit.trip();
/// assert!(circuit.try_acquire().is_err());
///
/// clock.advance(Duration::from_secs(5));
/// let probe = circuit.try_acquire()?;
/// assert_eq!(circuit.state(), State::HalfOpen);
/// # drop(probe);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    start: Instant,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) elapsed: Duration,
    #[cfg(feature = "tokio")]
    pub(super) sleepers: Vec<Sleeper>,
}

#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(super) struct Sleeper {
    pub(super) sleep: u64,
    pub(super) until: Duration,
    pub(super) waker: std::task::Waker,
}

impl ManualClock {
    /// A clock that stands still.
    #[expect(clippy::disallowed_methods, reason = "it has to start somewhere")]
    pub fn new() -> Self {
        let shared = Shared {
            elapsed: Duration::ZERO,
            #[cfg(feature = "tokio")]
            sleepers: Vec::new(),
        };
        Self { start: Instant::now(), shared: Arc::new(Mutex::new(shared)) }
    }

    /// What it shows. Stops at the end of what an `Instant` can hold.
    pub fn now(&self) -> Instant {
        let elapsed = self.lock().elapsed;
        add(self.start, elapsed)
    }

    /// The calendar goes with it, and was at the beginning of 1970 when it was
    /// made.
    pub(super) fn date(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos(self.lock().elapsed))
    }

    /// Moves it on.
    pub fn advance(&self, duration: Duration) {
        let mut shared = self.lock();
        shared.elapsed = shared.elapsed.saturating_add(duration);
        #[cfg(feature = "tokio")]
        {
            let elapsed = shared.elapsed;
            let sleepers = std::mem::take(&mut shared.sleepers);
            let (due, still) = sleepers.into_iter().partition(|s| s.until <= elapsed);
            shared.sleepers = still;
            drop(shared);
            let due: Vec<Sleeper> = due;
            due.into_iter().for_each(|sleeper| sleeper.waker.wake());
        }
    }

    /// What will have passed at `instant`.
    #[cfg(feature = "tokio")]
    pub(super) fn elapsed_at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.start)
    }

    #[cfg(feature = "tokio")]
    pub(super) fn forget_sleeper(&self, sleep: u64) -> Option<Sleeper> {
        let mut shared = self.lock();
        let position = shared.sleepers.iter().position(|sleeper| sleeper.sleep == sleep)?;
        Some(shared.sleepers.swap_remove(position))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl From<ManualClock> for Clock {
    fn from(clock: ManualClock) -> Self {
        Self::manual(clock)
    }
}

impl From<&ManualClock> for Clock {
    fn from(clock: &ManualClock) -> Self {
        clock.clone().into()
    }
}
