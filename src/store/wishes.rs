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
    /// All of them, in the order to grant them in.
    pub const ALL: [Self; 3] = [Self::Retry, Self::Again, Self::Deliver];

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

    /// Whether it waits to be granted.
    pub fn is_asked(self, folder: &Path) -> bool {
        self.file(folder).exists()
    }

    /// For the daemon: whether it was asked. From now on it is not: it is taken before it is
    /// granted, so that one that takes long, or ends the process, is not granted again by the
    /// next. (The commit of what is granted makes this durable as well, being the later write on
    /// the same file system; a power cut before it brings back a wish that was not granted.)
    pub fn take(self, folder: &Path) -> bool {
        let path = self.file(folder);
        match fs::remove_file(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "a wish cannot be taken");
                false
            }
        }
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
        assert!(!Wish::Deliver.is_asked(folder.path()));
        assert!(!Wish::Deliver.take(folder.path()));
    }
}
