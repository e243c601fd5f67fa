//! All files, read together and checked against each other.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    atomic,
    error::{Error, Problem},
    reader::{Place, Source, Table},
    sections, service,
    settings::{Admin, Service, Settings, Target},
};

/// Reads the main file and, beside it, `services.d/*.toml`, each of which has
/// one service. Relative paths in them are relative to the main file.
///
/// # Errors
///
/// Everything that is wrong with any of them.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("brk.toml");
/// std::fs::write(&path, "[services.orders]\nupstream = \"http://127.0.0.1:3000\"")?;
/// let settings = brk::config::load(&path)?;
/// assert_eq!(settings.services["orders"].route.prefix, "/orders");
///
/// std::fs::write(&path, "[services.orders]\nupstraem = \"http://127.0.0.1:3000\"")?;
/// let error = brk::config::load(&path).unwrap_err();
/// assert!(error.to_string().ends_with("unknown key, did you mean `upstream`?"));
/// # Ok(())
/// # }
/// ```
pub fn load(path: &Path) -> Result<Settings, Error> {
    Sources::read(path)?.settings()
}

/// Where operators find the gateway and its state, whatever is wrong with the
/// rest: whoever broke a file needs to look at the gateway just then.
///
/// # Errors
///
/// If the main file can't be read or is no TOML, and what is wrong with its
/// `[admin]`.
pub fn admin(path: &Path) -> Result<Admin, Error> {
    let text = read_main(path)?;
    let source = Source::new(path, &text);
    let (admin, _) = sections::admin(source.read("").table("admin"), &base(path));
    let mut problems = source.into_problems();
    problems.retain(|problem| problem.key.is_empty() || problem.key.starts_with("admin"));
    Error::of(problems).map_or(Ok(admin), Err)
}

/// Writes a main file that says where services are, if there is no such file.
/// One that is there is a person's, and stays as it is.
///
/// # Errors
///
/// If it can't be written.
pub fn init(path: &Path) -> io::Result<bool> {
    const FIRST: &str = "\
# brk: what is not written here has its default; `brk check` prints all of it.
# Services may stand here as [services.NAME]; those that `brk add` makes are
# in services.d/NAME.toml.

[server]
listen = \"127.0.0.1:8080\"

[admin]
listen = \"127.0.0.1:9090\"
";
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::File::create_new(path) {
        Ok(mut file) => {
            file.write_all(FIRST.as_bytes())?;
            file.sync_all()?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what is left of writers that were killed, beside the configuration
/// and the state. It can wait if it can't be done.
pub(crate) fn sweep(main: &Path, state: &Path) {
    for directory in [&*directory(main), state] {
        let _ = atomic::sweep(directory);
    }
}

/// What all files said when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    main: PathBuf,
    text: String,
    /// By name; the path of each beside what it says.
    services: BTreeMap<String, (PathBuf, String)>,
}

/// A service, and where its parts stand.
struct Found {
    file: PathBuf,
    place: Place,
    service: Option<Service>,
}

impl Sources {
    pub(crate) fn read(main: &Path) -> Result<Self, Error> {
        let text = read_main(main)?;
        let mut services = BTreeMap::new();
        let mut problems = Vec::new();
        for path in files(&directory(main))
            .map_err(|error| Error::about(directory(main), format!("can't be read: {error}")))?
        {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match fs::read_to_string(&path) {
                Ok(text) => {
                    services.insert(name, (path, text));
                }
                // Removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    problems.push(Problem::about(path, format!("can't be read: {error}")));
                }
            }
        }
        match Error::of(problems) {
            Some(error) => Err(error),
            None => Ok(Self { main: main.to_owned(), text, services }),
        }
    }

    /// Whether the main file has nothing in it, as while it is written anew.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The same, with another text for a service's file.
    pub(crate) fn with(mut self, name: &str, text: Option<String>) -> Self {
        match text {
            Some(text) => {
                let path = file(&self.main, name);
                self.services.insert(name.to_owned(), (path, text));
            }
            None => {
                self.services.remove(name);
            }
        }
        self
    }

    /// The line of the main file that has a service of this name.
    pub(super) fn line_in_main(&self, name: &str) -> Option<usize> {
        let source = Source::new(&self.main, &self.text);
        let services = source.read("").table("services").take_all();
        services.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.place().line())
    }

    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.services.get(name).map(|(_, text)| &**text)
    }

    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let base = base(&self.main);
        let mut problems = Vec::new();
        let mut found = BTreeMap::new();

        let main = Source::new(&self.main, &self.text);
        let mut root = main.read("");
        let server = sections::server(root.table("server"));
        let (admin, admin_place) = sections::admin(root.table("admin"), &base);
        let history = sections::history(root.table("history"));
        let targets = root.get("notify", |value| {
            if !value.is_list() {
                value.refuse("must be written as [[notify]]");
                return None;
            }
            value.list(|value| sections::target(value, &base))
        });
        for (name, value) in root.table("services").take_all() {
            if let Some(why) = service::refuse_name(&name) {
                value.refuse(why);
            }
            let place = value.place().clone();
            if let Some(table) = value.table() {
                let service = service::read(&name, table, &base);
                found.insert(name, Found { file: self.main.clone(), place, service });
            }
        }
        root.finish();

        for (name, (path, text)) in &self.services {
            let source = Source::new(path, text);
            let table = source.read(&format!("services.{name}"));
            if let Some(why) = service::refuse_name(name) {
                problems.push(Problem::about(path, why));
            } else if let Some(other) = found.get(name) {
                let (file, line) = (other.file.display(), other.place.line());
                let message = format!("there is a service `{name}` already ({file}:{line})");
                problems.push(Problem::about(path, message));
            } else {
                let place = table.place().clone();
                let service = read_file(name, table, &base);
                found.insert(name.clone(), Found { file: path.clone(), place, service });
            }
            problems.extend(source.into_problems());
        }

        let targets = targets.unwrap_or_default();
        check_listeners(&main, &server.listen, admin.listen, &admin.hosts, admin_place.as_ref());
        check_targets(&main, &targets, &found);
        problems.extend(main.into_problems());
        problems.extend(same_routes(&found));
        if let Some(error) = Error::of(problems) {
            return Err(error);
        }
        let notify = targets.into_iter().map(|(target, _)| target).collect();
        let services =
            found.into_iter().filter_map(|(name, found)| Some((name, Arc::new(found.service?))));
        Ok(Settings { server, admin, history, notify, services: services.collect() })
    }
}

fn read_main(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; `brk add` makes one, or name another by --config",
            _ => "",
        };
        Error::about(path, format!("can't be read: {error}{hint}"))
    })
}

/// Reads a file of its own, whose keys need no header. One that somebody wrote
/// all the same is told.
fn read_file(name: &str, mut table: Table<'_>, base: &Path) -> Option<Service> {
    if let Some(services) = table.take("services") {
        services.refuse("this file is the table of one service, and needs no [services.NAME]");
        return None;
    }
    service::read(name, table, base)
}

/// What relative paths are relative to; absolute, so that it is the same
/// wherever it is read again.
fn base(main: &Path) -> PathBuf {
    let parent = main.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let absolute = fs::canonicalize(parent);
    absolute.or_else(|_| env::current_dir().map(|current| current.join(parent))).unwrap_or_default()
}

/// Where the services are that a command wrote.
pub(super) fn directory(main: &Path) -> PathBuf {
    main.with_file_name("services.d")
}

pub(super) fn file(main: &Path, name: &str) -> PathBuf {
    directory(main).join(format!("{name}.toml"))
}

/// The files of services, but for those that editors hide.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_hidden =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension() == Some(OsStr::new("toml")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn check_listeners(
    main: &Source<'_>,
    server: &[SocketAddr],
    admin: SocketAddr,
    hosts: &[String],
    admin_place: Option<&Place>,
) {
    let start = main.place(0);
    let place = admin_place.unwrap_or(&start);
    if !admin.ip().to_canonical().is_loopback() && hosts.is_empty() {
        let message = format!(
            "is {admin}, beyond loopback, so `hosts` must name what it may be called by, such as \
             [\"breaker.example.com\"]"
        );
        main.note(place, "admin.listen", message);
    }
    for (at, listen) in server.iter().enumerate() {
        if meet(*listen, admin) {
            let message = format!("is {admin}, but must not be `server.listen` too");
            main.note(place, "admin.listen", message);
        }
        if server[..at].iter().any(|other| meet(*listen, *other)) {
            main.note(&start, "server.listen", format!("has {listen} twice"));
        }
    }
}

/// Whether two can't be listened on at once.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let same_family = a.is_ipv4() == b.is_ipv4();
    one.port() != 0
        && one.port() == other.port()
        && (a == b || same_family && (a.is_unspecified() || b.is_unspecified()))
}

fn check_targets(
    main: &Source<'_>,
    targets: &[(Target, Place)],
    services: &BTreeMap<String, Found>,
) {
    for (at, (target, place)) in targets.iter().enumerate() {
        let key = |key: &str| format!("notify[{at}].{key}");
        if targets[..at].iter().any(|(other, _)| other.name == target.name) {
            let message = format!("is {:?}, but another has this name", target.name);
            main.note(place, &key("name"), message);
        }
        for service in target.services.iter().filter(|name| !services.contains_key(*name)) {
            main.note(place, &key("services"), format!("there is no service `{service}`"));
        }
    }
}

/// Two with the same route: the one that comes later is at fault.
fn same_routes(services: &BTreeMap<String, Found>) -> Vec<Problem> {
    let mut routes = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, found) in services {
        let Some(service) = &found.service else { continue };
        let route = (service.route.host.clone(), service.route.prefix.clone());
        if let Some((other, first)) = routes.get(&route) {
            let first: &&Found = first;
            let (file, line) = (first.file.display(), first.place.line());
            let host = service.route.host.as_deref().unwrap_or_default();
            let message = format!(
                "has the route {host}{} of `{other}` ({file}:{line}); give one of them another \
                 `path` or `host`",
                service.route.prefix,
            );
            problems.push(found.place.problem(&found.file, &format!("services.{name}"), message));
        } else {
            routes.insert(route, (name, found));
        }
    }
    problems
}
