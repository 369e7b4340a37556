//! What is told to the lab's broker: events and results, each once it is committed, in the order
//! of their keys.
//!
//! There is one cursor for each stream: the greatest key that the broker has acknowledged. What is
//! committed beyond it waits, and nothing else says so: no crash can come between a result and the
//! wish to tell it. After a crash everything beyond the cursor is told again, with the same ids.
//!
//! A broker that is new, or in another place, is told what happens from then on: what was before
//! is in the archive and in the central database.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::error::StoreError;
use super::facts::{self, dated};
use super::job::words;
use super::readers::{MAX_ROWS, Reader};
use super::rows;
use super::schema;
use super::writer::Writer;
use reticle_base::clock::rfc3339;
use reticle_base::ids::{EventId, SessionId};
use reticle_domain::event::{Event, What};
use reticle_domain::facts::{Dated, ModelFacts, ResultFacts};

/// Events that were told and are kept all the same: months of an ordinary box, some 30 MB.
const KEPT_EVENTS: i64 = 100_000;

/// Old events that go with one new one at most: after a month offline no commit is held up by
/// all that may go now.
const GOING_EVENTS: i64 = 100;

words! {
    /// What is told, in the order of its keys.
    Stream {
        /// What happened on the box.
        Events = "events",
        /// Results that were committed.
        Results = "results",
    }
}

impl Stream {
    fn table(self) -> &'static str {
        match self {
            Self::Events => "event",
            Self::Results => "segmentation",
        }
    }

    /// Reads the greatest key that was ever given; 0 before the first.
    fn greatest(self) -> &'static str {
        match self {
            // Not that of the table: rows of it go.
            Self::Events => {
                "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)"
            }
            Self::Results => "SELECT coalesce(max(pk), 0) FROM segmentation",
        }
    }
}

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

/// How far one stream was told.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Told {
    /// Which.
    pub stream: Stream,
    /// Where it is told, as `mqtts://broker.lab:8883`.
    pub place: String,
    /// Greatest key that was acknowledged.
    pub done: i64,
    /// Greatest key that was given.
    pub last: i64,
    /// Rows that wait.
    pub waiting: u64,
    /// When the oldest of them happened or was committed, RFC 3339 in UTC.
    pub oldest: Option<String>,
}

/// Records an event, and lets old ones go that were told.
pub(super) fn record(db: &Connection, event: &Event) -> rusqlite::Result<()> {
    let body = serde_json::to_string(&event.what)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    // Not ON CONFLICT: that would use up a key each time, and leave holes.
    let added = db
        .prepare_cached(
            "INSERT INTO event (id, type, session, wall_ns, mono_ns, boot, body)
             SELECT ?1, ?2, (SELECT pk FROM session WHERE id = ?3), ?4, ?5, ?6, ?7
             WHERE NOT EXISTS (SELECT 1 FROM event WHERE id = ?1)",
        )?
        .execute(params![
            event.id.as_bytes(),
            event.what.word(),
            event.session.as_ref().map(SessionId::as_bytes),
            event.at.wall_ns,
            event.at.mono_ns.cast_signed(),
            rows::boot(db, &event.at)?,
            body,
        ])?;
    if added > 0 {
        db.prepare_cached(
            "DELETE FROM event WHERE pk IN (
                 SELECT pk FROM event
                 WHERE pk <= min(?1, coalesce((SELECT done FROM told WHERE stream = 'events'), ?1))
                 ORDER BY pk LIMIT ?2)",
        )?
        .execute(params![db.last_insert_rowid() - KEPT_EVENTS, GOING_EVENTS])?;
    }
    Ok(())
}

/// The broker has all of a stream up to this key.
pub(super) fn told(db: &Connection, stream: Stream, upto: i64) -> rusqlite::Result<()> {
    // Never beyond what there is: what comes next would be passed over.
    db.prepare_cached(&format!(
        "UPDATE told SET done = max(done, min(?2, ({}))) WHERE stream = ?1",
        stream.greatest()
    ))?
    .execute(params![stream, upto])?;
    reticle_base::crash::point("cursor written");
    Ok(())
}

/// A store that knows less than before may have a cursor beyond what it has: what it commits next
/// would be passed over.
pub(super) fn not_beyond(db: &Connection) -> rusqlite::Result<()> {
    for stream in Stream::ALL {
        let moved = db.execute(
            &format!(
                "UPDATE told SET done = ({0}) WHERE stream = ?1 AND done > ({0})",
                stream.greatest()
            ),
            [stream],
        )?;
        if moved > 0 {
            tracing::warn!(
                stream = stream.word(),
                "the broker was told more than this store knows: it is told what comes from here on"
            );
        }
    }
    Ok(())
}

/// Takes on the broker's place. One that is new begins at the end of both streams.
fn begin(db: &Connection, place: Option<&str>) -> rusqlite::Result<()> {
    let Some(place) = place else {
        db.execute("DELETE FROM told", [])?;
        return Ok(());
    };
    for stream in Stream::ALL {
        let known: Option<String> = db
            .query_row("SELECT place FROM told WHERE stream = ?1", [stream], |row| row.get(0))
            .optional()?;
        if known.as_deref() == Some(place) {
            continue;
        }
        let last: i64 = db.query_row(stream.greatest(), [], |row| row.get(0))?;
        db.execute(
            "INSERT INTO told (stream, place, done) VALUES (?1, ?2, ?3)
             ON CONFLICT (stream) DO UPDATE SET place = excluded.place, done = excluded.done",
            params![stream, place, last],
        )?;
        tracing::info!(
            stream = stream.word(),
            from = known,
            to = place,
            after = last,
            "the broker is a new one: it is told what comes from here on"
        );
    }
    Ok(())
}

impl Writer {
    /// Takes on where events and results are told.
    pub(super) fn tell_to(&mut self, place: Option<&str>) -> Result<(), StoreError> {
        let database = self.database.clone();
        let run = |db: &mut Connection| -> rusqlite::Result<()> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            begin(&transaction, place)?;
            transaction.commit()
        };
        run(self.connection()?).map_err(schema::damaged_or("note who is told", &database))
    }
}

impl Reader {
    /// Up to `limit` events (10,000 at most) that the broker has not acknowledged, in the order
    /// of commits; none where no broker is known ([`super::Store::tell_to`]).
    ///
    /// An event that cannot be read (written by a newer version before a step back, or damaged) is
    /// left out and logged once; the cursor passes it with the next one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn untold_events(&self, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.with("read what is to be told", |db| match cursor(db, Stream::Events)? {
            Some(done) => self.events_after(db, done, limit),
            None => Ok(Vec::new()),
        })
    }

    /// Up to `limit` events (10,000 at most) in the order of commits, after the one with this
    /// key. What cannot be read is left out, as in [`Reader::untold_events`].
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
    pub fn untold_results(&self, limit: u32) -> Result<Vec<ResultFacts>, StoreError> {
        self.with("read what is to be told", |db| match cursor(db, Stream::Results)? {
            Some(done) => results_after(db, done, limit),
            None => Ok(Vec::new()),
        })
    }

    /// How far each stream was told; empty where no broker is known.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn told(&self) -> Result<Vec<Told>, StoreError> {
        self.with("read how far was told", |db| {
            // One state for all of it: the count must be that of the same rows as the keys.
            let db = db.unchecked_transaction()?;
            let mut counted = self.counted();
            let mut told = Vec::new();
            for (stream, counted) in Stream::ALL.into_iter().zip(counted.iter_mut()) {
                told.extend(how_far(&db, stream, counted)?);
            }
            Ok(told)
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
pub(super) const EVENTS: &str = "SELECT event.pk, event.id,
        coalesce(event.mono_ns + boot.offset_ns, event.wall_ns), event.wall_ns, event.mono_ns,
        boot.id, session.id, event.body
     FROM event CROSS JOIN boot ON boot.pk = event.boot
     LEFT JOIN session ON session.pk = event.session
     WHERE event.pk > ?1 ORDER BY event.pk";

fn stored_event(row: &Row<'_>, what: What) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        pk: row.get(0)?,
        id: EventId::from_bytes(row.get(1)?),
        at: dated(row, 2)?,
        session: row.get::<_, Option<[u8; 16]>>(6)?.map(SessionId::from_bytes),
        what,
    })
}

/// Results after a key, each with its frame: first the columns of the result, then those of the
/// frame, of its series, and the model.
pub(super) fn results_query() -> String {
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
        facts::RESULT,
        rows::LOOK,
        facts::FRAME,
    )
}

fn results_after(db: &Connection, after: i64, limit: u32) -> rusqlite::Result<Vec<ResultFacts>> {
    let mut models: HashMap<i64, Arc<ModelFacts>> = HashMap::new();
    let mut results = Vec::new();
    let mut statement = db.prepare_cached(&results_query())?;
    let mut rows = statement.query(params![after, limit.min(MAX_ROWS)])?;
    while let Some(row) = rows.next()? {
        let (frame_at, series_at) =
            (facts::RESULT_COLUMNS, facts::RESULT_COLUMNS + facts::FRAME_COLUMNS);
        let session = SessionId::from_bytes(row.get(series_at)?);
        let size = (row.get(series_at + 2)?, row.get(series_at + 3)?);
        let frame = facts::frame_facts(row, frame_at, session, row.get(series_at + 1)?, size)?;
        let pk: i64 = row.get(series_at + 4)?;
        let model = match models.get(&pk) {
            Some(model) => Arc::clone(model),
            None => {
                let model = Arc::new(facts::model_of(db, pk)?);
                models.insert(pk, Arc::clone(&model));
                model
            }
        };
        results.push(facts::result_facts(row, 0, Arc::new(frame), model)?);
    }
    Ok(results)
}

fn cursor(db: &Connection, stream: Stream) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT done FROM told WHERE stream = ?1")?
        .query_row([stream], |row| row.get(0))
        .optional()
}

/// Rows that were found between two keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    done: i64,
    last: i64,
    rows: i64,
}

/// Farther apart than this, an index is faster than the rows themselves: these hold label images.
const FAR: i64 = 10_000;

/// Rows of a stream after key `done` and up to key `last`. They are counted: keys only grow, and
/// may have holes. What was counted before is counted on: it may be millions, and is asked for every
/// two seconds.
fn rows_between(
    db: &Connection,
    stream: Stream,
    (done, last): (i64, i64),
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
        Some(before) if before.done == done && before.last <= last => {
            before.rows + count(before.last, last)?
        }
        // Results never go. Events that were told do, so those cannot be taken off again.
        Some(before) if stream == Stream::Results && before.done < done && before.last <= last => {
            before.rows + count(before.last, last)? - count(before.done, done)?
        }
        _ => count(done, last)?,
    };
    *known = Some(Counted { done, last, rows });
    Ok(rows)
}

fn how_far(
    db: &Connection,
    stream: Stream,
    counted: &mut Option<Counted>,
) -> rusqlite::Result<Option<Told>> {
    // The oldest that waits is the one after the cursor.
    let oldest = match stream {
        Stream::Events => {
            "SELECT coalesce(event.mono_ns + boot.offset_ns, event.wall_ns)
             FROM event CROSS JOIN boot ON boot.pk = event.boot
             WHERE event.pk > told.done ORDER BY event.pk LIMIT 1"
        }
        Stream::Results => {
            "SELECT coalesce(committed_mono_ns + boot.offset_ns, committed_wall_ns)
             FROM segmentation CROSS JOIN boot ON boot.pk = segmentation.committed_boot
             WHERE segmentation.pk > told.done ORDER BY segmentation.pk LIMIT 1"
        }
    };
    let told = db
        .prepare_cached(&format!(
            "SELECT place, done, ({}), ({oldest}) FROM told WHERE stream = ?1",
            stream.greatest()
        ))?
        .query_row([stream], |row| {
            Ok(Told {
                stream,
                place: row.get(0)?,
                done: row.get(1)?,
                last: row.get(2)?,
                waiting: 0,
                oldest: row.get::<_, Option<i64>>(3)?.map(rfc3339),
            })
        })
        .optional()?;
    let Some(mut told) = told else { return Ok(None) };
    let rows = rows_between(db, stream, (told.done, told.last), counted)?;
    told.waiting = rows.max(0).cast_unsigned();
    Ok(Some(told))
}
