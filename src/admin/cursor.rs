//! Where in the history of a registry a reader stands, as text: an event's
//! number, behind the registry's epoch, as `9f86d081884c7d65-17`.

use std::fmt;

use super::refusal::Refusal;
use crate::Registry;

/// A number that was not given, and never will be: whoever stands there is
/// told the whole history.
const OF_ANOTHER_LIFE: u64 = u64::MAX;

/// An event of one registry, and of no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    epoch: u64,
    id: u64,
}

impl Cursor {
    pub(super) fn new(registry: &Registry, id: u64) -> Self {
        Self { epoch: registry.epoch(), id }
    }

    /// The number to go on from in this registry. A number alone is taken for
    /// one of this registry.
    pub(super) fn read(text: &str, field: &str, registry: &Registry) -> Result<u64, Refusal> {
        let invalid = || {
            let expected = "must be the id of an event, as the stream has it, or its number";
            Refusal::invalid(field, expected)
        };
        let number = |text: &str, radix| {
            // `from_str_radix` takes a plus.
            let digits = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let number = u64::from_str_radix(text, radix).ok();
            number.filter(|_| digits).ok_or_else(invalid)
        };
        let Some((epoch, id)) = text.split_once('-') else { return number(text, 10) };
        let id = number(id, 10)?;
        Ok(if number(epoch, 16)? == registry.epoch() { id } else { OF_ANOTHER_LIFE })
    }
}

/// An epoch as it is told: a number of JSON could not hold it.
pub(super) fn epoch(registry: &Registry) -> String {
    format!("{:016x}", registry.epoch())
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.id)
    }
}
