//! A circuit's configuration: built by name, refused with a reason.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "shadow")]
use super::recorder::Recorder;
use super::{
    clock::Clock,
    observer::{Observer, Observers},
};
use crate::{
    backoff::Backoff,
    config_error::ConfigError,
    lint::{self, Lint, Traffic},
    probes::Probes,
    ratio::Ratio,
    rules::{Cancellation, Rules, SlowRule},
    start::Start,
    throttle::Throttle,
    window::Window,
};

/// A valid configuration of one circuit.
///
/// | setting | default |
/// |---|---|
/// | [`window`](ConfigBuilder::window) | the last 20 calls |
/// | [`minimum_calls`](ConfigBuilder::minimum_calls) | 10 |
/// | [`failure_rate`](ConfigBuilder::failure_rate) | 0.5 |
/// | [`sustained_for`](ConfigBuilder::sustained_for) | 1 s |
/// | [`consecutive_failures`](ConfigBuilder::consecutive_failures) | off |
/// | [`slow_calls`](ConfigBuilder::slow_calls) | off |
/// | [`throttle`](ConfigBuilder::throttle) | off |
/// | [`start`](ConfigBuilder::start) | closed |
/// | [`warm_up`](ConfigBuilder::warm_up) | none |
/// | [`open_for`](ConfigBuilder::open_for) | about 1, 2, 4, then 8 s; jitter 0.2 |
/// | [`probes`](ConfigBuilder::probes) | 3, all of which must succeed |
/// | [`ramp`](ConfigBuilder::ramp) | off: the last probe closes |
/// | [`cancellation`](ConfigBuilder::cancellation) | by age |
///
/// They were chosen by simulation: see the project's `DESIGN.md`.
///
/// ```
/// use std::time::Duration;
/// use tower_breaker::{Backoff, Config, Probes, Window};
///
/// # fn main() -> Result<(), tower_breaker::ConfigError> {
/// let config = Config::builder("inventory")
///     .window(Window::count(20))
///     .minimum_calls(10)
///     .failure_rate(0.5)
///     .slow_calls(Duration::from_secs(2), 0.8)
///     .open_for(Backoff::exponential(Duration::from_secs(1), Duration::from_secs(8)))
///     .probes(Probes::new(3))
///     .build()?;
/// assert_eq!(config.name(), "inventory");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) name: Arc<str>,
    pub(super) rules: Rules,
    pub(super) clock: Clock,
    pub(super) observers: Observers,
    pub(super) measure_latency: bool,
    #[cfg(feature = "shadow")]
    pub(super) shadows: Vec<Self>,
    #[cfg(feature = "shadow")]
    pub(super) recorder: Option<Recorder>,
}

impl Config {
    /// Starts from the defaults, with a name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    /// Metrics, logs and errors carry it.
    pub fn builder(name: impl Into<String>) -> ConfigBuilder {
        ConfigBuilder {
            name: name.into(),
            window: Window::count(20),
            minimum_calls: 10,
            failure_rate: Some(0.5),
            sustained_for: Duration::from_secs(1),
            consecutive_failures: None,
            slow_calls: None,
            throttle: None,
            start: Start::default(),
            warm_up: Duration::ZERO,
            open_for: Backoff::default(),
            probes: Probes::default(),
            ramp: None,
            cancellation: Cancellation::default(),
            clock: Clock::default(),
            observers: Observers::default(),
            measure_latency: false,
            #[cfg(feature = "shadow")]
            shadows: Vec::new(),
            #[cfg(feature = "shadow")]
            recorder: None,
        }
    }

    #[cfg(feature = "serde")]
    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
    }

    #[cfg(feature = "serde")]
    pub(crate) const fn is_measured(&self) -> bool {
        self.measure_latency
    }

    /// The circuit's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One that has been valid, watched by nobody.
    pub(super) fn of_rules(
        name: Arc<str>,
        rules: Rules,
        clock: Clock,
        measure_latency: bool,
    ) -> Self {
        Self {
            name,
            rules,
            clock,
            observers: Observers::default(),
            measure_latency,
            #[cfg(feature = "shadow")]
            shadows: Vec::new(),
            #[cfg(feature = "shadow")]
            recorder: None,
        }
    }

    /// Says what this configuration would do at such traffic that can hardly
    /// be meant. Empty, if there is nothing.
    ///
    /// `build` refuses what can never work; this finds what can't work *here*:
    /// a minimum of calls that the window never holds, a threshold that no call
    /// reaches, probes of a thousand clients in one instant. Calls are taken to
    /// come at equal intervals; *never* is then exact. It takes up to some
    /// milliseconds: for a test, or the start of a program.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{Config, LintCode, Traffic, Window};
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// let window = Window::time(Duration::from_secs(30));
    /// let config = Config::builder("inventory").window(window).build()?;
    /// let findings = config.lint(&Traffic::per_second(0.2));
    ///
    /// assert_eq!(findings[0].code(), LintCode::NeverOpens);
    /// assert_eq!(
    ///     findings[0].to_string(),
    ///     "minimum_calls (never-opens): 10 calls are never within 30.0s at 0.2 a second, so no \
    ///      rate is ever known; a minimum of 6 would be, or a window of 50.0s, or one of the \
    ///      last 10 calls however long ago"
    /// );
    /// assert!(Config::default().lint(&Traffic::per_second(0.5)).is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn lint(&self, traffic: &Traffic) -> Vec<Lint> {
        lint::lint(&self.rules, traffic)
    }

    /// Leaves nobody to tell.
    #[cfg(feature = "shadow")]
    pub(crate) fn forget_observers(&mut self) {
        self.observers = Observers::default();
    }

    /// The state its circuits are born in.
    #[cfg(any(feature = "keyed", feature = "registry", feature = "shadow"))]
    pub(crate) fn first_state(&self) -> crate::state::State {
        use crate::state::State;

        match self.rules.start {
            Start::Open => State::Open,
            Start::Closed | Start::ObserveOnly(_) => State::Closed,
        }
    }

    #[cfg(any(feature = "keyed", feature = "registry"))]
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl Default for Config {
    /// The defaults, under the name `default`.
    fn default() -> Self {
        match Self::builder("default").build() {
            Ok(config) => config,
            Err(error) => unreachable!("the defaults are valid: {error}"),
        }
    }
}

/// Builds a [`Config`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConfigBuilder {
    name: String,
    window: Window,
    minimum_calls: u64,
    failure_rate: Option<f64>,
    sustained_for: Duration,
    consecutive_failures: Option<u32>,
    slow_calls: Option<(Duration, f64)>,
    throttle: Option<Throttle>,
    start: Start,
    warm_up: Duration,
    open_for: Backoff,
    probes: Probes,
    ramp: Option<Duration>,
    cancellation: Cancellation,
    clock: Clock,
    observers: Observers,
    measure_latency: bool,
    #[cfg(feature = "shadow")]
    shadows: Vec<Config>,
    #[cfg(feature = "shadow")]
    recorder: Option<Recorder>,
}

impl ConfigBuilder {
    #[cfg(feature = "serde")]
    pub(crate) fn named(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    /// Sets which calls the rates are taken over.
    #[doc(alias = "slidingWindowType")]
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Sets how many judged calls the window must hold before a rate is
    /// known. Zero is as good as one. At most the calls of a count window.
    #[doc(alias = "minimumNumberOfCalls")]
    #[doc(alias = "MinimumThroughput")]
    #[doc(alias = "requestVolumeThreshold")]
    pub fn minimum_calls(mut self, calls: u64) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// Sets the share of failed calls, up to 1, at which the circuit opens.
    ///
    /// Compared exactly, in parts of a million, rounded down: two of three
    /// calls reach `2.0 / 3.0`.
    #[doc(alias = "failureRateThreshold")]
    #[doc(alias = "FailureRatio")]
    pub fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = Some(share);
        self
    }

    /// Switches the failure rate off, for a circuit that opens by
    /// [`consecutive_failures`](Self::consecutive_failures) or
    /// [`slow_calls`](Self::slow_calls) alone.
    pub fn no_failure_rate(mut self) -> Self {
        self.failure_rate = None;
        self
    }

    /// Sets for how long there must have been trouble before a *rate* opens
    /// the circuit; zero opens it at once.
    ///
    /// A stretch of trouble begins with the first failure (for the slow rule:
    /// slow call) recorded when the window holds none, and ends when it holds
    /// none again. A rate opens only if the stretch is at least this old and
    /// the share over its calls of the last twice as long is at the threshold
    /// too. So a blip at high traffic, which fills a count window within
    /// milliseconds, opens nothing.
    pub fn sustained_for(mut self, duration: Duration) -> Self {
        self.sustained_for = duration;
        self
    }

    /// Opens after this many failures in a row, whatever the window holds.
    #[doc(alias = "consecutive5xxErrors")]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = Some(failures);
        self
    }

    /// Opens when this share of calls, up to 1, takes longer than `threshold`
    /// (not: as long as). A slow failure counts both as failed and as slow.
    ///
    /// A call that still runs counts, too, from the moment it is overdue: a
    /// dependency that hangs ends none. Who is overdue is looked for when a call
    /// asks to be let through, and when the service behind a
    /// [`CircuitBreaker`](crate::CircuitBreaker) keeps a caller waiting; nobody
    /// looks while nobody comes.
    ///
    /// Costs two readings of the clock and two short locks a call, which are its
    /// thread's own as long as nothing is slow.
    #[doc(alias = "slowCallDurationThreshold")]
    #[doc(alias = "slowCallRateThreshold")]
    pub fn slow_calls(mut self, threshold: Duration, share: f64) -> Self {
        self.slow_calls = Some((threshold, share));
        self
    }

    /// Refuses, while closed, a share of the calls as the dependency fails more
    /// of them, instead of or beside opening: see [`Throttle`] for when that is
    /// the better choice.
    ///
    /// A refusal's [`CircuitOpen::state`](crate::CircuitOpen::state) is then
    /// `Closed`.
    #[doc(alias = "adaptive throttling")]
    pub fn throttle(mut self, throttle: Throttle) -> Self {
        self.throttle = Some(throttle);
        self
    }

    /// Sets how the circuit begins.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Ignores, while closed, what ends in this time from the circuit's birth:
    /// it feeds the totals and no rule. For a process whose first calls are
    /// slow or fail because it is cold itself.
    pub fn warm_up(mut self, duration: Duration) -> Self {
        self.warm_up = duration;
        self
    }

    /// Sets how long the circuit stays open before it probes.
    #[doc(alias = "waitDurationInOpenState")]
    #[doc(alias = "BreakDuration")]
    pub fn open_for(mut self, backoff: Backoff) -> Self {
        self.open_for = backoff;
        self
    }

    /// Sets how many calls test a dependency that may have healed.
    #[doc(alias = "permittedNumberOfCallsInHalfOpenState")]
    pub fn probes(mut self, probes: Probes) -> Self {
        self.probes = probes;
        self
    }

    /// Lets traffic back gently: once the probes have succeeded, the share of
    /// calls that pass grows from none to all over this time, linearly.
    ///
    /// A dependency that comes back cold, with empty caches and pools, does not
    /// bear all of its traffic at once. The share is exact: at any moment the
    /// calls that pass are within one of it. The rules judge them on fresh
    /// counts; if one trips, the circuit is open again, for its next wait. Until
    /// the end of the ramp the state is [`State::HalfOpen`](crate::State).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::Config;
    ///
    /// # fn main() -> Result<(), tower_breaker::ConfigError> {
    /// Config::builder("inventory").ramp(Duration::from_secs(10)).build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "slow start")]
    pub fn ramp(mut self, over: Duration) -> Self {
        self.ramp = Some(over);
        self
    }

    /// Sets how a call that is dropped before it has ended is judged.
    pub fn cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }

    /// Sets where the circuit gets the time.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// Adds somebody to tell what happens.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.others.push(Arc::new(observer));
        self
    }

    /// Measures every call, for metrics and observers, also where no rule
    /// needs it. Costs two readings of the clock a call.
    pub fn measure_latency(mut self) -> Self {
        self.measure_latency = true;
        self
    }

    /// Tries candidate rules on the same calls without obeying them: see
    /// [`Shadow`](crate::Shadow). Several may be tried at once, each under a
    /// name of its own.
    ///
    /// The candidate takes the live circuit's clock; a shadow or a recorder of
    /// its own is left out. The live circuit then measures every call, which is
    /// two readings of the clock, and each shadow adds about two short locks
    /// and an allocation to a call.
    #[cfg(feature = "shadow")]
    #[doc(alias = "enforcing")]
    pub fn shadow(mut self, candidate: Config) -> Self {
        self.shadows.push(candidate);
        self
    }

    /// Records its calls, so that other rules can be tried on them later: see
    /// [`Recorder`](crate::Recorder).
    #[cfg(feature = "shadow")]
    pub fn recorder(mut self, recorder: &Recorder) -> Self {
        self.recorder = Some(recorder.clone());
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// If a value is out of its range, or together they could never open or
    /// never close the circuit. The error names the field, its value, and
    /// what would be right.
    pub fn build(self) -> Result<Config, ConfigError> {
        let rules = Rules {
            window: self.window,
            minimum_calls: self.minimum_calls,
            failure_rate: self
                .failure_rate
                .map(|share| valid_share("failure_rate", share))
                .transpose()?,
            slow_calls: self
                .slow_calls
                .map(|(threshold, share)| {
                    Ok(SlowRule { threshold, rate: valid_share("slow_calls", share)? })
                })
                .transpose()?,
            sustained_for: self.sustained_for,
            consecutive_failures: self.consecutive_failures,
            throttle: self.throttle,
            start: self.start,
            warm_up: self.warm_up,
            open_for: self.open_for,
            probes: self.probes,
            ramp: self.ramp,
            cancellation: self.cancellation,
        };
        rules.validate()?;
        Ok(Config {
            name: valid_name(self.name)?,
            rules,
            clock: self.clock,
            observers: self.observers,
            measure_latency: self.measure_latency,
            #[cfg(feature = "shadow")]
            shadows: valid_shadows(self.shadows)?,
            #[cfg(feature = "shadow")]
            recorder: self.recorder,
        })
    }
}

fn valid_share(field: &'static str, share: f64) -> Result<Ratio, ConfigError> {
    Ratio::new(share).ok_or_else(|| ConfigError::new(field, share, Ratio::EXPECTED))
}

/// Each under a name of its own, or their metrics would be one.
#[cfg(feature = "shadow")]
fn valid_shadows(shadows: Vec<Config>) -> Result<Vec<Config>, ConfigError> {
    for (index, shadow) in shadows.iter().enumerate() {
        if shadows[..index].iter().any(|other| other.name == shadow.name) {
            let expected = "must be the name of one shadow only";
            return Err(ConfigError::new("shadow", &shadow.name, expected));
        }
    }
    Ok(shadows)
}

fn valid_name(name: String) -> Result<Arc<str>, ConfigError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(name.into());
    }
    let shown: String = name.chars().take(64).collect();
    let cut = if shown.len() < name.len() { " …" } else { "" };
    Err(ConfigError::new(
        "name",
        format_args!("{shown:?}{cut}"),
        "must be 1 to 64 characters of A-Z a-z 0-9 . _ -",
    ))
}
