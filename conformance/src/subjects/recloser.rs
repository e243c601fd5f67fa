//! recloser 1.4: `AsyncRecloser` around the call's future.
//!
//! It judges from a full ring on. So for failures in a row, which are all of
//! the last calls, the ring is filled with good calls first; a rate over calls
//! is asked for as it comes, with a ring of the window's length. After a wait
//! it judges by a rate as well, over another ring that has to fill up: one
//! probe decides nothing, so no verdict by one is claimed. It tells no state,
//! and its wait is read from the system's clock.

use std::time::Duration;

use recloser::{AnyError, AsyncRecloser};

use super::{
    driven::{ask, at_once},
    pace::Pace,
};
use crate::{
    breaker::{Breaker, Call, Refused, Subject, Time},
    feature::Feature,
    rules::{Rules, Wait, Window},
};

/// recloser.
#[derive(Clone, Copy, Debug)]
pub struct Recloser;

struct Peer(AsyncRecloser);

impl Subject for Recloser {
    fn name(&self) -> &str {
        "recloser 1.4"
    }

    fn claims(&self, feature: Feature) -> bool {
        matches!(
            feature,
            Feature::FailureRate | Feature::ConsecutiveFailures | Feature::GrowingWait
        )
    }

    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn Breaker, &mut dyn Time),
    ) -> Result<(), Refused> {
        let recloser = recloser::Recloser::custom().half_open_len(1);
        let recloser = match rules.open_for {
            Wait::Fixed(wait) => recloser.open_wait(Pace::real(wait)),
            Wait::Doubling(first, longest) => {
                let longest = Pace::real(longest);
                let wait = move |failed: u32, first: Duration| {
                    first.saturating_mul(1 << failed.min(31)).min(longest)
                };
                recloser.open_wait(Pace::real(first)).open_wait_strategy(wait)
            }
        };
        let Window::Calls(window) = rules.window else { unreachable!("it claims no other") };
        let (length, rate, filled) = match (rules.consecutive_failures, rules.failure_rate) {
            (Some(row), _) => (row, 1.0, row),
            (None, Some(rate)) => (window, rate as f32, 0),
            // Only opened by hand, which it does not claim, or by neither.
            (None, None) => (window, 1.0, 0),
        };
        let peer = Peer(recloser.closed_len(length as usize).error_rate(rate).build().into());
        for _ in 0..filled {
            let good = async { Ok::<_, ()>(()) };
            let _ = at_once(peer.0.call_with(AnyError, good));
        }
        play(&peer, &mut Pace::new());
        Ok(())
    }
}

impl Breaker for Peer {
    fn ask(&self) -> Option<Box<dyn Call>> {
        ask(|ending| self.0.call(ending))
    }
}
