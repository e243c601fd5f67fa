//! What was measured, as tables.

use std::{fmt::Write as _, fs};

use tower_breaker_side_by_side::{
    contenders::{self, BARE, ours},
    floor,
    lab::{Figure, Figures},
    least, promises,
    windows::{self, Pace},
};

use crate::Result;

pub(crate) const CLOSED: &str = "closed";
pub(crate) const TENTH: &str = "closed, 10 % fail";
pub(crate) const OPEN: &str = "open";
pub(crate) const OPEN_BESIDE: &str = "open, beside half-open";
pub(crate) const HALF_OPEN: &str = "half-open";
pub(crate) const PLAIN: &str = "closed, plain";
pub(crate) const FLOOR: &str = "floor";

const ONE: &str = "1 thread";
const TWO: &str = "2 threads";
const FOUR: &str = "4 threads";
const ONE_TENTH: &str = "1 thread, 10 % fail";
const TWO_TENTH: &str = "2 threads, 10 % fail";
const FOUR_TENTH: &str = "4 threads, 10 % fail";

/// How many, and the columns of good calls and of a tenth of failures.
pub(crate) const THREADS: [(u64, &str, &str); 3] =
    [(1, ONE, ONE_TENTH), (2, TWO, TWO_TENTH), (4, FOUR, FOUR_TENTH)];

const COMMAND: &str =
    "cargo run --release --manifest-path benches/side-by-side/Cargo.toml -- --write";

pub(crate) struct Report {
    pub(crate) figures: Figures,
    pub(crate) memory: Memory,
    /// Name, and nanoseconds a call over bare.
    pub(crate) peer_metrics: Vec<(String, f64)>,
    /// The machine's load when it began and when it ended.
    pub(crate) load: (String, String),
}

/// What the binary `memory` tells.
pub(crate) struct Memory {
    contenders: Vec<Row>,
    /// Name, and bytes.
    windows: Vec<(String, u64)>,
}

struct Row {
    name: String,
    /// Allocations a call: closed, with a tenth of failures, open.
    allocations: [f64; 3],
    /// Bytes: new, and after calls.
    bytes: [u64; 2],
}

impl Memory {
    pub(crate) fn read(lines: &str) -> Result<Self> {
        let mut memory = Self { contenders: Vec::new(), windows: Vec::new() };
        for line in lines.lines() {
            let mut fields = line.split('\t');
            let name = fields.next().unwrap_or_default().to_owned();
            let fields: Vec<&str> = fields.collect();
            match *fields {
                [closed, tenth, open, new, used] => memory.contenders.push(Row {
                    name,
                    allocations: [closed.parse()?, tenth.parse()?, open.parse()?],
                    bytes: [new.parse()?, used.parse()?],
                }),
                [bytes] => memory.windows.push((name, bytes.parse()?)),
                _ => return Err(format!("`memory` told what was not expected: {line}").into()),
            }
        }
        Ok(memory)
    }

    fn of(&self, name: &str) -> Option<&Row> {
        self.contenders.iter().find(|row| row.name == name)
    }

    /// What another entry takes.
    fn bits_an_entry(&self) -> Option<f64> {
        let [least, .., most] = windows::COUNTS;
        let bytes = |calls| {
            let name = windows::count_name(calls);
            self.windows.iter().find(|(window, _)| *window == name).map(|(_, bytes)| *bytes)
        };
        Some((bytes(most)? as f64 - bytes(least)? as f64) * 8.0 / f64::from(most - least))
    }
}

/// For the parent process.
pub(crate) fn metrics_lines(figures: &Figures) -> String {
    contenders::reporting().into_iter().fold(String::new(), |mut lines, contender| {
        if let Some(figure) = figures.get(CLOSED, &contender.name) {
            let _ = writeln!(lines, "{}\t{}", contender.name, figure.over);
        }
        lines
    })
}

pub(crate) fn read_metrics(lines: &str) -> Result<Vec<(String, f64)>> {
    let read = |line: &str| {
        let (name, over) = line.rsplit_once('\t').ok_or("a line without a tab")?;
        Ok((name.to_owned(), over.parse()?))
    };
    lines.lines().map(read).collect()
}

/// What waits for a processor, in the mean of a minute, where it can be known.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// The least program that keeps the promises in such a column.
fn least_of(column: &str) -> Option<&'static str> {
    match column {
        CLOSED => Some(least::CLOSED),
        TENTH => Some(least::TENTH),
        OPEN => Some(least::OPEN),
        _ => None,
    }
}

/// A figure that the project has set itself.
struct Target {
    what: String,
    limit: Limit,
    unit: &'static str,
    got: Option<f64>,
    floor: String,
}

enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn at_most(what: impl Into<String>, limit: f64, unit: &'static str, got: Option<f64>) -> Self {
        Self { what: what.into(), limit: Limit::AtMost(limit), unit, got, floor: String::new() }
    }

    fn at_least(what: impl Into<String>, limit: f64, unit: &'static str, got: Option<f64>) -> Self {
        Self { limit: Limit::AtLeast(limit), ..Self::at_most(what, limit, unit, got) }
    }

    /// What a program takes that does only what is named.
    fn floor(mut self, what: &str, figure: Option<f64>) -> Self {
        if let Some(figure) = figure {
            self.floor = format!("{figure:.1} ns: {what}");
        }
        self
    }

    /// The same, beside what the target is a multiple of.
    fn floor_over(self, what: &str, figure: Option<f64>, one: Option<f64>) -> Self {
        let Some((figure, one)) = figure.zip(one) else { return self };
        let before = if self.floor.is_empty() { String::new() } else { self.floor + "; " };
        let floor = format!("{before}{:.2} ×, {figure:.1} ns: {what}", figure / one);
        Self { floor, ..self }
    }
}

impl Report {
    fn over(&self, column: &'static str, name: &str) -> Option<f64> {
        self.figures.get(column, name).map(|figure| figure.over)
    }

    fn ratio(&self, column: &'static str, ours: &str, theirs: &str) -> Option<f64> {
        Some(self.over(column, ours)? / self.over(column, theirs)?)
    }

    /// The cheapest peer, on a clock like ours.
    fn best_peer(&self, column: &'static str) -> Option<(String, f64)> {
        contenders::peers()
            .into_iter()
            .filter(|peer| !peer.name.ends_with("coarse clock"))
            .filter_map(|peer| Some((self.over(column, &peer.name)?, peer.name)))
            .min_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(over, name)| (name, over))
    }

    fn floor(&self, program: &str) -> Option<f64> {
        self.over(FLOOR, program)
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let over = |column, name| self.over(column, name);

        let now = self.floor(floor::TOKIO_NOW);
        let least = over(CLOSED, least::CLOSED);
        let recloser = self.ratio(CLOSED, ours::DEFAULT, "recloser");
        let promising = over(CLOSED, promises::RULES);
        targets.extend([
            Target::at_most("closed, default: × recloser", 1.0, "×", recloser)
                .floor_over(least::CLOSED, least, over(CLOSED, "recloser"))
                .floor_over(
                    "with the promises of `promises.rs`",
                    promising,
                    over(CLOSED, "recloser"),
                ),
            Target::at_most("closed, default: aim", 15.0, "ns", over(CLOSED, ours::DEFAULT))
                .floor(least::CLOSED, least),
        ]);

        let twice = over(CLOSED, least::LATENCY);
        let mut timed = |name: &str, aim: Option<f64>, at: Option<f64>, clock: &str| {
            let resilience = self.ratio(CLOSED, name, "tower-resilience");
            let seatbelt = self.ratio(CLOSED, name, "seatbelt");
            let what = name.trim_start_matches("tower-breaker, ");
            targets.extend([
                Target::at_most(format!("{what}: × tower-resilience"), 0.35, "×", resilience)
                    .floor_over(clock, at, over(CLOSED, "tower-resilience")),
                Target::at_most(format!("{what}: × seatbelt"), 0.75, "×", seatbelt).floor_over(
                    clock,
                    at,
                    over(CLOSED, "seatbelt"),
                ),
            ]);
            if let Some(aim) = aim {
                let got = self.over(CLOSED, name);
                targets
                    .push(Target::at_most(format!("{what}: aim"), aim, "ns", got).floor(clock, at));
            }
        };
        timed(ours::LATENCY, Some(55.0), twice, least::LATENCY);
        timed(ours::TIME, Some(55.0), now, floor::TOKIO_NOW);
        timed(ours::TIME_LATENCY, Some(55.0), twice, least::LATENCY);
        let counter = self.floor(floor::TSC).zip(least).map(|(once, least)| 2.0 * once + least);
        if over(CLOSED, ours::FAST_LATENCY).is_some() {
            let clock = "gate, permit, lane, verdict, count, and the time-stamp counter twice";
            timed(ours::FAST_LATENCY, Some(25.0), counter, clock);
            timed(ours::FAST_TIME, Some(25.0), counter, clock);
        }

        if let Some((peer, best)) = self.best_peer(OPEN) {
            let boxed = over(OPEN, least::OPEN);
            let mut open = |name: &str, limit, floor, at| {
                let got = self.over(OPEN, name).map(|over| over / best);
                let what = format!("open, {name}: × {peer}");
                let target = Target::at_most(what, limit, "×", got);
                targets.push(target.floor_over(floor, at, Some(best)));
            };
            open(ours::DEFAULT, 0.85, least::OPEN, boxed);
            open(ours::DEFERS, 0.85, least::OPEN, boxed);
            if over(OPEN, ours::FAST_LATENCY).is_some() {
                let least = self.floor(floor::BOX).zip(self.floor(floor::TSC));
                let least = least.map(|(boxed, clock)| boxed + clock);
                open(ours::FAST_LATENCY, 0.5, "box it, and the time-stamp counter", least);
            }
        }
        let beyond = |name: &str| self.over(OPEN, name).zip(now).map(|(over, now)| over - now);
        targets.push(
            Target::at_most(
                "open, `Circuit::try_acquire` beyond a clock reading",
                5.0,
                "ns",
                beyond(ours::ALONE),
            )
            .floor(least::REFUSED, beyond(least::REFUSED)),
        );
        for name in [ours::DEFAULT, ours::DEFERS, ours::ALONE] {
            let got = over(HALF_OPEN, name).zip(over(OPEN_BESIDE, name));
            let got = got.map(|(half, open)| half / open);
            targets.push(Target::at_most(format!("half-open, {name}: × open"), 2.0, "×", got));
        }

        let scales = |name: &str| self.figures.speed_up(TWO, ONE, name);
        let bare = scales(BARE).map_or(String::new(), |bare| format!("{bare:.2} ×: {BARE}"));
        targets.push(Target {
            floor: bare.clone(),
            ..Target::at_least("2 threads: × 1 thread", 1.0, "×", scales(ours::DEFAULT))
        });
        targets.push(Target {
            floor: bare,
            ..Target::at_least("2 threads: aim", 1.8, "×", scales(ours::DEFAULT))
        });

        let best = contenders::peers()
            .into_iter()
            .filter_map(|peer| Some((scales(&peer.name)?, peer.name)))
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        if let Some((best, peer)) = best {
            let got = scales(ours::DEFAULT).map(|ours| ours / best);
            targets.push(Target::at_least(
                format!("2 threads: × the best peer, {peer}"),
                1.0,
                "×",
                got,
            ));
        }

        for (with, without) in
            [(ours::PROMETHEUS, ours::DEFAULT), (ours::PROMETHEUS_LATENCY, ours::LATENCY)]
        {
            let more = over(CLOSED, with).zip(over(CLOSED, without));
            let more = more.map(|(with, without)| with - without);
            let floor = if with == ours::PROMETHEUS { floor::COUNTER } else { floor::HISTOGRAM };
            targets.push(
                Target::at_most(format!("{with}: more than without"), 20.0, "ns", more)
                    .floor(floor, self.floor(floor)),
            );
        }

        for (column, what) in [(CLOSED, 0), (TENTH, 1)] {
            let most = contenders::ours::contenders()
                .iter()
                .filter(|contender| !contender.name.contains("Prometheus"))
                .filter_map(|contender| {
                    self.memory.of(&contender.name)?.allocations.get(what).copied()
                })
                .reduce(f64::max);
            let what = format!("allocations a call, {column}, the most of ours");
            targets.push(Target::at_most(what, 0.0, "", most));
        }

        for column in [CLOSED, TENTH, OPEN, HALF_OPEN] {
            let best = self.best_peer(column);
            let Some((peer, best)) = best else { continue };
            let got = over(column, ours::DEFAULT).map(|over| over / best);
            let what = format!("{column}: × the best peer, {peer}");
            let target = Target::at_most(what, 1.0, "×", got);
            targets.push(match least_of(column) {
                Some(least) => target.floor_over(least, over(column, least), Some(best)),
                None => target,
            });
        }

        targets.extend(self.window_targets());
        targets
    }

    fn window_targets(&self) -> Vec<Target> {
        let whole = |name: String| self.over(windows::COLUMN, &name);
        let most_to_least = |names: Vec<String>| {
            let figures: Option<Vec<f64>> = names.into_iter().map(whole).collect();
            let figures = figures?;
            let most = figures.iter().copied().reduce(f64::max)?;
            Some(most / figures.iter().copied().reduce(f64::min)?)
        };
        let counts = most_to_least(windows::COUNTS.map(windows::count_name).to_vec());
        let [few, some, many] = windows::BUCKETS;
        let times = |pace| {
            most_to_least([few, many].map(|buckets| windows::time_name(buckets, pace)).to_vec())
        };
        // Beyond what a call takes that finds its bucket.
        let gap = |buckets| {
            let at = |pace| whole(windows::time_name(buckets, pace));
            Some(at(Pace::Gap)? - at(Pace::Still)?)
        };
        let gaps = gap(many).zip(gap(some)).map(|(many, some)| many / some);
        let long = [Pace::Gap, Pace::LongGap].map(|pace| windows::time_name(many, pace));
        vec![
            Target::at_most(
                "count windows of 100 to 1,000,000: dearest × cheapest",
                1.3,
                "×",
                counts,
            ),
            Target::at_most(
                "bits an entry of a count window",
                2.0,
                "",
                self.memory.bits_an_entry(),
            ),
            Target::at_most(
                "time windows of 10 and 1,000 buckets, in one bucket",
                1.3,
                "×",
                times(Pace::Still),
            ),
            Target::at_most(
                "time windows of 10 and 1,000 buckets, a bucket a call",
                1.3,
                "×",
                times(Pace::Bucket),
            ),
            Target::at_most("after an idle gap, 10 times the buckets", 10.0, "×", gaps),
            Target::at_most(
                "after an idle gap 500 times as long",
                1.3,
                "×",
                most_to_least(long.to_vec()),
            ),
        ]
    }

    /// The table of the README.
    pub(crate) fn short(&self) -> String {
        let mut rows = vec![ours::DEFAULT, ours::LATENCY, ours::TIME];
        if self.over(CLOSED, ours::FAST_LATENCY).is_some() {
            rows.push(ours::FAST_LATENCY);
        }
        rows.extend(["recloser", "failsafe", "breaker", "seatbelt", "tower-resilience"]);
        let mut text = format!(
            "What a breaker costs, beside the bare service in the same run: nanoseconds a call on one thread (open: \
             over a refusal\nwithout a breaker), calls of two threads on one circuit over those of one, allocations a \
             call when closed, bytes a\ncircuit. Compare rows; a run on another machine has other numbers. \
             `benches/side-by-side/report.md` has more, and says how.\nWritten by `{COMMAND}`.\n\n"
        );
        text += "| | closed | 10 % fail | open | 2 threads | allocations | bytes |\n";
        text += "|---|---|---|---|---|---|---|\n";
        for name in rows {
            let number =
                |column| self.over(column, name).map_or("–".into(), |n| format!("{n:.0}"));
            let row = self.memory.of(name);
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {} |",
                number(CLOSED),
                number(TENTH),
                number(OPEN),
                ratio(self.figures.speed_up(TWO, ONE, name)),
                row.map_or("–".into(), |row| format!("{:.0}", row.allocations[0])),
                row.map_or("–".into(), |row| windows::thousands(row.bytes[1])),
            );
        }
        text
    }

    pub(crate) fn long(&self) -> String {
        let mut text =
            format!("# Side by side\n\nWritten by `{COMMAND}`.\n\n{HOW}\n{}\n", self.machine());
        text += "## What was to be reached\n\n";
        text += "The floor is what a program takes in the same run that does only what is named, and what the call \
                 can't do without. An aim\nis a wish. Those of services are the least breakers of \
                 `benches/side-by-side/src/least.rs`, which says which of the promises\nasks for \
                 what: a permit that is settled when it is dropped, a window that is exact, trouble that lasts, a \
                 refusal\nthat says who and for how long, metrics. `promises.rs` adds the others one by one.\n\n";
        text += "| | to be | is | reached | floor |\n|---|---|---|---|---|\n";
        for target in self.targets() {
            let (sign, limit) = match target.limit {
                Limit::AtMost(limit) => ('≤', limit),
                Limit::AtLeast(limit) => ('≥', limit),
            };
            let reached = match (&target.limit, target.got) {
                (_, None) => "not measured",
                (Limit::AtMost(limit), Some(got)) if got <= *limit => "yes",
                (Limit::AtLeast(limit), Some(got)) if got >= *limit => "yes",
                _ => "no",
            };
            let got = target.got.map_or("–".into(), |got| format!("{got:.2} {}", target.unit));
            let limit = format!("{sign} {limit} {}", target.unit);
            let Target { what, floor, .. } = target;
            let (limit, got) = (limit.trim(), got.trim());
            let _ = writeln!(text, "| {what} | {limit} | {got} | {reached} | {floor} |");
        }
        text += &self.one_thread();
        text += &self.threads();
        text += &self.metrics();
        text += &self.memory();
        text += &self.floors();
        text += &self.windows();
        text
    }

    fn machine(&self) -> String {
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
        let (before, after) = &self.load;
        let mut versions = Vec::new();
        for peer in PEERS {
            if let Some(version) = locked(peer) {
                versions.push(format!("{peer} {version}"));
            }
        }
        format!(
            "{processors} processors ({model}); load {before} before and {after} after, where 0 is a quiet machine: \
             the rest is others' work. {:.1} %\nof the turns were disturbed by it to the last. Beside {}.\n",
            100.0 * self.figures.disturbed(),
            versions.join(", ")
        )
    }

    fn one_thread(&self) -> String {
        let mut text = "\n## One thread\n\nNanoseconds a call over the bare service, whose own is whole; where open, over \
             a service that refuses for nothing. In\nbrackets the quartiles over the rounds. \"–\" in half-open: lets \
             every call pass, or is like another row. Plain: the\nanswer is a number instead of an `http::Response`.\n\n\
             | | closed | 10 % fail | open | half-open | closed, plain |\n|---|---|---|---|---|---|\n"
            .to_owned();
        let least = [least::LATENCY, least::TENTH, least::OPEN, least::REFUSED];
        let least = [least::CLOSED, promises::LANES, promises::PANICS, promises::RULES]
            .into_iter()
            .chain(least)
            .map(|name| (name.to_owned(), format!("floor: {name}")));
        for (name, row) in self.names().into_iter().map(|name| (name.clone(), name)).chain(least) {
            let cell = |column| self.figures.get(column, &name).map_or("–".into(), with_quartiles);
            let _ = writeln!(
                text,
                "| {row} | {} | {} | {} | {} | {} |",
                cell(CLOSED),
                cell(TENTH),
                cell(OPEN),
                cell(HALF_OPEN),
                cell(PLAIN)
            );
        }
        text
    }

    fn threads(&self) -> String {
        let mut text = "\n## Several threads on one circuit\n\n\
             The calls all threads make in a time, over those of one thread: median of the rounds. Where there are \
             fewer processors\nthan threads, it tells of the machine's load before anything else.\n\n\
             | | 2 threads | 4 threads | 2 threads, 10 % fail | 4 threads, 10 % fail |\n|---|---|---|---|---|\n"
            .to_owned();
        let programs = floor::shared_programs();
        let programs = programs.iter().map(|(name, _)| format!("floor: {name}"));
        for row in self.names().into_iter().chain(programs) {
            let name = row.trim_start_matches("floor: ");
            let cell = |column, one| ratio(self.figures.speed_up(column, one, name));
            let _ = writeln!(
                text,
                "| {row} | {} | {} | {} | {} |",
                cell(TWO, ONE),
                cell(FOUR, ONE),
                cell(TWO_TENTH, ONE_TENTH),
                cell(FOUR_TENTH, ONE_TENTH)
            );
        }
        text
    }

    fn metrics(&self) -> String {
        let mut text = "\n## Metrics\n\nClosed, in a build where the peers that can report through the `metrics` facade \
             do so: without a recorder, and with\nPrometheus'. seatbelt reports through OpenTelemetry, and only what \
             is not an ordinary call.\n\n| | no recorder | Prometheus | more |\n|---|---|---|---|\n"
            .to_owned();
        for (name, without) in &self.peer_metrics {
            let with = format!("{name}, Prometheus");
            let Some((_, with)) = self.peer_metrics.iter().find(|(name, _)| *name == with) else {
                continue;
            };
            let _ = writeln!(text, "| {name} | {without:.1} | {with:.1} | {:.1} |", with - without);
        }
        text
    }

    fn memory(&self) -> String {
        let mut text = "\n## Memory\n\nAllocations a call; bytes on the heap of a circuit with its service, new and after \
             1,000 calls. Keyed ones are groups, of\na hundred circuits with ours. Prometheus' include the recorder's \
             own.\n\n| | closed | 10 % fail | open | bytes, new | bytes, in use |\n|---|---|---|---|---|---|\n"
            .to_owned();
        for Row { name, allocations: [closed, tenth, open], bytes: [new, used] } in
            &self.memory.contenders
        {
            let (new, used) = (windows::thousands(*new), windows::thousands(*used));
            let _ = writeln!(text, "| {name} | {closed} | {tenth} | {open} | {new} | {used} |");
        }
        text
    }

    fn floors(&self) -> String {
        let mut text =
            "\n## Floors\n\nNanoseconds over an empty loop.\n\n| | |\n|---|---|\n".to_owned();
        for (name, _) in floor::programs().iter().skip(1) {
            let figure = self.figures.get(FLOOR, name).map_or("–".into(), with_quartiles);
            let _ = writeln!(text, "| {name} | {figure} |");
        }
        text
    }

    fn windows(&self) -> String {
        let mut text = "\n## Windows\n\nNanoseconds a call of a circuit alone, 10 % of which fail, beyond setting its \
             clock by hand; bytes of a circuit whose\nwindow is full.\n\n| | | bytes |\n|---|---|---|\n"
            .to_owned();
        let counts = windows::COUNTS.map(windows::count_name).into_iter();
        let times = windows::BUCKETS
            .into_iter()
            .flat_map(|buckets| Pace::ALL.map(|pace| windows::time_name(buckets, pace)));
        for name in counts.chain(times) {
            let figure =
                self.figures.get(windows::COLUMN, &name).map_or("–".into(), with_quartiles);
            let bytes = self.memory.windows.iter().find(|(window, _)| *window == name);
            let bytes = bytes.map_or("–".into(), |(_, bytes)| windows::thousands(*bytes));
            let _ = writeln!(text, "| {name} | {figure} | {bytes} |");
        }
        text
    }

    fn names(&self) -> Vec<String> {
        let all = contenders::all().into_iter().map(|contender| contender.name);
        [BARE.to_owned()].into_iter().chain(all).collect()
    }
}

const PEERS: [&str; 5] =
    ["recloser", "failsafe", "breaker", "seatbelt", "tower-resilience-circuitbreaker"];

/// The version of a package in `Cargo.lock`.
fn locked(package: &str) -> Option<&'static str> {
    let (_, rest) = include_str!("../Cargo.lock").split_once(&format!("name = \"{package}\"\n"))?;
    rest.lines().next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

fn with_quartiles(figure: Figure) -> String {
    let (low, high) = figure.quartiles;
    format!("{:.1} ({low:.1}–{high:.1})", figure.over)
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"))
}

const HOW: &str = "\
Every contender guards the same backend, which answers at the first poll, and is called the same way: `poll_ready`, `call`,
and the future polled by hand until it is ready. All cells of a part take turns of about a millisecond, in an order that is
shuffled anew each round; figures are medians over the rounds, and what is taken off was measured in the same round. A turn
in which another program took the processor is had again, ten times at most. Each turn is checked: a closed circuit must
have called the backend as often as it was called, one that refuses never.

Who brings a Tower layer (breaker, seatbelt, tower-resilience) is measured with it. recloser and failsafe stand behind the
least service that makes them one: it hands the backend's future to their `call`. These two and breaker's layer run
`Service::call` even when open, and drop the future unpolled; a service that does its work in `call` would be called.

All have their defaults, but for seatbelt's threshold, which is the tenth that fails here, and is set to half. Peers' errors
are enums or errors without size; ours is boxed, with a name and a time to wait. Peers' metrics are off, as they are by
default; ours are on, as they are by default, without a recorder. tower-resilience waits for its lock as a future does:
polling on at once is kinder to it than a runtime. Its window of time goes through all of its records with each call, so it
is measured with the window of calls it comes with, which does not slide. seatbelt's coarse clock is the system's, which
steps by milliseconds.

Threads are kept on processors of their own as far as there are some. Peers' futures differ in size, and code in its
alignment: a tenth more or less says nothing.
";
