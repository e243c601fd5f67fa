//! What is tried: random configurations, and random histories that know what a
//! configuration is sensitive to.

use proptest::prelude::*;
use tower_breaker::{Outcome, OverrideKind};

use super::reference::{
    Begin, End, Expiry, Kept, MS, Mark, OTHERS, Op, Part, SECOND, Setup, Share, Throttled, Waits,
};

pub(crate) fn case() -> impl Strategy<Value = (Setup, [Setup; OTHERS], Vec<Op>)> {
    let eighths = prop::option::weighted(0.4, 1..8usize);
    let asked = prop::option::weighted(0.2, 2..16usize);
    let history = prop::collection::vec(op(), 30..=80);
    let setups = (setup(), [setup(), setup()]);
    (setups, eighths, asked, history).prop_map(|((setup, others), eighths, asked, mut history)| {
        if let Some(eighths) = eighths {
            history.splice(0..0, up_the_ramp(&setup, eighths));
        } else if let Some(asked) = asked {
            history.splice(0..0, for_the_probes(asked));
        }
        (setup, others, history)
    })
}

/// By chance alone few get there.
fn up_the_ramp(setup: &Setup, eighths: usize) -> impl Iterator<Item = Op> + use<> {
    let probe = Op::Call(Some(Outcome::Success), Mark::Nothing, 0);
    // The first is one, and then as the share has it.
    let Share(part, whole) = setup.probing;
    let asked = u64::from(setup.successes - 1) * whole / part + 1;
    let probes = std::iter::repeat_n(probe, asked as usize);
    let climb = std::iter::repeat_n(Op::Advance(Mark::OfTheRamp, 0), eighths);
    [Op::Trip, Op::Advance(Mark::FirstWait, 0)].into_iter().chain(probes).chain(climb)
}

/// So many ask, most of them in vain, and some of those that did not give back
/// what they got.
fn for_the_probes(asked: usize) -> impl Iterator<Item = Op> {
    let ask = std::iter::repeat_n(Op::Acquire, asked);
    let give_back = std::iter::repeat_n(Op::Finish(0, None), 2);
    let again = std::iter::repeat_n(Op::Acquire, 2);
    let begin = [Op::Trip, Op::Advance(Mark::FirstWait, 0)];
    begin.into_iter().chain(ask).chain(give_back).chain(again)
}

fn setup() -> impl Strategy<Value = Setup> {
    let rules = (
        prop::option::weighted(0.8, share()),
        prop::option::weighted(0.3, 1..=4u32),
        prop::option::weighted(0.5, (prop::sample::select(vec![2 * MS, 5 * MS]), share())),
        prop::sample::select(vec![0, 0, 4 * MS, 10 * MS + 3]),
    );
    let lease = prop::sample::select(vec![4 * MS, 10 * MS, 25 * MS]);
    let ramp = prop::sample::select(vec![99, 20 * MS + 3, 100 * MS, 400 * MS]);
    let ramp = prop::option::weighted(0.6, ramp);
    let probing = prop::option::weighted(0.3, share()).prop_map(|share| share.unwrap_or(ALL));
    let half_open = (1..=4u32, 0..4u32, prop::option::weighted(0.7, lease), probing, ramp);
    let beginning = (begin(), prop::sample::select(vec![0, 0, 0, 0, 6 * MS, 40 * MS]));
    let beside = (prop::option::weighted(0.3, throttled()), beginning, any::<bool>());
    (kept(), 0..=6u64, rules, waits(), half_open, beside).prop_map(
        |(window, minimum, rules, waits, (probes, spared, lease, probing, ramp), beside)| {
            let (failure_rate, consecutive, slow, sustained) = rules;
            let (throttle, (start, warm_up), by_age) = beside;
            let none = failure_rate.is_none() && consecutive.is_none() && slow.is_none();
            let none = none && throttle.is_none();
            Setup {
                window,
                minimum: match window {
                    Kept::Calls(calls) => minimum.min(calls.into()),
                    Kept::Time { .. } => minimum,
                },
                failure_rate,
                sustained,
                consecutive: if none { Some(2) } else { consecutive },
                slow,
                waits,
                probes,
                successes: probes.saturating_sub(spared).max(1),
                lease,
                probing,
                ramp,
                throttle,
                start,
                warm_up,
                by_age,
            }
        },
    )
}

const ALL: Share = Share(1, 1);

fn kept() -> impl Strategy<Value = Kept> {
    let span = prop::sample::select(vec![7 * MS, 10 * MS, 50 * MS + 1]);
    prop_oneof![
        (1..=12u32).prop_map(Kept::Calls),
        (span, 1..=6u32).prop_map(|(span, buckets)| Kept::Time { span, buckets }),
    ]
}

fn begin() -> impl Strategy<Value = Begin> {
    prop::sample::select(vec![
        Begin::Closed,
        Begin::Closed,
        Begin::Closed,
        Begin::Open,
        Begin::Observed(15 * MS),
    ])
}

fn throttled() -> impl Strategy<Value = Throttled> {
    let k = prop::sample::select(vec![Share(1, 1), Share(2, 1), Share(3, 2)]);
    let span = prop::sample::select(vec![7 * MS, 30 * MS + 1, 200 * MS]);
    (k, span, 0..=6u64).prop_map(|(k, span, minimum)| Throttled { k, span, minimum })
}

fn share() -> impl Strategy<Value = Share> {
    prop::sample::select(vec![Share(1, 2), Share(1, 1), Share(1, 3), Share(2, 3), Share(29, 100)])
}

pub(crate) fn waits() -> impl Strategy<Value = Waits> {
    prop::sample::select(vec![
        Waits { first: 10 * MS, longest: 10 * MS, factor: Share(1, 1) },
        Waits { first: 10 * MS, longest: 80 * MS, factor: Share(2, 1) },
        Waits { first: 5 * MS, longest: 35 * MS, factor: Share(3, 2) },
        Waits { first: 3 * MS + 1, longest: 20 * SECOND, factor: Share(5, 2) },
        // Longer than the least lease there is unless one is set.
        Waits { first: 8 * SECOND, longest: 12 * SECOND, factor: Share(2, 1) },
    ])
}

/// Draws everything an operation might need and then takes its pick: a choice
/// between strategies would cost ten times as much, and there are half a
/// million operations.
fn op() -> impl Strategy<Value = Op> {
    let weights = [20, 24, 24, 18, 2, 1, 4, 2, 5, 2, 6];
    let which: Vec<_> = (0..).zip(weights).flat_map(|(op, weight)| vec![op; weight]).collect();
    let which = prop::sample::select(which);
    (which, 0..60usize, end(), mark(), off(), laid(), part()).prop_map(
        |(which, pick, end, mark, off, (kind, expiry), part)| match which {
            0 => Op::Acquire,
            1 => Op::Call(end, mark, off),
            2 => Op::Finish(pick, end),
            3 => Op::Advance(mark, off),
            4 => Op::Trip,
            5 => Op::Reset,
            6 => Op::Lay(kind, expiry),
            7 => Op::Clear,
            8 => Op::Poll,
            9 => Op::PollStuck,
            _ => Op::Reconfigure(part, pick % OTHERS),
        },
    )
}

fn end() -> impl Strategy<Value = End> {
    prop::sample::select(vec![
        Some(Outcome::Success),
        Some(Outcome::Success),
        Some(Outcome::Success),
        Some(Outcome::Failure),
        Some(Outcome::Failure),
        Some(Outcome::Failure),
        Some(Outcome::Ignored),
        None,
    ])
}

fn mark() -> impl Strategy<Value = Mark> {
    prop::sample::select(vec![
        Mark::Nothing,
        Mark::Nothing,
        Mark::SlowThreshold,
        Mark::SlowThreshold,
        Mark::FirstWait,
        Mark::LongestWait,
        Mark::Lease,
        Mark::Span,
        Mark::Sustained,
        Mark::NextBucket,
        Mark::NextStep,
        Mark::OfTheRamp,
        Mark::OfTheRamp,
        Mark::NextThrottleBucket,
        Mark::Deadline,
        Mark::Deadline,
    ])
}

fn part() -> impl Strategy<Value = Part> {
    prop::sample::select(vec![
        Part::Nothing,
        Part::Window,
        Part::Window,
        Part::Rates,
        Part::Slow,
        Part::Waits,
        Part::Probes,
        Part::Ramp,
        Part::Throttle,
        Part::Rest,
    ])
}

fn off() -> impl Strategy<Value = i8> {
    prop::sample::select(vec![0, 0, 1, -1])
}

fn laid() -> impl Strategy<Value = (OverrideKind, Expiry)> {
    let kinds = [OverrideKind::ForceOpen, OverrideKind::ForceClosed, OverrideKind::ObserveOnly];
    let expiries = [
        Expiry::AsItComes,
        Expiry::In(0),
        Expiry::In(5 * MS),
        Expiry::In(30 * MS),
        Expiry::UntilCleared,
    ];
    let all = kinds.map(|kind| expiries.map(|expiry| (kind, expiry)));
    prop::sample::select(all.concat())
}
