//! HTTP: what a status, a header and a latency say about the dependency.
//!
//! Knows `http`'s types and no client, server or framework.

mod classifier;
mod grpc;
mod view;

pub use self::{
    classifier::{ClassifyHttp, HttpClassifier},
    view::{HttpHead, HttpView},
};
