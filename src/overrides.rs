//! What an operator lays over a circuit.

use std::time::Duration;

/// An operator's decision that lies over the circuit's own.
///
/// It changes no state: [`Circuit::state`](crate::Circuit::state) goes on to
/// say what the machine decided, and lifting the override reveals it. Unless
/// [`expires_in`](Self::expires_in) says otherwise it ends by itself after one
/// hour, so that nobody has to remember; one without an end must be asked for
/// with [`until_cleared`](Self::until_cleared).
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Circuit, Config, Override};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// circuit.set_override(
///     Override::force_open().reason("index rebuild").expires_in(Duration::from_secs(600)),
/// );
/// assert!(circuit.try_acquire().is_err());
///
/// circuit.clear_override();
/// assert!(circuit.try_acquire().is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "an override does nothing until it is given to `Circuit::set_override`"]
pub struct Override {
    /// What it does.
    pub kind: OverrideKind,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Whose it is.
    pub owner: Option<String>,
    /// How long it holds from when it is set; in a
    /// [`Snapshot`](crate::Snapshot), how much of that is left. `None`: until
    /// it is cleared.
    pub expires_in: Option<Duration>,
}

/// What an [`Override`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverrideKind {
    /// Rejects every call.
    ForceOpen,
    /// Admits every call, and the machine hears of none.
    ForceClosed,
    /// Admits every call while the machine decides as if it were obeyed.
    ObserveOnly,
}

impl OverrideKind {
    /// The kind in lower case: `force-open`, `force-closed`, `observe-only`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForceOpen => "force-open",
            Self::ForceClosed => "force-closed",
            Self::ObserveOnly => "observe-only",
        }
    }
}

impl Override {
    /// Rejects every call. The answer's `retry_after` is what is left of the
    /// override or of the machine's own wait, whichever is longer.
    pub const fn force_open() -> Self {
        Self::new(OverrideKind::ForceOpen)
    }

    /// Admits every call. What ends meanwhile feeds the totals only; the
    /// machine stays as it was while its waits and leases run on.
    pub const fn force_closed() -> Self {
        Self::new(OverrideKind::ForceClosed)
    }

    /// Admits every call while the machine runs on as if it decided: its
    /// state moves, and what it would have rejected passes and is counted in
    /// `would_reject`. For trying a configuration on live traffic.
    pub const fn observe_only() -> Self {
        Self::new(OverrideKind::ObserveOnly)
    }

    const fn new(kind: OverrideKind) -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self { kind, reason: None, owner: None, expires_in: Some(HOUR) }
    }

    /// Says why, for whoever looks next.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says whose it is: whom to ask before lifting it.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Sets how long it holds.
    pub const fn expires_in(mut self, duration: Duration) -> Self {
        self.expires_in = Some(duration);
        self
    }

    /// Lets it hold until somebody clears it.
    pub const fn until_cleared(mut self) -> Self {
        self.expires_in = None;
        self
    }
}
