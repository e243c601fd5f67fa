//! `brk completions`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Error, Global};

/// For bash: `brk completions bash > /etc/bash_completion.d/brk`.
#[derive(clap::Args, Debug)]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub async fn run(self, _: &Global) -> Result<ExitCode, Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "brk", &mut script);
        io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
