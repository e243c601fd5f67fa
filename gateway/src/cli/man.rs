//! `brk man`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::CommandFactory;
use clap_mangen::Man as Page;

use super::{Cli, Error, Global};

/// All commands are on one page: `brk man | man -l -`.
#[derive(clap::Args, Debug)]
pub struct Man {}

impl Man {
    pub async fn run(self, _: &Global) -> Result<ExitCode, Error> {
        let mut command = Cli::command();
        command.build();
        let mut page = Vec::new();
        Page::new(command.clone()).render(&mut page)?;
        for subcommand in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let own = Page::new(subcommand.clone());
            page.extend(format!(".SH BRK {}\n", subcommand.get_name().to_uppercase()).bytes());
            own.render_synopsis_section(&mut page)?;
            own.render_description_section(&mut page)?;
            own.render_options_section(&mut page)?;
        }
        io::stdout().write_all(&page)?;
        Ok(ExitCode::SUCCESS)
    }
}
