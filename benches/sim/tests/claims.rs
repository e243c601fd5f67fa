//! The defaults reach what they must, and no peer is better without a reason.

use tower_breaker_sim::{
    Contender, Lab,
    claims::{EXCEPTIONS, beaten, lines, targets},
    scenario::Size,
};

#[test]
fn every_target_is_reached() {
    let mut lab = Lab::new(Size::Small);
    let missed: Vec<String> = targets(Size::Small)
        .iter()
        .filter_map(|target| {
            let value = target.value(&mut lab);
            println!("{}: {}", target.law, target.metric.show(value));
            let shown = || (target.bound.show(target.metric), target.metric.show(value));
            (!target.bound.holds(value)).then(|| format!("{}: {:?}", target.law, shown()))
        })
        .collect();
    assert!(missed.is_empty(), "missed: {missed:#?}");
}

#[test]
fn where_a_peer_is_better_the_report_says_why() {
    let mut lab = Lab::new(Size::Small);
    let beaten = beaten(&lines(Size::Small), &mut lab);
    let unexplained: Vec<_> = beaten
        .iter()
        .filter(|b| !EXCEPTIONS.iter().any(|e| (e.peer, e.question) == (b.peer, b.question)))
        .collect();
    assert!(unexplained.is_empty(), "unexplained: {unexplained:#?}");
    for exception in EXCEPTIONS {
        let needed =
            beaten.iter().any(|b| (b.peer, b.question) == (exception.peer, exception.question));
        assert!(needed, "not needed: {exception:?}");
    }
}

/// Linkerd has two: what makes it quick also keeps it away.
#[test]
fn a_peer_has_one_exception_and_linkerd_two() {
    for peer in Contender::PEERS {
        let exceptions = EXCEPTIONS.iter().filter(|exception| exception.peer == peer).count();
        assert_eq!(exceptions, 1 + usize::from(peer == Contender::Linkerd), "{}", peer.name());
    }
}
