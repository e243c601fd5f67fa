//! Histories of calls, against the reference model of the tests: the bytes are the
//! dice that the tests' cases are drawn with.

#![no_main]

#[path = "../../tests/model/cases.rs"]
mod cases;
#[path = "../../tests/model/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

fuzz_target!(|bytes: &[u8]| {
    let dice = TestRng::from_seed(RngAlgorithm::PassThrough, bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), dice);
    let Ok(case) = cases::case().new_tree(&mut runner) else { return };
    let case = case.current();
    if let Err(error) = reference::agree(case.clone()) {
        panic!("{error}\n{case:#?}");
    }
});
