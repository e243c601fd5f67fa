//! Retries outside a breaker: what they do when it is open (feature `retry`).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::retry::{
    Policy,
    budget::{Budget, TpsBudget},
};

use crate::{BoxError, Circuit, CircuitOpen, State};

/// Makes a retry policy know an open circuit.
///
/// Retries go *outside* the breaker, and one that goes on while the circuit is
/// open only burns its attempts: the answer is the same. This wraps your
/// policy, which is asked about everything else.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, retry::Policy};
/// use tower_breaker::{BoxError, CircuitBreakerLayer, Config, RetryPolicy, WhenOpen};
/// # use http::{Request, Response};
///
/// #[derive(Clone)]
/// struct Thrice(u32);
///
/// impl<Res> Policy<Request<()>, Res, BoxError> for Thrice {
///     type Future = std::future::Ready<()>;
///
///     fn retry(&mut self, _: &mut Request<()>, result: &mut Result<Res, BoxError>) -> Option<Self::Future> {
///         self.0 = self.0.checked_sub(1)?;
///         result.is_err().then(|| std::future::ready(()))
///     }
///
///     fn clone_request(&mut self, request: &Request<()>) -> Option<Request<()>> {
///         Some(request.clone())
///     }
/// }
///
/// # let client = tower::service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(())));
/// let stack = ServiceBuilder::new()
///     .retry(RetryPolicy::stop_when_open(Thrice(2)))
///     .layer(CircuitBreakerLayer::new(Config::default()).when_open(WhenOpen::Defer))
///     .service(client);
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy<P> {
    policy: P,
    /// For how long to wait for open circuits, in all.
    patience: Duration,
    budget: Option<RetryBudget>,
}

impl<P> RetryPolicy<P> {
    /// Gives up at once: the caller gets [`CircuitOpen`].
    pub const fn stop_when_open(policy: P) -> Self {
        Self { policy, patience: Duration::ZERO, budget: None }
    }

    /// Waits for as long as the refusal says and tries again, without asking
    /// your policy, as long as these waits add up to at most `patience` for a
    /// request. A refusal that names no time, or too long a one, ends it.
    ///
    /// The breaker must be on `WhenOpen::Defer`: Tower's `Retry` asks no policy
    /// about an error from `poll_ready`. The waits are on tokio's clock.
    ///
    /// # Panics
    ///
    /// The retry panics outside a tokio runtime with its timer enabled.
    pub const fn wait_when_open(policy: P, patience: Duration) -> Self {
        Self { policy, patience, budget: None }
    }

    /// Lets the retries that your policy asks for be paid from a budget: every
    /// response it does not retry pays in, every retry takes out, and when it is
    /// empty, or the circuit is not closed, the caller gets what there is.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    fn wait(&mut self, open: &CircuitOpen) -> Option<Sleep> {
        // At least what a timer can tell apart, so that patience always ends.
        let wait = open.retry_after()?.max(Duration::from_millis(1));
        self.patience = self.patience.checked_sub(wait)?;
        Some(sleep(wait))
    }
}

impl<P, Request, Response> Policy<Request, Response, BoxError> for RetryPolicy<P>
where
    P: Policy<Request, Response, BoxError>,
{
    type Future = RetryFuture<P::Future>;

    fn retry(
        &mut self,
        request: &mut Request,
        result: &mut Result<Response, BoxError>,
    ) -> Option<Self::Future> {
        if let Err(error) = result {
            if let Some(open) = CircuitOpen::find_in(&**error) {
                let pause = self.wait(open)?;
                return Some(RetryFuture { pause: Pause::ForCircuit { pause } });
            }
        }
        let pause = self.policy.retry(request, result);
        if let Some(budget) = &self.budget {
            match (&pause, result) {
                (Some(_), _) if !budget.withdraw() => return None,
                (None, Ok(_)) => budget.deposit(),
                _ => {}
            }
        }
        let pause = pause?;
        Some(RetryFuture { pause: Pause::Policys { pause } })
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        self.policy.clone_request(request)
    }
}

/// A budget for retries that its circuit has a say in: nobody retries while
/// the circuit is not closed, or refuses a share of its calls.
///
/// A retry sent to a dependency that is being probed, or led up the ramp, takes
/// the place of somebody's first attempt. And a budget alone is slow to learn of
/// an outage: it pays out what it saved in better times, which is the load that
/// keeps a sick dependency down. Clones share what there is; give one to every
/// policy in front of the circuit, with [`RetryPolicy::budget`] or in a policy
/// of your own, for it is a [`Budget`] like Tower's.
///
/// ```
/// use std::time::Duration;
/// use tower::retry::budget::{Budget, TpsBudget};
/// use tower_breaker::{Circuit, Config, RetryBudget};
///
/// let circuit = Circuit::new(Config::default());
/// // For ten seconds, one retry for five calls, and one a second at least.
/// let tokens = TpsBudget::new(Duration::from_secs(10), 1, 0.2);
/// let budget = RetryBudget::new(&circuit, tokens);
/// assert!(budget.withdraw());
///
/// circuit.trip();
/// assert!(!budget.withdraw());
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    circuit: Circuit,
    tokens: Arc<TpsBudget>,
}

impl RetryBudget {
    /// Puts `tokens` under the circuit's supervision.
    pub fn new(circuit: &Circuit, tokens: TpsBudget) -> Self {
        Self { circuit: circuit.clone(), tokens: Arc::new(tokens) }
    }
}

impl Budget for RetryBudget {
    fn deposit(&self) {
        self.tokens.deposit();
    }

    fn withdraw(&self) -> bool {
        self.circuit.state() == State::Closed
            && self.circuit.snapshot().admitted_share.is_none()
            && self.tokens.withdraw()
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("circuit", &self.circuit).finish_non_exhaustive()
    }
}

pin_project! {
    /// The pause before a retry of [`RetryPolicy`].
    pub struct RetryFuture<F> {
        #[pin]
        pause: Pause<F>,
    }
}

pin_project! {
    #[project = PauseProj]
    enum Pause<F> {
        Policys { #[pin] pause: F },
        ForCircuit { #[pin] pause: Sleep },
    }
}

impl<F: Future<Output = ()>> Future for RetryFuture<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project().pause.project() {
            PauseProj::Policys { pause } => pause.poll(cx),
            PauseProj::ForCircuit { pause } => pause.poll(cx),
        }
    }
}

impl<F> fmt::Debug for RetryFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetryFuture")
    }
}
