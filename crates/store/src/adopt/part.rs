//! The rows of a session and of a part that come back, inside the transaction of their caller.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use crate::adopt::given::{
    AdoptedFrame, AdoptedPart, AdoptedResults, AdoptedSeries, AdoptedSession, Broken, PartTaken,
    Refusal, When,
};
use crate::delivery::{Kind, PartRef, Receipt};
use crate::gap::NoFile;
use crate::sql::requests::{self, Request};
use crate::sql::rows::{self, NewResult};
use crate::sql::{aggregates, claims, keys};
use reticle_base::clock::Stamp;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::pixel_size::PixelSizeSource;

pub(crate) fn take_session(
    db: &Connection,
    adopted: &AdoptedSession,
    when: When<'_>,
) -> Result<bool, Broken> {
    let id = adopted.session.id;
    let mut changed = false;
    let pk = match keys::session(db, id)? {
        Some(pk) => pk,
        None => {
            changed = true;
            rows::open_session(db, &adopted.session, when)?;
            keys::session(db, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?
        }
    };
    let open: bool =
        db.query_row("SELECT ended_wall_ns IS NULL FROM session WHERE pk = ?1", [pk], |row| {
            row.get(0)
        })?;
    if let Some(ended) = adopted.ended.filter(|_| open) {
        changed = true;
        rows::close_session(db, pk, &ended, when)?;
    }
    db.execute(
        "UPDATE session SET archive_date = ?2 WHERE pk = ?1 AND archive_date IS NULL",
        params![pk, adopted.archive_date],
    )?;
    for series in &adopted.series {
        changed |= take_series(db, pk, series)?;
    }
    Ok(changed)
}

fn take_series(db: &Connection, session: i64, series: &AdoptedSeries) -> Result<bool, Broken> {
    let AdoptedSeries { number, width, height, bytes_per_pixel, part_frames, frames } = *series;
    let here = db
        .query_row(
            "SELECT pk, width, height, bytes_per_pixel, part_frames, frames FROM series
             WHERE session = ?1 AND number = ?2",
            params![session, number],
            |row| {
                let shape: (u32, u32, u8, u32) =
                    (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((row.get::<_, i64>(0)?, shape, row.get::<_, i64>(5)?.cast_unsigned()))
            },
        )
        .optional()?;
    let (pk, had) = match here {
        Some((pk, shape, had)) if shape == (width, height, bytes_per_pixel, part_frames) => {
            (pk, had)
        }
        Some(_) => {
            return Err(Broken::Refused(Refusal(format!(
                "series {number} has another shape here than in the archive"
            ))));
        }
        None => {
            db.execute(
                "INSERT INTO series (session, number, width, height, bytes_per_pixel, part_frames)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![session, number, width, height, bytes_per_pixel, part_frames],
            )?;
            (db.last_insert_rowid(), 0)
        }
    };
    if frames <= had {
        return Ok(here.is_none());
    }
    db.execute("UPDATE series SET frames = ?2 WHERE pk = ?1", params![pk, frames.cast_signed()])?;
    let per_part = u64::from(part_frames);
    for part in had / per_part..frames.div_ceil(per_part) {
        note_lost(db, pk, part, per_part, frames)?;
    }
    Ok(true)
}

/// Notes which positions of a part have no frame.
fn note_lost(
    db: &Connection,
    series: i64,
    part: u64,
    part_frames: u64,
    frames: u64,
) -> rusqlite::Result<()> {
    let (from, to) = (part * part_frames, ((part + 1) * part_frames).min(frames));
    let range = params![series, from.cast_signed(), to.cast_signed()];
    db.prepare_cached(
        "DELETE FROM lost_position WHERE series = ?1 AND first >= ?2 AND first < ?3",
    )?
    .execute(range)?;
    let there: Vec<i64> = db
        .prepare_cached(
            "SELECT position FROM frame WHERE series = ?1 AND position >= ?2 AND position < ?3
             ORDER BY position",
        )?
        .query_map(range, |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut next = from.cast_signed();
    for position in there.into_iter().chain([to.cast_signed()]) {
        if position > next {
            db.prepare_cached(
                "INSERT INTO lost_position (series, first, last) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![series, next, position - 1])?;
        }
        next = position + 1;
    }
    Ok(())
}

pub(crate) fn take_part(
    db: &Connection,
    session: SessionId,
    part: &AdoptedPart,
    when: When<'_>,
) -> Result<PartTaken, Broken> {
    let refused = |why: &str| Broken::Refused(Refusal(why.to_owned()));
    let session_pk =
        keys::session(db, session)?.ok_or_else(|| refused("its session was not taken on"))?;
    let (series, part_frames, frames): (i64, u64, u64) = db
        .query_row(
            "SELECT pk, part_frames, frames FROM series WHERE session = ?1 AND number = ?2",
            params![session_pk, part.series],
            |row| {
                let count = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                Ok((row.get(0)?, count(1)?, count(2)?))
            },
        )
        .optional()?
        .ok_or_else(|| refused("its series was not taken on"))?;
    let place = PartRef { series, part: part.part, model: None };
    let mut taken = PartTaken::default();
    for frame in &part.frames {
        take_frame(db, session_pk, place, frame, &mut taken, when)?;
    }
    note_lost(db, series, part.part, part_frames, frames)?;
    if let Some(table) = &part.table {
        settle(
            db,
            Kind::Frames,
            session_pk,
            place,
            part.frames.len() as u64,
            (std::slice::from_ref(table), when.1),
        )?;
    }
    if let Some(shard) = &part.pixels {
        settle(
            db,
            Kind::Pixels,
            session_pk,
            place,
            shard.rows,
            (std::slice::from_ref(shard), when.1),
        )?;
    }
    for results in &part.results {
        take_results(db, session_pk, results, &mut taken, when)?;
        let model = keys::model(db, &results.model)?;
        let place = PartRef { model: Some(model), ..place };
        settle(db, Kind::Results, session_pk, place, results.there, (&results.receipts, when.1))?;
    }
    Ok(taken)
}

fn take_frame(
    db: &Connection,
    session: i64,
    place: PartRef,
    adopted: &AdoptedFrame,
    taken: &mut PartTaken,
    when: When<'_>,
) -> Result<(), Broken> {
    let facts = &adopted.facts;
    let here = db
        .prepare_cached(
            "SELECT pk, series = ?2 AND position = ?3 AND sha256 = ?4, archived
             FROM frame WHERE id = ?1",
        )?
        .query_row(
            params![facts.id.as_bytes(), place.series, facts.position.cast_signed(), facts.sha256],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?)),
        )
        .optional()?;
    if let Some((pk, is_same, archived)) = here {
        if !is_same {
            return Err(Broken::Refused(Refusal(format!(
                "frame {} has another place or other pixels here than in the archive",
                facts.id
            ))));
        }
        if adopted.in_archive && archived != 2 {
            taken.pixels += 1;
            db.prepare_cached("UPDATE frame SET archived = 2 WHERE pk = ?1")?.execute([pk])?;
        }
        return Ok(());
    }
    let other: Option<[u8; 16]> = db
        .prepare_cached("SELECT id FROM frame WHERE series = ?1 AND position = ?2")?
        .query_row(params![place.series, facts.position.cast_signed()], |row| row.get(0))
        .optional()?;
    if let Some(other) = other {
        return Err(Broken::Refused(Refusal(format!(
            "position {} of series {} is frame {} in the archive and frame {} here",
            facts.position,
            facts.series,
            facts.id,
            FrameId::from_bytes(other)
        ))));
    }
    let pk = insert_frame(db, session, place, adopted)?;
    db.prepare_cached("UPDATE session SET frames = frames + 1 WHERE pk = ?1")?
        .execute([session])?;
    let request = Request { kind: Kind::Frames, session, part: Some(place), key: pk };
    requests::request(db, when.0, request, when.1)?;
    taken.frames += 1;
    taken.pixels += u64::from(adopted.in_archive);
    Ok(())
}

fn insert_frame(
    db: &Connection,
    session: i64,
    place: PartRef,
    adopted: &AdoptedFrame,
) -> rusqlite::Result<i64> {
    let facts = &adopted.facts;
    let captured = Stamp {
        wall_ns: facts.captured.recorded_ns,
        mono_ns: facts.captured.mono_ns,
        boot_id: facts.captured.boot,
    };
    let boot = keys::boot(db, &captured)?;
    if facts.captured.at_ns != facts.captured.recorded_ns {
        // That boot was dated again: see clock_correction.rs.
        let mended = db
            .prepare_cached(
                "UPDATE boot SET untrusted = 1, offset_ns = ?2
                 WHERE pk = ?1 AND offset_ns IS NULL",
            )?
            .execute(params![boot, facts.captured.at_ns - facts.captured.mono_ns.cast_signed()])?;
        if mended > 0 {
            aggregates::sum_minutes_again(db, boot)?;
        }
    }
    db.prepare_cached(
        "INSERT INTO frame (id, session, sequence, captured_wall_ns, captured_mono_ns,
                            captured_boot, exposure_us, width, height, bit_depth, sha256,
                            pixel_size_um, plate, well, field, origin, no_file,
                            series, position, archived, pixel_size_source, pixel_size_note)
         VALUES (:id, :session, :sequence, :wall, :mono, :boot, :exposure, :width, :height,
                 :bit_depth, :sha256, :pixel_size, :plate, :well, :field, :origin, :no_file,
                 :series, :position, :archived, :pixel_size_source, :pixel_size_note)",
    )?
    .execute(named_params! {
        ":id": facts.id.as_bytes(),
        ":session": session,
        ":sequence": facts.sequence.cast_signed(),
        ":wall": captured.wall_ns,
        ":mono": captured.mono_ns.cast_signed(),
        ":boot": boot,
        ":exposure": facts.exposure_us,
        ":width": facts.width,
        ":height": facts.height,
        ":bit_depth": facts.bit_depth,
        ":sha256": facts.sha256,
        ":pixel_size": facts.pixel_size_um,
        ":plate": facts.place.plate,
        ":well": facts.place.well,
        ":field": facts.place.field,
        ":origin": facts.origin,
        ":no_file": NoFile::NotRestored,
        ":series": place.series,
        ":position": facts.position.cast_signed(),
        ":archived": if adopted.in_archive { 2 } else { 0 },
        ":pixel_size_source": facts.pixel_size_source.map(PixelSizeSource::as_str),
        ":pixel_size_note": facts.pixel_size_note,
    })?;
    Ok(db.last_insert_rowid())
}

fn take_results(
    db: &Connection,
    session: i64,
    adopted: &AdoptedResults,
    taken: &mut PartTaken,
    when: When<'_>,
) -> Result<(), Broken> {
    let model = keys::model(db, &adopted.model)?;
    let mut range: Option<(i64, i64)> = None;
    for result in &adopted.results {
        let Some(frame) = keys::frame_pk(db, result.frame)? else { continue };
        let known = db
            .prepare_cached(
                "SELECT labels_sha256 FROM segmentation WHERE frame = ?1 AND model = ?2",
            )?
            .query_row([frame, model], |row| row.get::<_, [u8; 32]>(0))
            .optional()?;
        if let Some(known) = known {
            if known != result.labels_sha256 {
                return Err(Broken::Refused(Refusal(format!(
                    "the labels of frame {} here are not those of the archive",
                    result.frame
                ))));
            }
            continue;
        }
        let new = NewResult {
            model: &adopted.model,
            count: result.count,
            labels_sha256: result.labels_sha256,
            packed: &result.packed,
            objects: &result.objects,
            focus: result.focus,
            timings: result.timings,
            look: result.look,
        };
        // Where the archive does not say when it was committed: now is when this store did.
        let committed = result.committed.as_ref().unwrap_or(when.1);
        rows::segmentation(db, session, frame, &new, (when.0, committed))?;
        let pk: i64 = db
            .prepare_cached("SELECT pk FROM segmentation WHERE frame = ?1 AND model = ?2")?
            .query_row([frame, model], |row| row.get(0))?;
        range = Some(range.map_or((pk, pk), |(first, _)| (first, pk)));
        taken.results += 1;
        taken.objects += u64::from(result.count);
    }
    if let Some((first, last)) = range {
        db.execute("INSERT INTO adopted_result (first, last) VALUES (?1, ?2)", [first, last])?;
    }
    Ok(())
}

/// The row of the outbox that delivers this to the archive.
pub(crate) fn item(
    db: &Connection,
    kind: Kind,
    session: i64,
    part: Option<PartRef>,
) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(
        "SELECT pk FROM outbox
         WHERE destination = 'archive' AND kind = ?1 AND session = ?2 AND series IS ?3
           AND part IS ?4 AND model IS ?5",
    )?
    .query_row(
        params![
            kind,
            session,
            part.map(|part| part.series),
            part.map(|part| part.part.cast_signed()),
            part.and_then(|part| part.model)
        ],
        |row| row.get(0),
    )
    .optional()
}

/// Notes what the archive has of a part, and that it is delivered, if that is all there is here.
fn settle(
    db: &Connection,
    kind: Kind,
    session: i64,
    place: PartRef,
    there: u64,
    (receipts, now): (&[Receipt], &Stamp),
) -> rusqlite::Result<()> {
    let part = place.part.cast_signed();
    let in_part = "frame.series = ?1 AND frame.position / series.part_frames = ?2";
    let frames = "frame JOIN series ON series.pk = frame.series";
    let count = match kind {
        Kind::Pixels => format!(
            "SELECT count(*), coalesce(max(frame.pk), 0), total(archived = 1), ?3 IS NULL
             FROM {frames} WHERE {in_part} AND archived > 0"
        ),
        Kind::Results => format!(
            "SELECT count(*), coalesce(max(segmentation.pk), 0), 0, 1
             FROM segmentation JOIN frame ON frame.pk = segmentation.frame
             JOIN series ON series.pk = frame.series
             WHERE {in_part} AND segmentation.model = ?3"
        ),
        Kind::Frames | Kind::Session => format!(
            "SELECT count(*), coalesce(max(frame.pk), 0), 0, ?3 IS NULL FROM {frames}
             WHERE {in_part}"
        ),
    };
    let (here, newest, open): (i64, i64, f64) =
        db.prepare_cached(&count)?.query_row(params![place.series, part, place.model], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let known = item(db, kind, session, Some(place))?;
    let pk = match known {
        Some(pk) => pk,
        None => {
            let boot = keys::boot(db, now)?;
            db.prepare_cached(
                "INSERT INTO outbox (destination, kind, session, series, part, model, requested,
                                     requested_rows, since_mono_ns, since_boot, since_wall_ns,
                                     changed_mono_ns)
                 SELECT 'archive', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?8
                 WHERE EXISTS (SELECT 1 FROM session WHERE pk = ?2 AND delivered_by IS NULL)",
            )?
            .execute(params![
                kind,
                session,
                place.series,
                part,
                place.model,
                newest,
                here,
                now.mono_ns.cast_signed(),
                boot,
                now.wall_ns
            ])?;
            match item(db, kind, session, Some(place))? {
                Some(pk) => pk,
                None => return Ok(()),
            }
        }
    };
    for receipt in receipts {
        claims::put_receipt(db, pk, receipt, now)?;
    }
    let is_all = here.cast_unsigned() == there && open == 0.0 && !receipts.is_empty();
    if is_all {
        db.prepare_cached(
            "UPDATE outbox SET requested = max(requested, ?2), delivered = max(requested, ?2), delivered_rows = ?3,
                               requested_rows = ?3, state = 'delivered', attempts = 0, reason = NULL,
                               due_boot = NULL, due_mono_ns = NULL, lease_boot = NULL,
                               lease_mono_ns = NULL, progress = NULL, urgent = 0
             WHERE pk = ?1",
        )?
        .execute(params![pk, newest, here])?;
    } else {
        db.prepare_cached(
            "UPDATE outbox SET requested = max(requested, ?2), delivered = 0, delivered_rows = 0,
                               state = iif(state = 'quarantined', state, 'waiting'),
                               progress = NULL
             WHERE pk = ?1",
        )?
        .execute(params![pk, newest])?;
    }
    Ok(())
}

/// A frame that has its file again: the archive gets it, if the rule says so and it has not.
pub(crate) fn request_pixels(
    db: &Connection,
    frame: i64,
    (deliveries, now): When<'_>,
) -> rusqlite::Result<()> {
    let (session, series, part, sequence, archived): (i64, i64, i64, i64, i64) = db.query_row(
        "SELECT frame.session, frame.series, frame.position / series.part_frames, frame.sequence,
                frame.archived
         FROM frame JOIN series ON series.pk = frame.series WHERE frame.pk = ?1",
        [frame],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
    )?;
    let is_requested = deliveries.archive.is_some()
        && archived == 0
        && deliveries.pixels.includes(sequence.cast_unsigned());
    if is_requested {
        db.execute("UPDATE frame SET archived = 1 WHERE pk = ?1", [frame])?;
        let part = PartRef { series, part: part.cast_unsigned(), model: None };
        let request = Request { kind: Kind::Pixels, session, part: Some(part), key: frame };
        requests::request(db, deliveries, request, now)?;
    }
    Ok(())
}
