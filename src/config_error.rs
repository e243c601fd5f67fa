//! What is wrong with a configuration.

use std::{error::Error, fmt};

/// A configuration that was refused: the field, its value, and what would be
/// right.
///
/// ```
/// use tower_breaker::Config;
///
/// let error = Config::builder("inventory").failure_rate(1.5).build().unwrap_err();
/// assert_eq!(error.field(), "failure_rate");
/// assert_eq!(
///     error.to_string(),
///     "failure_rate is 1.5, but must be at least 0.000001 and at most 1"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: String,
    expected: String,
}

impl ConfigError {
    pub(crate) fn new(
        field: &'static str,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self { field, value: value.to_string(), expected: expected.into() }
    }

    /// The setting at fault: the name of a method of
    /// [`ConfigBuilder`](crate::ConfigBuilder), and behind a dot that of the
    /// value it takes (`open_for.jitter`).
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value that was refused, as text.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, but {}", self.field, self.value, self.expected)
    }
}

impl Error for ConfigError {}
