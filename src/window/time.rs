//! The calls of the last so long, in buckets.

use std::time::Duration;

use super::{Counts, Sample};
use crate::time::{Time, nanos};

/// A ring of buckets, aligned to the circuit's birth.
///
/// A bucket is numbered `floor(now * buckets / span)`, which is exact even
/// where the span does not divide by the buckets.
#[derive(Clone, Debug)]
pub(crate) struct TimeRing {
    buckets: Box<[Counts]>,
    span: u64,
    /// The number of the newest bucket.
    newest: u64,
    newest_slot: usize,
    /// When that one ends: until then there is nothing to divide.
    newest_until: Time,
    counts: Counts,
}

impl TimeRing {
    pub(crate) fn new(span: Duration, buckets: u32) -> Self {
        let mut ring = Self {
            buckets: vec![Counts::default(); buckets as usize].into_boxed_slice(),
            span: nanos(span),
            newest: 0,
            newest_slot: 0,
            newest_until: Time::ZERO,
            counts: Counts::default(),
        };
        ring.newest_until = ring.end(0);
        ring
    }

    /// The same in other buckets, as of `now`.
    ///
    /// Where each of the old buckets lies within one of the new ones that is
    /// exact. Else nobody knows where in its bucket a call was, and it is taken
    /// for one of the bucket's last instant: none leaves too early, and the
    /// newest are never lost.
    pub(crate) fn rebucketed(&self, span: Duration, buckets: u32, now: Time) -> Self {
        let mut old = self.clone();
        old.expire(now);
        let mut ring = Self::new(span, buckets);
        ring.expire(now);
        for age in (0..old.len().min(old.newest + 1)).rev() {
            let number = old.newest - age;
            let last = Time::from_nanos(old.end(number).as_nanos() - 1).min(now);
            let into = ring.number(last);
            if into + ring.len() > ring.newest {
                let (slot, counts) = (ring.slot(into), old.buckets[old.slot(number)]);
                ring.buckets[slot].merge(counts);
                ring.counts.merge(counts);
            }
        }
        ring
    }

    /// Takes in a call that ended when `expire` was last told.
    #[inline]
    pub(crate) fn record(&mut self, sample: Sample) {
        self.buckets[self.newest_slot].add(sample);
        self.counts.add(sample);
    }

    /// Takes in so many good calls, like `record`.
    pub(crate) fn record_good(&mut self, calls: u64) {
        self.buckets[self.newest_slot].calls += calls;
        self.counts.calls += calls;
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.counts.failures == 0 && self.counts.slow == 0
    }

    /// When the newest bucket ends.
    pub(crate) fn newest_until(&self) -> Time {
        self.newest_until
    }

    /// Forgets what has left the window by `now`.
    #[inline]
    pub(crate) fn expire(&mut self, now: Time) {
        if now >= self.newest_until {
            self.advance(now);
        }
    }

    fn advance(&mut self, now: Time) {
        let number = self.number(now);
        if number <= self.newest {
            return;
        }
        if number - self.newest >= self.len() {
            self.clear();
        } else {
            for skipped in self.newest + 1..=number {
                let slot = self.slot(skipped);
                let left = std::mem::take(&mut self.buckets[slot]);
                self.counts.remove(left);
            }
        }
        self.newest = number;
        self.newest_slot = self.slot(number);
        self.newest_until = self.end(number);
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(Counts::default());
        self.counts = Counts::default();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn counts_at(&self, now: Time) -> Counts {
        let number = self.number(now).max(self.newest);
        let gone = (number - self.newest).min(self.len());
        let mut counts = self.counts;
        for expired in self.newest + 1..=self.newest + gone {
            counts.remove(self.buckets[self.slot(expired)]);
        }
        counts
    }

    /// In nanoseconds.
    pub(crate) fn span(&self) -> u64 {
        self.span
    }

    fn len(&self) -> u64 {
        self.buckets.len() as u64
    }

    fn slot(&self, number: u64) -> usize {
        // Below the number of buckets, which came from a u32.
        (number % self.len()) as usize
    }

    /// The first instant after a bucket.
    fn end(&self, number: u64) -> Time {
        let end = (u128::from(number) + 1) * u128::from(self.span);
        let end = end.div_ceil(u128::from(self.len()));
        Time::from_nanos(u64::try_from(end).unwrap_or(u64::MAX))
    }

    fn number(&self, now: Time) -> u64 {
        let number = u128::from(now.as_nanos()) * u128::from(self.len()) / u128::from(self.span);
        u64::try_from(number).unwrap_or(u64::MAX - self.len())
    }
}

#[cfg(test)]
impl TimeRing {
    /// What decides its future: its buckets from the newest on, how many more have
    /// gone by since, and when the next begins.
    pub(crate) fn essence(&self, now: Time, into: &mut Vec<u64>) {
        let Self { buckets, span, newest, newest_slot: _, newest_until: _, counts } = self;
        let number = self.number(now);
        let gone = number.saturating_sub(*newest).min(self.len());
        into.extend([*span, self.end(number).nanos_since(now), gone]);
        let slots = (0..self.len()).filter_map(|age| newest.checked_sub(age));
        let held = slots.map(|number| &buckets[self.slot(number)]).chain([counts]);
        into.extend(held.flat_map(|held| [held.calls, held.failures, held.slow]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Sample = Sample { failed: true, slow: false };

    fn at(millis: u64) -> Time {
        Time::from_elapsed(Duration::from_millis(millis))
    }

    #[test]
    fn the_sums_are_those_of_the_buckets_in_reach() {
        for (span, buckets) in [(1_000, 10), (1_000, 3), (7, 7), (500, 1)] {
            let mut ring = TimeRing::new(Duration::from_millis(span), buckets);
            let mut calls = Vec::new();
            let mut now = 0;
            for i in 0..2_000u64 {
                now += i * i % 97 * if i % 53 == 0 { 100 } else { 1 };
                let expected = |calls: &[(u64, bool)]| {
                    let number = |t: u64| t * u64::from(buckets) / span;
                    let inside =
                        |&&(t, _): &&(u64, bool)| number(t) + u64::from(buckets) > number(now);
                    let inside: Vec<_> = calls.iter().filter(inside).collect();
                    (
                        inside.len() as u64,
                        inside.iter().filter(|(_, failed)| *failed).count() as u64,
                    )
                };
                let read = ring.counts_at(at(now));
                assert_eq!((read.calls, read.failures), expected(&calls), "reading at {now}");

                let failed = i % 3 == 0;
                ring.expire(at(now));
                ring.record(Sample { failed, slow: false });
                calls.push((now, failed));
                let sums = ring.counts();
                assert_eq!((sums.calls, sums.failures), expected(&calls), "recording at {now}");
            }
        }
    }

    #[test]
    fn new_buckets_are_exact_where_the_old_ones_lie_within_them() {
        let calls: Vec<u64> = (0..400u64).map(|i| i * i % 11_000).collect();
        let now = at(10_500);
        let fill = |span: u64, buckets| {
            let mut ring = TimeRing::new(Duration::from_millis(span), buckets);
            let mut sorted = calls.clone();
            sorted.sort_unstable();
            for call in sorted.into_iter().filter(|call| at(*call) <= now) {
                ring.expire(at(call));
                ring.record(Sample { failed: call % 3 == 0, slow: call % 5 == 0 });
            }
            ring.expire(now);
            ring
        };
        // In all of them a bucket's end is one of a whole second.
        let old = fill(10_000, 10);
        for (span, buckets) in [(10_000, 10), (4_000, 4), (4_000, 2), (10_000, 5), (6_000, 1)] {
            let new = old.rebucketed(Duration::from_millis(span), buckets, now);
            let fresh = fill(span, buckets);
            for later in [10_500, 11_000, 12_345, 14_999, 15_000, 17_000, 20_400, 20_500] {
                assert_eq!(new.counts_at(at(later)), fresh.counts_at(at(later)), "{span} {later}");
            }
        }
    }

    #[test]
    fn in_finer_buckets_no_call_is_lost_early_and_none_stays_a_bucket_too_long() {
        let mut old = TimeRing::new(Duration::from_secs(10), 2);
        for second in 0..10 {
            old.expire(at(second * 1_000));
            old.record(BAD);
        }
        // The older half may have ended as late as at 4,999 ms, the newer at 9,500.
        let new = old.rebucketed(Duration::from_secs(8), 8, at(9_500));
        assert_eq!(new.counts_at(at(9_500)).calls, 10);
        assert_eq!(new.counts_at(at(11_999)).calls, 10);
        assert_eq!(new.counts_at(at(12_000)).calls, 5);
        assert_eq!(new.counts_at(at(16_999)).calls, 5);
        assert_eq!(new.counts_at(at(17_000)).calls, 0);
        // The newest are there in however short a window.
        let new = old.rebucketed(Duration::from_millis(1), 1, at(9_500));
        assert_eq!(new.counts_at(at(9_500)).calls, 5);
    }

    #[test]
    fn time_at_its_end_does_not_overflow() {
        let mut ring = TimeRing::new(Duration::from_nanos(1), 1);
        ring.record(BAD);
        ring.expire(Time::from_nanos(u64::MAX));
        ring.record(BAD);
        assert_eq!(ring.counts().calls, 1);
        let mut ring = TimeRing::new(Duration::from_nanos(10), 10_000);
        ring.expire(Time::from_nanos(u64::MAX));
        ring.record(BAD);
        assert_eq!(ring.counts_at(Time::from_nanos(u64::MAX)).calls, 1);
        for span in [Duration::MAX, Duration::from_nanos(1)] {
            let last = Time::from_nanos(u64::MAX - 1);
            assert!(ring.rebucketed(span, 1, last).counts_at(last).calls <= 1);
        }
    }
}
