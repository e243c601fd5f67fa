//! A dependency that dies, hangs or half-fails for a while, without limits to
//! what it could do.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::Run,
    server::Health,
};

/// An outage of about two minutes; five where there is little traffic.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    health: Health,
    rate: f64,
    clients: usize,
    /// Long enough to fill the longest window there is: two minutes.
    before: Duration,
    length: Duration,
    after: Duration,
    /// Over which recovery is judged.
    window: Duration,
}

impl Outage {
    /// At `rate` calls a second of each client.
    pub fn new(health: Health, rate: f64, size: Size) -> Self {
        let rare = rate < 1.0;
        Self {
            health,
            rate,
            clients: if rate > 100.0 { size.pick(4, 2) } else { 20 },
            before: seconds(if rare { 600 } else { size.pick(130, 35) }),
            length: seconds(if rare { 300 } else { size.pick(120, 60) }),
            after: seconds(if rare { 200 } else { size.pick(100, 60) }),
            window: seconds(if rare { 10 } else { 1 }),
        }
    }

    /// When it begins and ends.
    pub fn span(&self, take: Take) -> (Duration, Duration) {
        (self.before, self.before + take.spread(self.length))
    }
}

impl Scenario for Outage {
    fn model(&self, take: Take) -> Model {
        let (from, until) = self.span(take);
        Model::new(self.clients, self.rate, until + self.after).trouble(from, until, self.health)
    }

    fn read(&self, take: Take, run: &Run) -> Figures {
        let (from, until) = self.span(take);
        let end = until + self.after;
        Figures::from([
            (Metric::TimeToReject, run.time_to_reject()),
            (Metric::Lost, run.lost()),
            (Metric::SentInTrouble, run.sent_share(from, until)),
            (Metric::Recovery, run.recovery(until, self.window)),
            (Metric::Goodput, run.goodput(until, end - seconds(2))),
            (Metric::Transitions, run.transitions_a_minute()),
        ])
    }
}
