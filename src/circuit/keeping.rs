//! What the keeper of many circuits asks of one, and nobody else does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Circuit, CircuitOpen, Config, Permit, Reading, lane::Lane, sync::Ordering};
use crate::{
    cause::Cause, machine::Rejection, outcome::Outcome, start::Start, state::State, time::Time,
};

/// How much would be lost with a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nothing: it is closed, has seen no trouble, and nobody holds it.
    Blank,
    /// The trouble it has seen, or what the calls under way will say: it is
    /// closed.
    Closed,
    /// That it opened: its wait is over and no probe is out. For how long
    /// nobody has called, if that is known.
    Due(Option<Duration>),
    /// A wait, a probe, or an operator's decision.
    Needed,
}

impl Circuit {
    /// The first half of a permit, if the gate lets everybody in: to be had
    /// under a lock, because it is told to nobody.
    #[inline]
    pub(crate) fn admission(&self) -> Option<Admission> {
        let gate = self.0.gate.0.load();
        let generation = gate.generation();
        gate.is_closed().then(|| Admission { lane: Arc::clone(self.0.lane()), generation })
    }

    /// Whether it lets everybody in, as far as one look can tell, and no
    /// operator has a say.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.gate.0.load().looks_closed()
    }

    /// Whether it is closed, throttling or not, and no operator has a say. Not
    /// under a lock: time may have something done that others are told of.
    pub(crate) fn is_left_closed(&self) -> bool {
        match self.0.gate.0.load() {
            gate if gate.asks() => self.0.update(|machine, now, facts| {
                let _ = machine.look(now, facts);
                let view = machine.view(now);
                view.state == State::Closed && view.active_override.is_none()
            }),
            gate => gate.looks_closed(),
        }
    }

    /// Whether its calls are measured, whoever else wants to know.
    pub(crate) fn measures_latency(&self) -> bool {
        self.0.pace.measures_latency()
    }

    /// A permit that only an operator can refuse.
    pub(crate) fn acquire_regardless(&self, measured: bool) -> Result<Permit, CircuitOpen> {
        self.ask_machine(false, measured)
    }

    /// Refuses a call for a reason of the group's.
    pub(crate) fn turn_away(&self) -> CircuitOpen {
        self.reject();
        self.refuse(Rejection { state: State::Open, percent: None, retry_after: None })
    }

    /// Opens it for a reason of the group's, if it is closed.
    pub(crate) fn open_because(&self, cause: Cause) {
        self.0.update(|machine, now, facts| {
            // A ramp may have ended that nobody has looked at since.
            machine.revision_at(now, facts);
            if machine.state() == State::Closed {
                machine.trip(cause, now, facts);
            }
        });
    }

    /// Whether somebody besides its keeper has a handle or a permit.
    pub(crate) fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// Whether time alone has closed it, and nobody was told.
    pub(crate) fn has_closed_untold(&self, now: Instant) -> bool {
        let gate = self.0.gate.0.load();
        gate.asks() && {
            let view = self.0.lock().machine.view(self.0.time(now));
            view.state == State::Closed && view.generation != gate.generation()
        }
    }

    /// Tells of what time alone has done. Not under a lock.
    pub(crate) fn catch_up(&self) {
        self.0.update(|machine, now, facts| {
            let _ = machine.look(now, facts);
        });
    }

    /// How much would be lost with it.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let now = self.0.time(now);
        let gate = self.0.gate.0.load();
        if gate.is_open() {
            let until = Time::from_nanos(self.0.until.load(Ordering::Acquire));
            if now < until {
                return Standing::Needed;
            }
            // Any call since would have been a probe, unless an operator had a say
            // or it was refused until a health check passes.
            let probes_since = self.0.lock().machine.view(now).probes_since;
            return Standing::Due(probes_since.map(|since| now.since(since)));
        }
        let view = self.0.lock().machine.view(now);
        // What it starts with, its successor starts with as well.
        if !view.is_left_alone {
            return Standing::Needed;
        }
        match view.state {
            State::Closed if view.window.failures + view.window.slow > 0 => Standing::Closed,
            State::Closed if view.admitted_share.is_some() => Standing::Closed,
            State::Closed if self.is_held() => Standing::Closed,
            State::Closed => Standing::Blank,
            State::Open if view.wait_left.is_zero() => {
                Standing::Due(view.probes_since.map(|since| now.since(since)))
            }
            State::HalfOpen if view.probes.is_some_and(|probes| probes.in_flight == 0) => {
                Standing::Due(None)
            }
            State::Open | State::HalfOpen => Standing::Needed,
        }
    }
}

/// The first half of a permit.
pub(crate) struct Admission {
    lane: Arc<Lane>,
    generation: u64,
}

impl Admission {
    /// The whole of it.
    #[inline]
    pub(crate) fn permit(self, measured: bool) -> Permit {
        self.lane.permit(&self.lane.shared, self.generation, measured)
    }
}

impl Config {
    /// What a circuit is made of that joins its group so long after the first
    /// ones: to be observed for what is left of that.
    pub(crate) fn joining_after(mut self, elapsed: Duration) -> Self {
        if let Start::ObserveOnly(duration) = self.rules.start {
            let left = duration.saturating_sub(elapsed);
            self.rules.start =
                if left.is_zero() { Start::Closed } else { Start::ObserveOnly(left) };
        }
        self
    }

    /// Whether a recorder waits for its circuit.
    #[cfg(feature = "shadow")]
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }
}

impl Permit {
    /// Ends another permit along with this one, and alike: also after the same
    /// time, so this one must be measured if the other is.
    pub(crate) fn join(&mut self, other: Self) {
        self.joined = Some(Box::new(other));
    }

    /// Ends what was joined to it.
    #[inline(always)]
    pub(super) fn end_joined(&mut self, outcome: Option<Outcome>, reading: Reading) {
        if self.joined.is_some() {
            self.end_the_joined(outcome, reading);
        }
    }

    #[inline(never)]
    fn end_the_joined(&mut self, outcome: Option<Outcome>, reading: Reading) {
        if let Some(mut joined) = self.joined.take() {
            // Its clock may be another.
            let reading = if joined.is_timed() { reading.of_the_head() } else { Reading::NONE };
            joined.settle(outcome, reading);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "test-util")]
mod tests {
    use super::{super::ManualClock, *};
    use crate::{backoff::Backoff, probes::Probes};

    const SECOND: Duration = Duration::from_secs(1);
    const NANO: Duration = Duration::from_nanos(1);

    /// Opens for five seconds; one probe, and ten seconds for it.
    fn circuit(clock: &ManualClock) -> Circuit {
        let config = Config::builder("keys")
            .slow_calls(SECOND, 1.0)
            .open_for(Backoff::fixed(5 * SECOND).jitter(0.0))
            .probes(Probes::new(1).lease(10 * SECOND))
            .clock(clock);
        Circuit::new(config.build().unwrap())
    }

    #[test]
    fn a_closed_circuit_is_blank_until_it_has_seen_trouble_or_somebody_holds_it() {
        let clock = ManualClock::new();
        let standing = |circuit: &Circuit| circuit.standing(clock.now());
        let it = circuit(&clock);
        it.try_acquire().unwrap().record(Outcome::Success);
        assert_eq!(standing(&it), Standing::Blank);
        let handle = it.clone();
        assert_eq!(standing(&it), Standing::Closed);
        drop(handle);
        assert_eq!(standing(&it), Standing::Blank);
        for (took, outcome) in [
            (Duration::ZERO, Outcome::Failure),
            (2 * SECOND, Outcome::Success),
            (2 * SECOND, Outcome::Failure),
        ] {
            let it = circuit(&clock);
            let permit = it.try_acquire().unwrap();
            assert_eq!(standing(&it), Standing::Closed);
            clock.advance(took);
            permit.record(outcome);
            assert_eq!(standing(&it), Standing::Closed, "{outcome:?} after {took:?}");
        }
    }

    #[test]
    fn an_open_circuit_is_needed_until_its_wait_is_over_and_due_from_then_on() {
        let clock = ManualClock::new();
        let circuit = circuit(&clock);
        circuit.trip();
        assert_eq!(circuit.standing(clock.now()), Standing::Needed);
        clock.advance(5 * SECOND - NANO);
        assert_eq!(circuit.standing(clock.now()), Standing::Needed);
        clock.advance(NANO);
        assert_eq!(circuit.standing(clock.now()), Standing::Due(Some(Duration::ZERO)));
        clock.advance(SECOND);
        assert_eq!(circuit.standing(clock.now()), Standing::Due(Some(SECOND)));
    }

    #[test]
    fn a_half_open_circuit_is_needed_while_a_probe_is_out_and_for_the_wait_if_none_returns() {
        let clock = ManualClock::new();
        let circuit = circuit(&clock);
        circuit.trip();
        clock.advance(5 * SECOND);
        circuit.try_acquire().unwrap().cancel();
        assert_eq!(circuit.standing(clock.now()), Standing::Due(None));
        let probe = circuit.try_acquire().unwrap();
        for _ in 0..15 {
            assert_eq!(circuit.standing(clock.now()), Standing::Needed);
            clock.advance(SECOND);
        }
        assert_eq!(circuit.standing(clock.now()), Standing::Due(Some(Duration::ZERO)));
        drop(probe);
    }

    #[test]
    fn an_operators_decision_is_needed_while_it_lasts() {
        let clock = ManualClock::new();
        let circuit = circuit(&clock);
        let over = crate::overrides::Override::force_closed().expires_in(SECOND);
        circuit.set_override(over);
        assert_eq!(circuit.standing(clock.now()), Standing::Needed);
        clock.advance(SECOND);
        assert_eq!(circuit.standing(clock.now()), Standing::Blank);
    }
}
