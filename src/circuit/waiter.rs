//! Waiting for a circuit to admit: woken by its changes or by the time.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use super::{Circuit, sleep::Sleep};

/// The tasks that wait for a circuit to change.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    next: u64,
    /// In the order they came. There may be many, and each looks itself up.
    waiting: BTreeMap<u64, Waker>,
}

impl Wakers {
    /// Registers a task under `key`, or under a new one. Gives back the waker
    /// that was there: to be dropped once the lock is released, for the last
    /// reference to a task may be its waker, and drop what it owns. Cloning one
    /// is somebody else's code as well: not under the lock either.
    pub(super) fn register(&mut self, key: Option<u64>, waker: Waker) -> (u64, Option<Waker>) {
        let key = key.filter(|key| self.waiting.contains_key(key)).unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        (key, self.waiting.insert(key, waker))
    }

    /// Forgets a task, and gives back its waker like `register`.
    pub(super) fn remove(&mut self, key: u64) -> Option<Waker> {
        self.waiting.remove(&key)
    }

    /// Everybody. All, because being ready reserves nothing: whoever was
    /// woken alone might not come for what there is.
    pub(super) fn take(&mut self) -> Vec<Waker> {
        mem::take(&mut self.waiting).into_values().collect()
    }
}

/// One service's place among those that wait. A clone has none.
#[derive(Default)]
pub(crate) struct Waiter {
    place: Option<Place>,
    /// When to ask again.
    back: Option<Instant>,
    sleep: Option<Sleep>,
}

struct Place {
    circuit: Circuit,
    key: u64,
}

impl Waiter {
    /// Ready once the circuit admits.
    pub(crate) fn poll(&mut self, circuit: &Circuit, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let key = self.place.as_ref().map(|place| place.key);
            let (key, back) = match circuit.look_or_register(key, self.back, cx.waker().clone()) {
                Ok(()) => {
                    *self = Self::default();
                    return Poll::Ready(());
                }
                Err(refused) => refused,
            };
            self.keep(circuit, key);
            self.back = back;
            let Some(back) = back else {
                self.sleep = None;
                return Poll::Pending;
            };
            // A new one each time: the end may have moved.
            let sleep = self.sleep.insert(circuit.0.clock.sleep_until(back));
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Waiter {
    /// Has the task woken at the circuit's next change, whatever else it waits
    /// for. Look at the circuit once more after this.
    pub(crate) fn register(&mut self, circuit: &Circuit, cx: &mut Context<'_>) {
        let key = self.place.as_ref().map(|place| place.key);
        let key = circuit.register(key, cx.waker().clone());
        self.keep(circuit, key);
    }

    /// Whether it has a place.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.place.is_some()
    }

    /// Gives the place up.
    pub(crate) fn leave(&mut self) {
        if self.is_waiting() {
            *self = Self::default();
        }
    }

    fn keep(&mut self, circuit: &Circuit, key: u64) {
        match &mut self.place {
            Some(place) => place.key = key,
            None => self.place = Some(Place { circuit: circuit.clone(), key }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.circuit.0.forget_waiter(self.key);
    }
}
