//! The data path from its beginning to its end.

use std::{io, net::SocketAddr};

use crate::{
    gateway::Gateway,
    proxy::{Stop, Workers},
};

/// Carries requests until it is told to stop and those in flight have ended.
///
/// # Errors
///
/// An address that can't be listened on, which is told before anything has
/// begun; or a worker that could not go on.
pub async fn serve(gateway: Gateway, stop: Stop) -> io::Result<()> {
    bind(gateway)?.run(stop).await
}

/// Takes the addresses. Callers are queued from here on.
///
/// # Errors
///
/// An address that can't be listened on.
pub fn bind(gateway: Gateway) -> io::Result<Bound> {
    Workers::bind(gateway).map(Bound)
}

/// A gateway that has its addresses and has not begun.
pub struct Bound(Workers);

impl Bound {
    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.0.addresses()
    }

    /// Carries requests until it is told to stop and those in flight have
    /// ended, or the time to drain is over.
    ///
    /// # Errors
    ///
    /// A worker that could not go on.
    pub async fn run(self, stop: Stop) -> io::Result<()> {
        self.0.run(stop).await
    }
}
