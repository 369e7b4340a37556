//! The rows that one job adds, inside the transaction of its caller.
//!
//! Each function may be given the same thing twice and then changes nothing.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use crate::delivery::{Deliveries, Kind, PartRef};
use crate::gap::{Gap, NoFile};
use crate::sql::requests::{self, Request};
use crate::sql::{aggregates, keys};
use reticle_base::clock::Stamp;
use reticle_base::ids::FrameId;
use reticle_domain::frame::Frame;
use reticle_domain::look::{Look, Unlike};
use reticle_domain::object::Object;
use reticle_domain::pixel_size::PixelSizeSource;
use reticle_domain::segmentation::{ModelRef, Timings};
use reticle_domain::session::Session;

/// Whether a frame's pixels are in a file, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pixels {
    /// In the file that `frames::file_name` names, of this size.
    Filed { bytes: u64 },
    /// Nowhere.
    Without(NoFile),
}

/// A session begins.
pub(crate) fn open_session(
    db: &Connection,
    session: &Session,
    (deliveries, now): (&Deliveries, &Stamp),
) -> rusqlite::Result<()> {
    let boot = keys::boot(db, &session.started)?;
    let added = db
        .prepare_cached(
            "INSERT INTO session (id, name, source, channel, operator, pixel_size_um,
                              started_wall_ns, started_mono_ns, started_boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            session.id.as_bytes(),
            session.name,
            session.source,
            session.channel,
            session.operator,
            session.pixel_size_um,
            session.started.wall_ns,
            session.started.mono_ns.cast_signed(),
            boot,
        ])?;
    if added > 0 {
        requests::request_session(db, db.last_insert_rowid(), (deliveries, now))?;
    }
    Ok(())
}

/// A session ends.
pub(crate) fn close_session(
    db: &Connection,
    pk: i64,
    at: &Stamp,
    (deliveries, now): (&Deliveries, &Stamp),
) -> rusqlite::Result<()> {
    let boot = keys::boot(db, at)?;
    let closed = db
        .prepare_cached(
            "UPDATE session SET ended_wall_ns = ?2, ended_mono_ns = ?3, ended_boot = ?4
         WHERE pk = ?1 AND ended_wall_ns IS NULL",
        )?
        .execute(params![pk, at.wall_ns, at.mono_ns.cast_signed(), boot])?;
    if closed > 0 {
        requests::request_session(db, pk, (deliveries, now))?;
    }
    Ok(())
}

/// A gap in a session.
pub(crate) fn gap(db: &Connection, session: i64, gap: &Gap) -> rusqlite::Result<()> {
    let (from, to) = (keys::boot(db, &gap.from)?, keys::boot(db, &gap.to)?);
    db.prepare_cached(
        "INSERT INTO gap (session, from_wall_ns, from_mono_ns, from_boot,
                          to_wall_ns, to_mono_ns, to_boot, missed, reason, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        session,
        gap.from.wall_ns,
        gap.from.mono_ns.cast_signed(),
        from,
        gap.to.wall_ns,
        gap.to.mono_ns.cast_signed(),
        to,
        gap.missed.map(u64::cast_signed),
        gap.reason,
        gap.detail,
    ])?;
    Ok(())
}

/// Where a recorded frame's pixels are; `None` if the frame is not recorded.
pub(crate) fn pixels_of(db: &Connection, id: FrameId) -> rusqlite::Result<Option<Pixels>> {
    db.prepare_cached("SELECT file_bytes, no_file FROM frame WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| {
            Ok(match row.get::<_, Option<i64>>(0)? {
                Some(bytes) => Pixels::Filed { bytes: bytes.cast_unsigned() },
                None => Pixels::Without(row.get(1)?),
            })
        })
        .optional()
}

/// A frame's place in its session.
struct Placed {
    series: i64,
    position: u64,
    part: u64,
}

/// Records a frame, and gives its primary key. A frame that is recorded stays as it is.
pub(crate) fn frame(
    db: &Connection,
    session: i64,
    frame: &Frame,
    file: Option<&str>,
    pixels: Pixels,
    (deliveries, now): (&Deliveries, &Stamp),
) -> rusqlite::Result<i64> {
    if let Some(pk) = keys::frame_pk(db, frame.id)? {
        return Ok(pk);
    }
    let boot = keys::boot(db, &frame.captured)?;
    let placed = place(db, session, frame)?;
    let archived = file.is_some()
        && deliveries.archive.is_some()
        && deliveries.pixels.includes(frame.sequence);
    let (file_bytes, no_file) = match pixels {
        Pixels::Filed { bytes } => (Some(bytes.cast_signed()), None),
        Pixels::Without(reason) => (None, Some(reason)),
    };
    db.prepare_cached(
        "INSERT INTO frame (id, session, sequence, captured_wall_ns, captured_mono_ns,
                            captured_boot, exposure_us, width, height, bit_depth, sha256,
                            pixel_size_um, plate, well, field, origin, file, file_bytes, no_file,
                            series, position, archived, pixel_size_source, pixel_size_note)
         VALUES (:id, :session, :sequence, :wall, :mono, :boot, :exposure, :width, :height,
                 :bit_depth, :sha256, :pixel_size, :plate, :well, :field, :origin,
                 :file, :file_bytes, :no_file, :series, :position, :archived,
                 :pixel_size_source, :pixel_size_note)",
    )?
    .execute(named_params! {
        ":id": frame.id.as_bytes(),
        ":session": session,
        ":sequence": frame.sequence.cast_signed(),
        ":wall": frame.captured.wall_ns,
        ":mono": frame.captured.mono_ns.cast_signed(),
        ":boot": boot,
        ":exposure": frame.exposure_us,
        ":width": frame.width,
        ":height": frame.height,
        ":bit_depth": frame.bit_depth,
        ":sha256": frame.sha256,
        ":pixel_size": frame.pixel_size_um,
        ":plate": frame.place.plate,
        ":well": frame.place.well,
        ":field": frame.place.field,
        ":origin": frame.origin,
        ":file": file,
        ":file_bytes": file_bytes,
        ":no_file": no_file,
        ":series": placed.series,
        ":position": placed.position.cast_signed(),
        ":archived": archived,
        ":pixel_size_source": frame.pixel_size_source.map(PixelSizeSource::as_str),
        ":pixel_size_note": frame.pixel_size_note,
    })?;
    let pk = db.last_insert_rowid();
    db.prepare_cached("UPDATE session SET frames = frames + 1 WHERE pk = ?1")?
        .execute([session])?;
    let part = PartRef { series: placed.series, part: placed.part, model: None };
    let kinds = [Some(Kind::Frames), archived.then_some(Kind::Pixels)];
    for kind in kinds.into_iter().flatten() {
        requests::request(
            db,
            deliveries,
            Request { kind, session, part: Some(part), key: pk },
            now,
        )?;
    }
    Ok(pk)
}

/// Gives a frame the next position in the series of its shape, which is made where there is
/// none.
fn place(db: &Connection, session: i64, frame: &Frame) -> rusqlite::Result<Placed> {
    let shape = params![session, frame.width, frame.height, frame.bit_depth.div_ceil(8)];
    db.prepare_cached(
        "INSERT INTO series (session, number, width, height, bytes_per_pixel, part_frames)
         VALUES (?1, (SELECT count(*) FROM series WHERE session = ?1), ?2, ?3, ?4,
                 max(1, min(64, 268435456 / (?2 * ?3))))
         ON CONFLICT (session, width, height, bytes_per_pixel) DO NOTHING",
    )?
    .execute(shape)?;
    db.prepare_cached(
        "UPDATE series SET frames = frames + 1
         WHERE session = ?1 AND width = ?2 AND height = ?3 AND bytes_per_pixel = ?4
         RETURNING pk, frames - 1, (frames - 1) / part_frames",
    )?
    .query_row(shape, |row| {
        Ok(Placed {
            series: row.get(0)?,
            position: row.get::<_, i64>(1)?.cast_unsigned(),
            part: row.get::<_, i64>(2)?.cast_unsigned(),
        })
    })
}

/// One model's answer to one frame, ready for its rows.
pub(crate) struct NewResult<'a> {
    pub(crate) model: &'a ModelRef,
    /// Objects in its label image, and SHA-256 of that: see `LabelImage::sha256`.
    pub(crate) count: u32,
    pub(crate) labels_sha256: [u8; 32],
    /// The labels as `blobs::encode` packed them.
    pub(crate) packed: &'a [u8],
    pub(crate) objects: &'a [Object],
    pub(crate) focus: f32,
    pub(crate) timings: Timings,
    /// `None` where nobody looked at a picture: labels of another program.
    pub(crate) look: Option<Look>,
}

/// Whether a model's answer to a frame was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It was, now.
    Now,
    /// The same label image was there already.
    Before,
    /// Another label image was there already, with so many objects. It stays.
    Otherwise { objects: u32 },
}

impl Answered {
    /// Objects of the answer that is there, when one with so many was given.
    pub(crate) fn objects(self, given: u32) -> u32 {
        match self {
            Self::Now | Self::Before => given,
            Self::Otherwise { objects } => objects,
        }
    }
}

/// Records a model's answer to a frame that is recorded: the result, its label image, its
/// objects, its share of the sums, and what is to be delivered of it. Nothing changes if this
/// model's answer to this frame was there already.
pub(crate) fn segmentation(
    db: &Connection,
    session: i64,
    frame: i64,
    result: &NewResult<'_>,
    (deliveries, now): (&Deliveries, &Stamp),
) -> rusqlite::Result<Answered> {
    let model = keys::model(db, result.model)?;
    // Not ON CONFLICT: AUTOINCREMENT would use up a key each time, and leave holes.
    let known: Option<([u8; 32], u32)> = db
        .prepare_cached(
            "SELECT labels_sha256, objects FROM segmentation WHERE frame = ?1 AND model = ?2",
        )?
        .query_row([frame, model], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match known {
        Some((labels, _)) if labels == result.labels_sha256 => return Ok(Answered::Before),
        Some((_, objects)) => return Ok(Answered::Otherwise { objects }),
        None => {}
    }
    let boot = keys::boot(db, now)?;
    let timings = &result.timings;
    db.prepare_cached(
        "INSERT INTO segmentation (frame, model, objects, focus, normalise_us, network_us,
                                       instances_us, measure_us, committed_wall_ns,
                                       committed_mono_ns, committed_boot, scale_from, scale,
                                       size_ratio, unlike, labels_sha256, labels)
             VALUES (:frame, :model, :objects, :focus, :normalise, :network, :instances, :measure,
                     :wall, :mono, :boot, :scale_from, :scale, :size_ratio, :unlike, :sha256,
                     :labels)",
    )?
    .execute(named_params! {
        ":frame": frame,
        ":model": model,
        ":objects": result.count,
        ":focus": result.focus,
        ":normalise": timings.normalise_us.cast_signed(),
        ":network": timings.network_us.cast_signed(),
        ":instances": timings.instances_us.cast_signed(),
        ":measure": timings.measure_us.cast_signed(),
        ":wall": now.wall_ns,
        ":mono": now.mono_ns.cast_signed(),
        ":boot": boot,
        ":scale_from": result.look.map(|look| look.scale_from.word()),
        ":scale": result.look.map(|look| look.scale),
        ":size_ratio": result.look.and_then(|look| look.size_ratio),
        ":unlike": result.look.and_then(|look| look.unlike).map(Unlike::word),
        ":sha256": result.labels_sha256,
        ":labels": result.packed,
    })?;
    let pk = db.last_insert_rowid();
    #[cfg(feature = "next-migration")]
    db.execute("INSERT INTO next_note (segmentation, note) VALUES (?1, 'next')", [pk])?;
    reticle_base::crash::point("segmentation inserted");
    for object in result.objects {
        insert_object(db, pk, object)?;
    }
    db.prepare_cached("UPDATE frame SET segmented = 1 WHERE pk = ?1 AND segmented = 0")?
        .execute([frame])?;
    db.prepare_cached(
        "UPDATE session SET segmentations = segmentations + 1, objects = objects + ?2
         WHERE pk = ?1",
    )?
    .execute(params![session, result.count])?;
    aggregates::add(db, frame, model, result.objects, result.focus)?;
    let part = db
        .prepare_cached(
            "SELECT series.pk, frame.position / series.part_frames
             FROM frame JOIN series ON series.pk = frame.series WHERE frame.pk = ?1",
        )?
        .query_row([frame], |row| {
            let part = row.get::<_, i64>(1)?.cast_unsigned();
            Ok(PartRef { series: row.get(0)?, part, model: Some(model) })
        })?;
    let request = Request { kind: Kind::Results, session, part: Some(part), key: pk };
    requests::request(db, deliveries, request, now)?;
    Ok(Answered::Now)
}

fn insert_object(db: &Connection, segmentation: i64, object: &Object) -> rusqlite::Result<()> {
    db.prepare_cached(
        r#"INSERT INTO object (segmentation, label, area, "centroid-0", "centroid-1", "bbox-0",
                               "bbox-1", "bbox-2", "bbox-3", perimeter, eccentricity, solidity,
                               major_axis_length, minor_axis_length, orientation, intensity_mean,
                               intensity_max, intensity_min, touches_border)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                   ?18, ?19)"#,
    )?
    // SQLite turns what is not a number into null by itself.
    .execute(params![
        segmentation,
        object.label,
        object.area,
        object.centroid_0,
        object.centroid_1,
        object.bbox_0,
        object.bbox_1,
        object.bbox_2,
        object.bbox_3,
        object.perimeter,
        object.eccentricity,
        object.solidity,
        object.major_axis_length,
        object.minor_axis_length,
        object.orientation,
        object.intensity_mean,
        object.intensity_max,
        object.intensity_min,
        object.touches_border,
    ])?;
    Ok(())
}
