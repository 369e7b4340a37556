//! The logbook of the store itself: what was recovered, which clock was corrected.

use rusqlite::{Connection, params};

use crate::sql::keys;
use reticle_base::clock::Stamp;

/// An event of the store itself, for its logbook.
pub(crate) fn note(
    db: &Connection,
    now: &Stamp,
    kind: &str,
    detail: &serde_json::Value,
) -> rusqlite::Result<()> {
    let boot = keys::boot(db, now)?;
    db.execute(
        "INSERT INTO store_log (wall_ns, mono_ns, boot, kind, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![now.wall_ns, now.mono_ns.cast_signed(), boot, kind, detail.to_string()],
    )?;
    Ok(())
}
