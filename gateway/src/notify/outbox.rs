//! The messages that one target is yet to get.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::message::Message;

/// How many wait at most. If there are more the oldest is lost, for the newest
/// says how it is.
const LONGEST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Message>,
    /// Taken out, and not delivered yet.
    on_the_way: usize,
    /// Lost since the last message that was taken out.
    lost: u64,
    is_closed: bool,
}

impl Outbox {
    /// Puts a message in. Never waits. Whether another was lost for it.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut waiting = self.lock();
        waiting.queue.push_back(message);
        let too_many = waiting.queue.len() > LONGEST;
        if too_many {
            let oldest = waiting.queue.pop_front();
            waiting.lost += 1 + oldest.map_or(0, |oldest| oldest.lost);
        }
        drop(waiting);
        self.changed.notify_one();
        too_many
    }

    /// Lets no more in.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// The next message, with how many were lost before it. `None` once it is
    /// closed and empty. For one reader.
    pub(super) async fn next(&self) -> Option<Message> {
        loop {
            let changed = self.changed.notified();
            {
                let mut waiting = self.lock();
                if let Some(mut next) = waiting.queue.pop_front() {
                    next.lost += std::mem::take(&mut waiting.lost);
                    waiting.on_the_way += 1;
                    return Some(next);
                }
                if waiting.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Says what became of the last that was taken out: lost with it are those
    /// that it was to tell of.
    pub(super) fn settle(&self, message: &Message, is_delivered: bool) {
        let mut waiting = self.lock();
        waiting.on_the_way = 0;
        if !is_delivered {
            waiting.lost += 1 + message.lost;
        }
    }

    /// How many were not delivered.
    pub(super) fn left(&self) -> usize {
        let waiting = self.lock();
        waiting.queue.len() + waiting.on_the_way
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in there panics half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
