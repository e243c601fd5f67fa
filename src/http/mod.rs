//! HTTP: what a status, a header and a latency say about the dependency.
//!
//! Knows `http`'s types and no client, server or framework.

mod answer;
mod body;
mod classifier;
mod grpc;
mod retry_after;
mod view;

#[cfg(feature = "tonic")]
pub(crate) use self::answer::whole_millis;
pub use self::{
    answer::{grpc_unavailable, handle_error, service_unavailable},
    body::{AtEndOfBody, ResponseBody},
    classifier::{ClassifyHttp, HttpClassifier},
    view::{HttpHead, HttpView},
};
