//! Hours of mixed traffic, with everything going wrong in turn.
//!
//! An axum server on loopback, and clients of hyper's with a breaker each: one that
//! judges at the head, one that follows the body to its end, one whose callers wait
//! while it is open. Every few seconds something else is wrong with the server: it
//! fails, crawls, hangs, breaks off in the middle of a body, turns callers away, or
//! is not there; in between it is well. Callers go away when they please. You will
//! see a line a round: what was called, what came of it, and what the process holds.
//!
//! `cargo run --package tower-breaker-stacks --example soak -- [SECONDS]`
//!
//! It fails if a call is not counted exactly once, by the circuit's totals and by an
//! observer; if a kind of end was never seen; if a circuit is not closed in the end;
//! or if memory, tasks, wakers or file descriptors grow. Two minutes unless said;
//! in less than 45 seconds not everything has gone wrong yet.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use axum::{Router, body::Body, extract::State as Shared};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer,
    util::BoxCloneSyncService,
};
use tower_breaker::{
    Backoff, Call, CallEnd, Circuit, CircuitBreakerLayer, CircuitOpen, Config, Observer, Probes,
    ResultClassifier, Snapshot, State, WhenOpen,
};

const CALLERS: usize = 12;
/// One thing at a time goes wrong, for so long.
const ROUND: Duration = Duration::from_secs(3);
/// A call that takes longer is slow.
const SLOW: Duration = Duration::from_millis(80);
/// What memory may grow by once it is warm, in kB: what an allocator keeps.
const SLACK: u64 = 12 << 10;

type Reply = Response<UnsyncBoxBody<Bytes, BoxError>>;
type Stack = BoxCloneSyncService<Request<Empty<Bytes>>, Reply, BoxError>;

#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(usize)]
enum Mood {
    Well,
    Failing,
    Crawling,
    Hanging,
    BreakingOff,
    Busy,
    Gone,
    Mixed,
}

const MOODS: [Mood; 8] = [
    Mood::Well,
    Mood::Failing,
    Mood::Crawling,
    Mood::Hanging,
    Mood::BreakingOff,
    Mood::Busy,
    Mood::Gone,
    Mood::Mixed,
];

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<ExitCode, BoxError> {
    let seconds = std::env::args().nth(1).map_or(Ok(120), |seconds| seconds.parse())?;
    let server = Server::start().await?;
    let clients = [
        SoakedClient::new("at-the-head", &server, WhenOpen::Error, false)?,
        SoakedClient::new("to-the-end", &server, WhenOpen::Defer, true)?,
        SoakedClient::new("waiting", &server, WhenOpen::Wait, false)?,
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for client in &clients {
        for seed in 0..CALLERS {
            callers.spawn(client.clone().calls(seed as u64, Arc::clone(&stop)));
        }
    }

    let end = now() + Duration::from_secs(seconds);
    let mut held: Vec<Held> = Vec::new();
    let mut rounds = 0;
    let mut wrong = Vec::new();
    println!("round  mood             calls  refused   memory kB  descriptors  tasks");
    while now() < end {
        // Every other round it is well.
        let mood = if rounds % 2 == 0 { Mood::Well } else { MOODS[1 + rounds / 2 % 7] };
        server.mood.store(mood as usize, Ordering::Relaxed);
        sleep(ROUND.min(end.saturating_duration_since(now()))).await;
        rounds += 1;
        wrong.extend(wakers_left());
        // Where a round is over everything is in the same mood again.
        if mood == Mood::Well {
            held.push(Held::by_the_process());
        }
        let (called, refused) = clients.iter().fold((0, 0), |(called, refused), client| {
            let books = &client.books;
            (called + books.called(), refused + books.refused.load(Ordering::Relaxed))
        });
        let Held { memory, descriptors, tasks } = Held::by_the_process();
        println!(
            "{rounds:5}  {:12} {called:9} {refused:8}  {memory:10}  {descriptors:11}  {tasks:5}",
            format!("{mood:?}")
        );
    }

    // It is well in the end, and so are the circuits.
    server.mood.store(Mood::Well as usize, Ordering::Relaxed);
    for client in &clients {
        let closed = timeout(Duration::from_secs(60), async {
            while client.circuit.state() != State::Closed {
                sleep(Duration::from_millis(10)).await;
            }
        });
        if closed.await.is_err() {
            wrong.push(format!("not closed in the end: {:?}", client.circuit.snapshot()));
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller?;
    }
    for client in &clients {
        client.settle().await;
        wrong.extend(client.check());
    }
    wrong.extend(unseen(&clients));
    wrong.extend(grown(&held));
    for wrong in &wrong {
        eprintln!("{wrong}");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// The server -----------------------------------------------------------------

struct Server {
    address: SocketAddr,
    /// Where nobody listens.
    nowhere: SocketAddr,
    mood: Arc<AtomicUsize>,
    /// Keeps the other port from being anybody's.
    _reserved: socket::Reserved,
}

mod socket {
    //! A port that is bound and refuses.

    use std::{io, net::SocketAddr};

    use tokio::net::TcpSocket;

    pub(super) struct Reserved(TcpSocket);

    impl Reserved {
        pub(super) fn new() -> io::Result<Self> {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            Ok(Self(socket))
        }

        pub(super) fn address(&self) -> io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }
}

impl Server {
    async fn start() -> io::Result<Self> {
        let mood = Arc::new(AtomicUsize::new(Mood::Well as usize));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let app = Router::new().fallback(answer).with_state(Arc::clone(&mood));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let reserved = socket::Reserved::new()?;
        Ok(Self { address, nowhere: reserved.address()?, mood, _reserved: reserved })
    }
}

async fn answer(Shared(mood): Shared<Arc<AtomicUsize>>, request: Request<Body>) -> Response<Body> {
    let dice: u64 = request.headers()["x-dice"].to_str().unwrap_or("0").parse().unwrap_or(0);
    let mood = match MOODS[mood.load(Ordering::Relaxed)] {
        Mood::Mixed => MOODS[(dice % 6) as usize],
        mood => mood,
    };
    let (status, wait) = match mood {
        Mood::Failing => (StatusCode::SERVICE_UNAVAILABLE, 1),
        Mood::Busy => (StatusCode::TOO_MANY_REQUESTS, 1),
        Mood::Crawling => (StatusCode::OK, 120),
        Mood::Hanging => (StatusCode::OK, 5_000),
        _ => (StatusCode::OK, dice % 5),
    };
    sleep(Duration::from_millis(wait)).await;
    let whole = [Ok(Bytes::from_static(b"all is ")), Ok(Bytes::from_static(b"well"))];
    let broken = [whole[0].clone(), Err("it breaks off")];
    let chunks: [Result<Bytes, &str>; 2] = if mood == Mood::BreakingOff { broken } else { whole };
    let mut response = Response::new(Body::from_stream(stream::iter(chunks)));
    *response.status_mut() = status;
    response
}

// The clients ----------------------------------------------------------------

/// What callers and the network saw.
#[derive(Default)]
struct Books {
    /// Calls that came through the breaker.
    admitted: AtomicU64,
    /// Refusals, by whom they were told.
    refused: AtomicU64,
    /// What callers made of their calls.
    answered: AtomicU64,
    failed: AtomicU64,
    gone: AtomicU64,
    /// Calls that an observer heard the end of.
    ends: [AtomicU64; 5],
    slow: AtomicU64,
}

impl Books {
    fn called(&self) -> u64 {
        [&self.answered, &self.failed, &self.gone]
            .map(|kind| kind.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

struct Listener(Arc<Books>);

impl Observer for Listener {
    fn on_call(&self, call: &Call<'_>) {
        self.0.ends[index_of(call.end)].fetch_add(1, Ordering::Relaxed);
        self.0.slow.fetch_add(u64::from(call.slow), Ordering::Relaxed);
    }
}

fn index_of(end: CallEnd) -> usize {
    match end {
        CallEnd::Success => 0,
        CallEnd::Failure => 1,
        CallEnd::Ignored => 2,
        CallEnd::Cancelled => 3,
        _ => 4,
    }
}

#[derive(Clone)]
struct SoakedClient {
    circuit: Circuit,
    stack: Stack,
    books: Arc<Books>,
    urls: [String; 2],
    mood: Arc<AtomicUsize>,
}

impl SoakedClient {
    fn new(
        name: &str,
        server: &Server,
        when_open: WhenOpen,
        to_the_end: bool,
    ) -> Result<Self, BoxError> {
        let books = Arc::new(Books::default());
        let config = Config::builder(name)
            .minimum_calls(8)
            .sustained_for(Duration::from_millis(50))
            .slow_calls(SLOW, 0.5)
            .open_for(Backoff::exponential(Duration::from_millis(50), Duration::from_millis(400)))
            .probes(Probes::new(3).successes(2).lease(Duration::from_millis(300)))
            .ramp(Duration::from_millis(300))
            .observer(Listener(Arc::clone(&books)));
        let circuit = Circuit::new(config.build()?);
        let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(500))
            .build_http();
        let seen = Arc::clone(&books);
        let transport = service_fn(move |request| {
            seen.admitted.fetch_add(1, Ordering::Relaxed);
            let call = client.request(request);
            async move { Ok::<_, BoxError>(call.await?.map(|body| body.map_err(BoxError::from))) }
        });
        let breaker = CircuitBreakerLayer::new(&circuit).when_open(when_open);
        let attempt = TimeoutLayer::new(Duration::from_millis(250));
        let stack: Stack = if to_the_end {
            let stack = ServiceBuilder::new().layer(breaker.until_end_of_body()).layer(attempt);
            BoxCloneSyncService::new(stack.service(transport).map_response(boxed))
        } else {
            let stack = ServiceBuilder::new().layer(breaker).layer(attempt);
            BoxCloneSyncService::new(stack.service(transport).map_response(boxed))
        };
        let urls = [server.address, server.nowhere].map(|address| format!("http://{address}/"));
        Ok(Self { circuit, stack, books, urls, mood: Arc::clone(&server.mood) })
    }

    /// One caller, until it is told to stop.
    async fn calls(self, seed: u64, stop: Arc<AtomicBool>) {
        let mut dice = seed + 1;
        while !stop.load(Ordering::Relaxed) {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let roll = dice >> 33;
            let is_gone = MOODS[self.mood.load(Ordering::Relaxed)] == Mood::Gone;
            let request = Request::get(&self.urls[usize::from(is_gone)])
                .header("x-dice", roll)
                .body(Empty::new())
                .expect("the address is one");
            let call = self.call(request);
            // Some go away, before anything has come or while it waits.
            let patience = match roll % 10 {
                0 => roll / 10 % 4,
                _ => 2_000,
            };
            let kind = match timeout(Duration::from_millis(patience), call).await {
                Ok(true) => &self.books.answered,
                Ok(false) => &self.books.failed,
                Err(_) => &self.books.gone,
            };
            kind.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(2 + roll % 6)).await;
        }
    }

    /// One call and its body: whether that came to a good end.
    async fn call(&self, request: Request<Empty<Bytes>>) -> bool {
        let mut stack = self.stack.clone();
        let result = match stack.ready().await {
            Ok(ready) => ready.call(request).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(reply) => reply.status().is_success() && reply.into_body().collect().await.is_ok(),
            Err(error) => {
                let is_refusal = CircuitOpen::find_in(&*error).is_some();
                self.books.refused.fetch_add(u64::from(is_refusal), Ordering::Relaxed);
                false
            }
        }
    }

    /// Waits until all leases are over, and has time do what it does.
    async fn settle(&self) {
        sleep(Duration::from_millis(400)).await;
        drop(self.circuit.try_acquire().inspect(|_| {
            self.books.admitted.fetch_add(1, Ordering::Relaxed);
        }));
    }

    /// Every call once, in every book.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let Snapshot { name, totals, window, probes, .. } = self.circuit.snapshot();
        let ends = [totals.success, totals.failure, totals.ignored, totals.cancelled, totals.stale];
        let told = self.books.ends.each_ref().map(|end| end.load(Ordering::Relaxed));
        let mut law = |what: &str, left: u64, right: u64| {
            if left != right {
                wrong.push(format!("{name}: {what}: {left} and {right}"));
            }
        };
        law(
            "calls that were let through, and ends",
            self.books.admitted.load(Ordering::Relaxed),
            ends.iter().sum(),
        );
        law(
            "refusals that callers got, and counted",
            self.books.refused.load(Ordering::Relaxed),
            totals.rejected,
        );
        for (kind, (told, counted)) in ["success", "failure", "ignored", "cancelled", "stale"]
            .iter()
            .zip(told.into_iter().zip(ends))
        {
            law(&format!("{kind}, told and counted"), told, counted);
        }
        law("slow, told and counted", self.books.slow.load(Ordering::Relaxed), totals.slow);
        law("calls in flight that nobody makes", window.overdue, 0);
        law(
            "probes in flight that nobody makes",
            probes.map_or(0, |probes| probes.in_flight.into()),
            0,
        );
        println!("{name}: {totals:?}");
        wrong
    }
}

fn boxed<B>(response: Response<B>) -> Reply
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    response.map(BodyExt::boxed_unsync)
}

/// The kinds of ends that no call came to.
fn unseen(clients: &[SoakedClient]) -> Vec<String> {
    let seen = clients.iter().map(|client| client.circuit.snapshot().totals).fold(
        [0; 7],
        |sum, totals| {
            let these = [
                totals.success,
                totals.failure,
                totals.slow,
                totals.ignored,
                totals.cancelled,
                totals.rejected,
                totals.stale,
            ];
            std::array::from_fn(|kind| sum[kind] + these[kind])
        },
    );
    let kinds = ["success", "failure", "slow", "ignored", "cancelled", "rejected", "stale"];
    let none = kinds.into_iter().zip(seen).filter(|(_, calls)| *calls == 0);
    none.map(|(kind, _)| format!("no call came to be {kind}")).collect()
}

#[expect(clippy::disallowed_methods, reason = "it lasts as long as it is told to")]
fn now() -> Instant {
    Instant::now()
}

// What the process holds -----------------------------------------------------

#[derive(Clone, Copy, Debug)]
struct Held {
    /// In kB.
    memory: u64,
    descriptors: u64,
    tasks: u64,
}

impl Held {
    /// Zeros, where the system does not tell.
    fn by_the_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
        let tasks = Handle::current().metrics().num_alive_tasks() as u64;
        Self { memory: memory.unwrap_or_default(), descriptors, tasks }
    }
}

/// What has grown since the first third of the rounds, which are to warm up.
fn grown(held: &[Held]) -> Vec<String> {
    let (warm, rest) = held.split_at((held.len() / 3).max(1).min(held.len()));
    let most = |held: &[Held], of: fn(&Held) -> u64| held.iter().map(of).max().unwrap_or_default();
    // The last two of the rounds that are well, where there are as many.
    let last = &rest[rest.len().saturating_sub(2)..];
    let mut grown = Vec::new();
    let mut compare = |what: &str, of: fn(&Held) -> u64, slack: u64| {
        let (before, after) = (most(warm, of), most(last, of));
        if after > before + slack {
            grown.push(format!("{what}: {before}, and {after} in the end"));
        }
    };
    compare("memory", |held| held.memory, SLACK);
    compare("file descriptors", |held| held.descriptors, 16);
    compare("tasks", |held| held.tasks, 16);
    grown
}

/// A task that is told from others by how often it is referred to.
struct Idle;

impl Wake for Idle {
    fn wake(self: Arc<Self>) {}
}

/// Tasks begin to wait for an open circuit and go away, by dropping the service or
/// because it closes: none of their wakers may stay.
fn wakers_left() -> Option<String> {
    let config = Config::builder("waited-for").open_for(Backoff::fixed(Duration::from_secs(60)));
    let circuit = Circuit::new(config.build().expect("it is valid"));
    circuit.trip();
    let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new())
        .when_open(WhenOpen::Wait);
    let inner = service_fn(|()| async { Ok::<_, Infallible>(()) });
    let task = Arc::new(Idle);
    let waker = Waker::from(Arc::clone(&task));
    let mut waiting: Vec<_> = (0..100).map(|_| layer.layer(inner)).collect();
    for service in &mut waiting {
        let ready = Service::<()>::poll_ready(service, &mut Context::from_waker(&waker));
        assert!(matches!(ready, Poll::Pending), "the circuit is open");
    }
    waiting.truncate(50);
    circuit.reset();
    drop(waker);
    drop(waiting);
    let left = Arc::strong_count(&task) - 1;
    (left > 0).then(|| format!("{left} wakers are left of a circuit that nobody waits for"))
}
