//! Files that are written bit by bit: hashed on the way, and under their names only when whole, but
//! for those that are of use before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::made_list::List;

use reticle_base::durable::{self, Access, Draft, TEMPORARY};

/// A file that cannot be written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} cannot be written ({why}); check the folder and the free space", path.display())]
pub struct WriteError {
    path: PathBuf,
    why: String,
}

impl WriteError {
    pub(super) fn new(path: &Path, why: impl ToString) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

/// A file in the making. Dropped before [`Output::finish`], it is gone, unless it grows.
pub struct Output {
    path: PathBuf,
    file: BufWriter<Kept>,
    hash: Sha256,
    bytes: u64,
}

enum Kept {
    Durable(Draft),
    /// Of a folder that lists what was made in it, under this name.
    Listed(Draft, Arc<List>, String),
    /// The same, under its name from the start.
    Growing(File, Arc<List>, String),
    Scratch(Scratch),
}

impl Output {
    /// A file that people get: it survives a power cut once it has its name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn durable(path: &Path) -> Result<Self, WriteError> {
        let draft = Draft::create(path).map_err(|error| WriteError::new(path, error))?;
        Ok(Self::new(path, Kept::Durable(draft)))
    }

    /// As [`Output::durable`], in a folder that lists what was made in it: it gets into the list
    /// before it gets its name, and it replaces nothing.
    pub(super) fn listed(path: &Path, list: Arc<List>, name: String) -> Result<Self, WriteError> {
        let draft = Draft::create(path).map_err(|error| WriteError::new(path, error))?;
        Ok(Self::new(path, Kept::Listed(draft, list, name)))
    }

    /// As [`Output::listed`], but it has its name from the start, and keeps what was flushed whatever
    /// happens. The list knows already that it grows.
    pub(super) fn growing(path: &Path, list: Arc<List>, name: String) -> Result<Self, WriteError> {
        let file = File::options().write(true).create_new(true).open(path);
        let file = file.map_err(|error| WriteError::new(path, error))?;
        Ok(Self::new(path, Kept::Growing(file, list, name)))
    }

    /// A file that is sent and then deleted, and that is made again after a power cut: without
    /// fsync, and for its owner alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(path: &Path) -> Result<Self, WriteError> {
        let file = Scratch::create(path).map_err(|error| WriteError::new(path, error))?;
        Ok(Self::new(path, Kept::Scratch(file)))
    }

    fn new(path: &Path, kept: Kept) -> Self {
        let file = BufWriter::with_capacity(64 * 1024, kept);
        Self { path: path.to_owned(), file, hash: Sha256::new(), bytes: 0 }
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// When the disk is full or gone; there is no such file then, or still the one before.
    pub fn finish(self) -> Result<Written, WriteError> {
        let Self { path, file, hash, bytes } = self;
        let sha256 = hash.finalize().into();
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|kept| match kept {
                Kept::Durable(draft) => draft.commit(),
                Kept::Listed(draft, list, name) => {
                    list.add(&name, None, Some(&sha256)).and_then(|()| draft.commit_new())
                }
                Kept::Growing(file, list, name) => {
                    file.sync_all()?;
                    durable::sync_dir(path.parent().unwrap_or(Path::new(".")))?;
                    // Last: from here on it is ours with these contents alone.
                    list.add(&name, None, Some(&sha256))
                }
                Kept::Scratch(file) => file.rename(),
            })
            .map_err(|error| WriteError::new(&path, error))?;
        Ok(Written { bytes, sha256 })
    }

    pub(super) fn failed(&self, why: impl ToString) -> WriteError {
        WriteError::new(&self.path, why)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Durable(draft) | Self::Listed(draft, ..) => draft.write(bytes),
            Self::Growing(file, ..) => file.write(bytes),
            Self::Scratch(scratch) => scratch.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Durable(draft) | Self::Listed(draft, ..) => draft.flush(),
            Self::Growing(file, ..) => file.flush(),
            Self::Scratch(scratch) => scratch.file.flush(),
        }
    }
}

/// As a [`Draft`], without fsync.
struct Scratch {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Scratch {
    fn create(path: &Path) -> io::Result<Self> {
        let file = durable::create(&temporary_for(path), Access::Owner)?;
        Ok(Self { file, path: path.to_owned(), renamed: false })
    }

    fn rename(mut self) -> io::Result<()> {
        fs::rename(temporary_for(&self.path), &self.path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.renamed {
            // Best effort: the folder of such files is emptied at the next start anyhow.
            fs::remove_file(temporary_for(&self.path)).ok();
        }
    }
}

fn temporary_for(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_have_their_name_only_when_whole_and_say_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        for make in [Output::durable, Output::scratch] {
            let path = folder.path().join("a");
            let mut half = make(&path).unwrap();
            half.write_all(b"half").unwrap();
            drop(half);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            let mut whole = make(&path).unwrap();
            whole.write_all(b"abc").unwrap();
            assert!(!path.exists());
            let written = whole.finish().unwrap();
            // printf abc | sha256sum
            let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
            assert_eq!((written.bytes, hex::encode(written.sha256).as_str()), (3, sha256));
            assert_eq!(fs::read(&path).unwrap(), b"abc");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Output::scratch(Path::new("/nowhere/a")).err().unwrap().to_string();
        assert!(error.starts_with("/nowhere/a cannot be written"), "{error}");
    }
}
