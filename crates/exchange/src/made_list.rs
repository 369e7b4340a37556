//! The list of what was made in a folder: a file that is only added to, one JSON document a line.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use reticle_base::durable;

/// Name of the list.
pub const LIST: &str = ".reticle-made";

/// One line of the list.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    file: Cow<'a, str>,
    /// None where the file was only begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Whether it has its name before it is whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    grows: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<Cow<'a, str>>,
}

/// What the list says of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Of all contents that it was given.
    pub(super) hashes: HashSet<String>,
    /// Whether it has its name before it is whole.
    pub(super) grows: bool,
    pub(super) of: Option<String>,
}

/// The list's file, once it is needed.
pub(crate) struct List {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl List {
    /// The one at `path`, which nothing is written to yet.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(None) }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lists a file: that it is begun, or what it will hold.
    pub(crate) fn add(
        &self,
        file: &str,
        of: Option<&str>,
        sha256: Option<&[u8; 32]>,
    ) -> io::Result<()> {
        let (sha256, of) = (sha256.map(hex::encode), of.map(Into::into));
        self.append(&Line { file: file.into(), sha256, grows: false, of })
    }

    /// Lists a file that has its name before it is whole.
    pub(super) fn add_growing(&self, file: &str) -> io::Result<()> {
        self.append(&Line { file: file.into(), sha256: None, grows: true, of: None })
    }

    fn append(&self, line: &Line<'_>) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let mut list = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *list {
            Some(file) => file,
            none => none.insert(self.open()?),
        };
        // One write: two processes on a file system without locks do not mix their lines.
        file.write_all(text.as_bytes())?;
        file.sync_data()
    }

    fn open(&self) -> io::Result<File> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.path)?;
        if file.metadata()?.len() > 0 {
            // A kill may have left half a line.
            file.write_all(b"\n")?;
        }
        durable::sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(file)
    }

    pub(super) fn clear(&self) -> io::Result<()> {
        let mut list = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        *list = None;
        match OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.path)
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => {
                let file = opened?;
                file.set_len(0)?;
                file.sync_all()
            }
        }
    }
}

/// What the list says; the last line may be half a one, and others may be somebody's.
pub(super) fn parse(bytes: &[u8]) -> BTreeMap<String, Known> {
    let mut files: BTreeMap<String, Known> = BTreeMap::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { continue };
        // A list that somebody wrote leads nowhere else.
        let is_below = Path::new(&*line.file)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !is_below {
            continue;
        }
        let known = files.entry(line.file.into_owned()).or_default();
        known.hashes.extend(line.sha256);
        known.grows |= line.grows;
        known.of = line.of.map(Cow::into_owned).or(known.of.take());
    }
    files
}
