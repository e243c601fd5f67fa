//! Who is compared.
//!
//! Each has the configuration it comes with, unless a tenth of failures would
//! open it. `tripping` is the same circuit set to open soon.

pub mod breaker;
pub mod failsafe;
pub mod ours;
pub mod recloser;
pub mod seatbelt;
pub mod tower_resilience;

use std::{fmt, time::Duration};

use http::Response;

use crate::{
    backend::{Ask, Backend, Refuses, Reply, Request},
    driver::{Driven, Guarded},
};

pub const HOUR: Duration = Duration::from_secs(3_600);

type Make<A> = Box<dyn Fn(A) -> Box<dyn Guarded>>;

pub struct Contender {
    pub name: String,
    closed: Make<()>,
    tripping: Make<Duration>,
    pub half_open: HalfOpen,
}

/// What a contender does with further calls while a probe is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOpen {
    Refuses,
    /// Lets every call pass, so there is nothing to measure.
    Admits,
    /// Like what is measured under another name.
    Skipped,
}

impl Contender {
    /// `closed` makes a service whose circuit stays closed while a tenth of
    /// the calls fails; `tripping` one that opens for so long once all fail.
    pub fn new(
        name: impl Into<String>,
        closed: impl Fn() -> Box<dyn Guarded> + 'static,
        tripping: impl Fn(Duration) -> Box<dyn Guarded> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            closed: Box::new(move |()| closed()),
            tripping: Box::new(tripping),
            half_open: HalfOpen::Refuses,
        }
    }

    #[must_use]
    pub fn half_open(mut self, half_open: HalfOpen) -> Self {
        self.half_open = half_open;
        self
    }

    /// A service with a new circuit.
    pub fn closed(&self) -> Box<dyn Guarded> {
        (self.closed)(())
    }

    /// A service whose circuit has just opened for so long.
    ///
    /// # Panics
    ///
    /// If it does not open.
    pub fn open(&self, wait: Duration) -> Box<dyn Guarded> {
        let mut service = (self.tripping)(wait);
        let opened = (0..1_000).any(|_| service.run(Request::new(Ask::Fail), 1).reached == 0);
        assert!(opened, "{} does not open", self.name);
        service
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contender").field(&self.name).finish()
    }
}

pub const BARE: &str = "the bare service";

/// The service without a breaker.
pub fn bare<R: Reply>() -> Box<dyn Guarded> {
    Box::new(Driven(Backend::<R>::new()))
}

/// A refusal without a breaker.
pub fn refusal() -> Box<dyn Guarded> {
    Box::new(Driven(Refuses))
}

/// Everybody, ourselves first.
pub fn all() -> Vec<Contender> {
    let mut all = ours::contenders();
    all.extend(peers());
    all
}

/// The peers.
pub fn peers() -> Vec<Contender> {
    let mut peers = vec![
        recloser::contender::<Response<()>>(),
        failsafe::contender::<Response<()>>(),
        failsafe::consecutive::<Response<()>>(),
        breaker::contender::<Response<()>>(),
    ];
    peers.extend(seatbelt::contenders::<Response<()>>());
    peers.extend(tower_resilience::contenders::<Response<()>>());
    peers
}

/// Whoever reports through the `metrics` facade, without a recorder and with
/// one. The peers do where this is built with feature `peer-metrics`.
pub fn reporting() -> Vec<Contender> {
    let mut both: Vec<_> = ours::contenders()
        .into_iter()
        .filter(|contender| {
            [ours::DEFAULT, ours::LATENCY, ours::PROMETHEUS, ours::PROMETHEUS_LATENCY]
                .contains(&&*contender.name)
        })
        .collect();
    if cfg!(feature = "peer-metrics") {
        let peers = || {
            let resilience = tower_resilience::contenders::<Response<()>>().swap_remove(0);
            [breaker::contender::<Response<()>>(), resilience]
        };
        both.extend(peers());
        both.extend(peers().map(|peer| {
            let name = format!("{}, Prometheus", peer.name);
            ours::reporting(&name, peer)
        }));
    }
    both
}

/// Whoever judges a result that is no HTTP response.
pub fn plain() -> Vec<Contender> {
    vec![
        ours::plain(),
        recloser::contender::<u64>(),
        failsafe::contender::<u64>(),
        breaker::contender::<u64>(),
        seatbelt::contenders::<u64>().swap_remove(0),
        tower_resilience::contenders::<u64>().swap_remove(0),
    ]
}
