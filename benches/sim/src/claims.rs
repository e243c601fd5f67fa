//! What the defaults must reach, and where a peer is allowed to be better:
//! as data, which the report shows and the tests enforce.

use std::time::Duration;

use crate::{
    contender::{Contender, Tuning},
    figures::Metric,
    lab::Lab,
    scenario::{
        Blips, ColdStart, Fleet, Hung, Outage, SLOW, Scenario, Shards, Size, Steady, Storm,
    },
    server::Health,
};

const DEAD: Health = Health::Failing(1.0);
const MOSTLY_FAILING: Health = Health::Failing(0.6);

/// The ramp that is simulated: as long as the cold dependency takes to warm.
pub const RAMP: Duration = Duration::from_secs(30);

/// One number that tower-breaker must reach.
#[derive(Debug)]
pub struct Target {
    /// What is asked, in words.
    pub law: &'static str,
    /// Where.
    pub scenario: Box<dyn Scenario>,
    /// With which settings.
    pub contender: Contender,
    /// Of which number.
    pub metric: Metric,
    /// The limit.
    pub bound: Bound,
}

/// A limit, which itself is allowed.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value keeps it. What is not a number does not.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    /// The limit as the report shows it.
    pub fn show(self, metric: Metric) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {}", metric.show(limit)),
            Self::AtLeast(limit) => format!("at least {}", metric.show(limit)),
        }
    }
}

impl Target {
    /// What was measured.
    pub fn value(&self, lab: &mut Lab) -> f64 {
        lab.figures(&*self.scenario, self.contender).get(self.metric)
    }
}

/// Everything that must be reached.
pub fn targets(size: Size) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    use Contender::{Ours, OursWith};
    use Metric::{
        Goodput, HealthyLoss, Openings, OverloadPeak, PeakOverMean, Probes, Recovery, Refused,
        SentInTrouble, SentToDead, TimeToReject, TrippedBlips,
    };

    let mut targets = Vec::new();
    let mut add = |law, scenario: Box<dyn Scenario>, contender, metric, bound| {
        targets.push(Target { law, scenario, contender, metric, bound });
    };
    let outage = |health, rate| Box::new(Outage::new(health, rate, size));
    let ramp = OursWith(Tuning::Ramp(RAMP));
    let slow = OursWith(Tuning::Slow(SLOW));
    // Half of the window's 20 calls must have hung for longer than the threshold;
    // then the next is refused. Two gaps more for chance.
    let hung = |rate: f64| AtMost(SLOW.as_secs_f64() + (10.0 + 1.0 + 2.0) / rate);

    add("dead at 50 calls/s: rejects", outage(DEAD, 50.0), Ours, TimeToReject, AtMost(1.2));
    add("dead at 500 calls/s: rejects", outage(DEAD, 500.0), Ours, TimeToReject, AtMost(1.2));
    add("dead at 0.5 calls/s: rejects", outage(DEAD, 0.5), Ours, TimeToReject, AtMost(30.0));
    add("60 % fail at 50: rejects", outage(MOSTLY_FAILING, 50.0), Ours, TimeToReject, AtMost(1.5));
    add(
        "60 % fail at 500: rejects",
        outage(MOSTLY_FAILING, 500.0),
        Ours,
        TimeToReject,
        AtMost(1.5),
    );
    add(
        "60 % fail at 50: sent meanwhile",
        outage(MOSTLY_FAILING, 50.0),
        Ours,
        SentInTrouble,
        AtMost(0.05),
    );
    add("dead at 50, healed: recovers", outage(DEAD, 50.0), Ours, Recovery, AtMost(10.0));
    add("dead at 500, healed: recovers", outage(DEAD, 500.0), Ours, Recovery, AtMost(10.0));
    add(
        "hung at 50, healed: recovers",
        outage(Health::Hanging, 50.0),
        Ours,
        Recovery,
        AtMost(10.0),
    );
    add("retry storm: ends", Box::new(Storm::new(size)), Ours, Recovery, AtMost(4.0));
    add("retry storm: goodput", Box::new(Storm::new(size)), Ours, Goodput, AtLeast(0.95));
    add(
        "30 % errors: refused",
        Box::new(Steady::new(0.3, 50.0, size)),
        Ours,
        Refused,
        AtMost(0.02),
    );
    add("5 % errors: trips", Box::new(Steady::new(0.05, 50.0, size)), Ours, Openings, AtMost(0.99));
    add("blips at 50: trips", Box::new(Blips::new(50.0, size)), Ours, TrippedBlips, AtMost(0.0));
    add("blips at 500: trips", Box::new(Blips::new(500.0, size)), Ours, TrippedBlips, AtMost(0.0));
    add("attacker: trips", Box::new(Steady::attack(size)), Ours, Openings, AtMost(0.0));
    add(
        "cold start, 20 clients",
        Box::new(ColdStart::new(20, size)),
        ramp,
        OverloadPeak,
        AtMost(1.1),
    );
    add(
        "cold start, 2 clients",
        Box::new(ColdStart::new(2, size)),
        ramp,
        OverloadPeak,
        AtMost(1.2),
    );
    add(
        "a circuit a shard: nine lose",
        Box::new(Shards::new(true, size)),
        Ours,
        HealthyLoss,
        AtMost(0.0005),
    );
    add(
        "a circuit a shard: one gets",
        Box::new(Shards::new(true, size)),
        Ours,
        SentToDead,
        AtMost(0.06),
    );
    add("fleet of 1,000: probes", Box::new(Fleet::new(10.0, size)), Ours, Probes, AtMost(150.0));
    add("fleet of 1,000: peak", Box::new(Fleet::new(10.0, size)), Ours, PeakOverMean, AtMost(4.0));
    add(
        "hung for ever at 50: opens",
        Box::new(Hung::new(50.0, size)),
        slow,
        TimeToReject,
        hung(50.0),
    );
    targets
}

/// What a line asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// How soon it steps in.
    Protects,
    /// How soon it lets traffic back.
    Returns,
    /// Whether it leaves alone what is well.
    Calm,
    /// What it costs the dependency that is in trouble.
    Spares,
}

impl Question {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Protects => "how soon it steps in",
            Self::Returns => "how soon traffic is back",
            Self::Calm => "whether it leaves alone what is well",
            Self::Spares => "what it still sends to what is in trouble",
        }
    }
}

/// A number by which tower-breaker is compared with its peers.
#[derive(Debug)]
pub struct Line {
    /// What is compared, in words.
    pub title: &'static str,
    /// What it is about.
    pub question: Question,
    /// Where.
    pub scenario: Box<dyn Scenario>,
    /// Of which number.
    pub metric: Metric,
    /// A difference nobody would choose a breaker by.
    pub slack: f64,
}

impl Line {
    /// By how much a peer must be better to be better: more than the slack.
    fn is_beaten(&self, ours: f64, peer: f64) -> bool {
        let ahead = if self.metric.more_is_better() { peer - ours } else { ours - peer };
        ahead > self.slack
    }
}

/// Every comparison.
pub fn lines(size: Size) -> Vec<Line> {
    use Metric::{
        Goodput, Openings, Probes, Recovery, Refused, SentInTrouble, SentToDead, TimeToReject,
        TrippedBlips,
    };
    use Question::{Calm, Protects, Returns, Spares};

    let mut lines = Vec::new();
    let mut add = |question, title, scenario: Box<dyn Scenario>, metric, slack| {
        lines.push(Line { title, question, scenario, metric, slack });
    };
    let outage = |health, rate| Box::new(Outage::new(health, rate, size));

    add(Protects, "dead, 50 calls/s: rejects after", outage(DEAD, 50.0), TimeToReject, 0.25);
    add(Protects, "dead, 500 calls/s: rejects after", outage(DEAD, 500.0), TimeToReject, 0.25);
    add(Protects, "dead, 0.5 calls/s: rejects after", outage(DEAD, 0.5), TimeToReject, 2.0);
    add(
        Protects,
        "hangs, 50 calls/s: rejects after",
        outage(Health::Hanging, 50.0),
        TimeToReject,
        0.25,
    );
    add(
        Protects,
        "60 % fail, 50 calls/s: rejects after",
        outage(MOSTLY_FAILING, 50.0),
        TimeToReject,
        0.25,
    );
    add(
        Protects,
        "60 % fail, 500 calls/s: rejects after",
        outage(MOSTLY_FAILING, 500.0),
        TimeToReject,
        0.25,
    );
    add(Protects, "retry storm: ends after", Box::new(Storm::new(size)), Recovery, 0.5);
    add(Returns, "dead, 50 calls/s, healed: 95 % back after", outage(DEAD, 50.0), Recovery, 1.0);
    add(
        Returns,
        "retry storm: goodput of the minute after",
        Box::new(Storm::new(size)),
        Goodput,
        0.01,
    );
    add(
        Returns,
        "cold start, 20 clients: goodput of the minute after",
        Box::new(ColdStart::new(20, size)),
        Goodput,
        0.02,
    );
    add(
        Calm,
        "200 ms blips, 50 calls/s: trip it",
        Box::new(Blips::new(50.0, size)),
        TrippedBlips,
        0.01,
    );
    add(
        Calm,
        "200 ms blips, 500 calls/s: trip it",
        Box::new(Blips::new(500.0, size)),
        TrippedBlips,
        0.01,
    );
    add(
        Calm,
        "5 % errors: trips a million calls",
        Box::new(Steady::new(0.05, 50.0, size)),
        Openings,
        0.5,
    );
    add(Calm, "10 % errors: refused", Box::new(Steady::new(0.1, 50.0, size)), Refused, 0.01);
    add(Calm, "30 % errors: refused", Box::new(Steady::new(0.3, 50.0, size)), Refused, 0.01);
    add(
        Calm,
        "attacker's 30 % at 500 calls/s: refused",
        Box::new(Steady::attack(size)),
        Refused,
        0.01,
    );
    add(
        Spares,
        "60 % fail, 50 calls/s: sent meanwhile",
        outage(MOSTLY_FAILING, 50.0),
        SentInTrouble,
        0.02,
    );
    add(Spares, "fleet of 1,000: probes a second", Box::new(Fleet::new(10.0, size)), Probes, 10.0);
    add(
        Spares,
        "a breaker a shard: the dead one receives",
        Box::new(Shards::new(true, size)),
        SentToDead,
        0.01,
    );
    lines
}

/// A question on which a peer may be better, and why we leave it that.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// Who.
    pub peer: Contender,
    /// On which question.
    pub question: Question,
    /// What it does differently, and what that costs it.
    pub because: &'static str,
}

/// All of them. One that is not needed is an error, as is one that is missing.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        peer: Contender::Resilience4j,
        question: Question::Protects,
        because: "It opens as soon as 50 of the last 100 calls have failed, however short that was. \
                  At 500 calls/s that is a tenth of a second, so a blip of 200 ms opens it, \
                  for a minute. We wait until the trouble is a second old.",
    },
    Exception {
        peer: Contender::Hystrix,
        question: Question::Returns,
        because: "It probes every 5 s for ever, and one success closes it. That finds a recovery sooner \
                  than waits that grow to 8 s and three probes, and sends half as much again to what \
                  is dead.",
    },
    Exception {
        peer: Contender::Polly,
        question: Question::Returns,
        because: "As Hystrix: it probes every 5 s for ever, and one success closes it.",
    },
    Exception {
        peer: Contender::Linkerd,
        question: Question::Protects,
        because: "Seven failures in a row open it, at any age. So do four of five blips of 200 ms at 50 \
                  calls/s, and an attacker whose calls fail now and then.",
    },
    Exception {
        peer: Contender::Linkerd,
        question: Question::Spares,
        because: "Its penalty grows to a minute, ours to about 8 s. It sends a quarter of our probes, and \
                  finds a recovery half a minute later.",
    },
];

/// One line where a peer is better than we are.
#[derive(Clone, Debug, PartialEq)]
pub struct Beaten {
    /// The peer.
    pub peer: Contender,
    /// On which question.
    pub question: Question,
    /// On which line.
    pub line: &'static str,
    /// Our number.
    pub ours: String,
    /// Theirs.
    pub theirs: String,
}

/// Every line on which a peer is better.
pub fn beaten(lines: &[Line], lab: &mut Lab) -> Vec<Beaten> {
    let mut beaten = Vec::new();
    for line in lines {
        let ours = lab.figures(&*line.scenario, Contender::Ours).get(line.metric);
        for peer in Contender::PEERS {
            let theirs = lab.figures(&*line.scenario, peer).get(line.metric);
            if line.is_beaten(ours, theirs) {
                beaten.push(Beaten {
                    peer,
                    question: line.question,
                    line: line.title,
                    ours: line.metric.show(ours),
                    theirs: line.metric.show(theirs),
                });
            }
        }
    }
    beaten
}
