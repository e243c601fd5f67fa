//! Which circuits are asked for, and in which order.

use std::cmp::Ordering;

use super::{
    fields::{Fields, OneOf, Query},
    refusal::Refusal,
    view::{Seen, state_word},
};
use crate::State;

const STATES: [&str; 3] = ["open", "half_open", "closed"];

/// Circuits by what is wanted of them; by default all.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    states: Option<Vec<String>>,
    is_overridden: Option<bool>,
    part_of_id: Option<String>,
}

impl Filter {
    pub(super) fn of_query(query: &mut Query) -> Result<Self, Refusal> {
        let states = query.text("state")?;
        let states = states.map(|said| said.split(',').map(str::to_owned).collect());
        let is_overridden = query.word("override", &["true", "false"])?.map(|word| word == "true");
        Self { states, is_overridden, part_of_id: query.text("q")? }.checked("state")
    }

    pub(super) fn of_fields(mut fields: Fields) -> Result<Self, Refusal> {
        let states = fields.texts("state")?;
        let part_of_id = fields.text("q")?;
        fields.finish()?;
        Self { states, is_overridden: None, part_of_id }.checked("filter.state")
    }

    fn checked(mut self, field: &str) -> Result<Self, Refusal> {
        let mut states = self.states.iter().flatten();
        if !states.all(|state| STATES.contains(&state.as_str())) {
            return Err(Refusal::invalid(field, &format!("must be of {}", OneOf(&STATES))));
        }
        self.part_of_id = self.part_of_id.map(|part| part.to_lowercase());
        Ok(self)
    }

    pub(super) fn is_met_by(&self, seen: &Seen) -> bool {
        let by_state = self
            .states
            .as_ref()
            .is_none_or(|states| states.iter().any(|state| state == state_word(seen.state)));
        let by_override = self
            .is_overridden
            .is_none_or(|wanted| wanted == seen.snapshot.active_override.is_some());
        let by_id =
            self.part_of_id.as_ref().is_none_or(|part| seen.id.to_lowercase().contains(part));
        by_state && by_override && by_id
    }
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Trouble,
    Name,
    Rate,
    Latency,
}

impl Sort {
    pub(super) fn of_query(query: &mut Query) -> Result<Self, Refusal> {
        let word = query.word("sort", &["trouble", "name", "rate", "latency"])?;
        Ok(match word {
            Some("name") => Self::Name,
            Some("rate") => Self::Rate,
            Some("latency") => Self::Latency,
            _ => Self::Trouble,
        })
    }

    pub(super) fn sort(self, all: &mut [Seen]) {
        let by_rate = |seen: &Seen| seen.vitals.rates.calls;
        let by_latency = |seen: &Seen| seen.vitals.latency.map(|latency| latency.p99);
        all.sort_by(|one, other| {
            let order = match self {
                Self::Trouble => trouble(other, one),
                Self::Name => Ordering::Equal,
                Self::Rate => by_rate(other).total_cmp(&by_rate(one)),
                Self::Latency => by_latency(other).cmp(&by_latency(one)),
            };
            order.then_with(|| one.id.cmp(&other.id))
        });
    }
}

/// Which is in more trouble: by what callers meet, then by whether an operator
/// has a hand in it, then by the share of calls that fail or are refused.
fn trouble(one: &Seen, other: &Seen) -> Ordering {
    let rank = |seen: &Seen| match seen.state {
        State::Open => 4,
        State::HalfOpen => 3,
        _ if seen.snapshot.state != State::Closed => 2,
        _ if seen.snapshot.active_override.is_some() => 1,
        _ => 0,
    };
    let share = |seen: &Seen| {
        let window = &seen.snapshot.window;
        let failed = window.failures as f64 / window.calls.max(1) as f64;
        let refused = seen.snapshot.admitted_share.map_or(0.0, |share| 1.0 - share);
        failed.max(refused)
    };
    rank(one).cmp(&rank(other)).then_with(|| share(one).total_cmp(&share(other)))
}

/// A stretch of the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) limit: usize,
    pub(super) offset: usize,
}

impl Part {
    pub(super) const ALL: Self = Self { limit: usize::MAX, offset: 0 };

    pub(super) fn of_query(query: &mut Query) -> Result<Self, Refusal> {
        const MOST: u64 = 1_000;
        const FARTHEST: u64 = u32::MAX as u64;
        let limit = query.number("limit", MOST)?.unwrap_or(100);
        let offset = query.number("offset", FARTHEST)?.unwrap_or(0);
        // Both fit: they are checked.
        Ok(Self { limit: limit as usize, offset: offset as usize })
    }
}
