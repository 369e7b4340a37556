//! Files that others made, opened so that none of them can hang this program or fill its memory.
//!
//! 1. Only a regular file is opened. A pipe would wait for its writer, and a device has no end.
//! 2. What kind of file it is, is asked of the open file and not of its name: nobody can put
//!    another in its place meanwhile.
//! 3. A limit of bytes is checked before the first byte is read, and kept while it is read,
//!    because a file may grow.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Bytes of the small files that a configuration names (certificates, keys, passwords) and of
/// checksums: the bundle of all CAs of a Linux has 250,000.
pub const SMALL_BYTES: u64 = 4 << 20;

/// Why a file of others' making was not opened or read. The text goes on from its name.
#[derive(Debug, thiserror::Error)]
pub enum ForeignFileError {
    /// The operating system refused.
    #[error("{0}")]
    Unreadable(io::Error),
    /// A folder, a pipe, a device, or a link where links are not followed.
    #[error("is no regular file (but a folder, pipe, device or link); give a plain file")]
    NotAFile,
    /// Larger than whatever reads it can use.
    #[error("has {bytes} bytes, and {limit} are the most that are read of such a file")]
    TooLarge {
        /// Its size as far as it is known.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

impl From<ForeignFileError> for io::Error {
    fn from(error: ForeignFileError) -> Self {
        match error {
            ForeignFileError::Unreadable(error) => error,
            ForeignFileError::NotAFile => Self::new(io::ErrorKind::InvalidInput, error),
            ForeignFileError::TooLarge { .. } => Self::new(io::ErrorKind::FileTooLarge, error),
        }
    }
}

/// Whether the last part of a path may be a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    Followed,
    Refused,
}

/// Opens the regular file at `path`, which has at most `limit` bytes. A link is followed.
///
/// # Errors
/// When there is none, it is something else, or it is larger.
pub fn open(path: &Path, limit: u64) -> Result<File, ForeignFileError> {
    open_with(path, limit, Links::Followed)
}

/// As [`open`], for the whole contents.
///
/// # Errors
/// As [`open`], and when it cannot be read to its end.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ForeignFileError> {
    read_all(open(path, limit)?, limit)
}

/// As [`read`], for text in UTF-8, with errors as [`std::fs::read_to_string`] has them.
///
/// # Errors
/// As [`read`], and of the kind `InvalidData` where it is no such text.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// As [`read`], and `path` itself may not be a link.
///
/// # Errors
/// As [`read`].
pub fn read_no_link(path: &Path, limit: u64) -> Result<Vec<u8>, ForeignFileError> {
    read_all(open_with(path, limit, Links::Refused)?, limit)
}

fn open_with(path: &Path, limit: u64, links: Links) -> Result<File, ForeignFileError> {
    // Without `NONBLOCK` a pipe's open waits for its writer; a regular file does not care.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if links == Links::Refused {
        flags |= OFlags::NOFOLLOW;
    }
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
        // A link that is not followed; a socket.
        Some(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => ForeignFileError::NotAFile,
        _ => ForeignFileError::Unreadable(error),
    })?;
    let meta = file.metadata().map_err(ForeignFileError::Unreadable)?;
    if !meta.is_file() {
        return Err(ForeignFileError::NotAFile);
    }
    if meta.len() > limit {
        return Err(ForeignFileError::TooLarge { bytes: meta.len(), limit });
    }
    Ok(file)
}

fn read_all(file: File, limit: u64) -> Result<Vec<u8>, ForeignFileError> {
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(ForeignFileError::Unreadable)?;
    let length = bytes.len() as u64;
    if length > limit {
        return Err(ForeignFileError::TooLarge { bytes: length, limit });
    }
    Ok(bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let socket = folder.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        for path in [pipe.as_path(), &socket, folder.path(), Path::new("/dev/zero")] {
            let error = read(path, 10).unwrap_err();
            assert!(matches!(error, ForeignFileError::NotAFile), "{path:?}: {error:?}");
        }
        let missing = read(&folder.path().join("none"), 10).unwrap_err();
        assert!(matches!(missing, ForeignFileError::Unreadable(_)), "{missing:?}");
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        let error = read(&path, 4).unwrap_err();
        assert!(matches!(error, ForeignFileError::TooLarge { bytes: 5, limit: 4 }), "{error:?}");
        // As long as the kernel says 0 and gives more, as files of /proc do.
        let status = read(Path::new("/proc/self/status"), 16).unwrap_err();
        assert!(matches!(status, ForeignFileError::TooLarge { .. }), "{status:?}");
    }

    #[test]
    fn a_link_is_followed_only_where_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        std::fs::write(&path, b"a").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 1).unwrap(), b"a");
        assert!(matches!(read_no_link(&link, 1), Err(ForeignFileError::NotAFile)));
        assert_eq!(read_no_link(&path, 1).unwrap(), b"a");
    }
}
