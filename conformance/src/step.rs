//! One line of a scenario.

use std::time::Duration;

use crate::{
    breaker::{Command, End, State},
    feature::Feature,
    rules::parse,
};

/// A line, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// As it is written.
    pub text: String,
    /// As it is meant.
    pub then: Then,
}

/// What happens, or has to be so.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Then {
    /// Calls that are admitted, and end at once; `None` is dropped.
    Calls(Vec<Option<End>>),
    /// A call that is admitted and takes so long.
    CallIn(Option<End>, Duration),
    /// Calls that are admitted and go on, by name.
    Start(Vec<String>),
    /// Such a call ends; `None`: it is dropped.
    End(String, Option<End>),
    /// So many calls ask, and all are refused.
    Refused(u64),
    /// So much time passes.
    After(Duration),
    /// It is so long after the beginning.
    At(Duration),
    /// It is in this state, if it tells one.
    State(State),
    /// Its window holds so many calls, so many of them failed.
    Holds(u64, u64),
    /// Its window's rate; absent below the minimum.
    Rate(Option<f64>),
    /// So many were refused, ever.
    CountsRefused(u64),
    /// So many were good, ever.
    CountsGood(u64),
    /// So many were bad, ever.
    CountsBad(u64),
    /// So many came too late to count, ever.
    CountsStale(u64),
    /// It opened by so many calls, so many of them failed.
    DecidedBy(u64, u64),
    /// Something is done to it by hand.
    By(Command),
    /// So many threads ask at once, and so many calls are admitted; they go on.
    Race(usize, usize),
}

impl Step {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let then = match *words {
            ["calls", ..] => Then::Calls(ends(&words[1..])?),
            ["call", call, "in", duration] => Then::CallIn(end(call)?, parse(duration)?),
            ["start", _, ..] => Then::Start(words[1..].iter().map(|&name| name.into()).collect()),
            ["end", name, how] => Then::End(name.into(), end(how)?),
            ["drop", name] => Then::End(name.into(), None),
            ["panic", name] => Then::End(name.into(), Some(End::Panic)),
            ["refused"] => Then::Refused(1),
            ["refused", times, "times"] => Then::Refused(number(times)?),
            ["after", duration] => Then::After(parse(duration)?),
            ["at", duration] => Then::At(parse(duration)?),
            ["state", "closed"] => Then::State(State::Closed),
            ["state", "open"] => Then::State(State::Open),
            ["state", "half-open"] => Then::State(State::HalfOpen),
            ["holds", calls, "calls,", failures, "failed"] => {
                Then::Holds(number(calls)?, number(failures)?)
            }
            ["rate", "absent"] => Then::Rate(None),
            ["rate", percent] => match percent.strip_suffix('%').map(str::parse::<f64>) {
                Some(Ok(percent)) => Then::Rate(Some(percent / 100.0)),
                _ => return Err(format!("`{percent}` is no rate, but `25%` is, and `absent`")),
            },
            ["counts", count, "refused"] => Then::CountsRefused(number(count)?),
            ["counts", count, "good"] => Then::CountsGood(number(count)?),
            ["counts", count, "bad"] => Then::CountsBad(number(count)?),
            ["counts", count, "stale"] => Then::CountsStale(number(count)?),
            ["opened", "by", calls, "calls,", failures, "failed"] => {
                Then::DecidedBy(number(calls)?, number(failures)?)
            }
            ["trip"] => Then::By(Command::Trip),
            ["reset"] => Then::By(Command::Reset),
            ["force", "open"] => Then::By(Command::ForceOpen),
            ["force", "closed"] => Then::By(Command::ForceClosed),
            ["lift"] => Then::By(Command::Lift),
            ["race", threads, "threads,", admitted, "admitted"] => {
                Then::Race(number(threads)?, number(admitted)?)
            }
            _ => {
                return Err(format!(
                    "`{text}` is no step; `scenarios/README.md` has those there are"
                ));
            }
        };
        Ok(Self { text: words.join(" "), then })
    }

    /// What has to be claimed, or the step means nothing.
    pub(crate) fn needs(&self) -> Option<Feature> {
        match &self.then {
            Then::Calls(ends) => ends.contains(&Some(End::Neutral)).then_some(Feature::Neutral),
            Then::CallIn(Some(End::Neutral), _) | Then::End(_, Some(End::Neutral)) => {
                Some(Feature::Neutral)
            }
            Then::Holds(..) | Then::Rate(_) => Some(Feature::WindowCounts),
            Then::CountsRefused(_) => Some(Feature::Refusals),
            Then::CountsGood(_) | Then::CountsBad(_) | Then::CountsStale(_) => {
                Some(Feature::Outcomes)
            }
            Then::DecidedBy(..) => Some(Feature::Evidence),
            Then::By(command) => command.needs(),
            _ => None,
        }
    }
}

/// `SSF`, `10S`, `10S 40F`.
fn ends(words: &[&str]) -> Result<Vec<Option<End>>, String> {
    let mut ends = Vec::new();
    for word in words {
        let letters = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let times = match &word[..word.len() - letters.len()] {
            "" => 1,
            times => number(times)?,
        };
        for _ in 0..times {
            for letter in letters.chars() {
                ends.push(end(letter.encode_utf8(&mut [0; 4]))?);
            }
        }
    }
    if ends.is_empty() { Err("no call is named".into()) } else { Ok(ends) }
}

fn end(letter: &str) -> Result<Option<End>, String> {
    match letter {
        "S" => Ok(Some(End::Success)),
        "F" => Ok(Some(End::Failure)),
        "I" => Ok(Some(End::Neutral)),
        "C" => Ok(None),
        _ => Err(format!("no call ends with `{letter}`, but with S, F, I or C")),
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}
