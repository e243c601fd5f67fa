//! tower-breaker keeps to the scenarios, and who doesn't is found out.

use std::time::Duration;

use tower_breaker_conformance::{
    Breaker, Feature, Refusal, Refused, Report, Rules, Scenario, Subject, Time, Verdict, Wait,
    Window, all, judge, subjects::TowerBreaker,
};

use naive::{Flaw, Naive};

mod naive;

/// Who fails which scenarios.
fn fails(subject: &dyn Subject) -> Vec<String> {
    let fails = |scenario: &Scenario| matches!(judge(subject, scenario), Verdict::Fails(_));
    all().iter().filter(|scenario| fails(scenario)).map(|scenario| scenario.id.clone()).collect()
}

#[test]
fn tower_breaker_passes_every_scenario() {
    for scenario in all() {
        assert_eq!(judge(&TowerBreaker, &scenario), Verdict::Passes, "{}", scenario.id);
    }
}

#[test]
fn the_report_is_what_the_scenarios_say_of_tower_breaker() {
    let report = include_str!("../report.md");
    let now = Report::new(&[Box::new(TowerBreaker)], &all()).to_string();
    let (was, is) =
        (Report::column(report, "tower-breaker"), Report::column(&now, "tower-breaker"));
    assert!(!is.is_empty());
    assert_eq!(
        was, is,
        "write the report anew: `cargo run --manifest-path conformance/Cargo.toml -- --write`"
    );
    // The others' columns are not looked at, but they are there.
    assert_eq!(Report::column(report, "recloser 1.4").len(), is.len());
}

#[test]
fn a_breaker_without_a_flaw_passes_all_it_claims() {
    let verdicts: Vec<_> = all()
        .iter()
        .map(|scenario| (scenario.id.clone(), judge(&Naive(Flaw::Nothing), scenario)))
        .collect();
    let count = |is: fn(&Verdict) -> bool| verdicts.iter().filter(|(_, v)| is(v)).count();
    let failed: Vec<_> = verdicts.iter().filter(|(_, v)| matches!(v, Verdict::Fails(_))).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(count(|verdict| *verdict == Verdict::Passes) > 25);
    // What it doesn't claim is not held against it.
    assert!(count(|verdict| matches!(verdict, Verdict::Unclaimed(_))) > 25);
    assert_eq!(count(|verdict| matches!(verdict, Verdict::NotMeasurable(_))), 0);
}

#[test]
fn each_flaw_fails_the_scenarios_that_guard_against_it() {
    for (flaw, guards) in [
        (Flaw::IgnoresGenerations, "S70 S70b S70c S70d S70f S76 S76b S76c S76d"),
        (Flaw::KeepsDroppedProbes, "S50b"),
        (Flaw::NeverEndsHalfOpen, "S33b S50b S62 S62c S85b S70b S70d S70e S70f S76d S93d"),
        (Flaw::AdmitsEveryProbe, "S50b S62 S62b S70 S70b S76b S76d"),
        (Flaw::WaitsATickLonger, "S41"),
        (Flaw::CountsRefusals, "S40 S41 S50b S62 S62b S62c S70 S70b S70e S76d S93d"),
        (Flaw::ForgetsPanics, "S85 S85b"),
        (Flaw::NeutralEndsARow, "S31 S31b"),
        (
            Flaw::OpensLate,
            "S30 S31 S31b S33 S33b S85 S40 S41 S48 S48b S50b S62 S62b S70 S70b S70c S70d S70e S76",
        ),
        (Flaw::ForgivesProbes, "S62b S62c S85b S70 S70c S76b"),
        (Flaw::WaitsOnce, "S33b S62b S62c S85b S70 S70c S76b S76d"),
        (Flaw::TakesAnything, "S143d S143e S143g"),
    ] {
        assert_eq!(fails(&Naive(flaw)).join(" "), guards, "{flaw:?}");
    }
}

type Alter = fn(&mut Rules);

/// tower-breaker by other rules than it was told.
struct Altered(Alter);

impl Subject for Altered {
    fn name(&self) -> &str {
        "altered"
    }

    fn claims(&self, feature: Feature) -> bool {
        TowerBreaker.claims(feature)
    }

    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn Breaker, &mut dyn Time),
    ) -> Result<(), Refused> {
        let mut rules = rules.clone();
        self.0(&mut rules);
        TowerBreaker.play(&rules, play)
    }
}

#[test]
fn rules_that_are_off_by_the_least_there_is_are_found_out() {
    const NANO: Duration = Duration::from_nanos(1);
    let alterations: [(&str, Alter); 12] = [
        (
            "S01 S01b S02 S09 S09b S03 S03c S04 S06c S07 S24 S25 S27 S27b S90b S90c S105 S08 S143",
            |rules| {
                if let Window::Calls(calls) = &mut rules.window {
                    *calls += 1;
                }
            },
        ),
        (
            "S01 S01b S09 S09b S17 S21 S03 S03b S03c S04 S06 S06c S07 S07b S24 S25 S27 S27b S90b S90c S105",
            |rules| rules.minimum_calls = Some(rules.minimum() + 1),
        ),
        ("S09 S09b S21 S03 S03c S04 S06 S07 S24 S27 S27b S90b S90c", |rules| {
            rules.minimum_calls = Some(rules.minimum().saturating_sub(1))
        }),
        ("S10 S12 S19 S21", |rules| {
            if let Window::Time(_, buckets) = &mut rules.window {
                *buckets = Some(1);
            }
        }),
        ("S10 S12 S19 S143b", |rules| {
            if let Window::Time(span, _) = &mut rules.window {
                *span += Duration::from_secs(1);
            }
        }),
        ("S01b S09b S19 S06b S06c S27b S105", |rules| {
            rules.failure_rate = rules.failure_rate.map(|rate| rate * 1.02)
        }),
        ("S30 S31 S31b S33 S33b S85 S90 S76 S143d", |rules| {
            rules.consecutive_failures = rules.consecutive_failures.map(|row| row.max(2) - 1);
        }),
        ("S25", |rules| {
            if let Some(slow) = &mut rules.slow_calls {
                slow.over -= NANO;
            }
        }),
        ("S41 S63b", |rules| {
            if let Wait::Fixed(wait) = &mut rules.open_for {
                *wait = wait.saturating_sub(NANO);
            }
        }),
        ("S44 S143f", |rules| {
            if let Wait::Doubling(first, _) = rules.open_for {
                rules.open_for = Wait::Fixed(first);
            }
        }),
        (
            "S09 S09b S33b S90b S44b S50 S50b S55 S58 S62 S62b S62c S63 S69d S85b S70 S70b S70d S70e S70f S70g S76b S76d S93b S93d S143g",
            |rules| rules.probes += 1,
        ),
        ("S63b", |rules| rules.lease = rules.lease.map(|lease| lease + NANO)),
    ];
    for (index, (guards, alter)) in alterations.into_iter().enumerate() {
        assert_eq!(fails(&Altered(alter)).join(" "), guards, "alteration {index}");
    }
}

#[test]
fn every_scenario_is_one_of_a_kind_and_says_what_it_is_of() {
    let scenarios = all();
    for (index, scenario) in scenarios.iter().enumerate() {
        assert!(scenario.law.ends_with('.'), "{}", scenario.id);
        assert!(scenarios[..index].iter().all(|other| other.id != scenario.id), "{}", scenario.id);
        assert!(scenario.refusal == Refusal::Must || scenario.steps.len() > 1, "{}", scenario.id);
    }
}

#[test]
fn a_file_that_is_no_scenario_is_refused_with_what_is_wrong() {
    let scenario = |rest: &str| format!("[[scenario]]\nid = \"X1\"\nlaw = \"None.\"\n{rest}");
    for (rest, says) in [
        ("rules = {}", "X1: `steps` are for rules"),
        ("steps = \"refused\"", "X1: there are no `rules`"),
        ("rules = {}\nsteps = \"explodes\"", "X1: `explodes` is no step"),
        ("rules = {}\nsteps = \"calls SX\"", "X1: no call ends with `X`"),
        ("rules = {}\nsteps = \"calls\"", "X1: no call is named"),
        ("rules = {}\nsteps = \"after soon\"", "X1: `soon`"),
        ("rules = {}\nsteps = \"rate high\"", "X1: `high` is no rate"),
        ("rules = {}\nsteps = \"refused many times\"", "X1: `many` is no number"),
        ("rules = { window = \"ten\" }\nsteps = \"refused\"", "`ten`"),
        ("rules = { window = \"10 apples\" }\nsteps = \"refused\"", "`10 apples` is no window"),
        ("rules = { wait = \"5s\" }\nsteps = \"refused\"", "unknown field `wait`"),
        ("rules = {}\nneeds = [\"luck\"]\nsteps = \"refused\"", "luck"),
        ("rules = {}\nrefusal = \"must\"\nsteps = \"refused\"", "X1: `steps` are for rules"),
    ] {
        let error = Scenario::parse(&scenario(rest)).expect_err(rest).to_string();
        assert!(error.contains(says), "{rest}: {error}");
    }
}
