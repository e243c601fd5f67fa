//! The real program, running, and what it can be asked.

#![allow(dead_code, reason = "each test uses a part of this")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// Lets a test that hangs fail.
pub const LONG: Duration = Duration::from_secs(30);

pub const TWO_SERVICES: &str = "\
[services.orders]
upstream = \"http://127.0.0.1:9\"

[services.payments]
upstream = \"http://127.0.0.1:9\"
host = \"pay.example\"
";

/// A directory with a configuration and state.
pub struct Place {
    directory: TempDir,
}

impl Place {
    /// With listeners at whatever ports are free.
    pub fn new(services: &str) -> Self {
        Self::at("127.0.0.1:0", services)
    }

    pub fn at(admin: &str, services: &str) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        place.write(&format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n\n[admin]\nlisten = \"{admin}\"\n\
             state = \"state\"\n\n{services}"
        ));
        place
    }

    pub fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Writes it behind what is there.
    pub fn add(&self, text: &str) {
        let before = fs::read_to_string(self.config()).unwrap();
        self.write(&format!("{before}\n{text}"));
    }

    pub fn config(&self) -> PathBuf {
        self.path("brk.toml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn token(&self, role: &str) -> String {
        let path = self.path(&format!("state/{role}.token"));
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// The program, with nothing of the environment that could tell it where.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brk"));
        for variable in ["BRK_CONFIG", "BRK_ADMIN", "BRK_TOKEN_FILE", "BRK_LOG", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command.env("BRK_CONFIG", self.config()).stdin(Stdio::null());
        command
    }

    pub fn start(self) -> Running {
        Running::of(self)
    }
}

/// A gateway, until it is dropped.
pub struct Running {
    pub place: Place,
    pub admin: String,
    pub programs: String,
    child: Child,
    log: Option<thread::JoinHandle<String>>,
}

impl Running {
    pub fn new() -> Self {
        Place::new(TWO_SERVICES).start()
    }

    fn of(place: Place) -> Self {
        let mut command = place.command();
        let mut child = command
            .args(["serve", "-o", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let _ = child.wait();
            panic!("it did not start: {}", log.join().unwrap());
        }
        let said: Value = serde_json::from_str(&line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (admin, programs) = (text(&said["admin"]), text(&said["listen"][0]));
        Self { place, admin, programs, child, log: Some(log) }
    }

    /// The program, told where this gateway is.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command();
        command.env("BRK_ADMIN", &self.admin).args(arguments);
        command
    }

    /// Runs a command to its end.
    pub fn brk(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().unwrap())
    }

    /// Runs it in a terminal, where somebody types.
    pub fn typed(&self, arguments: &str, typed: &str) -> Said {
        self.typed_at(arguments, "", typed)
    }

    /// The same, once something is to be read there.
    pub fn typed_at(&self, arguments: &str, at: &str, typed: &str) -> Said {
        let program = env!("CARGO_BIN_EXE_brk");
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--flush", "--return", "--command"]);
        // `exec`: some shells would stay around it, and say of an interrupt what
        // they think of it.
        terminal.arg(format!("exec {program} {arguments}")).arg("/dev/null");
        terminal.env("BRK_CONFIG", self.place.config()).env("BRK_ADMIN", &self.admin);
        terminal.env("TERM", "xterm").env_remove("NO_COLOR");
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = terminal.spawn().unwrap();
        let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, shown) = mpsc::channel();
        let reading = thread::spawn(move || {
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = screen.read(&mut part) {
                all.extend_from_slice(&part[..length]);
                let _ = tell.send(String::from_utf8_lossy(&all).into_owned());
            }
            String::from_utf8(all).unwrap()
        });
        while !at.is_empty() && !shown.recv_timeout(LONG).expect("it is shown").contains(at) {}
        keys.write_all(typed.as_bytes()).unwrap();
        let code = child.wait().unwrap().code().unwrap_or(-1);
        Said { code, out: reading.join().unwrap(), err: String::new() }
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end. What it has logged comes with it.
    pub fn end(mut self) -> (ExitStatus, String, Place) {
        let status = self.child.wait().unwrap();
        let log = self.log.take().unwrap().join().unwrap();
        let place =
            std::mem::replace(&mut self.place, Place { directory: tempfile::tempdir().unwrap() });
        (status, log, place)
    }

    pub fn ask(&self, ask: &Ask) -> Answer {
        ask.to(&self.admin)
    }

    /// As the operator.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask(&Ask::new("GET", path).token(&self.place.token("operator")));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    pub fn operator(&self, method: &str, path: &str, body: &Value) -> Answer {
        let ask = Ask::new(method, path).token(&self.place.token("operator"));
        self.ask(&ask.with("content-type", "application/json").body(body.to_string()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(child: &Child, name: &str) {
    let told = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(told.unwrap().success());
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("not JSON: {out}"))
    }

    #[track_caller]
    pub fn fails(self, code: i32, message: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(message), "{message:?} is not said: {self:?}");
        self
    }
}

/// A request that can be spoilt.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Ask {
    pub fn new(method: &str, path: &str) -> Self {
        let headers = vec![("host".to_owned(), "localhost".to_owned())];
        let (method, path) = (method.to_owned(), format!("/{path}"));
        Self { method, path, headers, body: String::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    pub fn body(self, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn to(&self, admin: &str) -> Answer {
        let mut connection = TcpStream::connect(admin.trim_start_matches("http://")).unwrap();
        connection.set_read_timeout(Some(LONG)).unwrap();
        let mut request =
            format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            request += &format!("content-length: {}\r\n", self.body.len());
        }
        request += "\r\n";
        request += &self.body;
        // One that is refused by its head may not be read to its end.
        let _ = connection.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), text: text.to_owned() }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// The lines that a program writes, as they come.
pub struct Lines {
    pub child: Child,
    lines: mpsc::Receiver<String>,
    told: Vec<String>,
}

impl Lines {
    /// Of its standard output and error.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let out: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for out in out {
            let tell = tell.clone();
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let _ = tell.send(line);
                }
            });
        }
        Self { child, lines, told: Vec::new() }
    }

    /// Waits for a line with this in it.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(LONG) {
                Ok(line) => {
                    self.told.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{text:?} is not told ({error}), but {:#?}", self.told),
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;

    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
