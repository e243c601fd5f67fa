//! What is worth telling of one service, and when. Pure: time is an argument.
//!
//! A *stretch* is a time in which callers meet the same condition. One that has
//! lasted for the hold-down is *news*, if it differs from the news before; so a
//! trouble that is over before is none, and neither is the good time after it.
//! All news since the last message go into the next one, which comes no sooner
//! than a cooldown after it, unless there will be no other. Whoever flaps is told
//! of as flapping, until ten minutes have passed without another opening.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;
use tower_breaker::OverrideKind;

/// Over how long openings are counted, and how long calm must last.
pub const FLAPPING: Duration = Duration::from_secs(600);

/// How many news a message tells of; of older ones it has the number.
const NEWS: usize = 16;

/// When to tell: see [`Target`](crate::config::Target).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub hold_down: Duration,
    pub cooldown: Duration,
    pub flapping: u32,
}

/// What callers of a service meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Closed,
    /// Open, or trying whether it may close.
    Open,
    /// Opening again and again.
    Flapping,
    /// Under an operator's override.
    Held(OverrideKind),
    /// There is no such service any more.
    Removed,
}

/// What was seen of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub is_registered: bool,
    /// Whether it is anything but closed, by its own rules.
    pub is_open: bool,
    pub held: Option<OverrideKind>,
}

impl Sight {
    pub const CLOSED: Self = Self { is_registered: true, is_open: false, held: None };

    const fn condition(self) -> Condition {
        match self {
            Self { is_registered: false, .. } => Condition::Removed,
            Self { held: Some(kind), .. } => Condition::Held(kind),
            Self { is_open: true, .. } => Condition::Open,
            Self { is_open: false, .. } => Condition::Closed,
        }
    }
}

/// News: a condition that lasts, with whatever is known of how it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News<N> {
    pub condition: Condition,
    pub note: Arc<N>,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<N> {
    /// What was told before; `Closed` at first.
    pub before: Condition,
    /// At least one, oldest first.
    pub news: Vec<News<N>>,
    /// How many older ones were left off.
    pub left_off: u32,
    /// Openings since the last message.
    pub openings: u32,
    /// Those of them that did not last.
    pub brief: u32,
    /// What callers meet now. Not that of the last news if it is too young to
    /// be any.
    pub now: Condition,
}

/// One service, to one target.
#[derive(Debug)]
pub struct Story<N> {
    rules: Rules,
    /// The latest instant that was heard of; nothing goes back.
    clock: Instant,
    sight: Sight,
    stretch: Stretch<N>,
    /// The latest openings within ten minutes: no more than it takes to flap.
    openings: VecDeque<Instant>,
    is_flapping: bool,
    /// The condition of the latest news.
    settled: Condition,
    /// That of the latest news that was told.
    before: Condition,
    news: VecDeque<News<N>>,
    left_off: u32,
    opened: u32,
    brief: u32,
    told_at: Option<Instant>,
}

#[derive(Debug)]
struct Stretch<N> {
    condition: Condition,
    since: Instant,
    note: Arc<N>,
}

impl<N> Story<N> {
    /// Begins with a service of which nothing was told; that it is closed is no
    /// news.
    pub fn new(rules: Rules, now: Instant, note: Arc<N>) -> Self {
        Self {
            rules,
            clock: now,
            sight: Sight::CLOSED,
            stretch: Stretch { condition: Condition::Closed, since: now, note },
            openings: VecDeque::new(),
            is_flapping: false,
            settled: Condition::Closed,
            before: Condition::Closed,
            news: VecDeque::new(),
            left_off: 0,
            opened: 0,
            brief: 0,
            told_at: None,
        }
    }

    /// Goes by other rules from now on.
    pub const fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What was seen last.
    pub const fn sight(&self) -> Sight {
        self.sight
    }

    /// Takes in what was seen, at an instant that may be past.
    pub fn see(&mut self, at: Instant, sight: Sight, note: &Arc<N>) {
        let at = self.pass(at);
        let was = std::mem::replace(&mut self.sight, sight);
        let (from, to) = (was.condition(), sight.condition());
        if from != to {
            let is_brief = self.stretch.since + self.rules.hold_down > at;
            self.brief += u32::from(from == Condition::Open && is_brief);
            self.stretch = Stretch { condition: to, since: at, note: Arc::clone(note) };
        }
        match to {
            Condition::Open if from == Condition::Closed => self.open(at, note),
            // Not by its own doing.
            Condition::Held(_) | Condition::Removed => {
                self.openings.clear();
                self.is_flapping = false;
            }
            _ => {}
        }
        if from == Condition::Removed && self.settled == Condition::Removed {
            // Another of the same name, of which nothing was told.
            self.settled = Condition::Closed;
        }
        if to == Condition::Removed && self.settled == Condition::Closed {
            // Nobody waits for an end.
            self.settled = Condition::Removed;
        }
        self.pass(at);
    }

    fn open(&mut self, at: Instant, note: &Arc<N>) {
        self.opened += 1;
        self.openings.push_back(at);
        while self.openings.front().is_some_and(|first| *first + FLAPPING <= at) {
            self.openings.pop_front();
        }
        let too_many = self.openings.len() > self.rules.flapping as usize;
        if too_many {
            self.openings.pop_front();
        }
        if too_many && !self.is_flapping {
            self.is_flapping = true;
            // Not again, if an operator has only just had a hand in it.
            if self.settled != Condition::Flapping {
                self.add(Condition::Flapping, Arc::clone(note));
            }
        }
        if self.is_flapping && self.openings.is_empty() {
            // The latest says when it is calm.
            self.openings.push_back(at);
        }
    }

    /// What is to be told now, if anything is.
    pub fn tell(&mut self, now: Instant) -> Option<Told<N>> {
        let now = self.pass(now);
        if self.news.is_empty() || self.cooled_at().is_some_and(|cooled| now < cooled) {
            return None;
        }
        self.told_at = Some(now);
        let last = self.news.back().map_or(self.before, |news| news.condition);
        Some(Told {
            before: std::mem::replace(&mut self.before, last),
            news: self.news.drain(..).collect(),
            left_off: std::mem::take(&mut self.left_off),
            openings: std::mem::take(&mut self.opened),
            brief: std::mem::take(&mut self.brief),
            now: self.current(),
        })
    }

    /// What is to be told although it is soon, for there is no later. That it is
    /// closed again is told even if that is young: whoever comes next finds it
    /// so, and for them it is no news. All else they will find.
    pub fn tell_last(&mut self, now: Instant) -> Option<Told<N>> {
        let now = self.pass(now);
        let is_over = self.current() == Condition::Closed && self.settled != Condition::Closed;
        if is_over {
            self.add(Condition::Closed, Arc::clone(&self.stretch.note));
        }
        self.told_at = None;
        self.tell(now)
    }

    /// When there may be something to [`tell`](Self::tell), if nothing happens
    /// until then.
    pub fn due(&self) -> Option<Instant> {
        let news_at = if !self.news.is_empty() {
            Some(self.clock)
        } else if self.is_flapping || self.stretch.condition != self.settled {
            Some(self.lasts_from())
        } else {
            None
        };
        news_at.map(|at| self.cooled_at().map_or(at, |cooled| at.max(cooled)))
    }

    /// Whether there is nothing left to say of it, and nothing to remember.
    pub fn is_over(&self, now: Instant) -> bool {
        !self.sight.is_registered
            && self.news.is_empty()
            && self.settled == Condition::Removed
            && self.cooled_at().is_none_or(|cooled| cooled <= now)
    }

    fn current(&self) -> Condition {
        if self.is_flapping { Condition::Flapping } else { self.stretch.condition }
    }

    fn cooled_at(&self) -> Option<Instant> {
        self.told_at.map(|told| told + self.rules.cooldown)
    }

    /// When the stretch has lasted long enough, if it goes on.
    fn lasts_from(&self) -> Instant {
        let hold_down = match self.stretch.condition {
            Condition::Removed => Duration::ZERO,
            _ => self.rules.hold_down,
        };
        let lasts = self.stretch.since + hold_down;
        self.calm_at().map_or(lasts, |calm| calm.max(lasts))
    }

    /// When it flaps no longer.
    fn calm_at(&self) -> Option<Instant> {
        let last = self.openings.back().filter(|_| self.is_flapping)?;
        Some(*last + FLAPPING)
    }

    /// Lets time pass: what lasts by then is news. Returns the time it is.
    fn pass(&mut self, now: Instant) -> Instant {
        self.clock = self.clock.max(now);
        let lasts = self.lasts_from() <= self.clock;
        if self.calm_at().is_some_and(|calm| calm <= self.clock) {
            self.is_flapping = false;
            self.openings.clear();
        }
        if lasts && !self.is_flapping && self.stretch.condition != self.settled {
            self.add(self.stretch.condition, Arc::clone(&self.stretch.note));
        }
        self.clock
    }

    fn add(&mut self, condition: Condition, note: Arc<N>) {
        self.settled = condition;
        self.news.push_back(News { condition, note });
        if self.news.len() > NEWS {
            self.news.pop_front();
            self.left_off += 1;
        }
    }
}

#[cfg(test)]
mod tests;
