//! Callers, breakers, a network and servers on one virtual clock, and everything
//! that goes wrong with them: partitions, slow links, resets, bodies that stop
//! half-way, crashes in the middle of a probe, machines that stand still.
//!
//! A run is a seed. Whatever goes wrong is over after two and a half seconds, so that
//! it can be asked whether the callers are back in time. The seeds of a failure
//! are printed with the command that runs one of them alone:
//!
//! ```text
//! FAULT_SEED=17 cargo test --all-features --test faults
//! FAULT_SEEDS=100000 cargo test --release --all-features --test faults
//! ```

mod client;
mod network;
mod plan;

use std::{
    collections::BTreeMap,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use http_body_util::BodyExt;
use tokio::time::{Instant, advance, sleep, sleep_until, timeout};
use tower::{Service, ServiceExt};
use tower_breaker::{BoxError, CircuitOpen, State};

use self::{
    client::{Client, Reply, Stack},
    network::Network,
    plan::{Dice, Open, Plan, ms, now},
};

/// How many seeds are tried unless the environment says otherwise.
const SEEDS: u64 = if cfg!(debug_assertions) { 1_000 } else { 5_000 };

#[test]
fn whatever_goes_wrong_the_laws_hold() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match number("FAULT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FAULT_SEEDS").unwrap_or(SEEDS),
    };
    let (next, seen) = (AtomicU64::new(seeds.start), Mutex::new(Seen::default()));
    let failed = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) || failed.lock().unwrap().len() >= 10 {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(&Plan::of(seed)))) {
                        Ok(Ok(run)) => seen.lock().unwrap().add(&run),
                        Ok(Err(broken)) => drop(failed.lock().unwrap().insert(seed, broken)),
                        Err(_) => {
                            let broken = "it panicked".to_owned();
                            failed.lock().unwrap().insert(seed, broken);
                        }
                    }
                }
            });
        }
    });
    let (failed, seen) = (failed.into_inner().unwrap(), seen.into_inner().unwrap());
    for (seed, broken) in &failed {
        eprintln!(
            "seed {seed}: {broken}\n  alone: FAULT_SEED={seed} cargo test --all-features --test faults"
        );
    }
    assert!(failed.is_empty(), "{} seeds break a law", failed.len());
    println!("{} seeds: {seen:?}", seeds.end - seeds.start);
    // Laws of what never happened prove nothing.
    if seeds.end - seeds.start >= 1_000 {
        let Seen { runs, answers, openings, refusals, probes, stale, cancelled, causes } = seen;
        assert!(answers > 50 * runs && openings > runs && probes > openings / 2);
        assert!(refusals > runs && stale > 0 && cancelled > 0);
        for cause in CAUSES {
            assert!(causes.contains_key(cause), "no run saw {cause}");
        }
    }
}

const CAUSES: [&str; 9] = [
    "failure-rate",
    "consecutive-failures",
    "slow-call-rate",
    "hangs",
    "wait-over",
    "probes-failed",
    "leases-ended",
    "probes-succeeded",
    "ramp-completed",
];

/// What runs came to, added up.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    answers: u64,
    openings: u64,
    refusals: u64,
    probes: u64,
    stale: u64,
    cancelled: u64,
    /// Transitions by their cause.
    causes: BTreeMap<&'static str, u64>,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.answers += other.answers;
        self.openings += other.openings;
        self.refusals += other.refusals;
        self.probes += other.probes;
        self.stale += other.stale;
        self.cancelled += other.cancelled;
        for (cause, transitions) in &other.causes {
            *self.causes.entry(cause).or_default() += transitions;
        }
    }
}

fn run(plan: &Plan) -> Result<Seen, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(simulate(plan)).map_err(|broken| format!("{broken}\n  {plan:?}"))
}

async fn simulate(plan: &Plan) -> Result<Seen, String> {
    let began = now();
    let mut dice = Dice::new(plan.seed).fork();
    let network = Network::new(plan.servers, &plan.faults);
    let clients: Vec<_> = (0..plan.clients as u64)
        .map(|client| Arc::new(Client::new(plan, &network, &mut dice, client)))
        .collect();
    for (at, length) in plan.pauses.clone() {
        tokio::spawn(async move {
            sleep(at).await;
            advance(length).await;
        });
    }
    // Pauses delay the last of those that began before it was healed, too.
    let recovered = began + plan.recovered_at() + plan.paused();
    let end = recovered + ms(300);
    let callers: Vec<_> = clients
        .iter()
        .flat_map(|client| (0..plan.callers).map(move |_| Arc::clone(client)))
        .map(|client| tokio::spawn(calls(plan.clone(), client, dice.fork(), recovered, end)))
        .collect();
    let mut answers = 0;
    for caller in callers {
        let guard = timeout(Duration::from_secs(3_600), caller).await;
        answers += guard.map_err(|_| "a caller is waiting for ever")?.expect("it did not panic")?;
    }
    let mut seen = Seen { runs: 1, answers, ..Seen::default() };
    for client in &clients {
        let snapshot = client.circuit.snapshot();
        let totals = snapshot.totals;
        let books = client.books();
        if let Some(broken) = books.broken.first() {
            return Err(broken.clone());
        }
        if snapshot.state != State::Closed {
            return Err(format!("not closed in the end: {snapshot:?}"));
        }
        if snapshot.window.overdue > 0 {
            return Err(format!("calls in flight that nobody makes: {snapshot:?}"));
        }
        if totals.calls() != books.arrived {
            return Err(format!("{} calls arrived, counted are {totals:?}", books.arrived));
        }
        if totals.rejected != books.refused {
            return Err(format!("{} calls were refused, counted are {totals:?}", books.refused));
        }
        seen.openings += totals.opened;
        seen.refusals += totals.rejected;
        seen.probes += books.probed;
        seen.stale += totals.stale;
        seen.cancelled += totals.cancelled;
        for cause in client.log.causes(&snapshot)? {
            *seen.causes.entry(cause).or_default() += 1;
        }
    }
    Ok(seen)
}

/// Some dawdle between being ready and calling, and lose what there was.
async fn call(mut stack: Stack, dice: &mut Dice) -> Result<Reply, BoxError> {
    stack.ready().await?;
    if dice.one_in(4) {
        sleep(ms(dice.between(1, 2))).await;
    }
    stack.call(()).await
}

/// One caller, who calls again and again. Returns how many answers it got.
async fn calls(
    plan: Plan,
    client: Arc<Client>,
    mut dice: Dice,
    recovered: Instant,
    end: Instant,
) -> Result<u64, String> {
    let mut answers = 0;
    while now() < end {
        let called = now();
        let result = call(client.stack.clone(), &mut dice).await;
        answers += 1;
        let took = called.elapsed();
        // A millisecond is what a timer can tell apart, some dawdle, and a machine that stands
        // still answers nobody. Who waits for the circuit has asked for no answer
        // before it lets him in.
        let allowed = plan.deadline + ms(4) + plan.paused();
        if plan.when_open != Open::Wait && took > allowed {
            return Err(format!("an answer took {took:?} where {allowed:?} are the most"));
        }
        let ok = match result {
            // Nobody reads on for longer than he would have waited.
            Ok(reply) => {
                let is_success = reply.status().is_success();
                let body = timeout(plan.deadline, reply.into_body().collect()).await;
                is_success && matches!(body, Ok(Ok(_)))
            }
            Err(error) => {
                let refusal = CircuitOpen::find_in(&*error);
                if called > recovered && refusal.is_some() {
                    return Err(format!("refused after the recovery: {error}"));
                }
                false
            }
        };
        if called > recovered && !ok {
            return Err("a call failed after the recovery".into());
        }
        if dice.one_in(50) {
            // A client that goes away says nothing.
            let _ = timeout(ms(dice.below(5)), client.stack.clone().oneshot(())).await;
        }
        let pause = ms(dice.between(40, 160));
        sleep_until((now() + pause).min(end)).await;
    }
    Ok(answers)
}
