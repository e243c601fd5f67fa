//! What goes on beside the requests: files are watched and read again, and
//! what outlives the process is saved.

use std::{
    future::{self, Future},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::{mpsc, watch},
    task,
    time::{sleep, timeout},
};
use tower_breaker::{EventKind as CircuitEventKind, Subscription};

use super::{Gateway, Reload};

/// How long files have to be at rest before they are read: an editor writes
/// several times.
const REST: Duration = Duration::from_millis(100);

/// How long it waits for that at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// From one saving to the next, at least.
const BETWEEN_SAVINGS: Duration = Duration::from_millis(250);

/// From an attempt to save that failed to the next.
const AGAIN: Duration = Duration::from_secs(1);

impl Gateway {
    /// Reads the configuration again when its files change and on SIGHUP, and
    /// saves what outlives the process when it changes; until it is told to
    /// stop, and then once more.
    ///
    /// It has begun to listen when this returns, but works only while the
    /// future is polled. What it can't do, such as watch files, it says in the
    /// log and goes on without.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn keep<S>(&self, stop: S) -> impl Future<Output = ()> + Send + use<S>
    where
        S: Future<Output = ()> + Send,
    {
        let gateway = self.clone();
        let (events, reloads) = (gateway.registry().subscribe(), gateway.reloads());
        let changes = Changes::of(gateway.path());
        let signals = Signals::new();
        async move {
            describe();
            gateway.report();
            tokio::select! {
                () = gateway.save_on_change(events, reloads) => {}
                () = gateway.follow_files(changes) => {}
                () = gateway.follow_signals(signals) => {}
                () = stop => {}
            }
            gateway.save_aside().await;
        }
    }

    async fn save_on_change(&self, mut events: Subscription, mut reloads: Reloads) {
        // What happened before anybody listened.
        let mut matters = true;
        loop {
            // One that was missed may have mattered.
            while let Some(event) = events.try_next().transpose() {
                matters |= event.map_or(true, |event| is_saved(&event.kind));
            }
            if matters {
                let is_done = self.save_aside().await;
                matters = !is_done;
                sleep(if is_done { BETWEEN_SAVINGS } else { AGAIN }).await;
                continue;
            }
            matters = tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(event) => event.map_or(true, |event| is_saved(&event.kind)),
                },
                // The revision is saved, too.
                Ok(()) = reloads.changed() => true,
            };
        }
    }

    /// Away from the threads that have requests to carry. Whether it is done.
    async fn save_aside(&self) -> bool {
        let gateway = self.clone();
        let saved = task::spawn_blocking(move || gateway.save()).await;
        match saved {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => self.say_unsaved(&error),
            // It has panicked, and said so.
            Err(_) => {}
        }
        false
    }

    async fn follow_files(&self, changes: Option<Changes>) {
        let Some(mut changes) = changes else { return future::pending().await };
        // What changed before anybody watched.
        if self.has_files() {
            let gateway = self.clone();
            let _ = task::spawn_blocking(move || gateway.reload_if_changed()).await;
        }
        loop {
            changes.next().await;
            // Before they are read, so that nothing comes between.
            changes.watch_services();
            let gateway = self.clone();
            let _ = task::spawn_blocking(move || gateway.reload_if_changed()).await;
        }
    }

    async fn follow_signals(&self, mut signals: Signals) {
        loop {
            signals.next().await;
            let gateway = self.clone();
            let _ = task::spawn_blocking(move || gateway.reload()).await;
        }
    }
}

/// Says what the metrics mean, once a recorder is there.
fn describe() {
    metrics::describe_gauge!(
        "gateway_config_last_reload_success",
        "1 if the configuration was right when it was read last, 0 if it stays as it was before"
    );
    metrics::describe_gauge!(
        "gateway_config_last_reload_seconds",
        metrics::Unit::Seconds,
        "When the configuration was read last, as seconds since 1970"
    );
    metrics::describe_gauge!(
        "gateway_config_revision",
        "The revision of the configuration that is at work"
    );
    metrics::describe_counter!(
        "gateway_state_save_failures_total",
        "How often open waits and overrides could not be saved for a restart"
    );
}

/// Whether it changes what is saved.
fn is_saved(kind: &CircuitEventKind) -> bool {
    matches!(
        kind,
        CircuitEventKind::Transition(_)
            | CircuitEventKind::OverrideSet(_)
            | CircuitEventKind::OverrideCleared { .. }
            | CircuitEventKind::Registered
            | CircuitEventKind::Removed
    )
}

type Reloads = watch::Receiver<Arc<Reload>>;

/// Changes of the configuration's files. The directories are watched, because
/// whoever replaces a file leaves a watch on it with the old one.
struct Changes {
    watcher: RecommendedWatcher,
    told: mpsc::Receiver<()>,
    services: PathBuf,
}

impl Changes {
    fn of(main: &Path) -> Option<Self> {
        // One that waits stands for all that have come meanwhile.
        let (tell, told) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(&event.kind)) {
                let _ = tell.try_send(());
            }
        });
        let directory = main.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let watched = watcher.and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => {
                let services = main.with_file_name("services.d");
                let mut changes = Self { watcher, told, services };
                changes.watch_services();
                Some(changes)
            }
            Err(error) => {
                tracing::warn!("{} can't be watched: {error}", directory.display());
                None
            }
        }
    }

    /// Watches the services' directory, which may be another than before, or not
    /// be there.
    fn watch_services(&mut self) {
        let _ = self.watcher.unwatch(&self.services);
        let _ = self.watcher.watch(&self.services, RecursiveMode::NonRecursive);
    }

    /// Comes back when something has changed and is at rest again.
    async fn next(&mut self) {
        if self.told.recv().await.is_none() {
            return future::pending().await;
        }
        let rest = async { while timeout(REST, self.told.recv()).await.is_ok() {} };
        let _ = timeout(PATIENCE, rest).await;
    }
}

/// Who only reads changes nothing; this program reads, too.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => matches!(kind, AccessKind::Close(AccessMode::Write)),
        _ => true,
    }
}

/// SIGHUP, where there is such a thing.
struct Signals {
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            hang_up: {
                use tokio::signal::unix::{SignalKind, signal};

                let hang_up = signal(SignalKind::hangup());
                hang_up.inspect_err(|error| tracing::warn!("no SIGHUP is heard: {error}")).ok()
            },
        }
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(hang_up) = &mut self.hang_up {
            if hang_up.recv().await.is_some() {
                return;
            }
        }
        future::pending().await
    }
}
