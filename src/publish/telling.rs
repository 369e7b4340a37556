//! Telling a stream of the store, each message until the broker has acknowledged it.
//!
//! A stream is read in batches. The mark in the store moves to the end of the acknowledged part
//! of a batch, in order; the next batch is read only when the mark is written. So whatever is
//! lost (the connection, the broker's memory, this process), what was not acknowledged is read
//! again: everything is told at least once, and its id tells who hears of it twice.

use std::collections::VecDeque;
use std::time::Duration;

use super::payloads::{EventMessage, FrameMessage, WellMessage};
use super::state::json;
use super::topics::Topics;
use reticle_base::clock::Stamp;
use reticle_domain::facts::{Dated, ResultFacts, WellFacts};
use reticle_store::StoredEvent;

/// What is told later than this is historical.
const LATE: Duration = Duration::from_secs(10);

/// How long to wait after the broker refused a message, at first and at most.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(300);

/// A message that is not retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// What must all be acknowledged before the mark may move to `upto`.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) upto: i64,
    pub(super) messages: VecDeque<Message>,
    flying: usize,
}

impl Unit {
    pub(super) fn new(upto: i64, messages: impl IntoIterator<Item = Message>) -> Self {
        Self { upto, messages: messages.into_iter().collect(), flying: 0 }
    }
}

/// What to do next about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read what was not told yet.
    Read,
    /// Move the mark.
    Mark(i64),
}

/// One stream on its way.
#[derive(Default)]
pub(super) struct Telling {
    units: VecDeque<Unit>,
    /// Acknowledged up to here; not yet marked.
    told: Option<i64>,
    /// A step is being made.
    busy: bool,
    /// Which reading the units are of: what was sent of an earlier one no longer counts.
    round: u64,
    /// Refused, and how long to rest.
    rest: Option<(Stamp, Duration)>,
}

impl Telling {
    /// What to do about the store now, where nothing is being done.
    pub(super) fn step(&mut self, now: &Stamp) -> Option<Step> {
        if self.busy || self.rests(now) {
            return None;
        }
        if let Some(upto) = self.told {
            self.busy = true;
            return Some(Step::Mark(upto));
        }
        if self.units.is_empty() {
            self.busy = true;
            return Some(Step::Read);
        }
        None
    }

    fn rests(&self, now: &Stamp) -> bool {
        self.rest.is_some_and(|(since, rest)| now.since(&since) < rest)
    }

    /// What was read; for a step that failed, nothing.
    pub(super) fn read(&mut self, units: Vec<Unit>) {
        self.busy = false;
        self.round += 1;
        self.units = units.into();
        self.settle();
    }

    /// The mark was written, or not: then it is written again.
    pub(super) fn marked(&mut self, upto: Option<i64>) {
        self.busy = false;
        if upto.is_some() && self.told == upto {
            self.told = None;
        }
    }

    /// The next message to send, and what to give back with its acknowledgement.
    pub(super) fn next(&mut self, now: &Stamp) -> Option<(Ticket, Message)> {
        if self.rests(now) {
            return None;
        }
        let unit = self.units.iter_mut().find(|unit| !unit.messages.is_empty())?;
        let message = unit.messages.pop_front()?;
        unit.flying += 1;
        Some((Ticket { round: self.round, upto: unit.upto }, message))
    }

    /// The broker has it.
    pub(super) fn acknowledged(&mut self, ticket: Ticket) {
        if ticket.round != self.round {
            return;
        }
        if let Some(unit) = self.units.iter_mut().find(|unit| unit.upto == ticket.upto) {
            unit.flying = unit.flying.saturating_sub(1);
            self.rest = None;
        }
        self.settle();
    }

    /// The broker does not want it: nothing after it may be marked. All of it is read again
    /// after a rest, each time a longer one.
    pub(super) fn refused(&mut self, ticket: Ticket, now: &Stamp) {
        if ticket.round != self.round {
            return;
        }
        self.lost();
        let rest = self.rest.map_or(FIRST_REST, |(_, rest)| (rest * 2).min(LONGEST_REST));
        self.rest = Some((*now, rest));
    }

    /// The connection is gone, and with it what was on its way.
    pub(super) fn lost(&mut self) {
        self.units.clear();
        self.round += 1;
    }

    fn settle(&mut self) {
        while let Some(unit) = self.units.front()
            && unit.flying == 0
            && unit.messages.is_empty()
        {
            self.told = Some(unit.upto);
            self.units.pop_front();
        }
    }
}

/// Names a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    round: u64,
    upto: i64,
}

/// Whether it is late to tell of that instant.
pub(super) fn is_historical(at: &Dated, now: &Stamp) -> bool {
    at.boot != now.boot_id || Duration::from_nanos(now.mono_ns.saturating_sub(at.mono_ns)) > LATE
}

/// Events as messages.
pub(super) fn tell_events(topics: &Topics, events: &[StoredEvent], now: &Stamp) -> Vec<Unit> {
    let tell = |event: &StoredEvent| {
        let message = EventMessage::of(event, is_historical(&event.at, now));
        let topic = topics.event(event.what.word());
        Unit::new(event.pk, [Message { topic, payload: bytes(&message) }])
    };
    events.iter().map(tell).collect()
}

/// Results as messages, and behind them the wells whose sums they change.
pub(super) fn tell_results(
    topics: &Topics,
    results: &[ResultFacts],
    with_frames: bool,
    wells: &[WellFacts],
    now: &Stamp,
) -> Vec<Unit> {
    let tell = |result: &ResultFacts| {
        let message = with_frames.then(|| Message {
            topic: topics.measurement("frame"),
            payload: bytes(&FrameMessage::of(result, is_historical(&result.frame.captured, now))),
        });
        Unit::new(result.pk, message)
    };
    let mut units: Vec<Unit> = results.iter().map(tell).collect();
    let Some(last) = units.last_mut() else { return units };
    for well in wells {
        let of_it = |result: &&ResultFacts| {
            result.frame.session == well.session
                && result.frame.place.well.as_ref() == Some(&well.well)
                && result.model.pk == well.model.pk
        };
        let Some(newest) = results.iter().rev().find(of_it).or(results.last()) else { continue };
        let historical = is_historical(&newest.frame.captured, now);
        last.messages.push_back(Message {
            topic: topics.measurement("well"),
            payload: bytes(&WellMessage::of(well, newest, historical)),
        });
    }
    units
}

fn bytes(payload: &impl serde::Serialize) -> Vec<u8> {
    json(payload).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;
    use reticle_base::ids::EventId;
    use reticle_domain::event::What;
    use reticle_domain::facts::BoxName;

    fn unit(upto: i64, messages: usize) -> Unit {
        let message = |n| Message { topic: format!("t/{upto}/{n}"), payload: Vec::new() };
        Unit::new(upto, (0..messages).map(message))
    }

    fn reading(units: Vec<Unit>) -> (Telling, Clock) {
        let (mut telling, clock) = (Telling::default(), Clock::manual(0));
        assert_eq!(telling.step(&clock.now()), Some(Step::Read));
        assert_eq!(telling.step(&clock.now()), None, "one step at a time");
        telling.read(units);
        (telling, clock)
    }

    #[test]
    fn the_mark_moves_over_acknowledged_ones_only_and_in_order() {
        let (mut telling, clock) = reading(vec![unit(4, 1), unit(7, 2)]);
        let now = clock.now();
        let tickets: Vec<Ticket> =
            std::iter::from_fn(|| telling.next(&now)).map(|(ticket, _)| ticket).collect();
        assert_eq!(tickets.len(), 3);
        telling.acknowledged(tickets[1]);
        telling.acknowledged(tickets[2]);
        assert_eq!(telling.step(&now), None, "the first one is still on its way");
        telling.acknowledged(tickets[0]);
        assert_eq!(telling.step(&now), Some(Step::Mark(7)));
        telling.marked(Some(7));
        assert_eq!(telling.step(&now), Some(Step::Read));
    }

    #[test]
    fn what_has_nothing_to_say_is_marked_all_the_same() {
        let (mut telling, clock) = reading(vec![unit(1, 0), unit(2, 0)]);
        assert_eq!(telling.step(&clock.now()), Some(Step::Mark(2)));
    }

    #[test]
    fn a_mark_that_was_not_written_is_written_again() {
        let (mut telling, clock) = reading(vec![unit(1, 0)]);
        assert_eq!(telling.step(&clock.now()), Some(Step::Mark(1)));
        telling.marked(None);
        assert_eq!(telling.step(&clock.now()), Some(Step::Mark(1)));
    }

    #[test]
    fn a_lost_connection_lets_everything_unacknowledged_be_read_again() {
        let (mut telling, clock) = reading(vec![unit(1, 1), unit(2, 1)]);
        let now = clock.now();
        let (first, _) = telling.next(&now).unwrap();
        let (second, _) = telling.next(&now).unwrap();
        telling.acknowledged(first);
        telling.lost();
        telling.acknowledged(second);
        assert_eq!(telling.step(&now), Some(Step::Mark(1)));
        telling.marked(Some(1));
        assert_eq!(telling.step(&now), Some(Step::Read));
    }

    #[test]
    fn after_a_refusal_the_stream_rests_and_starts_again_behind_the_last_mark() {
        let (mut telling, clock) = reading(vec![unit(1, 1), unit(2, 1)]);
        let (first, _) = telling.next(&clock.now()).unwrap();
        telling.refused(first, &clock.now());
        assert_eq!(telling.step(&clock.now()), None);
        assert!(telling.next(&clock.now()).is_none());
        clock.advance(FIRST_REST);
        assert_eq!(telling.step(&clock.now()), Some(Step::Read), "nothing is marked");
        telling.read(vec![unit(1, 1)]);
        let (again, _) = telling.next(&clock.now()).unwrap();
        telling.refused(again, &clock.now());
        clock.advance(FIRST_REST);
        assert_eq!(telling.step(&clock.now()), None, "a longer rest than before");
        clock.advance(FIRST_REST);
        assert_eq!(telling.step(&clock.now()), Some(Step::Read));
    }

    #[test]
    fn what_is_told_late_or_in_another_boot_is_historical() {
        let clock = Clock::manual(0);
        let then = clock.now();
        let mut at = Dated { at_ns: 0, recorded_ns: 0, mono_ns: then.mono_ns, boot: then.boot_id };
        clock.advance(LATE);
        assert!(!is_historical(&at, &clock.now()));
        clock.advance(Duration::from_millis(1));
        assert!(is_historical(&at, &clock.now()));
        at.mono_ns = clock.now().mono_ns;
        at.boot = uuid::Uuid::nil();
        assert!(is_historical(&at, &clock.now()));
    }

    #[test]
    fn an_event_is_told_under_its_word_with_its_id() {
        let topics = Topics::of(&BoxName { site: "lab".into(), name: "b".into() }).unwrap();
        let now = Clock::manual(0).now();
        let id = EventId::new();
        let event = StoredEvent {
            pk: 3,
            id,
            at: Dated { at_ns: 0, recorded_ns: 0, mono_ns: 0, boot: now.boot_id },
            session: None,
            what: What::Paused { paused: true },
        };
        let units = tell_events(&topics, &[event], &now);
        assert_eq!(units[0].upto, 3);
        let message = &units[0].messages[0];
        assert_eq!(message.topic, "reticle/v1/lab/b/e/paused");
        let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(body["id"], id.to_string());
        assert_eq!(body["type"], "paused");
        assert_eq!(body["paused"], true);
        assert_eq!(body["historical"], false);
    }
}
