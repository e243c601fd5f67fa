//! What is measured, how each number is defined, and how it is shown.

use std::collections::BTreeMap;

use crate::run::median;

/// One kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Seconds to the first refusal.
    TimeToReject,
    /// Calls lost before it.
    Lost,
    /// What was sent in the trouble.
    SentInTrouble,
    /// Seconds to recover.
    Recovery,
    /// Wanted calls that succeeded.
    Goodput,
    /// The most that was sent, against what the dependency could do.
    OverloadPeak,
    /// Transitions a minute.
    Transitions,
    /// Openings in a million calls.
    Openings,
    /// Wanted calls that were refused.
    Refused,
    /// Openings for a hundred blips at one client.
    TrippedBlips,
    /// What the healthy shards' callers lost.
    HealthyLoss,
    /// What was sent to the dead shard.
    SentToDead,
    /// Probes a second, settled.
    Probes,
    /// Their peak over their mean.
    PeakOverMean,
    /// The most in any second from the first opening on.
    FirstPeak,
    /// Calls that hang when the first is refused.
    Stuck,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::TimeToReject,
        Self::Lost,
        Self::SentInTrouble,
        Self::Recovery,
        Self::Goodput,
        Self::OverloadPeak,
        Self::Transitions,
        Self::Openings,
        Self::Refused,
        Self::TrippedBlips,
        Self::HealthyLoss,
        Self::SentToDead,
        Self::Probes,
        Self::PeakOverMean,
        Self::FirstPeak,
        Self::Stuck,
    ];

    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::TimeToReject => "rejects after",
            Self::Lost => "calls lost before",
            Self::SentInTrouble => "sent in the outage",
            Self::Recovery => "recovers after",
            Self::Goodput => "goodput",
            Self::OverloadPeak => "overload peak",
            Self::Transitions => "transitions a minute",
            Self::Openings => "openings a million calls",
            Self::Refused => "refused",
            Self::TrippedBlips => "blips that trip it",
            Self::HealthyLoss => "healthy shards lose",
            Self::SentToDead => "dead shard receives",
            Self::Probes => "probes a second",
            Self::PeakOverMean => "peak over mean",
            Self::FirstPeak => "first peak",
            Self::Stuck => "calls stuck",
        }
    }

    /// What it means.
    pub fn definition(self) -> &'static str {
        match self {
            Self::TimeToReject => {
                "from the beginning of the trouble to the first call that is refused; the median client"
            }
            Self::Lost => {
                "calls a client sent from the beginning of the trouble to its first refusal, and that failed; the median client"
            }
            Self::SentInTrouble => {
                "attempts that went to the dependency during the trouble, as a share of the calls that were wanted"
            }
            Self::Recovery => {
                "from the end of the trouble to the beginning of the first second (10 s at 0.5 calls/s) in which 95 % of the calls wanted succeeded"
            }
            Self::Goodput => "calls wanted that succeeded, at whatever attempt",
            Self::OverloadPeak => {
                "attempts sent in the worst second after the dependency came back, over what it could do in that second"
            }
            Self::Transitions => "changes of state of one client's breaker, over the whole run",
            Self::Openings => "transitions to open, over the calls wanted during the trouble",
            Self::Refused => "calls wanted that the breaker refused",
            Self::TrippedBlips => "transitions to open, over blips times clients",
            Self::HealthyLoss => {
                "calls wanted of the nine healthy shards, while the tenth is dead, that did not succeed"
            }
            Self::SentToDead => {
                "calls that went to the dead shard, as a share of those wanted of it"
            }
            Self::Probes => {
                "calls of the whole fleet that went to the dead dependency, a second, from 20 s after it died"
            }
            Self::PeakOverMean => "the worst second of the same stretch, over its mean",
            Self::FirstPeak => {
                "the worst second from 2 s after the dependency died; a breaker that is not open by then still sends everything"
            }
            Self::Stuck => {
                "calls a client sent to the hung dependency before the first refusal; the median client"
            }
        }
    }

    /// A value as a table shows it.
    pub fn show(self, value: f64) -> String {
        if value.is_infinite() {
            return "never".into();
        }
        if value.is_nan() {
            return "–".into();
        }
        match self {
            Self::TimeToReject | Self::Recovery => seconds(value),
            Self::Lost | Self::Probes | Self::FirstPeak | Self::Stuck => count(value),
            Self::SentInTrouble
            | Self::Goodput
            | Self::Refused
            | Self::TrippedBlips
            | Self::HealthyLoss
            | Self::SentToDead => percent(value),
            Self::OverloadPeak | Self::PeakOverMean => format!("{value:.2} ×"),
            Self::Openings if value >= 9.95 => count(value),
            Self::Transitions | Self::Openings => decimal(value),
        }
    }

    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        self == Self::Goodput
    }
}

fn seconds(value: f64) -> String {
    match value {
        v if v > 0.0 && v < 0.095 => format!("{v:.2} s"),
        v if v < 9.95 => format!("{v:.1} s"),
        v => format!("{v:.0} s"),
    }
}

fn decimal(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1}") }
}

fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (first, rest) = digits.split_at((digits.len() + 2) % 3 + 1);
    rest.as_bytes().chunks(3).fold(first.to_owned(), |shown, group| {
        format!("{shown},{}", String::from_utf8_lossy(group))
    })
}

fn percent(share: f64) -> String {
    let value = share * 100.0;
    match value {
        0.0 => "0".into(),
        v if v < 0.005 => "< 0.01 %".into(),
        v if v < 0.095 => format!("{v:.2} %"),
        v if v < 9.95 => format!("{v:.1} %"),
        v => format!("{v:.0} %"),
    }
}

/// The numbers of one contender in one scenario.
#[derive(Clone, Debug, Default)]
pub struct Figures(BTreeMap<Metric, f64>);

impl Figures {
    /// A number, or none if the scenario does not measure it.
    pub fn get(&self, metric: Metric) -> f64 {
        self.0.get(&metric).copied().unwrap_or(f64::NAN)
    }

    /// One number for all takes, each metric by itself.
    pub fn combine(takes: &[Self]) -> Self {
        let metrics = takes.first().into_iter().flat_map(|figures| figures.0.keys());
        let combined = |metric: Metric| {
            let values = takes.iter().map(|figures| figures.get(metric));
            match metric {
                // A median would hide what is rare.
                Metric::Openings | Metric::TrippedBlips => values.sum::<f64>() / takes.len() as f64,
                _ => median(values),
            }
        };
        metrics.map(|metric| (*metric, combined(*metric))).collect()
    }
}

impl FromIterator<(Metric, f64)> for Figures {
    fn from_iter<I: IntoIterator<Item = (Metric, f64)>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

impl<const N: usize> From<[(Metric, f64); N]> for Figures {
    fn from(figures: [(Metric, f64); N]) -> Self {
        figures.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(Metric::Lost.show(1_234_567.0), "1,234,567");
        assert_eq!(Metric::Lost.show(12.0), "12");
        assert_eq!(Metric::Lost.show(123.0), "123");
        assert_eq!(Metric::Goodput.show(0.96), "96 %");
        assert_eq!(Metric::Refused.show(0.0004), "0.04 %");
        assert_eq!(Metric::Recovery.show(f64::INFINITY), "never");
        assert_eq!(Metric::TimeToReject.show(1.04), "1.0 s");
    }
}
