//! Remembers: events, and what happened each minute, in a SQLite database.
//!
//! Nothing waits for it. Events wait in the registry, whose history is as long
//! as it is, and a task takes them from there as the one thread that writes can
//! have them. A disk that is full or a database that is locked is tried again
//! each second; what has left the registry meanwhile is counted, and the count
//! is kept in its place. An event is known by the registry's epoch and its
//! number, so that none is there twice, whenever it is written again.

mod feed;
pub mod minutes;
mod routes;
pub mod store;
mod writer;

use std::{
    future::Future,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc as blocking,
    },
    thread,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, oneshot, watch};
use tower_breaker::Registry;

use self::{feed::Feed, store::Reader, writer::Writer};
pub use self::{
    routes::answer,
    store::{EventsAsked, EventsKept, Sum},
};
use crate::{config, gateway::Gateway};

/// The ranges that the page offers.
pub const RANGES: [&str; 2] = ["24h", "7d"];

/// The past of a gateway. A clone is a handle to the same.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    registry: Registry,
    path: PathBuf,
    /// That of the writer: how many files it has had.
    life: Arc<AtomicU64>,
    reader: Mutex<Option<(u64, Reader)>>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    /// Whether the database has been opened, or could not be; closed once the
    /// writer has ended.
    tried: watch::Receiver<bool>,
}

/// Minutes of a circuit, added up in steps of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub step: Duration,
    /// When the last step ends: it is still running.
    pub end: SystemTime,
    /// 60 of them, oldest first; `None` where nothing is known.
    pub steps: Vec<Option<Sum>>,
}

/// How many steps a series has, as those of the page.
const STEPS: usize = 60;

/// Begins to remember what happens in a gateway, in `history.db` in its state
/// directory. To be called once; needs tokio's runtime, with its timer.
///
/// # Errors
///
/// If there can be no thread. A database that is of no use is no error: it is
/// set aside, or tried again.
pub fn start(
    gateway: &Gateway,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<History> {
    let path = gateway.table().settings.admin.state.join("history.db");
    let table = gateway.clone();
    let keep = move || table.table().settings.history.clone();
    begin(gateway.registry(), path, keep, stop)
}

/// Begins to remember what happens in a registry, in the database of this path,
/// for as long as `keep` says each hour.
///
/// # Errors
///
/// If there can be no thread.
pub fn begin(
    registry: &Registry,
    path: PathBuf,
    keep: impl Fn() -> config::History + Send + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<History> {
    let life = Arc::new(AtomicU64::new(0));
    let (jobs, to_do) = mpsc::channel(1);
    let (flushes, asked) = mpsc::channel(1);
    let (may_retry, end) = blocking::channel::<()>();
    let (has_tried, tried) = watch::channel(false);
    let writer = Writer::new(path.clone(), Arc::clone(&life), end);
    thread::Builder::new()
        .name("brk-history".to_owned())
        .spawn(move || writer.run(to_do, &has_tried))?;
    let feed = Feed::new(registry.clone(), keep);
    tokio::spawn(async move {
        feed.run(jobs, asked, async move {
            stop.await;
            drop(may_retry);
        })
        .await;
    });
    let (registry, reader) = (registry.clone(), Mutex::default());
    Ok(History(Arc::new(Inner { registry, path, life, reader, flushes, tried })))
}

impl History {
    /// The latest events, of all circuits or of one.
    ///
    /// # Errors
    ///
    /// If the database can't be read. `Ok(None)`, if there is no event of the
    /// number that it is to begin before.
    pub async fn events(&self, asked: EventsAsked) -> rusqlite::Result<Option<EventsKept>> {
        self.read(move |reader| reader.events(&asked)).await
    }

    /// A circuit's last minutes, so far back; `None` if nothing was ever known
    /// of it.
    ///
    /// # Errors
    ///
    /// If the database can't be read.
    pub async fn minutes(
        &self,
        circuit: &str,
        range: Duration,
    ) -> rusqlite::Result<Option<Series>> {
        let is_registered = self.0.registry.get(circuit).is_some();
        let circuit = circuit.to_owned();
        let steps = STEPS as u64;
        let step = (range.as_secs() / 60).div_ceil(steps).max(1);
        let last = minutes::number(feed::date()).unsigned_abs() / step;
        let first = (last + 1).saturating_sub(steps) * step;
        let as_number = |minutes: u64| i64::try_from(minutes).unwrap_or(i64::MAX);
        let (first, in_minutes) = (as_number(first), as_number(step));
        let read = move |reader: &Reader| {
            if !is_registered && !reader.knows(&circuit)? {
                return Ok(None);
            }
            reader.sums(&circuit, first, in_minutes, STEPS).map(Some)
        };
        let sums = self.read(read).await?;
        let minutes = |number: u64| Duration::from_secs(number * 60);
        Ok(sums.map(|steps| Series {
            step: minutes(step),
            end: SystemTime::UNIX_EPOCH + minutes((last + 1) * step),
            steps,
        }))
    }

    /// Takes in what has happened so far, and waits until it is written. For as
    /// long as the disk is full, that is; give it a deadline.
    pub async fn flush(&self) {
        let (waiting, written) = oneshot::channel();
        if self.0.flushes.send(waiting).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Waits until the last thing is written, after the stop; so long at most.
    /// Whether it was.
    pub async fn finish(&self, within: Duration) -> bool {
        let mut tried = self.0.tried.clone();
        // Nothing that is sent will do.
        tokio::time::timeout(within, tried.wait_for(|_| false)).await.is_ok()
    }

    /// Reads on a thread where that may take time, once there can be a database.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let inner = Arc::clone(&self.0);
        // Without a writer there is only what it has left.
        let _ = inner.tried.clone().wait_for(|tried| *tried).await;
        let reading = tokio::task::spawn_blocking(move || inner.read(read));
        // A panic in there has said what it is.
        reading.await.unwrap_or(Err(rusqlite::Error::InvalidQuery))
    }
}

impl Inner {
    fn read<T>(&self, read: impl FnOnce(&Reader) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        // What a panic left is thrown away with the next error.
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let life = self.life.load(Ordering::Acquire);
        let opened = match reader.take() {
            Some((of, opened)) if of == life => opened,
            _ => Reader::open(&self.path)?,
        };
        let answer = read(&opened)?;
        *reader = Some((life, opened));
        Ok(answer)
    }
}
