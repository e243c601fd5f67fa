//! What physics asks: programs that do one thing a breaker can't do without.

use std::{
    error, fmt,
    hint::black_box,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tower::BoxError;
use tower_breaker::CircuitOpen;

use crate::{
    backend::Request,
    contenders::ours,
    driver::{Ended, Guarded, Looped, Tally},
};

pub const NOTHING: &str = "an empty loop";
pub const GATE: &str = "load a gate";
pub const GATE_AND_ARC: &str = "load a gate, clone and drop an `Arc`";
pub const ADD: &str = "add to an atomic";
pub const MUTEX: &str = "lock and unlock a mutex";
pub const NOW: &str = "`Instant::now`";
pub const NOW_TWICE: &str = "`Instant::now` twice";
pub const TOKIO_NOW: &str = "tokio's `Instant::now`";
pub const TSC: &str = "read the time-stamp counter";
pub const BOX: &str = "box an error as large as `CircuitOpen`";
pub const BOX_AND_NOW: &str = "box an error as large as `CircuitOpen`, `Instant::now`";
pub const COUNTER: &str = "add to Prometheus' counter";
pub const HISTOGRAM: &str = "record in Prometheus' histogram, and add to a counter";
pub const OWN_LINE: &str = "add to an atomic of the thread's own";

const WORDS: usize = size_of::<CircuitOpen>().div_ceil(8);

/// As large as what a refusal tells.
#[derive(Debug)]
struct Error([u64; WORDS]);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl error::Error for Error {}

#[repr(align(128))]
#[derive(Debug, Default)]
struct Line(AtomicU64);

fn boxed() {
    let error: BoxError = Box::new(Error(black_box([0; WORDS])));
    drop(black_box(error));
}

fn each(f: impl Fn() + Clone + Send + 'static) -> Box<dyn Guarded> {
    Box::new(Looped(move |_| {
        f();
        Ended::Answered
    }))
}

/// The first is the empty loop.
pub fn programs() -> Vec<(&'static str, Box<dyn Guarded>)> {
    let gate = || Arc::new(Line::default());
    let load = |gate: &Line| {
        black_box(gate.0.load(Ordering::Acquire));
    };
    vec![
        (NOTHING, each(|| ())),
        (GATE, {
            let gate = gate();
            each(move || load(&gate))
        }),
        (GATE_AND_ARC, {
            let (gate, shared) = (gate(), gate());
            each(move || {
                load(&gate);
                drop(black_box(shared.clone()));
            })
        }),
        (ADD, {
            let count = gate();
            each(move || {
                count.0.fetch_add(1, Ordering::Relaxed);
            })
        }),
        (MUTEX, {
            let mutex = Arc::new(Mutex::new(0u64));
            each(move || {
                if let Ok(mut held) = mutex.lock() {
                    *held += 1;
                }
            })
        }),
        (NOW, each(|| _ = black_box(Instant::now()))),
        (NOW_TWICE, each(|| _ = black_box((Instant::now(), Instant::now())))),
        (TOKIO_NOW, each(|| _ = black_box(tokio::time::Instant::now()))),
        (TSC, {
            let clock = quanta::Clock::new();
            each(move || _ = black_box(clock.raw()))
        }),
        (COUNTER, {
            let counter = ours::recorded(|| metrics::counter!("floor"));
            each(move || counter.increment(1))
        }),
        (HISTOGRAM, {
            let (counter, histogram) =
                ours::recorded(|| (metrics::counter!("floor"), metrics::histogram!("floors")));
            each(move || {
                counter.increment(1);
                histogram.record(0.001);
            })
        }),
        (BOX, each(boxed)),
        (
            BOX_AND_NOW,
            each(|| {
                black_box(Instant::now());
                boxed();
            }),
        ),
    ]
}

/// What several threads share, or don't.
pub fn shared_programs() -> Vec<(&'static str, Box<dyn Guarded>)> {
    let mut shared: Vec<_> = programs()
        .into_iter()
        .filter(|(name, _)| [GATE, GATE_AND_ARC, ADD, MUTEX].contains(name))
        .collect();
    shared.push((OWN_LINE, Box::new(OwnLine::default())));
    shared
}

/// Clones get a line of their own.
#[derive(Debug, Default)]
struct OwnLine(Arc<Line>);

impl Guarded for OwnLine {
    fn run(&mut self, _: Request, calls: u64) -> Tally {
        for _ in 0..calls {
            black_box(&self.0).0.fetch_add(1, Ordering::Relaxed);
        }
        Tally { answered: calls, refused: 0, reached: calls }
    }

    fn another(&self) -> Box<dyn Guarded> {
        Box::new(Self::default())
    }

    fn begin(&mut self, _: Request) -> Box<dyn FnOnce()> {
        Box::new(|| ())
    }
}

/// Some time, to a tenth of a nanosecond.
pub fn nanoseconds(duration: Duration, calls: u64) -> f64 {
    duration.as_secs_f64() * 1e9 / calls as f64
}
