//! The store: what must never be lost.

mod error;
mod options;
mod readers;
mod writer;

pub use error::{Remedy, StoreError};
pub use options::{FrameRetention, Keep, Options, UnknownKeep};
pub use readers::{Reader, SavedFrame, SessionSummary, StoredPixels, Totals};
pub use writer::{Gap, GapReason, Job, NoFile, Outcome};

use std::thread::JoinHandle;

use crate::base::clock::Clock;
use crate::base::queue;

/// What [`Store::open`] found and mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the last owner of the folder ended without closing it.
    pub unclean: bool,
    /// Half-written files removed.
    pub temporaries: u64,
    /// Frame files of which the database knows nothing, moved to `orphans/`.
    pub orphans: u64,
    /// Evicted frame files whose deletion was completed.
    pub evictions_completed: u64,
    /// Frame files that the database names and that are not there.
    pub missing: u64,
}

/// The open store: the folder's lock and the one connection that writes.
pub struct Store {}

impl Store {
    /// Opens the store, makes it where there is none, and mends what a crash left.
    ///
    /// # Errors
    /// When the folder cannot be made or written, another process has it, or its database is
    /// newer than this program or damaged.
    pub fn open(options: &Options, _clock: Clock) -> Result<(Self, Recovery), StoreError> {
        todo!("{options:?}")
    }

    /// Reads what this store saves.
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// Starts the thread `store-writer`, which works through `jobs` until the queue is closed
    /// and empty, then closes the store.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn_writer(
        self,
        jobs: queue::Receiver<Job>,
        outcomes: impl FnMut(Outcome) + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        drop((jobs, outcomes));
        todo!()
    }
}
