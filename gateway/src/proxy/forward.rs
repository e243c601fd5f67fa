//! One request, made of one upstream.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version, header,
    request::Parts,
    uri::{self, PathAndQuery},
};
use http_body::Body as _;
use hyper::body::Incoming;
use tower_service::Service;

use super::{
    Body, UpstreamError, hygiene,
    upgrade::Upgrade,
    upstream::{Connection, Pool, Target, Wants},
};
use crate::config;

/// The innermost service: takes a connection, sends the request, and returns
/// the response as soon as its head is there. It waits for as long as that
/// takes: the attempt's time is the stack's.
#[derive(Clone)]
pub struct Forward {
    pool: Pool,
    settings: Arc<config::Service>,
}

impl Forward {
    pub(super) fn new(pool: Pool, settings: Arc<config::Service>) -> Forward {
        Forward { pool, settings }
    }
}

impl Service<Request<Body>> for Forward {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Forward { pool, settings } = self.clone();
        Box::pin(async move { forward(&pool, &settings, request).await })
    }
}

/// A connection that rested for less is hardly being closed just now.
const RACY_REST: Duration = Duration::from_millis(500);

async fn forward(
    pool: &Pool,
    settings: &config::Service,
    request: Request<Body>,
) -> Result<Response<Body>, UpstreamError> {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<Upgrade>();
    aim(&mut parts, settings, pool.target())?;
    // Its form depends on the connection, and there may be several.
    let host = parts.headers.get(header::HOST).filter(|_| pool.settings().preserve_host).cloned();

    // One that is spoken to in HTTP/2 only, to fall back on, gives no upgrade.
    let is_http2 = pool.settings().protocol == config::Protocol::Http2;
    let wants = if upgrade.is_some() && !is_http2 { Wants::Http1 } else { Wants::Any };
    let mut connection = match pool.kept(wants) {
        Some(connection) => connection,
        None => pool.fresh(wants, settings.timeouts.connect).await?,
    };
    let mut request = Request::from_parts(parts, body);
    loop {
        let again = again(&request, &connection);
        connection.prepare(&mut request, pool.target(), host.as_ref(), upgrade.as_ref());
        match connection.send(request).await {
            Ok((response, connection)) => {
                return receive(pool, settings, response, connection, upgrade);
            }
            // The connection was closed while it rested, and nobody has seen
            // the request.
            Err(Unsent { request: Some(unsent), .. }) if again.is_reused => request = unsent,
            // It may have been: once more only if that does no harm.
            Err(Unsent { error, request: None }) if again.copy.is_some() && is_closed(&error) => {
                request = *again.copy.unwrap_or_default();
            }
            Err(Unsent { error, .. }) => return Err(failure(error)),
        }
        connection = pool.fresh(wants, settings.timeouts.connect).await?;
    }
}

/// What is needed to send a request a second time.
struct Again {
    is_reused: bool,
    copy: Option<Box<Request<Body>>>,
}

fn again(request: &Request<Body>, connection: &Connection) -> Again {
    let rested = match connection {
        Connection::Http1 { rested, .. } => *rested,
        Connection::Http2 { .. } => Some(Duration::ZERO),
    };
    let copies = rested.is_some_and(|rested| rested >= RACY_REST)
        && request.method().is_idempotent()
        && request.body().is_end_stream();
    let copy = copies.then(|| {
        let mut copy = Request::new(Body::empty());
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        copy.headers_mut().clone_from(request.headers());
        Box::new(copy)
    });
    Again { is_reused: rested.is_some(), copy }
}

fn is_closed(error: &hyper::Error) -> bool {
    error.is_closed() || error.is_canceled() || error.is_incomplete_message() || {
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        source.is_some_and(|source| {
            use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
            matches!(source.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
        })
    }
}

/// Scheme, authority and the front of the path come from the configuration.
fn aim(
    parts: &mut Parts,
    settings: &config::Service,
    target: &Target,
) -> Result<(), UpstreamError> {
    let route = &settings.route;
    let strips = route.strip_prefix && route.prefix != "/";
    if !strips && target.base.is_empty() {
        return Ok(());
    }
    let path = parts.uri.path();
    let rest = if strips { path.strip_prefix(&*route.prefix).unwrap_or(path) } else { path };
    let mut whole = String::with_capacity(target.base.len() + path.len() + 16);
    whole.push_str(&target.base);
    if rest.is_empty() {
        if whole.is_empty() || path.ends_with('/') {
            whole.push('/');
        }
    } else {
        whole.push_str(rest);
    }
    if let Some(query) = parts.uri.query() {
        whole.push('?');
        whole.push_str(query);
    }
    // The path alone was one, so all that can be wrong is its length.
    let whole = PathAndQuery::try_from(whole).map_err(|_| UpstreamError::PathTooLong)?;
    parts.uri = Uri::from(whole);
    Ok(())
}

struct Unsent {
    error: hyper::Error,
    request: Option<Request<Body>>,
}

impl Connection {
    /// Gives the request the form that its protocol has, whatever it had before.
    /// It is for this host, or for the target's own.
    fn prepare(
        &self,
        request: &mut Request<Body>,
        target: &Target,
        host: Option<&HeaderValue>,
        upgrade: Option<&Upgrade>,
    ) {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or(PathAndQuery::from_static("/"));
        match self {
            Connection::Http1 { .. } => {
                *request.version_mut() = Version::HTTP_11;
                if request.uri().authority().is_some() {
                    *request.uri_mut() = Uri::from(path);
                }
                let has_length = request.body().size_hint().exact().is_some();
                let headers = request.headers_mut();
                // Or a GET's body would be left out.
                if !has_length && !headers.contains_key(header::CONTENT_LENGTH) {
                    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                headers.insert(header::HOST, host.unwrap_or(&target.host).clone());
                if let Some(upgrade) = upgrade {
                    headers.insert(header::UPGRADE, upgrade.protocol.clone());
                    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                } else if headers.contains_key(header::TE) {
                    headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
                }
            }
            Connection::Http2 { .. } => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(header::HOST);
                request.headers_mut().remove(header::CONNECTION);
                request.headers_mut().remove(header::TRANSFER_ENCODING);
                let kept = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
                let authority = kept.unwrap_or_else(|| target.authority.clone());
                let mut whole = uri::Parts::default();
                whole.scheme = Some(target.scheme.clone());
                whole.authority = Some(authority);
                whole.path_and_query = Some(path);
                if let Ok(whole) = Uri::from_parts(whole) {
                    *request.uri_mut() = whole;
                }
            }
        }
    }

    async fn send(mut self, request: Request<Body>) -> Result<(Response<Incoming>, Self), Unsent> {
        let sent = match &mut self {
            Connection::Http1 { sender, .. } => sender.try_send_request(request).await,
            Connection::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        match sent {
            Ok(response) => Ok((response, self)),
            Err(mut unsent) => {
                let request = unsent.take_message();
                Err(Unsent { error: unsent.into_error(), request })
            }
        }
    }
}

fn receive(
    pool: &Pool,
    settings: &config::Service,
    mut response: Response<Incoming>,
    connection: Connection,
    upgrade: Option<Upgrade>,
) -> Result<Response<Body>, UpstreamError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(upgrade) = upgrade else {
            let error = "it switches protocols, which nobody asked for";
            return Err(UpstreamError::BadResponse(error.into()));
        };
        let protocol = response.headers_mut().remove(header::UPGRADE);
        hygiene::strip_hop_by_hop(response.headers_mut());
        let protocol = protocol.unwrap_or_else(|| upgrade.protocol.clone());
        response.headers_mut().insert(header::UPGRADE, protocol);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        upgrade.grant(&mut response);
        return Ok(response.map(|_| Body::empty()));
    }
    hygiene::strip_hop_by_hop(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    let lease = pool.lease(connection);
    let idle = settings.timeouts.body_idle;
    Ok(response.map(|incoming| Body::response(incoming, idle, lease)))
}

fn failure(error: hyper::Error) -> UpstreamError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(UpstreamError::ClientGone(_)) = cause.downcast_ref() {
            return UpstreamError::ClientGone(error.into());
        }
        source = cause.source();
    }
    if error.is_user() {
        UpstreamError::ClientGone(error.into())
    } else if error.is_parse() {
        UpstreamError::BadResponse(error.into())
    } else {
        UpstreamError::Reset(error.into())
    }
}
