//! The program `brk`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use brk::cli::{Cli, Command};
use clap::Parser;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match cli.command {
        // Beside the workers, which carry the requests: for operators, files and
        // notifications.
        Command::Serve(_) => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        _ => Builder::new_current_thread().enable_all().build(),
    };
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        let done = runtime.block_on(cli.run());
        // A look-up of a name can't be broken off, and nobody waits for it now.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        let message = error.to_string();
        if !message.is_empty() {
            // Nobody may be reading.
            let _ = writeln!(io::stderr(), "brk: {message}");
        }
        error.exit_code()
    })
}
