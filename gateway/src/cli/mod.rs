//! The command line: each command is a file, with its arguments and its `run`.
//!
//! All but `serve`, `check`, `add`, `rm`, `token`, `completions` and `man` ask
//! a running gateway, through the operator's listener.

mod add;
mod ask;
mod check;
mod client;
mod completions;
mod dashboard;
mod error;
mod events;
mod flip;
mod list;
mod man;
mod reload;
mod rm;
mod serve;
mod show;
mod status;
mod token;
mod watch;

use std::{
    env,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::{client::Client, error::Error};
use crate::config::{self, Settings};

/// Said below every help, and in the man page.
const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  it failed, and the message says why
  2  the command line can't be meant so
  3  refused, because it has changed since it was looked at
  4  a checked circuit is not closed (`status --check`)
  5  the gateway can't be reached
  6  somebody said no at a prompt; nothing was changed";

/// Give it a URL, get a protected URL: a reverse proxy with a circuit breaker in
/// front of every service.
#[derive(Debug, Parser)]
#[command(name = "brk", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command knows.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "For every command")]
pub struct Global {
    /// The configuration; `services.d` is beside it [default: ./brk.toml if it
    /// is there, or else brk/brk.toml in the user's configuration, or
    /// /etc/brk/brk.toml for root]
    #[arg(long, global = true, env = "BRK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the operator's listener is [default: as configured]
    #[arg(long, global = true, env = "BRK_ADMIN", value_name = "URL")]
    pub admin: Option<String>,

    /// A file that holds the token [default: the one in the state directory]
    #[arg(long, global = true, env = "BRK_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How answers are shown
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,

    /// Whether to colour; `auto` does on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: what the gateway says, whole
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(serve::Serve),
    /// Check the configuration, and show it with all defaults
    Check(check::Check),
    /// Protect a URL
    Add(add::Add),
    /// Remove a service
    Rm(rm::Rm),
    /// List the services
    List(list::List),
    /// Show how circuits are, or check them before a deployment
    Status(status::Status),
    /// Open, close or hold a circuit
    Flip(flip::Flip),
    /// Show what happened, and with -f what happens
    Events(events::Events),
    /// Watch the circuits in the terminal
    Watch(watch::Watch),
    /// Have the running gateway read its configuration again
    Reload(reload::Reload),
    /// Print the token of the operator or the viewer
    Token(token::Token),
    /// Print the address of the page, with the token in it
    Dashboard(dashboard::Dashboard),
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Print the man page
    Man(man::Man),
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// If it can't be done; nothing was printed of that yet.
    pub async fn run(self) -> Result<ExitCode, Error> {
        let global = &self.global;
        match self.command {
            Command::Serve(command) => command.run(global).await,
            Command::Check(command) => command.run(global).await,
            Command::Add(command) => command.run(global).await,
            Command::Rm(command) => command.run(global).await,
            Command::List(command) => command.run(global).await,
            Command::Status(command) => command.run(global).await,
            Command::Flip(command) => command.run(global).await,
            Command::Events(command) => command.run(global).await,
            Command::Watch(command) => command.run(global).await,
            Command::Reload(command) => command.run(global).await,
            Command::Token(command) => command.run(global).await,
            Command::Dashboard(command) => command.run(global).await,
            Command::Completions(command) => command.run(global).await,
            Command::Man(command) => command.run(global).await,
        }
    }
}

impl Global {
    /// The main file of the configuration. It need not be there.
    pub fn config_path(&self) -> PathBuf {
        let given = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let here = || Some(PathBuf::from("brk.toml")).filter(|path| path.exists());
        let of_user = || {
            let own = || given("HOME").filter(|home| home != Path::new("/root"));
            given("XDG_CONFIG_HOME").or_else(|| Some(own()?.join(".config")))
        };
        self.config
            .clone()
            .or_else(here)
            .or_else(|| Some(of_user()?.join("brk/brk.toml")))
            .unwrap_or_else(|| "/etc/brk/brk.toml".into())
    }

    /// The configuration, read anew.
    ///
    /// # Errors
    ///
    /// If it is not as it must be.
    pub fn settings(&self) -> Result<Settings, Error> {
        Ok(config::load(&self.config_path())?)
    }

    /// Where operators find the gateway. Of a configuration that is wrong
    /// elsewhere it says so, and goes on: the gateway does, too.
    ///
    /// # Errors
    ///
    /// If that is not known.
    pub fn admin(&self) -> Result<config::Admin, Error> {
        let path = self.config_path();
        let error = match config::load(&path) {
            Ok(settings) => return Ok(settings.admin),
            Err(error) => error,
        };
        let admin = config::admin(&path).map_err(|_| {
            let hint = "--admin and --token-file say where the gateway is without it";
            Error::new(format_args!("{error}\n{hint}"))
        })?;
        let warning = "the configuration is wrong: `brk check` says where";
        show::aside(&format!("brk: warning: {warning}"));
        Ok(admin)
    }

    /// Whether what goes to the standard output is coloured.
    pub fn is_coloured(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let is_unwanted = env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
                let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
                !is_unwanted && !is_dumb && io::stdout().is_terminal()
            }
        }
    }
}
