//! Who may come in, and who may steer.

use std::{fmt, sync::Arc};

use constant_time_eq::constant_time_eq;
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};

use super::{fields::is_one_line, refusal::Refusal};
use crate::ConfigError;

/// Who asks, and whether they may steer or only look.
///
/// The name stands in the events of what they do.
///
/// ```
/// use tower_breaker::AdminIdentity;
///
/// assert!(AdminIdentity::operator("alice").can_write());
/// assert!(!AdminIdentity::viewer("wall screen").can_write());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminIdentity {
    who: Arc<str>,
    can_write: bool,
}

impl AdminIdentity {
    /// May look and steer.
    pub fn operator(who: impl Into<Arc<str>>) -> Self {
        Self { who: who.into(), can_write: true }
    }

    /// May look.
    pub fn viewer(who: impl Into<Arc<str>>) -> Self {
        Self { who: who.into(), can_write: false }
    }

    /// The name.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Whether they may steer.
    pub fn can_write(&self) -> bool {
        self.can_write
    }

    /// Whether an event can say who it was.
    fn has_name(&self) -> bool {
        !self.who.trim().is_empty() && is_one_line(&self.who)
    }

    /// The role in one word.
    pub(super) fn role(&self) -> &'static str {
        if self.can_write { "operator" } else { "viewer" }
    }
}

type Check = dyn Fn(&Parts) -> Option<AdminIdentity> + Send + Sync;

/// How it is found out who asks.
#[derive(Clone, Default)]
pub(super) struct Access {
    tokens: Vec<(AdminIdentity, Box<[u8]>)>,
    check: Option<Arc<Check>>,
    is_open: bool,
}

impl Access {
    pub(super) fn open() -> Self {
        Self { is_open: true, ..Self::default() }
    }

    pub(super) fn check(
        check: impl Fn(&Parts) -> Option<AdminIdentity> + Send + Sync + 'static,
    ) -> Self {
        Self { check: Some(Arc::new(check)), ..Self::default() }
    }

    pub(super) fn add_token(&mut self, identity: AdminIdentity, token: String) {
        self.tokens.push((identity, token.into_bytes().into()));
    }

    /// Refuses what would let the wrong ones in. No token is shown.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        const SHORTEST: usize = 16;
        const LONGEST: usize = 512;
        if self.is_open && !self.tokens.is_empty() {
            return Err(ConfigError::new(
                "insecure_no_auth",
                "with a bearer_token beside it",
                "must stand alone: it lets everybody in, with a token or without",
            ));
        }
        for (index, (identity, token)) in self.tokens.iter().enumerate() {
            let wrong = |value: fmt::Arguments<'_>, expected: &str| {
                let whose = format!("{value} for {:?}", identity.who);
                Err(ConfigError::new("bearer_token", whose, expected))
            };
            if !(SHORTEST..=LONGEST).contains(&token.len()) {
                return wrong(
                    format_args!("one of {} bytes", token.len()),
                    "must be 16 to 512 bytes long, and hard to guess",
                );
            }
            if !token.iter().all(u8::is_ascii_graphic) {
                return wrong(
                    format_args!("one with a space or a character beyond ASCII"),
                    "must be of visible ASCII characters, as a header is",
                );
            }
            if self.tokens[..index].iter().any(|(_, other)| other == token) {
                return wrong(
                    format_args!("one that somebody else has"),
                    "must be of one identity only, or nobody knows who did what",
                );
            }
            if !identity.has_name() {
                return wrong(
                    format_args!("one"),
                    "must be somebody's: the identity has no name that can be shown on one line",
                );
            }
        }
        Ok(())
    }

    /// Who sent this.
    pub(super) fn identify(&self, parts: &Parts) -> Result<AdminIdentity, Refusal> {
        if self.is_open {
            return Ok(AdminIdentity::operator("anonymous"));
        }
        let by_token = || self.by_token(bearer(&parts.headers)?);
        let by_check = || self.check.as_ref().and_then(|check| check(parts));
        let found = by_token().or_else(by_check).ok_or_else(Refusal::unauthorized)?;
        if found.has_name() { Ok(found) } else { Err(Refusal::nameless()) }
    }

    /// Compares with each token in a time that says nothing of their
    /// characters, nor of which it was.
    fn by_token(&self, sent: &[u8]) -> Option<AdminIdentity> {
        let mut found = None;
        for (identity, token) in &self.tokens {
            if constant_time_eq(token, sent) {
                found = Some(identity);
            }
        }
        found.cloned()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Redacted;
        impl fmt::Debug for Redacted {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[redacted]")
            }
        }
        let tokens = self.tokens.iter().map(|(identity, _)| (identity, Redacted));
        f.debug_struct("Access")
            .field("tokens", &tokens.collect::<Vec<_>>())
            .field("check", &self.check.is_some())
            .field("is_open", &self.is_open)
            .finish()
    }
}

/// What stands behind `Bearer` in the one `authorization` there is.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}
