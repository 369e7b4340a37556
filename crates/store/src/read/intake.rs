//! The ledger of a watched folder, read: by its source, and by people.

use rusqlite::{OptionalExtension, Row, params};

use crate::error::StoreError;
use crate::read::columns;
use crate::read::reader::Reader;
use crate::sql::intake::IntakeState;
use reticle_base::clock::rfc3339;
use reticle_base::ids::FrameId;
use reticle_domain::taken::{FileIdentity, TakenPage};

/// One image of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeRow {
    /// Its key.
    pub pk: i64,
    /// Where it was seen last.
    pub path: String,
    /// Its size then.
    pub bytes: u64,
    /// Its time of change then.
    pub mtime_ns: i64,
    /// Which file it was then, where that was written down.
    pub identity: Option<FileIdentity>,
    /// Id of the frame of its first page.
    pub first_frame: FrameId,
    /// Processes in a row that began it and came to no end.
    pub attempts: u32,
    /// The one that began it last.
    pub run: Option<[u8; 16]>,
    /// What became of it.
    pub state: IntakeState,
    /// Why it was not taken.
    pub reason: Option<String>,
    /// Whether the path still holds it.
    pub here: bool,
}

/// An image of the ledger, for people. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IntakeEntry {
    /// The watched folder.
    pub folder: String,
    /// Where it was seen last, relative to the folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Processes in a row that began it and came to no end.
    pub attempts: u32,
    /// What became of it.
    pub state: IntakeState,
    /// Why it was not taken.
    pub reason: Option<String>,
    /// When that was.
    pub at: String,
}

const ROW: &str =
    "SELECT pk, path, bytes, mtime_ns, first_frame, attempts, run, state, reason, present,
            device, inode, created_ns
     FROM intake";

fn identity(row: &Row<'_>) -> rusqlite::Result<Option<FileIdentity>> {
    let (device, inode): (Option<i64>, Option<i64>) = (row.get(10)?, row.get(11)?);
    let born_ns = row.get(12)?;
    Ok(device.zip(inode).map(|(device, inode)| FileIdentity {
        device: device.cast_unsigned(),
        inode: inode.cast_unsigned(),
        born_ns,
    }))
}

fn row(row: &Row<'_>) -> rusqlite::Result<IntakeRow> {
    Ok(IntakeRow {
        pk: row.get(0)?,
        path: row.get(1)?,
        bytes: columns::unsigned(row, 2)?,
        mtime_ns: row.get(3)?,
        first_frame: FrameId::from_bytes(row.get(4)?),
        attempts: row.get(5)?,
        run: row.get(6)?,
        state: row.get(7)?,
        reason: row.get(8)?,
        here: row.get(9)?,
        identity: identity(row)?,
    })
}

impl Reader {
    /// The image that a path of a folder holds, as far as the ledger knows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_at(&self, folder: &str, path: &str) -> Result<Option<IntakeRow>, StoreError> {
        self.with("read the ledger of the folder", |db| {
            db.prepare_cached(&format!("{ROW} WHERE folder = ?1 AND path = ?2 AND present = 1"))?
                .query_row([folder, path], row)
                .optional()
        })
    }

    /// Images of a folder with this content, up to `limit`: those with this time of change first,
    /// then the newest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_like(
        &self,
        folder: &str,
        sha256: &[u8; 32],
        mtime_ns: i64,
        limit: u32,
    ) -> Result<Vec<IntakeRow>, StoreError> {
        self.with("read the ledger of the folder", |db| {
            db.prepare_cached(&format!(
                "{ROW} WHERE sha256 = ?1 AND folder = ?2
                 ORDER BY mtime_ns = ?3 DESC, pk DESC LIMIT ?4"
            ))?
            .query_map(params![sha256, folder, mtime_ns, limit], row)?
            .collect()
        })
    }

    /// Passes each image of a folder on that needs no further question: path, size and time.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_settled(
        &self,
        folder: &str,
        mut each: impl FnMut(&str, u64, i64),
    ) -> Result<(), StoreError> {
        self.with("read the ledger of the folder", |db| {
            let mut settled = db.prepare_cached(
                "SELECT path, bytes, mtime_ns FROM intake
                 WHERE folder = ?1 AND state IN ('taken', 'refused', 'quarantined')",
            )?;
            let mut rows = settled.query([folder])?;
            while let Some(row) = rows.next()? {
                each(&row.get::<_, String>(0)?, columns::unsigned(row, 1)?, row.get(2)?);
            }
            Ok(())
        })
    }

    /// Keys of those images of a folder that are said to be there and are not.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_missing(
        &self,
        folder: &str,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<Vec<i64>, StoreError> {
        self.with("read the ledger of the folder", |db| {
            let mut missing = Vec::new();
            let mut here =
                db.prepare_cached("SELECT pk, path FROM intake WHERE folder = ?1 AND present = 1")?;
            let mut rows = here.query([folder])?;
            while let Some(row) = rows.next()? {
                if !is_there(&row.get::<_, String>(1)?) {
                    missing.push(row.get(0)?);
                }
            }
            Ok(missing)
        })
    }

    /// The pages of an image that became frames. What is done is what was ended, or has a result
    /// that is committed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_pages(&self, row: i64) -> Result<Vec<TakenPage>, StoreError> {
        self.with("read the ledger of the folder", |db| {
            db.prepare_cached(
                "SELECT page, sha256, intake_page.frame,
                        done OR coalesce((SELECT segmented FROM frame WHERE id = intake_page.frame), 0)
                 FROM intake_page WHERE intake = ?1 ORDER BY page",
            )?
            .query_map([row], |row| {
                Ok(TakenPage {
                    index: usize::try_from(columns::unsigned(row, 0)?).unwrap_or(usize::MAX),
                    sha256: row.get(1)?,
                    frame: FrameId::from_bytes(row.get(2)?),
                    done: row.get(3)?,
                })
            })?
            .collect()
        })
    }

    /// What was not taken, oldest first: refused, or in quarantine. Of an image that is no longer
    /// in its folder there is nothing to do.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_passed_over(&self) -> Result<Vec<IntakeEntry>, StoreError> {
        self.with("read the ledger of the folder", |db| {
            db.prepare_cached(
                "SELECT folder, path, bytes, sha256, attempts, state, reason, wall_ns FROM intake
                 WHERE state IN ('refused', 'too_large', 'quarantined') AND present = 1 ORDER BY pk",
            )?
            .query_map([], |row| {
                Ok(IntakeEntry {
                    folder: row.get(0)?,
                    path: row.get(1)?,
                    bytes: columns::unsigned(row, 2)?,
                    sha256: hex::encode(row.get::<_, [u8; 32]>(3)?),
                    attempts: row.get(4)?,
                    state: row.get(5)?,
                    reason: row.get(6)?,
                    at: rfc3339(row.get(7)?),
                })
            })?
            .collect()
        })
    }

    /// How many images the ledger has, by what became of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_counts(&self) -> Result<Vec<(IntakeState, u64)>, StoreError> {
        self.with("read the ledger of the folder", |db| {
            db.prepare_cached("SELECT state, count(*) FROM intake GROUP BY state ORDER BY state")?
                .query_map([], |row| Ok((row.get(0)?, columns::unsigned(row, 1)?)))?
                .collect()
        })
    }
}
