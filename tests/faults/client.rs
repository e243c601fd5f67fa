//! A client: the stack as it is to be built, and the books that are kept around
//! the breaker.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use http::Response;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, retry::Policy, timeout::TimeoutLayer,
    util::BoxCloneSyncService,
};
use tower_breaker::{
    Backoff, BoxError, Cause, Circuit, CircuitBreakerLayer, CircuitOpen, Config, Observer, Probes,
    RetryPolicy, Snapshot, State, Transition, WhenOpen, Window,
};

use crate::{
    network::Network,
    plan::{Dice, Open, Plan, ms},
};

pub(crate) type Reply = Response<UnsyncBoxBody<&'static [u8], BoxError>>;
pub(crate) type Stack = BoxCloneSyncService<(), Reply, BoxError>;

/// What was seen on both sides of a breaker.
#[derive(Default)]
pub(crate) struct Books {
    /// Calls that reached the network.
    pub(crate) arrived: u64,
    /// Refusals that reached the retry.
    pub(crate) refused: u64,
    /// The half-open episode that calls arrived in last.
    episode: Option<Episode>,
    pub(crate) probed: u64,
    /// Laws that were broken.
    pub(crate) broken: Vec<String>,
}

struct Episode {
    generation: u64,
    arrived: u64,
    /// Calls that had ended without proof when it began.
    neutral: u64,
}

/// The transitions that were told.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Transition>>>);

impl Observer for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().expect("nobody panics with it").push(transition.clone());
    }
}

impl Log {
    /// Why the circuit moved, if what was told makes one story that ends as it
    /// is now.
    pub(crate) fn causes(&self, now: &Snapshot) -> Result<Vec<&'static str>, String> {
        let told = self.0.lock().expect("nobody panics with it");
        let (mut state, mut at) = (State::Closed, None);
        for transition in &*told {
            if transition.from != state || transition.to == state || Some(transition.at) < at {
                return Err(format!("{state}, and then {transition:?}"));
            }
            (state, at) = (transition.to, Some(transition.at));
        }
        if state != now.state {
            return Err(format!("the last that was told is {state}: {now:?}"));
        }
        Ok(told.iter().map(|transition| label(&transition.cause)).collect())
    }
}

fn label(cause: &Cause) -> &'static str {
    match cause {
        Cause::SlowCallRate { unfinished: 1.., .. } => "hangs",
        Cause::ProbesFailed { timed_out: 1.., .. } => "leases-ended",
        cause => cause.label(),
    }
}

pub(crate) struct Client {
    pub(crate) circuit: Circuit,
    pub(crate) stack: Stack,
    pub(crate) books: Arc<Mutex<Books>>,
    pub(crate) log: Log,
}

fn config(plan: &Plan, client: u64, log: Log) -> Config {
    let mut config = Config::builder("upstream")
        .observer(log)
        .window(match plan.time_window {
            true => Window::time(ms(1_000)),
            false => Window::count(8),
        })
        .minimum_calls(4)
        .failure_rate(0.5)
        .sustained_for(plan.sustained)
        .open_for(Backoff::exponential(plan.first_wait, plan.longest_wait).seed(plan.seed ^ client))
        .probes(Probes::new(plan.probes).successes(plan.successes).lease(plan.lease));
    if let Some(slow) = plan.slow {
        config = config.slow_calls(slow, 0.5);
    }
    if let Some(row) = plan.row {
        config = config.consecutive_failures(row);
    }
    if let Some(ramp) = plan.ramp {
        config = config.ramp(ramp);
    }
    config.build().expect("the plan is valid")
}

impl Client {
    /// Total timeout, retry, breaker, attempt timeout, transport.
    pub(crate) fn new(plan: &Plan, network: &Arc<Network>, dice: &mut Dice, client: u64) -> Self {
        let log = Log::default();
        let circuit = Circuit::new(config(plan, client, log.clone()));
        let books = Arc::new(Mutex::new(Books::default()));
        let transport = Transport {
            network: Arc::clone(network),
            circuit: circuit.clone(),
            books: Arc::clone(&books),
            probes: plan.probes.into(),
            has_ramp: plan.ramp.is_some(),
            dice: dice.fork(),
        };
        let attempt = match plan.attempt {
            Some(attempt) => BoxCloneSyncService::new(TimeoutLayer::new(attempt).layer(transport)),
            None => BoxCloneSyncService::new(transport),
        };
        let breaker = CircuitBreakerLayer::new(&circuit).when_open(match plan.when_open {
            Open::Error => WhenOpen::Error,
            Open::Defer => WhenOpen::Defer,
            Open::Wait => WhenOpen::Wait,
        });
        let guarded: Stack = match plan.to_the_end_of_body {
            true => BoxCloneSyncService::new(
                breaker.until_end_of_body().layer(attempt).map_response(boxed),
            ),
            false => BoxCloneSyncService::new(breaker.layer(attempt).map_response(boxed)),
        };
        let watched = Watched { inner: guarded, books: Arc::clone(&books) };
        let stack = ServiceBuilder::new()
            .layer(TimeoutLayer::new(plan.deadline))
            .retry(RetryPolicy::stop_when_open(Again(plan.retries)))
            .service(watched);
        let stack = BoxCloneSyncService::new(stack);
        Self { circuit, stack, books, log }
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("nobody panics with it")
    }
}

fn boxed<B>(response: Response<B>) -> Reply
where
    B: http_body::Body<Data = &'static [u8], Error = BoxError> + Send + 'static,
{
    response.map(BodyExt::boxed_unsync)
}

/// So many more attempts, whatever the error.
#[derive(Clone)]
struct Again(u32);

impl Policy<(), Reply, BoxError> for Again {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, (): &mut (), result: &mut Result<Reply, BoxError>) -> Option<Self::Future> {
        let failed = result.as_ref().map_or(true, |reply| reply.status().is_server_error());
        if failed {
            self.0 = self.0.checked_sub(1)?;
        }
        failed.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

/// The transport, with an eye on the circuit: it must not be called by an open
/// one, nor by a half-open one more often than there are probes.
#[derive(Clone)]
struct Transport {
    network: Arc<Network>,
    circuit: Circuit,
    books: Arc<Mutex<Books>>,
    probes: u64,
    has_ramp: bool,
    dice: Dice,
}

impl Transport {
    fn arrive(&self) {
        let seen = self.circuit.snapshot();
        let mut books = self.books.lock().expect("nobody panics with it");
        books.arrived += 1;
        if seen.state == State::Open {
            books.broken.push(format!("a call arrived while open: {seen:?}"));
        }
        if seen.state != State::HalfOpen || (self.has_ramp && seen.probes.is_none()) {
            return;
        }
        books.probed += 1;
        let neutral = seen.totals.cancelled + seen.totals.ignored;
        let probes = self.probes;
        let generation = seen.generation;
        let fresh = Episode { generation, arrived: 0, neutral };
        let episode = match &mut books.episode {
            Some(episode) if episode.generation == generation => episode,
            other => other.insert(fresh),
        };
        episode.arrived += 1;
        let budget = probes + (neutral - episode.neutral);
        if episode.arrived > budget {
            let arrived = episode.arrived;
            books.broken.push(format!("{arrived} probes of {budget} arrived: {seen:?}"));
        }
    }
}

impl Service<()> for Transport {
    type Response = Response<crate::network::Wire>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.arrive();
        let dice = self.dice.fork();
        Box::pin(Arc::clone(&self.network).exchange(self.circuit.clone(), dice))
    }
}

/// Counts the refusals of the breaker inside it.
#[derive(Clone)]
struct Watched {
    inner: Stack,
    books: Arc<Mutex<Books>>,
}

fn note<T>(books: &Mutex<Books>, result: &Result<T, BoxError>) {
    let refused = result.as_ref().err().and_then(|error| CircuitOpen::find_in(&**error));
    books.lock().expect("nobody panics with it").refused += u64::from(refused.is_some());
}

impl Service<()> for Watched {
    type Response = Reply;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map(|ready| {
            note(&self.books, &ready);
            ready
        })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let (call, books) = (self.inner.call(()), Arc::clone(&self.books));
        Box::pin(async move {
            let result = call.await;
            note(&books, &result);
            result
        })
    }
}
