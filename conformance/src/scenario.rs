//! The scenarios, as they are written.

use std::{collections::BTreeSet, error::Error, fmt};

use serde::Deserialize;

use crate::{feature::Feature, rules::Rules, step::Step};

/// What a breaker is made by, and what must then be so.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its number, and a letter where a number has several.
    pub id: String,
    /// What it is an example of.
    pub law: String,
    /// Whether breakers differ here for good reasons.
    pub choice: bool,
    /// What a breaker has to claim.
    pub needs: BTreeSet<Feature>,
    /// What it is made by: each of these for itself.
    pub rules: Vec<Rules>,
    /// Whether each of them has to be refused, or may be.
    pub refusal: Refusal,
    /// What happens, step by step.
    pub steps: Vec<Step>,
}

/// Whether rules are to be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// They are good.
    #[default]
    Never,
    /// To refuse them is as good as to do what the steps say.
    May,
    /// They can't work.
    Must,
}

/// What is wrong with a file of scenarios.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scenario: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    law: String,
    #[serde(default)]
    choice: bool,
    #[serde(default)]
    needs: BTreeSet<Feature>,
    rules: Option<Rules>,
    #[serde(default)]
    cases: Vec<Rules>,
    #[serde(default)]
    refusal: Refusal,
    #[serde(default)]
    steps: String,
}

impl Scenario {
    /// Reads the scenarios of a file.
    ///
    /// # Errors
    ///
    /// If it is not one: what is wrong, and in which scenario.
    pub fn parse(text: &str) -> Result<Vec<Self>, ScenarioError> {
        let file: File = toml::from_str(text).map_err(|error| ScenarioError(error.to_string()))?;
        file.scenario.into_iter().map(Self::read).collect()
    }

    fn read(written: Written) -> Result<Self, ScenarioError> {
        let Written { id, law, choice, mut needs, rules, cases, refusal, steps } = written;
        let wrong = |what: &str| ScenarioError(format!("{id}: {what}"));
        let rules: Vec<Rules> = rules.into_iter().chain(cases).collect();
        let lines = steps.lines().map(|line| line.split('#').next().unwrap_or("").trim());
        let steps = lines
            .filter(|line| !line.is_empty())
            .map(|line| Step::parse(line).map_err(|error| wrong(&error)))
            .collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() {
            return Err(wrong("there are no `rules`, and no `cases` of them"));
        }
        if steps.is_empty() != (refusal == Refusal::Must) {
            return Err(wrong("`steps` are for rules that need not be refused, and for all those"));
        }
        needs.extend(rules.iter().flat_map(Rules::needs));
        needs.extend(steps.iter().filter_map(Step::needs));
        Ok(Self { id, law, choice, needs, rules, refusal, steps })
    }
}

/// Every scenario there is.
///
/// # Panics
///
/// If a file of scenarios is wrong.
pub fn all() -> Vec<Scenario> {
    const FILES: [(&str, &str); 7] = [
        ("window", include_str!("../scenarios/window.toml")),
        ("rules", include_str!("../scenarios/rules.toml")),
        ("waits", include_str!("../scenarios/waits.toml")),
        ("probes", include_str!("../scenarios/probes.toml")),
        ("stale", include_str!("../scenarios/stale.toml")),
        ("by_hand", include_str!("../scenarios/by_hand.toml")),
        ("configuration", include_str!("../scenarios/configuration.toml")),
    ];
    FILES
        .iter()
        .flat_map(|(name, text)| {
            Scenario::parse(text).unwrap_or_else(|error| panic!("scenarios/{name}.toml: {error}"))
        })
        .collect()
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ScenarioError {}
