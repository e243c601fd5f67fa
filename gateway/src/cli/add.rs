//! `brk add`.

use std::{
    io::{self, BufRead, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use clap::ValueEnum;
use http::{Method, Request, Uri};
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::crypto::ring;
use serde_json::json;
use tokio::{net::lookup_host, time::timeout};
use toml::{Table, Value};

use super::{Client, Error, Global, Output, ask, show};
use crate::{
    admin::tokens::{self, Role},
    config::{self, Service, Settings, http_url, services_d},
};

/// How long an upstream has to answer when it is tried.
const WITHIN: Duration = Duration::from_secs(5);

/// Puts a circuit in front of a URL, and prints the URL to call in its place. A
/// running gateway has it at once.
///
/// Without a URL, on a terminal, it asks for everything.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Add {
    /// Where its requests go, such as http://127.0.0.1:3000
    url: Option<String>,

    /// What it is called [default: after the URL's host]
    #[arg(long)]
    name: Option<String>,

    /// The path that programs call it by [default: /NAME, or / with --host]
    #[arg(long)]
    path: Option<String>,

    /// The host that programs call it by [default: any]
    #[arg(long)]
    host: Option<String>,

    /// Leave the path in front of what the upstream sees
    #[arg(long)]
    keep_prefix: bool,

    /// How the upstream is spoken to
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,

    /// How long it may take to answer, such as 5s
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,

    /// Where requests go while the circuit is open
    #[arg(long, value_name = "URL")]
    fallback: Option<String>,

    /// Any other setting, such as circuit.failure_rate=0.3; may be given often
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Change the service if there is one of this name
    #[arg(long)]
    replace: bool,

    /// Do not try whether the URL answers
    #[arg(long)]
    no_try: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Auto,
    Http1,
    Http2,
}

impl Add {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let path = global.config_path();
        // What is wrong is better known before questions are asked.
        let settings = if path.exists() { Some(config::load(&path)?) } else { None };
        let (add, tried) = self.complete(settings.as_ref()).await?;
        let name = add.name.clone().unwrap_or_default();
        let is_there = settings.is_some_and(|settings| settings.services.contains_key(&name));
        if is_there && !add.replace {
            return Err(Error::new(format_args!(
                "there is a service {name:?} already; --replace changes it, --name gives another"
            )));
        }
        let table = add.table()?;
        config::init(&path).map_err(|error| {
            Error::new(format_args!("{} can't be written: {error}", path.display()))
        })?;
        services_d::put(&path, &name, &table)?;
        let heard = reload(global, &format!("{name} is added")).await?;
        let settings = config::load(&path)?;
        // It was just written.
        let service = settings.services.get(&name).ok_or_else(|| Error::new("it was removed"))?;
        told(global, &path, &settings, service, tried, &heard)?;
        Ok(ExitCode::SUCCESS)
    }

    /// What is not said is asked, if there is somebody, or proposed. The second
    /// is how the upstream answered.
    async fn complete(
        mut self,
        settings: Option<&Settings>,
    ) -> Result<(Self, Option<Result<String, String>>), Error> {
        let is_taken = |name: &str| settings.is_some_and(|it| it.services.contains_key(name));
        let is_wizard = self.url.is_none();
        if is_wizard && !ask::is_somebody_there() {
            return Err(Error::usage(
                "nobody is there to be asked: say a URL, such as `brk add http://127.0.0.1:3000`",
            ));
        }
        let (input, output) = (&mut io::stdin().lock(), &mut io::stderr());
        let url = match &self.url {
            Some(url) => http_url(url).map_err(|why| wrong_url(url, &why))?,
            None => loop {
                let said = question(input, output, "The URL to protect", None)?;
                match http_url(&said) {
                    Ok(url) => break url,
                    Err(why) => writeln!(output, "{}", wrong_url(&said, &why))?,
                }
            },
        };
        self.url = Some(url.to_string());
        if self.name.is_none() {
            let mut name = name_of(&url);
            if is_taken(&name) && !self.replace {
                let others = (2..).map(|number| format!("{name}-{number}"));
                name = others.into_iter().find(|name| !is_taken(name)).unwrap_or_default();
            }
            if is_wizard {
                name = question(input, output, "Its name", Some(&name))?;
            }
            self.name = Some(name);
        }
        let tried = match self.no_try {
            true => None,
            false => Some(try_upstream(&url).await),
        };
        match &tried {
            Some(Err(why)) => show::aside(&format!("warning: {url} does not answer: {why}")),
            Some(Ok(how)) if is_wizard => writeln!(output, "{url} {how}")?,
            _ => {}
        }
        if is_wizard {
            let name = self.name.as_deref().unwrap_or_default();
            if self.path.is_none() && self.host.is_none() {
                let path = format!("/{name}");
                self.path = Some(question(input, output, "The path to call it by", Some(&path))?);
            }
            if self.timeout.is_none() {
                let most =
                    question(input, output, "The longest it may take to answer", Some("10s"))?;
                self.timeout = Some(most).filter(|most| most != "10s");
            }
            let summary = self.table()?;
            writeln!(output, "\nservices.d/{name}.toml:\n{summary}")?;
            let answer = question(input, output, "Add it? (y/n)", Some("y"))?;
            if !matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes") {
                return Err(Error::declined());
            }
        }
        Ok((self, tried))
    }

    /// As its file will be.
    fn table(&self) -> Result<Table, Error> {
        let mut table = Table::new();
        let mut set = |key: &str, value: Value| put(&mut table, key, value);
        if let Some(host) = &self.host {
            set("host", host.clone().into())?;
        }
        if let Some(path) = &self.path {
            set("path", path.clone().into())?;
        }
        if self.keep_prefix {
            set("strip_prefix", false.into())?;
        }
        let url = self.url.clone().unwrap_or_default();
        match self.protocol {
            None => set("upstream", url.into())?,
            Some(protocol) => {
                set("upstream.url", url.into())?;
                let protocol = protocol.to_possible_value();
                let protocol = protocol.map_or_else(String::new, |it| it.get_name().to_owned());
                set("upstream.protocol", protocol.into())?;
            }
        }
        if let Some(timeout) = &self.timeout {
            set("timeouts.head", timeout.clone().into())?;
        }
        if let Some(fallback) = &self.fallback {
            set("when_open.fallback", fallback.clone().into())?;
        }
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| {
                let right = "KEY=VALUE such as circuit.failure_rate=0.3";
                Error::usage(format_args!("--set is {setting:?}, but must be {right}"))
            })?;
            let value = value.trim();
            // A word needs no quotes.
            let parsed = toml::from_str::<Table>(&format!("value = {value}"));
            let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
            set(key.trim(), parsed.unwrap_or_else(|| value.into()))?;
        }
        Ok(table)
    }
}

/// Sets a key that may be in a table within.
fn put(table: &mut Table, key: &str, value: Value) -> Result<(), Error> {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let within = table.entry(first).or_insert_with(|| Table::new().into());
            let within = within.as_table_mut().ok_or_else(|| {
                Error::usage(format_args!("{first} is set to a value and to a table with {rest}"))
            })?;
            put(within, rest, value)?;
        }
    }
    Ok(())
}

fn wrong_url(url: &str, why: &str) -> Error {
    let right = "a URL such as http://127.0.0.1:3000";
    Error::usage(format_args!("the URL is {url:?}, but must be {right} ({why})"))
}

/// Asks for a line; an empty one is what is proposed.
fn question(
    input: &mut impl BufRead,
    output: &mut impl Write,
    question: &str,
    proposed: Option<&str>,
) -> Result<String, Error> {
    loop {
        match proposed {
            Some(proposed) => write!(output, "{question} [{proposed}]: ")?,
            None => write!(output, "{question}: ")?,
        }
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            // Whoever leaves has not said yes.
            return Err(Error::declined());
        }
        match (line.trim(), proposed) {
            ("", None) => {}
            ("", Some(proposed)) => return Ok(proposed.to_owned()),
            (line, _) => return Ok(line.to_owned()),
        }
    }
}

/// `orders` for `http://orders.example.com/`; an address keeps its port.
fn name_of(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    let first = host.split('.').next().unwrap_or_default();
    let is_name = host.parse::<IpAddr>().is_err() && !host.starts_with('[');
    let name = match (is_name && host != "localhost", url.port_u16()) {
        (true, _) => first.to_owned(),
        (false, Some(port)) => format!("{host}-{port}"),
        (false, None) => host.to_owned(),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = name.replace(|c| !allowed(c), "-").to_ascii_lowercase();
    let name: String = name.trim_start_matches(['.', '_', '-']).chars().take(64).collect();
    if name.is_empty() { "service".to_owned() } else { name }
}

/// Whether it resolves, and what it answers; or why not.
async fn try_upstream(url: &Uri) -> Result<String, String> {
    let trying = async {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = lookup_host((host, port)).await;
        let address = addresses
            .map_err(|error| format!("{host} can't be resolved: {error}"))?
            .next()
            .ok_or_else(|| format!("{host} has no address"))?
            .ip();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(ring::default_provider())
            .map_err(|error| error.to_string())?
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let client = legacy::Client::builder(TokioExecutor::new()).build(https);
        let request = Request::builder().method(Method::GET).uri(url.clone());
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let response = client.request(request).await.map_err(|error| innermost(&error))?;
        Ok(format!("({address}) answers {}", response.status()))
    };
    let late = |_| format!("nothing came within {} s", WITHIN.as_secs());
    timeout(WITHIN, trying).await.map_err(late)?
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Whether a running gateway has heard of a change.
pub(super) enum Heard {
    Yes,
    /// None has ever run here.
    Nobody,
    /// There may be one, and why that is not known.
    Perhaps(Error),
}

impl Heard {
    pub(super) fn is_running(&self) -> Option<bool> {
        match self {
            Self::Yes => Some(true),
            Self::Nobody => Some(false),
            Self::Perhaps(_) => None,
        }
    }
}

/// Has a running gateway read the files, if there is one, after something was
/// done to them.
pub(super) async fn reload(global: &Global, done: &str) -> Result<Heard, Error> {
    let client = match Client::new(global) {
        Ok(client) => client,
        Err(_) if has_never_run(global) => return Ok(Heard::Nobody),
        Err(error) => return Ok(Heard::Perhaps(error)),
    };
    let reason = json!({ "reason": "services.d was changed" });
    let error = match client.send(Method::POST, "reload", Some(&reason)).await {
        Ok(Ok(_)) => return Ok(Heard::Yes),
        Ok(Err(refused)) => Error::from(refused),
        Err(error) => error,
    };
    if error.is_unreachable() {
        return Ok(Heard::Perhaps(error));
    }
    // It may have seen by itself that the files have changed.
    Err(Error::new(format_args!("{done}, but the gateway has not said that it follows: {error}")))
}

/// It makes its tokens first.
fn has_never_run(global: &Global) -> bool {
    let is_without = |state: &Path| {
        let is_there = |role| tokens::path(state, role).try_exists();
        [Role::Operator, Role::Viewer].into_iter().all(|role| is_there(role).is_ok_and(|is| !is))
    };
    let admin = config::admin(&global.config_path());
    global.token_file.is_none() && admin.is_ok_and(|admin| is_without(&admin.state))
}

fn told(
    global: &Global,
    path: &Path,
    settings: &Settings,
    service: &Service,
    tried: Option<Result<String, String>>,
    heard: &Heard,
) -> Result<(), Error> {
    let Service { name, route, upstream, .. } = service;
    let listen = settings.server.listen.first().copied();
    let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    let url = route.url(listen);
    let file = path.with_file_name("services.d").join(format!("{name}.toml"));
    let mut out = io::stdout();
    if global.output == Output::Json {
        let said = json!({
            "name": name,
            "url": url,
            "host": route.host,
            "upstream": upstream.url.to_string(),
            "answers": tried.map(|tried| tried.is_ok()),
            "file": file,
            "is_running": heard.is_running(),
        });
        return Ok(writeln!(out, "{said}")?);
    }
    writeln!(out, "{name} is protected: {url} -> {}", upstream.url)?;
    let config = match &global.config {
        Some(config) => format!(" --config {}", config.display()),
        None => String::new(),
    };
    match heard {
        Heard::Yes => {}
        Heard::Nobody => writeln!(out, "No gateway runs yet; start it:\n  brk{config} serve")?,
        Heard::Perhaps(why) => writeln!(
            out,
            "It could not be told to a gateway: {why}.\nIf none runs, start it:\n  brk{config} serve"
        )?,
    }
    // Its name may lead elsewhere, or nowhere yet.
    let resolve = route.host.as_ref().map_or_else(String::new, |host| {
        format!("--resolve {host}:{}:{} ", listen.port(), config::here(listen).ip())
    });
    Ok(writeln!(out, "Try it:\n  curl -i {resolve}{url}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_service_may_have() {
        for (url, name) in [
            ("http://orders.example.com", "orders"),
            ("https://orders", "orders"),
            ("http://localhost:3000", "localhost-3000"),
            ("http://10.0.0.5:8080/v1", "10.0.0.5-8080"),
            ("http://10.0.0.5", "10.0.0.5"),
            ("http://[::1]:80", "1--80"),
        ] {
            assert_eq!(name_of(&url.parse().unwrap()), name, "{url}");
        }
    }

    #[test]
    fn settings_go_into_their_tables() {
        let add = Add {
            url: Some("http://h/".to_owned()),
            timeout: Some("2s".to_owned()),
            set: ["circuit.failure_rate=0.3", "timeouts.total = 1m", "upgrade=true"]
                .map(str::to_owned)
                .to_vec(),
            ..Add::default()
        };
        let expected: Table = toml::from_str(
            "upstream = \"http://h/\"\nupgrade = true\n[timeouts]\nhead = \"2s\"\ntotal = \"1m\"\n\
             [circuit]\nfailure_rate = 0.3",
        )
        .unwrap();
        assert_eq!(add.table().unwrap(), expected);
        for wrong in ["circuit", "upstream.url=http://h"] {
            let set = vec![wrong.to_owned()];
            assert!(Add { set, ..add.clone() }.table().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_line_is_what_was_proposed_and_the_end_is_a_no() {
        let mut input = &b"\nsaid \n\n\n"[..];
        let mut output = Vec::new();
        assert_eq!(question(&mut input, &mut output, "Name", Some("a")).unwrap(), "a");
        assert_eq!(question(&mut input, &mut output, "Name", Some("a")).unwrap(), "said");
        assert!(question(&mut input, &mut output, "Name", None).is_err());
        let asked = String::from_utf8(output).unwrap();
        assert_eq!(asked, "Name [a]: Name [a]: Name: Name: Name: ");
    }
}
