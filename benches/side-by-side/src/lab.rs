//! Rounds: every cell gets a turn of about a millisecond in each, in an order
//! that is shuffled anew, so that whatever else the machine does meets all alike.

use std::{collections::BTreeMap, thread::available_parallelism, time::Duration};

use crate::{
    backend::{Ask, Request},
    driver::{Guarded, Tally},
    floor::nanoseconds,
    threads,
};

/// What a cell's calls must come to, or it is not what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Answered,
    TenthFails,
    Refused,
}

impl Expected {
    fn check(self, name: &str, tally: Tally) {
        let calls = tally.answered + tally.refused;
        let is_met = match self {
            Self::Answered => tally.refused == 0 && tally.reached == calls,
            Self::TenthFails => {
                // A turn may begin anywhere in the ten.
                tally.reached == calls && tally.refused.abs_diff(calls / 10) <= 10
            }
            Self::Refused => tally.answered == 0 && tally.reached == 0,
        };
        assert!(is_met, "{name}: {tally:?} where it was to be {self:?}");
    }

    const fn ask(self) -> Ask {
        match self {
            Self::TenthFails => Ask::TenthFails,
            Self::Answered | Self::Refused => Ask::Answer,
        }
    }
}

/// One column of one contender.
pub struct Cell {
    column: &'static str,
    name: String,
    /// The name of what is taken off, in the same column.
    over: &'static str,
    expected: Expected,
    guarded: Box<dyn Guarded>,
    threads: u64,
    calls: u64,
    /// Nanoseconds a call, one a round.
    turns: Vec<f64>,
    /// How many of them others came between.
    disturbed: u64,
}

impl Cell {
    pub fn new(
        column: &'static str,
        name: impl Into<String>,
        over: &'static str,
        expected: Expected,
        guarded: Box<dyn Guarded>,
    ) -> Self {
        let name = name.into();
        Self {
            column,
            name,
            over,
            expected,
            guarded,
            threads: 0,
            calls: 0,
            turns: Vec::new(),
            disturbed: 0,
        }
    }

    /// On so many threads of their own.
    #[must_use]
    pub fn threads(mut self, threads: u64) -> Self {
        self.threads = threads;
        self
    }

    /// Another program that comes between costs a turn some milliseconds, and
    /// keeps threads apart that were to meet. So such a turn is had again, for a
    /// while, unless there are more threads than processors.
    fn turn(&mut self, calls: u64) -> f64 {
        let request = Request::new(self.expected.ask());
        let tries = if self.has_processors() { 10 } else { 1 };
        let mut took = 0.0;
        for _ in 0..tries {
            let turn = match self.threads {
                0 => threads::here(&mut *self.guarded, request, calls),
                threads => threads::run(&*self.guarded, threads, request, calls),
            };
            self.expected.check(&self.name, turn.tally);
            took = nanoseconds(turn.took, calls);
            if turn.is_undisturbed {
                return took;
            }
        }
        self.disturbed += 1;
        took
    }

    fn has_processors(&self) -> bool {
        self.threads <= available_parallelism().map_or(1, usize::from) as u64
    }

    /// Finds how many calls take about so long.
    fn calibrate(&mut self, turn: Duration) {
        self.turn(2_000);
        let call = (0..3).map(|_| self.turn(400)).fold(f64::INFINITY, f64::min);
        let calls = turn.as_secs_f64() * 1e9 / call.max(0.5);
        // A multiple of all numbers of threads and of ten.
        self.calls = (calls as u64 / 40).max(1) * 40;
    }
}

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    pub turn: Duration,
}

/// What a cell came to: medians over the rounds, in nanoseconds a call.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Over what it was measured against, in the same round.
    pub over: f64,
    /// As it was.
    pub whole: f64,
    /// Half of the rounds were between these, over.
    pub quartiles: (f64, f64),
}

/// All figures of a run, by column and name.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    figures: BTreeMap<(&'static str, String), Figure>,
    turns: BTreeMap<(&'static str, String), Vec<f64>>,
    disturbed: (u64, u64),
}

impl Figures {
    pub fn get(&self, column: &'static str, name: &str) -> Option<Figure> {
        self.figures.get(&(column, name.to_owned())).copied()
    }

    /// The median over the rounds of how much faster `name` was in `column`
    /// than in `than`, as a whole.
    pub fn speed_up(&self, column: &'static str, than: &'static str, name: &str) -> Option<f64> {
        let ours = self.turns.get(&(column, name.to_owned()))?;
        let theirs = self.turns.get(&(than, name.to_owned()))?;
        Some(median(ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect()))
    }

    /// The share of the turns in which another program came between all the same,
    /// of those whose threads had processors of their own.
    pub fn disturbed(&self) -> f64 {
        self.disturbed.0 as f64 / self.disturbed.1 as f64
    }

    pub fn len(&self) -> usize {
        self.figures.len()
    }

    pub fn is_empty(&self) -> bool {
        self.figures.is_empty()
    }

    pub fn extend(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.turns.extend(other.turns);
        self.disturbed.0 += other.disturbed.0;
        self.disturbed.1 += other.disturbed.1;
    }
}

/// Measures all cells side by side; `between` runs after each round.
///
/// # Panics
///
/// If a cell does not do what it says.
pub fn measure(mut cells: Vec<Cell>, effort: Effort, mut between: impl FnMut()) -> Figures {
    for cell in &mut cells {
        cell.calibrate(effort.turn);
        cell.disturbed = 0;
    }
    between();
    let mut order: Vec<usize> = (0..cells.len()).collect();
    let mut random = 0x9E37_79B9_7F4A_7C15;
    for _ in 0..effort.rounds {
        shuffle(&mut order, &mut random);
        for &index in &order {
            let Some(cell) = cells.get_mut(index) else { continue };
            let took = cell.turn(cell.calls);
            cell.turns.push(took);
        }
        between();
    }
    let turns: BTreeMap<_, _> =
        cells.iter().map(|cell| ((cell.column, cell.name.clone()), cell.turns.clone())).collect();
    let figures = cells
        .iter()
        .map(|cell| {
            let key = (cell.column, cell.name.clone());
            let bare = turns.get(&(cell.column, cell.over.to_owned()));
            let mut over: Vec<f64> = match bare {
                Some(bare) => cell.turns.iter().zip(bare).map(|(own, bare)| own - bare).collect(),
                None => cell.turns.clone(),
            };
            over.sort_by(f64::total_cmp);
            let at = |share: usize| over.get(over.len() * share / 4).copied().unwrap_or(f64::NAN);
            let figure = Figure {
                over: at(2),
                whole: median(cell.turns.clone()),
                quartiles: (at(1), at(3)),
            };
            (key, figure)
        })
        .collect();
    let disturbed =
        cells.iter().filter(|cell| cell.has_processors()).fold((0, 0), |(disturbed, all), cell| {
            (disturbed + cell.disturbed, all + cell.turns.len() as u64)
        });
    Figures { figures, turns, disturbed }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shuffle(order: &mut [usize], random: &mut u64) {
    for last in (1..order.len()).rev() {
        // Xorshift: any order will do, as long as it changes.
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        order.swap(last, (*random % (last as u64 + 1)) as usize);
    }
}
