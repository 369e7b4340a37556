//! What a watched folder asks before it opens a file, and tells afterwards.
//!
//! The ledger outlives the process; who keeps it is not this module's business. Its promises, on
//! which [`super::Folder`] builds:
//! 1. [`Ledger::begin`] returns after it is on the disk that the file was begun, so that a process
//!    that ends while it reads the file is counted against the file.
//! 2. A file is taken once all of its frames are committed; until then it is begun again at the
//!    next start, and its pages get the same ids again.
//! 3. A page is its pixels in a file: what the file held when it was read last is known page by
//!    page. So of a stack that grows, or is written again with other tags, only new pages are given.
//! 4. An image is its content under a path. A file with a known content is the same image where it
//!    stands at the same path (it was touched, or written again), where it is the same file (it was
//!    renamed, or has two names), and where it is back at its path with the time that it had (it was
//!    moved away and back). Content alone proves nothing: a blank well looks like the next.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use reticle_base::ids::FrameId;
use reticle_domain::taken::{FileIdentity, TakenPage};

/// A file that is whole and about to be read.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The watched folder.
    pub folder: &'a Path,
    /// Name of the file in it.
    pub name: &'a OsStr,
    /// Its size and its time of change in nanoseconds.
    pub version: (u64, i64),
    /// Which file of its file system it is.
    pub identity: FileIdentity,
    /// Of its bytes.
    pub sha256: [u8; 32],
    /// Whether a writer may be at it still, as far as is known.
    pub is_open: bool,
}

/// What is to be done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is begun: read it.
    Read(Begun),
    /// It was taken or refused before.
    Known,
    /// Processes ended while they read it: pass it over, and say why.
    Quarantined(String),
    /// Not yet: it, or one that is being read, may be what ended a process, and is read alone.
    Later,
    /// It is being written over in place, and its writer has not closed it.
    WrittenOver,
}

/// A file that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its key in the ledger.
    pub file: i64,
    /// Id of the frame of its first page; that of page n is later by n.
    pub first_frame: FrameId,
    /// Pages that were given of it, or of what its path held before.
    pub pages: Vec<TakenPage>,
}

/// How the reading of a file came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its pages were given, as far as they are fit: so many it has.
    Given {
        /// How many.
        pages: usize,
    },
    /// Nothing of it was given: it is unfit.
    Unfit(String),
    /// Nothing of it was given: it is above a limit that a person may raise.
    AboveLimit(String),
    /// It could not be read now, or grows: it will be begun again.
    Interrupted,
}

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("what was taken from the folder is not known ({0})")]
pub struct LedgerError(pub String);

/// The ledger of one watched folder.
pub trait Ledger: Send + Sync {
    /// Passes on each file that was taken, or refused for good: name, size, time of change.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    fn settled(
        &self,
        folder: &Path,
        each: &mut dyn FnMut(&OsStr, u64, i64),
    ) -> Result<(), LedgerError>;

    /// Asks for a file, and begins it if it is to be read. Waits up to `patience` for others.
    /// `holds` says whether a file of that name is there with this size and time of change.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    fn begin(
        &self,
        candidate: Candidate<'_>,
        holds: &dyn Fn(&OsStr, (u64, i64)) -> bool,
        patience: Duration,
    ) -> Result<Answer, LedgerError>;

    /// A page of a file is given now. It is noted before its frame is.
    fn gives(&self, file: i64, page: &TakenPage);

    /// A page that was given before stands at another place in the file now.
    fn moved(&self, file: i64, page: &TakenPage);

    /// A file was read to its end.
    fn ends(&self, file: i64, end: End);

    /// Waits up to `patience` for all frames that were given to be committed; whether they are.
    fn is_idle(&self, patience: Duration) -> bool;

    /// The folder was listed and nothing waits to be read: `is_there` says what is in it.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    fn listed(&self, folder: &Path, is_there: &dyn Fn(&OsStr) -> bool) -> Result<(), LedgerError>;

    /// Files that are to be taken after all; each is named once.
    fn again(&self) -> Vec<OsString>;
}
