//! An object of the archive as it is built here, before it is sent.

use std::path::PathBuf;

use reticle_exchange::output::Written;

/// A file that is to be an object.
pub(super) struct Built {
    pub(super) key: String,
    pub(super) path: PathBuf,
    pub(super) written: Written,
    pub(super) rows: u64,
    /// Whether something that belongs to it is not in it, because the store cannot supply it.
    pub(super) lacks: bool,
}
