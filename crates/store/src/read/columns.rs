//! Columns of rows, and what they become: frames, results, models, objects, times.

use std::sync::Arc;

use rusqlite::{Connection, Row};
use uuid::Uuid;

use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::facts::{Dated, FrameFacts, ModelFacts, ResultFacts};
use reticle_domain::frame::Place;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::{ModelRef, Timings};

/// Columns of a frame for [`frame_facts`]; its boot is called `captured_in`.
pub(crate) const FRAME: &str = "frame.pk, frame.id, frame.position, frame.sequence,
        coalesce(frame.captured_mono_ns + captured_in.offset_ns, frame.captured_wall_ns),
        frame.captured_wall_ns, frame.captured_mono_ns, captured_in.id, frame.exposure_us,
        frame.bit_depth, frame.sha256, frame.pixel_size_um, frame.plate, frame.well,
        frame.field, frame.origin, frame.segmented, frame.file IS NOT NULL,
        frame.pixel_size_source, frame.pixel_size_note";

pub(crate) const FRAME_COLUMNS: usize = 20;

/// A frame from the columns of [`FRAME`], of a series with this number and size in pixels.
pub(crate) fn frame_facts(
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
pub(crate) fn pixel_size_source(
    row: &Row<'_>,
    at: usize,
) -> rusqlite::Result<Option<PixelSizeSource>> {
    let word: Option<String> = row.get(at)?;
    Ok(word.as_deref().and_then(PixelSizeSource::from_word))
}

/// Columns of a result for [`result_facts`]; the boot of its commit is called `committed_in`.
pub(crate) const RESULT: &str = "segmentation.pk, segmentation.objects, segmentation.focus,
        segmentation.normalise_us, segmentation.network_us, segmentation.instances_us,
        segmentation.measure_us,
        coalesce(segmentation.committed_mono_ns + committed_in.offset_ns,
                 segmentation.committed_wall_ns),
        segmentation.committed_wall_ns, segmentation.committed_mono_ns, committed_in.id,
        segmentation.labels_sha256";

pub(crate) const RESULT_COLUMNS: usize = 12 + LOOK_COLUMNS;

/// A result from the columns of [`RESULT`].
pub(crate) fn result_facts(
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
        look: look(row, at + 12)?,
    })
}

/// Columns of a result's look for [`look`], of a query that has `segmentation`.
pub(crate) const LOOK: &str = "segmentation.scale_from, segmentation.scale,
        segmentation.size_ratio, segmentation.unlike";

pub(crate) const LOOK_COLUMNS: usize = 4;

/// A result's look from the columns of [`LOOK`].
pub(crate) fn look(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Look>> {
    let Some(from) = row.get::<_, Option<String>>(at)? else { return Ok(None) };
    let unlike: Option<String> = row.get(at + 3)?;
    Ok(Look::recorded(&from, row.get(at + 1)?, row.get(at + 2)?, unlike.as_deref()))
}

pub(crate) const MODEL: &str = "SELECT pk, name, sha256, parameters, software FROM model";

/// A model by the store's own key.
pub(crate) fn model_of(db: &Connection, pk: i64) -> rusqlite::Result<ModelFacts> {
    db.prepare_cached(&format!("{MODEL} WHERE pk = ?1"))?.query_row([pk], model_facts)
}

pub(crate) fn model_facts(row: &Row<'_>) -> rusqlite::Result<ModelFacts> {
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

/// The objects of one result, by label.
pub(crate) fn objects_of(db: &Connection, segmentation: i64) -> rusqlite::Result<Vec<Object>> {
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

/// Four columns: best time, recorded time, monotonic time, boot.
pub(crate) fn dated(row: &Row<'_>, at: usize) -> rusqlite::Result<Dated> {
    Ok(Dated {
        at_ns: row.get(at)?,
        recorded_ns: row.get(at + 1)?,
        mono_ns: unsigned(row, at + 2)?,
        boot: Uuid::from_bytes(row.get(at + 3)?),
    })
}

/// What is not a number is null in the database.
pub(crate) fn float(row: &Row<'_>, at: usize) -> rusqlite::Result<f64> {
    Ok(row.get::<_, Option<f64>>(at)?.unwrap_or(f64::NAN))
}

pub(crate) fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}
