//! What a command line asks of the daemon that has the folder: an empty file in it.
//!
//! Whoever may write the folder may ask, whatever address the page listens on and whether it is
//! there at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::StoreError;

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
        File::create(&path).map(drop).map_err(StoreError::file("ask the daemon by", &path))
    }

    /// Whether it waits to be granted.
    pub fn is_asked(self, folder: &Path) -> bool {
        self.file(folder).exists()
    }

    /// For the daemon, once it has granted it.
    pub fn granted(self, folder: &Path) {
        if let Err(error) = fs::remove_file(self.file(folder)) {
            tracing::debug!(%error, "a wish stays, and will be granted again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_waits_until_it_is_granted() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Wish::Deliver.is_asked(folder.path()));
        Wish::Deliver.ask(folder.path()).unwrap();
        Wish::Deliver.ask(folder.path()).unwrap();
        assert!(!Wish::Retry.is_asked(folder.path()));
        assert!(Wish::Deliver.is_asked(folder.path()));
        Wish::Deliver.granted(folder.path());
        assert!(!Wish::Deliver.is_asked(folder.path()));
    }
}
