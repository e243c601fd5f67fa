//! Why a command was not done, and the exit code that says so to a script.

use std::{fmt, io, process::ExitCode};

use super::show;
use crate::config;

/// What a person reads, and what a script goes by.
#[derive(Debug)]
pub struct Error {
    message: String,
    code: u8,
}

impl Error {
    /// It failed.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::with_code(1, message)
    }

    /// The command line can't be meant so.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::with_code(2, message)
    }

    /// It has changed since it was looked at.
    pub fn stale(message: impl fmt::Display) -> Self {
        Self::with_code(3, message)
    }

    /// The gateway does not answer.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Self::with_code(5, message)
    }

    /// Somebody said no.
    pub fn declined() -> Self {
        Self::with_code(6, "nothing was changed")
    }

    fn with_code(code: u8, message: impl fmt::Display) -> Self {
        // What is wrong with a file may quote it.
        Self { message: show::plain(&message.to_string()).into_owned(), code }
    }

    /// Whether the gateway did not answer.
    pub fn is_unreachable(&self) -> bool {
        self.code == 5
    }

    pub fn exit_code(&self) -> ExitCode {
        self.code.into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self::new(error)
    }
}

impl From<io::Error> for Error {
    /// Whoever reads no further has what they wanted.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::with_code(0, ""),
            _ => Self::new(error),
        }
    }
}
