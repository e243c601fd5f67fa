//! The wire from a live circuit to its shadows and its recorder.

use std::{sync::Arc, time::Duration};

use super::{
    config::Config,
    permit::Reading,
    recorder::{Recorder, TapedCall},
    shadow::{Birth, Follower, Shadow},
};
use crate::{outcome::Outcome, time::Time};

/// Who follows a circuit's calls from their beginning.
#[derive(Debug)]
pub(super) struct Followers {
    shadows: Vec<Shadow>,
    recorder: Option<Recorder>,
}

/// What the followers have to remember of a call until it ends.
#[derive(Debug, Default)]
pub(super) struct Following {
    followers: Vec<Follower>,
    ties: u64,
    hint: Option<(Time, Duration)>,
    head: Option<Duration>,
}

impl Following {
    /// The answer came, and the call goes on.
    #[cfg(feature = "http")]
    pub(super) fn untrack(&self, reading: Reading) {
        self.followers.iter().for_each(|follower| follower.untrack(reading));
    }
}

impl Followers {
    /// Those that a configuration asks for, if any.
    pub(super) fn of(config: &mut Config, birth: &Birth) -> Option<Box<Self>> {
        let attached =
            |recorder: &Recorder| recorder.attach(&config.name, birth.seed, &birth.clock, birth.at);
        let recorder = config.recorder.take().filter(attached);
        if let Some(recorder) = &recorder {
            config.observers.others.push(Arc::new(recorder.clone()));
        }
        let shadow = |candidate: Config| {
            let state = candidate.first_state();
            let watchers = crate::defaults::shadow_observers(&config.name, &candidate.name, state);
            Shadow::new(candidate, birth.clone(), watchers)
        };
        let shadows: Vec<_> = std::mem::take(&mut config.shadows).into_iter().map(shadow).collect();
        let followed = recorder.is_some() || !shadows.is_empty();
        followed.then(|| Box::new(Self { shadows, recorder }))
    }

    pub(super) fn shadows(&self) -> &[Shadow] {
        &self.shadows
    }

    /// A call begins. Returns what there is to remember, which with a recorder
    /// alone is nothing as a rule.
    pub(super) fn begin(&self, at: Time) -> Option<Box<Following>> {
        let recorder = self.recorder.as_ref();
        let ties = recorder.map_or(0, |recorder| recorder.ties_at(at.elapsed()));
        if ties == 0 && self.shadows.is_empty() {
            return None;
        }
        let followers = self.shadows.iter().map(|shadow| shadow.begin(at)).collect();
        Some(Box::new(Following { followers, ties, hint: None, head: None }))
    }

    /// The dependency asked a call that runs to stay away.
    pub(super) fn hint(
        &self,
        following: &mut Option<Box<Following>>,
        at: Time,
        retry_after: Duration,
    ) {
        let following = following.get_or_insert_default();
        following.followers.iter().for_each(|follower| follower.hint(at, retry_after));
        following.hint = Some((at, retry_after));
    }

    /// A call that is dropped had an answer after so long.
    #[cfg(feature = "http")]
    pub(super) fn answered(&self, following: &mut Option<Box<Following>>, after: Duration) {
        if self.recorder.is_some() {
            following.get_or_insert_default().head = Some(after);
        }
    }

    /// A call that began ends.
    pub(super) fn end(
        &self,
        following: Option<Box<Following>>,
        began: Time,
        ended: Time,
        outcome: Option<Outcome>,
        latency: Option<Duration>,
    ) {
        let Following { followers, ties, hint, head } = following.map(|it| *it).unwrap_or_default();
        let reading = Reading::new(latency, Some(ended));
        for (shadow, follower) in self.shadows.iter().zip(followers) {
            shadow.end(follower, outcome, reading);
        }
        if let Some(recorder) = &self.recorder {
            recorder.call(TapedCall {
                began: began.elapsed(),
                ended: ended.elapsed(),
                outcome,
                latency,
                ties,
                hint: hint.map(|(at, wait)| (at.elapsed(), wait)),
                head,
            });
        }
    }

    /// A caller was kept waiting: a call that asked, of which nothing else is known.
    #[cfg(feature = "tokio")]
    pub(super) fn asked(&self, at: Time) {
        self.shadows.iter().for_each(|shadow| shadow.asked(at));
    }

    /// A call was refused.
    pub(super) fn refused(&self, at: Time) {
        self.shadows.iter().for_each(|shadow| shadow.unknown(at));
        if let Some(recorder) = &self.recorder {
            recorder.refusal(at.elapsed());
        }
    }
}
