//! How many calls test a dependency that may have healed.

use std::time::Duration;

use crate::{config_error::ConfigError, ratio::Ratio};

/// The probes of one half-open episode: how many calls pass, how many must
/// succeed, and how long each may take.
///
/// The circuit closes at the last success it needs and opens again as soon as
/// that many are out of reach. A probe holds a *lease*: one that has not ended
/// by then has failed, and its late answer counts for nothing, so half-open
/// always ends.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Config, Probes};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// // Five calls pass; four must succeed, so two failures open again.
/// let probes = Probes::new(5).successes(4).lease(Duration::from_secs(3));
/// Config::builder("inventory").probes(probes).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[doc(alias = "permittedNumberOfCallsInHalfOpenState")]
pub struct Probes {
    pub(crate) permits: u32,
    pub(crate) successes: Option<u32>,
    pub(crate) lease: Option<Duration>,
    pub(crate) share: Option<f64>,
}

impl Probes {
    /// `permits` calls an episode, all of which must succeed; at least one
    /// and at most ten thousand.
    pub const fn new(permits: u32) -> Self {
        Self { permits, successes: None, lease: None, share: None }
    }

    /// Sets how many of them must succeed.
    pub const fn successes(mut self, successes: u32) -> Self {
        self.successes = Some(successes);
        self
    }

    /// Sets how long a probe may take. Unless said, the longer of the wait
    /// just over and 10 seconds.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets which share of the calls that ask is taken for probes, up to 1; the
    /// others are refused. Unless said, each call that asks is one, until there
    /// are as many as are permitted.
    ///
    /// The first call of an episode is taken, and then evenly: of the first `n`
    /// that ask, `n` times the share, rounded up. No call is drawn by lot.
    /// Kept in parts of a million, rounded down. With many probes this holds a
    /// dependency to a fixed part of its traffic until they have shown that it
    /// bears it; a [ramp](crate::ConfigBuilder::ramp) raises it by and by.
    ///
    /// A refusal by the share says to come back after a hundredth of the lease,
    /// or a millisecond if that is longer.
    ///
    /// ```
    /// use tower_breaker::{Circuit, Config, Probes};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let probes = Probes::new(100).successes(95).share(0.05);
    /// let circuit = Circuit::new(Config::builder("inventory").probes(probes).build()?);
    /// circuit.trip();
    /// assert!(circuit.end_wait().is_ok());
    /// let passed = (0..1_000).filter_map(|_| circuit.try_acquire().ok());
    /// assert_eq!(passed.collect::<Vec<_>>().len(), 50);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "percentage")]
    pub const fn share(mut self, share: f64) -> Self {
        self.share = Some(share);
        self
    }

    pub(crate) const fn permitted(&self) -> u32 {
        self.permits
    }

    pub(crate) fn required(&self) -> u32 {
        self.successes.unwrap_or(self.permits)
    }

    pub(crate) fn lease_after(&self, wait: Duration) -> Duration {
        const AT_LEAST: Duration = Duration::from_secs(10);
        self.lease.unwrap_or_else(|| wait.max(AT_LEAST))
    }

    /// The share, if it is not all of the calls.
    pub(crate) fn share_of_calls(&self) -> Option<Ratio> {
        self.share.and_then(Ratio::new).filter(|share| *share != Ratio::ALL)
    }

    pub(crate) fn in_words(&self) -> String {
        let share =
            self.share_of_calls().map(|share| format!(", {} % of the calls", share.as_percent()));
        let share = share.unwrap_or_default();
        let lease = self.lease.map(|lease| format!(", lease {lease:?}")).unwrap_or_default();
        format!("{} of {} must succeed{lease}{share}", self.required(), self.permits)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        const MOST: u32 = 10_000;
        if !(1..=MOST).contains(&self.permits) {
            return Err(ConfigError::new(
                "probes",
                self.permits,
                format!("must be at least 1 and at most {MOST}"),
            ));
        }
        if !(1..=self.permits).contains(&self.required()) {
            return Err(ConfigError::new(
                "probes.successes",
                self.required(),
                format!("must be at least 1 and at most the number of probes, {}", self.permits),
            ));
        }
        if self.lease.is_some_and(|lease| lease.is_zero()) {
            return Err(ConfigError::new("probes.lease", "0ns", "must be longer than zero"));
        }
        if let Some(share) = self.share.filter(|share| Ratio::new(*share).is_none()) {
            return Err(ConfigError::new("probes.share", share, Ratio::EXPECTED));
        }
        Ok(())
    }
}

impl Default for Probes {
    /// Three, all of which must succeed.
    fn default() -> Self {
        Self::new(3)
    }
}
