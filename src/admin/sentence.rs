//! What a circuit does and why, in words: for whoever looks at 3 a.m.

use std::time::Duration;

use super::time::spoken;
use crate::{Override, OverrideKind, Snapshot, State};

/// One or two sentences. What changes with every look is left to the countdown
/// beside them as long as the circuit is closed.
pub(super) fn sentence(snapshot: &Snapshot) -> String {
    let since = snapshot.overridden_since.unwrap_or(snapshot.since);
    let lasted = snapshot.at.saturating_duration_since(since);
    match &snapshot.active_override {
        None => own(snapshot, lasted),
        Some(over) => format!("{} {}", laid_over(over, lasted), beneath(snapshot, over.kind)),
    }
}

fn laid_over(over: &Override, lasted: Duration) -> String {
    let mut said = match over.kind {
        OverrideKind::ForceOpen => "Held open",
        OverrideKind::ForceClosed => "Held closed",
        _ => "Only observed: every call passes",
    }
    .to_owned();
    let by = match over.kind {
        OverrideKind::ObserveOnly => ", by order of",
        _ => " by",
    };
    if let Some(owner) = &over.owner {
        said += &format!("{by} {owner}");
    }
    said += &format!(", for {} so far and ", minutes(lasted));
    match over.expires_in {
        Some(left) => said += &format!("{} more", minutes(left)),
        None => said += "until somebody clears it",
    }
    if let Some(reason) = &over.reason {
        said += &format!(": {reason}");
    }
    ended(said)
}

/// As coarse as the page is told of it.
fn minutes(duration: Duration) -> String {
    match duration.as_secs() / 60 {
        0 => "less than a minute".to_owned(),
        1 => "one minute".to_owned(),
        _ => spoken(duration),
    }
}

/// What the machine makes of it meanwhile.
fn beneath(snapshot: &Snapshot, kind: OverrideKind) -> String {
    let state = word(snapshot.state);
    let because = snapshot.cause.as_ref().map(|cause| format!(", because {cause}"));
    let because = because.unwrap_or_default();
    match kind {
        OverrideKind::ObserveOnly => format!("By its rules it is {state}{because}."),
        _ => format!("Left to itself it would be {state}{because}."),
    }
}

fn own(snapshot: &Snapshot, lasted: Duration) -> String {
    let lasted = spoken(lasted);
    let cause = snapshot.cause.as_ref().map(ToString::to_string);
    let cause = cause.unwrap_or_else(|| "nobody knows why".to_owned());
    match (snapshot.state, &snapshot.probes, snapshot.admitted_share) {
        (State::Open, ..) => format!("Open for {lasted}: {cause}. {}", next_try(snapshot)),
        (State::HalfOpen, Some(probes), share) => {
            let plural = if probes.required == 1 { "probe has" } else { "probes have" };
            let under_way = match probes.in_flight {
                0 => "none is under way".to_owned(),
                1 => "1 is under way".to_owned(),
                more => format!("{more} are under way"),
            };
            let share = share.map(|share| format!(" {} of the calls are taken.", percent(share)));
            let share = share.unwrap_or_default();
            format!(
                "Half-open for {lasted}: {} of {} {plural} succeeded, {under_way}.{share} It opened because {cause}.",
                probes.successes, probes.required,
            )
        }
        (State::HalfOpen, None, share) => {
            let share = percent(share.unwrap_or(1.0));
            format!(
                "Half-open for {lasted}: {share} of the calls pass, and ever more. It opened because {cause}."
            )
        }
        (State::Closed, _, Some(share)) => {
            let refused = percent(1.0 - share);
            format!("Closed, but {refused} of the calls are refused: {}.", counted(snapshot))
        }
        (State::Closed, ..) => format!("Closed: {}.", counted(snapshot)),
    }
}

fn next_try(snapshot: &Snapshot) -> String {
    match snapshot.retry_after {
        _ if snapshot.awaits_health_check => "It waits for a health check to pass.".to_owned(),
        Some(left) if !left.is_zero() => format!("Next try in {}.", spoken(left)),
        _ => "The next call is a try.".to_owned(),
    }
}

fn counted(snapshot: &Snapshot) -> String {
    let window = &snapshot.window;
    let mut said = match window.calls {
        0 => "no calls yet".to_owned(),
        1 => format!("{} of 1 call failed", window.failures),
        calls => format!("{} of {calls} calls failed", window.failures),
    };
    if window.slow > 0 {
        said += &format!(", {} were slow", window.slow);
    }
    if window.overdue > 0 {
        said += &format!(", {} are overdue", window.overdue);
    }
    said
}

const fn word(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::HalfOpen => "half-open",
        _ => "closed",
    }
}

/// Rounded down: not all is said to pass while something does not.
fn percent(share: f64) -> String {
    format!("{} %", (share * 100.0).floor())
}

/// With a stop at its end, unless the operator has written one.
fn ended(mut said: String) -> String {
    if !said.ends_with(['.', '!', '?']) {
        said.push('.');
    }
    said
}
