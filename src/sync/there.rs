//! What the archive has under the key of an object that is about to be put.
//!
//! A put never takes anything away. What is there is compared with the receipt that this store
//! has for it; where they are the same and the new object holds all of it, it is replaced without
//! being read. Otherwise it is fetched, and [`super::parts`] builds the object from both: what
//! this box has, and of the rest what the archive has, if its hash is the one that the database
//! recorded. What neither can vouch for is left as it is, and the delivery is given up by name.
//! Content that the database does not know at all is a conflict: this store is not the one that
//! knows most.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use super::built::Built;
use super::error::SyncError;
use super::standing;
use super::undelivered::Undelivered;
use reticle_exchange::ReadError;
use reticle_exchange::output::WriteError;
use reticle_exchange::tables::{self, ParquetTable, Table};
use reticle_exchange::zarr::{ShardReader, ShardShape};
use reticle_object_storage::Stat;
use reticle_store::StoredReceipt;

/// Of an object that the archive does not have as it took it.
pub(super) const NOT_VOUCHED_FOR: &str = "it is not what the archive's own checksum of it says";

/// What is under a key, and what this store knows of it.
#[derive(Debug, Default)]
pub(super) struct There {
    pub(super) stat: Option<Stat>,
    pub(super) receipt: Option<StoredReceipt>,
}

impl There {
    /// Whether it is what this store put there.
    pub(super) fn is_as_receipted(&self) -> bool {
        let pair = self.stat.as_ref().zip(self.receipt.as_ref());
        pair.is_some_and(|(stat, receipt)| stat.bytes == receipt.bytes && stat.etag == receipt.etag)
    }

    /// Whether it must be read before `built` may be put in its place.
    pub(super) fn must_be_read(&self, built: &Built) -> bool {
        let Some(stat) = &self.stat else { return false };
        let written = built.written;
        let same = stat.bytes == written.bytes && stat.sha256 == Some(written.sha256);
        match &self.receipt {
            Some(receipt) if self.is_as_receipted() => built.lacks || built.rows < receipt.rows,
            _ => !same,
        }
    }
}

/// A copy of it.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) key: String,
    pub(super) path: PathBuf,
    /// Rows that it had when this store put it; `None` where it never did.
    pub(super) receipted_rows: Option<u64>,
    /// Whether it is still what was put then.
    pub(super) as_receipted: bool,
    /// Whether it is what the archive's own checksum says.
    pub(super) is_vouched_for: bool,
}

impl Fetched {
    /// That the part is left as it is.
    pub(super) fn left(&self, why: impl std::fmt::Display) -> Undelivered {
        let what = format!("replace {}", self.key);
        SyncError::give_up(what, format!("{why}; what the archive has is left as it is")).into()
    }

    /// It is damaged: it may be replaced by something whole that holds all that it ever held.
    fn may_go(&self, built_rows: u64, lacks: bool, damage: &ReadError) -> Result<(), Undelivered> {
        match self.receipted_rows {
            Some(rows) if built_rows >= rows && !lacks => Ok(()),
            Some(_) => Err(self.left(format!("it is damaged ({damage}), and so is this box's"))),
            None => Err(self.left(format!(
                "it is nothing that this box can read ({damage}), and this box did not put it \
                 there; move it away"
            ))),
        }
    }

    fn holds(&self, unknown: &str) -> Undelivered {
        let what = format!("replace {}", self.key);
        standing::unknown(what, unknown).into()
    }
}

/// A shard that is there.
pub(super) struct ShardThere {
    copy: Fetched,
    opened: Result<ShardReader, ReadError>,
}

impl ShardThere {
    /// Opens it. `known` are the positions of the part that this store has something for.
    ///
    /// # Errors
    /// A conflict where it holds others.
    pub(super) fn open(
        copy: &Fetched,
        shape: ShardShape,
        known: &HashSet<u32>,
    ) -> Result<Self, Undelivered> {
        let opened = ShardReader::open(&copy.path, shape);
        if let Ok(shard) = &opened
            && let Some(position) =
                (0..shape.frames).find(|at| shard.has(*at) && !known.contains(at))
        {
            return Err(copy.holds(&format!("it holds a frame at {position} of its part")));
        }
        Ok(Self { copy: copy.clone(), opened })
    }

    /// What it holds at a position, if that is what the database recorded; `None` where it holds
    /// nothing.
    ///
    /// # Errors
    /// Where it holds something else.
    pub(super) fn read(
        &mut self,
        position: u32,
        is_recorded: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, Undelivered> {
        let Ok(shard) = &mut self.opened else { return Ok(None) };
        match shard.read(position) {
            Ok(Some(found)) if is_recorded(&found) => Ok(Some(found)),
            Ok(None) => Ok(None),
            Ok(Some(_)) => Err(self.copy.left(format!(
                "what it holds at {position} of its part is not what was recorded, and this box \
                 does not have that any more"
            ))),
            Err(error) => Err(self.copy.left(format!("at {position} of its part: {error}"))),
        }
    }

    /// Whether something was taken out of it since it was put.
    pub(super) fn was_changed(&self) -> bool {
        self.copy.receipted_rows.is_some() && !self.copy.as_receipted
    }

    pub(super) fn may_go(&self, built_rows: u64, lacks: bool) -> Result<(), Undelivered> {
        match &self.opened {
            Ok(_) => Ok(()),
            Err(damage) => self.copy.may_go(built_rows, lacks, damage),
        }
    }
}

/// A table that is there.
pub(super) struct TableThere {
    copy: Fetched,
    /// Rows of each frame.
    rows: Result<BTreeMap<String, u64>, ReadError>,
}

impl TableThere {
    /// Reads which frames it has rows of. `known` are those of the part that this store knows.
    ///
    /// # Errors
    /// A conflict where it has rows of others.
    pub(super) fn open(copy: &Fetched, known: &HashSet<String>) -> Result<Self, Undelivered> {
        // Only a row's presence can be compared with the database: a table must be sound.
        let rows = match copy.is_vouched_for {
            true => tables::rows_by_frame(&copy.path),
            false => Err(ReadError::new(&copy.path, NOT_VOUCHED_FOR)),
        };
        if let Ok(rows) = &rows
            && let Some(frame) = rows.keys().find(|frame| !known.contains(*frame))
        {
            return Err(copy.holds(&format!("it holds frame {frame}")));
        }
        Ok(Self { copy: copy.clone(), rows })
    }

    /// Copies the rows of a frame, where it has as many as the database recorded; false where it
    /// has none.
    ///
    /// # Errors
    /// Where it has another number, or cannot be read.
    pub(super) fn take<T: Table>(
        &self,
        frame: &str,
        recorded: u64,
        table: &mut ParquetTable<T>,
    ) -> Result<bool, Undelivered> {
        let Ok(rows) = &self.rows else { return Ok(false) };
        match rows.get(frame) {
            None => Ok(recorded == 0),
            Some(found) if *found == recorded => {
                table.copy_frame(&self.copy.path, frame).map_err(|error| match error {
                    tables::CopyError::Read(error) => self.copy.left(error),
                    tables::CopyError::Write(error) => unwritten(error),
                })?;
                Ok(true)
            }
            Some(found) => Err(self.copy.left(format!(
                "it has {found} rows of frame {frame}, {recorded} were recorded, and this box \
                 does not have them any more"
            ))),
        }
    }

    pub(super) fn may_go(&self, built_rows: u64, lacks: bool) -> Result<(), Undelivered> {
        match &self.rows {
            Ok(_) => Ok(()),
            Err(damage) => self.copy.may_go(built_rows, lacks, damage),
        }
    }
}

pub(super) fn unwritten(error: WriteError) -> Undelivered {
    SyncError::retry("build a delivery", error).into()
}
