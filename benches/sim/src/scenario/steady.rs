//! A dependency that fails for a share of its calls all the time: buggy inputs,
//! a bad tenant, or an attacker who can choose which calls fail.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::Run,
    server::Health,
};

/// A steady share of errors.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    share: f64,
    rate: f64,
    clients: usize,
    length: Duration,
}

impl Steady {
    /// This share of calls fails, at `rate` calls a second of each client.
    pub fn new(share: f64, rate: f64, size: Size) -> Self {
        // Where next to nothing must happen, more than a million calls in all
        // takes also in the small size.
        let short = if share < 0.1 { 360 } else { 120 };
        let (clients, length) = (20, size.pick(600, short));
        Self { share, rate, clients, length: seconds(length) }
    }

    /// An attacker's 30 % at 500 calls a second, for 11 minutes.
    pub fn attack(size: Size) -> Self {
        Self { share: 0.3, rate: 500.0, clients: size.pick(2, 1), length: seconds(660) }
    }
}

impl Scenario for Steady {
    fn model(&self, _: Take) -> Model {
        Model::new(self.clients, self.rate, self.length).trouble(
            Duration::ZERO,
            self.length,
            Health::Failing(self.share),
        )
    }

    fn read(&self, _: Take, run: &Run) -> Figures {
        Figures::from([
            (Metric::TimeToReject, run.time_to_reject()),
            (Metric::Refused, run.refused_share(Duration::ZERO, self.length)),
            (Metric::Openings, run.openings_a_million()),
            (Metric::Transitions, run.transitions_a_minute()),
            (Metric::Goodput, run.goodput(Duration::ZERO, self.length - seconds(1))),
        ])
    }
}
