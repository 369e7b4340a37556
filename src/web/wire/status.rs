//! The status of the box, in JSON: `/api/v1/status` answers with it, and the live channel sends it
//! four times a second. Times are RFC 3339 in UTC.

use serde::Serialize;
use utoipa::ToSchema;

use super::words;
use reticle_domain::{alarm, frame, health, status};

/// The text message of the live channel: what `/api/v1/status` answers, with `capture_to_screen`
/// for this client alone.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct StatusMessage {
    /// `status`.
    r#type: &'static str,
    #[serde(flatten)]
    reply: StatusReply,
}

impl From<StatusReply> for StatusMessage {
    fn from(reply: StatusReply) -> Self {
        Self { r#type: "status", reply }
    }
}

/// Everything a status line needs, with its age.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct StatusReply {
    /// The box's time when it answered.
    pub(in crate::web) now: String,
    /// Version of the software.
    pub(in crate::web) version: &'static str,
    /// Milliseconds since the newest segmented frame was captured.
    #[schema(required)]
    pub(in crate::web) newest_age_ms: Option<f64>,
    /// Capture to screen: here over all live views, in the live channel over that one.
    #[schema(required)]
    pub(in crate::web) capture_to_screen: Option<ScreenTime>,
    /// Live views that are open.
    pub(in crate::web) viewers: usize,
    #[serde(flatten)]
    pub(in crate::web) status: Status,
}

/// Percentiles over the last frames that were seen on a screen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(in crate::web) struct ScreenTime {
    /// Half of the frames were on the screen within this time, in milliseconds.
    pub(in crate::web) p50_ms: f32,
    /// 95 of 100 were.
    pub(in crate::web) p95_ms: f32,
    /// Number of frames this was taken from, 200 at most.
    pub(in crate::web) frames: usize,
}

/// What the appliance is doing.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Status {
    /// Whether frames are being taken.
    run: RunState,
    /// State of the source.
    source: SourceState,
    /// The source's specification.
    source_name: String,
    /// Model in use.
    model: String,
    /// The open session.
    #[schema(required, value_type = Option<words::SessionId>)]
    session: Option<String>,
    /// Its name.
    #[schema(required)]
    session_name: Option<String>,
    /// Frames a second that were captured, over the last seconds.
    capture_fps: f32,
    /// Frames a second that were segmented, over the last seconds.
    segment_fps: f32,
    /// Capture to committed, p50 and p95 of the last frames, in milliseconds.
    #[schema(required)]
    save_ms: Option<[f32; 2]>,
    /// The newest segmented frame.
    #[schema(required)]
    newest: Option<Newest>,
    /// Whether results reach the disk.
    save: SaveState,
    /// Why the pixels of frames cannot be written at the moment.
    #[schema(required)]
    frame_files_failing: Option<String>,
    /// Why frames are shown and not recorded at the moment, while there is no room for them. They
    /// are recorded again without anybody's help.
    #[schema(required)]
    recording_paused: Option<String>,
    /// How far each destination is.
    sync: Vec<SyncState>,
    /// The last frame whose result is committed.
    #[schema(required, value_type = Option<words::FrameId>)]
    last_saved: Option<String>,
    /// Counters.
    counters: Counters,
    /// The last image or frame that was refused: what, why, what to do.
    #[schema(required)]
    last_refusal: Option<String>,
    /// Resident memory of the daemon, bytes.
    resident_bytes: u64,
    /// What needs a look or a hand now.
    alarms: Vec<Alarm>,
    /// What the box itself is like.
    health: Health,
}

impl From<status::Status> for Status {
    fn from(status: status::Status) -> Self {
        Self {
            run: status.run.into(),
            source: status.source.into(),
            source_name: status.source_name,
            model: status.model,
            session: status.session.map(|id| id.to_string()),
            session_name: status.session_name,
            capture_fps: status.capture_fps,
            segment_fps: status.segment_fps,
            save_ms: status.save_ms,
            newest: status.newest.map(Newest::from),
            save: status.save.into(),
            frame_files_failing: status.frame_files_failing,
            recording_paused: status.recording_paused,
            sync: status.sync.into_iter().map(SyncState::from).collect(),
            last_saved: status.last_saved.map(|id| id.to_string()),
            counters: status.counters.into(),
            last_refusal: status.last_refusal,
            resident_bytes: status.resident_bytes,
            alarms: status.alarms.into_iter().map(Alarm::from).collect(),
            health: status.health.into(),
        }
    }
}

/// Whether frames are being taken.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::web) enum RunState {
    /// No session yet, or it was stopped.
    Stopped,
    /// Frames are taken.
    Running,
    /// A person holds capture.
    Paused,
}

impl From<status::RunState> for RunState {
    fn from(run: status::RunState) -> Self {
        match run {
            status::RunState::Stopped => Self::Stopped,
            status::RunState::Running => Self::Running,
            status::RunState::Paused => Self::Paused,
        }
    }
}

/// State of the source.
#[derive(Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(in crate::web) enum SourceState {
    /// Being opened for the first time.
    Opening,
    /// Gives frames.
    Ready,
    /// Lost; it is being opened again and again.
    Lost {
        /// What was seen, for a person.
        reason: String,
        /// Since when.
        since: String,
    },
    /// It came to its end (a folder replayed once).
    Ended,
}

impl From<status::SourceState> for SourceState {
    fn from(source: status::SourceState) -> Self {
        match source {
            status::SourceState::Opening => Self::Opening,
            status::SourceState::Ready => Self::Ready,
            status::SourceState::Lost { reason, since } => Self::Lost { reason, since },
            status::SourceState::Ended => Self::Ended,
        }
    }
}

/// Whether results reach the disk.
#[derive(Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(in crate::web) enum SaveState {
    /// Nothing had to be saved yet.
    Idle,
    /// The last result was committed.
    Saved,
    /// Saving fails; the counter `not_saved` has what was not saved.
    Failing {
        /// What the store said, for a person.
        reason: String,
        /// Since when.
        since: String,
    },
}

impl From<status::SaveState> for SaveState {
    fn from(save: status::SaveState) -> Self {
        match save {
            status::SaveState::Idle => Self::Idle,
            status::SaveState::Saved => Self::Saved,
            status::SaveState::Failing { reason, since } => Self::Failing { reason, since },
        }
    }
}

/// The newest segmented frame, in one glance.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Newest {
    /// Which frame.
    #[schema(value_type = words::FrameId)]
    frame: String,
    /// Its sequence number.
    sequence: u64,
    /// When it was captured.
    captured: String,
    /// Where on the plate.
    place: Place,
    /// Number of objects found.
    objects: u32,
    /// Focus score, 0 to 1.
    focus: f32,
    /// AP at IoU 0.5 against the truth, where the source knows it.
    #[schema(required)]
    ap50: Option<f64>,
    /// Objects in the truth, where the source knows it.
    #[schema(required)]
    true_objects: Option<u32>,
}

impl From<status::Newest> for Newest {
    fn from(newest: status::Newest) -> Self {
        Self {
            frame: newest.frame.to_string(),
            sequence: newest.sequence,
            captured: newest.captured,
            place: newest.place.into(),
            objects: newest.objects,
            focus: newest.focus,
            ap50: newest.ap50,
            true_objects: newest.true_objects,
        }
    }
}

/// Where on the plate a frame was taken. What a source does not know is null.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Place {
    /// Name of the plate or slide.
    #[schema(required)]
    plate: Option<String>,
    /// Well, as `C07`.
    #[schema(required)]
    well: Option<String>,
    /// Field within the well, from 1.
    #[schema(required)]
    field: Option<u32>,
}

impl From<frame::Place> for Place {
    fn from(place: frame::Place) -> Self {
        let frame::Place { plate, well, field } = place;
        Self { plate, well, field }
    }
}

/// How far one destination is.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct SyncState {
    /// Which.
    #[schema(value_type = words::Destination)]
    destination: String,
    /// Where it is, as `s3://lab/box-1`.
    location: String,
    /// Frames and results that it does not have yet.
    waiting: u64,
    /// Deliveries, and single frames and results, that it never took.
    quarantined: u64,
    /// When the oldest that waits came.
    #[schema(required)]
    oldest: Option<String>,
    /// Why the last attempt failed, while it does, or why nothing is delivered there.
    #[schema(required)]
    reason: Option<String>,
    /// What was found there that this box does not know; nothing is delivered there then, until a
    /// person has decided.
    #[schema(required)]
    conflict: Option<String>,
}

impl From<status::SyncState> for SyncState {
    fn from(sync: status::SyncState) -> Self {
        Self {
            destination: sync.destination,
            location: sync.location,
            waiting: sync.waiting,
            quarantined: sync.quarantined,
            oldest: sync.oldest,
            reason: sync.reason,
            conflict: sync.conflict,
        }
    }
}

/// Counters since the daemon started. They only grow.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Counters {
    /// Frames the source gave.
    captured: u64,
    /// Frames the source lost before we saw them (gaps in its sequence).
    missed: u64,
    /// Frames whose pixels are kept as files.
    kept: u64,
    /// Frames segmented.
    segmented: u64,
    /// Frames the live path passed over for a newer one (kept, not segmented).
    skipped: u64,
    /// Frames that were shown and not recorded, because there was no room.
    unrecorded: u64,
    /// Frame files deleted to make room, by the written rule.
    evicted: u64,
    /// Results committed.
    saved: u64,
    /// Results that could not be saved.
    not_saved: u64,
    /// Frames whose pixels could not be written. Their results are saved or counted in `not_saved`.
    not_kept: u64,
    /// Images and frames refused as broken or unfit.
    refused: u64,
    /// Times the source was lost and came back.
    gaps: u64,
    /// Times another client had taken this box's name at the broker.
    name_taken: u64,
}

impl From<status::Counters> for Counters {
    fn from(counters: status::Counters) -> Self {
        Self {
            captured: counters.captured,
            missed: counters.missed,
            kept: counters.kept,
            segmented: counters.segmented,
            skipped: counters.skipped,
            unrecorded: counters.unrecorded,
            evicted: counters.evicted,
            saved: counters.saved,
            not_saved: counters.not_saved,
            not_kept: counters.not_kept,
            refused: counters.refused,
            gaps: counters.gaps,
            name_taken: counters.name_taken,
        }
    }
}

/// An alarm that is on.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Alarm {
    /// What is wrong.
    #[schema(value_type = words::AlarmKind)]
    kind: &'static str,
    /// Since when.
    since: String,
    /// What was seen, for a person.
    reason: String,
}

impl From<alarm::Alarm> for Alarm {
    fn from(alarm: alarm::Alarm) -> Self {
        Self { kind: alarm.kind.word(), since: alarm.since, reason: alarm.reason }
    }
}

/// What the box itself is like. Measured a few times a minute. What this machine does not tell is
/// null.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct Health {
    /// When it was measured; empty before the first time.
    at: String,
    /// Seconds since the daemon started.
    uptime_s: u64,
    /// CPU time of the daemon, in percent of one core, since the last measurement.
    cpu_percent: f32,
    /// Resident memory of the daemon, bytes.
    resident_bytes: u64,
    /// Memory of the box, bytes.
    memory_total_bytes: u64,
    /// What of it can still be had, bytes.
    memory_available_bytes: u64,
    /// Size of the file system of the store, bytes.
    storage_total_bytes: u64,
    /// What of it is free for us, bytes.
    storage_free_bytes: u64,
    /// Hottest sensor of the processor, °C.
    #[schema(required)]
    temperature_c: Option<f32>,
    /// Temperature at which that sensor's processor slows down or stops, °C.
    #[schema(required)]
    temperature_limit_c: Option<f32>,
    /// Whether the processor is slowed down now, because of heat or weak power.
    #[schema(required)]
    throttled: Option<bool>,
    /// Whether somebody keeps the clock in step with a reference.
    clock_trusted: bool,
    /// The stages of the daemon.
    stages: Vec<StageHealth>,
    /// Its threads.
    threads: Vec<ThreadHealth>,
}

impl From<health::Health> for Health {
    fn from(health: health::Health) -> Self {
        Self {
            at: health.at,
            uptime_s: health.uptime_s,
            cpu_percent: health.cpu_percent,
            resident_bytes: health.resident_bytes,
            memory_total_bytes: health.memory_total_bytes,
            memory_available_bytes: health.memory_available_bytes,
            storage_total_bytes: health.storage_total_bytes,
            storage_free_bytes: health.storage_free_bytes,
            temperature_c: health.temperature_c,
            temperature_limit_c: health.temperature_limit_c,
            throttled: health.throttled,
            clock_trusted: health.clock_trusted,
            stages: health.stages.into_iter().map(StageHealth::from).collect(),
            threads: health.threads.into_iter().map(ThreadHealth::from).collect(),
        }
    }
}

/// One stage of the daemon.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct StageHealth {
    /// `capture`, `segment` or `store-writer`.
    name: String,
    /// Seconds that it has been at the same piece of work; null while it waits for some.
    #[schema(required)]
    busy_s: Option<f32>,
    /// Whether that is longer than it may be.
    stuck: bool,
}

impl From<health::StageHealth> for StageHealth {
    fn from(stage: health::StageHealth) -> Self {
        Self { name: stage.name, busy_s: stage.busy_s, stuck: stage.stuck }
    }
}

/// One thread of the daemon.
#[derive(Serialize, ToSchema)]
pub(in crate::web) struct ThreadHealth {
    /// As `store-writer`.
    name: String,
    /// What happens when it dies.
    #[schema(value_type = words::ThreadPolicy)]
    policy: String,
    /// What it does now.
    #[schema(value_type = words::ThreadState)]
    state: String,
    /// How often it died since the daemon started.
    deaths: u64,
    /// When it died last.
    #[schema(required)]
    died: Option<String>,
    /// What it said then.
    #[schema(required)]
    reason: Option<String>,
    /// Whether it is dead, or died within the last minutes.
    lately: bool,
}

impl From<health::ThreadHealth> for ThreadHealth {
    fn from(thread: health::ThreadHealth) -> Self {
        Self {
            name: thread.name,
            policy: thread.policy,
            state: thread.state,
            deaths: thread.deaths,
            died: thread.died,
            reason: thread.reason,
            lately: thread.lately,
        }
    }
}
