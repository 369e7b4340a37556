//! Where objects are put: S3, or a folder with the same layout.
//!
//! An object has a key that follows from what it is about, so that whoever puts it again
//! overwrites it with itself. That is what makes delivery exact: not every server has conditional
//! puts, and none is needed here.
//!
//! A put returns an [`ObjectReceipt`] only after the archive was asked what it holds and answered
//! with the same size, the same tag and the same checksum. Where it gives no checksum, or is a
//! folder, the object is read back and hashed. Anything else is a [`StorageError`], which says
//! whether to try again ([`Remedy`](reticle_base::remedy::Remedy)). Nothing is tried again in here; that, and
//! the waiting, is the scheduler's.
//!
//! An upload in parts leaves behind what a crash interrupts; the [`UploadState`] lets the next
//! attempt go on from there. One whose state was lost as well stays in the bucket unseen until
//! a lifecycle rule of the bucket removes it (`AbortIncompleteMultipartUpload`).

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use reticle_base::address;
use reticle_base::clock::Clock;
use reticle_base::durable;

mod body;
mod classify;
mod connect;
mod error;
mod folder;
mod multipart;
mod part_size;
mod s3;
mod throttle;

pub use classify::classify;
pub use connect::Keys;
pub use error::StorageError;
pub use folder::FolderArchive;
pub use s3::S3Archive;
pub use throttle::Throttle;

/// Bytes in the longest key that S3 takes, prefix and all.
const KEY_BYTES: usize = 1024;

/// Where the objects are and how to get there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// `s3://bucket/prefix`, `file:PATH` (relative to the data folder), or `none`.
    pub to: String,
    /// Address of an S3-compatible server (`https://minio.lab:9000`). `None`: AWS.
    pub endpoint: Option<String>,
    /// Region of the bucket. `None`: as the environment or the profile says, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket is in the path instead of the host name. `None`: true where an
    /// endpoint is given.
    pub path_style: Option<bool>,
    /// Profile of the AWS configuration files. `None`: the environment's keys, the default
    /// profile, the instance's or container's role, in this order.
    pub profile: Option<String>,
    /// File with the certificates (PEM) of a CA of one's own.
    pub ca_file: Option<PathBuf>,
}

/// An archive that objects can be put into. Cheap to clone.
#[derive(Clone, Debug)]
pub enum ObjectStorage {
    /// Files below a folder.
    Folder(FolderArchive),
    /// A bucket of S3 or of a server that speaks like it.
    S3(S3Archive),
}

/// That an object is in the archive, whole, as it was read there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectReceipt {
    /// Its key, without the archive's prefix.
    pub key: String,
    /// The tag that S3 gave it, without quotes; in a folder, the SHA-256 in hex.
    pub etag: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
    /// What was compared: `sha256:` and what the server answered, in base64 (of an upload in
    /// parts the hash of their hashes, a dash and their number), or `sha256:`, hex digits and
    /// ` (read back)`.
    pub checksum: String,
}

/// An upload in parts, as far as the server has acknowledged it. Kept by the caller from one
/// attempt to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadState {
    /// The server's name for the upload.
    pub upload_id: String,
    /// SHA-256 of the whole file, in hex: parts of another file must not go with these.
    pub sha256: String,
    /// Bytes in each part but the last.
    pub part_bytes: u64,
    /// Parts that the server has, in order.
    pub parts: Vec<UploadedPart>,
}

/// One part that the server has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedPart {
    /// From 1.
    pub number: u32,
    /// The tag that the server gave it, as it gave it.
    pub etag: String,
    /// SHA-256 of it, in base64.
    pub checksum: String,
}

/// Told after each step of an upload in parts what to resume it with; `None` once there is
/// nothing to resume. Losing it costs only that parts are sent again.
pub type OnState<'a> = &'a mut (dyn FnMut(Option<&UploadState>) + Send);

/// What an archive holds under a key: all of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
}

/// A copy of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// What was read.
    pub found: Found,
    /// Whether it is what the archive took once. It is not where the archive's own checksum is
    /// of something else: a server that is killed in a put may keep the bytes of one object and
    /// the checksum of another. True where the archive has none.
    pub is_vouched_for: bool,
}

/// What an archive says of an object without reading it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its size.
    pub bytes: u64,
    /// What an [`ObjectReceipt`] has for it.
    pub etag: String,
    /// SHA-256 of it, where the archive knows.
    pub sha256: Option<[u8; 32]>,
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, without the archive's prefix.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// How long a server may be silent. A large object may take hours, as long as it gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until the next chunk (64 KiB) is taken or given. Slower than that is as good as dead.
    pub progress: Duration,
    /// Until an answer, once all is sent. Longer, because what is sent may still be in the
    /// kernel's buffers (up to 4 MiB by Linux's defaults), and because S3 puts the parts of a
    /// large object together only then.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { progress: Duration::from_secs(60), answer: Duration::from_secs(120) }
    }
}

impl ObjectStorage {
    /// What `options.to` names; `None` for `none`. Reads files (CA, profiles) but asks no
    /// server: see [`ObjectStorage::check`].
    ///
    /// # Errors
    /// An address that is none, or a file that cannot be read. The error names the key of the
    /// configuration.
    pub async fn open(
        options: &Location,
        data_folder: &Path,
        throttle: Throttle,
        clock: Clock,
    ) -> Result<Option<Self>, StorageError> {
        let to = options.to.trim();
        if to == "none" {
            return Ok(None);
        }
        if let Some(path) = to.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(Some(Self::Folder(FolderArchive::new(Path::new(path), data_folder))));
        }
        if to.starts_with("s3://") {
            let archive = Box::pin(S3Archive::open(options, None, throttle, clock)).await?;
            return Ok(Some(Self::S3(archive)));
        }
        Err(StorageError::stop(
            "sync.archive.to",
            format!(
                "\"{}\" names no archive; write \"s3://BUCKET/PREFIX\", \"file:PATH\" or \"none\"",
                address::shown(to)
            ),
        ))
    }

    /// Where the archive is a folder: leaves this many bytes of its disk free for the rest.
    #[must_use]
    pub fn leaving_free(self, bytes: u64) -> Self {
        match self {
            Self::Folder(archive) => Self::Folder(archive.with_min_free(bytes)),
            other => other,
        }
    }

    /// `s3://lab/box-1` or `file:/srv/archive`, for logs, status and receipts.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(archive) => archive.name(),
            Self::S3(archive) => archive.name().to_owned(),
        }
    }

    /// Puts a small object: one that is in memory anyway.
    ///
    /// # Errors
    /// Whatever keeps it from being there, whole; see [`StorageError`].
    pub async fn put_bytes(
        &self,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<ObjectReceipt, StorageError> {
        check_key(key)?;
        match self {
            Self::Folder(archive) => archive.put_bytes(key, bytes).await,
            Self::S3(archive) => archive.put_bytes(key, bytes).await,
        }
    }

    /// Puts a file, in parts where it is large. `sha256` is what it held when it was made: a file
    /// that holds something else by now is given up. `resume` is what `on_state` was told last.
    ///
    /// # Errors
    /// Whatever keeps it from being there, whole; see [`StorageError`].
    pub async fn put_file(
        &self,
        key: &str,
        file: &Path,
        sha256: [u8; 32],
        resume: Option<UploadState>,
        on_state: OnState<'_>,
    ) -> Result<ObjectReceipt, StorageError> {
        check_key(key)?;
        match self {
            Self::Folder(archive) => archive.put_file(key, file, sha256).await,
            Self::S3(archive) => archive.put_file(key, file, sha256, resume, on_state).await,
        }
    }

    /// Reads an object to its end; `None` where there is none.
    ///
    /// # Errors
    /// The archive cannot be reached or read.
    pub async fn read_back(&self, key: &str) -> Result<Option<Found>, StorageError> {
        check_key(key)?;
        match self {
            Self::Folder(archive) => archive.read_back(key).await,
            Self::S3(archive) => archive.read_back(key).await,
        }
    }

    /// What is under a key; `None` where there is nothing. A server is asked; in a folder the file
    /// is hashed.
    ///
    /// # Errors
    /// The archive cannot be reached or read.
    pub async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError> {
        check_key(key)?;
        match self {
            Self::Folder(archive) => {
                Ok(archive.read_back(key).await?.map(|Found { bytes, sha256 }| Stat {
                    bytes,
                    etag: hex::encode(sha256),
                    sha256: Some(sha256),
                }))
            }
            Self::S3(archive) => archive.stat(key).await,
        }
    }

    /// A small document; `None` where there is none. One of more than `most` bytes is none of
    /// ours: an error.
    ///
    /// # Errors
    /// The archive cannot be reached or read.
    pub async fn get_bytes(&self, key: &str, most: u64) -> Result<Option<Vec<u8>>, StorageError> {
        check_key(key)?;
        match self {
            Self::Folder(archive) => archive.get_bytes(key, most).await,
            Self::S3(archive) => archive.get_bytes(key, most).await,
        }
    }

    /// Puts a small document without asking afterwards what is there: for one that is written
    /// with every delivery, and no promise hangs on.
    ///
    /// # Errors
    /// As [`ObjectStorage::put_bytes`].
    pub async fn put_note(&self, key: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        check_key(key)?;
        match self {
            Self::Folder(archive) => archive.put_bytes(key, bytes).await.map(drop),
            Self::S3(archive) => archive.put_note(key, bytes).await,
        }
    }

    /// Copies an object into a file; `None` where there is none.
    ///
    /// # Errors
    /// The archive cannot be reached or read, or the file not written.
    pub async fn fetch(&self, key: &str, to: &Path) -> Result<Option<Copied>, StorageError> {
        check_key(key)?;
        match self {
            Self::Folder(archive) => {
                let found = archive.fetch(key, to).await?;
                Ok(found.map(|found| Copied { found, is_vouched_for: true }))
            }
            Self::S3(archive) => archive.fetch(key, to).await,
        }
    }

    /// Tells `each` of all objects whose keys begin with `prefix`, in no order to rely on.
    ///
    /// # Errors
    /// The archive cannot be reached or listed. `each` has then been told of some.
    pub async fn list(
        &self,
        prefix: &str,
        each: &mut (dyn FnMut(Listed) + Send),
    ) -> Result<(), StorageError> {
        match self {
            Self::Folder(archive) => archive.list(prefix, each).await,
            Self::S3(archive) => archive.list(prefix, each).await,
        }
    }

    /// Whether objects can be put here: lists what is below `.reticle/`, then writes and reads a
    /// small object there, `probe-<host>`. Listing first finds a bucket that is missing: some
    /// servers make one when something is put into it.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub async fn check(&self) -> Result<(), StorageError> {
        let host: String = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .collect();
        let key = format!(".reticle/probe-{host}");
        self.list(".reticle/", &mut |_| {}).await?;
        let text = b"Reticle wrote this to see whether it may. It can be deleted.\n".to_vec();
        let put = self.put_bytes(&key, text).await?;
        let found = self.read_back(&key).await?;
        if found.is_some_and(|found| found.sha256 == put.sha256 && found.bytes == put.bytes) {
            return Ok(());
        }
        Err(StorageError::retry(
            format!("check {}", self.name()),
            format!("{key} was written and is not what is read; does something else write there?"),
        ))
    }
}

/// Refuses what is no key everywhere: in a folder it would leave the folder or not be a file.
fn check_key(key: &str) -> Result<(), StorageError> {
    let sound = !key.is_empty()
        && key.len() <= KEY_BYTES
        && !key.chars().any(|c| c.is_control() || c == '\\')
        && !key.ends_with(durable::TEMPORARY)
        && key.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if sound {
        return Ok(());
    }
    Err(StorageError::give_up(
        format!("put {key:?}"),
        format!(
            "this is no key: up to {KEY_BYTES} bytes, names joined by single slashes, none of \
             them \".\" or \"..\", without control characters or backslashes, not ending in \".tmp\""
        ),
    ))
}

/// A file to be put, hashed as a whole and in parts.
struct Hashed {
    bytes: u64,
    sha256: [u8; 32],
    parts: Vec<[u8; 32]>,
}

impl Hashed {
    /// Reads all of `reader`. Blocks.
    fn read(mut reader: impl io::Read, part_bytes: u64) -> io::Result<Self> {
        let mut whole = Sha256::new();
        let mut bytes = 0;
        let mut parts = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let mut part = Sha256::new();
            let mut rest = reader.by_ref().take(part_bytes);
            let before = bytes;
            loop {
                let read = match rest.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read?,
                };
                let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
                    break;
                };
                whole.update(chunk);
                part.update(chunk);
                bytes += chunk.len() as u64;
            }
            if bytes > before {
                parts.push(part.finalize().into());
            }
            if bytes - before < part_bytes {
                return Ok(Self { bytes, sha256: whole.finalize().into(), parts });
            }
        }
    }
}

/// A document that is larger than any that we write.
fn too_large(what: &str, most: u64) -> StorageError {
    StorageError::stop(what, format!("it has more than {most} bytes; move it away, it is not ours"))
}

/// What a failure to read a file of ours means for its delivery.
fn unreadable(what: &str, file: &Path, error: &io::Error) -> StorageError {
    let why = format!("{} cannot be read: {error}", file.display());
    match error.kind() {
        io::ErrorKind::NotFound => StorageError::give_up(what, why),
        _ => StorageError::retry(what, why),
    }
}

/// That a file of ours is no longer what it was.
fn changed(what: &str, file: &Path) -> StorageError {
    let why = format!("{} is not what it was when it was made; not delivered", file.display());
    StorageError::give_up(what, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::remedy::Remedy;

    #[test]
    fn keys_that_would_leave_the_folder_are_refused() {
        let sound = ["a", "sessions/2026-01-02/x/labels/0/c/0/0/0", ".reticle/probe-box"];
        for key in sound {
            assert!(check_key(key).is_ok(), "{key}");
        }
        let long = "k".repeat(KEY_BYTES + 1);
        for key in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\nb", "a.tmp", &long] {
            let error = check_key(key).expect_err(key);
            assert_eq!(error.remedy, Remedy::GiveUp, "{key}");
        }
    }

    #[test]
    fn a_file_is_hashed_as_a_whole_and_in_parts() {
        let text = b"0123456789";
        let sha = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let hashed = Hashed::read(&text[..], 4).unwrap();
        assert_eq!(hashed.bytes, 10);
        assert_eq!(hashed.sha256, sha(text));
        assert_eq!(hashed.parts, [sha(b"0123"), sha(b"4567"), sha(b"89")]);
        let even = Hashed::read(&text[..8], 4).unwrap();
        assert_eq!(even.parts, [sha(b"0123"), sha(b"4567")], "no empty part at the end");
        assert!(Hashed::read(&b""[..], 4).unwrap().parts.is_empty());
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_by_its_key() {
        for to in ["", "file:", "ftp://lab", "s3://", "s3:///prefix", "archive"] {
            let options = Location { to: to.to_owned(), ..Location::default() };
            let clock = Clock::manual(0);
            let throttle = Throttle::new(0, clock.clone());
            let error = ObjectStorage::open(&options, Path::new("/data"), throttle, clock)
                .await
                .expect_err(to);
            assert_eq!(error.remedy, Remedy::Stop, "{to}");
            assert!(error.to_string().contains("sync.archive.to"), "{error}");
        }
    }

    #[tokio::test]
    async fn none_is_no_archive_and_a_folder_is_below_the_data_folder() {
        let open = async |to: &str| {
            let options = Location { to: to.to_owned(), ..Location::default() };
            let clock = Clock::manual(0);
            let throttle = Throttle::new(0, clock.clone());
            ObjectStorage::open(&options, Path::new("/data"), throttle, clock).await.unwrap()
        };
        assert!(open("none").await.is_none());
        assert_eq!(open("file:archive").await.unwrap().name(), "file:/data/archive");
        assert_eq!(open("file:/srv/lab").await.unwrap().name(), "file:/srv/lab");
    }
}
