//! The names at `/metrics`, with their units and meanings. They stay once they are released: rules and
//! dashboards of labs name them.

use metrics::Unit;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows until the daemon starts again.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

/// One name at `/metrics`.
#[derive(Debug)]
pub struct Family {
    /// Its name, which ends in the unit.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// In what it is measured.
    pub unit: Unit,
    /// What it says, with its unit.
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, unit: Unit::Count, help }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, unit, help }
}

const fn seconds(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, unit: Unit::Seconds, help }
}

pub(super) const INFERENCE_S: &str = "reticle_inference_seconds";
pub(super) const PART_S: &str = "reticle_stage_seconds";
pub(super) const SAVED_S: &str = "reticle_capture_to_saved_seconds";
pub(super) const OBJECTS: &str = "reticle_objects_total";
pub(super) const REFUSED_CLIENTS: &str = "reticle_http_refused_total";
pub(super) const CONNECTIONS: &str = "reticle_http_connections";

/// All that there is at `/metrics`.
pub const FAMILIES: &[Family] = &[
    counter("reticle_frames_captured_total", "Frames that the source gave."),
    counter("reticle_frames_missed_total", "Frames that the source lost before we saw them."),
    counter("reticle_frames_kept_total", "Frames whose pixels were kept as files."),
    counter(
        "reticle_frames_skipped_total",
        "Frames that a stage passed over for a newer one; they are kept.",
    ),
    counter("reticle_frames_segmented_total", "Frames that were segmented."),
    counter(
        "reticle_frames_refused_total",
        "Images and frames that were refused as broken or unfit.",
    ),
    counter("reticle_frames_saved_total", "Frames whose result is committed and fsynced."),
    counter("reticle_frames_not_saved_total", "Frames whose result could not be saved."),
    counter(
        "reticle_frames_not_kept_total",
        "Frames whose pixels could not be written; their results may be saved all the same.",
    ),
    counter(
        "reticle_frames_unrecorded_total",
        "Frames that were shown and not recorded, because there was no room.",
    ),
    counter(
        "reticle_frames_evicted_total",
        "Files of frames that were deleted to make room, by the written rule.",
    ),
    counter(OBJECTS, "Objects that were found in segmented frames."),
    counter("reticle_source_gaps_total", "Times that the source was lost and came back."),
    counter(
        "reticle_mqtt_name_taken_total",
        "Times that another client had taken the box's name at the message broker.",
    ),
    seconds(INFERENCE_S, "Time to segment one frame, all parts together, in seconds."),
    seconds(PART_S, "Time of one part of segmenting a frame, in seconds."),
    seconds(SAVED_S, "From the capture of a frame to its committed result, in seconds."),
    gauge(
        "reticle_focus",
        Unit::Count,
        "Focus score of the newest segmented frame, 0 (blurred) to 1 (sharp).",
    ),
    gauge("reticle_running", Unit::Count, "1 while a session runs, 0 while paused or stopped."),
    gauge("reticle_source_up", Unit::Count, "1 while the source gives frames, else 0."),
    gauge("reticle_alarm", Unit::Count, "1 while the alarm is on, else 0."),
    gauge(
        "reticle_outbox_items",
        Unit::Count,
        "Frames and results that a destination does not have yet.",
    ),
    gauge(
        "reticle_outbox_oldest_seconds",
        Unit::Seconds,
        "Age of the oldest that waits for a destination, in seconds; 0 when nothing waits.",
    ),
    gauge(
        "reticle_outbox_refused",
        Unit::Count,
        "Deliveries, frames and results that a destination refused for ever.",
    ),
    gauge(
        "reticle_storage_free_bytes",
        Unit::Bytes,
        "What is free for us on the file system of the store, in bytes.",
    ),
    gauge(
        "reticle_storage_total_bytes",
        Unit::Bytes,
        "Size of the file system of the store, in bytes.",
    ),
    gauge("reticle_resident_memory_bytes", Unit::Bytes, "Resident memory of the daemon, in bytes."),
    gauge(
        "reticle_memory_available_bytes",
        Unit::Bytes,
        "Memory of the box that can still be had, in bytes.",
    ),
    gauge("reticle_memory_total_bytes", Unit::Bytes, "Memory of the box, in bytes."),
    gauge(
        "reticle_cpu_cores",
        Unit::Count,
        "CPU time of the daemon since the last measurement, in cores (1 is one core in full).",
    ),
    gauge(
        "reticle_temperature_celsius",
        Unit::Count,
        "Hottest sensor of the processor, in degrees Celsius; NaN on a machine that does not tell.",
    ),
    gauge(
        "reticle_clock_trusted",
        Unit::Count,
        "1 while somebody keeps the clock in step with a reference, else 0.",
    ),
    gauge(
        "reticle_stage_busy_seconds",
        Unit::Seconds,
        "How long a stage is at the same piece of work, in seconds; 0 while it waits for some.",
    ),
    counter(
        "reticle_thread_deaths_total",
        "Times that a thread of the daemon died; each is a fault in Reticle.",
    ),
    gauge("reticle_uptime_seconds", Unit::Seconds, "Time since the daemon started, in seconds."),
    counter(REFUSED_CLIENTS, "Requests and connections that were refused or cut off, by reason."),
    gauge(CONNECTIONS, Unit::Count, "Connections to the page and the API that are open."),
    gauge("reticle_viewers", Unit::Count, "Live views that are open."),
    gauge("reticle_build_info", Unit::Count, "Always 1; the label says the version."),
];
