//! Histories of calls, against the reference model of the tests: the bytes are the
//! dice that the tests' cases are drawn with, and where they end others follow, for
//! zeros without an end would be thrown again for ever.

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

fuzz_target!(|bytes: &[u8]| {
    let dice = TestRng::from_seed(RngAlgorithm::PassThrough, &endless(bytes));
    let mut runner = TestRunner::new_with_rng(Config::default(), dice);
    let Ok(case) = cases::case().new_tree(&mut runner) else { return };
    let case = case.current();
    if let Err(error) = reference::agree(case.clone()) {
        panic!("{error}\n{case:#?}");
    }
});

/// More than any case takes.
fn endless(bytes: &[u8]) -> Vec<u8> {
    const ENOUGH: usize = 64 << 10;
    let mut all = Vec::with_capacity(ENOUGH + bytes.len());
    all.extend_from_slice(bytes);
    // SplitMix64.
    let mut state = bytes.len() as u64;
    while all.len() < ENOUGH {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        all.extend((mixed ^ (mixed >> 31)).to_le_bytes());
    }
    all
}
