//! The last so many calls, in two bits each.

use super::{Counts, Sample};

/// A ring of the last `capacity` calls.
#[derive(Clone, Debug)]
pub(crate) struct CountRing {
    failed: Bits,
    slow: Bits,
    capacity: u32,
    /// Where the next call goes; once full, also where the oldest is.
    next: u32,
    counts: Counts,
    /// All calls there ever were.
    recorded: u64,
}

impl CountRing {
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            failed: Bits::new(capacity),
            slow: Bits::new(capacity),
            capacity,
            next: 0,
            counts: Counts::default(),
            recorded: 0,
        }
    }

    /// The same with room for so many calls: where they are fewer, the newest
    /// stay.
    pub(crate) fn resized(&self, capacity: u32) -> Self {
        let mut ring = Self::new(capacity);
        // At most the old capacity.
        let calls = self.counts.calls as u32;
        for age in (1..=calls.min(capacity)).rev() {
            let index = match self.next.checked_sub(age) {
                Some(index) => index,
                None => self.capacity - (age - self.next),
            };
            ring.record(Sample { failed: self.failed.at(index), slow: self.slow.at(index) });
        }
        ring.recorded = self.recorded;
        ring
    }

    pub(crate) fn record(&mut self, sample: Sample) {
        let failed = self.failed.replace(self.next, sample.failed);
        let slow = self.slow.replace(self.next, sample.slow);
        if self.is_full() {
            self.counts.remove(Counts {
                calls: 1,
                failures: u64::from(failed),
                slow: u64::from(slow),
            });
        }
        self.counts.add(sample);
        self.recorded += 1;
        self.next = if self.next + 1 == self.capacity { 0 } else { self.next + 1 };
    }

    /// One good call for another.
    pub(crate) fn record_good_again(&mut self) {
        self.recorded += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn recorded(&self) -> u64 {
        self.recorded
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The sums as they would be after so many more slow calls that did not
    /// fail.
    pub(crate) fn counts_after_slow(&self, more: u64) -> Counts {
        let more = more.min(self.capacity.into());
        let left = (self.counts.calls + more).saturating_sub(self.capacity.into());
        let mut counts = self.counts;
        // Both are at most the capacity.
        counts.remove(Counts {
            calls: left,
            failures: self.failed.ones_from(self.oldest(), left as u32, self.capacity),
            slow: self.slow.ones_from(self.oldest(), left as u32, self.capacity),
        });
        counts.calls += more;
        counts.slow += more;
        counts
    }

    fn oldest(&self) -> u32 {
        if self.is_full() { self.next } else { 0 }
    }

    pub(crate) fn is_full_and_clean(&self) -> bool {
        self.is_full() && self.counts.failures == 0 && self.counts.slow == 0
    }

    fn is_full(&self) -> bool {
        self.counts.calls == u64::from(self.capacity)
    }
}

#[cfg(test)]
impl CountRing {
    /// What decides its future: the calls it holds, from the oldest on.
    pub(crate) fn essence(&self, into: &mut Vec<u64>) {
        let Self { failed, slow, capacity, next, counts, recorded: _ } = self;
        into.extend([u64::from(*capacity), counts.calls, counts.failures, counts.slow]);
        // At most the capacity.
        for age in (1..=counts.calls as u32).rev() {
            let index = (next + capacity - age) % capacity;
            into.push(u64::from(failed.at(index)) << 1 | u64::from(slow.at(index)));
        }
    }
}

#[derive(Clone, Debug)]
struct Bits(Box<[u64]>);

impl Bits {
    fn new(len: u32) -> Self {
        Self(vec![0; len.div_ceil(u64::BITS) as usize].into_boxed_slice())
    }

    /// The ones among `len` bits of a ring of `capacity`, from `start` on.
    fn ones_from(&self, start: u32, len: u32, capacity: u32) -> u64 {
        let straight = len.min(capacity - start);
        self.ones(start, start + straight) + self.ones(0, len - straight)
    }

    fn ones(&self, start: u32, end: u32) -> u64 {
        let mut ones = 0;
        let mut at = start;
        while at < end {
            let bit = at % u64::BITS;
            let len = (u64::BITS - bit).min(end - at);
            let mask = u64::MAX >> (u64::BITS - len) << bit;
            ones += u64::from((self.0[(at / u64::BITS) as usize] & mask).count_ones());
            at += len;
        }
        ones
    }

    fn at(&self, index: u32) -> bool {
        self.0[(index / u64::BITS) as usize] & 1 << (index % u64::BITS) != 0
    }

    /// Sets a bit and returns what it was.
    fn replace(&mut self, index: u32, value: bool) -> bool {
        let word = &mut self.0[(index / u64::BITS) as usize];
        let mask = 1 << (index % u64::BITS);
        let old = *word & mask != 0;
        if value {
            *word |= mask
        } else {
            *word &= !mask
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn the_sums_are_those_of_the_last_calls() {
        for capacity in [1, 2, 3, 63, 64, 65, 200] {
            let mut ring = CountRing::new(capacity);
            let mut last = VecDeque::new();
            for i in 0..1_000u32 {
                let sample = Sample { failed: i * i % 7 < 3, slow: i * 31 % 11 < 4 };
                ring.record(sample);
                last.push_back(sample);
                if last.len() > capacity as usize {
                    last.pop_front();
                }
                let expected = last.iter().fold(Counts::default(), |mut counts, sample| {
                    counts.add(*sample);
                    counts
                });
                assert_eq!(ring.counts(), expected, "capacity {capacity}, call {i}");
            }
        }
    }

    #[test]
    fn the_sums_after_more_slow_calls_are_those_of_recording_them() {
        let slow = Sample { failed: false, slow: true };
        for capacity in [1, 2, 5, 64, 65, 130, 200] {
            let mut ring = CountRing::new(capacity);
            for i in 0..300u32 {
                for more in [0, 1, 2, capacity / 2, capacity - 1, capacity, capacity + 1] {
                    let mut recorded = ring.clone();
                    (0..more).for_each(|_| recorded.record(slow));
                    let expected = recorded.counts();
                    assert_eq!(
                        ring.counts_after_slow(more.into()),
                        expected,
                        "{capacity} {i} {more}"
                    );
                }
                ring.record(Sample { failed: i * i % 7 < 3, slow: i * 31 % 11 < 4 });
            }
        }
    }

    #[test]
    fn a_resized_ring_is_one_that_recorded_the_newest_calls() {
        let sample = |i: u32| Sample { failed: i * i % 7 < 3, slow: i * 31 % 11 < 4 };
        for (before, after) in [(1, 1), (5, 2), (5, 9), (64, 3), (130, 65), (65, 200)] {
            for calls in [0, 1, 2, 4, 5, 6, 64, 131, 300] {
                let mut ring = CountRing::new(before);
                (0..calls).for_each(|i| ring.record(sample(i)));
                let mut resized = ring.resized(after);
                assert_eq!(resized.recorded(), u64::from(calls));
                let mut fresh = CountRing::new(after);
                (calls.saturating_sub(before)..calls).for_each(|i| fresh.record(sample(i)));
                for i in calls..calls + 300 {
                    assert_eq!(resized.counts(), fresh.counts(), "{before} {after} {calls} {i}");
                    assert_eq!(resized.counts_after_slow(2), fresh.counts_after_slow(2));
                    resized.record(sample(i));
                    fresh.record(sample(i));
                }
            }
        }
    }

    #[test]
    fn only_a_full_ring_without_a_blemish_is_clean() {
        let good = Sample { failed: false, slow: false };
        let mut ring = CountRing::new(2);
        ring.record(good);
        assert!(!ring.is_full_and_clean());
        ring.record(good);
        assert!(ring.is_full_and_clean());
        ring.record(Sample { slow: true, ..good });
        assert!(!ring.is_full_and_clean());
    }
}
