//! The running gateway: services by route, each with its circuit.
//!
//! `state` is what outlives the process, `alone` keeps others from it, and
//! `keep` is what goes on beside the requests.

mod alone;
mod keep;
mod state;

use std::{
    cmp::Reverse,
    collections::HashMap,
    error, fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tower_breaker::{Circuit, Registry, Saved};

pub use self::alone::Alone;
use self::state::StateFile;
use crate::{
    config::{self, Settings, Sources, services_d},
    proxy,
    seldom::Seldom,
};

/// What all parts share. A clone is a handle to the same gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    /// The main file.
    path: PathBuf,
    registry: Registry,
    table: ArcSwap<Table>,
    /// What was at work first: what is read only then stays so.
    first: Settings,
    last_reload: watch::Sender<Arc<Reload>>,
    /// What the files said when they were read last. Its lock is held while
    /// anything changes, so that changes come one after the other.
    changing: Mutex<Option<Sources>>,
    state: StateFile,
    /// Of what can't be saved.
    unsaved: Seldom,
}

/// One configuration at work. Another takes its place as a whole.
pub struct Table {
    /// Grows with each that differs from the one before, also over a restart.
    pub revision: u64,
    pub settings: Settings,
    /// In the order in which routes are tried: with a host first, then the
    /// longest prefix.
    pub services: Vec<Arc<Service>>,
}

/// A service at work. It is made anew when its settings change, but its
/// circuit stays, and so does what its stacks share, if it is right still.
pub struct Service {
    pub settings: Arc<config::Service>,
    pub circuit: Circuit,
    /// What its stacks have in common, on all workers.
    pub shared: proxy::Shared,
}

/// What another configuration has changed, by the names of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// That of the table that is at work now.
    pub revision: u64,
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    /// Settings that are not as they were when the gateway was started, and are
    /// read only then.
    pub needs_restart: Vec<&'static str>,
}

/// An attempt to have the files' configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// By the calendar.
    pub at: SystemTime,
    /// What has changed, or what is wrong with the files; then nothing has.
    pub result: Result<Applied, config::Error>,
}

/// Why a service was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The configuration is not the one that somebody saw.
    Changed {
        /// The revision that is.
        revision: u64,
    },
    /// Something would be wrong.
    Config(config::Error),
}

impl Gateway {
    /// Puts a configuration to work, and goes on where the saved state says.
    /// `path` is the main file, from which [`reload`](Self::reload) reads.
    ///
    /// State that can't be read is set aside with a warning: a gateway without
    /// its past is better than none. Nothing runs yet but what a call brings
    /// about: see [`keep`](Self::keep).
    pub fn start(path: impl Into<PathBuf>, settings: Settings) -> Self {
        let path = path.into();
        let state = StateFile::new(&settings.admin.state);
        config::sweep(&path, &settings.admin.state);
        let mut saved = state.read();
        let registry = Registry::new();
        let revision = saved.revision + 1;
        let services = settings.services.values().map(|service| {
            let circuit = open(&registry, service, saved.circuits.remove(&service.name));
            Arc::new(Service::new(service, circuit, proxy::Shared::default()))
        });
        let services = in_order(services.collect());
        let added = settings.services.keys().cloned().collect();
        let result = Ok(Applied { revision, added, ..Applied::default() });
        let last_reload = watch::Sender::new(Arc::new(Reload { at: now(), result }));
        let first = settings.clone();
        let table = ArcSwap::from_pointee(Table { revision, settings, services });
        // Unless it came from elsewhere.
        let sources = Sources::read(&path).ok();
        let sources = sources.filter(|sources| {
            sources.settings().is_ok_and(|read| read.to_toml() == first.to_toml())
        });
        let (changing, unsaved) = (Mutex::new(sources), Seldom::default());
        let inner = Inner { path, registry, table, first, last_reload, changing, state, unsaved };
        Self(Arc::new(inner))
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

    /// The main file of its configuration.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Puts another configuration to work in place of the one that is, in one
    /// step. A service whose settings are the same stays the same, and every
    /// circuit keeps its state, its counts and what an operator laid over it.
    /// Requests that are under way go on as they began.
    pub fn apply(&self, settings: Settings) -> Applied {
        let _changing = self.changing();
        self.replace(settings)
    }

    /// Reads the files and puts them to work, if they are right; otherwise all
    /// stays as it is. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn reload(&self) -> Result<Applied, config::Error> {
        let mut changing = self.changing();
        self.reread(&mut changing)
    }

    /// Whether what is at work is what the files said once.
    fn has_files(&self) -> bool {
        self.changing().is_some()
    }

    /// The same, if the files say something else than they last did.
    fn reload_if_changed(&self) -> Option<Result<Applied, config::Error>> {
        let mut changing = self.changing();
        let sources = Sources::read(&self.0.path);
        let is_known = match &sources {
            // Though it may be wrong no more that they can't be read.
            Ok(sources) if changing.as_ref() == Some(sources) => {
                self.has_told(sources.settings().err().as_ref())
            }
            // Half of a writing that is no rename: what comes is a change, too.
            Ok(sources) => sources.is_empty() && !changing.as_ref().is_some_and(Sources::is_empty),
            Err(error) => self.has_told(Some(error)),
        };
        (!is_known).then(|| self.have(&mut changing, sources))
    }

    /// Whether this is what was wrong when it was told last.
    fn has_told(&self, error: Option<&config::Error>) -> bool {
        self.last_reload().result.as_ref().err() == error
    }

    /// The last attempt to have the files' configuration; the first is the
    /// start.
    pub fn last_reload(&self) -> Arc<Reload> {
        Arc::clone(&self.0.last_reload.borrow())
    }

    /// Follows the attempts.
    pub fn reloads(&self) -> watch::Receiver<Arc<Reload>> {
        self.0.last_reload.subscribe()
    }

    /// Writes a service into `services.d` and puts it to work: see
    /// [`services_d::put`]. Blocks while it writes.
    ///
    /// # Errors
    ///
    /// If the revision is another than the one that was seen, or anything would
    /// be wrong. Then nothing has changed.
    pub fn put_service(
        &self,
        name: &str,
        service: &toml::Table,
        if_revision: Option<u64>,
    ) -> Result<Applied, ChangeError> {
        let mut changing = self.changing();
        self.expect(if_revision)?;
        self.read(&changing)?;
        services_d::put(&self.0.path, name, service)?;
        Ok(self.reread(&mut changing)?)
    }

    /// Removes a service from `services.d` and from work: see
    /// [`services_d::remove`]. `None` if there is none. All that is left has to
    /// be right.
    ///
    /// # Errors
    ///
    /// Those of [`put_service`](Self::put_service).
    pub fn remove_service(
        &self,
        name: &str,
        if_revision: Option<u64>,
    ) -> Result<Option<Applied>, ChangeError> {
        let mut changing = self.changing();
        self.expect(if_revision)?;
        // Its file would go and the service stay if all else were not right.
        self.read(&changing)?.with(name, None).settings()?;
        if !services_d::remove(&self.0.path, name)? {
            return Ok(None);
        }
        Ok(Some(self.reread(&mut changing)?))
    }

    /// Writes what outlives the process: open waits and overrides. Blocks while
    /// it writes.
    ///
    /// # Errors
    ///
    /// If it can't be written; what was saved before is still there.
    pub fn save(&self) -> io::Result<()> {
        self.0.state.write(|| self.table())
    }

    fn changing(&self) -> MutexGuard<'_, Option<Sources>> {
        // What it holds is replaced as a whole.
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, revision: Option<u64>) -> Result<(), ChangeError> {
        let is = self.0.table.load().revision;
        match revision {
            Some(seen) if seen != is => Err(ChangeError::Changed { revision: is }),
            _ => Ok(()),
        }
    }

    fn reread(&self, last: &mut Option<Sources>) -> Result<Applied, config::Error> {
        let sources = self.read(last);
        self.have(last, sources)
    }

    fn read(&self, last: &Option<Sources>) -> Result<Sources, config::Error> {
        let sources = Sources::read(&self.0.path)?;
        let had_any = last.as_ref().is_some_and(|last| !last.is_empty());
        if had_any && sources.is_empty() {
            // All services would go, and their circuits with them.
            let message = "is empty, as a file is while it is written anew; if it is to have \
                           nothing in it, write a comment";
            return Err(config::Error::about(&self.0.path, message));
        }
        Ok(sources)
    }

    fn say_unsaved(&self, error: &io::Error) {
        metrics::counter!("gateway_state_save_failures_total").increment(1);
        if let Some(unsaid) = self.0.unsaved.is_due() {
            tracing::error!(unsaid, "the state can't be saved: {error}");
        }
    }

    /// Has what the files say, or not; and says which.
    fn have(
        &self,
        last: &mut Option<Sources>,
        sources: Result<Sources, config::Error>,
    ) -> Result<Applied, config::Error> {
        let result = sources.and_then(|sources| {
            let settings = sources.settings();
            *last = Some(sources);
            let before = self.0.table.load().revision;
            let applied = self.replace(settings?);
            // Before anybody is told of it, or it could mean another configuration
            // after a kill.
            if applied.revision != before {
                self.save().unwrap_or_else(|error| self.say_unsaved(&error));
            }
            Ok(applied)
        });
        match &result {
            Ok(applied) => tracing::info!("the configuration was read: {applied}"),
            Err(error) => {
                tracing::error!("the configuration is wrong, and stays as it was:\n{error}");
            }
        }
        let reload = Arc::new(Reload { at: now(), result: result.clone() });
        self.0.last_reload.send_replace(reload);
        self.report();
        result
    }

    /// Sets the metrics of the last reload.
    fn report(&self) {
        let reload = self.last_reload();
        let at = reload.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let success = if reload.result.is_ok() { 1.0 } else { 0.0 };
        metrics::gauge!("gateway_config_last_reload_success").set(success);
        metrics::gauge!("gateway_config_last_reload_seconds").set(at.as_secs_f64());
        metrics::gauge!("gateway_config_revision").set(self.0.table.load().revision as f64);
    }

    /// Nothing in here fails: what could has been checked.
    fn replace(&self, settings: Settings) -> Applied {
        let old = self.table();
        let mut applied = Applied { revision: old.revision, ..Applied::default() };
        let by_name: HashMap<&str, _> =
            old.services.iter().map(|service| (&*service.settings.name, service)).collect();
        let mut services = Vec::with_capacity(settings.services.len());
        for (name, new) in &settings.services {
            let (circuit, shared) = match by_name.get(&**name) {
                Some(service) if service.settings.is_same(new) => {
                    services.push(Arc::clone(service));
                    continue;
                }
                Some(service) => {
                    let Service { settings, circuit, shared } = &***service;
                    applied.changed.push(name.clone());
                    if !settings.has_same_circuit(new) {
                        // It has the circuit's name.
                        let _ = circuit.reconfigure(new.circuit.clone());
                    }
                    (circuit.clone(), shared.after(settings, new))
                }
                None => {
                    applied.added.push(name.clone());
                    (open(&self.0.registry, new, None), proxy::Shared::default())
                }
            };
            services.push(Arc::new(Service::new(new, circuit, shared)));
        }
        let gone = old.settings.services.keys();
        applied.removed =
            gone.filter(|name| !settings.services.contains_key(*name)).cloned().collect();
        applied.needs_restart = needs_restart(&self.0.first, &settings);
        if applied.is_empty() && settings.same_but_services(&old.settings) {
            return applied;
        }
        applied.revision += 1;
        let services = in_order(services);
        let table = Table { revision: applied.revision, settings, services };
        self.0.table.store(Arc::new(table));
        // Only when no new request can come to it.
        for name in &applied.removed {
            self.0.registry.remove(name);
        }
        applied
    }
}

/// A service's circuit, new or as it was saved.
fn open(registry: &Registry, service: &config::Service, saved: Option<Saved>) -> Circuit {
    let config = || service.circuit.clone();
    if let Some(saved) = saved {
        match registry.restore(config(), saved) {
            Ok(circuit) => return circuit,
            Err(error) => tracing::warn!("{} begins anew, for {error}", service.name),
        }
    }
    registry.circuit(config()).unwrap_or_else(|error| {
        // Of whatever else has a circuit there.
        tracing::error!("{} has a circuit that nobody sees: {error}", service.name);
        Circuit::new(config())
    })
}

fn in_order(mut services: Vec<Arc<Service>>) -> Vec<Arc<Service>> {
    services.sort_by_key(|service| {
        let route = &service.settings.route;
        (route.host.is_none(), Reverse(route.prefix.len()))
    });
    services
}

/// What is read at the start only, and is not as it was then.
fn needs_restart(first: &Settings, settings: &Settings) -> Vec<&'static str> {
    let (old, new) = (&first.server, &settings.server);
    [
        ("server.listen", old.listen != new.listen),
        ("server.workers", old.workers != new.workers),
        ("server.max_connections", old.max_connections != new.max_connections),
        ("admin", first.admin != settings.admin),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

#[expect(clippy::disallowed_methods, reason = "a reload is told by the calendar")]
fn now() -> SystemTime {
    SystemTime::now()
}

impl Service {
    fn new(settings: &Arc<config::Service>, circuit: Circuit, shared: proxy::Shared) -> Self {
        Self { settings: Arc::clone(settings), circuit, shared }
    }
}

impl Table {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.iter().find(|service| service.settings.name == name)
    }
}

impl Applied {
    /// Whether no service has changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, added, changed, removed, needs_restart } = self;
        write!(f, "revision {revision}")?;
        for (what, names) in [("added", added), ("changed", changed), ("removed", removed)] {
            if !names.is_empty() {
                write!(f, ", {what} {}", names.join(" "))?;
            }
        }
        if self.is_empty() {
            f.write_str(", all services as they were")?;
        }
        if !needs_restart.is_empty() {
            write!(f, "; waiting for a restart: {}", needs_restart.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { revision } => {
                write!(f, "the configuration has changed meanwhile, to revision {revision}")
            }
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl error::Error for ChangeError {}

impl From<config::Error> for ChangeError {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.0.table.load().revision;
        f.debug_struct("Gateway").field("path", &self.0.path).field("revision", &revision).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// With its state beside it, whatever the file says.
    fn start(main: &Path) -> Gateway {
        let mut settings = config::load(main).unwrap();
        settings.admin.state = main.with_file_name("state");
        let gateway = Gateway::start(main, settings);
        *gateway.changing() = Sources::read(main).ok();
        gateway
    }

    #[test]
    fn a_file_that_is_being_written_takes_no_service_along() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("brk.toml");
        fs::write(&main, "[services.a]\nupstream = \"http://h\"").unwrap();
        let gateway = start(&main);
        assert_eq!(gateway.reload_if_changed(), None);
        // Whoever writes a file anew empties it first.
        fs::write(&main, "").unwrap();
        assert_eq!(gateway.reload_if_changed(), None);
        assert!(gateway.table().service("a").is_some());
        fs::write(&main, "[services.b]\nupstream = \"http://h\"").unwrap();
        let applied = gateway.reload_if_changed().unwrap().unwrap();
        assert_eq!((applied.added.len(), applied.removed.len()), (1, 1));
        // What is wrong is told once.
        fs::write(&main, "services").unwrap();
        assert!(gateway.reload_if_changed().unwrap().is_err());
        assert_eq!(gateway.reload_if_changed(), None);
        fs::remove_file(&main).unwrap();
        assert!(gateway.reload_if_changed().unwrap().is_err());
        assert_eq!(gateway.reload_if_changed(), None);
        // And so is that it is wrong no more, though it is as it was.
        fs::write(&main, "[services.b]\nupstream = \"http://h\"").unwrap();
        assert!(gateway.reload_if_changed().unwrap().is_ok());
        fs::remove_file(&main).unwrap();
        assert!(gateway.reload_if_changed().unwrap().is_err());
        fs::write(&main, "[services.b]\nupstream = \"http://h\"").unwrap();
        assert!(gateway.reload_if_changed().unwrap().is_ok());
        assert_eq!(gateway.reload_if_changed(), None);
        // Also if somebody asks for it just then, or changes another service.
        fs::write(&main, "").unwrap();
        assert!(gateway.reload().unwrap_err().to_string().contains("is empty"));
        assert!(gateway.table().service("b").is_some());
        fs::write(&main, "# nothing").unwrap();
        assert_eq!(gateway.reload().unwrap().removed, ["b"]);
    }

    #[test]
    fn services_are_followed_beside_a_main_file_with_nothing_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let (main, services) =
            (directory.path().join("brk.toml"), directory.path().join("services.d"));
        fs::write(&main, "").unwrap();
        let gateway = start(&main);
        fs::create_dir(&services).unwrap();
        fs::write(services.join("a.toml"), "upstream = \"http://h\"").unwrap();
        assert_eq!(gateway.reload_if_changed().unwrap().unwrap().added, ["a"]);
        assert_eq!(gateway.reload_if_changed(), None);
    }
}
