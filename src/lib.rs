#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Here and not among the lints of the package, where it would bind its tests
// too, and a test may bring an allocator that counts.
#![forbid(unsafe_code)]

#[cfg(feature = "admin")]
mod admin;
mod backoff;
mod cause;
mod circuit;
mod classify;
mod config_change;
mod config_error;
mod defaults;
pub mod docs;
mod ending;
mod error;
mod fallback;
mod future;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "keyed")]
mod keyed;
mod layer;
mod lint;
mod machine;
#[cfg(feature = "metrics")]
mod metrics;
mod outcome;
mod overrides;
mod panics;
mod probes;
mod ratio;
#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "shadow")]
mod replay;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
#[cfg(feature = "retry")]
mod retry;
mod rules;
mod sealed;
#[cfg(feature = "serde")]
mod serde;
mod service;
#[cfg(feature = "stale-if-error")]
mod stale_if_error;
mod start;
mod state;
#[cfg(feature = "shadow")]
mod tape;
mod throttle;
mod time;
#[cfg(feature = "tonic")]
mod tonic;
mod totals;
#[cfg(feature = "tracing")]
mod tracing;
mod window;

#[cfg(feature = "admin")]
pub use crate::admin::{
    AdminAccess, AdminBody, AdminBuilder, AdminFuture, AdminIdentity, AdminRefusal, AdminRequest,
    AdminService,
};
#[cfg(feature = "health-check")]
pub use crate::circuit::HealthCheck;
#[cfg(feature = "test-util")]
pub use crate::circuit::ManualClock;
#[doc(hidden)]
pub use crate::circuit::Reading;
#[cfg(feature = "http")]
pub use crate::http::{
    AtEndOfBody, ClassifyHttp, HttpClassifier, HttpHead, HttpView, ResponseBody, grpc_unavailable,
    handle_error, service_unavailable,
};
#[cfg(feature = "keyed")]
pub use crate::keyed::{
    Beyond, Key, KeyFn, KeyOf, KeyedCircuitBreaker, KeyedCircuitBreakerLayer, KeyedCircuits,
    KeyedCircuitsBuilder, KeyedSnapshot, Quorum,
};
#[cfg(all(feature = "keyed", feature = "http"))]
pub use crate::keyed::{ByHeader, ByHost, ByRoute};
#[cfg(feature = "registry")]
pub use crate::registry::{
    Command, DuplicateName, Event, EventKind, History, Lagged, Latency, Rates, Registry,
    RegistryBuilder, Series, Step, Subscription, Vitals,
};
#[cfg(feature = "reqwest-middleware")]
pub use crate::reqwest_middleware::{NextFuture, NextService, TowerMiddleware};
#[cfg(feature = "retry")]
pub use crate::retry::{RetryBudget, RetryFuture, RetryPolicy};
#[cfg(feature = "stale-if-error")]
pub use crate::stale_if_error::{
    StaleIfError, StaleIfErrorBody, StaleIfErrorFuture, StaleIfErrorLayer,
};
#[cfg(feature = "tonic")]
pub use crate::tonic::grpc_status;
pub use crate::{
    backoff::Backoff,
    cause::Cause,
    circuit::{
        Call, Circuit, CircuitOpen, Clock, Config, ConfigBuilder, IfRevision, Observer, Permit,
        Reconfigured, Saved, Snapshot, SteerError, Transition, WindowSnapshot,
    },
    classify::{Classify, ClassifyFn, ResultClassifier},
    config_change::ConfigChange,
    config_error::ConfigError,
    ending::{AtHead, Ending},
    error::BoxError,
    fallback::{
        Answer, AnswerFuture, AsBox, AsError, Fallback, FallbackOnFailure, FallbackOnFailureWith,
        FallbackService, FallbackServiceFuture, FallbackWith, Kept, KeptError, OnFailure, OnOpen,
        OuterError, Reject, SpareRequest, Why,
    },
    future::ResponseFuture,
    layer::CircuitBreakerLayer,
    lint::{Lint, LintCode, Traffic},
    machine::Progress,
    outcome::{CallEnd, FallbackEnd, Outcome},
    overrides::{Override, OverrideKind},
    probes::Probes,
    rules::Cancellation,
    service::{CircuitBreaker, WhenOpen},
    start::Start,
    state::State,
    throttle::Throttle,
    totals::Totals,
    window::Window,
};
#[cfg(feature = "shadow")]
pub use crate::{
    circuit::{Outcomes, Recorder, Shadow, ShadowSnapshot, Unknown},
    replay::{Replayed, Report},
    tape::{RecordedChange, Recording, RecordingError},
};
