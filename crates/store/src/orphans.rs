//! Frame files that were lost sight of find their rows again.
//!
//! A file goes back from `orphans/` to `frames/` only for a row of its frame, and only when it
//! holds the recorded pixels. The file comes first, then its row, as everywhere in the store:
//! killed in between, the next start puts the file back under `orphans/`.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::error::StoreError;
use crate::frames;
use crate::gap::NoFile;
use crate::recovery::ORPHANS;
use crate::sql::schema::damaged_or;
use reticle_base::crash;
use reticle_base::durable;
use reticle_base::ids::{FrameId, SessionId};

/// What became of the files that rows name.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files that are there as their rows say.
    pub(crate) there: u64,
    /// Of those, the ones that were in `orphans/`.
    pub(crate) from_orphans: u64,
    /// Keys of the frames whose file is nowhere.
    pub(crate) missing: Vec<i64>,
}

/// A frame and what its file must hold.
struct Wanted {
    pk: i64,
    session: SessionId,
    frame: FrameId,
    size: (u32, u32),
    sha256: [u8; 32],
}

/// Looks for the file of each row that names one, and brings it back where it is an orphan.
pub(crate) fn of_rows(
    folder: &Path,
    db: &Connection,
    database: &Path,
) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for wanted in
        wanted(db, "frame.file IS NOT NULL").map_err(damaged_or("read the frames of", database))?
    {
        let path = folder.join(frames::file_name(wanted.session, wanted.frame));
        if bytes_of(&path, &wanted).is_some() {
            found.there += 1;
        } else if bring_back(folder, &wanted)?.is_some() {
            found.there += 1;
            found.from_orphans += 1;
        } else {
            found.missing.push(wanted.pk);
        }
    }
    Ok(found)
}

/// Takes the files of these frames out of their rows: they are not there any more.
pub(crate) fn without_file(db: &Connection, frames: &[i64]) -> rusqlite::Result<()> {
    // What was to be archived and is gone cannot be archived any more; adopting finds out whether
    // the archive has it.
    let mut forget = db.prepare_cached(
        "UPDATE frame SET file = NULL, file_bytes = NULL, no_file = ?2,
                          archived = iif(archived = 1, 0, archived)
         WHERE pk = ?1",
    )?;
    for frame in frames {
        forget.execute(params![frame, NoFile::NotRestored])?;
    }
    Ok(())
}

/// A file that is back under `frames/`, and not yet in its row.
pub(crate) struct Back {
    pub(crate) frame: i64,
    name: String,
    bytes: u64,
}

/// Brings back the files that `orphans/` has for frames whose rows came back without one.
pub(crate) fn bring_all_back(
    folder: &Path,
    db: &Connection,
    database: &Path,
) -> Result<Vec<Back>, StoreError> {
    let failed = || damaged_or("give a frame its file again in", database);
    let mut back = Vec::new();
    for wanted in wanted(db, "frame.no_file = 'not_restored'").map_err(failed())? {
        let Some(bytes) = bring_back(folder, &wanted)? else { continue };
        crash::point("orphan brought back");
        let name = frames::file_name(wanted.session, wanted.frame);
        back.push(Back { frame: wanted.pk, name, bytes });
    }
    Ok(back)
}

/// Gives a frame its file again.
pub(crate) fn give_file(db: &Connection, back: &Back) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE frame SET file = ?2, file_bytes = ?3, no_file = NULL WHERE pk = ?1")?
        .execute(params![back.frame, back.name, back.bytes.cast_signed()])?;
    Ok(())
}

fn wanted(db: &Connection, which: &str) -> rusqlite::Result<Vec<Wanted>> {
    db.prepare(&format!(
        "SELECT frame.pk, session.id, frame.id, frame.width, frame.height, frame.sha256
         FROM frame JOIN session ON session.pk = frame.session WHERE {which} ORDER BY frame.pk"
    ))?
    .query_map([], |row| {
        Ok(Wanted {
            pk: row.get(0)?,
            session: SessionId::from_bytes(row.get(1)?),
            frame: FrameId::from_bytes(row.get(2)?),
            size: (row.get(3)?, row.get(4)?),
            sha256: row.get(5)?,
        })
    })?
    .collect()
}

/// Size of the file, if it holds the frame.
fn bytes_of(path: &Path, wanted: &Wanted) -> Option<u64> {
    let bytes = fs::metadata(path).ok()?.len();
    let (width, height, pixels) = frames::read(path).ok()?;
    ((width, height) == wanted.size && pixels.sha256() == wanted.sha256).then_some(bytes)
}

/// Moves the frame's file from `orphans/` to its place, if it is there and holds the frame; its
/// size.
fn bring_back(folder: &Path, wanted: &Wanted) -> Result<Option<u64>, StoreError> {
    let target = folder.join(frames::file_name(wanted.session, wanted.frame));
    let orphan = orphan(folder, wanted);
    let Some(bytes) = bytes_of(&orphan, wanted) else { return Ok(None) };
    let parent = target.parent().unwrap_or(folder);
    durable::create_dir(parent).map_err(StoreError::file("make the folder", parent))?;
    fs::rename(&orphan, &target).map_err(StoreError::file("bring back", &orphan))?;
    for side in [Some(parent), orphan.parent()].into_iter().flatten() {
        durable::sync_dir(side).map_err(StoreError::file("fsync", side))?;
    }
    if let Some(emptied) = orphan.parent() {
        // Only tidiness: it stays where others are in it.
        fs::remove_dir(emptied).ok();
    }
    Ok(Some(bytes))
}

fn orphan(folder: &Path, wanted: &Wanted) -> PathBuf {
    let name = frames::file_name(wanted.session, wanted.frame);
    let inner = Path::new(&name).strip_prefix(frames::FRAMES).unwrap_or(Path::new(&name));
    folder.join(ORPHANS).join(inner)
}
