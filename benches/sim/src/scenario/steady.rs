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
    before: Duration,
    length: Duration,
}

impl Steady {
    /// This share of calls fails, at `rate` calls a second of each client.
    pub fn new(share: f64, rate: f64, size: Size) -> Self {
        // Where next to nothing must happen, more than a million calls in all
        // takes also in the small size.
        let short = if share < 0.1 { 360 } else { 120 };
        let length = seconds(size.pick(600, short));
        Self { share, rate, clients: 20, before: seconds(size.pick(130, 30)), length }
    }

    /// An attacker's 30 % at 500 calls a second, for 11 minutes.
    pub fn attack(size: Size) -> Self {
        let before = seconds(size.pick(130, 5));
        Self { share: 0.3, rate: 500.0, clients: size.pick(2, 1), before, length: seconds(660) }
    }

    /// When the errors begin, and when the simulation ends.
    pub fn span(&self) -> (Duration, Duration) {
        (self.before, self.before + self.length)
    }
}

impl Scenario for Steady {
    fn model(&self, _: Take) -> Model {
        let (from, until) = self.span();
        Model::new(self.clients, self.rate, until).trouble(from, until, Health::Failing(self.share))
    }

    fn read(&self, _: Take, run: &Run) -> Figures {
        let (from, until) = self.span();
        // Nothing opens before it.
        let openings = run.changes.opened as f64 * 1e6 / run.sum(from, until).offered as f64;
        Figures::from([
            (Metric::TimeToReject, run.time_to_reject()),
            (Metric::Refused, run.refused_share(from, until)),
            (Metric::Openings, openings),
            (Metric::Transitions, run.transitions_a_minute()),
            (Metric::Goodput, run.goodput(from, until - seconds(1))),
        ])
    }
}
