//! The refusal of a call.

use std::{error::Error, fmt, io, iter, sync::Arc, time::Duration};

use crate::{machine::Rejection, state::State, time::nanos};

/// The error of a call that was not let through.
///
/// A middleware further out may have wrapped it; [`find_in`](Self::find_in)
/// finds it all the same.
///
/// ```
/// use tower_breaker::{Circuit, CircuitOpen, Config, State};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// circuit.trip();
///
/// let error = std::io::Error::other(circuit.try_acquire().unwrap_err());
/// let open = CircuitOpen::find_in(&error).expect("it is in there");
/// assert_eq!(open.name(), "inventory");
/// assert_eq!(open.state(), State::Open);
/// assert!(open.retry_after().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias = "CallNotPermittedException")]
#[doc(alias = "BrokenCircuitException")]
pub struct CircuitOpen {
    circuit: Arc<Label>,
    state: State,
    percent: Option<u8>,
    /// In nanoseconds: a refusal is made more often than it is asked that. The
    /// most there are stand for nobody knows.
    retry_after: u64,
}

/// Which circuit it was.
#[derive(Debug, PartialEq, Eq)]
struct Label {
    name: Arc<str>,
    key: Option<Arc<str>>,
}

impl CircuitOpen {
    /// That of an open circuit, to be copied.
    pub(super) fn template(name: Arc<str>, key: Option<Arc<str>>) -> Self {
        let circuit = Arc::new(Label { name, key });
        Self { circuit, state: State::Open, percent: None, retry_after: 0 }
    }

    /// The same, refused for that reason.
    pub(super) fn like(&self, rejection: &Rejection) -> Self {
        let Rejection { state, percent, retry_after } = *rejection;
        let retry_after = retry_after.map_or(u64::MAX, |wait| nanos(wait).min(u64::MAX - 1));
        Self { circuit: Arc::clone(&self.circuit), state, percent, retry_after }
    }

    /// The same of a circuit that refuses in that state, for so many nanoseconds
    /// more.
    #[inline(always)]
    pub(super) fn waiting(&self, state: State, nanos: u64) -> Self {
        let circuit = Arc::clone(&self.circuit);
        Self { circuit, state, percent: None, retry_after: nanos.min(u64::MAX - 1) }
    }

    /// Makes it that of a circuit that refuses in that state, for so many
    /// nanoseconds more.
    #[inline(always)]
    pub(super) fn wait(&mut self, state: State, nanos: u64) {
        self.state = state;
        self.retry_after = nanos.min(u64::MAX - 1);
    }

    /// The circuit's name.
    pub fn name(&self) -> &str {
        &self.circuit.name
    }

    /// The key of the circuit, if it is one of a group: see `KeyedCircuits`
    /// (feature `keyed`).
    ///
    /// It came with a request and may be anything, so `Display`, which ends up
    /// in headers and documents, leaves it out.
    pub fn key(&self) -> Option<&str> {
        self.circuit.key.as_deref()
    }

    /// What rejected the call: `Open`, also where an operator holds it open;
    /// `HalfOpen`, with no probe left or on the ramp; or `Closed`, by the
    /// [`Throttle`](crate::Throttle).
    pub fn state(&self) -> State {
        self.state
    }

    /// How long until a call may pass. `None` where nobody knows: an operator
    /// holds the circuit open without an end, or the guard of keyed circuits
    /// refuses all.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after != u64::MAX).then(|| Duration::from_nanos(self.retry_after))
    }

    /// The first refusal in an error's chain of sources, itself included.
    pub fn find_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        chain(error).find_map(|error| error.downcast_ref())
    }
}

/// An error and what it wraps, from the outside in.
pub(crate) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>().map(io::Error::get_ref) {
            // An I/O error names as its source not the error it carries but that
            // one's source.
            Some(Some(carried)) => Some(carried),
            _ => error.source(),
        }
    })
}

impl fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circuit {} ", self.name())?;
        match (self.state, self.percent) {
            (_, Some(percent)) => write!(f, "lets {percent}% of its calls pass")?,
            (State::HalfOpen, None) => f.write_str("is half-open with no probe left")?,
            (State::Open | State::Closed, None) => f.write_str("is open")?,
        }
        match self.retry_after() {
            // In seconds, so that it is ASCII and fits into any header.
            Some(wait) => write!(f, ", retry after {:.1}s", wait.as_secs_f64()),
            None => Ok(()),
        }
    }
}

impl Error for CircuitOpen {}
