//! The paths that are counted.

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Response, StatusCode};
use tower::{BoxError, Layer, Service};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, Config, ConfigBuilder, HttpClassifier, Outcome, Probes,
    Registry, WhenOpen, Window,
};

/// Their names, for the budget.
pub(crate) const ALL: [&str; 11] = [
    "closed",
    "closed, registered",
    "closed, latency judged",
    "closed, slow rule",
    "closed, time window",
    "closed, every tenth fails",
    "open, by poll_ready",
    "open, by call",
    "circuit, closed",
    "circuit, open",
    "circuit, half-open",
];

const HOUR: Duration = Duration::from_secs(3_600);

/// Makes so many calls on a path.
pub(crate) fn run(path: &str, calls: u64) -> Result<(), BoxError> {
    let config = || Config::builder("counted").open_for(Backoff::fixed(HOUR));
    let layer =
        |config: ConfigBuilder| Ok::<_, BoxError>(CircuitBreakerLayer::new(config.build()?));
    let open = |layer: CircuitBreakerLayer<HttpClassifier>| {
        layer.circuit().trip();
        layer
    };
    let slow = HttpClassifier::new().slow_is_failure(HOUR);
    match path {
        "bare" => call(Backend::default(), calls),
        "closed" => call(layer(config())?.layer(Backend::default()), calls),
        "closed, registered" => {
            let registry = Registry::new();
            let layer = registry.layer(config().build()?)?;
            call(layer.layer(Backend::default()), calls);
        }
        "closed, latency judged" => {
            call(layer(config())?.classify(slow).layer(Backend::default()), calls);
        }
        "closed, slow rule" => {
            call(layer(config().slow_calls(HOUR, 1.0))?.layer(Backend::default()), calls);
        }
        "closed, time window" => {
            let config = config().window(Window::time(HOUR));
            call(layer(config)?.layer(Backend::default()), calls);
        }
        "closed, every tenth fails" => {
            call(layer(config())?.layer(Backend { fails_every: 10, calls: 0 }), calls);
        }
        "open, by poll_ready" => call(open(layer(config())?).layer(Backend::default()), calls),
        "open, by call" => {
            let layer = open(layer(config())?).when_open(WhenOpen::Defer);
            call(layer.layer(Backend::default()), calls);
        }
        "circuit, closed" => {
            let circuit = Circuit::new(config().build()?);
            (0..calls).for_each(|_| take(&circuit));
        }
        "circuit, open" => {
            let circuit = Circuit::new(config().build()?);
            circuit.trip();
            (0..calls).for_each(|_| take(&circuit));
        }
        "circuit, half-open" => {
            let circuit = Circuit::new(config().probes(Probes::new(1)).build()?);
            circuit.trip();
            circuit.end_wait()?;
            let _probe = circuit.try_acquire()?;
            (0..calls).for_each(|_| take(&circuit));
        }
        _ => return Err(format!("no such path: {path}").into()),
    }
    Ok(())
}

#[inline(never)]
fn take(circuit: &Circuit) {
    if let Ok(permit) = circuit.try_acquire() {
        permit.record(black_box(Outcome::Success));
    }
}

fn call<S: Service<()>>(mut service: S, calls: u64) {
    (0..calls).for_each(|_| once(&mut service));
}

#[inline(never)]
fn once<S: Service<()>>(service: &mut S) {
    let mut context = Context::from_waker(Waker::noop());
    if let Poll::Ready(Ok(())) = service.poll_ready(&mut context) {
        let call = pin!(service.call(()));
        drop(black_box(call.poll(&mut context)));
    }
}

/// Answers at once.
#[derive(Default)]
struct Backend {
    /// Never, if zero.
    fails_every: u64,
    calls: u64,
}

impl Service<()> for Backend {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls += 1;
        let mut response = Response::new(());
        if self.calls.is_multiple_of(self.fails_every) {
            *response.status_mut() = StatusCode::BAD_GATEWAY;
        }
        ready(Ok(response))
    }
}
