//! How far the lab's broker has acknowledged what is published: events and results, each once it is
//! committed, in the order of their keys.
//!
//! There is one cursor for each stream: the greatest key that the broker has acknowledged. What is
//! committed beyond it waits, and nothing else says so: no crash can come between a result and the
//! note that it is to be published. After a crash everything beyond the cursor is published again, with
//! the same ids.
//!
//! A broker that is new, or in another location, gets what happens from then on: what was before is in
//! the archive and in the central database.

use rusqlite::{Connection, OptionalExtension, params};

use crate::sql::keys;
use crate::words::words;
use reticle_base::ids::SessionId;
use reticle_domain::event::Event;

/// Events that were published and are kept all the same: months of an ordinary box, some 30 MB.
const KEPT_EVENTS: i64 = 100_000;

/// Old events that go with one new one at most: after a month offline no commit is held up by
/// all that may go now.
const GOING_EVENTS: i64 = 100;

words! {
    /// What is published, in the order of its keys.
    Stream {
        /// What happened on the box.
        Events = "events",
        /// Results that were committed.
        Results = "results",
    }
}

impl Stream {
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Events => "event",
            Self::Results => "segmentation",
        }
    }

    /// Reads the greatest key that was ever given; 0 before the first.
    pub(crate) fn greatest(self) -> &'static str {
        match self {
            // Not that of the table: rows of it go.
            Self::Events => {
                "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)"
            }
            Self::Results => "SELECT coalesce(max(pk), 0) FROM segmentation",
        }
    }
}

/// Records an event, and lets old ones go that were published.
pub(crate) fn record(db: &Connection, event: &Event) -> rusqlite::Result<()> {
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
            keys::boot(db, &event.at)?,
            body,
        ])?;
    if added > 0 {
        db.prepare_cached(
            "DELETE FROM event WHERE pk IN (
                 SELECT pk FROM event
                 WHERE pk <= min(?1, coalesce((SELECT acknowledged FROM publish_cursor
                                              WHERE stream = 'events'), ?1))
                 ORDER BY pk LIMIT ?2)",
        )?
        .execute(params![db.last_insert_rowid() - KEPT_EVENTS, GOING_EVENTS])?;
    }
    Ok(())
}

/// The broker has all of a stream up to this key.
pub(crate) fn acknowledge(db: &Connection, stream: Stream, upto: i64) -> rusqlite::Result<()> {
    // Never beyond what there is: what comes next would be passed over.
    db.prepare_cached(&format!(
        "UPDATE publish_cursor SET acknowledged = max(acknowledged, min(?2, ({})))
         WHERE stream = ?1",
        stream.greatest()
    ))?
    .execute(params![stream, upto])?;
    reticle_base::crash::point("cursor written");
    Ok(())
}

/// A store that knows less than before may have a cursor beyond what it has: what it commits next
/// would be passed over.
pub(crate) fn not_beyond(db: &Connection) -> rusqlite::Result<()> {
    for stream in Stream::ALL {
        let moved = db.execute(
            &format!(
                "UPDATE publish_cursor SET acknowledged = ({0})
                 WHERE stream = ?1 AND acknowledged > ({0})",
                stream.greatest()
            ),
            [stream],
        )?;
        if moved > 0 {
            tracing::warn!(
                stream = stream.word(),
                "the broker has more than this store knows: it gets what comes from here on"
            );
        }
    }
    Ok(())
}

/// Takes on the broker's location. One that is new begins at the end of both streams.
pub(crate) fn begin(db: &Connection, location: Option<&str>) -> rusqlite::Result<()> {
    let Some(location) = location else {
        db.execute("DELETE FROM publish_cursor", [])?;
        return Ok(());
    };
    for stream in Stream::ALL {
        let known: Option<String> = db
            .query_row("SELECT location FROM publish_cursor WHERE stream = ?1", [stream], |row| {
                row.get(0)
            })
            .optional()?;
        if known.as_deref() == Some(location) {
            continue;
        }
        let last: i64 = db.query_row(stream.greatest(), [], |row| row.get(0))?;
        db.execute(
            "INSERT INTO publish_cursor (stream, location, acknowledged) VALUES (?1, ?2, ?3)
             ON CONFLICT (stream) DO UPDATE SET location = excluded.location,
                 acknowledged = excluded.acknowledged",
            params![stream, location, last],
        )?;
        tracing::info!(
            stream = stream.word(),
            from = known,
            to = location,
            after = last,
            "the broker is a new one: it gets what comes from here on"
        );
    }
    Ok(())
}
