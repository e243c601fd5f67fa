//! Regenerates `benches/sim/report`.
use std::time::Duration;
use tower_breaker_sim::*;
fn main() {
    let s = Duration::from_secs;
    for (label, clients, rate, health) in [("dead", 20, 50.0, Health::Failing(1.0)), ("dead", 4, 500.0, Health::Failing(1.0)), ("hang", 20, 50.0, Health::Hanging), ("60%", 20, 50.0, Health::Failing(0.6)), ("60%", 4, 500.0, Health::Failing(0.6))] {
        println!("{label} {rate}");
        for c in Contender::ALL {
            let m = Model::new(clients, rate, s(350)).trouble(s(130), s(250), health);
            let r = m.run(c, 1);
            println!("  {:20} reject {:6.2} lost {:6} sent {:6.3} recovery {:6.2} trans/min {:5.2}", c.name(), r.time_to_reject(), r.lost(), r.sent_share(s(130), s(250)), r.recovery(s(250), s(1)), r.transitions_a_minute());
        }
    }
}
