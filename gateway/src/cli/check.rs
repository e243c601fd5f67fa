//! `brk check`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{Error, Global, Output};
use crate::config;

/// Prints the configuration with every default written, as one file that reads
/// as the same; or everything that is wrong with it, as `file:line: key: what
/// would be right`.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// Print nothing if it is right
    #[arg(short, long)]
    quiet: bool,
}

impl Check {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let settings = config::load(&global.config_path())?;
        if self.quiet {
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = settings.to_toml();
        if global.output == Output::Json {
            let table: toml::Table = toml::from_str(&text).map_err(Error::new)?;
            text = serde_json::to_string_pretty(&table).map_err(Error::new)? + "\n";
        }
        io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}
