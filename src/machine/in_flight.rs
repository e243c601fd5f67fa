//! Calls that have not ended, in the order they began: who is overdue is known
//! without looking at the others.
//!
//! Those that are not overdue wait where they began, in lists that the machine
//! does not know. It is given those that are, and when the rules change all that
//! there are, and keeps them in a list of its own. In either list the cursor stands behind the calls that have been dealt
//! with: passed on to the machine, or found overdue by it.

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

    /// Nobody's.
    pub(crate) const NOWHERE: Self = Self { index: NONE, turn: 0 };

    /// In 62 bits.
    pub(crate) const fn to_bits(self) -> u64 {
        (self.turn as u64) << u32::BITS | self.index as u64
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        // Each half fits.
        Self { index: bits as u32, turn: (bits >> u32::BITS) as u32 }
    }
}

/// A list through a vector: a place is taken and left in constant time, and
/// memory follows the calls in flight.
///
/// Calls begin in the order of time, so those overdue come first in the list.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    /// `None`: nobody minds their age here.
    allowed: Option<Duration>,
    calls: Vec<Flight>,
    /// The first of the places that are nobody's, a list as well.
    free: u32,
    first: u32,
    last: u32,
    /// The first that has not been dealt with.
    cursor: u32,
    /// How many stand before the cursor.
    passed: u64,
    /// No call begins earlier.
    latest: Time,
}

/// No index.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Flight {
    began: Time,
    turn: u32,
    before: u32,
    after: u32,
    /// What the cursor left with it when it passed.
    note: Option<u64>,
}

impl InFlight {
    pub(crate) const fn new(allowed: Option<Duration>) -> Self {
        Self {
            allowed,
            calls: Vec::new(),
            free: NONE,
            first: NONE,
            last: NONE,
            cursor: NONE,
            passed: 0,
            latest: Time::ZERO,
        }
    }

    /// The same without any calls. Their places must not be asked for any more.
    pub(crate) fn emptied(&self) -> Self {
        Self { latest: self.latest, ..Self::new(self.allowed) }
    }

    /// Minds their age by another measure, or not at all. Those that are overdue
    /// by it are found as if they had not been.
    ///
    /// Calls keep their places whatever happens here: were they forgotten, an old
    /// one's end could take the place of a new one.
    pub(super) fn allow(&mut self, allowed: Option<Duration>) {
        self.allowed = allowed;
        let mut next = self.first;
        while next != self.cursor {
            let call = &mut self.calls[next as usize];
            call.note = None;
            next = call.after;
        }
        self.cursor = self.first;
        self.passed = 0;
    }

    /// Whether anybody minds their age here.
    pub(super) fn is_minded(&self) -> bool {
        self.allowed.is_some()
    }

    /// A call begins; not before any of the others, whatever its clock said.
    /// `None`: there are too many to keep count of.
    #[inline]
    pub(crate) fn begin(&mut self, now: Time) -> Option<Place> {
        self.advance(now);
        let mut call =
            Flight { began: self.latest, turn: 0, before: self.last, after: NONE, note: None };
        let index = self.free;
        let turn = if let Some(free) = self.calls.get_mut(index as usize) {
            call.turn = free.turn;
            self.free = free.after;
            *free = call;
            free.turn
        } else {
            return self.begin_in_new_place(call);
        };
        self.link(index);
        Some(Place { index, turn })
    }

    #[cold]
    fn begin_in_new_place(&mut self, call: Flight) -> Option<Place> {
        let index = u32::try_from(self.calls.len()).ok().filter(|index| *index != NONE)?;
        self.calls.push(call);
        self.link(index);
        Some(Place { index, turn: 0 })
    }

    /// Makes it the last.
    #[inline]
    fn link(&mut self, index: u32) {
        match self.calls.get_mut(self.last as usize) {
            Some(last) => last.after = index,
            None => self.first = index,
        }
        self.last = index;
        if self.cursor == NONE {
            self.cursor = index;
        }
    }

    /// Whoever begins from here on begins no earlier than that.
    #[inline]
    pub(crate) fn advance(&mut self, now: Time) {
        self.latest = self.latest.max(now);
    }

    /// A call ends, if it still has its place. Returns the note that it got, if
    /// the cursor had passed it.
    #[inline]
    pub(crate) fn end(&mut self, place: Place) -> Option<u64> {
        let call = self.calls.get(place.index as usize)?;
        if call.turn != place.turn {
            return None;
        }
        let note = call.note;
        self.remove(place.index);
        note
    }

    /// Finds who has become overdue, and lets go of those found more than
    /// `span` of the odometer ago. The note is what the window's odometer showed
    /// when it became overdue, or, where only calls move that on, when it was
    /// found.
    pub(super) fn find_overdue(&mut self, now: Time, odometer: impl Fn(Time) -> u64, span: u64) {
        let Some(allowed) = self.allowed else { return };
        while let Some(began) = self.next_overdue(now, allowed) {
            self.pass(odometer(began.after(allowed)));
        }
        while let Some(call) = self.calls.get(self.first as usize) {
            match call.note {
                Some(found) if odometer(now).saturating_sub(found) >= span => {
                    self.remove(self.first);
                }
                _ => break,
            }
        }
    }

    /// When the first began that the cursor has not passed, if it is overdue.
    pub(super) fn next_overdue(&self, now: Time, allowed: Duration) -> Option<Time> {
        self.waiting_since().filter(|began| now.since(*began) > allowed)
    }

    /// The cursor passes a call, and leaves a note.
    pub(crate) fn pass(&mut self, note: u64) {
        if let Some(call) = self.calls.get_mut(self.cursor as usize) {
            call.note = Some(note);
            self.cursor = call.after;
            self.passed += 1;
        }
    }

    /// When the first began that the cursor has not passed.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        self.calls.get(self.cursor as usize).map(|call| call.began)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// How many the cursor has passed.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// How many are overdue at `now`, without changing anything.
    pub(super) fn overdue_at(&self, now: Time) -> u64 {
        self.allowed.map_or(0, |allowed| self.passed + self.overdue_beyond(now, allowed))
    }

    /// How many are overdue at `now` beyond those that the cursor has passed.
    /// Changes nothing.
    pub(crate) fn overdue_beyond(&self, now: Time, allowed: Duration) -> u64 {
        let mut overdue = 0;
        let mut next = self.cursor;
        while let Some(call) = self.calls.get(next as usize) {
            if now.since(call.began) <= allowed {
                break;
            }
            overdue += 1;
            next = call.after;
        }
        overdue
    }

    /// When the first of those began that the cursor has passed.
    pub(super) fn passed_since(&self) -> Option<Time> {
        let first = self.calls.get(self.first as usize).filter(|_| self.passed > 0)?;
        Some(first.began)
    }

    #[inline]
    fn remove(&mut self, index: u32) {
        let call = &mut self.calls[index as usize];
        call.turn = (call.turn + 1) % (1 << Place::TURN_BITS);
        let (before, after) = (call.before, call.after);
        self.passed -= u64::from(call.note.is_some());
        call.after = self.free;
        self.free = index;
        if self.cursor == index {
            self.cursor = after;
        }
        match self.calls.get_mut(before as usize) {
            Some(call) => call.after = after,
            None => self.first = after,
        }
        match self.calls.get_mut(after as usize) {
            Some(call) => call.before = before,
            None => self.last = before,
        }
    }
}

#[cfg(test)]
impl InFlight {
    /// What decides its future, but for whose the places are: how old the calls
    /// are, at most `longest`, and how far the odometer has moved since they were
    /// found, at most `span`.
    pub(super) fn essence(
        &self,
        now: Time,
        longest: Duration,
        odometer: u64,
        span: u64,
        into: &mut Vec<u64>,
    ) {
        let Self { allowed, calls, free: _, first: _, last: _, cursor, passed, latest: _ } = self;
        into.extend([allowed.map_or(u64::MAX, crate::time::nanos), *passed]);
        into.push(self.indices().count() as u64);
        for index in self.indices() {
            let Flight { began, turn: _, before: _, after: _, note } = &calls[index as usize];
            into.push(
                crate::time::nanos(now.since(*began).min(longest)) << 1
                    | u64::from(index == *cursor),
            );
            into.push(note.map_or(u64::MAX, |note| odometer.saturating_sub(note).min(span)));
        }
    }

    /// Which of the calls has that place.
    pub(super) fn place_of(&self, place: Place) -> Option<usize> {
        let has_it =
            |index: u32| index == place.index && self.calls[index as usize].turn == place.turn;
        self.indices().position(has_it)
    }

    fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        let known = |index: u32| (index != NONE).then_some(index);
        std::iter::successors(known(self.first), move |index| {
            known(self.calls[*index as usize].after)
        })
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
            let mut in_flight = InFlight::new(Some(Duration::from_nanos(ALLOWED)));
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
                assert_eq!(in_flight.passed(), late.len() as u64);
                assert_eq!(in_flight.passed_since(), late.first().map(|(_, began, _)| at(*began)));
                let free = |next: &u32| in_flight.calls.get(*next as usize).map(|call| call.after);
                let free = std::iter::successors(Some(in_flight.free), free).count() - 1;
                assert_eq!(in_flight.calls.len() - free, calls.len());
            }
        }
    }
}
