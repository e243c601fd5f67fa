//! Plays a scenario with a breaker, and says what came of it.

use std::{
    any::Any,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Barrier,
    thread,
    time::Duration,
};

use crate::{
    breaker::{Breaker, Call, End, Subject, Time},
    feature::Feature,
    rules::{Rules, Wait},
    scenario::{Refusal, Scenario},
    step::{Step, Then},
};

/// So often a scenario is played again when time went wrong.
const ATTEMPTS: u32 = 50;

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It behaved.
    Passes,
    /// It did not: where, and what it did.
    Fails(String),
    /// It doesn't claim what the scenario needs.
    Unclaimed(Vec<Feature>),
    /// It could not be tried: why.
    NotMeasurable(String),
}

/// Plays the scenario with a breaker of this kind.
pub fn judge(subject: &dyn Subject, scenario: &Scenario) -> Verdict {
    let missing: Vec<Feature> =
        scenario.needs.iter().copied().filter(|feature| !subject.claims(*feature)).collect();
    if missing == [Feature::ExactTime] {
        return Verdict::NotMeasurable(
            "it reads the system's clock, and this takes an exact one".into(),
        );
    }
    if !missing.is_empty() {
        return Verdict::Unclaimed(missing);
    }
    for rules in &scenario.rules {
        let verdict = attempts(subject, scenario, rules);
        if verdict != Verdict::Passes {
            return verdict;
        }
    }
    Verdict::Passes
}

fn attempts(subject: &dyn Subject, scenario: &Scenario, rules: &Rules) -> Verdict {
    for _ in 0..ATTEMPTS {
        match once(subject, scenario, rules) {
            Ok(()) => return Verdict::Passes,
            Err(Ended::Failed(how)) => return Verdict::Fails(how),
            Err(Ended::TooLong(why)) => return Verdict::NotMeasurable(why),
            Err(Ended::Late) => {}
        }
    }
    Verdict::NotMeasurable("the machine was too busy to keep time".into())
}

/// How a scenario ended that did not go through.
enum Ended {
    Failed(String),
    TooLong(String),
    /// Its time was wrong: it says nothing.
    Late,
}

fn once(subject: &dyn Subject, scenario: &Scenario, rules: &Rules) -> Result<(), Ended> {
    let mut played = Ok(());
    let mut play = |breaker: &dyn Breaker, time: &mut dyn Time| {
        played = Stage::new(breaker, time).play(&scenario.steps);
    };
    let made = catch_unwind(AssertUnwindSafe(|| subject.play(rules, &mut play)));
    match (made, scenario.refusal) {
        (Ok(Err(_)), Refusal::Must | Refusal::May) => Ok(()),
        (Ok(Err(refused)), Refusal::Never) => {
            Err(Ended::Failed(format!("it refuses the rules: {refused}")))
        }
        (Ok(Ok(())), Refusal::Must) => Err(Ended::Failed(format!("it takes {}", said(rules)))),
        (Ok(Ok(())), _) => played,
        // Some refuse so.
        (Err(_), Refusal::Must | Refusal::May) => Ok(()),
        (Err(panic), Refusal::Never) => {
            Err(Ended::Failed(format!("it panics when it is made: {}", message(&*panic))))
        }
    }
}

/// A breaker, its time, and the calls that are under way.
struct Stage<'a> {
    breaker: &'a dyn Breaker,
    time: &'a mut dyn Time,
    passed: Duration,
    calls: HashMap<String, Box<dyn Call>>,
    // Those of a race, which nobody asks for again.
    raced: Vec<Box<dyn Call>>,
}

impl<'a> Stage<'a> {
    fn new(breaker: &'a dyn Breaker, time: &'a mut dyn Time) -> Self {
        let (passed, calls, raced) = (Duration::ZERO, HashMap::new(), Vec::new());
        Self { breaker, time, passed, calls, raced }
    }

    fn play(mut self, steps: &[Step]) -> Result<(), Ended> {
        for (index, step) in steps.iter().enumerate() {
            let took = catch_unwind(AssertUnwindSafe(|| self.take(&step.then)));
            if !self.time.is_right() {
                return Err(Ended::Late);
            }
            let at = |what: &str| format!("step {}, `{}`: {what}", index + 1, step.text);
            match took {
                Ok(Ok(())) => {}
                Ok(Err(Ended::Failed(how))) => return Err(Ended::Failed(at(&how))),
                Ok(Err(other)) => return Err(other),
                Err(panic) => {
                    let panicked = format!("it panics: {}", message(&*panic));
                    return Err(Ended::Failed(at(&panicked)));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, then: &Then) -> Result<(), Ended> {
        let seen = || self.breaker.seen();
        match then {
            Then::Calls(ends) => ends.iter().enumerate().try_for_each(|(index, &end)| {
                let call = self.breaker.ask();
                let call = call.ok_or_else(|| failed(format!("call {} is refused", index + 1)))?;
                finish(call, end);
                Ok(())
            }),
            &Then::CallIn(end, duration) => {
                let call = self.admitted()?;
                self.pass(duration)?;
                finish(call, end);
                Ok(())
            }
            Then::Start(names) => names.iter().try_for_each(|name| {
                let call = self.breaker.ask();
                let call = call.ok_or_else(|| failed(format!("call {name} is refused")))?;
                self.calls.insert(name.clone(), call);
                Ok(())
            }),
            Then::End(name, end) => {
                let call = self.calls.remove(name);
                finish(call.ok_or_else(|| failed(format!("no call {name} is under way")))?, *end);
                Ok(())
            }
            &Then::Refused(times) => (0..times).try_for_each(|_| match self.breaker.ask() {
                None => Ok(()),
                // Goes on, so that nothing else happens.
                Some(call) => {
                    self.raced.push(call);
                    Err(failed("it is admitted".into()))
                }
            }),
            &Then::After(duration) => self.pass(duration),
            &Then::At(instant) => match instant.checked_sub(self.passed) {
                Some(duration) => self.pass(duration),
                None => Err(failed("time does not run backwards".into())),
            },
            Then::State(expected) => match self.breaker.state() {
                Some(state) => is(state.as_str(), expected.as_str()),
                None => Ok(()),
            },
            &Then::Holds(calls, failures) => {
                is_of((seen().calls, seen().failures), (calls, failures))
            }
            Then::Rate(rate) => {
                let percent = |rate: Option<f64>| match rate {
                    Some(rate) => format!("{:.1} %", rate * 100.0),
                    None => "absent".into(),
                };
                is(&percent(seen().rate), &percent(*rate))
            }
            Then::CountsRefused(count) => is(&seen().refused.to_string(), &count.to_string()),
            Then::CountsGood(count) => is(&seen().good.to_string(), &count.to_string()),
            Then::CountsBad(count) => is(&seen().bad.to_string(), &count.to_string()),
            Then::CountsStale(count) => is(&seen().stale.to_string(), &count.to_string()),
            &Then::DecidedBy(calls, failures) => match seen().decided_by {
                Some(by) => is_of(by, (calls, failures)),
                None => Err(failed("it has not opened".into())),
            },
            Then::By(command) => {
                self.breaker.command(*command);
                Ok(())
            }
            &Then::Race(threads, admitted) => {
                let raced = race(self.breaker, threads);
                let got = raced.len();
                self.raced.extend(raced);
                is(&format!("{got} admitted"), &format!("{admitted} admitted"))
            }
        }
    }

    fn admitted(&self) -> Result<Box<dyn Call>, Ended> {
        self.breaker.ask().ok_or_else(|| failed("it is refused".into()))
    }

    fn pass(&mut self, duration: Duration) -> Result<(), Ended> {
        self.passed = self.passed.saturating_add(duration);
        self.time.advance(duration).map_err(|error| Ended::TooLong(error.to_string()))
    }
}

/// What so many threads are given that ask at once.
fn race(breaker: &dyn Breaker, threads: usize) -> Vec<Box<dyn Call>> {
    let barrier = &Barrier::new(threads);
    let ask = move || {
        barrier.wait();
        breaker.ask()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    })
}

fn finish(call: Box<dyn Call>, end: Option<End>) {
    match end {
        Some(end) => call.end(end),
        None => drop(call),
    }
}

fn failed(how: String) -> Ended {
    Ended::Failed(how)
}

fn is(got: &str, expected: &str) -> Result<(), Ended> {
    if got == expected { Ok(()) } else { Err(failed(format!("it is {got}"))) }
}

fn is_of(got: (u64, u64), expected: (u64, u64)) -> Result<(), Ended> {
    let words = |(calls, failures)| format!("{calls} calls, {failures} failed");
    is(&words(got), &words(expected))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("…").into()
}

/// What stands out in rules.
fn said(rules: &Rules) -> String {
    let said = [
        rules.consecutive_failures.map(|row| format!("failures in a row: {row}")),
        rules.failure_rate.map(|rate| format!("a failure rate of {rate} over {}", rules.window)),
        (rules.open_for != Wait::default()).then(|| format!("a wait of {}", rules.open_for)),
        (rules.probes != 1).then(|| format!("probes: {}", rules.probes)),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
