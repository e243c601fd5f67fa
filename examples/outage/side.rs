//! One side of the comparison: an upstream, a steady load on it, and how its
//! calls ended.

use std::time::{Duration, Instant};

use http::Request;
use tokio::{sync::mpsc, time::interval};
use tower::ServiceExt;
use tower_breaker::{BoxError, CircuitOpen};

use crate::{END, HEALED_AT, SCRIPT, SICK_FROM, client::Stack, upstream::Upstream};

pub(crate) const CALLS_PER_SECOND: u32 = 50;

/// How one call ended.
pub(crate) struct Answer {
    /// Since the start of the run.
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    pub(crate) ending: Ending,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ending {
    Served,
    Failed,
    Rejected,
}

pub(crate) struct Side {
    upstream: Upstream,
    incoming: mpsc::UnboundedReceiver<Answer>,
    answers: Vec<Answer>,
}

impl Side {
    /// Starts an upstream, and the load on it.
    pub(crate) async fn start(stack: Stack, start: Instant) -> Result<Self, BoxError> {
        let upstream = Upstream::start(SCRIPT, start).await?;
        let (answers, incoming) = mpsc::unbounded_channel();
        tokio::spawn(load(stack, upstream.request()?, start, answers));
        Ok(Self { upstream, incoming, answers: Vec::new() })
    }

    /// Takes in what has ended so far.
    pub(crate) fn catch_up(&mut self) {
        while let Ok(answer) = self.incoming.try_recv() {
            self.answers.push(answer);
        }
    }

    /// Waits for the last call to end.
    pub(crate) async fn finish(&mut self) {
        while let Some(answer) = self.incoming.recv().await {
            self.answers.push(answer);
        }
    }

    pub(crate) fn answers(&self) -> &[Answer] {
        &self.answers
    }

    pub(crate) fn served(&self) -> usize {
        count(&self.answers, Ending::Served)
    }

    pub(crate) fn failed(&self) -> usize {
        count(&self.answers, Ending::Failed)
    }

    pub(crate) fn rejected(&self) -> usize {
        count(&self.answers, Ending::Rejected)
    }

    pub(crate) fn sick_calls(&self) -> u64 {
        self.upstream.sick_calls()
    }

    /// How long callers waited who called while the upstream was sick.
    pub(crate) fn wait_while_sick(&self, share: f64) -> Duration {
        let sick = SICK_FROM..HEALED_AT;
        percentile(self.answers.iter().filter(|call| sick.contains(&call.started)), share)
    }

    /// How many callers waited at once, at the worst moment.
    pub(crate) fn most_waiting(&self) -> usize {
        let waiting_at = |time: Duration| {
            self.answers.iter().filter(|call| call.started <= time && time < call.ended).count()
        };
        self.answers.iter().map(|call| waiting_at(call.started)).max().unwrap_or(0)
    }

    /// When the last call ended that was not served.
    pub(crate) fn last_not_served(&self) -> Option<Duration> {
        let not_served = self.answers.iter().filter(|call| call.ending != Ending::Served);
        not_served.map(|call| call.ended).max()
    }
}

/// An open loop: the next call starts on time, whatever became of the others.
async fn load(
    stack: Stack,
    request: Request<String>,
    start: Instant,
    answers: mpsc::UnboundedSender<Answer>,
) {
    let mut ticks = interval(Duration::from_secs(1) / CALLS_PER_SECOND);
    while start.elapsed() < END {
        ticks.tick().await;
        let (stack, request, answers) = (stack.clone(), request.clone(), answers.clone());
        tokio::spawn(async move {
            let started = start.elapsed();
            let ending = call(stack, request).await;
            // Fails only when nobody is interested any more.
            let _ = answers.send(Answer { started, ended: start.elapsed(), ending });
        });
    }
}

async fn call(stack: Stack, request: Request<String>) -> Ending {
    match stack.oneshot(request).await {
        Ok(response) if response.status().is_success() => Ending::Served,
        Ok(_) => Ending::Failed,
        Err(error) if CircuitOpen::find_in(&*error).is_some() => Ending::Rejected,
        Err(_) => Ending::Failed,
    }
}

pub(crate) fn count<'a>(answers: impl IntoIterator<Item = &'a Answer>, ending: Ending) -> usize {
    answers.into_iter().filter(|answer| answer.ending == ending).count()
}

/// The wait that `share` of the calls did not exceed; zero if there were none.
pub(crate) fn percentile<'a>(
    answers: impl IntoIterator<Item = &'a Answer>,
    share: f64,
) -> Duration {
    let mut waits: Vec<_> =
        answers.into_iter().map(|answer| answer.ended.saturating_sub(answer.started)).collect();
    waits.sort_unstable();
    let rank = (waits.len() as f64 * share).ceil() as usize;
    waits.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
