//! What a breaker has to be for the runner.

use std::{error::Error, fmt, time::Duration};

use crate::{feature::Feature, rules::Rules};

/// A kind of breaker that can be judged.
pub trait Subject {
    /// Its name, as a column's head.
    fn name(&self) -> &str;

    /// Whether it says of itself that it has this.
    fn claims(&self, feature: Feature) -> bool;

    /// Makes a breaker by these rules, and has `play` play with it. Called only
    /// with rules that ask for nothing it doesn't claim, and once for each
    /// attempt at a scenario.
    ///
    /// # Errors
    ///
    /// If it refuses the rules: what it says.
    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn Breaker, &mut dyn Time),
    ) -> Result<(), Refused>;
}

/// A breaker, in whatever threads ask it.
pub trait Breaker: Sync {
    /// Asks for a call: one that is under way, or `None` if it is refused.
    fn ask(&self) -> Option<Box<dyn Call>>;

    /// The state it tells, if it tells one. Else it is judged by what it
    /// admits.
    fn state(&self) -> Option<State> {
        None
    }

    /// What can be seen of it. Asked only if the [`Feature`] is claimed.
    fn seen(&self) -> Seen {
        Seen::default()
    }

    /// Does this to it. Called only if the [`Feature`] is claimed.
    fn command(&self, command: Command) {
        let _ = command;
    }
}

/// A call that was admitted. To drop it is to have it dropped: its caller has
/// gone away.
pub trait Call: Send {
    /// Ends it.
    fn end(self: Box<Self>, end: End);
}

/// The time of a breaker.
pub trait Time {
    /// Moves it on.
    ///
    /// # Errors
    ///
    /// If it can't be moved so far.
    fn advance(&mut self, by: Duration) -> Result<(), TooLong>;

    /// Whether it is what the steps say it is. If it is late, what was seen
    /// proves nothing, and the scenario is played again.
    fn is_right(&self) -> bool {
        true
    }
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Good.
    Success,
    /// Bad.
    Failure,
    /// Neither.
    Neutral,
    /// It panics.
    Panic,
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It admits calls.
    Closed,
    /// It refuses them.
    Open,
    /// It probes.
    HalfOpen,
}

/// What is done to a breaker by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens it, once.
    Trip,
    /// Closes it, once.
    Reset,
    /// Holds it open.
    ForceOpen,
    /// Holds it closed.
    ForceClosed,
    /// Holds it no longer.
    Lift,
}

/// What can be seen of a breaker; zero where it doesn't tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Calls in the window.
    pub calls: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those of them that were slow.
    pub slow: u64,
    /// The failure rate, if there is one.
    pub rate: Option<f64>,
    /// Calls that were refused, ever.
    pub refused: u64,
    /// Calls that were good, ever.
    pub good: u64,
    /// Calls that were bad, ever.
    pub bad: u64,
    /// Calls that came too late to count, ever.
    pub stale: u64,
    /// The calls that the last opening was decided by, and those of them that
    /// failed.
    pub decided_by: Option<(u64, u64)>,
}

/// Rules that a breaker refused, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// A time too long to be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLong(pub Duration);

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl Command {
    pub(crate) fn needs(self) -> Option<Feature> {
        match self {
            Self::Trip => Some(Feature::Trip),
            Self::Reset => Some(Feature::Reset),
            Self::ForceOpen => Some(Feature::ForceOpen),
            Self::ForceClosed => Some(Feature::ForceClosed),
            Self::Lift => None,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} would have to be waited for", humantime::format_duration(self.0))
    }
}

impl Error for TooLong {}
