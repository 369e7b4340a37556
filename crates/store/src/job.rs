//! What goes into the writer and what comes out of it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::delivery::{Claim, Item, Report};
use crate::error::StoreError;
use crate::gap::{Gap, NoFile};
use crate::record::Record;
use crate::sql::commands::{Noted, Noting};
use crate::sql::cursor::Stream;
use crate::sql::intake::{self, Change};
use reticle_base::clock::Stamp;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::event::Event;
use reticle_domain::frame::Frame;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_domain::segmentation::{ModelRef, Segmentation};
use reticle_domain::session::Session;

/// What the writer is asked to do, in the order of the queue. [`Job::Keep`] of a frame comes
/// before its [`Job::Commit`].
#[derive(Clone, Debug)]
pub enum Job {
    /// A session begins. Before any frame of it.
    Open(Session),
    /// A session ends.
    Close {
        /// Which.
        session: SessionId,
        /// When.
        at: Stamp,
    },
    /// A frame was captured: record it, and keep its pixels by the retention rule.
    Keep {
        /// Session it belongs to.
        session: SessionId,
        /// The frame.
        frame: Arc<Frame>,
    },
    /// A frame was segmented: save the result.
    Commit {
        /// Session it belongs to.
        session: SessionId,
        /// The result; it carries its frame.
        segmentation: Segmentation,
    },
    /// Frames are missing that should have been there.
    Gap(Gap),
    /// Labels that came from elsewhere for a frame that is recorded.
    Import(Imported),
    /// What the clock says now, and whether it can be trusted: at the start, and when it
    /// becomes so.
    Clock {
        /// Now.
        now: Stamp,
        /// Whether wall time is right.
        trusted: bool,
    },
    /// Something happened that the lab is told of.
    Event(Event),
    /// A change in the ledger of the watched folder, after what was sent before it.
    Intake(Change),
    /// Something about deliveries; answered after the commit.
    Ask {
        /// What.
        ask: Ask,
        /// Where the answer goes. Nobody listens any more: it is dropped.
        reply: SyncSender<Result<Answer, StoreError>>,
    },
}

/// Labels that came from elsewhere: corrected, drawn, or made by another program.
#[derive(Clone, Debug)]
pub struct Imported {
    /// A recorded frame.
    pub frame: FrameId,
    /// By whom or what.
    pub model: ModelRef,
    /// Labels, contiguous from 1, of the frame's width and height.
    pub labels: LabelImage,
    /// What was measured on them, by label from 1.
    pub objects: Vec<Object>,
    /// Focus score of the frame with these labels; not a number where it cannot be told.
    pub focus: f32,
}

/// What is asked of the outbox, through the writer's queue.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Deliveries to make now, most urgent first.
    Claim(Claim),
    /// What became of one.
    Report(Report),
    /// Deliver what waits now as it is, full parts or not, without waiting for anything.
    DeliverNow,
    /// Quarantined and refused ones get another chance, and nobody waits any longer.
    Retry,
    /// As [`Ask::Retry`], and everything that was delivered is delivered again.
    Again,
    /// The broker has acknowledged all of a stream up to this key.
    Published {
        /// Which.
        stream: Stream,
        /// Key of the last event or result that it has.
        upto: i64,
    },
    /// A command is about to be done: note its id, unless it was used before.
    Command(Noting),
    /// A command that was noted came to its end.
    Commanded {
        /// What was to be done.
        operation: String,
        /// Its id.
        id: String,
        /// What was answered, as JSON.
        answer: String,
    },
    /// A change in the ledger of the watched folder.
    Intake(intake::Change),
    /// The day under which a session is archived; the given one if none was chosen before.
    ArchiveDate {
        /// Which session.
        session: SessionId,
        /// As `2026-11-23`.
        date: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Claimed; nobody else gets them until the lease ends.
    Claimed(Vec<Item>),
    /// It is written and fsynced.
    Written,
    /// How many deliveries get another chance.
    Retried(u64),
    /// Whether the command may be done.
    Command(Noted),
    /// The row of the ledger, or how many there were.
    Intake(i64),
    /// The day that stays.
    ArchiveDate(String),
}

/// What became of a [`Job`]. Sent only after the fact is committed and fsynced.
#[derive(Debug)]
pub enum Outcome {
    /// The frame is recorded and its pixels are on the disk.
    Kept {
        /// Which.
        frame: FrameId,
    },
    /// The frame is recorded, without its pixels.
    NotKept {
        /// Which.
        frame: FrameId,
        /// Why.
        reason: NoFile,
    },
    /// The frame's pixels are not on the disk, because writing them failed. Its result may be saved
    /// all the same, and is then reported as [`Outcome::Saved`].
    KeepFailed {
        /// Which.
        frame: FrameId,
        /// Why, and what to do.
        error: StoreError,
    },
    /// The result is committed: it may be called saved. So is one that is given again, with the
    /// same labels, after a crash.
    Saved(Record),
    /// This model's answer to this frame was there already, and stays as it is; the record is of
    /// that one. Labels that were imported a second time, or that differ from the saved ones.
    AlreadySaved {
        /// What is saved.
        record: Record,
        /// Whether it is what was given. If not, what was given is not saved: give it under the name
        /// of another model.
        same: bool,
    },
    /// A result is not saved, or something small is not recorded yet.
    Failed {
        /// Of which frame the result. `None` for the begin or end of a session, a gap, an event: these are few
        /// and small, and the writer tries them again with whatever comes next.
        frame: Option<FrameId>,
        /// Why, and what to do; [`StoreError::remedy`] says whether to try again.
        error: StoreError,
    },
    /// Frame files were deleted to make room; records and label images stay.
    Evicted {
        /// How many.
        frames: u64,
        /// Bytes they took.
        bytes: u64,
        /// Why.
        reason: NoFile,
    },
    /// There is no room and nothing may go: frames are no longer taken.
    Held {
        /// Why, and what to do.
        reason: String,
    },
    /// There is room again.
    Resumed,
    /// The names of the store lead elsewhere: nothing is saved any more in this process.
    Unlinked {
        /// What is different, and what to do.
        reason: String,
    },
}
