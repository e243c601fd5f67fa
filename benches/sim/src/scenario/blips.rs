//! A dependency that answers with errors for 200 ms now and then: a failover,
//! a deployment, a lost connection.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::Run,
    server::Health,
};

const BLIP: Duration = Duration::from_millis(200);
const APART: Duration = seconds(30);

/// A blip every half a minute.
#[derive(Clone, Copy, Debug)]
pub struct Blips {
    rate: f64,
    clients: usize,
    blips: u32,
}

impl Blips {
    /// At `rate` calls a second of each client.
    pub fn new(rate: f64, size: Size) -> Self {
        let clients = if rate > 100.0 { size.pick(4, 2) } else { size.pick(20, 8) };
        Self { rate, clients, blips: size.pick(20, 4) }
    }
}

impl Scenario for Blips {
    fn model(&self, _: Take) -> Model {
        let length = APART * (self.blips + 1);
        (1..=self.blips)
            .map(|blip| APART * blip)
            .fold(Model::new(self.clients, self.rate, length), |model, from| {
                model.trouble(from, from + BLIP, Health::Failing(1.0))
            })
    }

    fn read(&self, _: Take, run: &Run) -> Figures {
        let blips = f64::from(self.blips) * self.clients as f64;
        let end = APART * (self.blips + 1);
        Figures::from([
            (Metric::TrippedBlips, run.changes.opened as f64 / blips),
            (Metric::Refused, run.refused_share(Duration::ZERO, end)),
            (Metric::Transitions, run.transitions_a_minute()),
        ])
    }
}
