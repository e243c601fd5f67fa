//! Steering a circuit that may have changed since somebody looked.

use std::{error::Error, fmt};

use super::Circuit;
use crate::{
    cause::Cause,
    machine::{Facts, Machine},
    overrides::Override,
    state::State,
    time::Time,
};

/// A circuit that is steered only if it is as somebody saw it: see
/// [`Circuit::if_revision`].
#[derive(Clone, Copy, Debug)]
#[must_use = "it does nothing until it is told what to do"]
pub struct IfRevision<'a> {
    circuit: &'a Circuit,
    expected: Option<u64>,
}

/// A circuit was not steered. It is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SteerError {
    /// It is not the circuit any more that was seen.
    #[non_exhaustive]
    Changed {
        /// The revision that was seen.
        expected: u64,
        /// The one it has.
        revision: u64,
    },
    /// Only the wait of an open circuit can be ended.
    #[non_exhaustive]
    NotOpen {
        /// The state it is in.
        state: State,
    },
}

impl Circuit {
    /// Steers it only if its [revision](crate::Snapshot::revision) is this one,
    /// so that two operators who look at the same page do not undo what the
    /// other did. `None` steers it in any case.
    ///
    /// The revision is compared, and the circuit changed, in one step. Each
    /// method returns the revision the circuit has then.
    ///
    /// ```
    /// use tower_breaker::{Circuit, Config, Override, SteerError};
    ///
    /// let circuit = Circuit::new(Config::default());
    /// let seen = circuit.snapshot().revision;
    /// circuit.if_revision(seen).set_override(Override::force_open().owner("alice"))?;
    ///
    /// // Bob has looked before Alice was done.
    /// let error = circuit.if_revision(seen).reset().unwrap_err();
    /// assert!(matches!(error, SteerError::Changed { revision, .. } if revision == seen + 1));
    /// # Ok::<(), SteerError>(())
    /// ```
    pub fn if_revision(&self, expected: impl Into<Option<u64>>) -> IfRevision<'_> {
        IfRevision { circuit: self, expected: expected.into() }
    }
}

impl IfRevision<'_> {
    /// Opens it: see [`Circuit::trip`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn trip(self) -> Result<u64, SteerError> {
        self.steer(|machine, now, facts| {
            machine.trip(Cause::Tripped, now, facts);
            Ok(())
        })
    }

    /// Closes it: see [`Circuit::reset`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn reset(self) -> Result<u64, SteerError> {
        self.steer(|machine, now, facts| {
            machine.reset(now, facts);
            Ok(())
        })
    }

    /// Ends its wait: see [`Circuit::end_wait`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another, and
    /// [`SteerError::NotOpen`].
    pub fn end_wait(self) -> Result<u64, SteerError> {
        self.steer(|machine, now, facts| match machine.end_wait(now, facts) {
            true => Ok(()),
            false => Err(SteerError::NotOpen { state: machine.state() }),
        })
    }

    /// Lays an override over it: see [`Circuit::set_override`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn set_override(self, over: Override) -> Result<u64, SteerError> {
        self.steer(|machine, now, facts| {
            machine.set_override(over, now, facts);
            Ok(())
        })
    }

    /// Lifts its override: see [`Circuit::clear_override`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn clear_override(self) -> Result<u64, SteerError> {
        self.steer(|machine, now, facts| {
            machine.clear_override(now, facts);
            Ok(())
        })
    }

    fn steer(
        self,
        change: impl FnOnce(&mut Machine, Time, &mut Facts) -> Result<(), SteerError>,
    ) -> Result<u64, SteerError> {
        self.circuit.update(|machine, now, facts| {
            let revision = machine.revision_at(now, facts);
            match self.expected {
                Some(expected) if expected != revision => {
                    return Err(SteerError::Changed { expected, revision });
                }
                _ => change(machine, now, facts)?,
            }
            Ok(machine.revision_at(now, facts))
        })
    }
}

impl fmt::Display for SteerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { expected, revision } => {
                write!(f, "the circuit has changed: its revision is {revision}, not {expected}")
            }
            Self::NotOpen { state } => {
                write!(f, "only the wait of an open circuit can be ended, and it is {state}")
            }
        }
    }
}

impl Error for SteerError {}
