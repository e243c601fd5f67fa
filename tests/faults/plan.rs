//! What happens in a run, drawn from its seed: the rules, the stack, and what
//! goes wrong when.

use std::time::Duration;

use tokio::time::Instant;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// On the clock that all of a run is on.
#[expect(clippy::disallowed_methods, reason = "it is paused, and nobody's wall clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Nothing goes wrong from then on.
pub(crate) const HEALED_AT: Duration = ms(2_500);

/// SplitMix64: a run is its seed.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Others, that say nothing of these.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.draw())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wrong {
    /// What is sent is lost, and nobody is told.
    Partition,
    /// Every answer takes so many milliseconds longer.
    Slow(u64),
    /// The connection breaks before the head.
    Reset,
    /// The server says 503.
    Unavailable,
    /// The head is fine, and half of the body; then the connection breaks.
    HalfBody,
    /// The same, but nobody is told.
    StuckBody,
    /// All connections break, and none can be made.
    Crash,
    /// The server is well, until a probe comes: it crashes half-way through.
    CrashAtProbe,
}

/// A stretch of time in which something is wrong with a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) server: usize,
    pub(crate) wrong: Wrong,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Open {
    Error,
    Defer,
    Wait,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) servers: usize,
    /// Processes, each with a circuit of its own.
    pub(crate) clients: usize,
    /// Callers in each.
    pub(crate) callers: usize,
    pub(crate) faults: Vec<Fault>,
    /// The machine stands still for a while: when, and for how long.
    pub(crate) pauses: Vec<(Duration, Duration)>,
    pub(crate) when_open: Open,
    pub(crate) retries: u32,
    /// What a caller waits at most.
    pub(crate) deadline: Duration,
    /// What an attempt may take, if that is bounded.
    pub(crate) attempt: Option<Duration>,
    pub(crate) to_the_end_of_body: bool,
    pub(crate) time_window: bool,
    /// Longer than that is slow.
    pub(crate) slow: Option<Duration>,
    pub(crate) sustained: Duration,
    pub(crate) row: Option<u32>,
    pub(crate) first_wait: Duration,
    pub(crate) longest_wait: Duration,
    pub(crate) probes: u32,
    pub(crate) successes: u32,
    pub(crate) lease: Duration,
    pub(crate) ramp: Option<Duration>,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let servers = dice.between(1, 2) as usize;
        let probes = dice.between(1, 3) as u32;
        let first_wait = ms(dice.of(&[100, 250]));
        // A caller's hang shows by its age, or by the attempt's end.
        let attempt = (!dice.one_in(4)).then(|| ms(dice.of(&[150, 400])));
        let slow = (attempt.is_none() || dice.one_in(3)).then(|| ms(dice.of(&[100, 300])));
        Self {
            seed,
            servers,
            clients: dice.between(1, 2) as usize,
            callers: dice.between(2, 3) as usize,
            faults: (0..dice.between(1, 4)).map(|_| Self::fault(dice, servers)).collect(),
            pauses: (0..dice.below(4).saturating_sub(1))
                .map(|_| (ms(dice.below(2_500)), ms(dice.between(1, 2_000))))
                .collect(),
            when_open: dice.of(&[Open::Error, Open::Defer, Open::Wait]),
            retries: dice.below(3) as u32,
            deadline: ms(dice.of(&[500, 1_000])),
            attempt,
            to_the_end_of_body: dice.one_in(2),
            time_window: dice.one_in(3),
            slow,
            sustained: ms(dice.of(&[0, 0, 200])),
            row: dice.one_in(3).then_some(3),
            first_wait,
            longest_wait: first_wait * 4,
            probes,
            successes: dice.between(1, probes.into()) as u32,
            lease: ms(dice.of(&[300, 600])),
            ramp: dice.one_in(4).then(|| ms(400)),
        }
    }

    fn fault(dice: &mut Dice, servers: usize) -> Fault {
        let wrong = dice.of(&[
            Wrong::Partition,
            Wrong::Partition,
            Wrong::Slow(250),
            Wrong::Slow(2_000),
            Wrong::Reset,
            Wrong::Unavailable,
            Wrong::HalfBody,
            Wrong::StuckBody,
            Wrong::Crash,
            Wrong::CrashAtProbe,
        ]);
        let from = dice.below(2_000);
        let to = from + dice.between(200, 1_500);
        let server = dice.below(servers as u64) as usize;
        Fault { server, wrong, from: ms(from), to: ms(to).min(HEALED_AT) }
    }

    /// From when on a circuit is closed for good: what began while something was
    /// wrong has ended; a lease may have begun just then, the longest wait may
    /// follow, a caller has to come by for each probe, and the ramp has its time.
    pub(crate) fn recovered_at(&self) -> Duration {
        let ended = HEALED_AT + self.deadline.max(self.attempt.unwrap_or_default());
        let opened = self.lease + self.longest_wait.mul_f64(1.2);
        ended + opened + ms(500) + self.ramp.unwrap_or_default()
    }

    pub(crate) fn paused(&self) -> Duration {
        self.pauses.iter().map(|(_, length)| *length).sum()
    }
}
