//! The callers' stack: a real HTTP client behind timeouts, retries and, on
//! one side, the breaker.

use std::time::Duration;

use http::{Request, Response};
use hyper_util::{
    client::legacy::{Client, Error},
    rt::TokioExecutor,
};
use tokio::time::{Sleep, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, retry::Policy, util::BoxCloneSyncService};
use tower_breaker::{BoxError, CircuitBreakerLayer, CircuitOpen, HttpClassifier};

pub(crate) const TOTAL_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);
pub(crate) const ATTEMPTS: u32 = 3;
const PAUSE_BEFORE_RETRY: Duration = Duration::from_millis(100);

pub(crate) type Stack = BoxCloneSyncService<Request<String>, Response<()>, BoxError>;

/// The order matters. The breaker is inside the retries, so it counts every
/// attempt and ends a retry at once when it opens; and outside the attempt's
/// timeout, so a hang is a failure it sees.
pub(crate) fn stack(breaker: Option<CircuitBreakerLayer<HttpClassifier>>) -> Stack {
    let stack = ServiceBuilder::new()
        .timeout(TOTAL_TIMEOUT)
        .retry(Retries { left: ATTEMPTS - 1 })
        .option_layer(breaker)
        .timeout(ATTEMPT_TIMEOUT)
        .service(http());
    BoxCloneSyncService::new(stack)
}

/// An HTTP client that does not care for bodies.
pub(crate) fn http()
-> impl Service<Request<String>, Response = Response<()>, Error = Error, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    Client::builder(TokioExecutor::new())
        .build_http()
        .map_response(|response: Response<_>| response.map(drop))
}

#[derive(Clone)]
struct Retries {
    left: u32,
}

impl Policy<Request<String>, Response<()>, BoxError> for Retries {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut Request<String>,
        result: &mut Result<Response<()>, BoxError>,
    ) -> Option<Sleep> {
        let failed = match result {
            Ok(response) => response.status().is_server_error(),
            // The breaker has said when to come back; it is later than a retry.
            Err(error) => CircuitOpen::find_in(&**error).is_none(),
        };
        if !failed || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(sleep(PAUSE_BEFORE_RETRY))
    }

    fn clone_request(&mut self, request: &Request<String>) -> Option<Request<String>> {
        Some(request.clone())
    }
}
