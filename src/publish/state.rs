//! What is retained at the broker, and which of it is news.
//!
//! Everything under `health`, `twin/` and `a/` is a picture of the status board. A broker that
//! lost its memory has none of it, so after every connection all of it is said again
//! ([`Pictures::forget`]); in between only what has changed, and no topic more often than its
//! pace.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::payloads::{AlarmState, Said, TwinModel, TwinSave, TwinSession, TwinSource, TwinSync};
use super::topics::Topics;
use reticle_base::clock::Stamp;
use reticle_domain::alarm::AlarmKind;
use reticle_domain::status::Status;

/// Shortest time between two messages of a topic.
const TWIN_PACE: Duration = Duration::from_secs(1);
const HEALTH_PACE: Duration = Duration::from_secs(5);

/// Health is said at least so often, news or not: whoever watches it sees that it is alive.
const HEALTH_REST: Duration = Duration::from_secs(30);

/// Alarms are said at once; they are few and do not flutter.
const ALARM_PACE: Duration = Duration::ZERO;

/// What was said last, by topic.
#[derive(Default)]
pub(super) struct Pictures(HashMap<String, (Value, Stamp)>);

/// A message to be retained.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) topic: String,
    pub(super) body: Value,
}

impl Pictures {
    /// The broker may have nothing of it.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// What is to be said now; it counts as said.
    pub(super) fn due(&mut self, topics: &Topics, status: &Status, now: &Stamp) -> Vec<Picture> {
        let mut due = Vec::new();
        for (topic, body, pace, rest) in wanted(topics, status) {
            let is_due = match self.0.get(&topic) {
                None => true,
                Some((said, at)) => {
                    let since = now.since(at);
                    (*said != body && since >= pace) || rest.is_some_and(|rest| since >= rest)
                }
            };
            if !is_due {
                continue;
            }
            self.0.insert(topic.clone(), (body.clone(), *now));
            due.push(Picture { topic, body: dated(body, now) });
        }
        due
    }
}

type Wanted = (String, Value, Duration, Option<Duration>);

fn wanted(topics: &Topics, status: &Status) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::with_capacity(6 + AlarmKind::ALL.len());
    // Measured for the first time some seconds after the start.
    if !status.health.at.is_empty() {
        wanted.push((topics.health(), json(&status.health), HEALTH_PACE, Some(HEALTH_REST)));
    }
    let twins = [
        ("session", json(&TwinSession::of(status))),
        ("sync", json(&TwinSync::of(status))),
        ("source", json(&TwinSource::of(status))),
        ("model", json(&TwinModel { model: status.model.clone() })),
        ("save", json(&TwinSave::of(status))),
    ];
    for (part, body) in twins {
        wanted.push((topics.twin(part), body, TWIN_PACE, None));
    }
    for kind in AlarmKind::ALL {
        let body = json(&AlarmState::of(kind, &status.alarms));
        wanted.push((topics.alarm(kind), body, ALARM_PACE, None));
    }
    wanted
}

/// Says when, where the body does not: health has its own time of measurement.
fn dated(body: Value, now: &Stamp) -> Value {
    if body.get("at").is_some() {
        return body;
    }
    json(&Said { at: now.rfc3339(), body })
}

/// As JSON. Our payloads are plain structs with string keys, for which this cannot fail.
pub(super) fn json(payload: &impl Serialize) -> Value {
    serde_json::to_value(payload).expect("a payload is a plain struct with string keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;
    use reticle_domain::alarm::Alarm;
    use reticle_domain::facts::BoxName;
    use reticle_domain::status::RunState;

    fn topics() -> Topics {
        Topics::of(&BoxName { site: "lab".to_owned(), name: "box-1".to_owned() }).unwrap()
    }

    fn said(pictures: &mut Pictures, status: &Status, clock: &Clock) -> Vec<String> {
        let due = pictures.due(&topics(), status, &clock.now());
        due.into_iter().map(|picture| picture.topic.replace("reticle/v1/lab/box-1/", "")).collect()
    }

    #[test]
    fn all_is_said_after_every_connection_and_nothing_without_news() {
        let (clock, mut pictures, status) =
            (Clock::manual(0), Pictures::default(), Status::default());
        assert_eq!(said(&mut pictures, &status, &clock).len(), 5 + AlarmKind::ALL.len());
        clock.advance(Duration::from_secs(60));
        assert!(said(&mut pictures, &status, &clock).is_empty());
        pictures.forget();
        assert_eq!(said(&mut pictures, &status, &clock).len(), 5 + AlarmKind::ALL.len());
    }

    #[test]
    fn an_alarm_is_said_at_once_when_it_goes_on_and_when_it_goes_off() {
        let (clock, mut pictures) = (Clock::manual(0), Pictures::default());
        let mut status = Status::default();
        said(&mut pictures, &status, &clock);
        status.alarms.push(Alarm {
            kind: AlarmKind::SourceLost,
            since: "2026-01-01T00:00:00Z".to_owned(),
            reason: "unplugged".to_owned(),
        });
        let due = pictures.due(&topics(), &status, &clock.now());
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].body["state"], "raised");
        assert_eq!(due[0].body["runbook"], "docs/runbook.md#source_lost");
        assert_eq!(due[0].body["urgent"], true);
        status.alarms.clear();
        let due = pictures.due(&topics(), &status, &clock.now());
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].body["state"], "cleared");
    }

    #[test]
    fn a_twin_that_flutters_is_said_once_a_second_with_its_last_value() {
        let (clock, mut pictures) = (Clock::manual(0), Pictures::default());
        let mut status = Status::default();
        said(&mut pictures, &status, &clock);
        status.run = RunState::Running;
        clock.advance(Duration::from_millis(500));
        assert!(said(&mut pictures, &status, &clock).is_empty());
        clock.advance(Duration::from_millis(500));
        assert_eq!(said(&mut pictures, &status, &clock), ["twin/session"]);
    }

    #[test]
    fn health_is_said_every_5_s_with_news_and_every_30_s_without() {
        let (clock, mut pictures) = (Clock::manual(0), Pictures::default());
        let mut status = Status::default();
        status.health.at = "2026-01-01T00:00:00Z".to_owned();
        said(&mut pictures, &status, &clock);
        status.health.uptime_s = 4;
        clock.advance(Duration::from_secs(4));
        assert!(said(&mut pictures, &status, &clock).is_empty());
        clock.advance(Duration::from_secs(1));
        assert_eq!(said(&mut pictures, &status, &clock), ["health"]);
        clock.advance(Duration::from_secs(29));
        assert!(said(&mut pictures, &status, &clock).is_empty());
        clock.advance(Duration::from_secs(1));
        assert_eq!(said(&mut pictures, &status, &clock), ["health"]);
    }
}
