//! The open store, ready to write: the one connection that does, opened again after an error that a
//! fresh one may mend.

use std::collections::VecDeque;
use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use crate::delivery::Deliveries;
use crate::error::StoreError;
use crate::job::Outcome;
use crate::lock::FolderLock;
use crate::options::Options;
use crate::reach::Reach;
use crate::sql::{cursor, destinations, schema};
use crate::write::prepared::Ledger;
use reticle_base::clock::Clock;
use reticle_base::ids::SessionId;
use reticle_base::progress::Progress;

/// The open store, ready to write.
pub(crate) struct Writer {
    pub(crate) folder: PathBuf,
    pub(crate) database: PathBuf,
    /// `None` after an error that a fresh connection may mend.
    pub(crate) connection: Option<Connection>,
    pub(crate) lock: FolderLock,
    /// What the names of the store have to lead to.
    pub(crate) reach: Reach,
    /// Why they do not, once they did not.
    pub(crate) unlinked: Option<StoreError>,
    pub(crate) clock: Clock,
    pub(crate) options: Options,
    /// Bytes of all frame files.
    pub(crate) kept_bytes: u64,
    /// Files that no row names any more (or never did), to be removed after the next commit.
    pub(crate) leftovers: Vec<PathBuf>,
    /// Small jobs that failed and are tried again.
    pub(crate) owed: VecDeque<Ledger>,
    /// Where results go from here.
    pub(crate) deliveries: Deliveries,
    /// Each batch is a piece of work.
    pub(crate) progress: Progress,
    /// Set while there is no room and nothing may go: what has to fit before frames are taken
    /// again, in bytes.
    pub(crate) held: Option<u64>,
    pub(crate) stack: Stack,
    /// The process that begins files of a watched folder here.
    pub(crate) run: Option<[u8; 16]>,
}

/// Which file gives pages now, and what they take.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    /// Its session, and its name without the page.
    pub(crate) file: Option<(SessionId, String)>,
    pub(crate) bytes: u64,
}

impl Writer {
    /// Takes on where results go, and notes what they do not have yet.
    pub(crate) fn deliver_to(&mut self, deliveries: Deliveries) -> Result<(), StoreError> {
        let (now, database) = (self.clock.now(), self.database.clone());
        let run = |db: &mut Connection| -> rusqlite::Result<()> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            destinations::reconcile(&transaction, &deliveries, &now)?;
            transaction.commit()
        };
        run(self.connection()?)
            .map_err(schema::damaged_or("note what is to be delivered", &database))?;
        self.deliveries = deliveries;
        Ok(())
    }

    /// Takes on where events and results are published.
    pub(crate) fn publish_to(&mut self, location: Option<&str>) -> Result<(), StoreError> {
        let database = self.database.clone();
        let run = |db: &mut Connection| -> rusqlite::Result<()> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            cursor::begin(&transaction, location)?;
            transaction.commit()
        };
        run(self.connection()?)
            .map_err(schema::damaged_or("note where results are published", &database))
    }

    /// The writing connection, opened again if need be.
    pub(crate) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_none() {
            let connection = schema::reopen(&self.database)?;
            self.reach.opened()?;
            self.connection = Some(connection);
            tracing::info!(database = %self.database.display(), "database opened again");
        }
        self.connection.as_mut().ok_or_else(|| StoreError::Damaged {
            path: self.database.clone(),
            detail: "it could not be opened".to_owned(),
        })
    }

    /// Whether what is reported next can be reached by its names. Once it could not, it never can
    /// again: see `reach.rs`.
    pub(crate) fn reached(&mut self, outcomes: &mut impl FnMut(Outcome)) -> Result<(), StoreError> {
        if let Some(error) = &self.unlinked {
            return Err(error.clone());
        }
        let Err(error) = self.reach.check() else { return Ok(()) };
        if !matches!(error, StoreError::Unlinked { .. }) {
            return Err(error);
        }
        tracing::error!(%error, "nothing more is saved: the store is not where its names lead");
        if let Some(connection) = &self.connection {
            let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if let Err(error) = kept {
                tracing::debug!(%error, "closing the database may remove a log by its name");
            }
            if self.reach.is_ours_alone() {
                match schema::fold_log(connection) {
                    Ok(folded) => tracing::info!(folded, "the log is in the database that is open"),
                    Err(error) => tracing::warn!(%error, "the log could not be copied"),
                }
            }
        }
        if let Err(error) = self.reach.leave_note(&error) {
            tracing::debug!(%error, "no note is left");
        }
        self.unlinked = Some(error.clone());
        outcomes(Outcome::Unlinked { reason: error.to_string() });
        Err(error)
    }

    /// Gives the connection up after an error that a fresh one may mend.
    pub(crate) fn let_go(&mut self, outcomes: &mut impl FnMut(Outcome)) {
        // The last connection removes the log by its name: not where another store is.
        self.reached(outcomes).ok();
        if self.unlinked.is_none() {
            self.reach.closed();
            self.connection = None;
        }
    }
}
