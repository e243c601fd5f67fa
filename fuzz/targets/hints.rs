//! Heads and trailers of responses, through the layer and its classifier: the
//! first line is the status, then come headers, and after an empty line trailers.

#![no_main]

use std::{
    array,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use tower::{Layer, Service, service_fn};
use tower_breaker::{Backoff, BoxError, CircuitBreakerLayer, Config, ManualClock, Probes, State};

const LONGEST: Duration = Duration::from_secs(8);

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| StatusCode::from_bytes(line).ok());
    let Some(status) = status else { return };
    let headers = map(lines.by_ref().take_while(|line| !line.is_empty()));
    let trailers = map(lines);

    let clock = ManualClock::new();
    let config = Config::builder("hints")
        .consecutive_failures(1)
        .slow_calls(Duration::from_secs(1), 1.0)
        .open_for(Backoff::exponential(Duration::from_secs(1), LONGEST).jitter(0.0))
        .probes(Probes::new(1))
        .clock(&clock);
    let layer = CircuitBreakerLayer::new(config.build().expect("it is valid"));
    let circuit = layer.circuit().clone();

    let answer = {
        let (headers, trailers) = (headers.clone(), trailers.clone());
        move || {
            let frames = [Frame::data(Bytes::from("data")), Frame::trailers(trailers.clone())];
            let frames = frames.into_iter();
            let mut response = Response::new(Script(frames));
            *response.status_mut() = status;
            *response.headers_mut() = headers.clone();
            response
        }
    };
    let at_head = {
        let answer = answer.clone();
        layer.clone().layer(service_fn(move |()| std::future::ready(Ok::<_, BoxError>(answer()))))
    };
    drop(now(call(at_head)).expect("it is the response"));
    assert_eq!(ended(&circuit), 1);

    circuit.reset();
    let to_the_end = layer
        .until_end_of_body()
        .layer(service_fn(move |()| std::future::ready(Ok::<_, BoxError>(answer()))));
    let response = now(call(to_the_end)).expect("it is the response");
    let body = now(response.into_body().collect()).expect("nothing goes wrong with it");
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(ended(&circuit), 2);

    // Whatever was asked for, there is an end.
    circuit.trip();
    let wait = circuit.snapshot().retry_after.expect("it is open");
    assert!(wait <= LONGEST, "it waits {wait:?}");
    clock.advance(wait);
    circuit.try_acquire().expect("the wait is over").record(tower_breaker::Outcome::Success);
    assert_eq!(circuit.state(), State::Closed);
});

fn ended(circuit: &tower_breaker::Circuit) -> u64 {
    let totals = circuit.snapshot().totals;
    totals.success + totals.failure + totals.ignored + totals.cancelled + totals.stale
}

fn map<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

async fn call<S: Service<()>>(mut service: S) -> Result<S::Response, S::Error> {
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(()).await
}

/// The output of a future that does not wait.
fn now<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Data, and then trailers.
struct Script(array::IntoIter<Frame<Bytes>, 2>);

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}
