//! What of a circuit outlives its process.

use std::time::{Duration, SystemTime};

use super::{Circuit, Config};
use crate::{
    cause::Cause, config_error::ConfigError, defaults::Watchers, machine, overrides::Override,
    state::State, totals::Totals,
};

/// What of a circuit outlives its process: taken with [`Circuit::save`], to be
/// kept somewhere, and given to [`Circuit::restore`].
///
/// So a restart does not send all traffic to a dependency that is down, and
/// does not end what an operator laid over the circuit. The window is not in
/// it: calls of before are no evidence of how the dependency does for a process
/// that has just begun, and a restart is often what mends it. Neither are probes,
/// a ramp and a server's hints, which belong to calls that are gone, nor the
/// configuration.
///
/// Times are relative to `saved_at`. Feature `serde` reads and writes it; whoever
/// keeps it in another way sets the fields of one taken from a new circuit.
///
/// ```
/// use tower_breaker::{Circuit, Config, State};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// circuit.trip();
/// let saved = circuit.save();
///
/// // After the restart:
/// let circuit = Circuit::restore(Config::builder("inventory").build()?, saved)?;
/// assert_eq!(circuit.state(), State::Open);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Saved {
    /// The circuit's name.
    pub name: String,
    /// When it was saved, by the calendar.
    pub saved_at: SystemTime,
    /// Its revision.
    pub revision: u64,
    /// The state it was in.
    pub state: State,
    /// For how long it had been in that.
    pub state_for: Duration,
    /// If it was open: for how long it was to stay so. If it was half-open: for
    /// how long it had been open before.
    pub wait: Duration,
    /// If it was open: what was left of the wait.
    pub wait_left: Duration,
    /// How often its probes had failed since it was closed: the step at which
    /// the waits are.
    pub step: u32,
    /// Why it opened last; `None` if it was closed.
    pub cause: Option<Cause>,
    /// What an operator had laid over it, with what was left of it.
    pub active_override: Option<Override>,
    /// For how long that had lain; zero without one.
    pub overridden_for: Duration,
    /// Its counts for life.
    pub totals: Totals,
}

/// The same, to be born with.
pub(super) struct Legacy {
    pub(super) of_machine: machine::Legacy,
    pub(super) state_for: Duration,
    pub(super) fallbacks: [u64; 3],
}

impl Circuit {
    /// What [`restore`](Self::restore) needs after a restart. Changes nothing.
    ///
    /// Save it when the process shuts down; and, for one that crashes, when an
    /// [`Observer`](crate::Observer) hears of a transition or an override.
    pub fn save(&self) -> Saved {
        let (saved_at, now) = (self.0.clock.date(), self.0.now());
        let mut core = self.0.lock();
        self.0.take_tallies(&mut core);
        let view = core.machine.view(now);
        drop(core);
        let totals = self.0.add_to(view.totals);
        Saved {
            name: self.0.name.to_string(),
            saved_at,
            revision: view.revision,
            state: view.state,
            state_for: self.0.instant(now).saturating_duration_since(self.0.began(&view)),
            wait: view.wait,
            wait_left: view.wait_left,
            step: view.step,
            cause: view.cause,
            active_override: view.active_override,
            overridden_for: view
                .overridden
                .map_or(Duration::ZERO, |(laid, before)| before.saturating_add(now.since(laid))),
            totals,
        }
    }

    /// A circuit that goes on where a saved one was, on the same terms or
    /// others.
    ///
    /// The time that has passed since then, by the calendar, has passed for its
    /// wait and its override too; where the calendar was set back, none has. No
    /// wait is longer than the longest of the configuration. A circuit that was
    /// half-open, or on its ramp, is open with its wait over: the next calls are
    /// probes. [`start`](crate::ConfigBuilder::start) does not apply,
    /// [`warm_up`](crate::ConfigBuilder::warm_up) does, and a health check has to
    /// be [run](Self) anew. The generation begins again; the revision does not.
    ///
    /// Observers hear nothing of the state at birth; of an override with the
    /// first call.
    ///
    /// # Errors
    ///
    /// If it is another circuit's, by its name, or if a count is beyond what any
    /// circuit reaches.
    pub fn restore(config: Config, saved: Saved) -> Result<Self, ConfigError> {
        Self::restore_watched(config, saved, Watchers::of_circuit())
    }

    /// The same, with other observers than the features'.
    pub(crate) fn restore_watched(
        config: Config,
        saved: Saved,
        watchers: Watchers,
    ) -> Result<Self, ConfigError> {
        saved.validate(&config)?;
        let legacy = saved.left_at(config.clock.date());
        Ok(Self::after(Some(legacy), config, None, watchers))
    }
}

impl Saved {
    fn validate(&self, config: &Config) -> Result<(), ConfigError> {
        if self.name != *config.name() {
            let expected = format!("must be {}, the configuration's", config.name());
            return Err(ConfigError::new("saved.name", &self.name, expected));
        }
        // A call a nanosecond would take a hundred days to get there, and from
        // there 500 years to what a word holds.
        const MOST: u64 = 1 << 53;
        let Totals {
            success,
            failure,
            slow,
            ignored,
            cancelled,
            stale,
            rejected,
            would_reject,
            opened,
            fallback_answered,
            fallback_failed,
            fallback_cancelled,
        } = self.totals;
        let counts = [
            ("saved.revision", self.revision),
            ("saved.totals.success", success),
            ("saved.totals.failure", failure),
            ("saved.totals.slow", slow),
            ("saved.totals.ignored", ignored),
            ("saved.totals.cancelled", cancelled),
            ("saved.totals.stale", stale),
            ("saved.totals.rejected", rejected),
            ("saved.totals.would_reject", would_reject),
            ("saved.totals.opened", opened),
            ("saved.totals.fallback_answered", fallback_answered),
            ("saved.totals.fallback_failed", fallback_failed),
            ("saved.totals.fallback_cancelled", fallback_cancelled),
        ];
        match counts.into_iter().find(|(_, count)| *count > MOST) {
            Some((field, count)) => {
                Err(ConfigError::new(field, count, format!("must be at most {MOST}")))
            }
            None => Ok(()),
        }
    }

    /// What is left of it at that date.
    fn left_at(self, date: SystemTime) -> Legacy {
        let passed = date.duration_since(self.saved_at).unwrap_or_default();
        let left = self.wait_left.saturating_sub(passed);
        let active_override = self.active_override.and_then(|over| match over.expires_in {
            None => Some(over),
            Some(left) => {
                let left = left.checked_sub(passed).filter(|left| !left.is_zero())?;
                Some(over.expires_in(left))
            }
        });
        let of_machine = machine::Legacy {
            // It is not the circuit any more that somebody saw.
            revision: self.revision + 1,
            open: match self.state {
                State::Closed => None,
                State::Open => Some((self.wait, left)),
                State::HalfOpen => Some((self.wait, Duration::ZERO)),
            },
            step: self.step,
            cause: self.cause,
            totals: self.totals,
            active_override,
            overridden_for: self.overridden_for.saturating_add(passed),
        };
        let Totals { fallback_answered, fallback_failed, fallback_cancelled, .. } = self.totals;
        let fallbacks = [fallback_answered, fallback_failed, fallback_cancelled];
        Legacy { of_machine, state_for: self.state_for.saturating_add(passed), fallbacks }
    }
}
