//! What the lab's broker has not acknowledged: events and results beyond its cursors.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::StoreError;
use crate::read::columns;
use crate::read::reader::{Counted, MAX_ROWS, Reader};
use crate::sql::cursor::Stream;
use reticle_base::clock::rfc3339;
use reticle_base::ids::{EventId, SessionId};
use reticle_domain::event::What;
use reticle_domain::facts::{Dated, ModelFacts, ResultFacts};

/// An event as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// The store's own key, in the order of commits.
    pub pk: i64,
    /// Name for ever.
    pub id: EventId,
    /// When it happened.
    pub at: Dated,
    /// In which session, where it was in one.
    pub session: Option<SessionId>,
    /// What.
    pub what: What,
}

/// How far one stream was published.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PublishCursor {
    /// Which.
    pub stream: Stream,
    /// Where it is published, as `mqtts://broker.lab:8883`.
    pub location: String,
    /// Greatest key that was acknowledged.
    pub acknowledged: i64,
    /// Greatest key that was given.
    pub last: i64,
    /// Rows that wait.
    pub waiting: u64,
    /// When the oldest of them happened or was committed, RFC 3339 in UTC.
    pub oldest: Option<String>,
}

impl Reader {
    /// Up to `limit` events (10,000 at most) that the broker has not acknowledged, in the order
    /// of commits; none where no broker is known ([`crate::Store::publish_to`]).
    ///
    /// An event that cannot be read (written by a newer version before a step back, or damaged) is
    /// left out and logged once; the cursor passes it with the next one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unpublished_events(&self, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.with("read what is to be published", |db| match cursor(db, Stream::Events)? {
            Some(acknowledged) => self.events_after(db, acknowledged, limit),
            None => Ok(Vec::new()),
        })
    }

    /// Up to `limit` events (10,000 at most) in the order of commits, after the one with this
    /// key. What cannot be read is left out, as in [`Reader::unpublished_events`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn events(&self, after: Option<i64>, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.with("read the events", |db| self.events_after(db, after.unwrap_or(0), limit))
    }

    /// Up to `limit` results (10,000 at most) that the broker has not acknowledged, in the order
    /// of commits; none where no broker is known.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unpublished_results(&self, limit: u32) -> Result<Vec<ResultFacts>, StoreError> {
        self.with("read what is to be published", |db| match cursor(db, Stream::Results)? {
            Some(acknowledged) => results_after(db, acknowledged, limit),
            None => Ok(Vec::new()),
        })
    }

    /// How far each stream was published; empty where no broker is known.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn publish_cursors(&self) -> Result<Vec<PublishCursor>, StoreError> {
        self.with("read how far was published", |db| {
            // One state for all of it: the count must be that of the same rows as the keys.
            let db = db.unchecked_transaction()?;
            let mut counted = self.counted();
            let mut cursors = Vec::new();
            for (stream, counted) in Stream::ALL.into_iter().zip(counted.iter_mut()) {
                cursors.extend(how_far(&db, stream, counted)?);
            }
            Ok(cursors)
        })
    }

    fn events_after(
        &self,
        db: &Connection,
        after: i64,
        limit: u32,
    ) -> rusqlite::Result<Vec<StoredEvent>> {
        let limit = limit.min(MAX_ROWS) as usize;
        let mut events = Vec::new();
        let mut statement = db.prepare_cached(EVENTS)?;
        let mut rows = statement.query([after])?;
        // No LIMIT: a page of rows that cannot be read would be an end.
        while events.len() < limit {
            let Some(row) = rows.next()? else { break };
            match serde_json::from_slice(row.get_ref(7)?.as_bytes()?) {
                Ok(what) => events.push(stored_event(row, what)?),
                Err(error) => {
                    let event: i64 = row.get(0)?;
                    if self.is_first_look_at(event) {
                        tracing::error!(event, %error, "an event cannot be read: passed over");
                    }
                }
            }
        }
        Ok(events)
    }
}

// CROSS JOIN keeps the order of the tables: by key, without sorting.
pub(crate) const EVENTS: &str = "SELECT event.pk, event.id,
        coalesce(event.mono_ns + boot.offset_ns, event.wall_ns), event.wall_ns, event.mono_ns,
        boot.id, session.id, event.body
     FROM event CROSS JOIN boot ON boot.pk = event.boot
     LEFT JOIN session ON session.pk = event.session
     WHERE event.pk > ?1 ORDER BY event.pk";

fn stored_event(row: &Row<'_>, what: What) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        pk: row.get(0)?,
        id: EventId::from_bytes(row.get(1)?),
        at: columns::dated(row, 2)?,
        session: row.get::<_, Option<[u8; 16]>>(6)?.map(SessionId::from_bytes),
        what,
    })
}

/// Results after a key, each with its frame: first the columns of the result, then those of the
/// frame, of its series, and the model.
pub(crate) fn results_query() -> String {
    format!(
        "SELECT {}, {}, {}, session.id, series.number, series.width, series.height,
                segmentation.model
         FROM segmentation
         CROSS JOIN frame ON frame.pk = segmentation.frame
         CROSS JOIN series ON series.pk = frame.series
         CROSS JOIN session ON session.pk = frame.session
         CROSS JOIN boot AS captured_in ON captured_in.pk = frame.captured_boot
         CROSS JOIN boot AS committed_in ON committed_in.pk = segmentation.committed_boot
         WHERE segmentation.pk > ?1 ORDER BY segmentation.pk LIMIT ?2",
        columns::RESULT,
        columns::LOOK,
        columns::FRAME,
    )
}

fn results_after(db: &Connection, after: i64, limit: u32) -> rusqlite::Result<Vec<ResultFacts>> {
    let mut models: HashMap<i64, Arc<ModelFacts>> = HashMap::new();
    let mut results = Vec::new();
    let mut statement = db.prepare_cached(&results_query())?;
    let mut rows = statement.query(params![after, limit.min(MAX_ROWS)])?;
    while let Some(row) = rows.next()? {
        let (frame_at, series_at) =
            (columns::RESULT_COLUMNS, columns::RESULT_COLUMNS + columns::FRAME_COLUMNS);
        let session = SessionId::from_bytes(row.get(series_at)?);
        let size = (row.get(series_at + 2)?, row.get(series_at + 3)?);
        let frame = columns::frame_facts(row, frame_at, session, row.get(series_at + 1)?, size)?;
        let pk: i64 = row.get(series_at + 4)?;
        let model = match models.get(&pk) {
            Some(model) => Arc::clone(model),
            None => {
                let model = Arc::new(columns::model_of(db, pk)?);
                models.insert(pk, Arc::clone(&model));
                model
            }
        };
        results.push(columns::result_facts(row, 0, Arc::new(frame), model)?);
    }
    Ok(results)
}

fn cursor(db: &Connection, stream: Stream) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT acknowledged FROM publish_cursor WHERE stream = ?1")?
        .query_row([stream], |row| row.get(0))
        .optional()
}

/// Farther apart than this, an index is faster than the rows themselves: these hold label images.
const FAR: i64 = 10_000;

/// Rows of a stream after key `after` and up to key `last`. They are counted: keys only grow, and
/// may have holes. What was counted before is counted on: it may be millions, and is asked for every
/// two seconds.
fn rows_between(
    db: &Connection,
    stream: Stream,
    (after, last): (i64, i64),
    known: &mut Option<Counted>,
) -> rusqlite::Result<i64> {
    let count = |from: i64, to: i64| -> rusqlite::Result<i64> {
        // A plus sign takes the key out of the search, so that the smallest index is read.
        let by = if to.saturating_sub(from) > FAR { "+" } else { "" };
        let table = stream.table();
        let query = format!("SELECT count(*) FROM {table} WHERE {by}pk > ?1 AND {by}pk <= ?2");
        db.prepare_cached(&query)?.query_row([from, to], |row| row.get(0))
    };
    let rows = match *known {
        Some(before) if before.after == after && before.last <= last => {
            before.rows + count(before.last, last)?
        }
        // Results never go. Events that were published do, so those cannot be taken off again.
        Some(before)
            if stream == Stream::Results && before.after < after && before.last <= last =>
        {
            before.rows + count(before.last, last)? - count(before.after, after)?
        }
        _ => count(after, last)?,
    };
    *known = Some(Counted { after, last, rows });
    Ok(rows)
}

fn how_far(
    db: &Connection,
    stream: Stream,
    counted: &mut Option<Counted>,
) -> rusqlite::Result<Option<PublishCursor>> {
    // The oldest that waits is the one after the cursor.
    let oldest = match stream {
        Stream::Events => {
            "SELECT coalesce(event.mono_ns + boot.offset_ns, event.wall_ns)
             FROM event CROSS JOIN boot ON boot.pk = event.boot
             WHERE event.pk > acknowledged ORDER BY event.pk LIMIT 1"
        }
        Stream::Results => {
            "SELECT coalesce(committed_mono_ns + boot.offset_ns, committed_wall_ns)
             FROM segmentation CROSS JOIN boot ON boot.pk = segmentation.committed_boot
             WHERE segmentation.pk > acknowledged ORDER BY segmentation.pk LIMIT 1"
        }
    };
    let found = db
        .prepare_cached(&format!(
            "SELECT location, acknowledged, ({}), ({oldest}) FROM publish_cursor WHERE stream = ?1",
            stream.greatest()
        ))?
        .query_row([stream], |row| {
            Ok(PublishCursor {
                stream,
                location: row.get(0)?,
                acknowledged: row.get(1)?,
                last: row.get(2)?,
                waiting: 0,
                oldest: row.get::<_, Option<i64>>(3)?.map(rfc3339),
            })
        })
        .optional()?;
    let Some(mut cursor) = found else { return Ok(None) };
    let rows = rows_between(db, stream, (cursor.acknowledged, cursor.last), counted)?;
    cursor.waiting = rows.max(0).cast_unsigned();
    Ok(Some(cursor))
}
