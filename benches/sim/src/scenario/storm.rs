//! A storm of retries that outlives what set it off: a server that stalls for
//! a few seconds, clients that try three times at once, and a queue in which
//! calls grow older than anybody waits for.

use std::time::Duration;

use super::{Scenario, Size, Take, seconds};
use crate::{
    engine::Model,
    figures::{Figures, Metric},
    run::Run,
    server::{Capacity, Health},
};

/// How long the server may stall: 1 s is no storm yet.
pub const STALLS: [u64; 3] = [2, 3, 5];
/// How many calls may queue: work for 1.2, 1.6 and 2 s, while a caller waits
/// for one.
pub const QUEUES: [usize; 3] = [1_500, 2_000, 2_500];

/// A metastable failure.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    stall: Duration,
    queue: usize,
    before: Duration,
    after: Duration,
}

impl Storm {
    /// The one in the middle of the grid.
    pub fn new(size: Size) -> Self {
        Self::with(STALLS[1], QUEUES[1], size)
    }

    /// One with a stall of so many seconds and a queue of so many calls.
    pub fn with(stall: u64, queue: usize, size: Size) -> Self {
        let (before, after) = size.pick((130, 150), (40, 62));
        Self { stall: seconds(stall), queue, before: seconds(before), after: seconds(after) }
    }

    /// The stall.
    pub fn span(&self, take: Take) -> (Duration, Duration) {
        (self.before, self.before + take.spread(self.stall))
    }
}

impl Scenario for Storm {
    fn model(&self, take: Take) -> Model {
        let (from, until) = self.span(take);
        let capacity = Capacity {
            workers: 25,
            service: Duration::from_millis(20),
            queue: self.queue,
            cold: None,
        };
        let model = Model::new(20, 50.0, until + self.after);
        Model { attempts: 3, capacity: Some(capacity), ..model }.trouble(
            from,
            until,
            Health::Hanging,
        )
    }

    fn read(&self, take: Take, run: &Run) -> Figures {
        let (_, until) = self.span(take);
        let end = until + self.after;
        Figures::from([
            (Metric::TimeToReject, run.time_to_reject()),
            (Metric::Recovery, run.recovery(until, seconds(1))),
            (Metric::Goodput, run.goodput(until, until + seconds(60))),
            (Metric::OverloadPeak, run.overload_peak(until, end)),
            (Metric::Transitions, run.transitions_a_minute()),
        ])
    }
}
