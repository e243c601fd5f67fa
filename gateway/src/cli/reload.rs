//! `brk reload`.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use super::{Client, Error, Global, Output, show};

/// All or nothing: if a file is wrong, the gateway goes on as it was and this
/// says what is wrong. Every circuit keeps its state. The gateway does so by
/// itself when a file changes, and on SIGHUP.
#[derive(clap::Args, Debug)]
pub struct Reload {
    /// Why, for the events
    #[arg(long, default_value = "brk reload")]
    reason: String,
}

impl Reload {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let client = Client::new(global)?;
        let body = json!({ "reason": self.reason });
        let done = client.send(Method::POST, "reload", Some(&body)).await??;
        if global.output == Output::Json {
            show::json(&done)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut is_same = true;
        for what in ["added", "changed", "removed"] {
            for name in done[what].as_array().into_iter().flatten() {
                is_same = false;
                show::line(&format!("{what} {}", show::text(name)))?;
            }
        }
        for what in done["needs_restart"].as_array().into_iter().flatten() {
            show::line(&format!("{} waits for a restart", show::text(what)))?;
        }
        if is_same {
            show::line("read, and no service has changed")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
