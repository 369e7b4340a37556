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
//! The invariants and the order of steps are in `docs/design/storage.md`; [`fsck()`] checks the
//! first, `writer.rs`, `retention.rs` and `recovery.rs` do the second, and tests kill the
//! process between every two steps.

mod adopt;
mod aggregates;
mod backup;
mod blobs;
mod clock_correction;
mod commands;
mod cursor;
mod destinations;
mod error;
mod facts;
#[cfg(test)]
mod fixture;
mod frames;
mod fsck;
mod identity;
mod insert;
mod intake;
mod job;
mod lock;
mod options;
mod orphans;
mod outbox;
mod reach;
mod readers;
mod record;
mod recovery;
mod restore;
mod retention;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod wells;
mod wishes;
mod writer;

use std::collections::VecDeque;
use std::thread::JoinHandle;

pub use adopt::{
    AdoptedFrame, AdoptedPart, AdoptedResult, AdoptedResults, AdoptedSeries, AdoptedSession,
    Adoption, PartTaken, Refusal,
};
pub use backup::{Backup, Contents, backup, check as check_backup};
pub use commands::Noted;
pub use cursor::{PublishCursor, StoredEvent, Stream};
pub use error::StoreError;
pub use facts::{Delivery, Quarantined, Refused, RefusedKeys, StoredReceipt};
pub use fsck::{Checked, Depth, Finding, FsckReport, Invariant, fsck};
pub use identity::Identity;
pub use intake::{Change, IntakeEntry, IntakeFile, IntakeRow, IntakeState};
pub use job::{Gap, GapReason, Imported, Job, NoFile, Outcome};
pub use options::{FrameRetention, Keep, Options, UnknownKeep};
pub use outbox::{
    Answer, Ask, Claim, Deliveries, Destination, Item, Kind, PartRef, Receipt, Report,
};
pub use readers::{Reader, SavedFrame, SessionSummary, StoredPixels, Totals};
pub use recovery::Recovery;
pub use restore::{Missing, Plan, Present, Restored, Restoring};
pub use wishes::Wish;

pub use record::Record;
use reticle_base::clock::Clock;
use reticle_base::durable;
use reticle_base::progress::Progress;
use reticle_base::queue;
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

/// The open store: the folder's lock and the one connection that writes.
pub struct Store(writer::Writer);

impl Store {
    /// Opens the store, makes it where there is none, and mends what a crash left.
    ///
    /// # Errors
    /// When the folder cannot be made or written, another process has it, or its database is
    /// newer than this program or damaged.
    pub fn open(options: &Options, clock: Clock) -> Result<(Self, Recovery), StoreError> {
        match Self::open_once(options, clock.clone()) {
            Err(error) if error.is_disk_full() && retention::give_up_reserve(&options.folder) => {
                Self::open_once(options, clock)
            }
            other => other,
        }
    }

    fn open_once(options: &Options, clock: Clock) -> Result<(Self, Recovery), StoreError> {
        let folder = &options.folder;
        // A restore that was broken off has the database under another name.
        if !restore::is_begun(folder) {
            reach::refuse_to_forget(folder)?;
        }
        durable::create_dir_private(folder, folder)
            .map_err(StoreError::file("make the data folder", folder))?;
        let (lock, unclean) = lock::FolderLock::take(folder)?;
        restore::finish(folder)?;
        let database = schema::database_path(folder);
        let connection = schema::open_and_migrate(&database)?;
        let reach = reach::Reach::of(folder, &database, lock.file())?;
        let (recovery, kept_bytes) =
            recovery::recover(folder, &database, &connection, &clock, unclean)?;
        let deliveries = destinations::known(&connection)
            .map_err(schema::damaged_or("read the destinations", &database))?;
        let writer = writer::Writer {
            folder: folder.clone(),
            database,
            connection: Some(connection),
            lock,
            reach,
            unlinked: None,
            clock,
            options: options.clone(),
            deliveries,
            progress: Progress::unwatched(),
            held: None,
            stack: retention::Stack::default(),
            run: None,
            kept_bytes,
            leftovers: Vec::new(),
            owed: VecDeque::new(),
        };
        if let Err(error) = writer.restore_reserve() {
            tracing::warn!(%error, "no room is set aside for a full disk");
        }
        tracing::info!(folder = %folder.display(), kept_bytes, ?recovery, "store opened");
        Ok((Self(writer), recovery))
    }

    /// Says where results go from here, before the writer is started. A destination that is new,
    /// or in another place than before, will get everything.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn deliver_to(&mut self, deliveries: Deliveries) -> Result<(), StoreError> {
        self.0.deliver_to(deliveries)
    }

    /// Says which broker is told of events and results from here, before the writer is started.
    /// One that is new, or in another place than before, is told what comes from now on.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn publish_to(&mut self, place: Option<&str>) -> Result<(), StoreError> {
        self.0.publish_to(place)
    }

    /// Saves labels that came from elsewhere, and returns when they are committed:
    /// [`Outcome::Saved`], or [`Outcome::AlreadySaved`] where the frame has labels of that model.
    ///
    /// # Errors
    /// When there is no such frame, the labels do not fit it, or the disk fails.
    pub fn import(&mut self, imported: Imported) -> Result<Outcome, StoreError> {
        let frame = imported.frame;
        let mut last = None;
        self.0.work(vec![Job::Import(imported)], &mut |outcome| last = Some(outcome));
        match last {
            Some(saved @ (Outcome::Saved(_) | Outcome::AlreadySaved { .. })) => Ok(saved),
            Some(Outcome::Failed { error, .. }) => Err(error),
            other => Err(StoreError::Unfit {
                what: "import the labels",
                frame,
                why: format!("the store answered {other:?}; report this as a defect"),
            }),
        }
    }

    /// Closes the store in order.
    pub fn close(self) {
        self.0.close(&mut |outcome| tracing::debug!(?outcome, "while closing"));
    }

    /// Asks the outbox, and returns when the answer is committed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn ask(&mut self, ask: Ask) -> Result<Answer, StoreError> {
        self.0.ask(ask)
    }

    /// Reads what this store saves.
    pub fn reader(&self) -> Reader {
        Reader::of(&self.0.folder, self.0.reach.clone())
    }

    /// The writer's progress is told there from now on.
    #[must_use]
    pub fn report_to(mut self, progress: Progress) -> Self {
        self.0.progress = progress;
        self
    }

    /// Works through `jobs` until the queue is closed and empty, then closes the store. Outcomes
    /// come in the order of the jobs.
    pub fn write(self, jobs: &queue::Receiver<Job>, outcomes: impl FnMut(Outcome)) {
        self.0.run(jobs, outcomes);
    }

    /// Does [`Store::write`] in a thread `store-writer` of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn_writer(
        self,
        jobs: queue::Receiver<Job>,
        outcomes: impl FnMut(Outcome) + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || self.write(&jobs, outcomes))
    }
}
