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
}

impl Wish {
    fn file(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Deliver => "wish.deliver",
            Self::Retry => "wish.retry",
            Self::Again => "wish.again",
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

    /// Whether somebody asked since this was last looked at; for the daemon.
    pub fn take(self, folder: &Path) -> bool {
        fs::remove_file(self.file(folder)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Wish::Deliver.take(folder.path()));
        Wish::Deliver.ask(folder.path()).unwrap();
        Wish::Deliver.ask(folder.path()).unwrap();
        assert!(!Wish::Retry.take(folder.path()));
        assert!(Wish::Deliver.take(folder.path()));
        assert!(!Wish::Deliver.take(folder.path()));
    }
}
