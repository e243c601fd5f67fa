//! A dependency that hangs, and callers that wait for ever: nothing fails, and
//! nothing ends.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::Run,
    server::Health,
};

const BEFORE: Duration = seconds(40);

/// What the slow rule is set to here.
pub const SLOW: Duration = seconds(2);

/// No timeouts anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Hung {
    rate: f64,
    clients: usize,
    length: Duration,
}

impl Hung {
    /// At `rate` calls a second of each client.
    pub fn new(rate: f64, size: Size) -> Self {
        let length = if rate < 1.0 { 120 } else { 60 };
        Self { rate, clients: size.pick(20, 6), length: seconds(length) }
    }

    /// When it begins to hang, and when the simulation ends.
    pub fn span(&self) -> (Duration, Duration) {
        (BEFORE, BEFORE + self.length)
    }
}

impl Scenario for Hung {
    fn model(&self, _: Take) -> Model {
        let until = BEFORE + self.length;
        let model = Model::new(self.clients, self.rate, until);
        Model { timeout: None, ..model }.trouble(BEFORE, until, Health::Hanging)
    }

    fn read(&self, _: Take, run: &Run) -> Figures {
        let until = BEFORE + self.length;
        Figures::from([
            (Metric::TimeToReject, run.time_to_reject()),
            (Metric::Stuck, run.sent_before_refusal()),
            (Metric::SentInTrouble, run.sent_share(BEFORE, until)),
        ])
    }
}
