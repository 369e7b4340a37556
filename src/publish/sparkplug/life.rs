//! Birth, data and death of an edge node: the numbers that hold them together, and what is news.
//! Pure: the caller says when, and hands the messages over.

use std::time::Duration;

use super::metrics::Reading;
use super::payload::{Datatype, Metric, Payload, Value};
use reticle_base::clock::Stamp;

/// Shortest time between two `NDATA`.
const PACE: Duration = Duration::from_secs(1);

/// Command of the host: say everything again.
const REBIRTH: &str = "Node Control/Rebirth";

const BD_SEQ: &str = "bdSeq";

/// The lives of this node since the daemon started. Each connection is one.
#[derive(Default)]
pub(super) struct Life {
    /// Number of the life in its birth and in its death. From 0 in every start of the daemon and
    /// one more with every CONNECT, as the specification has it, round and round after 255. An
    /// attempt counts, too: nobody knows whether the broker keeps its will.
    bd_seq: Option<u8>,
    born: Option<Born>,
}

struct Born {
    /// Number of the last message.
    seq: u8,
    /// What the host knows.
    said: Vec<Reading>,
    at: Stamp,
}

impl Life {
    /// A CONNECT is made: what goes into its will.
    pub(super) fn connects(&mut self, now: &Stamp) -> Payload {
        self.bd_seq = Some(self.bd_seq.map_or(0, |last| last.wrapping_add(1)));
        self.born = None;
        self.death(now)
    }

    /// The end of this life. It has no `seq`.
    pub(super) fn death(&self, now: &Stamp) -> Payload {
        Payload { timestamp: Some(milliseconds(now)), metrics: vec![self.number(now)], seq: None }
    }

    /// The host does not know this node, or not what it said last: a birth comes next.
    pub(super) fn forget(&mut self) {
        self.born = None;
    }

    /// What is to be said now, if anything; it counts as said.
    pub(super) fn due(&mut self, readings: Vec<Reading>, now: &Stamp) -> Option<Due> {
        let Some(born) = &mut self.born else {
            let birth = self.birth(&readings, now);
            self.born = Some(Born { seq: 0, said: readings, at: *now });
            return Some(Due::Birth(birth));
        };
        if now.since(&born.at) < PACE {
            return None;
        }
        let news: Vec<Metric> = readings
            .iter()
            .zip(&born.said)
            .filter(|(reading, said)| reading.value != said.value)
            // Name and type go together in the birth; the host remembers the type.
            .map(|(reading, _)| Metric { datatype: None, ..metric(reading, now) })
            .collect();
        if news.is_empty() {
            return None;
        }
        born.seq = born.seq.wrapping_add(1);
        born.said = readings;
        born.at = *now;
        Some(Due::Data(Payload {
            timestamp: Some(milliseconds(now)),
            metrics: news,
            seq: Some(born.seq.into()),
        }))
    }

    fn birth(&self, readings: &[Reading], now: &Stamp) -> Payload {
        let control = Metric {
            name: Some(REBIRTH.to_owned()),
            timestamp: Some(milliseconds(now)),
            datatype: Some(Datatype::Boolean as u32),
            is_null: None,
            value: Some(Value::Boolean(false)),
        };
        let state = readings.iter().map(|reading| metric(reading, now));
        Payload {
            timestamp: Some(milliseconds(now)),
            metrics: [self.number(now), control].into_iter().chain(state).collect(),
            seq: Some(0),
        }
    }

    fn number(&self, now: &Stamp) -> Metric {
        Metric {
            name: Some(BD_SEQ.to_owned()),
            timestamp: Some(milliseconds(now)),
            datatype: Some(Datatype::UInt64 as u32),
            is_null: None,
            value: Some(Value::Long(self.bd_seq.unwrap_or(0).into())),
        }
    }
}

/// A message that is due.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Due {
    Birth(Payload),
    Data(Payload),
}

/// Whether a command of the host asks for a birth.
pub(super) fn asks_for_rebirth(command: &Payload) -> bool {
    command.metrics.iter().any(|metric| {
        metric.name.as_deref() == Some(REBIRTH) && metric.value == Some(Value::Boolean(true))
    })
}

fn metric(reading: &Reading, now: &Stamp) -> Metric {
    Metric {
        name: Some(reading.name.clone()),
        timestamp: Some(reading.at_ms.unwrap_or_else(|| milliseconds(now))),
        datatype: Some(reading.datatype as u32),
        is_null: reading.value.is_none().then_some(true),
        value: reading.value.clone(),
    }
}

/// Since 1970; 0 for a clock that stands before it.
fn milliseconds(at: &Stamp) -> u64 {
    u64::try_from(at.wall_ns / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;

    fn readings(objects: Option<u64>) -> Vec<Reading> {
        let reading = |name: &str, value| Reading {
            name: name.to_owned(),
            datatype: Datatype::UInt64,
            value,
            at_ms: None,
        };
        vec![
            reading("Frame/Objects", objects.map(Value::Long)),
            reading("Frames/Captured", Some(Value::Long(1))),
        ]
    }

    fn bd_seq(payload: &Payload) -> Option<Value> {
        let metric = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some("bdSeq"));
        metric.unwrap().value.clone()
    }

    fn born(life: &mut Life, clock: &Clock) -> Payload {
        match life.due(readings(None), &clock.now()) {
            Some(Due::Birth(birth)) => birth,
            other => panic!("no birth: {other:?}"),
        }
    }

    #[test]
    fn death_and_birth_of_a_connection_have_one_number_which_grows_from_0_to_255_and_round() {
        let (clock, mut life) = (Clock::manual(0), Life::default());
        for connection in 0..600_u64 {
            let will = life.connects(&clock.now());
            assert_eq!(bd_seq(&will), Some(Value::Long(connection % 256)));
            assert_eq!((will.seq, will.metrics.len()), (None, 1), "bdSeq and nothing else");
            assert_eq!(bd_seq(&born(&mut life, &clock)), bd_seq(&will));
            assert_eq!(bd_seq(&life.death(&clock.now())), bd_seq(&will));
        }
    }

    #[test]
    fn seq_is_0_in_a_birth_and_grows_by_one_to_255_and_round() {
        let (clock, mut life) = (Clock::manual(0), Life::default());
        life.connects(&clock.now());
        assert_eq!(born(&mut life, &clock).seq, Some(0));
        for message in 1..600_u64 {
            clock.advance(PACE);
            match life.due(readings(Some(message)), &clock.now()) {
                Some(Due::Data(data)) => assert_eq!(data.seq, Some(message % 256)),
                other => panic!("no data: {other:?}"),
            }
        }
        life.forget();
        assert_eq!(born(&mut life, &clock).seq, Some(0), "a rebirth begins again");
    }

    #[test]
    fn a_rebirth_keeps_the_number_of_its_connection() {
        let (clock, mut life) = (Clock::manual(0), Life::default());
        life.connects(&clock.now());
        let will = life.connects(&clock.now());
        born(&mut life, &clock);
        life.forget();
        assert_eq!(bd_seq(&born(&mut life, &clock)), bd_seq(&will));
    }

    #[test]
    fn only_what_has_changed_is_said_and_at_most_once_a_second_with_its_last_value() {
        let (clock, mut life) = (Clock::manual(0), Life::default());
        life.connects(&clock.now());
        born(&mut life, &clock);
        clock.advance(PACE / 2);
        assert_eq!(life.due(readings(Some(1)), &clock.now()), None, "too soon");
        clock.advance(PACE / 2);
        let Some(Due::Data(data)) = life.due(readings(Some(2)), &clock.now()) else {
            panic!("no data");
        };
        let [metric] = data.metrics.as_slice() else { panic!("one metric: {data:?}") };
        assert_eq!(metric.name.as_deref(), Some("Frame/Objects"));
        assert_eq!((metric.value.clone(), metric.datatype), (Some(Value::Long(2)), None));
        clock.advance(PACE * 60);
        assert_eq!(life.due(readings(Some(2)), &clock.now()), None, "no news");
    }

    #[test]
    fn what_is_not_known_any_more_is_said_to_be_null() {
        let (clock, mut life) = (Clock::manual(0), Life::default());
        life.connects(&clock.now());
        let first = life.due(readings(Some(1)), &clock.now());
        assert!(matches!(first, Some(Due::Birth(_))));
        clock.advance(PACE);
        let Some(Due::Data(data)) = life.due(readings(None), &clock.now()) else {
            panic!("no data");
        };
        assert_eq!((data.metrics[0].is_null, data.metrics[0].value.clone()), (Some(true), None));
    }

    #[test]
    fn every_metric_of_a_birth_has_name_time_and_type() {
        let (clock, mut life) = (Clock::manual(1_500_000_000), Life::default());
        life.connects(&clock.now());
        let birth = born(&mut life, &clock);
        assert_eq!(birth.timestamp, Some(1500));
        for metric in &birth.metrics {
            assert!(metric.name.is_some() && metric.datatype.is_some(), "{metric:?}");
            assert_eq!(metric.timestamp, Some(1500), "{metric:?}");
        }
        let control = birth.metrics.iter().find(|metric| metric.name.as_deref() == Some(REBIRTH));
        assert_eq!(control.unwrap().value, Some(Value::Boolean(false)));
    }

    #[test]
    fn only_a_true_rebirth_is_a_command() {
        let command = |name: &str, value| Payload {
            metrics: vec![Metric {
                name: Some(name.to_owned()),
                value: Some(value),
                ..Metric::default()
            }],
            ..Payload::default()
        };
        assert!(asks_for_rebirth(&command(REBIRTH, Value::Boolean(true))));
        assert!(!asks_for_rebirth(&command(REBIRTH, Value::Boolean(false))));
        assert!(!asks_for_rebirth(&command("Node Control/Reboot", Value::Boolean(true))));
        assert!(!asks_for_rebirth(&Payload::default()));
    }
}
