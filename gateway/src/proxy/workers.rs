//! All workers, each on its thread.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

use super::{
    Stop,
    hygiene::Via,
    listen::listen,
    worker::{self, Start},
};
use crate::gateway::Gateway;

/// Workers that have their sockets and have not begun.
pub struct Workers {
    gateway: Gateway,
    addresses: Vec<SocketAddr>,
    /// A row for each worker, with a socket for each address.
    listeners: Vec<Vec<TcpListener>>,
}

impl Workers {
    pub(crate) fn bind(gateway: Gateway) -> io::Result<Workers> {
        let table = gateway.table();
        let server = &table.settings.server;
        let workers = server.workers.max(1);
        let mut addresses = Vec::new();
        let mut listeners: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for address in &server.listen {
            let sockets = listen(*address, workers)?;
            addresses.push(sockets[0].local_addr()?);
            listeners.iter_mut().zip(sockets).for_each(|(row, socket)| row.push(socket));
        }
        Ok(Workers { gateway, addresses, listeners })
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) async fn run(self, mut stop: Stop) -> io::Result<()> {
        let Workers { gateway, listeners, .. } = self;
        let most = gateway.table().settings.server.max_connections;
        let connections = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        let via = Via::new(format!("brk-{:012x}", RandomState::new().hash_one(0) >> 16));
        // Told by the caller, by a worker that could not go on, or by the drop
        // of this future.
        let (stopper, told) = Stop::new();
        let mut workers = JoinSet::new();
        for (number, listeners) in listeners.into_iter().enumerate() {
            let start = Start {
                gateway: gateway.clone(),
                listeners,
                connections: Arc::clone(&connections),
                via: via.clone(),
                stop: told.clone(),
            };
            let (end, ended) = oneshot::channel();
            thread::Builder::new().name(format!("brk-{number}")).spawn(move || {
                // Nobody hears it if the whole has been dropped.
                let _ = end.send(worker::run(start));
            })?;
            workers.spawn(ended);
        }
        let mut result = Ok(());
        let mut is_stopping = false;
        loop {
            let ended = tokio::select! {
                ended = workers.join_next() => ended,
                () = stop.told(), if !is_stopping => {
                    is_stopping = true;
                    stopper.stop();
                    continue;
                }
            };
            match ended {
                None => return result,
                Some(Ok(Ok(Ok(())))) => {}
                Some(Ok(Ok(Err(error)))) => result = result.and(Err(error)),
                Some(_) => result = result.and(Err(io::Error::other("a worker has panicked"))),
            }
            stopper.stop();
        }
    }
}
