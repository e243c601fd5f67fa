//! A share of calls, in whole parts of a million.

/// A threshold in parts of a million, so that comparing is exact.
///
/// The user's fraction is rounded down: two failures of three must reach
/// `2.0 / 3.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio(u32);

impl Ratio {
    /// As parts.
    pub(crate) const WHOLE: u32 = 1_000_000;

    pub(crate) const ALL: Self = Self(Self::WHOLE);

    /// What is right, for an error.
    pub(crate) const EXPECTED: &str = "must be at least 0.000001 and at most 1";

    /// The ratio, if it is at least a millionth and at most one.
    pub(crate) fn new(fraction: f64) -> Option<Self> {
        // The added millionth of a part mends what the fraction lost on its
        // way into binary (0.29 must be 290,000 parts, not 289,999).
        let parts = (fraction * f64::from(Self::WHOLE) + 1e-6).floor();
        // NaN is in no range.
        let valid = fraction <= 1.0 && (1.0..=f64::from(Self::WHOLE)).contains(&parts);
        // In range by the line above.
        valid.then_some(Self(parts as u32))
    }

    /// Whether `part` of `whole` is at or above this ratio. Of nothing, no.
    pub(crate) fn reached_by(self, part: u64, whole: u64) -> bool {
        whole > 0
            && u128::from(part) * u128::from(Self::WHOLE) >= u128::from(self.0) * u128::from(whole)
    }

    /// Of a million.
    pub(crate) const fn parts(self) -> u32 {
        self.0
    }

    pub(crate) fn as_fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    /// In percent as it was written, without what binary adds to it.
    pub(crate) fn as_percent(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_whole_calls_is_reached_by_exactly_that_many() {
        for whole in 1..=200u64 {
            for part in 1..=whole {
                let ratio = Ratio::new(part as f64 / whole as f64).unwrap();
                assert!(ratio.reached_by(part, whole), "{part} of {whole}");
                assert!(!ratio.reached_by(part - 1, whole), "{} of {whole}", part - 1);
            }
        }
    }

    #[test]
    fn a_fraction_written_in_decimals_keeps_them() {
        for parts in 1..=1_000_000u32 {
            let ratio = Ratio::new(f64::from(parts) / 1e6).unwrap();
            assert_eq!(ratio, Ratio(parts));
        }
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for fraction in
            [f64::NAN, 0.0, -0.0, -0.5, 1e-9, 1.000_001, f64::INFINITY, f64::NEG_INFINITY]
        {
            assert_eq!(Ratio::new(fraction), None, "{fraction}");
        }
    }

    #[test]
    fn of_nothing_nothing_is_reached() {
        assert!(!Ratio::new(0.5).unwrap().reached_by(0, 0));
        assert!(Ratio::new(1.0).unwrap().reached_by(u64::MAX, u64::MAX));
    }
}
