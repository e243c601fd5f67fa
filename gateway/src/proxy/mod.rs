//! The data path: from a caller's connection to an upstream's, and back.
//!
//! `listen` and `worker` take connections, `hygiene` turns away what no proxy
//! may pass on, `route` finds the service, `stack` puts the circuit around the
//! call, and `forward` makes it through `upstream`'s pool.

mod activity;
mod answer;
mod attempt;
mod body;
mod forward;
mod framing;
mod hygiene;
mod io;
mod listen;
mod now;
mod open;
mod paced;
mod problem;
mod retry;
mod route;
mod stack;
pub mod stop;
mod upgrade;
mod upstream;
mod worker;
mod workers;

pub(crate) use self::workers::Workers;
pub use self::{
    answer::{Abort, BREAKER_ANSWER, BREAKER_NAME, BREAKER_REASON, BREAKER_STATE},
    body::{Body, BoxError},
    problem::problem,
    retry::LONGEST_BODY,
    stack::{Forward, Shared, Stack, StackFuture, stack, stack_with_fallback},
    stop::{Stop, Stopper},
};

use std::fmt;

/// Why an upstream gave no response, or not the whole of one.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpstreamError {
    /// No connection came about.
    Connect(BoxError),
    /// The upstream's name has no address.
    Dns(BoxError),
    /// The connection could not be made secret, or not with the right one.
    Tls(BoxError),
    /// It took too long.
    Timeout {
        /// What took too long.
        which: Timeout,
    },
    /// The connection ended in the middle.
    Reset(BoxError),
    /// What came is not HTTP, or not as HTTP has it.
    BadResponse(BoxError),
    /// The caller went away, or sent a body that is none: this says nothing
    /// about the upstream.
    ClientGone(BoxError),
    /// With the front that the upstream's URL gives it, the request's path is
    /// longer than one can be. It was not sent.
    PathTooLong,
}

/// What an upstream can be too slow in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Connecting, the name's lookup and TLS included.
    Connect,
    /// The response's head, from the request's forwarding or, with a long
    /// body, from the last piece of it that the upstream took.
    Head,
    /// The next piece of the response's body.
    BodyIdle,
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamError::Connect(error) => write!(formatter, "no connection: {error}"),
            UpstreamError::Dns(error) => write!(formatter, "no address for the name: {error}"),
            UpstreamError::Tls(error) => write!(formatter, "TLS failed: {error}"),
            UpstreamError::Timeout { which } => match which {
                Timeout::Connect => write!(formatter, "no connection in time"),
                Timeout::Head => write!(formatter, "no response in time"),
                Timeout::BodyIdle => write!(formatter, "the response's body stalled"),
            },
            UpstreamError::Reset(error) => write!(formatter, "the connection ended early: {error}"),
            UpstreamError::BadResponse(error) => write!(formatter, "no valid response: {error}"),
            UpstreamError::ClientGone(error) => write!(formatter, "the caller failed: {error}"),
            UpstreamError::PathTooLong => write!(formatter, "the request's path is too long"),
        }
    }
}

impl std::error::Error for UpstreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UpstreamError::Connect(error)
            | UpstreamError::Dns(error)
            | UpstreamError::Tls(error)
            | UpstreamError::Reset(error)
            | UpstreamError::BadResponse(error)
            | UpstreamError::ClientGone(error) => Some(&**error),
            UpstreamError::Timeout { .. } | UpstreamError::PathTooLong => None,
        }
    }
}
