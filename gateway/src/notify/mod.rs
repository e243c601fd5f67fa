//! Tells people and programs that a circuit opened, and that it is well again.
//!
//! Each target has two tasks. One follows the registry, decides what is worth
//! telling and when (`policy`), and never waits for anybody; the other takes
//! its messages from a queue and delivers them, behind a circuit of its own that
//! is in no registry, or a target that is down would be told about itself.

mod courier;
mod email;
mod failure;
mod http;
pub mod message;
mod outbox;
pub mod policy;
mod secret;
mod slack;
mod transport;
mod watcher;
mod webhook;

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval, timeout_at},
};
use tower_breaker::{Clock, Registry};

use self::{courier::Courier, outbox::Outbox, transport::Transport, watcher::Watcher};
use crate::{config::Target, gateway::Gateway, seldom::Seldom};

/// How soon targets that were configured anew are told of.
const LOOK: Duration = Duration::from_secs(1);

/// All targets. A clone is a handle to the same.
#[derive(Clone)]
pub struct Notifications(Arc<Inner>);

struct Inner {
    registry: Registry,
    running: Mutex<Vec<Running>>,
}

/// The two tasks of a target.
struct Running {
    target: watch::Sender<Arc<Target>>,
    outbox: Arc<Outbox>,
    /// Dropped when it is time to stop.
    go_on: Option<watch::Sender<()>>,
    courier: JoinHandle<()>,
}

impl Running {
    fn start(registry: &Registry, target: &Target) -> Result<Self, String> {
        // What is wrong with it is said at once.
        Transport::new(target)?;
        let circuit = courier::circuit(&target.name).map_err(|error| error.to_string())?;
        let outbox = Arc::new(Outbox::default());
        let (target, seen) = watch::channel(Arc::new(target.clone()));
        let (go_on, mut stopped) = watch::channel(());
        let watcher = Watcher::new(registry.clone(), seen.clone(), Arc::clone(&outbox));
        tokio::spawn(watcher.run(async move {
            // Nothing is ever sent.
            let _ = stopped.changed().await;
        }));
        let (failures, box_of) = (Seldom::default(), Arc::clone(&outbox));
        let courier = Courier { target: seen, outbox: box_of, circuit, failures };
        let courier = tokio::spawn(courier.run());
        Ok(Self { target, outbox, go_on: Some(go_on), courier })
    }

    /// Ends it at once. How many messages were not delivered.
    fn abort(&self) -> usize {
        self.courier.abort();
        let left = self.outbox.left();
        if left > 0 {
            let target = &self.target.borrow().name;
            tracing::warn!(to = target, left, "notifications were not delivered");
        }
        left
    }
}

/// Whether a target can be told: one line that names the key, and what would be
/// right, if not.
pub fn check(target: &Target) -> Result<(), String> {
    Transport::new(target)?;
    courier::circuit(&target.name).map_err(|error| error.to_string())?;
    Ok(())
}

/// Begins to tell the targets of a gateway, and those it is configured with
/// later, until it is told to stop. Needs tokio's runtime, with its timer.
pub fn start(gateway: &Gateway, stop: impl Future<Output = ()> + Send + 'static) -> Notifications {
    let notifications = Notifications::new(gateway.registry());
    notifications.apply(&gateway.table().settings.notify);
    let (gateway, told) = (gateway.clone(), notifications.clone());
    tokio::spawn(async move {
        let mut stop = pin!(stop);
        let mut look = interval(LOOK);
        let mut seen = gateway.table();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return told.stop(),
                _ = look.tick() => {
                    let table = gateway.table();
                    if !Arc::ptr_eq(&seen, &table) {
                        told.apply(&table.settings.notify);
                        seen = table;
                    }
                }
            }
        }
    });
    notifications
}

impl Notifications {
    /// With nobody to tell yet.
    pub fn new(registry: &Registry) -> Self {
        Self(Arc::new(Inner { registry: registry.clone(), running: Mutex::default() }))
    }

    /// Tells these from now on, and no others. A target of the same name goes
    /// on where it was, and is not told again what it was told.
    pub fn apply(&self, targets: &[Target]) {
        let mut running = self.0.running();
        running.retain_mut(|running| {
            let name = running.target.borrow().name.clone();
            let stays = targets.iter().any(|target| target.name == name);
            if !stays {
                running.go_on = None;
                running.abort();
            }
            stays
        });
        for target in targets {
            let known = running.iter().find(|running| running.target.borrow().name == target.name);
            let started = match known {
                Some(known) => {
                    known.target.send_if_modified(|before| {
                        let is_new = **before != *target;
                        if is_new {
                            *before = Arc::new(target.clone());
                        }
                        is_new
                    });
                    continue;
                }
                None => Running::start(&self.0.registry, target),
            };
            match started {
                Ok(started) => running.push(started),
                Err(why) => tracing::error!(to = target.name, "nobody is notified: {why}"),
            }
        }
    }

    /// Looks at no more events. What is not told yet is still delivered.
    pub fn stop(&self) {
        self.0.running().iter_mut().for_each(|running| running.go_on = None);
    }

    /// Stops, and waits until everything is delivered; so long at most. How many
    /// messages were not, each target's said in the log.
    pub async fn finish(&self, within: Duration) -> usize {
        self.stop();
        let running = std::mem::take(&mut *self.0.running());
        let deadline = Instant::from(Clock::tokio().now()) + within;
        let mut left = 0;
        for mut running in running {
            if timeout_at(deadline, &mut running.courier).await.is_err() {
                left += running.abort();
            }
        }
        left
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        // Nothing in there panics half-way.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
