//! The same calls by one thread or by several, on one circuit, and the clock.

use std::{
    fs, hint,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::Request,
    driver::{Guarded, Tally},
};

/// What came of some calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// From the first thread to begin to the last to end.
    pub took: Duration,
    pub tally: Tally,
    /// Whether no thread had to leave its processor to another program's.
    pub is_undisturbed: bool,
}

/// Makes `calls` calls on this thread.
pub fn here(guarded: &mut dyn Guarded, request: Request, calls: u64) -> Turn {
    let before = evictions();
    let start = Instant::now();
    let tally = guarded.run(request, calls);
    let took = start.elapsed();
    Turn { took, tally, is_undisturbed: evictions() == before }
}

/// Makes `calls` calls on `threads` threads, each on a clone of the service and
/// on a processor of its own as far as there are some.
pub fn run(guarded: &dyn Guarded, threads: u64, request: Request, calls: u64) -> Turn {
    let processors = &core_affinity::get_core_ids().unwrap_or_default();
    let arrived = &AtomicU64::new(0);
    let ended = thread::scope(|scope| {
        let started: Vec<_> = (0..threads as usize)
            .map(|thread| {
                let mut guarded = guarded.another();
                scope.spawn(move || {
                    if let Some(processor) = processors.get(thread % processors.len().max(1)) {
                        core_affinity::set_for_current(*processor);
                    }
                    // The first calls of a thread make what it keeps.
                    let _: Tally = guarded.run(request, 10);
                    await_all(arrived, threads);
                    let before = evictions();
                    await_all(arrived, 2 * threads);
                    let start = Instant::now();
                    let tally = guarded.run(request, calls / threads);
                    let end = Instant::now();
                    (start, end, tally, evictions() == before)
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut turn = Turn { is_undisturbed: true, ..Turn::default() };
    let (mut first, mut last) = (None, None);
    for thread in ended {
        let (start, end, tally, is_undisturbed) =
            thread.unwrap_or_else(|_| panic!("a thread panicked"));
        first = first.into_iter().chain([start]).min();
        last = last.into_iter().chain([end]).max();
        turn.tally += tally;
        turn.is_undisturbed &= is_undisturbed;
    }
    turn.took = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
    turn
}

/// How often this thread had to leave its processor though it would have run
/// on, where that can be known. Waiting for a lock is not among it.
fn evictions() -> Option<u64> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// Waits on the processor for the others: whoever were woken for it would
/// begin when the first has already ended.
fn await_all(arrived: &AtomicU64, threads: u64) {
    arrived.fetch_add(1, Ordering::AcqRel);
    let mut tries = 0u32;
    while arrived.load(Ordering::Acquire) < threads {
        tries += 1;
        // There may be fewer processors than threads.
        if tries.is_multiple_of(1_000) {
            thread::yield_now();
        }
        hint::spin_loop();
    }
}
