//! The schema, and what changes its rows: statements, each inside the transaction of its caller. Given
//! the same thing twice, they change nothing.

pub(crate) mod aggregates;
pub(crate) mod claims;
pub(crate) mod clock_correction;
pub(crate) mod commands;
pub(crate) mod cursor;
pub(crate) mod destinations;
pub(crate) mod identity;
pub(crate) mod intake;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod requests;
pub(crate) mod rows;
pub(crate) mod schema;

pub use commands::{Noted, Noting};
pub use cursor::Stream;
pub use identity::Identity;
pub use intake::{Change, IntakeFile, IntakeState};
