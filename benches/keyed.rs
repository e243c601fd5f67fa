//! What finding the circuit by its key adds to a call.
//!
//! At 10,000 keys the circuits do not fit into the nearest cache, found or not:
//! so there is a baseline of as many ordinary services, called in the same
//! order. The last lines put the pairs of one run beside each other.

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use http::Response;
use tower::{BoxError, Layer, Service};
use tower_breaker::{CircuitBreakerLayer, Config, Key, KeyedCircuitBreakerLayer, KeyedCircuits};

criterion_main!(benches);
criterion_group!(benches, found, made, side_by_side);

const KEYS: usize = 10_000;

/// Answers at once.
#[derive(Clone)]
struct Instantly;

impl<'a> Service<&'a str> for Instantly {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: &'a str) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// One call through a service, without a runtime.
fn call<'a, S: Service<&'a str>>(service: &mut S, key: &'a str) -> Result<S::Response, S::Error> {
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(ready) = service.poll_ready(&mut context) else { unreachable!("it is ready") };
    ready?;
    let Poll::Ready(answer) = pin!(service.call(key)).poll(&mut context) else {
        unreachable!("it answers at once")
    };
    answer
}

/// Of 22 characters.
fn keys() -> Vec<String> {
    (0..KEYS).map(|n| format!("host-{n:05}.example.org")).collect()
}

fn circuits(keys: &[String]) -> KeyedCircuits {
    let Ok(circuits) = KeyedCircuits::builder(Config::default()).capacity(KEYS as u64).build()
    else {
        unreachable!("it is valid")
    };
    keys.iter().for_each(|key| drop(circuits.get_or_create(key)));
    circuits
}

/// A closure that calls one of many after another, in another order than that
/// in which they were made: memory is laid out by that.
fn in_turn<T>(mut many: Vec<T>, mut call: impl FnMut(&mut T)) -> impl FnMut() {
    let mut next = 0;
    move || {
        call(&mut many[next]);
        next = (next + 7_919) % many.len();
    }
}

/// What is measured, and how a call is made.
type Contender = (&'static str, Box<dyn FnMut()>);

fn contenders(keys: &'static [String]) -> Vec<Contender> {
    let circuits = circuits(keys);
    let keyed = || {
        KeyedCircuitBreakerLayer::new(circuits.clone(), |key: &&'static str| Key::from(*key))
            .layer(Instantly)
    };
    let unkeyed = || CircuitBreakerLayer::new(Config::default()).layer(Instantly);
    let texts: Vec<&'static str> = keys.iter().map(String::as_str).collect();

    let (mut bare, mut one, mut hot) = (Instantly, unkeyed(), keyed());
    let first = texts[0];
    let many: Vec<_> = texts.iter().map(|key| (unkeyed(), *key)).collect();
    let mut found = keyed();
    let mut contenders: Vec<Contender> = vec![
        ("bare", Box::new(move || drop(black_box(call(&mut bare, first))))),
        ("unkeyed", Box::new(move || drop(black_box(call(&mut one, first))))),
        ("one key of 10,000", Box::new(move || drop(black_box(call(&mut hot, first))))),
        (
            "10,000 unkeyed in turn",
            Box::new(in_turn(many, |(service, key)| drop(black_box(call(service, key))))),
        ),
        (
            "10,000 keys in turn",
            Box::new(in_turn(texts, move |key| drop(black_box(call(&mut found, key))))),
        ),
    ];
    // Until every window is full.
    for (_, call) in &mut contenders {
        (0..25 * KEYS).for_each(|_| call());
    }
    contenders
}

fn found(criterion: &mut Criterion) {
    let keys = keys().leak();
    let mut group = criterion.benchmark_group("keyed");
    for (name, mut call) in contenders(keys) {
        group.bench_function(name, |bencher| bencher.iter(&mut call));
    }
}

/// A key that was never seen, with room and without.
fn made(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new key");
    let mut bench = |name: &str, capacity: u64| {
        let built = KeyedCircuits::builder(Config::default()).capacity(capacity).build();
        let Ok(circuits) = built else { unreachable!("it is valid") };
        let mut n = 0_u64;
        if capacity == KEYS as u64 {
            (0..capacity).for_each(|_| {
                n += 1;
                drop(circuits.get_or_create(n));
            });
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                n += 1;
                circuits.get_or_create(n)
            });
        });
    };
    bench("in the place of another", KEYS as u64);
}

/// The pairs of one run, taken by turns so that both have the same weather.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures wall time")]
fn side_by_side(_: &mut Criterion) {
    // Once around the keys: short, so that some rounds have the machine alone.
    const CALLS: u32 = KEYS as u32;
    const ROUNDS: usize = 500;
    let keys = keys().leak();
    let mut contenders = contenders(keys);
    let mut best = vec![Duration::MAX; contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, call), best) in contenders.iter_mut().zip(&mut best) {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            *best = start.elapsed().min(*best);
        }
    }
    println!();
    let nanos = |index: usize| best[index].as_nanos() as f64 / f64::from(CALLS);
    println!("bare: {:.1} ns", nanos(0));
    for (name, unkeyed, keyed) in [("one key, hot", 1, 2), ("10,000 keys in turn", 3, 4)] {
        let (unkeyed, keyed) = (nanos(unkeyed), nanos(keyed));
        println!(
            "{name}: {keyed:.1} ns keyed, {unkeyed:.1} ns unkeyed: {:.1} ns more, ratio {:.2}",
            keyed - unkeyed,
            keyed / unkeyed,
        );
    }
}
