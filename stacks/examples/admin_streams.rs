//! What a hundred readers of the admin service's stream cost a call.
//!
//! A hyper server on loopback has the admin service for 100 circuits, one of
//! which opens and closes all the time. A hundred read its stream: sixty as fast
//! as they can, twenty a little now and then, and twenty never. Meanwhile a thread
//! makes calls, some through another of the 100 and, in turns with them, some
//! through one of another registry, which no service shows. You will see what a call
//! takes through both, their ratio, and the memory that the process has.
//!
//! The two are measured at once because the readers, and whatever else runs on the
//! machine, take from both alike. What is left is what being read costs.
//!
//! `cargo run --release -p tower-breaker-stacks --example admin_streams -- [ROUNDS] [--assert]`
//!
//! With `--assert` it fails if the readers cost a call more than five parts in a
//! hundred (the median of the rounds), or if the memory grows by the round.

use std::{
    fs,
    hint::black_box,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    task::JoinSet,
    time::{interval, sleep},
};
use tower::BoxError;
use tower_breaker::{AdminService, Circuit, Config, Outcome, Registry};
use tower_breaker_stacks::server::serve_hyper;

const READERS: usize = 100;
/// In a batch: as many as take longer than it takes until some reader is woken.
const CALLS: u32 = 20_000;
/// What the allocator may keep, in kB.
const SLACK: u64 = 16 << 10;

fn main() -> Result<ExitCode, BoxError> {
    let (flags, numbers): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let asserts = flags.iter().any(|flag| flag == "--assert");
    let rounds: usize = numbers.first().map_or(Ok(5), |number| number.parse())?;

    let runtime = Runtime::new()?;
    let registry = Registry::new();
    let circuits = (0..100).map(|index| -> Result<Circuit, BoxError> {
        Ok(registry.circuit(Config::builder(format!("circuit-{index}")).build()?)?)
    });
    let circuits = circuits.collect::<Result<Vec<_>, _>>()?;
    let admin = AdminService::builder(&registry).insecure_no_auth().build()?;
    let url = runtime.block_on(serve_hyper(admin.clone()))?;
    let address = url.trim_start_matches("http://").to_owned();
    let flipping = circuits[1].clone();
    runtime.spawn(async move {
        let mut each = interval(Duration::from_millis(20));
        loop {
            each.tick().await;
            flipping.trip();
            flipping.reset();
        }
    });

    let unshown = Registry::new().circuit(Config::builder("unshown").build()?)?;
    println!("round    unshown ns/call    read ns/call    ratio    MB read    memory kB");
    let (mut ratios, mut memory) = (Vec::new(), Vec::new());
    // The first is to warm up.
    for round in 0..=rounds {
        let read = Arc::new(AtomicU64::new(0));
        let readers = runtime.block_on(readers(&address, &read))?;
        let [without, with] = calls([&unshown, &circuits[0]]);
        runtime.block_on(async {
            let mut readers = readers;
            readers.shutdown().await;
        });
        let (ratio, resident) = (with / without, resident().unwrap_or_default());
        let megabytes = read.load(Ordering::Relaxed) as f64 / 1e6;
        println!(
            "{round:5}    {without:15.1}    {with:12.1}    {ratio:5.3}    {megabytes:7.1}    {resident:9}"
        );
        if round > 0 {
            ratios.push(ratio);
            memory.push(resident);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
    let grown =
        memory.last().zip(memory.first()).map_or(0, |(last, first)| last.saturating_sub(*first));
    println!(
        "{READERS} readers: {ratio:.3} of what a call takes without; {grown} kB more from the first round to the last"
    );
    let is_borne = ratio <= 1.05 && grown <= SLACK;
    Ok(if asserts && !is_borne { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a call takes through each: the median over batches in turns, which a
/// thread that is put off now and then does not move.
fn calls(circuits: [&Circuit; 2]) -> [f64; 2] {
    // Some ticks long.
    const LONG: Duration = Duration::from_secs(5);
    let circuits = circuits.map(Circuit::clone);
    let measuring = thread::spawn(move || {
        let (began, mut batches) = (now(), [Vec::new(), Vec::new()]);
        while began.elapsed() < LONG {
            for (circuit, batches) in circuits.iter().zip(&mut batches) {
                let start = now();
                for _ in 0..CALLS {
                    if let Ok(permit) = circuit.try_acquire() {
                        permit.record(black_box(Outcome::Success));
                    }
                }
                batches.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
            }
        }
        batches.map(|mut batches| {
            batches.sort_by(f64::total_cmp);
            batches[batches.len() / 2]
        })
    });
    measuring.join().unwrap_or([f64::NAN; 2])
}

/// Opens all streams, and has them read in their ways.
async fn readers(address: &str, read: &Arc<AtomicU64>) -> Result<JoinSet<()>, BoxError> {
    let mut readers = JoinSet::new();
    for index in 0..READERS {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let read = Arc::clone(read);
        readers.spawn(async move {
            let (mut buffer, size) = match index % 5 {
                0..3 => (vec![0; 64 << 10], None),
                3 => (vec![0; 512], Some(Duration::from_millis(100))),
                _ => return std::future::pending().await,
            };
            while let Ok(bytes @ 1..) = connection.read(&mut buffer).await {
                read.fetch_add(bytes as u64, Ordering::Relaxed);
                if let Some(pause) = size {
                    sleep(pause).await;
                }
            }
        });
    }
    Ok(readers)
}

/// The process's memory, in kB, where the system says.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}
