//! Who passes what, as a page.

use std::fmt::{self, Write as _};

use crate::{
    breaker::Subject,
    feature::Feature,
    runner::{Verdict, judge},
    scenario::Scenario,
};

/// Every scenario with every breaker.
#[derive(Clone, Debug)]
pub struct Report {
    names: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    id: String,
    law: String,
    choice: bool,
    verdicts: Vec<Verdict>,
}

impl Report {
    /// Judges these subjects by these scenarios. Those who can only be waited
    /// for take their time.
    pub fn new(subjects: &[Box<dyn Subject>], scenarios: &[Scenario]) -> Self {
        let judged = |scenario: &Scenario| Row {
            id: scenario.id.clone(),
            law: scenario.law.clone(),
            choice: scenario.choice,
            verdicts: subjects.iter().map(|subject| judge(&**subject, scenario)).collect(),
        };
        Self {
            names: subjects.iter().map(|subject| subject.name().to_owned()).collect(),
            rows: scenarios.iter().map(judged).collect(),
        }
    }

    /// Whether this breaker passes everything.
    pub fn passes_all(&self, name: &str) -> bool {
        let column = self.names.iter().position(|known| known == name);
        column.is_some_and(|column| {
            self.rows.iter().all(|row| row.verdicts[column] == Verdict::Passes)
        })
    }

    /// What a report says of one breaker: a line for each scenario, with its
    /// number, what it is an example of, and what came of it. Empty, if it says
    /// nothing of it.
    pub fn column(text: &str, name: &str) -> Vec<[String; 3]> {
        let cells = |line: &str| -> Vec<String> {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).map(cells).collect();
        let Some(head) = rows.iter().find(|row| row.iter().any(|cell| cell == "law")) else {
            return Vec::new();
        };
        let Some(column) = head.iter().position(|cell| cell == name) else {
            return Vec::new();
        };
        rows.iter()
            .filter(|row| row.len() == head.len() && row[0].starts_with('S'))
            .map(|row| [row[0].clone(), row[1].clone(), row[column].clone()])
            .collect()
    }

    fn count(&self, column: usize, is: impl Fn(&Verdict) -> bool) -> usize {
        self.rows.iter().filter(|row| is(&row.verdicts[column])).count()
    }
}

impl Verdict {
    fn mark(&self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Fails(_) => "**fails**",
            Self::Unclaimed(_) => "–",
            Self::NotMeasurable(_) => "?",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.names.len();
        let tally = |words: &str, is: fn(&Verdict) -> bool| {
            let counts = (0..width).fold(String::new(), |mut counts, column| {
                let _ = write!(counts, " {} |", self.count(column, is));
                counts
            });
            format!("| {words} |{counts}\n")
        };
        let tallies = [
            tally("passes", |verdict| *verdict == Verdict::Passes),
            tally("fails", |verdict| matches!(verdict, Verdict::Fails(_))),
            tally("not claimed (–)", |verdict| matches!(verdict, Verdict::Unclaimed(_))),
            tally("not measurable (?)", |verdict| matches!(verdict, Verdict::NotMeasurable(_))),
        ]
        .concat();
        let (names, rule) = (self.names.join(" | "), "---|".repeat(width));
        writeln!(f, "{HEAD}\n\n| | {names} |\n|---|{rule}\n{tallies}")?;
        writeln!(f, "## By scenario\n\n| | law | {names} |\n|---|---|{rule}")?;
        for row in &self.rows {
            let marks: Vec<&str> = row.verdicts.iter().map(Verdict::mark).collect();
            let choice = if row.choice { " (a choice)" } else { "" };
            writeln!(f, "| {} | {}{choice} | {} |", row.id, row.law, marks.join(" | "))?;
        }
        for (column, name) in self.names.iter().enumerate() {
            self.why(f, column, name)?;
        }
        Ok(())
    }
}

impl Report {
    /// Why somebody fails, and what he does not claim.
    fn why(&self, f: &mut fmt::Formatter<'_>, column: usize, name: &str) -> fmt::Result {
        let of = |row: &Row| (row.id.clone(), row.verdicts[column].clone());
        let verdicts: Vec<_> = self.rows.iter().map(of).collect();
        if verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Passes) {
            return Ok(());
        }
        writeln!(f, "\n## {name}\n")?;
        for (id, verdict) in &verdicts {
            if let Verdict::Fails(why) = verdict {
                writeln!(f, "- {id} fails: {why}")?;
            }
        }
        for (id, verdict) in &verdicts {
            if let Verdict::NotMeasurable(why) = verdict {
                writeln!(f, "- {id} can't be measured: {why}")?;
            }
        }
        let mut missing: Vec<_> = verdicts
            .iter()
            .filter_map(|(_, verdict)| match verdict {
                Verdict::Unclaimed(features) => Some(features),
                _ => None,
            })
            .flatten()
            // No claim, but what the machine allows.
            .filter(|feature| **feature != Feature::ExactTime)
            .collect();
        missing.sort();
        missing.dedup();
        if !missing.is_empty() {
            let words: Vec<&str> = missing.iter().map(|feature| feature.words()).collect();
            writeln!(f, "- Not claimed: {}.", words.join(", "))?;
        }
        Ok(())
    }
}

const HEAD: &str = "\
# Who keeps to the scenarios

Written by `cargo run --manifest-path conformance/Cargo.toml -- --write`. The scenarios are in `scenarios`, and
`scenarios/README.md` says how they read; who does what for whom is in `src/subjects`, where each adapter says how its peer was
made, and what was translated.

A scenario that needs what a breaker does not claim is left out for it (–), and nobody fails for that. Most peers read the
system's clock and can only be waited for, at 50 ms for a second: what takes an exact clock can't be measured for them (?). A
breaker that tells no state is judged by what it admits. *A choice* is where breakers differ for good reasons. The scenarios are
those that tower-breaker was built by, so that it passes them says that it does what it promises, and not that it is better;
what they hold others to is what others' tests and bug reports have asked for.

Scenarios of Tower stacks, of listeners and of registries by key are not data, and not in here.";
