//! Which store this is, and which epoch of it.
//!
//! Both are made with the database. The store's name stays for ever; the epoch changes with every
//! restore, because keys that grow (the cursors of readers) may then be given a second time.

use rusqlite::Connection;

use reticle_base::ids::{EpochId, StoreId};

/// Who a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// Which store.
    pub store: StoreId,
    /// Which epoch of it.
    pub epoch: EpochId,
}

/// Reads who the store is.
pub(crate) fn identity(db: &Connection) -> rusqlite::Result<Identity> {
    db.query_row("SELECT store, epoch FROM identity WHERE pk = 1", [], |row| {
        Ok(Identity {
            store: StoreId::from_bytes(row.get(0)?),
            epoch: EpochId::from_bytes(row.get(1)?),
        })
    })
}

/// Begins another epoch, inside the transaction of its caller; under another name as well where
/// `store` says one.
pub(crate) fn begin_epoch(db: &Connection, store: Option<StoreId>) -> rusqlite::Result<Identity> {
    db.execute(
        "UPDATE identity SET epoch = ?1, store = coalesce(?2, store) WHERE pk = 1",
        rusqlite::params![EpochId::new().as_bytes(), store.map(|store| *store.as_bytes())],
    )?;
    // A conflict is between two of one epoch, or of one and an earlier one: this one has none.
    // Its marks count on from above those that were found.
    db.execute(
        "UPDATE destination SET conflict = NULL, conflict_mark = 0,
                                high_water = max(high_water, conflict_mark)",
        [],
    )?;
    identity(db)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::schema;

    #[test]
    fn a_new_epoch_keeps_the_name_unless_it_is_given_another() {
        let folder = tempfile::tempdir().unwrap();
        let db = schema::open_and_migrate(&schema::database_path(folder.path())).unwrap();
        let first = identity(&db).unwrap();
        assert_eq!(identity(&db).unwrap(), first);
        let second = begin_epoch(&db, None).unwrap();
        assert_eq!(second.store, first.store);
        assert_ne!(second.epoch, first.epoch);
        let name = StoreId::new();
        assert_eq!(begin_epoch(&db, Some(name)).unwrap().store, name);
    }
}
