//! `brk add`, `brk rm` and `brk check`, as a person or a script runs them.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use tempfile::TempDir;

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn service(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(&format!("services.d/{name}.toml"))).ok()
    }

    /// Where it can change nothing of whoever runs the tests.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.directory.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("BRK_CONFIG", self.path("brk.toml"))
            .current_dir(self.directory.path());
        command
    }

    fn brk(&self, arguments: &[&str]) -> Said {
        let config = self.path("brk.toml");
        let mut command = self.command(env!("CARGO_BIN_EXE_brk"));
        command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
        Said::of(&command.output().unwrap())
    }

    /// On a terminal, where somebody types this.
    #[cfg(target_os = "linux")]
    fn on_terminal(&self, arguments: &str, typed: &str) -> Said {
        let config = self.path("brk.toml");
        let line =
            format!("exec {} {arguments} --config {}", env!("CARGO_BIN_EXE_brk"), config.display());
        let mut command = self.command("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = command.spawn().unwrap();
        // Kept open: a terminal does not end.
        let mut keyboard = running.stdin.take().unwrap();
        keyboard.write_all(typed.as_bytes()).unwrap();
        let said = Said::of(&running.wait_with_output().unwrap());
        drop(keyboard);
        said
    }
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap();
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// An upstream that answers everything.
fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {}
            let _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    url
}

#[test]
fn a_url_is_protected_by_one_command() {
    let place = Place::new();
    let url = upstream();
    let said = place.brk(&["add", &url, "--name", "orders"]).done();
    assert_eq!(place.service("orders").unwrap(), format!("upstream = \"{url}/\"\n"));
    assert!(said.out.contains("http://127.0.0.1:8080/orders ->"), "{said:?}");
    assert!(said.out.contains("curl -i http://127.0.0.1:8080/orders\n"), "{said:?}");
    assert!(said.out.contains("serve"), "{said:?}");
    assert_eq!(said.err, "");

    // Nobody loses a service to a typing error.
    let said = place.brk(&["add", "http://other", "--name", "orders", "--no-try"]);
    assert_eq!(said.code, 1);
    assert_eq!(
        said.err,
        "brk: there is a service \"orders\" already; --replace changes it, --name gives another\n"
    );
    let arguments = ["add", "http://other", "--name", "orders", "--no-try", "--replace"];
    let more = ["--set", "circuit.failure_rate=0.3", "--timeout", "2s", "-o", "json"];
    let said = place.brk(&[&arguments[..], &more[..]].concat()).done();
    let said: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said["upstream"], "http://other/");
    assert_eq!(said["is_running"], false);
    assert!(said["answers"].is_null());
    assert_eq!(
        place.service("orders").unwrap(),
        "upstream = \"http://other/\"\n\n[circuit]\nfailure_rate = 0.3\n\n[timeouts]\nhead = \"2s\"\n"
    );
}

#[test]
fn a_name_is_proposed_that_is_free() {
    let place = Place::new();
    for name in ["orders", "orders-2", "orders-3"] {
        place.brk(&["add", "http://orders.example.com/", "--no-try"]).done();
        assert!(place.service(name).is_some(), "{name}");
    }
}

#[test]
fn an_upstream_that_does_not_answer_is_a_warning() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let said = place.brk(&["add", &url, "--name", "a"]).done();
    assert!(said.err.starts_with(&format!("warning: {url}/ does not answer: ")), "{said:?}");
    assert!(said.err.to_lowercase().contains("connection refused"), "{said:?}");
    assert!(place.service("a").is_some());
}

#[test]
fn what_would_be_wrong_is_not_added() {
    let place = Place::new();
    for (arguments, code, why) in [
        (vec![], 2, "nobody is there to be asked: say a URL"),
        (vec!["orders"], 2, "it begins with http:// or https://"),
        (vec!["http://h", "--name", "a b"], 1, "the name of a service must be 1 to 64"),
        (vec!["http://h", "--path", "x"], 1, "services.h.path: is \"x\", but must be a path"),
        (vec!["http://h", "--set", "circuit.failure_rat=1"], 1, "did you mean `failure_rate`?"),
        (vec!["http://h", "--set", "retry"], 2, "--set is \"retry\", but must be KEY=VALUE"),
        (vec!["http://h", "--fallback", "h"], 1, "services.h.when_open.fallback: is \"h\""),
    ] {
        let said = place.brk(&[&["add", "--no-try"], &arguments[..]].concat());
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.starts_with("brk: ") && said.err.contains(why), "{said:?}");
        assert!(!place.path("services.d").exists(), "{arguments:?}");
    }
}

#[test]
fn a_service_goes_only_if_somebody_says_so() {
    let place = Place::new();
    place.brk(&["add", "http://h", "--name", "a", "--no-try"]).done();
    // A script that forgot to say it.
    let said = place.brk(&["rm", "a"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("--yes"), "{said:?}");
    assert!(place.service("a").is_some());
    #[cfg(target_os = "linux")]
    for no in ["n\n", "no\n", "\n", "maybe\n", "\x04"] {
        let said = place.on_terminal("rm a", no);
        assert_eq!(said.code, 6, "{said:?}");
        assert!(said.out.contains("Remove a (http://h/)? [y/N]"), "{said:?}");
        assert!(place.service("a").is_some(), "{no:?}");
    }
    #[cfg(target_os = "linux")]
    {
        assert_eq!(place.on_terminal("rm a", "y\n").code, 0);
        assert!(place.service("a").is_none());
        place.brk(&["add", "http://h", "--name", "a", "--no-try"]).done();
    }
    place.brk(&["rm", "a", "--yes"]).done();
    assert!(place.service("a").is_none());
    let said = place.brk(&["rm", "a", "--yes"]);
    assert_eq!((said.code, &*said.err), (1, "brk: there is no service \"a\"\n"));
}

#[test]
fn what_is_written_by_hand_is_changed_by_hand() {
    let place = Place::new();
    let text = "# Mine.\n[services.a]\nupstream = \"http://h\"\n";
    fs::write(place.path("brk.toml"), text).unwrap();
    let stands = "brk.toml:2: services.a: stands in a file that is written by hand";
    for arguments in
        [&["rm", "a", "--yes"][..], &["add", "http://g", "--name", "a", "--replace", "--no-try"]]
    {
        let said = place.brk(arguments);
        assert_eq!(said.code, 1);
        assert!(said.err.contains(stands), "{said:?}");
    }
    place.brk(&["add", "http://g", "--name", "b", "--no-try"]).done();
    assert_eq!(fs::read_to_string(place.path("brk.toml")).unwrap(), text);
}

#[cfg(target_os = "linux")]
#[test]
fn the_wizard_asks_and_proposes() {
    let place = Place::new();
    let url = upstream();
    // A URL it can't be, the URL, a name, and the rest as it is proposed.
    let typed = format!("{}\n{url}\norders\n\n\n\n", &url[7..]);
    let said = place.on_terminal("add", &typed).done();
    assert!(said.out.contains("it begins with http:// or https://"), "{said:?}");
    assert!(said.out.contains("(127.0.0.1) answers 200 OK"), "{said:?}");
    assert!(said.out.contains("The path to call it by [/orders]"), "{said:?}");
    assert!(said.out.contains("curl -i http://127.0.0.1:8080/orders"), "{said:?}");
    let text = place.service("orders").unwrap();
    assert_eq!(text, format!("path = \"/orders\"\nupstream = \"{url}/\"\n"));

    let typed = format!("{url}\nbills\n/b\n3s\nn\n");
    assert_eq!(place.on_terminal("add", &typed).code, 6);
    assert!(place.service("bills").is_none());
}

#[test]
fn a_check_prints_what_is_at_work_or_all_that_is_wrong() {
    let place = Place::new();
    let main = place.path("brk.toml");
    fs::write(&main, "[admin]\nstate = \"state\"\n[services.a]\nupstream = \"http://h\"\n")
        .unwrap();
    let said = place.brk(&["check"]).done();
    let settings = brk::config::load(&main).unwrap();
    assert_eq!(said.out, settings.to_toml());
    assert_eq!(place.brk(&["check", "--quiet"]).done().out, "");
    let said = place.brk(&["check", "-o", "json"]).done();
    let said: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said["services"]["a"]["circuit"]["failure_rate"], 0.5);

    fs::write(&main, "[server]\nworkers = 0\ndrian = \"1s\"\n").unwrap();
    let said = place.brk(&["check"]);
    let file = main.display();
    assert_eq!(said.code, 1);
    assert_eq!(
        said.err,
        format!(
            "brk: {file}:2: server.workers: is 0, but must be a whole number from 1 to 1024\n\
             {file}:3: server.drian: unknown key, did you mean `drain`?\n"
        )
    );
    assert_eq!(said.out, "");
}
