//! The ledger of a watched folder: which image was begun, taken, refused, or left for a person.
//!
//! A row is one image: a content under a path. Its source asks before it opens a file and says
//! afterwards what became of it; both are changes ([`Change`]) that the writer commits.
//!
//! 1. A file is begun, and that is committed, before it is opened.
//! 2. It is taken only after every page of it is committed, so a kill in between loses nothing.
//! 3. What was begun and has no end is begun again, with the same frame ids: a page that was
//!    committed before is the same frame and changes nothing.
//! 4. Of each image the pages are known that became frames: what its path holds next is read page
//!    by page, and what is among them is not given again. They belong to the image that its path
//!    holds, and to one whose path is empty.
//! 5. An attempt counts once for each process, and a process that ends in order counts none.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use crate::words::words;
use reticle_base::clock::Stamp;
use reticle_base::ids::FrameId;
use reticle_domain::taken::{FileIdentity, TakenPage};

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
    /// Which file of its file system it is.
    pub identity: FileIdentity,
    /// Of its bytes.
    pub sha256: [u8; 32],
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
        /// Id of the frame of its first page: its row's, where the row has the same content.
        first_frame: FrameId,
    },
    /// A page of it is given, or stands at another place.
    Page {
        /// Its row.
        row: i64,
        /// The page.
        page: TakenPage,
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
        /// How many pages it has.
        pages: usize,
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
pub(crate) fn change(db: &Connection, change: &Change, now: &Stamp) -> rusqlite::Result<i64> {
    match change {
        Change::Begin { file, row, run, first_frame } => {
            let before = displace(db, file, *row)?;
            match row {
                Some(row) => {
                    // What another content has cost is not held against this one.
                    db.prepare_cached(
                        "UPDATE intake SET state = 'begun', reason = NULL, run = ?2,
                             attempts = CASE WHEN sha256 IS ?3 THEN attempts + (run IS NOT ?2)
                                             ELSE 1 END,
                             first_frame = ?4
                         WHERE pk = ?1",
                    )?
                    .execute(params![
                        row,
                        run,
                        file.sha256,
                        first_frame.as_bytes()
                    ])?;
                    move_to(db, *row, file, now)?;
                    Ok(*row)
                }
                None => {
                    let row = insert(db, file, (run, *first_frame), now)?;
                    db.prepare_cached("UPDATE intake_page SET intake = ?1 WHERE intake = ?2")?
                        .execute(params![row, before])?;
                    Ok(row)
                }
            }
        }
        Change::Page { row, page } => {
            db.prepare_cached(
                "INSERT OR REPLACE INTO intake_page (intake, page, sha256, frame, done)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                row,
                page.index as i64,
                page.sha256,
                page.frame.as_bytes(),
                page.done
            ])?;
            Ok(*row)
        }
        Change::Known { file, row } => {
            displace(db, file, Some(*row))?;
            move_to(db, *row, file, now)?;
            Ok(*row)
        }
        Change::Taken { row, pages } => {
            db.prepare_cached("DELETE FROM intake_page WHERE intake = ?1 AND page >= ?2")?
                .execute(params![row, *pages as i64])?;
            db.prepare_cached("UPDATE intake_page SET done = 1 WHERE intake = ?1 AND done = 0")?
                .execute([row])?;
            set(db, *row, (IntakeState::Taken, None), now)
        }
        Change::Refused { row, state, reason } => set(db, *row, (*state, Some(reason)), now),
        Change::LetGo { row } => {
            db.prepare_cached("UPDATE intake SET attempts = 0 WHERE pk = ?1 AND state = 'begun'")?
                .execute([row])?;
            Ok(*row)
        }
        Change::Gone { rows } => {
            let mut gone = db.prepare_cached("UPDATE intake SET present = 0 WHERE pk = ?1")?;
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
pub(crate) fn end_in_order(db: &Connection, run: &[u8; 16]) -> rusqlite::Result<()> {
    let unended = "UPDATE intake SET attempts = 0 WHERE state = 'begun' AND run = ?1";
    db.execute(unended, [run])?;
    Ok(())
}

/// Another image is where this file is now: it is there no longer. Gives its row.
fn displace(db: &Connection, file: &IntakeFile, row: Option<i64>) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(
        "UPDATE intake SET present = 0 WHERE folder = ?1 AND path = ?2 AND present = 1 AND pk IS NOT ?3
         RETURNING pk",
    )?
    .query_row(params![file.folder, file.path, row], |row| row.get(0))
    .optional()
}

fn move_to(db: &Connection, row: i64, file: &IntakeFile, now: &Stamp) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE intake SET folder = :folder, path = :path, bytes = :bytes, mtime_ns = :mtime,
                           sha256 = :sha256, present = 1, wall_ns = :now,
                           device = :device, inode = :inode, created_ns = :born
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
        ":device": file.identity.device.cast_signed(),
        ":inode": file.identity.inode.cast_signed(),
        ":born": file.identity.born_ns,
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
                             state, wall_ns, device, inode, created_ns)
         VALUES (:folder, :path, :bytes, :mtime, :sha256, :first_frame, 1, :run, 'begun', :now,
                 :device, :inode, :born)",
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
        ":device": file.identity.device.cast_signed(),
        ":inode": file.identity.inode.cast_signed(),
        ":born": file.identity.born_ns,
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
