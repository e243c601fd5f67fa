//! The operator's listener: so many connections at once, none of which can hold
//! it up.

use std::{convert::Infallible, io, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tower_breaker::AdminService;
use tower_service::Service;

use crate::proxy::Stop;

/// Connections at once. A page has a stream and a few more; a scraper has one.
const CONNECTIONS: usize = 256;

/// How long a head may take to come, and how long a connection may be at rest.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long a write may wait for a reader who does not read.
const UNREAD_FOR: Duration = Duration::from_secs(30);

/// How long connections may run on once the listener is to stop: a stream that
/// is read ends at once, one that nobody reads never would.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until it is told to stop. Within a second of that it has.
pub async fn serve(listener: TcpListener, admin: AdminService, mut stop: Stop) {
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = std::sync::Arc::clone(&places).acquire_owned();
        let accepted = async {
            let place = place.await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.told() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((connection, _)) => {
                let answered = answer(connection, admin.clone(), stop.clone());
                connections.spawn(async move {
                    answered.await;
                    drop(place);
                });
            }
            Err(error) if is_of_one(&error) => {}
            // No more files, as a rule: what is open must end first.
            Err(error) => {
                tracing::warn!(%error, "the operator's listener can't accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    admin.shutdown();
    let all = async { while connections.join_next().await.is_some() {} };
    // What is left is aborted with the set.
    let _ = timeout(GRACE, all).await;
}

/// Whether an error is that of one connection which was gone before it was
/// accepted.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn answer(connection: TcpStream, admin: AdminService, mut stop: Stop) {
    let _ = connection.set_nodelay(true);
    let mut connection = TimeoutStream::new(connection);
    connection.set_write_timeout(Some(UNREAD_FOR));
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = admin.clone().call(request);
        async { Ok::<_, Infallible>(answered.await.unwrap_or_else(|never| match never {})) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(Box::pin(connection)), service);
    tokio::pin!(served);
    tokio::select! {
        // What goes wrong with a connection is its client's affair.
        _ = &mut served => return,
        () = stop.told() => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}
