//! Lanes: what the calls of one thread write, so that threads on one circuit do
//! not take the same cache lines from each other.
//!
//! Every call holds its circuit, and many are counted. On one reference count
//! and one counter, two threads together are slower than one alone. A circuit's
//! handle therefore has lanes, and a permit holds the lane of the thread that
//! took it. A lane is shared where there are more threads than lanes, and may be
//! left by another thread than entered it: that is slower and no less exact.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock, Weak},
    thread,
};

use super::{
    Circuit,
    circuit_open::CircuitOpen,
    flights::Flights,
    pace::Timing,
    permit::{Permit, Started},
    shared::Shared,
    sync::{AtomicU64, IS_MODEL, Ordering},
    tally::Tally,
};
use crate::machine::Ticket;

/// A handle's way to its circuit.
pub(super) struct Lanes {
    shared: Arc<Shared>,
    /// Made when their first thread comes.
    lanes: Box<[OnceLock<Arc<Lane>>]>,
}

/// A permit's way to its circuit.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    /// What refusals are copied from, so that those of different lanes share
    /// nothing.
    pub(super) refusal: Box<CircuitOpen>,
    handle: Weak<Lanes>,
    _apart: Apart,
}

/// What a lane's calls are counted in.
#[derive(Default)]
pub(super) struct Counters {
    /// Successes that passed the clean gate.
    pub(super) passed: AtomicU64,
    /// Rejections at the open one.
    pub(super) rejected: AtomicU64,
    /// Successes that the machine has yet to hear of.
    pub(super) tally: Tally,
    /// Made when the first call is watched.
    pub(super) flights: OnceLock<Box<Flights>>,
    /// Calls that might have been samples. Two threads on one lane may count as
    /// one.
    turns: AtomicU64,
    _apart: Apart,
}

/// The counters of all lanes. They are the circuit's and not the handle's, for
/// calls may outlive all handles.
pub(super) struct AllCounters(Box<[OnceLock<Arc<Counters>>]>);

/// Fills up two cache lines (the processor fetches pairs), so that what stands
/// before it has none in common with anybody.
#[derive(Default)]
struct Apart {
    _words: [u64; 12],
}

impl Lanes {
    pub(super) fn of(shared: Arc<Shared>) -> Arc<Self> {
        let lanes =
            Arc::new(Self { shared, lanes: (0..lanes()).map(|_| OnceLock::new()).collect() });
        if IS_MODEL {
            // A model check does not see that a lane is made before it is used.
            (0..lanes.lanes.len()).for_each(|index| drop(Arc::clone(lanes.open(index))));
        }
        lanes
    }

    /// The lane of this thread.
    #[inline(always)]
    pub(super) fn lane(self: &Arc<Self>) -> &Arc<Lane> {
        let index = seat() & (self.lanes.len() - 1);
        match self.lanes[index].get() {
            Some(lane) => lane,
            None => self.open(index),
        }
    }

    #[cold]
    fn open(self: &Arc<Self>, index: usize) -> &Arc<Lane> {
        self.lanes[index].get_or_init(|| {
            Arc::new(Lane {
                shared: Arc::clone(&self.shared),
                counters: self.shared.counters.of_lane(index),
                refusal: Box::new(self.shared.refusal()),
                handle: Arc::downgrade(self),
                _apart: Apart::default(),
            })
        })
    }

    #[cfg(feature = "health-check")]
    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    /// Whether the other handle's circuit is the same.
    #[cfg(feature = "registry")]
    pub(super) fn lead_where(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether there is another handle than this one, or a permit.
    #[cfg(feature = "keyed")]
    pub(super) fn is_held(self: &Arc<Self>) -> bool {
        let has_permits = |lane: &Arc<Lane>| Arc::strong_count(lane) > 1;
        Arc::strong_count(self) > 1 || self.lanes.iter().filter_map(OnceLock::get).any(has_permits)
    }
}

impl Deref for Lanes {
    type Target = Shared;

    #[inline]
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Lane {
    /// The permit for a call that passes where everybody does. The caller has the
    /// circuit at hand, and need not wait for the lane to find it.
    #[inline(always)]
    pub(super) fn permit(
        self: &Arc<Self>,
        shared: &Shared,
        generation: u64,
        measured: bool,
    ) -> Permit {
        let (ticket, started) = match shared.pace.timing(measured, &self.counters) {
            Timing::No => (Ticket::call(generation), Started::Untimed),
            Timing::Sampled => (Ticket::sample(generation), shared.start()),
            Timing::Yes => (Ticket::call(generation), shared.start()),
        };
        Permit::new(Arc::clone(self), ticket, started)
    }

    /// A handle to its circuit.
    pub(super) fn circuit(&self) -> Circuit {
        let handle = self.handle.upgrade();
        Circuit(handle.unwrap_or_else(|| Lanes::of(Arc::clone(&self.shared))))
    }
}

impl Counters {
    /// One call in so many is a sample.
    const CALLS_A_SAMPLE: u64 = 64;

    /// Whether this one is.
    #[inline]
    pub(super) fn is_turn(&self) -> bool {
        let turn = self.turns.load(Ordering::Relaxed);
        self.turns.store(turn.wrapping_add(1), Ordering::Relaxed);
        turn % Self::CALLS_A_SAMPLE == 0
    }
}

impl AllCounters {
    pub(super) fn new() -> Self {
        Self((0..lanes()).map(|_| OnceLock::new()).collect())
    }

    fn of_lane(&self, index: usize) -> Arc<Counters> {
        Arc::clone(self.0[index].get_or_init(Arc::default))
    }

    /// What they come to together.
    pub(super) fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.sum_of(|counters| counter(counters).load(Ordering::Relaxed))
    }

    pub(super) fn sum_of(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.all().map(count).sum()
    }

    /// The calls in flight that are watched.
    pub(super) fn flights(&self) -> impl Iterator<Item = &Flights> {
        self.all().filter_map(|counters| counters.flights.get()).map(Box::as_ref)
    }

    fn all(&self) -> impl Iterator<Item = &Counters> {
        self.0.iter().filter_map(OnceLock::get).map(Arc::as_ref)
    }
}

/// How many lanes a circuit has: one for each thread that can run at once, up
/// to 16. A power of two.
fn lanes() -> usize {
    if IS_MODEL {
        return 2;
    }
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        threads.next_power_of_two().min(16)
    })
}

/// The same for the threads of a model check, which are no threads.
#[cfg(any(tower_breaker_loom, tower_breaker_shuttle))]
fn seat() -> usize {
    let id = format!("{:?}", super::sync::thread::current().id());
    id.bytes().filter(u8::is_ascii_digit).map(usize::from).next_back().unwrap_or_default()
}

/// A number for this thread; those that came one after the other differ by one.
#[cfg(not(any(tower_breaker_loom, tower_breaker_shuttle)))]
#[inline]
fn seat() -> usize {
    use std::{cell::Cell, sync::atomic::AtomicUsize};

    const NONE: usize = usize::MAX;
    thread_local!(static SEAT: Cell<usize> = const { Cell::new(NONE) });

    #[cold]
    fn take() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let seat = NEXT.fetch_add(1, Ordering::Relaxed);
        SEAT.set(seat);
        seat
    }

    match SEAT.get() {
        NONE => take(),
        seat => seat,
    }
}
