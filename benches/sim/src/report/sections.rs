//! One section a scenario: a few words, tables, a chart.

use std::time::Duration;

use super::{File, row, rule};
use crate::{
    chart::{Bars, Ink, Strip, Strips},
    claims::RAMP,
    contender::{Contender, Tuning},
    figures::Metric,
    lab::Lab,
    policy::Shape,
    run::{Run, STEP},
    scenario::{
        Blips, ColdStart, Fleet, Hung, Outage, QUEUES, SLOW, STALLS, Scenario, Shards, Size,
        Steady, Storm, Take,
    },
    server::Health,
};

const SIZE: Size = Size::Full;
const DEAD: Health = Health::Failing(1.0);
const MOSTLY_FAILING: Health = Health::Failing(0.6);

/// A section before it is written down.
pub(super) struct Section {
    title: &'static str,
    words: &'static str,
    tables: Vec<String>,
    chart: (&'static str, String),
}

impl Section {
    pub(super) fn markdown(&self) -> String {
        let Self { title, words, tables, chart: (chart, _) } = self;
        let tables = tables.join("\n");
        format!("### {title}\n\n{words}\n\n{tables}\n![{title}]({chart})\n\n")
    }

    pub(super) fn chart(self) -> File {
        File { name: self.chart.0.into(), contents: self.chart.1 }
    }
}

pub(super) fn sections(lab: &mut Lab) -> Vec<Section> {
    vec![
        errors(lab),
        hangs(lab),
        partial(lab),
        cold_start(lab),
        low_traffic(lab),
        blips(lab),
        steady(lab),
        shards(lab),
        fleet(lab),
        storm(lab),
        attack(lab),
        hung(lab),
    ]
}

const OUTAGE: [Metric; 6] = [
    Metric::TimeToReject,
    Metric::Lost,
    Metric::SentInTrouble,
    Metric::Recovery,
    Metric::Goodput,
    Metric::Transitions,
];

fn errors(lab: &mut Lab) -> Section {
    let at = |rate| Outage::new(DEAD, rate, SIZE);
    Section {
        title: "1. Dead, with fast errors",
        words: "Every call fails after 5 ms, for about two minutes. Goodput is that of the 100 s after.",
        tables: [50.0, 500.0]
            .map(|rate| table(lab, &format!("{rate} calls/s"), &at(rate), &Contender::ALL, &OUTAGE))
            .to_vec(),
        chart: (
            "errors.svg",
            outage_chart("Dead, fast errors, 20 clients × 50 calls/s", &at(50.0)),
        ),
    }
}

fn hangs(lab: &mut Lab) -> Section {
    let scenario = Outage::new(Health::Hanging, 50.0, SIZE);
    Section {
        title: "2. Dead, and hanging",
        words: "No answer for about two minutes; callers give up after 1 s.",
        tables: vec![table(lab, "50 calls/s", &scenario, &Contender::ALL, &OUTAGE)],
        chart: (
            "hangs.svg",
            outage_chart("Hanging, timeouts of 1 s, 20 clients × 50 calls/s", &scenario),
        ),
    }
}

fn partial(lab: &mut Lab) -> Section {
    let at = |rate| Outage::new(MOSTLY_FAILING, rate, SIZE);
    Section {
        title: "3. Failing for 60 % of the calls",
        words: "For about two minutes. A rate this near to the threshold takes a breaker longer to be sure of, and one \
                probe proves little: it succeeds four times in ten.",
        tables: [50.0, 500.0]
            .map(|rate| table(lab, &format!("{rate} calls/s"), &at(rate), &Contender::ALL, &OUTAGE))
            .to_vec(),
        chart: ("partial.svg", outage_chart("60 % errors, 20 clients × 50 calls/s", &at(50.0))),
    }
}

fn cold_start(lab: &mut Lab) -> Section {
    let scenarios = [
        ("20 clients, time warms it", ColdStart::new(20, SIZE)),
        ("2 clients, time warms it", ColdStart::new(2, SIZE)),
        ("20 clients, only work warms it", ColdStart::new(20, SIZE).by_work()),
        ("2 clients, only work warms it", ColdStart::new(2, SIZE).by_work()),
    ];
    let short = RAMP / 3;
    let contenders = [
        Contender::Ours,
        Contender::OursWith(Tuning::Ramp(short)),
        Contender::OursWith(Tuning::Ramp(short * 2)),
        Contender::OursWith(Tuning::Ramp(RAMP)),
        Contender::Gradual(Shape::Doubling, short),
        Contender::Gradual(Shape::Doubling, RAMP),
        Contender::Resilience4j,
        Contender::Hystrix,
        Contender::Polly,
        Contender::Linkerd,
        Contender::Sre,
        Contender::Unprotected,
    ];
    let metrics = [Metric::OverloadPeak, Metric::Recovery, Metric::Goodput, Metric::Transitions];
    let tables =
        scenarios.map(|(head, scenario)| table(lab, head, &scenario, &contenders, &metrics));
    Section {
        title: "4. Cold start",
        words: "After 40 s of being down it comes back with 30 % of its capacity, warm after 30 s (or after as much work \
                as half of its capacity does in that time). The demand is 80 % of what it can do warm, from twenty \
                clients or from two large ones. The default closes at once; `ramp` lets a share of the calls through \
                that grows in a straight line. Doubling (1/16, 1/8, 1/4, 1/2) is simulated around a circuit that closes \
                at once. Goodput is that of the minute after.\n\n\
                A ramp as long as the warm-up keeps the load below what there is. A short one comes back sooner, at the \
                price of some overload. Doubling waits long and then jumps, so a straight line is what was built. None is \
                free: closing at once serves more callers in that minute, because this dependency turns away in a \
                millisecond what it cannot do, and the breaker trims what is left. So the ramp is for those that break \
                under overload, and off by default.",
        tables: tables.to_vec(),
        chart: ("cold-start.svg", cold_start_chart(&scenarios[0].1, &contenders[..10])),
    }
}

fn low_traffic(lab: &mut Lab) -> Section {
    let scenario = Outage::new(DEAD, 0.5, SIZE);
    Section {
        title: "5. Little traffic",
        words: "As 1, with one call in two seconds of each client, for about five minutes. Hystrix and Polly never see \
                enough calls in their windows to know.",
        tables: vec![table(lab, "0.5 calls/s", &scenario, &Contender::ALL, &OUTAGE)],
        chart: (
            "low-traffic.svg",
            outcome_chart(
                "Dead, fast errors, 20 clients × 0.5 calls/s",
                &scenario,
                &Contender::ALL,
                scenario.span(Take::first(SIZE.takes())),
                Frame { lead: 40, tail: 160, bin: 10, tick: 60.0 },
            ),
        ),
    }
}

fn blips(lab: &mut Lab) -> Section {
    let rates = [5.0, 50.0, 500.0];
    let metrics = [Metric::TrippedBlips, Metric::Refused, Metric::Transitions];
    let tables = rates.map(|rate| {
        let scenario = Blips::new(rate, SIZE);
        table(lab, &format!("{rate} calls/s"), &scenario, &Contender::ALL, &metrics)
    });
    let chart = Bars {
        title: "Blips of 200 ms that trip the breaker".into(),
        length_means: "openings a blip, of a client; one that stays open misses the next blip"
            .into(),
        full: 1.0,
        columns: rates.map(|rate| format!("{rate} calls/s")).to_vec(),
        rows: bar_rows(lab, |lab, contender| {
            rates
                .map(|rate| cell(lab, &Blips::new(rate, SIZE), contender, Metric::TrippedBlips))
                .to_vec()
        }),
    };
    Section {
        title: "6. Blips",
        words: "Every half a minute all calls fail for 200 ms.",
        tables: tables.to_vec(),
        chart: ("blips.svg", chart.svg()),
    }
}

fn steady(lab: &mut Lab) -> Section {
    let shares = [0.05, 0.1, 0.3, 0.5];
    let metrics = [Metric::Refused, Metric::Goodput, Metric::Openings, Metric::Transitions];
    let tables = shares.map(|share| {
        let scenario = Steady::new(share, 50.0, SIZE);
        let head = format!("{} % errors", share * 100.0);
        table(lab, &head, &scenario, &Contender::ALL, &metrics)
    });
    let chart = Bars {
        title: "Calls refused while a share of them fails all the time".into(),
        length_means: "calls refused, of those wanted; 20 clients × 50 calls/s, 10 minutes".into(),
        full: 1.0,
        columns: shares.map(|share| format!("{} % errors", share * 100.0)).to_vec(),
        rows: bar_rows(lab, |lab, contender| {
            let refused =
                |share| cell(lab, &Steady::new(share, 50.0, SIZE), contender, Metric::Refused);
            shares.map(refused).to_vec()
        }),
    };
    Section {
        title: "7. Errors all the time",
        words: "A share of the calls fails, for ten minutes. Below the threshold of 50 % a refusal is for nothing: a \
                caller would have had a good answer more often than not.",
        tables: tables.to_vec(),
        chart: ("steady.svg", chart.svg()),
    }
}

fn shards(lab: &mut Lab) -> Section {
    let (whole, keyed) = (Shards::new(false, SIZE), Shards::new(true, SIZE));
    let metrics = [Metric::HealthyLoss, Metric::SentToDead, Metric::Transitions];
    let chart = Bars {
        title: "One dead shard of ten".into(),
        length_means: "share of the calls wanted of these shards, with one breaker for all and with one for each".into(),
        full: 1.0,
        columns: vec![
            "one: healthy lose".into(),
            "one: dead receives".into(),
            "ten: healthy lose".into(),
            "ten: dead receives".into(),
        ],
        rows: bar_rows(lab, |lab, contender| {
            vec![
                cell(lab, &whole, contender, Metric::HealthyLoss),
                cell(lab, &whole, contender, Metric::SentToDead),
                cell(lab, &keyed, contender, Metric::HealthyLoss),
                cell(lab, &keyed, contender, Metric::SentToDead),
            ]
        }),
    };
    Section {
        title: "8. One dead shard of ten",
        words: "With one breaker for the service, and with one for each shard, for about two minutes; 5 calls/s of each \
                client to each shard. One breaker sees 10 % of errors: most do nothing, and Polly takes the healthy nine \
                down with the tenth.",
        tables: vec![
            table(lab, "one breaker", &whole, &Contender::ALL, &metrics),
            table(lab, "a breaker a shard", &keyed, &Contender::ALL, &metrics),
        ],
        chart: ("shards.svg", chart.svg()),
    }
}

fn fleet(lab: &mut Lab) -> Section {
    let at = |rate| Fleet::new(rate, SIZE);
    let metrics = [Metric::Probes, Metric::PeakOverMean, Metric::FirstPeak];
    let ours = [Contender::Ours];
    Section {
        title: "9. A fleet of 1,000",
        words: "A thousand clients lose the same dependency in the same instant. All open within a third of a second, so \
                the first probes come within half of one, a second later: that is the first peak, a call of each client. \
                From there the jitter draws them apart. With more calls a second a client has more of its three probes \
                under way before the first fails, and sends a few more.",
        tables: vec![
            table(lab, "10 calls/s of each", &at(10.0), &Contender::ALL, &metrics),
            table(lab, "50 calls/s of each", &at(50.0), &ours, &metrics),
        ],
        chart: ("fleet.svg", fleet_chart(&at(10.0))),
    }
}

fn storm(lab: &mut Lab) -> Section {
    let scenario = Storm::new(SIZE);
    let metrics = [
        Metric::TimeToReject,
        Metric::Recovery,
        Metric::Goodput,
        Metric::OverloadPeak,
        Metric::Transitions,
    ];
    let mut tables = vec![table(lab, "3 s, queue of 2,000", &scenario, &Contender::ALL, &metrics)];
    for metric in [Metric::Recovery, Metric::Goodput] {
        let mut grid = row([format!("{}: stall, queue", metric.title())]
            .into_iter()
            .chain(Contender::ALL.map(Contender::name)));
        grid.push_str(&rule(Contender::ALL.len()));
        for stall in STALLS {
            for queue in QUEUES {
                let scenario = Storm::with(stall, queue, SIZE);
                let cells = Contender::ALL.map(|c| cell(lab, &scenario, c, metric).1);
                grid.push_str(&row([format!("{stall} s, {queue}")].into_iter().chain(cells)));
            }
        }
        tables.push(grid);
    }
    let span = scenario.span(Take::first(SIZE.takes()));
    Section {
        title: "10. A storm of retries",
        words: "The dependency stalls for about three seconds and is well again, but its queue is full of calls that \
                nobody waits for any more, and each client tries three times. Left alone it never recovers: that is a \
                metastable failure. Goodput is that of the minute after. The number depends on how long it stalls and \
                how long its queue is, so all of them are shown; the limits above are those of the one in the middle. Where the \
                queue is long or the stall is, tower-breaker takes up to 6 s: its first probes meet the old queue and \
                fail, and its wait doubles. After a stall of 5 s Hystrix, Polly and Linkerd are quicker.",
        tables,
        chart: (
            "storm.svg",
            outcome_chart(
                "A storm of retries after a stall of 2.4 s",
                &scenario,
                &Contender::ALL,
                span,
                Frame { lead: 10, tail: 70, bin: 1, tick: 10.0 },
            ),
        ),
    }
}

fn attack(lab: &mut Lab) -> Section {
    let scenario = Steady::attack(SIZE);
    let metrics = [Metric::TimeToReject, Metric::Refused, Metric::Openings, Metric::Goodput];
    Section {
        title: "11. An attacker",
        words: "Somebody can choose which calls fail, and lets 30 % of 500 calls/s fail for eleven minutes, so as to have \
                the breaker lock everybody else out.",
        tables: vec![table(lab, "500 calls/s", &scenario, &Contender::ALL, &metrics)],
        chart: (
            "attack.svg",
            outcome_chart(
                "30 % of the calls are an attacker's and fail",
                &scenario,
                &Contender::ALL,
                scenario.span(),
                Frame { lead: 60, tail: 0, bin: 5, tick: 60.0 },
            ),
        ),
    }
}

fn hung(lab: &mut Lab) -> Section {
    let contenders = [
        Contender::Ours,
        Contender::OursWith(Tuning::Slow(SLOW)),
        Contender::Resilience4j,
        Contender::Hystrix,
        Contender::Polly,
        Contender::Linkerd,
        Contender::Sre,
        Contender::Unprotected,
    ];
    let metrics = [Metric::TimeToReject, Metric::Stuck, Metric::SentInTrouble];
    let scenario = Hung::new(50.0, SIZE);
    let span = scenario.span();
    Section {
        title: "12. Hung, and no timeouts",
        words: "Calls never end, and nobody gives up. A breaker that only learns from calls that have ended learns \
                nothing. With the slow rule on (2 s, half of the calls) tower-breaker counts calls that are overdue: when \
                ten of the last twenty are, the next is refused. (The throttle counts a call when it is made, and so \
                notices too. Hystrix has a timeout of its own, which is left out here.)",
        tables: [50.0, 5.0]
            .map(|rate| {
                let scenario = Hung::new(rate, SIZE);
                table(lab, &format!("{rate} calls/s"), &scenario, &contenders, &metrics)
            })
            .to_vec(),
        chart: (
            "hung.svg",
            outcome_chart(
                "Hung for ever, no timeouts, 20 clients × 50 calls/s",
                &scenario,
                &contenders,
                span,
                Frame { lead: 10, tail: 0, bin: 1, tick: 10.0 },
            ),
        ),
    }
}

fn table(
    lab: &mut Lab,
    head: &str,
    scenario: &dyn Scenario,
    contenders: &[Contender],
    metrics: &[Metric],
) -> String {
    let heads = metrics.iter().map(|metric| metric.title().to_owned());
    let mut table = row([head.to_owned()].into_iter().chain(heads));
    table.push_str(&rule(metrics.len()));
    for contender in contenders {
        let figures = lab.figures(scenario, *contender);
        let cells = metrics.iter().map(|metric| metric.show(figures.get(*metric)));
        table.push_str(&row([contender.name()].into_iter().chain(cells)));
    }
    table
}

fn cell(
    lab: &mut Lab,
    scenario: &dyn Scenario,
    contender: Contender,
    metric: Metric,
) -> (f64, String) {
    let value = lab.figures(scenario, contender).get(metric);
    (value, metric.show(value))
}

fn bar_rows(
    lab: &mut Lab,
    cells: impl Fn(&mut Lab, Contender) -> Vec<(f64, String)>,
) -> Vec<(String, Vec<(f64, String)>)> {
    Contender::ALL.map(|contender| (contender.name(), cells(lab, contender))).to_vec()
}

/// How much of a run a chart shows, in seconds.
#[derive(Clone, Copy)]
struct Frame {
    /// Before the trouble.
    lead: u64,
    /// After it.
    tail: u64,
    bin: u64,
    tick: f64,
}

fn outage_chart(title: &str, scenario: &Outage) -> String {
    let span = scenario.span(Take::first(SIZE.takes()));
    let frame = Frame { lead: 10, tail: 90, bin: 1, tick: 20.0 };
    outcome_chart(title, scenario, &Contender::ALL, span, frame)
}

/// Of the calls wanted: how many succeeded, how many failed; the rest was
/// refused.
fn outcome_chart(
    title: &str,
    scenario: &dyn Scenario,
    contenders: &[Contender],
    (from, until): (Duration, Duration),
    frame: Frame,
) -> String {
    let start = from - Duration::from_secs(frame.lead);
    let end = until + Duration::from_secs(frame.tail);
    let row = |contender: &Contender| {
        let run = scenario.run(*contender, Take::first(SIZE.takes()));
        let bins = bins(&run, start, end, frame.bin);
        let share = |part: u64, offered: u64| part as f64 / offered.max(1) as f64;
        let not_refused = bins.iter().map(|b| share(b.offered - b.refused, b.offered)).collect();
        let ok = bins.iter().map(|b| share(b.ok, b.offered)).collect();
        Strip { name: contender.name(), layers: vec![(Ink::Bad, not_refused), (Ink::Good, ok)] }
    };
    Strips {
        title: title.into(),
        height_means: "share of the calls wanted".into(),
        top: 1.0,
        top_label: "100 %".into(),
        time_label: "seconds from the beginning of the trouble".into(),
        from: -(frame.lead as f64),
        step: frame.bin as f64,
        tick: frame.tick,
        shade: Some((0.0, (until - from).as_secs_f64())),
        mark: None,
        legend: vec![
            (Ink::Good, "succeeded".into()),
            (Ink::Bad, "sent, and failed or never ended".into()),
        ],
        rows: contenders.iter().map(row).collect(),
    }
    .svg()
}

fn cold_start_chart(scenario: &ColdStart, contenders: &[Contender]) -> String {
    let take = Take::first(SIZE.takes());
    let (_, healed) = scenario.span(take);
    let row = |contender: &Contender| {
        let run = scenario.run(*contender, take);
        let bins = bins(&run, healed, healed + Duration::from_secs(80), 1);
        let load = bins.iter().map(|bin| bin.load(Duration::from_secs(1))).collect();
        Strip { name: contender.name(), layers: vec![(Ink::Good, load)] }
    };
    Strips {
        title: "Load on a dependency that comes back cold, 20 clients".into(),
        height_means: "calls sent a second, as a multiple of what it can do; dashed: all it can do"
            .into(),
        top: 2.5,
        top_label: "2.5 ×".into(),
        time_label: "seconds from when it came back".into(),
        from: 0.0,
        step: 1.0,
        tick: 10.0,
        shade: None,
        mark: Some(1.0),
        legend: vec![(Ink::Good, "load".into())],
        rows: contenders.iter().map(row).collect(),
    }
    .svg()
}

fn fleet_chart(scenario: &Fleet) -> String {
    let (from, until) = scenario.span();
    let start = from - Duration::from_secs(5);
    let row = |contender: &Contender| {
        let run = scenario.run(*contender, Take::first(SIZE.takes()));
        let sent = bins(&run, start, until, 1).iter().map(|bin| bin.sent as f64).collect();
        Strip { name: contender.name(), layers: vec![(Ink::Bad, sent)] }
    };
    Strips {
        title: "A fleet of 1,000 and one dead dependency".into(),
        height_means: "calls sent a second, by the whole fleet; cut off at 2,000 of 10,000 wanted"
            .into(),
        top: 2_000.0,
        top_label: "2,000".into(),
        time_label: "seconds from when it died".into(),
        from: -5.0,
        step: 1.0,
        tick: 10.0,
        shade: Some((0.0, (until - from).as_secs_f64())),
        mark: None,
        legend: vec![(Ink::Bad, "calls sent".into())],
        rows: Contender::ALL.iter().map(row).collect(),
    }
    .svg()
}

/// A stretch of a run in bins of so many seconds.
fn bins(run: &Run, start: Duration, end: Duration, seconds: u64) -> Vec<crate::Bucket> {
    let width = Duration::from_secs(seconds);
    let end = end.min(STEP * run.series.len() as u32);
    let count = ((end - start).as_nanos() / width.as_nanos()) as u32;
    (0..count).map(|i| run.sum(start + width * i, start + width * (i + 1))).collect()
}
