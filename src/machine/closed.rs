//! Closed: every call passes, and the rules are asked after each one ends.

use std::time::Duration;

use super::{
    End, Facts,
    in_flight::{InFlight, Place},
    throttling::Throttling,
};
#[cfg(test)]
use crate::time::nanos;
use crate::{
    cause::Cause,
    outcome::Outcome,
    ratio::Ratio,
    rules::Rules,
    throttle::Throttle,
    time::Time,
    window::{Counts, Ring, Sample, time::TimeRing},
};

/// What a closed circuit remembers.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    ring: Ring,
    /// Failures in a row.
    run: u32,
    failing: Option<Episode>,
    slowing: Option<Box<Episode>>,
    /// Those it has heard of. Kept if there is a slow rule.
    in_flight: Option<Box<InFlight>>,
    throttling: Option<Box<Throttling>>,
}

impl Closed {
    pub(super) fn new(rules: &Rules) -> Self {
        let episode = |rule: bool| {
            (rule && !rules.sustained_for.is_zero()).then(|| Episode::new(rules.sustained_for))
        };
        Self {
            ring: Ring::new(rules.window),
            run: 0,
            failing: episode(rules.failure_rate.is_some()),
            slowing: episode(rules.slow_calls.is_some()).map(Box::new),
            throttling: rules.throttle.map(Throttling::new).map(Box::new),
            in_flight: rules.slow_calls.map(|rule| Box::new(InFlight::new(Some(rule.threshold)))),
        }
    }

    /// For a ramp, which refuses by a share of its own.
    pub(super) fn without_throttle(rules: &Rules) -> Self {
        Self { throttling: None, ..Self::new(rules) }
    }

    /// Goes by other rules. What has ended stays what it was judged as; the
    /// next call to end, or to ask while others are overdue, is judged by the new
    /// rules.
    pub(super) fn reconfigure(&mut self, old: &Rules, new: &Rules, now: Time) {
        let threshold = |rules: &Rules| rules.slow_calls.map(|rule| rule.threshold);
        let moves_on_alike = self.ring.is_like(new.window);
        if old.window != new.window {
            self.ring.change(new.window, now);
        }
        let failing = self.failing.take();
        self.failing = Episode::follow(failing, new.failure_rate.is_some(), new, now);
        let slowing = self.slowing.take().map(|episode| *episode);
        self.slowing = Episode::follow(slowing, new.slow_calls.is_some(), new, now).map(Box::new);
        match (&mut self.in_flight, threshold(new)) {
            (Some(in_flight), allowed) if allowed != threshold(old) || !moves_on_alike => {
                in_flight.allow(allowed);
            }
            (None, Some(allowed)) => self.in_flight = Some(Box::new(InFlight::new(Some(allowed)))),
            (Some(_) | None, _) => {}
        }
    }

    /// Throttles by another rule, or no more.
    pub(super) fn rethrottle(&mut self, throttle: Option<Throttle>, now: Time, facts: &mut Facts) {
        match (&mut self.throttling, throttle) {
            (Some(throttling), Some(throttle)) => throttling.reconfigure(throttle, now, facts),
            (None, Some(throttle)) => self.throttling = Some(Box::new(Throttling::new(throttle))),
            (_, None) => {
                if let Some(throttling) = self.throttling.take() {
                    throttling.stop(facts);
                }
            }
        }
    }

    /// Hears of a call that began then and has not ended: where it is kept from now
    /// on.
    pub(super) fn take_over(&mut self, began: Time) -> Option<Place> {
        self.in_flight.as_mut()?.begin(began)
    }

    /// Lets a call pass, or throttles it.
    pub(super) fn admit(&mut self, now: Time, facts: &mut Facts) -> bool {
        self.throttling.as_mut().is_none_or(|throttling| throttling.admit(now, facts))
    }

    pub(super) fn would_admit(&self, now: Time) -> bool {
        self.throttling.as_ref().is_none_or(|throttling| throttling.would_admit(now))
    }

    /// A call was refused before it asked.
    pub(super) fn pass_over(&mut self, now: Time) {
        if let Some(throttling) = &mut self.throttling {
            throttling.refuse(now);
        }
    }

    /// Whether it throttles, or may come to by the passing of time.
    pub(super) fn may_throttle(&self) -> bool {
        self.throttling.as_deref().is_some_and(Throttling::has_failures)
    }

    /// What throttles it now, if anything does.
    pub(super) fn throttling(&self, now: Time) -> Option<&Throttling> {
        self.throttling.as_deref().filter(|throttling| throttling.share(now) < Throttle::ALL)
    }

    /// It is over, or nobody is to mind its age any more.
    pub(super) fn end(&mut self, place: Place) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.end(place);
        }
    }

    /// Whether anybody wants to know how old its calls are.
    pub(super) fn tracks_calls(&self) -> bool {
        self.in_flight.as_deref().is_some_and(InFlight::is_minded)
    }

    /// Whether it minds calls that are overdue, or may come to be.
    pub(super) fn minds_calls(&self) -> bool {
        self.tracks_calls() && self.in_flight.as_deref().is_some_and(|calls| !calls.is_empty())
    }

    pub(super) fn overdue_at(&self, now: Time) -> u64 {
        self.in_flight.as_deref().map_or(0, |in_flight| in_flight.overdue_at(now))
    }

    /// Whether the circuit would open if the calls that are overdue ended now,
    /// slow: a dependency that hangs ends none.
    pub(super) fn reason_in_flight(&mut self, now: Time, rules: &Rules) -> Option<Cause> {
        let (rule, in_flight) = (rules.slow_calls?, self.in_flight.as_mut()?);
        in_flight.find_overdue(now, |at| self.ring.odometer(at), self.ring.span());
        let overdue = in_flight.passed();
        let since = in_flight.passed_since()?;
        self.ring.expire(now);
        let counts = self.ring.counts_after_slow(overdue);
        let in_window = self.ring.counts().slow;
        let is_sustained =
            |episode: &Episode| episode.sustains_with(overdue, since, in_window, rule.rate, now);
        let opens = counts.calls >= rules.minimum_calls
            && rule.rate.reached_by(counts.slow, counts.calls)
            && self.slowing.as_deref().is_none_or(is_sustained);
        opens.then(|| Cause::SlowCallRate {
            slow: counts.slow,
            calls: counts.calls,
            unfinished: overdue.min(counts.calls),
            threshold: rule.rate.as_fraction(),
            slower_than: rule.threshold,
        })
    }

    /// Takes in a call, and says why to open if there is reason to.
    pub(super) fn record(
        &mut self,
        end: End,
        now: Time,
        rules: &Rules,
        facts: &mut Facts,
    ) -> Option<Cause> {
        let sample = end.sample()?;
        if sample == Sample::GOOD && self.is_clean() {
            self.ring.record_good_again();
            return None;
        }
        if let Some(throttling) = &mut self.throttling {
            throttling.record(end.outcome != Some(Outcome::Success), now, facts);
        }
        self.run = match end.outcome {
            Some(Outcome::Success) => 0,
            Some(Outcome::Failure) => self.run.saturating_add(1),
            Some(Outcome::Ignored) | None => self.run,
        };
        self.ring.expire(now);
        let before = self.ring.counts();
        self.ring.record(sample);
        let after = self.ring.counts();
        if let Some(episode) = &mut self.failing {
            episode.record(sample, sample.failed, before.failures, after.failures, now);
        }
        if let Some(episode) = &mut self.slowing {
            episode.record(sample, sample.slow, before.slow, after.slow, now);
        }
        self.reason_to_open(after, now, rules)
    }

    pub(super) fn counts_at(&self, now: Time) -> Counts {
        self.ring.counts_at(now)
    }

    /// Whether a success that is not slow would change nothing. If nothing in
    /// the window failed, nothing failed in a row either.
    pub(super) fn is_clean(&self) -> bool {
        self.throttling.is_none() && self.ring.is_full_and_clean()
    }

    /// Until when a success that is not slow would change nothing but a sum, if
    /// that is so.
    pub(super) fn only_sums_until(&self) -> Option<Time> {
        let can_matter = self.throttling.is_some() || self.run > 0;
        if can_matter { None } else { self.ring.only_sums_until() }
    }

    pub(super) fn add_successes(&mut self, calls: u64) {
        self.ring.record_good(calls);
    }

    fn reason_to_open(&self, counts: Counts, now: Time, rules: &Rules) -> Option<Cause> {
        if counts.failures == 0 && counts.slow == 0 {
            // Then the call just recorded was good, and ended any row.
            return None;
        }
        let reaches = |rate: Ratio, bad: fn(Counts) -> u64, episode: Option<&Episode>| {
            counts.calls >= rules.minimum_calls
                && rate.reached_by(bad(counts), counts.calls)
                && episode.is_none_or(|episode| episode.sustains(rate, bad, now))
        };
        let failure_rate = rules.failure_rate;
        if let Some(rate) =
            failure_rate.filter(|rate| reaches(*rate, |c| c.failures, self.failing.as_ref()))
        {
            return Some(Cause::FailureRate {
                failures: counts.failures,
                calls: counts.calls,
                threshold: rate.as_fraction(),
            });
        }
        if let Some(threshold) = rules.consecutive_failures.filter(|most| self.run >= *most) {
            return Some(Cause::ConsecutiveFailures { failures: self.run, threshold });
        }
        if let Some(rule) =
            rules.slow_calls.filter(|rule| reaches(rule.rate, |c| c.slow, self.slowing.as_deref()))
        {
            return Some(Cause::SlowCallRate {
                slow: counts.slow,
                calls: counts.calls,
                unfinished: 0,
                threshold: rule.rate.as_fraction(),
                slower_than: rule.threshold,
            });
        }
        None
    }
}

/// A stretch of trouble: from the first bad call recorded when the window
/// held none, until it holds none again.
///
/// A rate must be sustained, or a blip at high traffic, which fills any count
/// window within milliseconds, would open the circuit. Asking that the rate be
/// over at *every* evaluation is wrong the other way: by chance alone a
/// dependency failing 60 % of a busy stream dips below 50 % of the last 20
/// calls again and again. Hence two questions: is the episode old enough, and
/// is the share over its recent calls at the threshold too?
#[derive(Clone, Debug)]
struct Episode {
    age_to_trip: Duration,
    began: Option<Time>,
    /// Its calls of the last twice `age_to_trip`, in steps of a quarter.
    recent: TimeRing,
}

impl Episode {
    const STEPS: u32 = 8;

    fn new(age_to_trip: Duration) -> Self {
        Self { age_to_trip, began: None, recent: TimeRing::new(age_to_trip * 2, Self::STEPS) }
    }

    /// What becomes of it under other rules; `wanted`, if a rate of theirs
    /// needs one.
    fn follow(episode: Option<Self>, wanted: bool, rules: &Rules, now: Time) -> Option<Self> {
        let age = rules.sustained_for;
        if !wanted || age.is_zero() {
            return None;
        }
        let Some(episode) = episode else { return Some(Self::new(age)) };
        if episode.age_to_trip == age {
            return Some(episode);
        }
        let recent = episode.recent.rebucketed(age * 2, Self::STEPS, now);
        Some(Self { age_to_trip: age, recent, ..episode })
    }

    /// Takes in a call; `before` and `after` are the bad calls in the window
    /// around it.
    fn record(&mut self, sample: Sample, bad: bool, before: u64, after: u64, now: Time) {
        if before == 0 {
            self.began = None;
        }
        if bad && self.began.is_none() {
            self.began = Some(now);
            self.recent.clear();
        }
        if self.began.is_some() {
            self.recent.expire(now);
            self.recent.record(sample);
        }
        if after == 0 {
            self.began = None;
        }
    }

    /// The same with calls that are overdue, the first of which began at
    /// `since`: the trouble is at least as old as that. `in_window` are the bad
    /// calls that have ended.
    fn sustains_with(
        &self,
        overdue: u64,
        since: Time,
        in_window: u64,
        rate: Ratio,
        now: Time,
    ) -> bool {
        let began = self.began.filter(|_| in_window > 0);
        let recent = began.map_or_else(Counts::default, |_| self.recent.counts_at(now));
        now.since(began.map_or(since, |began| began.min(since))) >= self.age_to_trip
            && rate.reached_by(recent.slow + overdue, recent.calls + overdue)
    }

    fn sustains(&self, rate: Ratio, bad: fn(Counts) -> u64, now: Time) -> bool {
        let recent = self.recent.counts();
        self.began.is_some_and(|began| now.since(began) >= self.age_to_trip)
            && rate.reached_by(bad(recent), recent.calls)
    }
}

#[cfg(test)]
impl Closed {
    /// What decides its future, but for whose the places in flight are.
    pub(super) fn essence(&self, now: Time, longest: Duration, into: &mut Vec<u64>) {
        let Self { ring, run, failing, slowing, in_flight, throttling } = self;
        // No rows longer than that are explored.
        into.push((*run).min(4).into());
        ring.essence(now, into);
        for episode in [failing.as_ref(), slowing.as_deref()].into_iter().flatten() {
            let Episode { age_to_trip, began, recent } = episode;
            let age = began.map_or(u64::MAX, |began| nanos(now.since(began).min(*age_to_trip)));
            into.extend([nanos(*age_to_trip), age]);
            recent.essence(now, into);
        }
        if let Some(in_flight) = in_flight {
            in_flight.essence(now, longest, ring.odometer(now), ring.span(), into);
        }
        if let Some(throttling) = throttling {
            throttling.essence(now, into);
        }
    }

    /// How many calls there are in the fullest of what is kept by time. Nothing
    /// else bounds that.
    pub(super) fn calls_by_time(&self) -> u64 {
        let ring = match &self.ring {
            Ring::Time(ring) => ring.counts().calls,
            Ring::Count(_) => 0,
        };
        let episodes = [self.failing.as_ref(), self.slowing.as_deref()].into_iter().flatten();
        let recent = episodes.map(|episode| episode.recent.counts().calls);
        let throttled = self.throttling.as_deref().map_or(0, Throttling::calls);
        recent.chain([ring, throttled]).max().unwrap_or_default()
    }

    /// Which of the calls it has heard of has that place.
    pub(super) fn place_of(&self, place: Place) -> Option<usize> {
        self.in_flight.as_deref().and_then(|in_flight| in_flight.place_of(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::exploration;

    #[test]
    fn under_other_rules_an_episode_looks_back_twice_its_new_age_too() {
        let second = Duration::from_secs(1);
        let rules = Rules { sustained_for: 3 * second, ..exploration::rules() };
        let episode = Episode::follow(Some(Episode::new(second)), true, &rules, Time::ZERO);
        assert_eq!(episode.unwrap().recent.span(), nanos(6 * second));
    }
}
