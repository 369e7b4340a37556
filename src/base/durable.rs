//! Files that survive a power cut.
//!
//! Write: `<name>.tmp` beside the target → fsync → rename → fsync of the folder. A reader
//! sees the whole file or none. Remove: unlink → fsync of the folder. What ends in
//! [`TEMPORARY`] after a restart was never promised to anyone and may be deleted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::crash;

/// Ending of files that are still being written.
pub const TEMPORARY: &str = ".tmp";

/// Writes `bytes` to `path` so that they are there after a power cut, or not at all.
///
/// # Errors
/// Any error of the file system; `path` then holds what it held before.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write()`], for contents that are made while they are written.
///
/// # Errors
/// Any error of the file system or of `fill`; `path` then holds what it held before.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_for(path);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        fill(&mut file)?;
        crash::point("file written");
        file.sync_all()?;
        crash::point("file synced");
        fs::rename(&temporary, path)?;
        crash::point("file renamed");
        sync_parent(path)
    })();
    if written.is_err() {
        // Best effort: a full disk must not also keep the half-written file.
        fs::remove_file(&temporary).ok();
    }
    written
}

/// Removes `path` so that it stays removed after a power cut. A file that is not there
/// counts as removed.
///
/// # Errors
/// Any other error of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            crash::point("file unlinked");
            sync_parent(path)
        }
    }
}

/// Creates `folder` and its parents, each fsynced into its own parent.
///
/// # Errors
/// Any error of the file system.
pub fn create_dir(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_parent(folder),
    }
}

/// A file that is written bit by bit, for what does not fit in memory: it bears its name, and
/// survives a power cut, only from [`Draft::commit`] on. Dropped before, it is gone.
#[derive(Debug)]
pub struct Draft {
    file: File,
    path: PathBuf,
    committed: bool,
}

impl Draft {
    /// Begins a file that will be `path`. What is at `path` stays until the commit.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(temporary_for(path))?;
        Ok(Self { file, path: path.to_owned(), committed: false })
    }

    /// Gives the file its name, durably.
    ///
    /// # Errors
    /// Any error of the file system; `path` then holds what it held before.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(temporary_for(&self.path), &self.path)?;
        self.committed = true;
        sync_parent(&self.path)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.committed {
            fs::remove_file(temporary_for(&self.path)).ok();
        }
    }
}

/// Fsyncs a folder, so that names made or removed in it stay so.
///
/// # Errors
/// Any error of the file system.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn temporary_for(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_dir(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_contents_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"old").unwrap();
        let failed = write_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("power"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_draft_has_its_name_only_once_it_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut draft = Draft::create(&path).unwrap();
        draft.write_all(b"half").unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut draft = Draft::create(&path).unwrap();
        draft.write_all(b"whole").unwrap();
        assert!(!path.exists());
        draft.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_what_is_gone_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        remove(&folder.path().join("never")).unwrap();
    }
}
