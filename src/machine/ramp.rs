//! The ramp after the probes: a growing share of the calls passes, and the
//! rules judge it.

use std::time::Duration;

use super::{Fact, Facts, closed::Closed};
use crate::{
    rules::Rules,
    time::{Time, nanos},
};

/// One ramp, from no calls to all of them.
///
/// The share at `t` is `t / over`, so a call is worth `t` out of `over`: each
/// call that asks earns that much credit, and passes when there is enough. At
/// any constant share the calls that passed are within one of that share of
/// those that asked; no call is drawn by lot.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    pub(super) calls: Closed,
    /// For how long it had been open.
    waited: Duration,
    began: Time,
    /// What of `over` had passed at `since`: at the beginning none.
    passed: u64,
    since: Time,
    over: u64,
    credit: u64,
    /// The whole percent that was told last.
    told: Option<u8>,
}

impl Ramp {
    pub(super) fn new(over: Duration, waited: Duration, began: Time, rules: &Rules) -> Self {
        Self {
            calls: Closed::without_throttle(rules),
            waited,
            began,
            passed: 0,
            since: began,
            over: nanos(over),
            credit: 0,
            told: None,
        }
    }

    /// Goes on over another time, from the share it has reached.
    pub(super) fn reconfigure(&mut self, over: Duration, now: Time) {
        let over = nanos(over);
        // At most the new length, for each is at most the old one.
        let scaled =
            |part: u64| (u128::from(part) * u128::from(over) / u128::from(self.over)) as u64;
        (self.passed, self.credit) = (scaled(self.elapsed(now)), scaled(self.credit));
        (self.since, self.over) = (now, over);
    }

    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    pub(super) fn began(&self) -> Time {
        self.began
    }

    /// When every call passes.
    pub(super) fn end(&self) -> Time {
        self.since.after(Duration::from_nanos(self.over - self.passed))
    }

    /// Lets a call pass, or passes it over.
    pub(super) fn admit(&mut self, now: Time) -> bool {
        let admits = self.would_admit(now);
        self.credit += self.elapsed(now);
        if admits {
            self.credit -= self.over;
        }
        admits
    }

    pub(super) fn would_admit(&self, now: Time) -> bool {
        self.credit + self.elapsed(now) >= self.over
    }

    /// A call was refused before it asked: that brings the next one on.
    pub(super) fn pass_over(&mut self, now: Time) {
        self.credit = (self.credit + self.elapsed(now)).min(self.over);
    }

    pub(super) fn share(&self, now: Time) -> f64 {
        self.elapsed(now) as f64 / self.over as f64
    }

    /// The share in whole percent, rounded down.
    pub(super) fn percent(&self, now: Time) -> u8 {
        // At most a hundred.
        (u128::from(self.elapsed(now)) * 100 / u128::from(self.over)) as u8
    }

    /// Tells of each whole percent once.
    pub(super) fn tell_share(&mut self, now: Time, facts: &mut Facts) {
        let percent = self.percent(now);
        if self.told.replace(percent) != Some(percent) {
            facts.happened.push(Fact::Share { percent });
        }
    }

    /// How long until the share has grown by a percent.
    pub(super) fn next_step(&self, now: Time) -> Duration {
        Duration::from_nanos((self.over / 100).max(1)).min(self.end().since(now))
    }

    fn elapsed(&self, now: Time) -> u64 {
        self.passed.saturating_add(nanos(now.since(self.since))).min(self.over)
    }
}

#[cfg(test)]
impl Ramp {
    /// What decides its future.
    pub(super) fn essence(&self, now: Time, longest: Duration, into: &mut Vec<u64>) {
        let Self { calls, waited: _, began: _, passed: _, since: _, over, credit, told } = self;
        let late = now.since(self.end()).min(longest);
        into.extend([*over, *credit, self.elapsed(now), nanos(late)]);
        into.push(told.map_or(u64::MAX, u64::from));
        calls.essence(now, longest, into);
    }
}
