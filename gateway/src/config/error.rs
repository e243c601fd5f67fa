//! What is wrong with a configuration: all of it, each with its place.

use std::{error, fmt, path::PathBuf};

/// Everything that is wrong with a configuration. `Display` has a line for
/// each [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    problems: Vec<Problem>,
}

/// One thing that is wrong: `file:line: key: what would be right`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; `None` if it is about the whole file.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// Such as `services.orders.timeouts.head`; empty if it is not about one.
    pub key: String,
    pub message: String,
}

impl Error {
    /// In the order of the files and lines; `None` if nothing is wrong.
    pub(crate) fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort();
        problems.dedup();
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// One that is about a whole file.
    pub(crate) fn about(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::from(Problem::about(file, message))
    }

    /// At least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Problem {
    pub(crate) fn about(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { file: file.into(), line: None, column: None, key: String::new(), message }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        self.line.iter().try_for_each(|line| write!(f, "{line}:"))?;
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

impl error::Error for Error {}

impl error::Error for Problem {}
