//! What the share of open keys says about the group as a whole.

use crate::{cause::Cause, config_error::ConfigError, ratio::Ratio};

/// What happens while too large a share of the keys is open: see
/// [`max_open_share`](crate::KeyedCircuitsBuilder::max_open_share).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Beyond {
    /// Refusals are not obeyed: the calls pass, and are counted in
    /// `would_reject`. They change nothing in their circuit; its probes do.
    FailOpen,
    /// Everything is refused but the probes of the keys that are open, which
    /// are the way back. Not where callers choose the keys: whoever makes enough
    /// of them fail shuts out the others.
    FailClosed,
}

/// How many keys must be open for the parent to open too: see
/// [`parent`](crate::KeyedCircuitsBuilder::parent).
///
/// ```
/// use tower_breaker::{Config, KeyedCircuits, Quorum};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// let circuits = KeyedCircuits::builder(Config::builder("shards").build()?)
///     .parent(Config::builder("cluster").build()?, Quorum::count(3))
///     .build()?;
/// for shard in 0_u64..3 {
///     circuits.get_or_create(shard).trip();
/// }
/// let open = circuits.try_acquire(7_u64).unwrap_err();
/// assert_eq!(open.name(), "cluster");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quorum(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Count(u64),
    Share(f64),
}

impl Quorum {
    /// So many open keys, of however many.
    pub const fn count(keys: u64) -> Self {
        Self(Kind::Count(keys))
    }

    /// This share of the keys, up to 1, once there are
    /// [`minimum_keys`](crate::KeyedCircuitsBuilder::minimum_keys).
    pub const fn share(share: f64) -> Self {
        Self(Kind::Share(share))
    }

    pub(super) fn is_share(self) -> bool {
        matches!(self.0, Kind::Share(_))
    }
}

/// The keys of a group at one instant. Open are those that are not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) open: u64,
    pub(super) keys: u64,
}

/// The largest share of open keys that is taken for theirs and not for ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// The smallest share that is too large, one part of a million above what
    /// is allowed.
    too_large: Ratio,
    minimum_keys: u64,
    pub(super) beyond: Beyond,
}

impl Guard {
    pub(super) fn new(share: f64, beyond: Beyond, minimum_keys: u64) -> Result<Self, ConfigError> {
        let too_large = Ratio::new(share).and_then(|_| Ratio::new((share + 1e-6).min(1.0)));
        match too_large {
            Some(too_large) if share < 1.0 => Ok(Self { too_large, minimum_keys, beyond }),
            _ => Err(ConfigError::new(
                "max_open_share",
                share,
                "must be at least 0.000001 and below 1",
            )),
        }
    }

    /// Whether too many are open. One alone never is.
    pub(super) fn is_exceeded(&self, census: Census) -> bool {
        let Census { open, keys } = census;
        open >= 2 && keys >= self.minimum_keys && self.too_large.reached_by(open, keys)
    }
}

/// A [`Quorum`] that has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) enum QuorumRule {
    Count(u64),
    Share { share: Ratio, minimum_keys: u64 },
}

impl QuorumRule {
    pub(super) fn new(
        quorum: Quorum,
        minimum_keys: u64,
        capacity: u64,
    ) -> Result<Self, ConfigError> {
        let refuse = |value: &dyn std::fmt::Display, expected: String| {
            Err(ConfigError::new("parent.quorum", value, expected))
        };
        match quorum.0 {
            Kind::Count(count) if (1..=capacity).contains(&count) => Ok(Self::Count(count)),
            Kind::Count(count) => {
                refuse(&count, format!("must be at least 1 and at most the capacity of {capacity}"))
            }
            Kind::Share(share) => match Ratio::new(share) {
                Some(share) => Ok(Self::Share { share, minimum_keys }),
                None => refuse(&share, "must be at least 0.000001 and at most 1".to_owned()),
            },
        }
    }

    /// Why the parent opens, if it does.
    pub(super) fn cause(&self, census: Census) -> Option<Cause> {
        let Census { open, keys } = census;
        let reaches = |open: u64| match self {
            Self::Count(count) => open >= *count,
            Self::Share { share, minimum_keys } => {
                keys >= *minimum_keys && share.reached_by(open, keys)
            }
        };
        // Counted down: it is done once an opening.
        let required = (1..=open).rev().take_while(|open| reaches(*open)).last()?;
        Some(Cause::Quorum { open, keys, required })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(share: f64) -> Guard {
        Guard::new(share, Beyond::FailOpen, 1).unwrap()
    }

    #[test]
    fn a_share_of_whole_keys_is_exceeded_by_one_more() {
        for keys in 2..=200u64 {
            for allowed in 1..keys {
                let guard = guard(allowed as f64 / keys as f64);
                for open in 2..=keys {
                    let is_exceeded = guard.is_exceeded(Census { open, keys });
                    assert_eq!(is_exceeded, open > allowed, "{open} of {keys}, {allowed} allowed");
                }
            }
        }
    }

    #[test]
    fn one_key_alone_never_exceeds() {
        assert!(!guard(0.000_001).is_exceeded(Census { open: 1, keys: 1 }));
        assert!(guard(0.000_001).is_exceeded(Census { open: 2, keys: 1_000_000 }));
    }

    #[test]
    fn a_share_that_nothing_exceeds_is_refused() {
        for share in [1.0, 0.999_999_9, f64::NAN, 0.0, -1.0, 1.5] {
            let built = Guard::new(share, Beyond::FailOpen, 1);
            assert_eq!(built.is_ok(), share == 0.999_999_9, "{share}");
        }
    }

    #[test]
    fn the_quorum_is_the_least_that_reaches_it() {
        for keys in 1..=100u64 {
            for needed in 1..=keys {
                let share = Quorum::share(needed as f64 / keys as f64);
                let rule = QuorumRule::new(share, 1, 1_000).unwrap();
                for open in 0..=keys {
                    let cause = rule.cause(Census { open, keys });
                    let expected =
                        (open >= needed).then_some(Cause::Quorum { open, keys, required: needed });
                    assert_eq!(cause, expected);
                }
            }
        }
    }
}
