//! What a command line asks of the daemon that has the folder: an empty file in it.
//!
//! Whoever may write the folder may ask, whatever address the page listens on and whether it is
//! there at all.
//!
//! The daemon *takes* it (gives the file another name) before it grants it, and removes it once it
//! has. So it is granted once: one that takes longer than the watchdog waits, or that ends the
//! process, does not await the next process, which forgets it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use reticle_base::durable::{self, Access};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Deliver everything that waits now.
    Deliver,
    /// Give another chance to what was never taken.
    Retry,
    /// Deliver everything again, whether it was taken or not.
    Again,
    /// Give another chance to the images of the watched folder that were passed over. Whoever reads
    /// the folder grants it.
    Images,
}

impl Wish {
    /// Those about deliveries, in the order to grant them in.
    pub const ALL: [Self; 3] = [Self::Retry, Self::Again, Self::Deliver];

    fn file(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Deliver => "wish.deliver",
            Self::Retry => "wish.retry",
            Self::Again => "wish.again",
            Self::Images => "wish.images",
        })
    }

    /// Asks the daemon that has the folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn ask(self, folder: &Path) -> Result<(), StoreError> {
        let path = self.file(folder);
        durable::create(&path, Access::Owner)
            .map(drop)
            .map_err(StoreError::file("ask the daemon by", &path))
    }

    /// Whether it waits to be granted, or is being granted.
    pub fn is_asked(self, folder: &Path) -> bool {
        self.file(folder).exists() || self.taken(folder).exists()
    }

    /// For the daemon: whether it was asked. It is not asked any more from here on.
    pub fn take(self, folder: &Path) -> bool {
        match fs::rename(self.file(folder), self.taken(folder)) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::debug!(%error, wish = ?self, "a wish cannot be taken");
                false
            }
        }
    }

    /// For the daemon, once it has granted what it took. At its start: what an earlier one took is
    /// not granted a second time.
    pub fn forget(self, folder: &Path) {
        match fs::remove_file(self.taken(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(%error, wish = ?self, "a wish stays, and is not granted again");
            }
            _ => {}
        }
    }

    fn taken(self, folder: &Path) -> PathBuf {
        self.file(folder).with_extension(match self {
            Self::Deliver => "deliver-taken",
            Self::Retry => "retry-taken",
            Self::Again => "again-taken",
            Self::Images => "images-taken",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_waits_until_it_is_taken_and_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Wish::Deliver.is_asked(folder.path()));
        Wish::Deliver.ask(folder.path()).unwrap();
        Wish::Deliver.ask(folder.path()).unwrap();
        assert!(!Wish::Retry.is_asked(folder.path()));
        assert!(Wish::Deliver.is_asked(folder.path()));
        assert!(Wish::Deliver.take(folder.path()));
        assert!(Wish::Deliver.is_asked(folder.path()), "it is not done yet");
        assert!(!Wish::Deliver.take(folder.path()), "nor taken twice");
        Wish::Deliver.forget(folder.path());
        assert!(!Wish::Deliver.is_asked(folder.path()));
    }
}
