//! What the breaker adds to a call, beside the same service without it.
//!
//! Read the groups as ratios to `bare`, which is measured in the same run.

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use http::Response;
use tower::{BoxError, Layer, Service};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, Config, ConfigBuilder, HttpClassifier, Outcome, Probes,
    Window,
};

criterion_main!(benches);
criterion_group!(benches, closed, refusing, two_threads);

const SECOND: Duration = Duration::from_secs(1);

/// Answers at once.
#[derive(Clone)]
struct Instantly;

impl Service<()> for Instantly {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// One call through a service, without a runtime.
fn call<S: Service<()>>(service: &mut S) -> Result<S::Response, S::Error> {
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(ready) = service.poll_ready(&mut context) else { unreachable!("it is ready") };
    ready?;
    let Poll::Ready(answer) = pin!(service.call(())).poll(&mut context) else {
        unreachable!("it answers at once")
    };
    answer
}

fn layer(config: ConfigBuilder, classifier: HttpClassifier) -> CircuitBreakerLayer<HttpClassifier> {
    let config = config.build().unwrap_or_else(|error| panic!("{error}"));
    CircuitBreakerLayer::new(config).classify(classifier)
}

/// The configurations of the closed path.
fn layers() -> [(&'static str, CircuitBreakerLayer<HttpClassifier>); 4] {
    let plain = HttpClassifier::new();
    let time = || Config::builder("time").window(Window::time(10 * SECOND));
    [
        ("count", layer(Config::builder("count"), plain)),
        ("count, latency", layer(Config::builder("latency"), plain.slow_is_failure(SECOND))),
        ("time", layer(time(), plain)),
        ("time, latency", layer(time(), plain.slow_is_failure(SECOND))),
    ]
}

fn closed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("closed");
    bare(&mut group);
    for (name, layer) in layers() {
        let mut service = layer.layer(Instantly);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(call(&mut service))));
    }
    let circuit = Circuit::new(Config::default());
    group.bench_function("circuit alone", |bencher| {
        bencher.iter(|| circuit.try_acquire().map(|permit| permit.record(Outcome::Success)));
    });
}

fn refusing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("refusing");
    bare(&mut group);

    let forever = Backoff::fixed(3_600 * SECOND);
    let open = layer(Config::builder("open").open_for(forever), HttpClassifier::new());
    open.circuit().trip();
    let mut service = open.layer(Instantly);
    group.bench_function("open", |bencher| bencher.iter(|| black_box(call(&mut service))));
    let circuit = open.circuit();
    group.bench_function("open, circuit alone", |bencher| bencher.iter(|| circuit.try_acquire()));

    let config = Config::builder("half-open")
        .open_for(Backoff::fixed(Duration::from_nanos(1)))
        .probes(Probes::new(1).lease(3_600 * SECOND));
    let half_open = layer(config, HttpClassifier::new());
    half_open.circuit().trip();
    let _probe = half_open.circuit().try_acquire();
    let mut service = half_open.layer(Instantly);
    group.bench_function("half-open", |bencher| bencher.iter(|| black_box(call(&mut service))));
}

fn two_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two threads");
    group.bench_function("bare", |bencher| {
        bencher.iter_custom(|calls| in_two_threads(calls, &Instantly));
    });
    for (name, layer) in layers() {
        let service = layer.layer(Instantly);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| in_two_threads(calls, &service));
        });
    }
}

fn bare(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut service = Instantly;
    group.bench_function("bare", |bencher| bencher.iter(|| black_box(call(&mut service))));
}

/// How long two threads take for half of the calls each, on clones.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures wall time")]
fn in_two_threads<S>(calls: u64, service: &S) -> Duration
where
    S: Service<(), Response = Response<()>, Error = BoxError> + Clone + Send + 'static,
{
    let start = Instant::now();
    let threads = [0, 1].map(|_| {
        let mut service = service.clone();
        thread::spawn(move || {
            for _ in 0..calls / 2 {
                let _: Result<_, _> = black_box(call(&mut service));
            }
        })
    });
    for thread in threads {
        let joined = thread.join();
        assert!(joined.is_ok(), "a bench thread panicked");
    }
    start.elapsed()
}
