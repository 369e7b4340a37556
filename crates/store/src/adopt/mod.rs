//! What the archive knows and this store forgot becomes rows again.
//!
//! The caller has read the archive and compared every byte that can be compared; here it becomes
//! rows, one transaction for each session and each part of a series, so that adopting can be
//! broken off at any moment and begun again. What is there already stays as it is.
//!
//! 1. A frame comes back with its id and its position; one that is here at another position, or
//!    another one at its position, is a [`Refusal`]: two stores went on under one name, and a
//!    person has to say which of them counts.
//! 2. Positions of which nothing came back are kept free (`lost_position`), so that arrays in the archive
//!    never get shorter.
//! 3. A frame whose pixels the archive has is `archived`, without a file and with the reason
//!    `not_restored`.
//! 4. A part is noted as delivered only when the archive has all rows of it that the store has
//!    now; otherwise it is requested.

use rusqlite::{Connection, TransactionBehavior, params};

use crate::adopt::given::{Broken, When};
use crate::delivery::{Destination, Kind, Receipt};
use crate::error::StoreError;
use crate::orphans;
use crate::read::deliveries;
use crate::sql::identity::{self, Identity};
use crate::sql::schema::damaged_or;
use crate::sql::{claims, keys, log, requests};
use crate::store::Store;
use crate::write::writer::Writer;
use reticle_base::crash;
use reticle_base::ids::{SessionId, StoreId};

mod given;
mod part;

pub use given::{
    AdoptedFrame, AdoptedPart, AdoptedResult, AdoptedResults, AdoptedSeries, AdoptedSession,
    Adoption, PartTaken, Refusal,
};

impl Writer {
    /// One transaction, undone as a whole when it fails.
    fn adopt<T>(
        &mut self,
        what: &'static str,
        write: impl FnOnce(&Connection, When<'_>) -> Result<T, Broken>,
    ) -> Result<Result<T, Refusal>, StoreError> {
        let (now, database) = (self.clock.now(), self.database.clone());
        let deliveries = self.deliveries.clone();
        let run = |db: &mut Connection| -> Result<T, Broken> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let written = write(&transaction, (&deliveries, &now))?;
            crash::point("adopted rows inserted");
            transaction.commit()?;
            Ok(written)
        };
        match run(self.connection()?) {
            Ok(written) => Ok(Ok(written)),
            Err(Broken::Refused(refusal)) => Ok(Err(refusal)),
            Err(Broken::Database(error)) => Err(damaged_or(what, &database)(error)),
        }
    }
}

impl Store {
    /// Takes on a session and its arrays; true if anything of it was not here.
    ///
    /// # Errors
    /// When the database cannot be written. Inside: when an array here has another shape.
    pub fn adopt_session(
        &mut self,
        session: &AdoptedSession,
    ) -> Result<Result<bool, Refusal>, StoreError> {
        self.0.adopt("take on a session", |db, when| part::take_session(db, session, when))
    }

    /// Takes on a part of a series of a session that was taken on.
    ///
    /// # Errors
    /// When the database cannot be written. Inside: when a frame here is at its place.
    pub fn adopt_part(
        &mut self,
        session: SessionId,
        adopted: &AdoptedPart,
    ) -> Result<Result<PartTaken, Refusal>, StoreError> {
        self.0.adopt("take on a part", |db, when| part::take_part(db, session, adopted, when))
    }

    /// Notes the documents that the archive has of a session, and whether it is to be described
    /// again: where `describe` is true; `None` is never, because the archive knows more of it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn adopt_documents(
        &mut self,
        session: SessionId,
        receipts: &[Receipt],
        describe: Option<bool>,
    ) -> Result<(), StoreError> {
        let written = self.0.adopt("note what an archive has", |db, when| {
            let Some(pk) = keys::session(db, session)? else { return Ok(()) };
            if describe == Some(true) {
                requests::request_session(db, pk, when)?;
            }
            let Some(item) = part::item(db, Kind::Session, pk, None)? else { return Ok(()) };
            for receipt in receipts {
                claims::put_receipt(db, item, receipt, when.1)?;
            }
            if describe.is_none() {
                db.execute(
                    "UPDATE outbox SET delivered = requested, state = 'delivered', attempts = 0, reason = NULL
                     WHERE pk = ?1 AND state = 'waiting'
                       AND EXISTS (SELECT 1 FROM receipt WHERE outbox = outbox.pk)",
                    [item],
                )?;
            }
            Ok(())
        })?;
        written.or(Ok(()))
    }

    /// Holds back what this store would deliver of a session that another one went on with, until
    /// a person has decided.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn hold_back(&mut self, session: SessionId, why: &str) -> Result<(), StoreError> {
        let written = self.0.adopt("hold a session back", |db, _| {
            db.execute(
                "UPDATE outbox SET state = 'quarantined', reason = ?2
                 WHERE state <> 'quarantined'
                   AND session = (SELECT pk FROM session WHERE id = ?1)",
                params![session.as_bytes(), why],
            )?;
            Ok(())
        })?;
        written.or(Ok(()))
    }

    /// Leaves sessions to the store that they are of: nothing of them is delivered from here.
    /// How many that changed.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn leave_to(
        &mut self,
        original: StoreId,
        sessions: &[SessionId],
    ) -> Result<u64, StoreError> {
        let written = self.0.adopt("leave sessions to another store", |db, _| {
            let mut left = 0;
            for session in sessions {
                let Some(pk) = keys::session(db, *session)? else { continue };
                left += db.execute(
                    "UPDATE session SET delivered_by = ?2
                     WHERE pk = ?1 AND delivered_by IS NULL",
                    params![pk, original.as_bytes()],
                )?;
                db.execute(
                    "DELETE FROM receipt WHERE outbox IN (SELECT pk FROM outbox WHERE session = ?1)",
                    [pk],
                )?;
                db.execute("DELETE FROM outbox WHERE session = ?1", [pk])?;
                // Its files may go by the rule, as those that no archive is to have.
                db.execute("UPDATE frame SET archived = 0 WHERE session = ?1 AND archived = 1", [pk])?;
            }
            Ok(left as u64)
        })?;
        Ok(written.unwrap_or(0))
    }

    /// Gives frames without a file those that `orphans/` has for them; how many. Those that the
    /// archive is to have by the rule and has not are wanted there.
    ///
    /// # Errors
    /// When a file cannot be moved, or the database not be written.
    pub fn take_back_orphans(&mut self) -> Result<u64, StoreError> {
        let (folder, database) = (self.0.folder.clone(), self.0.database.clone());
        let back = orphans::bring_all_back(&folder, self.0.connection()?, &database)?;
        let written = self.0.adopt("give frames their files again", |db, when| {
            for file in &back {
                orphans::give_file(db, file)?;
                part::request_pixels(db, file.frame, when)?;
            }
            Ok(back.len() as u64)
        })?;
        Ok(written.unwrap_or(0))
    }

    /// Begins a new epoch, with marks above those of the destinations.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn finish_adoption(
        &mut self,
        adoption: &Adoption,
    ) -> Result<(Identity, i64, i64), StoreError> {
        let written = self.0.adopt("begin an epoch", |db, (_, now)| {
            let identity = identity::begin_epoch(db, adoption.store)?;
            let mut marks = [0; 2];
            let told = [
                (Destination::Archive, adoption.archive_mark),
                (Destination::Central, adoption.central_mark),
            ];
            for (mark, (destination, known)) in marks.iter_mut().zip(told) {
                db.execute(
                    "UPDATE destination SET high_water = max(high_water, ?2) + 1 WHERE name = ?1",
                    params![destination, known],
                )?;
                *mark = deliveries::mark_of(db, destination)?;
            }
            if adoption.published_all {
                // What came back was told before it was forgotten, or is in the archive.
                db.execute(
                    "UPDATE publish_cursor SET acknowledged = (SELECT coalesce(max(pk), 0) FROM segmentation)
                     WHERE stream = 'results'",
                    [],
                )?;
            }
            let detail = serde_json::json!({ "store": identity.store, "epoch": identity.epoch });
            log::note(db, now, "adopted", &detail)?;
            Ok((identity, marks[0], marks[1]))
        })?;
        // Nothing in there refuses.
        written.map_err(|Refusal(detail)| StoreError::Damaged {
            path: self.0.database.clone(),
            detail,
        })
    }

    /// Takes the name of a store whose database is gone.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn become_store(&mut self, store: StoreId) -> Result<(), StoreError> {
        let written = self.0.adopt("take a name", |db, _| {
            identity::begin_epoch(db, Some(store))?;
            Ok(())
        })?;
        written.or(Ok(()))
    }
}
