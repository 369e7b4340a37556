//! Where results go, as the store knows it, and what a destination has to be given when it is new,
//! somewhere else, or was given wrong times.

use rusqlite::{Connection, OptionalExtension, params};

use super::options::Keep;
use super::outbox::{Deliveries, Destination};
use super::rows;
use reticle_base::clock::Stamp;

/// The destinations that the last daemon delivered to: what is added without one is noted for
/// them, too. An archive gets pixels only of what a daemon takes.
pub(super) fn known(db: &Connection) -> rusqlite::Result<Deliveries> {
    let location = |destination: Destination| {
        db.query_row("SELECT location FROM destination WHERE name = ?1", [destination], |row| {
            row.get::<_, String>(0)
        })
        .optional()
    };
    Ok(Deliveries {
        archive: location(Destination::Archive)?,
        pixels: Keep::None,
        central: location(Destination::Central)?,
    })
}

/// Makes the outbox request all that is in the store: for a destination that was not configured
/// before, or that is now in another location. Without a change nothing happens.
pub(super) fn reconcile(
    db: &Connection,
    deliveries: &Deliveries,
    now: &Stamp,
) -> rusqlite::Result<()> {
    for (destination, location) in deliveries.locations() {
        let known: Option<String> = db
            .query_row("SELECT location FROM destination WHERE name = ?1", [destination], |row| {
                row.get(0)
            })
            .optional()?;
        if known.as_deref() == Some(location) {
            continue;
        }
        request_all(db, destination, now)?;
        db.execute(
            "INSERT INTO destination (name, location, high_water)
             SELECT ?1, ?2, high_water FROM identity WHERE pk = 1
             ON CONFLICT (name) DO UPDATE SET location = excluded.location, conflict = NULL,
                 conflict_mark = 0",
            params![destination, location],
        )?;
        if let Some(known) = known {
            tracing::info!(
                destination = destination.word(),
                from = known,
                to = location,
                "the destination is another one: everything will be delivered there"
            );
        }
    }
    // Who held these is gone: the data folder has one owner, and that is now us.
    db.execute(
        "UPDATE outbox SET lease_boot = NULL, lease_mono_ns = NULL WHERE lease_boot IS NOT NULL",
        [],
    )?;
    // While a destination was left out, nothing was noted for it.
    let named: Vec<&str> =
        deliveries.locations().map(|(destination, _)| destination.word()).collect();
    for destination in Destination::ALL {
        if !named.contains(&destination.word()) {
            // Its mark must not begin again: the location may be configured again and remember it.
            db.execute(
                "UPDATE identity SET high_water = max(high_water, coalesce(
                     (SELECT high_water FROM destination WHERE name = ?1), 0))",
                [destination],
            )?;
            db.execute("DELETE FROM destination WHERE name = ?1", [destination])?;
        }
    }
    Ok(())
}

pub(super) fn request_all(
    db: &Connection,
    destination: Destination,
    now: &Stamp,
) -> rusqlite::Result<()> {
    let boot = rows::boot(db, now)?;
    let parts = [
        "SELECT 'session' AS kind, session.pk AS session, NULL AS series, NULL AS part,
                NULL AS model, 1 AS requested, 0 AS requested_rows FROM session
         WHERE delivered_by IS NULL",
        "SELECT 'frames', frame.session, frame.series, frame.position / series.part_frames,
                NULL, max(frame.pk), count(*)
         FROM frame JOIN series ON series.pk = frame.series
         WHERE frame.session IN (SELECT pk FROM session WHERE delivered_by IS NULL) GROUP BY 3, 4",
        "SELECT 'results', frame.session, frame.series, frame.position / series.part_frames,
                segmentation.model, max(segmentation.pk), count(*)
         FROM segmentation JOIN frame ON frame.pk = segmentation.frame
         JOIN series ON series.pk = frame.series
         WHERE frame.session IN (SELECT pk FROM session WHERE delivered_by IS NULL)
         GROUP BY 3, 4, 5",
        "SELECT 'pixels', frame.session, frame.series, frame.position / series.part_frames,
                NULL, max(frame.pk), count(*)
         FROM frame JOIN series ON series.pk = frame.series
         WHERE frame.archived > 0 AND frame.file IS NOT NULL
           AND frame.session IN (SELECT pk FROM session WHERE delivered_by IS NULL) GROUP BY 3, 4",
    ];
    // Those that were archived elsewhere must be archived again before they go.
    if destination == Destination::Archive {
        db.execute("UPDATE frame SET archived = 1 WHERE archived = 2 AND file IS NOT NULL", [])?;
    }
    for part in parts {
        if destination == Destination::Central && part.contains("'pixels'") {
            continue;
        }
        // "WHERE true" tells the parser that ON belongs to the insert, not to a join.
        db.execute(
            &format!(
                "INSERT INTO outbox (kind, session, series, part, model, requested, requested_rows,
                                     destination, since_mono_ns, since_boot, since_wall_ns,
                                     changed_mono_ns)
                 SELECT *, ?1, ?2, ?3, ?4, ?2 FROM ({part}) WHERE true
                 ON CONFLICT (destination, kind, session, coalesce(series, 0),
                              coalesce(part, -1), coalesce(model, 0)) DO UPDATE SET
                     requested = CASE kind WHEN 'session' THEN requested + 1
                                        ELSE max(requested, excluded.requested) END,
                     requested_rows = excluded.requested_rows, delivered = 0, delivered_rows = 0,
                     state = 'waiting', attempts = 0, due_boot = NULL, due_mono_ns = NULL,
                     progress = NULL, since_mono_ns = excluded.since_mono_ns,
                     since_boot = excluded.since_boot, since_wall_ns = excluded.since_wall_ns"
            ),
            params![destination, now.mono_ns.cast_signed(), boot, now.wall_ns],
        )?;
    }
    Ok(())
}

/// All that carries a time of this boot is delivered again: its times were mended.
pub(super) fn request_boot_again(db: &Connection, boot: i64, now: &Stamp) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE outbox SET delivered = 0, state = iif(state = 'delivered', 'waiting', state),
                           since_mono_ns = ?2, since_boot = ?3, since_wall_ns = ?4
         WHERE kind IN ('frames', 'results') AND series IN
               (SELECT DISTINCT series FROM frame WHERE captured_boot = ?1)",
        params![boot, now.mono_ns.cast_signed(), rows::boot(db, now)?, now.wall_ns],
    )?;
    db.execute(
        "UPDATE outbox SET requested = requested + 1,
                           state = iif(state = 'delivered', 'waiting', state)
         WHERE kind = 'session' AND session IN
               (SELECT pk FROM session WHERE started_boot = ?1 OR ended_boot = ?1)",
        [boot],
    )?;
    Ok(())
}
