//! What it costs to follow a long body to its end.
//!
//! A hyper server on loopback streams a gigabyte, and hyper-util's client
//! reads it, in turns bare and through a breaker with `until_end_of_body`. You
//! will see the throughput of both, their ratio, and the peak of the process's
//! memory, which must not grow with the body.
//!
//! `cargo run --release -p tower-breaker-stacks --example big_body -- [MB] [ROUNDS] [--assert]`
//!
//! It fails if the memory grows; and, with `--assert`, if the breaker costs
//! more than three parts in a hundred (the median of the rounds).

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_breaker::{CircuitBreakerLayer, Config};
use tower_breaker_stacks::upstream::Upstream;

const MB: u64 = 1 << 20;
const CHUNK: usize = 64 << 10;
/// What the allocator may need beside the body, in kB.
const SLACK: u64 = 32 << 10;

/// On one thread, so that the client's work is not hidden beside the server's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, BoxError> {
    let (flags, numbers): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let asserts = flags.iter().any(|flag| flag == "--assert");
    let mut numbers = numbers.iter().map(|number| number.parse::<u64>());
    let size = numbers.next().transpose()?.unwrap_or(1024) * MB;
    let rounds = numbers.next().transpose()?.unwrap_or(9).max(1);

    let upstream = Upstream::start()?;
    upstream.answer(move |_| {
        let chunk = Bytes::from_static(&[b'x'; CHUNK]);
        let chunks = (0..size / CHUNK as u64).map(move |_| Ok(Frame::data(chunk.clone())));
        Response::new(BodyExt::boxed_unsync(StreamBody::new(tokio_stream::iter(chunks))))
    });
    let url = upstream.url("/");

    let mut bare: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let breaker = CircuitBreakerLayer::new(Config::builder("big").build()?).until_end_of_body();
    let circuit = breaker.circuit().clone();
    let mut through = breaker.layer(bare.clone());

    // To warm up, and to see what one body takes.
    read(&mut bare, &url, size).await?;
    let before = peak_memory();

    println!("{} MB a body, peak memory {} kB", size / MB, before.unwrap_or_default());
    println!("round    bare MB/s    breaker MB/s    ratio");
    let mut ratios = Vec::new();
    for round in 0..rounds {
        // Who goes first changes, lest it be an advantage.
        let (without, with) = if round % 2 == 0 {
            let without = read(&mut bare, &url, size).await?;
            (without, read(&mut through, &url, size).await?)
        } else {
            let with = read(&mut through, &url, size).await?;
            (read(&mut bare, &url, size).await?, with)
        };
        let speed = |took: Duration| (size / MB) as f64 / took.as_secs_f64();
        let ratio = speed(with) / speed(without);
        println!("{round:5}    {:9.0}    {:12.0}    {ratio:5.3}", speed(without), speed(with));
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median ratio {median:.3}");

    let after = peak_memory();
    let grown = after.zip(before).map_or(0, |(after, before)| after - before);
    println!("peak memory {} kB, {grown} kB more", after.unwrap_or_default());

    let successes = circuit.snapshot().totals.success;
    let is_well = successes == rounds && grown < SLACK && (median >= 0.97 || !asserts);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads one body to its end: how long that took.
async fn read<S, B>(service: &mut S, url: &str, size: u64) -> Result<Duration, BoxError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let request = Request::get(url).body(Empty::new())?;
    let start = now();
    let response = service.ready().await.map_err(Into::into)?.call(request).await;
    let mut body = response.map_err(Into::into)?.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.map_err(Into::into)?.data_ref().map_or(0, Bytes::len) as u64;
    }
    if read == size { Ok(start.elapsed()) } else { Err(format!("{read} of {size} bytes").into()) }
}

/// The most memory the process has had, in kB, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}
