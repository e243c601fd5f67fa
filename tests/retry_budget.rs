//! A budget for retries that its circuit has a say in.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt,
    retry::{
        Policy,
        budget::{Budget, TpsBudget},
    },
    service_fn,
};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, Config, Outcome, Probes, ResultClassifier, RetryBudget,
    RetryPolicy, Throttle, WhenOpen,
};

const SECOND: Duration = Duration::from_secs(1);

/// Retries every error, at once, so many times.
#[derive(Clone)]
struct Times(u32);

impl Policy<(), (), BoxError> for Times {
    type Future = Ready<()>;

    fn retry(&mut self, (): &mut (), result: &mut Result<(), BoxError>) -> Option<Ready<()>> {
        self.0 = self.0.checked_sub(1)?;
        result.is_err().then(|| ready(()))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

/// A dependency that fails when told to, and who was asked how often.
#[derive(Clone, Default)]
struct Dependency {
    fails: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Dependency {
    fn service(
        &self,
        circuit: &Circuit,
        budget: &RetryBudget,
    ) -> impl Service<(), Response = (), Error = BoxError> {
        let this = self.clone();
        ServiceBuilder::new()
            .retry(RetryPolicy::stop_when_open(Times(3)).budget(budget.clone()))
            .layer(
                CircuitBreakerLayer::with_classifier(circuit, ResultClassifier::new())
                    .when_open(WhenOpen::Defer),
            )
            .service(service_fn(move |()| {
                this.asked.fetch_add(1, Relaxed);
                let fails = this.fails.load(Relaxed);
                async move { if fails { Err(BoxError::from("down")) } else { Ok(()) } }
            }))
    }

    async fn call(&self, circuit: &Circuit, budget: &RetryBudget, calls: u32) -> u32 {
        let before = self.asked.load(Relaxed);
        for _ in 0..calls {
            let _ = self.service(circuit, budget).oneshot(()).await;
        }
        self.asked.load(Relaxed) - before
    }
}

/// Never opens by itself.
fn patient() -> Circuit {
    let config = Config::builder("budget").no_failure_rate().consecutive_failures(u32::MAX);
    Circuit::new(config.probes(Probes::new(100)).open_for(Backoff::fixed(SECOND)).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn retries_are_at_most_their_share_of_the_calls_whoever_makes_them() {
    let (circuit, dependency) = (patient(), Dependency::default());
    let budget = RetryBudget::new(&circuit, TpsBudget::new(10 * SECOND, 0, 0.2));
    assert_eq!(dependency.call(&circuit, &budget, 100).await, 100);
    dependency.fails.store(true, Relaxed);
    // A hundred good calls have paid for twenty retries, and a policy without
    // would have made 300 of them.
    assert_eq!(dependency.call(&circuit, &budget, 100).await, 100 + 20);
}

#[tokio::test(start_paused = true)]
async fn nobody_retries_while_the_dependency_is_probed() {
    let (circuit, dependency) = (patient(), Dependency::default());
    let budget = RetryBudget::new(&circuit, TpsBudget::new(10 * SECOND, 100, 1.0));
    dependency.fails.store(true, Relaxed);
    assert_eq!(dependency.call(&circuit, &budget, 1).await, 4);
    circuit.trip();
    assert_eq!(dependency.call(&circuit, &budget, 10).await, 0);
    tokio::time::advance(SECOND).await;
    assert_eq!(dependency.call(&circuit, &budget, 1).await, 1, "one probe, and no retry");
}

#[test]
fn nor_while_a_share_of_the_calls_is_refused() {
    let tokens = || TpsBudget::new(10 * SECOND, 100, 1.0);
    let config = Config::builder("budget").no_failure_rate().throttle(Throttle::new(1.0));
    let circuit = Circuit::new(config.build().unwrap());
    let budget = RetryBudget::new(&circuit, tokens());
    assert!(budget.withdraw());
    while let Ok(permit) = circuit.try_acquire() {
        permit.record(Outcome::Failure);
    }
    assert!(!budget.withdraw());
}
