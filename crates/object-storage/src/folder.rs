//! A folder as archive: the same keys as in a bucket, as files below it.
//!
//! An object is written beside its name, fsynced, renamed, its folder fsynced, and then read back
//! and hashed, from the medium where the kernel lets us. A reader sees all of it or none.
//!
//! A folder inside the data folder is made when it is not there. One anywhere else is not: it may
//! be a disk or a share that is not mounted, and a folder made in its place would fill the box.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::error::StorageError;
use super::{Found, Hashed, Listed, ObjectReceipt, changed, too_large, unreadable};
use reticle_base::durable::{self, Access, Draft, TEMPORARY};
use reticle_base::remedy::Remedy;

/// Bytes left free on the archive's file system for everything else: more than the store leaves
/// by default (1 GiB), so that an archive on the same disk stops before the store has to delete
/// frames.
const MIN_FREE: u64 = 5 << 28;

/// Objects that a listing may be ahead of its reader.
const AHEAD: usize = 1024;

/// Files below a folder, named by their keys.
#[derive(Clone, Debug)]
pub struct FolderArchive {
    root: PathBuf,
    /// Whether the folder is ours to make.
    own: bool,
    min_free: u64,
}

/// What is to be written.
enum Contents {
    Bytes(Vec<u8>),
    File { path: PathBuf, sha256: [u8; 32] },
}

impl FolderArchive {
    /// The folder `path`; where that is relative, below `data_folder`. Touches nothing yet.
    pub fn new(path: &Path, data_folder: &Path) -> Self {
        let root = data_folder.join(path);
        Self { root, own: path.is_relative(), min_free: MIN_FREE }
    }

    /// With another number of bytes to be left free.
    #[must_use]
    pub fn with_min_free(mut self, bytes: u64) -> Self {
        self.min_free = bytes;
        self
    }

    pub(super) fn name(&self) -> String {
        format!("file:{}", self.root.display())
    }

    pub(super) async fn put_bytes(
        &self,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<ObjectReceipt, StorageError> {
        self.put(key, Contents::Bytes(bytes)).await
    }

    pub(super) async fn put_file(
        &self,
        key: &str,
        file: &Path,
        sha256: [u8; 32],
    ) -> Result<ObjectReceipt, StorageError> {
        self.put(key, Contents::File { path: file.to_owned(), sha256 }).await
    }

    async fn put(&self, key: &str, contents: Contents) -> Result<ObjectReceipt, StorageError> {
        let what = format!("put {key} into {}", self.name());
        let (archive, key) = (self.clone(), key.to_owned());
        blocking(what, move |what| archive.write(what, &key, contents)).await
    }

    pub(super) async fn read_back(&self, key: &str) -> Result<Option<Found>, StorageError> {
        let what = format!("read {key} from {}", self.name());
        let (archive, path) = (self.clone(), self.root.join(key));
        blocking(what, move |what| match hash_from_medium(&path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => archive.has_none(what),
            Err(error) => Err(failed(what, &path, &error)),
        })
        .await
    }

    pub(super) async fn get_bytes(
        &self,
        key: &str,
        most: u64,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let what = format!("read {key} from {}", self.name());
        let (archive, path) = (self.clone(), self.root.join(key));
        blocking(what, move |what| {
            let mut bytes = Vec::new();
            let read =
                File::open(&path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
            match read {
                Ok(read) if read as u64 > most => Err(too_large(what, most)),
                Ok(_) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => archive.has_none(what),
                Err(error) => Err(failed(what, &path, &error)),
            }
        })
        .await
    }

    pub(super) async fn fetch(&self, key: &str, to: &Path) -> Result<Option<Found>, StorageError> {
        let what = format!("read {key} from {}", self.name());
        let (archive, path, to) = (self.clone(), self.root.join(key), to.to_owned());
        let copy = move |path: &Path, to: &Path| -> io::Result<u64> {
            let mut from = File::open(path)?;
            io::copy(&mut from, &mut durable::create(to, Access::Owner)?)
        };
        blocking(what, move |what| match copy(&path, &to) {
            Ok(_) => hash_from_medium(&to).map(Some).map_err(|error| failed(what, &to, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => archive.has_none(what),
            Err(error) => Err(failed(what, &path, &error)),
        })
        .await
    }

    pub(super) async fn list(
        &self,
        prefix: &str,
        each: &mut (dyn FnMut(Listed) + Send),
    ) -> Result<(), StorageError> {
        let what = format!("list {prefix:?} in {}", self.name());
        let (archive, root, prefix) = (self.clone(), self.root.clone(), prefix.to_owned());
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let walk = blocking(what, move |what| {
            archive.is_reached(what)?;
            // Nobody listens any more when the caller has given up: then this may end too.
            walk(&root, &prefix, &mut |listed| sender.blocking_send(listed).is_ok())
                .map_err(|error| failed(what, &root, &error))
        });
        let receive = async {
            while let Some(listed) = receiver.recv().await {
                each(listed);
            }
        };
        tokio::join!(walk, receive).0
    }

    fn write(
        &self,
        what: &str,
        key: &str,
        contents: Contents,
    ) -> Result<ObjectReceipt, StorageError> {
        let path = self.root.join(key);
        let failed = |error: &io::Error| failed(what, &path, error);
        self.make_root(what)?;
        let bytes = match &contents {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::File { path, .. } => {
                fs::metadata(path).map_err(|error| unreadable(what, path, &error))?.len()
            }
        };
        self.leave_room(what, bytes)?;
        if let Some(folder) = path.parent() {
            durable::create_dir(folder).map_err(|error| failed(&error))?;
        }
        let mut draft = Draft::create(&path).map_err(|error| failed(&error))?;
        let sha256 = match contents {
            Contents::Bytes(bytes) => {
                draft.write_all(&bytes).map_err(|error| failed(&error))?;
                Sha256::digest(&bytes).into()
            }
            Contents::File { path: file, sha256 } => {
                let mut reader =
                    File::open(&file).map_err(|error| unreadable(what, &file, &error))?;
                let mut writer = Hashing { to: &mut draft, sha256: Sha256::new() };
                io::copy(&mut reader, &mut writer).map_err(|error| failed(&error))?;
                let copied: [u8; 32] = writer.sha256.finalize().into();
                if copied != sha256 {
                    return Err(changed(what, &file));
                }
                sha256
            }
        };
        draft.commit().map_err(|error| failed(&error))?;
        let found = hash_from_medium(&path).map_err(|error| failed(&error))?;
        if found != (Found { bytes, sha256 }) {
            let why = format!(
                "{} holds something else than was written; is its disk sound?",
                path.display()
            );
            return Err(StorageError::retry(what, why));
        }
        let digits = hex::encode(sha256);
        let checksum = format!("sha256:{digits} (read back)");
        Ok(ObjectReceipt { key: key.to_owned(), etag: digits, bytes, sha256, checksum })
    }

    fn make_root(&self, what: &str) -> Result<(), StorageError> {
        self.is_reached(what)?;
        if self.own && !self.root.is_dir() {
            return durable::create_dir(&self.root)
                .map_err(|error| failed(what, &self.root, &error));
        }
        Ok(())
    }

    /// A share that is not mounted is no empty archive: whoever took it for one would say that
    /// everything is lost, or that nothing was forgotten. A folder of the box itself is made with
    /// the first put.
    fn is_reached(&self, what: &str) -> Result<(), StorageError> {
        if self.own || self.root.is_dir() {
            return Ok(());
        }
        let why = format!("{} is no folder; mount it, or make it", self.root.display());
        Err(StorageError::stop(what, why))
    }

    /// The answer for a key under which there is nothing.
    fn has_none<T>(&self, what: &str) -> Result<Option<T>, StorageError> {
        self.is_reached(what).map(|()| None)
    }

    fn leave_room(&self, what: &str, bytes: u64) -> Result<(), StorageError> {
        let free = rustix::fs::statvfs(&self.root)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| failed(what, &self.root, &error.into()))?;
        let needed = bytes.saturating_add(self.min_free);
        if free >= needed {
            return Ok(());
        }
        let why = format!(
            "{free} bytes are free in {} and {needed} are needed ({} stay free for everything \
             else); make room there, or name another folder in sync.archive.to",
            self.root.display(),
            self.min_free
        );
        Err(StorageError::retry(what, why))
    }
}

/// Hashes what goes through.
struct Hashing<'a> {
    to: &'a mut Draft,
    sha256: Sha256,
}

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.sha256.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Hashes a file, from the medium and not from the kernel's memory of what was written, as far as
/// that can be asked for.
fn hash_from_medium(path: &Path) -> io::Result<Found> {
    let file = File::open(path)?;
    // Drops the pages that are in memory. Not every file system knows how (tmpfs has nothing
    // else): then the memory is what is compared.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).ok();
    let Hashed { bytes, sha256, .. } = Hashed::read(file, u64::MAX)?;
    Ok(Found { bytes, sha256 })
}

/// Tells `each` of the files below `folder` until it has heard enough (`false`).
fn walk(root: &Path, prefix: &str, each: &mut dyn FnMut(Listed) -> bool) -> io::Result<()> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // An archive into which nothing was put yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder == root => {
                return Ok(());
            }
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                // Folders without keys of this prefix are not entered.
                let key = format!("{key}/");
                if key.starts_with(prefix) || prefix.starts_with(&key) {
                    folders.push(path);
                }
            } else if kind.is_file() && key.starts_with(prefix) && !key.ends_with(TEMPORARY) {
                let bytes = entry.metadata()?.len();
                if !each(Listed { key: key.to_owned(), bytes }) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    what: String,
    run: impl FnOnce(&str) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let name = what.clone();
    tokio::task::spawn_blocking(move || run(&name))
        .await
        .unwrap_or_else(|error| Err(StorageError::retry(what, error)))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> StorageError {
    let (remedy, advice) = remedy_of(error.kind());
    StorageError {
        remedy,
        what: what.to_owned(),
        why: format!("{}: {error}; {advice}", path.display()),
        after: None,
    }
}

/// What an error of the archive's file system means.
fn remedy_of(kind: io::ErrorKind) -> (Remedy, &'static str) {
    use io::ErrorKind as Kind;
    match kind {
        Kind::PermissionDenied => {
            (Remedy::Stop, "let the user that Reticle runs as write into the archive's folder")
        }
        Kind::ReadOnlyFilesystem => (Remedy::Stop, "mount the archive so that it can be written"),
        Kind::InvalidFilename => (Remedy::GiveUp, "the file system has no such names"),
        Kind::IsADirectory | Kind::NotADirectory => {
            (Remedy::GiveUp, "something else is in the object's place; move it away")
        }
        Kind::StorageFull | Kind::QuotaExceeded => (Remedy::Retry, "make room in the archive"),
        _ => (Remedy::Retry, "will be tried again; look at the disk or share of the archive"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(folder: &Path) -> FolderArchive {
        FolderArchive::new(folder, Path::new("/")).with_min_free(0)
    }

    async fn listed(archive: &FolderArchive, prefix: &str) -> Vec<Listed> {
        let mut all = Vec::new();
        archive.list(prefix, &mut |listed| all.push(listed)).await.unwrap();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    #[tokio::test]
    async fn a_share_that_is_not_mounted_is_no_empty_archive() {
        let folder = tempfile::tempdir().unwrap();
        let absent = archive(&folder.path().join("nas"));
        let to = folder.path().join("copy");
        let refused = [
            absent.read_back("a").await.map(drop).unwrap_err(),
            absent.get_bytes("a", 9).await.map(drop).unwrap_err(),
            absent.fetch("a", &to).await.map(drop).unwrap_err(),
            absent.list("", &mut |_| {}).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.remedy, Remedy::Stop, "{error}");
            assert!(error.to_string().contains("nas is no folder; mount it"), "{error}");
        }
        // The box's own folder is made with the first put, and until then there is nothing in it.
        let own = FolderArchive::new(Path::new("archive"), folder.path());
        assert_eq!(own.read_back("a").await.unwrap(), None);
        assert_eq!(listed(&own, "").await, []);
    }

    #[tokio::test]
    async fn an_object_is_a_file_of_its_key_and_replaces_itself() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path());
        archive.put_bytes("a/b.json", b"half".to_vec()).await.unwrap();
        let receipt = archive.put_bytes("a/b.json", b"whole".to_vec()).await.unwrap();
        assert_eq!(receipt.bytes, 5);
        assert_eq!(receipt.sha256, <[u8; 32]>::from(Sha256::digest(b"whole")));
        assert_eq!(fs::read(folder.path().join("a/b.json")).unwrap(), b"whole");
        let found = archive.read_back("a/b.json").await.unwrap().unwrap();
        assert_eq!(found, Found { bytes: 5, sha256: receipt.sha256 });
        assert_eq!(listed(&archive, "").await, [Listed { key: "a/b.json".to_owned(), bytes: 5 }]);
        assert_eq!(archive.read_back("a/c.json").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_is_no_longer_what_it_was_is_given_up_and_not_put() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(&folder.path().join("archive"));
        fs::create_dir(folder.path().join("archive")).unwrap();
        let file = folder.path().join("file");
        durable::write(&file, b"changed").unwrap();
        let error = archive.put_file("a", &file, [7; 32]).await.unwrap_err();
        assert_eq!(error.remedy, Remedy::GiveUp, "{error}");
        assert!(listed(&archive, "").await.is_empty());
        let sha256 = Sha256::digest(b"changed").into();
        assert_eq!(archive.put_file("a", &file, sha256).await.unwrap().sha256, sha256);
    }

    #[tokio::test]
    async fn a_disk_without_room_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path()).with_min_free(u64::MAX / 2);
        let error = archive.put_bytes("a", vec![1]).await.unwrap_err();
        assert_eq!(error.remedy, Remedy::Retry, "{error}");
        assert!(listed(&archive, "").await.is_empty());
    }

    #[tokio::test]
    async fn a_folder_elsewhere_that_is_not_there_stops_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("not-mounted");
        let error = archive(&missing).put_bytes("a", vec![1]).await.unwrap_err();
        assert_eq!(error.remedy, Remedy::Stop, "{error}");
        assert!(!missing.exists());
        let own = FolderArchive::new(Path::new("archive"), folder.path()).with_min_free(0);
        own.put_bytes("a", vec![1]).await.unwrap();
        assert!(folder.path().join("archive/a").is_file());
    }

    #[tokio::test]
    async fn a_listing_is_of_the_prefix_and_skips_what_is_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path());
        for key in ["s/1/a", "s/1/b", "s/10/a", "s/2/a", "t"] {
            archive.put_bytes(key, vec![0; 3]).await.unwrap();
        }
        fs::File::create(folder.path().join("s/1/c.tmp")).unwrap();
        let keys = async |prefix: &str| -> Vec<String> {
            listed(&archive, prefix).await.into_iter().map(|listed| listed.key).collect()
        };
        assert_eq!(keys("s/1").await, ["s/1/a", "s/1/b", "s/10/a"]);
        assert_eq!(keys("s/1/").await, ["s/1/a", "s/1/b"]);
        assert_eq!(keys("").await.len(), 5);
        let nothing = FolderArchive::new(Path::new("none"), folder.path());
        assert!(listed(&nothing, "").await.is_empty());
    }

    #[test]
    fn errors_of_the_disk_have_their_remedies() {
        let table = [
            (io::ErrorKind::PermissionDenied, Remedy::Stop),
            (io::ErrorKind::ReadOnlyFilesystem, Remedy::Stop),
            (io::ErrorKind::StorageFull, Remedy::Retry),
            (io::ErrorKind::QuotaExceeded, Remedy::Retry),
            (io::ErrorKind::NotADirectory, Remedy::GiveUp),
            (io::ErrorKind::Other, Remedy::Retry),
        ];
        for (kind, remedy) in table {
            assert_eq!(remedy_of(kind).0, remedy, "{kind:?}");
        }
    }
}
