//! What leaves the box, read from the store: sessions, series, frames, results.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::blobs;
use crate::error::StoreError;
use crate::read::columns::{self, FRAME, LOOK, MODEL, RESULT, RESULT_COLUMNS};
use crate::read::reader::Reader;
use reticle_base::ids::SessionId;
use reticle_domain::facts::{FrameFacts, ModelFacts, ResultFacts, Series, SessionFacts};
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;

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
                    frames: columns::unsigned(row, 7)?,
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
            let mut chosen = Vec::with_capacity(frames.len());
            for frame in frames.drain(..) {
                if archived.query_row([frame.pk], |row| row.get(0))? {
                    chosen.push(frame);
                }
            }
            Ok(chosen)
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
            .query_map([session.as_bytes()], columns::model_facts)?
            .collect()
        })
    }

    /// A model by the store's own key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn model(&self, pk: i64) -> Result<Option<ModelFacts>, StoreError> {
        self.with("read a model", |db| columns::model_of(db, pk).optional())
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
                    columns::result_facts(row, 0, frame, Arc::clone(&model))
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
        self.with("read the objects of a result", |db| columns::objects_of(db, result.pk))
    }
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
        |row| {
            columns::frame_facts(
                row,
                0,
                series.session,
                series.number,
                (series.width, series.height),
            )
        },
    )?
    .collect()
}

fn session_facts(row: &Row<'_>) -> rusqlite::Result<SessionFacts> {
    let started = columns::dated(row, 6)?;
    let ended = match row.get::<_, Option<i64>>(10)? {
        Some(_) => Some(columns::dated(row, 10)?),
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
        frames: columns::unsigned(row, 14)?,
        segmentations: columns::unsigned(row, 15)?,
        objects: columns::unsigned(row, 16)?,
        archive_date,
    })
}

fn optional_float(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<f64>> {
    Ok(Some(columns::float(row, at)?).filter(|value| value.is_finite()))
}
