//! A circuit on a clock that only the test moves, and what is done with it.

use std::{
    future::Future,
    panic::resume_unwind,
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use tower::{BoxError, Service};
use tower_breaker::{
    Backoff, Circuit, CircuitOpen, Config, ConfigBuilder, ManualClock, Observer, Outcome, Permit,
    Probes, State, Totals, Transition,
};

pub(crate) const NANO: Duration = Duration::from_nanos(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What the scenarios assume unless they say otherwise: no rule that could be
/// met, nothing to be sustained, a wait of 5 s without jitter, one probe.
pub(crate) fn rules() -> ConfigBuilder {
    Config::builder("bench")
        .no_failure_rate()
        .consecutive_failures(u32::MAX)
        .minimum_calls(1)
        .sustained_for(Duration::ZERO)
        .open_for(Backoff::fixed(5 * SECOND))
        .probes(Probes::new(1))
}

/// A circuit and its clock.
pub(crate) struct Bench {
    pub(crate) circuit: Circuit,
    pub(crate) clock: ManualClock,
    start: std::time::Instant,
}

impl Bench {
    #[track_caller]
    pub(crate) fn new(rules: ConfigBuilder) -> Self {
        let clock = ManualClock::new();
        let config = rules.clock(&clock).build().expect("a valid configuration");
        Self { circuit: Circuit::new(config), start: clock.now(), clock }
    }

    /// Moves the clock to so many seconds after the beginning.
    #[track_caller]
    pub(crate) fn at(&self, seconds: f64) -> &Self {
        let elapsed = self.clock.now() - self.start;
        let target = Duration::from_secs_f64(seconds);
        self.clock.advance(target.checked_sub(elapsed).expect("time runs forwards"));
        self
    }

    /// Moves the clock to where a probe is due.
    #[track_caller]
    pub(crate) fn wait(&self) -> &Self {
        assert_eq!(self.state(), State::Open);
        self.clock.advance(self.circuit.snapshot().retry_after.expect("a wait that ends"));
        self
    }

    /// Makes calls that end at once, one a letter.
    #[track_caller]
    pub(crate) fn run(&self, calls: &str) -> &Self {
        for end in calls.chars() {
            finish(self.permit(), end);
        }
        self
    }

    /// Makes one call that takes so long.
    #[track_caller]
    pub(crate) fn take(&self, duration: Duration, end: char) -> &Self {
        let permit = self.permit();
        self.clock.advance(duration);
        finish(permit, end);
        self
    }

    /// Asks for a permit a letter, `P` or `X`, and returns those it was given.
    #[track_caller]
    pub(crate) fn ask(&self, answers: &str) -> Vec<Permit> {
        let given: Vec<_> = answers.chars().map(|_| self.circuit.try_acquire()).collect();
        let said: String = given.iter().map(|r| if r.is_ok() { 'P' } else { 'X' }).collect();
        assert_eq!(said, answers);
        given.into_iter().flatten().collect()
    }

    #[track_caller]
    pub(crate) fn permit(&self) -> Permit {
        self.circuit.try_acquire().expect("a permit")
    }

    #[track_caller]
    pub(crate) fn refusal(&self) -> CircuitOpen {
        self.circuit.try_acquire().expect_err("a refusal")
    }

    /// Opens by hand, waits, and takes a probe.
    #[track_caller]
    pub(crate) fn probe(&self) -> Permit {
        self.circuit.trip();
        let probe = self.wait().permit();
        assert_eq!(self.state(), State::HalfOpen);
        probe
    }

    /// Opens by hand, waits, and lets the only probe succeed.
    #[track_caller]
    pub(crate) fn revive(&self) -> &Self {
        self.circuit.trip();
        self.wait();
        self.run("S").is(State::Closed)
    }

    pub(crate) fn state(&self) -> State {
        self.circuit.state()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.circuit.snapshot().totals
    }

    pub(crate) fn rate(&self) -> Option<f64> {
        self.circuit.snapshot().window.failure_rate
    }

    #[track_caller]
    pub(crate) fn is(&self, state: State) -> &Self {
        assert_eq!(self.state(), state);
        self
    }

    /// The window holds so many calls, so many of them failed.
    #[track_caller]
    pub(crate) fn holds(&self, calls: u64, failures: u64) -> &Self {
        let window = self.circuit.snapshot().window;
        assert_eq!((window.calls, window.failures), (calls, failures));
        self
    }
}

/// Fails, and does not hang, if what it runs hangs.
#[track_caller]
pub(crate) fn in_no_time(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel::<()>();
    let test = thread::spawn(move || {
        // Dropped at the end, also by a panic.
        let _done = done;
        test();
    });
    // Miri takes a thousand times as long.
    let patience = if cfg!(miri) { 3_600 } else { 30 };
    let waited = is_done.recv_timeout(patience * SECOND);
    assert_eq!(waited, Err(mpsc::RecvTimeoutError::Disconnected), "it hangs");
    test.join().unwrap_or_else(|panic| resume_unwind(panic));
}

/// Ends a call as the letter says.
pub(crate) fn finish(permit: Permit, end: char) {
    match end {
        'S' => permit.record(Outcome::Success),
        'F' => permit.record(Outcome::Failure),
        'I' => permit.record(Outcome::Ignored),
        'C' => drop(permit),
        other => panic!("no call ends with {other}"),
    }
}

/// Keeps every transition it is told of.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Transition>>>);

impl Log {
    pub(crate) fn all(&self) -> Vec<Transition> {
        self.0.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn last(&self) -> Transition {
        self.all().pop().expect("a transition")
    }

    /// From where to where it went.
    pub(crate) fn path(&self) -> Vec<(State, State)> {
        self.all().iter().map(|transition| (transition.from, transition.to)).collect()
    }
}

impl Observer for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap().push(transition.clone());
    }
}

/// Asks whether it is ready, and calls it if so; nothing in there may wait.
pub(crate) fn call<S>(service: &mut S) -> Result<S::Response, BoxError>
where
    S: Service<(), Error = BoxError>,
{
    let mut cx = Context::from_waker(Waker::noop());
    match service.poll_ready(&mut cx) {
        Poll::Ready(ready) => ready?,
        Poll::Pending => panic!("it is not ready"),
    }
    match pin!(service.call(())).poll(&mut cx) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it has not ended"),
    }
}
