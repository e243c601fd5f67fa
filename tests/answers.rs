//! Ready-made answers: what a caller reads in them.

use std::time::Duration;

use http::Response;
use tower::{
    BoxError, Layer, ServiceExt, load_shed::error::Overloaded, service_fn, timeout::Timeout,
};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, HttpClassifier, ManualClock,
    Override, Probes, grpc_unavailable, handle_error, service_unavailable,
};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// A refusal with so long to wait.
fn refusal(wait: Duration) -> CircuitOpen {
    let clock = ManualClock::new();
    let config = Config::builder("shop").open_for(Backoff::fixed(wait).jitter(0.0)).clock(clock);
    let circuit = Circuit::new(config.build().unwrap());
    circuit.trip();
    circuit.try_acquire().unwrap_err()
}

/// One that knows of no time.
fn refusal_for_good() -> CircuitOpen {
    let circuit = Circuit::new(Config::builder("shop").build().unwrap());
    circuit.set_override(Override::force_open().until_cleared());
    circuit.try_acquire().unwrap_err()
}

fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_503_tells_the_seconds_to_wait_rounded_up_in_its_head_and_its_body() {
    for (wait, seconds) in [
        (NANO, "1"),
        (SECOND - NANO, "1"),
        (SECOND, "1"),
        (SECOND + NANO, "2"),
        (90 * SECOND, "90"),
    ] {
        let response = service_unavailable::<String>(refusal(wait));
        assert_eq!(response.status(), 503);
        assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
        assert_eq!(header(&response, "retry-after"), Some(seconds));
        let open = refusal(wait);
        let expected = format!(
            r#"{{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"{open}","circuit":"shop","state":"open","retry_after":{seconds}}}"#
        );
        assert_eq!(*response.body(), expected);
    }
    let response = service_unavailable::<String>(refusal_for_good());
    assert_eq!((response.status().as_u16(), header(&response, "retry-after")), (503, None));
    assert!(response.body().ends_with(r#""state":"open"}"#), "{}", response.body());
}

#[test]
fn a_grpc_answer_is_unavailable_with_the_milliseconds_to_wait_rounded_up() {
    let milli = Duration::from_millis(1);
    for (wait, millis) in [(NANO, "1"), (milli, "1"), (milli + NANO, "2"), (90 * SECOND, "90000")] {
        let response = grpc_unavailable::<String>(refusal(wait));
        assert_eq!((response.status().as_u16(), &**response.body()), (200, ""));
        assert_eq!(header(&response, "content-type"), Some("application/grpc"));
        assert_eq!(header(&response, "grpc-status"), Some("14"));
        assert_eq!(header(&response, "grpc-message"), Some(&*refusal(wait).to_string()));
        assert_eq!(header(&response, "grpc-retry-pushback-ms"), Some(millis));
    }
    let circuit = Circuit::new(
        Config::builder("inventory").probes(Probes::new(9).share(0.25)).build().unwrap(),
    );
    circuit.trip();
    circuit.end_wait().unwrap();
    let refusal = (0..2).find_map(|_| circuit.try_acquire().err()).unwrap();
    let response = grpc_unavailable::<String>(refusal);
    let said = header(&response, "grpc-message").unwrap();
    assert!(said.starts_with("circuit inventory lets 25%25 of its calls pass"), "{said}");
    let response = grpc_unavailable::<String>(refusal_for_good());
    assert_eq!(header(&response, "grpc-retry-pushback-ms"), None);
}

#[tokio::test]
async fn an_error_of_a_stack_is_answered_by_what_it_is() {
    let never = service_fn(|()| std::future::pending::<Result<(), BoxError>>());
    let elapsed = Timeout::new(never, Duration::ZERO).oneshot(()).await.unwrap_err();
    let errors: [(BoxError, u16, &str); 4] = [
        (refusal(SECOND).into(), 503, "Service Unavailable"),
        (Overloaded::new().into(), 503, "Service Unavailable"),
        (elapsed, 504, "Gateway Timeout"),
        ("secret".into(), 500, "Internal Server Error"),
    ];
    for (error, status, title) in errors {
        let of_the_circuit = error.is::<CircuitOpen>();
        let response = handle_error::<String>(error).await;
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
        assert_eq!(header(&response, "retry-after"), of_the_circuit.then_some("1"));
        let whole = format!(r#"{{"type":"about:blank","title":"{title}","status":{status}}}"#);
        assert_eq!(*response.body() == whole, !of_the_circuit, "{}", response.body());
    }
}

/// Also where a closure judges.
#[tokio::test]
async fn a_server_s_hint_is_heard_whoever_judges() {
    let clock = ManualClock::new();
    let config = Config::builder("shop")
        .consecutive_failures(1)
        .open_for(Backoff::exponential(SECOND, 60 * SECOND).jitter(0.0))
        .clock(clock);
    let layer = CircuitBreakerLayer::new(config.build().unwrap())
        .classify_http(|view| HttpClassifier::new().outcome(view));
    let service = layer.layer(service_fn(|()| {
        let busy = Response::builder().status(503).header("retry-after", "30").body(()).unwrap();
        std::future::ready(Ok::<_, BoxError>(busy))
    }));
    service.oneshot(()).await.unwrap();
    assert_eq!(layer.circuit().snapshot().retry_after, Some(30 * SECOND));
}
