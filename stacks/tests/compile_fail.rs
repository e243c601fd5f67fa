//! The messages of the misuses that users will make.
//!
//! They are of the toolchain in use. After a change, look at them, and write
//! them anew with `TRYBUILD=overwrite`.

#[test]
fn misuses_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
