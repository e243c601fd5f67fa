//! What a person writes, what they are told about it, and what is written for
//! them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use brk::config::{
    self, Admin, History, Protocol, Respond, Retry, Route, Server, Service, Settings, Target,
    TargetKind, Template, Timeouts, Upstream, WhenOpen, services_d,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::{collection, option, prelude::*, sample::select};
use tempfile::TempDir;
use tower_breaker::{Backoff, Config, Probes, Window};

/// A directory of configuration.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new(main: &str) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(files.main(), main).unwrap();
        files
    }

    fn main(&self) -> PathBuf {
        self.directory.path().join("brk.toml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn load(&self) -> Result<Settings, config::Error> {
        config::load(&self.main())
    }

    /// What is said of it, without the directory.
    fn problems(&self) -> String {
        self.told(&self.load().unwrap_err())
    }

    fn told(&self, error: &config::Error) -> String {
        error.to_string().replace(&format!("{}/", self.directory.path().display()), "")
    }
}

const ORDERS: &str = "[services.orders]\nupstream = \"http://10.0.0.5:8080\"\n";

#[test]
fn a_url_is_enough() {
    let settings = Files::new(ORDERS).load().unwrap();
    let service = &settings.services["orders"];
    let route = Route { host: None, prefix: "/orders".to_owned(), strip_prefix: true };
    assert_eq!(service.route, route);
    assert_eq!(service.upstream.url, "http://10.0.0.5:8080/");
    assert_eq!(service.circuit.name(), "orders");
    assert!(service.protect);
    assert_eq!(service.when_open, WhenOpen::Respond(Respond::default()));
    assert_eq!(settings.server.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(settings.admin.listen, "127.0.0.1:9090".parse().unwrap());
}

/// What is wrong, and everything that is said about it.
const BAD: &[(&str, &[&str])] = &[
    (
        "[servers]\nlisten = \"127.0.0.1:80\"",
        &["brk.toml:1: servers: unknown key, did you mean `server`?"],
    ),
    (
        "[server]\nworker = 4\nlisten = \"localhost\"\ndrain = 5",
        &[
            "brk.toml:2: server.worker: unknown key, did you mean `workers`?",
            "brk.toml:3: server.listen: is \"localhost\", but must be an address and a port such as \
             \"127.0.0.1:8080\" or \"[::1]:8080\"",
            "brk.toml:4: server.drain: is 5, but must be a duration such as \"10s\", \"250ms\" or \
             \"1h 30m\"",
        ],
    ),
    (
        "[server]\nworkers = 0\nmax_header_size = \"1KiB\"\nheader_timeout = \"0s\"\n\
         trusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\nlisten = []",
        &[
            "brk.toml:2: server.workers: is 0, but must be a whole number from 1 to 1024",
            "brk.toml:3: server.max_header_size: is \"1KiB\", but must be a size from 8KiB on, such \
             as \"64MiB\" or \"16KiB\"",
            "brk.toml:4: server.header_timeout: is \"0s\", but must be a duration such as \"10s\", \
             \"250ms\" or \"1h 30m\" (zero is too short)",
            "brk.toml:5: server.trusted_proxies[1]: is \"10.0.0.0/33\", but must be a network such \
             as \"10.0.0.0/8\" or an address",
            "brk.toml:6: server.listen: is empty, but must have an address such as \"127.0.0.1:8080\"",
        ],
    ),
    (
        "[admin]\nlisten = \"0.0.0.0:9090\"",
        &[
            "brk.toml:2: admin.listen: is 0.0.0.0:9090, beyond loopback, so `hosts` must name what it \
           may be called by, such as [\"breaker.example.com\"]",
        ],
    ),
    (
        "[admin]\nlisten = \"127.0.0.1:8080\"",
        &["brk.toml:2: admin.listen: is 127.0.0.1:8080, but must not be `server.listen` too"],
    ),
    (
        "[server]\nlisten = [\"127.0.0.1:8080\", \"0.0.0.0:8080\"]",
        &["brk.toml:1: server.listen: has 0.0.0.0:8080 twice"],
    ),
    (
        "a = = 1\n[server]\nworkers = 0",
        &[
            "brk.toml:1: this is not TOML: extra `=`, expected nothing",
            "brk.toml:3: server.workers: is 0, but must be a whole number from 1 to 1024",
        ],
    ),
    (
        "[services.a b]\nupstream = 1",
        &["brk.toml:1: this is not TOML: unclosed table, expected `]`"],
    ),
    (
        "[services.\"a b\"]\nupstream = \"http://h\"",
        &[
            "brk.toml:1: services.a b: the name of a service must be 1 to 64 letters, digits, `.`, `_` \
           or `-`, and begin with a letter or a digit",
        ],
    ),
    (
        "[services.orders]",
        &[
            "brk.toml:1: services.orders.upstream: is missing; write one such as \"http://127.0.0.1:3000\"",
        ],
    ),
    (
        "[services.a]\nupstream = \"ftp://h\"\n[services.b]\nupstream = \"10.0.0.5:80\"\n\
         [services.c]\nupstream = \"http://u:p@h/\"\n[services.d]\nupstream = \"http://h/?a=b\"\n\
         [services.e]\nupstream = { url = \"https://h/#x\", protocol = \"spdy\", keep = 1 }",
        &[
            "brk.toml:2: services.a.upstream: is \"ftp://h\", but must be a URL such as \
             \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\" (by http or https, not by ftp)",
            "brk.toml:4: services.b.upstream: is \"10.0.0.5:80\", but must be a URL such as \
             \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\" (it begins with http:// or \
             https://)",
            "brk.toml:6: services.c.upstream: is \"http://u:p@h/\", but must be a URL such as \
             \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\" (without a user and a password)",
            "brk.toml:8: services.d.upstream: is \"http://h/?a=b\", but must be a URL such as \
             \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\" (without a query)",
            "brk.toml:10: services.e.upstream.url: is \"https://h/#x\", but must be a URL such as \
             \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\" (without a fragment)",
            "brk.toml:10: services.e.upstream.protocol: is \"spdy\", but must be \"auto\", \"http1\" or \
             \"http2\"",
            "brk.toml:10: services.e.upstream.keep: unknown key, there are `url`, `protocol`, \
             `preserve_host`, `ca_file`, `max_idle`",
        ],
    ),
    (
        "[services.a]\nupgrade = true\nupstream = { url = \"https://h\", protocol = \"http2\" }",
        &["brk.toml:2: services.a.upgrade: is true, but the upstream's `protocol` is \"http2\", \
           which has no upgrades"],
    ),
    (
        "[services.a]\nupstream = \"http://h:99999\"\n[services.b]\nupstream = \"http://h\"\n\
         when_open.fallback = \"https://[::1]:80a\"\n[[notify]]\nname = \"a\"\nwebhook = \"http://h:0\"",
        &[
            "brk.toml:2: services.a.upstream: is \"http://h:99999\", but must be a URL such as \
             \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\" (it names a host, and a port \
             from 1 to 65535 or none)",
            "brk.toml:5: services.b.when_open.fallback: is \"https://[::1]:80a\", but must be a URL such \
             as \"http://127.0.0.1:3000\" or \"https://api.example.com/v1\" (it names a host, and a port \
             from 1 to 65535 or none)",
            "brk.toml:8: notify[0].webhook: is \"http://h:0\", but must be a URL such as \
             \"https://hooks.example.com/brk\" (it names a host, and a port from 1 to 65535 or none)",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\npath = \"/x/\"\n[services.b]\nupstream = \"http://h\"\n\
         path = \"/x\"",
        &[
            "brk.toml:4: services.b: has the route /x of `a` (brk.toml:1); give one of them another \
           `path` or `host`",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\npath = \"x\"\nhost = \"a:80\"\n[services.b]\n\
         upstream = \"http://h\"\npath = \"/x/../y\"\n[services.c]\nupstream = \"http://h\"\n\
         path = \"/x//y\"\n[services.d]\nupstream = \"http://h\"\npath = \"/x%2fy\"",
        &[
            "brk.toml:3: services.a.path: is \"x\", but must be a path such as \"/orders\" (it begins \
             with a slash)",
            "brk.toml:4: services.a.host: is \"a:80\", but must be a host name such as \
             \"api.example.com\", without a port",
            "brk.toml:7: services.b.path: is \"/x/../y\", but must be a path such as \"/orders\" \
             (without dot segments)",
            "brk.toml:10: services.c.path: is \"/x//y\", but must be a path such as \"/orders\" \
             (without empty segments)",
            "brk.toml:13: services.d.path: is \"/x%2fy\", but must be a path such as \"/orders\" \
             (without a query, escapes or characters that a URL must escape)",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\n[services.a.circuit]\nname = \"b\"",
        &["brk.toml:4: services.a.circuit.name: unknown key: the circuit has the service's name"],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\n[services.a.circuit]\nfailure_rat = 0.5\n\
         minimum_calls = \"ten\"\nopen_for = { fixed = \"5x\" }\nwindow = { cuont = 3 }",
        &[
            "brk.toml:4: services.a.circuit.failure_rat: unknown key, did you mean `failure_rate`?",
            "brk.toml:5: services.a.circuit.minimum_calls: invalid type: string \"ten\", expected \
             minimum_calls to be a whole number",
            "brk.toml:6: services.a.circuit.open_for.fixed: is \"5x\", but must be a duration such as \
             \"10s\", \"250ms\" or \"1h 30m\" (unknown time unit \"x\", supported units: ns, us/µs, ms, \
             sec, min, hours, days, weeks, months, years (and few variations))",
            "brk.toml:7: services.a.circuit.window.cuont: unknown key, did you mean `window.count`?",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\n[services.a.circuit]\nminimum_calls = 30\n\
         failure_rate = 1.5",
        &[
            "brk.toml:5: services.a.circuit.failure_rate: is 1.5, but must be at least 0.000001 and at \
           most 1",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\nretry = { attempts = 1, budget = 2 }\n\
         timeouts = { heads = \"1s\", total = \"soon\" }",
        &[
            "brk.toml:3: services.a.retry.attempts: is 1, but must be a whole number from 2 to 10",
            "brk.toml:3: services.a.retry.budget: is 2, but must be a number above 0 and at most 1",
            "brk.toml:4: services.a.timeouts.heads: unknown key, did you mean `head`?",
            "brk.toml:4: services.a.timeouts.total: is \"soon\", but must be a duration such as \
             \"10s\", \"250ms\" or \"1h 30m\" (expected number at 0)",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\n[services.a.when_open]\nclose = true\n\
         fallback = \"http://g\"",
        &[
            "brk.toml:3: services.a.when_open: has `fallback` and `close`, but must have one of them \
           (`respond` may be beside `stale`)",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\n[services.a.when_open.respond]\nstatus = 99\n\
         body = \"{{ name }} {{ stat }}\"\n[services.a.when_open.respond.headers]\n\
         connection = \"close\"\n\"b d\" = \"x\"\nretry-after = \"5\"\nx-a = \"a\\nb\"\n\
         content-type = \"text/html\"",
        &[
            "brk.toml:4: services.a.when_open.respond.status: is 99, but must be a whole number from \
             200 to 599",
            "brk.toml:5: services.a.when_open.respond.body: is \"{{ name }} {{ stat }}\", but must be a \
             template (line 1 of it: there are only `name`, `state`, `retry_after` and `cause`)",
            "brk.toml:7: services.a.when_open.respond.headers.connection: is the connection's own, and \
             can't be set",
            "brk.toml:8: services.a.when_open.respond.headers.b d: is no name of a header",
            "brk.toml:9: services.a.when_open.respond.headers.retry-after: is set from the circuit; \
             write `retry_after = false` to set another",
            "brk.toml:10: services.a.when_open.respond.headers.x-a: is \"a\\nb\", but must be a header's \
             value",
            "brk.toml:11: services.a.when_open.respond.headers.content-type: is no header to set here; \
             write `content_type` beside the `body`",
        ],
    ),
    (
        "[services.a]\nupstream = \"http://h\"\nwhen_open.respond = { status = 204, body = \"{{\" }",
        &[
            "brk.toml:3: services.a.when_open.respond.body: is \"{{\", but must be a template (line 1 of \
             it: syntax error: unexpected end of input, expected expression)",
            "brk.toml:3: services.a.when_open.respond.body: is there, but a response with status 204 has \
             no body",
        ],
    ),
    (
        "[[notify]]\nname = \"ops\"\n[[notify]]\nname = \"ops\"\nwebhook = \"mailto:a@b\"\n\
         slack = { url_file = \"none\" }\n[[notify]]\nname = \"mail\"\nservices = [\"orders\"]\n\
         email = { server = \"smtp://a:b@h\", from = \"me\", to = [] }\n[[notify]]\nname = \"c\"\n\
         services = \"orders\"\nwebhook = \"https://h\"",
        &[
            "brk.toml:1: notify[0]: must have one of the keys `webhook`, `slack` and `email`",
            "brk.toml:3: notify[1]: must have one of the keys `webhook`, `slack` and `email`",
            "brk.toml:5: notify[1].webhook: is \"mailto:a@b\", but must be a URL such as \
             \"https://hooks.example.com/brk\" (it begins with http:// or https://)",
            "brk.toml:6: notify[1].slack.url_file: is \"none\", but must be a file with a URL in it \
             (none: No such file or directory (os error 2))",
            "brk.toml:10: notify[2].email.server: is \"smtp://a:b@h\", but must be a server such as \
             \"smtps://brk@mail.example.com\" (the password goes into a `password_file`)",
            "brk.toml:10: notify[2].email.from: is \"me\", but must be an address such as \"Ops \
             <ops@example.com>\"",
            "brk.toml:10: notify[2].email.to: is empty, but must have an address",
            "brk.toml:11: notify[0].services: there is no service `orders`",
        ],
    ),
];

#[test]
fn all_that_is_wrong_is_told_with_its_place() {
    let mut wrong = String::new();
    for (text, expected) in BAD {
        let (problems, expected) = (Files::new(text).problems(), expected.join("\n"));
        if problems != expected {
            wrong += &format!("{text}\nis said to be\n{problems}\nand not\n{expected}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_file_of_its_own_is_a_service() {
    let files = Files::new(ORDERS);
    files.write("services.d/bills.toml", "upstream = \"http://10.0.0.6\"\ntimeouts.head = \"1s\"");
    // Nobody's: editors leave such.
    files.write("services.d/.bills.toml.swp", "\0");
    files.write("services.d/.#other.toml", "\0");
    files.write("services.d/bills.toml~", "\0");
    let settings = files.load().unwrap();
    assert_eq!(settings.services.keys().collect::<Vec<_>>(), ["bills", "orders"]);
    assert_eq!(settings.services["bills"].timeouts.head, Duration::from_secs(1));
}

#[test]
fn values_are_read_as_people_write_them() {
    let files = Files::new(
        "[server]\nlisten = \"[::1]:80\"\nworkers = 0x4\nmax_connections = 1_000\n\
         max_header_size = \"16 KiB\"\ndrain = \"1h 30m\"\ntrusted_proxies = \"10.0.0.1\"\n\
         [services.a]\nupstream = 'https://H.example.com'\nhost = \"API.Example.com.\"\n\
         retry = { budget = 1 }\n[services.b]\nupstream = \"http://h\"\npath = \"/b/c/\"\n\
         strip_prefix = false\nwhen_open.stale.ttl = \"1m\"\n",
    );
    let settings = files.load().unwrap();
    let server = &settings.server;
    assert_eq!(server.listen, ["[::1]:80".parse().unwrap()]);
    assert_eq!((server.workers, server.max_connections), (4, 1_000));
    assert_eq!((server.max_header_size, server.drain), (16 << 10, Duration::from_secs(5_400)));
    assert_eq!(server.trusted_proxies, ["10.0.0.1/32".parse().unwrap()]);
    let (a, b) = (&settings.services["a"], &settings.services["b"]);
    assert_eq!((a.route.host.as_deref(), &*a.route.prefix), (Some("api.example.com"), "/"));
    assert_eq!(a.retry, Some(Retry { attempts: 2, budget: 1.0 }));
    assert_eq!((&*b.route.prefix, b.route.strip_prefix), ("/b/c", false));
    let (ttl, respond) = (Duration::from_secs(60), Respond::default());
    assert_eq!(b.when_open, WhenOpen::Stale { ttl, max_size: 64 << 20, respond });
}

#[test]
fn all_files_are_told_of_together() {
    let files = Files::new("[server]\nworkers = 0");
    files.write("services.d/a.toml", "[services.a]\nupstream = \"http://h\"");
    files.write("services.d/b.toml", "\nupstraem = \"http://h\"");
    files.write("services.d/c d.toml", "upstream = \"http://h\"");
    files.write("services.d/e.toml", "upstream = \"http://h\"\npath = \"/f\"");
    files.write("services.d/f.toml", "upstream = \"http://h\"");
    assert_eq!(
        files.problems(),
        "brk.toml:2: server.workers: is 0, but must be a whole number from 1 to 1024\n\
         services.d/a.toml:1: services.a.services: this file is the table of one service, and needs \
         no [services.NAME]\n\
         services.d/b.toml:1: services.b.upstream: is missing; write one such as \
         \"http://127.0.0.1:3000\"\n\
         services.d/b.toml:2: services.b.upstraem: unknown key, did you mean `upstream`?\n\
         services.d/c d.toml: the name of a service must be 1 to 64 letters, digits, `.`, `_` or \
         `-`, and begin with a letter or a digit\n\
         services.d/f.toml:1: services.f: has the route /f of `e` (services.d/e.toml:1); give one of \
         them another `path` or `host`"
    );
    let files = Files::new(ORDERS);
    files.write("services.d/orders.toml", "upstream = \"http://h\"");
    assert_eq!(
        files.problems(),
        "services.d/orders.toml: there is a service `orders` already (brk.toml:1)"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let files = Files::new("");
    fs::remove_file(files.main()).unwrap();
    assert_eq!(
        files.problems(),
        "brk.toml: can't be read: No such file or directory (os error 2); `brk add` makes one, or \
         name another by --config"
    );
    let files = Files::new("");
    fs::create_dir_all(files.path("services.d/orders.toml")).unwrap();
    assert_eq!(
        files.problems(),
        "services.d/orders.toml: can't be read: Is a directory (os error 21)"
    );
    let files = Files::new("");
    fs::write(files.main(), [0xff]).unwrap();
    assert_eq!(files.problems(), "brk.toml: can't be read: stream did not contain valid UTF-8");
}

#[cfg(unix)]
#[test]
fn files_that_are_named_are_looked_at() {
    use std::os::unix::fs::PermissionsExt;

    let files = Files::new(
        "[[notify]]\nname = \"a\"\nwebhook = { url = \"https://h\", secret_file = \"key\" }\n\
         [[notify]]\nname = \"b\"\nslack = { url_file = \"url\" }\n[services.a.upstream]\n\
         url = \"https://h\"\nca_file = \"ca.pem\"",
    );
    let mode = |name: &str, mode| {
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    files.write("key", "s3cret").write("url", "s3cret").write("ca.pem", "");
    mode("key", 0o604);
    mode("url", 0o600);
    assert_eq!(
        files.problems(),
        "brk.toml:3: notify[0].webhook.secret_file: is \"key\", but must be a file with a secret in it \
         (key: everybody on the machine has access to it (mode 0604); chmod it to 0600)\n\
         brk.toml:6: notify[1].slack.url_file: is \"url\", but must be a file with a URL in it (url: \
         what is in it is none)\n\
         brk.toml:9: services.a.upstream.ca_file: is \"ca.pem\", but must be a file with certificates \
         as PEM (ca.pem: there is none in it)"
    );
    mode("key", 0o640);
    files.write("url", "https://hooks.slack.com/x\n");
    let certified = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    files.write("ca.pem", &certified.cert.pem());
    let settings = files.load().unwrap();
    // Relative to the file, and not to wherever somebody is.
    let base = fs::canonicalize(files.directory.path()).unwrap();
    assert_eq!(settings.services["a"].upstream.ca_file, Some(base.join("ca.pem")));
    files.write("key", " \n");
    assert!(files.problems().contains("it is empty"));
}

fn table(text: &str) -> toml::Table {
    toml::from_str(text).unwrap()
}
/// Each was right when it was looked at, and what was left was a configuration
/// that no gateway could start with.
#[test]
fn of_two_that_are_added_at_once_and_do_not_go_together_one_is() {
    let files = Files::new("");
    let service: toml::Table = toml::from_str("upstream = \"http://h\"\npath = \"/same\"").unwrap();
    for round in 0..20 {
        let begin = Barrier::new(4);
        let added = thread::scope(|scope| {
            let threads = [1, 2, 3, 4].map(|number| {
                let (files, service, begin) = (&files, &service, &begin);
                scope.spawn(move || {
                    let name = format!("round-{round}-{number}");
                    begin.wait();
                    services_d::put(&files.main(), &name, service).is_ok().then_some(name)
                })
            });
            threads.map(|thread| thread.join().unwrap()).into_iter().flatten().collect::<Vec<_>>()
        });
        let [added] = &*added else { panic!("{added:?}") };
        assert!(config::load(&files.main()).unwrap().services.contains_key(added));
        assert!(services_d::remove(&files.main(), added).unwrap());
    }
}

#[test]
fn what_a_change_does_not_touch_stays() {
    let files = Files::new("# By hand.\n");
    let text = "\
# The orders.
path = \"/orders\"   # where
upstream = 'http://10.0.0.5:8080'

# How long.
[timeouts]
total = \"1m\"   # all of it
head = \"10s\"   # the first byte

[circuit]
failure_rate = 0.5
";
    files.write("services.d/orders.toml", text);
    let mut service = table(text);
    services_d::put(&files.main(), "orders", &service).unwrap();
    assert_eq!(files.read("services.d/orders.toml"), text, "the same service, another spelling");

    service["timeouts"]["head"] = "2s".into();
    service["circuit"].as_table_mut().unwrap().remove("failure_rate");
    service["circuit"].as_table_mut().unwrap().insert("minimum_calls".to_owned(), 5.into());
    service.insert("retry".to_owned(), table("attempts = 3").into());
    services_d::put(&files.main(), "orders", &service).unwrap();
    assert_eq!(
        files.read("services.d/orders.toml"),
        text.replace("\"10s\"", "\"2s\"").replace("failure_rate = 0.5", "minimum_calls = 5")
            + "\n[retry]\nattempts = 3\n"
    );
    let settings = files.load().unwrap();
    assert_eq!(settings.services["orders"].retry.as_ref().unwrap().attempts, 3);
    assert_eq!(files.read("brk.toml"), "# By hand.\n");
}

#[test]
fn what_a_person_wrote_is_not_written() {
    let files = Files::new("\n[services.orders]\nupstream = \"http://h\"\n");
    let service = table("upstream = \"http://g\"");
    let said =
        "brk.toml:2: services.orders: stands in a file that is written by hand; change it there";
    let error = services_d::put(&files.main(), "orders", &service).unwrap_err();
    assert_eq!(files.told(&error), said);
    let error = services_d::remove(&files.main(), "orders").unwrap_err();
    assert_eq!(files.told(&error), said);
    assert!(!files.path("services.d").exists());
    assert_eq!(files.read("brk.toml"), "\n[services.orders]\nupstream = \"http://h\"\n");
    // Nor does a name lead out of the directory.
    for name in ["../brk", "/tmp/x", "", ".hidden", "a/b"] {
        assert!(services_d::put(&files.main(), name, &service).is_err(), "{name}");
        assert!(services_d::remove(&files.main(), name).is_err(), "{name}");
    }
    assert!(!config::init(&files.main()).unwrap());
    assert_eq!(files.read("brk.toml"), "\n[services.orders]\nupstream = \"http://h\"\n");
}

#[test]
fn a_change_that_would_be_wrong_is_not_made() {
    let files =
        Files::new("[[notify]]\nname = \"a\"\nwebhook = \"https://h\"\nservices = [\"bills\"]\n");
    files.write("services.d/bills.toml", "upstream = \"http://h\"");
    let put = |text| services_d::put(&files.main(), "orders", &table(text));
    let error = put("upstream = \"http://h\"\npath = \"/bills\"").unwrap_err();
    assert!(files.told(&error).contains("has the route /bills of `bills`"), "{error}");
    let error = put("upstream = \"http://h\"\n[circuit]\nfailure_rate = 7").unwrap_err();
    assert_eq!(
        files.told(&error),
        "services.d/orders.toml:4: services.orders.circuit.failure_rate: is 7, but must be at least \
         0.000001 and at most 1"
    );
    assert!(!files.path("services.d/orders.toml").exists());
    let error = services_d::remove(&files.main(), "bills").unwrap_err();
    assert_eq!(files.told(&error), "brk.toml:1: notify[0].services: there is no service `bills`");
    assert!(files.path("services.d/bills.toml").exists());

    put("upstream = \"http://h\"").unwrap();
    assert!(services_d::remove(&files.main(), "orders").unwrap());
    assert!(!services_d::remove(&files.main(), "orders").unwrap());
    // What is wrong already may go.
    files.write("services.d/broken.toml", "upstream =");
    files.write("services.d/broken_too.toml", "");
    assert!(services_d::remove(&files.main(), "broken").unwrap());
    assert!(services_d::remove(&files.main(), "broken_too").unwrap());
    files.load().unwrap();
}

#[test]
fn the_first_file_is_right() {
    let files = Files::new("");
    let main = files.path("new/brk.toml");
    assert!(config::init(&main).unwrap());
    let settings = config::load(&main).unwrap();
    assert!(settings.services.is_empty());
    services_d::put(&main, "orders", &table("upstream = \"http://h\"")).unwrap();
    assert_eq!(config::load(&main).unwrap().services.len(), 1);
}

fn duration() -> impl Strategy<Value = Duration> {
    (1..100_000_000_000_000u64).prop_map(Duration::from_nanos)
}

fn file() -> impl Strategy<Value = PathBuf> {
    select(&["/state", "/a b/\"c\"", "/\u{fc}/d.e"][..]).prop_map(PathBuf::from)
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let url = select(&["http://h", "https://h.example.com:8443/v1/x", "http://[::1]:80/"][..]);
    let protocol = select(&[Protocol::Auto, Protocol::Http1, Protocol::Http2][..]);
    (url, protocol, any::<bool>(), 0..1_000usize).prop_map(
        |(url, protocol, preserve_host, max_idle)| {
            let url = url.parse().unwrap();
            Upstream { url, protocol, preserve_host, ca_file: None, ca: Vec::new(), max_idle }
        },
    )
}

fn respond() -> impl Strategy<Value = Respond> {
    let header = (select(&["x-a", "x-b", "cache-control"][..]), "[ -~]{1,9}");
    let headers = collection::vec(header, 0..4).prop_map(|headers| {
        let header = |(name, value): (&'static str, String)| {
            (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap())
        };
        headers.into_iter().map(header).collect::<HeaderMap>()
    });
    let body = ("[ -z\n\t\u{e9}]{0,20}", select(&["text/html", "a/b; c=\"d\""][..]));
    (200..600u16, any::<bool>(), headers, option::of(body)).prop_map(
        |(status, retry_after, headers, body)| {
            let has_none = matches!(status, 204 | 205 | 304);
            let body = body.filter(|_| !has_none).map(|(source, content_type)| Template {
                content_type: content_type.to_owned(),
                source,
            });
            let status = StatusCode::from_u16(status).unwrap();
            Respond { status, retry_after, headers, body }
        },
    )
}

fn when_open() -> impl Strategy<Value = WhenOpen> {
    prop_oneof![
        respond().prop_map(WhenOpen::Respond),
        upstream().prop_map(WhenOpen::Fallback),
        (duration(), 1_024..1usize << 40, respond())
            .prop_map(|(ttl, max_size, respond)| WhenOpen::Stale { ttl, max_size, respond }),
        Just(WhenOpen::Close),
    ]
}

#[test]
fn a_caller_who_goes_away_is_neutral_unless_said_otherwise() {
    for (written, read) in [
        ("", "cancellation = \"neutral\""),
        ("cancellation = \"neutral\"", "cancellation = \"neutral\""),
        ("cancellation = \"by_age\"", "cancellation = \"by_age\""),
    ] {
        let files = Files::new("[services.a]\nupstream = \"http://a\"");
        files.write("services.d/b.toml", &format!("upstream = \"http://b\"\n[circuit]\n{written}"));
        let settings = files.load().unwrap();
        let shown = |config: &Config| toml::to_string(config).unwrap();
        assert!(shown(&settings.services["a"].circuit).contains("cancellation = \"neutral\""));
        assert!(shown(&settings.services["b"].circuit).contains(read), "{written}");
    }
}

fn circuit() -> impl Strategy<Value = Config> {
    let window = prop_oneof![
        (20..1_000u32).prop_map(Window::count),
        (1..100u64).prop_map(|seconds| Window::time(Duration::from_secs(seconds))),
    ];
    let rate = option::of(0.000_001..1.0f64);
    let slow = option::of((duration(), 0.000_001..1.0f64));
    let waits = (1..1_000u64, 0..1_000u64, 1.0..9.0f64, 0.0..0.9f64);
    let probes = (1..9u32, option::of(duration()));
    (window, rate, option::of(1..20u32), slow, waits, probes, option::of(duration())).prop_map(
        |(window, rate, row, slow, (initial, more, factor, jitter), (permits, lease), ramp)| {
            let (initial, max) =
                (Duration::from_secs(initial), Duration::from_secs(initial + more));
            let backoff = Backoff::exponential(initial, max).factor(factor).jitter(jitter);
            let mut probes = Probes::new(permits);
            if let Some(lease) = lease {
                probes = probes.lease(lease);
            }
            let mut builder = Config::builder("x").window(window).open_for(backoff).probes(probes);
            match rate {
                Some(rate) => builder = builder.failure_rate(rate),
                None => builder = builder.no_failure_rate().consecutive_failures(3),
            }
            if let Some(row) = row {
                builder = builder.consecutive_failures(row);
            }
            if let Some((threshold, share)) = slow {
                builder = builder.slow_calls(threshold, share);
            }
            if let Some(ramp) = ramp {
                builder = builder.ramp(ramp);
            }
            builder.build().unwrap()
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let timeouts = (duration(), duration(), duration(), option::of(duration()));
    let retry = option::of((2..11u32, 0.000_1..1.0f64));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let host = option::of(select(&["h.example.com", "[::1]", "10.0.0.1"][..]));
    (host, flags, upstream(), timeouts, retry, option::of(duration()), circuit(), when_open())
        .prop_map(
            |(host, flags, upstream, timeouts, retry, slow_is_failure, circuit, when_open)| {
                let (connect, head, body_idle, total) = timeouts;
                let (strip_prefix, upgrade, protect, until_end_of_body) = flags;
                let upgrade = upgrade && upstream.protocol != Protocol::Http2;
                Service {
                    name: "x".to_owned(),
                    route: Route {
                        host: host.map(Into::into),
                        prefix: "/x".to_owned(),
                        strip_prefix,
                    },
                    upstream,
                    timeouts: Timeouts { connect, head, body_idle, total },
                    upgrade,
                    retry: retry.map(|(attempts, budget)| Retry { attempts, budget }),
                    protect,
                    until_end_of_body,
                    slow_is_failure,
                    circuit,
                    when_open,
                }
            },
        )
}

fn target() -> impl Strategy<Value = Target> {
    let webhook =
        TargetKind::Webhook { url: "https://h/p?q=r".parse().unwrap(), secret_file: None };
    let email = TargetKind::Email {
        server: "smtps://u@h:465".to_owned(),
        password_file: None,
        ca_file: None,
        from: "B R K <brk@example.com>".to_owned(),
        to: vec!["a@b.example".to_owned(), "c@d.example".to_owned()],
    };
    (select(vec![webhook, email]), any::<bool>(), duration(), 1..99u32).prop_map(
        |(kind, is_about_one, cooldown, flapping)| {
            let services = if is_about_one { vec!["x".to_owned()] } else { Vec::new() };
            let (name, hold_down) = ("ops.1".to_owned(), Duration::ZERO);
            Target { name, kind, services, hold_down, cooldown, flapping }
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let server = (1..1_025usize, 1..99usize, duration(), 8_192..1usize << 32, any::<bool>());
    let proxies =
        select(vec![vec![], vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]]);
    let admin = (file(), select(vec![vec![], vec!["breaker.example.com".to_owned()]]));
    (server, proxies, admin, duration(), option::of(target()), service()).prop_map(
        |(server, trusted_proxies, (state, hosts), kept, target, service)| {
            let (workers, max_connections, drain, max_header_size, breaker_headers) = server;
            Settings {
                server: Server {
                    listen: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
                    workers,
                    max_connections,
                    header_timeout: kept,
                    max_header_size,
                    drain,
                    trusted_proxies,
                    breaker_headers,
                },
                admin: Admin { listen: "127.0.0.1:3".parse().unwrap(), hosts, state },
                history: History { events: kept, minutes: drain },
                notify: target.into_iter().collect(),
                services: BTreeMap::from([("x".to_owned(), Arc::new(service))]),
            }
        },
    )
}

fn read_back(text: &str) -> Settings {
    let read = Files::new(text).load();
    read.unwrap_or_else(|error| panic!("{error}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What `brk check` prints is the same configuration.
    #[test]
    fn what_is_printed_reads_as_what_it_is_of(mut settings in settings()) {
        // Bodies are tried when they are read; a fraction is kept to a millionth.
        let service = Arc::make_mut(settings.services.get_mut("x").unwrap());
        if let WhenOpen::Respond(respond) | WhenOpen::Stale { respond, .. } = &mut service.when_open {
            if let Some(body) = &mut respond.body {
                body.source = body.source.replace('{', "(");
            }
        }
        let text = settings.to_toml();
        let read = read_back(&text);
        prop_assert_eq!(format!("{read:#?}"), format!("{settings:#?}"), "{}", text);
        prop_assert_eq!(read.to_toml(), text);
    }
}

#[test]
fn the_defaults_can_be_printed() {
    let settings = Files::new(ORDERS).load().unwrap();
    let text = settings.to_toml();
    assert_eq!(format!("{:#?}", read_back(&text)), format!("{settings:#?}"), "{text}");
}

/// A program that writes services without end, and is killed at any moment.
#[test]
#[ignore = "it is the program that the next test starts"]
fn writer() {
    let Some(directory) = std::env::var_os("BRK_WRITER") else { return };
    let main = Path::new(&directory).join("brk.toml");
    for turn in 0u64.. {
        let name = format!("s{}", turn % 3);
        // Long, so that it can't be written in one go by chance.
        let body = format!("{turn}").repeat(4_000);
        let service = table(&format!(
            "upstream = \"http://h\"\nupgrade = {}\n[when_open.respond]\nbody = \"{body}\"",
            turn % 2 == 0
        ));
        if turn % 7 == 6 {
            services_d::remove(&main, &name).unwrap();
        } else {
            services_d::put(&main, &name, &service).unwrap();
        }
        println!("written");
    }
}

#[cfg(unix)]
#[test]
fn a_writer_that_is_killed_loses_nothing() {
    use std::{
        io::{BufRead, BufReader, Read},
        process::{Command, Stdio},
    };

    let files = Files::new(ORDERS);
    for round in 0..40 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env("BRK_WRITER", files.directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(writer.stdout.take().unwrap());
        let mut lines = said.by_ref().lines().map(Result::unwrap);
        // At another moment each time.
        let first = lines.by_ref().filter(|line| line == "written").nth(round % 5);
        assert!(first.is_some());
        (0..round * 20_000).for_each(|_| std::hint::spin_loop());
        // SIGKILL.
        writer.kill().unwrap();
        writer.wait().unwrap();

        let settings = files.load().unwrap_or_else(|error| panic!("{error}"));
        assert!(settings.services.contains_key("orders"));
        for service in settings.services.values().filter(|service| service.name != "orders") {
            let WhenOpen::Respond(respond) = &service.when_open else { unreachable!() };
            let body = &respond.body.as_ref().unwrap().source;
            assert_eq!(*body, body[..body.len() / 4_000].repeat(4_000), "half a file");
        }
        assert_eq!(files.read("brk.toml"), ORDERS);
    }
}
