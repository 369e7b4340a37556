//! One owner a folder: an exclusive `flock` on `<folder>/lock`.
//!
//! The kernel lets go of it however the owner ends. The file holds the owner's process id
//! while it works and is emptied when it closes the store: whoever takes the lock and finds a
//! number knows that the last owner died.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// Held for as long as the store is open.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Takes the folder, and says whether its last owner died in it.
    pub(crate) fn take(folder: &Path) -> Result<(Self, bool), StoreError> {
        let path = path(folder);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // Whoever may write the folder must not have another file written through a link.
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(StoreError::file("open the lock", &path))?;
        match lock_with_patience(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked {
                    folder: folder.to_owned(),
                    pid: read_owner(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(StoreError::file("take the lock", &path)(error));
            }
        }
        let unclean = read_owner(&mut file).is_some();
        let mut lock = Self { file };
        lock.write_owner(&std::process::id().to_string())
            .map_err(StoreError::file("write the lock", &path))?;
        Ok((lock, unclean))
    }

    /// The file that is locked, whatever is at its name now.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Says that the store was closed in order.
    pub(crate) fn release_clean(mut self, folder: &Path) -> Result<(), StoreError> {
        self.write_owner("").map_err(StoreError::file("write the lock", &path(folder)))
    }

    fn write_owner(&mut self, owner: &str) -> std::io::Result<()> {
        // Cut after it is written: emptied first, a kill in between would pass for a close in order.
        self.file.rewind()?;
        self.file.write_all(owner.as_bytes())?;
        self.file.set_len(owner.len() as u64)?;
        self.file.sync_all()
    }
}

/// Someone who only looks ([`is_taken`]) has the lock for microseconds: outlast that.
fn lock_with_patience(file: &File) -> Result<(), TryLockError> {
    for _ in 0..20 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            other => return other,
        }
    }
    Err(TryLockError::WouldBlock)
}

/// Whether some process owns the folder now. For those who only look.
pub(crate) fn is_taken(folder: &Path) -> bool {
    // Opened to read: looking needs no right to write. Shared: lookers do not see each other.
    File::open(path(folder))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether the folder was not closed in order: its owner is at work, or died.
pub(crate) fn has_owner(folder: &Path) -> bool {
    File::open(path(folder)).is_ok_and(|mut file| read_owner(&mut file).is_some())
}

fn path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

fn read_owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, unclean) = FolderLock::take(folder.path()).unwrap();
        assert!(!unclean);
        assert!(is_taken(folder.path()));
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        lock.release_clean(folder.path()).unwrap();
        assert!(!is_taken(folder.path()));
    }

    #[test]
    fn the_next_owner_knows_whether_the_last_one_died() {
        let folder = tempfile::tempdir().unwrap();
        drop(FolderLock::take(folder.path()).unwrap());
        let (lock, unclean) = FolderLock::take(folder.path()).unwrap();
        assert!(unclean);
        lock.release_clean(folder.path()).unwrap();
        assert!(!FolderLock::take(folder.path()).unwrap().1);
    }
}
