//! Sums over results, kept ready by field and by minute of capture.
//!
//! They change in the transaction of the result that they count, so they are never behind and
//! never ahead. Each model has its own, so a frame that is segmented again by another model
//! changes nothing of the first one's. Wells, plates and sessions are sums of fields (views in
//! the schema). `reticle fsck` counts everything again (I13).

use rusqlite::{Connection, named_params, params};

use reticle_domain::object::Object;
use reticle_domain::segmentation::IN_FOCUS;

/// Columns of both tables after their keys. They are named wherever a row is written, so that this
/// works in a schema of a newer program, which may have more of them.
const SUMS: &str =
    "frames, objects, area, pixels, intensity, focus, frames_in_focus, objects_in_focus,
    area_in_focus, pixels_in_focus, intensity_in_focus";

/// Adds one result to the sums of its field and of its minute.
pub(crate) fn add(
    db: &Connection,
    frame: i64,
    model: i64,
    objects: &[Object],
    focus: f32,
) -> rusqlite::Result<()> {
    let area: i64 = objects.iter().map(|object| i64::from(object.area)).sum();
    // What is not a number counts as nothing, as in SQL.
    let intensity: f64 =
        objects.iter().map(|object| object.intensity_mean).filter(|mean| mean.is_finite()).sum();
    for (table, keys, values, index) in [
        (
            "field_sum",
            "session, model, plate, well, field",
            "frame.session, :model, coalesce(frame.plate, ''), coalesce(frame.well, ''),
             coalesce(frame.field, 0)",
            "",
        ),
        (
            "minute_sum",
            "session, model, minute",
            "frame.session, :model,
             coalesce(frame.captured_mono_ns + boot.offset_ns, frame.captured_wall_ns)
                 / 60000000000",
            "JOIN boot ON boot.pk = frame.captured_boot",
        ),
    ] {
        db.prepare_cached(&format!(
            "INSERT INTO {table} ({keys}, {SUMS})
             SELECT {values}, 1, :objects, :area, frame.width * frame.height, :intensity, :focus,
                    :sharp, :objects * :sharp, :area * :sharp,
                    frame.width * frame.height * :sharp, :intensity * :sharp
             FROM frame {index} WHERE frame.pk = :frame
             ON CONFLICT ({keys}) DO UPDATE SET
                 frames = frames + 1,
                 objects = objects + excluded.objects,
                 area = area + excluded.area,
                 pixels = pixels + excluded.pixels,
                 intensity = intensity + excluded.intensity,
                 focus = focus + excluded.focus,
                 frames_in_focus = frames_in_focus + excluded.frames_in_focus,
                 objects_in_focus = objects_in_focus + excluded.objects_in_focus,
                 area_in_focus = area_in_focus + excluded.area_in_focus,
                 pixels_in_focus = pixels_in_focus + excluded.pixels_in_focus,
                 intensity_in_focus = intensity_in_focus + excluded.intensity_in_focus"
        ))?
        .execute(named_params! {
            ":frame": frame,
            ":model": model,
            ":objects": objects.len() as i64,
            ":area": area,
            ":intensity": intensity,
            ":focus": if focus.is_finite() { focus } else { 0.0 },
            ":sharp": focus >= IN_FOCUS,
        })?;
    }
    Ok(())
}

/// Sums the minutes of all sessions with frames of this boot again: their times were mended.
pub(crate) fn sum_minutes_again(db: &Connection, boot: i64) -> rusqlite::Result<()> {
    let sessions = "SELECT DISTINCT session FROM frame WHERE captured_boot = ?1";
    db.execute(&format!("DELETE FROM minute_sum WHERE session IN ({sessions})"), params![boot])?;
    db.execute(
        &format!(
            "INSERT INTO minute_sum (session, model, minute, {SUMS})
                  {MINUTES} WHERE session IN ({sessions}) {BY_MINUTE}"
        ),
        params![boot],
    )?;
    Ok(())
}

const MINUTES: &str = "SELECT session, model, minute, count(*), sum(objects), sum(area),
        sum(pixels), total(intensity), total(focus), sum(in_focus), sum(objects * in_focus),
        sum(area * in_focus), sum(pixels * in_focus), total(intensity * in_focus)
     FROM result_sum";

const BY_MINUTE: &str = "GROUP BY session, model, minute";
