//! Where results go, as the store knows it, and what a destination has to be given when it is new,
//! somewhere else, or was given wrong times.

use rusqlite::{Connection, OptionalExtension, params};

use crate::delivery::{Deliveries, Destination};
use crate::options::Keep;
use crate::sql::requests;
use reticle_base::clock::Stamp;

/// The destinations that the last daemon delivered to: what is added without one is noted for
/// them, too. An archive gets pixels only of what a daemon takes.
pub(crate) fn known(db: &Connection) -> rusqlite::Result<Deliveries> {
    let location = |destination: Destination| {
        db.query_row("SELECT location FROM destination WHERE name = ?1", [destination], |row| {
            row.get::<_, String>(0)
        })
        .optional()
    };
    Ok(Deliveries {
        archive: location(Destination::Archive)?,
        pixels: Keep::None,
        central: location(Destination::Central)?,
    })
}

/// Makes the outbox request all that is in the store: for a destination that was not configured
/// before, or that is now in another location. Without a change nothing happens.
pub(crate) fn reconcile(
    db: &Connection,
    deliveries: &Deliveries,
    now: &Stamp,
) -> rusqlite::Result<()> {
    for (destination, location) in deliveries.locations() {
        let known: Option<String> = db
            .query_row("SELECT location FROM destination WHERE name = ?1", [destination], |row| {
                row.get(0)
            })
            .optional()?;
        if known.as_deref() == Some(location) {
            continue;
        }
        requests::request_all(db, destination, now)?;
        db.execute(
            "INSERT INTO destination (name, location, high_water)
             SELECT ?1, ?2, high_water FROM identity WHERE pk = 1
             ON CONFLICT (name) DO UPDATE SET location = excluded.location, conflict = NULL,
                 conflict_mark = 0",
            params![destination, location],
        )?;
        if let Some(known) = known {
            tracing::info!(
                destination = destination.word(),
                from = known,
                to = location,
                "the destination is another one: everything will be delivered there"
            );
        }
    }
    // Who held these is gone: the data folder has one owner, and that is now us.
    db.execute(
        "UPDATE outbox SET lease_boot = NULL, lease_mono_ns = NULL WHERE lease_boot IS NOT NULL",
        [],
    )?;
    // While a destination was left out, nothing was noted for it.
    let named: Vec<&str> =
        deliveries.locations().map(|(destination, _)| destination.word()).collect();
    for destination in Destination::ALL {
        if !named.contains(&destination.word()) {
            // Its mark must not begin again: the location may be configured again and remember it.
            db.execute(
                "UPDATE identity SET high_water = max(high_water, coalesce(
                     (SELECT high_water FROM destination WHERE name = ?1), 0))",
                [destination],
            )?;
            db.execute("DELETE FROM destination WHERE name = ?1", [destination])?;
        }
    }
    Ok(())
}
