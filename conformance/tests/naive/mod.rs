//! A breaker of a hundred lines, and what can be wrong with it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tower_breaker_conformance::{
    Breaker, Call, Command, End, Feature, Refused, Rules, State, Subject, Time, TooLong, Wait,
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nothing,
    /// A result counts, whatever state it is of.
    IgnoresGenerations,
    /// The probe that is dropped keeps its place.
    KeepsDroppedProbes,
    /// Good probes do not close it.
    NeverEndsHalfOpen,
    /// Any number of probes pass.
    AdmitsEveryProbe,
    /// The wait is over a tick later.
    WaitsATickLonger,
    /// A call it refuses has failed.
    CountsRefusals,
    /// A panic is nothing.
    ForgetsPanics,
    /// What proves nothing ends a row.
    NeutralEndsARow,
    /// It opens a failure late.
    OpensLate,
    /// A failed probe leaves it half-open.
    ForgivesProbes,
    /// The first wait is all it ever waits.
    WaitsOnce,
    /// It takes rules that can't work.
    TakesAnything,
}

/// Makes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naive(pub(crate) Flaw);

#[derive(Clone)]
struct Circuit(Arc<Mutex<Inner>>);

struct Inner {
    flaw: Flaw,
    row_that_opens: u32,
    wait: Duration,
    now: Duration,
    state: State,
    generation: u64,
    row: u32,
    opened_at: Duration,
    opened: u32,
    probing: bool,
}

struct Held {
    circuit: Circuit,
    generation: u64,
    ended: bool,
}

impl Subject for Naive {
    fn name(&self) -> &str {
        "naive"
    }

    fn claims(&self, feature: Feature) -> bool {
        matches!(
            feature,
            Feature::ConsecutiveFailures
                | Feature::ProbeVerdict
                | Feature::ProbeLimit
                | Feature::Neutral
                | Feature::Trip
                | Feature::Reset
                | Feature::ExactTime
        )
    }

    fn play(
        &self,
        rules: &Rules,
        play: &mut dyn FnMut(&dyn Breaker, &mut dyn Time),
    ) -> Result<(), Refused> {
        let Wait::Fixed(wait) = rules.open_for else { unreachable!("it claims no other") };
        let row_that_opens = rules.consecutive_failures.unwrap_or(u32::MAX);
        let good = row_that_opens > 0 && wait > Duration::ZERO && rules.probes > 0;
        if !good && self.0 != Flaw::TakesAnything {
            return Err(Refused("these rules can't work".into()));
        }
        let late = u32::from(self.0 == Flaw::OpensLate);
        let circuit = Circuit(Arc::new(Mutex::new(Inner {
            flaw: self.0,
            row_that_opens: row_that_opens.saturating_add(late),
            wait,
            now: Duration::ZERO,
            state: State::Closed,
            generation: 0,
            row: 0,
            opened_at: Duration::ZERO,
            opened: 0,
            probing: false,
        })));
        play(&circuit, &mut circuit.clone());
        Ok(())
    }
}

impl Circuit {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Time for Circuit {
    fn advance(&mut self, by: Duration) -> Result<(), TooLong> {
        let mut inner = self.lock();
        inner.now = inner.now.saturating_add(by);
        Ok(())
    }
}

impl Breaker for Circuit {
    fn ask(&self) -> Option<Box<dyn Call>> {
        let mut inner = self.lock();
        if !inner.admits() {
            if inner.flaw == Flaw::CountsRefusals {
                inner.fail();
            }
            return None;
        }
        let generation = inner.generation;
        Some(Box::new(Held { circuit: self.clone(), generation, ended: false }))
    }

    fn state(&self) -> Option<State> {
        Some(self.lock().state)
    }

    fn command(&self, command: Command) {
        let state = if command == Command::Trip { State::Open } else { State::Closed };
        self.lock().go(state);
    }
}

impl Inner {
    fn admits(&mut self) -> bool {
        match self.state {
            State::Closed => true,
            State::Open => {
                let late = u64::from(self.flaw == Flaw::WaitsATickLonger);
                let wait = self.wait.saturating_add(Duration::from_nanos(late));
                let once = self.flaw == Flaw::WaitsOnce && self.opened > 1;
                let over = once || self.opened_at.saturating_add(wait) <= self.now;
                // What never ends is over at no time.
                if !over || wait == Duration::MAX {
                    return false;
                }
                self.go(State::HalfOpen);
                self.probing = true;
                true
            }
            State::HalfOpen => {
                let admits = !self.probing || self.flaw == Flaw::AdmitsEveryProbe;
                self.probing = true;
                admits
            }
        }
    }

    fn go(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
        self.row = 0;
        self.probing = false;
        self.opened_at = self.now;
        self.opened += u32::from(state == State::Open);
    }

    fn succeed(&mut self) {
        match self.state {
            State::Closed => self.row = 0,
            State::HalfOpen if self.flaw == Flaw::NeverEndsHalfOpen => self.probing = false,
            State::HalfOpen => self.go(State::Closed),
            State::Open => {}
        }
    }

    fn fail(&mut self) {
        match self.state {
            State::Closed => {
                self.row += 1;
                if self.row >= self.row_that_opens {
                    self.go(State::Open);
                }
            }
            State::HalfOpen if self.flaw == Flaw::ForgivesProbes => self.probing = false,
            State::HalfOpen => self.go(State::Open),
            State::Open if self.flaw == Flaw::CountsRefusals => self.opened_at = self.now,
            State::Open => {}
        }
    }
}

impl Call for Held {
    fn end(mut self: Box<Self>, end: End) {
        let flaw = self.circuit.lock().flaw;
        if end == End::Panic && flaw == Flaw::ForgetsPanics {
            let panics = move || {
                let _held = self;
                resume_unwind(Box::new("the call fell over"));
            };
            let _ = catch_unwind(AssertUnwindSafe(panics));
            return;
        }
        self.settle(Some(end));
    }
}

impl Held {
    /// Once; `None` is dropped.
    fn settle(&mut self, end: Option<End>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut inner = self.circuit.lock();
        if self.generation != inner.generation && inner.flaw != Flaw::IgnoresGenerations {
            return;
        }
        match end {
            Some(End::Success) => inner.succeed(),
            Some(End::Failure | End::Panic) => inner.fail(),
            Some(End::Neutral) | None => {
                if inner.flaw == Flaw::NeutralEndsARow {
                    inner.row = 0;
                }
                inner.probing &= end.is_none() && inner.flaw == Flaw::KeepsDroppedProbes;
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.settle(None);
    }
}
