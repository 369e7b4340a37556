//! Saved results and sessions, for people: lists, label images, objects, pixels, totals.

use rusqlite::{OptionalExtension, Row, params};

use crate::error::StoreError;
use crate::gap::NoFile;
use crate::read::columns;
use crate::read::reader::{MAX_ROWS, Reader};
use crate::sql::identity::{self, Identity};
use crate::{blobs, frames};
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

impl Reader {
    /// Who the store is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn identity(&self) -> Result<Identity, StoreError> {
        self.with("read who the store is", identity::identity)
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
                    frames: columns::unsigned(row, 8)?,
                    segmentations: columns::unsigned(row, 9)?,
                    objects: columns::unsigned(row, 10)?,
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
            columns::objects_of(db, newest).map(Some)
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
        match frames::read(&self.folder().join(&file)) {
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
                        sessions: columns::unsigned(row, 0)?,
                        frames: columns::unsigned(row, 1)?,
                        segmentations: columns::unsigned(row, 2)?,
                        objects: columns::unsigned(row, 3)?,
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
                    Ok((
                        columns::unsigned(row, 0)?,
                        columns::unsigned(row, 1)?,
                        row.get::<_, f64>(2)? as u64,
                    ))
                })?;
            totals.evicted = db
                .prepare_cached("SELECT coalesce(sum(count), 0) FROM tally WHERE kind = 'evicted'")?
                .query_row([], |row| columns::unsigned(row, 0))?;
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
}

const SAVED_FRAME: &str = "SELECT segmentation.pk, frame.id, session.id, frame.sequence,
        frame.captured_wall_ns, segmentation.committed_wall_ns, frame.sha256, frame.width,
        frame.height, frame.bit_depth, frame.exposure_us, frame.pixel_size_um, frame.plate,
        frame.well, frame.field, frame.origin, frame.file, frame.no_file, segmentation.objects,
        segmentation.focus, model.name, model.sha256, segmentation.labels_sha256,
        segmentation.normalise_us, segmentation.network_us, segmentation.instances_us,
        segmentation.measure_us, frame.pixel_size_source, frame.pixel_size_note,
        segmentation.scale_from, segmentation.scale, segmentation.size_ratio,
        segmentation.unlike
     FROM segmentation
     JOIN frame ON frame.pk = segmentation.frame
     JOIN session ON session.pk = frame.session
     JOIN model ON model.pk = segmentation.model";

fn saved_frame(row: &Row<'_>) -> rusqlite::Result<SavedFrame> {
    let look = columns::look(row, 29)?;
    Ok(SavedFrame {
        cursor: columns::unsigned(row, 0)?,
        id: FrameId::from_bytes(row.get(1)?),
        session: SessionId::from_bytes(row.get(2)?),
        sequence: columns::unsigned(row, 3)?,
        captured: rfc3339(row.get(4)?),
        committed: rfc3339(row.get(5)?),
        sha256: hex::encode(row.get::<_, [u8; 32]>(6)?),
        width: row.get(7)?,
        height: row.get(8)?,
        bit_depth: row.get(9)?,
        exposure_us: row.get(10)?,
        pixel_size_um: row.get(11)?,
        pixel_size_source: columns::pixel_size_source(row, 27)?,
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
            normalise_us: columns::unsigned(row, 23)?,
            network_us: columns::unsigned(row, 24)?,
            instances_us: columns::unsigned(row, 25)?,
            measure_us: columns::unsigned(row, 26)?,
        },
        scale_from: look.map(|look| look.scale_from),
        scale: look.map(|look| look.scale),
        size_ratio: look.and_then(|look| look.size_ratio),
        unlike: look.and_then(|look| look.unlike),
    })
}
