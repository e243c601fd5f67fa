//! Watches the registry for one target: what happens goes into a story for each
//! service, and what is worth telling into the outbox.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::SystemTime,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tower_breaker::{Circuit, Clock, Event, EventKind, Lagged, Registry, State, Subscription};

use super::{
    message::{Message, Note},
    outbox::Outbox,
    policy::{Rules, Sight, Story, Told},
};
use crate::config::Target;

pub(super) struct Watcher {
    registry: Registry,
    subscription: Subscription,
    target: watch::Receiver<Arc<Target>>,
    outbox: Arc<Outbox>,
    stories: BTreeMap<Arc<str>, Story<Note>>,
    /// Events up to this one had happened when the circuits were looked at.
    looked_after: u64,
}

impl Watcher {
    /// Begins with how it is: what was told before is not known.
    pub(super) fn new(
        registry: Registry,
        target: watch::Receiver<Arc<Target>>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let subscription = registry.subscribe();
        let stories = BTreeMap::new();
        let mut watcher = Self { registry, subscription, target, outbox, stories, looked_after: 0 };
        watcher.look();
        watcher
    }

    /// Until it is told to stop; then what is not told yet goes into the outbox,
    /// and no more after it.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut is_steered = true;
        loop {
            let due = self.stories.values().filter_map(Story::due).min();
            tokio::select! {
                biased;
                () = &mut stop => break,
                changed = self.target.changed(), if is_steered => match changed {
                    Ok(()) => self.change(),
                    Err(_) => is_steered = false,
                },
                event = self.subscription.next() => {
                    // It holds the registry, so there is no end.
                    event.into_iter().for_each(|event| self.take_in(event));
                }
                () = until(due) => self.tell(Story::tell),
            }
        }
        self.read_all();
        self.tell(Story::tell_last);
        self.outbox.close();
    }

    fn rules(&self) -> Rules {
        let target = self.target.borrow();
        Rules { hold_down: target.hold_down, cooldown: target.cooldown, flapping: target.flapping }
    }

    fn is_about(&self, service: &str) -> bool {
        let services = &self.target.borrow().services;
        services.is_empty() || services.iter().any(|of| of == service)
    }

    fn read_all(&mut self) {
        while let Some(event) = self.subscription.try_next().transpose() {
            self.take_in(event);
        }
    }

    /// The target was configured anew.
    fn change(&mut self) {
        self.read_all();
        let rules = self.rules();
        self.stories.values_mut().for_each(|story| story.set_rules(rules));
        let target = Arc::clone(&self.target.borrow());
        self.stories.retain(|service, _| {
            target.services.is_empty() || target.services.iter().any(|of| **of == **service)
        });
        self.look();
    }

    fn take_in(&mut self, next: Result<Arc<Event>, Lagged>) {
        match next {
            Ok(event) if event.id > self.looked_after => self.hear(&event),
            Ok(_) => {}
            Err(_) => self.look(),
        }
    }

    fn hear(&mut self, event: &Event) {
        let service = &event.circuit;
        if !self.is_about(service) {
            return;
        }
        let was = self.stories.get(service).map_or(Sight::CLOSED, Story::sight);
        let (at, sight) = match &event.kind {
            EventKind::Registered => match self.registry.get(service) {
                Some(circuit) => (now(), sight_of(&circuit)),
                None => return,
            },
            EventKind::Removed => (now(), Sight { is_registered: false, ..was }),
            EventKind::Transition(transition) => {
                let is_open = transition.to != State::Closed;
                (transition.at.into(), Sight { is_open, ..was })
            }
            EventKind::OverrideSet(over) => (now(), Sight { held: Some(over.kind), ..was }),
            EventKind::OverrideCleared { .. } => (now(), Sight { held: None, ..was }),
            _ => return,
        };
        let note = self.note_of(event);
        self.see(service, at, sight, note);
    }

    /// Looks how all circuits are, where events don't say it.
    fn look(&mut self) {
        self.looked_after = self.registry.events_after(0, 0).last_id;
        let circuits = self.registry.circuits();
        let gone: Vec<_> = {
            let is_gone = |service: &&Arc<str>| circuits.iter().all(|c| c.name() != &***service);
            self.stories.keys().filter(is_gone).cloned().collect()
        };
        for circuit in circuits {
            if !self.is_about(circuit.name()) {
                continue;
            }
            let sight = sight_of(&circuit);
            let service: Arc<str> = circuit.name().into();
            let was = self.stories.get(&service).map_or(Sight::CLOSED, Story::sight);
            if sight != was {
                let snapshot = circuit.snapshot();
                let since = snapshot.overridden_since.unwrap_or(snapshot.since);
                let sentence = match (&snapshot.active_override, &snapshot.cause) {
                    (Some(over), _) => format!("{service} is under {}", over.kind.as_str()),
                    (None, Some(cause)) => {
                        format!("{service} is {}, because {cause}", snapshot.state)
                    }
                    (None, None) => format!("{service} is {}", snapshot.state),
                };
                let over = snapshot.active_override.as_ref();
                let note = Note {
                    id: self.id_of_look(&service),
                    at: ago(since),
                    sentence,
                    by: over.and_then(|over| over.owner.clone()),
                    reason: over.and_then(|over| over.reason.clone()),
                };
                self.see(&service, since.into(), sight, note);
            }
        }
        for service in gone {
            let note = Note {
                id: self.id_of_look(&service),
                at: date(),
                sentence: format!("{service} is not there any more"),
                by: None,
                reason: None,
            };
            let sight = Sight { is_registered: false, ..Sight::CLOSED };
            self.see(&service, now(), sight, note);
        }
    }

    fn see(&mut self, service: &Arc<str>, at: Instant, sight: Sight, note: Note) {
        let (rules, note) = (self.rules(), Arc::new(note));
        let story = self
            .stories
            .entry(Arc::clone(service))
            .or_insert_with(|| Story::new(rules, at, Arc::clone(&note)));
        story.see(at.min(now()), sight, &note);
    }

    /// Puts what each story has to tell into the outbox.
    fn tell(&mut self, tell: impl Fn(&mut Story<Note>, Instant) -> Option<Told<Note>>) {
        let (now, hold_down) = (now(), self.rules().hold_down);
        for (service, story) in &mut self.stories {
            if let Some(told) = tell(story, now) {
                let service = service.to_string();
                if self.outbox.push(Message { service, told, hold_down, lost: 0 }) {
                    let target = self.target.borrow().name.clone();
                    metrics::counter!(
                        "brk_notifications_total", "target" => target, "outcome" => "lost"
                    )
                    .increment(1);
                }
            }
        }
        self.stories.retain(|_, story| !story.is_over(now));
    }

    fn note_of(&self, event: &Event) -> Note {
        let (by, reason) = match &event.kind {
            EventKind::OverrideSet(over) => (over.owner.clone(), over.reason.clone()),
            _ => (None, None),
        };
        Note {
            id: format!("{:016x}-{}", self.registry.epoch(), event.id),
            at: event.at,
            sentence: event.to_string(),
            by,
            reason,
        }
    }

    /// Of what no event tells.
    fn id_of_look(&self, service: &str) -> String {
        let last = self.subscription.last_id();
        format!("{:016x}-{last}-{service}", self.registry.epoch())
    }
}

fn sight_of(circuit: &Circuit) -> Sight {
    let snapshot = circuit.snapshot();
    Sight {
        is_registered: true,
        is_open: snapshot.state != State::Closed,
        held: snapshot.active_override.map(|over| over.kind),
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// The date of an instant that is past.
fn ago(then: std::time::Instant) -> SystemTime {
    let date = date();
    date.checked_sub(Clock::tokio().now().saturating_duration_since(then)).unwrap_or(date)
}

fn now() -> Instant {
    // As the circuits have it.
    Clock::tokio().now().into()
}

#[expect(clippy::disallowed_methods, reason = "told to a person")]
fn date() -> SystemTime {
    SystemTime::now()
}
