//! The circuits by key, within bounds.
//!
//! Calls only read: a shard's lock is shared, and what a call writes is one
//! flag, once between two looks of the keeper. The keeper is whoever makes or
//! evicts; there is one at a time, so there is one circuit a key.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, PoisonError},
    time::Instant,
};

use hashbrown::HashTable;

use super::tally::Member;
use crate::{
    circuit::{
        Circuit, Standing,
        sync::{
            AtomicBool, AtomicU64, IS_MODEL, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard,
        },
    },
    time::{Time, nanos},
};

pub(super) struct Map {
    /// Keyed anew for every map: whoever chooses the keys can't aim at a slot.
    hasher: RandomState,
    /// A power of two.
    shards: Box<[Shard]>,
}

/// Alone on its cache lines, or calls for other shards would wait for it.
#[repr(align(128))]
struct Shard(RwLock<HashTable<Entry>>);

pub(super) struct Entry {
    hash: u64,
    key: Arc<str>,
    pub(super) circuit: Circuit,
    pub(super) member: Arc<Member>,
    /// Whether it was found since the keeper last looked.
    used: AtomicBool,
    /// Nanoseconds: when the keeper last saw it used.
    idle_since: AtomicU64,
}

impl Entry {
    pub(super) fn new(
        hash: u64,
        key: Arc<str>,
        circuit: Circuit,
        member: Arc<Member>,
        now: Time,
    ) -> Self {
        let idle_since = AtomicU64::new(now.as_nanos());
        Self { hash, key, circuit, member, used: AtomicBool::new(false), idle_since }
    }

    fn is(&self, hash: u64, key: &str) -> bool {
        self.hash == hash && *self.key == *key
    }

    /// Since when nobody has found it, as far as the keeper knows.
    fn idle_since(&self, now: Time) -> u64 {
        if self.used.load(Ordering::Relaxed) {
            self.used.store(false, Ordering::Relaxed);
            self.idle_since.store(now.as_nanos(), Ordering::Relaxed);
        }
        self.idle_since.load(Ordering::Relaxed)
    }
}

/// When the keeper looks, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) time: Time,
}

/// An entry that may go. The better of two is the smaller.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Its standing, and since when it is idle.
    rating: (Standing, u64),
    hash: u64,
    key: Arc<str>,
}

/// What the keeper knows: how many there are, and where to go on looking.
#[derive(Default)]
pub(super) struct Keeper {
    pub(super) len: usize,
    sweep: usize,
    /// Nanoseconds: until when the sweeping is done.
    swept: u64,
    evict: usize,
    /// Circuits that time alone has closed, to tell so by `catch_up` with the
    /// lock released: until then they are counted as half-open.
    pub(super) late: Vec<Circuit>,
}

impl Map {
    pub(super) fn new(capacity: usize) -> Self {
        // In a model nothing may be a matter of chance, such as where a key falls.
        let fewest = if IS_MODEL { 1 } else { 32 };
        let shards = (capacity / 64).next_power_of_two().clamp(fewest, 1_024);
        let shards = (0..shards).map(|_| Shard(RwLock::new(HashTable::new()))).collect();
        Self { hasher: RandomState::new(), shards }
    }

    #[inline]
    pub(super) fn hash(&self, key: &str) -> u64 {
        // In one go: nothing follows that it would have to be told from.
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key.as_bytes());
        hasher.finish()
    }

    /// A key's circuit, which is thereby in use.
    pub(super) fn find(&self, hash: u64, key: &str) -> Option<Circuit> {
        self.with(hash, key, Circuit::clone)
    }

    /// What is had of a key's circuit, which is thereby in use. A lock is held
    /// for it.
    #[inline]
    pub(super) fn with<R>(
        &self,
        hash: u64,
        key: &str,
        get: impl FnOnce(&Circuit) -> R,
    ) -> Option<R> {
        let shard = self.shard(hash).read();
        let entry = shard.find(hash, |entry| entry.is(hash, key))?;
        // Written only when it changes: every call reads its cache line.
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        Some(get(&entry.circuit))
    }

    /// A key's circuit; it is not in use for that.
    pub(super) fn get(&self, hash: u64, key: &str) -> Option<Circuit> {
        let shard = self.shard(hash).read();
        shard.find(hash, |entry| entry.is(hash, key)).map(|entry| entry.circuit.clone())
    }

    /// All circuits, shard by shard.
    pub(super) fn circuits(&self, _: &Keeper) -> Vec<Circuit> {
        let mut circuits = Vec::new();
        for shard in &self.shards {
            circuits.extend(shard.read().iter().map(|entry| entry.circuit.clone()));
        }
        circuits
    }

    /// The places of all circuits in the tally.
    #[cfg(all(feature = "metrics", feature = "registry"))]
    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        let mut members = Vec::new();
        for shard in &self.shards {
            members.extend(shard.read().iter().map(|entry| Arc::clone(&entry.member)));
        }
        members
    }

    pub(super) fn insert(&self, keeper: &mut Keeper, entry: Entry) {
        keeper.len += 1;
        self.shard(entry.hash).write().insert_unique(entry.hash, entry, |entry| entry.hash);
    }

    /// Takes out what nobody needs any more and nobody has used for so long,
    /// from the next shard; says how many circuits it looked at.
    fn sweep(&self, keeper: &mut Keeper, now: Now, idle_for: u64, gone: &mut Vec<Entry>) -> usize {
        let shard = &self.shards[keeper.sweep & (self.shards.len() - 1)];
        keeper.sweep = keeper.sweep.wrapping_add(1);
        let may_go = |entry: &Entry| {
            let seen = now.time.as_nanos().saturating_sub(entry.idle_since(now.time));
            if seen < idle_for && entry.circuit.is_closed() {
                return false;
            }
            let idle = match entry.circuit.standing(now.instant) {
                Standing::Due(Some(idle)) => nanos(idle),
                Standing::Blank | Standing::Closed | Standing::Due(None) => seen,
                Standing::Needed => return false,
            };
            idle >= idle_for && !entry.circuit.is_held()
        };
        // By reading first, so that calls need not wait for a look.
        let (looked, some_may_go) = {
            let shard = shard.read();
            // All of them: a look notes who was used.
            (shard.len(), shard.iter().filter(|entry| may_go(entry)).count() > 0)
        };
        if some_may_go {
            let before = gone.len();
            gone.extend(shard.write().extract_if(|entry| may_go(entry)));
            keeper.len -= gone.len() - before;
            gone[before..].iter().for_each(|entry| entry.member.leave());
        }
        let shard = shard.read();
        let late = shard.iter().filter(|entry| entry.circuit.has_closed_untold(now.instant));
        keeper.late.extend(late.map(|entry| entry.circuit.clone()));
        looked
    }

    /// Sweeps as much as is due for every shard to have its turn four times in
    /// `idle_for`; a part of it, if that is much.
    pub(super) fn sweep_due(
        &self,
        keeper: &mut Keeper,
        now: Now,
        idle_for: u64,
        gone: &mut Vec<Entry>,
    ) {
        const MOST: usize = 10_000;
        let shards = self.shards.len() as u64;
        let step = (idle_for / (4 * shards)).max(1);
        let behind = now.time.as_nanos().saturating_sub(keeper.swept);
        let due = (behind / step).min(shards);
        let (mut swept, mut looked) = (0, 0);
        while swept < due && looked < MOST {
            looked += self.sweep(keeper, now, idle_for, gone);
            swept += 1;
        }
        // Whoever comes more often than there is a step takes nothing from the next.
        let left = (due - swept) * step + behind % step;
        keeper.swept = now.time.as_nanos().saturating_sub(left);
    }

    /// Like `sweep`, from every shard.
    pub(super) fn sweep_all(
        &self,
        keeper: &mut Keeper,
        now: Now,
        idle_for: u64,
        gone: &mut Vec<Entry>,
    ) {
        for _ in 0..self.shards.len() {
            self.sweep(keeper, now, idle_for, gone);
        }
    }

    /// Takes out the closed circuit that is missed least. Does not look
    /// everywhere in a large map.
    pub(super) fn evict(&self, keeper: &mut Keeper, now: Now) -> Option<Entry> {
        const ENOUGH: usize = 64;
        const MOST: usize = 1_024;
        let mut looked = 0;
        let mut best: Option<Candidate> = None;
        for _ in 0..self.shards.len() {
            let shard = self.shards[keeper.evict & (self.shards.len() - 1)].read();
            keeper.evict = keeper.evict.wrapping_add(1);
            looked += shard.len();
            best = [best, candidate(&shard, now)].into_iter().flatten().min();
            if looked >= MOST || looked >= ENOUGH && best.is_some() {
                break;
            }
        }
        let Candidate { hash, key, .. } = best?;
        let mut shard = self.shard(hash).write();
        let entry = shard.find_entry(hash, |entry| entry.is(hash, &key)).ok()?;
        // It may have opened since it was looked at.
        let may_go = entry.get().circuit.standing(now.instant) <= Standing::Closed;
        may_go.then(|| {
            keeper.len -= 1;
            entry.get().member.leave();
            entry.remove().0
        })
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        // Other bits than those the table uses.
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }
}

/// The entry of a shard that is missed least, if one may go.
fn candidate(shard: &HashTable<Entry>, now: Now) -> Option<Candidate> {
    let by_idleness = || shard.iter().map(|entry| (entry.idle_since(now.time), entry));
    let rated = |(idle_since, entry): (u64, &'_ Entry)| {
        let standing = entry.circuit.standing(now.instant);
        (standing <= Standing::Closed).then_some((standing, idle_since))
    };
    // Nearly always the one idle longest will do.
    let longest = by_idleness().min_by_key(|(idle_since, _)| *idle_since)?;
    let (rating, entry) = match rated(longest) {
        Some(rating @ (Standing::Blank, _)) => (rating, longest.1),
        _ => by_idleness()
            .filter_map(|seen| rated(seen).map(|rating| (rating, seen.1)))
            .min_by_key(|(rating, _)| *rating)?,
    };
    Some(Candidate { rating, hash: entry.hash, key: Arc::clone(&entry.key) })
}

impl Shard {
    #[inline]
    fn read(&self) -> RwLockReadGuard<'_, HashTable<Entry>> {
        // Nothing in there panics half-way.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Entry>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
