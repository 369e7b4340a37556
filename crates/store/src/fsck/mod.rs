//! Checks every invariant of the store, one by one, and changes nothing.
//!
//! Works while a daemon writes (each check reads one consistent state; what changes between
//! the database and the disk is looked at twice) and while none does. The invariants, and what each
//! says, are in `report.rs` ([`Invariant::text`]). I12 to I15 are checked when the others hold: a fault
//! in the rows would only echo in them.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Row, params};

use crate::error::StoreError;
use crate::fsck::check::Check;
use crate::read::columns;
use crate::sql::schema::{self, damaged_or};
use crate::{blobs, frames, lock, recovery};
use reticle_base::ids::{FrameId, SessionId};

mod check;
mod leaving;
mod report;

pub use report::{Checked, Depth, Finding, FsckReport, Invariant};

/// Rows read at a time, so that a check of a large store holds no long transaction.
const PAGE: u32 = 256;

/// Checks the store in `folder`. `progress` is told how many of how many frames and results
/// are done.
///
/// # Errors
/// When there is no store, or it cannot be read at all. A damaged database is a finding where
/// it can be read, and [`StoreError::Damaged`] where it cannot.
pub fn fsck(
    folder: &Path,
    depth: Depth,
    progress: impl FnMut(u64, u64),
) -> Result<FsckReport, StoreError> {
    let database = schema::database_path(folder);
    std::fs::metadata(&database).map_err(StoreError::file("find the store", &database))?;
    let running = lock::is_taken(folder);
    let db = schema::open_read_only(&database)?;
    let mut check = Check {
        folder,
        depth,
        db: &db,
        // A daemon at work, or one that died: what it had in hand is not yet in the database.
        in_work: running || lock::has_owner(folder),
        progress,
        steps: (0, 0),
        report: FsckReport {
            folder: folder.to_owned(),
            running,
            quick: depth == Depth::Quick,
            checked: Checked::default(),
            broken: Vec::new(),
            broken_counts: BTreeMap::new(),
            notes: Vec::new(),
        },
    };
    let sound = check.database().map_err(damaged_or("check", &database))?;
    // In a database with broken pages every further finding would be an echo.
    if sound {
        check.contents().map_err(damaged_or("check", &database))?;
        check.unnamed_files()?;
    }
    Ok(check.report)
}

impl<P: FnMut(u64, u64)> Check<'_, P> {
    /// I1 and I2: whether there is any use in looking further.
    fn database(&mut self) -> rusqlite::Result<bool> {
        let version = schema::version(self.db)?;
        if version < schema::newest_version() {
            let what = format!(
                "schema {version}; the next start brings it to {}, then check again",
                schema::newest_version()
            );
            self.note(2, schema::DATABASE, what);
            return Ok(false);
        }
        if version > schema::newest_version() {
            let what = format!(
                "schema {version} of a newer Reticle, which this one may follow; what it added is not \
                 checked"
            );
            self.note(2, schema::DATABASE, what);
        }
        let faults: Vec<String> = self
            .db
            .prepare("PRAGMA integrity_check(100)")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut sound = true;
        for fault in faults.iter().filter(|fault| *fault != "ok") {
            self.broken(1, schema::DATABASE, fault);
            sound = false;
        }
        let dangling: Vec<String> = self
            .db
            .prepare("PRAGMA foreign_key_check")?
            .query_map([], |row| {
                let (table, pk): (String, Option<i64>) = (row.get(0)?, row.get(1)?);
                let parent: String = row.get(2)?;
                let row = pk.map_or_else(|| "a row".to_owned(), |pk| format!("row {pk}"));
                Ok(format!("{row} of {table} names a row of {parent} that is not there"))
            })?
            .collect::<rusqlite::Result<_>>()?;
        for fault in dangling {
            self.broken(1, schema::DATABASE, fault);
        }
        Ok(sound)
    }

    fn contents(&mut self) -> rusqlite::Result<()> {
        let count = |sql: &str| self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        self.report.checked.sessions = count("SELECT count(*) FROM session")?.cast_unsigned();
        self.steps.1 = count("SELECT count(*) FROM frame")?.cast_unsigned()
            + count("SELECT count(*) FROM segmentation")?.cast_unsigned();
        self.frames()?;
        self.segmentations()?;
        self.numbers()?;
        self.times()?;
        if self.report.broken_counts.is_empty() {
            return self.leaving();
        }
        // What follows from the rows above would only echo their faults.
        Ok(())
    }

    /// I3 and I4.
    fn frames(&mut self) -> rusqlite::Result<()> {
        let db = self.db;
        let mut page = db.prepare(
            "SELECT frame.pk, frame.id, session.id, frame.file, frame.file_bytes, frame.sha256,
                    frame.width, frame.height
             FROM frame LEFT JOIN session ON session.pk = frame.session
             WHERE frame.pk > ?1 ORDER BY frame.pk LIMIT ?2",
        )?;
        let mut after = 0;
        loop {
            let rows: Vec<FrameRow> =
                page.query_map(params![after, PAGE], FrameRow::read)?.collect::<Result<_, _>>()?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.pk;
            for row in rows {
                self.report.checked.frames += 1;
                self.frame(&row)?;
                self.step();
            }
        }
    }

    fn frame(&mut self, row: &FrameRow) -> rusqlite::Result<()> {
        let (Some(name), Some(session)) = (&row.file, row.session) else { return Ok(()) };
        self.report.checked.files += 1;
        let place = format!("frame {} ({name})", row.id);
        if *name != frames::file_name(session, row.id) {
            let what = format!("the file should be {}", frames::file_name(session, row.id));
            self.broken(3, place, what);
            return Ok(());
        }
        let path = self.folder.join(name);
        let found = match std::fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) => {
                // Evicted since the row was read?
                if self.still_named(name)? {
                    self.broken(3, place, format!("the file cannot be found: {error}"));
                }
                return Ok(());
            }
        };
        if found != row.bytes {
            self.broken(3, place, format!("the file has {found} bytes, not {}", row.bytes));
            return Ok(());
        }
        if self.depth == Depth::Quick {
            return Ok(());
        }
        match frames::read(&path) {
            Ok((width, height, _)) if (width, height) != (row.width, row.height) => {
                let what = format!(
                    "the file holds {width}×{height} pixels, not {}×{}",
                    row.width, row.height
                );
                self.broken(4, place, what);
            }
            Ok((_, _, pixels)) if pixels.sha256() != row.sha256 => {
                let what = format!(
                    "the pixels have the hash {}, not {}",
                    hex::encode(pixels.sha256()),
                    hex::encode(row.sha256)
                );
                self.broken(4, place, what);
            }
            Ok(_) => {}
            Err(error) => {
                if self.still_named(name)? {
                    self.broken(4, place, format!("the file cannot be read: {error}"));
                }
            }
        }
        Ok(())
    }

    fn still_named(&self, file: &str) -> rusqlite::Result<bool> {
        self.db.query_row("SELECT EXISTS (SELECT 1 FROM frame WHERE file = ?1)", [file], |row| {
            row.get(0)
        })
    }

    /// I5.
    fn unnamed_files(&mut self) -> Result<(), StoreError> {
        let database = schema::database_path(self.folder);
        let failed = || damaged_or("check", &database);
        let (found, _) = frames::list(self.folder)
            .map_err(StoreError::file("list the frame files in", self.folder))?;
        for file in found {
            if self.still_named(&file.name).map_err(failed())? || !file.path.exists() {
                continue;
            }
            let what = if file.is_temporary() {
                "is half written"
            } else if recovery::is_evicted(self.db, &file).map_err(failed())? {
                "belongs to a frame that is recorded as evicted"
            } else {
                "belongs to no recorded frame"
            };
            if self.in_work {
                let when = if self.report.running { "in work" } else { "the next start mends it" };
                self.note(5, file.name, format!("{what}; {when}"));
            } else {
                self.broken(5, file.name, what);
            }
        }
        let orphans = std::fs::read_dir(self.folder.join(recovery::ORPHANS))
            .map_or(0, |sessions| sessions.count());
        if orphans > 0 {
            let what = "holds frame files that a crash left without a record: look at them, or \
                        remove the folder";
            self.note(5, recovery::ORPHANS, what);
        }
        Ok(())
    }

    /// I6 and I7.
    fn segmentations(&mut self) -> rusqlite::Result<()> {
        let db = self.db;
        let mut page = db.prepare(
            "SELECT segmentation.pk, frame.id, frame.width, frame.height, segmentation.objects,
                    labels_sha256, iif(?3, labels, x'')
             FROM segmentation JOIN frame ON frame.pk = segmentation.frame
             WHERE segmentation.pk > ?1 ORDER BY segmentation.pk LIMIT ?2",
        )?;
        let mut after = 0;
        let full = self.depth == Depth::Full;
        loop {
            let rows: Vec<Answer> = page
                .query_map(params![after, PAGE, full], Answer::read)?
                .collect::<Result<_, _>>()?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.pk;
            for row in rows {
                self.report.checked.segmentations += 1;
                self.segmentation(&row)?;
                self.step();
            }
        }
    }

    fn segmentation(&mut self, row: &Answer) -> rusqlite::Result<()> {
        let place = format!("result {} of frame {}", row.pk, row.frame);
        let objects = columns::objects_of(self.db, row.pk)?;
        self.report.checked.objects += objects.len() as u64;
        let labelled = (1..=row.objects).eq(objects.iter().map(|object| object.label));
        if !labelled {
            let what = format!(
                "{} objects are recorded, but the labels of the {} object rows are not 1 to {}",
                row.objects,
                objects.len(),
                row.objects
            );
            self.broken(7, &place, what);
        }
        if self.depth == Depth::Quick {
            return Ok(());
        }
        let labels = match blobs::decode(&row.labels) {
            Ok(labels) => labels,
            Err(error) => {
                self.broken(6, place, error.to_string());
                return Ok(());
            }
        };
        if (labels.width(), labels.height()) != (row.width, row.height) {
            let what = format!(
                "the label image is {}×{}, its frame {}×{}",
                labels.width(),
                labels.height(),
                row.width,
                row.height
            );
            self.broken(6, &place, what);
        }
        if labels.count() != row.objects {
            let what = format!("{} objects are recorded, not {}", row.objects, labels.count());
            self.broken(6, &place, what);
        }
        if labels.sha256() != row.sha256 {
            let what = format!(
                "the label image has the hash {}, not {}",
                hex::encode(labels.sha256()),
                hex::encode(row.sha256)
            );
            self.broken(6, &place, what);
        }
        if labelled && !blobs::areas(&labels).into_iter().eq(objects.iter().map(|o| o.area)) {
            self.broken(7, place, "the areas of its objects are not those in the label image");
        }
        Ok(())
    }

    /// I8 to I10: each in one statement, so in one consistent state.
    fn numbers(&mut self) -> rusqlite::Result<()> {
        self.each(
            8,
            "SELECT 'frame ' || hex(frame.id), iif(segmented,
                    'marked as segmented, but has no result', 'has a result, but no mark')
             FROM frame WHERE segmented <>
                 EXISTS (SELECT 1 FROM segmentation WHERE segmentation.frame = frame.pk)",
        )?;
        self.each(
            9,
            "WITH held AS (
                 SELECT session, count(DISTINCT frame.pk) AS frames,
                        count(segmentation.pk) AS segmentations,
                        coalesce(sum(segmentation.objects), 0) AS objects
                 FROM frame LEFT JOIN segmentation ON segmentation.frame = frame.pk
                 GROUP BY session)
             SELECT 'session ' || hex(session.id), format(
                    'counts %d frames, %d results, %d objects; holds %d, %d, %d',
                    session.frames, session.segmentations, session.objects,
                    coalesce(held.frames, 0), coalesce(held.segmentations, 0),
                    coalesce(held.objects, 0))
             FROM session LEFT JOIN held ON held.session = session.pk
             WHERE (session.frames, session.segmentations, session.objects) IS NOT
                 (coalesce(held.frames, 0), coalesce(held.segmentations, 0),
                  coalesce(held.objects, 0))",
        )?;
        self.each(
            10,
            "WITH gone AS (
                 SELECT no_file AS reason, count(*) AS count FROM frame
                 WHERE no_file LIKE 'evicted\\_%' ESCAPE '\\' GROUP BY no_file)
             SELECT 'reason ' || coalesce(gone.reason, tally.reason), format(
                    '%d frames were evicted, %d are counted',
                    coalesce(gone.count, 0), coalesce(tally.count, 0))
             FROM gone FULL JOIN (SELECT * FROM tally WHERE kind = 'evicted') AS tally
                 ON tally.reason = gone.reason
             WHERE gone.count IS NOT tally.count",
        )
    }

    /// I11.
    fn times(&mut self) -> rusqlite::Result<()> {
        self.each(
            11,
            "SELECT 'result ' || pk, 'committed before result ' || earlier || ' of the same boot'
             FROM (SELECT pk, committed_mono_ns,
                          lag(pk) OVER boot AS earlier,
                          lag(committed_mono_ns) OVER boot AS earlier_ns
                   FROM segmentation
                   WHERE NOT EXISTS (SELECT 1 FROM adopted_result WHERE pk BETWEEN first AND last)
                   WINDOW boot AS (PARTITION BY committed_boot ORDER BY pk))
             WHERE committed_mono_ns < earlier_ns",
        )?;
        self.each(
            11,
            "SELECT 'result ' || segmentation.pk, 'committed before its frame was captured'
             FROM segmentation JOIN frame ON frame.pk = segmentation.frame
             WHERE committed_boot = captured_boot AND committed_mono_ns < captured_mono_ns",
        )?;
        self.each(
            11,
            "SELECT 'session ' || hex(id), 'ended before it started' FROM session
             WHERE ended_boot = started_boot AND ended_mono_ns < started_mono_ns",
        )
    }
}

struct FrameRow {
    pk: i64,
    id: FrameId,
    session: Option<SessionId>,
    file: Option<String>,
    bytes: u64,
    sha256: [u8; 32],
    width: u32,
    height: u32,
}

impl FrameRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            pk: row.get(0)?,
            id: FrameId::from_bytes(row.get(1)?),
            session: row.get::<_, Option<[u8; 16]>>(2)?.map(SessionId::from_bytes),
            file: row.get(3)?,
            bytes: row.get::<_, Option<i64>>(4)?.unwrap_or(0).cast_unsigned(),
            sha256: row.get(5)?,
            width: row.get(6)?,
            height: row.get(7)?,
        })
    }
}

/// A row of `segmentation`, with what its frame says of it.
struct Answer {
    pk: i64,
    frame: FrameId,
    width: u32,
    height: u32,
    objects: u32,
    sha256: [u8; 32],
    labels: Vec<u8>,
}

impl Answer {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            pk: row.get(0)?,
            frame: FrameId::from_bytes(row.get(1)?),
            width: row.get(2)?,
            height: row.get(3)?,
            objects: row.get(4)?,
            sha256: row.get(5)?,
            labels: row.get(6)?,
        })
    }
}
