//! What a valid configuration would do at given traffic, and whether that can
//! be meant.
//!
//! Traffic is taken to be steady: calls come at equal intervals. Where a
//! finding says *never*, that is arithmetic, true for any phase of the calls
//! against the window's buckets. How long it takes to open is read off the
//! machine itself.

use std::{fmt, time::Duration};

use crate::{
    machine::{End, Facts, Machine},
    outcome::Outcome,
    rules::{Cancellation, Rules, SlowRule},
    start::Start,
    state::State,
    time::{Time, nanos},
    window::Kind,
};

/// What a circuit has to do with, for [`Config::lint`](crate::Config::lint).
///
/// What is not told is not judged, but for the two that have a default.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::Traffic;
///
/// let traffic = Traffic::per_second(0.2)
///     .clients(1_000)
///     .latency(Duration::from_millis(80))
///     .outer_timeout(Duration::from_secs(2));
/// # let _ = traffic;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "it does nothing until it is given to `Config::lint`"]
pub struct Traffic {
    per_second: f64,
    clients: u32,
    latency: Option<Duration>,
    outer_timeout: Option<Duration>,
    restart: Option<Duration>,
    usual_failures: Option<f64>,
    blip: Duration,
    notice_within: Duration,
}

impl Traffic {
    /// So many calls a second through one circuit. None, if that is not a
    /// positive number.
    pub const fn per_second(calls: f64) -> Self {
        Self {
            per_second: calls,
            clients: 1,
            latency: None,
            outer_timeout: None,
            restart: None,
            usual_failures: None,
            blip: Duration::from_millis(200),
            notice_within: Duration::from_secs(30),
        }
    }

    /// How many circuits with this configuration call the same dependency: as
    /// a rule, one a process. One, unless said.
    pub const fn clients(mut self, clients: u32) -> Self {
        self.clients = clients;
        self
    }

    /// How long a call to the healthy dependency typically takes.
    pub const fn latency(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }

    /// The timeout *outside* the breaker, after which a call is dropped. Not
    /// one inside: that makes an error, which the breaker sees.
    pub const fn outer_timeout(mut self, timeout: Duration) -> Self {
        self.outer_timeout = Some(timeout);
        self
    }

    /// How long the dependency takes to restart.
    pub const fn restart(mut self, duration: Duration) -> Self {
        self.restart = Some(duration);
        self
    }

    /// The share of calls, from 0 to 1, that fails when all is well.
    pub const fn usual_failures(mut self, share: f64) -> Self {
        self.usual_failures = Some(share);
        self
    }

    /// An outage so short that the circuit should stay closed: 200 ms, unless
    /// said.
    pub const fn blip(mut self, duration: Duration) -> Self {
        self.blip = duration;
        self
    }

    /// How soon a dead dependency should open the circuit: within 30 s, unless
    /// said.
    pub const fn notice_within(mut self, duration: Duration) -> Self {
        self.notice_within = duration;
        self
    }

    /// Nanoseconds between two calls, if there are calls.
    fn interval(&self) -> Option<u64> {
        // A cast of a float to an integer saturates.
        (self.per_second > 0.0).then(|| ((1e9 / self.per_second).round() as u64).max(1))
    }
}

/// Something about a valid configuration that can hardly be meant, given its
/// traffic. `Display` says what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    code: LintCode,
    field: &'static str,
    message: String,
}

impl Lint {
    /// What it is about.
    pub fn code(&self) -> LintCode {
        self.code
    }

    /// The setting to change: the name of a method of
    /// [`ConfigBuilder`](crate::ConfigBuilder), and behind a dot that of the
    /// value it takes.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.field, self.code.as_str(), self.message)
    }
}

/// What a [`Lint`] is about. `as_str` is stable, to be searched for and
/// silenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LintCode {
    /// No outage opens the circuit.
    NeverOpens,
    /// A rate is never known, or never sustained, but another rule opens.
    RuleNeverMet,
    /// Whether a dead dependency opens it, or when, is up to how calls fall
    /// into the window's buckets, or to whether they hang.
    OpensByChance,
    /// A dead dependency opens it late.
    SlowToOpen,
    /// An outage that should not open it does.
    OpensOnABlip,
    /// One failed call opens it.
    OneCallOpens,
    /// One good call closes it.
    OneCallCloses,
    /// It opens while all is well.
    OpensWhenHealthy,
    /// Its probes fail while all is well.
    ProbesFailWhenHealthy,
    /// A dependency that hangs is never seen to.
    HangsUnseen,
    /// All clients probe at the same instant.
    ProbesInStep,
    /// What the probes of all clients ask of a dead dependency is a large part
    /// of its usual load.
    ProbeLoad,
    /// It probes again and again while the dependency restarts.
    ProbesDuringRestart,
}

impl LintCode {
    /// The code in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverOpens => "never-opens",
            Self::RuleNeverMet => "rule-never-met",
            Self::OpensByChance => "opens-by-chance",
            Self::SlowToOpen => "slow-to-open",
            Self::OpensOnABlip => "opens-on-a-blip",
            Self::OneCallOpens => "one-call-opens",
            Self::OneCallCloses => "one-call-closes",
            Self::OpensWhenHealthy => "opens-when-healthy",
            Self::ProbesFailWhenHealthy => "probes-fail-when-healthy",
            Self::HangsUnseen => "hangs-unseen",
            Self::ProbesInStep => "probes-in-step",
            Self::ProbeLoad => "probe-load",
            Self::ProbesDuringRestart => "probes-during-restart",
        }
    }
}

/// Everything there is to say about `rules` at `traffic`.
pub(crate) fn lint(rules: &Rules, traffic: &Traffic) -> Vec<Lint> {
    let mut findings = Findings(Vec::new());
    let opens = findings.opening(rules, traffic);
    if opens {
        findings.time_to_open(rules, traffic);
    }
    findings.one_call(rules);
    findings.healthy(rules, traffic);
    findings.hangs(rules, traffic);
    findings.fleet(rules, traffic);
    findings.restart(rules, traffic);
    findings.0
}

struct Findings(Vec<Lint>);

impl Findings {
    fn say(&mut self, code: LintCode, field: &'static str, message: String) {
        self.0.push(Lint { code, field, message });
    }

    /// Whether a dead dependency can open it at all. Returns whether it does
    /// for certain.
    fn opening(&mut self, rules: &Rules, traffic: &Traffic) -> bool {
        let Some(interval) = traffic.interval() else {
            let message = "no call comes, so nothing is ever seen to fail".to_owned();
            self.say(LintCode::NeverOpens, "window", message);
            return false;
        };
        let has_rate = rules.failure_rate.is_some() || rules.slow_calls.is_some();
        let (false, Kind::Time { span, buckets }) = (!has_rate, rules.window.0) else {
            return true;
        };
        let opens_otherwise = rules.consecutive_failures.is_some();
        let reach = Reach { span: nanos(span), buckets: buckets.into(), interval };
        // Calls that hang count before they end, and may end together.
        let (never, unless) = match (rules.slow_calls, opens_otherwise) {
            (Some(_), true) => return true,
            (Some(_), false) => (LintCode::OpensByChance, "unless calls hang, "),
            (None, true) => (LintCode::RuleNeverMet, ""),
            (None, false) => (LintCode::NeverOpens, ""),
        };
        let minimum = rules.minimum_calls.max(1);
        let rate = traffic.per_second;
        if minimum > reach.most_calls() {
            let message = format!(
                "{unless}{minimum} calls are never within {span:.1?} at {rate} a second, so no rate \
                 is ever known; a minimum of {} would be, or a window of {:.1?}, or one of the last \
                 {minimum} calls however long ago",
                reach.sure_calls(),
                reach.span_for(minimum),
            );
            self.say(never, "minimum_calls", message);
            return opens_otherwise;
        }
        let sustained = rules.sustained_for;
        let longest = reach.longest_episode();
        if longest.is_some_and(|longest| u128::from(nanos(sustained)) > longest) {
            let message = format!(
                "{unless}at {rate} calls a second one has left the window of {span:.1?} before the next \
                 has come often enough for failures to be sustained for {sustained:.1?}; zero \
                 would do, or a window of {:.1?}",
                reach.span_for(2),
            );
            self.say(never, "sustained_for", message);
            return opens_otherwise;
        }
        let is_sure = minimum <= reach.sure_calls() && (sustained.is_zero() || longest.is_none());
        if !is_sure && !opens_otherwise {
            let message = format!(
                "at {rate} calls a second it is up to chance how many of {minimum} calls the \
                 window of {span:.1?} holds; {:.1?} would hold them always",
                reach.span_for(minimum.max(2)),
            );
            self.say(LintCode::OpensByChance, "window", message);
        }
        is_sure || opens_otherwise
    }

    /// How long a dead dependency takes to open it.
    fn time_to_open(&mut self, rules: &Rules, traffic: &Traffic) {
        let Some(interval) = traffic.interval() else { return };
        let Some(Opening { failures, after }) = opening(rules, interval) else { return };
        if after > traffic.notice_within {
            let message = format!(
                "a dead dependency opens it after {failures} calls, which at {} a second is \
                 {after:.1?}; to open within {:.1?}, let fewer calls decide: a smaller window and \
                 minimum, or a few consecutive failures",
                traffic.per_second, traffic.notice_within,
            );
            let field = match rules.consecutive_failures {
                Some(_) => "consecutive_failures",
                None => "window",
            };
            self.say(LintCode::SlowToOpen, field, message);
        }
        // A call more would come after the blip.
        if after < traffic.blip && failures > 1 {
            let by_row = rules.consecutive_failures.is_some_and(|row| u64::from(row) == failures);
            let (field, instead) = if by_row {
                ("consecutive_failures", "a rate with a `sustained_for` of more than that")
            } else {
                ("sustained_for", "more than that")
            };
            let message = format!(
                "an outage of {:.1?} opens it: at {} calls a second {failures} fail within \
                 {after:.1?}; {instead} would keep it closed",
                traffic.blip, traffic.per_second,
            );
            self.say(LintCode::OpensOnABlip, field, message);
        }
    }

    fn one_call(&mut self, rules: &Rules) {
        let minimum = rules.minimum_calls.max(1);
        let at_once = rules.sustained_for.is_zero();
        let by_rate = rules.failure_rate.filter(|rate| at_once && rate.reached_by(1, minimum));
        if by_rate.is_some() {
            let message = format!(
                "one failed call of {minimum} opens it; two would have to fail at a minimum of \
                 two calls and a rate above {:.3}, or where failures must be sustained for a while",
                1.0 / minimum.max(2) as f64,
            );
            self.say(LintCode::OneCallOpens, "failure_rate", message);
        }
        if rules.consecutive_failures == Some(1) {
            let message = "one failed call opens it; two or more would be a row".to_owned();
            self.say(LintCode::OneCallOpens, "consecutive_failures", message);
        }
        if rules.probes.required() == 1 && rules.ramp.is_none() {
            let message = "one good call closes it, and all traffic comes back at once; three \
                           would tell a dependency that has healed from one that half works"
                .to_owned();
            self.say(LintCode::OneCallCloses, "probes.successes", message);
        }
    }

    /// What it does while nothing is wrong.
    fn healthy(&mut self, rules: &Rules, traffic: &Traffic) {
        if let Some((latency, slow)) = traffic.latency.zip(rules.slow_calls) {
            if latency > slow.threshold {
                let message = format!(
                    "a typical call takes {latency:.1?} and is slow after {:.1?}, so healthy calls \
                     open it; about {:.1?}, four times what is typical, would not",
                    slow.threshold,
                    latency.saturating_mul(4),
                );
                self.say(LintCode::OpensWhenHealthy, "slow_calls", message);
            }
        }
        let longest_wait = rules.open_for.longest();
        let lease = rules.probes.lease_after(longest_wait);
        if let Some(latency) = traffic.latency.filter(|latency| *latency >= lease) {
            let message = format!(
                "a typical call takes {latency:.1?} and a probe has failed after {lease:.1?}, so \
                 every probe fails and it never closes; a lease of {:.1?} would let them end",
                latency.saturating_mul(4),
            );
            self.say(LintCode::ProbesFailWhenHealthy, "probes.lease", message);
        }
        let Some(share) = traffic.usual_failures.filter(|share| *share > 0.0 && *share <= 1.0)
        else {
            return;
        };
        if let Some(rate) = rules.failure_rate.filter(|rate| share >= rate.as_fraction()) {
            let message = format!(
                "{share} of all calls fail when all is well, and {} are enough to open; it has to \
                 be well above, or those are no failures to a classifier that knows them",
                rate.as_fraction(),
            );
            self.say(LintCode::OpensWhenHealthy, "failure_rate", message);
        }
        if let Some(row) = rules.consecutive_failures.filter(|_| traffic.interval().is_some()) {
            let days = row_every(row, share) / traffic.per_second / 86_400.0;
            if days < 1.0 {
                let message = format!(
                    "{row} calls in a row fail by chance every {:.1?} where {share} of all do",
                    Duration::from_secs_f64(days * 86_400.0),
                );
                self.say(LintCode::OpensWhenHealthy, "consecutive_failures", message);
            }
        }
        let closes = closing_chance(rules.probes.permitted(), rules.probes.required(), share);
        if closes < 0.5 {
            let message = format!(
                "{} of {} probes must succeed, which by chance they do {closes:.2} of the time \
                 where {share} of all calls fail when all is well; fewer would close it sooner",
                rules.probes.required(),
                rules.probes.permitted(),
            );
            self.say(LintCode::ProbesFailWhenHealthy, "probes.successes", message);
        }
    }

    /// Whether a dependency that hangs is seen to, where callers give up.
    fn hangs(&mut self, rules: &Rules, traffic: &Traffic) {
        let Some(timeout) = traffic.outer_timeout else { return };
        let (field, why) = match rules.slow_calls {
            Some(rule) if may_be_overdue(rules, rule, traffic, timeout) => return,
            _ if rules.cancellation == Cancellation::Neutral => {
                ("cancellation", "dropped calls are neutral".to_owned())
            }
            None => ("slow_calls", "without a slow rule a dropped call is neutral".to_owned()),
            Some(rule) if rule.threshold >= timeout => {
                ("slow_calls", format!("a call is slow only after {:.1?}", rule.threshold))
            }
            Some(_) => return,
        };
        let message = format!(
            "callers drop a call after {timeout:.1?}, and {why}: a dependency that hangs never \
             opens it; a timeout inside the breaker would be an error, and a slow rule by age \
             with a threshold below {timeout:.1?} sees the drops",
        );
        self.say(LintCode::HangsUnseen, field, message);
    }

    /// What the probes of many clients come to.
    fn fleet(&mut self, rules: &Rules, traffic: &Traffic) {
        let clients = traffic.clients;
        let permits = rules.probes.permitted();
        if clients > 1 && (rules.open_for.is_seeded() || !rules.open_for.has_jitter()) {
            let at_once = u64::from(clients) * u64::from(permits);
            let (field, why) = if rules.open_for.is_seeded() {
                ("open_for.seed", "draw the same jitter")
            } else {
                ("open_for.jitter", "wait the same time, without jitter")
            };
            let message = format!(
                "{clients} clients that open together {why}, and send up to {at_once} probes in \
                 the same instant; a jitter of 0.2 and no seed would spread them",
            );
            self.say(LintCode::ProbesInStep, field, message);
        }
        if traffic.interval().is_none() {
            return;
        }
        let wait = rules.open_for.cap().as_secs_f64();
        // So many failures end a round.
        let failing = permits - rules.probes.required() + 1;
        let each = (f64::from(failing) / wait).min(traffic.per_second);
        let share = each / traffic.per_second;
        if clients > 1 && share >= MUCH {
            let message = format!(
                "{clients} clients that fail {failing} probes every {wait:.1} s cost a dead \
                 dependency up to {:.1} calls a second, {:.0} % of its usual load; with a longest \
                 wait above {:.1} s it would be less than {:.0} %",
                each * f64::from(clients),
                share * 100.0,
                f64::from(failing) / (MUCH * traffic.per_second),
                MUCH * 100.0,
            );
            self.say(LintCode::ProbeLoad, "open_for.max", message);
        }
    }

    fn restart(&mut self, rules: &Rules, traffic: &Traffic) {
        let cap = rules.open_for.cap();
        if let Some(restart) = traffic.restart.filter(|restart| *restart > cap) {
            // Without jitter, which is as often shorter as it is longer.
            let mut rounds = 0u64;
            let mut waited = Duration::ZERO;
            while rounds < 1_000 {
                let step = u32::try_from(rounds).unwrap_or(u32::MAX);
                waited = waited.saturating_add(rules.open_for.wait(step, 0.5));
                if waited >= restart {
                    break;
                }
                rounds += 1;
            }
            let message = format!(
                "a restart of the dependency takes {restart:.1?}, during which about {rounds} \
                 rounds of probes fail; a longest wait of {restart:.1?} would be less in its way"
            );
            self.say(LintCode::ProbesDuringRestart, "open_for.max", message);
        }
    }
}

/// Whether so many calls that hang may be overdue at once, before they are
/// dropped after `timeout`, that they open the circuit while they run.
fn may_be_overdue(rules: &Rules, rule: SlowRule, traffic: &Traffic, timeout: Duration) -> bool {
    let Some(interval) = traffic.interval() else { return false };
    let overdue = (nanos(timeout) / interval).saturating_sub(nanos(rule.threshold) / interval);
    // At best the window holds no more calls than it must.
    let calls = rules.minimum_calls.max(overdue);
    timeout >= rules.sustained_for && rule.rate.reached_by(overdue, calls)
}

/// From this share of the usual load on, being open spares too little.
const MUCH: f64 = 0.5;

/// What a time window holds of calls at equal intervals. Nanoseconds.
struct Reach {
    span: u64,
    buckets: u128,
    interval: u64,
}

impl Reach {
    /// The most calls it ever holds: where one has just come in at the end of
    /// a bucket.
    fn most_calls(&self) -> u64 {
        self.span.div_ceil(self.interval)
    }

    /// The calls it holds at least whenever one has come in: the oldest bucket
    /// has gone as the newest began.
    fn sure_calls(&self) -> u64 {
        let sure = u128::from(self.span) * (self.buckets - 1);
        let calls = sure / (self.buckets * u128::from(self.interval)) + 1;
        u64::try_from(calls).unwrap_or(u64::MAX)
    }

    /// How old an episode of failures gets at most, if there is a limit: it
    /// ends where one call has left the window before the next comes.
    fn longest_episode(&self) -> Option<u128> {
        if self.sure_calls() >= 2 {
            return None;
        }
        // In parts of a bucket: an interval is all buckets but one, and `over`.
        // A call falls that much deeper into its bucket than the one before,
        // and the window holds both unless that leads into another bucket.
        let bucket = u128::from(self.span);
        let over = u128::from(self.interval) * self.buckets - bucket * (self.buckets - 1);
        let gaps = bucket.div_ceil(over) - 1;
        Some(gaps * u128::from(self.interval))
    }

    /// The span, in as many buckets, that surely holds so many calls.
    fn span_for(&self, calls: u64) -> Duration {
        let apart = u128::from(calls - 1) * u128::from(self.interval);
        // One bucket never holds two calls for sure.
        let held = (self.buckets - 1).max(1);
        let span = (apart * self.buckets).div_ceil(held);
        Duration::from_nanos(u64::try_from(span).unwrap_or(u64::MAX))
    }
}

/// How a dead dependency opened a circuit.
struct Opening {
    failures: u64,
    /// From the first failure to the last.
    after: Duration,
}

/// Lets a healthy dependency die and looks when the machine opens. `None` if
/// that takes too many calls to try.
fn opening(rules: &Rules, interval: u64) -> Option<Opening> {
    const MOST_CALLS: u64 = 100_000;
    let at = |call: u64| Time::from_nanos(call.saturating_mul(interval));
    // One that dies by failing is not slow, unless that is all there is to see.
    let only_slow = rules.failure_rate.is_none() && rules.consecutive_failures.is_none();
    let good = End { outcome: Some(Outcome::Success), slow: false };
    let bad = End { outcome: Some(Outcome::Failure), slow: only_slow };
    let healthy = match rules.window.0 {
        Kind::Count { calls } => u64::from(calls),
        Kind::Time { span, .. } => (nanos(span) / interval).saturating_add(1),
    };
    if healthy >= MOST_CALLS {
        return None;
    }
    // Born long ago, and asked by calls that all pass.
    let rules =
        Rules { start: Start::Closed, warm_up: Duration::ZERO, throttle: None, ..rules.clone() };
    let mut machine = Machine::new(rules, 0);
    let mut facts = Facts::default();
    for call in 0..MOST_CALLS {
        let is_bad = call >= healthy;
        let ticket = machine.acquire(true, at(call), &mut facts).ok()?;
        machine.record(ticket, if is_bad { bad } else { good }, at(call), &mut facts);
        if machine.state() == State::Open {
            let after = at(call).since(at(healthy));
            return Some(Opening { failures: call - healthy + 1, after });
        }
    }
    None
}

/// After how many calls, on average, so many in a row have failed.
fn row_every(row: u32, share: f64) -> f64 {
    if share >= 1.0 {
        return f64::from(row);
    }
    let all = share.powi(i32::try_from(row).unwrap_or(i32::MAX));
    (1.0 - all) / (all * (1.0 - share))
}

/// How likely so many probes of those permitted succeed.
fn closing_chance(permitted: u32, required: u32, share: f64) -> f64 {
    if share >= 1.0 {
        return 0.0;
    }
    // In logarithms: with many probes each single chance may be too small.
    let odds = (share / (1.0 - share)).ln();
    let mut chance = f64::from(permitted) * (1.0 - share).ln();
    let mut sum = chance.exp();
    for failed in 1..=permitted - required {
        chance += odds + (f64::from(permitted - failed + 1) / f64::from(failed)).ln();
        sum += chance.exp();
    }
    sum
}
