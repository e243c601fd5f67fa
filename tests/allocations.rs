//! The closed path allocates nothing.

use std::time::Duration;

use http::Response;
use tower::{BoxError, Layer, Service, service_fn};
use tower_breaker::{CircuitBreakerLayer, Config, HttpClassifier, Window};

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

fn calls(config: tower_breaker::ConfigBuilder, classifier: HttpClassifier, fails: bool) -> u64 {
    let layer = CircuitBreakerLayer::new(config.build().unwrap()).classify(classifier);
    let mut n = 0u64;
    let mut service = layer.layer(service_fn(move |status: u16| {
        n += 1;
        let status = if fails && n % 10 == 0 { 503 } else { status };
        let mut response = Response::new(());
        *response.status_mut() = status.try_into().unwrap();
        std::future::ready(Ok::<_, BoxError>(response))
    }));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut context).is_ready());
        let mut future = std::pin::pin!(service.call(200));
        assert!(future.as_mut().poll(&mut context).is_ready());
    };
    // The first calls make the handles of the metrics.
    (0..100).for_each(|_| call());
    let counted = allocations(|| (0..10_000).for_each(|_| call()));
    assert_eq!(layer.circuit().snapshot().totals.rejected, 0);
    counted
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn the_closed_path_allocates_nothing() {
    let second = Duration::from_secs(1);
    let plain = HttpClassifier::new();
    let timed = plain.slow_is_failure(second);
    let count = || Config::builder("count");
    let time = || Config::builder("time").window(Window::time(10 * second));
    for fails in [false, true] {
        assert_eq!(calls(count(), plain, fails), 0);
        assert_eq!(calls(count(), timed, fails), 0);
        assert_eq!(calls(count().slow_calls(second, 0.5), plain, fails), 0);
        assert_eq!(calls(time(), plain, fails), 0);
        assert_eq!(calls(time().slow_calls(second, 0.5), timed, fails), 0);
    }
}
