//! `brk man`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use clap_mangen::Man as Page;

use super::{Cli, EXIT_CODES, Error, Global};

/// All commands are on one page: `brk man | man -l -`.
#[derive(clap::Args, Debug)]
pub struct Man {}

impl Man {
    pub async fn run(self, _: &Global) -> Result<ExitCode, Error> {
        io::stdout().write_all(&page()?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn page() -> io::Result<Vec<u8>> {
    let mut program = Cli::command();
    program.build();
    let mut page = Vec::new();
    let own = Page::new(program.clone());
    own.render_title(&mut page)?;
    own.render_name_section(&mut page)?;
    own.render_synopsis_section(&mut page)?;
    own.render_description_section(&mut page)?;
    own.render_options_section(&mut page)?;
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        let mut section = Vec::new();
        let own = Page::new(without_global(command));
        own.render_synopsis_section(&mut section)?;
        own.render_description_section(&mut section)?;
        own.render_options_section(&mut section)?;
        writeln!(page, ".SH BRK {}", command.get_name().to_uppercase())?;
        let section = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
        page.extend_from_slice(section.as_bytes());
    }
    writeln!(page, ".SH EXIT CODES\n.nf")?;
    for line in EXIT_CODES.lines().skip(1) {
        writeln!(page, "{line}")?;
    }
    writeln!(page, ".fi")?;
    Ok(page)
}

/// The options that every command has are told once.
fn without_global(command: &Command) -> Command {
    command.clone().mut_args(|argument| {
        let is_global = argument.is_global_set();
        argument.hide(is_global)
    })
}
