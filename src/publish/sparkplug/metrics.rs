//! What an edge node tells of the box: the status board as one flat list of metrics.
//!
//! The list is the same at all times, because a metric that was not in the birth may not come
//! later. What is not known is null.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::payload::{Datatype, Value};
use crate::publish::DESTINATION;
use crate::publish::payloads::{TwinSave, TwinSession, TwinSource};
use reticle_domain::alarm::AlarmKind;
use reticle_domain::status::{Newest, Status};

/// One metric as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    pub(super) value: Option<Value>,
    /// When it was so, milliseconds since 1970, where that is not now.
    pub(super) at_ms: Option<u64>,
}

impl Reading {
    fn of(name: &str, datatype: Datatype, value: Option<Value>) -> Self {
        Self { name: name.to_owned(), datatype, value, at_ms: None }
    }
}

fn count(name: &str, value: impl Into<Option<u64>>) -> Reading {
    Reading::of(name, Datatype::UInt64, value.into().map(Value::Long))
}

fn text(name: &str, value: impl Into<Option<String>>) -> Reading {
    Reading::of(name, Datatype::String, value.into().map(Value::String))
}

fn flag(name: &str, value: impl Into<Option<bool>>) -> Reading {
    Reading::of(name, Datatype::Boolean, value.into().map(Value::Boolean))
}

fn measure(name: &str, value: impl Into<Option<f32>>) -> Reading {
    let value = value.into().filter(|value: &f32| value.is_finite());
    Reading::of(name, Datatype::Float, value.map(Value::Float))
}

/// All metrics of state, always the same in the same order.
pub(super) fn of(status: &Status) -> Vec<Reading> {
    let session = TwinSession::of(status);
    let source = TwinSource::of(status);
    let save = TwinSave::of(status);
    let counters = &status.counters;
    let others = || status.sync.iter().filter(|sync| sync.destination != DESTINATION);
    let mut readings = vec![
        text("Properties/Software Version", env!("CARGO_PKG_VERSION").to_owned()),
        text("Acquisition/State", session.run),
        text("Acquisition/Session", session.session),
        text("Acquisition/Name", session.name),
        text("Acquisition/Hold", session.recording_paused),
        text("Source/Name", source.source),
        text("Source/State", source.state),
        text("Source/Reason", source.reason),
        text("Model/Name", status.model.clone()),
        text("Saving/State", save.state),
        text("Saving/Reason", save.reason),
        count("Frames/Captured", counters.captured),
        count("Frames/Missed", counters.missed),
        count("Frames/Kept", counters.kept),
        count("Frames/Segmented", counters.segmented),
        count("Frames/Skipped", counters.skipped),
        count("Frames/Unrecorded", counters.unrecorded),
        count("Frames/Evicted", counters.evicted),
        count("Frames/Saved", counters.saved),
        count("Frames/Not Saved", counters.not_saved),
        count("Frames/Refused", counters.refused),
        count("Source/Gaps", counters.gaps),
        count("Delivery/Waiting", others().map(|sync| sync.waiting).sum::<u64>()),
        count("Delivery/Quarantined", others().map(|sync| sync.quarantined).sum::<u64>()),
    ];
    readings.extend(of_the_newest(status.newest.as_ref()));
    readings.extend(of_the_box(status));
    readings.extend(AlarmKind::ALL.into_iter().map(|kind| {
        let on = status.alarms.iter().any(|alarm| alarm.kind == kind);
        flag(&format!("Alarms/{}", kind.word()), on)
    }));
    readings
}

/// The newest segmented frame, dated with its capture.
fn of_the_newest(newest: Option<&Newest>) -> Vec<Reading> {
    let place = newest.map(|newest| &newest.place);
    let mut readings = vec![
        text("Frame/Id", newest.map(|newest| newest.frame.to_string())),
        count("Frame/Sequence", newest.map(|newest| newest.sequence)),
        text("Frame/Plate", place.and_then(|place| place.plate.clone())),
        text("Frame/Well", place.and_then(|place| place.well.clone())),
        count("Frame/Field", place.and_then(|place| place.field).map(u64::from)),
        count("Frame/Objects", newest.map(|newest| newest.objects.into())),
        measure("Frame/Focus", newest.map(|newest| newest.focus)),
    ];
    let at_ms = newest.and_then(|newest| milliseconds(&newest.captured));
    for reading in &mut readings {
        reading.at_ms = at_ms;
    }
    readings
}

/// Disk, memory, processor, clock; null before they were measured for the first time.
fn of_the_box(status: &Status) -> Vec<Reading> {
    let health = Some(&status.health).filter(|health| !health.at.is_empty());
    vec![
        count("Storage/Total Bytes", health.map(|health| health.storage_total_bytes)),
        count("Storage/Free Bytes", health.map(|health| health.storage_free_bytes)),
        count("Memory/Total Bytes", health.map(|health| health.memory_total_bytes)),
        count("Memory/Available Bytes", health.map(|health| health.memory_available_bytes)),
        count("Memory/Resident Bytes", health.map(|health| health.resident_bytes)),
        measure("Processor/Load Percent", health.map(|health| health.cpu_percent)),
        measure("Processor/Temperature C", health.and_then(|health| health.temperature_c)),
        flag("Processor/Throttled", health.and_then(|health| health.throttled)),
        flag("Clock/Trusted", health.map(|health| health.clock_trusted)),
    ]
}

fn milliseconds(rfc3339: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(rfc3339, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use reticle_base::ids::FrameId;
    use reticle_domain::alarm::Alarm;
    use reticle_domain::frame::Place;
    use reticle_domain::status::SyncState;

    fn value(status: &Status, name: &str) -> Option<Value> {
        of(status).into_iter().find(|reading| reading.name == name).unwrap().value
    }

    fn busy() -> Status {
        let newest = Newest {
            frame: FrameId::new(),
            sequence: 7,
            captured: "1970-01-01T00:00:02.5Z".to_owned(),
            place: Place { well: Some("C07".to_owned()), field: Some(3), ..Place::default() },
            objects: 277,
            focus: f32::NAN,
            ap50: None,
            true_objects: None,
        };
        let mut status = Status { newest: Some(newest), ..Status::default() };
        status.health.at = "1970-01-01T00:00:00Z".to_owned();
        status.health.storage_free_bytes = 5;
        status.alarms.push(Alarm {
            kind: AlarmKind::DiskLow,
            since: "1970-01-01T00:00:00Z".to_owned(),
            reason: "full".to_owned(),
        });
        let waits = |destination: &str| SyncState {
            destination: destination.to_owned(),
            location: "somewhere".to_owned(),
            waiting: 4,
            quarantined: 1,
            oldest: None,
            reason: None,
            conflict: None,
        };
        status.sync = vec![waits("archive"), waits("central"), waits(DESTINATION)];
        status
    }

    #[test]
    fn a_box_that_has_just_started_has_the_same_metrics_as_a_busy_one() {
        let shape = |status: &Status| -> Vec<(String, u32)> {
            of(status).into_iter().map(|r| (r.name, r.datatype as u32)).collect()
        };
        assert_eq!(shape(&Status::default()), shape(&busy()));
        let names: BTreeSet<String> = shape(&busy()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), of(&busy()).len(), "each name stands for one metric");
    }

    #[test]
    fn every_value_is_of_its_datatype() {
        for reading in of(&busy()) {
            let fits = matches!(
                (&reading.value, reading.datatype),
                (None, _)
                    | (Some(Value::Long(_)), Datatype::UInt64)
                    | (Some(Value::Float(_)), Datatype::Float)
                    | (Some(Value::Boolean(_)), Datatype::Boolean)
                    | (Some(Value::String(_)), Datatype::String)
            );
            assert!(fits, "{reading:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_null_and_not_zero() {
        let (idle, busy) = (Status::default(), busy());
        for name in ["Frame/Objects", "Storage/Free Bytes", "Acquisition/Session"] {
            assert_eq!(value(&idle, name), None, "{name}");
        }
        assert_eq!(value(&busy, "Frame/Objects"), Some(Value::Long(277)));
        assert_eq!(value(&busy, "Frame/Focus"), None, "no number");
        assert_eq!(value(&busy, "Storage/Free Bytes"), Some(Value::Long(5)));
        assert_eq!(value(&busy, "Processor/Temperature C"), None, "no sensor");
    }

    #[test]
    fn each_alarm_is_a_boolean_by_its_word() {
        for kind in AlarmKind::ALL {
            let name = format!("Alarms/{}", kind.word());
            assert_eq!(value(&Status::default(), &name), Some(Value::Boolean(false)));
            let on = kind == AlarmKind::DiskLow;
            assert_eq!(value(&busy(), &name), Some(Value::Boolean(on)), "{name}");
        }
    }

    #[test]
    fn what_waits_for_the_others_is_summed_up_without_the_broker() {
        assert_eq!(value(&busy(), "Delivery/Waiting"), Some(Value::Long(8)));
        assert_eq!(value(&busy(), "Delivery/Quarantined"), Some(Value::Long(2)));
    }

    #[test]
    fn a_frame_is_dated_with_its_capture() {
        let objects = of(&busy()).into_iter().find(|r| r.name == "Frame/Objects").unwrap();
        assert_eq!(objects.at_ms, Some(2500));
    }
}
