//! Folders that people name for results, and what of their contents is ours: nothing else is ever
//! written over or removed.
//!
//! `<folder>/.reticle-made` is a list, one JSON document a line: `{"file":"labels/a.png",
//! "sha256":"…","of":"a"}`. It is only added to, until everything that it lists is removed.
//!
//! 1. A file is listed before it gets its name. Killed at any moment, there is no file of ours that
//!    the list does not know; it may list one that never came to be.
//! 2. A file is ours when the list has its name and its contents. One that was changed since (a
//!    label image that somebody corrected) is a person's again, and so is a link or a folder.
//!    A table that grows (`"grows":true`) is ours as it is until it is whole: a kill leaves it so.
//! 3. A new file replaces nothing, not even what came a moment before.
//! 4. One process at a time: the folder is locked, where its file system can.
//!
//! A copy of the folder takes its list along; without the list (as `cp out/* …` leaves it behind)
//! all files are a person's. So are those of versions before the list.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use super::made_list::LIST;
use super::made_list::{self, Known, List};

use super::output::{Output, WriteError};
use reticle_base::durable;
use reticle_base::foreign_file::{self, ForeignFileError};

/// Largest list that is read, bytes: a million files.
const LIST_BYTES: u64 = 256 << 20;

/// Why nothing, or one file, was not written.
#[derive(Debug, thiserror::Error)]
pub enum MadeError {
    /// Two at once.
    #[error(
        "another reticle is writing into {}; wait until it is done, or give another --out",
        .0.display()
    )]
    InUse(PathBuf),
    /// Somebody else's.
    #[error(
        "{} was not made by this program (its list {LIST} does not know it), and is not written \
         over; give another --out, or move it away",
        .0.display()
    )]
    Foreign(PathBuf),
    /// Ours once.
    #[error(
        "{} was changed since this program made it, and is not written over; give another --out, \
         or move it away",
        .0.display()
    )]
    Changed(PathBuf),
    /// It came while we were at work.
    #[error(
        "{} is there already, and is not written over: another program made it, or two images \
         have names that are one on this file system; give another --out, or rename one",
        .0.display()
    )]
    Taken(PathBuf),
    /// The operating system refused.
    #[error("cannot {what} {} ({error}); check the folder, its permissions and the free space", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file in the making.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Free,
    /// What this program made there.
    Own,
    /// Something else in the place of what this program made.
    Changed,
    /// What this program never made.
    Foreign,
}

/// A folder for results, held by this process.
pub struct Made {
    folder: PathBuf,
    list: Arc<List>,
    known: BTreeMap<String, Known>,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Made {
    /// Takes a folder, and makes it where it is not there. Writes nothing into it.
    ///
    /// # Errors
    /// When another process has it, or it cannot be made or read.
    pub fn open(folder: &Path) -> Result<Self, MadeError> {
        let failed = |what| move |error| MadeError::File { what, path: folder.to_owned(), error };
        durable::create_dir(folder).map_err(failed("make"))?;
        let lock = File::open(folder).map_err(failed("read"))?;
        // Some network file systems cannot lock: then rules 1 and 3 have to do.
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(MadeError::InUse(folder.to_owned()));
        }
        let path = folder.join(LIST);
        let known = match foreign_file::read_no_link(&path, LIST_BYTES) {
            Ok(bytes) => made_list::parse(&bytes),
            Err(ForeignFileError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                BTreeMap::new()
            }
            Err(error) => {
                return Err(MadeError::File { what: "read", path, error: error.into() });
            }
        };
        let list = Arc::new(List::at(path));
        Ok(Self { folder: folder.to_owned(), list, known, _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files of earlier runs that the list has, each with what it was made of.
    pub fn files(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.known.iter().map(|(name, known)| (name.as_str(), known.of.as_deref()))
    }

    /// Whether there is a file of an earlier run.
    pub fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.folder.join(name)).is_ok()
    }

    /// What is at a name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn state(&self, name: &str) -> Result<State, MadeError> {
        let path = self.folder.join(name);
        let failed = |error| MadeError::File { what: "read", path: path.clone(), error };
        let meta = match fs::symlink_metadata(&path) {
            Err(error) if is_nothing(&error) => return Ok(State::Free),
            meta => meta.map_err(failed)?,
        };
        let Some(known) = self.known.get(name) else { return Ok(State::Foreign) };
        if !meta.is_file() {
            return Ok(State::Changed);
        }
        if known.grows && known.hashes.is_empty() {
            return Ok(State::Own);
        }
        let hash = hash(&path).map_err(failed)?;
        Ok(if known.hashes.contains(&hash) { State::Own } else { State::Changed })
    }

    /// Whether a name may be written: nothing is there, or what this program made.
    ///
    /// # Errors
    /// [`MadeError::Foreign`] and [`MadeError::Changed`] where it may not.
    pub fn check(&self, name: &str) -> Result<(), MadeError> {
        match self.state(name)? {
            State::Free | State::Own => self.check_temporary(name),
            State::Changed => Err(MadeError::Changed(self.folder.join(name))),
            State::Foreign => Err(MadeError::Foreign(self.folder.join(name))),
        }
    }

    /// Every file is written under another name first; one that this program did not leave there
    /// is not to be lost either.
    fn check_temporary(&self, name: &str) -> Result<(), MadeError> {
        let temporary = temporary(name);
        if self.exists(&temporary) && !self.known.contains_key(name) {
            return Err(MadeError::Foreign(self.folder.join(temporary)));
        }
        Ok(())
    }

    /// What lies in a folder below, and the list does not know: names, sorted. Hidden files and
    /// those that file managers leave everywhere do not count.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn foreign_in(&self, below: &str) -> Result<Vec<String>, MadeError> {
        let folder = self.folder.join(below);
        let failed = |error| MadeError::File { what: "list", path: folder.clone(), error };
        let entries = match fs::read_dir(&folder) {
            Err(error) if is_nothing(&error) => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut foreign = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?.file_name();
            let name = format!("{below}/{}", entry.to_string_lossy());
            let listed = name.strip_suffix(durable::TEMPORARY).unwrap_or(&name);
            let is_left_everywhere = entry.as_encoded_bytes().starts_with(b".")
                || entry.eq_ignore_ascii_case("thumbs.db")
                || entry.eq_ignore_ascii_case("desktop.ini");
            if !self.known.contains_key(listed) && !is_left_everywhere {
                foreign.push(name);
            }
        }
        foreign.sort();
        Ok(foreign)
    }

    /// Which of the listed files is among those that are being read, by what the file system says
    /// they are.
    pub fn read_from<'a>(&self, inputs: impl Iterator<Item = &'a Path>) -> Option<PathBuf> {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let inputs: HashSet<(u64, u64)> =
            inputs.filter_map(|path| fs::metadata(path).ok()).map(identity).collect();
        let mut paths = self.known.keys().map(|name| self.folder.join(name));
        paths.find(|path| {
            let meta = fs::symlink_metadata(path).ok();
            meta.is_some_and(|meta| inputs.contains(&identity(meta)))
        })
    }

    /// Removes all that earlier runs made, and begins the list anew.
    ///
    /// # Errors
    /// When one of the files is not ours any more: then nothing is removed. When one cannot be
    /// removed.
    pub fn clear(&mut self) -> Result<(), MadeError> {
        let mut own = Vec::new();
        for name in self.known.keys() {
            match self.state(name)? {
                State::Own => own.push(name.clone()),
                State::Free => {}
                State::Changed | State::Foreign => {
                    return Err(MadeError::Changed(self.folder.join(name)));
                }
            }
            if self.exists(&temporary(name)) {
                own.push(temporary(name));
            }
        }
        for name in own {
            let path = self.folder.join(name);
            fs::remove_file(&path).map_err(|error| MadeError::File {
                what: "remove",
                path,
                error,
            })?;
        }
        self.list.clear().map_err(|error| self.list_failed(error))?;
        self.known.clear();
        Ok(())
    }

    /// Writes a new file, made of `of`, and says where.
    ///
    /// # Errors
    /// When something bears the name, or it cannot be written.
    pub fn put(&self, name: &str, of: Option<&str>, bytes: &[u8]) -> Result<PathBuf, MadeError> {
        let path = self.room_for(name)?;
        self.list(name, of, Some(bytes))?;
        durable::write_new(&path, bytes).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => MadeError::Taken(path.clone()),
            _ => MadeError::File { what: "write", path: path.clone(), error },
        })?;
        Ok(path)
    }

    /// Begins a new file that is written bit by bit.
    ///
    /// # Errors
    /// When something bears the name, or it cannot be written.
    pub fn begin(&self, name: &str) -> Result<Output, MadeError> {
        let path = self.room_for(name)?;
        self.list(name, None, None)?;
        Ok(Output::listed(&path, Arc::clone(&self.list), name.to_owned())?)
    }

    /// Begins a new file that has its name from the start, and of which a kill leaves what was
    /// flushed.
    ///
    /// # Errors
    /// When something bears the name, or it cannot be written.
    pub fn grow(&self, name: &str) -> Result<Output, MadeError> {
        let path = self.room_for(name)?;
        self.list.add_growing(name).map_err(|error| self.list_failed(error))?;
        Ok(Output::growing(&path, Arc::clone(&self.list), name.to_owned())?)
    }

    /// Writes a file in the place of one that this program made, if there is one.
    ///
    /// # Errors
    /// When something else bears the name, or it cannot be written.
    pub fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), MadeError> {
        self.check(name)?;
        self.list(name, None, Some(bytes))?;
        let known = self.known.entry(name.to_owned()).or_default();
        known.hashes.insert(hex::encode(Sha256::digest(bytes)));
        let path = self.folder.join(name);
        durable::write(&path, bytes).map_err(|error| MadeError::File { what: "write", path, error })
    }

    /// Where a new file goes; its folder is made.
    fn room_for(&self, name: &str) -> Result<PathBuf, MadeError> {
        let path = self.folder.join(name);
        self.check_temporary(name)?;
        if fs::symlink_metadata(&path).is_ok() {
            return Err(MadeError::Taken(path));
        }
        let folder = path.parent().unwrap_or(&self.folder);
        durable::create_dir(folder).map_err(|error| MadeError::File {
            what: "make",
            path: folder.to_owned(),
            error,
        })?;
        Ok(path)
    }

    fn list(&self, name: &str, of: Option<&str>, bytes: Option<&[u8]>) -> Result<(), MadeError> {
        let hash: Option<[u8; 32]> = bytes.map(|bytes| Sha256::digest(bytes).into());
        self.list.add(name, of, hash.as_ref()).map_err(|error| self.list_failed(error))
    }

    fn list_failed(&self, error: io::Error) -> MadeError {
        MadeError::File { what: "write", path: self.list.path().to_owned(), error }
    }
}

fn temporary(name: &str) -> String {
    format!("{name}{}", durable::TEMPORARY)
}

/// Nothing of that name, or no folder that it could be in.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = foreign_file::open(path, u64::MAX)?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    fn open(folder: &Path) -> Made {
        Made::open(folder).unwrap()
    }

    #[test]
    fn what_was_made_is_known_again_and_what_was_not_or_was_changed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = open(folder.path());
        made.put("labels/a.png", Some("a"), b"a").unwrap();
        made.put("labels/b.png", Some("b"), b"b").unwrap();
        let mut table = made.begin("objects.csv").unwrap();
        table.write_all(b"rows").unwrap();
        table.finish().unwrap();
        drop(made);
        fs::write(at("labels/mine.png"), b"a").unwrap();
        let mut made = open(folder.path());
        for name in ["labels/a.png", "labels/b.png", "objects.csv"] {
            assert_eq!(made.state(name).unwrap(), State::Own, "{name}");
        }
        assert_eq!(made.state("labels/mine.png").unwrap(), State::Foreign);
        assert_eq!(made.foreign_in("labels").unwrap(), ["labels/mine.png"]);
        fs::write(at("labels/b.png"), b"corrected").unwrap();
        assert_eq!(made.state("labels/b.png").unwrap(), State::Changed);
        let error = made.clear().unwrap_err().to_string();
        assert!(error.contains("labels/b.png was changed since this program made it"), "{error}");
        assert!(at("labels/a.png").exists(), "nothing was removed");
        fs::write(at("labels/b.png"), b"b").unwrap();
        made.clear().unwrap();
        assert!(!at("labels/a.png").exists() && !at("objects.csv").exists());
        assert_eq!(fs::read(at("labels/mine.png")).unwrap(), b"a");
        drop(made);
        assert_eq!(open(folder.path()).files().count(), 0);
    }

    #[test]
    fn nothing_is_replaced_whatever_kind_of_thing_bears_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"precious").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("gone"), at("dangling")).unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("free.tmp"), b"precious").unwrap();
        let mut made = open(folder.path());
        for name in ["file", "link", "dangling", "hard", "folder", "free"] {
            assert!(made.put(name, None, b"new").is_err(), "{name}");
            assert!(made.begin(name).is_err(), "{name}");
            assert!(made.check(name).is_err(), "{name}");
            assert!(made.replace(name, b"new").is_err(), "{name}");
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"precious");
        assert_eq!(fs::read(at("free.tmp")).unwrap(), b"precious");
        assert!(fs::symlink_metadata(at("dangling")).unwrap().is_symlink());
    }

    #[test]
    fn a_link_in_the_place_of_what_was_made_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        open(folder.path()).put("a", None, b"a").unwrap();
        fs::rename(at("a"), at("elsewhere")).unwrap();
        std::os::unix::fs::symlink(at("elsewhere"), at("a")).unwrap();
        let mut made = open(folder.path());
        assert_eq!(made.state("a").unwrap(), State::Changed);
        assert!(made.clear().is_err());
    }

    #[test]
    fn killed_between_any_two_steps_a_file_is_ours_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // Listed, and not written; begun, with what it had by then; half a line.
        fs::write(
            at(LIST),
            "{\"file\":\"a\",\"sha256\":\"00\"}\n{\"file\":\"b\"}\n{\"file\":\"c\",\"sha25",
        )
        .unwrap();
        fs::write(at("b.tmp"), b"half").unwrap();
        let mut made = open(folder.path());
        assert_eq!(made.state("a").unwrap(), State::Free);
        made.clear().unwrap();
        assert!(!at("b.tmp").exists());
        made.put("a", None, b"a").unwrap();
        // Half a line at the end does not swallow the next one.
        drop(made);
        let mut list = OpenOptions::new().append(true).open(at(LIST)).unwrap();
        list.write_all(b"{\"file\":\"x\"").unwrap();
        let made = open(folder.path());
        made.put("y", None, b"y").unwrap();
        drop(made);
        assert_eq!(open(folder.path()).state("y").unwrap(), State::Own);
    }

    #[test]
    fn a_list_that_somebody_wrote_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(folder.path().join("precious"), b"a").unwrap();
        let hash = hex::encode(Sha256::digest(b"a"));
        let absolute = folder.path().join("precious").display().to_string();
        let mut text = String::new();
        for file in ["../precious", "x/../../precious", "./../precious", absolute.as_str()] {
            text.push_str(&serde_json::json!({ "file": file, "sha256": hash }).to_string());
            text.push('\n');
        }
        fs::write(out.join(LIST), text).unwrap();
        let mut made = open(&out);
        assert_eq!(made.files().count(), 0);
        made.clear().unwrap();
        assert!(folder.path().join("precious").exists());
        // Nor does a list that is a link.
        fs::remove_file(out.join(LIST)).unwrap();
        std::os::unix::fs::symlink(folder.path().join("precious"), out.join(LIST)).unwrap();
        assert!(Made::open(&out).is_err());
    }

    #[test]
    fn only_one_at_a_time_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path());
        let second = Made::open(folder.path()).map(drop).unwrap_err().to_string();
        assert!(second.contains("another reticle is writing into"), "{second}");
        drop(first);
        open(folder.path());
    }

    #[test]
    fn what_is_replaced_is_only_what_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut made = open(folder.path());
        made.replace("model.toml", b"1").unwrap();
        made.replace("model.toml", b"2").unwrap();
        drop(made);
        let mut made = open(folder.path());
        made.replace("model.toml", b"3").unwrap();
        fs::write(at("model.toml"), b"mine").unwrap();
        assert!(matches!(made.replace("model.toml", b"4"), Err(MadeError::Changed(_))));
        assert_eq!(fs::read(at("model.toml")).unwrap(), b"mine");
    }

    #[test]
    fn of_a_table_that_grows_a_kill_leaves_what_was_flushed_and_it_stays_ours() {
        let folder = tempfile::tempdir().unwrap();
        let made = Made::open(folder.path()).unwrap();
        let mut table = made.grow("objects.csv").unwrap();
        table.write_all(b"label\n1\n").unwrap();
        table.flush().unwrap();
        table.write_all(b"2").unwrap();
        // What kill -9 would leave now.
        let text = fs::read_to_string(folder.path().join("objects.csv")).unwrap();
        assert_eq!(text, "label\n1\n");
        drop((table, made));
        let mut made = Made::open(folder.path()).unwrap();
        assert_eq!(made.state("objects.csv").unwrap(), State::Own);
        made.clear().unwrap();
        // Once whole, it is ours with its contents alone.
        let mut table = made.grow("objects.csv").unwrap();
        table.write_all(b"label\n").unwrap();
        table.finish().unwrap();
        drop(made);
        let made = Made::open(folder.path()).unwrap();
        assert_eq!(made.state("objects.csv").unwrap(), State::Own);
        let mut file =
            File::options().append(true).open(folder.path().join("objects.csv")).unwrap();
        file.write_all(b"3\n").unwrap();
        assert_eq!(made.state("objects.csv").unwrap(), State::Changed);
    }
}
