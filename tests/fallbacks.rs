//! The laws of fallbacks: who is asked, what the circuit hears of it, and how
//! what they come to is counted.

use std::{
    fmt,
    future::{Future, Ready, pending, ready},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{BoxError, Layer, Service, ServiceExt, load_shed::error::Overloaded, service_fn};
use tower_breaker::{
    AsError, Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, FallbackEnd, Kept,
    ManualClock, Observer, Outcome, Probes, Reject, ResultClassifier, State, Why,
};
use tower_test::mock;

const SECOND: Duration = Duration::from_secs(1);

/// Opens at the third failure in a row, for five seconds; one probe.
fn circuit(clock: &ManualClock) -> Circuit {
    let config = Config::builder("shop")
        .consecutive_failures(3)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1))
        .clock(clock)
        .build();
    Circuit::new(config.unwrap())
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a future that is not waiting for anything comes to.
fn now<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn panics<R>(run: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

/// Fallbacks that answered, failed and were cancelled.
fn fallbacks(circuit: &Circuit) -> [u64; 3] {
    let totals = circuit.snapshot().totals;
    [totals.fallback_answered, totals.fallback_failed, totals.fallback_cancelled]
}

/// Calls that succeeded, failed, proved nothing, and were cancelled.
fn calls(circuit: &Circuit) -> [u64; 4] {
    let totals = circuit.snapshot().totals;
    assert_eq!(totals.stale, 0);
    [totals.success, totals.failure, totals.ignored, totals.cancelled]
}

/// A dependency that does as the request says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ask {
    Status(u16),
    Error,
    Shed,
    Never,
}

use Ask::{Error, Never, Shed, Status};

#[derive(Clone, Copy)]
struct Dependency;

impl Service<Ask> for Dependency {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        match ask {
            Status(status) => Box::pin(ready(Ok(response(status, "dependency")))),
            Error => Box::pin(ready(Err(io::Error::other("reset").into()))),
            Shed => Box::pin(ready(Err(Overloaded::new().into()))),
            Never => Box::pin(pending()),
        }
    }
}

fn response(status: u16, body: &str) -> Response<String> {
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

mod another_service {
    use super::*;

    type Mock = mock::Mock<&'static str, &'static str>;

    #[test]
    fn only_what_is_refused_goes_there() {
        let circuit = circuit(&ManualClock::new());
        let (main, mut main_handle) = mock::pair::<&str, &str>();
        let (spare, mut spare_handle) = mock::pair::<&str, &str>();
        let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
        let service = layer.fallback_service(spare).layer(main);

        let mut call = pin!(service.clone().oneshot("one"));
        assert!(poll(call.as_mut()).is_pending());
        now(main_handle.next_request()).unwrap().1.send_response("main");
        assert_eq!(now(call).unwrap(), "main");

        circuit.trip();
        let mut call = pin!(service.clone().oneshot("two"));
        assert!(poll(call.as_mut()).is_pending());
        let (request, reply) = now(spare_handle.next_request()).unwrap();
        assert_eq!(request, "two");
        reply.send_response("spare");
        assert_eq!(now(call).unwrap(), "spare");
        assert!(poll(pin!(main_handle.next_request())).is_pending());
        assert_eq!(circuit.snapshot().totals.rejected, 1);
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([1, 0, 0, 0], [1, 0, 0]));
    }

    #[test]
    fn it_is_not_called_before_it_is_ready() {
        let circuit = circuit(&ManualClock::new());
        circuit.trip();
        let (spare, mut handle): (Mock, _) = mock::pair();
        let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
        let main = service_fn(async |_: &str| Ok::<_, BoxError>("main"));
        let service = layer.fallback_service(spare).layer(main);

        handle.allow(0);
        let mut call = pin!(service.oneshot("one"));
        assert!(poll(call.as_mut()).is_pending());
        assert!(poll(pin!(handle.next_request())).is_pending(), "called when not ready");
        handle.allow(1);
        assert!(poll(call.as_mut()).is_pending());
        now(handle.next_request()).unwrap().1.send_response("spare");
        assert_eq!(now(call).unwrap(), "spare");
    }

    /// The caller's error stays that of the inner service.
    #[test]
    fn its_errors_become_those_of_the_inner_service() {
        #[derive(Debug)]
        struct MainError(&'static str);
        impl fmt::Display for MainError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
        impl std::error::Error for MainError {}
        struct SpareError;
        impl From<SpareError> for MainError {
            fn from(_: SpareError) -> Self {
                Self("of the spare")
            }
        }
        #[derive(Clone)]
        struct Spare {
            gets_ready: bool,
        }
        impl Service<()> for Spare {
            type Response = ();
            type Error = SpareError;
            type Future = Ready<Result<(), SpareError>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SpareError>> {
                Poll::Ready(if self.gets_ready { Ok(()) } else { Err(SpareError) })
            }
            fn call(&mut self, (): ()) -> Self::Future {
                assert!(self.gets_ready);
                ready(Err(SpareError))
            }
        }

        let circuit = circuit(&ManualClock::new());
        circuit.trip();
        for gets_ready in [false, true] {
            let layer = CircuitBreakerLayer::with_classifier(&circuit, ResultClassifier::new());
            let main = service_fn(async |()| Ok::<_, MainError>(()));
            let service = layer.fallback_service(Spare { gets_ready }).layer(main);
            let MainError(error) = now(service.oneshot(())).unwrap_err();
            assert_eq!(error, "of the spare");
        }
        assert_eq!(fallbacks(&circuit), [0, 2, 0]);
    }

    #[test]
    fn a_breaker_may_stand_before_it() {
        let clock = ManualClock::new();
        let (main, spare) = (circuit(&clock), circuit(&clock));
        let inner = CircuitBreakerLayer::new(&spare).layer(Dependency);
        let service = CircuitBreakerLayer::new(&main).fallback_service(inner).layer(Dependency);
        main.trip();
        assert_eq!(now(service.clone().oneshot(Status(200))).unwrap().status(), 200);
        spare.trip();
        let error = now(service.oneshot(Status(200))).unwrap_err();
        assert!(CircuitOpen::find_in(&*error).is_some());
        assert_eq!(fallbacks(&main), [1, 1, 0]);
    }
}

mod failures {
    use super::*;

    #[test]
    fn nobody_answers_for_them_unless_asked_to() {
        let circuit = circuit(&ManualClock::new());
        let breaker = CircuitBreakerLayer::new(&circuit);
        let plain = breaker.clone().fallback(|_| response(200, "spare")).layer(Dependency);
        let with = breaker
            .clone()
            .fallback_with(async |_: Ask, _| response(200, "spare"))
            .layer(Dependency);
        let service = breaker.fallback_service(Dependency).layer(Dependency);
        assert_eq!(now(plain.oneshot(Status(500))).unwrap().status(), 500);
        assert!(now(with.oneshot(Error)).unwrap_err().is::<io::Error>());
        assert_eq!(now(service.oneshot(Status(503))).unwrap().body(), "dependency");
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 3, 0, 0], [0; 3]));
    }

    /// By the outcome; and an error without an answer, because a load shedder
    /// or a breaker further in refused the call.
    #[test]
    fn it_is_asked_for_what_was_judged_a_failure_and_for_what_never_got_there() {
        let clock = ManualClock::new();
        for (ask, asked, outcome) in [
            (Status(200), false, [1, 0, 0, 0]),
            (Status(404), false, [1, 0, 0, 0]),
            (Status(429), false, [0, 0, 1, 0]),
            (Status(500), true, [0, 1, 0, 0]),
            (Error, true, [0, 1, 0, 0]),
            (Shed, true, [0, 0, 1, 0]),
        ] {
            let circuit = circuit(&clock);
            let layer = CircuitBreakerLayer::new(&circuit)
                .fallback_on_failure(|_: Why<_, BoxError>| response(299, "spare"));
            let answer = now(layer.layer(Dependency).oneshot(ask)).unwrap();
            assert_eq!(answer.status() == 299, asked, "{ask:?}");
            assert_eq!(calls(&circuit), outcome, "{ask:?}");
            assert_eq!(fallbacks(&circuit), [u64::from(asked), 0, 0], "{ask:?}");
        }
    }

    /// A breaker further in may say no before there is a request: then it is as
    /// if it had said so when it was called.
    #[test]
    fn a_refusal_of_poll_ready_is_answered_when_there_is_a_request() {
        let clock = ManualClock::new();
        let (outer, inner) = (circuit(&clock), circuit(&clock));
        let further_in = CircuitBreakerLayer::new(&inner).layer(Dependency);
        let mut service = CircuitBreakerLayer::new(&outer)
            .fallback_on_failure(|why: Why<_, BoxError>| match why {
                Why::Failed(Err(error)) if CircuitOpen::find_in(&*error).is_some() => {
                    Ok(response(299, "spare"))
                }
                Why::Open(_) => Ok(response(503, "")),
                Why::Failed(failed) => failed,
            })
            .layer(further_in);
        let mut ask = || now(now(service.ready()).unwrap().call(Status(200))).unwrap().status();
        inner.trip();
        assert_eq!(ask(), 299);
        assert_eq!((calls(&outer), fallbacks(&outer)), ([0, 0, 1, 0], [1, 0, 0]));
        assert_eq!(inner.snapshot().totals.rejected, 1);
        outer.trip();
        assert_eq!(ask(), 503, "its own refusal comes first");
        outer.reset();
        inner.reset();
        assert_eq!(ask(), 200);

        inner.trip();
        now(service.ready()).unwrap();
        let mut clone = service.clone();
        outer.trip();
        assert_eq!(now(service.call(Status(200))).unwrap().status(), 503, "nor does it forget it");
        outer.reset();
        inner.reset();
        now(clone.ready()).unwrap();
        assert_eq!(now(clone.call(Status(200))).unwrap().status(), 200, "readiness is its own");
        assert_eq!(calls(&outer), [2, 0, 1, 0]);
    }

    /// Refuses before there is a request.
    #[derive(Clone)]
    struct Unready<F>(F);

    impl<F: Fn() -> BoxError> Service<Ask> for Unready<F> {
        type Response = Response<String>;
        type Error = BoxError;
        type Future = Ready<Result<Response<String>, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err(self.0()))
        }

        fn call(&mut self, _: Ask) -> Self::Future {
            panic!("it was not ready")
        }
    }

    /// Only such a refusal, and only where somebody answers for it.
    #[test]
    fn what_else_poll_ready_says_is_the_caller_s() {
        let circuit = circuit(&ManualClock::new());
        let breaker = CircuitBreakerLayer::new(&circuit);
        let shed = Unready(|| BoxError::from(Overloaded::new()));
        let broken = Unready(|| BoxError::from(io::Error::other("reset")));
        let spare = |_: Why<_, BoxError>| response(299, "spare");

        let error = now(breaker.clone().fallback_on_failure(spare).layer(broken).ready_oneshot());
        assert!(error.err().unwrap().is::<io::Error>());
        let error = now(breaker
            .clone()
            .fallback(|_| response(299, ""))
            .layer(shed.clone())
            .ready_oneshot());
        assert!(error.err().unwrap().is::<Overloaded>());
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0; 4], [0; 3]));

        let with = breaker.fallback_on_failure_with(
            |_: &Ask| panic!("the request is still there"),
            move |_, why| ready(spare(why)),
        );
        let service = with.layer(shed);
        assert_eq!(now(service.clone().oneshot(Status(200))).unwrap().status(), 299);
        drop(now(service.ready_oneshot()).unwrap().call(Status(200)));
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 0, 2, 0], [1, 0, 1]));
    }

    #[test]
    fn a_refusal_that_is_kept_goes_with_its_service_or_the_next_look() {
        /// Held by whoever holds the error.
        #[derive(Debug)]
        struct Refusal(CircuitOpen, Arc<()>);

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "refused, one of {}", Arc::strong_count(&self.1))
            }
        }

        impl std::error::Error for Refusal {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }

        let (circuit, alive) = (circuit(&ManualClock::new()), Arc::new(()));
        circuit.trip();
        let open = circuit.try_acquire().unwrap_err();
        circuit.reset();
        let held = Arc::clone(&alive);
        let further_in = Unready(move || Refusal(open.clone(), Arc::clone(&held)).into());
        let kept = || Arc::strong_count(&alive) - 2;
        let mut service = CircuitBreakerLayer::new(&circuit)
            .fallback_on_failure(|_: Why<_, BoxError>| response(299, "spare"))
            .layer(further_in);
        for _ in 0..2 {
            now(service.ready()).unwrap();
            assert_eq!(kept(), 1);
        }
        circuit.trip();
        now(service.ready()).unwrap();
        assert_eq!(kept(), 0);
        circuit.reset();
        now(service.ready()).unwrap();
        drop(service);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn an_error_that_is_no_failure_is_the_caller_s() {
        let circuit = circuit(&ManualClock::new());
        let layer = CircuitBreakerLayer::new(&circuit)
            .classify_http(|_| Outcome::Success)
            .fallback_on_failure(|_: Why<_, BoxError>| response(299, "spare"));
        assert!(now(layer.layer(Dependency).oneshot(Error)).unwrap_err().is::<io::Error>());
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([1, 0, 0, 0], [0; 3]));
    }

    #[test]
    fn it_is_told_why_and_may_give_back_what_the_call_came_to() {
        let circuit = circuit(&ManualClock::new());
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let layer = CircuitBreakerLayer::new(&circuit).fallback_on_failure(move |why| {
            log.lock().unwrap().push(format!("{why:?}"));
            match why {
                Why::Open(open) => Ok(response(503, open.name())),
                Why::Failed(failed) => failed,
            }
        });
        let service = layer.layer(Dependency);
        let failed = now(service.clone().oneshot(Status(502))).unwrap();
        assert_eq!((failed.status().as_u16(), &**failed.body()), (502, "dependency"));
        let error = now(service.clone().oneshot(Error)).unwrap_err();
        assert!(error.is::<io::Error>(), "the error is kept as itself");
        circuit.trip();
        assert_eq!(now(service.oneshot(Status(200))).unwrap().body(), "shop");

        let told = told.lock().unwrap();
        assert!(told[0].starts_with("Failed(Ok(Response { status: 502"), "{told:?}");
        assert!(told[1].starts_with("Failed(Err("), "{told:?}");
        assert!(told[2].starts_with("Open(CircuitOpen"), "{told:?}");
        assert_eq!(fallbacks(&circuit), [2, 1, 0], "what is given back is an answer too");
    }

    /// The dependency is as sick as it was, however well the fallback does; and
    /// no sicker, however badly.
    #[test]
    fn the_circuit_hears_of_the_call_alone() {
        let circuit = circuit(&ManualClock::new());
        let well = CircuitBreakerLayer::new(&circuit)
            .fallback_on_failure(|_: Why<_, BoxError>| response(200, "spare"))
            .layer(Dependency);
        for _ in 0..3 {
            assert_eq!(now(well.clone().oneshot(Status(500))).unwrap().status(), 200);
        }
        assert_eq!(circuit.state(), State::Open);

        circuit.reset();
        let sick = CircuitBreakerLayer::new(&circuit)
            .fallback_on_failure(|_: Why<Response<String>, BoxError>| Err("no".into()))
            .layer(Dependency);
        for _ in 0..2 {
            assert!(now(sick.clone().oneshot(Error)).is_err());
        }
        assert_eq!(circuit.state(), State::Closed);
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 5, 0, 0], [3, 2, 0]));
    }

    /// A fallback that hangs must hold no probe.
    #[test]
    fn the_call_is_settled_before_the_fallback_begins() {
        let clock = ManualClock::new();
        let circuit = circuit(&clock);
        let seen = circuit.clone();
        let layer = CircuitBreakerLayer::new(&circuit).fallback_on_failure_with(
            |ask: &Ask| Some(*ask),
            move |_, why: Why<Response<String>, BoxError>| {
                if matches!(why, Why::Failed(_)) {
                    assert_eq!(seen.state(), State::Open, "the probe has failed");
                }
                pending::<Response<String>>()
            },
        );
        circuit.trip();
        clock.advance(5 * SECOND);
        let mut call = Box::pin(layer.layer(Dependency).oneshot(Status(500)));
        assert!(poll(call.as_mut()).is_pending());
        assert_eq!((circuit.state(), calls(&circuit)), (State::Open, [0, 1, 0, 0]));
        drop(call);
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 1, 0, 0], [0, 0, 1]));
    }

    #[test]
    fn a_response_that_is_replaced_is_dropped() {
        let circuit = circuit(&ManualClock::new());
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let inner = service_fn(move |()| {
            let mut response = Response::new(Some(Arc::clone(&held)));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            ready(Ok::<_, BoxError>(response))
        });
        let layer = CircuitBreakerLayer::new(&circuit)
            .fallback_on_failure(|_: Why<_, BoxError>| Response::new(None));
        let service = layer.layer(inner);
        let answer = now(service.clone().oneshot(())).unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(Arc::strong_count(&alive), 2, "the test's and the service's");
    }

    #[test]
    fn the_request_is_cloned_once_for_a_call_and_never_for_a_refusal() {
        let circuit = circuit(&ManualClock::new());
        let cloned = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&cloned);
        let layer = CircuitBreakerLayer::new(&circuit).fallback_on_failure_with(
            move |ask: &Ask| {
                count.fetch_add(1, Relaxed);
                // As with a body that cannot be had twice.
                (*ask != Status(501)).then_some(*ask)
            },
            async |ask: Ask, _: Why<_, BoxError>| response(299, &format!("{ask:?}")),
        );
        let service = layer.layer(Dependency);
        let mut asked = 0;
        for (ask, status, body) in [
            (Status(200), 200, "dependency"),
            (Status(500), 299, "Status(500)"),
            (Error, 299, "Error"),
            (Status(501), 501, "dependency"),
        ] {
            asked += 1;
            let answer = now(service.clone().oneshot(ask)).unwrap();
            assert_eq!((answer.status().as_u16(), &**answer.body()), (status, body));
            assert_eq!(cloned.load(Relaxed), asked);
        }
        circuit.trip();
        let answer = now(service.oneshot(Status(501))).unwrap();
        assert_eq!(answer.body(), "Status(501)", "the request itself");
        assert_eq!(cloned.load(Relaxed), asked);
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([1, 3, 0, 0], [3, 0, 0]));
    }

    #[test]
    fn a_panic_of_the_fallbacks_is_no_failure_of_the_call() {
        let circuit = circuit(&ManualClock::new());
        let breaker = CircuitBreakerLayer::new(&circuit);
        let answers = |_: Why<Response<String>, BoxError>| response(200, "spare");
        let clones = breaker.clone().fallback_on_failure_with(
            |_: &Ask| -> Option<Ask> { panic!("planned") },
            move |_, why| ready(answers(why)),
        );
        assert!(panics(|| now(clones.layer(Dependency).oneshot(Status(200)))));
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 0, 0, 1], [0; 3]));

        let makes = breaker
            .clone()
            .fallback_on_failure(|_: Why<_, BoxError>| -> Response<String> { panic!("planned") });
        assert!(panics(|| now(makes.layer(Dependency).oneshot(Status(500)))));
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 1, 0, 1], [0, 1, 0]));

        let runs = breaker.fallback_on_failure_with(
            |ask: &Ask| Some(*ask),
            async |_: Ask, _: Why<_, BoxError>| -> Response<String> { panic!("planned") },
        );
        assert!(panics(|| now(runs.layer(Dependency).oneshot(Status(500)))));
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 2, 0, 1], [0, 2, 0]));
    }

    #[test]
    fn a_call_that_is_dropped_asks_no_fallback() {
        let circuit = circuit(&ManualClock::new());
        let layer = CircuitBreakerLayer::new(&circuit)
            .fallback_on_failure(|_: Why<_, BoxError>| response(200, "spare"));
        let mut call = Box::pin(layer.layer(Dependency).oneshot(Never));
        assert!(poll(call.as_mut()).is_pending());
        drop(call);
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 0, 0, 1], [0; 3]));
    }

    /// A body that fails at once.
    #[derive(Debug)]
    struct Broken;

    impl Body for Broken {
        type Data = &'static [u8];
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<&'static [u8]>, BoxError>>> {
            Poll::Ready(Some(Err("reset".into())))
        }
    }

    #[test]
    fn after_the_head_it_is_too_late() {
        let circuit = circuit(&ManualClock::new());
        let inner = service_fn(|status: u16| {
            let mut response = Response::new(Broken);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            ready(Ok::<_, BoxError>(response))
        });
        let layer = CircuitBreakerLayer::new(&circuit)
            .fallback_on_failure(|_: Why<_, BoxError>| {
                let mut response = Response::new(Broken);
                *response.status_mut() = StatusCode::IM_USED;
                response
            })
            .until_end_of_body();
        let service = layer.layer(inner);
        let read = |response: Response<tower_breaker::ResponseBody<Broken>>| {
            let mut body = pin!(response.into_body());
            let frame = body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(frame, Poll::Ready(Some(Err(_)))));
        };

        let head = now(service.clone().oneshot(200)).unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(calls(&circuit), [0; 4], "it goes on");
        read(head);
        assert_eq!((calls(&circuit), fallbacks(&circuit)), ([0, 1, 0, 0], [0; 3]));

        let head = now(service.oneshot(500)).unwrap();
        assert_eq!(head.status(), 226);
        assert_eq!(calls(&circuit), [0, 2, 0, 0], "settled at the head");
        read(head);
        assert_eq!(calls(&circuit), [0, 2, 0, 0], "the body of a fallback is nobody's call");
        assert_eq!(fallbacks(&circuit), [1, 0, 0]);
    }
}

mod tally {
    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<&'static str>>>);

    impl Observer for Log {
        fn on_fallback(&self, circuit: &str, end: FallbackEnd) {
            assert_eq!(circuit, "shop");
            self.0.lock().unwrap().push(end.as_str());
        }

        fn on_rejection(&self, _: &CircuitOpen) {
            self.0.lock().unwrap().push("rejected");
        }
    }

    /// Beside the refusal, not in its place.
    #[test]
    fn a_fallback_is_told_and_counted_where_it_ends() {
        let log = Log::default();
        let circuit = Circuit::new(Config::builder("shop").observer(log.clone()).build().unwrap());
        let layer = CircuitBreakerLayer::new(&circuit).fallback_with(|ask: Ask, _| async move {
            match ask {
                Status(status) => Ok(response(status, "spare")),
                Error | Shed => Err::<_, BoxError>("no".into()),
                Never => pending().await,
            }
        });
        let mut service = layer.layer(Dependency);
        circuit.trip();

        let mut answered = Box::pin(service.call(Status(200)));
        assert_eq!(fallbacks(&circuit), [0; 3], "nothing has come of it yet");
        assert!(poll(answered.as_mut()).is_ready());
        assert_eq!(fallbacks(&circuit), [1, 0, 0], "counted when it ends, not when it is dropped");
        drop(answered);
        assert!(now(service.call(Error)).is_err());
        let mut cancelled = Box::pin(service.call(Never));
        assert!(poll(cancelled.as_mut()).is_pending());
        drop(cancelled);
        drop(service.call(Status(200)));

        assert_eq!(fallbacks(&circuit), [1, 1, 2]);
        assert_eq!(circuit.snapshot().totals.rejected, 4);
        assert_eq!(
            *log.0.lock().unwrap(),
            [
                "rejected",
                "answered",
                "rejected",
                "failed",
                "rejected",
                "cancelled",
                "rejected",
                "cancelled"
            ]
        );
    }

    /// A panic elsewhere that drops it is none of its own.
    #[test]
    fn a_panic_in_it_is_a_failure_and_one_elsewhere_is_not() {
        let circuit = circuit(&ManualClock::new());
        circuit.trip();
        let breaker = CircuitBreakerLayer::new(&circuit);
        let made = breaker.clone().fallback(|_| -> Response<String> { panic!("planned") });
        assert!(panics(|| now(made.layer(Dependency).oneshot(Status(200)))));
        let polled = breaker
            .clone()
            .fallback_with(async |_: Ask, _| -> Response<String> { panic!("planned") });
        assert!(panics(|| now(polled.layer(Dependency).oneshot(Status(200)))));
        assert_eq!(fallbacks(&circuit), [0, 2, 0]);

        let waits = breaker.fallback_with(|_: Ask, _| pending::<Response<String>>());
        assert!(panics(|| {
            let mut call = pin!(waits.layer(Dependency).oneshot(Status(200)));
            assert!(poll(call.as_mut()).is_pending());
            panic!("planned");
        }));
        assert_eq!(fallbacks(&circuit), [0, 2, 1]);
    }

    #[test]
    fn the_series_are_there_from_the_first_fallback_on() {
        let circuit = circuit(&ManualClock::new());
        let recorder = DebuggingRecorder::new();
        let series = || {
            let snapshot = recorder.snapshotter().snapshot().into_vec();
            let mut series: Vec<_> = snapshot
                .into_iter()
                .filter(|(key, ..)| key.key().name() == "circuit_breaker_fallbacks_total")
                .map(|(key, unit, description, value)| {
                    assert!(unit.is_some() && description.is_some());
                    let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
                    (labels.join(" "), value)
                })
                .collect();
            series.sort_by(|one, other| one.0.cmp(&other.0));
            series
        };
        let service = CircuitBreakerLayer::new(&circuit)
            .fallback_with(|ask: Ask, _| async move {
                match ask {
                    Status(status) => Ok(response(status, "spare")),
                    _ => Err::<_, BoxError>("no".into()),
                }
            })
            .layer(Dependency);
        metrics::with_local_recorder(&recorder, || {
            now(service.clone().oneshot(Status(200))).unwrap();
        });
        assert_eq!(series(), []);
        metrics::with_local_recorder(&recorder, || {
            circuit.trip();
            now(service.clone().oneshot(Status(200))).unwrap();
            now(service.clone().oneshot(Status(200))).unwrap();
            now(service.clone().oneshot(Error)).unwrap_err();
        });
        assert_eq!(
            series(),
            [
                ("shop answered".to_owned(), DebugValue::Counter(2)),
                ("shop cancelled".to_owned(), DebugValue::Counter(0)),
                ("shop failed".to_owned(), DebugValue::Counter(1)),
            ]
        );
    }
}

/// Who wants no answer for failures carries nothing for it.
#[test]
fn what_answers_for_no_failure_takes_no_room_in_a_call() {
    assert_eq!(size_of::<Reject>(), 0);
    assert_eq!(size_of::<Kept<AsError>>(), 0);
}

#[test]
fn every_kind_is_send_and_sync_and_says_what_it_is() {
    fn is<T: Send + Sync + Clone + fmt::Debug + 'static>(it: &T) -> String {
        format!("{it:?}")
    }
    fn sent<T: Send + Sync + fmt::Debug>(future: T) -> String {
        format!("{future:?}")
    }
    type Plain = Response<()>;
    #[derive(Clone, Debug)]
    struct Quick;
    impl Service<Request<()>> for Quick {
        type Response = Plain;
        type Error = io::Error;
        type Future = Ready<io::Result<Plain>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            ready(Ok(Response::new(())))
        }
    }
    let breaker = CircuitBreakerLayer::new(Config::default());
    let plain = breaker.clone().fallback_on_failure(|_: Why<_, io::Error>| Response::new(()));
    let with = breaker.clone().fallback_on_failure_with(
        |_: &Request<()>| None,
        |_, _: Why<_, io::Error>| ready(Response::new(())),
    );
    let service = breaker.fallback_service(Quick);
    let (mut one, mut two, mut three) =
        (plain.layer(Quick), with.layer(Quick), service.layer(Quick));
    for text in [is(&one), is(&two), is(&three)] {
        assert!(text.contains("on_open: Fallback"), "{text}");
    }
    one.circuit().trip();
    for text in [
        sent(one.call(Request::new(()))),
        sent(two.call(Request::new(()))),
        sent(three.call(Request::new(()))),
    ] {
        assert!(text.contains("answering"), "{text}");
    }
}

/// Its request is gone, and whoever polls on has been told of the panic.
#[test]
fn a_service_that_panicked_when_it_was_called_is_not_called_again() {
    #[derive(Clone, Default)]
    struct Falls(Arc<AtomicUsize>);
    impl Service<Ask> for Falls {
        type Response = Response<String>;
        type Error = BoxError;
        type Future = Ready<Result<Response<String>, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Ask) -> Self::Future {
            self.0.fetch_add(1, Relaxed);
            panic!("planned")
        }
    }
    let (circuit, spare) = (circuit(&ManualClock::new()), Falls::default());
    circuit.trip();
    let breaker = CircuitBreakerLayer::new(&circuit).fallback_service(spare.clone());
    let mut call = Box::pin(breaker.layer(Dependency).call(Status(200)));
    for _ in 0..3 {
        assert!(panics(|| poll(call.as_mut())));
        assert_eq!(spare.0.load(Relaxed), 1);
    }
    drop(call);
    assert_eq!(fallbacks(&circuit), [0, 1, 0]);
}
