//! What is heard from the broker: commands, and what others say of this box.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::Publish;

use super::{Done, Feed, Name};
use crate::publish::commands::{Asked, Begun, Next, Reply, Said, Time};
use crate::publish::connection::Outbound;
use crate::publish::ledger;
use crate::publish::payloads::{CommandAnswer, Presence, PresenceState};
use crate::publish::state::json;
use reticle_base::clock::Stamp;
use reticle_base::ids::EventId;
use reticle_domain::actor::Actor;
use reticle_domain::event::{Event, What};
use reticle_domain::order::{Executor, Order};
use reticle_store::{Ask, Noted};

/// Messages that may wait for the broker before commands are passed over: it takes no answers.
const UNANSWERED: usize = 256;

/// Longest operation and id together that are answered at all, bytes: they are remembered.
const LONGEST_NAMES: usize = 256;

/// What is heard of other lives so soon after the first connection may be of our own last one.
const SETTLING: Duration = Duration::from_secs(10);

/// How long an order may take until it is carried out.
const PATIENCE: Duration = Duration::from_secs(10);

/// Refused commands in a minute that are events: a program gone wild must not fill the logbook.
const REFUSALS: u32 = 60;

/// How many refusals were events in this minute.
#[derive(Default)]
pub(super) struct Refusals {
    since: Option<Stamp>,
    count: u32,
}

impl Refusals {
    /// Whether another one is an event.
    fn take(&mut self, now: &Stamp) -> bool {
        if self.since.is_none_or(|since| now.since(&since) >= Duration::from_secs(60)) {
            (self.since, self.count) = (Some(*now), 0);
        }
        self.count += 1;
        if self.count == REFUSALS + 1 {
            tracing::warn!("more commands are refused than the logbook takes in a minute");
        }
        self.count <= REFUSALS
    }
}

impl Feed {
    pub(super) fn came(&mut self, publish: &Publish, now: &Stamp) {
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
        if topic == self.broker.topics.status() {
            self.heard_of_us(publish, now);
            return;
        }
        let Some((op, id)) = self.broker.topics.command(topic) else { return };
        if op.len() + id.len() > LONGEST_NAMES {
            tracing::warn!("a command with a topic of {} bytes is passed over", topic.len());
            return;
        }
        if self.outbox.len() >= UNANSWERED {
            tracing::warn!(op, id, "a command is passed over: the broker takes no answers");
            return;
        }
        let properties = publish.properties.as_ref();
        // On its own topic it is answered anyway.
        let elsewhere = |to: &&String| to.as_str() != topic;
        let reply = Reply {
            topic: properties.and_then(|p| p.response_topic.as_ref()).filter(elsewhere).cloned(),
            correlation: properties.and_then(|p| p.correlation_data.clone()),
        };
        let asked = Asked {
            op: op.to_owned(),
            id: id.to_owned(),
            payload: publish.payload.clone(),
            retained: publish.retain,
            expiry_s: properties.and_then(|p| p.message_expiry_interval),
            reply,
        };
        let trusted = self.broker.options.trust_clock || self.ports.clock.is_trusted();
        if let Some(said) = self.commands.asked(asked, Time { now: *now, trusted }) {
            self.answer(said, now);
        }
        self.next_command(now);
    }

    /// Somebody said under `status` how this box is.
    fn heard_of_us(&mut self, publish: &Publish, now: &Stamp) {
        let said: Option<Presence> = serde_json::from_slice(&publish.payload).ok();
        // What is retained is older than our word of this connection.
        if !publish.retain {
            // A will of an earlier connection, or somebody else's word.
            let is_online = |said: &Presence| said.state == PresenceState::Online;
            self.contradict |= !said.as_ref().is_some_and(is_online);
        }
        let Some(said) = said.filter(|said| said.instance != self.instance) else { return };
        // Of our own last instance there may be a late word, and one that comes again.
        let settled = self.first_connected.is_some_and(|first| now.since(&first) >= SETTLING);
        let came_back = self.first_connected.is_some_and(|first| first != self.connected_at);
        let live = settled && !publish.dup && said.state == PresenceState::Online;
        if (publish.retain && came_back) || (!publish.retain && live) {
            tracing::warn!(instance = said.instance, "another client speaks as this box");
            self.namesake.heard(&said.instance, said.sequence, now);
        }
    }

    pub(super) fn next_command(&mut self, now: &Stamp) {
        while let Some(next) = self.commands.next(now) {
            match next {
                Next::TooLate(said) => self.answer(said, now),
                Next::Note(noting) => {
                    let jobs = self.ports.jobs.clone();
                    self.work.spawn_blocking(move || Done::Noted(ledger::note(&jobs, noting)));
                }
            }
        }
    }

    pub(super) fn begin_command(&mut self, noted: Result<Noted, String>, now: &Stamp) {
        match self.commands.noted(noted) {
            Some(Begun::Do(order, said)) => {
                tracing::info!(operation = said.op, id = said.id, "asked over the network");
                self.answer(said, now);
                let executor = Arc::clone(&self.ports.executor);
                self.work.spawn_blocking(move || Done::Ran(carry_out(&*executor, order)));
            }
            Some(Begun::Not(said)) => {
                let (operation, id) = (&said.op, &said.id);
                tracing::warn!(operation, id, answer = ?said.answer, "asked, and not done");
                self.answer(said, now);
            }
            None => {}
        }
    }

    pub(super) fn answer(&mut self, said: Said, now: &Stamp) {
        let payload = json(&said.answer).to_string().into_bytes();
        let own = self.broker.topics.of_command(&said.op, &said.id);
        for topic in std::iter::once(own).chain(said.reply.topic) {
            let correlation = said.reply.correlation.clone();
            let message = Outbound { topic, payload: payload.clone(), retain: false, correlation };
            self.outbox.push_back((message.clone(), Name::Answer(Box::new(message))));
        }
        if !said.first_end || (said.kept.is_none() && !self.refusals.take(now)) {
            return;
        }
        let refused = match said.answer {
            CommandAnswer::Failed { reason, detail, .. } => {
                Some(format!("{}: {detail}", reason.word()))
            }
            _ => None,
        };
        let (operation, id) = (said.op.clone(), said.id.clone());
        let kept = said.kept.map(|answer| Ask::Commanded { operation, id, answer });
        let event = Event {
            id: EventId::new(),
            at: *now,
            session: self.ports.status.read().session,
            what: What::Commanded {
                operation: said.op,
                command: said.id,
                actor: Actor::Mqtt.to_string(),
                reason: said.why,
                refused,
            },
        };
        self.ledger.add(event, kept);
        self.hand_to_store();
    }

    pub(super) fn hand_to_store(&mut self) {
        let Some(job) = self.ledger.next() else { return };
        let jobs = self.ports.jobs.clone();
        self.work.spawn_blocking(move || {
            jobs.send(job);
            Done::Logged
        });
    }
}

/// Has an order carried out, and returns what came of it.
fn carry_out(executor: &dyn Executor, order: Order) -> Result<serde_json::Value, String> {
    let (reply, result) = sync_channel(1);
    let done = Box::new(move |result| {
        // Nobody waits any more where it took too long.
        reply.send(result).ok();
    });
    executor.submit(order, done).map_err(|not_taken| not_taken.to_string())?;
    result.recv_timeout(PATIENCE).unwrap_or_else(|error| match error {
        RecvTimeoutError::Disconnected => Err("the box is stopping".to_owned()),
        RecvTimeoutError::Timeout => {
            Err(format!("the box did not do it within {} s; look at its page", PATIENCE.as_secs()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;

    #[test]
    fn of_a_flood_of_refused_commands_sixty_a_minute_are_events() {
        let (clock, mut refusals) = (Clock::manual(0), Refusals::default());
        let mut events = 0;
        for _ in 0..6_000 {
            events += u32::from(refusals.take(&clock.now()));
            clock.advance(Duration::from_millis(20));
        }
        assert_eq!(events, 2 * REFUSALS);
    }
}
