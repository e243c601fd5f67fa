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

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::notify::{
        message::Note,
        policy::{Condition, News, Told},
    };

    pub(in crate::notify) fn message(number: u64) -> Message {
        let note = Note {
            id: number.to_string(),
            at: UNIX_EPOCH,
            sentence: String::new(),
            by: None,
            reason: None,
        };
        let news = vec![News { condition: Condition::Open, note: note.into() }];
        let (before, now) = (Condition::Closed, Condition::Open);
        let told = Told { before, news, left_off: 0, openings: 1, brief: 0, now };
        Message { service: "orders".into(), told, hold_down: Duration::ZERO, lost: 0 }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_told_of_by_the_next() {
        let outbox = Outbox::default();
        let lost = (0..100).filter(|number| outbox.push(message(*number))).count();
        assert_eq!(lost, 36);
        let next = outbox.next().await.unwrap();
        assert_eq!((next.id().as_str(), next.lost), ("36", 36));
        assert_eq!(outbox.left(), 64);
        // What it was to tell of is lost with it.
        outbox.settle(&next, false);
        let next = outbox.next().await.unwrap();
        assert_eq!((next.id().as_str(), next.lost), ("37", 37));
        outbox.settle(&next, true);
        assert_eq!(outbox.next().await.unwrap().lost, 0);
    }

    #[tokio::test]
    async fn a_closed_box_is_emptied_first() {
        let outbox = Outbox::default();
        outbox.push(message(1));
        outbox.close();
        assert!(outbox.next().await.is_some());
        assert!(outbox.next().await.is_none());
    }
}
