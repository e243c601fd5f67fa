//! What decides a machine's future: two that have the same are the same state.
//!
//! Times are how far ahead or how long ago, and those longer ago than the longest
//! duration of the rules are alike, because every age is held against one of
//! those. Numbers that only grow (generations, totals, the turns of places) are
//! left out; so is what is only shown. Fields are taken apart by name, so that a
//! new one can't be forgotten.

use std::time::Duration;

use super::super::{Hold, Machine, Open, Overlay, Phase, Place};
use crate::time::{Time, nanos};

impl Machine {
    /// But for which rules it goes by, and for whose its probes and places are.
    pub(super) fn essence(&self, now: Time, longest: Duration) -> Vec<u64> {
        let Self {
            rules,
            phase,
            generation: _,
            revision: _,
            since: _,
            cause: _,
            step,
            noise: _,
            hinted_until,
            overlay,
            hold,
            holds: _,
            let_go: _,
            totals: _,
            now: _,
            next_probe: _,
            lapsed: _,
        } = self;
        let apart = |time: Time| [time.nanos_since(now), nanos(now.since(time).min(longest))];
        let mut essence = Vec::with_capacity(64);
        // The waits that are explored grow no more after as many steps.
        essence.push((*step).min(3).into());
        essence.push(Time::ZERO.after(rules.warm_up).nanos_since(now));
        essence.extend(hinted_until.map_or([u64::MAX; 2], apart));
        match overlay {
            None => essence.push(0),
            Some(Overlay {
                kind,
                reason: _,
                owner: _,
                since: _,
                inherited: _,
                until,
                is_the_starts: _,
            }) => {
                essence.push(1 + *kind as u64);
                essence.extend(until.map_or([u64::MAX; 2], apart));
            }
        }
        let interval = hold.map(|Hold { id: _, interval }| nanos(interval));
        essence.push(interval.unwrap_or_default());
        match phase {
            Phase::Closed(calls) => {
                essence.push(0);
                calls.essence(now, longest, &mut essence);
            }
            Phase::Open(Open { wait, until }) => {
                essence.extend([1, nanos(*wait)]);
                essence.extend(apart(*until));
            }
            Phase::HalfOpen(half_open) => {
                essence.push(2);
                half_open.essence(now, longest, &mut essence);
            }
            Phase::Ramp(ramp) => {
                essence.push(3);
                ramp.essence(now, longest, &mut essence);
            }
        }
        essence
    }

    /// Which of the probes in flight that is.
    pub(super) fn probe_at(&self, id: u64) -> Option<usize> {
        match &self.phase {
            Phase::HalfOpen(half_open) => half_open.place_of(id),
            Phase::Closed(_) | Phase::Open(_) | Phase::Ramp(_) => None,
        }
    }

    /// Which of the calls that it has heard of has that place.
    pub(super) fn call_at(&self, place: Place) -> Option<usize> {
        match &self.phase {
            Phase::Closed(calls) => calls.place_of(place),
            Phase::Ramp(ramp) => ramp.calls.place_of(place),
            Phase::Open(_) | Phase::HalfOpen(_) => None,
        }
    }

    pub(super) fn calls_by_time(&self) -> u64 {
        match &self.phase {
            Phase::Closed(calls) => calls.calls_by_time(),
            Phase::Ramp(ramp) => ramp.calls.calls_by_time(),
            Phase::Open(_) | Phase::HalfOpen(_) => 0,
        }
    }
}
