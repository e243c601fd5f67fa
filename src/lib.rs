#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod cause;
mod circuit;
mod classify;
mod config_error;
mod defaults;
mod error;
mod fallback;
mod future;
#[cfg(feature = "http")]
mod http;
mod layer;
mod machine;
#[cfg(feature = "metrics")]
mod metrics;
mod outcome;
mod overrides;
mod probes;
mod ratio;
mod rules;
mod service;
mod state;
mod time;
mod totals;
#[cfg(feature = "tracing")]
mod tracing;
mod window;

#[cfg(feature = "test-util")]
pub use crate::circuit::ManualClock;
#[cfg(feature = "http")]
pub use crate::http::{ClassifyHttp, HttpClassifier, HttpHead, HttpView};
pub use crate::{
    backoff::Backoff,
    cause::Cause,
    circuit::{
        Call, Circuit, CircuitOpen, Clock, Config, ConfigBuilder, Observer, Permit, Snapshot,
        Transition, WindowSnapshot,
    },
    classify::{Classify, ClassifyFn, ResultClassifier},
    config_error::ConfigError,
    error::BoxError,
    fallback::{
        Answer, AnswerFuture, AsBox, AsError, Fallback, FallbackWith, KeptError, OnOpen,
        OuterError, Reject,
    },
    future::ResponseFuture,
    layer::CircuitBreakerLayer,
    machine::Progress,
    outcome::{CallEnd, Outcome},
    overrides::{Override, OverrideKind},
    probes::Probes,
    rules::Cancellation,
    service::{CircuitBreaker, WhenOpen},
    state::State,
    totals::Totals,
    window::Window,
};
