//! A copy of a tape, to be kept and read.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::{
    Block, Sums,
    record::{Event, decode},
};
use crate::state::State;

/// What a [`Recorder`](crate::Recorder) kept of a circuit's calls: when each
/// began and ended, how, and what it was judged by; when a call was refused;
/// and when the circuit changed its state.
///
/// It takes about eight bytes a call.
/// [`write_to`](Self::write_to) and [`read_from`](Self::read_from) keep it in
/// a file; [`replay`](Self::replay) says what other rules would have done.
/// Times are [`Duration`]s since the recorded circuit was made, exact to the
/// nanosecond; [`began`](Self::began) says when that was.
///
/// ```
/// use tower_breaker::{Circuit, Config, Outcome, Recorder, Recording};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let recorder = Recorder::new(1_000_000);
/// let circuit = Circuit::new(Config::builder("inventory").recorder(&recorder).build()?);
/// circuit.try_acquire()?.record(Outcome::Success);
///
/// let mut file = Vec::new();
/// recorder.recording().write_to(&mut file)?;
/// let recording = Recording::read_from(&*file)?;
/// assert_eq!(recording.calls(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Recording {
    pub(super) origin: Origin,
    pub(super) taken: u64,
    pub(super) dropped: Sums,
    pub(super) blocks: Vec<Block>,
}

/// Which circuit was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) name: String,
    /// Nanoseconds from 1970 to when the circuit was made.
    pub(crate) born: u64,
    /// What its jitter was drawn from.
    pub(crate) seed: u64,
}

/// The recorded circuit went from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedChange {
    /// When, since the circuit was made.
    pub at: Duration,
    /// The state it left.
    pub from: State,
    /// The state it went to.
    pub to: State,
    /// Why: [`Cause::label`](crate::Cause::label).
    pub cause: String,
}

impl Recording {
    pub(super) fn new(origin: Origin, taken: u64, dropped: Sums, blocks: Vec<Block>) -> Self {
        Self { origin, taken, dropped, blocks }
    }

    /// The name of the circuit that was recorded.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// When the circuit was made, by the wall clock: what all times count from.
    pub fn began(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.origin.born)
    }

    /// From when on nothing is missing: zero, unless the oldest was dropped.
    pub fn starts_at(&self) -> Duration {
        Duration::from_nanos(self.blocks.first().map_or(0, |block| block.base))
    }

    /// When it was taken from the recorder.
    pub fn ends_at(&self) -> Duration {
        Duration::from_nanos(self.taken)
    }

    /// The calls it holds. One that had not ended when it was taken is not
    /// among them.
    pub fn calls(&self) -> u64 {
        self.sums().calls
    }

    /// The refusals it holds.
    pub fn rejections(&self) -> u64 {
        self.sums().refusals
    }

    /// The calls and refusals that were dropped to make room.
    pub fn dropped(&self) -> u64 {
        self.dropped.calls.saturating_add(self.dropped.refusals)
    }

    /// The bytes of its records.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes.len()).sum()
    }

    /// What the recorded circuit itself did.
    pub fn transitions(&self) -> Vec<RecordedChange> {
        let change = |(at, event)| match event {
            Event::Change { ago, from, to, cause } => {
                Some(RecordedChange { at: Duration::from_nanos(at - ago), from, to, cause })
            }
            Event::Call(_) | Event::Refusal => None,
        };
        self.events().filter_map(change).collect()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.origin.seed
    }

    /// Everything in order, with its time.
    pub(crate) fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        self.blocks.iter().flat_map(Block::events)
    }

    pub(super) fn sums(&self) -> Sums {
        self.blocks.iter().fold(Sums::default(), |mut sums, block| {
            sums.add(block.sums);
            sums
        })
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("name", &self.origin.name)
            .field("calls", &self.calls())
            .field("rejections", &self.rejections())
            .field("dropped", &self.dropped())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl Block {
    /// Its events: all of them, because nothing else is made or read.
    fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        let mut rest = &*self.bytes;
        let mut at = self.base;
        std::iter::from_fn(move || {
            let (step, event) = decode(&mut rest).ok()?;
            at = at.saturating_add(step);
            Some((at, event))
        })
    }

    /// Adds up what its bytes hold and returns the time of the last record; or
    /// says what is wrong, and at which byte.
    pub(super) fn check(&mut self) -> Result<u64, (usize, &'static str)> {
        self.sums = Sums::default();
        let mut at = self.base;
        let mut rest = &*self.bytes;
        while !rest.is_empty() {
            let offset = self.bytes.len() - rest.len();
            let wrong = |what| (offset, what);
            let (step, event) = decode(&mut rest).map_err(wrong)?;
            at = at.checked_add(step).ok_or(wrong("time runs past its end"))?;
            let reaches_back = match &event {
                Event::Call(call) => call.duration,
                Event::Change { ago, .. } => *ago,
                Event::Refusal => 0,
            };
            if reaches_back > at {
                return Err(wrong("something began before its circuit"));
            }
            self.sums.count(&event);
        }
        Ok(at)
    }
}
