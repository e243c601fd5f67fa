//! `brk watch`: the circuits, live, in a terminal.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    panic,
    process::ExitCode,
    time::Duration,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::Print,
    terminal::{
        self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen,
        LeaveAlternateScreen,
    },
};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Client, Error, Global, Output,
    events::{Follower, LOST, Told},
    show,
};

/// How often the terminal is drawn, and the longest it shows what is not so
/// any more.
const FRAME: Duration = Duration::from_millis(500);

/// Those in trouble first. Ctrl-C ends it. Where it does not go to a terminal,
/// each second is a table of its own; with `-o json` each is a line with what
/// the gateway told.
#[derive(clap::Args, Debug)]
pub struct Watch {
    /// End after so many tables
    #[arg(long, value_name = "NUMBER")]
    frames: Option<u64>,
}

impl Watch {
    pub async fn run(self, global: &Global) -> Result<ExitCode, Error> {
        let mut follower = Follower::new(Client::new(global)?, None);
        // Before the screen is taken: a gateway that is not there is an error.
        let first = follower.next().await?;
        let mut board = Board::default();
        if global.output == Output::Json || !io::stdout().is_terminal() {
            self.print(global, board, follower, first).await?;
            return Ok(ExitCode::SUCCESS);
        }
        board.take(&first);
        let base = follower.base().to_owned();
        // So that a connection which takes long to come does not hold a frame up.
        let (tell, mut told) = mpsc::channel(64);
        let follow = async move {
            loop {
                let next = follower.next().await;
                let is_last = next.is_err();
                if tell.send(next).await.is_err() || is_last {
                    return;
                }
            }
        };
        let following = tokio::spawn(follow);
        let screen = Screen::enter()?;
        let shown = self.show(global, board, &screen, &base, &mut told).await;
        drop(screen);
        following.abort();
        shown.map(|()| ExitCode::SUCCESS)
    }

    /// Where nobody looks: one after the other.
    async fn print(
        &self,
        global: &Global,
        mut board: Board,
        mut follower: Follower,
        mut told: Told,
    ) -> Result<(), Error> {
        let mut left = self.frames.unwrap_or(u64::MAX);
        loop {
            let is_frame = matches!(&*told.name, "snapshot" | "tick");
            board.take(&told);
            if global.output == Output::Json {
                show::json_line(&json!({ "event": told.name, "data": told.data }))?;
            } else if is_frame {
                show::line(&board.draw(global.is_coloured(), show::WIDTH, usize::MAX))?;
            }
            left = left.saturating_sub(u64::from(is_frame));
            if left == 0 {
                return Ok(());
            }
            told = follower.next().await?;
        }
    }

    async fn show(
        &self,
        global: &Global,
        mut board: Board,
        screen: &Screen,
        base: &str,
        told: &mut mpsc::Receiver<Result<Told, Error>>,
    ) -> Result<(), Error> {
        let [mut interrupted, mut terminated, mut hung_up] = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let mut left = self.frames.unwrap_or(u64::MAX);
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while left > 0 {
            tokio::select! {
                biased;
                _ = interrupted.recv() => return Ok(()),
                _ = terminated.recv() => return Ok(()),
                _ = hung_up.recv() => return Ok(()),
                _ = frames.tick() => {
                    screen.draw(&board, base, global.is_coloured())?;
                    left -= 1;
                }
                Some(told) = told.recv() => board.take(&told?),
            }
        }
        Ok(())
    }
}

/// What is shown.
#[derive(Debug, Default)]
struct Board {
    circuits: BTreeMap<String, Value>,
    latest: Vec<String>,
    is_cut_off: bool,
}

impl Board {
    fn take(&mut self, told: &Told) {
        self.is_cut_off = told.name == LOST;
        let circuits = || told.data["circuits"].as_array().into_iter().flatten();
        match &*told.name {
            "snapshot" => {
                self.circuits.clear();
                circuits().for_each(|circuit| self.merge(circuit));
            }
            "tick" => {
                self.circuits.values_mut().for_each(|circuit| age(circuit, 1_000.0));
                circuits().for_each(|circuit| self.merge(circuit));
                for id in told.data["gone"].as_array().into_iter().flatten() {
                    self.circuits.remove(id.as_str().unwrap_or_default());
                }
            }
            "event" => {
                self.latest.push(super::events::line(&told.data));
                let most = self.latest.len().saturating_sub(5);
                self.latest.drain(..most);
            }
            _ => {}
        }
    }

    fn merge(&mut self, circuit: &Value) {
        let Some(id) = circuit["id"].as_str() else { return };
        let known = self.circuits.entry(id.to_owned()).or_default();
        match (known.as_object_mut(), circuit.as_object()) {
            (Some(known), Some(news)) => known.extend(news.clone()),
            _ => *known = circuit.clone(),
        }
    }

    /// So many lines, at most.
    fn draw(&self, is_coloured: bool, width: u16, height: usize) -> String {
        let rank = |circuit: &Value| match circuit["state"].as_str() {
            Some("open") => 0,
            Some("half_open") => 1,
            _ if !circuit["override"].is_null() => 2,
            _ => 3,
        };
        let mut circuits: Vec<_> = self.circuits.values().collect();
        circuits.sort_by_key(|circuit| rank(circuit));
        let count = |state: &str| circuits.iter().filter(|one| one["state"] == *state).count();
        let summary = format!(
            "{} open, {} half-open, {} closed",
            count("open"),
            count("half_open"),
            count("closed")
        );
        let events: Vec<String> =
            self.latest.iter().map(|line| show::cut(line, width.into())).collect();
        let room = height.saturating_sub(events.len() + 4).max(1);
        let mut table = show::table_of(&show::HEADS, is_coloured, width);
        let longest_name = usize::from(width).saturating_sub(56).max(12);
        table.add_rows(circuits.iter().take(room).map(|circuit| show::row(circuit, longest_name)));
        show::keep_whole(&mut table, &[1, 2, 3, 4, 5, 6]);
        let mut drawn = format!("{summary}\n{}", show::lines(&table));
        if circuits.len() > room {
            drawn += &format!("and {} more\n", circuits.len() - room);
        }
        if !events.is_empty() {
            drawn += &format!("\n{}\n", events.join("\n"));
        }
        drawn
    }
}

/// What is not told grows older all the same.
fn age(circuit: &mut Value, by: f64) {
    if let Some(lasted) = circuit["for_ms"].as_f64() {
        circuit["for_ms"] = (lasted + by).into();
    }
}

/// The terminal's other screen, until it is dropped, however that comes.
#[derive(Debug)]
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Error> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Or what is said of the panic would go with the screen.
            leave();
            before(info);
        }));
        let screen = Self;
        execute!(io::stdout(), EnterAlternateScreen, Hide, DisableLineWrap)?;
        Ok(screen)
    }

    fn draw(&self, board: &Board, base: &str, is_coloured: bool) -> Result<(), Error> {
        // A terminal that does not know its size says zero.
        let size = terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0);
        let (width, height) = size.unwrap_or((show::WIDTH, 24));
        let said = if board.is_cut_off { "no answer: this is how it was" } else { "Ctrl-C ends" };
        let head = show::cut(&format!("brk {base}   {said}"), width.into());
        let body = board.draw(is_coloured, width, usize::from(height).saturating_sub(2));
        let mut out = io::stdout().lock();
        queue!(out, MoveTo(0, 0))?;
        for (row, line) in std::iter::once(&*head).chain(body.lines()).enumerate() {
            let Ok(row) = u16::try_from(row) else { break };
            if row >= height {
                break;
            }
            queue!(out, MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Print("\r\n"), Clear(ClearType::FromCursorDown))?;
        Ok(out.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Twice does no harm. What can't be written to a terminal that is gone is not
/// missed.
fn leave() {
    let _ = execute!(io::stdout(), EnableLineWrap, Show, LeaveAlternateScreen);
}
