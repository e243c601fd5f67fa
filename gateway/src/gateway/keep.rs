//! What goes on beside the requests: files are watched and read again, and
//! what outlives the process is saved.

use std::{
    future::{self, Future},
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc,
    task,
    time::{Instant, sleep, timeout},
};
use tower_breaker::{EventKind as CircuitEventKind, Subscription};

use super::Gateway;

/// How long files have to be at rest before they are read: an editor writes
/// several times.
const REST: Duration = Duration::from_millis(100);

/// How long it waits for that at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// From one saving to the next, at least.
const BETWEEN_SAVINGS: Duration = Duration::from_millis(250);

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
        let events = gateway.registry().subscribe();
        let changes = Changes::of(gateway.path());
        let signals = Signals::new();
        async move {
            gateway.report();
            // What happened before anybody listened.
            gateway.save_aside().await;
            tokio::select! {
                () = gateway.save_on_change(events) => {}
                () = gateway.follow_files(changes) => {}
                () = gateway.follow_signals(signals) => {}
                () = stop => {}
            }
            gateway.save_aside().await;
        }
    }

    async fn save_on_change(&self, mut events: Subscription) {
        loop {
            // One that was missed may have mattered.
            let mut matters = match events.next().await {
                None => return,
                Some(event) => event.map_or(true, |event| is_saved(&event.kind)),
            };
            while let Ok(Some(event)) = events.try_next() {
                matters |= is_saved(&event.kind);
            }
            if matters {
                self.save_aside().await;
                sleep(BETWEEN_SAVINGS).await;
            }
        }
    }

    /// Away from the threads that have requests to carry.
    async fn save_aside(&self) {
        let gateway = self.clone();
        if let Ok(Err(error)) = task::spawn_blocking(move || gateway.save()).await {
            tracing::error!("the state can't be saved: {error}");
        }
    }

    async fn follow_files(&self, changes: Option<Changes>) {
        let Some(mut changes) = changes else { return future::pending().await };
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
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE && timeout(REST, self.told.recv()).await.is_ok() {}
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
