//! A stream of events for one reader. It has no queue: what comes next is put
//! together when the reader wants it, from what all readers share.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::request::Parts;
use serde_json::json;
use tokio::time::Sleep;

use super::{
    cursor::Cursor,
    places::{Place, Standing},
    service::Shared,
    sse, view,
};
use crate::{Lagged, Subscription};

/// When to come back if somebody else is putting the news together.
const SOON: Duration = Duration::from_millis(20);

/// For how many seconds a reader is taken for one who may look.
const TRUSTED_FOR: u64 = 5;

/// The events of one reader.
pub(super) struct EventStream {
    service: Arc<Shared>,
    /// What it was asked for with, and the second in which that was last good.
    parts: Parts,
    checked: u64,
    place: Place,
    subscription: Subscription,
    phase: Phase,
    /// The second up to which it has told what changed.
    told: u64,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was told yet.
    Beginning {
        is_resumed: bool,
    },
    /// All circuits come next: a frame that others have as well.
    Snapshot(Bytes),
    Running,
    Over,
}

impl EventStream {
    /// From now on, or from after this event; for whoever has just been let in
    /// with this request.
    pub(super) fn new(
        service: Arc<Shared>,
        parts: Parts,
        place: Place,
        after: Option<u64>,
    ) -> Self {
        let registry = &service.settings.registry;
        let subscription = match after {
            Some(id) => registry.subscribe_after(id),
            None => registry.subscribe(),
        };
        Self {
            subscription,
            parts,
            checked: service.second(),
            place,
            phase: Phase::Beginning { is_resumed: after.is_some() },
            told: service.second(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            service,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The next bytes; `None` at the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.is_over() {
            return Poll::Ready(None);
        }
        match self.place.check(self.service.now(), cx.waker()) {
            Standing::Kept => {}
            Standing::Lost => return self.end("unread"),
            Standing::Over => return self.end("shutdown"),
        }
        if !self.may_look() {
            return self.end("unauthorized");
        }
        match mem::replace(&mut self.phase, Phase::Running) {
            Phase::Beginning { is_resumed: false } => return Poll::Ready(Some(self.begin())),
            Phase::Beginning { is_resumed: true } => return Poll::Ready(Some(self.resume())),
            Phase::Snapshot(frame) => return Poll::Ready(Some(frame)),
            Phase::Running | Phase::Over => {}
        }
        match self.subscription.poll_next(cx) {
            Poll::Ready(Some(Ok(event))) => {
                let data = view::event(&event).to_string();
                return Poll::Ready(Some(sse::event("event", self.cursor(event.id), &data)));
            }
            Poll::Ready(Some(Err(lagged))) => {
                return Poll::Ready(Some(self.resync(lagged)));
            }
            // Not while the service is there.
            Poll::Ready(None) => return self.end("shutdown"),
            Poll::Pending => {}
        }
        self.poll_tick(cx).map(Some)
    }

    /// Whether who was let in still would be: a token may have been replaced.
    fn may_look(&mut self) -> bool {
        let second = self.service.second();
        if second < self.checked + TRUSTED_FOR {
            return true;
        }
        self.checked = second;
        self.service.settings.access.identify(&self.parts).is_ok()
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            let second = self.service.second();
            let at = if second == self.told {
                self.service.start_of(second + 1)
            } else {
                if let Some(tick) = self.service.pulse.since(&self.service, self.told) {
                    self.told = second;
                    return Poll::Ready(tick);
                }
                (self.service.now() + SOON).into()
            };
            self.timer.as_mut().reset(at);
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// From all circuits on: first their number, then they.
    fn begin(&mut self) -> Bytes {
        let snapshot = self.service.pulse.snapshot(&self.service, 0);
        let (registry, last_id) = (&self.service.settings.registry, snapshot.last_id);
        // What happened since others were told it comes behind it.
        self.subscription = registry.subscribe_after(last_id);
        self.told = snapshot.second;
        self.phase = Phase::Snapshot(snapshot.frame);
        sse::id(Cursor::new(registry, last_id))
    }

    /// All circuits, and behind them the events that were missed; if those are
    /// not there any more it is said so first.
    fn resume(&mut self) -> Bytes {
        let seen = self.subscription.last_id();
        if let Err(lagged) = self.subscription.try_next() {
            return self.resync(lagged);
        }
        // Not to lose what it has just read.
        self.subscription = self.service.settings.registry.subscribe_after(seen);
        self.snapshot()
    }

    /// Goes on with the oldest event there is, so that all that is not told is
    /// counted.
    fn resync(&mut self, lagged: Lagged) -> Bytes {
        self.phase = Phase::Snapshot(self.snapshot());
        let data = json!({ "missed": lagged.missed }).to_string();
        sse::event("resync", self.cursor(self.subscription.last_id()), &data)
    }

    /// All circuits, no earlier than the last event that will not be told. They
    /// have no number: whoever breaks off there has missed what comes behind.
    fn snapshot(&mut self) -> Bytes {
        let snapshot = self.service.pulse.snapshot(&self.service, self.subscription.last_id());
        self.told = snapshot.second;
        snapshot.frame
    }

    fn cursor(&self, id: u64) -> Option<Cursor> {
        Some(Cursor::new(&self.service.settings.registry, id))
    }

    fn end(&mut self, reason: &str) -> Poll<Option<Bytes>> {
        self.phase = Phase::Over;
        let data = json!({ "reason": reason });
        Poll::Ready(Some(sse::event("end", None, &data.to_string())))
    }
}
