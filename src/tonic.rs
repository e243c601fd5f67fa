//! tonic clients: a refusal as a `Status` (feature `tonic`).

use std::sync::Arc;

use tonic::Status;

use crate::{BoxError, CircuitOpen, http::whole_millis};

/// Turns an error of a stack around a tonic `Channel` into a `Status`.
///
/// tonic takes an error it does not know for `UNKNOWN`. An open circuit is
/// `UNAVAILABLE`, with `grpc-retry-pushback-ms`, and [`CircuitOpen`] in its
/// chain of sources; everything else becomes what tonic makes of it. Put it
/// outermost:
///
/// ```
/// use tower::{BoxError, ServiceBuilder, ServiceExt};
/// use tower_breaker::{CircuitBreakerLayer, CircuitOpen, Config, WhenOpen, grpc_status};
///
/// # let channel = tower::service_fn(async |_: http::Request<()>| Ok::<_, BoxError>(http::Response::new(())));
/// let breaker = CircuitBreakerLayer::new(Config::default()).when_open(WhenOpen::Defer);
/// # breaker.circuit().trip();
/// let client = ServiceBuilder::new().map_err(grpc_status).layer(breaker).service(channel);
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let status = runtime.block_on(client.oneshot(http::Request::new(()))).unwrap_err();
/// # assert_eq!(status.code(), tonic::Code::Unavailable);
/// # assert!(CircuitOpen::find_in(&status).is_some());
/// ```
pub fn grpc_status(error: BoxError) -> Status {
    let Some(open) = CircuitOpen::find_in(&*error).cloned() else {
        return Status::from_error(error);
    };
    let mut status = Status::unavailable(open.to_string());
    if let Some(wait) = open.retry_after() {
        status.metadata_mut().insert("grpc-retry-pushback-ms", whole_millis(wait).into());
    }
    status.set_source(Arc::new(open));
    status
}
