//! Windows whose cost should not depend on their size.
//!
//! A tenth of the calls fails, or a clean window would let the good ones pass
//! without a look. The circuit stands alone, so that nothing else is in the
//! figures. A count window is full before it is measured, and goes round; the
//! largest is wider than the first cache.

use std::time::Duration;

use tower_breaker::{Circuit, Config, ManualClock, Outcome, Window};

use crate::{
    backend::{Ask, Request},
    driver::{Ended, Guarded, Looped},
    lab::{Cell, Expected},
};

pub const COLUMN: &str = "windows";
pub const CLOCK: &str = "setting the clock";
pub const COUNTS: [u32; 3] = [100, 10_000, 1_000_000];
pub const BUCKETS: [u32; 3] = [10, 100, 1_000];
/// Short, so that a thousand of them a call stay within centuries.
const SPAN: Duration = Duration::from_millis(10);

/// How the calls of a time window follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// In the same bucket.
    Still,
    /// Each in the next bucket.
    Bucket,
    /// Each after the window has become empty twice over.
    Gap,
    /// Each after a thousand windows.
    LongGap,
}

impl Pace {
    pub const ALL: [Self; 4] = [Self::Still, Self::Bucket, Self::Gap, Self::LongGap];

    fn step(self, buckets: u32) -> Duration {
        match self {
            Self::Still => Duration::ZERO,
            Self::Bucket => SPAN / buckets,
            Self::Gap => 2 * SPAN,
            Self::LongGap => 1_000 * SPAN,
        }
    }
}

pub fn count_name(calls: u32) -> String {
    format!("the last {} calls", thousands(calls.into()))
}

pub fn time_name(buckets: u32, pace: Pace) -> String {
    let pace = match pace {
        Pace::Still => "calls in one bucket",
        Pace::Bucket => "a call a bucket",
        Pace::Gap => "a call after a gap of 2 spans",
        Pace::LongGap => "a call after a gap of 1,000 spans",
    };
    format!("{} buckets, {pace}", thousands(buckets.into()))
}

/// A circuit whose window holds the last `calls` calls, and is full.
pub fn count(calls: u32) -> Box<dyn Guarded> {
    let circuit = circuit(Window::count(calls), ManualClock::new());
    let mut looped = looped(circuit, || ());
    looped.run(Request::new(Ask::TenthFails), calls.into());
    looped
}

pub fn cells() -> Vec<Cell> {
    let cell =
        |name: String, guarded| Cell::new(COLUMN, name, CLOCK, Expected::TenthFails, guarded);
    let mut cells: Vec<_> =
        COUNTS.into_iter().map(|calls| cell(count_name(calls), count(calls))).collect();
    for buckets in BUCKETS {
        for pace in Pace::ALL {
            let clock = ManualClock::new();
            let circuit = circuit(Window::time(SPAN).buckets(buckets), clock.clone());
            let step = pace.step(buckets);
            cells
                .push(cell(time_name(buckets, pace), looped(circuit, move || clock.advance(step))));
        }
    }
    let clock = ManualClock::new();
    let set = Looped(move |_| {
        clock.advance(Duration::from_millis(1));
        Ended::Answered
    });
    cells.push(Cell::new(COLUMN, CLOCK, "", Expected::Answered, Box::new(set)));
    cells
}

fn circuit(window: Window, clock: ManualClock) -> Circuit {
    let config = Config::builder("window").window(window).clock(clock);
    Circuit::new(config.build().unwrap_or_else(|error| panic!("{error}")))
}

fn looped(circuit: Circuit, before: impl Fn() + Clone + Send + 'static) -> Box<dyn Guarded> {
    let mut calls = 0u64;
    Box::new(Looped(move |_| {
        before();
        let Ok(permit) = circuit.try_acquire() else { return Ended::Refused };
        calls += 1;
        if calls.is_multiple_of(10) {
            permit.record(Outcome::Failure);
            Ended::Failed
        } else {
            permit.record(Outcome::Success);
            Ended::Answered
        }
    }))
}

/// A number with its thousands set apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
