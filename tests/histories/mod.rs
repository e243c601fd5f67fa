//! Random rules, and random histories of calls on virtual time.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use proptest::{collection::vec, option, prelude::*};
use tower_breaker::{
    Backoff, Circuit, Config, ConfigBuilder, ManualClock, Observer, Outcome, Permit, Probes,
    Throttle, Transition, Window,
};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Advance(Duration),
    Begin,
    /// One of the calls that run ends; `None`: it is dropped.
    End(prop::sample::Index, Option<Outcome>),
}

/// Mostly failures and short whiles, so that circuits open and come back; and
/// often no time at all between two steps.
pub(crate) fn history() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        5 => Just(Some(Outcome::Failure)),
        4 => Just(Some(Outcome::Success)),
        1 => Just(Some(Outcome::Ignored)),
        1 => Just(None),
    ];
    let step = prop_oneof![
        5 => Just(Step::Begin),
        5 => (any::<prop::sample::Index>(), outcome).prop_map(|(which, how)| Step::End(which, how)),
        2 => (1..200u64).prop_map(|millis| Step::Advance(Duration::from_millis(millis))),
        1 => (1..3_000_000_000u64).prop_map(|nanos| Step::Advance(Duration::from_nanos(nanos))),
    ];
    vec(step, 0..300)
}

/// Rules that open easily; their jitter is random unless it is none.
pub(crate) fn rules(name: &'static str) -> impl Strategy<Value = ConfigBuilder> {
    let millis = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    let window = prop_oneof![
        (1..8u32).prop_map(Window::count),
        (millis(50..3_000), 1..5u32).prop_map(|(span, n)| Window::time(span).buckets(n)),
    ];
    let share = option::weighted(0.3, 0.05..1.0f64);
    let throttle = option::weighted(0.3, (1.0..3.0f64, 0..8u64));
    let probes = (1..4u32, option::of(millis(1..1_500)), share);
    let passes = (option::weighted(0.4, millis(1..2_000)), throttle);
    let slow = option::of((millis(1..300), 0.1..1.0f64));
    let wait = (millis(1..700), 0..3u32);
    let opens = (window, 0.1..1.0f64, millis(0..400), option::of(1..5u32), slow);
    (opens, wait, probes, passes).prop_map(
        move |(opens, (wait, jitter), (permits, lease, share), (ramp, throttle))| {
            let (window, rate, sustained, row, slow) = opens;
            let mut config = Config::builder(name)
                .window(window)
                .minimum_calls(1)
                .failure_rate(rate)
                .sustained_for(if sustained.as_millis() < 200 { Duration::ZERO } else { sustained })
                .open_for(Backoff::exponential(wait, 4 * wait).jitter(f64::from(jitter) / 4.0));
            if let Some(row) = row {
                config = config.consecutive_failures(row);
            }
            if let Some((threshold, share)) = slow {
                config = config.slow_calls(threshold, share);
            }
            if let Some(over) = ramp {
                config = config.ramp(over);
            }
            if let Some((k, minimum)) = throttle {
                let throttle = Throttle::new(k).window(Duration::from_secs(1));
                config = config.throttle(throttle.minimum_calls(minimum));
            }
            let mut probes = Probes::new(permits);
            if let Some(lease) = lease {
                probes = probes.lease(lease);
            }
            if let Some(share) = share {
                probes = probes.share(share);
            }
            config.probes(probes)
        },
    )
}

/// Does what a history says, and ends what still runs.
pub(crate) fn run(circuit: &Circuit, clock: &ManualClock, history: &[Step]) {
    let mut running: Vec<Permit> = Vec::new();
    let end = |permit: Permit, outcome: Option<Outcome>| match outcome {
        Some(outcome) => permit.record(outcome),
        None => drop(permit),
    };
    for step in history {
        match step {
            Step::Advance(duration) => clock.advance(*duration),
            Step::Begin => running.extend(circuit.try_acquire().ok()),
            Step::End(which, outcome) if !running.is_empty() => {
                let permit = running.swap_remove(which.index(running.len()));
                end(permit, *outcome);
            }
            Step::End(..) => {}
        }
    }
    running.into_iter().for_each(|permit| end(permit, Some(Outcome::Success)));
}

/// Keeps the transitions it is told of.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Transition>>>);

impl Log {
    /// Them, as text without the circuit's name, with the time since `born`.
    pub(crate) fn since(&self, born: Instant) -> Vec<String> {
        let told = self.0.lock().unwrap();
        told.iter()
            .map(|t| {
                let at = t.at - born;
                let Transition { from, to, cause, window, open_for, .. } = t;
                format!("{at:?} {from} {to} {cause:?} {window:?} {open_for:?}")
            })
            .collect()
    }
}

impl Observer for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap().push(transition.clone());
    }
}
