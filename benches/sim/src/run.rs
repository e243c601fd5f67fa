//! What a run leaves behind, and what is read out of it.

use std::time::Duration;

use crate::policy::Changes;

/// The grain of the series.
pub const STEP: Duration = Duration::from_millis(100);

/// What happened in one step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Calls that clients wanted to make.
    pub offered: u64,
    /// Of the calls wanted here, those that succeeded, at whatever attempt.
    pub ok: u64,
    /// Of the calls wanted here, those the policy refused.
    pub refused: u64,
    /// Attempts that went to the dependency here.
    pub sent: u64,
    /// Calls a second it could do, when it was last sent one.
    pub capacity: f64,
}

impl Bucket {
    /// What was sent in this time, as a multiple of what the dependency could
    /// do.
    pub fn load(&self, time: Duration) -> f64 {
        if self.sent == 0 {
            return 0.0;
        }
        self.sent as f64 / (self.capacity * time.as_secs_f64())
    }
}

/// Calls of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Calls that clients wanted to make.
    pub offered: u64,
    /// Those of them that succeeded.
    pub ok: u64,
    /// Those of them that the policy refused.
    pub refused: u64,
    /// Attempts that went to the dependency.
    pub sent: u64,
}

/// What one client noticed of the first trouble.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientLog {
    /// How long after it began a call was refused.
    pub first_refusal: Option<Duration>,
    /// Calls sent before that, from its beginning.
    pub sent: u64,
    /// Those of them that failed.
    pub lost: u64,
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct Run {
    /// In steps of [`STEP`].
    pub series: Vec<Bucket>,
    /// By client.
    pub clients: Vec<ClientLog>,
    /// By shard, what was wanted or sent during trouble.
    pub shards: Vec<Tally>,
    /// By shard, what was wanted or sent at other times.
    pub elsewhere: Vec<Tally>,
    /// Of all policies together.
    pub changes: Changes,
}

impl Run {
    pub(crate) fn new(length: Duration, shards: usize) -> Self {
        let steps = length.as_nanos().div_ceil(STEP.as_nanos()) as usize;
        Self {
            series: vec![Bucket::default(); steps],
            clients: Vec::new(),
            shards: vec![Tally::default(); shards],
            elsewhere: vec![Tally::default(); shards],
            changes: Changes::default(),
        }
    }

    /// The median client's time to its first refusal, in seconds; infinite if
    /// half of them were never refused.
    pub fn time_to_reject(&self) -> f64 {
        let times = self.clients.iter().map(|client| {
            client.first_refusal.map_or(f64::INFINITY, |refusal| refusal.as_secs_f64())
        });
        median(times)
    }

    /// The median client's calls lost before its first refusal.
    pub fn lost(&self) -> f64 {
        median(self.clients.iter().map(|client| client.lost as f64))
    }

    /// The median client's calls sent before its first refusal.
    pub fn sent_before_refusal(&self) -> f64 {
        median(self.clients.iter().map(|client| client.sent as f64))
    }

    /// Everything that happened in a stretch.
    pub fn sum(&self, from: Duration, until: Duration) -> Bucket {
        sum(self.slice(from, until))
    }

    /// The share of the calls wanted in a stretch that succeeded.
    pub fn goodput(&self, from: Duration, until: Duration) -> f64 {
        let sum = self.sum(from, until);
        sum.ok as f64 / sum.offered as f64
    }

    /// What was sent in a stretch, as a share of what was wanted.
    pub fn sent_share(&self, from: Duration, until: Duration) -> f64 {
        let sum = self.sum(from, until);
        sum.sent as f64 / sum.offered as f64
    }

    /// The share of the calls wanted in a stretch that were refused.
    pub fn refused_share(&self, from: Duration, until: Duration) -> f64 {
        let sum = self.sum(from, until);
        sum.refused as f64 / sum.offered as f64
    }

    /// Seconds from `healed` to the first stretch as long as `window` in which
    /// 95 % of the calls wanted succeeded; infinite if there is none.
    pub fn recovery(&self, healed: Duration, window: Duration) -> f64 {
        let steps = (window.as_nanos() / STEP.as_nanos()) as usize;
        let after = self.slice(healed, STEP * self.series.len() as u32);
        let first = after.windows(steps).position(|window| {
            let offered: u64 = window.iter().map(|bucket| bucket.offered).sum();
            let ok: u64 = window.iter().map(|bucket| bucket.ok).sum();
            offered > 0 && ok * 100 >= offered * 95
        });
        first.map_or(f64::INFINITY, |step| step as f64 * STEP.as_secs_f64())
    }

    /// The most that was sent in any second of a stretch, as a multiple of
    /// what the dependency could do in that second.
    pub fn overload_peak(&self, from: Duration, until: Duration) -> f64 {
        let second = (1_000 / STEP.as_millis()) as usize;
        let windows = self.slice(from, until).windows(second);
        windows.map(|window| sum(window).load(Duration::from_secs(1))).fold(0.0, f64::max)
    }

    /// Calls a second that were sent in a stretch: the mean, and the most in
    /// any one second.
    pub fn sent_rate(&self, from: Duration, until: Duration) -> (f64, f64) {
        let second = (1_000 / STEP.as_millis()) as usize;
        let slice = self.slice(from, until);
        let mean = self.sum(from, until).sent as f64 / (until - from).as_secs_f64();
        let sums = slice.windows(second).map(|w| w.iter().map(|bucket| bucket.sent).sum::<u64>());
        (mean, sums.max().unwrap_or(0) as f64)
    }

    /// Transitions a minute of one policy.
    pub fn transitions_a_minute(&self) -> f64 {
        let minutes = STEP.as_secs_f64() * self.series.len() as f64 / 60.0;
        self.changes.transitions as f64 / self.clients.len() as f64 / minutes
    }

    fn slice(&self, from: Duration, until: Duration) -> &[Bucket] {
        let step = |time: Duration| (time.as_nanos() / STEP.as_nanos()) as usize;
        &self.series[step(from)..step(until).min(self.series.len())]
    }
}

/// Counts add up; a capacity is the mean of those that were asked for.
fn sum(buckets: &[Bucket]) -> Bucket {
    let asked = buckets.iter().filter(|bucket| bucket.sent > 0);
    let (capacities, times) =
        asked.fold((0.0, 0u32), |(sum, times), bucket| (sum + bucket.capacity, times + 1));
    let capacity = capacities / f64::from(times.max(1));
    let start = Bucket { capacity, ..Bucket::default() };
    buckets.iter().fold(start, |sum, bucket| Bucket {
        offered: sum.offered + bucket.offered,
        ok: sum.ok + bucket.ok,
        refused: sum.refused + bucket.refused,
        sent: sum.sent + bucket.sent,
        ..sum
    })
}

/// The median; of an even number, the lower one of the two in the middle, so
/// that it is a value that was seen.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
