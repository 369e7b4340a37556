//! Files that survive a power cut, and who may read them.
//!
//! Write: `<name>.tmp` beside the target → fsync → rename → fsync of the folder. A reader
//! sees the whole file or none. Remove: unlink → fsync of the folder. What ends in
//! [`TEMPORARY`] after a restart was never promised to anyone and may be deleted.
//!
//! - A file is made anew each time, never opened where one lies: a link that somebody planted
//!   under the name that is to be written is removed, and what it points to stays as it is.
//! - Files and folders of the box itself ([`Access::Owner`]) are for their owner alone, 0600 and
//!   0700, whatever the umask. What a person takes along ([`Access::Umask`]: exports, packages,
//!   an archive in a folder) follows the umask, as with any other program.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::crash;

/// Ending of files that are still being written.
pub const TEMPORARY: &str = ".tmp";

/// Who may read what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone.
    Owner,
    /// Whoever the umask of the process lets.
    Umask,
}

impl Access {
    fn file_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Umask => 0o666,
        }
    }

    fn folder_mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Umask => 0o777,
        }
    }
}

/// Makes a new file, in the place of whatever bears the name. A link is not followed.
///
/// # Errors
/// Any error of the file system, and a folder of that name.
pub fn create(path: &Path, access: Access) -> io::Result<File> {
    let fresh =
        || OpenOptions::new().write(true).create_new(true).mode(access.file_mode()).open(path);
    match fresh() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            fresh()
        }
        made => made,
    }
}

/// Writes `bytes` to `path` so that they are there after a power cut, or not at all. Who may
/// read them follows the umask; for the box's own files there is [`write_private`].
///
/// # Errors
/// Any error of the file system; `path` then holds what it held before.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, Access::Umask, |file| file.write_all(bytes))
}

/// As [`write()`], for its owner alone.
///
/// # Errors
/// As [`write()`].
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, Access::Owner, |file| file.write_all(bytes))
}

/// As [`write()`], where nothing bears the name yet: what does stays as it is.
///
/// # Errors
/// As [`write()`], and of the kind `AlreadyExists` where the name is taken.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = Draft::create(path)?;
    draft.write_all(bytes)?;
    draft.commit_new()
}

fn write_with(
    path: &Path,
    access: Access,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_for(path);
    let written = (|| {
        let mut file = create(&temporary, access)?;
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

/// Creates `folder` and its parents, each fsynced into its own parent. Who may enter them follows
/// the umask.
///
/// # Errors
/// Any error of the file system.
pub fn create_dir(folder: &Path) -> io::Result<()> {
    create_dirs(folder, Path::new(""), Access::Umask)
}

/// As [`create_dir`], where what is made below `root`, and `root` itself, is for its owner alone.
///
/// # Errors
/// Any error of the file system.
pub fn create_dir_private(folder: &Path, root: &Path) -> io::Result<()> {
    create_dirs(folder, root, Access::Owner)
}

/// Makes folders with `access` from `root` on downwards, and those above it by the umask.
fn create_dirs(folder: &Path, root: &Path, access: Access) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dirs(parent, root, access)?;
    }
    let access = if folder.starts_with(root) { access } else { Access::Umask };
    match DirBuilder::new().mode(access.folder_mode()).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // Somebody else was quicker, or a file is in the way.
        Err(_) if !folder.is_dir() => Err(rustix::io::Errno::NOTDIR.into()),
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
    /// Begins a file that will be `path`. What is at `path` stays until the commit. Who may read
    /// it follows the umask: what is made so is for people to take along.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = create(&temporary_for(path), Access::Umask)?;
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

    /// As [`Draft::commit`], where nothing bears the name yet: what does stays as it is, even when
    /// it came a moment ago.
    ///
    /// # Errors
    /// As [`Draft::commit`], and of the kind `AlreadyExists` where the name is taken.
    pub fn commit_new(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        rename_new(&temporary_for(&self.path), &self.path)?;
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

/// Gives a file a name that nothing bears.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Network file systems do not know the flag. Most know links, which replace nothing either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) if fs::symlink_metadata(to).is_ok() => Err(Errno::EXIST.into()),
            Err(_) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
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
        let failed = write_with(&path, Access::Umask, |file| {
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
    fn what_is_to_be_new_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_new(&path, b"first").unwrap();
        for taken in [write_new(&path, b"second"), Draft::create(&path).unwrap().commit_new()] {
            assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_private_is_so_and_the_rest_follows_the_umask() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let meta = fs::metadata(folder.path().join(name)).unwrap();
            meta.permissions().mode() & 0o777
        };
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        let made = (|| {
            let at = |name: &str| folder.path().join(name);
            create_dir_private(&at("above/data/frames/s"), &at("above/data"))?;
            write_private(&at("private"), b"a")?;
            write(&at("open"), b"a")?;
            create(&at("made"), Access::Owner).map(drop)
        })();
        rustix::process::umask(umask);
        made.unwrap();
        let expected = [
            ("above", 0o777),
            ("above/data", 0o700),
            ("above/data/frames", 0o700),
            ("above/data/frames/s", 0o700),
            ("private", 0o600),
            ("open", 0o666),
            ("made", 0o600),
        ];
        for (name, access) in expected {
            assert_eq!(mode(name), access, "{name}: {:o}", mode(name));
        }
    }

    #[test]
    fn a_planted_link_is_replaced_and_its_target_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("target"), b"precious").unwrap();
        for (name, planted) in [("a", "a.tmp"), ("b", "b.tmp"), ("c", "c")] {
            std::os::unix::fs::symlink(at("target"), at(planted)).unwrap();
            match name {
                "a" => write(&at(name), b"new").unwrap(),
                "b" => {
                    let mut draft = Draft::create(&at(name)).unwrap();
                    draft.write_all(b"new").unwrap();
                    draft.commit().unwrap();
                }
                _ => create(&at(name), Access::Owner).unwrap().write_all(b"new").unwrap(),
            }
            assert_eq!(fs::read(at("target")).unwrap(), b"precious", "{planted}");
            assert!(fs::symlink_metadata(at(name)).unwrap().is_file(), "{name}");
            assert_eq!(fs::read(at(name)).unwrap(), b"new");
        }
    }

    #[test]
    fn removing_what_is_gone_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        remove(&folder.path().join("never")).unwrap();
    }
}
