//! The seam through which a circuit tells what happens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{CircuitOpen, WindowSnapshot};
use crate::{
    cause::Cause,
    config_change::ConfigChange,
    defaults::Series,
    outcome::{CallEnd, FallbackEnd},
    overrides::Override,
    panics::contain,
    state::State,
};

/// Is told what happens in a circuit.
///
/// Observers are called outside every lock. Transitions, overrides and
/// reconfigurations come in their order and each once: as a rule on the thread of the call that made
/// them happen, whose thread-local context is then in place, but on another's
/// if that one is still telling of an earlier one. Calls, rejections and
/// fallbacks come on their own thread, always.
///
/// An observer may look at the circuit and steer it. It should not take a
/// permit: that is a call of its own, which it would be told of in turn. One
/// that panics harms nobody: the panic goes to the panic hook and no further.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use tower_breaker::{Circuit, Config, Observer, Transition};
///
/// #[derive(Clone, Default)]
/// struct Log(Arc<Mutex<Vec<String>>>);
///
/// impl Observer for Log {
///     fn on_transition(&self, transition: &Transition) {
///         self.0.lock().unwrap().push(transition.to_string());
///     }
/// }
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// let log = Log::default();
/// let circuit = Circuit::new(Config::builder("inventory").observer(log.clone()).build()?);
/// circuit.trip();
/// circuit.reset();
///
/// assert_eq!(log.0.lock().unwrap()[1], "inventory: open -> closed, because it was reset by hand");
/// # Ok(())
/// # }
/// ```
pub trait Observer: Send + Sync {
    /// The circuit went from one state to another.
    fn on_transition(&self, transition: &Transition) {
        let _ = transition;
    }

    /// Whether it wants to hear of every call: asked once, when a circuit is
    /// made. One that does not costs a call nothing, and is never told
    /// [`on_call`](Self::on_call). A group of circuits, or a registry, waits for
    /// the answer: look at none of its circuits here.
    fn hears_calls(&self) -> bool {
        true
    }

    /// An admitted call ended. Called for every call, on its path: be quick.
    fn on_call(&self, call: &Call<'_>) {
        let _ = call;
    }

    /// A call was not admitted.
    fn on_rejection(&self, rejection: &CircuitOpen) {
        let _ = rejection;
    }

    /// A call passed that would have been rejected, were it not for
    /// [`Override::observe_only`] or a keyed group that fails open.
    fn on_would_reject(&self, circuit: &str) {
        let _ = circuit;
    }

    /// A fallback ended. The call it answered for was told of before, as a
    /// rejection or as a failure.
    fn on_fallback(&self, circuit: &str, end: FallbackEnd) {
        let _ = (circuit, end);
    }

    /// The share of calls that pass has changed by a whole percent, on the
    /// ramp, by the throttle or with the share of [`Probes`](crate::Probes). Told
    /// when a call asks, when the ramp or half-open begins, when the throttle
    /// learns of a call's end, and when another configuration or a reset changes it.
    /// If it is taken away while half-open it is 0.
    fn on_admitted_share(&self, circuit: &str, share: f64) {
        let _ = (circuit, share);
    }

    /// A health check has run (feature `health-check`).
    fn on_health_check(&self, circuit: &str, passed: bool) {
        let _ = (circuit, passed);
    }

    /// Whether it takes samples of latencies: asked like
    /// [`hears_calls`](Self::hears_calls).
    fn takes_latency_samples(&self) -> bool {
        false
    }

    /// One call in 64 of a thread's was timed, and took so long, whatever came
    /// of it. Told to all, if one
    /// [takes samples](Self::takes_latency_samples).
    fn on_latency_sample(&self, circuit: &str, latency: Duration) {
        let _ = (circuit, latency);
    }

    /// The circuit goes by other rules.
    fn on_reconfigured(&self, reconfigured: &Reconfigured) {
        let _ = reconfigured;
    }

    /// An override was set (`Some`), or lifted or over (`None`).
    fn on_override(&self, circuit: &str, active: Option<&Override>) {
        let _ = (circuit, active);
    }
}

/// A circuit went from one state to another. `Display` says it in one line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The circuit's name.
    pub circuit: Arc<str>,
    /// Its key, if it is one of a group: see `KeyedCircuits` (feature
    /// `keyed`). It may be anything; `Display` shows it quoted and escaped.
    pub key: Option<Arc<str>>,
    /// The state it left.
    pub from: State,
    /// The state it is in.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// The generation that began.
    pub generation: u64,
    /// When. Earlier than now where a probe's lease ended and nobody called.
    pub at: Instant,
    /// The counts of the state it left: of the window, or of the probes.
    pub window: WindowSnapshot,
    /// If it opened: for how long.
    pub open_for: Option<Duration>,
}

impl std::fmt::Display for Transition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.circuit)?;
        if let Some(key) = &self.key {
            write!(f, "[{key:?}]")?;
        }
        write!(f, ": {} -> {}, because {}", self.from, self.to, self.cause)?;
        match self.open_for {
            Some(wait) => write!(f, "; next try in {wait:.1?}"),
            None => Ok(()),
        }
    }
}

/// A circuit goes by other rules: see
/// [`Circuit::reconfigure`](crate::Circuit::reconfigure). `Display` says it in
/// one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconfigured {
    /// The circuit's name.
    pub circuit: Arc<str>,
    /// Its key, if it is one of a group.
    pub key: Option<Arc<str>>,
    /// The revision that began.
    pub revision: u64,
    /// When.
    pub at: Instant,
    /// The settings that are not what they were. None, if all are.
    pub changes: Vec<ConfigChange>,
}

impl std::fmt::Display for Reconfigured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.circuit)?;
        if let Some(key) = &self.key {
            write!(f, "[{key:?}]")?;
        }
        f.write_str(": reconfigured")?;
        for (index, change) in self.changes.iter().enumerate() {
            write!(f, "{} {change}", if index == 0 { "," } else { ";" })?;
        }
        if self.changes.is_empty() { f.write_str(", nothing changed") } else { Ok(()) }
    }
}

/// An admitted call that ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The circuit's name.
    pub circuit: &'a str,
    /// Its key, if it is one of a group.
    pub key: Option<&'a str>,
    /// How it ended.
    pub end: CallEnd,
    /// Whether it was slower than the slow rule's threshold.
    pub slow: bool,
    /// How long it took, where that was measured: see
    /// [`ConfigBuilder::measure_latency`](crate::ConfigBuilder::measure_latency).
    pub latency: Option<Duration>,
}

/// The observers of one circuit.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    pub(super) series: Series,
    pub(crate) others: Vec<Arc<dyn Observer>>,
}

impl Observers {
    pub(super) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.series.as_observer().is_none()
    }

    pub(super) fn take_samples(&self) -> bool {
        self.others.iter().any(|observer| says(|| observer.takes_latency_samples(), false))
    }

    /// Those that hear of every call, besides the series.
    pub(super) fn hearing_calls(&self) -> Vec<Arc<dyn Observer>> {
        let hears = |observer: &&Arc<dyn Observer>| says(|| observer.hears_calls(), true);
        self.others.iter().filter(hears).cloned().collect()
    }

    /// Tells them and the series.
    pub(super) fn tell(&self, tell: impl Fn(&dyn Observer)) {
        tell_each(&self.others, &tell);
        if let Some(series) = self.series.as_observer() {
            tell_one(series, &tell);
        }
    }
}

/// Tells some observers.
#[inline]
pub(super) fn tell_each(observers: &[Arc<dyn Observer>], tell: impl Fn(&dyn Observer)) {
    observers.iter().for_each(|observer| tell_one(&**observer, &tell));
}

#[inline]
fn tell_one(observer: &dyn Observer, tell: impl Fn(&dyn Observer)) {
    let _ = contain(|| tell(observer));
}

/// What an observer says of itself; of one that panics, what is true unless said.
fn says(answer: impl Fn() -> bool, otherwise: bool) -> bool {
    contain(answer).unwrap_or(otherwise)
}

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} observers]", self.others.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Mute;

    impl Observer for Mute {
        fn hears_calls(&self) -> bool {
            panic!("asked whether it hears calls")
        }

        fn takes_latency_samples(&self) -> bool {
            panic!("asked whether it takes samples")
        }
    }

    #[test]
    fn there_is_nobody_if_there_are_neither_observers_nor_series() {
        let series = Series::of_circuit();
        let is_series = series.as_observer().is_some();
        assert!(Observers::default().is_empty());
        assert_eq!(Observers { series, ..Observers::default() }.is_empty(), !is_series);
        let observers = Observers { others: vec![Arc::new(Mute)], ..Observers::default() };
        assert!(!observers.is_empty());
    }

    #[test]
    fn one_that_panics_when_it_is_asked_is_like_most() {
        let observers = Observers { others: vec![Arc::new(Mute)], ..Observers::default() };
        assert!(!observers.hearing_calls().is_empty());
        assert!(!observers.take_samples());
    }
    #[test]
    fn a_reconfiguration_says_of_which_circuit_it_is() {
        let mut reconfigured = Reconfigured {
            circuit: "hosts".into(),
            key: None,
            revision: 1,
            at: super::super::Clock::system().now(),
            changes: Vec::new(),
        };
        assert_eq!(reconfigured.to_string(), "hosts: reconfigured, nothing changed");
        reconfigured.key = Some("a.example:80".into());
        assert_eq!(
            reconfigured.to_string(),
            "hosts[\"a.example:80\"]: reconfigured, nothing changed"
        );
    }
}
