//! What a registry asks of a circuit, and nobody else does.

use std::time::SystemTime;

use super::Circuit;

impl Circuit {
    /// What the calendar says, by its clock.
    pub(crate) fn date(&self) -> SystemTime {
        self.0.clock.date()
    }

    /// Tells of what time alone has done, and of an override it was restored
    /// with, if nobody was told. Not under a lock.
    ///
    /// It decides nothing that a call would: a circuit with calls overdue opens
    /// with the next one that asks.
    pub(crate) fn tell_untold(&self) {
        let is_told = || {
            let core = self.0.lock();
            core.untold.is_empty() && !core.machine.is_overdue(self.0.now())
        };
        if !self.0.gate.0.load().asks() || is_told() {
            return;
        }
        self.0.update(|machine, now, facts| {
            let _ = machine.revision_at(now, facts);
        });
    }

    /// Whether they are the same circuit.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.lead_where(&other.0)
    }
}
