//! Once a minute: for what goes on going wrong.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Lets one in a minute through, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Silence>);

#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// If it is time to say it: how many times it was not said since the last
    /// time it was.
    pub(crate) fn is_due(&self) -> Option<u64> {
        self.is_due_at(now())
    }

    fn is_due_at(&self, now: Instant) -> Option<u64> {
        // Nothing in there panics half-way.
        let mut silence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silence.since.is_some_and(|since| now < since + MINUTE) {
            silence.unsaid += 1;
            return None;
        }
        silence.since = Some(now);
        Some(std::mem::take(&mut silence.unsaid))
    }
}

#[expect(clippy::disallowed_methods, reason = "no circuit's time: that of the log")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute_with_how_often_it_was_not() {
        let (seldom, start) = (Seldom::default(), now());
        let at = |seconds| seldom.is_due_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(0));
        assert_eq!(at(1), None);
        assert_eq!(at(59), None);
        assert_eq!(at(60), Some(2));
        assert_eq!(at(120), Some(0));
    }
}
