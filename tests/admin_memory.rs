//! What readers cost, slow and dead ones among them: no more memory with time,
//! and no allocation on the path of a call.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use bytes::Bytes;
use http::Request;
use http_body::Body;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;
use tower_breaker::{AdminBody, AdminService, Circuit, Config, Outcome, Registry};

const SECOND: Duration = Duration::from_secs(1);

/// A hundred readers of four circuits.
struct Site {
    runtime: Runtime,
    circuits: Vec<Circuit>,
    readers: Vec<AdminBody>,
    seconds: usize,
}

impl Site {
    fn new() -> Self {
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let registry = Registry::builder().history(8).build();
        let circuits = (0..4).map(|index| {
            let config = Config::builder(format!("circuit-{index}")).build().unwrap();
            registry.circuit(config).unwrap()
        });
        let circuits = circuits.collect();
        let readers = runtime.block_on(async {
            let admin = AdminService::builder(&registry).insecure_no_auth().build().unwrap();
            let mut readers = Vec::new();
            for _ in 0..100 {
                let request = Request::get("/api/v1/stream").header("host", "localhost");
                let request = request.body(String::new()).unwrap();
                readers.push(admin.clone().oneshot(request).await.unwrap().into_body());
            }
            readers
        });
        Self { runtime, circuits, readers, seconds: 0 }
    }

    /// Lets time pass, with calls, openings, and readers of three kinds: those
    /// that take what there is, those that do every ten seconds, and those that
    /// never do. How many bytes they have read.
    fn pass(&mut self, seconds: usize) -> usize {
        let Self { runtime, circuits, readers, seconds: passed } = self;
        runtime.block_on(async {
            let mut read = 0;
            for _ in 0..seconds {
                *passed += 1;
                let circuit = &circuits[*passed % circuits.len()];
                circuit.reset();
                circuit.try_acquire().unwrap().record(Outcome::Failure);
                circuit.trip();
                tokio::time::advance(SECOND).await;
                tokio::task::yield_now().await;
                for (index, reader) in readers.iter_mut().enumerate() {
                    let reads = match index % 10 {
                        0..4 => true,
                        4..7 => *passed % 10 == 0,
                        _ => false,
                    };
                    while let Some(bytes) = reads.then(|| next(reader)).flatten() {
                        read += bytes.len();
                    }
                }
            }
            read
        })
    }
}

/// What there is to read now.
fn next(reader: &mut AdminBody) -> Option<Bytes> {
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(reader).poll_frame(&mut context) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}

#[test]
fn readers_never_grow_whether_they_read_or_not() {
    let mut site = Site::new();
    // Until the quarter of an hour that is kept is full, and all is as large as it gets.
    site.pass(950);
    let mut read = 0;
    let grown = measure(|| read = site.pass(100)).bytes_current;
    assert!(read > 1_000_000, "{read} bytes are no traffic");
    assert!(grown.abs() < 32 << 10, "{grown} bytes more after {read} were read");
    drop(site);
}

#[test]
fn a_call_allocates_no_more_for_being_watched() {
    let site = Site::new();
    let circuit = &site.circuits[0];
    let calls = || {
        for _ in 0..1_000 {
            circuit.try_acquire().unwrap().record(Outcome::Success);
        }
    };
    calls();
    assert_eq!(measure(calls).count_total, 0);
    assert_eq!(site.readers.len(), 100);
}

#[test]
fn readers_that_read_nothing_hold_one_snapshot_among_them() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let registry = Registry::new();
    let circuits: Vec<_> = (0..1_000)
        .map(|index| Config::builder(format!("circuit-{index}")).build().unwrap())
        .map(|config| registry.circuit(config).unwrap())
        .collect();
    let _inside = runtime.enter();
    let admin =
        AdminService::builder(&registry).insecure_no_auth().max_streams(100).build().unwrap();
    let begin = || {
        let request = Request::get("/api/v1/stream").header("host", "localhost");
        let request = request.body(String::new()).unwrap();
        let mut body = runtime.block_on(admin.clone().oneshot(request)).unwrap().into_body();
        // What a server takes before it finds that the socket is full.
        let taken: Vec<_> = std::iter::from_fn(|| next(&mut body)).collect();
        (taken, body)
    };
    let one = begin();
    let frame: usize = one.0.iter().map(Bytes::len).sum();
    assert!(frame > 500_000, "{frame} bytes are no long list");

    let mut stuck = Vec::with_capacity(200);
    let hundred = |stuck: &mut Vec<_>| {
        for circuit in &circuits[..99] {
            stuck.push(begin());
            // Events come meanwhile, too.
            if stuck.len() % 20 == 0 {
                circuit.trip();
            }
        }
    };
    let held = measure(|| hundred(&mut stuck)).bytes_current;
    assert!(held < frame as i64, "{held} bytes for 99 readers of {frame}");

    // They lose their places to as many, who share the next.
    runtime.block_on(tokio::time::advance(31 * SECOND));
    let held = measure(|| hundred(&mut stuck)).bytes_current;
    assert!(held < 3 * frame as i64, "{held} bytes for 99 more readers of {frame}");
    drop((one, stuck));
}
