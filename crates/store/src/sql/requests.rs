//! What is to be delivered.
//!
//! A row of `outbox` delivers one part of a series to one destination. It is made, or made to
//! request more, in the transaction that commits what it delivers, so that no crash can come
//! between a result and the request to deliver it.
//!
//! `requested` is the greatest key that belongs to it, `delivered` the greatest that a receipt covers.
//! Keys only grow, so a delivery says up to which key it read; what was committed meanwhile is
//! beyond that key and stays requested.

use rusqlite::{Connection, named_params, params};

use crate::delivery::{Deliveries, Destination, Kind, PartRef};
use crate::sql::keys;
use reticle_base::clock::Stamp;

/// That something is there to be delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) session: i64,
    pub(crate) part: Option<PartRef>,
    /// Key of the row; what is given for a session is ignored.
    pub(crate) key: i64,
}

/// Notes for each destination that takes it what is there to be delivered.
pub(crate) fn request(
    db: &Connection,
    deliveries: &Deliveries,
    request: Request,
    now: &Stamp,
) -> rusqlite::Result<()> {
    for (destination, _) in deliveries.locations() {
        if request.kind != Kind::Pixels || destination == Destination::Archive {
            request_at(db, destination, request, now)?;
        }
    }
    Ok(())
}

pub(crate) fn request_at(
    db: &Connection,
    destination: Destination,
    request: Request,
    now: &Stamp,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO outbox (destination, kind, session, series, part, model, requested,
                             requested_rows, since_mono_ns, since_boot, since_wall_ns, changed_mono_ns)
         SELECT :destination, :kind, :session, :series, :part, :model, :key, 1,
                :mono, :boot, :wall, :mono
         WHERE EXISTS (SELECT 1 FROM session WHERE pk = :session AND delivered_by IS NULL)
         ON CONFLICT (destination, kind, session, coalesce(series, 0), coalesce(part, -1),
                      coalesce(model, 0)) DO UPDATE SET
             requested = CASE kind WHEN 'session' THEN requested + 1
                                ELSE max(requested, excluded.requested) END,
             requested_rows = requested_rows + (kind <> 'session'),
             since_mono_ns = iif(state = 'delivered', excluded.since_mono_ns, since_mono_ns),
             since_boot = iif(state = 'delivered', excluded.since_boot, since_boot),
             since_wall_ns = iif(state = 'delivered', excluded.since_wall_ns, since_wall_ns),
             changed_mono_ns = excluded.changed_mono_ns,
             state = iif(state = 'delivered', 'waiting', state)",
    )?
    .execute(named_params! {
        ":destination": destination,
        ":kind": request.kind,
        ":session": request.session,
        ":series": request.part.map(|part| part.series),
        ":part": request.part.map(|part| part.part.cast_signed()),
        ":model": request.part.and_then(|part| part.model),
        ":key": if request.kind == Kind::Session { 1 } else { request.key },
        ":mono": now.mono_ns.cast_signed(),
        ":boot": keys::boot(db, now)?,
        ":wall": now.wall_ns,
    })?;
    Ok(())
}

pub(crate) fn request_session(
    db: &Connection,
    session: i64,
    (deliveries, now): (&Deliveries, &Stamp),
) -> rusqlite::Result<()> {
    request(db, deliveries, Request { kind: Kind::Session, session, part: None, key: 1 }, now)
}

pub(crate) fn request_all(
    db: &Connection,
    destination: Destination,
    now: &Stamp,
) -> rusqlite::Result<()> {
    let boot = keys::boot(db, now)?;
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
pub(crate) fn request_boot_again(db: &Connection, boot: i64, now: &Stamp) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE outbox SET delivered = 0, state = iif(state = 'delivered', 'waiting', state),
                           since_mono_ns = ?2, since_boot = ?3, since_wall_ns = ?4
         WHERE kind IN ('frames', 'results') AND series IN
               (SELECT DISTINCT series FROM frame WHERE captured_boot = ?1)",
        params![boot, now.mono_ns.cast_signed(), keys::boot(db, now)?, now.wall_ns],
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
