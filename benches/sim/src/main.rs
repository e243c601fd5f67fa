//! Regenerates `benches/sim/report`.
use std::time::Duration;
use std::time::Instant;
use tower_breaker_sim::{policy::Shape, scenario::*, *};
fn table(name: &str, s: &dyn Scenario, cs: &[Contender]) {
    let t = Instant::now();
    println!("## {name}");
    for c in cs {
        let f = s.measure(*c, 5);
        print!("{:26}", c.name());
        for m in Metric::ALL {
            let v = f.get(m);
            if !v.is_nan() {
                print!(" | {} {}", m.title(), m.show(v));
            }
        }
        println!();
    }
    println!("{:?}", t.elapsed());
}
fn main() {
    let z = Size::Full;
    let a = &Contender::ALL;
    let w = std::env::args().nth(1).unwrap_or_default();
    let on = |k: &str| w.is_empty() || w == k;
    if on("outage") {
        for r in [50.0, 500.0, 0.5] {
            table(&format!("dead {r}"), &Outage::new(Health::Failing(1.0), r, z), a);
        }
        table("hang 50", &Outage::new(Health::Hanging, 50.0, z), a);
        for r in [50.0, 500.0] {
            table(&format!("60% {r}"), &Outage::new(Health::Failing(0.6), r, z), a);
        }
    }
    if on("cold") {
        let mut cold = a.to_vec();
        for sh in [Shape::Linear, Shape::Doubling] {
            for o in [10, 30] {
                cold.push(Contender::Gradual(sh, Duration::from_secs(o)));
            }
        }
        for n in [20, 2] {
            table(&format!("cold {n}"), &ColdStart::new(n, z), &cold);
            table(&format!("cold {n} by work"), &ColdStart::new(n, z).by_work(), &cold);
        }
    }
    if on("blips") {
        for r in [5.0, 50.0, 500.0] {
            table(&format!("blips {r}"), &Blips::new(r, z), a);
        }
    }
    if on("steady") {
        for p in [0.05, 0.1, 0.3, 0.5] {
            table(&format!("steady {p}"), &Steady::new(p, 50.0, z), a);
        }
        table("attack", &Steady::attack(z), a);
    }
    if on("shards") {
        for k in [false, true] {
            table(&format!("shards keyed {k}"), &Shards::new(k, z), a);
        }
    }
    if on("fleet") {
        for r in [10.0, 50.0] {
            table(&format!("fleet {r}"), &Fleet::new(r, z), a);
        }
    }
    if on("storm") {
        table("storm", &Storm::new(z), a);
    }
    if on("hung") {
        let mut h = a.to_vec();
        h.insert(1, Contender::OursWith(Tuning::Slow(Duration::from_secs(2))));
        table("hung", &Hung::new(50.0, z), &h);
    }
}
