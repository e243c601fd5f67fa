//! What keys cost: no allocation for a known one, and bounded memory for any
//! number of them.

use std::{
    task::{Context, Waker},
    thread,
    time::Duration,
};

use allocation_counter::measure;
use http::{HeaderName, Request, Response};
use tower::{BoxError, Layer, Service, service_fn};
use tower_breaker::{
    Config, KeyedCircuitBreakerLayer, KeyedCircuits, KeyedCircuitsBuilder, ManualClock, Outcome,
};

const SECOND: Duration = Duration::from_secs(1);

fn builder(clock: &ManualClock) -> KeyedCircuitsBuilder {
    KeyedCircuits::builder(Config::builder("keys").clock(clock).build().unwrap())
}

#[test]
fn a_known_key_allocates_nothing() {
    let circuits = builder(&ManualClock::new()).build().unwrap();
    let inner =
        || service_fn(|_: Request<u64>| std::future::ready(Ok::<_, BoxError>(Response::new(()))));
    let mut by_host = KeyedCircuitBreakerLayer::per_host(circuits.clone()).layer(inner());
    let mut by_route = KeyedCircuitBreakerLayer::per_route(circuits.clone(), 2).layer(inner());
    let tenant = HeaderName::from_static("x-tenant");
    let mut by_header =
        KeyedCircuitBreakerLayer::per_header(circuits.clone(), tenant).layer(inner());
    let mut by_number =
        KeyedCircuitBreakerLayer::new(circuits, |request: &Request<u64>| (*request.body()).into())
            .layer(inner());
    let request = || {
        let builder = Request::get("http://api.example.com:8080/api/users/42");
        builder.header("x-tenant", "a-tenant-of-some-name").body(u64::MAX).unwrap()
    };
    let asked = |call: &mut dyn FnMut(Request<u64>)| {
        call(request());
        let requests: Vec<_> = (0..1_000).map(|_| request()).collect();
        measure(|| requests.into_iter().for_each(call)).count_total
    };
    macro_rules! asked {
        ($service:ident) => {
            asked(&mut |request| {
                let mut context = Context::from_waker(Waker::noop());
                assert!($service.poll_ready(&mut context).is_ready());
                let mut future = std::pin::pin!($service.call(request));
                assert!(future.as_mut().poll(&mut context).is_ready());
            })
        };
    }
    assert_eq!(asked!(by_host), 0);
    assert_eq!(asked!(by_route), 0);
    assert_eq!(asked!(by_header), 0);
    assert_eq!(asked!(by_number), 0);
}

#[test]
fn any_number_of_keys_stays_within_bounds() {
    const CAPACITY: u64 = 10_000;
    const KEYS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let clock = ManualClock::new();
    let mut circuits = None;
    let empty = measure(|| circuits = builder(&clock).capacity(CAPACITY).build().ok());
    let circuits = circuits.unwrap();
    assert!(empty.bytes_current < 100_000, "{} bytes without a key", empty.bytes_current);

    let held = measure(|| {
        for n in 0..KEYS {
            let permit = circuits.try_acquire(format!("{n:020}")).unwrap();
            // A twentieth stays longer, for the trouble it has seen.
            permit.record(if n % 20 == 0 { Outcome::Failure } else { Outcome::Success });
        }
    });
    assert_eq!(circuits.len() as u64, CAPACITY);
    let snapshot = circuits.snapshot();
    assert_eq!((snapshot.evicted, snapshot.overflowed), (KEYS - CAPACITY, 0));
    let each = held.bytes_max / CAPACITY;
    println!("{each} bytes a key of 20, {} without any", empty.bytes_current);
    // As the documentation of `capacity` says.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let lanes = threads.next_power_of_two().min(16) as u64;
    assert!(each <= 2_700 + 32 * lanes, "{each} bytes a key");

    // Keys too long to be kept are not.
    let held = measure(|| {
        for n in 0..1_000_u64 {
            circuits.try_acquire(format!("{n:01000}")).unwrap().record(Outcome::Success);
        }
    });
    assert!(held.bytes_current <= 1_000, "{} bytes kept", held.bytes_current);
}

#[test]
fn a_key_that_many_threads_call_takes_more_for_each() {
    let clock = ManualClock::new();
    let template = Config::builder("keys").clock(&clock);
    // As the documentation of `capacity` says.
    for (template, most) in [(template.clone(), 400), (template.slow_calls(SECOND, 0.5), 700)] {
        let circuits = KeyedCircuits::builder(template.build().unwrap()).build().unwrap();
        let call = || {
            (0..1_000_u64).for_each(|key| {
                circuits.try_acquire(key).unwrap().record(Outcome::Success);
            });
        };
        call();
        // Of two that come after one another, one has another lane than this one, unless
        // there is but one.
        let held = [(); 2].map(|()| {
            thread::scope(|threads| threads.spawn(|| measure(call)).join()).unwrap().bytes_current
        });
        let each = held[0].max(held[1]) / 1_000;
        println!("{each} bytes a key and lane");
        assert!(each <= most, "{each} bytes a key and lane");
    }
}

#[test]
fn what_is_idle_gives_its_memory_back() {
    let clock = ManualClock::new();
    let minute = Duration::from_secs(60);
    let circuits = builder(&clock).idle_for(minute).build().unwrap();
    let held = measure(|| {
        (0..5_000_u64).for_each(|key| drop(circuits.get_or_create(key)));
        clock.advance(minute);
        assert_eq!(circuits.evict_idle(), 5_000);
    });
    let each = held.bytes_current / 5_000;
    // The tables keep their size.
    assert!(each <= 150, "{each} bytes a key that is gone");
}
