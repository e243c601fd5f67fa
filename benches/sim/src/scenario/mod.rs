//! The troubles, one file a kind.

mod blips;
mod cold_start;
mod fleet;
mod hung;
mod outage;
mod shards;
mod steady;
mod storm;

use std::{fmt, thread, time::Duration};

pub use self::{
    blips::Blips,
    cold_start::ColdStart,
    fleet::Fleet,
    hung::{Hung, SLOW},
    outage::Outage,
    shards::Shards,
    steady::Steady,
    storm::{QUEUES, STALLS, Storm},
};
use crate::{contender::Contender, engine::Model, figures::Figures, run::Run};

/// A kind of trouble with its parameters.
pub trait Scenario: fmt::Debug + Sync {
    /// What is simulated in one take.
    fn model(&self, take: Take) -> Model;

    /// What one take shows.
    fn read(&self, take: Take, run: &Run) -> Figures;

    /// How many takes its numbers are of.
    fn takes(&self, size: Size) -> u64 {
        size.takes()
    }

    /// One take.
    fn run(&self, contender: Contender, take: Take) -> Run {
        self.model(take).run(contender, take.seed())
    }

    /// So many takes in one: medians, where nothing else is said.
    fn measure(&self, contender: Contender, takes: u64) -> Figures {
        let figures: Vec<Figures> = thread::scope(|scope| {
            let play = |take| move || self.read(take, &self.run(contender, take));
            let takes: Vec<_> = Take::each(takes).map(|take| scope.spawn(play(take))).collect();
            takes.into_iter().map(|take| take.join().expect("a take does not panic")).collect()
        });
        Figures::combine(&figures)
    }
}

/// One of several runs of the same scenario, each with its own seed.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    number: u64,
    of: u64,
}

impl Take {
    /// All of so many.
    pub fn each(of: u64) -> impl Iterator<Item = Self> {
        (0..of).map(move |number| Self { number, of })
    }

    /// The first.
    pub fn first(of: u64) -> Self {
        Self { number: 0, of }
    }

    /// Its seed: 1, 2, 3 and so on.
    pub fn seed(self) -> u64 {
        self.number + 1
    }

    /// A length around `mean`, from three quarters to five quarters of it, evenly
    /// spread over the takes. A fixed length flatters the breaker whose waits
    /// happen to end with it.
    pub fn spread(self, mean: Duration) -> Duration {
        mean.mul_f64(0.75 + 0.5 * (self.number as f64 + 0.5) / self.of as f64)
    }
}

/// How much is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For the report.
    Full,
    /// For tests, which run without optimisation.
    Small,
}

impl Size {
    /// One or the other.
    pub fn pick<T>(self, full: T, small: T) -> T {
        match self {
            Self::Full => full,
            Self::Small => small,
        }
    }

    /// How many takes numbers are of, where nothing else is said.
    pub fn takes(self) -> u64 {
        self.pick(5, 3)
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
