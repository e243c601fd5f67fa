//! The defaults reach what they must, and no peer is better without a reason.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use tower_breaker_sim::{
    Contender, Lab,
    claims::{EXCEPTIONS, beaten, lines, targets},
    scenario::Size,
};

/// One for all tests: what one has simulated, the others need not.
fn lab() -> MutexGuard<'static, Lab> {
    static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| Mutex::new(Lab::new(Size::Small)));
    LAB.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_target_is_reached() {
    let mut lab = lab();
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
    let mut lab = lab();
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
