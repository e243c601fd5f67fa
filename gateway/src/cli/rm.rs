//! `brk rm`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;

use super::{Error, Global, Output, add, ask};
use crate::config::{self, services_d};

/// Removes a service that `brk add` made, after asking. All but a yes is a no. A
/// running gateway is told; one that stands in a file written by hand is removed
/// there, by hand.
#[derive(clap::Args, Debug)]
pub struct Rm {
    /// Its name
    name: String,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Rm {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let (path, name) = (global.config_path(), &*self.name);
        if !services_d::has(&path, name)? {
            return Err(Error::new(format_args!("there is no service {name:?}")));
        }
        if !self.yes {
            // One that is broken can go, but not be described.
            let service = config::load(&path).ok().and_then(|it| it.services.get(name).cloned());
            let goes = service.map_or_else(String::new, |it| format!(" ({})", it.upstream.url));
            ask::confirm(&format!("Remove {name}{goes}?"), "--yes")?;
        }
        let was_there = services_d::remove(&path, name)?;
        let heard = add::reload(global, &format!("{name} is removed")).await?;
        let mut out = io::stdout();
        match global.output {
            Output::Json => writeln!(
                out,
                "{}",
                json!({ "removed": name, "was_there": was_there, "is_running": heard.is_running() })
            )?,
            Output::Table if was_there => writeln!(out, "{name} is removed")?,
            Output::Table => writeln!(out, "{name} was removed by somebody else meanwhile")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
