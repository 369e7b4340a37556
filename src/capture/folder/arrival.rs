//! A file of the watched folder that is to be read, and what tells one state of it from another.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::whole::Left;

/// A file that is to be read.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) name: OsString,
    /// Pages of it that were given before it grew.
    pub(super) skip_pages: usize,
    /// What it was when it was found whole; `None` when it is read as it is.
    pub(super) version: Option<Version>,
    /// How its writer left it.
    pub(super) left: Left,
    /// Since when nobody has changed it, in monotonic nanoseconds: may be before the clock began.
    pub(super) still_since_ns: i128,
}

impl Arrival {
    /// A file that is read as it is, in full.
    pub(super) fn whole(name: OsString) -> Self {
        let left = Left::Renamed;
        Self { name, skip_pages: 0, version: None, left, still_since_ns: i128::MIN }
    }

    /// Size and time of change when it was found whole.
    pub(super) fn facts(&self) -> Option<(u64, i64)> {
        self.version.map(|version| (version.size, version.modified_ns))
    }
}

/// Size and time of change of a file that is there.
pub(super) fn version_of(path: &Path) -> Option<(u64, i64)> {
    let metadata = std::fs::metadata(path).ok()?;
    metadata.is_file().then(|| facts_of(&metadata))
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified_ns: i64,
}

impl Version {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let (size, modified_ns) = facts_of(metadata);
        Self { inode: metadata.ino(), size, modified_ns }
    }

    /// Stands for the version in a set: 8 bytes a file, however long its name.
    pub(super) fn key(&self, name: &OsStr) -> u64 {
        let mut hasher = DefaultHasher::new();
        (name, self.inode, self.size, self.modified_ns).hash(&mut hasher);
        hasher.finish()
    }

    /// The same for [`super::memory::Memory`]: a share that is mounted again may number its inodes anew.
    pub(super) fn lasting_key(&self, name: &OsStr) -> u64 {
        lasting_key(name, self.size, self.modified_ns)
    }
}

pub(super) fn lasting_key(name: &OsStr, size: u64, modified_ns: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, size, modified_ns).hash(&mut hasher);
    hasher.finish()
}

/// Size and time of change in nanoseconds, of a file.
pub(super) fn facts_of(metadata: &std::fs::Metadata) -> (u64, i64) {
    let modified_ns =
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    // Years from 1677 to 2262; what is beyond is a file system's nonsense, and stays the same.
    let bound = |edge: i64| i128::from(edge);
    let modified_ns = modified_ns.clamp(bound(i64::MIN), bound(i64::MAX));
    (metadata.size(), i64::try_from(modified_ns).unwrap_or(i64::MAX))
}
