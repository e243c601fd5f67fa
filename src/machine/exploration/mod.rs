//! Every state that small configurations can reach, and the laws in each of them.
//!
//! A breadth-first walk over the machine, the calls it admitted and the time. What
//! decides the future is a state's identity, so the walk ends; where it does not
//! end by itself (calls that are kept by time may be ever so many) a bound is
//! named. A law that does not hold is told with the shortest way there.
//!
//! The last law needs all states: from each of them a dependency that is healthy
//! leads to closed, and it stays closed. Each state has one successor under that,
//! so it is a matter of following them.

mod essence;
mod world;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use self::world::{Op, Scope, UNIT, World};
use super::Phase;
use crate::{
    backoff::Backoff,
    probes::Probes,
    ratio::Ratio,
    rules::{Cancellation, Rules, SlowRule},
    start::Start,
    throttle::Throttle,
    window::Window,
};

/// Walks all there is.
fn explore(scope: &Scope) -> Explored {
    scope.rules.iter().for_each(|rules| rules.validate().unwrap());
    let longest = scope.longest();
    let first = World::new(scope);
    let mut known = HashMap::from([(first.essence(longest), 0)]);
    // How each was reached first; where it leads if all is well; and whether it
    // is as it should be.
    let mut ways: Vec<Option<(usize, Op)>> = vec![None];
    let mut healthy: Vec<usize> = Vec::new();
    let mut fine = vec![false];
    let mut depths = vec![0];
    let mut ahead = VecDeque::from([first]);
    let mut steps = 0;
    while let Some(world) = ahead.pop_front() {
        let from = healthy.len();
        for op in world.ops(depths[from], scope) {
            steps += 1;
            let next = match world.after(op, scope) {
                Ok(next) => next,
                Err(broken) => panic!("{}: {broken}, after {}", scope.name, way(&ways, from, op)),
            };
            let found = known.len();
            let to = match known.entry(next.essence(longest)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(vacant) => {
                    vacant.insert(found);
                    ways.push(Some((from, op)));
                    depths.push(depths[from] + 1);
                    let is_free = next.machine.overlay.is_none() && next.admitted;
                    fine.push(is_free && matches!(next.machine.phase, Phase::Closed(_)));
                    ahead.push_back(next);
                    found
                }
            };
            if op == Op::Healthy {
                healthy.push(to);
            }
        }
        assert!(known.len() < 2_000_000, "{}: the walk does not end", scope.name);
    }
    let recovery = recovery(&healthy, &fine).unwrap_or_else(|stuck| {
        panic!(
            "{}: a healthy dependency is not let back, after {}",
            scope.name,
            way(&ways, stuck, Op::Healthy)
        )
    });
    Explored { states: known.len(), steps, recovery }
}

struct Explored {
    states: usize,
    steps: usize,
    /// How many units it takes at most until it is closed for good.
    recovery: usize,
}

/// Follows each state's only successor. Returns the longest way to a circle of
/// states that are all fine, or a state that leads to another circle.
fn recovery(next: &[usize], fine: &[bool]) -> Result<usize, usize> {
    const UNKNOWN: usize = usize::MAX;
    let mut left = vec![UNKNOWN; next.len()];
    let mut seen = vec![UNKNOWN; next.len()];
    for start in 0..next.len() {
        let mut path = Vec::new();
        let mut at = start;
        while left[at] == UNKNOWN && seen[at] != start {
            seen[at] = start;
            path.push(at);
            at = next[at];
        }
        if left[at] == UNKNOWN {
            // It has come round.
            let circle = path.iter().position(|state| *state == at).expect("it is on its path");
            for state in path.drain(circle..) {
                if !fine[state] {
                    return Err(state);
                }
                left[state] = 0;
            }
        }
        for state in path.into_iter().rev() {
            left[state] = left[next[state]] + 1;
        }
    }
    Ok(left.into_iter().max().unwrap_or_default())
}

fn way(ways: &[Option<(usize, Op)>], mut from: usize, last: Op) -> String {
    let mut ops = vec![last];
    while let Some((before, op)) = ways[from] {
        ops.push(op);
        from = before;
    }
    ops.reverse();
    format!("{ops:?}")
}

// What is explored -----------------------------------------------------------

/// One failed call of two opens; waits of 2 and 4 units, one probe.
pub(super) fn rules() -> Rules {
    Rules {
        window: Window::count(2),
        minimum_calls: 2,
        failure_rate: Ratio::new(0.5),
        slow_calls: None,
        sustained_for: Duration::ZERO,
        consecutive_failures: None,
        throttle: None,
        start: Start::Closed,
        warm_up: Duration::ZERO,
        open_for: Backoff::exponential(2 * UNIT, 4 * UNIT).jitter(0.0),
        probes: Probes::new(1).lease(3 * UNIT),
        ramp: None,
        cancellation: Cancellation::ByAge,
    }
}

fn slow() -> Option<SlowRule> {
    Some(SlowRule { threshold: UNIT, rate: Ratio::new(1.0).unwrap() })
}

fn scope(name: &'static str, rules: Rules) -> Scope {
    Scope {
        name,
        rules: vec![rules],
        in_flight: 2,
        known: u64::MAX,
        depth: usize::MAX,
        operator: false,
        hints: false,
        checks: false,
    }
}

/// Prints how far it came; fewer states than `floor` are a walk that does not
/// walk, and more time than `within` is not what the rules promise.
fn holds(scope: &Scope, floor: usize, within: usize) {
    let Explored { states, steps, recovery } = explore(scope);
    println!(
        "{}: {states} states, {steps} steps, closed for good within {recovery} units",
        scope.name
    );
    assert!(states >= floor, "{}: {states} states are fewer than {floor}", scope.name);
    assert!(recovery <= within, "{}: {recovery} units are more than {within}", scope.name);
}

#[test]
fn the_laws_hold_with_several_probes() {
    let two = Rules { probes: Probes::new(2).successes(1).lease(3 * UNIT), ..rules() };
    holds(&Scope { in_flight: 3, ..scope("two probes, one must succeed", two) }, 2_900, 10);
    let both = Rules { probes: Probes::new(2).lease(UNIT), ..rules() };
    holds(&Scope { in_flight: 3, ..scope("two probes with a short lease", both) }, 1_800, 9);
    let half = Rules { probes: Probes::new(2).successes(1).lease(3 * UNIT).share(0.5), ..rules() };
    holds(&Scope { in_flight: 3, ..scope("two probes, of every second call", half) }, 10_000, 10);
}

#[test]
fn the_laws_hold_under_an_operator() {
    holds(&Scope { operator: true, ..scope("an operator", rules()) }, 29_000, 10);
}

#[test]
fn the_laws_hold_where_calls_hang() {
    let hanging = Rules { slow_calls: slow(), ..rules() };
    holds(&Scope { in_flight: 3, ..scope("a slow rule", hanging.clone()) }, 5_300, 10);
    let operated = scope("a slow rule and an operator", hanging);
    holds(&Scope { in_flight: 1, operator: true, ..operated }, 19_000, 10);
}

#[test]
fn the_laws_hold_on_a_ramp() {
    let ramp = Rules { ramp: Some(3 * UNIT), ..rules() };
    holds(&scope("a ramp", ramp), 12_000, 12);
    let ramp = Rules { ramp: Some(2 * UNIT), ..rules() };
    let operated = scope("a ramp and an operator", ramp);
    holds(&Scope { in_flight: 1, operator: true, ..operated }, 20_000, 12);
}

#[test]
fn the_laws_hold_in_windows_of_time() {
    let buckets = Rules {
        window: Window::time(4 * UNIT).buckets(2),
        minimum_calls: 1,
        consecutive_failures: Some(2),
        ..rules()
    };
    holds(&Scope { known: 4, ..scope("a window of time", buckets) }, 3_600, 12);
    let sustained = Rules { sustained_for: 4 * UNIT, ..rules() };
    holds(&Scope { known: 4, in_flight: 1, ..scope("a rate that lasts", sustained) }, 54_000, 10);
}

#[test]
fn the_laws_hold_while_throttling() {
    let throttle = Throttle::new(1.0).window(2 * UNIT).minimum_calls(2);
    let throttled = Rules {
        failure_rate: None,
        consecutive_failures: Some(3),
        throttle: Some(throttle),
        ..rules()
    };
    holds(&Scope { known: 4, depth: 8, ..scope("throttling", throttled) }, 3_400, 10);
}

#[test]
fn the_laws_hold_after_a_cold_start_and_with_hints() {
    let cold = Rules { start: Start::Open, warm_up: 5 * UNIT, ..rules() };
    holds(
        &Scope { hints: true, in_flight: 1, ..scope("a cold start, and hints", cold) },
        2_600,
        12,
    );
}

#[test]
fn the_laws_hold_under_other_rules() {
    let other = Rules {
        window: Window::count(1),
        minimum_calls: 1,
        slow_calls: slow(),
        open_for: Backoff::fixed(UNIT),
        probes: Probes::new(2).lease(UNIT),
        ramp: Some(2 * UNIT),
        ..rules()
    };
    holds(&Scope { rules: vec![rules(), other], ..scope("reconfigured", rules()) }, 13_000, 10);
}

#[test]
fn the_laws_hold_with_a_health_check() {
    holds(&Scope { checks: true, ..scope("a health check", rules()) }, 1_500, 10);
}
