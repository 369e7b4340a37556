//! What happened, for those who were not there: an entry of the box's logbook, kept in the store
//! and told to the lab once, by its id.

use reticle_base::clock::Stamp;
use reticle_base::ids::{EventId, SessionId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Name for ever; who hears of it twice knows it again.
    pub id: EventId,
    /// When.
    pub at: Stamp,
    /// In which session, where it was in one.
    pub session: Option<SessionId>,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The daemon started.
    Started {
        /// Version of the software.
        version: String,
        /// Whether it was not stopped in order before.
        after_crash: bool,
    },
    /// The daemon was asked to stop.
    Stopping {},
    /// An acquisition began.
    SessionOpened {
        /// What people call it.
        name: String,
    },
    /// An acquisition ended.
    SessionClosed {
        /// What people call it.
        name: String,
    },
    /// Capture was paused or goes on.
    Paused {
        /// False when it goes on.
        paused: bool,
    },
    /// Camera or folder is gone.
    SourceLost {
        /// What was seen.
        reason: String,
    },
    /// Camera or folder is back.
    SourceBack {
        /// Seconds without it.
        seconds: f64,
        /// Frames that are missing, where the source counts.
        missed: Option<u64>,
    },
    /// An image or a frame was passed over.
    Refused {
        /// Which.
        subject: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Frame files were deleted to make room.
    Evicted {
        /// How many.
        frames: u64,
        /// Bytes they took.
        bytes: u64,
        /// Why, as a word.
        reason: String,
    },
    /// An alarm went on.
    AlarmRaised {
        /// Which.
        alarm: super::alarm::AlarmKind,
        /// What was seen.
        reason: String,
    },
    /// An alarm went off.
    AlarmCleared {
        /// Which.
        alarm: super::alarm::AlarmKind,
    },
    /// An order came to its end.
    Commanded {
        /// Which operation.
        operation: String,
        /// Id that its sender gave, or the box.
        command: String,
        /// Who gave it: `local`, `network:ADDRESS`, `mqtt`, or `user:UID`.
        actor: String,
        /// Why, where its actor said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Why it was not done; none when it was.
        refused: Option<String>,
    },
}

impl What {
    /// The word for it, as in its JSON and in topics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopping {} => "stopping",
            Self::SessionOpened { .. } => "session_opened",
            Self::SessionClosed { .. } => "session_closed",
            Self::Paused { .. } => "paused",
            Self::SourceLost { .. } => "source_lost",
            Self::SourceBack { .. } => "source_back",
            Self::Refused { .. } => "refused",
            Self::Evicted { .. } => "evicted",
            Self::AlarmRaised { .. } => "alarm_raised",
            Self::AlarmCleared { .. } => "alarm_cleared",
            Self::Commanded { .. } => "commanded",
        }
    }
}
