//! The laws of the last good answer: what is kept, whom it answers, and that
//! nobody waits for it.
//!
//! What the headers say is tested beside the rules, in `src/stale_if_error`.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::{Future, Ready, ready},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    Circuit, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Config, HttpClassifier, ManualClock,
    StaleIfError, StaleIfErrorBody, StaleIfErrorLayer, WhenOpen,
};

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(60);

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What a future that is not waiting for anything comes to.
fn now<F: Future>(future: F) -> F::Output {
    match poll(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// What a scripted body does when it is polled.
#[derive(Clone, Copy, Debug)]
enum Step {
    Data(&'static str),
    Trailers,
    Error,
    Pending,
}

use Step::{Data, Error, Pending, Trailers};

/// A body that follows a script, and announces its length or its end only if
/// told to.
#[derive(Clone, Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    knows_its_end: bool,
    knows_its_length: bool,
}

fn script(steps: &[Step]) -> Script {
    Script { steps: steps.iter().copied().collect(), ..Script::default() }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Data(text)) => Some(Ok(Frame::data(text.into()))),
            Some(Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
            Some(Error) => Some(Err("reset".into())),
            Some(Pending) => return Poll::Pending,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.knows_its_length {
            return SizeHint::default();
        }
        let length = |step: &Step| if let Data(text) = step { text.len() as u64 } else { 0 };
        SizeHint::with_exact(self.steps.iter().map(length).sum())
    }
}

type Reply = Result<Response<Script>, BoxError>;
type Says = Box<dyn Fn(&Request<String>) -> Reply + Send>;

/// An origin that says what it was told to, to any request.
#[derive(Clone)]
struct Origin(Arc<Mutex<Says>>);

impl Origin {
    fn says(&self, reply: impl Fn(&Request<String>) -> Reply + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(reply);
    }

    fn has_status(&self, status: u16) {
        self.says(move |_| Ok(good(status, &[], &[Data("it is "), Data("so")])));
    }

    fn fails(&self) {
        self.says(|_| Err(io::Error::other("reset").into()));
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origin")
    }
}

impl Service<Request<String>> for Origin {
    type Response = Response<Script>;
    type Error = BoxError;
    type Future = Ready<Reply>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        ready(self.0.lock().unwrap()(&request))
    }
}

fn good(status: u16, headers: &[(&'static str, &str)], steps: &[Step]) -> Response<Script> {
    let mut response = Response::new(script(steps));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

/// A layer around a breaker around an origin, on one clock.
struct Rig {
    clock: ManualClock,
    circuit: Circuit,
    origin: Origin,
    service: StaleIfError<CircuitBreaker<Origin, HttpClassifier>>,
}

fn rig() -> Rig {
    rig_with(|layer| layer)
}

fn rig_with(set: impl FnOnce(StaleIfErrorLayer) -> StaleIfErrorLayer) -> Rig {
    let clock = ManualClock::new();
    let circuit = Circuit::new(Config::builder("origin").clock(&clock).build().unwrap());
    let origin = Origin(Arc::new(Mutex::new(Box::new(|_| unreachable!("it was told nothing")))));
    origin.has_status(200);
    let layer = set(StaleIfErrorLayer::new().ttl(TTL).clock(&clock));
    let service = layer.layer(CircuitBreakerLayer::new(&circuit).layer(origin.clone()));
    Rig { clock, circuit, origin, service }
}

const URI: &str = "http://shop.example/tea?size=2";

fn request(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Request<String> {
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
    *request.uri_mut() = uri.parse().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

type Answer = Result<Response<StaleIfErrorBody<Script>>, BoxError>;

impl Rig {
    fn ask(&self, request: Request<String>) -> Answer {
        now(self.service.clone().oneshot(request))
    }

    fn get(&self) -> Answer {
        self.ask(request("GET", URI, &[]))
    }

    /// Gets a page and reads it to its end.
    fn read(&self) -> String {
        text(self.get().unwrap())
    }

    /// What a request gets with the circuit open, which it is not afterwards.
    fn refused(&self, request: Request<String>) -> Answer {
        self.circuit.trip();
        let answer = self.ask(request);
        self.circuit.reset();
        answer
    }

    fn is_kept(&self) -> bool {
        self.refused(request("GET", URI, &[])).is_ok()
    }
}

fn text(response: Response<StaleIfErrorBody<Script>>) -> String {
    let bytes = now(response.into_body().collect()).unwrap().to_bytes();
    String::from_utf8(bytes.into()).unwrap()
}

#[test]
fn a_refused_get_is_answered_with_the_last_good_response() {
    let rig = rig();
    rig.origin.says(|_| {
        let headers = [("etag", "\"7\""), ("age", "5"), ("connection", "close")];
        Ok(good(200, &headers, &[Data("it is "), Data("so")]))
    });
    let first = rig.get().unwrap();
    assert!(!first.headers().contains_key("date"), "what goes to the caller is as it came");
    assert_eq!(first.headers()["connection"], "close");
    assert_eq!(text(first), "it is so");

    rig.clock.advance(10 * SECOND + SECOND / 2);
    for _ in 0..2 {
        let kept = rig.refused(request("GET", URI, &[])).unwrap();
        assert_eq!(
            (kept.status(), &kept.headers()["etag"]),
            (StatusCode::OK, &"\"7\"".parse().unwrap())
        );
        assert_eq!(kept.headers()["age"], "15");
        assert!(kept.headers().contains_key("date"));
        assert!(!kept.headers().contains_key("connection"));
        assert_eq!(kept.body().size_hint().exact(), Some(8));
        assert_eq!(text(kept), "it is so");
    }

    rig.origin.says(|_| Ok(good(200, &[], &[Data("it was")])));
    assert_eq!(rig.read(), "it was");
    assert_eq!(text(rig.refused(request("GET", URI, &[])).unwrap()), "it was", "the last one");
}

/// Wherever the refusal comes from, nobody knows a request before `call`.
#[test]
fn a_refusal_in_poll_ready_waits_for_the_request() {
    let rig = rig();
    rig.read();
    rig.circuit.trip();
    let mut context = Context::from_waker(Waker::noop());
    let mut service = rig.service.clone();
    assert!(matches!(service.poll_ready(&mut context), Poll::Ready(Ok(()))));
    rig.circuit.reset();
    let error = now(service.call(request("GET", "http://shop.example/milk", &[]))).unwrap_err();
    assert!(error.is::<CircuitOpen>(), "a service that was not ready is not called");
    rig.circuit.trip();
    assert!(service.poll_ready(&mut context).is_ready());
    assert!(now(service.call(request("GET", URI, &[]))).is_ok());

    let defer = CircuitBreakerLayer::new(&rig.circuit).when_open(WhenOpen::Defer);
    let layer: StaleIfErrorLayer = StaleIfErrorLayer::new().clock(&rig.clock);
    let service = layer.layer(defer.layer(rig.origin.clone()));
    rig.circuit.reset();
    text(now(service.clone().oneshot(request("GET", URI, &[]))).unwrap());
    rig.circuit.trip();
    assert!(now(service.oneshot(request("GET", URI, &[]))).is_ok());
}

#[test]
fn errors_of_poll_ready_that_are_no_refusal_pass_at_once() {
    #[derive(Clone)]
    struct Broken;
    impl Service<Request<String>> for Broken {
        type Response = Response<Full<Bytes>>;
        type Error = BoxError;
        type Future = Ready<Result<Self::Response, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err("broken".into()))
        }
        fn call(&mut self, _: Request<String>) -> Self::Future {
            unreachable!("it is not ready")
        }
    }
    let layer: StaleIfErrorLayer = StaleIfErrorLayer::new().on_any_error();
    let mut service = layer.layer(Broken);
    let Poll::Ready(Err(error)) = service.poll_ready(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("it is ready")
    };
    assert_eq!(error.to_string(), "broken");
}

#[test]
fn it_answers_its_own_resource_and_no_other_request() {
    let rig = rig();
    rig.read();
    for (method, uri) in [
        ("GET", "http://shop.example/tea?size=3"),
        ("GET", "http://shop.example/tea"),
        ("GET", "http://shop.example:8080/tea?size=2"),
        ("GET", "https://shop.example/tea?size=2"),
        ("GET", "http://other.example/tea?size=2"),
        ("POST", URI),
        ("PUT", URI),
        ("OPTIONS", URI),
    ] {
        let error = rig.refused(request(method, uri, &[])).unwrap_err();
        assert!(error.is::<CircuitOpen>(), "{method} {uri}");
    }
    for header in ["range", "if-match"] {
        assert!(rig.refused(request("GET", URI, &[(header, "x")])).is_err());
    }
    assert!(rig.refused(request("GET", "http://SHOP.example/tea?size=2", &[])).is_ok());
    assert!(rig.is_kept());
}

/// There are services that ask by the body of a GET.
#[test]
fn a_get_with_a_body_has_no_part_in_it() {
    let rig = rig();
    let ask = |body: &str| request("GET", URI, &[]).map(|_| body.to_owned());
    text(rig.ask(ask("tea")).unwrap());
    assert!(!rig.is_kept());
    rig.read();
    assert!(rig.refused(ask("milk")).is_err());
    assert!(rig.is_kept());
}

#[test]
fn a_head_is_answered_without_the_body_and_keeps_nothing() {
    let rig = rig();
    text(rig.ask(request("HEAD", URI, &[])).unwrap());
    assert!(!rig.is_kept());

    rig.origin.says(|_| Ok(good(200, &[("content-length", "4")], &[Data("four")])));
    rig.read();
    let head = rig.refused(request("HEAD", URI, &[])).unwrap();
    assert_eq!(
        (&head.headers()["content-length"], head.status().as_u16()),
        (&"4".parse().unwrap(), 200)
    );
    assert!(head.body().is_end_stream());
    assert_eq!(text(head), "");
}

#[test]
fn its_time_is_that_of_the_response_and_else_the_layers() {
    for (cache_control, good_for) in [
        ("x", TTL),
        ("max-age=30", 30 * SECOND + TTL),
        ("max-age=30, stale-if-error=5", 35 * SECOND),
        ("max-age=30, must-revalidate", 30 * SECOND),
    ] {
        let rig = rig();
        rig.origin.says(move |_| Ok(good(200, &[("cache-control", cache_control)], &[Data("x")])));
        rig.read();
        rig.clock.advance(good_for - Duration::from_nanos(1));
        assert!(rig.is_kept(), "{cache_control}");
        rig.clock.advance(Duration::from_nanos(1));
        assert!(!rig.is_kept(), "{cache_control}");
    }
    let rig = rig();
    rig.origin.says(|_| Ok(good(200, &[("cache-control", "no-store")], &[Data("x")])));
    rig.read();
    assert!(!rig.is_kept());
}

/// Counted from the end of its freshness, like the response's own bound.
#[test]
fn a_request_may_bound_how_stale_it_is() {
    let rig = rig();
    rig.origin.says(|_| Ok(good(200, &[("cache-control", "max-age=30")], &[Data("x")])));
    rig.read();
    for (second, is_answered) in [(29, true), (40, true), (41, false)] {
        let request = request("GET", URI, &[("cache-control", "max-age=0, stale-if-error=10")]);
        rig.clock.advance(second * SECOND);
        assert_eq!(rig.refused(request).is_ok(), is_answered, "{second}");
        rig.read();
    }
}

/// The age counts from the request: a response that took long to come is older
/// than it seems.
#[test]
fn a_response_is_as_old_as_its_request() {
    let rig = rig();
    let slow = rig.get().unwrap();
    rig.clock.advance(TTL - SECOND);
    text(slow);
    assert_eq!(rig.refused(request("GET", URI, &[])).unwrap().headers()["age"], "59");
    rig.clock.advance(SECOND);
    assert!(!rig.is_kept());
}

#[test]
fn errors_and_server_errors_are_answered_if_asked_for() {
    for (errors, server_errors) in [(false, false), (true, false), (false, true)] {
        let rig = rig_with(|mut layer| {
            if errors {
                layer = layer.on_any_error();
            }
            if server_errors {
                layer = layer.on_server_errors();
            }
            layer
        });
        rig.origin.fails();
        assert!(rig.get().unwrap_err().is::<io::Error>(), "there is nothing yet");
        rig.origin.has_status(503);
        assert_eq!(rig.get().unwrap().status(), 503);
        rig.origin.has_status(200);
        rig.read();

        rig.origin.fails();
        assert_eq!(rig.get().is_ok(), errors);
        for status in [500, 502, 503, 504] {
            rig.origin.has_status(status);
            assert_eq!(rig.get().unwrap().status() == StatusCode::OK, server_errors, "{status}");
        }
        for status in [400, 401, 429, 501] {
            rig.origin.has_status(status);
            assert_eq!(rig.get().unwrap().status().as_u16(), status);
        }
        assert!(rig.is_kept(), "errors take nothing away");
    }
}

#[test]
fn the_error_type_stays_what_it_was() {
    let layer = StaleIfErrorLayer::new().on_any_error();
    let sick = |_: Request<String>| ready(Err::<Response<Full<Bytes>>, _>(io::Error::other("no")));
    let error =
        now(layer.layer(service_fn(sick)).oneshot(Request::new(String::new()))).unwrap_err();
    assert_eq!(io::Error::to_string(&error), "no");

    let well =
        |_: Request<String>| ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("yes"))));
    let never = service_fn(well);
    let Ok(_) = now(StaleIfErrorLayer::new().layer(never).oneshot(Request::new(String::new())));
}

mod bodies {
    use super::*;

    #[test]
    fn each_frame_is_passed_on_as_it_comes() {
        let rig = rig();
        rig.origin.says(|_| Ok(good(200, &[], &[Data("one"), Pending, Data("two")])));
        let mut body = rig.get().unwrap().into_body();
        let frame = now(body.frame()).unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "one");
        assert!(poll(body.frame()).is_pending());
        assert!(!rig.is_kept());
        assert_eq!(now(body.frame()).unwrap().unwrap().into_data().unwrap(), "two");
        assert!(!rig.is_kept(), "nobody knows yet that this was all");
        assert!(now(body.frame()).is_none());
        assert!(rig.is_kept());
    }

    #[test]
    fn one_that_breaks_off_is_not_kept() {
        for steps in [&[Data("one"), Error] as &[_], &[Error], &[Data("one"), Trailers]] {
            let rig = rig();
            let script = steps.to_vec();
            rig.origin.says(move |_| Ok(good(200, &[], &script)));
            let mut body = rig.get().unwrap().into_body();
            while let Some(Ok(_)) = now(body.frame()) {}
            drop(body);
            assert!(!rig.is_kept(), "{steps:?}");
        }
    }

    #[test]
    fn one_that_is_dropped_early_is_not_kept() {
        let rig = rig();
        drop(rig.get().unwrap());
        assert!(!rig.is_kept());
        let mut body = rig.get().unwrap().into_body();
        for _ in 0..2 {
            assert!(now(body.frame()).unwrap().is_ok());
        }
        drop(body);
        assert!(!rig.is_kept());
    }

    /// Servers ask no further then, and drop the body.
    #[test]
    fn one_that_is_dropped_where_it_is_known_to_end_is_kept() {
        for (knows_its_end, knows_its_length) in [(true, false), (false, true)] {
            let rig = rig();
            rig.origin.says(move |_| {
                let mut response = good(200, &[], &[Data("one"), Data("two")]);
                response.body_mut().knows_its_end = knows_its_end;
                response.body_mut().knows_its_length = knows_its_length;
                Ok(response)
            });
            let mut body = rig.get().unwrap().into_body();
            assert!(now(body.frame()).unwrap().is_ok());
            assert!(!rig.is_kept());
            assert!(now(body.frame()).unwrap().is_ok());
            drop(body);
            assert_eq!(text(rig.refused(request("GET", URI, &[])).unwrap()), "onetwo");
        }
    }

    #[test]
    fn one_that_fails_after_its_announced_length_is_not_kept() {
        let rig = rig();
        rig.origin.says(|_| {
            let mut response = good(200, &[], &[Data("one"), Error]);
            response.body_mut().knows_its_length = true;
            Ok(response)
        });
        let mut body = rig.get().unwrap().into_body();
        assert!(now(body.frame()).unwrap().is_ok());
        assert!(now(body.frame()).unwrap().is_err());
        drop(body);
        assert!(!rig.is_kept());
    }

    #[test]
    fn an_empty_one_is_kept_unread() {
        let rig = rig();
        rig.origin.says(|_| {
            let mut response = good(200, &[("content-length", "0")], &[]);
            response.body_mut().knows_its_end = true;
            Ok(response)
        });
        drop(rig.get().unwrap());
        assert_eq!(text(rig.refused(request("GET", URI, &[])).unwrap()), "");
    }

    #[test]
    fn one_that_is_not_as_long_as_announced_is_not_kept() {
        for (length, is_kept) in [("5", false), ("6", true), ("7", false)] {
            let rig = rig();
            rig.origin.says(move |_| {
                Ok(good(200, &[("content-length", length)], &[Data("one"), Data("two")]))
            });
            rig.read();
            assert_eq!(rig.is_kept(), is_kept, "{length}");
        }
    }

    /// Announced or not, it comes through whole, and is never held whole.
    #[test]
    fn one_that_is_too_large_is_passed_on_and_not_kept() {
        for (limit, is_kept) in [(5, false), (6, true)] {
            for (header, knows_its_length) in
                [(&[("content-length", "6")] as &[_], false), (&[], true), (&[], false)]
            {
                let rig = rig_with(|layer| layer.max_response_bytes(limit));
                rig.origin.says(move |_| {
                    let mut response = good(200, header, &[Data("one"), Data("two")]);
                    response.body_mut().knows_its_length = knows_its_length;
                    Ok(response)
                });
                assert_eq!(rig.read(), "onetwo");
                assert_eq!(rig.is_kept(), is_kept, "{limit} {header:?} {knows_its_length}");
            }
        }
    }
}

mod variants {
    use super::*;

    fn in_language(language: &str) -> Request<String> {
        request("GET", URI, &[("accept-language", language)])
    }

    #[test]
    fn each_answers_those_it_would_have_been_chosen_for() {
        let rig = rig();
        rig.origin.says(|request| {
            let german = request.headers()["accept-language"] == "de";
            let text = if german { "Tee" } else { "tea" };
            Ok(good(200, &[("vary", "accept-language")], &[Data(text)]))
        });
        for language in ["en", "de"] {
            text(rig.ask(in_language(language)).unwrap());
        }
        for (language, said) in [("en", Some("tea")), ("de", Some("Tee")), ("fr", None)] {
            let answer = rig.refused(in_language(language)).map(text);
            assert_eq!(answer.ok().as_deref(), said, "{language}");
        }
        assert!(!rig.is_kept(), "nor without the header");
    }

    #[test]
    fn what_varies_by_anything_is_not_kept() {
        let rig = rig();
        rig.origin.says(|_| Ok(good(200, &[("vary", "accept, *")], &[Data("x")])));
        rig.read();
        assert!(!rig.is_kept());
    }

    #[test]
    fn the_latest_sixteen_are_kept() {
        let rig = rig();
        rig.origin.says(|_| Ok(good(200, &[("vary", "accept-language")], &[Data("x")])));
        for language in 0..17 {
            text(rig.ask(in_language(&language.to_string())).unwrap());
            rig.clock.advance(SECOND);
        }
        for language in 0..17 {
            let answer = rig.refused(in_language(&language.to_string()));
            assert_eq!(answer.is_ok(), language > 0, "{language}");
        }
    }
}

mod changes {
    use super::*;

    #[test]
    fn an_unsafe_request_that_succeeds_makes_it_forget() {
        for (method, status, forgets) in [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 303, true),
            ("PURGE", 200, true),
            ("POST", 400, false),
            ("POST", 503, false),
            ("OPTIONS", 200, false),
        ] {
            let rig = rig();
            rig.read();
            rig.clock.advance(SECOND);
            rig.origin.has_status(status);
            rig.ask(request(method, "http://shop.example/milk", &[])).unwrap();
            assert!(rig.is_kept(), "another resource");
            rig.ask(request(method, URI, &[])).unwrap();
            assert_eq!(rig.is_kept(), !forgets, "{method} {status}");

            rig.clock.advance(SECOND);
            rig.origin.has_status(200);
            rig.read();
            assert!(rig.is_kept(), "it is not forgotten for ever");
        }
    }

    /// A server sees the scheme with HTTP/2, and does not with HTTP/1.
    #[test]
    fn a_change_is_one_whatever_the_form_of_its_uri() {
        let host = [("host", "shop.example")];
        let rig = rig();
        rig.read();
        assert!(
            rig.refused(request("GET", "/tea?size=2", &host)).is_err(),
            "the scheme may matter"
        );
        rig.clock.advance(SECOND);
        rig.ask(request("POST", "/tea?size=2", &host)).unwrap();
        assert!(!rig.is_kept());
    }

    /// It was read before the change, and would be kept after it.
    #[test]
    fn what_was_asked_before_a_change_is_not_kept_after_it() {
        let rig = rig();
        let early = rig.get().unwrap();
        rig.clock.advance(SECOND);
        rig.ask(request("POST", URI, &[])).unwrap();
        text(early);
        assert!(!rig.is_kept());
    }

    #[test]
    fn a_late_response_does_not_replace_a_later_one() {
        let rig = rig();
        rig.origin.says(|_| Ok(good(200, &[], &[Data("old")])));
        let late = rig.get().unwrap();
        rig.clock.advance(SECOND);
        rig.origin.says(|_| Ok(good(200, &[], &[Data("new")])));
        rig.read();
        assert_eq!(text(late), "old");
        assert_eq!(text(rig.refused(request("GET", URI, &[])).unwrap()), "new");
    }

    /// Whoever asks for the changes alone would let it grow old otherwise.
    #[test]
    fn a_304_makes_it_young_if_it_is_of_the_same_representation() {
        for (tag, news, age) in [
            ("\"7\"", ("x-news", "1"), Some("20")),
            ("\"7\"", ("age", "3"), Some("23")),
            ("\"8\"", ("x-news", "1"), Some("50")),
            ("W/\"7\"", ("x-news", "1"), Some("50")),
            // It was good for as long as it was said to be.
            ("\"7\"", ("cache-control", "no-store"), Some("50")),
        ] {
            let rig = rig();
            rig.origin.says(|_| Ok(good(200, &[("etag", "\"7\"")], &[Data("it is so")])));
            rig.read();
            rig.clock.advance(30 * SECOND);
            rig.origin.says(move |_| Ok(good(304, &[("etag", tag), news], &[])));
            let answer = rig.ask(request("GET", URI, &[("if-none-match", "\"7\"")])).unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
            rig.clock.advance(20 * SECOND);
            let kept = rig.refused(request("GET", URI, &[])).unwrap();
            assert_eq!(
                kept.headers().get("age").map(|age| age.to_str().unwrap()),
                age,
                "{tag} {news:?}"
            );
            assert_eq!(kept.headers().get_all("age").iter().count(), 1);
            assert_eq!(text(kept), "it is so");
        }
    }

    #[test]
    fn what_is_gone_or_elsewhere_is_forgotten() {
        for (status, forgets) in [
            (204, true),
            (301, true),
            (404, true),
            (410, true),
            (206, false),
            (304, false),
            (401, false),
            (403, false),
            (429, false),
            (500, false),
        ] {
            let rig = rig();
            rig.read();
            rig.clock.advance(SECOND);
            rig.origin.has_status(status);
            rig.read();
            assert_eq!(rig.is_kept(), !forgets, "{status}");
        }
    }
}

mod bounds {
    use super::*;

    /// What `Debug` shows of the store.
    fn shown(rig: &Rig, field: &str) -> u64 {
        let text = format!("{:?}", rig.service);
        let (_, rest) = text.split_once(&format!("{field}: ")).unwrap();
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    }

    #[test]
    fn however_many_come_the_bytes_are_bounded() {
        let rig = rig_with(|layer| layer.max_bytes(100_000));
        for page in 0..1_000 {
            let uri = format!("http://shop.example/{page}");
            text(rig.ask(request("GET", &uri, &[])).unwrap());
            rig.ask(request("POST", &format!("http://shop.example/form/{page}"), &[])).unwrap();
            assert!(shown(&rig, " bytes") <= 100_000);
        }
        let uris = shown(&rig, "uris");
        assert!((50..200).contains(&uris), "{uris}");
    }

    /// A client's headers are slices of what it read at once, which would be
    /// kept with them and weighed by nobody.
    #[test]
    fn nothing_is_kept_of_the_buffers_it_came_in() {
        let rig = rig();
        let buffer = Bytes::from(vec![b'x'; 1 << 20]);
        let slice = buffer.slice(..1_000);
        rig.origin.says(move |_| {
            let mut response = good(200, &[], &[Data("it is so")]);
            let value = http::HeaderValue::from_maybe_shared(slice.clone()).unwrap();
            response.headers_mut().insert("x-slice", value);
            Ok(response)
        });
        let within = |response: &Response<StaleIfErrorBody<Script>>| {
            let at = response.headers()["x-slice"].as_bytes().as_ptr();
            buffer.as_ptr_range().contains(&at)
        };
        let live = rig.get().unwrap();
        assert!(within(&live));
        text(live);
        let kept = rig.refused(request("GET", URI, &[])).unwrap();
        assert_eq!(kept.headers()["x-slice"].len(), 1_000);
        assert!(!within(&kept));
    }

    #[test]
    fn variants_of_one_resource_are_bounded_too() {
        let rig = rig_with(|layer| layer.max_bytes(10_000));
        let long: &str = Box::leak("x".repeat(2_000).into());
        rig.origin.says(move |_| Ok(good(200, &[("vary", "cookie")], &[Data(long)])));
        for cookie in 0..20 {
            let cookie = cookie.to_string();
            text(rig.ask(request("GET", URI, &[("cookie", &cookie)])).unwrap());
            assert!(shown(&rig, " bytes") <= 10_000);
            assert!(rig.refused(request("GET", URI, &[("cookie", &cookie)])).is_ok(), "the latest");
        }
    }

    /// Memory for all that is announced would end the process.
    #[test]
    fn an_announced_length_is_not_believed_before_it_has_come() {
        struct Endless;

        impl Body for Endless {
            type Data = Bytes;
            type Error = BoxError;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                Poll::Pending
            }

            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(1 << 62)
            }
        }

        let layer: StaleIfErrorLayer = StaleIfErrorLayer::new().max_response_bytes(usize::MAX);
        let service = layer.layer(service_fn(async |_: Request<String>| {
            Ok::<_, BoxError>(Response::new(Endless))
        }));
        let response = now(service.oneshot(request("GET", URI, &[]))).unwrap();
        assert!(poll(response.into_body().collect()).is_pending());
    }

    #[test]
    fn a_store_without_room_keeps_nothing_and_passes_everything() {
        let rig = rig_with(|layer| layer.max_bytes(0));
        assert_eq!(rig.read(), "it is so");
        assert!(!rig.is_kept());
    }
}

#[test]
fn services_and_clones_of_one_layer_share_what_is_kept() {
    let rig = rig();
    let layer: StaleIfErrorLayer = StaleIfErrorLayer::new();
    let breaker = CircuitBreakerLayer::new(&rig.circuit);
    let services = [&layer, &layer, &layer.clone()]
        .map(|layer| layer.layer(breaker.layer(rig.origin.clone())));
    text(now(services[0].clone().oneshot(request("GET", URI, &[]))).unwrap());
    rig.circuit.trip();
    for service in services {
        assert!(now(service.oneshot(request("GET", URI, &[]))).is_ok());
    }
    let other = layer.ttl(TTL).layer(breaker.layer(rig.origin.clone()));
    assert!(now(other.oneshot(request("GET", URI, &[]))).is_err());
}

#[test]
fn everything_is_send_and_sync_and_shows_itself() {
    fn is<T: Send + Sync + fmt::Debug>(_: &T) {}
    let rig = rig();
    let layer: StaleIfErrorLayer = StaleIfErrorLayer::default();
    is(&layer);
    is(&rig.service.clone().oneshot(request("GET", URI, &[])));
    is(&rig.service);
    let response = rig.get().unwrap();
    is(&response);
    text(response);
    is(&rig.refused(request("GET", URI, &[])).unwrap());
}
