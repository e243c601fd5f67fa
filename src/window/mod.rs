//! Which calls a rate is taken over: the last so many, or the last so long.
//!
//! Both windows slide. Neither knows thresholds: they hold calls and add them
//! up. Their rings are [`count`] and [`time`].

pub(crate) mod count;
pub(crate) mod time;

use std::time::Duration;

use crate::{time::Time, window::count::CountRing, window::time::TimeRing};

/// Which calls a rate is taken over.
///
/// Both kinds *slide*: a call leaves one at a time, not all at once when a
/// period ends. A count window judges a dependency alike at any traffic; a
/// time window forgets old calls even when no new ones come.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Config, Window};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// Config::builder("a").window(Window::count(100)).build()?;
/// Config::builder("b").window(Window::time(Duration::from_secs(30)).buckets(15)).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count { calls: u32 },
    Time { span: Duration, buckets: u32 },
}

impl Window {
    /// The last `calls` calls; at most ten million. Costs two bits a call.
    #[doc(alias = "slidingWindowSize")]
    pub const fn count(calls: u32) -> Self {
        Self(Kind::Count { calls })
    }

    /// The calls of the last `span`, kept in 10 buckets unless
    /// [`buckets`](Self::buckets) says otherwise.
    #[doc(alias = "SamplingDuration")]
    pub const fn time(span: Duration) -> Self {
        Self(Kind::Time { span, buckets: 10 })
    }

    /// Sets in how many buckets a time window is kept: calls leave a bucket
    /// at a time. At most ten thousand; a count window has none.
    ///
    /// Two or more, or it tumbles: one bucket is empty whenever the next span
    /// begins, trouble ends there, and no rate opens that must be
    /// [sustained](crate::ConfigBuilder::sustained_for) for the span or longer.
    pub const fn buckets(self, buckets: u32) -> Self {
        match self.0 {
            Kind::Time { span, .. } => Self(Kind::Time { span, buckets }),
            Kind::Count { .. } => self,
        }
    }
}

impl Window {
    pub(crate) fn in_words(&self) -> String {
        match self.0 {
            Kind::Count { calls } => format!("the last {calls} calls"),
            Kind::Time { span, buckets } => format!("the last {span:?} in {buckets} buckets"),
        }
    }
}

/// One judged call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

impl Sample {
    pub(crate) const GOOD: Self = Self { failed: false, slow: false };
}

/// The sums of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
}

impl Counts {
    fn add(&mut self, sample: Sample) {
        self.calls += 1;
        self.failures += u64::from(sample.failed);
        self.slow += u64::from(sample.slow);
    }

    fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
    }

    fn remove(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
    }
}

/// The calls themselves.
#[derive(Clone, Debug)]
pub(crate) enum Ring {
    Count(CountRing),
    Time(TimeRing),
}

impl Ring {
    /// An empty ring. The window must have passed validation.
    pub(crate) fn new(window: Window) -> Self {
        match window.0 {
            Kind::Count { calls } => Self::Count(CountRing::new(calls)),
            Kind::Time { span, buckets } => Self::Time(TimeRing::new(span, buckets)),
        }
    }

    /// Takes on another window, as of `now`, with those of its calls that are in
    /// it. Between the two kinds none are: a count knows no times, and buckets
    /// know no order.
    pub(crate) fn change(&mut self, window: Window, now: Time) {
        *self = match (&*self, window.0) {
            (Self::Count(ring), Kind::Count { calls }) => Self::Count(ring.resized(calls)),
            (Self::Time(ring), Kind::Time { span, buckets }) => {
                Self::Time(ring.rebucketed(span, buckets, now))
            }
            (Self::Count(_), Kind::Time { .. }) | (Self::Time(_), Kind::Count { .. }) => {
                Self::new(window)
            }
        };
    }

    /// Whether it is the same kind, so that its odometer shows the same.
    pub(crate) fn is_like(&self, window: Window) -> bool {
        matches!(
            (self, window.0),
            (Self::Count(_), Kind::Count { .. }) | (Self::Time(_), Kind::Time { .. })
        )
    }

    /// Forgets what has left the window by `now`.
    pub(crate) fn expire(&mut self, now: Time) {
        match self {
            Self::Count(_) => {}
            Self::Time(ring) => ring.expire(now),
        }
    }

    /// Takes in a call that ended when `expire` was last told.
    pub(crate) fn record(&mut self, sample: Sample) {
        match self {
            Self::Count(ring) => ring.record(sample),
            Self::Time(ring) => ring.record(sample),
        }
    }

    /// Takes in a call that leaves the sums as they are, because the ring is
    /// full and clean.
    pub(crate) fn record_good_again(&mut self) {
        if let Self::Count(ring) = self {
            ring.record_good_again();
        }
    }

    /// Takes in so many good calls that ended before `only_sums_until`.
    pub(crate) fn record_good(&mut self, calls: u64) {
        if let Self::Time(ring) = self {
            ring.record_good(calls);
        }
    }

    /// The sums as of the last `expire` or `record`.
    pub(crate) fn counts(&self) -> Counts {
        match self {
            Self::Count(ring) => ring.counts(),
            Self::Time(ring) => ring.counts(),
        }
    }

    /// The sums as of the last `expire` or `record`, had so many more slow calls
    /// ended since.
    pub(crate) fn counts_after_slow(&self, more: u64) -> Counts {
        match self {
            Self::Count(ring) => ring.counts_after_slow(more),
            Self::Time(ring) => {
                let counts = ring.counts();
                Counts { calls: counts.calls + more, slow: counts.slow + more, ..counts }
            }
        }
    }

    /// What moves calls out of the window: time, or other calls.
    pub(crate) fn odometer(&self, now: Time) -> u64 {
        match self {
            Self::Count(ring) => ring.recorded(),
            Self::Time(_) => now.as_nanos(),
        }
    }

    /// By how much of the odometer a call is out.
    pub(crate) fn span(&self) -> u64 {
        match self {
            Self::Count(ring) => ring.capacity().into(),
            Self::Time(ring) => ring.span(),
        }
    }

    /// The sums as they are at `now`, without changing anything.
    pub(crate) fn counts_at(&self, now: Time) -> Counts {
        match self {
            Self::Count(ring) => ring.counts(),
            Self::Time(ring) => ring.counts_at(now),
        }
    }

    /// Until when one more good call would change nothing but a sum: where a
    /// window of time holds no other, for as long as its bucket lasts.
    pub(crate) fn only_sums_until(&self) -> Option<Time> {
        match self {
            Self::Count(_) => None,
            Self::Time(ring) => ring.is_clean().then(|| ring.newest_until()),
        }
    }

    /// Whether one more clean call would leave the ring as it is.
    pub(crate) fn is_full_and_clean(&self) -> bool {
        match self {
            Self::Count(ring) => ring.is_full_and_clean(),
            Self::Time(_) => false,
        }
    }
}

#[cfg(test)]
impl Ring {
    /// What decides its future.
    pub(crate) fn essence(&self, now: Time, into: &mut Vec<u64>) {
        match self {
            Self::Count(ring) => ring.essence(into),
            Self::Time(ring) => ring.essence(now, into),
        }
    }
}
