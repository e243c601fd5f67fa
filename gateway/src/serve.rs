//! The data path from its beginning to its end.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use crate::{gateway::Gateway, proxy::Stop};

/// Takes the addresses. Callers are queued from here on.
///
/// # Errors
///
/// An address that can't be listened on.
pub fn bind(gateway: Gateway) -> io::Result<Bound> {
    let listen = gateway.table().settings.server.listen.clone();
    let listeners = listen.into_iter().map(TcpListener::bind).collect::<io::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    Ok(Bound { listeners, addresses })
}

/// A gateway that has its addresses and has not begun.
pub struct Bound {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Bound {
    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Carries requests until it is told to stop.
    pub async fn run(self, mut stop: Stop) -> io::Result<()> {
        stop.told().await;
        drop(self.listeners);
        Ok(())
    }
}
