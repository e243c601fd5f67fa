//! The sockets on which callers are listened for.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Callers that wait to be taken, for each socket. The system may allow fewer.
const QUEUE: i32 = 1024;

/// A socket for each worker on one address, among which the system divides the
/// callers. With port 0 it chooses one, the same for all.
///
/// # Errors
///
/// The system's, with the address in it.
pub(super) fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("listen on {address}: {error}"));
    // Sockets that share an address would share it with another gateway's, too.
    let alone = socket(address, Sharing::Refused).map_err(named)?;
    drop(alone);
    let first = listening(address).map_err(named)?;
    let chosen = first.local_addr().map_err(named)?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(listening(chosen).map_err(named)?);
    }
    Ok(listeners)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Allowed,
    Refused,
}

fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Sharing::Allowed)?;
    socket.listen(QUEUE)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(sharing == Sharing::Allowed)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
