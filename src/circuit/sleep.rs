//! Waiting on a clock.

#[cfg(feature = "test-util")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use super::clock::{Clock, Kind};
#[cfg(feature = "test-util")]
use super::manual_clock::{ManualClock, Sleeper};

impl Clock {
    /// A future that is ready once `deadline` is past. A deadline, because a
    /// duration would be taken up later than it was computed.
    pub(super) fn sleep_until(&self, deadline: Instant) -> Sleep {
        match &self.0 {
            Kind::System | Kind::Tokio => {
                Sleep::Tokio(Box::pin(tokio::time::sleep_until(deadline.into())))
            }
            // Its instants are not tokio's.
            #[cfg(feature = "fast-clock")]
            Kind::Fast(clock) => {
                let left = deadline.saturating_duration_since(clock.now());
                Sleep::Tokio(Box::pin(tokio::time::sleep(left)))
            }
            #[cfg(feature = "test-util")]
            Kind::Manual(clock) => Sleep::Manual(ManualSleep::new(clock, deadline)),
        }
    }
}

/// A wait on a [`Clock`]. Boxed, because it is made only where a caller has
/// to wait anyway, and a service must be movable while it does.
pub(crate) enum Sleep {
    Tokio(Pin<Box<tokio::time::Sleep>>),
    #[cfg(feature = "test-util")]
    Manual(ManualSleep),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Self::Tokio(sleep) => sleep.as_mut().poll(cx),
            #[cfg(feature = "test-util")]
            Self::Manual(sleep) => Pin::new(sleep).poll(cx),
        }
    }
}

/// A wait on a [`ManualClock`].
#[cfg(feature = "test-util")]
pub(crate) struct ManualSleep {
    clock: ManualClock,
    sleep: u64,
    until: std::time::Duration,
}

#[cfg(feature = "test-util")]
impl ManualSleep {
    fn new(clock: &ManualClock, deadline: Instant) -> Self {
        static SLEEPS: AtomicU64 = AtomicU64::new(0);
        let sleep = SLEEPS.fetch_add(1, Ordering::Relaxed);
        Self { clock: clock.clone(), sleep, until: clock.elapsed_at(deadline) }
    }
}

#[cfg(feature = "test-util")]
impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Wakers are cloned before the lock and dropped after it.
        let waker = cx.waker().clone();
        let _before = self.clock.forget_sleeper(self.sleep);
        let mut shared = self.clock.lock();
        if shared.elapsed >= self.until {
            return Poll::Ready(());
        }
        shared.sleepers.push(Sleeper { sleep: self.sleep, until: self.until, waker });
        Poll::Pending
    }
}

#[cfg(feature = "test-util")]
impl Drop for ManualSleep {
    fn drop(&mut self) {
        drop(self.clock.forget_sleeper(self.sleep));
    }
}
