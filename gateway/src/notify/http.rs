//! The client of webhooks.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::failure::Failure;

/// Follows no redirect: a message goes where it was told to go.
#[derive(Clone, Debug)]
pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    pub(super) fn new() -> Result<Self, String> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| error.to_string())?
            .https_or_http()
            .enable_http1()
            .build();
        // Messages are far between, and a connection at rest may be dead.
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self(client))
    }

    pub(super) async fn post(&self, request: Request<Bytes>) -> Result<(), Failure> {
        let mut request = request.map(Full::new);
        let agent = HeaderValue::from_static(concat!("brk/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let response = self.0.request(request).await.map_err(|error| {
            use std::error::Error;

            // The source says what it was; the URL is in neither.
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            Failure::transient(format!("{error}{source}"))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let why = format!("it answered {status}");
        let is_transient = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if status.is_redirection() {
            Err(Failure::permanent(format!("{why}, and redirects are not followed")))
        } else if is_transient {
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let seconds = retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
            Err(Failure::transient(why).after(seconds.map(Duration::from_secs)))
        } else {
            Err(Failure::permanent(why))
        }
    }
}

/// Whether it has all that a request needs.
pub(super) fn is_url(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
}
