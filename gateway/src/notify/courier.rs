//! Delivers the messages of one target, one after the other, behind a circuit.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    Backoff, Circuit, CircuitBreakerLayer, CircuitOpen, Config, ConfigError, Outcome, Probes,
};

use super::{failure::Failure, message::Message, outbox::Outbox, transport::Transport};
use crate::{config::Target, seldom::Seldom};

/// For how long a message is tried. A later one says better how it is.
pub(super) const DEADLINE: Duration = Duration::from_secs(3_600);

/// Between attempts, at first and at most, where the target does not say.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The circuit of a target. In no registry: nobody is to be notified about it.
pub(super) fn circuit(target: &str) -> Result<Circuit, ConfigError> {
    Config::builder(format!("notify-{target}"))
        .consecutive_failures(3)
        .open_for(Backoff::exponential(Duration::from_secs(5), Duration::from_secs(60)))
        .probes(Probes::new(1).lease(Duration::from_secs(30)))
        .build()
        .map(Circuit::new)
}

pub(super) struct Courier {
    pub(super) target: watch::Receiver<Arc<Target>>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) circuit: Circuit,
    pub(super) failures: Seldom,
}

impl Courier {
    /// Until the outbox is closed and empty.
    pub(super) async fn run(mut self) {
        while let Some(message) = self.outbox.next().await {
            let message = Arc::new(message);
            let is_delivered = self.deliver(&message).await;
            self.outbox.settle(&message, is_delivered);
            let outcome = if is_delivered { "delivered" } else { "lost" };
            let target = self.name();
            metrics::counter!("brk_notifications_total", "target" => target, "outcome" => outcome)
                .increment(1);
        }
    }

    fn name(&self) -> String {
        self.target.borrow().name.clone()
    }

    /// Tries until it has arrived, it is of no use, or it is too late.
    async fn deliver(&mut self, message: &Arc<Message>) -> bool {
        let deadline = now() + DEADLINE;
        let (mut wait, longest) = WAITS;
        let mut service = self.service();
        loop {
            if self.target.has_changed().unwrap_or(false) {
                service = self.service();
            }
            let sent = match &mut service {
                Ok(service) => send(service, message).await,
                Err(why) => Err(Failure::permanent(why.clone()).into()),
            };
            let Err(error) = sent else { return true };
            let hint = match (CircuitOpen::find_in(&*error), error.downcast_ref::<Failure>()) {
                (Some(open), _) => open.retry_after(),
                (None, Some(failure)) => {
                    self.say(failure);
                    if !failure.is_transient {
                        return false;
                    }
                    failure.retry_after
                }
                (None, None) => None,
            };
            let pause = hint.map_or(wait, |hint| hint.max(wait));
            if pause >= deadline.saturating_duration_since(now()) {
                return false;
            }
            sleep(pause).await;
            wait = (wait * 2).min(longest);
        }
    }

    fn say(&self, failure: &Failure) {
        if let Some(unsaid) = self.failures.is_due() {
            let target = self.name();
            tracing::warn!(to = target, unsaid, "a notification could not be delivered: {failure}");
        }
    }

    /// The way to the target as it is configured now, behind its circuit.
    fn service(
        &mut self,
    ) -> Result<
        impl Service<Arc<Message>, Response = (), Error = BoxError, Future: Send> + use<>,
        String,
    > {
        let target = Arc::clone(&self.target.borrow_and_update());
        let transport = Arc::new(Transport::new(&target)?);
        let layer = CircuitBreakerLayer::new(self.circuit.clone()).classify_fn::<(), _>(
            |result: Result<&(), &BoxError>, _| match result {
                Ok(()) => Outcome::Success,
                // Whoever says no is there.
                Err(error) => match error.downcast_ref::<Failure>() {
                    Some(failure) if !failure.is_transient => Outcome::Success,
                    _ => Outcome::Failure,
                },
            },
        );
        Ok(layer.layer(service_fn(move |message: Arc<Message>| {
            let transport = Arc::clone(&transport);
            async move { transport.send(&message).await }
        })))
    }
}

async fn send<S>(service: &mut S, message: &Arc<Message>) -> Result<(), BoxError>
where
    S: Service<Arc<Message>, Response = (), Error = BoxError>,
{
    service.ready().await?.call(Arc::clone(message)).await
}

#[expect(clippy::disallowed_methods, reason = "no circuit's time: that of the delivery")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{config::TargetKind, notify::outbox::tests::message};

    /// On virtual time: nobody listens, so an attempt fails, or is cut off.
    #[tokio::test(start_paused = true)]
    async fn a_target_that_is_down_is_left_alone_by_its_circuit_and_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let target = Target {
            name: "hook".into(),
            kind: TargetKind::Webhook { url, secret_file: None },
            services: Vec::new(),
            hold_down: Duration::ZERO,
            cooldown: Duration::ZERO,
            flapping: 5,
        };
        let (_sender, target) = watch::channel(Arc::new(target));
        let (outbox, circuit) = (Arc::new(Outbox::default()), circuit("hook").unwrap());
        outbox.push(message(1));
        outbox.close();
        let start = now();
        let (failures, box_of) = (Seldom::default(), Arc::clone(&outbox));
        Courier { target, outbox: box_of, circuit: circuit.clone(), failures }.run().await;
        let took = now() - start;
        assert!(took <= DEADLINE && took >= DEADLINE - 2 * WAITS.1, "{took:?}");
        let totals = circuit.snapshot().totals;
        assert!(totals.opened > 1 && totals.success == 0, "{totals:?}");
        assert_eq!(outbox.left(), 0);
    }
}
