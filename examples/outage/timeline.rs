//! The live table: one row a second, both sides in it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use crate::{
    END, SCRIPT,
    report::wait,
    side::{Ending, Side, count, percentile},
};

/// Prints a row a second until the last call has ended.
pub(crate) async fn print(with: &mut Side, without: &mut Side, start: Instant) {
    let heading =
        format!("{:>7}{:>7}{:>9}{:>8}{:>8}", "served", "failed", "rejected", "p99", "to sick");
    println!("{:17}|{:>27}{:13}|{:>25}", "", "with the breaker", "", "without it");
    println!("{:>6}   {:8}|{heading} |{heading}", "time", "upstream");
    let mut sick_before = [0, 0];
    for second in 0..END.as_secs() {
        let [from, to] = [second, second + 1].map(Duration::from_secs);
        sleep_until((start + to).into()).await;
        with.catch_up();
        without.catch_up();
        let sick = [with.sick_calls(), without.sick_calls()];
        println!(
            "{:>4} s   {:8}|{} |{}",
            to.as_secs(),
            SCRIPT.at(from),
            Row::new(with, from, to, sick[0] - sick_before[0]),
            Row::new(without, from, to, sick[1] - sick_before[1]),
        );
        sick_before = sick;
    }
    tokio::join!(with.finish(), without.finish());
}

/// What happened on one side within a second.
struct Row {
    served: usize,
    failed: usize,
    rejected: usize,
    p99: Duration,
    sick_calls: u64,
}

impl Row {
    fn new(side: &Side, from: Duration, to: Duration, sick_calls: u64) -> Self {
        let ended = || side.answers().iter().filter(|answer| (from..to).contains(&answer.ended));
        Self {
            served: count(ended(), Ending::Served),
            failed: count(ended(), Ending::Failed),
            rejected: count(ended(), Ending::Rejected),
            p99: percentile(ended(), 0.99),
            sick_calls,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { served, failed, rejected, p99, sick_calls } = self;
        write!(f, "{served:>7}{failed:>7}{rejected:>9}{:>8}{sick_calls:>8}", wait(*p99))
    }
}
