//! The three states of a circuit.

use std::fmt;

/// The state the circuit's own machine has decided on.
///
/// An operator's [`Override`](crate::Override) lies over it and does not
/// change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls pass and are judged.
    Closed,
    /// Calls are rejected until the wait is over.
    Open,
    /// The wait is over: a few probes pass and decide.
    HalfOpen,
}

impl State {
    /// The state in lower case: `closed`, `open` or `half-open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
