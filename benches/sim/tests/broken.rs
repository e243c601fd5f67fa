//! The scenarios tell a good breaker from a broken one: each of these takes
//! one thing away, and the target that guards it is missed.

use std::time::Duration;

use tower_breaker_sim::{
    Contender, Health, Metric, Tuning,
    claims::RAMP,
    policy::Shape,
    scenario::{Blips, ColdStart, Fleet, Hung, Outage, Scenario, Shards, Size, Steady, Storm},
};

const SIZE: Size = Size::Small;

fn figure(scenario: &dyn Scenario, contender: Contender, metric: Metric) -> f64 {
    scenario.measure(contender, 1).get(metric)
}

#[test]
fn without_sustained_for_a_blip_at_high_traffic_trips_it() {
    let at_once = Contender::OursWith(Tuning::NotSustained);
    let tripped = figure(&Blips::new(500.0, SIZE), at_once, Metric::TrippedBlips);
    assert!(tripped > 0.9, "{tripped}");
}

#[test]
fn without_sustained_for_an_attacker_trips_it() {
    let at_once = Contender::OursWith(Tuning::NotSustained);
    let openings = figure(&Steady::attack(SIZE), at_once, Metric::Openings);
    assert!(openings > 10.0, "{openings}");
}

#[test]
fn without_jitter_a_fleet_probes_in_step() {
    let in_step = Contender::OursWith(Tuning::FixedWait);
    let peak = figure(&Fleet::new(10.0, SIZE), in_step, Metric::PeakOverMean);
    assert!(peak > 4.0, "{peak}");
}

#[test]
fn with_a_long_wait_recovery_is_late() {
    let late = Contender::OursWith(Tuning::LongWait);
    let dead = Outage::new(Health::Failing(1.0), 50.0, SIZE);
    assert!(figure(&dead, late, Metric::Recovery) > 10.0);
    assert!(figure(&Storm::new(SIZE), late, Metric::Recovery) > 4.0);
}

#[test]
fn without_a_ramp_a_cold_start_is_an_overload() {
    for clients in [20, 2] {
        let peak = figure(&ColdStart::new(clients, SIZE), Contender::Ours, Metric::OverloadPeak);
        assert!(peak > 1.2, "{clients} clients: {peak}");
    }
}

#[test]
fn the_ramp_of_the_circuit_is_the_linear_one() {
    let scenario = ColdStart::new(20, SIZE);
    let metric = Metric::Goodput;
    let theirs = figure(&scenario, Contender::Gradual(Shape::Linear, RAMP), metric);
    let ours = figure(&scenario, Contender::OursWith(Tuning::Ramp(RAMP)), metric);
    assert!((ours - theirs).abs() < 0.02, "{ours} and {theirs}");
}

/// The model of the throttle was written from the book, and so was ours.
#[test]
fn the_throttle_of_the_circuit_is_that_of_the_book() {
    let scenario = Steady::new(0.9, 50.0, SIZE);
    let metric = Metric::Refused;
    let theirs = figure(&scenario, Contender::Sre, metric);
    let ours = figure(&scenario, Contender::OursWith(Tuning::Throttle), metric);
    assert!(theirs > 0.1 && (ours - theirs).abs() < 0.05, "{ours} and {theirs}");
}

#[test]
fn without_a_breaker_a_storm_never_ends() {
    let end = figure(&Storm::new(SIZE), Contender::Unprotected, Metric::Recovery);
    assert_eq!(end, f64::INFINITY);
}

#[test]
fn without_the_slow_rule_a_hang_without_timeouts_is_never_seen() {
    let seen = figure(&Hung::new(50.0, SIZE), Contender::Ours, Metric::TimeToReject);
    assert_eq!(seen, f64::INFINITY);
}

#[test]
fn with_one_circuit_for_all_shards_the_dead_one_is_hit_by_everybody() {
    let hit = figure(&Shards::new(false, SIZE), Contender::Ours, Metric::SentToDead);
    assert!(hit > 0.9, "{hit}");
}

#[test]
fn a_run_is_the_same_each_time_and_another_with_another_seed() {
    let model = tower_breaker_sim::Model::new(5, 50.0, Duration::from_secs(30)).trouble(
        Duration::from_secs(5),
        Duration::from_secs(15),
        Health::Failing(0.7),
    );
    let play = |seed| format!("{:?}", model.run(Contender::Ours, seed));
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}
