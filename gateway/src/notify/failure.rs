//! Why a message did not arrive.

use std::{error::Error, fmt, time::Duration};

/// One line, in which no secret is.
#[derive(Debug)]
pub struct Failure {
    why: String,
    /// Whether it may work later.
    pub(super) is_transient: bool,
    /// The same message is sent again no sooner than then.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn transient(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_transient: true, retry_after: None }
    }

    pub(super) fn permanent(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_transient: false, retry_after: None }
    }

    pub(super) const fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::message::one_line(&self.why))
    }
}

impl Error for Failure {}
