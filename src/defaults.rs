//! The stairs between the house and its roof: who watches a circuit without
//! being asked, by feature. The only file below that may name the roof.

use std::sync::Arc;

#[cfg(feature = "shadow")]
use crate::circuit::ShadowObserver;
use crate::{
    circuit::{CircuitOpen, Observer, Reading},
    outcome::CallEnd,
    state::State,
};
#[cfg(feature = "metrics")]
use crate::{metrics::Metrics, panics::contain};

/// Who watches a circuit.
pub(crate) struct Watchers {
    pub(crate) series: Series,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

impl Watchers {
    /// New ones for one circuit.
    pub(crate) fn of_circuit() -> Self {
        Self { series: Series::of_circuit(), observers: observers() }
    }
}

/// A circuit's metrics, if it has any.
///
/// They are on the path of every call as a rule, so what comes once a call they
/// are told by name: through a table of methods it cost more than the counting.
#[derive(Clone, Default)]
pub(crate) struct Series {
    #[cfg(feature = "metrics")]
    metrics: Option<Arc<Metrics>>,
}

impl Series {
    /// New ones for one circuit.
    pub(crate) fn of_circuit() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            metrics: Some(Arc::default()),
        }
    }

    /// The circuit begins in that state.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, clippy::unused_self))]
    pub(crate) fn begin_in(&self, birth: State) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = &self.metrics {
            metrics.begin_in(birth);
        }
    }

    /// To be told of everything else.
    pub(crate) fn as_observer(&self) -> Option<&dyn Observer> {
        #[cfg(feature = "metrics")]
        return self.metrics.as_deref().map(|metrics| metrics as _);
        #[cfg(not(feature = "metrics"))]
        return None;
    }

    /// An admitted call ended.
    #[inline(always)]
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, clippy::unused_self))]
    pub(crate) fn call(&self, circuit: &str, end: CallEnd, slow: bool, reading: Reading) {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = &self.metrics {
            match metrics.counter(end) {
                Some(counter) if !slow && !reading.is_known() => {
                    report(|| counter.increment(1));
                }
                _ => Self::call_apart(metrics, circuit, end, slow, reading),
            }
        }
    }

    /// Apart, because few calls are slow, the first, or timed.
    #[cfg(feature = "metrics")]
    #[inline(never)]
    fn call_apart(metrics: &Metrics, circuit: &str, end: CallEnd, slow: bool, reading: Reading) {
        report(|| match (metrics.counter(end), metrics.duration(), reading.latency()) {
            (Some(counter), Some(duration), Some(latency)) if !slow => {
                counter.increment(1);
                duration.record(latency);
            }
            (.., latency) => metrics.call(circuit, end, slow, latency),
        });
    }

    /// A call was not admitted.
    #[inline(always)]
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(crate) fn rejection(&self, open: &CircuitOpen) {
        #[cfg(feature = "metrics")]
        if !self.count_rejection() {
            if let Some(metrics) = &self.metrics {
                report(|| metrics.first_rejection(open));
            }
        }
    }

    /// A call was not admitted: unless it is the first thing that happens, nobody
    /// asks which. Returns whether it is counted.
    #[inline(always)]
    #[cfg_attr(not(feature = "metrics"), expect(clippy::unused_self))]
    pub(crate) fn count_rejection(&self) -> bool {
        #[cfg(feature = "metrics")]
        if let Some(metrics) = &self.metrics {
            let counter = metrics.rejections();
            return counter.inspect(|counter| report(|| counter.increment(1))).is_some();
        }
        true
    }
}

#[cfg(feature = "metrics")]
impl From<Arc<Metrics>> for Series {
    fn from(metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics) }
    }
}

/// Reports to a recorder that is somebody else's.
#[cfg(feature = "metrics")]
#[inline(always)]
fn report(report: impl FnOnce()) {
    let _ = contain(report);
}

/// Those observers of one circuit that hear of no calls.
pub(crate) fn observers() -> Vec<Arc<dyn Observer>> {
    vec![
        #[cfg(feature = "tracing")]
        Arc::new(crate::tracing::Trace),
    ]
}

/// New observers for one shadow: what the others tell would be mistaken for
/// the live circuit.
#[cfg(feature = "shadow")]
pub(crate) fn shadow_observers(
    circuit: &Arc<str>,
    shadow: &Arc<str>,
    birth: State,
) -> Vec<Arc<dyn ShadowObserver>> {
    let _ = (circuit, shadow, birth);
    vec![
        #[cfg(feature = "metrics")]
        Arc::new(crate::metrics::ShadowMetrics::new(circuit, shadow, birth)),
        #[cfg(feature = "tracing")]
        Arc::new(crate::tracing::ShadowTrace::new(circuit)),
    ]
}
