//! The simulation: clients, a policy at each, one dependency, virtual time.
//!
//! A queue of events in order of time; those of the same instant in the order
//! in which they were made. Nothing here reads a clock or draws entropy, so a
//! seed says everything about a run.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use tower_breaker::ManualClock;

use crate::{
    contender::Contender,
    policy::{CallEnd, Changes, Policy, Ticket},
    rng::Rng,
    run::{Bucket, ClientLog, Run, STEP, Tally},
    server::{CallId, Capacity, Health, Reaction, Server, Trouble, trouble_at},
};

/// What is simulated, but for the policy and the seed.
#[derive(Clone, Debug)]
pub struct Model {
    /// How many clients there are, each with a policy of its own.
    pub clients: usize,
    /// Calls a second of each, at random times.
    pub rate: f64,
    /// For how long.
    pub length: Duration,
    /// How many parts the dependency has; each call goes to one of them.
    pub shards: usize,
    /// Whether a client has a policy for each shard, or one for all.
    pub keyed: bool,
    /// After what time a client takes a call for failed.
    pub timeout: Option<Duration>,
    /// How often it tries in all, at once upon a failure.
    pub attempts: u32,
    /// What the dependency can do; `None`: anything.
    pub capacity: Option<Capacity>,
    /// What is wrong with it when, in order, and never two at once.
    pub troubles: Vec<Trouble>,
}

impl Model {
    /// A healthy dependency without limits, timeouts of 1 s, no retries.
    pub fn new(clients: usize, rate: f64, length: Duration) -> Self {
        Self {
            clients,
            rate,
            length,
            shards: 1,
            keyed: false,
            timeout: Some(Duration::from_secs(1)),
            attempts: 1,
            capacity: None,
            troubles: Vec::new(),
        }
    }

    /// Adds trouble for all shards.
    pub fn trouble(mut self, from: Duration, until: Duration, health: Health) -> Self {
        self.troubles.push(Trouble { from, until, health, shard: None });
        self
    }

    /// Runs it.
    pub fn run(&self, contender: Contender, seed: u64) -> Run {
        Engine::new(self, contender, seed).run()
    }
}

struct Engine<'a> {
    model: &'a Model,
    now: Duration,
    clock: ManualClock,
    events: BinaryHeap<Reverse<Entry>>,
    made: u64,
    clients: Vec<Client>,
    /// A client's are next to each other.
    policies: Vec<Box<dyn Policy>>,
    calls: Vec<Call>,
    free: Vec<usize>,
    server: Server,
    server_rng: Rng,
    run: Run,
    /// From when first refusals and losses are noted.
    watch: Duration,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Duration,
    number: u64,
    event: Event,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival { client: usize },
    Answer { call: CallId, ok: bool },
    Done { call: CallId },
    Timeout { call: CallId },
}

struct Client {
    arrivals: Rng,
    choices: Rng,
    log: ClientLog,
}

/// One attempt that is under way.
struct Call {
    version: u64,
    live: bool,
    wish: Wish,
    ticket: Ticket,
    sent: Duration,
    /// It was sent in the outage, before the client's first refusal.
    unaware: bool,
}

/// What a client wants, in one attempt or more.
#[derive(Clone, Copy)]
struct Wish {
    client: usize,
    shard: usize,
    born: Duration,
    attempt: u32,
}

impl<'a> Engine<'a> {
    fn new(model: &'a Model, contender: Contender, seed: u64) -> Self {
        const ARRIVALS: u64 = 1;
        const CHOICES: u64 = 2;
        const POLICIES: u64 = 3;
        const SERVER: u64 = 4;
        let clock = ManualClock::new();
        let a_client = if model.keyed { model.shards } else { 1 };
        let policies = (0..model.clients * a_client)
            .map(|i| contender.build(&clock, &mut Rng::stream(seed, POLICIES, i as u64)))
            .collect();
        let clients = (0..model.clients as u64)
            .map(|i| Client {
                arrivals: Rng::stream(seed, ARRIVALS, i),
                choices: Rng::stream(seed, CHOICES, i),
                log: ClientLog::default(),
            })
            .collect();
        Self {
            model,
            now: Duration::ZERO,
            clock,
            events: BinaryHeap::new(),
            made: 0,
            clients,
            policies,
            calls: Vec::new(),
            free: Vec::new(),
            server: Server::new(model.capacity, model.troubles.clone()),
            server_rng: Rng::stream(seed, SERVER, 0),
            run: Run::new(model.length, model.shards),
            watch: model.troubles.first().map_or(Duration::MAX, |trouble| trouble.from),
        }
    }

    fn run(mut self) -> Run {
        (0..self.model.clients).for_each(|client| self.schedule_arrival(client));
        while let Some(Reverse(Entry { at, event, .. })) = self.events.pop() {
            if at >= self.model.length {
                break;
            }
            self.clock.advance(at - self.now);
            self.now = at;
            self.handle(event);
        }
        self.run.clients = self.clients.into_iter().map(|client| client.log).collect();
        self.run.changes = self.policies.iter().map(|policy| policy.changes()).fold(
            Changes::default(),
            |sum, more| Changes {
                opened: sum.opened + more.opened,
                transitions: sum.transitions + more.transitions,
            },
        );
        self.run
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival { client } => {
                self.schedule_arrival(client);
                let arrivals = &mut self.clients[client].arrivals;
                let shard = (arrivals.unit() * self.model.shards as f64) as usize;
                self.bucket(self.now).offered += 1;
                self.tally(self.now, shard).offered += 1;
                self.attempt(Wish { client, shard, born: self.now, attempt: 1 });
            }
            Event::Answer { call, ok } => self.end(call, ok),
            Event::Timeout { call } => self.end(call, false),
            Event::Done { call } => {
                if let Some((next, until)) = self.server.done(self.now, &mut self.server_rng) {
                    self.schedule(until, Event::Done { call: next });
                }
                self.end(call, true);
            }
        }
    }

    fn attempt(&mut self, wish: Wish) {
        let Wish { client, shard, born, attempt } = wish;
        let (now, watching) = (self.now, self.now >= self.watch);
        let policy = self.policy_of(client, shard);
        let Some(ticket) = self.policies[policy].admit(now, &mut self.clients[client].choices)
        else {
            if watching {
                let since = now - self.watch;
                self.clients[client].log.first_refusal.get_or_insert(since);
            }
            // One whose retry is refused has had its failure already.
            if attempt == 1 {
                self.bucket(born).refused += 1;
                self.tally(born, shard).refused += 1;
            }
            return;
        };
        let rate = self.server.rate(now);
        let bucket = self.bucket(now);
        bucket.sent += 1;
        bucket.capacity = rate;
        self.tally(now, shard).sent += 1;
        let unaware = watching && self.clients[client].log.first_refusal.is_none();
        self.clients[client].log.sent += u64::from(unaware);
        let call = self.put(wish, ticket, unaware);
        let reaction = self.server.arrive(now, call, shard, &mut self.server_rng);
        let timeout = self.model.timeout.map(|timeout| now + timeout);
        match reaction {
            Reaction::Answer { at, ok } if timeout.is_none_or(|timeout| at <= timeout) => {
                self.schedule(at, Event::Answer { call, ok });
                return;
            }
            Reaction::Work { until } => self.schedule(until, Event::Done { call }),
            Reaction::Answer { .. } | Reaction::Nothing => {}
        }
        if let Some(timeout) = timeout {
            self.schedule(timeout, Event::Timeout { call });
        }
    }

    /// The client learns what came of a call, if it still waits for it.
    fn end(&mut self, id: CallId, ok: bool) {
        let call = &mut self.calls[id.place];
        if call.version != id.version || !call.live {
            return;
        }
        call.live = false;
        let (wish, ticket, sent, unaware) = (call.wish, call.ticket, call.sent, call.unaware);
        self.free.push(id.place);
        let policy = self.policy_of(wish.client, wish.shard);
        let end = CallEnd { failed: !ok, latency: self.now - sent };
        self.policies[policy].end(self.now, ticket, end);
        if ok {
            self.bucket(wish.born).ok += 1;
            self.tally(wish.born, wish.shard).ok += 1;
            return;
        }
        self.clients[wish.client].log.lost += u64::from(unaware);
        if wish.attempt < self.model.attempts {
            self.attempt(Wish { attempt: wish.attempt + 1, ..wish });
        }
    }

    fn put(&mut self, wish: Wish, ticket: Ticket, unaware: bool) -> CallId {
        let place = self.free.pop().unwrap_or(self.calls.len());
        let version = self.calls.get(place).map_or(0, |call| call.version + 1);
        let call = Call { version, live: true, wish, ticket, sent: self.now, unaware };
        match self.calls.get_mut(place) {
            Some(old) => *old = call,
            None => self.calls.push(call),
        }
        CallId { place, version }
    }

    fn policy_of(&self, client: usize, shard: usize) -> usize {
        if self.model.keyed { client * self.model.shards + shard } else { client }
    }

    fn schedule_arrival(&mut self, client: usize) {
        let mean = Duration::from_secs_f64(1.0 / self.model.rate);
        let at = self.now + self.clients[client].arrivals.exponential(mean);
        self.schedule(at, Event::Arrival { client });
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.made += 1;
        self.events.push(Reverse(Entry { at, number: self.made, event }));
    }

    fn bucket(&mut self, at: Duration) -> &mut Bucket {
        &mut self.run.series[(at.as_nanos() / STEP.as_nanos()) as usize]
    }

    /// The shard's tally of what was wanted or sent in the trouble.
    fn tally(&mut self, at: Duration, shard: usize) -> &mut Tally {
        let within = trouble_at(&self.model.troubles, at).is_some();
        let tallies = if within { &mut self.run.shards } else { &mut self.run.elsewhere };
        &mut tallies[shard]
    }
}
