//! Histories of calls, against the reference model of the tests: the first eight
//! bytes are the seed that configurations are drawn with, and then comes what
//! happens, three bytes each.

#![no_main]

#[path = "../../tests/model/cases.rs"]
mod cases;
#[path = "../../tests/model/reference.rs"]
#[allow(dead_code, reason = "the tests ask it for more")]
mod reference;

use libfuzzer_sys::fuzz_target;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tower_breaker::{Outcome, OverrideKind};

use self::reference::{Expiry, MS, Mark, OTHERS, Op, Part};

fuzz_target!(|bytes: &[u8]| {
    let Some((seed, history)) = bytes.split_first_chunk::<8>() else { return };
    let mut long_seed = [0; 32];
    long_seed[..8].copy_from_slice(seed);
    let dice = TestRng::from_seed(RngAlgorithm::ChaCha, &long_seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), dice);
    let Ok(case) = cases::case().new_tree(&mut runner) else { return };
    // The way up a ramp is drawn like the rest: it is the seed's, not the bytes'.
    let (setup, others, _) = case.current();
    let history: Vec<Op> = history.chunks_exact(3).take(80).map(op).collect();
    let case = (setup, others, history);
    if let Err(error) = reference::agree(case.clone()) {
        panic!("{error}\n{case:#?}");
    }
});

fn op(bytes: &[u8]) -> Op {
    let [which, first, second] = *bytes else { unreachable!("they come in threes") };
    let end = [Some(Outcome::Success), Some(Outcome::Failure), Some(Outcome::Ignored), None];
    let end = end[usize::from(first % 4)];
    let off = [0, 0, 1, -1][usize::from(second % 4)];
    let mark = MARKS[usize::from(second / 4) % MARKS.len()];
    match which % 16 {
        0 | 1 => Op::Acquire,
        2..=5 => Op::Call(end, mark, off),
        6 | 7 => Op::Finish(usize::from(second), end),
        8 | 9 => Op::Advance(mark, off),
        10 => Op::Trip,
        11 => Op::Reset,
        12 => Op::Lay(
            [OverrideKind::ForceOpen, OverrideKind::ForceClosed, OverrideKind::ObserveOnly]
                [usize::from(first % 3)],
            [
                Expiry::AsItComes,
                Expiry::In(0),
                Expiry::In(5 * MS),
                Expiry::In(30 * MS),
                Expiry::UntilCleared,
            ][usize::from(second % 5)],
        ),
        13 => Op::Clear,
        14 if first % 2 == 0 => Op::Poll,
        14 => Op::PollStuck,
        _ => Op::Reconfigure(PARTS[usize::from(first) % PARTS.len()], usize::from(second) % OTHERS),
    }
}

const MARKS: [Mark; 12] = [
    Mark::Nothing,
    Mark::SlowThreshold,
    Mark::FirstWait,
    Mark::LongestWait,
    Mark::Lease,
    Mark::Span,
    Mark::Sustained,
    Mark::NextBucket,
    Mark::NextStep,
    Mark::OfTheRamp,
    Mark::NextThrottleBucket,
    Mark::Deadline,
];

const PARTS: [Part; 9] = [
    Part::Nothing,
    Part::Window,
    Part::Rates,
    Part::Slow,
    Part::Waits,
    Part::Probes,
    Part::Ramp,
    Part::Throttle,
    Part::Rest,
];
