//! How a circuit begins its life.

use std::time::Duration;

/// How a circuit begins its life.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Circuit, Config, Start, State};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// let config = Config::builder("inventory").start(Start::Open).build()?;
/// assert_eq!(Circuit::new(config).state(), State::Open);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// Closed: the default.
    #[default]
    Closed,
    /// Open, for the first wait: the dependency has to prove itself to the
    /// probes, and is led up the ramp if there is one. For a dependency that
    /// starts together with its clients.
    Open,
    /// Closed, under an [`Override::observe_only`](crate::Override) that ends
    /// by itself after so long: for putting a circuit before live traffic.
    ObserveOnly(Duration),
}
