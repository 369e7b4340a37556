//! Who delivers what, and what has been delivered.
//!
//! Deliveries are claimed with a lease: a process that dies in the middle gives them back by
//! itself. Leases and back-off count monotonic time of one boot; in another boot they are over.
//! A delivery is done only on a receipt.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use crate::delivery::{Claim, Destination, Item, Kind, PartRef, Receipt, Report};
use crate::sql::requests::{self, Request};
use crate::sql::{destinations, keys};
use reticle_base::clock::Stamp;
use reticle_base::ids::SessionId;

/// A part is left alone for this long after its last change, so that results which are just
/// being committed go with it.
const SETTLED: Duration = Duration::from_secs(5);

/// Rows gather for this long before the database gets them: otherwise the part that is being
/// filled would be delivered row by row, and older ones would never have their turn.
const GATHERED: Duration = Duration::from_secs(1);

/// A session's description follows its parts after this long, once for all of them.
const DESCRIBE_AFTER: Duration = Duration::from_secs(30);

/// The deliveries that may be made now, most urgent first: what describes, then frames and
/// results, then pixels; of each the newest first, because that is what people look at.
pub(crate) fn take(db: &Connection, claim: &Claim, now: &Stamp) -> rusqlite::Result<Vec<Item>> {
    let boot = keys::boot(db, now)?;
    let mono = now.mono_ns.cast_signed();
    let ago = |wait: Duration| mono.saturating_sub(nanos(wait));
    let mut items: Vec<Item> = db
        .prepare_cached(&format!(
            "{ITEM}
             LEFT JOIN series ON series.pk = outbox.series
             WHERE outbox.destination = :destination AND outbox.state = 'waiting'
               AND NOT EXISTS (SELECT 1 FROM destination
                               WHERE name = :destination AND conflict IS NOT NULL)
               AND (outbox.due_boot IS NOT :boot OR outbox.due_mono_ns <= :now)
               AND (outbox.lease_boot IS NOT :boot OR outbox.lease_mono_ns <= :now)
               AND CASE
                   WHEN outbox.kind = 'session' THEN
                       outbox.destination = 'central'
                       OR NOT EXISTS (
                           SELECT 1 FROM outbox AS other
                           WHERE other.destination = outbox.destination
                             AND other.session = outbox.session AND other.state = 'waiting'
                             AND other.kind <> 'session' AND other.attempts = 0)
                       OR (outbox.urgent AND NOT EXISTS (
                           SELECT 1 FROM outbox AS other
                           WHERE other.destination = outbox.destination
                             AND other.session = outbox.session AND other.state = 'waiting'
                             AND other.kind <> 'session' AND other.urgent))
                       OR (NOT :drain AND (outbox.since_boot <> :boot
                                           OR outbox.since_mono_ns <= :describe))
                   WHEN :drain OR outbox.urgent THEN 1
                   WHEN outbox.destination = 'central' THEN
                       outbox.since_boot <> :boot OR outbox.since_mono_ns <= :gathered
                   WHEN session.ended_wall_ns IS NOT NULL
                     OR session.pk < (SELECT max(pk) FROM session) THEN 1
                   WHEN series.frames >= (outbox.part + 1) * series.part_frames THEN
                       outbox.since_boot <> :boot OR outbox.changed_mono_ns <= :settled
                   WHEN outbox.kind = 'pixels' THEN 0
                   ELSE outbox.since_boot <> :boot OR outbox.since_mono_ns <= :late
               END
             ORDER BY CASE outbox.kind
                          WHEN 'session' THEN iif(outbox.destination = 'central', 0, 3)
                          WHEN 'frames' THEN 1 WHEN 'results' THEN 2 ELSE 4 END,
                      outbox.pk DESC
             LIMIT :limit"
        ))?
        .query_map(
            named_params! {
                ":destination": claim.destination,
                ":boot": boot,
                ":now": mono,
                ":describe": ago(DESCRIBE_AFTER),
                ":gathered": ago(GATHERED),
                ":settled": ago(SETTLED),
                ":late": ago(claim.max_delay),
                ":drain": claim.drain,
                ":limit": claim.limit,
            },
            item,
        )?
        .collect::<rusqlite::Result<_>>()?;
    for item in &mut items {
        db.prepare_cached("UPDATE outbox SET lease_mono_ns = ?2, lease_boot = ?3 WHERE pk = ?1")?
            .execute(params![item.pk, mono.saturating_add(nanos(claim.lease)), boot])?;
        item.mark = db
            .prepare_cached(
                "UPDATE destination SET high_water = high_water + 1 WHERE name = ?1
                 RETURNING high_water",
            )?
            .query_row([item.destination], |row| row.get(0))?;
    }
    Ok(items)
}

const ITEM: &str = "SELECT outbox.pk, outbox.destination, outbox.kind, session.id, outbox.series,
        outbox.part, outbox.model, outbox.requested, outbox.delivered, outbox.attempts,
        outbox.progress
     FROM outbox JOIN session ON session.pk = outbox.session";

fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    let (series, part): (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
    let model = row.get(6)?;
    Ok(Item {
        pk: row.get(0)?,
        destination: row.get(1)?,
        kind: row.get(2)?,
        session: SessionId::from_bytes(row.get(3)?),
        part: series.zip(part).map(|(series, part)| PartRef {
            series,
            part: part.cast_unsigned(),
            model,
        }),
        requested: row.get(7)?,
        delivered: row.get(8)?,
        attempts: row.get(9)?,
        progress: row.get(10)?,
        mark: 0,
    })
}

pub(crate) fn note(db: &Connection, report: &Report, now: &Stamp) -> rusqlite::Result<()> {
    match report {
        Report::Delivered { item, upto, rows, receipts } => {
            delivered(db, *item, *upto, *rows, receipts, now)?;
        }
        Report::Failed { item, wait, reason } => {
            let due = now.mono_ns.cast_signed().saturating_add(nanos(*wait));
            db.prepare_cached(
                "UPDATE outbox SET attempts = attempts + 1, reason = ?2, due_mono_ns = ?3,
                                   due_boot = ?4, lease_boot = NULL, lease_mono_ns = NULL
                 WHERE pk = ?1",
            )?
            .execute(params![item, reason, due, keys::boot(db, now)?])?;
        }
        Report::Refused { item, subject, reason } => {
            db.prepare_cached(
                "INSERT INTO refused (destination, kind, subject, reason, wall_ns)
                 SELECT destination, kind, ?2, ?3, ?4 FROM outbox WHERE pk = ?1
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![item, subject, reason, now.wall_ns])?;
            db.prepare_cached(
                "UPDATE outbox SET reason = ?2, lease_boot = NULL, lease_mono_ns = NULL
                 WHERE pk = ?1",
            )?
            .execute(params![item, reason])?;
        }
        Report::Quarantined { item, reason } => {
            db.prepare_cached(
                "UPDATE outbox SET state = 'quarantined', attempts = attempts + 1, reason = ?2,
                                   lease_boot = NULL, lease_mono_ns = NULL
                 WHERE pk = ?1 AND state <> 'delivered'",
            )?
            .execute(params![item, reason])?;
        }
        Report::Conflict { item, reason, high_water } => {
            db.prepare_cached(
                "UPDATE destination SET conflict = ?2, conflict_mark = ?3
                 WHERE name = (SELECT destination FROM outbox WHERE pk = ?1)",
            )?
            .execute(params![item, reason, high_water])?;
            db.prepare_cached(
                "UPDATE outbox SET lease_boot = NULL, lease_mono_ns = NULL WHERE pk = ?1",
            )?
            .execute([item])?;
        }
        Report::Progress { item, progress } => {
            db.prepare_cached("UPDATE outbox SET progress = ?2 WHERE pk = ?1")?
                .execute(params![item, progress])?;
        }
    }
    Ok(())
}

/// Notes what a destination has.
pub(crate) fn put_receipt(
    db: &Connection,
    item: i64,
    receipt: &Receipt,
    now: &Stamp,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO receipt (outbox, location, key, bytes, sha256, etag, checksum, rows,
                              wall_ns, mono_ns, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (location, key) DO UPDATE SET
             outbox = excluded.outbox, bytes = excluded.bytes, sha256 = excluded.sha256,
             etag = excluded.etag, checksum = excluded.checksum, rows = excluded.rows,
             wall_ns = excluded.wall_ns, mono_ns = excluded.mono_ns, boot = excluded.boot",
    )?
    .execute(params![
        item,
        receipt.location,
        receipt.key,
        receipt.bytes.cast_signed(),
        receipt.sha256,
        receipt.etag,
        receipt.checksum,
        receipt.rows.cast_signed(),
        now.wall_ns,
        now.mono_ns.cast_signed(),
        keys::boot(db, now)?,
    ])?;
    Ok(())
}

fn delivered(
    db: &Connection,
    item: i64,
    upto: i64,
    rows: u64,
    receipts: &[Receipt],
    now: &Stamp,
) -> rusqlite::Result<()> {
    let boot = keys::boot(db, now)?;
    for receipt in receipts {
        put_receipt(db, item, receipt, now)?;
    }
    reticle_base::crash::point("receipts written");
    let (destination, kind, session, urgent): (Destination, Kind, i64, bool) = db
        .prepare_cached("SELECT destination, kind, session, urgent FROM outbox WHERE pk = ?1")?
        .query_row([item], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    db.prepare_cached(
        "UPDATE outbox SET delivered = max(delivered, ?2), delivered_rows = ?3, attempts = 0,
                           reason = NULL,
                           due_boot = NULL, due_mono_ns = NULL, lease_boot = NULL,
                           lease_mono_ns = NULL, progress = NULL, urgent = 0,
                           since_mono_ns = ?4, since_boot = ?5, since_wall_ns = ?6,
                           state = iif(requested <= max(delivered, ?2), 'delivered', 'waiting')
         WHERE pk = ?1",
    )?
    .execute(params![
        item,
        upto,
        rows.cast_signed(),
        now.mono_ns.cast_signed(),
        boot,
        now.wall_ns
    ])?;
    if kind == Kind::Pixels {
        // From here on these files may be evicted.
        db.prepare_cached(
            "UPDATE frame SET archived = 2
             WHERE archived = 1 AND pk <= ?2 AND series = (SELECT series FROM outbox WHERE pk = ?1)
               AND position / (SELECT part_frames FROM series WHERE series.pk = frame.series)
                   = (SELECT part FROM outbox WHERE pk = ?1)",
        )?
        .execute(params![item, upto])?;
    }
    if destination == Destination::Archive && kind != Kind::Session {
        // The session's description names every object.
        requests::request_at(
            db,
            destination,
            Request { kind: Kind::Session, session, part: None, key: 1 },
            now,
        )?;
        if urgent {
            db.prepare_cached(
                "UPDATE outbox SET urgent = 1
                 WHERE destination = ?1 AND kind = 'session' AND session = ?2",
            )?
            .execute(params![destination, session])?;
        }
    }
    Ok(())
}

pub(crate) fn deliver_now(db: &Connection) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE outbox SET urgent = 1, due_boot = NULL, due_mono_ns = NULL
         WHERE state = 'waiting'",
        [],
    )?;
    Ok(())
}

pub(crate) fn retry(db: &Connection) -> rusqlite::Result<u64> {
    let refused = db.execute(
        "UPDATE outbox SET delivered = 0, state = 'waiting'
         WHERE EXISTS (
             SELECT 1 FROM refused JOIN segmentation ON segmentation.pk = refused.subject
             JOIN frame ON frame.pk = segmentation.frame JOIN series ON series.pk = frame.series
             WHERE refused.kind = 'results' AND outbox.kind = 'results'
               AND refused.destination = outbox.destination AND frame.series = outbox.series
               AND segmentation.model = outbox.model
               AND frame.position / series.part_frames = outbox.part)
            OR EXISTS (
             SELECT 1 FROM refused JOIN frame ON frame.pk = refused.subject
             JOIN series ON series.pk = frame.series
             WHERE refused.kind = outbox.kind AND outbox.kind IN ('frames', 'pixels')
               AND refused.destination = outbox.destination AND frame.series = outbox.series
               AND frame.position / series.part_frames = outbox.part)",
        [],
    )?;
    db.execute("DELETE FROM refused", [])?;
    let quarantined =
        db.execute("UPDATE outbox SET state = 'waiting' WHERE state = 'quarantined'", [])?;
    db.execute(
        "UPDATE outbox SET attempts = 0, due_boot = NULL, due_mono_ns = NULL
         WHERE state = 'waiting'",
        [],
    )?;
    Ok((refused + quarantined) as u64)
}

/// Everything once more, where it was: for a bucket that somebody emptied.
pub(crate) fn again(db: &Connection, now: &Stamp) -> rusqlite::Result<u64> {
    let retried = retry(db)?;
    for (destination, _) in destinations::known(db)?.locations() {
        requests::request_all(db, destination, now)?;
    }
    Ok(retried)
}

pub(crate) fn archive_date(
    db: &Connection,
    session: SessionId,
    date: &str,
) -> rusqlite::Result<String> {
    db.prepare_cached(
        "UPDATE session SET archive_date = ?2 WHERE id = ?1 AND archive_date IS NULL",
    )?
    .execute(params![session.as_bytes(), date])?;
    let chosen = db
        .prepare_cached("SELECT archive_date FROM session WHERE id = ?1")?
        .query_row([session.as_bytes()], |row| row.get::<_, Option<String>>(0))
        .optional()?;
    Ok(chosen.flatten().unwrap_or_else(|| date.to_owned()))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
