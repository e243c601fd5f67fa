//! The report: what was asked, what came out, and how each number is defined.

mod sections;
mod text;

use std::fmt::Write;

use self::sections::{Section, sections};
use crate::{
    claims::{Beaten, EXCEPTIONS, Line, beaten, lines, targets},
    contender::Contender,
    figures::Metric,
    lab::Lab,
    scenario::Size,
};

/// One file of the report.
#[derive(Debug)]
pub struct File {
    /// Its name, in the report's folder.
    pub name: String,
    /// All of it.
    pub contents: String,
}

/// Simulates everything, and writes it up.
pub fn report() -> Vec<File> {
    let mut lab = Lab::new(Size::Full);
    let sections = sections(&mut lab);
    let mut page = String::from(text::HEAD);
    page.push_str(&comparison(&mut lab));
    page.push_str(&reached(&mut lab));
    page.push_str("## The scenarios\n\n");
    for section in &sections {
        page.push_str(&section.markdown());
    }
    page.push_str(&definitions());
    page.push_str(text::MODEL);
    let charts = sections.into_iter().map(Section::chart);
    charts.chain([File { name: "README.md".into(), contents: page }]).collect()
}

fn comparison(lab: &mut Lab) -> String {
    let lines = lines(Size::Full);
    let beaten = beaten(&lines, lab);
    let contenders = [&[Contender::Ours][..], &Contender::PEERS].concat();
    let mut page = String::from(text::COMPARISON);
    let heads = contenders.iter().map(|contender| contender.name());
    page.push_str(&row(["".into()].into_iter().chain(heads)));
    page.push_str(&rule(contenders.len()));
    let mut question = None;
    for line in &lines {
        if question.replace(line.question) != Some(line.question) {
            page.push_str(&row([format!("*{}*", line.question.words())]));
        }
        page.push_str(&line_row(line, &contenders, &beaten, lab));
    }
    page.push_str(text::EXCEPTIONS);
    for exception in EXCEPTIONS {
        let _ = writeln!(
            page,
            "- **{}**, {}. {}",
            exception.peer.name(),
            exception.question.words(),
            exception.because
        );
    }
    page.push('\n');
    page
}

fn line_row(line: &Line, contenders: &[Contender], beaten: &[Beaten], lab: &mut Lab) -> String {
    let cells = contenders.iter().map(|contender| {
        let value = lab.figures(&*line.scenario, *contender).get(line.metric);
        let shown = line.metric.show(value);
        let wins = beaten.iter().any(|b| b.peer == *contender && b.line == line.title);
        if wins { format!("**{shown}**") } else { shown }
    });
    row([line.title.to_owned()].into_iter().chain(cells.collect::<Vec<_>>()))
}

fn reached(lab: &mut Lab) -> String {
    let mut page = String::from(text::TARGETS);
    for target in targets(Size::Full) {
        let value = target.value(lab);
        let verdict = if target.bound.holds(value) { "yes" } else { "**no**" };
        page.push_str(&row([
            target.law.to_owned(),
            target.contender.name(),
            target.bound.show(target.metric),
            target.metric.show(value),
            verdict.to_owned(),
        ]));
    }
    page.push('\n');
    page
}

fn definitions() -> String {
    let mut page = String::from(text::DEFINITIONS);
    for metric in Metric::ALL {
        let _ = writeln!(page, "| {} | {} |", metric.title(), metric.definition());
    }
    page.push('\n');
    page
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().collect();
    format!("| {} |\n", cells.join(" | "))
}

fn rule(numbers: usize) -> String {
    format!("|---|{}\n", "--:|".repeat(numbers))
}
