//! Why a claimed delivery was not made, and what becomes of it.

use reticle_base::remedy::Remedy;
use reticle_object_storage::StorageError;
use reticle_store::StoreError;

use super::error::SyncError;

/// A delivery that was not made.
#[derive(Debug)]
pub(super) enum Undelivered {
    /// For a reason outside of what is delivered, or of all of it.
    Whole(SyncError),
    /// Because of one frame or result in it; without that it can be made.
    One {
        /// Key of the frame or result.
        subject: i64,
        /// Why, and what to do.
        reason: String,
    },
}

impl From<SyncError> for Undelivered {
    fn from(error: SyncError) -> Self {
        Self::Whole(error)
    }
}

impl From<StorageError> for Undelivered {
    fn from(error: StorageError) -> Self {
        Self::Whole(error.into())
    }
}

impl Undelivered {
    /// What to do about a record that cannot be read: one that is damaged will stay so.
    pub(super) fn reading(subject: i64) -> impl FnOnce(StoreError) -> Self {
        move |error| match error.remedy() {
            Remedy::GiveUp => Self::One { subject, reason: error.to_string() },
            _ => Self::from(error),
        }
    }
}

impl From<StoreError> for Undelivered {
    fn from(error: StoreError) -> Self {
        Self::Whole(SyncError::retry("read what is to be delivered", error))
    }
}

/// What is to be delivered names something that the store does not have.
pub(super) fn gone(what: &str) -> Undelivered {
    let why = format!("{what} is not in the store: run `reticle fsck`");
    SyncError::give_up("build a delivery", why).into()
}

/// The store has been closed meanwhile.
pub(super) fn closing() -> Undelivered {
    SyncError::retry("make a delivery", "the store is closed").into()
}
