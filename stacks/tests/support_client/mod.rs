//! The outage every client stack goes through, and its circuit.

use std::time::Duration;

use tower::BoxError;
use tower_breaker::{
    Backoff, CircuitBreakerLayer, CircuitOpen, Config, HttpClassifier, ManualClock, Probes,
    State::{Closed, HalfOpen, Open},
};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(10);

/// The breaker of a client: it opens at the third failure in a row, for ten
/// seconds of this clock, and takes two good probes to close.
pub(crate) fn breaker(clock: &ManualClock) -> CircuitBreakerLayer<HttpClassifier> {
    let config = Config::builder("upstream")
        .no_failure_rate()
        .consecutive_failures(3)
        .open_for(Backoff::fixed(WAIT))
        .probes(Probes::new(2))
        .clock(clock);
    CircuitBreakerLayer::new(config.build().unwrap())
}

/// What an outage is made of.
pub(crate) struct Stage<C, S, H> {
    pub(crate) layer: CircuitBreakerLayer<HttpClassifier>,
    pub(crate) clock: ManualClock,
    /// Calls once: what the upstream answered, in a word, or the refusal.
    pub(crate) call: C,
    pub(crate) set_sick: S,
    pub(crate) hits: H,
    /// What a caller sees of a healthy upstream.
    pub(crate) healthy: &'static str,
    /// What a caller sees of a sick one.
    pub(crate) sick: &'static str,
}

impl<C, S, H> Stage<C, S, H>
where
    C: AsyncFnMut() -> Result<String, BoxError>,
    S: Fn(bool),
    H: Fn() -> u64,
{
    /// The upstream fails, the circuit opens, the upstream is left alone, and
    /// once it has recovered the circuit closes.
    pub(crate) async fn outage(mut self) {
        let circuit = self.layer.circuit().clone();

        self.answered(2, self.healthy).await;
        (self.set_sick)(true);
        self.answered(2, self.sick).await;
        assert_eq!(circuit.state(), Closed);
        self.answered(1, self.sick).await;
        assert_eq!(circuit.state(), Open);

        self.refused(5, WAIT).await;
        self.clock.advance(4 * SECOND);
        self.refused(1, 6 * SECOND).await;

        // One bad probe of two is enough to know that it is sick still.
        self.clock.advance(6 * SECOND);
        self.answered(1, self.sick).await;
        assert_eq!(circuit.state(), Open);
        self.refused(1, WAIT).await;

        // Nobody tells the circuit that it is well again: it has to look.
        (self.set_sick)(false);
        self.refused(1, WAIT).await;
        self.clock.advance(WAIT);
        self.answered(1, self.healthy).await;
        assert_eq!(circuit.state(), HalfOpen);
        self.answered(1, self.healthy).await;
        assert_eq!(circuit.state(), Closed);
        self.answered(3, self.healthy).await;

        let totals = circuit.snapshot().totals;
        assert_eq!((totals.success, totals.failure), (7, 4));
        assert_eq!((totals.ignored, totals.cancelled, totals.stale), (0, 0, 0));
        assert_eq!((totals.opened, totals.rejected), (2, 8));
    }

    /// Calls that reach the upstream, and come back with its answer.
    async fn answered(&mut self, calls: u64, answer: &str) {
        let before = (self.hits)();
        for _ in 0..calls {
            assert_eq!((self.call)().await.expect("the circuit is open"), answer);
        }
        assert_eq!((self.hits)(), before + calls);
    }

    /// Calls that do not reach the upstream.
    async fn refused(&mut self, calls: u64, retry_after: Duration) {
        let before = (self.hits)();
        for _ in 0..calls {
            let error = (self.call)().await.expect_err("the circuit is not open");
            let open = CircuitOpen::find_in(&*error).expect("another error than the refusal");
            assert_eq!((open.name(), open.state()), ("upstream", Open));
            assert_eq!(open.retry_after(), Some(retry_after));
        }
        assert_eq!((self.hits)(), before);
    }
}
