//! How many calls test a dependency that may have healed.

use std::time::Duration;

use crate::config_error::ConfigError;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "permittedNumberOfCallsInHalfOpenState")]
pub struct Probes {
    pub(crate) permits: u32,
    pub(crate) successes: Option<u32>,
    pub(crate) lease: Option<Duration>,
}

impl Probes {
    /// `permits` calls an episode, all of which must succeed; at least one
    /// and at most ten thousand.
    pub const fn new(permits: u32) -> Self {
        Self { permits, successes: None, lease: None }
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

    pub(crate) fn in_words(&self) -> String {
        let lease = self.lease.map(|lease| format!(", lease {lease:?}")).unwrap_or_default();
        format!("{} of {} must succeed{lease}", self.required(), self.permits)
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
        Ok(())
    }
}

impl Default for Probes {
    /// Three, all of which must succeed.
    fn default() -> Self {
        Self::new(3)
    }
}
