//! What a store says of itself in an archive: who delivers there, and how far it has come.
//!
//! The document is written before each delivery, with a mark that the store has committed before
//! ([`Standing::high_water`]). So a store that finds a greater mark there than its own was
//! overtaken by somebody of its own name: its database is an older copy, or it has a twin. It
//! takes nothing back and delivers nothing then; it notes the dispute, so that the other one
//! finds out as well.

use serde::{Deserialize, Serialize};

use reticle_base::ids::{EpochId, StoreId};

/// Version of the document.
pub const VERSION: u32 = 1;

/// `.reticle/stores/<store>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// [`VERSION`].
    pub version: u32,
    /// Which store.
    pub store: StoreId,
    /// Which epoch of it.
    pub epoch: EpochId,
    /// Site and name of the box, as `lab/box-1`.
    #[serde(rename = "box")]
    pub box_name: String,
    /// Which process wrote this: a random name for each start of a daemon.
    pub writer: String,
    /// Deliveries that were claimed when this was written.
    pub high_water: i64,
    /// When, RFC 3339 UTC.
    pub written: String,
    /// Set while two of one name deliver here.
    #[serde(default)]
    pub disputed: Option<Dispute>,
}

impl Standing {
    /// The document.
    pub fn to_json(&self) -> Vec<u8> {
        super::zarr::document(self)
    }
}

/// Who found that it is not alone, or behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispute {
    /// The process that found it.
    pub writer: String,
    /// Name of its machine.
    pub machine: String,
    /// The mark that it had.
    pub high_water: i64,
    /// When, RFC 3339 UTC.
    pub since: String,
}
