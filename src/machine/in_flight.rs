//! Calls that have not ended, in the order they began: who is overdue is known
//! without looking at the others.

use std::time::Duration;

use crate::time::Time;

/// One call's place. It is somebody else's once the call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    index: u32,
    /// Which of the calls that had this place.
    turn: u32,
}

impl Place {
    const TURN_BITS: u32 = 30;

    /// In 62 bits.
    pub(super) const fn to_bits(self) -> u64 {
        (self.turn as u64) << u32::BITS | self.index as u64
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        // Each half fits.
        Self { index: bits as u32, turn: (bits >> u32::BITS) as u32 }
    }
}

/// A list through a vector: a place is taken and left in constant time, and
/// memory follows the calls in flight.
///
/// Calls begin in the order of time, so those overdue come first in the list.
/// The cursor stands behind them. One that has been overdue for a whole window
/// drops out: it is no news any more, and a call that never ends must not
/// count for ever.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    /// `None`: nobody minds their age any more, and none is kept that begins.
    allowed: Option<Duration>,
    calls: Vec<Flight>,
    free: Vec<u32>,
    first: Option<u32>,
    last: Option<u32>,
    /// The first that is not overdue yet.
    cursor: Option<u32>,
    overdue: u64,
}

#[derive(Clone, Debug)]
struct Flight {
    turn: u32,
    began: Time,
    /// What the window's odometer showed when it became overdue, or, where only
    /// calls move that on, when it was found.
    found_at: Option<u64>,
    before: Option<u32>,
    after: Option<u32>,
}

impl InFlight {
    pub(super) fn new(allowed: Duration) -> Self {
        Self {
            allowed: Some(allowed),
            calls: Vec::new(),
            free: Vec::new(),
            first: None,
            last: None,
            cursor: None,
            overdue: 0,
        }
    }

    /// Minds their age by another measure, or not at all. Those that are overdue
    /// by it are found as if they had not been.
    ///
    /// Calls keep their places whatever happens here: were they forgotten, an old
    /// one's end could take the place of a new one.
    pub(super) fn allow(&mut self, allowed: Option<Duration>) {
        self.allowed = allowed;
        let mut next = self.first;
        while let Some(index) = next.filter(|index| Some(*index) != self.cursor) {
            let call = &mut self.calls[index as usize];
            call.found_at = None;
            next = call.after;
        }
        self.cursor = self.first;
        self.overdue = 0;
    }

    /// Whether anybody minds their age.
    pub(super) fn is_minded(&self) -> bool {
        self.allowed.is_some()
    }

    /// A call begins, not before any of the others. `None`: nobody minds, or
    /// there are too many to keep count of.
    pub(super) fn begin(&mut self, now: Time) -> Option<Place> {
        self.allowed?;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.calls.len()).ok()?;
                self.calls.push(Flight {
                    turn: 0,
                    began: now,
                    found_at: None,
                    before: None,
                    after: None,
                });
                index
            }
        };
        let before = self.last.replace(index);
        match before {
            Some(before) => self.calls[before as usize].after = Some(index),
            None => self.first = Some(index),
        }
        self.cursor = self.cursor.or(Some(index));
        let call = &mut self.calls[index as usize];
        call.began = now;
        call.found_at = None;
        call.before = before;
        call.after = None;
        Some(Place { index, turn: call.turn })
    }

    /// A call ends, if it still has its place.
    pub(super) fn end(&mut self, place: Place) {
        let has_it = |call: &&Flight| call.turn == place.turn;
        if self.calls.get(place.index as usize).filter(has_it).is_some() {
            self.remove(place.index);
        }
    }

    /// Finds who has become overdue, and lets go of those found more than
    /// `span` of the odometer ago.
    pub(super) fn find_overdue(&mut self, now: Time, odometer: impl Fn(Time) -> u64, span: u64) {
        let Some(allowed) = self.allowed else { return };
        while let Some(index) = self.cursor {
            let call = &mut self.calls[index as usize];
            if now.since(call.began) <= allowed {
                break;
            }
            call.found_at = Some(odometer(call.began.after(allowed)));
            self.cursor = call.after;
            self.overdue += 1;
        }
        while let Some(index) = self.first {
            match self.calls[index as usize].found_at {
                Some(found) if odometer(now).saturating_sub(found) >= span => self.remove(index),
                _ => break,
            }
        }
    }

    /// How many were overdue when last looked for.
    pub(super) fn overdue(&self) -> u64 {
        self.overdue
    }

    /// How many are overdue at `now`, without changing anything.
    pub(super) fn overdue_at(&self, now: Time) -> u64 {
        let Some(allowed) = self.allowed else { return 0 };
        let mut overdue = self.overdue;
        let mut next = self.cursor;
        while let Some(call) = next.map(|index| &self.calls[index as usize]) {
            if now.since(call.began) <= allowed {
                break;
            }
            overdue += 1;
            next = call.after;
        }
        overdue
    }

    /// When the first of the overdue began.
    pub(super) fn overdue_since(&self) -> Option<Time> {
        let first = self.first.filter(|_| self.overdue > 0)?;
        Some(self.calls[first as usize].began)
    }

    fn remove(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        call.turn = (call.turn + 1) % (1 << Place::TURN_BITS);
        let (before, after) = (call.before, call.after);
        if call.found_at.is_some() {
            self.overdue -= 1;
        }
        if self.cursor == Some(index) {
            self.cursor = after;
        }
        match before {
            Some(before) => self.calls[before as usize].after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => self.calls[after as usize].before = before,
            None => self.last = before,
        }
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u64 = 100;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    /// Against a plain list that is searched whole each time.
    #[test]
    fn the_overdue_are_those_that_a_search_finds() {
        for seed in 0..50u64 {
            let mut noise = crate::backoff::Noise::new(seed);
            let mut draw = |below: u64| (noise.draw() * below as f64) as u64;
            let mut in_flight = InFlight::new(Duration::from_nanos(ALLOWED));
            let mut calls: Vec<(Place, u64, Option<u64>)> = Vec::new();
            let (mut now, mut odometer) = (0, 0);
            for _ in 0..2_000 {
                now += draw(30);
                odometer += draw(3);
                match draw(3) {
                    0 => calls.push((in_flight.begin(at(now)).unwrap(), now, None)),
                    1 if !calls.is_empty() => {
                        let (place, ..) = calls.remove(draw(calls.len() as u64 - 1) as usize);
                        in_flight.end(place);
                        // Its place is gone.
                        in_flight.end(place);
                    }
                    _ => {}
                }
                let late = calls.iter().filter(|(_, began, _)| now - began > ALLOWED).count();
                assert_eq!(in_flight.overdue_at(at(now)), late as u64);

                in_flight.find_overdue(at(now), |_| odometer, 20);
                for (_, began, found) in &mut calls {
                    if now - *began > ALLOWED {
                        found.get_or_insert(odometer);
                    }
                }
                calls.retain(|(.., found)| found.is_none_or(|found| odometer - found < 20));
                let late: Vec<_> = calls.iter().filter(|(.., found)| found.is_some()).collect();
                assert_eq!(in_flight.overdue(), late.len() as u64);
                assert_eq!(in_flight.overdue_since(), late.first().map(|(_, began, _)| at(*began)));
                assert_eq!(in_flight.calls.len() - in_flight.free.len(), calls.len());
            }
        }
    }
}
