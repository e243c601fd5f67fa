//! The running gateway: services by route, each with its circuit.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tower_breaker::{Circuit, Registry};

use crate::{
    config::{self, Settings},
    proxy,
};

/// What all parts share. A clone is a handle to the same gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    registry: Registry,
    table: ArcSwap<Table>,
}

/// One configuration at work. Another takes its place as a whole.
pub struct Table {
    pub settings: Settings,
    /// In the order in which routes are tried: with a host first, then the
    /// longest prefix.
    pub services: Vec<Arc<Service>>,
}

/// A service at work. It is made anew when its settings change, but its
/// circuit stays.
pub struct Service {
    pub settings: Arc<config::Service>,
    pub circuit: Circuit,
    /// What its stacks have in common, on all workers.
    pub shared: proxy::Shared,
}

impl Gateway {
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub fn table(&self) -> Arc<Table> {
        self.0.table.load_full()
    }
}
