//! What time it is on the data path.

use tokio::time::Instant;

/// Tokio's time, which stands still in a test that says so.
#[expect(clippy::disallowed_methods, reason = "the connections' time, not a circuit's")]
pub(super) fn now() -> Instant {
    Instant::now()
}
