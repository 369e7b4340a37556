//! Keys of rows that others refer to: of a boot, a model, a session, a frame. A boot and a model get
//! their row when they are first met.

use rusqlite::{Connection, OptionalExtension, params};

use reticle_base::clock::Stamp;
use reticle_base::ids::{FrameId, SessionId};
use reticle_domain::segmentation::ModelRef;

/// Primary key of a session; `None` if it was never opened.
pub(crate) fn session(db: &Connection, id: SessionId) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT pk FROM session WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()
}

pub(crate) fn frame_pk(db: &Connection, id: FrameId) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT pk FROM frame WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()
}

/// A frame that is recorded.
pub(crate) struct Recorded {
    pub(crate) pk: i64,
    pub(crate) session: SessionId,
    pub(crate) session_pk: i64,
    pub(crate) sequence: u64,
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
}

/// What is needed of a recorded frame to give it another result; `None` if it is not recorded.
pub(crate) fn recorded(db: &Connection, id: FrameId) -> rusqlite::Result<Option<Recorded>> {
    db.prepare_cached(
        "SELECT frame.pk, session.id, session.pk, frame.sequence, frame.width, frame.height
         FROM frame JOIN session ON session.pk = frame.session WHERE frame.id = ?1",
    )?
    .query_row([id.as_bytes()], |row| {
        Ok(Recorded {
            pk: row.get(0)?,
            session: SessionId::from_bytes(row.get(1)?),
            session_pk: row.get(2)?,
            sequence: row.get::<_, i64>(3)?.cast_unsigned(),
            size: (row.get(4)?, row.get(5)?),
        })
    })
    .optional()
}

pub(crate) fn model(db: &Connection, model: &ModelRef) -> rusqlite::Result<i64> {
    let values = params![model.sha256, model.name, model.parameters, model.software];
    let known = db
        .prepare_cached(
            "SELECT pk FROM model
             WHERE sha256 = ?1 AND name = ?2 AND parameters = ?3 AND software = ?4",
        )?
        .query_row(values, |row| row.get(0))
        .optional()?;
    if let Some(pk) = known {
        return Ok(pk);
    }
    db.prepare_cached(
        "INSERT INTO model (sha256, name, parameters, software) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(values)?;
    Ok(db.last_insert_rowid())
}

pub(crate) fn boot(db: &Connection, stamp: &Stamp) -> rusqlite::Result<i64> {
    let known = db
        .prepare_cached("SELECT pk FROM boot WHERE id = ?1")?
        .query_row([stamp.boot_id.as_bytes()], |row| row.get(0))
        .optional()?;
    if let Some(pk) = known {
        return Ok(pk);
    }
    db.prepare_cached("INSERT INTO boot (id) VALUES (?1)")?.execute([stamp.boot_id.as_bytes()])?;
    Ok(db.last_insert_rowid())
}
