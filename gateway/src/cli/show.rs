//! What a person reads in a terminal: tables, states, times.

use std::{
    borrow::Cow,
    io::{self, Write},
    time::Duration,
};

use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, presets::NOTHING,
};
use serde_json::Value;

use super::{Error, Global};

/// How wide a table is where nobody says how wide the terminal is.
pub const WIDTH: u16 = 80;

/// Prints a document as JSON.
pub fn json(value: &Value) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(Error::new)?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Prints a document on one line.
pub fn json_line(value: &Value) -> Result<(), Error> {
    let mut out = io::stdout();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Prints a line, with its line's end.
pub fn line(text: &str) -> Result<(), Error> {
    let mut out = io::stdout();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Says something beside the answer. Nobody may be reading.
pub fn aside(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A table without lines, as wide as the terminal.
pub fn table(global: &Global, heads: &[&str]) -> Table {
    table_of(heads, global.is_coloured(), width())
}

/// The same, for a screen of one's own.
pub fn table_of(heads: &[&str], is_coloured: bool, width: u16) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width);
    if is_coloured {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Dim)));
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table
}

/// Has a column never be broken.
pub fn keep_whole(table: &mut Table, columns: &[usize]) {
    for index in columns {
        if let Some(column) = table.column_mut(*index) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Prints a table; the blanks at the ends of its lines are left out.
pub fn print(table: &Table) -> Result<(), Error> {
    Ok(io::stdout().write_all(lines(table).as_bytes())?)
}

/// Each line with a line's end.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// How wide the terminal is.
pub fn width() -> u16 {
    use std::io::IsTerminal;

    let is_terminal = io::stdout().is_terminal();
    let size = crossterm::terminal::size().ok().filter(|_| is_terminal);
    // A terminal that does not know its size says zero.
    size.map_or(WIDTH, |(columns, _)| if columns == 0 { WIDTH } else { columns.max(40) })
}

/// The state that callers meet; held by an operator it says so.
pub fn state(circuit: &Value) -> Cell {
    let word = state_word(circuit);
    let colour = match circuit["state"].as_str() {
        Some("open") => Color::Red,
        Some("half_open") => Color::Yellow,
        _ => Color::Green,
    };
    Cell::new(word).fg(colour)
}

/// `closed`, `open`, `half-open`; `forced open`, `forced closed`, `observed`.
pub fn state_word(circuit: &Value) -> &'static str {
    match (circuit["override"]["kind"].as_str(), circuit["state"].as_str()) {
        (Some("force_open"), _) => "forced open",
        (Some("force_closed"), _) => "forced closed",
        (Some(_), _) => "observed",
        (None, Some("open")) => "open",
        (None, Some("half_open")) => "half-open",
        (None, Some("closed")) => "closed",
        _ => "unknown",
    }
}

/// Text that somebody else wrote, so that it can't steer the terminal.
pub fn plain(text: &str) -> Cow<'_, str> {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.chars().any(|c| hides(c) && c != '\n') {
        return text.into();
    }
    text.chars().map(|c| if hides(c) && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A text in a document, if it is one.
pub fn text<'a>(value: &'a Value) -> Cow<'a, str> {
    plain(value.as_str().unwrap_or_default())
}

/// `3s`, `12m`, `5h 20m`, `3d 4h`.
pub fn lasting(millis: &Value) -> String {
    let Some(millis) = millis.as_f64() else { return "-".to_owned() };
    let seconds = Duration::from_secs_f64((millis / 1e3).max(0.0)).as_secs();
    let two = |large: u64, unit, small: u64, other| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{other}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// A number a second.
pub fn rate(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// A share, in percent.
pub fn percent(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(share) => format!("{:.0}%", share * 100.0),
    }
}

/// Milliseconds.
pub fn millis(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.1}ms"),
        Some(millis) if millis < 10_000.0 => format!("{millis:.0}ms"),
        Some(millis) => format!("{:.1}s", millis / 1e3),
    }
}

/// Cut to so many characters, with dots where it was.
pub fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(longest.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// What a list of circuits says on a line.
pub const HEADS: [&str; 7] = ["CIRCUIT", "STATE", "FOR", "CALLS/S", "FAILED", "P99", "REFUSED/S"];

/// The same, of one circuit.
pub fn row(circuit: &Value, longest_name: usize) -> Vec<Cell> {
    let name = plain(circuit["id"].as_str().unwrap_or_default());
    vec![
        Cell::new(cut(&name, longest_name)),
        state(circuit),
        Cell::new(lasting(&circuit["for_ms"])),
        Cell::new(rate(&circuit["rates"]["calls_per_s"])),
        Cell::new(percent(&circuit["window"]["failure_rate"])),
        Cell::new(millis(&circuit["latency"]["p99_ms"])),
        Cell::new(rate(&circuit["rates"]["rejected_per_s"])),
    ]
}
