//! `brk token`.

use std::process::ExitCode;

use serde_json::json;

use super::{Error, Global, Output, show};
use crate::admin::tokens::{self, Role};

/// The operator's token lets in whoever may steer, the viewer's whoever may look.
/// They are files in the state directory that nobody else may read, made when
/// they are first needed. A running gateway goes by a new one at once.
#[derive(clap::Args, Debug)]
pub struct Token {
    /// The one that lets look, and not steer
    #[arg(long)]
    viewer: bool,

    /// Make a new one; the old one lets nobody in any more, and its streams end
    #[arg(long)]
    rotate: bool,
}

impl Token {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let role = if self.viewer { Role::Viewer } else { Role::Operator };
        let state = global.admin()?.state;
        let path = tokens::path(&state, role);
        let token = if self.rotate { tokens::rotate(&path) } else { tokens::read_or_make(&path) };
        let token = token.map_err(Error::new)?;
        if global.output == Output::Json {
            let role = role.name();
            show::json(&json!({ "role": role, "file": path, "token": token }))?;
        } else {
            show::line(&token)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
