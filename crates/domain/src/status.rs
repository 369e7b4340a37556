//! What the appliance is doing, as the page, the API and the logs tell it.

use std::sync::{Arc, Mutex, PoisonError};

use super::alarm::Alarm;
use super::frame::Place;
use super::health::Health;
use reticle_base::ids::{FrameId, SessionId};

/// Whether frames are being taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// No session yet, or it was stopped.
    #[default]
    Stopped,
    /// Frames are taken.
    Running,
    /// A person holds capture.
    Paused,
}

/// State of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SourceState {
    /// Being opened for the first time.
    #[default]
    Opening,
    /// Gives frames.
    Ready,
    /// Lost; it is being opened again and again.
    Lost {
        /// What was seen, for a person.
        reason: String,
        /// RFC 3339 UTC.
        since: String,
    },
    /// It came to its end (a folder replayed once).
    Ended,
}

/// Whether results reach the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SaveState {
    /// Nothing had to be saved yet.
    #[default]
    Idle,
    /// The last result was committed.
    Saved,
    /// Saving fails; what was not saved is counted in [`Counters::not_saved`].
    Failing {
        /// What the store said, for a person.
        reason: String,
        /// RFC 3339 UTC.
        since: String,
    },
}

/// How far one destination is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SyncState {
    /// `archive`, `central` or `broker`.
    pub destination: String,
    /// Where it is, as `s3://lab/box-1`.
    pub location: String,
    /// Frames and results that it does not have yet.
    pub waiting: u64,
    /// Deliveries, and single frames and results, that it never took.
    pub quarantined: u64,
    /// When the oldest that waits came, RFC 3339 UTC.
    pub oldest: Option<String>,
    /// Why the last attempt failed, while it does, or why nothing is delivered there.
    pub reason: Option<String>,
    /// What was found there that this box does not know; nothing is delivered there then, until a
    /// person has decided.
    #[serde(default)]
    pub conflict: Option<String>,
}

/// Counters since the daemon started. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Frames the source gave.
    pub captured: u64,
    /// Frames the source lost before we saw them (gaps in its sequence).
    pub missed: u64,
    /// Frames whose pixels are kept as files.
    pub kept: u64,
    /// Frames segmented.
    pub segmented: u64,
    /// Frames the live path passed over for a newer one (kept, not segmented).
    pub skipped: u64,
    /// Frames that were shown and not recorded, because there was no room.
    pub unrecorded: u64,
    /// Frame files deleted to make room, by the written rule.
    pub evicted: u64,
    /// Results committed.
    pub saved: u64,
    /// Results that could not be saved.
    pub not_saved: u64,
    /// Frames whose pixels could not be written. Their results are saved or counted in
    /// [`Counters::not_saved`].
    #[serde(default)]
    pub not_kept: u64,
    /// Images and frames refused as broken or unfit.
    pub refused: u64,
    /// Times the source was lost and came back.
    pub gaps: u64,
    /// Times another client had taken this box's name at the broker.
    #[serde(default)]
    pub name_taken: u64,
}

/// The newest segmented frame, in one glance.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Newest {
    /// Which frame.
    pub frame: FrameId,
    /// Its sequence number.
    pub sequence: u64,
    /// When it was captured, RFC 3339 UTC.
    pub captured: String,
    /// Where.
    pub place: Place,
    /// Objects found.
    pub objects: u32,
    /// Focus score, 0 to 1.
    pub focus: f32,
    /// AP at IoU 0.5 against the truth, where the source knows it.
    pub ap50: Option<f64>,
    /// Objects in the truth, where the source knows it.
    pub true_objects: Option<u32>,
}

/// Everything a status line needs. One writer (`app`), many readers.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Whether frames are being taken.
    pub run: RunState,
    /// State of the source.
    pub source: SourceState,
    /// The source's specification.
    pub source_name: String,
    /// Model in use.
    pub model: String,
    /// The open session.
    pub session: Option<SessionId>,
    /// Its name.
    pub session_name: Option<String>,
    /// Frames a second that were captured, over the last seconds.
    pub capture_fps: f32,
    /// Frames a second that were segmented, over the last seconds.
    pub segment_fps: f32,
    /// Capture to committed, p50 and p95 of the last frames, in milliseconds.
    pub save_ms: Option<[f32; 2]>,
    /// The newest segmented frame.
    pub newest: Option<Newest>,
    /// Whether results reach the disk.
    pub save: SaveState,
    /// Why the pixels of frames cannot be written at the moment.
    #[serde(default)]
    pub frame_files_failing: Option<String>,
    /// Why frames are not taken at the moment, while there is no room for them. They are taken
    /// again by themselves.
    pub recording_paused: Option<String>,
    /// How far each destination is.
    pub sync: Vec<SyncState>,
    /// The last frame whose result is committed.
    pub last_saved: Option<FrameId>,
    /// Counters.
    pub counters: Counters,
    /// The last image or frame that was refused: what, why, what to do.
    pub last_refusal: Option<String>,
    /// Resident memory of the daemon, bytes.
    pub resident_bytes: u64,
    /// What needs a look or a hand now.
    pub alarms: Vec<Alarm>,
    /// What the box itself is like.
    pub health: Health,
}

/// The daemon's status: one writer (`app`), many readers. Cheap to clone.
#[derive(Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Status>>);

impl StatusBoard {
    /// A board with the default status.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the status; readers see all of the change or none of it.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The status as it is now.
    pub fn read(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
