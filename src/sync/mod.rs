//! What leaves the box: to an archive (S3 or a folder) and to the lab's PostgreSQL.
//!
//! ```text
//! store.outbox ─claim─► engine ─► archive: spool files ─► objects (S3, folder) ─┐ receipt,
//!        ▲                 └────► central: rows ─► one transaction (PostgreSQL) ┤ commit
//!        └──────────────────────── report ◄─────────────────────────────────────┘
//! ```
//!
//! What is to be delivered is noted in the transaction that commits it ([`reticle_store`]), and is
//! done only when the destination has said so and was asked again. Keys and natural keys are
//! deterministic: whatever is sent twice is there once.

mod adopt;
mod archive;
mod built;
pub mod central;
mod delivering;
mod describe;
mod destinations;
mod drain;
mod engine;
mod error;
mod options;
mod outbox;
mod parts;
mod standing;
mod there;
mod undelivered;
mod verify;

pub use adopt::{Adopted, Lacking, Request, Whose, adopt};
pub use destinations::Destinations;
pub use drain::drain;
pub use engine::{Handle, Syncing, spawn};
pub use error::SyncError;
pub use options::{ArchiveOptions, CentralOptions, Options};
pub use standing::{Claimant, Writer};
pub use verify::{Difference, Verified, verify};
