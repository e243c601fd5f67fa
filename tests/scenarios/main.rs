//! The behaviour scenarios, under their numbers, on virtual time.
//!
//! Each was distilled from the tests, the specification or a bug report of a
//! circuit breaker, and is the example of a law; where a law has more cases
//! than its example, the test goes through them too. In the words of the
//! scenarios: `S` is a success, `F` a failure, `I` an ignored call and `C` a
//! cancelled one; asking for a permit gives `P`, permitted, or `X`, refused.

mod generations;
mod half_open;
mod observers;
mod overrides;
mod panics;
mod rules;
mod sharing;
mod support;
mod waits;
mod window;
