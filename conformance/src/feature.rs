//! What a breaker may claim, and a scenario may need.

use std::fmt;

use serde::Deserialize;

/// Something a breaker can be asked for: by a rule, by hand, or to tell.
///
/// What no rule asks for is no feature but a law. That a result of an earlier
/// state changes nothing, say, is not claimed but expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Feature {
    /// Opens at a rate of failures over a window of calls.
    FailureRate,
    /// Has no rate below a minimum of calls that is not the window itself.
    Minimum,
    /// Judges the calls of a stretch of time.
    TimeWindow,
    /// Keeps such a stretch in buckets, whose ends are where calls are
    /// forgotten.
    Buckets,
    /// Opens after so many failures in a row.
    ConsecutiveFailures,
    /// Opens at a rate of slow calls.
    SlowCalls,
    /// Waits longer after each failed recovery.
    GrowingWait,
    /// One successful probe closes it, one failed probe opens it again.
    ProbeVerdict,
    /// So many successful probes close it, more than one.
    Successes,
    /// Lets no more probes pass at once than it was told.
    ProbeLimit,
    /// Lets no more probes pass in all, from the end of a wait to the verdict.
    ProbeCount,
    /// A probe that is never heard of again has failed after a time.
    Lease,
    /// An outcome that is neither good nor bad.
    Neutral,
    /// Is opened by hand, once.
    Trip,
    /// Is closed by hand, once.
    Reset,
    /// Is held open, beyond its wait, until that is lifted.
    ForceOpen,
    /// Is held closed until that is lifted.
    ForceClosed,
    /// Tells what its window holds.
    WindowCounts,
    /// Tells how many calls it refused.
    Refusals,
    /// Tells of each outcome how often it was.
    Outcomes,
    /// Tells with an opening what it was decided by.
    Evidence,
    /// Its time can be moved exactly. Whoever reads the system's clock can
    /// only be waited for, and that is never exact.
    ExactTime,
}

impl Feature {
    /// In a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::FailureRate => "a failure rate over calls",
            Self::Minimum => "a minimum of calls below the window",
            Self::TimeWindow => "a window of time",
            Self::Buckets => "buckets of time",
            Self::ConsecutiveFailures => "failures in a row",
            Self::SlowCalls => "slow calls",
            Self::GrowingWait => "a wait that grows",
            Self::ProbeVerdict => "a verdict by one probe",
            Self::Successes => "several successes to close",
            Self::ProbeLimit => "a limit for probes at once",
            Self::ProbeCount => "a limit for probes in all",
            Self::Lease => "a lease for probes",
            Self::Neutral => "neutral outcomes",
            Self::Trip => "opening by hand",
            Self::Reset => "closing by hand",
            Self::ForceOpen => "being held open",
            Self::ForceClosed => "being held closed",
            Self::WindowCounts => "the window's counts",
            Self::Refusals => "counts of refusals",
            Self::Outcomes => "counts of outcomes",
            Self::Evidence => "what an opening was decided by",
            Self::ExactTime => "exact time",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}
