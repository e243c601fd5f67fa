//! The stairs between the house and its roof: who watches a circuit without
//! being asked, by feature. The only file below that may name the roof.

use std::sync::Arc;

use crate::circuit::Observer;
#[cfg(feature = "shadow")]
use crate::circuit::ShadowObserver;

/// New observers for one circuit.
pub(crate) fn observers() -> Vec<Arc<dyn Observer>> {
    vec![
        #[cfg(feature = "metrics")]
        Arc::new(crate::metrics::Metrics::default()),
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
) -> Vec<Arc<dyn ShadowObserver>> {
    let _ = (circuit, shadow);
    vec![
        #[cfg(feature = "metrics")]
        Arc::new(crate::metrics::ShadowMetrics::new(circuit, shadow)),
        #[cfg(feature = "tracing")]
        Arc::new(crate::tracing::ShadowTrace::new(circuit)),
    ]
}
