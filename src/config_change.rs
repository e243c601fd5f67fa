//! What one configuration says and another does not.

use std::fmt;

use crate::{
    ratio::Ratio,
    rules::{Cancellation, Rules},
};

/// A setting that is not what it was. `Display` says it in a few words:
/// `minimum_calls: 10 -> 20`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigChange {
    /// The setting: the name of a method of
    /// [`ConfigBuilder`](crate::ConfigBuilder).
    pub field: &'static str,
    /// What it was, in words.
    pub from: String,
    /// What it is, in words.
    pub to: String,
}

impl ConfigChange {
    /// What differs between two sets of rules, as far as it matters to a circuit
    /// that lives.
    pub(crate) fn between(old: &Rules, new: &Rules) -> Vec<Self> {
        settings(old)
            .into_iter()
            .zip(settings(new))
            .filter_map(|((field, from), (_, to))| Self::of(field, from, to))
            .collect()
    }

    pub(crate) fn of(field: &'static str, from: String, to: String) -> Option<Self> {
        (from != to).then_some(Self { field, from, to })
    }
}

fn settings(rules: &Rules) -> [(&'static str, String); 12] {
    let or_off = |words: Option<String>| words.unwrap_or_else(|| "off".to_owned());
    [
        ("window", rules.window.in_words()),
        ("minimum_calls", rules.minimum_calls.to_string()),
        ("failure_rate", or_off(rules.failure_rate.map(percent))),
        ("sustained_for", format!("{:?}", rules.sustained_for)),
        ("consecutive_failures", or_off(rules.consecutive_failures.map(|most| most.to_string()))),
        (
            "slow_calls",
            or_off(
                rules
                    .slow_calls
                    .map(|rule| format!("{} slower than {:?}", percent(rule.rate), rule.threshold)),
            ),
        ),
        ("throttle", or_off(rules.throttle.map(|throttle| throttle.in_words()))),
        ("warm_up", format!("{:?}", rules.warm_up)),
        ("open_for", rules.open_for.in_words()),
        ("probes", rules.probes.in_words()),
        ("ramp", or_off(rules.ramp.map(|over| format!("{over:?}")))),
        (
            "cancellation",
            match rules.cancellation {
                Cancellation::ByAge => "by age".to_owned(),
                Cancellation::Neutral => "neutral".to_owned(),
            },
        ),
    ]
}

/// To the last digit: what is not the same does not read the same.
fn percent(share: Ratio) -> String {
    format!("{} %", share.as_percent())
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.field, self.from, self.to)
    }
}
