//! The loop: what the broker says, what the store has, what the board shows, what is asked.
//!
//! One task, which never waits for anything but the next thing that happens. What blocks (store,
//! executor) is done by two threads beside it; how each part behaves is decided by the pure
//! modules ([`super::state`], [`super::telling`], [`super::commands`]).

use reticle_base::remedy::Remedy;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, PubAckReason};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::commands::Commands;
use super::connection::{self, Heard, Link, Outbound, hear};
use super::error::PublishError;
use super::home_assistant;
use super::ledger::Ledger;
use super::namesake::Namesake;
use super::payloads::{Presence, PresenceState};
use super::state::{Pictures, json};
use super::telling::{self, Step, Telling, Ticket, Unit};
use super::{Broker, Ports, PublishBoard, stopped};
use reticle_base::clock::Stamp;
use reticle_base::ids::EventId;
use reticle_base::supervise::Watched;
use reticle_store::{Answer, Ask, Job, Noted, Stream};

mod heard;

/// How often the board and the store are looked at. Frames are told within it.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two looks at how much waits.
const COUNT_TICKS: u32 = 8;

/// Rows of a batch.
const BATCH: u32 = 200;

/// How long the good-bye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Shortest patience with a broker that answers pings and acknowledges nothing.
const DEAF: Duration = Duration::from_secs(15);

/// What a message on its way is.
enum Name {
    /// Presence, pictures, discovery: said again after a connection anyway.
    State,
    /// An answer to a command: said again itself.
    Answer(Box<Outbound>),
    Told(Stream, Ticket),
}

struct Sent {
    topic: String,
    name: Name,
}

/// What a thread beside the loop brings back.
enum Done {
    Read(Stream, Vec<Unit>),
    Marked(Stream, Option<i64>),
    Counted(u64, Option<String>),
    Noted(Result<Noted, String>),
    Ran(Result<serde_json::Value, String>),
    Logged,
}

pub(super) struct Feed {
    broker: Arc<Broker>,
    ports: Ports,
    board: PublishBoard,
    instance: String,
    sequence: u64,
    pictures: Pictures,
    events: Telling,
    results: Telling,
    commands: Commands,
    ledger: Ledger,
    refusals: heard::Refusals,
    namesake: Namesake,
    outbox: VecDeque<(Outbound, Name)>,
    work: JoinSet<Done>,
    link: Option<Link<Sent>>,
    connected: bool,
    /// When this life was first let in, and when last.
    first_connected: Option<Stamp>,
    connected_at: Stamp,
    lost_at: Stamp,
    next_attempt: Stamp,
    wait: Duration,
    attempts: u32,
    /// Something was acknowledged, or nothing was on its way.
    progress: Stamp,
    /// Somebody said that this box is gone; say that it is not.
    contradict: bool,
    counting: bool,
    /// Topics under which the broker refused, until it takes something there: each is told once.
    refused: BTreeSet<String>,
}

/// Refused topics that are remembered: more than there are, but for those of commands, whose ids
/// others choose.
const REFUSED: usize = 64;

impl Feed {
    pub(super) fn new(broker: Broker, ports: Ports, board: PublishBoard) -> Self {
        let now = ports.clock.now();
        Self {
            commands: Commands::new(ports.access.clone(), broker.replies.clone()),
            ledger: Ledger::default(),
            refusals: heard::Refusals::default(),
            namesake: Namesake::default(),
            broker: Arc::new(broker),
            ports,
            board,
            // An id of its own would be a type more; this is one that was never used before.
            instance: EventId::new().to_string(),
            sequence: 0,
            pictures: Pictures::default(),
            events: Telling::default(),
            results: Telling::default(),
            outbox: VecDeque::new(),
            work: JoinSet::new(),
            link: None,
            connected: false,
            first_connected: None,
            connected_at: now,
            lost_at: now,
            next_attempt: now,
            wait: Duration::ZERO,
            attempts: 0,
            progress: now,
            contradict: false,
            counting: false,
            refused: BTreeSet::new(),
        }
    }

    pub(super) async fn run(mut self, mut stopping: watch::Receiver<bool>, watched: Watched) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let place = self.broker.place();
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => break,
                heard = hear(&mut self.link, &place) => self.heard(heard),
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.done(done),
                    // What it was to bring is waited for: only a new feed asks again.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(error) => tracing::debug!(%error, "a task of the feed was broken off"),
                    },
                },
                _ = tick.tick() => {
                    watched.pass();
                    self.tick(ticks);
                    ticks = ticks.wrapping_add(1);
                }
            }
            self.send();
        }
        self.commands.close();
        self.goodbye(&place).await;
        // A command that is being done is waited for: it must not outlive the daemon's parts.
        while let Some(done) = self.work.join_next().await {
            // Nothing new is begun; what came to its end is still noted.
            if let Ok(Done::Ran(_) | Done::Logged) = &done
                && let Ok(done) = done
            {
                self.done(done);
            }
        }
    }

    fn tick(&mut self, ticks: u32) {
        let now = self.ports.clock.now();
        if self.link.is_none() {
            if now.since(&self.next_attempt) >= self.wait {
                self.sequence += 1;
                let will = self.presence(PresenceState::Offline, &now);
                let will = LastWill::new(
                    self.broker.topics.status(),
                    json(&will).to_string(),
                    QoS::AtLeastOnce,
                    true,
                    None,
                );
                self.link = Some(Link::open(&self.broker.target, will));
            }
        } else if self.connected {
            let patience = DEAF.max(self.broker.target.keep_alive().mul_f64(1.5));
            let on_its_way = self.link.as_ref().is_some_and(|link| link.flight.len() > 0);
            if !on_its_way {
                self.progress = now;
            } else if now.since(&self.progress) > patience {
                let why = format!("nothing was acknowledged for {} s", patience.as_secs());
                self.heard(Heard::Ended(PublishError::retry(self.broker.place(), why)));
                return;
            }
            self.namesake.lasts(&self.connected_at, &now);
            self.say_state(&now);
            self.step(Stream::Events, &now);
            self.step(Stream::Results, &now);
        }
        if ticks.is_multiple_of(COUNT_TICKS) && !self.counting {
            self.count();
        }
        self.tell_of_namesake();
    }

    fn tell_of_namesake(&self) {
        let target = &self.broker.target;
        let name_taken = self.namesake.reason(target.client_id(), &target.url());
        let taken_over = self.namesake.total();
        self.board.update(|state| {
            (state.name_taken, state.taken_over) = (name_taken, taken_over);
        });
    }

    fn say_state(&mut self, now: &Stamp) {
        if std::mem::take(&mut self.contradict) {
            self.say_presence(PresenceState::Online, now);
        }
        let status = self.ports.status.read();
        for picture in self.pictures.due(&self.broker.topics, &status, now) {
            self.retain(picture.topic, &picture.body);
        }
    }

    fn presence(&self, state: PresenceState, now: &Stamp) -> Presence {
        Presence {
            state,
            boot_id: now.boot_id.to_string(),
            instance: self.instance.clone(),
            sequence: self.sequence,
            at: now.rfc3339(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn say_presence(&mut self, state: PresenceState, now: &Stamp) {
        self.sequence += 1;
        let presence = json(&self.presence(state, now));
        self.retain(self.broker.topics.status(), &presence);
    }

    fn retain(&mut self, topic: String, body: &serde_json::Value) {
        let payload = body.to_string().into_bytes();
        let message = Outbound { topic, payload, retain: true, correlation: None };
        self.outbox.push_back((message, Name::State));
    }

    /// Hands over what there is room for: state and answers first, then what is told.
    fn send(&mut self) {
        if !self.connected {
            return;
        }
        let now = self.ports.clock.now();
        let Some(link) = &mut self.link else { return };
        while link.has_room() {
            let next = self.outbox.pop_front().or_else(|| {
                let events = self.events.next(&now).map(|next| (Stream::Events, next));
                let next =
                    events.or_else(|| self.results.next(&now).map(|next| (Stream::Results, next)));
                next.map(|(stream, (ticket, message))| {
                    let telling::Message { topic, payload } = message;
                    let message = Outbound { topic, payload, retain: false, correlation: None };
                    (message, Name::Told(stream, ticket))
                })
            });
            let Some((message, name)) = next else { break };
            let sent = Sent { topic: message.topic.clone(), name };
            if let Err((message, sent)) = link.hand_over(message, sent) {
                match sent.name {
                    // It will be read again.
                    Name::Told(stream, _) => self.telling(stream).lost(),
                    name => self.outbox.push_front((message, name)),
                }
                break;
            }
        }
    }

    fn telling(&mut self, stream: Stream) -> &mut Telling {
        match stream {
            Stream::Events => &mut self.events,
            Stream::Results => &mut self.results,
        }
    }

    fn heard(&mut self, heard: Heard) {
        let now = self.ports.clock.now();
        match heard {
            Heard::Nothing => {}
            Heard::Connected => self.begin(&now),
            Heard::Answered(id, reason) => self.answered(id, reason, &now),
            Heard::NotSubscribed(code) => {
                let why = format!("the broker refused ({code:?}): let this box's user read there");
                self.trouble(&PublishError::stop("subscribe to commands and status", why));
            }
            Heard::Came(publish) => self.came(&publish, &now),
            Heard::Ended(error) => self.ended(&error, &now),
            Heard::TakenOver(error) => {
                self.namesake.taken_over(&now);
                self.ended(&error, &now);
            }
        }
    }

    fn begin(&mut self, now: &Stamp) {
        tracing::info!(broker = self.broker.place(), "connected");
        self.connected = true;
        self.progress = *now;
        self.refused.clear();
        self.board.update(|state| {
            state.connected = true;
            state.reason = None;
        });
        self.connected_at = *now;
        if self.first_connected.is_none() {
            // Our word first: what is retained of our own earlier life is of no interest.
            self.first_connected = Some(*now);
            self.say_presence(PresenceState::Online, now);
            self.send();
            self.subscribe();
        } else {
            // Ours was the last word, unless another client has our name: its word is retained.
            self.subscribe();
            self.say_presence(PresenceState::Online, now);
            self.send();
        }
        self.pictures.forget();
        if self.broker.options.home_assistant {
            let (topic, body) =
                home_assistant::discovery(&self.broker.topics, &self.broker.box_name);
            self.retain(topic, &body);
        }
        self.say_state(now);
    }

    fn subscribe(&self) {
        let commands = self.broker.topics.commands();
        let status = self.broker.topics.status();
        // Commands are heard even where none is allowed: who asks is told so.
        if self.link.as_ref().is_some_and(|link| !link.subscribe(&status, Some(&commands))) {
            tracing::warn!("commands are not heard until the next connection");
        }
    }

    fn ended(&mut self, error: &PublishError, now: &Stamp) {
        // A broker that lets in and throws out again is not there.
        if self.connected && self.attempts == 0 {
            self.lost_at = *now;
        }
        let repeated = self.board.read().reason == Some(error.to_string());
        if !repeated {
            self.trouble(error);
        }
        self.connected = false;
        self.board.update(|state| state.connected = false);
        self.events.lost();
        self.results.lost();
        self.outbox.retain(|(_, name)| matches!(name, Name::Answer(_)));
        if let Some(mut link) = self.link.take() {
            for sent in link.flight.fall() {
                if let Name::Answer(message) = sent.name {
                    self.outbox.push_back(((*message).clone(), Name::Answer(message)));
                }
            }
        }
        let away = now.since(&self.lost_at);
        self.wait = connection::back_off(self.attempts, away, rand::random());
        if let Some(wait) = self.namesake.wait(rand::random()) {
            self.wait = self.wait.max(wait);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.next_attempt = *now;
    }

    /// Says once what is wrong.
    fn trouble(&self, error: &PublishError) {
        match error.remedy {
            Remedy::Retry => tracing::warn!(%error, "the broker is not there; will retry"),
            Remedy::GiveUp | Remedy::Stop => {
                tracing::error!(%error, "the broker does not take what this box says")
            }
        }
        self.board.update(|state| state.reason = Some(error.to_string()));
    }

    fn answered(&mut self, id: u16, reason: PubAckReason, now: &Stamp) {
        self.progress = *now;
        let Some(sent) = self.link.as_mut().and_then(|link| link.flight.land(id)) else { return };
        if connection::is_taken(reason) {
            self.attempts = 0;
            if self.refused.remove(&sent.topic) && self.refused.is_empty() {
                self.board.update(|state| state.reason = None);
            }
            if let Name::Told(stream, ticket) = sent.name {
                self.telling(stream).acknowledged(ticket);
                self.step(stream, now);
            }
            return;
        }
        if self.refused.len() < REFUSED && self.refused.insert(sent.topic.clone()) {
            self.trouble(&connection::refusal(&sent.topic, reason));
        }
        if let Name::Told(stream, ticket) = sent.name {
            self.telling(stream).refused(ticket, now);
        }
    }

    fn step(&mut self, stream: Stream, now: &Stamp) {
        let Some(step) = self.telling(stream).step(now) else { return };
        match step {
            Step::Mark(upto) => {
                let jobs = self.ports.jobs.clone();
                self.work.spawn_blocking(move || Done::Marked(stream, mark(&jobs, stream, upto)));
            }
            Step::Read => {
                let (reader, broker) = (self.ports.reader.clone(), Arc::clone(&self.broker));
                let now = *now;
                self.work.spawn_blocking(move || {
                    let units = match stream {
                        Stream::Events => reader
                            .untold_events(BATCH)
                            .map(|events| telling::tell_events(&broker.topics, &events, &now)),
                        Stream::Results => read_results(&reader, &broker, &now),
                    };
                    let units = units.unwrap_or_else(|error| {
                        tracing::warn!(%error, "what is to be told cannot be read; will retry");
                        Vec::new()
                    });
                    Done::Read(stream, units)
                });
            }
        }
    }

    fn count(&mut self) {
        self.counting = true;
        let reader = self.ports.reader.clone();
        self.work.spawn_blocking(move || {
            let told = reader.told().unwrap_or_else(|error| {
                tracing::debug!(%error, "what waits for the broker cannot be counted");
                Vec::new()
            });
            let waiting = told.iter().map(|told| told.waiting).sum();
            Done::Counted(waiting, told.into_iter().filter_map(|told| told.oldest).min())
        });
    }

    fn done(&mut self, done: Done) {
        let now = self.ports.clock.now();
        match done {
            Done::Logged => {
                self.ledger.done();
                self.hand_to_store();
            }
            Done::Noted(noted) => {
                self.begin_command(noted, &now);
                self.next_command(&now);
            }
            Done::Counted(waiting, oldest) => {
                self.counting = false;
                self.board.update(|state| (state.waiting, state.oldest) = (waiting, oldest));
            }
            Done::Read(stream, units) => {
                let some = !units.is_empty();
                self.telling(stream).read(units);
                if !self.connected {
                    self.telling(stream).lost();
                } else if some {
                    // There may be nothing to say of them.
                    self.step(stream, &now);
                }
            }
            Done::Marked(stream, upto) => {
                self.telling(stream).marked(upto);
                if upto.is_some() && self.connected {
                    self.step(stream, &now);
                }
            }
            Done::Ran(result) => {
                if let Some(said) = self.commands.done(result) {
                    self.answer(said, &now);
                }
                self.next_command(&now);
            }
        }
    }

    /// Says `stopped`, and leaves when the broker has it.
    async fn goodbye(&mut self, place: &str) {
        if !self.connected {
            return;
        }
        let now = self.ports.clock.now();
        self.outbox.retain(|(_, name)| matches!(name, Name::Answer(_)));
        self.events.lost();
        self.results.lost();
        self.say_presence(PresenceState::Stopped, &now);
        let said = async {
            while self.connected {
                self.send();
                let waits = self.link.as_ref().map_or(0, |link| link.flight.len());
                if waits == 0 && self.outbox.is_empty() {
                    break;
                }
                match hear(&mut self.link, place).await {
                    // Our own word, or a will that it replaces.
                    Heard::Came(_) => {}
                    heard => self.heard(heard),
                }
            }
        };
        if tokio::time::timeout(GOODBYE, Box::pin(said)).await.is_err() {
            tracing::warn!("the broker does not take the good-bye in time");
        }
        if let Some(link) = self.link.take()
            && tokio::time::timeout(GOODBYE / 4, link.close()).await.is_err()
        {
            tracing::debug!("the broker does not close the connection");
        }
    }
}

fn read_results(
    reader: &reticle_store::Reader,
    broker: &Broker,
    now: &Stamp,
) -> Result<Vec<Unit>, reticle_store::StoreError> {
    let measurements = broker.options.measurements;
    let results = reader.untold_results(BATCH)?;
    let wells = if measurements.wells() && !results.is_empty() {
        reader.wells_of(&results)?
    } else {
        Vec::new()
    };
    Ok(telling::tell_results(&broker.topics, &results, measurements.frames(), &wells, now))
}

/// Moves the mark; `None` where that did not work.
fn mark(jobs: &reticle_base::queue::Sender<Job>, stream: Stream, upto: i64) -> Option<i64> {
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    jobs.send(Job::Ask { ask: Ask::Told { stream, upto }, reply });
    match answer.recv() {
        Ok(Ok(Answer::Written)) => Some(upto),
        Ok(Ok(other)) => {
            tracing::error!(?other, "the store gave another answer than was asked for");
            None
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "what was told cannot be marked; will retry");
            None
        }
        // The store has ended; it will be told again.
        Err(_) => None,
    }
}
