//! What [`Store::open`](crate::Store::open) mends after a crash, before anything is written.
//!
//! # Recover, in order
//!
//! 1. The folder's lock is taken: nobody else writes.
//! 2. SQLite replays its log: every commit that returned is there, no other is.
//! 3. After an unclean end, `PRAGMA quick_check`: a damaged database is refused, not mended.
//! 4. Half-written files (`.tmp`) are removed: they were never promised.
//! 5. A file whose frame is recorded as evicted is removed: the eviction had been committed.
//! 6. Any other file that no row names is moved to `orphans/`: its frame was captured, but
//!    never reported as kept. After a crash these are the files of one batch at most; after a
//!    database was restored from a backup they are everything since, so they are not deleted.
//! 7. Frame files that rows name and that are not there are counted and reported: that is
//!    damage from outside (`reticle fsck` names each).
//! 8. What was found is written into the store's logbook (table `store_log`).

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;
use crate::frames::{self, Found};
use crate::sql::log;
use crate::sql::schema::damaged_or;
use reticle_base::clock::Clock;
use reticle_base::crash;
use reticle_base::durable;

/// Folder for frame files of which the database knows nothing.
pub(crate) const ORPHANS: &str = "orphans";

/// What opening the store found and mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Recovery {
    /// Whether the last owner of the folder ended without closing it.
    pub unclean: bool,
    /// Half-written files that were removed.
    pub temporaries: u64,
    /// Evicted frame files whose deletion was completed.
    pub evictions_completed: u64,
    /// Frame files of which the database knows nothing, moved to `orphans/`.
    pub orphans: u64,
    /// Frame files that the database names and that are not there.
    pub missing: u64,
}

impl Recovery {
    fn is_worth_a_note(&self) -> bool {
        *self != Self::default()
    }
}

/// Steps 3 to 8. Gives the report and the bytes of all frame files.
pub(crate) fn recover(
    folder: &Path,
    database: &Path,
    connection: &Connection,
    clock: &Clock,
    unclean: bool,
) -> Result<(Recovery, u64), StoreError> {
    let mut report = Recovery { unclean, ..Recovery::default() };
    if unclean {
        quick_check(connection, database)?;
    }
    let failed = || damaged_or("recover", database);
    let named = named_files(connection).map_err(failed())?;
    let (found, empty_folders) =
        frames::list(folder).map_err(StoreError::file("list the frame files in", folder))?;
    let mut present = 0;
    for file in &found {
        if named.contains(&file.name) {
            present += 1;
        } else if file.is_temporary() {
            durable::remove(&file.path).map_err(StoreError::file("remove", &file.path))?;
            report.temporaries += 1;
        } else if is_evicted(connection, file).map_err(failed())? {
            durable::remove(&file.path).map_err(StoreError::file("remove", &file.path))?;
            report.evictions_completed += 1;
        } else {
            set_aside(folder, file)?;
            report.orphans += 1;
        }
    }
    for path in empty_folders {
        // Only tidiness: a frame file makes its folder again.
        fs::remove_dir(path).ok();
    }
    report.missing = (named.len() as u64).saturating_sub(present);
    crash::point("recovered");
    if report.is_worth_a_note() {
        let detail = serde_json::to_value(&report).unwrap_or_default();
        log::note(connection, &clock.now(), "recovered", &detail).map_err(failed())?;
        crash::point("recovery written");
    }
    let kept_bytes: i64 = connection
        .query_row(
            "SELECT coalesce(sum(file_bytes), 0) FROM frame WHERE file IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .map_err(failed())?;
    Ok((report, kept_bytes.cast_unsigned()))
}

fn quick_check(connection: &Connection, database: &Path) -> Result<(), StoreError> {
    let bytes = fs::metadata(database).map_or(0, |meta| meta.len());
    tracing::info!(bytes, "the last run ended without closing the store; checking the database");
    let answer: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(damaged_or("check the database", database))?;
    if answer == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged { path: database.to_owned(), detail: answer })
}

fn named_files(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    connection
        .prepare("SELECT file FROM frame WHERE file IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Whether the file's frame is recorded, without this file.
pub(crate) fn is_evicted(connection: &Connection, file: &Found) -> rusqlite::Result<bool> {
    let Some(id) = file.frame() else { return Ok(false) };
    let reason: Option<Option<String>> = connection
        .prepare_cached("SELECT no_file FROM frame WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(reason.flatten().is_some_and(|reason| reason.starts_with("evicted_")))
}

fn set_aside(folder: &Path, file: &Found) -> Result<(), StoreError> {
    let target = folder
        .join(ORPHANS)
        .join(Path::new(&file.name).strip_prefix(frames::FRAMES).unwrap_or(Path::new(&file.name)));
    let parent = target.parent().unwrap_or(folder);
    durable::create_dir_private(parent, folder)
        .map_err(StoreError::file("make the folder", parent))?;
    fs::rename(&file.path, &target).map_err(StoreError::file("move to orphans", &file.path))?;
    crash::point("orphan moved");
    for side in [Some(parent), file.path.parent()].into_iter().flatten() {
        durable::sync_dir(side).map_err(StoreError::file("fsync", side))?;
    }
    tracing::warn!(
        file = file.name,
        moved_to = %target.display(),
        "a frame file that the database does not know was set aside"
    );
    Ok(())
}
