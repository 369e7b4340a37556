//! What leaves the box, read from the store: sessions, series, frames, results, and how far
//! their deliveries are.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::blobs;
use super::error::StoreError;
use super::outbox::{Destination, Item, Kind};
use super::readers::{self, Reader, float, unsigned};
use super::rows::{self, LOOK};
use reticle_base::clock::rfc3339;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::facts::{Dated, FrameFacts, ModelFacts, ResultFacts, Series, SessionFacts};
use reticle_domain::frame::Place;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::{ModelRef, Timings};

/// How far one destination is. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Delivery {
    /// Which.
    pub destination: Destination,
    /// Where it is, as `s3://lab/box-1`.
    pub place: String,
    /// Deliveries that are to be made, each of up to 64 frames.
    pub waiting: u64,
    /// Frames and results in them that no receipt covers.
    pub waiting_rows: u64,
    /// Deliveries that were never taken and are not tried again by themselves.
    pub quarantined: u64,
    /// Single frames and results that were never taken.
    pub refused: u64,
    /// Deliveries made.
    pub done: u64,
    /// When the oldest row that waits came.
    pub oldest: Option<String>,
    /// Why the last attempt failed, while it does, or why nothing is delivered there.
    pub reason: Option<String>,
    /// What was found there that this store does not know. Nothing is delivered there then, until
    /// a person has decided (`reticle sync adopt`).
    pub conflict: Option<String>,
}

/// A delivery that was never taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// Where to.
    pub destination: Destination,
    /// What.
    pub kind: Kind,
    /// Of which session.
    pub session: SessionId,
    /// Number of the series in it, where it is a part of one.
    pub series: Option<u32>,
    /// Number of the part.
    pub part: Option<u64>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was not taken.
    pub reason: String,
}

/// A frame or result that was never taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refused {
    /// Where to.
    pub destination: Destination,
    /// Frames, results, or pixels.
    pub kind: Kind,
    /// The frame.
    pub frame: FrameId,
    /// Why it was not taken.
    pub reason: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
}

/// The store's own keys of what a destination can never take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedKeys {
    /// Frames.
    pub frames: HashSet<i64>,
    /// Results.
    pub results: HashSet<i64>,
}

/// What a destination has, as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    /// What it is part of.
    pub kind: Kind,
    /// Its key at the destination.
    pub key: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// What the destination calls this content.
    pub etag: String,
    /// Rows in it.
    pub rows: u64,
}

impl Reader {
    /// What is known of a session; `None` if there is no such.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn session_facts(&self, id: SessionId) -> Result<Option<SessionFacts>, StoreError> {
        self.with("read a session", |db| {
            db.prepare_cached(
                "SELECT session.id, session.name, session.source, session.channel,
                        session.operator, session.pixel_size_um,
                        coalesce(session.started_mono_ns + begin.offset_ns,
                                 session.started_wall_ns),
                        session.started_wall_ns, session.started_mono_ns, begin.id,
                        coalesce(session.ended_mono_ns + end.offset_ns, session.ended_wall_ns),
                        session.ended_wall_ns, session.ended_mono_ns, end.id,
                        session.frames, session.segmentations, session.objects,
                        session.archive_date
                 FROM session JOIN boot AS begin ON begin.pk = session.started_boot
                 LEFT JOIN boot AS end ON end.pk = session.ended_boot
                 WHERE session.id = ?1",
            )?
            .query_row([id.as_bytes()], session_facts)
            .optional()
        })
    }

    /// The series of a session, by number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn series(&self, session: SessionId) -> Result<Vec<Series>, StoreError> {
        self.with("read the series of a session", |db| {
            db.prepare_cached(
                "SELECT series.pk, session.id, series.number, series.width, series.height,
                        series.bytes_per_pixel, series.part_frames, series.frames
                 FROM series JOIN session ON session.pk = series.session
                 WHERE session.id = ?1 ORDER BY series.number",
            )?
            .query_map([session.as_bytes()], |row| {
                Ok(Series {
                    pk: row.get(0)?,
                    session: SessionId::from_bytes(row.get(1)?),
                    number: row.get(2)?,
                    width: row.get(3)?,
                    height: row.get(4)?,
                    bytes_per_pixel: row.get(5)?,
                    part_frames: row.get(6)?,
                    frames: unsigned(row, 7)?,
                })
            })?
            .collect()
        })
    }

    /// The frames of a series at these positions, in their order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn frames_of(
        &self,
        series: &Series,
        positions: Range<u64>,
    ) -> Result<Vec<FrameFacts>, StoreError> {
        self.with("read the frames of a series", |db| frames_of(db, series, positions))
    }

    /// Those of these frames that an archive is to have, or has, with their pixels.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn archived_frames_of(
        &self,
        series: &Series,
        positions: Range<u64>,
    ) -> Result<Vec<FrameFacts>, StoreError> {
        self.with("read the frames to archive", |db| {
            let mut frames = frames_of(db, series, positions)?;
            let mut archived = db.prepare_cached("SELECT archived > 0 FROM frame WHERE pk = ?1")?;
            let mut wanted = Vec::with_capacity(frames.len());
            for frame in frames.drain(..) {
                if archived.query_row([frame.pk], |row| row.get(0))? {
                    wanted.push(frame);
                }
            }
            Ok(wanted)
        })
    }

    /// The models that answered to frames of a session, in the order of their first use.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn models_of(&self, session: SessionId) -> Result<Vec<ModelFacts>, StoreError> {
        self.with("read the models of a session", |db| {
            db.prepare_cached(&format!(
                "{MODEL} WHERE pk IN (SELECT model FROM field_sum
                     WHERE session = (SELECT pk FROM session WHERE id = ?1)) ORDER BY pk"
            ))?
            .query_map([session.as_bytes()], model_facts)?
            .collect()
        })
    }

    /// A model by the store's own key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn model(&self, pk: i64) -> Result<Option<ModelFacts>, StoreError> {
        self.with("read a model", |db| model_of(db, pk).optional())
    }

    /// The answers of one model to the frames at these positions, in their order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn results_of(
        &self,
        series: &Series,
        model: &ModelFacts,
        positions: Range<u64>,
    ) -> Result<Vec<ResultFacts>, StoreError> {
        self.with("read the results of a series", |db| {
            // One transaction: a result's frame is there when the result is.
            let read = db.unchecked_transaction()?;
            let frames: HashMap<i64, Arc<FrameFacts>> =
                frames_of(&read, series, positions.clone())?
                    .into_iter()
                    .map(|frame| (frame.pk, Arc::new(frame)))
                    .collect();
            let model = Arc::new(model.clone());
            let mut statement = read.prepare_cached(&format!(
                "SELECT {RESULT}, {LOOK}, segmentation.frame
                 FROM frame JOIN segmentation ON segmentation.frame = frame.pk
                 JOIN boot AS committed_in ON committed_in.pk = segmentation.committed_boot
                 WHERE frame.series = ?1 AND frame.position >= ?2 AND frame.position < ?3
                   AND segmentation.model = ?4
                 ORDER BY frame.position"
            ))?;
            let rows = statement.query_map(
                params![
                    series.pk,
                    positions.start.cast_signed(),
                    positions.end.cast_signed(),
                    model.pk
                ],
                |row| {
                    let frame = frames
                        .get(&row.get(RESULT_COLUMNS)?)
                        .cloned()
                        .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                    result_facts(row, 0, frame, Arc::clone(&model))
                },
            )?;
            rows.collect()
        })
    }

    /// The label image of a result, its hash checked.
    ///
    /// # Errors
    /// When the database cannot be read or the labels are damaged.
    pub fn labels_of(&self, result: &ResultFacts) -> Result<LabelImage, StoreError> {
        let packed: Vec<u8> = self.with("read a label image", |db| {
            db.prepare_cached("SELECT labels FROM segmentation WHERE pk = ?1")?
                .query_row([result.pk], |row| row.get(0))
        })?;
        let (what, frame) = ("read the label image", result.frame.id);
        let unfit = |why: String| StoreError::Unfit { what, frame, why };
        let labels = blobs::decode(&packed).map_err(|error| unfit(error.to_string()))?;
        if labels.sha256() != result.labels_sha256 {
            return Err(unfit("its hash is not the recorded one: run `reticle fsck`".to_owned()));
        }
        Ok(labels)
    }

    /// The objects of a result, by label.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn objects_of(&self, result: &ResultFacts) -> Result<Vec<Object>, StoreError> {
        self.with("read the objects of a result", |db| readers::objects_of(db, result.pk))
    }

    /// Keys of the frames or results that a destination can never take.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refused_of(&self, item: &Item) -> Result<Vec<i64>, StoreError> {
        self.with("read what was refused", |db| {
            db.prepare_cached("SELECT subject FROM refused WHERE destination = ?1 AND kind = ?2")?
                .query_map(params![item.destination, item.kind], |row| row.get(0))?
                .collect()
        })
    }

    /// Keys of all frames and results that a destination can never take.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refused_keys(&self, destination: Destination) -> Result<RefusedKeys, StoreError> {
        self.with("read what was refused", |db| {
            let mut keys = RefusedKeys::default();
            let mut statement =
                db.prepare_cached("SELECT kind, subject FROM refused WHERE destination = ?1")?;
            let mut rows = statement.query([destination])?;
            while let Some(row) = rows.next()? {
                match row.get(0)? {
                    Kind::Results => keys.results.insert(row.get(1)?),
                    Kind::Frames => keys.frames.insert(row.get(1)?),
                    Kind::Session | Kind::Pixels => false,
                };
            }
            Ok(keys)
        })
    }

    /// How far each destination is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn deliveries(&self) -> Result<Vec<Delivery>, StoreError> {
        self.with("read the outbox", |db| {
            db.prepare_cached(
                "WITH open AS (
                     SELECT destination,
                            sum(state = 'waiting') AS waiting,
                            sum(iif(state = 'waiting',
                                    max(wanted_rows - done_rows, kind = 'session'), 0)) AS rows,
                            sum(state = 'quarantined') AS quarantined,
                            min(iif(state = 'waiting',
                                    coalesce(since_mono_ns + boot.offset_ns, since_wall_ns),
                                    NULL)) AS oldest
                     FROM outbox JOIN boot ON boot.pk = since_boot
                     WHERE state <> 'done' GROUP BY destination)
                 SELECT destination.name, destination.place, coalesce(open.waiting, 0),
                        coalesce(open.rows, 0), coalesce(open.quarantined, 0),
                        (SELECT count(*) FROM refused WHERE destination = destination.name),
                        (SELECT count(*) FROM outbox WHERE destination = destination.name)
                            - coalesce(open.waiting, 0) - coalesce(open.quarantined, 0),
                        open.oldest,
                        coalesce(destination.conflict, (SELECT reason FROM outbox
                          WHERE destination = destination.name AND state = 'waiting'
                            AND reason IS NOT NULL ORDER BY attempts DESC LIMIT 1)),
                        destination.conflict
                 FROM destination LEFT JOIN open ON open.destination = destination.name
                 ORDER BY destination.name",
            )?
            .query_map([], |row| {
                Ok(Delivery {
                    destination: row.get(0)?,
                    place: row.get(1)?,
                    waiting: unsigned(row, 2)?,
                    waiting_rows: unsigned(row, 3)?,
                    quarantined: unsigned(row, 4)?,
                    refused: unsigned(row, 5)?,
                    done: unsigned(row, 6)?,
                    oldest: row.get::<_, Option<i64>>(7)?.map(rfc3339),
                    reason: row.get(8)?,
                    conflict: row.get(9)?,
                })
            })?
            .collect()
        })
    }

    /// Deliveries that somebody asked for at once ([`Ask::Hurry`](super::Ask::Hurry)) and that
    /// are not made yet, where there may be any.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn hurried(&self) -> Result<u64, StoreError> {
        self.with("read the outbox", |db| {
            db.prepare_cached(
                "SELECT count(*) FROM outbox JOIN destination ON destination.name = destination
                 WHERE hurry AND state = 'waiting' AND conflict IS NULL",
            )?
            .query_row([], |row| unsigned(row, 0))
        })
    }

    /// Deliveries that were never taken.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        self.with("read the quarantine", |db| {
            db.prepare_cached(
                "SELECT outbox.destination, outbox.kind, session.id, series.number, outbox.part,
                        outbox.attempts, coalesce(outbox.reason, '')
                 FROM outbox JOIN session ON session.pk = outbox.session
                 LEFT JOIN series ON series.pk = outbox.series
                 WHERE outbox.state = 'quarantined' ORDER BY outbox.pk",
            )?
            .query_map([], |row| {
                Ok(Quarantined {
                    destination: row.get(0)?,
                    kind: row.get(1)?,
                    session: SessionId::from_bytes(row.get(2)?),
                    series: row.get(3)?,
                    part: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                    attempts: row.get(5)?,
                    reason: row.get(6)?,
                })
            })?
            .collect()
        })
    }

    /// Frames and results that were never taken.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refused(&self) -> Result<Vec<Refused>, StoreError> {
        self.with("read the quarantine", |db| {
            db.prepare_cached(
                "SELECT refused.destination, refused.kind, frame.id, refused.reason,
                        refused.wall_ns
                 FROM refused JOIN frame ON frame.pk = CASE refused.kind
                     WHEN 'results' THEN (SELECT frame FROM segmentation WHERE pk = subject)
                     ELSE subject END
                 ORDER BY refused.wall_ns",
            )?
            .query_map([], |row| {
                Ok(Refused {
                    destination: row.get(0)?,
                    kind: row.get(1)?,
                    frame: FrameId::from_bytes(row.get(2)?),
                    reason: row.get(3)?,
                    at: rfc3339(row.get(4)?),
                })
            })?
            .collect()
        })
    }

    /// What a destination has of a session, by key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn receipts(
        &self,
        destination: Destination,
        session: SessionId,
    ) -> Result<Vec<StoredReceipt>, StoreError> {
        self.with("read the receipts", |db| {
            db.prepare_cached(&format!(
                "{RECEIPT} AND outbox.session = (SELECT pk FROM session WHERE id = ?2)
                     ORDER BY receipt.key"
            ))?
            .query_map(params![destination, session.as_bytes()], stored_receipt)?
            .collect()
        })
    }

    /// What a destination has under a key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn receipt(
        &self,
        destination: Destination,
        key: &str,
    ) -> Result<Option<StoredReceipt>, StoreError> {
        self.with("read a receipt", |db| {
            db.prepare_cached(&format!("{RECEIPT} AND receipt.key = ?2"))?
                .query_row(params![destination, key], stored_receipt)
                .optional()
        })
    }

    /// Whether anything of a session still waits for a destination, its description apart.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_behind(
        &self,
        destination: Destination,
        session: SessionId,
    ) -> Result<bool, StoreError> {
        self.with("read the outbox", |db| {
            db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM outbox
                     WHERE destination = ?1 AND kind <> 'session' AND state <> 'done'
                       AND session = (SELECT pk FROM session WHERE id = ?2))",
            )?
            .query_row(params![destination, session.as_bytes()], |row| row.get(0))
        })
    }
}

/// What the place that a destination has now was given.
const RECEIPT: &str = "SELECT outbox.kind, receipt.key, receipt.bytes, receipt.sha256,
        receipt.etag, receipt.rows
     FROM receipt JOIN outbox ON outbox.pk = receipt.outbox
     JOIN destination ON destination.name = outbox.destination
     WHERE outbox.destination = ?1 AND receipt.place = destination.place";

fn stored_receipt(row: &Row<'_>) -> rusqlite::Result<StoredReceipt> {
    Ok(StoredReceipt {
        kind: row.get(0)?,
        key: row.get(1)?,
        bytes: unsigned(row, 2)?,
        sha256: row.get(3)?,
        etag: row.get(4)?,
        rows: unsigned(row, 5)?,
    })
}

fn frames_of(
    db: &Connection,
    series: &Series,
    positions: Range<u64>,
) -> rusqlite::Result<Vec<FrameFacts>> {
    db.prepare_cached(&format!(
        "SELECT {FRAME}
         FROM frame JOIN boot AS captured_in ON captured_in.pk = frame.captured_boot
         WHERE frame.series = ?1 AND frame.position >= ?2 AND frame.position < ?3
         ORDER BY frame.position"
    ))?
    .query_map(
        params![series.pk, positions.start.cast_signed(), positions.end.cast_signed()],
        |row| frame_facts(row, 0, series.session, series.number, (series.width, series.height)),
    )?
    .collect()
}

/// Columns of a frame for [`frame_facts`]; its boot is called `captured_in`.
pub(super) const FRAME: &str = "frame.pk, frame.id, frame.position, frame.sequence,
        coalesce(frame.captured_mono_ns + captured_in.offset_ns, frame.captured_wall_ns),
        frame.captured_wall_ns, frame.captured_mono_ns, captured_in.id, frame.exposure_us,
        frame.bit_depth, frame.sha256, frame.pixel_size_um, frame.plate, frame.well,
        frame.field, frame.origin, frame.segmented, frame.file IS NOT NULL,
        frame.pixel_size_source, frame.pixel_size_note";
pub(super) const FRAME_COLUMNS: usize = 20;

/// A frame from the columns of [`FRAME`], of a series with this number and size in pixels.
pub(super) fn frame_facts(
    row: &Row<'_>,
    at: usize,
    session: SessionId,
    series: u32,
    (width, height): (u32, u32),
) -> rusqlite::Result<FrameFacts> {
    Ok(FrameFacts {
        pk: row.get(at)?,
        id: FrameId::from_bytes(row.get(at + 1)?),
        session,
        series,
        position: unsigned(row, at + 2)?,
        sequence: unsigned(row, at + 3)?,
        captured: dated(row, at + 4)?,
        exposure_us: row.get(at + 8)?,
        width,
        height,
        bit_depth: row.get(at + 9)?,
        sha256: row.get(at + 10)?,
        pixel_size_um: row.get(at + 11)?,
        pixel_size_source: pixel_size_source(row, at + 18)?,
        pixel_size_note: row.get(at + 19)?,
        place: Place {
            plate: row.get(at + 12)?,
            well: row.get(at + 13)?,
            field: row.get(at + 14)?,
        },
        origin: row.get(at + 15)?,
        segmented: row.get(at + 16)?,
        has_pixels: row.get(at + 17)?,
    })
}

/// Who stated a pixel size; `None`, too, for a word of a newer program.
pub(super) fn pixel_size_source(
    row: &Row<'_>,
    at: usize,
) -> rusqlite::Result<Option<PixelSizeSource>> {
    let word: Option<String> = row.get(at)?;
    Ok(word.as_deref().and_then(PixelSizeSource::from_word))
}

/// Columns of a result for [`result_facts`]; the boot of its commit is called `committed_in`.
pub(super) const RESULT: &str = "segmentation.pk, segmentation.objects, segmentation.focus,
        segmentation.normalise_us, segmentation.network_us, segmentation.instances_us,
        segmentation.measure_us,
        coalesce(segmentation.committed_mono_ns + committed_in.offset_ns,
                 segmentation.committed_wall_ns),
        segmentation.committed_wall_ns, segmentation.committed_mono_ns, committed_in.id,
        segmentation.labels_sha256";
pub(super) const RESULT_COLUMNS: usize = 12 + rows::LOOK_COLUMNS;

/// A result from the columns of [`RESULT`].
pub(super) fn result_facts(
    row: &Row<'_>,
    at: usize,
    frame: Arc<FrameFacts>,
    model: Arc<ModelFacts>,
) -> rusqlite::Result<ResultFacts> {
    Ok(ResultFacts {
        pk: row.get(at)?,
        frame,
        model,
        objects: row.get(at + 1)?,
        focus: row.get::<_, Option<f32>>(at + 2)?.unwrap_or(f32::NAN),
        timings: Timings {
            normalise_us: unsigned(row, at + 3)?,
            network_us: unsigned(row, at + 4)?,
            instances_us: unsigned(row, at + 5)?,
            measure_us: unsigned(row, at + 6)?,
        },
        committed: dated(row, at + 7)?,
        labels_sha256: row.get(at + 11)?,
        look: rows::look(row, at + 12)?,
    })
}

fn session_facts(row: &Row<'_>) -> rusqlite::Result<SessionFacts> {
    let started = dated(row, 6)?;
    let ended = match row.get::<_, Option<i64>>(10)? {
        Some(_) => Some(dated(row, 10)?),
        None => None,
    };
    // Until it is archived: the day of its beginning.
    let archive_date = match row.get::<_, Option<String>>(17)? {
        Some(date) => date,
        None => started.rfc3339().chars().take("YYYY-MM-DD".len()).collect(),
    };
    Ok(SessionFacts {
        id: SessionId::from_bytes(row.get(0)?),
        name: row.get(1)?,
        source: row.get(2)?,
        channel: row.get(3)?,
        operator: row.get(4)?,
        pixel_size_um: optional_float(row, 5)?,
        started,
        ended,
        frames: unsigned(row, 14)?,
        segmentations: unsigned(row, 15)?,
        objects: unsigned(row, 16)?,
        archive_date,
    })
}

fn optional_float(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<f64>> {
    Ok(Some(float(row, at)?).filter(|value| value.is_finite()))
}

/// Four columns: best time, recorded time, monotonic time, boot.
pub(super) fn dated(row: &Row<'_>, at: usize) -> rusqlite::Result<Dated> {
    Ok(Dated {
        at_ns: row.get(at)?,
        recorded_ns: row.get(at + 1)?,
        mono_ns: unsigned(row, at + 2)?,
        boot: Uuid::from_bytes(row.get(at + 3)?),
    })
}

const MODEL: &str = "SELECT pk, name, sha256, parameters, software FROM model";

/// A model by the store's own key.
pub(super) fn model_of(db: &Connection, pk: i64) -> rusqlite::Result<ModelFacts> {
    db.prepare_cached(&format!("{MODEL} WHERE pk = ?1"))?.query_row([pk], model_facts)
}

fn model_facts(row: &Row<'_>) -> rusqlite::Result<ModelFacts> {
    Ok(ModelFacts {
        pk: row.get(0)?,
        model: ModelRef {
            name: row.get(1)?,
            sha256: row.get(2)?,
            parameters: row.get(3)?,
            software: row.get(4)?,
        },
    })
}
