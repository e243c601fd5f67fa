//! Calls of the last stretch of time, in buckets.

use std::{collections::VecDeque, time::Duration};

/// Calls, and those of them that were marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) marked: u64,
}

/// A rolling window of so many buckets.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    width: Duration,
    count: usize,
    /// When the newest bucket ends.
    end: Duration,
    /// Oldest first.
    buckets: VecDeque<Tally>,
    sum: Tally,
}

impl Buckets {
    /// `phase` is where in a bucket time zero lies: clients were not all
    /// started at the same instant.
    pub(super) fn new(span: Duration, count: usize, phase: Duration) -> Self {
        let width = span / count as u32;
        Self {
            width,
            count,
            end: width - Duration::from_nanos((phase.as_nanos() % width.as_nanos()) as u64),
            buckets: VecDeque::from([Tally::default()]),
            sum: Tally::default(),
        }
    }

    pub(super) fn add(&mut self, now: Duration, change: Tally) {
        self.expire(now);
        if let Some(newest) = self.buckets.back_mut() {
            newest.calls += change.calls;
            newest.marked += change.marked;
        }
        self.sum.calls += change.calls;
        self.sum.marked += change.marked;
    }

    pub(super) fn sum_at(&mut self, now: Duration) -> Tally {
        self.expire(now);
        self.sum
    }

    pub(super) fn clear(&mut self) {
        self.buckets = VecDeque::from([Tally::default()]);
        self.sum = Tally::default();
    }

    fn expire(&mut self, now: Duration) {
        while now >= self.end {
            self.end += self.width;
            self.buckets.push_back(Tally::default());
            if self.buckets.len() > self.count {
                if let Some(old) = self.buckets.pop_front() {
                    self.sum.calls -= old.calls;
                    self.sum.marked -= old.marked;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_span_is_forgotten() {
        let second = Duration::from_secs(1);
        let mut window = Buckets::new(second * 10, 10, Duration::ZERO);
        window.add(second, Tally { calls: 3, marked: 2 });
        window.add(second * 5, Tally { calls: 1, marked: 0 });
        assert_eq!(window.sum_at(second * 10), Tally { calls: 4, marked: 2 });
        assert_eq!(window.sum_at(second * 11), Tally { calls: 1, marked: 0 });
        assert_eq!(window.sum_at(second * 15), Tally::default());
    }
}
