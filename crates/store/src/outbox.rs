//! What is to be delivered, and what has been.
//!
//! A row of `outbox` delivers one part of a series to one destination. It is made, or made to
//! request more, in the transaction that commits what it delivers, so that no crash can come
//! between a result and the request to deliver it. It is delivered only on a receipt.
//!
//! `requested` is the greatest key that belongs to it, `delivered` the greatest that a receipt covers.
//! Keys only grow, so a delivery says up to which key it read; what was committed meanwhile is
//! beyond that key and stays requested.
//!
//! Deliveries are claimed with a lease: a process that dies in the middle gives them back by
//! itself. Leases and back-off count monotonic time of one boot; in another boot they are over.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::commands::{self, Noted};
use super::cursor::{self, Stream};
use super::destinations;
use super::intake;
use super::job::words;
use super::rows;
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

words! {
    /// Where something is delivered.
    Destination {
        /// Object storage or a folder.
        Archive = "archive",
        /// The lab's PostgreSQL.
        Central = "central",
    }
}

words! {
    /// What a delivery carries.
    Kind {
        /// Name, begin and end of a session, and the shapes of its arrays.
        Session = "session",
        /// Frames of one part.
        Frames = "frames",
        /// Results of one model in one part.
        Results = "results",
        /// Pixels of one part.
        Pixels = "pixels",
    }
}

/// Which part of which series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartRef {
    /// Key of the series.
    pub series: i64,
    /// Number of the part in it, from 0.
    pub part: u64,
    /// Key of the model, for results.
    pub model: Option<i64>,
}

/// A delivery that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its key.
    pub pk: i64,
    /// Where to.
    pub destination: Destination,
    /// What.
    pub kind: Kind,
    /// Of which session.
    pub session: SessionId,
    /// Of which part; `None` for a session.
    pub part: Option<PartRef>,
    /// Greatest key that belonged to it when it was claimed.
    pub requested: i64,
    /// Greatest key that a receipt covers.
    pub delivered: i64,
    /// Failed deliveries in a row.
    pub attempts: u32,
    /// An upload in parts that was begun, as [`Report::Progress`] gave it.
    pub progress: Option<String>,
    /// The destination's high-water mark: deliveries that this store has claimed for it, with
    /// this one. It was committed with the claim, so whoever knows a greater one is not this store.
    pub mark: i64,
}

/// Which deliveries to claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Where to.
    pub destination: Destination,
    /// How many at most.
    pub limit: u32,
    /// How long nobody else may have them.
    pub lease: Duration,
    /// Parts that are not full are delivered after this long.
    pub max_delay: Duration,
    /// Deliver all there is, full or not.
    pub drain: bool,
}

/// That a destination has something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where: bucket, folder or database.
    pub location: String,
    /// Under which key.
    pub key: String,
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
    /// What the destination calls this content.
    pub etag: String,
    /// What was read back and compared.
    pub checksum: String,
    /// Rows in it: frames, results or objects.
    pub rows: u64,
}

/// What became of a claimed delivery.
#[derive(Clone, Debug)]
pub enum Report {
    /// It is there.
    Delivered {
        /// Which.
        item: i64,
        /// Greatest key that was delivered.
        upto: i64,
        /// Rows that were delivered.
        rows: u64,
        /// What the destination answered. Empty for a database: its commit is the receipt.
        receipts: Vec<Receipt>,
    },
    /// It was not taken, and may be later.
    Failed {
        /// Which.
        item: i64,
        /// How long to wait.
        wait: Duration,
        /// Why.
        reason: String,
    },
    /// One frame or result of it can never be taken. The others can, at once.
    Refused {
        /// Which delivery.
        item: i64,
        /// Key of the frame, or of the result.
        subject: i64,
        /// Why.
        reason: String,
    },
    /// It can never be taken as a whole.
    Quarantined {
        /// Which.
        item: i64,
        /// Why.
        reason: String,
    },
    /// The destination knows more than this store. Nothing is claimed for it in this epoch any more.
    Conflict {
        /// Which delivery found it.
        item: i64,
        /// What was found, and what to do.
        reason: String,
        /// The mark that the destination has; 0 where it is not greater.
        high_water: i64,
    },
    /// How far an upload in parts has come; `None` when it is over.
    Progress {
        /// Which delivery.
        item: i64,
        /// To be given back with the next claim.
        progress: Option<String>,
    },
}

/// What is asked of the outbox, through the writer's queue.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Deliveries to make now, most urgent first.
    Claim(Claim),
    /// What became of one.
    Report(Report),
    /// Deliver what waits now as it is, full parts or not, without waiting for anything.
    DeliverNow,
    /// Quarantined and refused ones get another chance, and nobody waits any longer.
    Retry,
    /// As [`Ask::Retry`], and everything that was delivered is delivered again.
    Again,
    /// The broker has acknowledged all of a stream up to this key.
    Published {
        /// Which.
        stream: Stream,
        /// Key of the last event or result that it has.
        upto: i64,
    },
    /// A command from the network is about to be done: note its id, unless it was used before.
    Command {
        /// What is to be done.
        operation: String,
        /// The id of it that the asker gave.
        id: String,
    },
    /// A command that was noted came to its end.
    Commanded {
        /// What was to be done.
        operation: String,
        /// Its id.
        id: String,
        /// What was answered, as JSON.
        answer: String,
    },
    /// A change in the ledger of the watched folder.
    Intake(intake::Change),
    /// The day under which a session is archived; the given one if none was chosen before.
    ArchiveDate {
        /// Which session.
        session: SessionId,
        /// As `2026-11-23`.
        date: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Claimed; nobody else gets them until the lease ends.
    Claimed(Vec<Item>),
    /// It is written and fsynced.
    Written,
    /// How many deliveries get another chance.
    Retried(u64),
    /// Whether the command may be done.
    Command(Noted),
    /// The row of the ledger, or how many there were.
    Intake(i64),
    /// The day that stays.
    ArchiveDate(String),
}

/// Where things are delivered, by the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Name of the archive's place, as `s3://lab/box-1`.
    pub archive: Option<String>,
    /// Which kept frames the archive gets with their pixels.
    pub pixels: super::options::Keep,
    /// Name of the database's place.
    pub central: Option<String>,
}

impl Deliveries {
    /// The places, by destination.
    pub(super) fn locations(&self) -> impl Iterator<Item = (Destination, &str)> {
        let archive = self.archive.as_deref().map(|location| (Destination::Archive, location));
        let central = self.central.as_deref().map(|location| (Destination::Central, location));
        archive.into_iter().chain(central)
    }
}

/// That something is there to be delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) session: i64,
    pub(super) part: Option<PartRef>,
    /// Key of the row; what is given for a session is ignored.
    pub(super) key: i64,
}

/// Notes for each destination that takes it what is there to be delivered.
pub(super) fn request(
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

fn request_at(
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
        ":boot": rows::boot(db, now)?,
        ":wall": now.wall_ns,
    })?;
    Ok(())
}

/// Answers one question, inside the transaction of its caller.
pub(super) fn answer(db: &Connection, ask: &Ask, now: &Stamp) -> rusqlite::Result<Answer> {
    match ask {
        Ask::Claim(claim) => take(db, claim, now).map(Answer::Claimed),
        Ask::Report(report) => note(db, report, now).map(|()| Answer::Written),
        Ask::DeliverNow => deliver_now(db).map(|()| Answer::Written),
        Ask::Retry => retry(db).map(Answer::Retried),
        Ask::Again => again(db, now).map(Answer::Retried),
        Ask::Published { stream, upto } => {
            cursor::acknowledge(db, *stream, *upto).map(|()| Answer::Written)
        }
        Ask::Command { operation, id } => {
            commands::note(db, operation, id, now).map(Answer::Command)
        }
        Ask::Commanded { operation, id, answer } => {
            commands::ended(db, operation, id, answer).map(|()| Answer::Written)
        }
        Ask::Intake(change) => intake::change(db, change, now).map(Answer::Intake),
        Ask::ArchiveDate { session, date } => {
            archive_date(db, *session, date).map(Answer::ArchiveDate)
        }
    }
}

/// The deliveries that may be made now, most urgent first: what describes, then frames and
/// results, then pixels; of each the newest first, because that is what people look at.
fn take(db: &Connection, claim: &Claim, now: &Stamp) -> rusqlite::Result<Vec<Item>> {
    let boot = rows::boot(db, now)?;
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

fn note(db: &Connection, report: &Report, now: &Stamp) -> rusqlite::Result<()> {
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
            .execute(params![item, reason, due, rows::boot(db, now)?])?;
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
pub(super) fn put_receipt(
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
        rows::boot(db, now)?,
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
    let boot = rows::boot(db, now)?;
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
        request_at(
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

fn deliver_now(db: &Connection) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE outbox SET urgent = 1, due_boot = NULL, due_mono_ns = NULL
         WHERE state = 'waiting'",
        [],
    )?;
    Ok(())
}

fn retry(db: &Connection) -> rusqlite::Result<u64> {
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
fn again(db: &Connection, now: &Stamp) -> rusqlite::Result<u64> {
    let retried = retry(db)?;
    for (destination, _) in destinations::known(db)?.locations() {
        destinations::request_all(db, destination, now)?;
    }
    Ok(retried)
}

fn archive_date(db: &Connection, session: SessionId, date: &str) -> rusqlite::Result<String> {
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
