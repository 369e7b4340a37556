//! What is said under each topic. The AsyncAPI document is made from these types, so that it
//! cannot differ from what is sent. Times are RFC 3339 in UTC.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use reticle_domain::alarm::{Alarm, AlarmKind};
use reticle_domain::event::What;
use reticle_domain::facts::{ResultFacts, WellFacts};
use reticle_domain::status::{RunState, SaveState, SourceState, Status};
use reticle_store::StoredEvent;

/// Whether the box is there. Retained; its will says `offline`.
///
/// A broker may send the will of an earlier instance after the box is back. Who remembers `instance` and
/// `sequence` knows it: within one instance the greater sequence is the newer, a will has the sequence
/// of its connection, and the box says `online` again as soon as it hears such a will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Presence {
    pub(super) state: PresenceState,
    /// Boot of the machine.
    pub(super) boot_id: String,
    /// Start of the daemon.
    pub(super) instance: String,
    /// Grows with every such message of an instance.
    pub(super) sequence: u64,
    /// When it was said; for a will when the connection was made.
    pub(super) at: String,
    /// Version of the software.
    pub(super) version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PresenceState {
    /// Connected.
    Online,
    /// Was told to end.
    Stopped,
    /// Gone without a word.
    Offline,
}

/// A picture with when it was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Said<T> {
    /// When it was said.
    pub(super) at: String,
    #[serde(flatten)]
    pub(super) body: T,
}

/// An alarm, on or off. Retained, one topic a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct AlarmState {
    pub(super) alarm: AlarmKind,
    pub(super) state: AlarmWord,
    /// Since when it is on.
    pub(super) since: Option<String>,
    /// What was seen, while it is on.
    pub(super) reason: Option<String>,
    /// Whether data is at stake or a person is needed, rather than a look soon.
    pub(super) urgent: bool,
    /// What to do: file and section of the documentation.
    pub(super) runbook: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AlarmWord {
    Raised,
    Cleared,
}

impl AlarmState {
    /// Of one kind, from all that are on.
    pub(super) fn of(kind: AlarmKind, on: &[Alarm]) -> Self {
        let alarm = on.iter().find(|alarm| alarm.kind == kind);
        Self {
            alarm: kind,
            state: if alarm.is_some() { AlarmWord::Raised } else { AlarmWord::Cleared },
            since: alarm.map(|alarm| alarm.since.clone()),
            reason: alarm.map(|alarm| alarm.reason.clone()),
            urgent: kind.is_urgent(),
            runbook: format!("docs/runbook.md#{}", kind.word()),
        }
    }
}

/// The acquisition. Retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct TwinSession {
    /// `running`, `paused` or `stopped`.
    pub(super) run: String,
    /// The open session.
    pub(super) session: Option<String>,
    /// Its name.
    pub(super) name: Option<String>,
    /// Why frames are not taken, while there is no room for them.
    pub(super) recording_paused: Option<String>,
}

/// Where results go. Retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct TwinSync {
    pub(super) destinations: Vec<TwinDestination>,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct TwinDestination {
    /// `archive` or `central`.
    pub(super) destination: String,
    /// Where it is.
    pub(super) location: String,
    /// What it does not have yet.
    pub(super) waiting: u64,
    /// What it never took.
    pub(super) quarantined: u64,
    /// When the oldest that waits came.
    pub(super) oldest: Option<String>,
    /// Why the last attempt failed, while it does.
    pub(super) reason: Option<String>,
}

/// Camera or folder. Retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct TwinSource {
    /// Its specification, as `virtual`.
    pub(super) source: String,
    /// `opening`, `ready`, `lost` or `ended`.
    pub(super) state: String,
    /// What was seen, while it is lost.
    pub(super) reason: Option<String>,
    /// Since when, while it is lost.
    pub(super) since: Option<String>,
}

/// The model in use. Retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct TwinModel {
    pub(super) model: String,
}

/// Whether results reach the disk. Retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct TwinSave {
    /// `idle`, `saved` or `failing`.
    pub(super) state: String,
    /// What the store said, while it fails.
    pub(super) reason: Option<String>,
    /// Since when, while it fails.
    pub(super) since: Option<String>,
    /// Results that could not be saved since the daemon started.
    pub(super) not_saved: u64,
}

impl TwinSession {
    pub(super) fn of(status: &Status) -> Self {
        let run = match status.run {
            RunState::Stopped => "stopped",
            RunState::Running => "running",
            RunState::Paused => "paused",
        };
        Self {
            run: run.to_owned(),
            session: status.session.map(|session| session.to_string()),
            name: status.session_name.clone(),
            recording_paused: status.recording_paused.clone(),
        }
    }
}

impl TwinSync {
    /// Without the broker itself: what it is told would be news, without end.
    pub(super) fn of(status: &Status) -> Self {
        let others = status.sync.iter().filter(|sync| sync.destination != super::DESTINATION);
        let destinations = others.map(|sync| TwinDestination {
            destination: sync.destination.clone(),
            location: sync.location.clone(),
            waiting: sync.waiting,
            quarantined: sync.quarantined,
            oldest: sync.oldest.clone(),
            reason: sync.reason.clone(),
        });
        Self { destinations: destinations.collect() }
    }
}

impl TwinSource {
    pub(super) fn of(status: &Status) -> Self {
        let (state, reason, since) = match &status.source {
            SourceState::Opening => ("opening", None, None),
            SourceState::Ready => ("ready", None, None),
            SourceState::Lost { reason, since } => ("lost", Some(reason), Some(since)),
            SourceState::Ended => ("ended", None, None),
        };
        Self {
            source: status.source_name.clone(),
            state: state.to_owned(),
            reason: reason.cloned(),
            since: since.cloned(),
        }
    }
}

impl TwinSave {
    pub(super) fn of(status: &Status) -> Self {
        let (state, reason, since) = match &status.save {
            SaveState::Idle => ("idle", None, None),
            SaveState::Saved => ("saved", None, None),
            SaveState::Failing { reason, since } => ("failing", Some(reason), Some(since)),
        };
        Self {
            state: state.to_owned(),
            reason: reason.cloned(),
            since: since.cloned(),
            not_saved: status.counters.not_saved,
        }
    }
}

/// Something that happened. Told at least once; `id` tells who hears of it twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(super) struct EventMessage {
    pub(super) id: String,
    pub(super) at: String,
    pub(super) session: Option<String>,
    /// Whether it is told late: it happened in another boot, or more than 10 s ago.
    pub(super) historical: bool,
    #[serde(flatten)]
    pub(super) what: What,
}

impl EventMessage {
    pub(super) fn of(event: &StoredEvent, historical: bool) -> Self {
        Self {
            id: event.id.to_string(),
            at: event.at.rfc3339(),
            session: event.session.map(|session| session.to_string()),
            historical,
            what: event.what.clone(),
        }
    }
}

/// What one model found in one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(super) struct FrameMessage {
    /// Frame and model: a frame that a second model segments is another message.
    pub(super) id: String,
    /// When the frame was captured.
    pub(super) at: String,
    pub(super) session: String,
    /// Whether it is told late: it was captured in another boot, or more than 10 s ago.
    pub(super) historical: bool,
    pub(super) frame: String,
    /// Number that the source counted.
    pub(super) sequence: u64,
    pub(super) plate: Option<String>,
    /// As `C07`.
    pub(super) well: Option<String>,
    /// Field within the well, from 1.
    pub(super) field: Option<u32>,
    pub(super) exposure_us: Option<u32>,
    /// Number of objects.
    pub(super) objects: u32,
    /// Focus score, 0 to 1.
    pub(super) focus: Option<f32>,
    /// Name of the model.
    pub(super) model: String,
    /// SHA-256 of the model, in hex.
    pub(super) model_sha256: String,
    /// SHA-256 of the label image, in hex.
    pub(super) labels_sha256: String,
    /// Time that segmentation took, milliseconds.
    pub(super) segment_ms: f64,
    /// Who said how large objects are: `configured`, `stated`, `session`, `picture` or `model`.
    pub(super) scale_from: Option<String>,
    /// How many times as long an edge of the picture was made for the model.
    pub(super) scale: Option<f32>,
    /// How many times as large as stated the objects look, where it is more than 2 or less than 0.5.
    pub(super) size_ratio: Option<f32>,
    /// In which way the picture is unlike what the model was trained on, where it is: `dark-on-bright`,
    /// `stripes`, … More words may come.
    pub(super) unlike: Option<String>,
}

impl FrameMessage {
    pub(super) fn of(result: &ResultFacts, historical: bool) -> Self {
        let frame = &result.frame;
        let look = result.look.as_ref();
        Self {
            id: format!("{}:{}", frame.id, result.model.key()),
            at: frame.captured.rfc3339(),
            session: frame.session.to_string(),
            historical,
            frame: frame.id.to_string(),
            sequence: frame.sequence,
            plate: frame.place.plate.clone(),
            well: frame.place.well.clone(),
            field: frame.place.field,
            exposure_us: frame.exposure_us,
            objects: result.objects,
            focus: result.focus.is_finite().then_some(result.focus),
            model: result.model.model.name.clone(),
            model_sha256: result.model.model.sha256.clone(),
            labels_sha256: hex::encode(result.labels_sha256),
            #[expect(clippy::cast_precision_loss, reason = "below 2^53 µs")]
            segment_ms: result.timings.total_us() as f64 / 1000.0,
            scale_from: look.map(|look| look.scale_from.word().to_owned()),
            scale: look.map(|look| look.scale),
            size_ratio: look.and_then(|look| look.size_ratio),
            unlike: look.and_then(|look| look.unlike).map(|unlike| unlike.word().to_owned()),
        }
    }
}

/// One well, summed up over its frames. Newer messages of a well replace older ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(super) struct WellMessage {
    /// Session, model, plate, well, and the last result that is in the sums.
    pub(super) id: String,
    /// When the newest frame in the sums was captured.
    pub(super) at: String,
    pub(super) session: String,
    /// Whether it is told late: that frame is from another boot, or older than 10 s.
    pub(super) historical: bool,
    pub(super) plate: Option<String>,
    /// As `C07`.
    pub(super) well: String,
    /// Name of the model.
    pub(super) model: String,
    /// Fields with a result.
    pub(super) fields: u64,
    /// Frames with a result.
    pub(super) frames: u64,
    /// Objects in them.
    pub(super) objects: u64,
    pub(super) frames_in_focus: u64,
    /// Objects in frames in focus.
    pub(super) objects_in_focus: u64,
    /// Mean area of an object, pixels.
    pub(super) mean_area_px: Option<f64>,
    pub(super) mean_intensity: Option<f64>,
    /// Share of the area that objects cover, 0 to 1.
    pub(super) area_fraction: Option<f64>,
    /// Mean focus score, 0 to 1.
    pub(super) mean_focus: Option<f64>,
}

impl WellMessage {
    /// With the newest result that is in the sums.
    pub(super) fn of(well: &WellFacts, newest: &ResultFacts, historical: bool) -> Self {
        let session = well.session.to_string();
        let plate = well.plate.as_deref().unwrap_or_default();
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        Self {
            id: format!("{session}:{}:{plate}:{}:{}", well.model.key(), well.well, newest.pk),
            at: newest.frame.captured.rfc3339(),
            session,
            historical,
            plate: well.plate.clone(),
            well: well.well.clone(),
            model: well.model.model.name.clone(),
            fields: well.fields,
            frames: well.frames,
            objects: well.objects,
            frames_in_focus: well.frames_in_focus,
            objects_in_focus: well.objects_in_focus,
            mean_area_px: finite(well.mean_area_px),
            mean_intensity: finite(well.mean_intensity),
            area_fraction: finite(well.area_fraction),
            mean_focus: finite(well.mean_focus),
        }
    }
}

/// What the asker says under `cmd/<op>/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandRequest {
    /// Always `init`: all other states are the box's.
    pub(super) status: InitWord,
    /// Exposure, microseconds: for `set_exposure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) us: Option<u32>,
    /// When it is asked, RFC 3339: more than 60 s from the box's own time, it is not done.
    #[serde(default)]
    #[schemars(required)]
    pub(super) at: Option<String>,
    /// Why it is asked, for the record: a sentence or two, 500 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum InitWord {
    Init,
}

/// What the box answers, under the same topic and under the response topic where one was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(super) enum CommandAnswer {
    /// It is being done.
    Executing {},
    /// It is done.
    Successful {
        /// What came of it. Null where it is repeated and too long to be remembered.
        result: serde_json::Value,
        /// Whether it is the answer of an earlier time, and nothing was done now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        repeated: bool,
    },
    /// It was not done.
    Failed {
        /// Why, for machines.
        reason: FailedWord,
        /// Why, and what to do, for people.
        detail: String,
        /// Whether it is the answer of an earlier time, and nothing was done now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        repeated: bool,
    },
}

impl CommandAnswer {
    /// The same, said again.
    pub(super) fn repeated(mut self) -> Self {
        match &mut self {
            Self::Executing {} => {}
            Self::Successful { repeated, .. } | Self::Failed { repeated, .. } => *repeated = true,
        }
        self
    }
}

/// Why a command was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailedWord {
    /// There is no such operation.
    UnknownOperation,
    /// It is not in `mqtt.commands`.
    NotAllowed,
    /// Id or payload cannot be meant.
    BadRequest,
    /// When it was asked is not said.
    Undated,
    /// It was asked too long ago, or its message expiry is over.
    Stale,
    /// It was asked at a time that is not yet.
    Future,
    /// The box does not know what time it is.
    ClockUntrusted,
    /// Its response topic is none that the box answers to.
    ReplyNotAllowed,
    /// Too many wait.
    Busy,
    /// The box could not note its id.
    NotNoted,
    /// Its id was used, and what came of it is not known.
    DoneAlready,
    /// The box could not do it.
    Refused,
}

impl FailedWord {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::UnknownOperation => "unknown_operation",
            Self::NotAllowed => "not_allowed",
            Self::BadRequest => "bad_request",
            Self::Undated => "undated",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::ClockUntrusted => "clock_untrusted",
            Self::ReplyNotAllowed => "reply_not_allowed",
            Self::Busy => "busy",
            Self::NotNoted => "not_noted",
            Self::DoneAlready => "done_already",
            Self::Refused => "refused",
        }
    }
}
