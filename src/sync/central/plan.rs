//! A batch, looked through before anything is sent: each row once, in a fixed order, and only
//! what the tables can hold, so that a refusal names the frame.

use std::collections::BTreeMap;

use time::{Date, OffsetDateTime};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Batch;
use super::fault::Failure;
use reticle_base::ids::FrameId;
use reticle_domain::facts::{Dated, FrameFacts, ResultFacts, SessionFacts};
use reticle_domain::object::Object;
use reticle_domain::segmentation::ModelRef;

/// A column of a table with the type in which it is sent.
pub(super) type Column = (&'static str, Type);

/// Columns of `reticle.frame`.
pub(super) const FRAME: &[Column] = &[
    ("id", Type::UUID),
    ("session", Type::UUID),
    ("series", Type::INT4),
    ("position", Type::INT8),
    ("sequence", Type::INT8),
    ("captured_at", Type::TIMESTAMPTZ),
    ("captured_recorded_at", Type::TIMESTAMPTZ),
    ("captured_mono_ns", Type::INT8),
    ("captured_boot", Type::UUID),
    ("exposure_us", Type::INT8),
    ("width", Type::INT4),
    ("height", Type::INT4),
    ("bit_depth", Type::INT2),
    ("sha256", Type::BYTEA),
    ("pixel_size_um", Type::FLOAT8),
    ("plate", Type::TEXT),
    ("well", Type::TEXT),
    ("field", Type::INT4),
    ("origin", Type::TEXT),
    ("pixel_size_source", Type::TEXT),
    ("pixel_size_note", Type::TEXT),
];

/// Columns of `reticle.segmentation`.
pub(super) const SEGMENTATION: &[Column] = &[
    ("frame", Type::UUID),
    ("model", Type::TEXT),
    ("objects", Type::INT4),
    ("focus", Type::FLOAT4),
    ("normalise_us", Type::INT8),
    ("network_us", Type::INT8),
    ("instances_us", Type::INT8),
    ("measure_us", Type::INT8),
    ("committed_at", Type::TIMESTAMPTZ),
    ("committed_recorded_at", Type::TIMESTAMPTZ),
    ("committed_mono_ns", Type::INT8),
    ("committed_boot", Type::UUID),
    ("labels_sha256", Type::BYTEA),
    ("scale_from", Type::TEXT),
    ("scale", Type::FLOAT4),
    ("size_ratio", Type::FLOAT4),
    ("unlike", Type::TEXT),
];

/// Columns of `reticle.object`, without the result that they belong to.
pub(super) const OBJECT: &[Column] = &[
    ("label", Type::INT4),
    ("area", Type::INT4),
    ("centroid_0", Type::FLOAT8),
    ("centroid_1", Type::FLOAT8),
    ("bbox_0", Type::INT4),
    ("bbox_1", Type::INT4),
    ("bbox_2", Type::INT4),
    ("bbox_3", Type::INT4),
    ("perimeter", Type::FLOAT8),
    ("eccentricity", Type::FLOAT8),
    ("solidity", Type::FLOAT8),
    ("major_axis_length", Type::FLOAT8),
    ("minor_axis_length", Type::FLOAT8),
    ("orientation", Type::FLOAT8),
    ("intensity_mean", Type::FLOAT8),
    ("intensity_max", Type::FLOAT8),
    ("intensity_min", Type::FLOAT8),
    ("touches_border", Type::BOOL),
];

/// An instant as its four columns.
pub(super) struct Instant {
    pub(super) at: OffsetDateTime,
    pub(super) recorded_at: OffsetDateTime,
    pub(super) mono_ns: i64,
    pub(super) boot: Uuid,
}

/// The session's row, as far as it is not text.
pub(super) struct SessionRow<'a> {
    pub(super) facts: &'a SessionFacts,
    pub(super) id: Uuid,
    pub(super) archive_date: Date,
    pub(super) started: Instant,
    pub(super) ended: Option<Instant>,
    pub(super) frames: i64,
    pub(super) segmentations: i64,
    pub(super) objects: i64,
}

/// A frame's row, as far as it is not text.
pub(super) struct FrameRow<'a> {
    pub(super) facts: &'a FrameFacts,
    pub(super) id: Uuid,
    pub(super) series: i32,
    pub(super) position: i64,
    pub(super) sequence: i64,
    pub(super) captured: Instant,
    pub(super) exposure_us: Option<i64>,
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) bit_depth: i16,
    pub(super) field: Option<i32>,
}

/// A result's row with its objects.
pub(super) struct ResultRow<'a> {
    pub(super) facts: &'a ResultFacts,
    pub(super) frame: Uuid,
    pub(super) model: &'a str,
    pub(super) objects: i32,
    pub(super) focus: Option<f32>,
    pub(super) timings_us: [i64; 4],
    pub(super) committed: Instant,
    pub(super) rows: Vec<ObjectRow<'a>>,
}

/// An object's row: what is counted as the table has it, the rest as it was measured.
pub(super) struct ObjectRow<'a> {
    pub(super) facts: &'a Object,
    pub(super) label: i32,
    pub(super) area: i32,
    pub(super) bbox: [i32; 4],
}

/// What is sent. Sorted by id, so that two boxes that write the same model wait for each other
/// and never in a circle, and pages of the indexes are filled in order.
pub(super) struct Plan<'a> {
    pub(super) session: SessionRow<'a>,
    pub(super) models: Vec<(&'a str, &'a ModelRef)>,
    pub(super) frames: Vec<FrameRow<'a>>,
    pub(super) results: Vec<ResultRow<'a>>,
}

impl<'a> Plan<'a> {
    /// Looks the batch through. `keys` are the model keys of its results, in their order.
    ///
    /// # Errors
    /// [`Failure::poison`] that names the frame, or the session.
    pub(super) fn of(batch: &'a Batch, keys: &'a [String]) -> Result<Self, Failure> {
        let session = &*batch.session;
        let mut frames: BTreeMap<FrameId, &FrameFacts> = BTreeMap::new();
        let mut models: BTreeMap<&str, &ModelRef> = BTreeMap::new();
        let mut results: BTreeMap<(FrameId, &str), (&ResultFacts, &[Object])> = BTreeMap::new();
        for (key, (result, objects)) in keys.iter().zip(&batch.results) {
            // A result does not come before its frame, whatever the batch has.
            frames.insert(result.frame.id, &result.frame);
            models.insert(key, &result.model.model);
            results.insert((result.frame.id, key), (result, objects));
        }
        frames.extend(batch.frames.iter().map(|frame| (frame.id, &**frame)));

        let of_frame =
            |frame: FrameId| move |why: String| Failure::poison(format!("frame {frame}"), why);
        Ok(Self {
            session: session_row(session)
                .map_err(|why| Failure::poison("the session's row", why))?,
            models: models
                .into_iter()
                .map(|(key, model)| match texts_of_model(model) {
                    Ok(()) => Ok((key, model)),
                    Err(why) => Err(Failure::poison(format!("model {key}"), why)),
                })
                .collect::<Result<_, _>>()?,
            frames: frames
                .into_iter()
                .map(|(id, frame)| frame_row(frame, session).map_err(of_frame(id)))
                .collect::<Result<_, _>>()?,
            results: results
                .into_iter()
                .map(|((id, key), (result, objects))| {
                    result_row(result, key, objects).map_err(of_frame(id))
                })
                .collect::<Result<_, _>>()?,
        })
    }
}

/// A session's or a frame's id, as the database has it.
pub(super) fn uuid(bytes: &[u8; 16]) -> Uuid {
    Uuid::from_bytes(*bytes)
}

/// A value that is not a number is null.
pub(super) fn number(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

fn session_row(facts: &SessionFacts) -> Result<SessionRow<'_>, String> {
    let day = time::macros::format_description!("[year]-[month]-[day]");
    text("name", Some(&facts.name))?;
    text("source", Some(&facts.source))?;
    text("channel", facts.channel.as_deref())?;
    text("operator", facts.operator.as_deref())?;
    Ok(SessionRow {
        facts,
        id: uuid(facts.id.as_bytes()),
        archive_date: Date::parse(&facts.archive_date, &day).map_err(|error| {
            format!("archive_date {:?} is no day like 2026-01-31: {error}", facts.archive_date)
        })?,
        started: instant("started", facts.started)?,
        ended: facts.ended.map(|ended| instant("ended", ended)).transpose()?,
        frames: whole("frames", facts.frames)?,
        segmentations: whole("segmentations", facts.segmentations)?,
        objects: whole("objects", facts.objects)?,
    })
}

fn frame_row<'a>(facts: &'a FrameFacts, session: &SessionFacts) -> Result<FrameRow<'a>, String> {
    if facts.session != session.id {
        return Err(format!("it belongs to session {}", facts.session));
    }
    text("plate", facts.place.plate.as_deref())?;
    text("well", facts.place.well.as_deref())?;
    text("origin", facts.origin.as_deref())?;
    Ok(FrameRow {
        facts,
        id: uuid(facts.id.as_bytes()),
        series: whole("series", facts.series)?,
        position: whole("position", facts.position)?,
        sequence: whole("sequence", facts.sequence)?,
        captured: instant("captured", facts.captured)?,
        exposure_us: facts.exposure_us.map(i64::from),
        width: whole("width", facts.width)?,
        height: whole("height", facts.height)?,
        bit_depth: i16::from(facts.bit_depth),
        field: facts.place.field.map(|field| whole("field", field)).transpose()?,
    })
}

fn result_row<'a>(
    facts: &'a ResultFacts,
    model: &'a str,
    objects: &'a [Object],
) -> Result<ResultRow<'a>, String> {
    if objects.len() != facts.objects as usize {
        return Err(format!(
            "its result by {model} counts {} objects and comes with {}",
            facts.objects,
            objects.len()
        ));
    }
    if let Some((object, label)) =
        objects.iter().zip(1..).find(|(object, label)| object.label != *label)
    {
        return Err(format!(
            "its result by {model} has label {} where {label} is due; labels go from 1 to n",
            object.label
        ));
    }
    let times = &facts.timings;
    Ok(ResultRow {
        facts,
        frame: uuid(facts.frame.id.as_bytes()),
        model,
        objects: whole("objects", facts.objects)?,
        focus: (!facts.focus.is_nan()).then_some(facts.focus),
        timings_us: [
            whole("normalise_us", times.normalise_us)?,
            whole("network_us", times.network_us)?,
            whole("instances_us", times.instances_us)?,
            whole("measure_us", times.measure_us)?,
        ],
        committed: instant("committed", facts.committed)?,
        rows: objects.iter().map(object_row).collect::<Result<_, _>>()?,
    })
}

fn object_row(facts: &Object) -> Result<ObjectRow<'_>, String> {
    Ok(ObjectRow {
        facts,
        label: whole("label", facts.label)?,
        area: whole("area", facts.area)?,
        bbox: [
            whole("bbox-0", facts.bbox_0)?,
            whole("bbox-1", facts.bbox_1)?,
            whole("bbox-2", facts.bbox_2)?,
            whole("bbox-3", facts.bbox_3)?,
        ],
    })
}

fn texts_of_model(model: &ModelRef) -> Result<(), String> {
    text("name", Some(&model.name))?;
    text("sha256", Some(&model.sha256))?;
    text("parameters", Some(&model.parameters))?;
    text("software", Some(&model.software))
}

/// PostgreSQL's text holds every character but U+0000.
fn text(field: &str, value: Option<&str>) -> Result<(), String> {
    match value {
        Some(value) if value.contains('\0') => {
            Err(format!("{field} {value:?} holds the character U+0000, which PostgreSQL refuses"))
        }
        _ => Ok(()),
    }
}

/// PostgreSQL's integers have a sign.
fn whole<T, S>(field: &str, value: S) -> Result<T, String>
where
    T: TryFrom<S>,
    S: Copy + std::fmt::Display,
{
    match T::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => Err(format!("{field} {value} is more than its column holds")),
    }
}

fn instant(field: &str, dated: Dated) -> Result<Instant, String> {
    let date = |ns: i64| {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns))
            .expect("64 bits of nanoseconds end in the year 2262")
    };
    Ok(Instant {
        at: date(dated.at_ns),
        recorded_at: date(dated.recorded_ns),
        mono_ns: whole(field, dated.mono_ns)?,
        boot: dated.boot,
    })
}
