//! The store: results that must never be lost, on one disk.
//!
//! It owns a data folder:
//! ```text
//! reticle.db (-wal, -shm)            records, label images, objects: SQLite
//! frames/<session>/<frame>.tif       pixels of the frames that the retention rule keeps
//! orphans/                           frame files that a crash left without a record
//! spool/                             what is being sent, made again when it is lost
//! set-aside/                         databases that a restore took out of use
//! archive/                           the archive, where it is a folder and none was named
//! reserve                            room set aside so that a full disk can be mended
//! store-is-elsewhere                 left where a data folder was: no new store is made here
//! reticle.sock                       where a running daemon takes orders of the command line
//! lock                               whose folder it is
//! ```
//! and promises:
//! - What is reported as [`Outcome::Saved`] or [`Outcome::Kept`] is committed and fsynced: it
//!   is there after `kill -9` and after a power cut, with the same hash, and under its name.
//! - A result is there whole (record, label image, objects, model, parameters) or not at all.
//! - Given the same thing twice, it changes nothing.
//! - Records and label images are never deleted; frame files are, by the written rule, counted
//!   and with the reason.
//! - What cannot be saved is reported with [`StoreError::remedy`]; the writer goes on.
//!
//! [`fsck()`] says and checks the invariants; the order of steps is in `docs/design/storage.md`, and
//! `write/batch.rs`, `write/retention.rs` and `recovery.rs` do them; tests kill the process between
//! every two steps.
//!
//! Where to look: `sql/` has the schema and what changes rows, each inside the transaction of its
//! caller; `read/` has what reads them, on connections of its own; `write/` has the one thread that
//! writes, from the queue of [`Job`]s to their [`Outcome`]s. No file names one that names it.

mod adopt;
mod backup;
mod blobs;
mod delivery;
mod error;
#[cfg(test)]
mod fixture;
mod frames;
mod fsck;
mod gap;
mod job;
mod lock;
mod options;
mod orphans;
mod reach;
mod read;
mod record;
mod recovery;
mod restore;
mod sql;
mod store;
#[cfg(test)]
mod tests;
mod words;
mod write;

pub use adopt::{
    AdoptedFrame, AdoptedPart, AdoptedResult, AdoptedResults, AdoptedSeries, AdoptedSession,
    Adoption, PartTaken, Refusal,
};
pub use backup::{Backup, Contents, backup, check as check_backup};
pub use delivery::{Claim, Deliveries, Destination, Item, Kind, PartRef, Receipt, Report};
pub use error::StoreError;
pub use fsck::{Checked, Depth, Finding, FsckReport, Invariant, fsck};
pub use gap::{Gap, GapReason, NoFile};
pub use job::{Answer, Ask, Imported, Job, Outcome};
pub use options::{FrameRetention, Keep, Options, UnknownKeep};
pub use read::{
    Delivery, IntakeEntry, IntakeRow, PublishCursor, Quarantined, Reader, Refused, RefusedKeys,
    SavedFrame, SessionSummary, StoredEvent, StoredPixels, StoredReceipt, Totals,
};
pub use record::Record;
pub use recovery::Recovery;
pub use restore::{Missing, Plan, Present, Restored, Restoring};
pub use sql::{Change, Identity, IntakeFile, IntakeState, Noted, Noting, Stream};
pub use store::Store;

use reticle_domain::label_image::LabelImage;

/// A label image in the bytes that the database keeps, for those who measure.
///
/// # Errors
/// When it cannot be compressed.
pub fn pack_labels(labels: &LabelImage) -> std::io::Result<Vec<u8>> {
    blobs::encode(labels).map_err(std::io::Error::other)
}

/// A label image from the bytes of [`pack_labels`], for those who try what bytes it withstands.
///
/// # Errors
/// When they are no such bytes.
pub fn unpack_labels(bytes: &[u8]) -> std::io::Result<LabelImage> {
    blobs::decode(bytes).map_err(std::io::Error::other)
}

/// Whether a process works in the data folder now. For those who only look: takes nothing.
pub fn is_in_use(folder: &std::path::Path) -> bool {
    lock::is_taken(folder)
}

/// Whether nobody works in the data folder, and the last one to do so closed it in order.
pub fn is_closed_in_order(folder: &std::path::Path) -> bool {
    !lock::has_owner(folder)
}
