//! What leaves the box: to an archive (S3 or a folder) and to the lab's PostgreSQL.

pub mod central;
mod error;
mod options;

pub use error::{Remedy, SyncError};
pub use options::{ArchiveOptions, CentralOptions, Options};
