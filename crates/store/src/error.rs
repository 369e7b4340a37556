//! What can go wrong in the store, and what its caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reticle_base::remedy::Remedy;
use rusqlite::ErrorCode;

/// Why the store could not do what was asked. The text says what, where, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made, read or written.
    #[error("cannot {what} {}: {source}; {}", path.display(), advice(source))]
    File {
        /// What was tried, as "write the frame file".
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the file system said.
        source: Arc<io::Error>,
    },
    /// Another process works on this folder.
    #[error(
        "the data folder {} is in use by {}; stop that process or choose another folder",
        folder.display(), owner(*pid)
    )]
    Locked {
        /// The data folder.
        folder: PathBuf,
        /// Process that holds it, where it said so.
        pid: Option<u32>,
    },
    /// The database has a schema that a program as old as this one must not open.
    #[error(
        "{} was made by a newer Reticle (schema {found}, which needs a program that knows schema \
         {needed}; this one knows up to {known}); install that version or newer, or choose another \
         data folder", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The oldest schema that a program must know to open it.
        needed: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// The database is of a program from before the first release.
    #[error(
        "{} was made by a Reticle from before version 0.1.0, whose data folders this one cannot read; \
         choose another data folder, or open it with the program that made it (`reticle export` \
         there writes its results as files)", path.display()
    )]
    Unreleased {
        /// The database.
        path: PathBuf,
    },
    /// The database is not what this program made, or is damaged.
    #[error(
        "the database {} is damaged: {detail}; copy the folder aside, run `reticle fsck` on it, \
         then put a backup back with `reticle restore --from BACKUP`, or choose another data folder",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A name of the open store leads to another file, or nowhere.
    #[error(
        "{what} {} {why}, while Reticle works in it: what is written now would be found by nobody, \
         so nothing more is said to be saved; put it back or mount it again, then start Reticle \
         (runbook: store_unlinked)", path.display()
    )]
    Unlinked {
        /// What is at that name, as "the database".
        what: &'static str,
        /// The name.
        path: PathBuf,
        /// What is different, as "is gone".
        why: &'static str,
    },
    /// There was a store in this folder, and a new one must not take its place unasked.
    #[error("the store of {} is not there: {why}", folder.display())]
    Lost {
        /// The data folder.
        folder: PathBuf,
        /// What was found, and what to do.
        why: String,
    },
    /// SQLite refused.
    #[error("cannot {what} in {}: {source}; {}", path.display(), database_advice(source))]
    Database {
        /// What was tried, as "commit".
        what: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<rusqlite::Error>,
    },
    /// A job of a session that was never opened.
    #[error("session {session} was never opened in this store; report this as a defect")]
    UnknownSession {
        /// The session.
        session: reticle_base::ids::SessionId,
    },
    /// Something that cannot be stored as it is, or was not stored as it should be.
    #[error("cannot {what} of frame {frame}: {why}")]
    Unfit {
        /// What was tried, as "read the label image".
        what: &'static str,
        /// Which frame.
        frame: reticle_base::ids::FrameId,
        /// Why, and what to do.
        why: String,
    },
}

impl StoreError {
    /// What the caller can do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::File { .. } | Self::Locked { .. } => Remedy::Retry,
            Self::Newer { .. }
            | Self::Unreleased { .. }
            | Self::Damaged { .. }
            | Self::Unlinked { .. }
            | Self::Lost { .. } => Remedy::Stop,
            Self::Unfit { .. } | Self::UnknownSession { .. } => Remedy::GiveUp,
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(
                    ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OutOfMemory
                    | ErrorCode::PermissionDenied,
                ) => Remedy::Retry,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Remedy::Stop,
                _ => Remedy::GiveUp,
            },
        }
    }

    /// Whether there is no room left on the disk.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::File { source, .. } => is_full(source),
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.to_owned(), source: Arc::new(source) }
    }

    /// For `map_err` on SQLite operations.
    pub(crate) fn database(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { what, path: path.to_owned(), source: Arc::new(source) }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if is_full(error) => "free some room or lower store.frames.max_bytes",
        io::ErrorKind::PermissionDenied => {
            "give this user the right to write there, or choose another data folder"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: mount it writable, or choose another data folder"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way: move it, or choose another data folder"
        }
        _ => "see the kernel log for the state of the disk",
    }
}

fn database_advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "free some room or lower store.frames.max_bytes",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "give this user the right to write the data folder, or choose another one"
        }
        Some(ErrorCode::SystemIoFailure) => "see the kernel log for the state of the disk",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds the database: close it"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "run `reticle fsck`, put a backup back with `reticle restore`, or choose another data folder"
        }
        _ => "this is a defect of Reticle: please report it with this line",
    }
}
