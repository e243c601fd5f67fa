//! `brk dashboard`.

use std::process::{Command, ExitCode, Stdio};

use serde_json::json;

use super::{Error, Global, Output, client, show};
use crate::admin::tokens::Role;

/// The token stands behind a `#`, which no browser sends: neither a server nor a
/// proxy in between sees it. Whoever has the address may come in.
#[derive(clap::Args, Debug)]
pub struct Dashboard {
    /// With the token that lets look, and not steer
    #[arg(long)]
    viewer: bool,

    /// Open it in a browser, too; while that starts, others on this machine may
    /// see the address among its arguments
    #[arg(long)]
    open: bool,
}

impl Dashboard {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let role = if self.viewer { Role::Viewer } else { Role::Operator };
        let (base, token) = client::address_for(global, Some(role))?;
        let url = format!("{base}/#token={token}");
        if global.output == Output::Json {
            show::json(&json!({ "url": url }))?;
        } else {
            show::line(&url)?;
        }
        if self.open {
            open(&url)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// By what the system opens addresses with.
fn open(url: &str) -> Result<(), Error> {
    let (program, first): (_, &[&str]) = match std::env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"]),
        _ => ("xdg-open", &[]),
    };
    let status = Command::new(program)
        .args(first)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::new(format_args!("{program} could not open it: {status}"))),
        Err(error) => Err(Error::new(format_args!("{program} could not open it: {error}"))),
    }
}
