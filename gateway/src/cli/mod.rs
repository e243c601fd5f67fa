//! The command line: each command is a file, with its arguments and its `run`.

pub mod add;
mod ask;
pub mod check;
mod client;
mod error;
pub mod rm;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub use self::{client::Client, error::Error};

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
