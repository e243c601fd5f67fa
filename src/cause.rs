//! Why a circuit changed its state, as data and as one sentence.

use std::{fmt, time::Duration};

/// Why a circuit changed its state: the rule, and the evidence it had.
///
/// `Display` gives one sentence for a person; [`label`](Self::label) one word
/// for a metric. When several rules are met by the same call the first of
/// failure rate, consecutive failures, slow calls is reported.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let circuit = Circuit::new(Config::builder("inventory").consecutive_failures(2).build()?);
/// circuit.try_acquire()?.record(Outcome::Failure);
/// circuit.try_acquire()?.record(Outcome::Failure);
///
/// let cause = circuit.snapshot().cause.expect("an open circuit has a cause");
/// assert_eq!(cause.to_string(), "2 calls in a row failed, and 2 are enough to open");
/// assert_eq!(cause.label(), "consecutive-failures");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// Too large a share of the window's calls failed.
    #[non_exhaustive]
    FailureRate {
        /// Failed calls in the window.
        failures: u64,
        /// All judged calls in the window.
        calls: u64,
        /// The share that opens.
        threshold: f64,
    },
    /// Too many calls failed in a row.
    #[non_exhaustive]
    ConsecutiveFailures {
        /// How many failed.
        failures: u32,
        /// How many open.
        threshold: u32,
    },
    /// Too large a share of the window's calls were slow.
    #[non_exhaustive]
    SlowCallRate {
        /// Slow calls in the window.
        slow: u64,
        /// All judged calls in the window.
        calls: u64,
        /// Those of the slow calls that have not ended, and count because they
        /// have taken too long already.
        unfinished: u64,
        /// The share that opens.
        threshold: f64,
        /// A slow call takes longer than this.
        slower_than: Duration,
    },
    /// The successes needed to close were out of reach.
    #[non_exhaustive]
    ProbesFailed {
        /// Probes that failed, those in `timed_out` among them.
        failures: u32,
        /// Probes that did not end within their lease.
        timed_out: u32,
        /// Probes an episode has.
        probes: u32,
        /// Successes it takes to close.
        required: u32,
    },
    /// It was configured to [start open](crate::Start::Open).
    StartedOpen,
    /// So many circuits of a group were open that their parent opened too.
    #[non_exhaustive]
    Quorum {
        /// Keys whose circuit was open or half-open.
        open: u64,
        /// All keys.
        keys: u64,
        /// Open ones that open the parent.
        required: u64,
    },
    /// [`Circuit::trip`](crate::Circuit::trip) was called.
    Tripped,
    /// The wait was over and a call came.
    #[non_exhaustive]
    WaitOver {
        /// How long the circuit was to stay open.
        waited: Duration,
    },
    /// [`Circuit::end_wait`](crate::Circuit::end_wait) was called.
    WaitEnded,
    /// Enough [health checks](crate::Circuit) passed after the wait.
    #[non_exhaustive]
    HealthChecked {
        /// How many passed.
        successes: u32,
    },
    /// Enough probes succeeded.
    #[non_exhaustive]
    ProbesSucceeded {
        /// How many did.
        successes: u32,
    },
    /// The ramp came to its end without tripping a rule.
    #[non_exhaustive]
    RampCompleted {
        /// How long it took.
        over: Duration,
    },
    /// [`Circuit::reset`](crate::Circuit::reset) was called.
    Reset,
}

impl Cause {
    /// The cause in one lower-case word, for metrics and logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::FailureRate { .. } => "failure-rate",
            Self::ConsecutiveFailures { .. } => "consecutive-failures",
            Self::SlowCallRate { .. } => "slow-call-rate",
            Self::ProbesFailed { .. } => "probes-failed",
            Self::StartedOpen => "started-open",
            Self::Quorum { .. } => "quorum",
            Self::Tripped => "tripped",
            Self::WaitOver { .. } => "wait-over",
            Self::WaitEnded => "wait-ended",
            Self::HealthChecked { .. } => "health-checked",
            Self::ProbesSucceeded { .. } => "probes-succeeded",
            Self::RampCompleted { .. } => "ramp-completed",
            Self::Reset => "reset",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailureRate { failures, calls, threshold } => write!(
                f,
                "{failures} of {calls} calls failed ({}), and {} are enough to open",
                Percent::of(*failures, *calls),
                Percent(*threshold),
            ),
            Self::ConsecutiveFailures { failures, threshold } => {
                write!(f, "{failures} calls in a row failed, and {threshold} are enough to open")
            }
            Self::SlowCallRate { slow, calls, unfinished, threshold, slower_than } => {
                write!(f, "{slow} of {calls} calls took longer than {slower_than:?} (")?;
                if *unfinished > 0 {
                    write!(f, "{unfinished} of them have not ended; ")?;
                }
                let share = Percent::of(*slow, *calls);
                write!(f, "{share}), and {} are enough to open", Percent(*threshold))
            }
            Self::ProbesFailed { failures, timed_out, probes, required } => {
                write!(f, "{failures} of {probes} probes failed")?;
                if *timed_out > 0 {
                    write!(f, " ({timed_out} of them had no answer within their lease)")?;
                }
                write!(f, ", and {required} must succeed")
            }
            Self::StartedOpen => f.write_str("it starts open"),
            Self::Quorum { open, keys, required } => {
                write!(f, "{open} of {keys} keys were open, and {required} are enough to open")
            }
            Self::Tripped => f.write_str("it was tripped by hand"),
            Self::WaitOver { waited } => write!(f, "the wait of {waited:.1?} was over"),
            Self::WaitEnded => f.write_str("its wait was ended by hand"),
            Self::HealthChecked { successes: 1 } => f.write_str("1 health check passed"),
            Self::HealthChecked { successes } => write!(f, "{successes} health checks passed"),
            Self::ProbesSucceeded { successes: 1 } => f.write_str("1 probe succeeded"),
            Self::ProbesSucceeded { successes } => write!(f, "{successes} probes succeeded"),
            Self::RampCompleted { over } => {
                write!(f, "no rule tripped on the ramp of {over:.1?}")
            }
            Self::Reset => f.write_str("it was reset by hand"),
        }
    }
}

/// A share as a person reads it: `60 %`, `66.7 %`.
pub(crate) struct Percent(pub(crate) f64);

impl Percent {
    fn of(part: u64, whole: u64) -> Self {
        Self(part as f64 / whole as f64)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        // A threshold below a tenth of a percent keeps its digits.
        let shown = if percent < 0.1 { percent } else { (percent * 10.0).round() / 10.0 };
        write!(f, "{shown} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_reads_as_a_person_would_write_it() {
        for (share, text) in
            [(0.6, "60 %"), (2.0 / 3.0, "66.7 %"), (1.0, "100 %"), (0.125, "12.5 %")]
        {
            assert_eq!(Percent(share).to_string(), text);
        }
        assert_eq!(Percent::of(12, 20).to_string(), "60 %");
    }
    /// A dashboard goes by the word, a person by the sentence.
    #[test]
    fn every_cause_is_a_word_and_a_sentence() {
        let second = Duration::from_secs(1);
        let slow = |unfinished| Cause::SlowCallRate {
            slow: 3,
            calls: 4,
            unfinished,
            threshold: 0.5,
            slower_than: second,
        };
        let probes =
            |timed_out| Cause::ProbesFailed { failures: 2, timed_out, probes: 3, required: 2 };
        for (cause, word, sentence) in [
            (
                Cause::FailureRate { failures: 3, calls: 4, threshold: 0.5 },
                "failure-rate",
                "3 of 4 calls failed (75 %), and 50 % are enough to open",
            ),
            (
                Cause::ConsecutiveFailures { failures: 5, threshold: 5 },
                "consecutive-failures",
                "5 calls in a row failed, and 5 are enough to open",
            ),
            (
                slow(0),
                "slow-call-rate",
                "3 of 4 calls took longer than 1s (75 %), and 50 % are enough to open",
            ),
            (
                slow(2),
                "slow-call-rate",
                "3 of 4 calls took longer than 1s (2 of them have not ended; 75 %), and 50 % are \
                 enough to open",
            ),
            (probes(0), "probes-failed", "2 of 3 probes failed, and 2 must succeed"),
            (
                probes(1),
                "probes-failed",
                "2 of 3 probes failed (1 of them had no answer within their lease), and 2 must \
                 succeed",
            ),
            (Cause::StartedOpen, "started-open", "it starts open"),
            (
                Cause::Quorum { open: 6, keys: 10, required: 5 },
                "quorum",
                "6 of 10 keys were open, and 5 are enough to open",
            ),
            (Cause::Tripped, "tripped", "it was tripped by hand"),
            (Cause::WaitOver { waited: second }, "wait-over", "the wait of 1.0s was over"),
            (Cause::WaitEnded, "wait-ended", "its wait was ended by hand"),
            (Cause::HealthChecked { successes: 1 }, "health-checked", "1 health check passed"),
            (Cause::HealthChecked { successes: 2 }, "health-checked", "2 health checks passed"),
            (Cause::ProbesSucceeded { successes: 1 }, "probes-succeeded", "1 probe succeeded"),
            (Cause::ProbesSucceeded { successes: 3 }, "probes-succeeded", "3 probes succeeded"),
            (
                Cause::RampCompleted { over: second },
                "ramp-completed",
                "no rule tripped on the ramp of 1.0s",
            ),
            (Cause::Reset, "reset", "it was reset by hand"),
        ] {
            assert_eq!((cause.label(), &*cause.to_string()), (word, sentence));
        }
    }
}
