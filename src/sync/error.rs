//! What can go wrong on the way to a destination, and what that means for what was on its way.

use std::time::Duration;

use reticle_base::address;
use reticle_base::remedy::Remedy;
use reticle_object_storage::StorageError;

/// A delivery that failed. The text says what, where, and what to do; what lets anyone in is
/// taken out of it ([`address::shown_in`]), whoever wrote it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct SyncError {
    /// What it means.
    pub remedy: Remedy,
    /// What was tried and where, as "put sessions/…/manifest.json into s3://lab/box-1".
    pub what: String,
    /// What was answered, and what to do.
    pub why: String,
    /// When the server wants to be asked again, where it said so.
    pub after: Option<Duration>,
    /// The destination knows more than this store does, or somebody else delivers there in its
    /// name; this is the greatest mark that is known of the destination. Not tried again before a
    /// person has decided (`reticle sync adopt`): each delivery might overwrite what exists
    /// nowhere else.
    pub conflict: Option<i64>,
}

impl SyncError {
    /// The same may work later.
    pub fn retry(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::Retry, what, why)
    }

    /// This item never will.
    pub fn give_up(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::GiveUp, what, why)
    }

    /// The destination knows more than this store; `high_water` is the mark that it has.
    pub fn conflict(what: impl Into<String>, why: impl ToString, high_water: i64) -> Self {
        Self { conflict: Some(high_water), ..Self::stop(what, why) }
    }

    /// Whether the destination knows more than this store.
    pub fn is_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    /// Nothing will until a person has acted.
    pub fn stop(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::Stop, what, why)
    }

    pub(super) fn new(remedy: Remedy, what: impl Into<String>, why: impl ToString) -> Self {
        let why = address::shown_in(&why.to_string()).into_owned();
        Self { remedy, what: what.into(), why, after: None, conflict: None }
    }
}

impl From<StorageError> for SyncError {
    fn from(error: StorageError) -> Self {
        let StorageError { remedy, what, why, after } = error;
        Self { remedy, what, why, after, conflict: None }
    }
}
