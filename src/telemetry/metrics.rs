//! Numbers for whoever watches over the box: Prometheus' text format, at `/metrics`.
//!
//! Owns: the names, units and meanings in [`FAMILIES`], and how a status becomes their values.
//! `docs/monitoring/` has the same names for people, with alert rules and a dashboard.
//!
//! Promises:
//! 1. Every family of [`FAMILIES`] is there from the first scrape on (those of the outbox as soon as
//!    the destinations are known), so that a query never has to tell "not yet" from "no such thing".
//! 2. A value that is not known, or not measured yet, is NaN and never zero: no alert compares
//!    true with it.
//! 3. Memory is bounded whether somebody scrapes or not, as long as [`Metrics::upkeep`] is called
//!    now and then.
//!
//! What the status has is copied from it at each scrape ([`scrape`]). Times are recorded where
//! they end, because a percentile cannot be made from a sum. No recorder is installed for the
//! whole process: each [`Metrics`] stands alone, so that tests can have many.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use reticle_base::clock::Stamp;
use reticle_base::thread::Thread;
use reticle_domain::alarm::AlarmKind;
use reticle_domain::segmentation::Timings;
use reticle_domain::status::{RunState, SourceState, Status};

mod families;

use families::{CONNECTIONS, INFERENCE_S, OBJECTS, PART_S, REFUSED_CLIENTS, SAVED_S};
pub use families::{FAMILIES, Family, Kind};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of all histograms, in seconds. From a small frame on a fast machine (some
/// milliseconds) to a large one behind a slow disk; closest where the base model works on a
/// frame of 1024² (tenths of a second).
const BUCKETS_S: [f64; 20] = [
    0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0,
    3.0, 5.0, 10.0, 30.0,
];

/// Parts of a segmentation, as [`Timings`] has them.
const PARTS: [&str; 4] = ["normalise", "network", "instances", "measure"];

/// Stages of the daemon, as `StageHealth` names them.
const STAGES: [&str; 3] = ["capture", "segment", "store-writer"];

const ABOUT: Metadata<'static> = Metadata::new("reticle", Level::INFO, None);

/// Why a client of the page was refused or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Under a name, or from a page, that may not call this box.
    Foreign,
    /// A header that is none, or is too large.
    Header,
    /// A body that is too large, broken or late.
    Body,
    /// A header or the taking of an answer that took too long.
    Slow,
    /// It waited, and somebody else needed its place.
    Displaced,
    /// All places were taken.
    Crowded,
    /// More commands than are taken.
    Often,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Foreign,
        Self::Header,
        Self::Body,
        Self::Slow,
        Self::Displaced,
        Self::Crowded,
        Self::Often,
    ];

    /// The word for it at `/metrics`.
    const fn word(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Header => "header",
            Self::Body => "body",
            Self::Slow => "slow",
            Self::Displaced => "displaced",
            Self::Crowded => "crowded",
            Self::Often => "often",
        }
    }
}

/// The metrics of one daemon. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    inference: Histogram,
    parts: [Histogram; PARTS.len()],
    saved: Histogram,
    objects: Counter,
    refused_clients: [Counter; Refusal::ALL.len()],
    connections: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All names, without a value yet.
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&BUCKETS_S)
            .expect("it refuses only an empty list of buckets")
            .build_recorder();
        for family in FAMILIES {
            let (name, unit) = (KeyName::from_const_str(family.name), Some(family.unit));
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, unit, family.help.into()),
                Kind::Gauge => recorder.describe_gauge(name, unit, family.help.into()),
                Kind::Histogram => recorder.describe_histogram(name, unit, family.help.into()),
            }
        }
        let histogram = |name| recorder.register_histogram(&Key::from_static_name(name), &ABOUT);
        let part = |part| {
            let key = Key::from_parts(PART_S, vec![Label::from_static_parts("stage", part)]);
            recorder.register_histogram(&key, &ABOUT)
        };
        Self(Arc::new(Inner {
            inference: histogram(INFERENCE_S),
            parts: PARTS.map(part),
            saved: histogram(SAVED_S),
            refused_clients: Refusal::ALL.map(|why| {
                let label = Label::from_static_parts("reason", why.word());
                let key = Key::from_parts(REFUSED_CLIENTS, vec![label]);
                recorder.register_counter(&key, &ABOUT)
            }),
            connections: recorder.register_gauge(&Key::from_static_name(CONNECTIONS), &ABOUT),
            objects: recorder.register_counter(&Key::from_static_name(OBJECTS), &ABOUT),
            handle: recorder.handle(),
            recorder,
        }))
    }

    /// A frame was segmented, and this many objects were found.
    pub fn segmented(&self, timings: &Timings, objects: u32) {
        let Timings { normalise_us, network_us, instances_us, measure_us } = *timings;
        self.0.inference.record(Duration::from_micros(timings.total_us()));
        let parts = [normalise_us, network_us, instances_us, measure_us];
        for (part, took_us) in self.0.parts.iter().zip(parts) {
            part.record(Duration::from_micros(took_us));
        }
        self.0.objects.increment(u64::from(objects));
    }

    /// A result was committed, so long after its frame was captured.
    pub fn saved(&self, after_capture: Duration) {
        self.0.saved.record(after_capture);
    }

    /// A client of the page was refused or cut off.
    pub fn refused_client(&self, why: Refusal) {
        self.0.refused_clients[why as usize].increment(1);
    }

    /// So many connections are open.
    pub fn connections(&self, open: usize) {
        self.0.connections.set(open as f64);
    }

    /// Counts what was recorded into its buckets. Until then each value is kept by itself, so
    /// this is called every few seconds at least, also while nobody scrapes.
    pub fn upkeep(&self) {
        self.0.handle.run_upkeep();
    }

    /// Everything in Prometheus' text format, as [`CONTENT_TYPE`] says.
    pub fn render(&self, status: &Status, viewers: usize, now: &Stamp) -> String {
        for Reading { name, label, value } in scrape(status, viewers, now) {
            let label = label.map(|(key, value)| Label::new(key, value));
            let key = Key::from_parts(name, label.into_iter().collect::<Vec<_>>());
            match value {
                Value::Count(count) => {
                    self.0.recorder.register_counter(&key, &ABOUT).absolute(count);
                }
                Value::Level(level) => self.0.recorder.register_gauge(&key, &ABOUT).set(level),
            }
        }
        self.0.handle.render()
    }
}

/// One value of one metric.
#[derive(Debug, PartialEq)]
struct Reading {
    name: &'static str,
    label: Option<(&'static str, String)>,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a gauge; NaN where it is not known.
    Level(f64),
}

fn count(name: &'static str, value: u64) -> Reading {
    Reading { name, label: None, value: Value::Count(value) }
}

fn level(name: &'static str, value: f64) -> Reading {
    Reading { name, label: None, value: Value::Level(value) }
}

impl Reading {
    fn of(mut self, key: &'static str, value: &str) -> Self {
        self.label = Some((key, value.to_owned()));
        self
    }
}

fn yes(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// What the status says, as values of our metrics. `viewers` live views are open.
fn scrape(status: &Status, viewers: usize, now: &Stamp) -> Vec<Reading> {
    let mut readings = Vec::with_capacity(64);
    counted(status, &mut readings);
    lab(status, viewers, &mut readings);
    delivered(status, now, &mut readings);
    health(status, &mut readings);
    let version = env!("CARGO_PKG_VERSION");
    readings.push(level("reticle_build_info", 1.0).of("version", version));
    readings
}

fn counted(status: &Status, readings: &mut Vec<Reading>) {
    let counters = &status.counters;
    readings.extend([
        count("reticle_frames_captured_total", counters.captured),
        count("reticle_frames_missed_total", counters.missed),
        count("reticle_frames_kept_total", counters.kept),
        count("reticle_frames_skipped_total", counters.skipped).of("stage", "segment"),
        count("reticle_frames_segmented_total", counters.segmented),
        count("reticle_frames_refused_total", counters.refused),
        count("reticle_frames_saved_total", counters.saved),
        count("reticle_frames_not_saved_total", counters.not_saved),
        count("reticle_frames_not_kept_total", counters.not_kept),
        count("reticle_frames_unrecorded_total", counters.unrecorded),
        count("reticle_frames_evicted_total", counters.evicted),
        count("reticle_source_gaps_total", counters.gaps),
        count("reticle_mqtt_name_taken_total", counters.name_taken),
    ]);
}

/// The work in hand, and what is wrong with it.
fn lab(status: &Status, viewers: usize, readings: &mut Vec<Reading>) {
    let focus = status.newest.as_ref().map_or(f64::NAN, |newest| f64::from(newest.focus));
    readings.extend([
        level("reticle_focus", focus),
        level("reticle_running", yes(status.run == RunState::Running)),
        level("reticle_source_up", yes(status.source == SourceState::Ready)),
        level("reticle_viewers", viewers as f64),
    ]);
    readings.extend(AlarmKind::ALL.map(|kind| {
        let on = status.alarms.iter().any(|alarm| alarm.kind == kind);
        level("reticle_alarm", yes(on)).of("alarm", kind.word())
    }));
}

fn delivered(status: &Status, now: &Stamp, readings: &mut Vec<Reading>) {
    for sync in &status.sync {
        let oldest_s = sync.oldest.as_deref().map_or(0.0, |since| age_s(since, now));
        readings.extend(
            [
                level("reticle_outbox_items", sync.waiting as f64),
                level("reticle_outbox_oldest_seconds", oldest_s),
                level("reticle_outbox_refused", sync.quarantined as f64),
            ]
            .map(|reading| reading.of("destination", &sync.destination)),
        );
    }
}

/// Seconds since an RFC 3339 time; never negative, though the clock may have been set back since.
fn age_s(since: &str, now: &Stamp) -> f64 {
    OffsetDateTime::parse(since, &Rfc3339).map_or(f64::NAN, |since| {
        let age_ns = i128::from(now.wall_ns) - since.unix_timestamp_nanos();
        age_ns.max(0) as f64 / 1e9
    })
}

fn health(status: &Status, readings: &mut Vec<Reading>) {
    let health = &status.health;
    let measured = |value: f64| if health.at.is_empty() { f64::NAN } else { value };
    readings.extend([
        level("reticle_storage_free_bytes", measured(health.storage_free_bytes as f64)),
        level("reticle_storage_total_bytes", measured(health.storage_total_bytes as f64)),
        level("reticle_resident_memory_bytes", status.resident_bytes as f64),
        level("reticle_memory_available_bytes", measured(health.memory_available_bytes as f64)),
        level("reticle_memory_total_bytes", measured(health.memory_total_bytes as f64)),
        level("reticle_cpu_cores", measured(f64::from(health.cpu_percent) / 100.0)),
        level("reticle_temperature_celsius", health.temperature_c.map_or(f64::NAN, f64::from)),
        level("reticle_clock_trusted", measured(yes(health.clock_trusted))),
        level("reticle_uptime_seconds", measured(health.uptime_s as f64)),
    ]);
    readings.extend(STAGES.map(|name| {
        let stage = health.stages.iter().find(|stage| stage.name == name);
        let busy_s = stage.map_or(f64::NAN, |stage| f64::from(stage.busy_s.unwrap_or(0.0)));
        level("reticle_stage_busy_seconds", busy_s).of("stage", name)
    }));
    readings.extend(Thread::ALL.map(|thread| {
        let thread = thread.name();
        let health = health.threads.iter().find(|health| health.name == thread);
        count("reticle_thread_deaths_total", health.map_or(0, |health| health.deaths))
            .of("thread", thread)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;
    use reticle_domain::alarm::Alarm;
    use reticle_domain::health::{Health, StageHealth};
    use reticle_domain::status::{Counters, SyncState};

    fn now() -> Stamp {
        Clock::manual(1_700_000_000_000_000_000).now()
    }

    fn line<'a>(text: &'a str, series: &str) -> Option<&'a str> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
    }

    fn outbox(oldest: Option<&str>) -> Status {
        let archive = SyncState {
            destination: "archive".into(),
            location: "s3://lab/box-1".into(),
            waiting: 7,
            quarantined: 2,
            oldest: oldest.map(ToOwned::to_owned),
            reason: None,
            conflict: None,
        };
        Status { sync: vec![archive], ..Status::default() }
    }

    #[test]
    fn every_family_is_there_before_anything_happened_and_what_is_not_known_is_nan() {
        let text = Metrics::new().render(&outbox(None), 0, &now());
        for family in FAMILIES {
            let is_there = text.contains(&format!("# HELP {} {}\n", family.name, family.help))
                && text.contains(&format!("# TYPE {} ", family.name));
            assert!(is_there, "{}", family.name);
        }
        for kind in AlarmKind::ALL {
            let series = format!("reticle_alarm{{alarm=\"{}\"}}", kind.word());
            assert_eq!(line(&text, &series), Some("0"));
        }
        assert_eq!(line(&text, "reticle_storage_free_bytes"), Some("NaN"));
        assert_eq!(line(&text, "reticle_focus"), Some("NaN"));
        assert_eq!(line(&text, "reticle_temperature_celsius"), Some("NaN"));
    }

    #[test]
    fn nothing_is_told_that_has_no_family() {
        let metrics = Metrics::new();
        metrics.segmented(&Timings::default(), 1);
        let text = metrics.render(&outbox(None), 0, &now());
        for named in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = named.split(' ').next().unwrap();
            assert!(FAMILIES.iter().any(|family| family.name == name), "{name}");
        }
    }

    #[test]
    fn what_the_status_says_is_what_is_scraped() {
        let metrics = Metrics::new();
        let mut status = outbox(Some("2023-11-14T22:12:20Z"));
        status.counters = Counters { captured: 40, skipped: 10, ..Counters::default() };
        status.alarms = vec![Alarm {
            kind: AlarmKind::NoRoom,
            since: "2023-11-14T22:13:00Z".into(),
            reason: "the disk is full".into(),
        }];
        status.health = Health {
            at: "2023-11-14T22:13:19Z".into(),
            storage_free_bytes: 5_000_000_000,
            temperature_c: Some(61.5),
            stages: vec![StageHealth { name: "segment".into(), busy_s: Some(0.5), stuck: false }],
            ..Health::default()
        };
        let text = metrics.render(&status, 3, &now());
        for (series, value) in [
            ("reticle_frames_captured_total", "40"),
            ("reticle_frames_skipped_total{stage=\"segment\"}", "10"),
            ("reticle_alarm{alarm=\"no_room\"}", "1"),
            ("reticle_alarm{alarm=\"disk_low\"}", "0"),
            ("reticle_outbox_items{destination=\"archive\"}", "7"),
            ("reticle_outbox_refused{destination=\"archive\"}", "2"),
            ("reticle_outbox_oldest_seconds{destination=\"archive\"}", "60"),
            ("reticle_storage_free_bytes", "5000000000"),
            ("reticle_temperature_celsius", "61.5"),
            ("reticle_stage_busy_seconds{stage=\"segment\"}", "0.5"),
            ("reticle_stage_busy_seconds{stage=\"capture\"}", "NaN"),
            ("reticle_viewers", "3"),
        ] {
            assert_eq!(line(&text, series), Some(value), "{series} in\n{text}");
        }

        status.counters.captured = 41;
        status.alarms.clear();
        status.health.temperature_c = None;
        let text = metrics.render(&status, 0, &now());
        assert_eq!(line(&text, "reticle_frames_captured_total"), Some("41"));
        assert_eq!(line(&text, "reticle_alarm{alarm=\"no_room\"}"), Some("0"));
        assert_eq!(line(&text, "reticle_temperature_celsius"), Some("NaN"), "not an old one");
    }

    #[test]
    fn what_waits_is_never_younger_than_now() {
        assert_eq!(age_s("2023-11-14T22:13:19.5Z", &now()), 0.5);
        assert_eq!(age_s("2023-11-14T23:13:20+01:00", &now()), 0.0);
        assert_eq!(age_s("2031-01-01T00:00:00Z", &now()), 0.0, "the clock was set back");
        assert!(age_s("yesterday", &now()).is_nan());
    }

    #[test]
    fn times_are_counted_into_buckets_and_summed_in_seconds() {
        let metrics = Metrics::new();
        let timings = Timings {
            normalise_us: 10_000,
            network_us: 200_000,
            instances_us: 30_000,
            measure_us: 10_000,
        };
        metrics.segmented(&timings, 12);
        metrics.upkeep();
        metrics.segmented(&timings, 8);
        metrics.saved(Duration::from_millis(400));
        let text = metrics.render(&Status::default(), 0, &now());
        for (series, value) in [
            ("reticle_inference_seconds_bucket{le=\"0.2\"}", "0"),
            ("reticle_inference_seconds_bucket{le=\"0.3\"}", "2"),
            ("reticle_inference_seconds_sum", "0.5"),
            ("reticle_stage_seconds_count{stage=\"network\"}", "2"),
            ("reticle_stage_seconds_sum{stage=\"network\"}", "0.4"),
            ("reticle_capture_to_saved_seconds_bucket{le=\"0.5\"}", "1"),
            ("reticle_capture_to_saved_seconds_count", "1"),
            ("reticle_objects_total", "20"),
        ] {
            assert_eq!(line(&text, series), Some(value), "{series} in\n{text}");
        }
    }

    #[test]
    fn two_daemons_in_one_process_do_not_mix() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.segmented(&Timings::default(), 5);
        let text = other.render(&Status::default(), 0, &now());
        assert_eq!(line(&text, "reticle_objects_total"), Some("0"));
    }
}
