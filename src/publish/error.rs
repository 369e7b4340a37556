//! What can go wrong between the box and the broker.

use reticle_base::address;
use reticle_base::remedy::Remedy;

/// Something that failed. The text says what, where, and what to do; what lets anyone in is
/// taken out of it ([`address::shown_in`]), whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct PublishError {
    /// What it means.
    pub remedy: Remedy,
    /// What was tried, or the key at fault as "mqtt.url".
    pub what: String,
    /// What was seen, and what to do.
    pub why: String,
}

impl PublishError {
    /// The same may work later.
    pub fn retry(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::Retry, what, why)
    }

    /// Nothing helps until a person has acted.
    pub fn stop(what: impl Into<String>, why: impl ToString) -> Self {
        Self::new(Remedy::Stop, what, why)
    }

    fn new(remedy: Remedy, what: impl Into<String>, why: impl ToString) -> Self {
        let why = address::shown_in(&why.to_string()).into_owned();
        Self { remedy, what: what.into(), why }
    }
}
