//! Jobs whose heavy work is done, and what their rows came to.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::error::StoreError;
use crate::frames;
use crate::gap::Gap;
use crate::job::{Answer, Ask, Imported};
use crate::record::Record;
use crate::sql::intake::Change;
use crate::sql::rows::{Answered, Pixels};
use reticle_base::clock::Stamp;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::event::Event;
use reticle_domain::frame::Frame;
use reticle_domain::segmentation::Segmentation;
use reticle_domain::session::Session;

/// A job that is rows only, without a frame.
#[derive(Clone, Debug)]
pub(crate) enum Ledger {
    Open(Session),
    Close { session: SessionId, at: Stamp },
    Gap(Gap),
    Clock { now: Stamp, trusted: bool },
    Event(Event),
    Intake(Change),
}

/// A job with its heavy work done: only rows are missing.
pub(crate) enum Prepared {
    Ledger(Ledger),
    Keep {
        session: SessionId,
        frame: Arc<Frame>,
        pixels: Pixels,
        /// Whether the file was written just now, for this job.
        fresh: bool,
        /// Why there is no file although there should be.
        trouble: Option<StoreError>,
    },
    Commit {
        session: SessionId,
        segmentation: Segmentation,
        labels: Vec<u8>,
    },
    Import {
        imported: Box<Imported>,
        labels: Vec<u8>,
    },
    Ask {
        ask: Ask,
        reply: SyncSender<Result<Answer, StoreError>>,
    },
    Unfit {
        frame: FrameId,
        error: StoreError,
    },
}

impl Prepared {
    /// Bytes of the frame file that it wrote, or would have.
    pub(crate) fn file_bytes(&self) -> u64 {
        match self {
            Self::Keep { frame, .. } => frames::expected_bytes(frame),
            Self::Commit { segmentation, .. } => frames::expected_bytes(&segmentation.frame),
            _ => 0,
        }
    }
}

/// What a job's rows came to.
pub(crate) enum Added {
    Rows,
    Result(Answered),
    Imported(Record, Answered),
    Answer(Answer),
}

/// What one job met: its own fault, or the database's.
pub(crate) enum Trouble {
    Job(StoreError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}
