//! Steering a circuit that may have changed since somebody looked.

use std::{error::Error, fmt};

use super::{Circuit, Config, Core};
use crate::{
    cause::Cause, config_change::ConfigChange, config_error::ConfigError, machine::Facts,
    overrides::Override, state::State, time::Time,
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
    /// The configuration is not one for this circuit.
    Config(ConfigError),
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

    /// Goes by another configuration of the same name from now on. The circuit
    /// keeps its state, and calls in flight count on.
    ///
    /// | | what becomes of it |
    /// |---|---|
    /// | thresholds | decide from the next call on that ends (or, for calls in flight that are overdue, that begins) |
    /// | the window | keeps its newest calls, if it is of the same kind. A call stays the success, failure or slow call it was. Where new buckets cut through old ones, what was in such a bucket is taken to have ended with it. From calls to time, or back, the window starts empty |
    /// | trouble ([`sustained_for`](crate::ConfigBuilder::sustained_for)), failures in a row | go on |
    /// | slow calls | calls that are in flight when the rule comes are not timed, unless something else had them measured; when it goes, nobody minds theirs |
    /// | an open circuit | keeps what is left of its wait, at most the new longest wait; the next one is the next step of the new waits |
    /// | half-open | the probes that were let through count, whatever their number, and may take no longer than a new one; if that decides, it does so at once |
    /// | the ramp | goes on from the share it has reached, in the new length; without one the circuit closes |
    /// | the throttle | knows what it knew |
    /// | [`warm_up`](crate::ConfigBuilder::warm_up) | counts from the circuit's birth, still |
    /// | overrides, health checks, totals, the generation | stay |
    ///
    /// Of the configuration its rules and
    /// [`measure_latency`](crate::ConfigBuilder::measure_latency) are taken. The
    /// clock, the observers, shadows and the recorder are those the circuit was
    /// made with, and [`start`](crate::ConfigBuilder::start) and the seed of the
    /// jitter have had their time.
    ///
    /// A circuit of a group goes by it for as long as the group keeps it.
    ///
    /// Observers are [told](crate::Observer::on_reconfigured) what has changed.
    ///
    /// ```
    /// use tower_breaker::{Circuit, Config, Outcome, State, Window};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let circuit = Circuit::new(Config::builder("inventory").build()?);
    /// for _ in 0..15 {
    ///     circuit.try_acquire()?.record(Outcome::Success);
    /// }
    /// let stricter = Config::builder("inventory").window(Window::count(12)).minimum_calls(5);
    /// circuit.reconfigure(stricter.build()?)?;
    /// assert_eq!(circuit.snapshot().window.calls, 12);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the configuration has another name.
    pub fn reconfigure(&self, config: Config) -> Result<(), ConfigError> {
        match self.if_revision(None).reconfigure(config) {
            Err(SteerError::Config(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The name, the rules it goes by now, and the clock, as a configuration
    /// to look at or to start another circuit from. Observers, shadows and a
    /// recorder are left out.
    ///
    /// ```
    /// use tower_breaker::{Circuit, Config};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let circuit = Circuit::new(Config::builder("inventory").minimum_calls(5).build()?);
    /// let twin = Circuit::new(circuit.config());
    /// assert_eq!(twin.name(), "inventory");
    /// # Ok(())
    /// # }
    /// ```
    pub fn config(&self) -> Config {
        let core = self.0.lock();
        let (rules, measure_latency) = (core.machine.rules().clone(), core.measure_latency);
        Config::of_rules(self.0.name.clone(), rules, self.0.clock.clone(), measure_latency)
    }
}

impl IfRevision<'_> {
    /// Opens it: see [`Circuit::trip`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn trip(self) -> Result<u64, SteerError> {
        self.steer(|core, now, facts| {
            core.machine.trip(Cause::Tripped, now, facts);
            Ok(())
        })
    }

    /// Closes it: see [`Circuit::reset`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn reset(self) -> Result<u64, SteerError> {
        self.steer(|core, now, facts| {
            core.machine.reset(now, facts);
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
        self.steer(|core, now, facts| match core.machine.end_wait(now, facts) {
            true => Ok(()),
            false => Err(SteerError::NotOpen { state: core.machine.state() }),
        })
    }

    /// Goes by another configuration: see [`Circuit::reconfigure`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Config`], if the configuration has another name, and
    /// [`SteerError::Changed`], if the revision is another.
    pub fn reconfigure(self, config: Config) -> Result<u64, SteerError> {
        let Config { name, rules, measure_latency, .. } = config;
        let shared = &*self.circuit.0;
        if name != shared.name {
            let expected = format!("must be {}, the circuit's own", shared.name);
            return Err(SteerError::Config(ConfigError::new("name", name, expected)));
        }
        self.steer(|core, now, facts| {
            let mut changes = ConfigChange::between(core.machine.rules(), &rules);
            let on = |measured| if measured { "on" } else { "off" }.to_owned();
            let (from, to) = (on(core.measure_latency), on(measure_latency));
            changes.extend(ConfigChange::of("measure_latency", from, to));
            core.measure_latency = measure_latency;
            shared.pace.set(&rules, measure_latency || self.circuit.is_followed());
            shared.rewatch(core, now, |core| core.machine.reconfigure(rules, changes, now, facts));
            Ok(())
        })
    }

    /// Lays an override over it: see [`Circuit::set_override`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn set_override(self, over: Override) -> Result<u64, SteerError> {
        self.steer(|core, now, facts| {
            core.machine.set_override(over, now, facts);
            Ok(())
        })
    }

    /// Lifts its override: see [`Circuit::clear_override`].
    ///
    /// # Errors
    ///
    /// [`SteerError::Changed`], if the revision is another.
    pub fn clear_override(self) -> Result<u64, SteerError> {
        self.steer(|core, now, facts| {
            core.machine.clear_override(now, facts);
            Ok(())
        })
    }

    fn steer(
        self,
        change: impl FnOnce(&mut Core, Time, &mut Facts) -> Result<(), SteerError>,
    ) -> Result<u64, SteerError> {
        self.circuit.0.update_core(|core, now, facts| {
            let revision = core.machine.revision_at(now, facts);
            match self.expected {
                Some(expected) if expected != revision => {
                    return Err(SteerError::Changed { expected, revision });
                }
                _ => change(core, now, facts)?,
            }
            Ok(core.machine.revision_at(now, facts))
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
            Self::Config(error) => error.fmt(f),
        }
    }
}

/// What is wrong with a configuration has no source, and is said in full already.
impl Error for SteerError {}
