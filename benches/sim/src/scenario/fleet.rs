//! A thousand clients of one dead dependency: what their probes cost it, and
//! whether they come in step.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::Run,
    server::Health,
};

/// All have opened by then.
const OPENED: Duration = seconds(2);
/// The waits have grown by then.
const SETTLED: Duration = seconds(20);

/// A thousand clients.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    rate: f64,
    clients: usize,
    before: Duration,
    length: Duration,
}

impl Fleet {
    /// With `rate` calls a second of each.
    pub fn new(rate: f64, size: Size) -> Self {
        // From 20 s on there is a wave of resilience4j's, which come once a minute.
        let length = seconds(80);
        Self { rate, clients: 1_000, before: seconds(size.pick(40, 5)), length }
    }

    /// When the dependency dies, and when the simulation ends.
    pub fn span(&self) -> (Duration, Duration) {
        (self.before, self.before + self.length)
    }
}

impl Scenario for Fleet {
    fn model(&self, _: Take) -> Model {
        let (from, until) = self.span();
        Model::new(self.clients, self.rate, until).trouble(from, until, Health::Failing(1.0))
    }

    /// A thousand clients are a sample of their own.
    fn takes(&self, size: Size) -> u64 {
        size.pick(size.takes(), 1)
    }

    fn read(&self, _: Take, run: &Run) -> Figures {
        let (from, until) = self.span();
        let (mean, peak) = run.sent_rate(from + SETTLED, until);
        let (_, first_peak) = run.sent_rate(from + OPENED, until);
        Figures::from([
            (Metric::Probes, mean),
            (Metric::PeakOverMean, peak / mean),
            (Metric::FirstPeak, first_peak),
            (Metric::TimeToReject, run.time_to_reject()),
        ])
    }
}
