//! Half-open: a few probes pass, and decide.

use std::time::Duration;

use super::{End, Progress};
#[cfg(test)]
use crate::time::nanos;
use crate::{
    cause::Cause, outcome::Outcome, probes::Probes, ratio::Ratio, time::Time, window::Counts,
};

/// One half-open episode.
#[derive(Clone, Debug)]
pub(super) struct HalfOpen {
    permitted: u32,
    successes: u32,
    failures: u32,
    timed_out: u32,
    /// For how long it was open before.
    waited: Duration,
    lease: Duration,
    /// In the order they were issued, and so of their deadlines.
    in_flight: Vec<Probe>,
    share: Option<Share>,
}

/// Of the calls that ask only a part is taken.
///
/// As on the ramp: each that asks earns its part of a call, and passes when
/// there is enough for one. The first has all but the least part of it, so of `n`
/// that ask `n` times the share pass, rounded up.
#[derive(Clone, Debug)]
struct Share {
    of: Ratio,
    credit: u32,
}

#[derive(Clone, Debug)]
struct Probe {
    id: u64,
    deadline: Time,
    /// It ended while the machine was not to hear of it.
    muted: bool,
}

/// What a probe's end means for the circuit.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Wait,
    GivenBack,
    Close(Cause),
    Reopen(Cause),
}

/// Leases that ended together.
#[derive(Debug)]
pub(super) struct Lapse {
    pub(super) at: Time,
    /// Probes nobody has counted yet.
    pub(super) unanswered: Vec<u64>,
}

impl Share {
    fn new(of: Ratio) -> Self {
        Self { of, credit: Ratio::WHOLE - 1 }
    }

    fn would_admit(&self) -> bool {
        self.credit + self.of.parts() >= Ratio::WHOLE
    }
}

impl HalfOpen {
    pub(super) fn new(probes: &Probes, waited: Duration) -> Self {
        Self {
            permitted: probes.permitted(),
            successes: 0,
            failures: 0,
            timed_out: 0,
            waited,
            lease: probes.lease_after(waited),
            in_flight: Vec::new(),
            share: probes.share_of_calls().map(Share::new),
        }
    }

    /// Goes on with other probes: those that were issued count as they are, and
    /// none of them may take longer than one that is issued now.
    pub(super) fn reconfigure(&mut self, probes: &Probes, now: Time) {
        self.permitted = probes.permitted();
        self.lease = probes.lease_after(self.waited);
        self.share = probes.share_of_calls().map(|of| match self.share.take() {
            Some(share) => Share { of, ..share },
            None => Share::new(of),
        });
        let latest = now.after(self.lease);
        for probe in &mut self.in_flight {
            probe.deadline = probe.deadline.min(latest);
        }
    }

    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    pub(super) fn permits_left(&self) -> u32 {
        // No more were ever issued than somebody permitted, which is a u32.
        let issued = self.successes + self.failures + self.in_flight.len() as u32;
        self.permitted.saturating_sub(issued)
    }

    /// Issues a probe, if one is left and it is this call's turn.
    pub(super) fn take(&mut self, id: u64, now: Time) -> bool {
        if !self.would_take() {
            return false;
        }
        if let Some(share) = &mut self.share {
            share.credit = share.credit + share.of.parts() - Ratio::WHOLE;
        }
        self.in_flight.push(Probe { id, deadline: now.after(self.lease), muted: false });
        true
    }

    pub(super) fn would_take(&self) -> bool {
        self.permits_left() > 0 && self.share.as_ref().is_none_or(Share::would_admit)
    }

    /// A call was refused: that brings the next one on.
    pub(super) fn pass_over(&mut self) {
        if let Some(share) = &mut self.share {
            share.credit = (share.credit + share.of.parts()).min(Ratio::WHOLE);
        }
    }

    /// Which share of the calls is taken while probes are left, if not all.
    pub(super) fn share(&self) -> Option<Ratio> {
        self.share.as_ref().map(|share| share.of)
    }

    /// The same in whole percent, rounded down.
    pub(super) fn percent(&self) -> Option<u8> {
        // At most a hundred.
        self.share().map(|share| (share.parts() / (Ratio::WHOLE / 100)) as u8)
    }

    /// Takes back a probe that ended.
    pub(super) fn end(&mut self, id: u64, end: End, probes: &Probes) -> Decision {
        let Some(position) = self.position(id) else { return Decision::Wait };
        self.in_flight.remove(position);
        match (end.outcome, end.slow) {
            (Some(Outcome::Success), false) => self.successes += 1,
            (Some(Outcome::Success | Outcome::Failure), _) | (None, true) => self.failures += 1,
            (Some(Outcome::Ignored), _) | (None, false) => return Decision::GivenBack,
        }
        self.decision(probes)
    }

    /// Notes that a probe ended without the machine being told how: its lease
    /// runs on.
    pub(super) fn mute(&mut self, id: u64) {
        if let Some(position) = self.position(id) {
            self.in_flight[position].muted = true;
        }
    }

    /// Fails the probes whose leases ended first, if that was by `now`.
    pub(super) fn lapse(&mut self, now: Time) -> Option<Lapse> {
        let at = self.next_deadline().filter(|deadline| *deadline <= now)?;
        let ended = self.in_flight.iter().take_while(|probe| probe.deadline == at).count();
        let lapsed: Vec<Probe> = self.in_flight.drain(..ended).collect();
        // As many as there were permits, which came from a u32.
        self.failures += lapsed.len() as u32;
        self.timed_out += lapsed.len() as u32;
        let unanswered = lapsed.iter().filter(|probe| !probe.muted).map(|probe| probe.id).collect();
        Some(Lapse { at, unanswered })
    }

    pub(super) fn decision(&self, probes: &Probes) -> Decision {
        if self.successes >= probes.required() {
            Decision::Close(Cause::ProbesSucceeded { successes: self.successes })
        } else if self.failures > probes.permitted() - probes.required() {
            Decision::Reopen(Cause::ProbesFailed {
                failures: self.failures,
                timed_out: self.timed_out,
                probes: probes.permitted(),
                required: probes.required(),
            })
        } else {
            Decision::Wait
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.in_flight.first().map(|probe| probe.deadline)
    }

    /// The end of the next lease, if nobody passes before and no refusal matters:
    /// by a share, each brings the next call on.
    pub(super) fn full_until(&self) -> Option<Time> {
        let is_full = self.permits_left() == 0 && self.share.is_none();
        is_full.then(|| self.next_deadline()).flatten()
    }

    /// How long until one that is refused may pass: until the end of the next
    /// lease if no permit is left. By its share alone it is a matter of calls and
    /// not of time; who waits in vain for a percent or more comes often enough to be
    /// taken within one lease even if nobody else asks.
    pub(super) fn retry_after(&self, now: Time) -> Option<Duration> {
        if self.permits_left() == 0 {
            return self.next_deadline().map(|deadline| deadline.since(now));
        }
        let is_passed_over = self.share.as_ref().is_some_and(|share| !share.would_admit());
        is_passed_over.then(|| (self.lease / 100).max(Duration::from_millis(1)))
    }

    pub(super) fn progress(&self, probes: &Probes) -> Progress {
        Progress {
            permits_left: self.permits_left(),
            // As many as there were permits, which came from a u32.
            in_flight: self.in_flight.len() as u32,
            successes: self.successes,
            failures: self.failures,
            required: probes.required(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            calls: u64::from(self.successes) + u64::from(self.failures),
            failures: u64::from(self.failures),
            slow: 0,
        }
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.in_flight.iter().position(|probe| probe.id == id)
    }
}

#[cfg(test)]
impl HalfOpen {
    /// What decides its future, but for which probe is whose.
    pub(super) fn essence(&self, now: Time, longest: Duration, into: &mut Vec<u64>) {
        let Self { permitted, successes, failures, timed_out, waited, lease, in_flight, share } =
            self;
        into.extend([permitted, successes, failures, timed_out].map(|count| u64::from(*count)));
        into.extend([nanos(*waited), nanos(*lease), in_flight.len() as u64]);
        let share = share.as_ref().map_or([0; 2], |share| [share.of.parts(), share.credit]);
        into.extend(share.map(u64::from));
        for Probe { id: _, deadline, muted } in in_flight {
            into.extend([deadline.nanos_since(now), nanos(now.since(*deadline).min(longest))]);
            into.push((*muted).into());
        }
    }

    /// Which of the probes in flight that is.
    pub(super) fn place_of(&self, id: u64) -> Option<usize> {
        self.position(id)
    }

    pub(super) fn unmuted(&self) -> usize {
        self.in_flight.iter().filter(|probe| !probe.muted).count()
    }

    pub(super) fn permitted(&self) -> u32 {
        self.permitted
    }
}
