//! The upstream: an HTTP server on loopback that falls ill and heals by the
//! clock.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, routing::get};
use http::{Request, StatusCode};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

pub(crate) const WORK: Duration = Duration::from_millis(20);
const SLOTS: u32 = 6;
pub(crate) const CAPACITY_PER_SECOND: u128 = SLOTS as u128 * 1000 / WORK.as_millis();

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Health {
    Healthy,
    Errors,
    Hangs,
}

/// From which second on the upstream is how.
#[derive(Clone, Copy)]
pub(crate) struct Script(pub(crate) &'static [(u64, Health)]);

impl Script {
    pub(crate) fn at(self, elapsed: Duration) -> Health {
        let begun = self.0.iter().rev().find(|(from, _)| *from <= elapsed.as_secs());
        begun.map_or(Health::Healthy, |(_, health)| *health)
    }
}

/// A running upstream.
#[derive(Clone)]
pub(crate) struct Upstream {
    script: Script,
    start: Instant,
    address: SocketAddr,
    slots: Arc<Semaphore>,
    sick_calls: Arc<AtomicU64>,
}

impl Upstream {
    pub(crate) async fn start(script: Script, start: Instant) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let upstream = Self {
            script,
            start,
            address: listener.local_addr()?,
            slots: Arc::new(Semaphore::new(SLOTS as usize)),
            sick_calls: Arc::default(),
        };
        let router = Router::new().route("/", get(answer)).with_state(upstream.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(upstream)
    }

    /// A request to it.
    pub(crate) fn request(&self) -> http::Result<Request<String>> {
        Request::get(format!("http://{}/", self.address)).body(String::new())
    }

    /// How many calls have reached it while it was sick.
    pub(crate) fn sick_calls(&self) -> u64 {
        self.sick_calls.load(Ordering::Relaxed)
    }

    fn health(&self) -> Health {
        self.script.at(self.start.elapsed())
    }

    /// Waits for its turn, and works; while the upstream hangs it keeps a slot
    /// and gets nowhere.
    async fn work(self) -> StatusCode {
        let Ok(_slot) = self.slots.acquire().await else {
            return StatusCode::INTERNAL_SERVER_ERROR;
        };
        while self.health() == Health::Hangs {
            sleep(WORK).await;
        }
        sleep(WORK).await;
        StatusCode::OK
    }
}

async fn answer(State(upstream): State<Upstream>) -> StatusCode {
    let health = upstream.health();
    if health != Health::Healthy {
        upstream.sick_calls.fetch_add(1, Ordering::Relaxed);
    }
    if health == Health::Errors {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    // A task of its own: this future is dropped when the caller gives up, but
    // the work goes on, as it does wherever a thread or a database has it.
    tokio::spawn(upstream.work()).await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, health)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{health} from {from} s")?;
        }
        Ok(())
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Errors => "errors",
            Self::Hangs => "hangs",
        })
    }
}
