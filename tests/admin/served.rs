//! A real server that is to shut down while a reader does not read.

use std::{
    future::IntoFuture,
    io::{ErrorKind, Read},
    net::SocketAddr,
    time::Duration,
};

use axum::Router;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Builder,
    sync::oneshot,
    time::timeout,
};
use tower_breaker::{AdminService, Config, Registry};

/// Much less than a snapshot of all circuits, on either side.
const BUFFER: u32 = 16 << 10;

/// As long as it may take: there is nothing to wait for.
const DEADLINE: Duration = Duration::from_millis(20);

/// Lets a test that hangs fail.
const LONG: Duration = Duration::from_secs(30);

async fn begin(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    let mut connection = socket.connect(address).await.unwrap();
    let head = b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n";
    connection.write_all(head).await.unwrap();
    connection
}

#[test]
fn who_does_not_read_holds_a_server_up_until_its_deadline_and_no_longer() {
    let registry = Registry::new();
    for index in 0..3_000 {
        registry.circuit(Config::builder(format!("c-{index}")).build().unwrap()).unwrap();
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let unread = runtime.block_on(async {
        let admin = AdminService::builder(&registry).insecure_no_auth().build().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(BUFFER).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().fallback_service(admin.clone());
        let server = axum::serve(listener, router).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let mut server = tokio::spawn(server.into_future());

        // The stream has begun, and no more of it is read.
        let mut unread = begin(address).await;
        unread.read_exact(&mut [0; 15]).await.unwrap();
        let mut read = begin(address).await;
        read.read_exact(&mut [0; 15]).await.unwrap();

        admin.shutdown();
        stop.send(()).unwrap();
        // Whoever reads comes to the end at once.
        let mut told = Vec::new();
        timeout(LONG, read.read_to_end(&mut told)).await.expect("it goes on").unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("event: end\ndata: {\"reason\":\"shutdown\"}"));
        // Nobody asks the other stream, so it can't end.
        assert!(timeout(DEADLINE, &mut server).await.is_err());
        server.abort();
        unread.into_std().unwrap()
    });
    // What is left goes with the runtime.
    drop(runtime);
    let mut unread = unread;
    unread.set_nonblocking(false).unwrap();
    unread.set_read_timeout(Some(LONG)).unwrap();
    let mut told = Vec::new();
    match unread.read_to_end(&mut told) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is still open"),
    }
    assert!(told.len() < 3_000_000, "{} bytes are all there was: it was read", told.len());
}
