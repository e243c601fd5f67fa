//! `brk flip`.

use std::{fmt::Write as _, process::ExitCode};

use clap::ValueEnum;
use http::Method;
use serde_json::{Value, json};

use super::{
    Client, Error, Global, Output, ask,
    client::{self, Refused},
    events, show,
};

/// `open`, `half-open` and `closed` move the circuit once, and its rules go on
/// from there. `force-open`, `force-closed` and `observe` hold it for a time,
/// whatever its rules say; `auto` lets go of it.
///
/// `half-open` is for an open circuit only: it ends the wait, and the next calls
/// are probes. A closed one has nothing to probe.
///
/// It says what it will do, and asks. It is done only if the circuit is still as
/// it was shown; if not, it says what has changed, and ends with exit code 3.
#[derive(clap::Args, Debug)]
pub struct Flip {
    /// A service, or the id of a circuit
    name: String,

    /// What it is to be
    #[arg(value_enum)]
    to: To,

    /// How long to hold it: 30m, 1h, 2d, or until-cleared [default: 1h]
    #[arg(long = "for", value_name = "TIME")]
    lasting: Option<String>,

    /// Why, for whoever looks later; asked for on a terminal
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Only if its generation is this one, as `brk status` shows it
    #[arg(long, value_name = "NUMBER")]
    if_generation: Option<u64>,

    /// Don't ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// Opens it: calls are refused until its wait is over
    Open,
    /// Ends the wait of an open one: the next calls are probes
    HalfOpen,
    /// Closes it, and forgets what it has seen
    Closed,
    /// Holds it open: every call is refused
    ForceOpen,
    /// Holds it closed: every call passes, whatever becomes of it
    ForceClosed,
    /// Every call passes, and it only notes what it would have done
    Observe,
    /// Lets go of it: its rules decide
    Auto,
}

impl To {
    /// The kind of override that holds it so.
    fn held(self) -> Option<&'static str> {
        match self {
            Self::ForceOpen => Some("force_open"),
            Self::ForceClosed => Some("force_closed"),
            Self::Observe => Some("observe_only"),
            _ => None,
        }
    }

    /// What will become of it.
    fn promise(self, lasting: &str) -> String {
        match self {
            Self::Open => "it will open, and refuse every call until its wait is over".into(),
            Self::HalfOpen => "its wait will end, and the next calls will be probes".into(),
            Self::Closed => "it will close, and let every call pass".into(),
            Self::ForceOpen => format!("it will be held open {lasting}: every call is refused"),
            Self::ForceClosed => {
                format!("it will be held closed {lasting}: every call passes, even if all fail")
            }
            Self::Observe => {
                format!("it will only be observed {lasting}: every call passes, even if all fail")
            }
            Self::Auto => "it will be let go of, and its rules decide".into(),
        }
    }
}

impl Flip {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let lasting = self.lasting()?;
        if self.reason.is_none() && !ask::is_somebody_there() {
            return Err(Error::usage("why? Say --reason, for whoever looks later"));
        }
        let client = Client::new(global)?;
        let path = format!("circuits/{}", client::segment(&self.name));
        let mut seen = client.get(&path).await?;
        let circuit = seen["circuit"].take();
        let told = match self.if_generation {
            // Nobody knows what whoever saw it had been told.
            Some(_) => 0,
            None => seen["events"].as_array().map_or(0, |events| {
                events.iter().filter_map(|event| event["id"].as_u64()).max().unwrap_or_default()
            }),
        };
        self.check(&circuit)?;
        let name = show::text(&circuit["id"]);
        let sentence = show::text(&circuit["sentence"]);
        show::aside(&format!("{name} is {}: {sentence}", show::state_word(&circuit)));
        show::aside(&format!("{name}: {}", self.to.promise(&spoken(&lasting))));
        let reason = match self.reason {
            Some(reason) => reason,
            None => ask::line("Why", "--reason")?,
        };
        if !self.yes {
            ask::confirm("Do it?", "--yes")?;
        }
        let seen = self.if_generation.or(circuit["generation"].as_u64());
        let (method, action, mut body) = match (self.to, self.to.held()) {
            (_, Some(kind)) => {
                let body = json!({ "kind": kind, "expires_in": lasting });
                (Method::POST, "override", body)
            }
            (To::Auto, _) => (Method::DELETE, "override", json!({})),
            (To::Open, _) => (Method::POST, "transition", json!({ "to": "open" })),
            (To::HalfOpen, _) => (Method::POST, "transition", json!({ "to": "half_open" })),
            _ => (Method::POST, "transition", json!({ "to": "closed" })),
        };
        body["reason"] = reason.into();
        body["if_generation"] = seen.into();
        let done = client.send(method, &format!("{path}/{action}"), Some(&body)).await?;
        let done = done.map_err(|refused| self::refused(&name, seen, told, refused))?;
        if global.output == Output::Json {
            show::json(&done)?;
        } else {
            let circuit = &done["circuit"];
            let sentence = show::text(&circuit["sentence"]);
            show::line(&format!("{name} is {}: {sentence}", show::state_word(circuit)))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// How long, as the gateway reads it.
    fn lasting(&self) -> Result<String, Error> {
        match (&self.lasting, self.to.held()) {
            (Some(_), None) => Err(Error::usage(
                "--for is for force-open, force-closed and observe; the others happen once",
            )),
            (Some(text), _) if text == "until-cleared" => Ok("until_cleared".to_owned()),
            (Some(text), _) => match humantime::parse_duration(text) {
                Ok(_) => Ok(text.clone()),
                Err(_) => Err(Error::usage(format_args!(
                    "--for is {text:?}, but must be a time such as 30m, 1h or 2d, or until-cleared"
                ))),
            },
            (None, _) => Ok("1h".to_owned()),
        }
    }

    /// Refuses what would be nothing, before anybody is asked.
    fn check(&self, circuit: &Value) -> Result<(), Error> {
        let automatic = circuit["automatic_state"].as_str().unwrap_or_default();
        if self.to == To::HalfOpen && automatic != "open" {
            let state = automatic.replace('_', "-");
            return Err(Error::new(format_args!(
                "{} is {state} by its rules, and only an open circuit can be sent probes: \
                 `half-open` ends its wait; nothing was changed",
                show::text(&circuit["id"]),
            )));
        }
        if self.to == To::Auto && circuit["override"].is_null() {
            let name = show::text(&circuit["id"]);
            return Err(Error::new(format_args!(
                "nobody holds {name}: its rules decide already; nothing was changed"
            )));
        }
        Ok(())
    }
}

fn spoken(lasting: &str) -> String {
    match lasting {
        "until_cleared" => "until somebody clears it".to_owned(),
        time => format!("for {time}"),
    }
}

/// Why it was not done; what has changed since it was looked at.
fn refused(name: &str, seen: Option<u64>, told: u64, refused: Refused) -> Error {
    if refused.code != "stale_generation" {
        return refused.into();
    }
    let circuit = &refused.current["circuit"];
    let state = show::state_word(circuit);
    let mut said = format!("{name} has changed since it was looked at, and is {state} now");
    let _ = write!(said, ": {}", show::text(&circuit["sentence"]));
    let events = refused.current["events"].as_array().into_iter().flatten();
    for event in events.filter(|event| event["id"].as_u64() > Some(told)) {
        let _ = write!(said, "\n  {}", events::line(event));
    }
    let now = &circuit["generation"];
    if let Some(seen) = seen {
        let _ = write!(said, "\nits generation was {seen} and is {now}; nothing was changed");
    }
    Error::stale(said)
}
