//! What is printed before the timeline and after it.

use std::{fmt::Display, time::Duration};

use crate::{
    HEALED_AT, SCRIPT, client,
    side::{CALLS_PER_SECOND, Side},
    upstream::CAPACITY_PER_SECOND,
    worker_pool::{self, Rates},
};

pub(crate) fn introduce() {
    println!(
        "\
AN OUTAGE, WITH A CIRCUIT BREAKER AND WITHOUT

Two upstreams, each called {CALLS_PER_SECOND} times a second, follow the same script:
    {SCRIPT}
Each can do {CAPACITY_PER_SECOND} calls a second and, like most servers, works on when a caller has given up.

    with       total timeout {total:?} -> {attempts} attempts -> BREAKER -> attempt timeout {attempt:?} -> HTTP
    without    the same, less the breaker

The breaker has its defaults (it opens when half of the last 20 calls failed and that has lasted
1 s; three good probes close it), but stays open for 0.5 to 2 s at a time, not 1 to 8: this outage
is short. Meanwhile two small worker pools go through an outage of their own; see the end.

    served, failed, rejected    how calls ended in that second; rejected: by the breaker
    p99                         how long callers waited for that end, whichever it was
    to sick                     attempts that reached the upstream while it was sick
",
        total = client::TOTAL_TIMEOUT,
        attempts = client::ATTEMPTS,
        attempt = client::ATTEMPT_TIMEOUT,
    );
}

pub(crate) fn compare(with: &Side, without: &Side) {
    let wait_while_sick = |share| [with, without].map(|side| wait(side.wait_while_sick(share)));
    let until_served = [with, without].map(|side| match side.last_not_served() {
        Some(at) => wait(at.saturating_sub(HEALED_AT)),
        None => "none".to_owned(),
    });
    println!();
    row("", ["with the breaker", "without it"]);
    row("calls", [with, without].map(|side| side.answers().len()));
    row("  served", [with, without].map(Side::served));
    row("  failed", [with, without].map(Side::failed));
    row("  rejected", [with, without].map(Side::rejected));
    row("attempts that reached the sick upstream", [with, without].map(Side::sick_calls));
    row("median wait of those who called while it was sick", wait_while_sick(0.5));
    row("p99 of that wait", wait_while_sick(0.99));
    row("most callers waiting at once", [with, without].map(Side::most_waiting));
    row("upstream healed: every call served again after", until_served);
    println!(
        "
Without the breaker every call to the sick upstream became {attempts}. Once healed it had to work off
what had piled up, for callers long gone, while the retries of the others kept the pile high.",
        attempts = client::ATTEMPTS,
    );
}

pub(crate) fn compare_pools(rates: &Rates) {
    let per_second = |rates: [f64; 2]| rates.map(|rate| format!("{rate:.1}/s"));
    println!(
        "
THE WORKER POOL: one worker, {busy:?} a request, so 5 requests a second; work is always waiting.
From {from:?} on its dependency hangs, and each request waits for it until a timeout of {timeout:?}.
",
        busy = worker_pool::REQUEST,
        from = worker_pool::HANGS_FROM,
        timeout = worker_pool::TIMEOUT,
    );
    row("requests done", ["with a breaker", "without one"]);
    row("dependency healthy", per_second(rates.healthy));
    row("dependency hangs, first 5 s: two timeouts open it", per_second(rates.noticing));
    row("dependency hangs, after that", per_second(rates.hanging));
    println!(
        "
While its circuit is open, the worker answers from the fallback and goes on to the next request."
    );
}

/// As a person writes it: `24 ms`, `1.70 s`.
pub(crate) fn wait(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

fn row(what: &str, [with, without]: [impl Display; 2]) {
    println!("    {what:<52}{with:>17}{without:>15}");
}
