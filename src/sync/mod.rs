//! What leaves the box: to an archive (S3 or a folder) and to the lab's PostgreSQL.

mod error;
pub mod objects;
mod options;
pub mod throttle;

pub use error::{Remedy, SyncError};
pub use options::{ArchiveOptions, CentralOptions, Options};
