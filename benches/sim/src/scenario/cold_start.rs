//! A dependency that comes back cold: with 30 % of its capacity, which grows
//! over half a minute, under a demand of 80 % of what it can do warm.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::Run,
    server::{Capacity, Cold, Health, WarmUp},
};

const DEMAND: f64 = 1_000.0;
const LENGTH: Duration = seconds(40);

/// A cold start.
#[derive(Clone, Copy, Debug)]
pub struct ColdStart {
    clients: usize,
    by: WarmUp,
    before: Duration,
    after: Duration,
}

impl ColdStart {
    /// So many clients, which want 1,000 calls a second between them; the
    /// dependency is warm after half a minute.
    pub fn new(clients: usize, size: Size) -> Self {
        Self {
            clients,
            by: WarmUp::Time(seconds(30)),
            before: seconds(size.pick(130, 30)),
            after: seconds(size.pick(120, 60)),
        }
    }

    /// The same, but only work warms it: it takes as many calls as it does in
    /// half a minute with half of its capacity.
    pub fn by_work(self) -> Self {
        Self { by: WarmUp::Calls(18_750), ..self }
    }

    /// The outage before the cold start.
    pub fn span(&self, take: Take) -> (Duration, Duration) {
        (self.before, self.before + take.spread(LENGTH))
    }
}

impl Scenario for ColdStart {
    fn model(&self, take: Take) -> Model {
        let (from, until) = self.span(take);
        let capacity = Capacity {
            workers: 25,
            service: Duration::from_millis(20),
            queue: 1_000,
            cold: Some(Cold { share: 0.3, by: self.by }),
        };
        let rate = DEMAND / self.clients as f64;
        let model = Model::new(self.clients, rate, until + self.after);
        Model { capacity: Some(capacity), ..model }.trouble(from, until, Health::Failing(1.0))
    }

    fn read(&self, take: Take, run: &Run) -> Figures {
        let (_, until) = self.span(take);
        let end = until + self.after - seconds(1);
        Figures::from([
            (Metric::OverloadPeak, run.overload_peak(until, end)),
            (Metric::Recovery, run.recovery(until, seconds(1))),
            (Metric::Goodput, run.goodput(until, until + seconds(60).min(self.after - seconds(1)))),
            (Metric::Transitions, run.transitions_a_minute()),
        ])
    }
}
