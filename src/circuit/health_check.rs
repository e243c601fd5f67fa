//! Asking the dependency itself, while the circuit is open (feature
//! `health-check`).

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::{Circuit, shared::Shared, sleep::Sleep, sync::Mutex};
use crate::{
    backoff::Noise, config_error::ConfigError, machine::Due, panics::contain, time::nanos,
};

/// A check of the dependency's health that the circuit runs while it is open:
/// an active probe.
///
/// Once the wait is over the check runs at intervals, and the circuit stays
/// open until enough of the last ones have passed. Only then do calls probe it,
/// or, with [`instead_of_probes`](Self::instead_of_probes), do they come back
/// (up the ramp, if there is one). So no caller pays for finding out that the
/// dependency is still down.
///
/// A check that returns an error, panics, or takes longer than its timeout has
/// failed. Under [`Override::force_open`](crate::Override::force_open) and
/// [`force_closed`](crate::Override::force_closed) none runs.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Circuit, Config, HealthCheck};
///
/// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let circuit = Circuit::new(Config::builder("inventory").build()?);
/// circuit.run_health_check(
///     HealthCheck::new(|| async { ping().await })
///         .interval(Duration::from_secs(2))
///         .successes(2)
///         .of(3),
/// )?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a check does nothing until it is given to `Circuit::run_health_check`"]
pub struct HealthCheck {
    check: Arc<Check>,
    interval: Duration,
    jitter: f64,
    timeout: Duration,
    successes: u32,
    of: u32,
    instead_of_probes: bool,
}

type Check = dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync;

impl HealthCheck {
    /// Asks with an async closure: `Ok` is healthy. By default every second,
    /// with a jitter of 0.2 and a timeout of five seconds, and one success is
    /// enough.
    pub fn new<F, Fut, T, E>(check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let check = move || {
            let check = check();
            Box::pin(async { check.await.is_ok() }) as Pin<Box<dyn Future<Output = bool> + Send>>
        };
        Self {
            check: Arc::new(check),
            interval: Duration::from_secs(1),
            jitter: 0.2,
            timeout: Duration::from_secs(5),
            successes: 1,
            of: 1,
            instead_of_probes: false,
        }
    }

    /// Sets how long after the end of one check the next begins.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets by what share an interval may be shorter or longer; at least 0 and
    /// below 1.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets how long a check may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many checks must pass. All of the last so many, unless
    /// [`of`](Self::of) says otherwise.
    pub fn successes(mut self, successes: u32) -> Self {
        self.successes = successes;
        self.of = self.of.max(successes);
        self
    }

    /// Sets among how many of the last checks the successes may be.
    pub fn of(mut self, checks: u32) -> Self {
        self.of = checks;
        self
    }

    /// Lets the checks stand for the probes: when enough have passed, the
    /// circuit closes, or begins its ramp.
    pub fn instead_of_probes(mut self) -> Self {
        self.instead_of_probes = true;
        self
    }

    fn validate(&self) -> Result<(), ConfigError> {
        const MOST: u32 = 10_000;
        if self.interval.is_zero() {
            return Err(ConfigError::new(
                "health_check.interval",
                "0ns",
                "must be longer than zero",
            ));
        }
        if !(0.0..1.0).contains(&self.jitter) {
            let expected = "must be at least 0 and below 1";
            return Err(ConfigError::new("health_check.jitter", self.jitter, expected));
        }
        if self.timeout.is_zero() {
            return Err(ConfigError::new(
                "health_check.timeout",
                "0ns",
                "must be longer than zero",
            ));
        }
        if !(1..=self.of.min(MOST)).contains(&self.successes) {
            return Err(ConfigError::new(
                "health_check.successes",
                self.successes,
                format!("must be at least 1 and at most the number of checks, {}", self.of),
            ));
        }
        if self.of > MOST {
            let expected = format!("must be at most {MOST}");
            return Err(ConfigError::new("health_check.of", self.of, expected));
        }
        Ok(())
    }

    fn pause(&self, noise: f64) -> Duration {
        let spread = 1.0 + self.jitter * (2.0 * noise - 1.0);
        // Casting a float to an integer saturates.
        Duration::from_nanos((nanos(self.interval) as f64 * spread) as u64)
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck")
            .field("interval", &self.interval)
            .field("jitter", &self.jitter)
            .field("timeout", &self.timeout)
            .field("successes", &self.successes)
            .field("of", &self.of)
            .field("instead_of_probes", &self.instead_of_probes)
            .finish_non_exhaustive()
    }
}

impl Circuit {
    /// Runs a health check from now on, in place of the one there was. It
    /// belongs to the circuit: it ends with its last handle, or with
    /// [`stop_health_check`](Self::stop_health_check). A handle within the check
    /// is one, too, and would keep both for ever.
    ///
    /// Should the runtime shut down, the circuit goes on without.
    ///
    /// # Errors
    ///
    /// If a value of the check is out of its range.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn run_health_check(&self, check: HealthCheck) -> Result<(), ConfigError> {
        check.validate()?;
        let id = self.0.update(|machine, now, facts| machine.hold(check.interval, now, facts));
        let hold = Hold { circuit: self.0.downgrade(), id };
        let task = tokio::spawn(watch(hold, check)).abort_handle();
        self.0.health_check.replace(id, task);
        Ok(())
    }

    /// Ends the health check, if one runs: calls probe again as without.
    pub fn stop_health_check(&self) {
        self.0.health_check.stop();
        self.0.update(|machine, now, facts| machine.release(None, now, facts));
    }
}

/// The task of a circuit's check, by the number of its hold.
pub(super) struct Running(Mutex<Option<(u64, AbortHandle)>>);

impl Running {
    pub(super) fn none() -> Self {
        Self(Mutex::new(None))
    }

    /// Ends all but the newest.
    fn replace(&self, id: u64, task: AbortHandle) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match running.take() {
            Some((newer, running_task)) if newer > id => {
                task.abort();
                *running = Some((newer, running_task));
            }
            older => {
                older.into_iter().for_each(|(_, task)| task.abort());
                *running = Some((id, task));
            }
        }
    }

    fn stop(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        running.into_iter().for_each(|(_, task)| task.abort());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keeps the circuit open beyond its wait, for as long as somebody will say
/// when that is over.
struct Hold {
    circuit: Weak<Shared>,
    id: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(circuit) = self.circuit.upgrade() {
            let id = Some(self.id);
            circuit.update(|machine, now, facts| machine.release(id, now, facts));
        }
    }
}

async fn watch(hold: Hold, check: HealthCheck) {
    let mut noise = Noise::new(hold.id ^ super::random_seed());
    let mut results = VecDeque::new();
    let mut last: Option<(u64, Instant)> = None;
    while let Some(generation) = (NextCheck { hold: &hold, last, key: None, sleep: None }).await {
        if last.is_none_or(|(before, _)| before != generation) {
            results.clear();
        }
        let Some(passed) = run(&hold, &check).await else { return };
        results.push_back(passed);
        if results.len() > check.of as usize {
            results.pop_front();
        }
        let Some(circuit) = hold.circuit.upgrade() else { return };
        last =
            Some((generation, super::clock::add(circuit.clock.now(), check.pause(noise.draw()))));
        circuit.tell_health_check(passed);
        // At most the number of checks, which is a u32.
        let successes = results.iter().filter(|passed| **passed).count() as u32;
        if successes >= check.successes {
            circuit.update(|machine, now, facts| {
                let instead = check.instead_of_probes;
                machine.health_checked(hold.id, generation, successes, instead, now, facts);
            });
        }
        drop(circuit);
        // With a check that is always ready and hardly a pause it would never
        // let go of its thread.
        tokio::task::yield_now().await;
    }
}

/// Runs the check once. `None`: the circuit is gone.
async fn run(hold: &Hold, check: &HealthCheck) -> Option<bool> {
    let mut timeout = {
        let circuit = hold.circuit.upgrade()?;
        // What does not fit into nanoseconds is for ever, and no instant.
        let timeout = Duration::from_nanos(nanos(check.timeout));
        circuit.clock.sleep_until(super::clock::add(circuit.clock.now(), timeout))
    };
    // A panic in there is reported by the panic hook, and a failure here.
    let Some(mut checking) = contain(|| (check.check)()) else {
        return Some(false);
    };
    let passed = poll_fn(|cx| {
        let poll = || checking.as_mut().poll(cx);
        match contain(poll) {
            Some(Poll::Ready(passed)) => return Poll::Ready(passed),
            Some(Poll::Pending) => {}
            None => return Poll::Ready(false),
        }
        pin!(&mut timeout).poll(cx).map(|()| false)
    });
    Some(passed.await)
}

/// Ready when the next check is due, with the generation of the opening;
/// `None` once the circuit is gone or its hold is.
struct NextCheck<'a> {
    hold: &'a Hold,
    /// The opening checked last, and when it may be checked again.
    last: Option<(u64, Instant)>,
    key: Option<u64>,
    sleep: Option<Sleep>,
}

impl Future for NextCheck<'_> {
    type Output = Option<u64>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let Some(circuit) = this.hold.circuit.upgrade() else {
                return Poll::Ready(None);
            };
            let mut replaced = None;
            let waker = cx.waker().clone();
            let at = circuit.update_core(|core, now, facts| {
                let due = match core.machine.check_due(this.hold.id, now, facts) {
                    Due::Over => return Ok(None),
                    Due::Never => None,
                    Due::At { generation, at } => {
                        let again = this.last.filter(|(before, _)| *before == generation);
                        let again = again.map(|(_, again)| circuit.time(again));
                        Some((generation, again.map_or(at, |again| again.max(at))))
                    }
                };
                if let Some((generation, at)) = due {
                    if at <= now {
                        return Ok(Some(generation));
                    }
                }
                let (key, former) = core.wakers.register(this.key, waker);
                this.key = Some(key);
                replaced = former;
                Err(due.map(|(_, at)| circuit.instant(at)))
            });
            // Outside the lock.
            drop(replaced);
            match at {
                Ok(next) => return Poll::Ready(next),
                Err(None) => {
                    this.sleep = None;
                    return Poll::Pending;
                }
                Err(Some(at)) => {
                    let sleep = this.sleep.insert(circuit.clock.sleep_until(at));
                    if Pin::new(sleep).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for NextCheck<'_> {
    fn drop(&mut self) {
        if let (Some(key), Some(circuit)) = (self.key, self.hold.circuit.upgrade()) {
            circuit.forget_waiter(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn checks_that_come_again_and_again_leave_nothing_behind() {
        let circuit = Circuit::new(crate::Config::default());
        let check = HealthCheck::new(async || Err::<(), _>("down"));
        circuit.run_health_check(check.interval(Duration::from_secs(1))).unwrap();
        circuit.trip();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(circuit.0.lock().wakers.take().len(), 1, "the next one's");
    }

    /// One that stops it may do so in between.
    #[tokio::test(start_paused = true)]
    async fn a_check_whose_hold_is_gone_ends() {
        let circuit = Circuit::new(crate::Config::default());
        circuit.run_health_check(HealthCheck::new(async || Err::<(), _>("down"))).unwrap();
        tokio::task::yield_now().await;
        circuit.0.update(|machine, now, facts| machine.release(None, now, facts));
        tokio::task::yield_now().await;
        let running = circuit.0.health_check.0.lock().unwrap().take();
        assert!(running.is_some_and(|(_, task)| task.is_finished()));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_checks_that_begin_at_once_the_newest_runs_on() {
        for order in [[1, 2], [2, 1]] {
            let tasks = [1, 2].map(|_| tokio::spawn(std::future::pending::<()>()));
            let running = Running::none();
            for id in order {
                running.replace(id, tasks[id as usize - 1].abort_handle());
            }
            let [older, newest] = tasks;
            let older = tokio::time::timeout(Duration::from_secs(1), older).await;
            assert!(older.expect("it was ended").unwrap_err().is_cancelled());
            assert!(!newest.is_finished(), "{order:?}");
            drop(running);
            assert!(newest.await.unwrap_err().is_cancelled());
        }
    }
}
