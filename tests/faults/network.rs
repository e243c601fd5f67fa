//! The network and the servers behind it: a request is a task's wait, a
//! connection what it waits for.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body::{Body, Frame};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};
use tower_breaker::{BoxError, Circuit, State};

use crate::plan::{Dice, Fault, HEALED_AT, Wrong, ms, now};

/// All servers, and what is wrong with them.
pub(crate) struct Network {
    began: Instant,
    faults: Vec<Fault>,
    servers: Vec<Server>,
    turns: AtomicU64,
}

struct Server {
    /// Grows with every crash, and breaks the connections there are.
    crashes: watch::Sender<u64>,
    /// It is down until then, in milliseconds since the beginning.
    down_until: AtomicU64,
}

impl Network {
    pub(crate) fn new(servers: usize, faults: &[Fault]) -> Arc<Self> {
        let server = || Server { crashes: watch::Sender::new(0), down_until: AtomicU64::new(0) };
        let network = Arc::new(Self {
            began: now(),
            faults: faults.to_vec(),
            servers: (0..servers).map(|_| server()).collect(),
            turns: AtomicU64::new(0),
        });
        for fault in faults.iter().filter(|fault| fault.wrong == Wrong::Crash) {
            let (network, fault) = (Arc::clone(&network), *fault);
            tokio::spawn(async move {
                sleep(fault.from).await;
                network.servers[fault.server].crash();
            });
        }
        network
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn wrong_with(&self, server: usize) -> Option<Wrong> {
        let now = self.elapsed();
        let is_on =
            |fault: &&Fault| fault.server == server && (fault.from..fault.to).contains(&now);
        self.faults.iter().find(is_on).map(|fault| fault.wrong)
    }

    /// One request and its answer's head, by the next server in turn.
    pub(crate) async fn exchange(
        self: Arc<Self>,
        circuit: Circuit,
        mut dice: Dice,
    ) -> Result<Response<Wire>, BoxError> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let index = (turn % self.servers.len() as u64) as usize;
        let server = &self.servers[index];
        let mut crashes = server.crashes.subscribe();
        let broken = async {
            // The server is there as long as the network is.
            let _ = crashes.changed().await;
        };
        let answered = async {
            sleep(ms(dice.between(1, 10))).await;
            let is_down = self.elapsed() < ms(server.down_until.load(Ordering::Relaxed));
            let wrong = self.wrong_with(index);
            match wrong {
                _ if is_down => return Err("refused".into()),
                Some(Wrong::Partition) => pending().await,
                Some(Wrong::Slow(longer)) => sleep(ms(longer)).await,
                Some(Wrong::Reset) => return Err("reset".into()),
                Some(Wrong::Crash) => return Err("refused".into()),
                Some(Wrong::CrashAtProbe) if circuit.state() == State::HalfOpen => {
                    server.crash();
                    let down = (self.elapsed() + ms(300)).min(HEALED_AT);
                    server.down_until.store(down.as_millis() as u64, Ordering::Relaxed);
                    pending().await
                }
                _ => {}
            }
            sleep(ms(dice.between(1, 10))).await;
            let breaks = match wrong {
                Some(Wrong::HalfBody) => Some(Break::Reset),
                Some(Wrong::StuckBody) => Some(Break::Stuck),
                _ => None,
            };
            let mut response = Response::new(Wire { left: 3, breaks, delay: None });
            if wrong == Some(Wrong::Unavailable) {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok(response)
        };
        tokio::select! {
            biased;
            () = broken => Err("reset".into()),
            answer = answered => answer,
        }
    }
}

impl Server {
    fn crash(&self) {
        self.crashes.send_modify(|crashes| *crashes += 1);
    }
}

/// What becomes of a body half-way through.
#[derive(Clone, Copy)]
enum Break {
    Reset,
    Stuck,
}

/// A body on its way: so many frames, a millisecond each.
pub(crate) struct Wire {
    left: u32,
    breaks: Option<Break>,
    delay: Option<Pin<Box<Sleep>>>,
}

impl Body for Wire {
    type Data = &'static [u8];
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<&'static [u8]>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.left == 1 {
            match self.breaks {
                Some(Break::Reset) => return Poll::Ready(Some(Err("reset".into()))),
                Some(Break::Stuck) => return Poll::Pending,
                None => {}
            }
        }
        let delay = self.delay.get_or_insert_with(|| Box::pin(sleep(ms(1))));
        std::task::ready!(delay.as_mut().poll(cx));
        self.delay = None;
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(b"data"))))
    }
}
