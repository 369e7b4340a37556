//! What can go wrong between the program and an object storage.

use std::time::Duration;

use reticle_base::address;
use reticle_base::remedy::Remedy;

/// An operation that failed. The text says what, where, and what to do; what lets anyone in is
/// taken out of it ([`address::shown_in`]), whoever wrote it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct StorageError {
    /// What it means.
    pub remedy: Remedy,
    /// What was tried and where, as "put sessions/…/manifest.json into s3://lab/box-1".
    pub what: String,
    /// What was answered, and what to do.
    pub why: String,
    /// When the server wants to be asked again, where it said so.
    pub after: Option<Duration>,
}

impl StorageError {
    /// The same may work later.
    pub fn retry(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::Retry, what, why)
    }

    /// This item never will.
    pub fn give_up(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::GiveUp, what, why)
    }

    /// Nothing will until a person has acted.
    pub fn stop(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::Stop, what, why)
    }

    pub(crate) fn new(remedy: Remedy, what: impl Into<String>, why: impl ToString) -> Self {
        let why = address::shown_in(&why.to_string()).into_owned();
        Self { remedy, what: what.into(), why, after: None }
    }
}
