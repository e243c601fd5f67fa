//! What happened to a registered circuit, as data and as one sentence.

use std::{fmt, sync::Arc, time::SystemTime};

use crate::{Override, Reconfigured, Transition};

/// Something that happened to a registered circuit. `Display` says it in one
/// sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Its number: one more than that of the event before, in the whole
    /// registry. The first is 1.
    pub id: u64,
    /// The calendar's time when it happened. Not always in the order of the
    /// numbers: what time alone did is told later, and a calendar may be set
    /// back.
    pub at: SystemTime,
    /// The circuit's name.
    pub circuit: Arc<str>,
    /// The circuit's key, if it is one of a group.
    pub key: Option<Arc<str>>,
    /// What it was.
    pub kind: EventKind,
}

impl Event {
    /// Whose it is, in one word: the circuit's name, and if it is one of a group
    /// a slash and the key, percent-encoded. In a path it is a segment once it is
    /// encoded as one; as it is, `hosts/..` would be another path.
    pub fn circuit_id(&self) -> String {
        id_of(&self.circuit, self.key.as_deref())
    }
}

/// The name, and the key behind a slash with everything encoded that is neither
/// a letter, a digit nor one of `-._~`.
pub(super) fn id_of(name: &str, key: Option<&str>) -> String {
    use fmt::Write;

    let mut id = name.to_owned();
    let Some(key) = key else { return id };
    id.push('/');
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            id.push(byte.into());
        } else {
            // A `String` takes everything.
            let _ = write!(id, "%{byte:02X}");
        }
    }
    id
}

/// What happened: see [`Event`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// The circuit came into the registry.
    Registered,
    /// The circuit left the registry. Nothing more is told of it but what
    /// somebody asked of it meanwhile.
    Removed,
    /// The circuit went from one state to another.
    Transition(Transition),
    /// An operator's override was laid over it.
    OverrideSet(Override),
    /// The override is over.
    #[non_exhaustive]
    OverrideCleared {
        /// Whether its time had come; otherwise somebody lifted it.
        expired: bool,
    },
    /// It goes by other rules.
    Reconfigured(Reconfigured),
    /// Somebody asked something of it: see
    /// [`Registry::record_command`](crate::Registry::record_command).
    Command(Command),
}

impl EventKind {
    /// The kind in lower case: `registered`, `removed`, `transition`,
    /// `override-set`, `override-cleared`, `reconfigured` or `command`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Removed => "removed",
            Self::Transition(_) => "transition",
            Self::OverrideSet(_) => "override-set",
            Self::OverrideCleared { .. } => "override-cleared",
            Self::Reconfigured(_) => "reconfigured",
            Self::Command(_) => "command",
        }
    }
}

/// What somebody asked of a circuit: what, who and why, for whoever looks
/// later.
///
/// ```
/// use tower_breaker::Command;
///
/// let command = Command::new("reset").by("alice").reason("deployed the fix");
/// assert_eq!(command.to_string(), "alice asked for `reset`: deployed the fix");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// What was asked for, in a word.
    pub action: String,
    /// Who asked.
    pub by: Option<String>,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl Command {
    /// A command by nobody in particular.
    pub fn new(action: impl Into<String>) -> Self {
        Self { action: action.into(), by: None, reason: None }
    }

    /// Says who asked.
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// Says why.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.by.as_deref().unwrap_or("an operator");
        write!(f, "{who} asked for `{}`", self.action)?;
        self.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EventKind::Transition(transition) => return transition.fmt(f),
            EventKind::Reconfigured(reconfigured) => return reconfigured.fmt(f),
            _ => {}
        }
        f.write_str(&self.circuit)?;
        self.key.iter().try_for_each(|key| write!(f, "[{key:?}]"))?;
        f.write_str(": ")?;
        match &self.kind {
            EventKind::Registered => f.write_str("it was registered"),
            EventKind::Removed => f.write_str("it was removed from the registry"),
            EventKind::OverrideSet(over) => {
                let owner = over.owner.as_deref().unwrap_or("an operator");
                write!(f, "{owner} set {}", over.kind.as_str())?;
                match over.expires_in {
                    Some(left) => write!(f, " for {left:.1?}")?,
                    None => f.write_str(" until it is cleared")?,
                }
                over.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
            EventKind::OverrideCleared { expired: true } => f.write_str("the override has run out"),
            EventKind::OverrideCleared { expired: false } => f.write_str("the override was lifted"),
            EventKind::Command(command) => command.fmt(f),
            // Told above.
            EventKind::Transition(_) | EventKind::Reconfigured(_) => Ok(()),
        }
    }
}
