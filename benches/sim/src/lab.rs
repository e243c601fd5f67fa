//! Runs scenarios, and remembers what came of them.

use std::collections::HashMap;

use crate::{
    contender::Contender,
    figures::Figures,
    scenario::{Scenario, Size},
};

/// Runs scenarios of one size, each once for a contender.
#[derive(Debug)]
pub struct Lab {
    size: Size,
    known: HashMap<(String, Contender), Figures>,
}

impl Lab {
    /// An empty one.
    pub fn new(size: Size) -> Self {
        Self { size, known: HashMap::new() }
    }

    /// The size of its scenarios.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The medians for a contender.
    pub fn figures(&mut self, scenario: &dyn Scenario, contender: Contender) -> Figures {
        // What a scenario is made of is all that tells it from another.
        let key = (format!("{scenario:?}"), contender);
        let size = self.size;
        self.known
            .entry(key)
            .or_insert_with(|| scenario.measure(contender, scenario.takes(size)))
            .clone()
    }
}
