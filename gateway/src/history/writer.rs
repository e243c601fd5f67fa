//! The one thread that writes.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as blocking,
    },
    time::Duration,
};

use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    watch,
};

use super::{
    feed::Job,
    store::{self, Batch, Cutoffs, OpenError, Store},
};
use crate::seldom::Seldom;

/// Between attempts to write what could not be written.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    path: PathBuf,
    store: Option<Store>,
    /// Grows when another file is in the place of the one before.
    life: Arc<AtomicU64>,
    failures: Seldom,
    /// Disconnected when it is time to end.
    end: blocking::Receiver<()>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, life: Arc<AtomicU64>, end: blocking::Receiver<()>) -> Self {
        Self { path, store: None, life, failures: Seldom::default(), end }
    }

    /// Does what there is to do until nobody can give it any more. Says when it
    /// has tried to open the database.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>, has_tried: &watch::Sender<bool>) {
        // Once more, because a file that is of no use is out of the way then.
        for _ in 0..2 {
            let opened = self.open().map(drop);
            if self.judge(opened).is_some() {
                break;
            }
        }
        has_tried.send_replace(true);
        let mut pruning: Option<Cutoffs> = None;
        loop {
            // What is old is forgotten only while there is nothing new.
            let next = if pruning.is_some() {
                jobs.try_recv()
            } else {
                jobs.blocking_recv().ok_or(TryRecvError::Disconnected)
            };
            match next {
                Ok(Job { batch, prune, waiting }) => {
                    self.write(&batch);
                    pruning = prune.or(pruning);
                    for waiting in waiting {
                        let _ = waiting.send(());
                    }
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    let cutoffs = pruning.take();
                    let pruned =
                        cutoffs.map(|cutoffs| self.open()?.prune(cutoffs).map_err(Into::into));
                    if self.judge(pruned.unwrap_or(Ok(false))) == Some(true) {
                        pruning = cutoffs;
                    }
                }
            }
        }
    }

    /// Writes it as soon as that can be done; once it is time to end, at once
    /// or never.
    fn write(&mut self, batch: &Batch) {
        loop {
            let written = self.open().and_then(|store| Ok(store.write(batch)?));
            if self.judge(written).is_some() {
                return;
            }
            if self.end.recv_timeout(AGAIN) == Err(blocking::RecvTimeoutError::Disconnected) {
                let written = self.open().and_then(|store| Ok(store.write(batch)?));
                if self.judge(written).is_none() {
                    let (events, minutes) = (batch.entries.len(), batch.minutes.len());
                    tracing::warn!(events, minutes, "the end of the history could not be kept");
                }
                return;
            }
        }
    }

    fn open(&mut self) -> Result<&mut Store, OpenError> {
        if self.store.is_none() {
            self.store = Some(Store::open(&self.path)?);
            self.life.fetch_add(1, Ordering::Release);
        }
        // Just put there.
        self.store.as_mut().ok_or(OpenError::Other(rusqlite::Error::InvalidQuery))
    }

    /// What came of it, if it was done. A file that is of no use is put aside,
    /// so that the next attempt begins with another.
    fn judge<T>(&mut self, result: Result<T, OpenError>) -> Option<T> {
        let (why, aside) = match result {
            Ok(done) => return Some(done),
            Err(OpenError::Damaged(why)) => (why, Some("damaged".to_owned())),
            Err(OpenError::Newer(version)) => {
                let why = format!("it is of version {version}, from a later release");
                (why, Some(format!("version-{version}")))
            }
            Err(OpenError::Other(error)) => (error.to_string(), None),
        };
        metrics::counter!("brk_history_write_failures_total").increment(1);
        let path = self.path.display();
        if let Some(unsaid) = self.failures.is_due() {
            tracing::warn!(%path, unsaid, "the history could not be written: {why}");
        }
        if let Some(as_what) = aside {
            self.store = None;
            match store::set_aside(&self.path, &as_what) {
                Ok(aside) => {
                    let aside: &Path = &aside;
                    tracing::warn!(%path, aside = %aside.display(), "the history begins anew: {why}");
                }
                Err(error) => tracing::warn!(%path, "the history could not be set aside: {error}"),
            }
        }
        None
    }
}
