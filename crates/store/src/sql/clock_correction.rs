//! When the clock was wrong: how instants are dated again.
//!
//! A box without a battery clock starts with a wrong date and learns the right one from the
//! network, minutes or days later. Every instant is recorded with the wall time of that moment
//! and with monotonic time. Once the clock can be trusted, the difference of the two dates the
//! whole boot: one number in its row of `boot`. What was recorded stays where it is.

use rusqlite::{Connection, params};

use crate::sql::{aggregates, keys, log, requests};
use reticle_base::clock::Stamp;

/// What the clock says now. At the start of a boot that it cannot be trusted in, the boot is
/// marked; when it can be trusted for the first time in such a boot, its instants are dated
/// again, the sums by minute are made again, and what was delivered with the wrong times is
/// wanted again.
pub(crate) fn clock(db: &Connection, now: &Stamp, trusted: bool) -> rusqlite::Result<()> {
    let boot = keys::boot(db, now)?;
    if !trusted {
        db.execute("UPDATE boot SET untrusted = 1 WHERE pk = ?1 AND offset_ns IS NULL", [boot])?;
        return Ok(());
    }
    let was_wrong: bool = db.query_row(
        "SELECT untrusted = 1 AND offset_ns IS NULL FROM boot WHERE pk = ?1",
        [boot],
        |row| row.get(0),
    )?;
    if !was_wrong {
        return Ok(());
    }
    let offset = now.wall_ns.saturating_sub(now.mono_ns.cast_signed());
    db.execute("UPDATE boot SET offset_ns = ?2 WHERE pk = ?1", params![boot, offset])?;
    aggregates::sum_minutes_again(db, boot)?;
    requests::request_boot_again(db, boot, now)?;
    let frames: i64 =
        db.query_row("SELECT count(*) FROM frame WHERE captured_boot = ?1", [boot], |row| {
            row.get(0)
        })?;
    tracing::info!(frames, "the clock can be trusted now: what this boot recorded is dated again");
    let detail = serde_json::json!({ "offset_ns": offset, "frames": frames });
    log::note(db, now, "clock_corrected", &detail)
}
