//! Reading: any number of read-only connections beside the one writer, and what they find.

pub(crate) mod columns;
pub(crate) mod deliveries;
pub(crate) mod events;
mod facts;
mod intake;
pub(crate) mod reader;
mod saved;
mod wells;

pub use deliveries::{Delivery, Quarantined, Refused, RefusedKeys, StoredReceipt};
pub use events::{PublishCursor, StoredEvent};
pub use intake::{IntakeEntry, IntakeRow};
pub use reader::Reader;
pub use saved::{SavedFrame, SessionSummary, StoredPixels, Totals};
