//! The ledger of a watched folder: which image was begun, taken, refused, or left for a person.
//!
//! A row is one image: a content under a path. Its source asks before it opens a file and says
//! afterwards what became of it; both are changes ([`Change`]) that the writer commits.
//!
//! 1. A file is begun, and that is committed, before it is opened.
//! 2. It is taken only after every page of it is committed, so a kill in between loses nothing.
//! 3. What was begun and has no end is begun again, with the same frame ids: a page that was
//!    committed before is the same frame and changes nothing.
//! 4. An attempt counts once for each process, and a process that ends in order counts none.

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::error::StoreError;
use super::job::words;
use super::readers::{Reader, unsigned};
use crate::base::clock::{Stamp, rfc3339};
use crate::base::ids::FrameId;

words! {
    /// What became of an image.
    IntakeState {
        /// Its reading was begun and has no end yet.
        Begun = "begun",
        /// All of it is committed.
        Taken = "taken",
        /// It is unfit for ever.
        Refused = "refused",
        /// It is above a limit that may be raised.
        TooLarge = "too_large",
        /// Two processes ended while it was read.
        Quarantined = "quarantined",
    }
}

/// A file as its source found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeFile {
    /// The watched folder.
    pub folder: String,
    /// Relative to it.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Of its bytes.
    pub sha256: [u8; 32],
}

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

/// What changes in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file is about to be opened.
    Begin {
        /// The file.
        file: IntakeFile,
        /// Its row, where it has one: it was begun before, or grew.
        row: Option<i64>,
        /// The process.
        run: [u8; 16],
        /// Id of the frame of its first page, where it has no row.
        first_frame: FrameId,
    },
    /// A file is an image that is known: it was touched or renamed.
    Known {
        /// The file.
        file: IntakeFile,
        /// Its row.
        row: i64,
    },
    /// All of it is committed.
    Taken {
        /// Its row.
        row: i64,
    },
    /// It was passed over.
    Refused {
        /// Its row.
        row: i64,
        /// [`IntakeState::Refused`], [`IntakeState::TooLarge`] or [`IntakeState::Quarantined`].
        state: IntakeState,
        /// Why, for a person.
        reason: String,
    },
    /// It was not read to its end, through no fault of its own: it will be begun again.
    LetGo {
        /// Its row.
        row: i64,
    },
    /// The paths of these rows hold them no longer.
    Gone {
        /// Their keys.
        rows: Vec<i64>,
    },
    /// What was refused or quarantined gets another chance.
    Retry,
}

/// Makes a change, inside the transaction of its caller; gives the row, or how many there were.
pub(super) fn change(db: &Connection, change: &Change, now: &Stamp) -> rusqlite::Result<i64> {
    match change {
        Change::Begin { file, row, run, first_frame } => {
            displace(db, file, *row)?;
            match row {
                Some(row) => {
                    move_to(db, *row, file, now)?;
                    db.prepare_cached(
                        "UPDATE intake SET state = 'begun', reason = NULL, run = ?2,
                             attempts = attempts + (run IS NOT ?2)
                         WHERE pk = ?1",
                    )?
                    .execute(params![row, run])?;
                    Ok(*row)
                }
                None => insert(db, file, (run, *first_frame), now),
            }
        }
        Change::Known { file, row } => {
            displace(db, file, Some(*row))?;
            move_to(db, *row, file, now)?;
            Ok(*row)
        }
        Change::Taken { row } => set(db, *row, (IntakeState::Taken, None), now),
        Change::Refused { row, state, reason } => set(db, *row, (*state, Some(reason)), now),
        Change::LetGo { row } => {
            db.prepare_cached("UPDATE intake SET attempts = 0 WHERE pk = ?1 AND state = 'begun'")?
                .execute([row])?;
            Ok(*row)
        }
        Change::Gone { rows } => {
            let mut gone = db.prepare_cached("UPDATE intake SET here = 0 WHERE pk = ?1")?;
            for row in rows {
                gone.execute([row])?;
            }
            Ok(rows.len() as i64)
        }
        Change::Retry => {
            let again = db
                .prepare_cached(
                    "UPDATE intake SET state = 'begun', reason = NULL, attempts = 0
                     WHERE state IN ('refused', 'too_large', 'quarantined')",
                )?
                .execute([])?;
            Ok(again as i64)
        }
    }
}

/// This process ends in order: it did not die of what it has begun.
pub(super) fn end_in_order(db: &Connection, run: &[u8; 16]) -> rusqlite::Result<()> {
    let unended = "UPDATE intake SET attempts = 0 WHERE state = 'begun' AND run = ?1";
    db.execute(unended, [run])?;
    Ok(())
}

/// Another image is where this file is now: it is there no longer.
fn displace(db: &Connection, file: &IntakeFile, row: Option<i64>) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE intake SET here = 0 WHERE folder = ?1 AND path = ?2 AND here = 1 AND pk IS NOT ?3",
    )?
    .execute(params![file.folder, file.path, row])?;
    Ok(())
}

fn move_to(db: &Connection, row: i64, file: &IntakeFile, now: &Stamp) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE intake SET folder = :folder, path = :path, bytes = :bytes, mtime_ns = :mtime,
                           sha256 = :sha256, here = 1, wall_ns = :now
         WHERE pk = :row",
    )?
    .execute(named_params! {
        ":row": row,
        ":folder": file.folder,
        ":path": file.path,
        ":bytes": file.bytes.cast_signed(),
        ":mtime": file.mtime_ns,
        ":sha256": file.sha256,
        ":now": now.wall_ns,
    })?;
    Ok(())
}

fn insert(
    db: &Connection,
    file: &IntakeFile,
    (run, first_frame): (&[u8; 16], FrameId),
    now: &Stamp,
) -> rusqlite::Result<i64> {
    db.prepare_cached(
        "INSERT INTO intake (folder, path, bytes, mtime_ns, sha256, first_frame, attempts, run,
                             state, wall_ns)
         VALUES (:folder, :path, :bytes, :mtime, :sha256, :first_frame, 1, :run, 'begun', :now)",
    )?
    .execute(named_params! {
        ":folder": file.folder,
        ":path": file.path,
        ":bytes": file.bytes.cast_signed(),
        ":mtime": file.mtime_ns,
        ":sha256": file.sha256,
        ":first_frame": first_frame.as_bytes(),
        ":run": run,
        ":now": now.wall_ns,
    })?;
    Ok(db.last_insert_rowid())
}

fn set(
    db: &Connection,
    row: i64,
    (state, reason): (IntakeState, Option<&String>),
    now: &Stamp,
) -> rusqlite::Result<i64> {
    // An image in quarantine keeps the number of its deaths, for whoever looks at it.
    db.prepare_cached(
        "UPDATE intake SET state = ?2, reason = ?3, wall_ns = ?4,
             attempts = CASE ?2 WHEN 'quarantined' THEN attempts ELSE 0 END
         WHERE pk = ?1",
    )?
    .execute(params![row, state, reason, now.wall_ns])?;
    Ok(row)
}

const ROW: &str =
    "SELECT pk, path, bytes, mtime_ns, first_frame, attempts, run, state, reason, here
                   FROM intake";

fn row(row: &Row<'_>) -> rusqlite::Result<IntakeRow> {
    Ok(IntakeRow {
        pk: row.get(0)?,
        path: row.get(1)?,
        bytes: unsigned(row, 2)?,
        mtime_ns: row.get(3)?,
        first_frame: FrameId::from_bytes(row.get(4)?),
        attempts: row.get(5)?,
        run: row.get(6)?,
        state: row.get(7)?,
        reason: row.get(8)?,
        here: row.get(9)?,
    })
}

impl Reader {
    /// The image that a path of a folder holds, as far as the ledger knows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_at(&self, folder: &str, path: &str) -> Result<Option<IntakeRow>, StoreError> {
        self.with("read the ledger of the folder", |db| {
            db.prepare_cached(&format!("{ROW} WHERE folder = ?1 AND path = ?2 AND here = 1"))?
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
                each(&row.get::<_, String>(0)?, unsigned(row, 1)?, row.get(2)?);
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
                db.prepare_cached("SELECT pk, path FROM intake WHERE folder = ?1 AND here = 1")?;
            let mut rows = here.query([folder])?;
            while let Some(row) = rows.next()? {
                if !is_there(&row.get::<_, String>(1)?) {
                    missing.push(row.get(0)?);
                }
            }
            Ok(missing)
        })
    }

    /// How many pages of an image, from the first, have a result that is committed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn intake_done_pages(&self, first_frame: FrameId) -> Result<usize, StoreError> {
        self.with("read the ledger of the folder", |db| {
            let mut segmented = db.prepare_cached("SELECT segmented FROM frame WHERE id = ?1")?;
            let mut pages = 0;
            loop {
                let id = first_frame.later_by(pages as u64);
                let done: Option<bool> =
                    segmented.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
                if done != Some(true) {
                    return Ok(pages);
                }
                pages += 1;
            }
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
                 WHERE state IN ('refused', 'too_large', 'quarantined') AND here = 1 ORDER BY pk",
            )?
            .query_map([], |row| {
                Ok(IntakeEntry {
                    folder: row.get(0)?,
                    path: row.get(1)?,
                    bytes: unsigned(row, 2)?,
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
                .query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?
                .collect()
        })
    }
}
