//! A dependency of ten shards, one of which is dead.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::{Run, Tally},
    server::{Health, Trouble},
};

const SHARDS: usize = 10;
const BEFORE: Duration = seconds(40);

/// One dead shard of ten, for two minutes.
#[derive(Clone, Copy, Debug)]
pub struct Shards {
    keyed: bool,
    clients: usize,
    length: Duration,
}

impl Shards {
    /// With a breaker for each shard, or one for all.
    pub fn new(keyed: bool, size: Size) -> Self {
        Self { keyed, clients: size.pick(20, 6), length: seconds(120) }
    }
}

impl Scenario for Shards {
    fn model(&self, take: Take) -> Model {
        let until = BEFORE + take.spread(self.length);
        let health = Health::Failing(1.0);
        let trouble = Trouble { from: BEFORE, until, health, shard: Some(0) };
        let model = Model::new(self.clients, 50.0, until + seconds(5));
        Model { shards: SHARDS, keyed: self.keyed, troubles: vec![trouble], ..model }
    }

    fn read(&self, _: Take, run: &Run) -> Figures {
        let dead = run.shards[0];
        let healthy = run.shards[1..].iter().fold(Tally::default(), |sum, shard| Tally {
            offered: sum.offered + shard.offered,
            ok: sum.ok + shard.ok,
            ..sum
        });
        Figures::from([
            (Metric::HealthyLoss, (healthy.offered - healthy.ok) as f64 / healthy.offered as f64),
            (Metric::SentToDead, dead.sent as f64 / dead.offered as f64),
            (Metric::Transitions, run.transitions_a_minute()),
        ])
    }
}
