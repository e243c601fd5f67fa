//! Random numbers that are the same on every run: no crate, no entropy.

use std::time::Duration;

/// SplitMix64. Streams of different seeds are unrelated.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts a stream.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts a stream for a purpose: the same seed and purpose give the same
    /// stream, so that every policy meets the same arrivals.
    pub fn stream(seed: u64, purpose: u64, number: u64) -> Self {
        let mut rng = Self(seed ^ purpose.rotate_left(24) ^ number.rotate_left(40));
        Self(rng.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 (included) to 1 (not included).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// An exponentially distributed time.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// A time from zero to below `end`.
    pub fn below(&mut self, end: Duration) -> Duration {
        end.mul_f64(self.unit())
    }
}
