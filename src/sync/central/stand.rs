//! The row that says which store delivers and how far it has come ([`crate::sync::standing`]).

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::connect::STEP;
use super::fault::{Failure, within};
use super::plan::uuid;
use crate::sync::standing::{Claimant, Memory, Writer};
use reticle_base::clock::rfc3339;
use reticle_base::ids::{EpochId, StoreId};
use reticle_exchange::standing::{Dispute, Standing, VERSION};

/// Columns in the order in which [`find_with`] reads them; times in nanoseconds since 1970.
const FIND: &str = "
    SELECT epoch, site || '/' || box, writer, high_water,
           (extract(epoch FROM written_at) * 1000000000)::bigint,
           disputed_writer, disputed_machine, disputed_high_water,
           (extract(epoch FROM disputed_at) * 1000000000)::bigint
    FROM reticle.store WHERE id = $1";

const WRITE: &str = "
    INSERT INTO reticle.store AS old
        (id, epoch, site, box, writer, high_water, written_at)
    VALUES ($1, $2, $3, $4, $5, $6, now())
    ON CONFLICT (id) DO UPDATE SET
        epoch = excluded.epoch, site = excluded.site, box = excluded.box,
        writer = excluded.writer, high_water = excluded.high_water,
        written_at = excluded.written_at,
        disputed_writer = NULL, disputed_machine = NULL, disputed_high_water = NULL,
        disputed_at = NULL";

const DISPUTE: &str = "
    UPDATE reticle.store
    SET disputed_writer = $2, disputed_machine = $3, disputed_high_water = $4, disputed_at = now()
    WHERE id = $1 AND disputed_at IS NULL";

/// Makes sure that the store may deliver, inside the delivery's transaction, and writes so.
///
/// # Errors
/// [`Failure::conflict`] where it may not; the caller then rolls back and calls [`dispute`].
pub(super) async fn take(
    transaction: &Transaction<'_>,
    memory: &Memory,
    claimant: &Claimant,
) -> Result<(), Failure> {
    const WRITE_STEP: &str = "write who delivers";
    let identity = claimant.identity;
    let found = find_with(transaction, identity.store, " FOR UPDATE").await?;
    if let Some(why) = memory.conflict(found.as_ref(), claimant) {
        let high_water = found.map_or(0, |found| found.high_water);
        return Err(Failure::conflict(why, high_water));
    }
    let box_name = &claimant.writer.box_name;
    let (store, epoch) = (uuid(identity.store.as_bytes()), uuid(identity.epoch.as_bytes()));
    let (writer, mark) = (&claimant.writer.name, &claimant.mark);
    let row: [&(dyn ToSql + Sync); 6] =
        [&store, &epoch, &box_name.site, &box_name.name, writer, mark];
    if within(STEP, WRITE_STEP, transaction.execute(WRITE, &row)).await? == 1 {
        // Only the commit makes it so: the caller says when.
        memory.writes(claimant, found.as_ref());
        return Ok(());
    }
    Err(Failure::stop(
        "the row that says who delivers was not written: look for triggers and rules \
                       on the table reticle.store",
    ))
}

/// Notes that this store may not deliver, so that its twin finds it as well.
pub(super) async fn dispute(client: &Client, claimant: &Claimant) -> Result<(), Failure> {
    let Writer { name, machine, .. } = &claimant.writer;
    let store = uuid(claimant.identity.store.as_bytes());
    let row: [&(dyn ToSql + Sync); 4] = [&store, name, machine, &claimant.mark];
    within(STEP, "note the dispute", client.execute(DISPUTE, &row)).await.map(drop)
}

/// What the database knows of a store.
pub(super) async fn find(client: &Client, store: StoreId) -> Result<Option<Standing>, Failure> {
    find_with(client, store, "").await
}

async fn find_with(
    client: &impl GenericClient,
    store: StoreId,
    lock: &str,
) -> Result<Option<Standing>, Failure> {
    let sql = format!("{FIND}{lock}");
    let id = uuid(store.as_bytes());
    let row: [&(dyn ToSql + Sync); 1] = [&id];
    let asked = client.query_opt(sql.as_str(), &row);
    let Some(row) = within(STEP, "read who delivers", asked).await? else { return Ok(None) };
    let dispute = |writer| Dispute {
        writer,
        machine: row.get::<_, Option<String>>(6).unwrap_or_default(),
        high_water: row.get::<_, Option<i64>>(7).unwrap_or_default(),
        since: row.get::<_, Option<i64>>(8).map(rfc3339).unwrap_or_default(),
    };
    Ok(Some(Standing {
        version: VERSION,
        store,
        epoch: EpochId::from_bytes(row.get::<_, uuid::Uuid>(0).into_bytes()),
        box_name: row.get(1),
        writer: row.get(2),
        high_water: row.get(3),
        written: rfc3339(row.get(4)),
        disputed: row.get::<_, Option<String>>(5).map(dispute),
    }))
}
