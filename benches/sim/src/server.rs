//! The dependency: how long an answer takes, how much it can do, and what is
//! wrong with it when.

use std::{collections::VecDeque, time::Duration};

use crate::rng::Rng;

/// How a healthy answer takes its time: this much, and as much again as three
/// times this on average, exponentially.
const FASTEST: Duration = Duration::from_millis(5);
const REST: Duration = Duration::from_millis(15);

/// What is wrong with a dependency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Health {
    /// Nothing.
    Up,
    /// This share of calls gets an error, after 5 ms.
    Failing(f64),
    /// Calls get no answer. One with workers starts no work until it is over.
    Hanging,
}

/// A stretch of trouble.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub until: Duration,
    /// What is wrong.
    pub health: Health,
    /// The one shard it strikes, or all.
    pub shard: Option<usize>,
}

/// The trouble there is at an instant, of those in order.
pub(crate) fn trouble_at(troubles: &[Trouble], now: Duration) -> Option<&Trouble> {
    let next = troubles.partition_point(|trouble| trouble.until <= now);
    troubles.get(next).filter(|trouble| trouble.from <= now)
}

/// What a dependency with limits can do.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Calls it works on at once.
    pub workers: usize,
    /// The mean time of one call, exponentially distributed.
    pub service: Duration,
    /// Calls that may wait; the others get an error at once.
    pub queue: usize,
    /// How it comes back from trouble.
    pub cold: Option<Cold>,
}

impl Capacity {
    /// Calls a second, when warm.
    pub fn rate(&self) -> f64 {
        self.workers as f64 / self.service.as_secs_f64()
    }
}

/// A start with cold caches.
#[derive(Clone, Copy, Debug)]
pub struct Cold {
    /// The share of its capacity it has when it comes back.
    pub share: f64,
    /// What warms it, linearly.
    pub by: WarmUp,
}

/// What warms a server.
#[derive(Clone, Copy, Debug)]
pub enum WarmUp {
    /// Time.
    Time(Duration),
    /// Calls that it has done.
    Calls(u64),
}

/// Names a call for as long as somebody may ask after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId {
    pub(crate) place: usize,
    pub(crate) version: u64,
}

/// What becomes of a call that has arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reaction {
    /// The answer comes then.
    Answer { at: Duration, ok: bool },
    /// A worker is at it until then, whether or not somebody still waits.
    Work { until: Duration },
    /// It waits for a worker, or for ever.
    Nothing,
}

/// The dependency's state.
#[derive(Debug)]
pub(crate) struct Server {
    capacity: Option<Capacity>,
    troubles: Vec<Trouble>,
    busy: usize,
    waiting: VecDeque<CallId>,
    /// Calls done since the last trouble.
    done: u64,
}

impl Server {
    pub(crate) fn new(capacity: Option<Capacity>, troubles: Vec<Trouble>) -> Self {
        Self { capacity, troubles, busy: 0, waiting: VecDeque::new(), done: 0 }
    }

    pub(crate) fn arrive(
        &mut self,
        now: Duration,
        call: CallId,
        shard: usize,
        rng: &mut Rng,
    ) -> Reaction {
        let trouble = self.trouble(now, shard);
        if let Some(Trouble { health: Health::Failing(share), .. }) = trouble {
            if rng.happens(share) {
                return Reaction::Answer { at: now + FASTEST, ok: false };
            }
        }
        let Some(capacity) = self.capacity else {
            return match trouble {
                Some(Trouble { health: Health::Hanging, .. }) => Reaction::Nothing,
                _ => Reaction::Answer { at: now + FASTEST + rng.exponential(REST), ok: true },
            };
        };
        if self.busy < capacity.workers {
            self.busy += 1;
            return Reaction::Work { until: self.work(now, &capacity, rng) };
        }
        if self.waiting.len() < capacity.queue {
            self.waiting.push_back(call);
            return Reaction::Nothing;
        }
        Reaction::Answer { at: now + Duration::from_millis(1), ok: false }
    }

    /// A worker is done; returns the call it takes up next, and until when.
    pub(crate) fn done(&mut self, now: Duration, rng: &mut Rng) -> Option<(CallId, Duration)> {
        let capacity = self.capacity?;
        self.done += 1;
        let Some(call) = self.waiting.pop_front() else {
            self.busy -= 1;
            return None;
        };
        Some((call, self.work(now, &capacity, rng)))
    }

    /// Calls a second it can do now.
    pub(crate) fn rate(&self, now: Duration) -> f64 {
        self.capacity.map_or(f64::INFINITY, |capacity| capacity.rate() * self.warmth(now))
    }

    /// When a call that is begun now is done.
    fn work(&mut self, now: Duration, capacity: &Capacity, rng: &mut Rng) -> Duration {
        let begin = match self.trouble(now, 0) {
            Some(Trouble { health: Health::Hanging, until, .. }) => until,
            _ => now,
        };
        begin + rng.exponential(capacity.service).div_f64(self.warmth(begin))
    }

    fn warmth(&self, now: Duration) -> f64 {
        let Some(cold) = self.capacity.and_then(|capacity| capacity.cold) else { return 1.0 };
        let Some(healed) = self.troubles.iter().map(|trouble| trouble.until).rfind(|t| *t <= now)
        else {
            return 1.0;
        };
        let part = match cold.by {
            WarmUp::Time(time) => (now - healed).as_secs_f64() / time.as_secs_f64(),
            WarmUp::Calls(calls) => self.done as f64 / calls as f64,
        };
        cold.share + (1.0 - cold.share) * part.min(1.0)
    }

    /// What is wrong now. Also forgets the warmth that is lost by it.
    fn trouble(&mut self, now: Duration, shard: usize) -> Option<Trouble> {
        let trouble = *trouble_at(&self.troubles, now)?;
        self.done = 0;
        trouble.shard.is_none_or(|struck| struck == shard).then_some(trouble)
    }
}
