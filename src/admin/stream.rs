//! A stream of events for one reader. It has no queue: what comes next is put
//! together when the reader wants it, from what all readers share.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio::time::Sleep;

use super::{
    places::{Place, Standing},
    service::Shared,
    sse, view,
};
use crate::{Lagged, Subscription};

/// When to come back if somebody else is putting the news together.
const SOON: Duration = Duration::from_millis(20);

/// The events of one reader.
pub(super) struct EventStream {
    service: Arc<Shared>,
    place: Place,
    subscription: Subscription,
    phase: Phase,
    /// The second up to which it has told what changed.
    told: u64,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was told yet.
    Beginning {
        is_resumed: bool,
    },
    Running,
    Over,
}

impl EventStream {
    /// From now on, or from after this event.
    pub(super) fn new(service: Arc<Shared>, place: Place, after: Option<u64>) -> Self {
        let registry = &service.settings.registry;
        let subscription = match after {
            Some(id) => registry.subscribe_after(id),
            None => registry.subscribe(),
        };
        Self {
            subscription,
            place,
            phase: Phase::Beginning { is_resumed: after.is_some() },
            told: service.second(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            service,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
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
        if let Phase::Beginning { is_resumed } = self.phase {
            self.phase = Phase::Running;
            return Poll::Ready(Some(self.begin(is_resumed)));
        }
        match self.subscription.poll_next(cx) {
            Poll::Ready(Some(Ok(event))) => {
                let data = view::event(&event).to_string();
                return Poll::Ready(Some(sse::event("event", Some(event.id), &data)));
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

    /// All circuits. A resumed stream goes on with the events it has missed; if
    /// they are not there any more it is said so first.
    fn begin(&mut self, is_resumed: bool) -> Bytes {
        if !is_resumed {
            let mut text = String::new();
            self.push_snapshot(&mut text);
            return text.into();
        }
        match self.subscription.try_next() {
            Err(lagged) => self.resync(lagged),
            Ok(missed) => {
                let mut text = String::new();
                let snapshot = self.service.pulse.snapshot(&self.service);
                // Without its number: the events before it are yet to come.
                sse::push(&mut text, "snapshot", None, &snapshot.json);
                if let Some(event) = missed {
                    let data = view::event(&event).to_string();
                    sse::push(&mut text, "event", Some(event.id), &data);
                }
                text.into()
            }
        }
    }

    fn resync(&mut self, lagged: Lagged) -> Bytes {
        let mut text = String::new();
        let data = json!({ "missed": lagged.missed });
        sse::push(&mut text, "resync", None, &data.to_string());
        self.push_snapshot(&mut text);
        text.into()
    }

    /// All circuits, and from there on.
    fn push_snapshot(&mut self, text: &mut String) {
        let snapshot = self.service.pulse.snapshot(&self.service);
        sse::push(text, "snapshot", Some(snapshot.last_id), &snapshot.json);
        self.subscription = self.service.settings.registry.subscribe_after(snapshot.last_id);
        self.told = self.service.second();
    }

    fn end(&mut self, reason: &str) -> Poll<Option<Bytes>> {
        self.phase = Phase::Over;
        let data = json!({ "reason": reason });
        Poll::Ready(Some(sse::event("end", None, &data.to_string())))
    }
}
