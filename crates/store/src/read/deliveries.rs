//! How far the deliveries are: what waits, what was refused, and the receipts.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::delivery::{Destination, Item, Kind};
use crate::error::StoreError;
use crate::read::columns;
use crate::read::reader::Reader;
use reticle_base::clock::rfc3339;
use reticle_base::ids::{FrameId, SessionId, StoreId};

/// How far one destination is. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Delivery {
    /// Which.
    pub destination: Destination,
    /// Where it is, as `s3://lab/box-1`.
    pub location: String,
    /// Deliveries that are to be made, each of up to 64 frames.
    pub waiting: u64,
    /// Frames and results in them that no receipt covers.
    pub waiting_rows: u64,
    /// Deliveries that were never taken and are not tried again by themselves.
    pub quarantined: u64,
    /// Single frames and results that were never taken.
    pub refused: u64,
    /// Deliveries made.
    pub done: u64,
    /// When the oldest row that waits came.
    pub oldest: Option<String>,
    /// Why the last attempt failed, while it does, or why nothing is delivered there.
    pub reason: Option<String>,
    /// What was found there that this store does not know. Nothing is delivered there then, until
    /// a person has decided (`reticle sync adopt`).
    pub conflict: Option<String>,
}

/// A delivery that was never taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// Where to.
    pub destination: Destination,
    /// What.
    pub kind: Kind,
    /// Of which session.
    pub session: SessionId,
    /// Number of the series in it, where it is a part of one.
    pub series: Option<u32>,
    /// Number of the part.
    pub part: Option<u64>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was not taken.
    pub reason: String,
}

/// A frame or result that was never taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refused {
    /// Where to.
    pub destination: Destination,
    /// Frames, results, or pixels.
    pub kind: Kind,
    /// The frame.
    pub frame: FrameId,
    /// Why it was not taken.
    pub reason: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
}

/// The store's own keys of what a destination can never take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedKeys {
    /// Frames.
    pub frames: HashSet<i64>,
    /// Results.
    pub results: HashSet<i64>,
}

/// What a destination has, as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    /// What it is part of.
    pub kind: Kind,
    /// Its key at the destination.
    pub key: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// What the destination calls this content.
    pub etag: String,
    /// Rows in it.
    pub rows: u64,
}

impl Reader {
    /// Keys of the frames or results that a destination can never take.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refused_of(&self, item: &Item) -> Result<Vec<i64>, StoreError> {
        self.with("read what was refused", |db| {
            db.prepare_cached("SELECT subject FROM refused WHERE destination = ?1 AND kind = ?2")?
                .query_map(params![item.destination, item.kind], |row| row.get(0))?
                .collect()
        })
    }

    /// Keys of all frames and results that a destination can never take.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refused_keys(&self, destination: Destination) -> Result<RefusedKeys, StoreError> {
        self.with("read what was refused", |db| {
            let mut keys = RefusedKeys::default();
            let mut statement =
                db.prepare_cached("SELECT kind, subject FROM refused WHERE destination = ?1")?;
            let mut rows = statement.query([destination])?;
            while let Some(row) = rows.next()? {
                match row.get(0)? {
                    Kind::Results => keys.results.insert(row.get(1)?),
                    Kind::Frames => keys.frames.insert(row.get(1)?),
                    Kind::Session | Kind::Pixels => false,
                };
            }
            Ok(keys)
        })
    }

    /// How far each destination is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn deliveries(&self) -> Result<Vec<Delivery>, StoreError> {
        self.with("read the outbox", |db| {
            db.prepare_cached(
                "WITH open AS (
                     SELECT destination,
                            sum(state = 'waiting') AS waiting,
                            sum(iif(state = 'waiting',
                                    max(requested_rows - delivered_rows, kind = 'session'), 0)) AS rows,
                            sum(state = 'quarantined') AS quarantined,
                            min(iif(state = 'waiting',
                                    coalesce(since_mono_ns + boot.offset_ns, since_wall_ns),
                                    NULL)) AS oldest
                     FROM outbox JOIN boot ON boot.pk = since_boot
                     WHERE state <> 'delivered' GROUP BY destination)
                 SELECT destination.name, destination.location, coalesce(open.waiting, 0),
                        coalesce(open.rows, 0), coalesce(open.quarantined, 0),
                        (SELECT count(*) FROM refused WHERE destination = destination.name),
                        (SELECT count(*) FROM outbox WHERE destination = destination.name)
                            - coalesce(open.waiting, 0) - coalesce(open.quarantined, 0),
                        open.oldest,
                        coalesce(destination.conflict, (SELECT reason FROM outbox
                          WHERE destination = destination.name AND state = 'waiting'
                            AND reason IS NOT NULL ORDER BY attempts DESC LIMIT 1)),
                        destination.conflict
                 FROM destination LEFT JOIN open ON open.destination = destination.name
                 ORDER BY destination.name",
            )?
            .query_map([], |row| {
                Ok(Delivery {
                    destination: row.get(0)?,
                    location: row.get(1)?,
                    waiting: columns::unsigned(row, 2)?,
                    waiting_rows: columns::unsigned(row, 3)?,
                    quarantined: columns::unsigned(row, 4)?,
                    refused: columns::unsigned(row, 5)?,
                    done: columns::unsigned(row, 6)?,
                    oldest: row.get::<_, Option<i64>>(7)?.map(rfc3339),
                    reason: row.get(8)?,
                    conflict: row.get(9)?,
                })
            })?
            .collect()
        })
    }

    /// Deliveries that somebody asked for at once ([`Ask::DeliverNow`](crate::Ask::DeliverNow)) and that
    /// are not made yet, where there may be any.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn urgent(&self) -> Result<u64, StoreError> {
        self.with("read the outbox", |db| {
            db.prepare_cached(
                "SELECT count(*) FROM outbox JOIN destination ON destination.name = destination
                 WHERE urgent AND state = 'waiting' AND conflict IS NULL",
            )?
            .query_row([], |row| columns::unsigned(row, 0))
        })
    }

    /// Deliveries that were never taken.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        self.with("read the quarantine", |db| {
            db.prepare_cached(
                "SELECT outbox.destination, outbox.kind, session.id, series.number, outbox.part,
                        outbox.attempts, coalesce(outbox.reason, '')
                 FROM outbox JOIN session ON session.pk = outbox.session
                 LEFT JOIN series ON series.pk = outbox.series
                 WHERE outbox.state = 'quarantined' ORDER BY outbox.pk",
            )?
            .query_map([], |row| {
                Ok(Quarantined {
                    destination: row.get(0)?,
                    kind: row.get(1)?,
                    session: SessionId::from_bytes(row.get(2)?),
                    series: row.get(3)?,
                    part: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                    attempts: row.get(5)?,
                    reason: row.get(6)?,
                })
            })?
            .collect()
        })
    }

    /// Frames and results that were never taken.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn refused(&self) -> Result<Vec<Refused>, StoreError> {
        self.with("read the quarantine", |db| {
            db.prepare_cached(
                "SELECT refused.destination, refused.kind, frame.id, refused.reason,
                        refused.wall_ns
                 FROM refused JOIN frame ON frame.pk = CASE refused.kind
                     WHEN 'results' THEN (SELECT frame FROM segmentation WHERE pk = subject)
                     ELSE subject END
                 ORDER BY refused.wall_ns",
            )?
            .query_map([], |row| {
                Ok(Refused {
                    destination: row.get(0)?,
                    kind: row.get(1)?,
                    frame: FrameId::from_bytes(row.get(2)?),
                    reason: row.get(3)?,
                    at: rfc3339(row.get(4)?),
                })
            })?
            .collect()
        })
    }

    /// What a destination has of a session, by key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn receipts(
        &self,
        destination: Destination,
        session: SessionId,
    ) -> Result<Vec<StoredReceipt>, StoreError> {
        self.with("read the receipts", |db| {
            db.prepare_cached(&format!(
                "{RECEIPT} AND outbox.session = (SELECT pk FROM session WHERE id = ?2)
                     ORDER BY receipt.key"
            ))?
            .query_map(params![destination, session.as_bytes()], stored_receipt)?
            .collect()
        })
    }

    /// What a destination has under a key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn receipt(
        &self,
        destination: Destination,
        key: &str,
    ) -> Result<Option<StoredReceipt>, StoreError> {
        self.with("read a receipt", |db| {
            db.prepare_cached(&format!("{RECEIPT} AND receipt.key = ?2"))?
                .query_row(params![destination, key], stored_receipt)
                .optional()
        })
    }

    /// Whether anything of a session still waits for a destination, its description apart.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_behind(
        &self,
        destination: Destination,
        session: SessionId,
    ) -> Result<bool, StoreError> {
        self.with("read the outbox", |db| {
            db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM outbox
                     WHERE destination = ?1 AND kind <> 'session' AND state <> 'delivered'
                       AND session = (SELECT pk FROM session WHERE id = ?2))",
            )?
            .query_row(params![destination, session.as_bytes()], |row| row.get(0))
        })
    }

    /// Deliveries that were claimed for the archive so far.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn mark(&self, destination: Destination) -> Result<i64, StoreError> {
        self.with("read a mark", |db| mark_of(db, destination))
    }

    /// Who delivers this session, where it is not this store.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn delivered_by(&self, session: SessionId) -> Result<Option<StoreId>, StoreError> {
        self.with("read who delivers a session", |db| {
            db.query_row(
                "SELECT delivered_by FROM session WHERE id = ?1",
                [session.as_bytes()],
                |row| Ok(row.get::<_, Option<[u8; 16]>>(0)?.map(StoreId::from_bytes)),
            )
            .optional()
            .map(Option::flatten)
        })
    }
}

/// What the location that a destination has now was given.
const RECEIPT: &str = "SELECT outbox.kind, receipt.key, receipt.bytes, receipt.sha256,
        receipt.etag, receipt.rows
     FROM receipt JOIN outbox ON outbox.pk = receipt.outbox
     JOIN destination ON destination.name = outbox.destination
     WHERE outbox.destination = ?1 AND receipt.location = destination.location";

fn stored_receipt(row: &Row<'_>) -> rusqlite::Result<StoredReceipt> {
    Ok(StoredReceipt {
        kind: row.get(0)?,
        key: row.get(1)?,
        bytes: columns::unsigned(row, 2)?,
        sha256: row.get(3)?,
        etag: row.get(4)?,
        rows: columns::unsigned(row, 5)?,
    })
}

/// Deliveries that were claimed for a destination so far.
pub(crate) fn mark_of(db: &Connection, destination: Destination) -> rusqlite::Result<i64> {
    db.query_row("SELECT high_water FROM destination WHERE name = ?1", [destination], |row| {
        row.get(0)
    })
    .optional()
    .map(|mark| mark.unwrap_or(0))
}
