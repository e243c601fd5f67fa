//! What a caller's connection is doing, and for how long it may.
//!
//! One timer a connection watches over all of it. It is set to the earliest
//! instant at which anything could be over and looks again then, so that
//! requests don't touch it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::now::now;

/// Shared by a connection's parts, which all run on one thread.
#[derive(Debug)]
pub(super) struct Activity {
    born: Instant,
    /// Requests whose response has not come to its end.
    in_flight: AtomicUsize,
    /// When the last one ended.
    idle_since: AtomicU64,
    /// When the caller stopped taking what is written; `NEVER` if it takes it.
    blocked_since: AtomicU64,
    header_timeout: Duration,
    /// The longest that the caller may take nothing.
    write_timeout: AtomicU64,
    /// The bytes that came are not to be trusted.
    malformed: AtomicBool,
}

const NEVER: u64 = u64::MAX;

/// What the timer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing, and nothing will be before then.
    Again(Instant),
    /// No request for too long.
    Idle,
    /// The caller takes nothing.
    Blocked,
}

impl Activity {
    pub(super) fn new(header_timeout: Duration) -> Arc<Activity> {
        Arc::new(Activity {
            born: now(),
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(NEVER),
            header_timeout,
            write_timeout: AtomicU64::new(nanos(header_timeout)),
            malformed: AtomicBool::new(false),
        })
    }

    /// A request begins; it ends when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Active {
        self.in_flight.fetch_add(1, Relaxed);
        Active(Arc::clone(self))
    }

    pub(super) fn set_write_timeout(&self, timeout: Duration) {
        self.write_timeout.store(nanos(timeout), Relaxed);
    }

    pub(super) fn write_timeout(&self) -> Duration {
        Duration::from_nanos(self.write_timeout.load(Relaxed))
    }

    /// Called when a write could not be made.
    pub(super) fn block(&self) {
        if self.blocked_since.load(Relaxed) == NEVER {
            self.blocked_since.store(self.elapsed(), Relaxed);
        }
    }

    /// Called when a write was made.
    pub(super) fn unblock(&self) {
        if self.blocked_since.load(Relaxed) != NEVER {
            self.blocked_since.store(NEVER, Relaxed);
            self.idle_since.store(self.elapsed(), Relaxed);
        }
    }

    pub(super) fn set_malformed(&self) {
        self.malformed.store(true, Relaxed);
    }

    pub(super) fn is_malformed(&self) -> bool {
        self.malformed.load(Relaxed)
    }

    /// Whether something has taken too long.
    pub(super) fn look(&self) -> Look {
        let elapsed = self.elapsed();
        let header_timeout = nanos(self.header_timeout);
        let blocked_since = self.blocked_since.load(Relaxed);
        let next = if blocked_since != NEVER {
            let over = blocked_since.saturating_add(self.write_timeout.load(Relaxed));
            if over <= elapsed {
                return Look::Blocked;
            }
            over
        } else if self.in_flight.load(Relaxed) == 0 {
            let over = self.idle_since.load(Relaxed).saturating_add(header_timeout);
            if over <= elapsed {
                return Look::Idle;
            }
            over
        } else {
            elapsed.saturating_add(header_timeout)
        };
        Look::Again(self.at(next))
    }

    /// Until when the caller may take nothing, if it takes nothing now. To be
    /// asked whenever the connection has been polled.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        let since = self.blocked_since.load(Relaxed);
        let until = || self.at(since.saturating_add(self.write_timeout.load(Relaxed)));
        (since != NEVER).then(until)
    }

    fn at(&self, nanos: u64) -> Instant {
        self.born + Duration::from_nanos(nanos)
    }

    fn elapsed(&self) -> u64 {
        nanos(now().saturating_duration_since(self.born))
    }
}

fn nanos(duration: Duration) -> u64 {
    // A century, at most: an instant is made of it again.
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER).min(3_000_000_000_000_000_000)
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Active(Arc<Activity>);

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(self.0.elapsed(), Relaxed);
        }
    }
}
