//! What Prometheus is told.

use std::{fmt, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::proxy::Stop;

/// Seconds. From a cache's answer to a call that has been given up.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How often what has been counted is added up, so that it takes no more and
/// more memory while nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// All that is counted in this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Has everything counted from here on. Circuits that are made before it are
    /// not.
    ///
    /// # Errors
    ///
    /// If something counts already.
    pub fn install() -> Result<Self, String> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .and_then(PrometheusBuilder::install_recorder);
        let handle = recorder.map_err(|error| format!("metrics can't be counted: {error}"))?;
        ::metrics::gauge!("gateway_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self(handle))
    }

    /// As Prometheus reads it.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps the memory flat, until it is told to stop.
    pub async fn keep_up(self, mut stop: Stop) {
        loop {
            tokio::select! {
                () = stop.told() => return,
                () = tokio::time::sleep(UPKEEP) => self.0.run_upkeep(),
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
