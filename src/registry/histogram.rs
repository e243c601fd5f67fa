//! Latencies, in fixed memory and to within three percent.

use std::{num::NonZero, time::Duration};

/// Latencies counted in buckets, each 6 % wider than the one before: from one
/// microsecond, below which there is one bucket, to an hour and a half, beyond
/// which there is one too. A value read from it is off by less than 3 %.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Box<[u32; BUCKETS]>,
    samples: u64,
}

const BUCKETS: usize = 386;

const GROWTH: f64 = 1.06;

const SMALLEST: f64 = 1e-6;

impl Histogram {
    pub(super) fn new() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), samples: 0 }
    }

    pub(super) const fn samples(&self) -> u64 {
        self.samples
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let bucket = &mut self.buckets[bucket_of(latency)];
        *bucket = bucket.saturating_add(1);
        self.samples += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *bucket = bucket.saturating_add(*more);
        }
        self.samples += other.samples;
    }

    /// What so many percent of the samples are at most; `None` without samples.
    pub(super) fn percentile(&self, percent: u8) -> Option<Bucket> {
        // Rounded up: at least one.
        let wanted = (self.samples * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        // Below the number of buckets, of which there are few; one more than its
        // index, so that it can't be zero.
        NonZero::new(bucket as u16 + 1).map(Bucket)
    }
}

/// The bucket a value is in: two bytes, and none more where there may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket(NonZero<u16>);

impl Bucket {
    /// The value that is off from both ends of the bucket by the same share.
    pub(super) fn value(self) -> Duration {
        if self.0.get() == 1 {
            return Duration::from_secs_f64(SMALLEST);
        }
        let low = SMALLEST * GROWTH.powi(i32::from(self.0.get()) - 2);
        Duration::from_secs_f64(low * 2.0 * GROWTH / (1.0 + GROWTH))
    }
}

fn bucket_of(latency: Duration) -> usize {
    let steps = (latency.as_secs_f64() / SMALLEST).ln() / GROWTH.ln();
    // Casting a float to an integer saturates; no time at all is zero.
    let bucket = (steps + 1.0) as usize;
    bucket.min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_within_three_percent() {
        for scale in 0..32 {
            let base = Duration::from_nanos(1_100) * 2u32.pow(scale);
            let mut histogram = Histogram::new();
            (1..=1_000u32).for_each(|part| histogram.record(base * part / 1_000 + base));
            for percent in [1, 50, 90, 99, 100] {
                let exact = (base * (10 * u32::from(percent)) / 1_000 + base).as_secs_f64();
                let read = histogram.percentile(percent).unwrap().value().as_secs_f64();
                assert!((read / exact - 1.0).abs() < 0.03, "{percent} % of {base:?}: {read}");
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_at_its_end() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(50), None);
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.percentile(50).unwrap().value(), Duration::from_micros(1));
        histogram.record(Duration::MAX);
        histogram.record(Duration::MAX);
        assert!(histogram.percentile(50).unwrap().value() > Duration::from_secs(5_000));
        assert_eq!(histogram.samples(), 3);
    }
}
