//! Charts as SVG, by hand: small multiples, one row a contender.
//!
//! Blue and vermilion are told apart by every eye; the colours follow the
//! reader's light or dark mode.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 206.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 66.0;

/// Rows of areas over time.
#[derive(Clone, Debug)]
pub struct Strips {
    /// What it shows.
    pub title: String,
    /// What a row's height means, with its unit.
    pub height_means: String,
    /// What the top of a row stands for; what is higher is cut off.
    pub top: f64,
    /// How the top is written.
    pub top_label: String,
    /// What the axis of time is called.
    pub time_label: String,
    /// The time at the left edge, in seconds.
    pub from: f64,
    /// Seconds a value.
    pub step: f64,
    /// Seconds between marks on the axis.
    pub tick: f64,
    /// A stretch of trouble, in seconds.
    pub shade: Option<(f64, f64)>,
    /// A height to mark with a dashed line.
    pub mark: Option<f64>,
    /// What the layers mean.
    pub legend: Vec<(Ink, String)>,
    /// A contender each.
    pub rows: Vec<Strip>,
}

/// One row: layers, drawn in order over each other.
#[derive(Clone, Debug)]
pub struct Strip {
    /// Whose.
    pub name: String,
    /// Each from the bottom up.
    pub layers: Vec<(Ink, Vec<f64>)>,
}

/// A colour by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Blue.
    Good,
    /// Vermilion.
    Bad,
}

impl Ink {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }
}

impl Strips {
    /// The whole file.
    pub fn svg(&self) -> String {
        const ROW: f64 = 46.0;
        const GAP: f64 = 12.0;
        let steps = self.rows.iter().flat_map(|row| &row.layers).map(|(_, v)| v.len()).max();
        let span = steps.unwrap_or(1) as f64 * self.step;
        let x = |time: f64| LEFT + (time - self.from) / span * (WIDTH - LEFT - RIGHT);
        let bottom = TOP + self.rows.len() as f64 * (ROW + GAP);
        let mut svg = Svg::new(&self.title, bottom + 44.0);
        svg.legend(&self.legend, self.shade.map(|_| "trouble"));
        svg.text(LEFT, 56.0, "small", "start", &self.height_means);
        for (i, row) in self.rows.iter().enumerate() {
            let top = TOP + i as f64 * (ROW + GAP);
            svg.rect("row", LEFT, top, WIDTH - LEFT - RIGHT, ROW);
            if let Some((from, until)) = self.shade {
                let (left, right) = (x(from.max(self.from)), x(until.min(self.from + span)));
                svg.rect("trouble", left, top, right - left, ROW);
            }
            svg.text(LEFT - 40.0, top + ROW / 2.0 + 4.0, "name", "end", &row.name);
            svg.text(LEFT - 6.0, top + 9.0, "small", "end", &self.top_label);
            svg.text(LEFT - 6.0, top + ROW, "small", "end", "0");
            for (ink, values) in &row.layers {
                let y = |value: f64| top + ROW - (value / self.top).clamp(0.0, 1.0) * ROW;
                svg.area(ink.class(), values, |i| x(self.from + i as f64 * self.step), y);
            }
            if let Some(mark) = self.mark {
                let y = top + ROW - mark / self.top * ROW;
                svg.line("mark", LEFT, y, WIDTH - RIGHT, y);
            }
        }
        let first = (self.from / self.tick).ceil() as i64;
        let last = ((self.from + span) / self.tick + 1e-9).floor() as i64;
        for tick in (first..=last).map(|tick| tick as f64 * self.tick) {
            svg.line("axis", x(tick), bottom - GAP, x(tick), bottom - GAP + 4.0);
            svg.text(x(tick), bottom + 6.0, "small", "middle", &format!("{tick}"));
        }
        svg.text((LEFT + WIDTH - RIGHT) / 2.0, bottom + 26.0, "label", "middle", &self.time_label);
        svg.end()
    }
}

/// Rows of bars, in columns.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// What a bar's length means.
    pub length_means: String,
    /// The value of a bar that fills its column.
    pub full: f64,
    /// The columns' heads.
    pub columns: Vec<String>,
    /// A contender each: a name, and a value with its text for every column.
    pub rows: Vec<(String, Vec<(f64, String)>)>,
}

impl Bars {
    /// The whole file.
    pub fn svg(&self) -> String {
        const ROW: f64 = 20.0;
        const GAP: f64 = 12.0;
        const BETWEEN: f64 = 16.0;
        let left = LEFT + 12.0;
        let column = (WIDTH - left - RIGHT) / self.columns.len() as f64;
        let room = column - BETWEEN;
        let bottom = TOP + 14.0 + self.rows.len() as f64 * (ROW + GAP);
        let mut svg = Svg::new(&self.title, bottom + 12.0);
        svg.text(left, 44.0, "small", "start", &self.length_means);
        for (i, head) in self.columns.iter().enumerate() {
            svg.text(left + i as f64 * column, TOP + 2.0, "label", "start", head);
        }
        for (i, (name, cells)) in self.rows.iter().enumerate() {
            let top = TOP + 14.0 + i as f64 * (ROW + GAP);
            svg.text(left - 12.0, top + 14.0, "name", "end", name);
            for (j, (value, shown)) in cells.iter().enumerate() {
                let x = left + j as f64 * column;
                let length = (value / self.full).clamp(0.0, 1.0) * room;
                svg.rect("row", x, top, room, ROW);
                svg.rect("bad", x, top, length, ROW);
                // On the bar where it is long, or it would leave the column.
                let (at, class, anchor) = if length > room / 2.0 {
                    (x + length - 5.0, "on", "end")
                } else {
                    (x + length + 5.0, "value", "start")
                };
                svg.text(at, top + 14.0, class, anchor, shown);
            }
        }
        svg.end()
    }
}

struct Svg(String);

impl Svg {
    fn new(title: &str, height: f64) -> Self {
        const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}\
.title{font-size:15px;font-weight:600}.name{font-size:12.5px}.label,.value,.on{font-size:12px}\
.small{font-size:10.5px;fill:#59636e}.page{fill:#fff}.row{fill:#f0f2f4}.trouble{fill:#d8dce1}\
.good{fill:#0072b2}.bad{fill:#d55e00}.on{fill:#fff}.axis{stroke:#59636e}\
.mark{stroke:#1f2328;stroke-dasharray:4 3}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#a3adb8}.page{fill:#0d1117}\
.row{fill:#1a2029}.trouble{fill:#343c47}.good{fill:#56b4e9}.bad{fill:#e8803a}.on{fill:#0d1117}\
.axis{stroke:#a3adb8}.mark{stroke:#f0f6fc}}";
        let mut svg = Self(String::new());
        let title = escape(title);
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n"
        ));
        svg.rect("page", 0.0, 0.0, WIDTH, height);
        svg.text(16.0, 24.0, "title", "start", &title);
        svg
    }

    fn legend(&mut self, entries: &[(Ink, String)], trouble: Option<&'static str>) {
        let entries = entries.iter().map(|(ink, text)| (ink.class(), text.as_str()));
        let mut x = LEFT;
        for (class, text) in entries.chain(trouble.map(|text| ("trouble", text))) {
            self.rect(class, x, 33.0, 10.0, 10.0);
            self.text(x + 15.0, 42.0, "small", "start", text);
            x += 34.0 + text.chars().count() as f64 * 5.2;
        }
    }

    fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        if width > 0.0 {
            self.push(format_args!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>\n"
            ));
        }
    }

    fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        self.push(format_args!(
            "<path class=\"{class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>\n"
        ));
    }

    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let text = escape(text);
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
        ));
    }

    /// An area in steps; those that are equal are drawn as one.
    fn area(
        &mut self,
        class: &str,
        values: &[f64],
        x: impl Fn(usize) -> f64,
        y: impl Fn(f64) -> f64,
    ) {
        let mut path = format!("M{:.1} {:.1}", x(0), y(0.0));
        let mut drawn = format!("{:.1}", y(0.0));
        for (i, value) in values.iter().enumerate() {
            let next = format!("{:.1}", y(*value));
            if next != drawn {
                let _ = write!(path, "H{:.1}V{next}", x(i));
                drawn = next;
            }
        }
        let _ = write!(path, "H{:.1}V{:.1}Z", x(values.len()), y(0.0));
        self.push(format_args!("<path class=\"{class}\" d=\"{path}\"/>\n"));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    fn push(&mut self, what: std::fmt::Arguments<'_>) {
        // A string takes all that is written to it.
        let _ = self.0.write_fmt(what);
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
