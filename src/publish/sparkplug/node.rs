//! The loop of the edge node: connects, says what [`super::life`] finds due, hears the host.

use reticle_base::remedy::Remedy;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Publish};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::life::{self, Due, Life};
use super::payload::Payload;
use super::{Names, metrics};
use crate::publish::connection::{self, Heard, Link, hear};
use crate::publish::error::PublishError;
use crate::publish::namesake::Namesake;
use crate::publish::{Broker, Ports, PublishBoard, stopped};
use reticle_base::clock::{Clock, Stamp};
use reticle_base::supervise::Watched;
use reticle_domain::status::StatusBoard;

/// How often the board is looked at. A rebirth comes within it, and no more often.
const TICK: Duration = Duration::from_millis(250);

/// How long the good-bye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection that lasted so long was one: nobody acknowledges anything by which to tell.
const STEADY: Duration = Duration::from_secs(10);

/// The `NDEATH` that the box says itself: the only message that is acknowledged.
struct Death;

/// The running edge node.
pub(in crate::publish) struct Node {
    broker: Arc<Broker>,
    names: Names,
    status: StatusBoard,
    clock: Clock,
    board: PublishBoard,
    life: Life,
    namesake: Namesake,
    link: Option<Link<Death>>,
    connected: bool,
    connected_at: Stamp,
    lost_at: Stamp,
    next_attempt: Stamp,
    wait: Duration,
    attempts: u32,
}

impl Node {
    pub(in crate::publish) fn new(broker: Broker, ports: Ports, board: PublishBoard) -> Self {
        // Neither store nor executor: nothing is read again, and nobody is obeyed.
        let Ports { status, clock, .. } = ports;
        let now = clock.now();
        Self {
            names: Names::of(&broker.box_name),
            broker: Arc::new(broker),
            status,
            clock,
            board,
            life: Life::default(),
            namesake: Namesake::default(),
            link: None,
            connected: false,
            connected_at: now,
            lost_at: now,
            next_attempt: now,
            wait: Duration::ZERO,
            attempts: 0,
        }
    }

    pub(in crate::publish) async fn run(
        mut self,
        mut stopping: watch::Receiver<bool>,
        watched: Watched,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let place = self.broker.place();
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => break,
                heard = hear(&mut self.link, &place) => self.heard(heard),
                _ = tick.tick() => {
                    watched.pass();
                    self.tick();
                }
            }
        }
        self.goodbye(&place).await;
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        if self.link.is_none() {
            if now.since(&self.next_attempt) >= self.wait {
                let will = self.life.connects(&now).encode_to_vec();
                // No properties: the broker says it at once, without a delay.
                let will = LastWill::new(self.names.death(), will, QoS::AtLeastOnce, false, None);
                self.link = Some(Link::open(&self.broker.target, will));
            }
        } else if self.connected {
            self.namesake.lasts(&self.connected_at, &now);
            self.speak(&now);
        }
        let target = &self.broker.target;
        let name_taken = self.namesake.reason(target.client_id(), &target.url());
        let taken_over = self.namesake.total();
        self.board.update(|state| {
            (state.name_taken, state.taken_over) = (name_taken, taken_over);
        });
    }

    fn speak(&mut self, now: &Stamp) {
        let Some(link) = &mut self.link else { return };
        let (topic, payload) = match self.life.due(metrics::of(&self.status.read()), now) {
            None => return,
            Some(Due::Birth(birth)) => (self.names.birth(), birth),
            Some(Due::Data(data)) => (self.names.data(), data),
        };
        if !link.hand_over_bytes(topic, payload.encode_to_vec(), None) {
            // A hole in seq would make the host ask for it anyway.
            self.life.forget();
        }
    }

    fn heard(&mut self, heard: Heard) {
        let now = self.clock.now();
        match heard {
            Heard::Nothing => {}
            Heard::Connected => self.begin(&now),
            Heard::Answered(id, _) => {
                if let Some(link) = &mut self.link {
                    link.flight.land(id);
                }
            }
            Heard::NotSubscribed(code) => {
                let why = format!("the broker refused ({code:?}): let this box's user read there");
                self.trouble(&PublishError::stop(
                    format!("subscribe to {}", self.names.commands()),
                    why,
                ));
            }
            Heard::Came(publish) => self.came(&publish),
            Heard::Ended(error) => {
                if self.connected {
                    let soon = now.since(&self.connected_at) < STEADY;
                    self.namesake.ended(soon, &now);
                } else {
                    self.namesake.absent();
                }
                self.ended(&error, &now);
            }
            Heard::TakenOver(error) => {
                self.namesake.taken_over(&now);
                self.ended(&error, &now);
            }
        }
    }

    fn begin(&mut self, now: &Stamp) {
        tracing::info!(broker = self.broker.place(), "connected");
        self.connected = true;
        self.connected_at = *now;
        self.board.update(|state| {
            state.connected = true;
            state.reason = None;
        });
        // Before the birth: who hears it may ask at once.
        let commands = self.names.commands();
        if self.link.as_ref().is_some_and(|link| !link.subscribe(&commands, None)) {
            tracing::warn!("commands are not heard until the next connection");
        }
        self.life.forget();
        self.speak(now);
    }

    fn came(&mut self, publish: &Publish) {
        if publish.topic != self.names.commands() {
            return;
        }
        match Payload::decode(publish.payload.clone()) {
            Ok(command) if life::asks_for_rebirth(&command) => {
                tracing::debug!("the host asks for everything again");
                self.life.forget();
            }
            Ok(command) => {
                let metrics = command.metrics.iter().map(|metric| metric.name.as_deref());
                let metrics: Vec<&str> = metrics.flatten().take(8).collect();
                tracing::debug!(?metrics, "passed over: no command but a rebirth is obeyed");
            }
            Err(error) => tracing::debug!(%error, "passed over: not a message of Sparkplug"),
        }
    }

    fn ended(&mut self, error: &PublishError, now: &Stamp) {
        if self.connected && now.since(&self.connected_at) >= STEADY {
            self.attempts = 0;
        }
        // A broker that lets in and throws out again is not there.
        if self.connected && self.attempts == 0 {
            self.lost_at = *now;
        }
        if self.board.read().reason != Some(error.to_string()) {
            self.trouble(error);
        }
        self.connected = false;
        self.board.update(|state| state.connected = false);
        self.link = None;
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
                tracing::error!(%error, "the broker does not take this box")
            }
        }
        self.board.update(|state| state.reason = Some(error.to_string()));
    }

    /// Says the death, which the broker keeps to itself when one leaves in order, and leaves.
    async fn goodbye(&mut self, place: &str) {
        let Some(mut link) = self.link.take().filter(|_| self.connected) else { return };
        let death = self.life.death(&self.clock.now()).encode_to_vec();
        if !link.hand_over_bytes(self.names.death(), death, Some(Death)) {
            // Without a good-bye the broker says it.
            return;
        }
        let mut link = Some(link);
        let said = async {
            while let Some(open) = &mut link
                && open.flight.len() > 0
            {
                match hear(&mut link, place).await {
                    Heard::Answered(id, _) => {
                        if let Some(open) = &mut link {
                            open.flight.land(id);
                        }
                    }
                    Heard::Ended(_) | Heard::TakenOver(_) => link = None,
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(GOODBYE, Box::pin(said)).await.is_err() {
            tracing::warn!("the broker does not take the good-bye in time");
            return;
        }
        if let Some(link) = link
            && tokio::time::timeout(GOODBYE / 4, link.close()).await.is_err()
        {
            tracing::debug!("the broker does not close the connection");
        }
    }
}
