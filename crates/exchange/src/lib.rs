//! Frames, label images and objects in the forms that other programs read, and label images
//! back from them.
//!
//! - [`layout`] is the one place where keys of the archive are made; [`zarr`], [`tables`] and
//!   [`manifest`] make what lies under them; [`standing`] is what a store says of itself there.
//! - [`ome_tiff`], [`coco`] and [`geojson`] are for people who take a session along; [`import`]
//!   reads label images back, whoever wrote them.
//! - [`made`] keeps what a folder holds of ours apart from what people have put there.
//!
//! Promises: the same facts give the same bytes, so that sending twice changes nothing; memory
//! is that of one frame (of one row group in a table), never of a session; a label image that
//! was written comes back identical, label by label; a file has its name only once it is whole.
//!
//! Nothing here knows the store, the network, or which box this is: facts come in, bytes go out.

mod canvas;
pub mod coco;
mod found;
pub mod geojson;
pub mod import;
pub mod layout;
pub mod made;
mod made_list;
pub mod manifest;
pub mod ome_tiff;
mod outline;
pub mod output;
mod rle;
pub mod standing;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod zarr;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Runs a decoder of another's making on bytes of another's making: where it panics, the file is
/// damaged. `parquet` and `zarrs` take some of what a file says for granted, and all that they
/// borrowed is gone after an error, so that no broken state survives.
fn guarded<T>(path: &Path, decode: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ReadError::new(path, "is damaged: its decoder gave up; write or copy it again"))
    })
}

/// Something of others' making that was not read. The text says where, what, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct ReadError {
    path: PathBuf,
    why: String,
}

impl ReadError {
    /// Of a file that cannot be taken as it is.
    pub fn new(path: &Path, why: impl ToString) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }

    /// Which file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
