//! Adaptive throttling of a closed circuit.

use std::time::Duration;

use super::{Fact, Facts};
use crate::{
    throttle::Throttle,
    time::Time,
    window::{Sample, time::TimeRing},
};

/// What is known of the calls, and what the next one may expect.
#[derive(Clone, Debug)]
pub(super) struct Throttling {
    throttle: Throttle,
    /// All calls; the ones that did not succeed count as failed, those of them
    /// that were refused here as slow.
    calls: TimeRing,
    /// As on the ramp: each call earns the share, and passes when there is
    /// enough for it.
    credit: u32,
    /// The whole percent that was told last.
    told: u8,
}

impl Throttling {
    pub(super) fn new(throttle: Throttle) -> Self {
        let calls = TimeRing::new(throttle.span(), Throttle::BUCKETS);
        Self { throttle, calls, credit: 0, told: 100 }
    }

    /// Goes by another rule, over the calls that are known.
    pub(super) fn reconfigure(&mut self, throttle: Throttle, now: Time, facts: &mut Facts) {
        if throttle == self.throttle {
            return;
        }
        if throttle.span() != self.throttle.span() {
            self.calls = self.calls.rebucketed(throttle.span(), Throttle::BUCKETS, now);
        }
        self.throttle = throttle;
        self.tell_share(now, facts);
    }

    /// From now on all calls pass.
    pub(super) fn stop(&self, facts: &mut Facts) {
        if self.told != 100 {
            facts.happened.push(Fact::Share { percent: 100 });
        }
    }

    pub(super) fn record(&mut self, failed: bool, now: Time, facts: &mut Facts) {
        self.calls.expire(now);
        self.calls.record(Sample { failed, slow: false });
        self.tell_share(now, facts);
    }

    /// Lets a call pass, or refuses it.
    pub(super) fn admit(&mut self, now: Time, facts: &mut Facts) -> bool {
        self.tell_share(now, facts);
        let admits = self.would_admit(now);
        if admits {
            self.credit = (self.credit + self.share(now)) % Throttle::ALL;
        } else {
            self.refuse(now);
        }
        admits
    }

    pub(super) fn would_admit(&self, now: Time) -> bool {
        self.credit + self.share(now) >= Throttle::ALL
    }

    /// A call was refused, here or before it asked.
    pub(super) fn refuse(&mut self, now: Time) {
        self.credit = (self.credit + self.share(now)).min(Throttle::ALL - 1);
        self.calls.expire(now);
        self.calls.record(Sample { failed: true, slow: true });
    }

    /// Without failures all calls pass, whichever the window forgets.
    pub(super) fn has_failures(&self) -> bool {
        self.calls.counts().failures > 0
    }

    pub(super) fn share(&self, now: Time) -> u32 {
        let counts = self.calls.counts_at(now);
        self.throttle.share(counts.calls, counts.calls - counts.failures)
    }

    pub(super) fn percent(&self, now: Time) -> u8 {
        // At most a hundred.
        (self.share(now) / (Throttle::ALL / 100)) as u8
    }

    /// How long until a bucket leaves.
    pub(super) fn next_step(&self) -> Duration {
        self.throttle.span() / Throttle::BUCKETS
    }

    fn tell_share(&mut self, now: Time, facts: &mut Facts) {
        let percent = self.percent(now);
        if percent != self.told {
            self.told = percent;
            facts.happened.push(Fact::Share { percent });
        }
    }
}

#[cfg(test)]
impl Throttling {
    pub(super) fn calls(&self) -> u64 {
        self.calls.counts().calls
    }

    /// What decides its future.
    pub(super) fn essence(&self, now: Time, into: &mut Vec<u64>) {
        let Self { throttle, calls, credit, told } = self;
        into.extend([throttle.minimum_calls, (*credit).into(), (*told).into()]);
        calls.essence(now, into);
    }
}
