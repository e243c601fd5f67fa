//! What a finished call says about the dependency, and how it was counted.

/// What a finished call says about the dependency.
///
/// A [`Permit`](crate::Permit) takes one; a [`Classify`](crate::Classify)
/// makes one. A permit that is dropped instead was *cancelled*, which is not
/// an outcome of the dependency: see [`Cancellation`](crate::Cancellation).
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// circuit.try_acquire()?.record(Outcome::Failure);
/// circuit.try_acquire()?.record(Outcome::Ignored);
///
/// assert_eq!(circuit.snapshot().window.calls, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The dependency did its work.
    Success,
    /// The dependency did not do its work.
    Failure,
    /// The call proves nothing about the dependency: it enters neither side of
    /// a rate, neither counts in nor breaks a row of failures, and gives a
    /// probe back.
    Ignored,
}

impl Outcome {
    /// The outcome in one lower-case word, as metrics and logs show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
        }
    }
}

/// How an answer in place of the dependency's ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FallbackEnd {
    /// The fallback gave a response, whatever it says.
    Answered,
    /// It gave an error, or panicked.
    Failed,
    /// It was dropped.
    Cancelled,
}

impl FallbackEnd {
    /// The end in one lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How an admitted call ended, as the totals count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallEnd {
    /// It succeeded.
    Success,
    /// It failed, or was a probe that lost its lease.
    Failure,
    /// It proved nothing.
    Ignored,
    /// It was dropped.
    Cancelled,
    /// The circuit had moved on.
    Stale,
}

impl CallEnd {
    /// The end in one lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
            Self::Cancelled => "cancelled",
            Self::Stale => "stale",
        }
    }
}
