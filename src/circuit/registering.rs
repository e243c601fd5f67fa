//! What a registry asks of a circuit, and nobody else does.

use super::Circuit;

impl Circuit {
    /// Whether they are the same circuit.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.lead_where(&other.0)
    }
}
