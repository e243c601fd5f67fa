//! The laws of a response that is followed to the end of its body.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ManualClock, Override, Probes,
    ResponseBody, State, Totals,
};

const SECOND: Duration = Duration::from_secs(1);

/// What a scripted body does when it is polled.
#[derive(Clone, Debug)]
enum Step {
    Data(&'static str),
    Trailers(&'static [(&'static str, &'static str)]),
    Error,
    Pending,
    Panic,
}

use Step::{Data, Error, Panic, Pending, Trailers};

/// A body that follows a script, and announces its length or its end only if
/// told to.
#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    knows_its_end: bool,
    knows_its_length: bool,
}

fn script(steps: &[Step]) -> Script {
    Script { steps: steps.iter().cloned().collect(), ..Script::default() }
}

impl Body for Script {
    type Data = &'static [u8];
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<&'static [u8]>, BoxError>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Data(text)) => Some(Ok(Frame::data(text.as_bytes()))),
            Some(Trailers(trailers)) => Some(Ok(Frame::trailers(headers(trailers)))),
            Some(Error) => Some(Err("reset".into())),
            Some(Pending) => return Poll::Pending,
            Some(Panic) => panic!("in the body"),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.knows_its_length {
            return SizeHint::default();
        }
        let data = |step: &Step| if let Data(text) = step { text.len() as u64 } else { 0 };
        SizeHint::with_exact(self.steps.iter().map(data).sum())
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn layer_of(clock: &ManualClock) -> CircuitBreakerLayer<tower_breaker::HttpClassifier> {
    let config = Config::builder("body")
        .consecutive_failures(2)
        .slow_calls(SECOND, 1.0)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1).lease(60 * SECOND))
        .clock(clock);
    CircuitBreakerLayer::new(config.build().unwrap())
}

const PLAIN: &[(&str, &str)] = &[];
const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];

/// A call that answers with this head and body; the response, and the circuit.
fn answer(
    status: u16,
    head: &[(&'static str, &'static str)],
    body: Script,
) -> (Response<ResponseBody<Script>>, Circuit) {
    let layer = layer_of(&ManualClock::new());
    let circuit = layer.circuit().clone();
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap();
    *response.headers_mut() = headers(head);
    let mut response = Some(response);
    let service = layer.until_end_of_body().layer(service_fn(move |()| {
        let response = response.take().unwrap();
        async { Ok::<_, BoxError>(response) }
    }));
    (now(service.oneshot(())).unwrap(), circuit)
}

/// The output of a future that does not wait.
fn now<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn ends(circuit: &Circuit) -> (u64, u64, u64, u64) {
    let Totals { success, failure, ignored, cancelled, .. } = circuit.snapshot().totals;
    (success, failure, ignored, cancelled)
}

const OPEN_END: (u64, u64, u64, u64) = (0, 0, 0, 0);
const SUCCESS: (u64, u64, u64, u64) = (1, 0, 0, 0);
const FAILURE: (u64, u64, u64, u64) = (0, 1, 0, 0);
const IGNORED: (u64, u64, u64, u64) = (0, 0, 1, 0);
const NEUTRAL: (u64, u64, u64, u64) = (0, 0, 0, 1);

#[test]
fn the_verdict_falls_at_the_end_and_once() {
    type Case = (&'static [(&'static str, &'static str)], &'static [Step], (u64, u64, u64, u64));
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    const DOWN: &[(&str, &str)] = &[("grpc-status", "14")];
    const BUSY: &[(&str, &str)] = &[("grpc-status", "8")];
    const OTHER: &[(&str, &str)] = &[("checksum", "1")];
    let cases: [Case; 12] = [
        (PLAIN, &[], SUCCESS),
        (PLAIN, &[Data("a"), Data("b")], SUCCESS),
        (PLAIN, &[Data("a"), Trailers(OTHER)], SUCCESS),
        (PLAIN, &[Data("a"), Error], FAILURE),
        (PLAIN, &[Error, Error, Error], FAILURE),
        (GRPC, &[Data("a"), Trailers(OK)], SUCCESS),
        (GRPC, &[Data("a"), Trailers(DOWN)], FAILURE),
        (GRPC, &[Trailers(BUSY)], IGNORED),
        (GRPC, &[Data("a"), Trailers(OTHER)], FAILURE),
        (GRPC, &[Data("a")], FAILURE),
        (&[("content-type", "application/grpc-web")], &[Data("a")], SUCCESS),
        (PLAIN, &[Data("a"), Trailers(DOWN)], SUCCESS),
    ];
    for (head, steps, expected) in cases {
        let (response, circuit) = answer(200, head, script(steps));
        assert_eq!(ends(&circuit), OPEN_END, "{steps:?} has not ended");
        let mut body = response.into_body();
        while let Some(frame) = now(body.frame()) {
            if frame.is_err() {
                break;
            }
        }
        assert_eq!(ends(&circuit), expected, "{head:?} {steps:?}");
        drop(body);
        assert_eq!(ends(&circuit), expected, "dropping adds nothing");
    }
}

#[test]
fn what_is_over_at_the_head_is_settled_there() {
    let known = || Script { knows_its_end: true, ..Script::default() };
    let trailers_only = [("content-type", "application/grpc"), ("grpc-status", "14")].as_slice();
    let cases = [
        (503, PLAIN, script(&[Data("sorry")]), FAILURE),
        (429, PLAIN, script(&[Data("slow down")]), IGNORED),
        (200, trailers_only, script(&[]), FAILURE),
        (200, PLAIN, known(), SUCCESS),
        (204, PLAIN, known(), SUCCESS),
        (200, GRPC, known(), FAILURE),
    ];
    for (status, head, body, expected) in cases {
        let (_response, circuit) = answer(status, head, body);
        assert_eq!(ends(&circuit), expected, "{status} {head:?}");
    }
}

#[test]
fn a_body_that_knows_its_end_is_not_asked_for_it() {
    let body = Script { knows_its_end: true, ..script(&[Data("a"), Data("b")]) };
    let (response, circuit) = answer(200, PLAIN, body);
    let mut body = response.into_body();
    now(body.frame()).unwrap().unwrap();
    assert_eq!(ends(&circuit), OPEN_END);
    now(body.frame()).unwrap().unwrap();
    assert_eq!(ends(&circuit), SUCCESS);
}

#[test]
fn a_body_whose_announced_length_has_come_may_be_dropped() {
    let body = Script { knows_its_length: true, ..script(&[Data("abc"), Data("de")]) };
    let (response, circuit) = answer(200, PLAIN, body);
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    now(body.frame()).unwrap().unwrap();
    now(body.frame()).unwrap().unwrap();
    drop(body);
    assert_eq!(ends(&circuit), SUCCESS);
}

#[test]
fn an_early_drop_is_neutral_at_any_age() {
    for read in 0..2 {
        let clock = ManualClock::new();
        let layer = layer_of(&clock);
        let circuit = layer.circuit().clone();
        let service = layer.until_end_of_body().layer(service_fn(async |()| {
            Ok::<_, BoxError>(Response::new(script(&[Data("a"), Data("b"), Pending])))
        }));
        let mut body = now(service.oneshot(())).unwrap().into_body();
        for _ in 0..read {
            now(body.frame()).unwrap().unwrap();
        }
        clock.advance(100 * SECOND);
        drop(body);
        assert_eq!(ends(&circuit), NEUTRAL);
        assert_eq!(circuit.snapshot().window.calls, 0);
    }
}

#[test]
fn a_panic_in_the_body_is_a_failure_and_goes_on() {
    let (response, circuit) = answer(200, PLAIN, script(&[Data("a"), Panic]));
    let mut body = response.into_body();
    now(body.frame()).unwrap().unwrap();
    catch_unwind(AssertUnwindSafe(|| now(body.frame()))).unwrap_err();
    assert_eq!(ends(&circuit), FAILURE);
}

#[test]
fn a_panic_of_a_body_that_is_asked_whether_it_has_ended_is_a_failure() {
    struct Unasked;

    impl Body for Unasked {
        type Data = &'static [u8];
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
            Poll::Pending
        }

        fn is_end_stream(&self) -> bool {
            panic!("in the body")
        }
    }

    let layer = layer_of(&ManualClock::new());
    let circuit = layer.circuit().clone();
    let service = layer
        .until_end_of_body()
        .layer(service_fn(async |()| Ok::<_, BoxError>(Response::new(Unasked))));
    assert!(catch_unwind(AssertUnwindSafe(|| now(service.oneshot(())))).is_err());
    assert_eq!(ends(&circuit), FAILURE);
}

#[test]
fn size_end_and_frames_pass_unchanged() {
    let layer = layer_of(&ManualClock::new()).until_end_of_body();
    let service = layer.layer(service_fn(async |()| {
        Ok::<_, BoxError>(Response::new(Full::<&[u8]>::new(b"hello")))
    }));
    let body = now(service.oneshot(())).unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
    let bytes: &[u8] = &now(body.collect()).unwrap().to_bytes();
    assert_eq!(bytes, b"hello");

    let known = Script { knows_its_end: true, ..Script::default() };
    let (response, _) = answer(200, PLAIN, known);
    assert!(response.body().is_end_stream());
    let shown = format!("{:?}", response.body());
    assert!(shown.starts_with("ResponseBody { body: Script {"), "{shown}");
}

#[test]
fn the_latency_is_that_of_the_head_unless_asked_otherwise() {
    for (to_end, slow) in [(false, 0), (true, 1)] {
        let clock = ManualClock::new();
        let layer = layer_of(&clock).until_end_of_body();
        let layer = if to_end { layer.latency_to_end_of_body() } else { layer };
        let circuit = layer.circuit().clone();
        let service = layer
            .layer(service_fn(async |()| Ok::<_, BoxError>(Response::new(script(&[Data("a")])))));
        let body = now(service.oneshot(())).unwrap().into_body();
        clock.advance(2 * SECOND);
        now(body.collect()).unwrap();
        assert_eq!((ends(&circuit), circuit.snapshot().totals.slow), (SUCCESS, slow));
    }
}

/// A head in time ends the matter, and no other: the call is overdue until it
/// ends, and counts once.
#[test]
fn a_head_that_comes_too_late_leaves_its_call_overdue() {
    for (to_head, late) in [(SECOND, 0), (SECOND + Duration::from_nanos(1), 1)] {
        let clock = ManualClock::new();
        let layer = layer_of(&clock);
        let circuit = layer.circuit().clone();
        let slept = clock.clone();
        let service = layer.until_end_of_body().layer(service_fn(move |()| {
            slept.advance(to_head);
            std::future::ready(Ok::<_, BoxError>(Response::new(script(&[Data("a")]))))
        }));
        let body = now(service.oneshot(())).unwrap().into_body();
        clock.advance(100 * SECOND);
        let window = circuit.snapshot().window;
        assert_eq!((window.overdue, window.slow), (late, 0), "{to_head:?}");
        now(body.collect()).unwrap();
        let window = circuit.snapshot().window;
        assert_eq!((window.overdue, window.calls, window.slow), (0, 1, late), "{to_head:?}");
    }
}

/// By the rules when it comes, whatever they were when the call began; and it
/// ends no other call's matter.
#[test]
fn a_head_is_in_time_by_the_rules_of_today() {
    let rules = |clock: &ManualClock, threshold| {
        let config = Config::builder("body").slow_calls(threshold, 1.0).clock(clock);
        config.build().unwrap()
    };
    // A few times, because the other thread's list may be that of this one.
    let (old, new) = (SECOND, 2 * SECOND);
    let cases = [(new, false, 1), (old, false, 2), (new, true, 1)].into_iter().cycle().take(30);
    for (threshold, resets, overdue) in cases {
        let clock = ManualClock::new();
        let layer = CircuitBreakerLayer::new(rules(&clock, SECOND));
        let circuit = layer.circuit().clone();
        let held = Mutex::new(None);
        let service = layer.until_end_of_body().layer(service_fn(|()| {
            clock.advance(SECOND / 2);
            if resets {
                circuit.reconfigure(rules(&clock, threshold)).unwrap();
                circuit.reset();
            }
            let other = thread::scope(|all| all.spawn(|| circuit.try_acquire()).join());
            *held.lock().unwrap() = Some(other.unwrap().unwrap());
            circuit.reconfigure(rules(&clock, threshold)).unwrap();
            clock.advance(SECOND);
            std::future::ready(Ok::<_, BoxError>(Response::new(script(&[Data("a")]))))
        }));
        let body = now(service.oneshot(())).unwrap().into_body();
        clock.advance(100 * SECOND);
        assert_eq!(circuit.snapshot().window.overdue, overdue, "{threshold:?} {resets}");
        drop((body, held));
    }
}

#[test]
fn slow_heads_open_the_circuit_while_their_bodies_take_minutes() {
    let clock = ManualClock::new();
    let config = Config::builder("body")
        .slow_calls(SECOND, 0.5)
        .minimum_calls(10)
        .sustained_for(Duration::ZERO)
        .clock(&clock);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let circuit = layer.circuit().clone();
    let slept = clock.clone();
    let service = layer.until_end_of_body().layer(service_fn(move |()| {
        slept.advance(SECOND + SECOND / 2);
        std::future::ready(Ok::<_, BoxError>(Response::new(script(&[Data("a"), Pending]))))
    }));
    let bodies: Vec<_> = (0..10).map(|_| now(service.clone().oneshot(())).unwrap()).collect();
    assert!(circuit.try_acquire().is_err());
    assert_eq!(circuit.state(), State::Open);
    drop(bodies);
}

#[test]
fn a_probes_lease_bounds_an_endless_stream() {
    let clock = ManualClock::new();
    let layer = layer_of(&clock);
    let circuit = layer.circuit().clone();
    circuit.trip();
    clock.advance(5 * SECOND);
    let service = layer
        .until_end_of_body()
        .layer(service_fn(async |()| Ok::<_, BoxError>(Response::new(script(&[Data("a")])))));
    let body = now(service.oneshot(())).unwrap().into_body();
    assert_eq!(circuit.state(), State::HalfOpen);
    clock.advance(60 * SECOND);
    assert_eq!(circuit.state(), State::Open);
    now(body.collect()).unwrap();
    assert_eq!(circuit.state(), State::Open, "a late end counts for nothing");
    assert_eq!(ends(&circuit), FAILURE);
}

#[test]
fn a_fallbacks_answer_is_no_call() {
    let layer = layer_of(&ManualClock::new())
        .until_end_of_body()
        .fallback(|_: CircuitOpen| Response::new(script(&[Data("spare"), Error])));
    let circuit = layer.circuit().clone();
    circuit.trip();
    let service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(Response::new(script(&[])))));
    let body = now(service.oneshot(())).unwrap().into_body();
    assert!(now(body.collect()).is_err());
    assert_eq!(ends(&circuit), OPEN_END);
}

#[test]
fn pushback_in_trailers_holds_an_opening() {
    const DOWN: &[(&str, &str)] = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "7000")];
    let clock = ManualClock::new();
    let config = Config::builder("pushback")
        .consecutive_failures(1)
        .open_for(Backoff::exponential(SECOND, 20 * SECOND).jitter(0.0))
        .clock(&clock);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let circuit = layer.circuit().clone();
    let service = layer.until_end_of_body().layer(service_fn(async |()| {
        let mut response = Response::new(script(&[Data("a"), Trailers(DOWN)]));
        *response.headers_mut() = headers(GRPC);
        Ok::<_, BoxError>(response)
    }));
    now(now(service.oneshot(())).unwrap().into_body().collect()).unwrap();
    assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(7 * SECOND));
}

#[test]
fn a_hint_is_spread_upwards_and_only_heard_by_the_machine_that_asked() {
    let opened_for = |jitter: f64, seed: u64, over: Option<Override>| {
        let clock = ManualClock::new();
        let open_for = Backoff::exponential(SECOND, 60 * SECOND).jitter(jitter).seed(seed);
        let config = Config::builder("hints").open_for(open_for).clock(&clock).build().unwrap();
        let layer = CircuitBreakerLayer::new(config);
        let circuit = layer.circuit().clone();
        if let Some(over) = over {
            circuit.set_override(over);
        }
        let service = layer.layer(service_fn(async |()| {
            let busy = Response::builder().status(429).header("retry-after", "30");
            Ok::<_, BoxError>(busy.body(()).unwrap())
        }));
        now(service.oneshot(())).unwrap();
        circuit.clear_override();
        circuit.trip();
        circuit.try_acquire().unwrap_err().retry_after().unwrap()
    };
    assert_eq!(opened_for(0.0, 1, None), 30 * SECOND);
    let forced = Some(Override::force_closed());
    assert_eq!(opened_for(0.0, 1, forced), SECOND, "under a forced closing only totals are fed");
    assert_eq!(opened_for(0.0, 1, Some(Override::observe_only())), 30 * SECOND);
    let spread: Vec<_> = (0..50).map(|seed| opened_for(0.2, seed, None)).collect();
    assert!(spread.iter().all(|wait| (30 * SECOND..=36 * SECOND).contains(wait)));
    assert!(spread.windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn the_hint_of_a_probe_that_has_lost_its_lease_is_not_heard() {
    let clock = ManualClock::new();
    let config = Config::builder("hints")
        .open_for(Backoff::exponential(SECOND, 60 * SECOND).jitter(0.0))
        .probes(Probes::new(3).successes(1).lease(SECOND))
        .clock(&clock);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let circuit = layer.circuit().clone();
    let is_answered = &AtomicBool::new(false);
    let service = layer.layer(service_fn(move |is_late: bool| async move {
        poll_fn(|_| match is_late && !is_answered.load(Relaxed) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        let mut answer = Response::builder().status(503);
        if is_late {
            answer = answer.header("retry-after", "30");
        }
        Ok::<_, BoxError>(answer.body(()).unwrap())
    }));
    circuit.trip();
    clock.advance(SECOND);
    let mut late = pin!(service.clone().oneshot(true));
    let mut context = Context::from_waker(Waker::noop());
    assert!(late.as_mut().poll(&mut context).is_pending());
    clock.advance(SECOND);
    is_answered.store(true, Relaxed);
    assert!(late.as_mut().poll(&mut context).is_ready());
    assert_eq!(circuit.state(), State::HalfOpen);
    for _ in 0..2 {
        now(service.clone().oneshot(false)).unwrap();
    }
    assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(2 * SECOND));
}

/// Were it obeyed, the circuit would not have made that call.
#[test]
fn the_hint_of_a_call_that_was_passed_over_is_not_heard() {
    let clock = ManualClock::new();
    let config = Config::builder("hints")
        .open_for(Backoff::exponential(SECOND, 60 * SECOND).jitter(0.0))
        .probes(Probes::new(1))
        .clock(&clock);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let circuit = layer.circuit().clone();
    let service = layer.layer(service_fn(async |hints: bool| {
        let mut answer = Response::builder().status(503);
        if hints {
            answer = answer.header("retry-after", "30");
        }
        Ok::<_, BoxError>(answer.body(()).unwrap())
    }));
    let call = |hints| now(service.clone().oneshot(hints));
    circuit.set_override(Override::observe_only());
    circuit.trip();
    call(true).unwrap();
    assert_eq!(circuit.snapshot().totals.would_reject, 1);
    circuit.clear_override();
    clock.advance(SECOND);
    call(false).unwrap();
    assert_eq!(circuit.snapshot().retry_after, Some(2 * SECOND));
}

/// Also by an opening that is shorter, by the longest wait or by an operator's hand.
#[test]
fn a_hint_is_a_floor_for_as_long_as_it_was_given() {
    for (longest, passed, then) in [(30, 30, 30), (20, 20, 20), (120, 1, 59), (120, 59, 2)] {
        let clock = ManualClock::new();
        let open_for = Backoff::exponential(SECOND, longest * SECOND).jitter(0.0);
        let config = Config::builder("hints").open_for(open_for).probes(Probes::new(1));
        let layer = CircuitBreakerLayer::new(config.clock(&clock).build().unwrap());
        let circuit = layer.circuit().clone();
        let service = layer.layer(service_fn(async |status: u16| {
            let mut answer = Response::builder().status(status);
            if status == 429 {
                answer = answer.header("retry-after", "60");
            }
            Ok::<_, BoxError>(answer.body(()).unwrap())
        }));
        now(service.clone().oneshot(429)).unwrap();
        circuit.trip();
        let waits = || circuit.try_acquire().unwrap_err().retry_after().unwrap();
        assert_eq!(waits(), longest.min(60) * SECOND);
        clock.advance(passed * SECOND);
        if passed < longest {
            circuit.end_wait().unwrap();
        }
        now(service.clone().oneshot(500)).unwrap();
        assert_eq!(waits(), then * SECOND, "{longest}, {passed}");
    }
}

#[test]
fn closing_and_resetting_forget_a_hint() {
    let clock = ManualClock::new();
    let open_for = Backoff::exponential(SECOND, 60 * SECOND).jitter(0.0);
    let config = Config::builder("hints").open_for(open_for).probes(Probes::new(1)).clock(&clock);
    let layer = CircuitBreakerLayer::new(config.build().unwrap());
    let circuit = layer.circuit().clone();
    let service = layer.layer(service_fn(async |is_busy: bool| {
        let answer = Response::builder().status(if is_busy { 429 } else { 200 });
        let answer = if is_busy { answer.header("retry-after", "30") } else { answer };
        Ok::<_, BoxError>(answer.body(()).unwrap())
    }));
    let trip_and_wait = || {
        circuit.trip();
        let wait = circuit.try_acquire().unwrap_err().retry_after().unwrap();
        clock.advance(wait);
        wait
    };
    now(service.clone().oneshot(true)).unwrap();
    circuit.reset();
    assert_eq!(trip_and_wait(), SECOND);

    // A probe that proves nothing, and one that closes.
    now(service.clone().oneshot(true)).unwrap();
    now(service.clone().oneshot(false)).unwrap();
    assert_eq!(circuit.state(), State::Closed);
    assert_eq!(trip_and_wait(), SECOND);
}
