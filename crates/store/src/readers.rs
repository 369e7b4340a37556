//! Reading: any number of read-only connections beside the one writer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::StoreError;
use super::job::NoFile;
use super::reach::Reach;
use super::rows;
use super::schema::{self, damaged_or};
use super::told::Counted;
use super::{blobs, facts, frames};
use reticle_base::clock::rfc3339;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::frame::{Pixels, Place};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::{ScaleFrom, Unlike};
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::Timings;

/// A saved result, without its pixels and labels. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SavedFrame {
    /// Place in the order of commits, within one epoch of the store.
    pub cursor: u64,
    /// The frame.
    pub id: FrameId,
    /// Session it belongs to.
    pub session: SessionId,
    /// Number that the source counted.
    pub sequence: u64,
    /// When it was captured.
    pub captured: String,
    /// When the result was committed.
    pub committed: String,
    /// SHA-256 of its pixels, in hex.
    pub sha256: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Used bits of a pixel.
    pub bit_depth: u8,
    /// Exposure in microseconds, where known.
    pub exposure_us: Option<u32>,
    /// Edge of a pixel in the sample, in µm, where known.
    pub pixel_size_um: Option<f64>,
    /// Who stated that size: the configuration, or what in the file.
    pub pixel_size_source: Option<PixelSizeSource>,
    /// What a person should know of it: sources that disagree, an implausible size that was left.
    pub pixel_size_note: Option<String>,
    /// Where on the plate.
    pub place: Place,
    /// File it came from, where it was a file.
    pub origin: Option<String>,
    /// Frame file, relative to the data folder, while it is kept.
    pub file: Option<String>,
    /// Why there is no file, where there is none.
    pub no_file: Option<NoFile>,
    /// Number of objects.
    pub objects: u32,
    /// Focus score, 0 to 1.
    pub focus: f32,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model, in hex.
    pub model_sha256: String,
    /// SHA-256 of the label image, in hex; see [`LabelImage::sha256`].
    pub labels_sha256: String,
    /// Where the time went.
    pub timings: Timings,
    /// Who said how large objects are; `None` for results of other programs and of before 0.2.
    pub scale_from: Option<ScaleFrom>,
    /// How many times as long an edge of the picture was made for the model.
    pub scale: Option<f32>,
    /// How many times as large as stated the objects look, where it is more than 2 or less than 0.5.
    pub size_ratio: Option<f32>,
    /// In which way the picture is unlike what the model was trained on, where it is.
    pub unlike: Option<Unlike>,
}

/// A session and what it holds. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SessionSummary {
    /// Which.
    pub id: SessionId,
    /// What people call it.
    pub name: String,
    /// Specification of its source.
    pub source: String,
    /// Fluorophore or contrast.
    pub channel: Option<String>,
    /// Who acquired it.
    pub operator: Option<String>,
    /// Edge of a pixel in the sample, in µm, where configured.
    pub pixel_size_um: Option<f64>,
    /// When it began.
    pub started: String,
    /// When it ended; `None` while it is open or when the daemon died in it.
    pub ended: Option<String>,
    /// Frames recorded.
    pub frames: u64,
    /// Results saved.
    pub segmentations: u64,
    /// Objects in them.
    pub objects: u64,
}

/// The pixels of a kept frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Used bits of a pixel.
    pub bit_depth: u8,
    /// The grey values; their hash was compared with the record's.
    pub pixels: Pixels,
}

/// The store in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Sessions.
    pub sessions: u64,
    /// Frames recorded.
    pub frames: u64,
    /// Results saved.
    pub segmentations: u64,
    /// Objects in them.
    pub objects: u64,
    /// Frame files on the disk.
    pub kept_files: u64,
    /// Bytes they take.
    pub kept_bytes: u64,
    /// Of those, not yet segmented by any model.
    pub backlog: u64,
    /// Frame files evicted so far.
    pub evicted: u64,
}

/// Connections kept open for the next call; more may be in use at one time.
const POOL: usize = 4;

/// Most rows of one answer: a larger limit is cut to it, so that no request fills the memory.
pub(super) const MAX_ROWS: u32 = 10_000;

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
    pub(super) fn of(folder: &Path, reach: Reach) -> Self {
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

    /// All sessions, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionSummary>, StoreError> {
        self.with("read the sessions", |db| {
            db.prepare_cached(
                "SELECT id, name, source, channel, operator, pixel_size_um, started_wall_ns,
                        ended_wall_ns, frames, segmentations, objects
                 FROM session ORDER BY pk DESC",
            )?
            .query_map([], |row| {
                Ok(SessionSummary {
                    id: SessionId::from_bytes(row.get(0)?),
                    name: row.get(1)?,
                    source: row.get(2)?,
                    channel: row.get(3)?,
                    operator: row.get(4)?,
                    pixel_size_um: row.get(5)?,
                    started: rfc3339(row.get(6)?),
                    ended: row.get::<_, Option<i64>>(7)?.map(rfc3339),
                    frames: unsigned(row, 8)?,
                    segmentations: unsigned(row, 9)?,
                    objects: unsigned(row, 10)?,
                })
            })?
            .collect()
        })
    }

    /// Up to `limit` results (10,000 at most) in the order of commits, after the one with this
    /// cursor.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn saved_frames(
        &self,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<SavedFrame>, StoreError> {
        let after = i64::try_from(after.unwrap_or(0)).unwrap_or(i64::MAX);
        self.with("list saved frames", |db| {
            db.prepare_cached(&format!(
                "{SAVED_FRAME} WHERE segmentation.pk > ?1 ORDER BY segmentation.pk LIMIT ?2"
            ))?
            .query_map(params![after, limit.min(MAX_ROWS)], saved_frame)?
            .collect()
        })
    }

    /// Up to `limit` results (10,000 at most), newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn newest_frames(&self, limit: u32) -> Result<Vec<SavedFrame>, StoreError> {
        self.with("list saved frames", |db| {
            db.prepare_cached(&format!("{SAVED_FRAME} ORDER BY segmentation.pk DESC LIMIT ?1"))?
                .query_map([limit.min(MAX_ROWS)], saved_frame)?
                .collect()
        })
    }

    /// The newest result of a frame; `None` if there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn frame(&self, id: FrameId) -> Result<Option<SavedFrame>, StoreError> {
        self.with("read a frame", |db| {
            db.prepare_cached(&format!(
                "{SAVED_FRAME} WHERE frame.id = ?1 ORDER BY segmentation.pk DESC LIMIT 1"
            ))?
            .query_row([id.as_bytes()], saved_frame)
            .optional()
        })
    }

    /// The label image of the frame's newest result, its hash checked.
    ///
    /// # Errors
    /// When the database cannot be read or the labels are damaged.
    pub fn labels(&self, id: FrameId) -> Result<Option<LabelImage>, StoreError> {
        let stored = self.with("read a label image", |db| {
            db.prepare_cached(
                "SELECT labels, labels_sha256 FROM segmentation
                 WHERE frame = (SELECT pk FROM frame WHERE id = ?1) ORDER BY pk DESC LIMIT 1",
            )?
            .query_row([id.as_bytes()], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 32]>(1)?))
            })
            .optional()
        })?;
        let Some((bytes, sha256)) = stored else { return Ok(None) };
        let what = "read the label image";
        let labels = blobs::decode(&bytes).map_err(|error| StoreError::Unfit {
            what,
            frame: id,
            why: error.to_string(),
        })?;
        if labels.sha256() != sha256 {
            let why = "its hash is not the recorded one: run `reticle fsck`".to_owned();
            return Err(StoreError::Unfit { what, frame: id, why });
        }
        Ok(Some(labels))
    }

    /// The objects of the frame's newest result, by label.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn objects(&self, id: FrameId) -> Result<Option<Vec<Object>>, StoreError> {
        self.with("read the objects of a frame", |db| {
            let newest: Option<i64> = db
                .prepare_cached(
                    "SELECT max(pk) FROM segmentation
                     WHERE frame = (SELECT pk FROM frame WHERE id = ?1)",
                )?
                .query_row([id.as_bytes()], |row| row.get(0))?;
            let Some(newest) = newest else { return Ok(None) };
            objects_of(db, newest).map(Some)
        })
    }

    /// The frame's pixels, their hash checked; `None` if there is no such frame or it has no
    /// file.
    ///
    /// # Errors
    /// When the database or the file cannot be read, or the pixels are damaged.
    pub fn pixels(&self, id: FrameId) -> Result<Option<StoredPixels>, StoreError> {
        let Some((file, sha256, bit_depth)) = self.file_of(id)? else { return Ok(None) };
        let what = "read the pixels";
        match frames::read(&self.0.folder.join(&file)) {
            Ok((width, height, pixels)) if pixels.sha256() == sha256 => {
                Ok(Some(StoredPixels { width, height, bit_depth, pixels }))
            }
            Ok(_) => Err(StoreError::Unfit {
                what,
                frame: id,
                why: format!("the hash of {file} is not the recorded one: run `reticle fsck`"),
            }),
            // Evicted between the look into the database and the look at the file?
            Err(_) if self.file_of(id)?.is_none() => Ok(None),
            Err(error) => {
                Err(StoreError::Unfit { what, frame: id, why: format!("{file}: {error}") })
            }
        }
    }

    /// The store in a few numbers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        self.with("read the totals", |db| {
            let mut totals = db
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(frames), 0), coalesce(sum(segmentations), 0),
                            coalesce(sum(objects), 0) FROM session",
                )?
                .query_row([], |row| {
                    Ok(Totals {
                        sessions: unsigned(row, 0)?,
                        frames: unsigned(row, 1)?,
                        segmentations: unsigned(row, 2)?,
                        objects: unsigned(row, 3)?,
                        ..Totals::default()
                    })
                })?;
            // All three from the index of files alone.
            (totals.kept_files, totals.kept_bytes, totals.backlog) = db
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(file_bytes), 0), count(*) - total(segmented)
                     FROM frame WHERE file IS NOT NULL",
                )?
                .query_row([], |row| {
                    Ok((unsigned(row, 0)?, unsigned(row, 1)?, row.get::<_, f64>(2)? as u64))
                })?;
            totals.evicted = db
                .prepare_cached("SELECT coalesce(sum(count), 0) FROM tally WHERE kind = 'evicted'")?
                .query_row([], |row| unsigned(row, 0))?;
            Ok(totals)
        })
    }

    fn file_of(&self, id: FrameId) -> Result<Option<(String, [u8; 32], u8)>, StoreError> {
        self.with("read a frame", |db| {
            db.prepare_cached(
                "SELECT file, sha256, bit_depth FROM frame WHERE id = ?1 AND file IS NOT NULL",
            )?
            .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
        })
    }

    /// What was counted of each stream, to be counted on.
    pub(super) fn counted(&self) -> MutexGuard<'_, [Option<Counted>; 2]> {
        self.0.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event that cannot be read is met for the first time: it is logged once, not
    /// at every look.
    pub(super) fn is_first_look_at(&self, event: i64) -> bool {
        self.0.unreadable.fetch_max(event, Ordering::Relaxed) < event
    }

    /// Runs `query` on a connection that nobody else uses meanwhile.
    pub(super) fn with<T>(
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

const SAVED_FRAME: &str = "SELECT segmentation.pk, frame.id, session.id, frame.sequence,
        frame.captured_wall_ns, segmentation.committed_wall_ns, frame.sha256, frame.width,
        frame.height, frame.bit_depth, frame.exposure_us, frame.pixel_size_um, frame.plate,
        frame.well, frame.field, frame.origin, frame.file, frame.no_file, segmentation.objects,
        segmentation.focus, model.name, model.sha256, segmentation.labels_sha256,
        segmentation.normalise_us, segmentation.network_us, segmentation.instances_us,
        segmentation.measure_us, frame.pixel_size_source, frame.pixel_size_note,
        look.scale_from, look.scale, look.size_ratio, look.unlike
     FROM segmentation
     JOIN frame ON frame.pk = segmentation.frame
     JOIN session ON session.pk = frame.session
     JOIN model ON model.pk = segmentation.model
     LEFT JOIN look ON look.segmentation = segmentation.pk";

fn saved_frame(row: &Row<'_>) -> rusqlite::Result<SavedFrame> {
    let look = rows::look(row, 29)?;
    Ok(SavedFrame {
        cursor: unsigned(row, 0)?,
        id: FrameId::from_bytes(row.get(1)?),
        session: SessionId::from_bytes(row.get(2)?),
        sequence: unsigned(row, 3)?,
        captured: rfc3339(row.get(4)?),
        committed: rfc3339(row.get(5)?),
        sha256: hex::encode(row.get::<_, [u8; 32]>(6)?),
        width: row.get(7)?,
        height: row.get(8)?,
        bit_depth: row.get(9)?,
        exposure_us: row.get(10)?,
        pixel_size_um: row.get(11)?,
        pixel_size_source: facts::pixel_size_source(row, 27)?,
        pixel_size_note: row.get(28)?,
        place: Place { plate: row.get(12)?, well: row.get(13)?, field: row.get(14)? },
        origin: row.get(15)?,
        file: row.get(16)?,
        no_file: row.get(17)?,
        objects: row.get(18)?,
        focus: row.get::<_, Option<f32>>(19)?.unwrap_or(f32::NAN),
        model: row.get(20)?,
        model_sha256: row.get(21)?,
        labels_sha256: hex::encode(row.get::<_, [u8; 32]>(22)?),
        timings: Timings {
            normalise_us: unsigned(row, 23)?,
            network_us: unsigned(row, 24)?,
            instances_us: unsigned(row, 25)?,
            measure_us: unsigned(row, 26)?,
        },
        scale_from: look.map(|look| look.scale_from),
        scale: look.map(|look| look.scale),
        size_ratio: look.and_then(|look| look.size_ratio),
        unlike: look.and_then(|look| look.unlike),
    })
}

/// The objects of one result, by label.
pub(super) fn objects_of(db: &Connection, segmentation: i64) -> rusqlite::Result<Vec<Object>> {
    db.prepare_cached(
        r#"SELECT label, area, "centroid-0", "centroid-1", "bbox-0", "bbox-1", "bbox-2", "bbox-3",
                  perimeter, eccentricity, solidity, major_axis_length, minor_axis_length,
                  orientation, intensity_mean, intensity_max, intensity_min, touches_border
           FROM object WHERE segmentation = ?1 ORDER BY label"#,
    )?
    .query_map([segmentation], |row| {
        Ok(Object {
            label: row.get(0)?,
            area: row.get(1)?,
            centroid_0: float(row, 2)?,
            centroid_1: float(row, 3)?,
            bbox_0: row.get(4)?,
            bbox_1: row.get(5)?,
            bbox_2: row.get(6)?,
            bbox_3: row.get(7)?,
            perimeter: float(row, 8)?,
            eccentricity: float(row, 9)?,
            solidity: float(row, 10)?,
            major_axis_length: float(row, 11)?,
            minor_axis_length: float(row, 12)?,
            orientation: float(row, 13)?,
            intensity_mean: float(row, 14)?,
            intensity_max: float(row, 15)?,
            intensity_min: float(row, 16)?,
            touches_border: row.get(17)?,
        })
    })?
    .collect()
}

/// What is not a number is null in the database.
pub(super) fn float(row: &Row<'_>, at: usize) -> rusqlite::Result<f64> {
    Ok(row.get::<_, Option<f64>>(at)?.unwrap_or(f64::NAN))
}

pub(super) fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}
