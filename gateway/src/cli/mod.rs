//! The command line: each command is a file, with its arguments and its `run`.

mod add;
mod ask;
mod check;
mod client;
mod error;
mod rm;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::{client::Client, error::Error};

/// Give it a URL, get a protected URL.
#[derive(Debug, Parser)]
#[command(name = "brk", version)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the configuration, and show it with all defaults
    Check(check::Check),
    /// Protect a URL
    Add(add::Add),
    /// Remove a service
    Rm(rm::Rm),
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// If it can't be done.
    pub async fn run(self) -> Result<ExitCode, Error> {
        let global = &self.global;
        match self.command {
            Command::Check(command) => command.run(global).await,
            Command::Add(command) => command.run(global).await,
            Command::Rm(command) => command.run(global).await,
        }
    }
}

/// What every command knows.
#[derive(Args, Clone, Debug)]
pub struct Global {
    #[arg(long, global = true)]
    pub config: Option<PathBuf>,
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

impl Global {
    pub fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| "/etc/brk/brk.toml".into())
    }
}
