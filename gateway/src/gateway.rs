//! The running gateway: services by route, each with its circuit.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use tower_breaker::{Circuit, Registry};

use crate::config::{self, Settings};

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
}

impl Gateway {
    /// Puts a configuration to work.
    pub fn start(_path: &Path, settings: Settings) -> Gateway {
        let services = settings.services.values().map(|service| {
            let circuit = Circuit::new(service.circuit.clone());
            Arc::new(Service { settings: Arc::clone(service), circuit })
        });
        let services = services.collect();
        let table = ArcSwap::from_pointee(Table { settings, services });
        Gateway(Arc::new(Inner { registry: Registry::new(), table }))
    }

    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub fn table(&self) -> Arc<Table> {
        self.0.table.load_full()
    }

    /// The table, if it is not the known one. Asking costs hardly anything: no
    /// counter that threads share is touched.
    pub fn table_if_other(&self, known: &Arc<Table>) -> Option<Arc<Table>> {
        let table = self.0.table.load();
        (!Arc::ptr_eq(&table, known)).then(|| Arc::clone(&table))
    }
}
