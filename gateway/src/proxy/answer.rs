//! What a caller gets in the end: the upstream's response, an answer of the
//! gateway's own, or none.
//!
//! Responses say which circuit decided: `x-breaker-name`, and `x-breaker-state`
//! as the state was at the time, by the rules: an override that lets calls pass
//! does not change it. An answer that is not the service's own
//! upstream's has `x-breaker-reason` as well, and `x-breaker-answer` says whose
//! it is: `refused`, `fallback`, `stale` or `error`. An upstream that sends such
//! headers itself is not believed.

use std::fmt;

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header::CONTENT_TYPE,
};
use tower_breaker::{Circuit, CircuitOpen, OverrideKind, State};

use super::{Body, BoxError, UpstreamError, attempt::OutOfTime, open::Refusal, problem::problem};
use crate::gateway;

pub const BREAKER_NAME: HeaderName = HeaderName::from_static("x-breaker-name");
pub const BREAKER_STATE: HeaderName = HeaderName::from_static("x-breaker-state");
pub const BREAKER_ANSWER: HeaderName = HeaderName::from_static("x-breaker-answer");
pub const BREAKER_REASON: HeaderName = HeaderName::from_static("x-breaker-reason");

/// The connection is to be closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort;

impl fmt::Display for Abort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("closed without an answer")
    }
}

impl std::error::Error for Abort {}

/// Where a response comes from, if that is not plain; travels with it.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Upstream,
    /// The upstream that is fallen back on, because of this.
    Fallback(CircuitOpen),
    /// An earlier response.
    Kept,
}

/// Turns what a call came to into what the caller gets.
#[derive(Clone)]
pub(super) struct Answers {
    circuit: Circuit,
    name: HeaderValue,
    is_shown: bool,
    /// None: the connection is closed.
    refusal: Option<Refusal>,
}

impl Answers {
    pub(super) fn new(service: &gateway::Service) -> Self {
        let name = &service.settings.name;
        Self {
            circuit: service.circuit.clone(),
            // Names are letters, digits, dots, dashes and underscores.
            name: HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("?")),
            is_shown: service.settings.protect,
            refusal: Refusal::of(&service.settings.when_open),
        }
    }

    pub(super) fn show_headers(&mut self, shown: bool) {
        self.is_shown &= shown;
    }

    pub(super) fn finish(
        &self,
        result: Result<Response<Body>, BoxError>,
        is_grpc: bool,
    ) -> Result<Response<Body>, Abort> {
        let error = match result {
            Ok(response) => return Ok(self.passed_on(response)),
            Err(error) => error,
        };
        if let Some(open) = CircuitOpen::find_in(&*error) {
            return self.refused(open, is_grpc);
        }
        let Some(failure) = Failure::of(&error) else { return Err(Abort) };
        tracing::debug!(service = ?self.name, %error, "no response");
        let mut response = if is_grpc { failure.grpc() } else { failure.problem() };
        self.sign(&mut response, self.circuit.state(), Some(("error", failure.kind)));
        Ok(response)
    }

    fn passed_on(&self, mut response: Response<Body>) -> Response<Body> {
        strip(response.headers_mut());
        match response.extensions_mut().remove::<Source>() {
            None | Some(Source::Upstream) => {
                self.sign(&mut response, self.circuit.state(), None);
            }
            Some(Source::Fallback(open)) => {
                let (reason, _) = self.reason(open.state());
                self.sign(&mut response, open.state(), Some(("fallback", reason)));
            }
            Some(Source::Kept) => {
                let state = self.state_towards_callers();
                let (reason, _) = self.reason(state);
                self.sign(&mut response, state, Some(("stale", reason)));
            }
        }
        response
    }

    fn refused(&self, open: &CircuitOpen, is_grpc: bool) -> Result<Response<Body>, Abort> {
        let Some(refusal) = &self.refusal else { return Err(Abort) };
        let (reason, cause) = self.reason(open.state());
        let mut response = match is_grpc && refusal.is_plain() {
            true => tower_breaker::grpc_unavailable(open.clone()),
            false => refusal.answer(open, cause),
        };
        self.sign(&mut response, open.state(), Some(("refused", reason)));
        Ok(response)
    }

    /// Says who decided.
    fn sign(
        &self,
        response: &mut Response<Body>,
        state: State,
        own: Option<(&'static str, &'static str)>,
    ) {
        if !self.is_shown {
            return;
        }
        let headers = response.headers_mut();
        headers.insert(BREAKER_NAME, self.name.clone());
        headers.insert(BREAKER_STATE, HeaderValue::from_static(state.as_str()));
        if let Some((answer, reason)) = own {
            headers.insert(BREAKER_ANSWER, HeaderValue::from_static(answer));
            headers.insert(BREAKER_REASON, HeaderValue::from_static(reason));
        }
    }

    /// Why calls are refused in this state, in a word and in a sentence.
    fn reason(&self, state: State) -> (&'static str, Option<String>) {
        let seen = self.circuit.snapshot();
        if let Some(over) = seen.active_override.filter(|over| over.kind == OverrideKind::ForceOpen)
        {
            let reason = over.reason.map(|reason| format!("held open: {reason}"));
            return ("force-open", Some(reason.unwrap_or_else(|| "held open".to_owned())));
        }
        let cause = seen.cause.as_ref().map(ToString::to_string);
        match state {
            State::Closed => ("throttled", cause),
            State::HalfOpen => ("half-open", cause),
            State::Open => (seen.cause.map_or("open", |cause| cause.label()), cause),
        }
    }

    fn state_towards_callers(&self) -> State {
        let seen = self.circuit.snapshot();
        match seen.active_override {
            Some(over) if over.kind == OverrideKind::ForceOpen => State::Open,
            _ => seen.state,
        }
    }
}

/// Only this gateway says what its circuits are.
fn strip(headers: &mut HeaderMap) {
    for name in [BREAKER_NAME, BREAKER_STATE, BREAKER_ANSWER, BREAKER_REASON] {
        headers.remove(name);
    }
}

/// Why there is no response.
struct Failure {
    status: StatusCode,
    kind: &'static str,
    detail: &'static str,
    /// Of gRPC.
    code: &'static str,
}

impl Failure {
    const fn bad_gateway(kind: &'static str, detail: &'static str) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, kind, detail, code: "14" }
    }

    const fn timeout(kind: &'static str, detail: &'static str) -> Self {
        Self { status: StatusCode::GATEWAY_TIMEOUT, kind, detail, code: "4" }
    }

    /// None if there is nobody to tell. What exactly went wrong is for the log:
    /// callers need not learn of addresses.
    fn of(error: &BoxError) -> Option<Self> {
        if error.is::<OutOfTime>() {
            return Some(Self::timeout("out-of-time", "the request's time was over"));
        }
        Some(match error.downcast_ref() {
            Some(UpstreamError::ClientGone(_)) => return None,
            Some(UpstreamError::Connect(_) | UpstreamError::Dns(_) | UpstreamError::Tls(_)) => {
                Self::bad_gateway("upstream-unreachable", "no connection")
            }
            Some(UpstreamError::Reset(_)) => {
                Self::bad_gateway("upstream-reset", "the connection ended before the response")
            }
            Some(UpstreamError::BadResponse(_)) => {
                Self::bad_gateway("upstream-bad-response", "what came is not HTTP")
            }
            Some(UpstreamError::Timeout { .. }) => {
                Self::timeout("upstream-timeout", "it took too long")
            }
            Some(UpstreamError::PathTooLong) => Self {
                status: StatusCode::URI_TOO_LONG,
                kind: "path-too-long",
                detail: "the path is too long behind that of the upstream's URL",
                code: "3",
            },
            None => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                kind: "internal",
                detail: "the gateway itself failed",
                code: "13",
            },
        })
    }

    fn problem(&self) -> Response<Body> {
        problem(self.status, self.kind, "No response from the upstream", self.detail)
    }

    /// A response that is all head.
    fn grpc(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.version_mut() = Version::HTTP_2;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(self.code));
        headers.insert("grpc-message", HeaderValue::from_static(self.detail));
        response
    }
}
