//! Reading: any number of read-only connections beside the one writer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::Connection;

use crate::error::StoreError;
use crate::reach::Reach;
use crate::sql::schema::{self, damaged_or};

/// Connections kept open for the next call; more may be in use at one time.
const POOL: usize = 4;

/// Most rows of one answer: a larger limit is cut to it, so that no request fills the memory.
pub(crate) const MAX_ROWS: u32 = 10_000;

/// Reads what is saved. Clones share a small pool of read-only connections; calls block on
/// the disk, so async code wraps them in `spawn_blocking`.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    database: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// What the names must lead to: the writer's, or what was there at the first connection.
    reach: OnceLock<Reach>,
    /// Greatest key of an event that could not be read and was logged.
    unreadable: AtomicI64,
    /// Rows of each stream that waited when they were last counted.
    counted: Mutex<[Option<Counted>; 2]>,
}

/// Rows that were found between two keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) after: i64,
    pub(crate) last: i64,
    pub(crate) rows: i64,
}

impl Reader {
    /// Opens the store in `folder` for reading, whether a daemon writes it or not.
    ///
    /// # Errors
    /// When there is no store, or it cannot be read, or it is newer than this program.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let reader = Self::connecting(folder, OnceLock::new());
        reader.with("open", |_| Ok(()))?;
        Ok(reader)
    }

    /// For a store that is open; connects when first asked. Reads what its writer has open, or
    /// nothing.
    pub(crate) fn of(folder: &Path, reach: Reach) -> Self {
        Self::connecting(folder, OnceLock::from(reach))
    }

    fn connecting(folder: &Path, reach: OnceLock<Reach>) -> Self {
        Self(Arc::new(Shared {
            reach,
            folder: folder.to_owned(),
            database: schema::database_path(folder),
            idle: Mutex::new(Vec::new()),
            unreadable: AtomicI64::new(0),
            counted: Mutex::default(),
        }))
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// What was counted of each stream, to be counted on.
    pub(crate) fn counted(&self) -> MutexGuard<'_, [Option<Counted>; 2]> {
        self.0.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event that cannot be read is met for the first time: it is logged once, not
    /// at every look.
    pub(crate) fn is_first_look_at(&self, event: i64) -> bool {
        self.0.unreadable.fetch_max(event, Ordering::Relaxed) < event
    }

    /// Runs `query` on a connection that nobody else uses meanwhile.
    pub(crate) fn with<T>(
        &self,
        what: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let shared = &self.0;
        let idle = shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                shared.reach.get().map_or(Ok(()), Reach::check)?;
                schema::open_read_only(&shared.database)?
            }
        };
        let reach = match shared.reach.get() {
            Some(reach) => reach,
            None => {
                let reach = Reach::of_database(&shared.database)?;
                shared.reach.get_or_init(|| reach)
            }
        };
        let answer = query(&connection).map_err(damaged_or(what, &shared.database))?;
        // What nobody can find again is not given out, neither from the old file nor a new one.
        if let Err(error) = reach.check() {
            shared.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            return Err(error);
        }
        // One that failed is closed instead: the next call gets a fresh one.
        let mut idle = shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < POOL {
            idle.push(connection);
        }
        Ok(answer)
    }
}
