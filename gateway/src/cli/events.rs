//! `brk events`, and the stream that it and `watch` read.

use std::{process::ExitCode, time::Duration};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{Client, Error, Global, Output, client, show};

/// A stream has something to say every second; one that is silent is dead.
const SILENCE: Duration = Duration::from_secs(15);

/// How long to wait before the gateway is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest event: all of 10,000 circuits have room.
const LONGEST: usize = 64 << 20;

/// With -f it goes on with what happens until it is broken off, also when the
/// gateway is restarted meanwhile, and says if it has missed something. With
/// `-o json` each event is a line.
#[derive(clap::Args, Debug)]
pub struct Events {
    /// Only of this service, or of the circuit with this id
    name: Option<String>,

    /// Go on with what happens
    #[arg(short, long)]
    follow: bool,

    /// How many of the latest to begin with
    #[arg(short = 'n', long, default_value_t = 20, value_name = "NUMBER")]
    latest: usize,
}

impl Events {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let client = Client::new(global)?;
        let (events, last) = self.past(&client).await?;
        if let (Some(name), true) = (&self.name, events.is_empty()) {
            // Perhaps there is no such circuit, and never was.
            client.get(&format!("circuits/{}", client::segment(name))).await?;
        }
        let first = events.len().saturating_sub(self.latest);
        events[first..].iter().try_for_each(|event| print(global, event))?;
        if !self.follow {
            return Ok(ExitCode::SUCCESS);
        }
        let mut follower = Follower::new(client, Some(last));
        let mut is_lost = false;
        loop {
            let told = follower.next().await?;
            if is_lost && told.name != LOST {
                show::aside("brk: the gateway is back");
            }
            is_lost = told.name == LOST;
            match (&*told.name, told.data) {
                ("event", event) if self.is_meant(&event) => print(global, &event)?,
                ("resync", data) => match data["missed"].as_u64() {
                    Some(0) | None => show::aside("brk: the gateway has been started anew"),
                    Some(missed) => show::aside(&format!("brk: {missed} events were missed")),
                },
                (LOST, why) => show::aside(&format!("brk: {}; waiting for it", show::text(&why))),
                _ => {}
            }
        }
    }

    fn is_meant(&self, event: &Value) -> bool {
        self.name.as_ref().is_none_or(|name| event["circuit_id"] == **name)
    }

    /// All there are, and the id to go on from.
    async fn past(&self, client: &Client) -> Result<(Vec<Value>, String), Error> {
        let of = match &self.name {
            Some(name) => format!("&circuit={}", client::segment(name)),
            None => String::new(),
        };
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let part = client.get(&format!("events?limit=1000&after={after}{of}")).await?;
            let last = part["last_id"].as_u64().unwrap_or_default();
            let epoch = part["epoch"].as_str().unwrap_or_default();
            let events = part["events"].as_array().cloned().unwrap_or_default();
            let is_last = events.len() < 1_000;
            after = events.last().and_then(|event| event["id"].as_u64()).unwrap_or(last);
            all.extend(events);
            if is_last {
                return Ok((all, format!("{epoch}-{last}")));
            }
        }
    }
}

fn print(global: &Global, event: &Value) -> Result<(), Error> {
    match global.output {
        Output::Json => show::json_line(event),
        Output::Table => show::line(&line(event)),
    }
}

/// When, and what, who and why.
pub fn line(event: &Value) -> String {
    let at = show::text(&event["at"]);
    // To the second.
    let at =
        at.split_once('.').map_or(at.trim_end_matches('Z'), |(whole, _)| whole).replace('T', " ");
    format!("{at}Z  {}", show::text(&event["sentence"]))
}

/// What a stream that is cut off is told to be, with why.
pub const LOST: &str = "lost";

/// One event of a stream.
#[derive(Debug)]
pub struct Told {
    pub name: String,
    pub data: Value,
}

/// Reads a stream, and begins again behind the last event where it breaks off.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    last: Option<String>,
    stream: Option<Stream>,
    /// Whether it has ever heard anything: a gateway that is not there at all is
    /// an error, and one that goes away is waited for.
    has_heard: bool,
    is_lost: bool,
}

impl Follower {
    /// From behind an event that the gateway has told, or from now on.
    pub fn new(client: Client, last: Option<String>) -> Self {
        let has_heard = last.is_some();
        Self { client, last, stream: None, has_heard, is_lost: false }
    }

    pub fn base(&self) -> &str {
        self.client.base()
    }

    /// What is told next; [`LOST`] once when it is cut off, and then what is
    /// told when the gateway is there again.
    ///
    /// # Errors
    ///
    /// If the gateway says no, or was never there.
    pub async fn next(&mut self) -> Result<Told, Error> {
        loop {
            let why = match self.listen().await {
                Ok(told) => {
                    (self.has_heard, self.is_lost) = (true, false);
                    if told.name != "end" {
                        return Ok(told);
                    }
                    match told.data["reason"].as_str() {
                        Some("shutdown") => "the gateway has stopped",
                        _ => "the gateway has ended the stream",
                    }
                    .to_owned()
                }
                Err(error) if self.has_heard && error.is_unreachable() => error.to_string(),
                Err(error) => return Err(error),
            };
            self.stream = None;
            if !std::mem::replace(&mut self.is_lost, true) {
                return Ok(Told { name: LOST.to_owned(), data: why.into() });
            }
            sleep(AGAIN).await;
        }
    }

    async fn listen(&mut self) -> Result<Told, Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let body = self.client.stream(self.last.as_deref()).await?;
                self.stream.insert(Stream::new(body))
            }
        };
        let told = match timeout(SILENCE, stream.next()).await {
            Ok(Some(told)) => told,
            Ok(None) => return Err(Error::unreachable("the stream of events broke off")),
            Err(_) => return Err(Error::unreachable("the gateway is silent")),
        };
        if let Some(id) = &stream.id {
            self.last = Some(id.clone());
        }
        Ok(told)
    }
}

/// Server-sent events, out of a body.
#[derive(Debug)]
struct Stream {
    body: Incoming,
    read: Vec<u8>,
    /// How far the line's end has been looked for.
    searched: usize,
    name: String,
    data: String,
    /// Of the last event that had one.
    id: Option<String>,
    coming: Option<String>,
}

impl Stream {
    fn new(body: Incoming) -> Self {
        let (name, data) = (String::new(), String::new());
        Self { body, read: Vec::new(), searched: 0, name, data, id: None, coming: None }
    }

    /// None at the end, and where it breaks off.
    async fn next(&mut self) -> Option<Told> {
        loop {
            while let Some(line) = self.line() {
                if let Some(told) = self.take(&line) {
                    return Some(told);
                }
            }
            if self.read.len() > LONGEST {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let Some(end) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.read.len();
            return None;
        };
        let line: Vec<u8> = self.read.drain(..=self.searched + end).collect();
        self.searched = 0;
        Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }

    fn take(&mut self, line: &str) -> Option<Told> {
        if line.is_empty() {
            if let Some(id) = self.coming.take() {
                self.id = Some(id);
            }
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let data = serde_json::from_str(&data).ok()?;
            return Some(Told { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => self.data.push_str(value),
            "id" => self.coming = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}
