//! What a person writes, what they are told about it, and what is written for
//! them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
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
        &["brk.toml:2: admin.listen: is 0.0.0.0:9090, beyond loopback, so `hosts` must name what it \
           may be called by, such as [\"breaker.example.com\"]"],
    ),
    (
        "[admin]\nlisten = \"127.0.0.1:8080\"",
        &["brk.toml:2: admin.listen: is 127.0.0.1:8080, but must not be `server.listen` too"],
    ),
    (
        "[server]\nlisten = [\"127.0.0.1:8080\", \"0.0.0.0:8080\"]",
        &["brk.toml:1: server.listen: has 0.0.0.0:8080 twice"],
    ),
    ("a = = 1\n[server]\nworkers = 0", &[
        "brk.toml:1: this is not TOML: extra `=`, expected nothing",
        "brk.toml:3: server.workers: is 0, but must be a whole number from 1 to 1024",
    ]),
    ("[services.a b]\nupstream = 1", &["brk.toml:1: this is not TOML: unclosed table, expected `]`"]),
    (
        "[services.\"a b\"]\nupstream = \"http://h\"",
        &["brk.toml:1: services.a b: the name of a service must be 1 to 64 letters, digits, `.`, `_` \
           or `-`, and begin with a letter or a digit"],
    ),
    ("[services.orders]", &[
        "brk.toml:1: services.orders.upstream: is missing; write one such as \"http://127.0.0.1:3000\"",
    ]),
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
        "[services.a]\nupstream = \"http://h\"\npath = \"/x/\"\n[services.b]\nupstream = \"http://h\"\n\
         path = \"/x\"",
        &["brk.toml:4: services.b: has the route /x of `a` (brk.toml:1); give one of them another \
           `path` or `host`"],
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
        &["brk.toml:5: services.a.circuit.failure_rate: is 1.5, but must be at least 0.000001 and at \
           most 1"],
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
        &["brk.toml:3: services.a.when_open: has `fallback` and `close`, but must have one of them \
           (`respond` may be beside `stale`)"],
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
